"""From a network's maps to one label a nucleus: three ways of telling touching nuclei apart.

``components``: none are told apart; each 4-connected part of the mask is a nucleus. ``watershed``: the distance
of each pixel to the outside of its part is flooded from its h-maxima, for networks that give a mask alone.
``learned``: the same with the network's own map of distances, which knows nuclei that a mask's outline does not show.

Nearly all nuclei stand alone or hold one marker, and are then what the mask says. So connected parts are found
on runs (maximal stretches of a row, a sixteenth of the pixels), and only parts with two markers or more are
flooded, on a small array of their own. Of those, a pixel from which the steepest way uphill ends in a marker
is that marker's in any flood, so the priority queue sees the few others alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lobule.geometry import Box

__all__ = ["Splitting", "Way", "split", "split_near"]

_FLOODED_PX = 1 << 17
_MOST_LEVELS = 255

Way = Literal["components", "watershed", "learned"]
"""How touching nuclei are told apart."""


@dataclass(frozen=True)
class Splitting:
    """What a model's maps mean: where a nucleus is, and how touching ones are told apart.

    ``mask_threshold``: of the first map, exceeded within nuclei. ``depth``: by how much the second map must fall
    between the middles of two nuclei (``learned`` only). ``split_um``: by how much the distance to a part's outside
    must (``watershed`` only). Raises ValueError where a value the way needs is missing or out of
    range, or one is given that it has no use for.
    """

    way: Way
    mask_threshold: float
    depth: float | None = None
    split_um: float | None = None

    def __post_init__(self) -> None:
        if self.way not in ("components", "watershed", "learned"):
            raise ValueError(f"no way {self.way!r}: choose components, watershed or learned")
        for name, value, way in (("depth", self.depth, "learned"), ("split_um", self.split_um, "watershed")):
            if (value is not None) != (self.way == way):
                raise ValueError(f"{name} belongs to the way {way!r} and to no other, not to {self.way!r}")
            if value is not None and not value > 0:
                raise ValueError(f"{name} is positive, not {value}")

    @property
    def maps(self) -> int:
        """How many maps the way reads."""
        return 2 if self.way == "learned" else 1

    @staticmethod
    def of(thresholds: Mapping[str, float]) -> Splitting:
        """The way that a card's thresholds choose: ``depth`` learned, ``split_um`` watershed, neither components.

        Raises ValueError without ``mask``, with both of the others, or with a name that is none of these.
        """
        if "mask" not in thresholds:
            raise ValueError("thresholds need 'mask'")
        unknown = set(thresholds) - {"mask", "depth", "split_um", "min_area_um2"}
        if unknown:
            raise ValueError(
                f"thresholds of nuclei are mask, depth or split_um, min_area_um2, not {min(unknown)!r}"
            )
        depth, split_um = thresholds.get("depth"), thresholds.get("split_um")
        if depth is not None and split_um is not None:
            raise ValueError("thresholds hold 'depth' (learned) or 'split_um' (watershed), not both")
        way: Way = "learned" if depth is not None else "watershed" if split_um is not None else "components"
        return Splitting(way, thresholds["mask"], depth, split_um)


def split(
    maps: NDArray[np.float32],
    way: Way,
    *,
    mask_threshold: float,
    depth: float | None = None,
    split_px: float | None = None,
    min_area_px: float = 1,
) -> NDArray[np.int32]:
    """The label map of the nuclei in ``maps``, labels 1…n without gaps, 0 outside; (H, W).

    ``maps`` (M, H, W) float32: the probability of nucleus, and for ``learned`` the distance to the nucleus's own
    border over its largest, both in [0, 1]. The mask is where the probability exceeds ``mask_threshold``.

    ``components``: each 4-connected part of the mask is one nucleus. ``watershed``: heights are the distances, in
    pixels, to the nearest pixel outside the part (what lies beyond the array is outside). ``learned``: heights are
    the second map. Markers are the h-maxima of the heights, h being ``split_px`` or ``depth``: tops that one cannot
    leave for a higher one without going down by more than that. From them the heights are flooded downhill within
    the mask.

    Holes that one nucleus encloses, and that are no larger than it, are filled; nuclei of fewer than
    ``min_area_px`` pixels are removed. Every label is one 4-connected component. What is decided about a nucleus
    depends on the nuclei it touches only, not on where in the array it lies.

    Raises ValueError for maps of another shape and for values that the way lacks or has no use for.
    """
    whole = Box(0, 0, maps.shape[-1], maps.shape[-2])
    found, at = split_near(maps, whole, Splitting(way, mask_threshold, depth, split_px), um_per_px=1.0)
    areas = np.bincount(found.reshape(-1), minlength=1)
    kept = areas >= max(min_area_px, 1)
    kept[0] = False
    number = np.cumsum(kept, dtype=np.int32)
    number[~kept] = 0
    labels = np.zeros(maps.shape[1:], np.int32)
    labels[at.y0 : at.y1, at.x0 : at.x1] = number[found]
    return labels


def split_near(
    maps: NDArray[np.float32], box: Box, splitting: Splitting, *, um_per_px: float
) -> tuple[NDArray[np.int32], Box]:
    """As `split`, for those parts of the mask alone whose bounding box meets ``box`` (map pixels).

    No other can hold a nucleus with its centroid in ``box``. Small ones are not removed. ``um_per_px`` is the
    maps' resolution. Returns the label map of the smallest part of ``maps`` that holds them all, and where it
    lies; both are empty where there are none.
    """
    if maps.ndim != 3 or maps.shape[0] < splitting.maps:
        raise ValueError(f"maps must be ({splitting.maps}, height, width), not {maps.shape}")
    probability, mask_threshold = maps[0], splitting.mask_threshold
    mask = np.zeros((maps.shape[1], maps.shape[2] + 1), bool)
    np.greater(probability, mask_threshold, out=mask[:, :-1])
    runs = _Runs.of(mask)
    part, count = runs.joined(reach=0)
    bounds = runs.bounds(part, count)
    near = (bounds.x0 < box.x1) & (bounds.x1 > box.x0) & (bounds.y0 < box.y1) & (bounds.y1 > box.y0)
    if not near.any():
        return np.zeros((0, 0), np.int32), Box(0, 0, 0, 0)
    at = Box(
        int(bounds.x0[near].min()),
        int(bounds.y0[near].min()),
        int(bounds.x1[near].max()),
        int(bounds.y1[near].max()),
    )

    shown = near[part]
    runs, part = runs.chosen(shown).cropped(at), part[shown]
    if splitting.depth is not None:
        distance = np.ascontiguousarray(maps[1, at.y0 : at.y1, at.x0 : at.x1])
        several = _may_part(distance, runs, part, count, splitting.depth)
    elif splitting.split_um is not None:
        distance = None
        several = near & _may_hold_two(bounds, splitting.split_um / um_per_px)
    else:
        distance, several = None, np.zeros(count, bool)

    # one label a part; those of parts with several markers follow
    number = np.cumsum(near & ~several, dtype=np.int32)
    last = int(number[-1])
    number[~near | several] = 0
    labels = runs.painted(number[part], at.height)
    areas = np.asarray(np.bincount(number[part], runs.lengths, minlength=last + 1), np.float64)
    sizes = np.asarray(np.bincount(part, runs.lengths, minlength=count), np.float64)
    for some in _groups(np.flatnonzero(several), sizes):
        which = some[part]
        added = _flood(
            labels,
            runs.chosen(which),
            part[which],
            bounds,
            at,
            distance,
            splitting,
            um_per_px,
            last,
        )
        areas = np.concatenate([areas, added])
        last += len(added)
    _fill_holes(labels, areas, mask[at.y0 : at.y1, at.x0 : at.x1])
    return labels[:, :-1], at


@dataclass(frozen=True)
class _Bounds:
    """Half-open bounding boxes, one a part, each (n,)."""

    x0: NDArray[np.intp]
    y0: NDArray[np.intp]
    x1: NDArray[np.intp]
    y1: NDArray[np.intp]


@dataclass(frozen=True)
class _Runs:
    """Maximal stretches of set pixels of a mask, in raster order.

    ``starts`` and ``stops`` (n,) count pixels of the flattened mask, whose rows are ``stride`` long and end in
    an unset pixel, so that no stretch goes from one row into the next.
    """

    starts: NDArray[np.intp]
    stops: NDArray[np.intp]
    stride: int

    @staticmethod
    def of(mask: NDArray[np.bool_]) -> _Runs:
        """The runs of a mask (contiguous) with an unset last column."""
        flat = mask.reshape(-1)
        changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        if flat[:1].any():
            changes = np.concatenate([np.zeros(1, np.intp), changes])
        return _Runs(changes[::2], changes[1::2], mask.shape[1])

    def joined(self, reach: int) -> tuple[NDArray[np.int32], int]:
        """The connected part each run belongs to, from 0, and their number.

        Runs of neighboring rows touch when they share a column (``reach`` 0, 4-connected) or come within one
        column of each other (``reach`` 1, 8-connected).
        """
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import connected_components

        size = len(self.starts)
        if size == 0:
            return np.zeros(0, np.int32), 0
        below = np.searchsorted(self.stops, self.starts + (self.stride - reach), side="right")
        beyond = np.searchsorted(self.starts, self.stops + (self.stride + reach), side="left")
        touched = np.maximum(beyond - below, 0)
        ends = np.cumsum(touched)
        beside = np.arange(ends[-1]) + np.repeat(below - (ends - touched), touched)
        links = csr_array(
            (np.ones(len(beside), np.int8), beside, np.concatenate([[0], ends])), shape=(size, size)
        )
        count, part = connected_components(links, directed=False)
        return part, int(count)

    def bounds(self, part: NDArray[np.int32], count: int) -> _Bounds:
        """The bounding box of each of ``count`` parts."""
        y, x = np.divmod(self.starts, self.stride)
        x0, y0 = np.full(count, self.stride), np.zeros(count, np.intp)
        x1, y1 = np.zeros(count, np.intp), np.zeros(count, np.intp)
        np.minimum.at(x0, part, x)
        np.maximum.at(x1, part, x + (self.stops - self.starts))
        # raster order: of several writes to one place the last stays
        y0[part[::-1]] = y[::-1]
        y1[part] = y + 1
        return _Bounds(x0, y0, x1, y1)

    def chosen(self, which: NDArray[np.bool_]) -> _Runs:
        return _Runs(self.starts[which], self.stops[which], self.stride)

    def cropped(self, at: Box) -> _Runs:
        """These runs, all of which lie in ``at``, counted from its first pixel in rows one longer than it."""
        y, x = np.divmod(self.starts, self.stride)
        starts = (y - at.y0) * (at.width + 1) + (x - at.x0)
        return _Runs(starts, starts + (self.stops - self.starts), at.width + 1)

    def painted(self, values: NDArray[np.int32], height: int) -> NDArray[np.int32]:
        """An array (height, stride) with each run's value on its pixels, 0 elsewhere."""
        places = np.empty(2 * len(self.starts) + 1, np.intp)
        places[:-1:2], places[1::2], places[-1] = self.starts, self.stops, height * self.stride
        levels = np.zeros(len(places), np.int32)
        levels[1::2] = values
        return np.repeat(levels, np.diff(places, prepend=0)).reshape(height, self.stride)

    @property
    def lengths(self) -> NDArray[np.intp]:
        return self.stops - self.starts


