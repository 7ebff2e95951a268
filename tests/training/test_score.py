"""Scores of made-up answers are what they must be."""

from __future__ import annotations

import numpy as np

from lobule.evaluation.interval import Interval
from lobule.training.score import (
    FieldScores,
    best_threshold,
    bounds_of,
    pixel_statistics,
    tumor_scores,
)


def test_the_best_threshold_lies_in_the_middle_of_the_widest_gap() -> None:
    assert best_threshold(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.6, 0.9])) == 0.4


def test_perfect_tiles_score_one_by_tile_and_by_field() -> None:
    scores = FieldScores(
        np.array([0, 1, 0, 1]),
        np.array([0, 0, 1, 1, 2, 3]),
        np.array([0.1, 0.2, 0.9, 0.8, 0.3, 0.7], np.float32),
    )
    np.testing.assert_allclose(scores.of_fields, [0.15, 0.85, 0.3, 0.7], rtol=1e-6)
    for score in tumor_scores(scores, 0.5, "made-up fields"):
        # two fields of a class: an interval would be from one of them to the other
        assert (score.value, score.low, score.high) == (1.0, None, None)
        assert score.how.endswith("; no interval: fewer than 5 fields")
    many = FieldScores(np.arange(10) % 2, np.arange(10), (np.arange(10) % 2).astype(np.float32))
    for score in tumor_scores(many, 0.5, "made-up fields"):
        assert score.value == score.low == score.high == 1.0
        assert score.how.endswith("; bootstrap over fields")


def test_bounds_are_told_where_there_are_any() -> None:
    assert bounds_of(Interval(0.5, 0.25, 0.75), ".3f") == "0.250 to 0.750"
    assert bounds_of(Interval(0.5, None, None), ".3f") == "no interval: fewer than 5 images"


def test_pixel_statistics_are_those_of_image_means() -> None:
    images = [np.full((4, 4, 3), value, np.uint8) for value in (100, 110)]
    assert pixel_statistics(images) == ([105.0] * 3, [5.0] * 3)
