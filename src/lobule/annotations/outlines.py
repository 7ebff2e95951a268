"""Pixels to polygons."""

from __future__ import annotations

from collections.abc import Iterator
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
    shells: list[NDArray[np.intp]] = [np.zeros((0, 2), np.intp)] * count
    holes: list[list[NDArray[np.intp]]] = [[] for _ in range(count)]
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


def _doubled_area(cycle: NDArray[np.intp]) -> int:
    """Twice the signed area; positive where the cycle runs clockwise on the screen (y down)."""
    (x, y), (x_after, y_after) = cycle.T, np.roll(cycle, -1, axis=0).T
    return int((x * y_after - x_after * y).sum())


def _cycles(labels: NDArray[np.integer]) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """All boundaries of a label image that has an empty margin of 1: label and corners (x, y) of simple cycles.

    Each side of a pixel that faces the outside is walked clockwise around that pixel. Where two pixels of
    a part touch at a corner, the walk stays with its pixel, passes the corner twice and is parted there.
    """
    stride = labels.shape[1]
    flat = labels.reshape(-1)
    filled = flat > 0
    places_of = []
    for side in range(4):
        # the neighbor that the side faces lies where the side before it heads
        dy, dx = _AHEAD[(side + 3) % 4]
        facing = dy * stride + dx
        if facing > 0:
            places_of.append(np.flatnonzero(filled[:-facing] & ~filled[facing:]))
        else:
            places_of.append(np.flatnonzero(filled[-facing:] & ~filled[:facing]) - facing)
    first_of = np.cumsum([0, *(len(places) for places in places_of)])

    def number(side: int, places: NDArray[np.intp]) -> NDArray[np.intp]:
        # right where there is such a side; it is chosen nowhere else
        found: NDArray[np.intp] = first_of[side] + np.searchsorted(places_of[side], places)
        return found

    next_of = []
    for side, places in enumerate(places_of):
        ahead, diagonal = (places + dy * stride + dx for dy, dx in (_AHEAD[side], _DIAGONAL[side]))
        turn, straight = number((side + 1) % 4, places), number(side, ahead)
        back = number((side + 3) % 4, diagonal)
        next_of.append(np.where(~filled[ahead], turn, np.where(filled[diagonal], back, straight)))
    following = np.concatenate(next_of)
    side_of = np.repeat(np.arange(4), np.diff(first_of))
    # from each side on to the last of its straight run, in steps of 1, 2, 4, ...
    turns = side_of[following] != side_of
    last = np.where(turns, np.arange(len(following)), following)
    while not turns[last].all():
        last = last[last]
    # sides behind a corner, and which of them is the next; the first of a cycle is one
    heads = np.unique(following[turns])
    after = np.searchsorted(heads, following[last[heads]]).tolist()
    place = np.concatenate(places_of)[heads]
    row, column = np.divmod(place, stride)
    corners = np.stack([column, row], 1) + np.array(_START)[side_of[heads], ::-1] - 1
    seen = bytearray(len(heads))
    for first in range(len(heads)):
        if seen[first]:
            continue
        walked = []
        head = first
        while not seen[head]:
            seen[head] = 1
            head = after[head]
            walked.append(head)
        label = int(flat[place[first]])
        for cycle in _parted(corners[walked]):
            yield label, cycle


def _parted(corners: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """A closed walk as the simple cycles it consists of: cut wherever it comes back to a corner."""
    points = list(map(tuple, corners.tolist()))
    if len(set(points)) == len(points):
        return [corners]
    cycles = []
    path: list[tuple[int, ...]] = []
    place: dict[tuple[int, ...], int] = {}
    for corner in points:
        if corner in place:
            at = place[corner]
            cycles.append(path[at:])
            for gone in path[at:]:
                del place[gone]
            del path[at:]
        place[corner] = len(path)
        path.append(corner)
    cycles.append(path)
    return [np.array(cycle, np.intp) for cycle in cycles]
