"""A landscape flooded downhill from its high tops, without a queue: basins, the passes between them, and who is first.

From each pixel the steepest way leads up to one top; the pixels of one top are its basin. Two basins meet at a pass,
their highest pair of neighboring pixels. A top is a marker where the way to a higher one goes down by more than a
given depth. That is read off the passes alone, from the highest on, for all basins of an image at once: each basin
goes over its highest pass into its neighbor's as soon as that one's top is the higher.

A flood that comes down from the markers reaches a pixel at the level of the lowest pass on the best way to it, or at
its own height where that is lower, and gives it what its first flooded neighbor has. So a basin that is entered above
its marker's top less the depth is that marker's as a whole: all so high is the marker's plateau. Of any other basin
what is higher than its entry follows the entry, and each pixel below it the neighbor that is reached first. Many
heights are equal; the later pixel counts as the higher, so that what is made of a part depends on it alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lobule.annotations.parts import ends

__all__ = ["Flooded", "flooded"]

_NEVER, _AT_ONCE = np.iinfo(np.int64).min, np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class Flooded:
    """``tops`` (m,): the markers' places in the list of pixels, rising; ``owner`` (n,): each pixel's, from 0."""

    tops: NDArray[np.intp]
    owner: NDArray[np.intp]


def flooded(
    heights: NDArray[np.float32],
    places: NDArray[np.intp],
    part: NDArray[np.intp],
    *,
    stride: int,
    rows: int,
    depth: float,
) -> Flooded:
    """The markers of a landscape of n pixels, and what a flood from their plateaus gives to each.

    ``heights`` (n,); ``places`` (n,) rising, of the flattened (rows, stride) array whose last column is empty; ``part``
    (n,), the connected part of each, from 0. Pixels are neighbors where they share a side; what is not in ``places``
    is outside. Each part's highest top is a marker. A flood takes the highest of all pixels beside what is flooded,
    and gives it to the neighbor's marker from which it was seen first.
    """
    # an empty row lies above and below, an empty column ends each row
    places = places + stride
    size = (rows + 2) * stride
    plane, number = np.full(size, -np.inf, np.float32), np.full(size, -1, np.int32)
    plane[places] = heights
    number[places] = np.arange(len(places), dtype=np.int32)
    # in reading order: of equal ones the later stays
    steps = np.array([-stride, -1, 0, 1, stride])
    best, chosen = plane.take(places + steps[0]), np.zeros(len(places), np.int8)
    for which, step in enumerate(steps[1:], 1):
        height = plane.take(places + step)
        # later steps have larger numbers; a mask to write by takes ten times as long
        np.maximum(chosen, (height >= best).view(np.int8) * np.int8(which), out=chosen)
        np.maximum(best, height, out=best)
    toward = number.take(places + steps.take(chosen)).astype(np.intp)
    tops = np.flatnonzero(toward == np.arange(len(toward)))
    basin_of_top = np.empty(len(toward), np.intp)
    basin_of_top[tops] = np.arange(len(tops))
    basin = basin_of_top.take(ends(toward))

    one, other = [], []
    for step in (1, stride):
        there = number.take(places + step)
        edge = np.flatnonzero((basin.take(there) != basin) & (there >= 0))
        one.append(edge)
        other.append(there[edge])
    first, second = np.concatenate(one), np.concatenate(other)
    passes = np.minimum(_keys(heights, first), _keys(heights, second))
    is_marker, marker, entered = _merged(heights, tops, basin[first], basin[second], passes, depth)
    order = np.cumsum(is_marker) - 1
    owner = order[marker].take(basin)

    # in a part with one marker, as nearly all are, everything is that one's
    several = np.bincount(part.take(tops[is_marker])) > 1
    unsure = np.flatnonzero(((entered < _AT_ONCE) & several.take(part.take(tops))).take(basin))
    if len(unsure):
        source = _first_reached(heights, places, number, stride, basin, entered, unsure)
        # from one to the next, until the source is none of them
        place = np.full(len(places), -1)
        place[unsure] = np.arange(len(unsure))
        towards = place.take(source)
        towards = np.where(towards < 0, np.arange(len(unsure)), towards)
        owner[unsure] = owner.take(source.take(ends(towards)))
    return Flooded(tops[is_marker], owner)


def _keys(heights: NDArray[np.float32], which: NDArray[np.integer]) -> NDArray[np.int64]:
    """Numbers that order pixels by height and then by place, ``which`` (k,) being their places in the list."""
    # the bits of rising numbers rise, of negative ones they fall; zero has two
    bits = (heights.take(which) + np.float32(0)).view(np.int32).astype(np.int64)
    bits ^= (bits >> 31) & 0x7FFFFFFF
    keys: NDArray[np.int64] = (bits << 32) | which
    return keys


def _pixels(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """The pixel of each key."""
    return keys & 0xFFFFFFFF


def _merged(
    heights: NDArray[np.float32],
    tops: NDArray[np.intp],
    one: NDArray[np.intp],
    other: NDArray[np.intp],
    passes: NDArray[np.int64],
    depth: float,
) -> tuple[NDArray[np.bool_], NDArray[np.intp], NDArray[np.int64]]:
    """Which of m basins hold a marker, the marker's basin each is joined with, and the key at which it is entered.

    ``one``, ``other``, ``passes`` (k,): pairs of neighboring pixels of two basins and the lower one's key. What is its
    marker's as a whole is entered at once.
    """
    count = len(tops)
    top = heights[tops].astype(np.float64)
    rank = np.empty(count, np.intp)
    rank[np.argsort(top, kind="stable")] = np.arange(count)
    is_marker = np.ones(count, bool)
    over, entered = np.arange(count), np.full(count, _AT_ONCE)
    root = np.arange(count)
    while len(one):
        highest = np.full(count, _NEVER)
        np.maximum.at(highest, one, passes)
        np.maximum.at(highest, other, passes)
        # either side over its highest pass, where that leads to a higher top
        up = (passes == highest[one]) & (rank[other] > rank[one])
        down = (passes == highest[other]) & (rank[other] < rank[one])
        who, to = np.concatenate([one[up], other[down]]), np.concatenate([other[up], one[down]])
        over[who], entered[who] = to, highest[who]
        is_marker[who] = heights[_pixels(highest[who])] < top[who] - depth
        root[who] = to
        root = ends(root)
        one, other = root[one], root[other]
        apart = one != other
        one, other, passes = one[apart], other[apart], passes[apart]
    over[is_marker], entered[is_marker] = np.flatnonzero(is_marker), _AT_ONCE
    while True:
        further = over[over]
        if np.array_equal(over, further):
            break
        np.minimum(entered, entered[over], out=entered)
        over = further
    joined = np.flatnonzero(entered < _AT_ONCE)
    whole = heights[_pixels(entered[joined])] >= top[over[joined]] - depth
    entered[joined[whole]] = _AT_ONCE
    return is_marker, over, entered


def _first_reached(
    heights: NDArray[np.float32],
    places: NDArray[np.intp],
    number: NDArray[np.int32],
    stride: int,
    basin: NDArray[np.intp],
    entered: NDArray[np.int64],
    unsure: NDArray[np.intp],
) -> NDArray[np.intp]:
    """From which pixel each of ``unsure`` (k,) is reached: of high ones the entry of their basin, else a neighbor.

    ``number``: the place in the list of each pixel of the array whose rows are ``stride`` long.
    """
    entry = entered[basin[unsure]]
    source = _pixels(entry)
    low = _keys(heights, unsure) <= entry
    of = places[unsure[low]]
    first = np.full(len(of), _NEVER)
    best = np.empty(len(of), np.intp)
    for step in (-stride, -1, 1, stride):
        there = number.take(of + step)
        reached = np.minimum(_keys(heights, there), entered.take(basin.take(there)))
        sooner = (there >= 0) & (reached > first)
        best[sooner], first[sooner] = there[sooner], reached[sooner]
    source[low] = best
    return source
