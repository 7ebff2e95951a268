"""Scores of made-up answers are what they must be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lobule.errors import ConfigurationError
from lobule.evaluation.interval import Interval
from lobule.training.bach import FieldImage
from lobule.training.recipe import TumorRecipe, read_recipe
from lobule.training.score import (
    FieldScores,
    best_threshold,
    bounds_of,
    pixel_statistics,
    score_fields,
    tumor_scores,
)

RECIPE = read_recipe(Path(__file__).resolve().parents[2] / "recipes" / "tumor-breast-lite0.toml")
assert isinstance(RECIPE, TumorRecipe)
PATCH = RECIPE.patch


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


def _field(label: str, order: int, *, glass: bool = False) -> FieldImage:
    pixels = np.full((256, 256, 3), 240, np.uint8)
    if not glass:
        pixels[..., 1] = 120 if label == "normal" else 60
    return FieldImage(f"{label}{order}.png", label, order, pixels)


def _classify(tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
    return (tiles[..., 1].mean(axis=(1, 2)) < 90).astype(np.float32)


def test_a_field_without_tissue_is_neither_found_nor_missed() -> None:
    fields = [_field("invasive", 0, glass=True)]
    fields += [_field(label, order) for order in range(1, 6) for label in ("normal", "invasive")]
    found = score_fields(_classify, fields, 1.0, PATCH)
    assert found.truth.tolist() == [0, 1] * 5 and found.field.tolist() == list(range(10))
    assert found.without_tissue == 1
    scores = {score.name: score for score in tumor_scores(found, 0.5, "made-up fields")}
    assert scores["field accuracy"].value == scores["field AUC"].value == scores["tile accuracy"].low == 1
    assert scores["field accuracy"].on == "made-up fields, 10 fields (fields without tissue left out: 1)"
    assert scores["tile AUC"].on == (
        "made-up fields, 10 tiles of 10 fields (fields without tissue left out: 1)"
    )


@pytest.mark.parametrize("fields", [[], [_field("normal", 0), _field("invasive", 0, glass=True)]])
def test_fields_that_cannot_be_scored_are_named(fields: list[FieldImage]) -> None:
    with pytest.raises(
        ConfigurationError, match=f"{len(fields)} fields to score on.*carcinoma and other fields"
    ):
        score_fields(_classify, fields, 1.0, PATCH)


def test_bounds_are_told_where_there_are_any() -> None:
    assert bounds_of(Interval(0.5, 0.25, 0.75), ".3f") == "0.250 to 0.750"
    assert bounds_of(Interval(0.5, None, None), ".3f") == "no interval: fewer than 5 images"


def test_pixel_statistics_are_those_of_image_means() -> None:
    images = [np.full((4, 4, 3), value, np.uint8) for value in (100, 110)]
    assert pixel_statistics(images) == ([105.0] * 3, [5.0] * 3)
