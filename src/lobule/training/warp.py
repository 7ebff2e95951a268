"""Elastic deformation of a crop and its maps: a smooth random displacement, the same for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["displacement", "elastic", "warp"]

_NODE_PX = 32
"""Least distance of the points whose displacement is drawn; between them it is bilinear."""
_MOST_CELLS = 12

# a quarter of each neighbor and half of the node, twice: neighboring nodes move alike
_SMOOTH = np.array([1, 4, 6, 4, 1]) / 16


def elastic(
    images: Sequence[NDArray[Any]], largest_px: float, rng: np.random.Generator
) -> list[NDArray[Any]]:
    """Returns the images under one random deformation whose largest displacement is within ``largest_px``.

    images: arrays of one height and width: (H, W, 3) or (H, W). uint8 is sampled bilinearly (images, masks,
    distances), wider integers to the nearest pixel (labels). The strength is drawn too, uniformly up to
    ``largest_px``. What would come from beyond the border comes from the border. ``largest_px`` 0 changes nothing.
    """
    height, width = images[0].shape[:2]
    return warp(images, displacement((height, width), largest_px, rng))


def displacement(shape: tuple[int, int], largest_px: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draws a smooth displacement at the nodes of a mesh over an image of ``shape`` (height, width).

    Returns (rows + 1, columns + 1, 2) displacements (x, y) in pixels, whose longest is drawn uniformly from 0 to
    ``largest_px``. Neighboring nodes differ by less than half their distance, so that nothing folds over.
    """
    rows, columns = (min(_MOST_CELLS, max(1, round(length / _NODE_PX))) for length in shape)
    drawn = rng.normal(size=(rows + 5, columns + 5, 2))
    smooth = sum(w * drawn[i : i + rows + 1] for i, w in enumerate(_SMOOTH))
    smooth = sum(w * smooth[:, i : i + columns + 1] for i, w in enumerate(_SMOOTH))
    length = float(np.hypot(smooth[..., 0], smooth[..., 1]).max())
    wanted = float(rng.uniform(0, largest_px))
    moved: NDArray[np.float64] = smooth * (wanted / max(length, 1e-9))
    steps = [np.abs(np.diff(moved, axis=axis)).max(initial=0.0) for axis in (0, 1)]
    cell = (shape[0] / rows, shape[1] / columns)
    steepest = max(step / side for step, side in zip(steps, cell, strict=True))
    return moved * min(1.0, 0.49 / max(steepest, 1e-9))


def warp(images: Sequence[NDArray[Any]], moved: NDArray[np.float64]) -> list[NDArray[Any]]:
    """Returns the images with each pixel taken from where ``moved`` (as `displacement` gives it) points.

    Pillow rounds bilinear samples down, so images come out darker by half a level on average.

    Raises ValueError where the images differ in size or are neither uint8 nor integers.
    """
    from PIL import Image

    height, width = images[0].shape[:2]
    if any(image.shape[:2] != (height, width) for image in images):
        raise ValueError(f"images of one size are needed: {[image.shape[:2] for image in images]}")
    if any(not np.issubdtype(image.dtype, np.integer) for image in images):
        raise ValueError(f"integers are needed: {[image.dtype.name for image in images]}")
    if not moved.any():
        return [np.array(image) for image in images]
    mesh = _mesh((height, width), moved)
    out: list[NDArray[Any]] = [np.empty(0)] * len(images)
    planes: list[tuple[int, int, NDArray[np.uint8]]] = []
    for at, image in enumerate(images):
        if image.dtype != np.uint8:
            plane = Image.fromarray(np.ascontiguousarray(image, np.int32))
            turned = plane.transform((width, height), Image.Transform.MESH, mesh, Image.Resampling.NEAREST)
            out[at] = np.asarray(turned).astype(image.dtype)
        else:
            planes += (
                [(at, band, image[..., band]) for band in range(3)] if image.ndim == 3 else [(at, 0, image)]
            )
            out[at] = np.empty(image.shape, np.uint8)
    # four planes at a time: Pillow walks the mesh once for all bands of an image
    for start in range(0, len(planes), 4):
        some = planes[start : start + 4]
        packed = np.zeros((height, width, 4), np.uint8)
        for band, (_, _, values) in enumerate(some):
            packed[..., band] = values
        picture = Image.frombuffer("CMYK", (width, height), packed, "raw", "CMYK", 0, 1)
        done = np.asarray(
            picture.transform((width, height), Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)
        )
        for band, (at, own, _) in enumerate(some):
            (out[at][..., own] if out[at].ndim == 3 else out[at])[...] = done[..., band]
    return out


def _mesh(
    shape: tuple[int, int], moved: NDArray[np.float64]
) -> list[tuple[tuple[int, int, int, int], tuple[float, ...]]]:
    """Pillow's mesh: of each cell its box in the result and the corners it comes from (NW, SW, SE, NE)."""
    height, width = shape
    rows, columns = moved.shape[0] - 1, moved.shape[1] - 1
    y = np.round(np.linspace(0, height, rows + 1)).astype(int)
    x = np.round(np.linspace(0, width, columns + 1)).astype(int)
    # Pillow gives black beyond the outermost pixel areas
    source_x = np.clip(x[None, :] + moved[..., 0], 0.0, width - 1e-3).tolist()
    source_y = np.clip(y[:, None] + moved[..., 1], 0.0, height - 1e-3).tolist()
    at_x, at_y = x.tolist(), y.tolist()
    cells = []
    for i in range(rows):
        for j in range(columns):
            corners = ((i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1))
            quad = tuple(v for r, c in corners for v in (source_x[r][c], source_y[r][c]))
            cells.append(((at_x[j], at_y[i], at_x[j + 1], at_y[i + 1]), quad))
    return cells
