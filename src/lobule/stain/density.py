"""Optical density and its separation into stains (Ruifrok and Johnston 2001)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["RUIFROK_HE", "haematoxylin", "optical_density", "separate"]

RUIFROK_HE: NDArray[np.float64] = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
"""Optical densities of haematoxylin and eosin in R, G, B as Ruifrok and Johnston measured them."""

_DENSITY_OF = -np.log10(np.maximum(np.arange(256), 1) / 255.0)
_PIXELS_AT_ONCE = 1 << 20


def optical_density(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """−log10(I / 255) of every channel, the shape of ``rgb``, float32 from 0 to 2.41; level 0 counts as 1."""
    density: NDArray[np.float32] = _DENSITY_OF.astype(np.float32)[rgb]
    return density


def _unmixing(stains: NDArray[np.floating]) -> NDArray[np.float64]:
    """The matrix that takes a density (R, G, B) to the amounts of two stains and of what neither explains."""
    first, second = (np.asarray(stain, np.float64) / np.linalg.norm(stain) for stain in stains)
    residual = np.cross(first, second)
    norm = float(np.linalg.norm(residual))
    if not norm > 1e-6:
        raise ValueError("two stains of the same color cannot be separated")
    inverse: NDArray[np.float64] = np.linalg.inv(np.stack([first, second, residual / norm]))
    return inverse


def separate(rgb: NDArray[np.uint8], stains: NDArray[np.floating] = RUIFROK_HE) -> NDArray[np.float32]:
    """Amounts of two stains at every pixel, (H, W, 2) float32, in optical density along each stain's vector.

    rgb: (H, W, 3) uint8; stains: (2, 3), one stain's density in R, G, B a row, of any length. The third
    direction, perpendicular to both, takes up what neither explains. Amounts may be a little negative.
    Raises ValueError for another shape or stains that cannot be told apart.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or np.shape(stains) != (2, 3):
        raise ValueError(f"an image (H, W, 3) and stains (2, 3) are needed: {rgb.shape}, {np.shape(stains)}")
    inverse = _unmixing(stains)[:, :2].astype(np.float32)
    flat = np.ascontiguousarray(rgb).reshape(-1, 3)
    out = np.empty((len(flat), 2), np.float32)
    # by parts, so that a large image does not need its densities all at once
    for start in range(0, len(flat), _PIXELS_AT_ONCE):
        part = slice(start, start + _PIXELS_AT_ONCE)
        out[part] = optical_density(flat[part]) @ inverse
    return out.reshape(*rgb.shape[:2], 2)


def _haematoxylin_of_level() -> NDArray[np.float32]:
    """What each level of R, G and B adds to the amount of haematoxylin, (3, 256)."""
    added: NDArray[np.float32] = (_unmixing(RUIFROK_HE)[:, :1] * _DENSITY_OF).astype(np.float32)
    return added


_HAEMATOXYLIN_OF = _haematoxylin_of_level()


def haematoxylin(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Optical density of haematoxylin by color deconvolution, float32; negative amounts are 0.

    rgb: (..., 3) uint8, an image or any list of colors; the result has the shape without the last axis.
    Ruifrok and Johnston's vectors of H&E.
    """
    if rgb.shape[-1:] != (3,):
        raise ValueError(f"colors (..., 3) are needed: {rgb.shape}")
    amounts: NDArray[np.float32] = _HAEMATOXYLIN_OF[0].take(rgb[..., 0])
    amounts += _HAEMATOXYLIN_OF[1].take(rgb[..., 1])
    amounts += _HAEMATOXYLIN_OF[2].take(rgb[..., 2])
    np.maximum(amounts, np.float32(0.0), out=amounts)
    return amounts
