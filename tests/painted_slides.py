"""A painted slide with known answers: red squares are tumor, dark dots are nuclei, pale pink is tissue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

TISSUE = (225, 170, 205)
TUMOR = (230, 120, 100)
NUCLEUS = (80, 60, 120)
MPP = 0.5
SQUARES = [(256, 256, 768, 640), (1152, 512, 1536, 1024)]
"""The tumor squares of the painted slide, x0, y0, x1, y1 in level-0 px."""


def paint(
    size: tuple[int, int],
    squares: list[tuple[int, int, int, int]],
    dots: NDArray[np.integer] | None = None,
    *,
    margin: int = 128,
) -> NDArray[np.uint8]:
    """(height, width, 3): glass, tissue inside ``margin``, squares (x0, y0, x1, y1), dots (x, y) of radius 8 px."""
    width, height = size
    image = np.full((height, width, 3), 244, np.uint8)
    image[margin : height - margin, margin : width - margin] = TISSUE
    for x0, y0, x1, y1 in squares:
        image[y0:y1, x0:x1] = TUMOR
    if dots is not None:
        yy, xx = np.mgrid[-9:10, -9:10]
        disk = np.hypot(xx, yy) < 8
        for x, y in dots:
            view = image[y - 9 : y + 10, x - 9 : x + 10]
            view[disk] = NUCLEUS
    return image


def write_slide(path: Path, image: NDArray[np.uint8], *, levels: int = 3, mpp: float = MPP) -> Path:
    """A tiled, lossless pyramid (deflate) with right resolution tags, readable by OpenSlide."""
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for level in range(levels):
            step = 2**level
            height, width = (side // step * step for side in image.shape[:2])
            reduced = (
                image[:height, :width].reshape(height // step, step, width // step, step, 3).mean((1, 3))
            )
            writer.write(
                np.rint(reduced).astype(np.uint8),
                tile=(256, 256),
                compression="deflate",
                photometric="rgb",
                subfiletype=1 if level else 0,
                resolution=(10_000 / mpp / step, 10_000 / mpp / step),
                resolutionunit="CENTIMETER",
            )
    return path
