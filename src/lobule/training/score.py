"""Honest figures of trained models on blocks and patients that they never saw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from lobule.evaluation.classes import accuracy, auc, balanced_accuracy
from lobule.evaluation.instances import PanopticCounts, aji, aji_plus, count_panoptic
from lobule.evaluation.interval import bootstrap
from lobule.evaluation.pixels import MaskCounts, count_mask
from lobule.families.instances import find_instances
from lobule.models.card import Score
from lobule.training.bach import FieldImage, tile_field
from lobule.training.nuclei_fields import NucleiField
from lobule.training.recipe import PatchSettings

__all__ = [
    "FieldScores",
    "NucleiThresholds",
    "best_threshold",
    "choose_nuclei_thresholds",
    "pixel_statistics",
    "score_fields",
    "score_nuclei",
    "segment_fields",
    "tumor_scores",
]

Classify = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Tiles (N, H, W, 3) uint8 → probability of tumor (N,)."""
Segment = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Images (N, H, W, 3) uint8 → maps (N, 2, H, W)."""


@dataclass(frozen=True, eq=False)
class FieldScores:
    """Tile probabilities of a block of fields: ``field`` (N,) is the index of each tile's field."""

    truth: NDArray[np.int64]
    """1 = carcinoma, of each field (F,)."""
    field: NDArray[np.int64]
    probability: NDArray[np.float32]

    @property
    def of_fields(self) -> NDArray[np.float64]:
        """Mean probability of each field (F,)."""
        count = np.bincount(self.field, minlength=self.truth.size)
        return np.bincount(self.field, self.probability, self.truth.size) / np.maximum(count, 1)


def score_fields(
    classify: Classify, fields: Sequence[FieldImage], field_mpp: float, settings: PatchSettings
) -> FieldScores:
    """Returns the tile probabilities of ``fields`` at the working resolution, tissue tiles only."""
    index: list[int] = []
    found: list[NDArray[np.float32]] = []
    for number, field in enumerate(fields):
        _, tiles = tile_field(field.pixels, field_mpp, settings.mpp, settings.tile_px, settings.min_tissue)
        if len(tiles):
            found.append(classify(tiles))
            index.extend([number] * len(tiles))
    truth = np.array([int(field.tumor) for field in fields])
    return FieldScores(truth, np.array(index), np.concatenate(found))


def best_threshold(truth: NDArray[np.integer], score: NDArray[np.floating]) -> float:
    """Returns the threshold of highest balanced accuracy, in the middle of the widest stretch that has it."""
    values = np.unique(np.concatenate([[0.0, 1.0], score.astype(np.float64)]))
    middles = (values[1:] + values[:-1]) / 2
    reached = np.array([balanced_accuracy(truth, (score > t).astype(int)) for t in middles])
    best = np.flatnonzero(reached >= reached.max() - 1e-9)
    widest = max(best, key=lambda k: values[k + 1] - values[k])
    return float(round(middles[widest], 3))


def tumor_scores(scores: FieldScores, threshold: float, where: str) -> list[Score]:
    """Returns accuracy, balanced accuracy and AUC by field and by tile, intervals over fields by class."""
    fields, tile_truth = scores.of_fields, scores.truth[scores.field]
    members = [np.flatnonzero(scores.field == k) for k in range(scores.truth.size)]
    out = []
    for level in ("field", "tile"):
        truth = scores.truth if level == "field" else tile_truth
        value = fields if level == "field" else scores.probability

        def units(at: NDArray[np.intp], level: str = level) -> NDArray[np.intp]:
            return at if level == "field" else np.concatenate([members[k] for k in at])

        statistics = (
            ("accuracy", partial(_called, accuracy, truth, value, threshold)),
            ("balanced accuracy", partial(_called, balanced_accuracy, truth, value, threshold)),
            ("AUC", partial(_ranked, truth, value)),
        )
        for name, statistic in statistics:
            interval = bootstrap(
                lambda at, s=statistic, u=units: s(u(at)),  # type: ignore[misc]
                scores.truth.size,
                strata=scores.truth,
            )
            count = f"{truth.size} {level}s" + ("" if level == "field" else f" of {scores.truth.size} fields")
            out.append(
                Score(
                    name=f"{level} {name}",
                    value=round(interval.value, 4),
                    low=round(interval.low, 4),
                    high=round(interval.high, 4),
                    on=f"{where}, {count}",
                    how="carcinoma (in situ, invasive) against normal and benign"
                    + (", mean probability of a field's tiles" if level == "field" else "")
                    + ("" if name == "AUC" else f", threshold {threshold:g}")
                    + "; bootstrap over fields",
                )
            )
    return out


def _called(
    measure: Callable[[NDArray[np.integer], NDArray[np.integer]], float],
    truth: NDArray[np.integer],
    value: NDArray[np.floating],
    threshold: float,
    at: NDArray[np.intp],
) -> float:
    return measure(truth[at], (value[at] > threshold).astype(int))


def _ranked(truth: NDArray[np.integer], value: NDArray[np.floating], at: NDArray[np.intp]) -> float:
    return auc(truth[at], value[at])


