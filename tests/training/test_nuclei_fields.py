"""Fields with nuclei: patients stay apart, distances are right, crops fit their targets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lobule.errors import ConfigurationError
from lobule.training.nuclei_fields import (
    CropSource,
    NucleiField,
    distance_within,
    read_nuclei_fields,
    split_patients,
)
from lobule.training.recipe import NucleiRecipe, read_recipe

RECIPE = read_recipe(Path(__file__).resolve().parents[2] / "recipes" / "nuclei-breast-lite0.toml")
assert isinstance(RECIPE, NucleiRecipe)


def draw_field(name: str = "tnbc/01_1") -> NucleiField:
    rows, columns = np.mgrid[:300, :300]
    instances = np.zeros((300, 300), np.int32)
    for label, (row, column) in enumerate([(80, 80), (80, 110), (200, 150), (150, 240)], start=1):
        instances[np.hypot(rows - row, columns - column) < 14] = label
    pixels = np.full((300, 300, 3), (230, 190, 220), np.uint8)
    pixels[instances > 0] = (90, 60, 140)
    return NucleiField(name, "TNBC-01", pixels, instances)


def test_distances_equal_the_slow_ones_and_peak_at_one_in_every_nucleus() -> None:
    instances = np.zeros((14, 17), np.int32)
    instances[2:7, 3:10] = 1
    instances[2:7, 10:13] = 4
    instances[9:14, 0:6] = 2
    out = distance_within(instances)
    padded = np.pad(instances, 1)
    for label in (1, 2, 4):
        inside = np.argwhere(padded == label)
        outside = np.argwhere(padded != label)
        slow = np.array([np.hypot(*(outside - p).T).min() for p in inside])
        got = out[tuple((inside - 1).T)]
        np.testing.assert_allclose(got, slow / slow.max(), rtol=1e-6)
    assert (out[instances == 0] == 0).all()


def test_crops_and_targets_lie_on_each_other_and_repeat() -> None:
    settings = RECIPE.segment.model_copy(update={"crop_px": 96, "empty_share": 0.0})
    source = CropSource([draw_field()], settings)
    crops, targets = source.draw(np.random.default_rng(2), 8)
    assert crops.shape == (8, 96, 96, 3) and targets.shape == (8, 2, 96, 96)
    assert targets.dtype == np.float32 and targets.min() >= 0 and targets.max() <= 1
    dark = crops[..., 0].astype(float)
    inside, outside = dark[targets[:, 0] > 0.9].mean(), dark[targets[:, 0] < 0.1].mean()
    assert inside < outside - 40
    np.testing.assert_array_equal(crops, source.draw(np.random.default_rng(2), 8)[0])


def test_no_patient_lies_in_two_parts(data_dir: Path) -> None:
    fields = read_nuclei_fields(data_dir, RECIPE.sets)
    parts = split_patients(fields, RECIPE)
    assert sum(len(part) for part in parts.values()) == len(fields) == 80
    patients = {name: {field.patient for field in part} for name, part in parts.items()}
    assert not patients["training"] & patients["test"]
    assert not patients["training"] & patients["selection"]
    assert not patients["selection"] & patients["test"]
    assert patients["test"] == {"TNBC-02", "TNBC-04", "TNBC-06", "TNBC-08", "TNBC-10"}


def test_absent_sets_and_patients_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="tnbc"):
        read_nuclei_fields(tmp_path, ["tnbc"])
    with pytest.raises(ConfigurationError, match="TNBC-11"):
        split_patients([draw_field()], RECIPE)
