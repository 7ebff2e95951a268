"""Polygons to pixels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lobule.geometry import WorkingFrame

if TYPE_CHECKING:
    from shapely import MultiPolygon, Polygon

__all__ = ["rasterize"]

# crossings of rows with edges, and pixels, that are held at once: some 70 and 20 bytes each
_MOST_CROSSINGS = 1_000_000
_MOST_PIXELS = 4_000_000


def rasterize(geometries: Iterable[Polygon | MultiPolygon], frame: WorkingFrame) -> NDArray[np.bool_]:
    """The working pixels whose center lies in any of the polygons, (H, W) bool on ``frame``.

    geometries: polygons in level-0 pixels, with or without holes; parts outside the frame are ignored.
    A center exactly on an edge belongs to the polygon on its right or below, so that polygons that share
    an edge share no pixel. Scan conversion by the parity of crossings, some rows of a polygon's box at a
    time, so that memory does not grow with edges times rows.
    """
    import shapely

    width, height = frame.size
    out = np.zeros((height, width), np.bool_)
    for polygon in shapely.get_parts(np.asarray(list(geometries), dtype=object)):
        if polygon.is_empty:
            continue
        rings = [polygon.exterior, *polygon.interiors]
        points = [frame.from_slide(np.asarray(ring.coords)[:, :2]) for ring in rings]
        begin = np.concatenate([ring[:-1] for ring in points])
        end = np.concatenate([ring[1:] for ring in points])
        low, high = begin.min(axis=0), begin.max(axis=0)
        x0, y0 = (max(0, int(np.ceil(v - 0.5))) for v in low)
        x1, y1 = min(width, int(np.ceil(high[0] - 0.5))), min(height, int(np.ceil(high[1] - 0.5)))
        if x0 < x1 and y0 < y1:
            _paint(out, begin, end, x0, y0, x1, y1)
    return out


def _paint(
    out: NDArray[np.bool_],
    begin: NDArray[np.float64],
    end: NDArray[np.float64],
    x0: int,
    y0: int,
    x1: int,
    y1: int,
) -> None:
    """Marks the pixels of the box whose centers an odd number of edges lies left of or on."""
    down = begin[:, 1] <= end[:, 1]
    top, bottom = np.where(down[:, None], begin, end), np.where(down[:, None], end, begin)
    # rows r with top.y ≤ r + 0.5 < bottom.y; a horizontal edge has none
    first = np.clip(np.ceil(top[:, 1] - 0.5), y0, y1).astype(np.int64)
    last = np.clip(np.ceil(bottom[:, 1] - 0.5), y0, y1).astype(np.int64)
    crossing = last > first
    top, bottom, first, last = top[crossing], bottom[crossing], first[crossing], last[crossing]
    change = np.bincount(first - y0, minlength=y1 - y0 + 1) - np.bincount(last - y0, minlength=y1 - y0 + 1)
    reached = np.cumsum(np.cumsum(change[:-1]))  # crossings in all rows up to this one
    most_rows = max(1, _MOST_PIXELS // (x1 - x0))
    start = y0
    while start < y1:
        before = int(reached[start - y0 - 1]) if start > y0 else 0
        fitting = y0 + int(np.searchsorted(reached, before + _MOST_CROSSINGS, side="right"))
        stop = min(max(fitting, start + 1), start + most_rows, y1)
        here = (first < stop) & (last > start)
        rows = np.maximum(first[here], start), np.minimum(last[here], stop)
        out[start:stop, x0:x1] |= _inside(top[here], bottom[here], *rows, x0, start, x1, stop)
        start = stop


def _inside(
    top: NDArray[np.float64],
    bottom: NDArray[np.float64],
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    x0: int,
    y0: int,
    x1: int,
    y1: int,
) -> NDArray[np.bool_]:
    """Pixels of the box by the edges from ``top`` to ``bottom``, each of which crosses rows first to last."""
    counts = last - first
    edge = np.repeat(np.arange(len(counts)), counts)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    part = (row + 0.5 - top[edge, 1]) / (bottom[edge, 1] - top[edge, 1])
    x = top[edge, 0] + part * (bottom[edge, 0] - top[edge, 0])
    column = np.clip(np.ceil(x - 0.5), x0, x1).astype(np.int64)
    width = x1 - x0 + 1
    crossings = np.bincount((row - y0) * width + column - x0, minlength=(y1 - y0) * width)
    parity = np.logical_xor.accumulate((crossings.reshape(y1 - y0, width) & 1).astype(np.bool_), axis=1)
    inside: NDArray[np.bool_] = parity[:, :-1]
    return inside
