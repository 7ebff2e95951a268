"""Hue, saturation and value of an overview, and the color of its glass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Hsv",
    "bands",
    "extremes",
    "find_glass",
    "histogram",
    "is_even",
    "look_up",
    "quantile",
    "saturation_value",
    "to_hsv",
    "white_balanced",
]


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
    height, width = rgb.shape[:2]
    hue = np.empty((height, width), np.float32)
    saturation, value = np.empty((height, width), np.uint8), np.empty((height, width), np.uint8)
    for rows in bands(height, width):
        _hsv_of_band(rgb[rows], hue[rows], saturation[rows], value[rows])
    return Hsv(hue, saturation, value)


def bands(height: int, width: int) -> Iterator[slice]:
    """Rows of about 64,000 pixels at a time: what is computed in between stays in the processor's cache."""
    rows = max(1, 65_536 // max(width, 1))
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height))


def _hsv_of_band(
    rgb: NDArray[np.uint8],
    hue: NDArray[np.float32],
    saturation: NDArray[np.uint8],
    value: NDArray[np.uint8],
) -> None:
    low, high = extremes(rgb)
    value[...] = high
    spread = high - low
    red, green, blue = (rgb[..., c].astype(np.float32) for c in range(3))
    inverse = np.float32(60.0) / np.maximum(spread, 1).astype(np.float32)
    hue[...] = (red - green) * inverse + np.float32(240.0)
    np.copyto(hue, (blue - red) * inverse + np.float32(120.0), where=high == rgb[..., 1])
    np.copyto(hue, (green - blue) * inverse, where=high == rgb[..., 0])
    np.add(hue, np.float32(360.0), out=hue, where=hue < 0)
    np.copyto(hue, np.float32(0.0), where=spread == 0)
    _look_up_saturation(spread, high, saturation)