def _stretches(starts: NDArray[np.intp], lengths: NDArray[np.intp]) -> NDArray[np.intp]:
    """``start, start + 1, … start + length - 1`` of every pair, one after the other."""
    ends = np.cumsum(lengths)
    places: NDArray[np.intp] = np.arange(ends[-1]) + np.repeat(starts - (ends - lengths), lengths)
    return places


def _may_part(
    distance: NDArray[np.float32],
    runs: _Runs,
    part: NDArray[np.int32],
    count: int,
    depth: float,
) -> NDArray[np.bool_]:
    """Which of ``count`` parts may hold two tops with a pass more than ``depth`` below either.

    ``runs`` have rows one longer than ``distance``'s, ``part`` is each one's. The levels are the mask and multiples
    of half of ``depth``. Between such a pass and the level half of ``depth`` above it lies one at which the two are
    apart and either reaches beyond the next level; so all others are passed over.
    """
    lengths = runs.lengths
    height = distance.reshape(-1).take(_stretches(runs.starts - runs.starts // runs.stride, lengths))
    # how many levels each pixel exceeds, run after run with a 0 before, between and behind them;
    # a little closer, for the rounding
    stops = np.cumsum(lengths + 1)
    exceeded = np.zeros(len(height) + len(stops) + 1, np.int16)
    exceeded[_stretches(stops - lengths, lengths)] = np.clip(
        np.ceil(height / np.float32(0.4995 * depth)), 1, _MOST_LEVELS
    )
    # the runs above every level at once: laid out level below level, with an empty row between two
    changes = np.diff(exceeded)
    rises, falls = np.flatnonzero(changes > 0), np.flatnonzero(changes < 0)
    of_rise, of_fall = np.searchsorted(stops, rises + 1), np.searchsorted(stops, falls + 1)
    offset = runs.starts - (stops - lengths) + 1
    rise, level = _by_level(exceeded[rises], changes[rises])
    fall, _ = _by_level(exceeded[falls + 1], -changes[falls])
    apart_by = (len(distance) + 1) * runs.stride
    above = _Runs(
        (rises + offset[of_rise])[rise] + level * apart_by,
        (falls + offset[of_fall])[fall] + level * apart_by,
        runs.stride,
    )
    place, place_count = above.joined(reach=0)
    higher = above.starts[np.searchsorted(level, 1) :]
    reached = np.zeros(place_count, bool)
    reached[place[np.searchsorted(above.starts, higher - apart_by, side="right") - 1]] = True
    part_of, levels = part[of_rise][rise], int(level[-1]) + 1
    cell = np.empty(place_count, np.intp)
    cell[place] = part_of.astype(np.intp) * levels + level
    several = np.zeros(count, bool)
    several[np.flatnonzero(np.bincount(cell[reached]) > 1) // levels] = True
    # of what is higher than can be looked at nothing is known
    several[part_of[level == _MOST_LEVELS - 1]] = True
    return several


def _by_level(
    lowest: NDArray[np.int16], levels: NDArray[np.int16]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Each of n things once for each of its ``levels`` (n,) from ``lowest`` on: (which, level), level by level."""
    level = _stretches(lowest.astype(np.intp), levels.astype(np.intp))
    # bytes are sorted in linear time
    order = np.argsort(level.astype(np.uint8), kind="stable")
    return np.repeat(np.arange(len(levels)), levels)[order], level[order]


def _may_hold_two(bounds: _Bounds, depth: float) -> NDArray[np.bool_]:
    """Which parts are large enough for two tops of the distance with a pass ``depth`` px below either.

    The distance falls by at most 1 a pixel, so such tops lie 2 · ``depth`` apart and each has a disk of that
    radius around it within the part.
    """
    short = np.minimum(bounds.x1 - bounds.x0, bounds.y1 - bounds.y0)
    long = np.hypot(bounds.x1 - bounds.x0, bounds.y1 - bounds.y0)
    possible: NDArray[np.bool_] = (short >= 2 * depth) & (long >= 4 * depth)
    return possible


def _groups(chosen: NDArray[np.intp], sizes: NDArray[np.float64]) -> Iterator[NDArray[np.bool_]]:
    """Cuts the chosen parts into groups of at most `_FLOODED_PX` pixels (or one part): masks over all parts.

    What sorting a group costs does not grow with the number of nuclei then.
    """
    group = (np.cumsum(sizes[chosen]) // _FLOODED_PX).astype(np.intp)
    for number in np.unique(group):
        some = np.zeros(len(sizes), bool)
        some[chosen[group == number]] = True
        yield some


def _flood(
    labels: NDArray[np.int32],
    runs: _Runs,
    part: NDArray[np.int32],
    bounds: _Bounds,
    at: Box,
    distance: NDArray[np.float32] | None,
    splitting: Splitting,
    um_per_px: float,
    last: int,
) -> NDArray[np.intp]:
    """Splits the parts that ``runs`` make up by their markers; numbers in ``labels`` go on from ``last``.

    Returns the new labels' areas in pixels.

    ``labels`` and ``runs`` have rows one longer than ``at``, ``distance`` (learned only) is its crop. The parts are
    laid out anew, each as it is and none touching another, so that little more than them is looked at.
    """
    down, right, shape = _layout(bounds, np.unique(part))
    y = runs.starts // runs.stride
    x = runs.starts - y * runs.stride
    target = (y + at.y0 + down[part]) * shape[1] + (x + at.x0 + right[part])
    lengths = runs.lengths
    here, there = _stretches(target, lengths), _stretches(runs.starts, lengths)
    # float32 counts to 2^24
    height = np.full(shape, -np.inf, np.float32 if len(here) < 1 << 24 else np.float64)
    flat = height.reshape(-1)
    if distance is not None:
        flat[here] = distance[np.divmod(there, runs.stride)]
        seeds = _high_maxima(height, splitting.depth or 0.0)
    else:
        flat[here] = _to_outside(here, shape)
        seeds = _high_maxima(height, (splitting.split_um or 0.0) / um_per_px)
    # many heights are equal: without an order among them of its own a part would depend on the others
    flat[here[np.argsort(flat[here], kind="stable")]] = np.arange(len(here))
    found = _watershed(height, seeds).reshape(-1)[here]
    labels.reshape(-1)[there] = found + last
    areas: NDArray[np.intp] = np.bincount(found)[1:]
    return areas


def _to_outside(pixels: NDArray[np.intp], shape: tuple[int, int]) -> NDArray[np.float32]:
    """The distance from each of ``pixels`` (of the flattened array) to the nearest that is not one of them."""
    from scipy import ndimage

    inside = np.zeros(shape, bool)
    inside.reshape(-1)[pixels] = True
    distance: NDArray[np.float32] = (
        ndimage.distance_transform_edt(inside).astype(np.float32).reshape(-1)[pixels]
    )
    return distance


def _high_maxima(height: NDArray[np.floating], depth: float) -> NDArray[np.bool_]:
    """The h-maxima: what is left of the tops when all are lowered by ``depth`` and grown again under ``height``.

    Minus infinity is outside. A part always keeps its highest top, so none is without a marker.
    """
    from skimage.morphology import local_maxima, reconstruction

    # far below anything else, and finite for the subtraction
    ground = np.maximum(height, -1e6).astype(np.float64)
    cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)
    lowered = reconstruction(ground - depth, ground, method="dilation", footprint=cross)
    tops: NDArray[np.bool_] = local_maxima(lowered, connectivity=1, allow_borders=False)
    return tops


def _layout(
    bounds: _Bounds, chosen: NDArray[np.integer]
) -> tuple[NDArray[np.intp], NDArray[np.intp], tuple[int, int]]:
    """How far down and right each chosen part moves so that all fit into a small array without touching.

    Shelves of parts by falling height; an empty pixel lies around each part. Returns two shifts, (parts,)
    each, and the array's shape.
    """
    heights, widths = (bounds.y1 - bounds.y0)[chosen], (bounds.x1 - bounds.x0)[chosen]
    area = float(np.sum((heights + 1) * (widths + 1)))
    width = max(int(np.sqrt(area)), int(widths.max()) + 2)
    down, right = np.zeros(len(bounds.x0), np.intp), np.zeros(len(bounds.x0), np.intp)
    top, left, shelf = 1, 1, 0
    order = np.argsort(-heights, kind="stable")
    for of, high, wide in zip(
        chosen[order].tolist(), heights[order].tolist(), widths[order].tolist(), strict=True
    ):
        if left + wide + 1 > width:
            top, left, shelf = top + shelf + 1, 1, 0
        down[of], right[of] = top, left
        left += wide + 1
        shelf = max(shelf, high)
    down[chosen] -= bounds.y0[chosen]
    right[chosen] -= bounds.x0[chosen]
    return down, right, (top + shelf + 1, width)


def _watershed(height: NDArray[np.floating], seeds: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Labels from 1 of the pixels above minus infinity, flooded downhill from the 4-connected places of ``seeds``.

    The outermost rows and columns are minus infinity. A pixel is given to a marker outright where each step
    from it to its one highest neighbor leads up and the last into that marker: all on that way is flooded
    before any other neighbor of it. The queue decides about the rest: ties, and what lies behind a summit too
    low for a marker.
    """
    from scipy import ndimage
    from skimage.segmentation import watershed

    markers: NDArray[np.int32] = ndimage.label(seeds, output=np.int32)[0]
    stride = height.shape[1]
    flat, labels = height.reshape(-1), markers.reshape(-1)
    middle = slice(stride, -stride)
    beside = [flat[stride + step : len(flat) - stride + step] for step in (-stride, -1, 1, stride)]
    highest = np.maximum(np.maximum(beside[0], beside[1]), np.maximum(beside[2], beside[3]))
    inner = flat[middle]
    open_ = (inner > -np.inf) & ~seeds.reshape(-1)[middle]
    ways = np.zeros(len(inner), np.int8)
    step = np.zeros(len(inner), np.int32)
    for values, offset in zip(beside, (-stride, -1, 1, stride), strict=True):
        is_highest = values == highest
        ways += is_highest
        step += is_highest * np.int32(offset)
    rising = np.flatnonzero(open_ & (ways == 1) & (highest > inner))
    toward = np.arange(len(flat))
    rising_at = rising + stride
    toward[rising_at] += step[rising]
    while True:
        now = toward[rising_at]
        further = toward[now]
        if np.array_equal(now, further):
            break
        toward[rising_at] = further
    labels[rising_at] = labels[now]

    left = np.zeros(len(flat), bool)
    left[middle] = open_ & (labels[middle] == 0)
    if not left.any():
        return markers
    mask = left.copy()
    for offset in (-stride, -1, 1, stride):
        mask[middle] |= left[stride + offset : len(flat) - stride + offset]
    mask &= (labels > 0) | left
    mask_2d = mask.reshape(height.shape)
    flooded = watershed(-height, markers, mask=mask_2d, connectivity=1)
    np.copyto(markers, flooded, where=left.reshape(height.shape), casting="same_kind")
    return markers


def _fill_holes(labels: NDArray[np.int32], areas: NDArray[np.float64], mask: NDArray[np.bool_]) -> None:
    """Fills, in place, each background part that touches one label only, not the border, and is no larger.

    ``labels`` (h, w + 1) with an empty last column; ``areas``: pixels of each label; ``mask`` (h, w): every nucleus,
    those without a label too.
    """
    stride = labels.shape[1]
    ground = np.ones((labels.shape[0] + 2, stride), bool)
    np.logical_not(mask, out=ground[1:-1, :-1])
    # runs of background may go on in the next row through the border, which is one part with them anyway
    flat = ground.reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = _Runs(np.concatenate([[0], changes[1::2]]), np.concatenate([changes[::2], [len(flat)]]), stride)
    hole, count = runs.joined(reach=1)
    if count == 1:
        return
    inner = hole != hole[0]
    # what is larger than any nucleus needs no look at what it touches
    sizes = np.bincount(hole, runs.lengths, minlength=count)
    inner &= sizes[hole] <= areas[1:].max()
    if not inner.any():
        return
    starts, lengths = runs.starts[inner] - stride, runs.lengths[inner]
    pixels, of = _stretches(starts, lengths), np.repeat(hole[inner], lengths)
    flat_labels = labels.reshape(-1)
    lowest = np.full(count, np.iinfo(np.int32).max, np.int32)
    highest = np.zeros(count, np.int32)
    for step in (-stride, -1, 1, stride):
        beside = pixels + step
        label = flat_labels[beside]
        nucleus = mask[np.divmod(beside, stride)]
        label[nucleus & (label == 0)] = -1
        np.minimum.at(lowest, of[nucleus], label[nucleus])
        np.maximum.at(highest, of[nucleus], label[nucleus])
    fill = lowest == highest
    fill &= sizes <= areas[np.where(fill, highest, 0)]
    inside = fill[of]
    flat_labels[pixels[inside]] = highest[of[inside]]
