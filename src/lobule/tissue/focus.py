"""How sharp a tile is."""

from __future__ import annotations

import math
from collections.abc import Sequence
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


@lru_cache(maxsize=4)
def _spectrum_weights(side: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """(window, fine band, middle band): a Hann window of unit power and the bands' shares of a half spectrum."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])

    def passed(sigma_px: float) -> NDArray[np.float64]:
        gain: NDArray[np.float64] = np.exp(-2 * (np.pi * sigma_px * frequency) ** 2)
        return gain

    # a half spectrum holds all columns but the first, and the last of an even side, for two
    twice = np.full(frequency.shape[1], 2.0)
    twice[0] = 1.0
    if side % 2 == 0:
        twice[-1] = 1.0
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(side) / side)
    window = np.outer(hann, hann)
    window /= np.sqrt((window**2).mean())
    bands = ((1 - passed(0.8)) ** 2 * twice, (passed(1.6) - passed(3.2)) ** 2 * twice)
    return window.astype(np.float32), bands[0].astype(np.float32), bands[1].astype(np.float32)


def sharpness(tiles: Sequence[NDArray[np.uint8]], mpp: float) -> NDArray[np.float64]:
    """The finest detail of each tile relative to its next coarser detail, (N,), pure numbers from 0 to about 2.

    tiles: each (H, W, 3) uint8 RGB, all of one size; mpp: their micrometers per pixel. Tiles finer than 1 mpp are
    averaged to about 1 mpp first; of large tiles the middle 128 µm speak. The measure is the ratio of the standard
    deviations of two bands of green (the channel in which both stains absorb): what a Gaussian of 0.8 px takes away,
    and what lies between Gaussians of 1.6 and 3.2 px, both read from the power spectrum under a Hann window.
    Blur empties the first band before the second; stain strength and contrast cancel.
    nan where a tile is nearly empty or under 16 px a side. What a tile gives does not depend on those beside it:
    they are looked at together because each step of NumPy costs a thread its turn. Raises ValueError for other
    shapes.
    """
    if not len(tiles):
        return np.empty(0)
    shape = tiles[0].shape
    if len(shape) != 3 or shape[2] != 3 or any(tile.shape != shape for tile in tiles):
        raise ValueError(
            f"tiles are (H, W, 3), all of one size, not {', '.join({str(t.shape) for t in tiles})}"
        )
    factor = max(1, round(1.0 / mpp))
    count, (height, width) = len(tiles), shape[:2]
    side = min(height // factor, width // factor, _SIDE_PX)
    if side < 16:
        return np.full(count, math.nan)
    top, left = (height - side * factor) // 2, (width - side * factor) // 2
    green = np.empty((count, side * factor, side * factor), np.float32)
    for middle_of, tile in zip(green, tiles, strict=True):
        middle_of[...] = tile[top : top + side * factor, left : left + side * factor, 1]
    if factor > 1:
        green = green.reshape(count, side, factor, side, factor).mean(axis=(2, 4))
    window, fine, middle = _spectrum_weights(side)
    green -= green.reshape(count, -1).mean(axis=1)[:, None, None]
    green *= window
    # scaled by NumPy: its unscaled transform of float32 goes by float64, in seven times the time
    spectrum = np.fft.rfft2(green, norm="forward")
    power = spectrum.real**2 + spectrum.imag**2
    within = [(power * band).reshape(count, -1).sum(axis=1) for band in (fine, middle)]
    contrast, detail = np.sqrt(np.stack(within[::-1]).astype(np.float64))
    seen = contrast >= _LEAST_CONTRAST
    ratio: NDArray[np.float64] = np.where(seen, detail / np.where(seen, contrast, 1.0), math.nan)
    return ratio
