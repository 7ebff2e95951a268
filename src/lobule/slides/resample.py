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
    extent: tuple[int, int],
) -> NDArray[np.uint8]:
    """Output pixels ``first`` (x, y) to ``first + size`` of a grid; pixel i covers source ``[i·s, (i+1)·s)``.

    ``image`` (H, W, 3) uint8 is the piece of the source that starts at ``origin`` (x, y) and holds at least
    `needed_pixels`; ``extent`` (width, height) is the whole source, around which lies background. Along an
    axis with ``step`` ≥ 1 an output pixel is the mean of the source over its extent, parts of pixels counted
    as parts; with a finer step it lies on the line between the nearest two centers.
    """
    width, height = size
    starts = [_tidy_edge(first[axis] * step[axis]) for axis in (0, 1)]
    whole = all(part == int(part) and start == int(start) for part, start in zip(step, starts, strict=True))
    if whole:
        rx, ry = int(step[0]), int(step[1])
        x, y = int(starts[0]) - origin[0], int(starts[1]) - origin[1]
        piece = image[y : y + height * ry, x : x + width * rx]
        return _whole_means(np.ascontiguousarray(piece), rx, ry)
    rows = _along_rows(image, origin[1], first[1], height, step[1], extent[1])
    turned = np.ascontiguousarray(rows.transpose(1, 0, 2))
    columns = _along_rows(turned, origin[0], first[0], width, step[0], extent[0])
    return np.ascontiguousarray(np.rint(columns).clip(0, 255).astype(np.uint8).transpose(1, 0, 2))


def _whole_means(piece: NDArray[np.uint8], rx: int, ry: int) -> NDArray[np.uint8]:
    """Means of blocks of ``rx`` x ``ry`` pixels, rounded half up (Pillow's ``reduce`` cuts some off)."""
    if rx == ry == 1:
        return piece
    height, width = piece.shape[0] // ry, piece.shape[1] // rx
    # sums of a row of blocks, then of its columns; 257 full pixels no longer fit 16 bits
    wide = np.uint16 if rx * ry <= 256 else np.uint32
    sums = piece.reshape(height, ry, width * rx * 3).sum(axis=1, dtype=wide)
    blocks = sums.reshape(height, width, rx, 3)
    total = blocks[:, :, 0].astype(np.uint32)
    for column in range(1, rx):
        total += blocks[:, :, column]
    means: NDArray[np.uint8] = ((total + rx * ry // 2) // (rx * ry)).astype(np.uint8)
    return means


def _along_rows(
    image: NDArray[np.uint8] | NDArray[np.float64],
    origin: int,
    first: int,
    count: int,
    step: float,
    extent: int,
) -> NDArray[np.float64]:
    if step < UPSAMPLING_BELOW:
        centers = (first + np.arange(count) + 0.5) * step - 0.5
        # background does not bleed into the slide's last half pixel, nor the slide into the background
        inside = (centers >= -0.5) & (centers <= extent - 0.5)
        outside = np.where(centers < 0, np.minimum(centers, -1), np.maximum(centers, extent))
        centers = np.where(inside, centers.clip(0, extent - 1), outside) - origin
        low = np.minimum(np.floor(centers).astype(np.intp), image.shape[0] - 2)
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
