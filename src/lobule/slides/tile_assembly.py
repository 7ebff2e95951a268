"""From a picture stored in tiles or strips to a region of it, or to means of its blocks, tile by tile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from lobule.slides.resample import block_means
from lobule.slides.reused_memory import borrow, empty_pixels, fill
from lobule.slides.slide import RgbImage

__all__ = ["Use", "means_of_tiles", "pixels_of_tiles"]

Use = Literal["part", "whole", "result"]
"""What becomes of a tile: a part of it is used, and the rest soon; all that lies in the picture is used, at
once; it is the result itself and belongs to the caller."""

FetchTile = Callable[[int, int, Use], RgbImage]
"""(row, column, use) → the tile, at least as large as its part of the picture. Not written to, and used up
before the next is fetched, unless its use is "result"."""

Pair = tuple[int, int]


def pixels_of_tiles(fetch: FetchTile, picture: Pair, tile: Pair, origin: Pair, size: Pair) -> RgbImage:
    """A region (origin, size as x, y) that lies inside a ``picture`` (width, height) of ``tile``s of a size."""
    (x0, y0), (width, height) = origin, size
    tile_width, tile_height = tile
    if x0 % tile_width == 0 and y0 % tile_height == 0 and size == tile:
        found = fetch(y0 // tile_height, x0 // tile_width, "result")
        return np.ascontiguousarray(found[:height, :width])
    x1, y1 = x0 + width, y0 + height
    result = empty_pixels(height, width)
    for row in range(y0 // tile_height, -(-y1 // tile_height)):
        top = row * tile_height
        ay, by = max(y0, top), min(y1, top + tile_height)
        all_rows = ay == top and by == min(top + tile_height, picture[1])
        for column in range(x0 // tile_width, -(-x1 // tile_width)):
            left = column * tile_width
            ax, bx = max(x0, left), min(x1, left + tile_width)
            whole = all_rows and ax == left and bx == min(left + tile_width, picture[0])
            found = fetch(row, column, "whole" if whole else "part")
            result[ay - y0 : by - y0, ax - x0 : bx - x0] = found[ay - top : by - top, ax - left : bx - left]
    return result


def means_of_tiles(
    fetch: FetchTile,
    picture: Pair,
    tile: Pair,
    first: Pair,
    size: Pair,
    factor: Pair,
    background: tuple[int, int, int],
) -> RgbImage | None:
    """Means of blocks of ``factor`` pixels, rounded half up: blocks ``first`` to ``first + size``, (x, y).

    Block (i, j) begins at pixel (i·fx, j·fy) of the picture, around which lies background. Every tile is
    averaged while it is in the processor's cache. None where a block would lie in two tiles.
    """
    (rx, ry), (width, height), (tile_width, tile_height) = factor, size, tile
    if (tile_width % rx and tile_width < picture[0]) or (tile_height % ry and tile_height < picture[1]):
        return None
    x0, y0 = first[0] * rx, first[1] * ry
    x1, y1 = x0 + width * rx, y0 + height * ry
    result = np.empty((height, width, 3), np.uint8)
    inside_x0, inside_y0 = max(x0, 0), max(y0, 0)
    inside_x1, inside_y1 = min(x1, picture[0]), min(y1, picture[1])
    if inside_x1 <= inside_x0 or inside_y1 <= inside_y0:
        fill(result, background)
        return result
    touched_rows = slice((inside_y0 - y0) // ry, -(-(inside_y1 - y0) // ry))
    touched_columns = slice((inside_x0 - x0) // rx, -(-(inside_x1 - x0) // rx))
    for outside in (
        result[: touched_rows.start],
        result[touched_rows.stop :],
        result[touched_rows, : touched_columns.start],
        result[touched_rows, touched_columns.stop :],
    ):
        fill(outside, background)
    for row in range(inside_y0 // tile_height, -(-inside_y1 // tile_height)):
        top = row * tile_height
        ay, by = max(inside_y0, top), min(inside_y1, top + tile_height)
        all_rows = ay == top and by == min(top + tile_height, picture[1])
        rows = slice((ay - y0) // ry, -(-(by - y0) // ry))
        for column in range(inside_x0 // tile_width, -(-inside_x1 // tile_width)):
            left = column * tile_width
            ax, bx = max(inside_x0, left), min(inside_x1, left + tile_width)
            whole = all_rows and ax == left and bx == min(left + tile_width, picture[0])
            found = fetch(row, column, "whole" if whole else "part")
            piece = found[ay - top : by - top, ax - left : bx - left]
            block_means(
                _filled_up(piece, rx, ry, background),
                rx,
                ry,
                result[rows, (ax - x0) // rx : -(-(bx - x0) // rx)],
            )
    return result


def _filled_up(piece: RgbImage, rx: int, ry: int, background: tuple[int, int, int]) -> RgbImage:
    """The last blocks of a picture reach into the background."""
    height, width = piece.shape[:2]
    if not (height % ry or width % rx):
        return piece
    filled = borrow("filled", (-(-height // ry) * ry, -(-width // rx) * rx, 3))
    fill(filled, background)
    filled[:height, :width] = piece
    return filled
