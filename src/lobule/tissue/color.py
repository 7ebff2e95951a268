"""Hue, saturation and value of an overview, and the color of its glass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Hsv", "extremes", "find_glass", "is_even", "to_hsv", "white_balanced"]


@dataclass(frozen=True, slots=True)
class Hsv:
    """Hexcone HSV, each (H, W): hue in degrees [0, 360) float32, saturation and value uint8 of 255."""

    hue: NDArray[np.float32]
    saturation: NDArray[np.uint8]
    value: NDArray[np.uint8]


def extremes(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The least and the largest channel of every pixel, each (H, W) uint8."""
    # ten times as fast as a reduction over an axis of three
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    return np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)


def to_hsv(rgb: NDArray[np.uint8]) -> Hsv:
    """HSV of a (H, W, 3) uint8 image; hue is 0 where the color is gray."""
    low, high = extremes(rgb)
    spread = high - low
    safe = np.maximum(spread, 1).astype(np.float32)
    red, green, blue = (rgb[..., c].astype(np.int16) for c in range(3))
    hue = (red - green) / safe + np.float32(4.0)
    chosen = high == rgb[..., 1]
    hue[chosen] = ((blue - red)[chosen]) / safe[chosen] + np.float32(2.0)
    chosen = high == rgb[..., 0]
    hue[chosen] = ((green - blue)[chosen]) / safe[chosen]
    hue *= np.float32(60.0)
    hue[hue < 0] += np.float32(360.0)
    hue[spread == 0] = 0.0
    # rounded to the nearest integer in integers, so that every machine agrees
    top = np.maximum(high, 1).astype(np.uint16)
    saturation = (spread.astype(np.uint32) * 255 + (top >> 1)) // top
    return Hsv(hue, saturation.astype(np.uint8), high)


def is_even(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where green hardly varies within 5 × 5 pixels, (H, W) bool: glass, not the fibers of stroma.

    By 10 of 255 at most, and by 3 once noise is averaged over 3 × 3 pixels.
    """
    from scipy import ndimage

    green = rgb[..., 1]
    smooth = ndimage.uniform_filter(green.astype(np.float32), 3, mode="nearest")
    even: NDArray[np.bool_] = (ndimage.maximum_filter(smooth, 5) - ndimage.minimum_filter(smooth, 5) <= 3) & (
        ndimage.maximum_filter(green, 5) - ndimage.minimum_filter(green, 5) <= 10
    )
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
    pixels = rgb[glass]
    brightness = pixels.sum(axis=1, dtype=np.int32)
    chosen = pixels[brightness >= np.median(brightness)]
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
