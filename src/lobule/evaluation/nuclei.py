"""Scores of found nuclei against outlined ones: pixels and objects, per image and pooled, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lobule.evaluation.instances import Agreement, PanopticCounts, compare_labels
from lobule.evaluation.interval import Interval, bootstrap
from lobule.evaluation.pixels import MaskCounts, count_mask

__all__ = ["ImageScores", "object_intervals", "pixel_intervals", "score_image"]


@dataclass(frozen=True)
class ImageScores:
    """One image: pixels of the mask, and objects of each way of telling nuclei apart."""

    pixels: MaskCounts
    objects: dict[str, Agreement]


def score_image(
    truth: NDArray[np.int32], mask: NDArray[np.bool_], found: dict[str, NDArray[np.int32]]
) -> ImageScores:
    """Returns the scores of a mask (H, W) and of label maps (H, W) by way against the true label map (H, W)."""
    return ImageScores(
        count_mask(truth > 0, mask),
        {way: compare_labels(truth, labels) for way, labels in found.items()},
    )


def pixel_intervals(images: Sequence[ImageScores]) -> dict[str, Interval]:
    """Returns Jaccard, F1, precision, recall and accuracy of pixels, pooled and as the mean of images.

    Intervals are 95 % percentiles of the bootstrap over images.
    """
    names = {
        "Jaccard": "jaccard",
        "F1": "dice",
        "precision": "precision",
        "recall": "recall",
        "accuracy": "accuracy",
    }
    counts = np.array(
        [
            [
                one.pixels.true_positive,
                one.pixels.false_positive,
                one.pixels.false_negative,
                one.pixels.true_negative,
            ]
            for one in images
        ]
    )
    out = {}
    for name, attribute in names.items():

        def pooled(at: NDArray[np.intp], attribute: str = attribute) -> float:
            return float(getattr(MaskCounts(*counts[at].sum(axis=0).tolist()), attribute))

        out[f"pixel {name}, pooled"] = bootstrap(pooled, len(images))
        out[f"pixel {name}, mean of images"] = _mean([getattr(one.pixels, attribute) for one in images])
    return out


def object_intervals(images: Sequence[ImageScores], way: str) -> dict[str, Interval]:
    """Returns AJI, AJI+, PQ, its two factors and object F1 of one way of telling nuclei apart, with intervals."""
    agreements = [one.objects[way] for one in images]
    objects = [one.panoptic for one in agreements]
    rows = np.array([[one.matched, one.spare, one.missed, one.summed_iou] for one in objects])

    def pooled(attribute: str) -> Callable[[NDArray[np.intp]], float]:
        def of(at: NDArray[np.intp]) -> float:
            matched, spare, missed, summed = rows[at].sum(axis=0)
            counts = PanopticCounts(int(matched), int(spare), int(missed), float(summed))
            return float(getattr(counts, attribute))

        return of

    return {
        "AJI, mean of images": _mean([one.aji for one in agreements]),
        "AJI+, mean of images": _mean([one.aji_plus for one in agreements]),
        "PQ, mean of images": _mean([one.panoptic_quality for one in objects]),
        "PQ, pooled": bootstrap(pooled("panoptic_quality"), len(images)),
        "segmentation quality, pooled": bootstrap(pooled("segmentation_quality"), len(images)),
        "object F1 at IoU 0.5, pooled": bootstrap(pooled("detection_quality"), len(images)),
    }


def _mean(values: Sequence[float]) -> Interval:
    each = np.asarray(values)
    return bootstrap(lambda at: float(each[at].mean()), len(each))
