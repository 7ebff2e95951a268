"""Every nucleus belongs to one tile, whatever the network saw differently from two of them.

A nucleus belongs to the tile whose kept center holds its centroid. A network that sees more of a place on one side
than on the other gives two tiles slightly different maps, so a centroid beside a seam may lie on this side of it for
one tile and on that side for the other: both would count the nucleus, or neither. So each tile also gives the nuclei
a little way beyond its kept center, as *spare*, and what the tiles say about one place is settled here.

Two tiles may also part touching nuclei differently: what one sees as two is one for the other, with its center on the
other side of the seam. Such nuclei lie in each other, and the larger stays.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lobule.families.neighbors import pairs_within

__all__ = ["REACH_UM", "SPARE_UM", "settled", "within_others"]

SPARE_UM = 2.0
"""How far beyond its kept center a tile gives spare nuclei: more than two tiles' centroids of one nucleus differ."""
SAME = 0.5
"""Of two tiles' centers the distance over the smaller radius below which they are one nucleus seen twice."""
REACH_UM = 10.0
"""How far apart the centers of a nucleus and of a part of it may lie: the radius of the largest nuclei."""
REACH = 1.5
"""The same over the larger one's radius, which is that of a disk of its area."""
WITHIN = 0.5
"""The share of its area above which a nucleus that lies in another tile's is a part of that one."""
COVERED = 0.5
"""Of a spare nucleus's distance to another over the sum of their radii: below, its place is taken."""


def settled(
    centers_um: NDArray[np.float64],
    radius_um: NDArray[np.floating],
    tile: NDArray[np.integer],
    spare: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Which nuclei stay, (n,), of those near seams.

    ``centers_um`` (n, 2); ``radius_um`` (n,) that of the disk of the same area; ``tile`` (n,) who found it; ``spare``
    (n,) whether beyond that tile's kept center. Of two tiles' own nuclei that are one, the lower tile's stays. A spare
    one stays where another tile has it as spare too, so that each left it to the other, and its place is not taken;
    again the lower tile's. A spare one that its owner does not see at all is dropped: the owner has the better view.
    The result depends on the nuclei and their tiles alone, not on the order of the tiles. Time grows with n log n.
    """
    stays = ~spare
    for first, second in _seen_twice(centers_um, radius_um, tile, np.flatnonzero(~spare)):
        if stays[first] and stays[second]:
            stays[second] = False
    left = _seen_twice(centers_um, radius_um, tile, np.flatnonzero(spare))
    if not left:
        return stays

    firsts = np.array([first for first, _ in left])
    near = pairs_within(centers_um, COVERED * 2 * float(radius_um.max()), np.unique(firsts))
    for first in firsts.tolist():
        if stays[first]:
            continue
        others = near[near[:, 0] == first, 1]
        others = others[stays[others]]
        apart = np.hypot(*(centers_um[others] - centers_um[first]).T)
        stays[first] = not (apart < COVERED * (radius_um[others] + radius_um[first])).any()
    return stays


def _seen_twice(
    centers_um: NDArray[np.float64],
    radius_um: NDArray[np.floating],
    tile: NDArray[np.integer],
    among: NDArray[np.intp],
) -> list[tuple[int, int]]:
    """Pairs of different tiles that are one nucleus, the lower tile's first, by tiles and their own order."""
    one, other = among[pairs_within(centers_um[among], SPARE_UM)].T
    apart = np.hypot(*(centers_um[one] - centers_um[other]).T)
    same = (tile[one] != tile[other]) & (apart < SAME * np.minimum(radius_um[one], radius_um[other]))
    one, other = one[same], other[same]
    swapped = tile[one] > tile[other]
    one[swapped], other[swapped] = other[swapped], one[swapped]
    order = np.lexsort((other, one, tile[other], tile[one]))
    return list(zip(one[order].tolist(), other[order].tolist(), strict=True))


def within_others(
    centers_um: NDArray[np.float64],
    radius_um: NDArray[np.floating],
    tile: NDArray[np.integer],
    shared: Callable[[NDArray[np.intp]], NDArray[np.float64]],
) -> NDArray[np.bool_]:
    """Which nuclei, (n,), lie by more than `WITHIN` of their area in a larger one of another tile that stays.

    The parameters are those of `settled`, of the nuclei that stay by it and lie within `REACH_UM` of a seam.
    ``shared`` gives, for pairs (m, 2) of them, the common area over the smaller one's, (m,); it is asked for the few
    that may have any. Of two equally large the lower tile's stays. The largest are judged first.
    """
    gone = np.zeros(len(tile), bool)
    pairs = pairs_within(centers_um, REACH_UM)
    pairs = pairs[tile[pairs[:, 0]] != tile[pairs[:, 1]]]
    apart = np.hypot(*(centers_um[pairs[:, 0]] - centers_um[pairs[:, 1]]).T)
    pairs = pairs[apart < REACH * radius_um[pairs].max(axis=1)]
    if not len(pairs):
        return gone
    pairs = pairs[shared(pairs) > WITHIN]
    rank = np.empty(len(tile), np.intp)
    rank[np.lexsort((centers_um[:, 0], centers_um[:, 1], tile, -radius_um))] = np.arange(len(tile))
    pairs = np.take_along_axis(pairs, np.argsort(rank[pairs], axis=1), axis=1)
    for larger, smaller in pairs[np.lexsort(rank[pairs].T[::-1])].tolist():
        if not gone[larger]:
            gone[smaller] = True
    return gone
