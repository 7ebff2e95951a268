"""How far it is from each nucleus to the nearest other, and how far around it all nuclei are known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from shapely import Geometry

__all__ = ["mean_nearest_um", "nearest_um", "pairs_within", "seen_around_um"]

_BLOCK = 1 << 14
_PAIRS = 1 << 20
_FIRST_REACH_UM = 10.0
"""In tissue nearly every nucleus has another so near."""


@dataclass(frozen=True, eq=False)
class _Cells:
    """Points sorted into square cells, row by row; around all cells lie empty ones.

    ``place`` (N,): a cell's number for each point, ``stride`` to a row; ``order`` (N,) sorts the points by it and
    ``sorted`` (N,) are the numbers so sorted. A k-d tree does as well, but importing SciPy's takes longer than a field
    of nuclei.
    """

    place: NDArray[np.int64]
    order: NDArray[np.intp]
    sorted: NDArray[np.int64]
    stride: int

    @staticmethod
    def of(points: NDArray[np.float64], side: float) -> _Cells:
        # a hair wider: rounding must not put two points a side apart into cells that do not touch
        wide = side * (1 + 1e-9)
        # in place and axis by axis: of a million points every copy counts. No number is negative, so to cut is to floor
        column = ((points[:, 0] - points[:, 0].min()) / wide).astype(np.int64) + 1
        place = ((points[:, 1] - points[:, 1].min()) / wide).astype(np.int64) + 1
        stride = int(column.max()) + 2
        place *= stride
        place += column
        del column
        order = np.argsort(place, kind="stable")
        return _Cells(place, order, place[order], stride)

    def beside(self, of: NDArray[np.intp]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Pairs (one of ``of``, another point) of a cell or of two that touch: all up to a cell's side apart, and more.

        All of one's pairs come together, of several up to `_PAIRS` at a time: a cell that is wide enough for a nucleus
        far from all others holds a great many of those.
        """
        for start in range(0, len(of), _BLOCK):
            some = of[start : start + _BLOCK]
            # three cells in a row follow each other
            rows = self.place[some][:, None] + np.array([-self.stride, 0, self.stride])
            first = np.searchsorted(self.sorted, (rows - 1).ravel(), side="left")
            count = np.searchsorted(self.sorted, (rows + 1).ravel(), side="right") - first
            pairs = np.cumsum(count.reshape(-1, 3).sum(axis=1))
            at = 0
            while at < len(some):
                before = pairs[at - 1] if at else 0
                end = max(at + 1, int(np.searchsorted(pairs, before + _PAIRS, side="right")))
                mine = slice(3 * at, 3 * end)
                ends = np.cumsum(count[mine])
                other = self.order[
                    np.arange(ends[-1]) + np.repeat(first[mine] - (ends - count[mine]), count[mine])
                ]
                one = np.repeat(np.repeat(some[at:end], 3), count[mine])
                apart = one != other
                yield one[apart], other[apart]
                at = end


def pairs_within(
    centers_um: NDArray[np.float64], reach_um: float, of: NDArray[np.intp] | None = None
) -> NDArray[np.intp]:
    """The pairs of centers, (N, 2) in µm, up to ``reach_um`` apart, (m, 2), each once, the lower first.

    With ``of`` the pairs (one of these, any other) instead. Time grows with N log N and with the pairs within twice
    the reach.
    """
    found = [np.zeros((0, 2), np.intp)]
    if len(centers_um) > 1:
        for one, other in _Cells.of(centers_um, reach_um).beside(
            np.arange(len(centers_um)) if of is None else of
        ):
            if of is None:
                once = one < other
                one, other = one[once], other[once]
            near = np.hypot(*(centers_um[one] - centers_um[other]).T) <= reach_um
            found.append(np.stack([one[near], other[near]], 1))
    return np.concatenate(found)


