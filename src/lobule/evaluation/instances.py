"""How well two label maps agree, object by object.

Labels are positive, 0 is background, gaps in the numbering do not matter. Two maps without any object agree
perfectly (1); where only one holds objects the score is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Agreement", "PanopticCounts", "aji", "aji_plus", "compare_labels", "count_panoptic"]

Labels = NDArray[np.integer]


@dataclass(frozen=True)
class _Overlaps:
    truth_areas: NDArray[np.int64]
    found_areas: NDArray[np.int64]
    truth: NDArray[np.int64]
    """Index of the true object, of each overlapping pair."""
    found: NDArray[np.int64]
    shared: NDArray[np.int64]

    @property
    def union(self) -> NDArray[np.int64]:
        return self.truth_areas[self.truth] + self.found_areas[self.found] - self.shared

    @property
    def iou(self) -> NDArray[np.float64]:
        return self.shared / self.union


def _overlaps(truth: Labels, found: Labels) -> _Overlaps:
    if truth.shape != found.shape:
        raise ValueError(f"the label maps differ in shape: {truth.shape} and {found.shape}")
    truth_ids, truth_index = np.unique(truth.ravel(), return_inverse=True)
    found_ids, found_index = np.unique(found.ravel(), return_inverse=True)
    pairs, shared = np.unique(truth_index * max(found_ids.size, 1) + found_index, return_counts=True)
    t, f = np.divmod(pairs, max(found_ids.size, 1))
    t_offset, f_offset = int(0 in truth_ids), int(0 in found_ids)
    inside = (truth_ids[t] > 0) & (found_ids[f] > 0)
    return _Overlaps(
        np.bincount(truth_index, minlength=truth_ids.size)[t_offset:],
        np.bincount(found_index, minlength=found_ids.size)[f_offset:],
        t[inside] - t_offset,
        f[inside] - f_offset,
        shared[inside],
    )


def aji(truth: Labels, found: Labels) -> float:
    """Returns the aggregated Jaccard index (Kumar et al. 2017).

    Each true object is compared with the found one of highest Jaccard index, which several may share;
    found objects that nobody took count into the union.
    """
    return _aji(_overlaps(truth, found))


def _aji(o: _Overlaps) -> float:
    if not o.truth_areas.size and not o.found_areas.size:
        return 1.0
    order = np.lexsort((o.found, -o.iou, o.truth))
    _, first = np.unique(o.truth[order], return_index=True)
    return _aggregate(o, order[first])


def aji_plus(truth: Labels, found: Labels) -> float:
    """Returns AJI+ (Graham et al. 2019): AJI with one-to-one pairs of greatest summed Jaccard index."""
    return _aji_plus(_overlaps(truth, found))


def _aji_plus(o: _Overlaps) -> float:
    from scipy.optimize import linear_sum_assignment

    if not o.truth_areas.size and not o.found_areas.size:
        return 1.0
    table = np.zeros((o.truth_areas.size, o.found_areas.size))
    table[o.truth, o.found] = o.iou
    pair_of = {(int(t), int(f)): k for k, (t, f) in enumerate(zip(o.truth, o.found, strict=True))}
    matched = [
        pair_of[key]
        for key in zip(*(side.tolist() for side in linear_sum_assignment(-table)), strict=True)
        if key in pair_of
    ]
    return _aggregate(o, np.array(matched, np.int64))


def _aggregate(o: _Overlaps, chosen: NDArray[np.integer]) -> float:
    missed = np.ones(o.truth_areas.size, bool)
    missed[o.truth[chosen]] = False
    spare = np.ones(o.found_areas.size, bool)
    spare[o.found[chosen]] = False
    union = o.union[chosen].sum() + o.truth_areas[missed].sum() + o.found_areas[spare].sum()
    return float(o.shared[chosen].sum() / union)


@dataclass(frozen=True)
class PanopticCounts:
    """Objects matched at a Jaccard index above 0.5, and the rest. Counts of several images add up."""

    matched: int
    spare: int
    missed: int
    summed_iou: float

    def __add__(self, other: PanopticCounts) -> PanopticCounts:
        return PanopticCounts(
            self.matched + other.matched,
            self.spare + other.spare,
            self.missed + other.missed,
            self.summed_iou + other.summed_iou,
        )

    @property
    def detection_quality(self) -> float:
        """F1 of objects."""
        total = self.matched + (self.spare + self.missed) / 2
        return self.matched / total if total else 1.0

    @property
    def segmentation_quality(self) -> float:
        """Mean Jaccard index of the matched objects; without any, 1 if there was nothing to match, else 0."""
        if self.matched:
            return self.summed_iou / self.matched
        return 0.0 if self.spare + self.missed else 1.0

    @property
    def panoptic_quality(self) -> float:
        """Detection quality times segmentation quality (Kirillov et al. 2019)."""
        return self.detection_quality * self.segmentation_quality


def count_panoptic(truth: Labels, found: Labels) -> PanopticCounts:
    """Returns the matches of two label maps; above 0.5 a match is unique, so none has to be chosen."""
    return _panoptic(_overlaps(truth, found))


@dataclass(frozen=True)
class Agreement:
    """How well one label map agrees with another, by every measure of this module."""

    panoptic: PanopticCounts
    aji: float
    aji_plus: float


def compare_labels(truth: Labels, found: Labels) -> Agreement:
    """Returns all measures at once: what overlaps what is looked up once."""
    o = _overlaps(truth, found)
    return Agreement(_panoptic(o), _aji(o), _aji_plus(o))


def _panoptic(o: _Overlaps) -> PanopticCounts:
    iou = o.iou
    good = iou > 0.5
    matched = int(good.sum())
    return PanopticCounts(
        matched, o.found_areas.size - matched, o.truth_areas.size - matched, float(iou[good].sum())
    )
