"""Which tops of a landscape are markers, and which pixels a flood from them takes whatever its order.

From each pixel the steepest way leads up to one top; the pixels of one top are its basin. Two basins meet at a pass,
their highest pair of neighboring pixels. A top is a marker where the way to a higher one goes down by more than a
given depth. That is read off the passes alone, from the highest on, for all basins of an image at once: each basin
goes over its highest pass into its neighbor's as soon as that one's top is the higher.

A flood that comes down from the markers follows the steepest ways, so it gives a basin to its marker as a whole, and
one without a marker too where it is entered above the marker's top less the depth: all so high is that marker's
plateau. What lies behind a lower pass may be reached from several sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Markers", "markers_of"]


@dataclass(frozen=True, eq=False)
class Markers:
    """``tops`` (m,): the places of the markers in the list of pixels, rising; ``owner`` (n,): each pixel's marker,
    from 0 in this order, -1 where a queue has to decide."""

    tops: NDArray[np.intp]
    owner: NDArray[np.intp]


def markers_of(
    heights: NDArray[np.float32], places: NDArray[np.intp], *, stride: int, rows: int, depth: float
) -> Markers:
    """The markers of a landscape of n pixels, and what is theirs outright.

    ``heights`` (n,); ``places`` (n,) rising, of the flattened (rows, stride) array whose last column is empty. Pixels
    are neighbors where they share a side; what is not in ``places`` is outside. Of equal heights the later
    place is the higher. Each connected part's highest top is a marker.
    """
    # an empty row lies above and below, an empty column ends each row
    places = places + stride
    plane, number = (
        np.full((rows + 2) * stride, -np.inf, np.float32),
        np.full((rows + 2) * stride, -1, np.int32),
    )
    plane[places] = heights
    number[places] = np.arange(len(places))
    # in reading order: of equal ones the later stays
    steps = np.array([-stride, -1, 0, 1, stride])
    best, chosen = plane.take(places + steps[0]), np.zeros(len(places), np.int8)
    for which, step in enumerate(steps[1:], 1):
        height = plane.take(places + step)
        chosen[height >= best] = which
        np.maximum(best, height, out=best)
    toward = number.take(places + steps.take(chosen)).astype(np.intp)
    tops = np.flatnonzero(toward == np.arange(len(toward)))

    basin_of_top = np.empty(len(toward), np.int32)
    basin_of_top[tops] = np.arange(len(tops))
    basin = basin_of_top[_ends(toward)]
    number[places] = basin
    sides = []
    for step in (1, stride):
        there = number.take(places + step)
        edge = np.flatnonzero((there != basin) & (there >= 0))
        sides.append((basin[edge], there[edge], np.minimum(heights[edge], plane[places[edge] + step])))
    one, other, passes = (np.concatenate(values) for values in zip(*sides, strict=True))
    is_marker, marker = _merged(heights[tops].astype(np.float64), one, other, passes, depth)
    order = np.where(marker >= 0, (np.cumsum(is_marker) - 1)[marker], -1)
    return Markers(tops[is_marker], order[basin])


def _ends(toward: NDArray[np.intp]) -> NDArray[np.intp]:
    """Where each way ends, every step of which is ``toward``."""
    while True:
        further = toward[toward]
        if np.array_equal(toward, further):
            return toward
        toward = further


def _merged(
    tops: NDArray[np.float64],
    one: NDArray[np.integer],
    other: NDArray[np.integer],
    passes: NDArray[np.float32],
    depth: float,
) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Which basins hold a marker, and the marker's basin that each belongs to outright, -1 for none.

    ``tops`` (m,) in reading order; ``one``, ``other``, ``passes`` (k,): pairs of neighboring pixels of two basins and
    the lower one's height.
    """
    count = len(tops)
    rank = np.empty(count, np.intp)
    rank[np.argsort(tops, kind="stable")] = np.arange(count)
    is_marker = np.ones(count, bool)
    over, entered = np.arange(count), np.full(count, np.inf)
    root = np.arange(count)
    while len(one):
        highest = np.full(count, -np.inf, np.float32)
        np.maximum.at(highest, one, passes)
        np.maximum.at(highest, other, passes)
        # either side over its highest pass, where that leads to a higher top
        up = (passes == highest[one]) & (rank[other] > rank[one])
        down = (passes == highest[other]) & (rank[other] < rank[one])
        who, to = np.concatenate([one[up], other[down]]), np.concatenate([other[up], one[down]])
        over[who], entered[who] = to, highest[who]
        is_marker[who] = entered[who] < tops[who] - depth
        root[who] = to
        root = _ends(root)
        one, other = root[one], root[other]
        apart = one != other
        one, other, passes = one[apart], other[apart], passes[apart]
    over[is_marker], entered[is_marker] = np.flatnonzero(is_marker), np.inf
    while True:
        further = over[over]
        if np.array_equal(over, further):
            break
        np.minimum(entered, entered[over], out=entered)
        over = further
    return is_marker, np.where(entered >= tops[over] - depth, over, -1)
