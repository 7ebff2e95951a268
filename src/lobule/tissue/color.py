"""Hue, saturation and value of an overview, and the color of its glass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Hsv", "find_glass", "is_even", "to_hsv", "white_balanced"]


@dataclass(frozen=True, slots=True)
class Hsv:
    """Hexcone HSV, each (H, W): hue in degrees [0, 360) float32, saturation and value uint8 of 255."""

    hue: NDArray[np.float32]
    saturation: NDArray[np.uint8]
    value: NDArray[np.uint8]


def to_hsv(rgb: NDArray[np.uint8]) -> Hsv:
    """HSV of a (H, W, 3) uint8 image; hue is 0 where the color is gray."""
    high, low = rgb.max(axis=2), rgb.min(axis=2)
    spread = high - low
    safe = np.maximum(spread, 1).astype(np.float32)
    red, green, blue = (rgb[..., c].astype(np.float32) for c in range(3))
    hue = np.where(
        high == rgb[..., 0],
        (green - blue) / safe,
        np.where(high == rgb[..., 1], (blue - red) / safe + 2.0, (red - green) / safe + 4.0),
    )
    hue = np.where(spread == 0, 0.0, (hue * 60.0) % 360.0).astype(np.float32)
    # rounded to the nearest integer in integers, so that every machine agrees
    top = np.maximum(high, 1).astype(np.uint16)
    saturation = (spread.astype(np.uint32) * 255 + top // 2) // top
    return Hsv(hue, saturation.astype(np.uint8), high)


def is_even(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where green varies by 5 of 255 at most within 5 × 5 pixels, (H, W) bool: glass, not fibers.

    Noise is averaged over 3 × 3 pixels first.
    """
    from scipy import ndimage

    green = ndimage.uniform_filter(rgb[..., 1].astype(np.float32), 3, mode="nearest")
    even: NDArray[np.bool_] = ndimage.maximum_filter(green, 5) - ndimage.minimum_filter(green, 5) <= 5
    return even


def find_glass(
    rgb: NDArray[np.uint8], hsv: Hsv, even: NDArray[np.bool_], unscanned: NDArray[np.bool_]
) -> tuple[float, float, float] | None:
    """The color of empty scanned glass (RGB, 0 to 255), or None where none can be told for sure.

    Glass is bright, nearly gray and even, and nothing beside dust and noise is brighter. It must make up
    2 % of what was scanned, so that a field full of pale tissue is not mistaken for it; of glass with the
    cast of a lamp, 25 %.
    """
    scanned = hsv.value[~unscanned]
    if scanned.size == 0:
        return None
    bright = max(200, int(np.percentile(scanned, 98)) - 16)
    candidates = even & (hsv.value >= bright) & (hsv.saturation < 64) & ~unscanned
    glass = candidates & (hsv.saturation < 28)
    if glass.sum() < 0.02 * scanned.size and candidates.sum() >= 0.25 * scanned.size:
        glass = candidates
    count = int(glass.sum())
    if count < 16 or count < 0.02 * int((~unscanned).sum()):
        return None
    # the brightest half: pale tissue that slipped in is darker than the glass beside it
    brightness = rgb[glass].sum(axis=1, dtype=np.int64)
    chosen = rgb[glass][brightness >= np.median(brightness)]
    red, green, blue = np.median(chosen, axis=0)
    return float(red), float(green), float(blue)


def white_balanced(rgb: NDArray[np.uint8], glass: tuple[float, float, float] | None) -> NDArray[np.uint8]:
    """The image with its glass made gray of the same brightness; unchanged where no glass is known."""
    if glass is None:
        return rgb
    table = np.empty((3, 256), np.uint8)
    for channel, level in enumerate(glass):
        gain = max(glass) / max(level, 1.0)
        table[channel] = np.minimum(np.rint(np.arange(256) * gain), 255)
    return np.stack([table[c][rgb[..., c]] for c in range(3)], axis=2)
