"""Honest figures of trained models on blocks and patients that they never saw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from lobule.errors import ConfigurationError
from lobule.evaluation.classes import accuracy, auc, balanced_accuracy
from lobule.evaluation.interval import LEAST_UNITS, Interval, bootstrap
from lobule.models.card import Score
from lobule.training.bach import FieldImage, tile_field
from lobule.training.recipe import PatchSettings

__all__ = [
    "FieldScores",
    "best_threshold",
    "bounds_of",
    "pixel_statistics",
    "score_fields",
    "score_of",
    "tumor_scores",
]

Classify = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Tiles (N, H, W, 3) uint8 → probability of tumor (N,)."""


@dataclass(frozen=True, eq=False)
class FieldScores:
    """Tile probabilities of a block's fields that have tissue: ``field`` (N,) is the index of each tile's field."""

    truth: NDArray[np.int64]
    """1 = carcinoma, of each field (F,)."""
    field: NDArray[np.int64]
    probability: NDArray[np.float32]
    without_tissue: int = 0
    """Fields of the block without a tile to judge: neither found nor missed."""

    @property
    def of_fields(self) -> NDArray[np.float64]:
        """Mean probability of each field (F,)."""
        count = np.bincount(self.field, minlength=self.truth.size)
        return np.bincount(self.field, self.probability, self.truth.size) / count


def score_fields(
    classify: Classify, fields: Sequence[FieldImage], field_mpp: float, settings: PatchSettings
) -> FieldScores:
    """Returns the tile probabilities of ``fields`` at the working resolution, tissue tiles only.

    Raises ConfigurationError where carcinoma or the other fields have no such tile.
    """
    truth: list[int] = []
    index: list[int] = []
    found: list[NDArray[np.float32]] = []
    for field in fields:
        _, tiles = tile_field(field.pixels, field_mpp, settings.mpp, settings.tile_px, settings.min_tissue)
        if len(tiles):
            found.append(classify(tiles))
            index.extend([len(truth)] * len(tiles))
            truth.append(int(field.tumor))
    if set(truth) != {0, 1}:
        raise ConfigurationError(
            "--data",
            f"{len(fields)} fields to score on",
            f"{len(truth)} have tissue; there must be carcinoma and other fields among them",
        )
    return FieldScores(np.array(truth), np.array(index), np.concatenate(found), len(fields) - len(truth))


def score_of(name: str, interval: Interval, on: str, how: str, over: str) -> Score:
    """Returns the score that a card holds; ``over``: what was resampled, or was too few to be."""
    if interval.low is None or interval.high is None:
        told = f"no interval: fewer than {LEAST_UNITS} {over}"
        return Score(name=name, value=round(interval.value, 4), on=on, how=f"{how}; {told}")
    return Score(
        name=name,
        value=round(interval.value, 4),
        low=round(interval.low, 4),
        high=round(interval.high, 4),
        on=on,
        how=f"{how}; bootstrap over {over}",
    )


def bounds_of(one: Score | Interval, form: str) -> str:
    """The bounds in words, numbers in the format ``form``."""
    if one.low is None or one.high is None:
        return f"no interval: fewer than {LEAST_UNITS} images"
    return f"{one.low:{form}} to {one.high:{form}}"


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
            if scores.without_tissue:
                count += f" (fields without tissue left out: {scores.without_tissue})"
            out.append(
                score_of(
                    f"{level} {name}",
                    interval,
                    f"{where}, {count}",
                    "carcinoma (in situ, invasive) against normal and benign"
                    + (", mean probability of a field's tiles" if level == "field" else "")
                    + ("" if name == "AUC" else f", threshold {threshold:g}"),
                    "fields",
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
