"""How far it is from each nucleus to the nearest other, and how far around it all nuclei are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from shapely import Geometry

__all__ = ["mean_nearest_um", "nearest_um", "seen_around_um"]

_BLOCK = 1 << 16


def nearest_um(centers_um: NDArray[np.float64]) -> NDArray[np.float32]:
    """The distance from each center, (N, 2) in µm, to the nearest other, (N,); infinite for a single one.

    By a k-d tree, N log N. Memory: the tree, some 30 bytes a nucleus.
    """
    from scipy.spatial import cKDTree

    distance = np.full(len(centers_um), np.inf, np.float32)
    if len(centers_um) > 1:
        tree = cKDTree(centers_um)
        for start in range(0, len(centers_um), _BLOCK):
            block = slice(start, start + _BLOCK)
            distance[block] = tree.query(centers_um[block], k=2)[0][:, 1]
    return distance


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
