"""Exact resampling of an image along its axes: area averages downwards, straight lines upwards."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lobule.slides.reused_memory import borrow

__all__ = ["block_means", "needed_pixels", "resample", "tidy_step"]

UPSAMPLING_BELOW = 1.0 - 1e-3
"""Steps from here to 1 are noise of stated mpp, not upsampling."""

IN_CACHE = 98_304
"""Values worked on at a time: several arrays of so many stay in a core's own cache."""


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
    if all(part == int(part) and start == int(start) for part, start in zip(step, starts, strict=True)):
        rx, ry = int(step[0]), int(step[1])
        x, y = int(starts[0]) - origin[0], int(starts[1]) - origin[1]
        piece = image[y : y + height * ry, x : x + width * rx]
        if rx == ry == 1:
            return np.ascontiguousarray(piece)
        means = np.empty((height, width, 3), np.uint8)
        block_means(piece, rx, ry, means)
        return means
    rows, row_shares = _shares(origin[1], first[1], height, step[1], extent[1], image.shape[0])
    columns, column_shares = _shares(origin[0], first[0], width, step[0], extent[0], image.shape[1])
    return _weighted_means(image, rows, row_shares, columns, column_shares)


def block_means(piece: NDArray[np.uint8], rx: int, ry: int, out: NDArray[np.uint8]) -> None:
    """Means of blocks of ``rx`` x ``ry`` pixels, rounded half up (Pillow's ``reduce`` cuts some off).

    ``piece`` (height·ry, width·rx, 3) and ``out`` (height, width, 3) may be parts of larger pictures.
    """
    if rx == ry == 1:
        out[...] = piece
        return
    height, width = out.shape[:2]
    count = rx * ry
    # 257 full pixels no longer fit 16 bits
    wide = np.uint16 if count <= 256 else np.uint32
    if piece.strides[1:] != (3, 1):
        piece = np.ascontiguousarray(piece)
    lines = piece.reshape(height * ry, width * rx * 3)
    at_a_time = max(1, IN_CACHE // (width * rx * 3))
    for top in range(0, height, at_a_time):
        rows = min(at_a_time, height - top)
        values = rows * width * rx * 3
        # sums of the rows of each block, then of pixels beside each other: everywhere, in one go, though one in
        # rx is wanted (what lies behind the last pixel counts in none of those), then the wanted ones
        part = lines[top * ry : (top + rows) * ry].reshape(rows, ry, width * rx * 3)
        store = borrow("block rows", (values + 3 * (rx - 1),), wide)
        sums = store[:values].reshape(rows, width * rx * 3)
        if ry == 1:
            np.copyto(sums, part[:, 0])
        else:
            np.add(part[:, 0], part[:, 1], out=sums, dtype=wide)
        for row in range(2, ry):
            np.add(sums, part[:, row], out=sums)
        if rx > 1:
            beside = borrow("blocks everywhere", (values,), wide)
            np.add(store[:values], store[3 : values + 3], out=beside)
            for column in range(2, rx):
                np.add(beside, store[3 * column : values + 3 * column], out=beside)
            blocks = beside.reshape(rows, width, rx * 3)
            total = borrow("blocks", (rows, width, 3), wide)
            for channel in range(3):
                total[..., channel] = blocks[..., channel]
        else:
            total = sums.reshape(rows, width, 3)
        np.add(total, count // 2, out=total)
        if count & (count - 1):
            np.floor_divide(total, count, out=total)
        else:
            np.right_shift(total, count.bit_length() - 1, out=total)
        np.copyto(out[top : top + rows], total, casting="unsafe")


def _shares(
    origin: int, first: int, count: int, step: float, extent: int, held: int
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Which of the ``held`` source pixels from ``origin`` make up each output pixel along an axis, and by what
    shares: two arrays (most pixels in one, count); what counts nothing has share 0 and some index."""
    if step < UPSAMPLING_BELOW:
        centers = (first + np.arange(count) + 0.5) * step - 0.5
        # background does not bleed into the slide's last half pixel, nor the slide into the background
        inside = (centers >= -0.5) & (centers <= extent - 0.5)
        outside = np.where(centers < 0, np.minimum(centers, -1), np.maximum(centers, extent))
        centers = np.where(inside, centers.clip(0, extent - 1), outside) - origin
        low = np.minimum(np.floor(centers).astype(np.intp), held - 2)
        above = centers - low
        return np.stack([low, low + 1]), np.stack([1.0 - above, above]).astype(np.float32)
    edges = (first + np.arange(count + 1)) * step
    edges = np.where(np.abs(edges - np.rint(edges)) < 1e-6, np.rint(edges), edges) - origin
    start, end = edges[:-1], edges[1:]
    low = np.floor(start).astype(np.intp)
    most = int((np.ceil(end).astype(np.intp) - low).max())
    pixels = low + np.arange(most)[:, None]
    covered = np.minimum(end, pixels + 1) - np.maximum(start, pixels)
    return pixels.clip(0, held - 1), (covered.clip(0.0, None) / step).astype(np.float32)


def _weighted_means(
    image: NDArray[np.uint8],
    rows: NDArray[np.intp],
    row_shares: NDArray[np.float32],
    columns: NDArray[np.intp],
    column_shares: NDArray[np.float32],
) -> NDArray[np.uint8]:
    """Sums of shares down the columns, then along the rows, a few rows of output at a time."""
    height, width = rows.shape[1], columns.shape[1]
    lines = np.ascontiguousarray(image).reshape(image.shape[0], -1)
    in_line = lines.shape[1]
    values = 3 * columns[:, :, None] + np.arange(3)
    value_index = values.reshape(len(columns), width * 3)
    value_shares = np.repeat(column_shares, 3, axis=1)
    down = row_shares[:, :, None]
    result = np.empty((height, width, 3), np.uint8)
    written = result.reshape(height, width * 3)
    at_a_time = max(1, IN_CACHE // max(in_line, width * 3) // 2)
    for top in range(0, height, at_a_time):
        bottom = min(top + at_a_time, height)
        count = bottom - top
        taken = borrow("taken rows", (count, in_line))
        product = borrow("weighted row", (count, in_line), np.float32)
        sums = borrow("rows", (count, in_line), np.float32)
        for tap in range(len(rows)):
            np.take(lines, rows[tap, top:bottom], axis=0, out=taken, mode="clip")
            if tap == 0:
                np.multiply(taken, down[tap, top:bottom], out=sums, dtype=np.float32)
            else:
                np.multiply(taken, down[tap, top:bottom], out=product, dtype=np.float32)
                np.add(sums, product, out=sums)
        picked = borrow("picked", (count, width * 3), np.float32)
        means = borrow("means", (count, width * 3), np.float32)
        for tap in range(len(columns)):
            if tap == 0:
                np.take(sums, value_index[tap], axis=1, out=means, mode="clip")
                np.multiply(means, value_shares[tap], out=means)
            else:
                np.take(sums, value_index[tap], axis=1, out=picked, mode="clip")
                np.multiply(picked, value_shares[tap], out=picked)
                np.add(means, picked, out=means)
        np.rint(means, out=means)
        np.copyto(written[top:bottom], means.clip(0, 255, out=means), casting="unsafe")
    return result
