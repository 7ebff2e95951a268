"""How sharp a tile is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["SHARP_FROM", "sharpness"]

SHARP_FROM = 0.3
"""Tiles of at least this sharpness are in focus (measured: docs/concepts/tissue.md)."""

# gray levels of 255; less is empty glass or even fat, where there is nothing to focus on
_LEAST_CONTRAST = 1.5
# a spectrum of 128 px a side costs a third of that of 256 and tells nearly the same
_SIDE_PX = 128


@dataclass(frozen=True, eq=False)
class _Spectrum:
    """What the power of a square's frequencies takes: ``window`` (side, side), a Hann window of unit power; ``waves``
    (side, side), the cosines and sines of each frequency along a row; ``fine`` and ``middle`` (side, side), the two
    bands' shares of each pair of waves."""

    window: NDArray[np.float32]
    waves: NDArray[np.float32]
    fine: NDArray[np.float32]
    middle: NDArray[np.float32]

    @staticmethod
    @lru_cache(maxsize=4)
    def of(side: int) -> _Spectrum:
        places = np.arange(side)
        cosines, sines = np.arange(side // 2 + 1), np.arange(1, (side + 1) // 2)
        turns = 2 * np.pi / side * places
        waves = np.concatenate([np.cos(cosines[:, None] * turns), np.sin(sines[:, None] * turns)])
        number = np.concatenate([cosines, sines])
        frequency = np.hypot(number[:, None], number) / side
        # a frequency stands for its mirror image too, where that is another
        twice = np.where((number == 0) | (2 * number == side), 1.0, 2.0)

        def passed(sigma_px: float) -> NDArray[np.float64]:
            gain: NDArray[np.float64] = np.exp(-2 * (np.pi * sigma_px * frequency) ** 2)
            return gain

        hann = 0.5 - 0.5 * np.cos(turns)
        window = np.outer(hann, hann)
        window /= np.sqrt((window**2).mean()) * side * side
        each = np.outer(twice, twice)
        fine, middle = (1 - passed(0.8)) ** 2 * each, (passed(1.6) - passed(3.2)) ** 2 * each
        return _Spectrum(*(values.astype(np.float32) for values in (window, waves, fine, middle)))


def sharpness(tiles: NDArray[np.uint8], mpp: float) -> NDArray[np.float64]:
    """The finest detail of each tile relative to its next coarser detail, (N,), pure numbers from 0 to about 2.

    tiles: (N, H, W, 3) uint8 RGB; mpp: their micrometers per pixel. Tiles finer than 1 mpp are averaged to about
    1 mpp first; of large tiles the middle 128 µm speak. The measure is the ratio of the standard deviations
    of two bands of green (the channel in which both stains absorb): what a Gaussian of 0.8 px takes away,
    and what lies between Gaussians of 1.6 and 3.2 px, both read from the power spectrum under a Hann window.
    Blur empties the first band before the second; stain strength and contrast cancel.
    nan where a tile is nearly empty or under 16 px a side. What a tile gives does not depend on those beside it:
    they are looked at together because each step of NumPy costs a thread its turn. Raises ValueError for another
    shape.
    """
    if tiles.ndim != 4 or tiles.shape[3] != 3:
        raise ValueError(f"tiles are (N, H, W, 3), not {tiles.shape}")
    factor = max(1, round(1.0 / mpp))
    count, height, width = tiles.shape[:3]
    side = min(height // factor, width // factor, _SIDE_PX)
    if side < 16:
        return np.full(count, math.nan)
    top, left = (height - side * factor) // 2, (width - side * factor) // 2
    green = tiles[:, top : top + side * factor, left : left + side * factor, 1].astype(np.float32)
    if factor > 1:
        green = green.reshape(count, side, factor, side, factor).mean(axis=(2, 4))
    spectrum = _Spectrum.of(side)
    green -= green.reshape(count, -1).mean(axis=1)[:, None, None]
    green *= spectrum.window
    # products with 128 waves are done three times as soon as NumPy's transform of single precision
    power = np.matmul(spectrum.waves, np.matmul(green, spectrum.waves.T)) ** 2
    within = [(power * band).reshape(count, -1).sum(axis=1) for band in (spectrum.fine, spectrum.middle)]
    contrast, detail = np.sqrt(np.stack(within[::-1]).astype(np.float64))
    seen = contrast >= _LEAST_CONTRAST
    ratio: NDArray[np.float64] = np.where(seen, detail / np.where(seen, contrast, 1.0), math.nan)
    return ratio
