"""Pooled and mean scores of images equal those of scikit-learn and of the single images."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics

from lobule.evaluation.instances import aji, aji_plus, count_panoptic
from lobule.evaluation.nuclei import ImageScores, object_intervals, pixel_intervals, score_image


def draw(seed: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """A label map of disks, and another in which they are moved, split or gone."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:70, :80]
    truth, found = np.zeros((70, 80), np.int32), np.zeros((70, 80), np.int32)
    for label in range(1, 9):
        row, column, radius = rng.integers(8, 62), rng.integers(8, 72), rng.integers(4, 9)
        truth[np.hypot(rows - row, columns - column) < radius] = label
        if rng.random() < 0.8:
            away = rng.integers(-3, 4, 2)
            found[np.hypot(rows - row - away[0], columns - column - away[1]) < radius] = label
    return truth, found


@pytest.fixture(name="images", scope="module")
def _images() -> list[tuple[NDArray[np.int32], NDArray[np.int32], ImageScores]]:
    drawn = [draw(seed) for seed in range(6)]
    empty = np.zeros((70, 80), np.int32)
    drawn += [(empty, drawn[0][1]), (drawn[0][0], empty), (empty, empty)]
    return [(truth, found, score_image(truth, found > 0, {"own": found})) for truth, found in drawn]


SKLEARN = {
    "Jaccard": metrics.jaccard_score,
    "F1": metrics.f1_score,
    "precision": metrics.precision_score,
    "recall": metrics.recall_score,
}


def test_pooled_pixel_scores_are_scikit_learns(images) -> None:
    truth = np.concatenate([one[0].ravel() > 0 for one in images])
    found = np.concatenate([one[1].ravel() > 0 for one in images])
    own = pixel_intervals([one[2] for one in images])
    for name, theirs in SKLEARN.items():
        assert own[f"pixel {name}, pooled"].value == pytest.approx(theirs(truth, found))
    assert own["pixel accuracy, pooled"].value == pytest.approx(metrics.accuracy_score(truth, found))


def test_mean_pixel_scores_are_scikit_learns_where_they_are_defined(images) -> None:
    defined = images[:6]
    own = pixel_intervals([one[2] for one in defined])
    for name, theirs in SKLEARN.items():
        each = [theirs(truth.ravel() > 0, found.ravel() > 0) for truth, found, _ in defined]
        interval = own[f"pixel {name}, mean of images"]
        assert interval.value == pytest.approx(np.mean(each))
        assert min(each) <= interval.low <= interval.value <= interval.high <= max(each)


def test_object_scores_are_those_of_the_single_images(images) -> None:
    own = object_intervals([one[2] for one in images], "own")
    assert own["AJI, mean of images"].value == pytest.approx(np.mean([aji(t, f) for t, f, _ in images]))
    assert own["AJI+, mean of images"].value == pytest.approx(np.mean([aji_plus(t, f) for t, f, _ in images]))
    counts = [count_panoptic(t, f) for t, f, _ in images]
    assert own["PQ, mean of images"].value == pytest.approx(np.mean([c.panoptic_quality for c in counts]))
    total = sum(counts[1:], counts[0])
    assert own["PQ, pooled"].value == pytest.approx(total.panoptic_quality)
    product = own["segmentation quality, pooled"].value * own["object F1 at IoU 0.5, pooled"].value
    assert product == pytest.approx(total.panoptic_quality)


def test_nothing_to_find_and_nothing_found_is_perfect() -> None:
    empty = np.zeros((9, 9), np.int32)
    scores = [score_image(empty, empty > 0, {"own": empty})] * 5
    for interval in (*pixel_intervals(scores).values(), *object_intervals(scores, "own").values()):
        assert interval.value == interval.low == interval.high == 1