def pixel_statistics(images: Sequence[NDArray[np.uint8]]) -> tuple[list[float], list[float]]:
    """Returns mean and SD over images of their mean RGB, 0-255."""
    means = np.array([image.reshape(-1, 3).mean(axis=0) for image in images])
    return means.mean(axis=0).round(2).tolist(), np.maximum(means.std(axis=0), 1.0).round(2).tolist()


@dataclass(frozen=True)
class NucleiThresholds:
    """Values of the splitter."""

    mask: float
    marker: float
    min_area_um2: float

    def split(self, maps: NDArray[np.float32], mpp: float) -> NDArray[np.int32]:
        """Returns the label map of one image's maps (2, H, W)."""
        return find_instances(
            maps,
            mask_threshold=self.mask,
            marker_threshold=self.marker,
            min_area_px=self.min_area_um2 / mpp**2,
        )


def segment_fields(segment: Segment, fields: Sequence[NucleiField]) -> list[NDArray[np.float32]]:
    """Returns the maps (2, H, W) of each field, run whole, mirrored out to multiples of 32."""
    out = []
    for field in fields:
        height, width = field.pixels.shape[:2]
        grown = np.pad(field.pixels, ((0, -height % 32), (0, -width % 32), (0, 0)), mode="reflect")
        out.append(segment(grown[None])[0, :, :height, :width])
    return out


def choose_nuclei_thresholds(
    maps: Sequence[NDArray[np.float32]], fields: Sequence[NucleiField], mpp: float
) -> NucleiThresholds:
    """Returns the mask threshold of highest pooled Jaccard, then marker and area of highest AJI.

    Sets weigh alike, however many and large their selection fields are: they differ in how generously nuclei
    are outlined.
    """
    sets = sorted({field.name.split("/")[0] for field in fields})
    of_set = [[k for k, field in enumerate(fields) if field.name.startswith(f"{name}/")] for name in sets]

    def pooled(threshold: float) -> float:
        counts = [
            count_mask(field.instances > 0, one[0] > threshold)
            for one, field in zip(maps, fields, strict=True)
        ]
        return float(
            np.mean([sum((counts[k] for k in own), MaskCounts(0, 0, 0, 0)).jaccard for own in of_set])
        )

    def aggregated(values: NucleiThresholds) -> float:
        each = [aji(field.instances, values.split(one, mpp)) for one, field in zip(maps, fields, strict=True)]
        return float(np.mean([np.mean([each[k] for k in own]) for own in of_set]))

    mask = max(np.arange(0.3, 0.71, 0.05).round(2).tolist(), key=pooled)
    tried = [
        NucleiThresholds(mask, marker, area)
        for marker in (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
        for area in (3.0, 6.0, 10.0)
    ]
    return max(tried, key=aggregated)


def score_nuclei(
    maps: Sequence[NDArray[np.float32]],
    fields: Sequence[NucleiField],
    values: NucleiThresholds,
    mpp: float,
    where: str,
) -> list[Score]:
    """Returns pixel and object scores per image and pooled, with intervals over fields."""
    pixels, panoptic, ajis, ajis_plus = [], [], [], []
    for one, field in zip(maps, fields, strict=True):
        found = values.split(one, mpp)
        pixels.append(count_mask(field.instances > 0, found > 0))
        panoptic.append(count_panoptic(field.instances, found))
        ajis.append(aji(field.instances, found))
        ajis_plus.append(aji_plus(field.instances, found))

    def pool(at: NDArray[np.intp]) -> MaskCounts:
        return sum((pixels[k] for k in at), MaskCounts(0, 0, 0, 0))

    def pool_objects(at: NDArray[np.intp]) -> PanopticCounts:
        return sum((panoptic[k] for k in at), PanopticCounts(0, 0, 0, 0.0))

    def mean(values_: Sequence[float]) -> Callable[[NDArray[np.intp]], float]:
        return lambda at: float(np.asarray(values_)[at].mean())

    statistics: dict[str, Callable[[NDArray[np.intp]], float]] = {
        "pixel Jaccard, pooled": lambda at: pool(at).jaccard,
        "pixel Jaccard, mean of images": mean([c.jaccard for c in pixels]),
        "pixel F1, pooled": lambda at: pool(at).dice,
        "pixel F1, mean of images": mean([c.dice for c in pixels]),
        "pixel precision, pooled": lambda at: pool(at).precision,
        "pixel recall, pooled": lambda at: pool(at).recall,
        "AJI, mean of images": mean(ajis),
        "AJI+, mean of images": mean(ajis_plus),
        "PQ, mean of images": mean([c.panoptic_quality for c in panoptic]),
        "PQ, pooled": lambda at: pool_objects(at).panoptic_quality,
        "object F1 at IoU 0.5, pooled": lambda at: pool_objects(at).detection_quality,
    }
    out = []
    for name, statistic in statistics.items():
        interval = bootstrap(statistic, len(fields))
        out.append(
            Score(
                name=name,
                value=round(interval.value, 4),
                low=round(interval.low, 4),
                high=round(interval.high, 4),
                on=where,
                how=f"mask > {values.mask:g}, marker > {values.marker:g}, at least"
                f" {values.min_area_um2:g} µm²; bootstrap over fields",
            )
        )
    return out
