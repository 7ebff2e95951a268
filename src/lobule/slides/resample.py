"""Exact resampling of an image along its axes: area averages downwards, straight lines upwards."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["needed_pixels", "resample", "tidy_step"]

UPSAMPLING_BELOW = 1.0 - 1e-3
"""Steps from here to 1 are noise of stated mpp, not upsampling."""


def tidy_step(step: float) -> float:
    """The step without the noise of a division: 1.9999999996 means 2."""
    whole = round(step)
    return float(whole) if whole and abs(step - whole) <= 1e-9 * whole else step


def _tidy_edge(edge: float) -> float:
    whole = round(edge)
    return float(whole) if abs(edge - whole) < 1e-6 else edge


def needed_pixels(first: int, last: int, step: float) -> tuple[int, int]:
    """The half-open range of source pixels that output pixels ``first ≤ i < last`` of width ``step`` need."""
    low, high = _tidy_edge(first * step), _tidy_edge(last * step)
    if step < UPSAMPLING_BELOW:
        # a line runs between the two nearest pixel centers
        return math.floor(low - 0.5), math.ceil(high + 0.5) + 1
    return math.floor(low), math.ceil(high)


def resample(
    image: NDArray[np.uint8],
    origin: tuple[int, int],
    first: tuple[int, int],
    size: tuple[int, int],
    step: tuple[float, float],
) -> NDArray[np.uint8]:
    """Output pixels ``first`` (x, y) to ``first + size`` of a grid; pixel i covers source ``[i·s, (i+1)·s)``.

    ``image`` (H, W, 3) uint8 is the piece of the source that starts at ``origin`` (x, y) and holds at least
    `needed_pixels`. Along an axis with ``step`` ≥ 1 an output pixel is the mean of the source over its
    extent, parts of pixels counted as parts; with a finer step it lies on the line between the nearest two
    centers.
    """
    width, height = size
    starts = [_tidy_edge(first[axis] * step[axis]) for axis in (0, 1)]
    whole = all(part == int(part) and start == int(start) for part, start in zip(step, starts, strict=True))
    if whole:
        rx, ry = int(step[0]), int(step[1])
        x, y = int(starts[0]) - origin[0], int(starts[1]) - origin[1]
        piece = image[y : y + height * ry, x : x + width * rx]
        if rx == ry == 1:
            return np.ascontiguousarray(piece)
        import PIL.Image

        return np.asarray(PIL.Image.fromarray(np.ascontiguousarray(piece)).reduce((rx, ry)))
    rows = _along_rows(image, origin[1], first[1], height, step[1])
    turned = np.ascontiguousarray(rows.transpose(1, 0, 2))
    columns = _along_rows(turned, origin[0], first[0], width, step[0])
    return np.ascontiguousarray(np.rint(columns).clip(0, 255).astype(np.uint8).transpose(1, 0, 2))


def _along_rows(
    image: NDArray[np.uint8] | NDArray[np.float64], origin: int, first: int, count: int, step: float
) -> NDArray[np.float64]:
    if step < UPSAMPLING_BELOW:
        centers = (first + np.arange(count) + 0.5) * step - 0.5 - origin
        low = np.floor(centers).astype(np.intp)
        weight = (centers - low)[:, None, None]
        between: NDArray[np.float64] = image[low] * (1.0 - weight) + image[low + 1] * weight
        return between
    edges = (first + np.arange(count + 1)) * step
    edges = np.where(np.abs(edges - np.rint(edges)) < 1e-6, np.rint(edges), edges) - origin
    # the integral up to a place inside a pixel lies on the line between the sums at its two sides
    sums = np.zeros(
        (image.shape[0] + 1, *image.shape[1:]), np.float64 if image.dtype != np.uint8 else np.uint32
    )
    np.cumsum(image, axis=0, out=sums[1:])
    low = np.floor(edges).astype(np.intp)
    high = np.minimum(low + 1, image.shape[0])
    weight = (edges - low)[:, None, None]
    integral = sums[low] * (1.0 - weight) + sums[high] * weight
    means: NDArray[np.float64] = np.diff(integral, axis=0) / step
    return means
