"""How sharp a tile is."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["SHARP_FROM", "sharpness"]

SHARP_FROM = 0.3
"""Tiles of at least this sharpness are in focus (measured: docs/concepts/tissue.md)."""

# gray levels of 255; less is empty glass or even fat, where there is nothing to focus on
_LEAST_CONTRAST = 1.5


def sharpness(tile: NDArray[np.uint8], mpp: float) -> float:
    """The finest detail of a tile relative to its next coarser detail, a pure number from 0 to about 2.

    tile: (H, W, 3) uint8 RGB; mpp: its micrometers per pixel. Tiles finer than 1 mpp are averaged to about
    1 mpp first. The measure is the ratio of the standard deviations of two bands of green (the channel in
    which both stains absorb): what a Gaussian of 0.8 px takes away, and what lies between Gaussians of
    1.6 and 3.2 px. Blur empties the first band before the second; stain strength and contrast cancel.
    Returns nan where the tile is nearly empty or under 16 px a side. Raises ValueError for another shape.
    """
    from scipy import ndimage

    if tile.ndim != 3 or tile.shape[2] != 3:
        raise ValueError(f"a tile is (H, W, 3), not {tile.shape}")
    factor = max(1, round(1.0 / mpp))
    height, width = tile.shape[0] // factor * factor, tile.shape[1] // factor * factor
    if min(height, width) < 16 * factor:
        return math.nan
    green = tile[:height, :width, 1].astype(np.float32)
    green = green.reshape(height // factor, factor, width // factor, factor).mean(axis=(1, 3))
    fine, middle, coarse = (
        ndimage.gaussian_filter(green, sigma, mode="reflect") for sigma in (0.8, 1.6, 3.2)
    )
    contrast = float((middle - coarse).std())
    if contrast < _LEAST_CONTRAST:
        return math.nan
    return float((green - fine).std()) / contrast
