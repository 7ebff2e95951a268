"""Pixels to polygons."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lobule.annotations.parts import connected_parts

if TYPE_CHECKING:
    from shapely import Polygon

__all__ = ["polygons_from_mask"]

# the four sides of a pixel walked clockwise (y down): top, right, bottom, left
_AHEAD = ((0, 1), (1, 0), (0, -1), (-1, 0))
_DIAGONAL = ((-1, 1), (1, 1), (1, -1), (-1, -1))
_START = ((0, 0), (0, 1), (1, 1), (1, 0))


def polygons_from_mask(mask: NDArray[np.bool_], *, simplify_px: float = 0.0) -> list[Polygon]:
    """The 4-connected parts of a mask as polygons with holes, along pixel edges, in mask pixels.

    mask: (H, W) bool. A polygon's area is its number of pixels, and every polygon is valid, also where
    pixels touch at a corner only. In order of each part's first pixel, row by row. ``simplify_px`` > 0
    drops vertices that lie within that distance (Douglas-Peucker, topology kept); polygons stay valid but
    neighbors may then overlap by as much. Raises ValueError for another shape or type.
    """
    import shapely

    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ValueError(f"a mask is (H, W) bool, not {mask.shape} {mask.dtype}")
    parts = connected_parts(np.pad(mask, 1), diagonal=False)
    labels, count = parts.labels(), len(parts.area)
    shells: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    holes: list[list[list[tuple[int, int]]]] = [[] for _ in range(count)]
    for label, cycle in _cycles(labels):
        if _doubled_area(cycle) > 0:
            shells[label - 1] = cycle
        else:
            holes[label - 1].append(cycle)
    polygons = [shapely.Polygon(shell, inner) for shell, inner in zip(shells, holes, strict=True)]
    if simplify_px > 0:
        simple = shapely.simplify(polygons, simplify_px, preserve_topology=True)
        polygons = [
            new if new.is_valid and not new.is_empty else old
            for new, old in zip(simple, polygons, strict=True)
        ]
    return polygons


def _doubled_area(cycle: list[tuple[int, int]]) -> int:
    """Twice the signed area; positive where the cycle runs clockwise on the screen (y down)."""
    points = np.array(cycle, np.int64)
    after = np.roll(points, -1, axis=0)
    return int((points[:, 0] * after[:, 1] - after[:, 0] * points[:, 1]).sum())


def _cycles(labels: NDArray[np.integer]) -> list[tuple[int, list[tuple[int, int]]]]:
    """All boundaries of a label image that has an empty margin of 1: (label, corners (x, y)) of simple cycles.

    Each side of a pixel that faces the outside is walked clockwise around that pixel. Where two pixels of
    a part touch at a corner, the walk stays with its pixel, passes the corner twice and is parted there.
    """
    filled = labels > 0
    stride = labels.shape[1]
    rows_of, columns_of, places_of = [], [], []
    for side in range(4):
        # the neighbor that the side faces lies where the side before it heads
        dy, dx = _AHEAD[(side + 3) % 4]
        rows, columns = np.nonzero(filled & ~np.roll(filled, (-dy, -dx), (0, 1)))
        rows_of.append(rows)
        columns_of.append(columns)
        places_of.append(rows * stride + columns)
    sides_of = [np.full(len(rows), side) for side, rows in enumerate(rows_of)]
    first_of = np.cumsum([0, *(len(places) for places in places_of)])
    total = int(first_of[-1])

    def number(side: int, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.intp]:
        # right where there is such a side; it is chosen nowhere else
        found: NDArray[np.intp] = first_of[side] + np.searchsorted(places_of[side], rows * stride + columns)
        return found

    next_of = []
    for side in range(4):
        rows, columns = rows_of[side], columns_of[side]
        ahead = rows + _AHEAD[side][0], columns + _AHEAD[side][1]
        diagonal = rows + _DIAGONAL[side][0], columns + _DIAGONAL[side][1]
        turn, straight = number((side + 1) % 4, rows, columns), number(side, *ahead)
        back = number((side + 3) % 4, *diagonal)
        next_of.append(np.where(~filled[ahead], turn, np.where(filled[diagonal], back, straight)))
    row, column, side_of = (np.concatenate(parts) for parts in (rows_of, columns_of, sides_of))
    start = np.array(_START)[side_of]
    x, y = (column + start[:, 1] - 1).tolist(), (row + start[:, 0] - 1).tolist()
    of, following, sides = labels[row, column].tolist(), np.concatenate(next_of).tolist(), side_of.tolist()

    found: list[tuple[int, list[tuple[int, int]]]] = []
    seen = bytearray(total)
    for first in range(total):
        if seen[first]:
            continue
        corners = []
        edge = first
        while not seen[edge]:
            seen[edge] = 1
            after = following[edge]
            if sides[after] != sides[edge]:
                corners.append((x[after], y[after]))
            edge = after
        found += [(of[first], cycle) for cycle in _parted(corners)]
    return found


def _parted(corners: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """A closed walk as the simple cycles it consists of: cut wherever it comes back to a corner."""
    cycles = []
    path: list[tuple[int, int]] = []
    place: dict[tuple[int, int], int] = {}
    for corner in corners:
        if corner in place:
            at = place[corner]
            cycles.append(path[at:])
            for gone in path[at:]:
                del place[gone]
            del path[at:]
        place[corner] = len(path)
        path.append(corner)
    cycles.append(path)
    return cycles