def nearest_um(centers_um: NDArray[np.float64]) -> NDArray[np.float32]:
    """The distance from each center, (N, 2) in µm, to the nearest other, (N,); infinite for a single one.

    Looked for up to 10 µm away, then twice as far for those that have none there, and so on. Nuclei do not lie upon
    each other, so few are near each: time grows with N log N, memory with N.
    """
    distance = np.full(len(centers_um), np.inf)
    waiting, reach = np.arange(len(centers_um)), _FIRST_REACH_UM
    while len(waiting) and len(centers_um) > 1:
        for one, other in _Cells.of(centers_um, reach).beside(waiting):
            if len(one):
                begins = np.flatnonzero(np.diff(one, prepend=-1))
                apart = np.hypot(*(centers_um[one] - centers_um[other]).T)
                distance[one[begins]] = np.minimum.reduceat(apart, begins)
        # what lies farther away than a cell's side may not have been looked at
        waiting, reach = waiting[distance[waiting] > reach], 2 * reach
    return distance.astype(np.float32)


def seen_around_um(
    centers_um: NDArray[np.float64],
    tile: NDArray[np.integer],
    chosen: NDArray[np.int64],
    columns: int,
    boxes_um: NDArray[np.float64],
    region: Geometry,
    mpp: NDArray[np.float64],
) -> NDArray[np.float32]:
    """How far around each center every nucleus was looked for, (N,) in µm, told up to a tile's side.

    Looked for was where ``region`` (level-0 px of ``mpp``) and the looked-at tiles meet. ``tile`` (N,) says in which
    of the tiles each lies, by rising number; these have the numbers ``chosen`` in a grid of ``columns`` and the boxes
    ``boxes_um`` (n, 4) x0, y0, x1, y1. Tiles amid looked-at tiles amid the region need no geometry.
    """
    import shapely

    if not len(chosen):
        return np.zeros(0, np.float32)
    side = float(np.max(boxes_um[:, 2:] - boxes_um[:, :2]))
    seen = np.full(len(centers_um), side, np.float32)
    place = {int(index): number for number, index in enumerate(chosen)}
    around = boxes_um + np.array([-side, -side, side, side])
    scaled = np.tile(mpp, 2)
    amid = shapely.contains_properly(region, shapely.box(*(around / scaled).T))
    ends = np.searchsorted(tile, np.arange(len(chosen) + 1))
    for number, index in enumerate(chosen.tolist()):
        mine = slice(ends[number], ends[number + 1])
        if mine.start == mine.stop:
            continue
        row, column = divmod(index, columns)
        beside = [
            place.get((row + down) * columns + column + right)
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
            if 0 <= column + right < columns and row + down >= 0
        ]
        if amid[number] and len(beside) == 9 and None not in beside:
            continue
        looked = shapely.union_all([shapely.box(*boxes_um[other]) for other in beside if other is not None])
        cut = shapely.clip_by_rect(region, *(around[number] / scaled))
        known = shapely.intersection(shapely.transform(cut, lambda points: points * mpp), looked)
        unknown = shapely.difference(shapely.box(*around[number]), known)
        shapely.prepare(unknown)
        apart = shapely.distance(unknown, shapely.points(centers_um[mine]))
        seen[mine] = np.minimum(apart, side)
    return seen


def mean_nearest_um(nearest_um: NDArray[np.floating], seen_um: NDArray[np.floating]) -> float | None:
    """The mean distance to the nearest nucleus, from those that are known (not NaN); None where none is.

    Long distances are unknown more often, because they more often reach to where nobody looked. Each known one
    therefore counts for those that could not have shown it: by one over the number of nuclei around which at least
    that far was seen (Hanisch 1984).
    """
    known = np.isfinite(nearest_um)
    if not known.any():
        return None
    distance = nearest_um[known].astype(np.float64)
    sorted_seen = np.sort(seen_um)
    able = len(sorted_seen) - np.searchsorted(sorted_seen, distance, side="left")
    return float(np.average(distance, weights=1 / np.maximum(able, 1)))
