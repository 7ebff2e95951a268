"""Algorithm 1 of Kasturi et al. 2022: three images of each field, in place of it.

In the paper's order: flip about the vertical axis (left to right), flip about the horizontal one (top to bottom),
rotation by 45 degrees, each at the field's own resolution; then each is brought to 512 × 512 px. The original is
not kept: 55 fields make 165 images.

What the paper leaves open: the rotation is counter-clockwise about the middle and keeps the field's size; corners
that it uncovers mirror the image and hold no nucleus. Images are sampled bilinearly from the four nearest pixels,
without a low-pass filter before: at the paper's factor of at most two every pixel still counts, and that is what
the usual resize of training libraries does. Labels take the nearest pixel's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["ALGORITHM_ONE_PX", "algorithm_one", "resize_bilinear", "resize_nearest", "rotate"]

ALGORITHM_ONE_PX = 512
_DEGREES = 45.0

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int32]


def algorithm_one(
    pixels: Pixels, instances: Labels, side_px: int = ALGORITHM_ONE_PX
) -> list[tuple[Pixels, Labels]]:
    """Returns (image, labels) flipped left to right, flipped top to bottom, and rotated by 45 degrees, in this order.

    pixels: (H, W, 3) uint8; instances: (H, W) int32. Each returned pair is ``side_px`` × ``side_px``, whatever the
    field's sides were. Raises ValueError where the two differ in size.
    """
    if pixels.shape[:2] != instances.shape:
        raise ValueError(
            f"an image of {pixels.shape[:2]} and labels of {instances.shape} do not belong together"
        )
    turned = [
        (pixels[:, ::-1], instances[:, ::-1]),
        (pixels[::-1], instances[::-1]),
        rotate(pixels, instances, _DEGREES),
    ]
    return [(resize_bilinear(p, side_px), resize_nearest(i, side_px)) for p, i in turned]


def rotate(pixels: Pixels, instances: Labels, degrees: float) -> tuple[Pixels, Labels]:
    """Returns both rotated counter-clockwise about the middle, same size; uncovered corners: mirrored, no nucleus."""
    height, width = instances.shape
    angle = np.deg2rad(degrees)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    middle_y, middle_x = np.float32((height - 1) / 2), np.float32((width - 1) / 2)
    y = np.arange(height, dtype=np.float32)[:, None] - middle_y
    x = np.arange(width, dtype=np.float32)[None, :] - middle_x
    # counter-clockwise on the screen (y down): where each pixel of the result comes from
    source_x = cos * x - sin * y + middle_x
    source_y = sin * x + cos * y + middle_y
    near_x, near_y = np.rint(source_x).astype(np.int64), np.rint(source_y).astype(np.int64)
    inside = (near_x >= 0) & (near_x < width) & (near_y >= 0) & (near_y < height)
    labels = np.zeros_like(instances)
    labels[inside] = instances[near_y[inside], near_x[inside]]
    return _sampled(pixels, _mirrored(source_y, height), _mirrored(source_x, width)), labels


def _mirrored(at: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Positions brought into [0, length - 1] by mirroring about the outermost pixels' centers."""
    if length == 1:
        return np.zeros_like(at)
    period = np.float32(2 * (length - 1))
    folded = np.abs(at) % period
    return np.minimum(folded, period - folded)


def _sampled(pixels: Pixels, rows: NDArray[np.float32], columns: NDArray[np.float32]) -> Pixels:
    """Bilinear samples of (H, W, 3) at positions within the image, (h, w, 3) uint8, rounded."""
    height, width = pixels.shape[:2]
    flat = np.ascontiguousarray(pixels).reshape(height * width, 3)
    out = np.empty((*rows.shape, 3), np.uint8)
    # by parts: four neighbors of every pixel in float32 would be 50 MB for a field
    for part in np.array_split(np.arange(rows.shape[0]), max(1, rows.size >> 17)):
        y, x = rows[part], columns[part]
        y0 = np.minimum(y.astype(np.int64), max(height - 2, 0))
        x0 = np.minimum(x.astype(np.int64), max(width - 2, 0))
        down, right = (y - y0)[..., None], (x - x0)[..., None]
        step_y, step_x = (width if height > 1 else 0), (1 if width > 1 else 0)
        corner = y0 * width + x0
        top = flat[corner] * (1 - right) + flat[corner + step_x] * right
        bottom = flat[corner + step_y] * (1 - right) + flat[corner + step_y + step_x] * right
        out[part] = np.rint(top + (bottom - top) * down).astype(np.uint8)
    return out


def _centers(length: int, side_px: int) -> NDArray[np.floating]:
    """Where the centers of ``side_px`` pixels lie among ``length`` over the same stretch."""
    return (np.arange(side_px) + 0.5) * (length / side_px) - 0.5


def resize_bilinear(pixels: Pixels, side_px: int) -> Pixels:
    """Returns (H, W, 3) as (side, side, 3), each pixel between the four nearest; no low-pass filter."""
    if pixels.shape[:2] == (side_px, side_px):
        return np.ascontiguousarray(pixels)
    out = pixels
    for axis in (0, 1):
        length = out.shape[axis]
        at = np.clip(_centers(length, side_px), 0, length - 1)
        first = np.minimum(at.astype(np.int64), max(length - 2, 0))
        second = np.minimum(first + 1, length - 1)
        share = (at - first).astype(np.float32).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        low, high = np.take(out, first, axis), np.take(out, second, axis)
        out = low + (high.astype(np.float32) - low) * share
    return np.rint(out).astype(np.uint8)


def resize_nearest(instances: Labels, side_px: int) -> Labels:
    """Returns (H, W) as (side, side): the label of the pixel that each center lies in."""
    if instances.shape == (side_px, side_px):
        return np.ascontiguousarray(instances)
    rows, columns = (
        np.clip(np.floor(_centers(length, side_px) + 0.5).astype(np.int64), 0, length - 1)
        for length in instances.shape
    )
    return np.ascontiguousarray(instances[np.ix_(rows, columns)])
