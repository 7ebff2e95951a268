"""From a network's maps to one label a nucleus: three ways of telling touching nuclei apart.

``components``: none are told apart; each 4-connected part of the mask is a nucleus. ``watershed``: the distance
of each pixel to the outside of its part is flooded from its h-maxima, for networks that give a mask alone.
``learned``: the same with the network's own map of distances, which knows nuclei that a mask's outline does not show.

Nearly all nuclei stand alone or hold one marker, and are then what the mask says. So connected parts are found
on runs (maximal stretches of a row, a sixteenth of the pixels). The markers of all parts are found together, with
what a flood gives each of them (`flooded`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lobule.annotations.parts import connected_runs
from lobule.families.basins import flooded
from lobule.geometry import Box

__all__ = ["Splitting", "Way", "split", "split_near"]

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
    part, count = connected_runs(runs.starts, runs.stops, stride=runs.stride, diagonal=False)
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
    parted = _Parted(np.zeros(0, np.intp), np.zeros(0, np.int32), np.zeros(0, np.int32))
    if splitting.depth is not None:
        distance = np.ascontiguousarray(maps[1, at.y0 : at.y1, at.x0 : at.x1]).reshape(-1)
        pixels = _Pixels.of(runs, part, bounds, at)
        parted = _parted(pixels, distance.take(pixels.places - pixels.places // runs.stride), splitting.depth)
    elif splitting.split_um is not None:
        depth_px = splitting.split_um / um_per_px
        possible = _may_hold_two(bounds, depth_px)[part]
        if possible.any():
            pixels = _Pixels.of(runs.chosen(possible), part[possible], bounds, at)
            parted = _parted(pixels, _to_outside(pixels), depth_px)

    # one label a part; those of parts with several markers follow
    alone = near.copy()
    alone[parted.part] = False
    number = np.cumsum(alone, dtype=np.int32)
    last = int(number[-1])
    number[~alone] = 0
    labels = runs.painted(number[part], at.height)
    labels.reshape(-1)[parted.places] = parted.nucleus + last
    areas = np.concatenate(
        [np.bincount(number[part], runs.lengths, minlength=last + 1), np.bincount(parted.nucleus)[1:]]
    )
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

    def bounds(self, part: NDArray[np.intp], count: int) -> _Bounds:
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


def _may_hold_two(bounds: _Bounds, depth: float) -> NDArray[np.bool_]:
    """Which parts are large enough for two tops of the distance with a pass ``depth`` px below either.

    The distance falls by at most 1 a pixel, so such tops lie 2 · ``depth`` apart and each has a disk of that
    radius around it within the part.
    """
    short = np.minimum(bounds.x1 - bounds.x0, bounds.y1 - bounds.y0)
    long = np.hypot(bounds.x1 - bounds.x0, bounds.y1 - bounds.y0)
    possible: NDArray[np.bool_] = (short >= 2 * depth) & (long >= 4 * depth)
    return possible


@dataclass(frozen=True, eq=False)
class _Pixels:
    """The pixels of some parts: ``places`` (n,), rising, of the flattened ``at``, whose rows are one longer and end
    in an unset pixel, and the ``part`` of each, (n,); ``bounds`` are all parts'."""

    places: NDArray[np.intp]
    part: NDArray[np.intp]
    bounds: _Bounds
    at: Box

    @staticmethod
    def of(runs: _Runs, part: NDArray[np.intp], bounds: _Bounds, at: Box) -> _Pixels:
        return _Pixels(_stretches(runs.starts, runs.lengths), np.repeat(part, runs.lengths), bounds, at)

    @property
    def stride(self) -> int:
        return self.at.width + 1

    def laid_out(self) -> tuple[NDArray[np.intp], tuple[int, int]]:
        """The places in an array that holds little else, and its shape; an empty pixel lies around each part."""
        down, right, shape = _layout(self.bounds, np.flatnonzero(np.bincount(self.part)))
        y = self.places // self.stride
        x = self.places - y * self.stride
        return (y + self.at.y0 + down[self.part]) * shape[1] + (x + self.at.x0 + right[self.part]), shape


@dataclass(frozen=True, eq=False)
class _Parted:
    """The pixels of all parts with several markers: ``places``, ``part`` and ``nucleus``, counted from 1, (n,) each."""

    places: NDArray[np.intp]
    part: NDArray[np.intp]
    nucleus: NDArray[np.int32]


def _parted(pixels: _Pixels, heights: NDArray[np.float32], depth: float) -> _Parted:
    """What a flood makes of the parts that hold several markers, where more than ``depth`` lies between two."""
    part = pixels.part
    found = flooded(heights, pixels.places, part, stride=pixels.stride, rows=pixels.at.height, depth=depth)
    several = np.bincount(part[found.tops], minlength=len(pixels.bounds.x0)) > 1
    shown = np.flatnonzero(several.take(part))
    number = np.cumsum(several[part[found.tops]], dtype=np.int32)
    return _Parted(pixels.places[shown], part[shown], number[found.owner[shown]])


def _to_outside(pixels: _Pixels) -> NDArray[np.float32]:
    """The distance from each pixel to the nearest outside its part."""
    from scipy import ndimage

    places, shape = pixels.laid_out()
    inside = np.zeros(shape, bool)
    inside.reshape(-1)[places] = True
    distance: NDArray[np.float32] = (
        ndimage.distance_transform_edt(inside).astype(np.float32).reshape(-1)[places]
    )
    return distance


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
    hole, count = connected_runs(runs.starts, runs.stops, stride=runs.stride, diagonal=True)
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