def saturation_value(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Saturation and value of `to_hsv` alone, in a quarter of the time."""
    height, width = rgb.shape[:2]
    saturation, value = np.empty((height, width), np.uint8), np.empty((height, width), np.uint8)
    for rows in bands(height, width):
        low, high = extremes(rgb[rows])
        value[rows] = high
        _look_up_saturation(high - low, high, saturation[rows])
    return saturation, value


def _saturations() -> NDArray[np.uint8]:
    """Saturation of 255 by (spread, value), rounded in integers, so that every machine agrees."""
    top = np.maximum(np.arange(256, dtype=np.uint32), 1)
    spread = np.arange(256, dtype=np.uint32)[:, None]
    table: NDArray[np.uint8] = np.minimum((spread * 255 + top // 2) // top, 255).astype(np.uint8)
    return table


_SATURATION_OF = _saturations().reshape(-1)


def _look_up_saturation(
    spread: NDArray[np.uint8], value: NDArray[np.uint8], saturation: NDArray[np.uint8]
) -> None:
    # one flat place each, which no check has to look at: a quarter of the time of an index of two axes
    place = spread.astype(np.intp)
    place <<= 8
    place |= value
    _SATURATION_OF.take(place, out=saturation, mode="wrap")


def look_up(table: NDArray[Any], values: NDArray[np.uint8]) -> NDArray[Any]:
    """``table[values]`` of a table with 256 entries, in a third of the time."""
    found: NDArray[Any] = table.take(values, mode="wrap")
    return found


def is_even(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where green hardly varies within 5 × 5 pixels, (H, W) bool: glass, not the fibers of stroma.

    By 10 of 255 at most, and by 3 once noise is averaged over 3 × 3 pixels.
    """
    height, width = rgb.shape[:2]
    even = np.empty((height, width), np.bool_)
    for rows in bands(height, width):
        # three rows around the band: two that the range looks at, one more for their means
        top, bottom = max(0, rows.start - 3), min(height, rows.stop + 3)
        found = _even_of_band(np.ascontiguousarray(rgb[top:bottom, :, 1]))
        even[rows] = found[rows.start - top : rows.stop - top]
    return even


def _even_of_band(green: NDArray[np.uint8]) -> NDArray[np.bool_]:
    framed = np.pad(green, 1, mode="edge").astype(np.uint16)
    rows = framed[:-2] + framed[1:-1] + framed[2:]
    sums = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    # means within 3 of each other: sums of nine pixels within 27
    even: NDArray[np.bool_] = (_range_of_5x5(sums) <= 27) & (_range_of_5x5(green) <= 10)
    return even


def _range_of_5x5(values: NDArray[Any]) -> NDArray[Any]:
    """Largest less smallest value within 5 × 5 pixels; the image is mirrored at its edge, edge pixel included."""
    framed = np.pad(values, 2, mode="symmetric") if min(values.shape) > 1 else np.pad(values, 2, mode="edge")

    def widest(choose: np.ufunc) -> NDArray[Any]:
        pairs = choose(framed[:-1], framed[1:])
        rows = choose(choose(pairs[:-3], pairs[2:-1]), framed[4:])
        pairs = choose(rows[:, :-1], rows[:, 1:])
        columns: NDArray[Any] = choose(choose(pairs[:, :-3], pairs[:, 2:-1]), rows[:, 4:])
        return columns

    spread: NDArray[Any] = widest(np.maximum) - widest(np.minimum)
    return spread


def histogram(values: NDArray[np.unsignedinteger]) -> NDArray[np.int64]:
    """How often each value from 0 to the largest occurs, (largest + 1,) int64; bytes always have 256."""
    flat = values.reshape(-1)
    size = 256 if values.dtype == np.uint8 else int(flat.max(initial=0)) + 1
    counts = np.zeros(size, np.int64)
    # numpy.bincount widens its input to 64 bits: piece by piece, so that the wide copy stays small
    for at in range(0, flat.size, 65_536):
        counts += np.bincount(flat[at : at + 65_536], minlength=size)
    return counts


def quantile(values: NDArray[np.unsignedinteger], share: float) -> float:
    """numpy.quantile (linear between the nearest two) of small whole numbers, from their histogram.

    Raises ValueError where there are none.
    """
    if values.size == 0:
        raise ValueError("there is no quantile of nothing")
    below = np.cumsum(histogram(values))
    place = share * (values.size - 1)
    whole = int(place)
    low, high = np.searchsorted(below, (whole, min(whole + 1, values.size - 1)), side="right")
    return float(low + (place - whole) * (high - low))


def find_glass(
    rgb: NDArray[np.uint8], even: NDArray[np.bool_], unscanned: NDArray[np.bool_]
) -> tuple[float, float, float] | None:
    """The color of empty scanned glass (RGB, 0 to 255), or None where none can be told for sure.

    Glass is bright, nearly gray and even, and nothing beside dust and noise is brighter. It must make up
    2 % of what was scanned, so that a field full of pale tissue is not mistaken for it; of glass with the
    cast of a lamp, 25 %.
    """
    glass = _glassy(rgb, even, unscanned)
    if glass is None:
        return None
    # the brightest half: pale tissue that slipped in is darker than the glass beside it; one channel at a time,
    # for a mask over a whole image would first become a list of places eight times its size
    channels = [rgb[..., channel][glass] for channel in range(3)]
    brightness = channels[0].astype(np.uint16) + channels[1] + channels[2]
    chosen = brightness >= quantile(brightness, 0.5)
    red, green, blue = (quantile(channel[chosen], 0.5) for channel in channels)
    return red, green, blue


def _glassy(
    rgb: NDArray[np.uint8], even: NDArray[np.bool_], unscanned: NDArray[np.bool_]
) -> NDArray[np.bool_] | None:
    """The pixels that look like glass, (H, W) bool; None where there are too few."""
    saturation, value = saturation_value(rgb)
    scanned = value.size - np.count_nonzero(unscanned)
    if scanned == 0:
        return None
    bright = max(200, int(quantile(value[~unscanned], 0.98)) - 16)
    candidates = value >= bright
    candidates &= even
    candidates &= saturation < 64
    candidates &= ~unscanned
    glass = candidates & (saturation < 28)
    if np.count_nonzero(glass) < 0.02 * scanned and np.count_nonzero(candidates) >= 0.25 * scanned:
        glass = candidates
    count = np.count_nonzero(glass)
    return None if count < 16 or count < 0.02 * scanned else glass


def white_balanced(rgb: NDArray[np.uint8], glass: tuple[float, float, float] | None) -> NDArray[np.uint8]:
    """The image with its glass made gray of the same brightness; unchanged where no glass is known.

    Each channel of a new image lies in one piece: what follows looks at channels, and NumPy at many bytes in a row at
    a time, but not at every third.
    """
    if glass is None:
        return rgb
    table = np.empty((3, 256), np.uint8)
    for channel, level in enumerate(glass):
        gain = max(glass) / max(level, 1.0)
        table[channel] = np.minimum(np.rint(np.arange(256) * gain), 255)
    balanced = np.empty((3, *rgb.shape[:2]), np.uint8).transpose(1, 2, 0)
    # NumPy looks bytes up by way of 64-bit places: band by band, so that these stay small
    for rows in bands(*rgb.shape[:2]):
        for channel in range(3):
            balanced[rows, :, channel] = look_up(table[channel], rgb[rows, :, channel])
    return balanced
