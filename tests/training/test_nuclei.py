"""The nuclei task: perfect maps score one, thresholds are found, notes say what is there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch", reason="torch is not installed (pip install 'lobule[train]')")

from lobule.training.nuclei import NucleiTask
from lobule.training.nuclei_images import distance_within
from lobule.training.nuclei_sets import NucleiField
from lobule.training.recipe import NucleiRecipe, read_recipe

ROOT = Path(__file__).resolve().parents[2] / "recipes"


def task_on(recipe: str, fields: list[NucleiField]) -> NucleiTask:
    read = read_recipe(ROOT / f"{recipe}.toml")
    assert isinstance(read, NucleiRecipe)
    task = NucleiTask(read, ROOT, Path(), 0)
    task.parts = {"training": fields, "selection": fields, "test": fields}
    return task


def touching_disks() -> NucleiField:
    rows, columns = np.mgrid[:80, :90]
    instances = np.zeros((80, 90), np.int32)
    for label, (row, column) in enumerate([(20, 20), (20, 41), (55, 60)], start=1):
        instances[np.hypot(rows - row, columns - column) < 12] = label
    pixels = np.zeros((80, 90, 3), np.uint8)
    pixels[..., 0] = instances
    return NucleiField("made/up", "nobody", pixels, instances, None, "made")


@pytest.mark.parametrize("recipe", ["nuclei-breast-lite0", "nuclei-modified-unet"])
def test_perfect_maps_score_one_in_every_way_but_components(recipe: str) -> None:
    field = touching_disks()
    task = task_on(recipe, [field])
    multiple = 32 if "lite0" in recipe else 16

    def predict(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        assert pixels.shape[0] % multiple == 0 and pixels.shape[1] % multiple == 0
        labels = pixels[..., 0].astype(np.int32)
        return np.stack([labels > 0, distance_within(labels)]).astype(np.float32)[: task.network_maps]

    thresholds = task.decide(predict)
    found = {score.name: score.value for score in task.score(predict, thresholds, "test").scores}
    assert found["pixel F1, pooled"] == 1
    # the mask alone does not say where disks part to the pixel
    least = 1.0 if "lite0" in recipe else 0.97
    assert min(found["AJI, mean of images"], found["PQ, pooled"]) >= least
    assert found["AJI, mean of images, components"] < 0.8


def test_organs_are_scored_apart_where_there_are_several() -> None:
    fields = [
        replace(touching_disks(), organ=organ) for organ in ("Breast", "Breast", "Kidney", "Kidney", "Liver")
    ]
    task = task_on("nuclei-breast-lite0", fields)

    def predict(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        labels = pixels[..., 0].astype(np.int32)
        return np.stack([labels > 0, distance_within(labels)]).astype(np.float32)

    found = {score.name: score.value for score in task.score(predict, task.decide(predict), "test").scores}
    assert {name for name in found if "AJI, mean of images, " in name} == {
        f"AJI, mean of images, {of}" for of in ("breast", "kidney", "components", "watershed")
    }
    assert found["pixel F1, pooled, kidney"] == found["PQ, mean of images, breast"] == 1


def test_notes_count_fields_patients_and_nuclei() -> None:
    task = task_on("nuclei-breast-lite0", [touching_disks()])
    assert task.notes() == [
        f"{part}: 1 of made (1 patients, 3 nuclei)" for part in ("training", "selection", "test")
    ]


def test_the_papers_split_is_by_patient_and_nobody_lies_on_two_sides(data_dir: Path) -> None:
    read = read_recipe(ROOT / "nuclei-breast-lite0.toml")
    assert isinstance(read, NucleiRecipe)
    parts = NucleiTask(read, ROOT, data_dir, 0).parts
    assert {part: len(fields) for part, fields in parts.items()} == {
        "training": 52,
        "selection": 6,
        "test": 22,
    }
    patients = {part: {field.patient for field in fields} for part, fields in parts.items()}
    assert patients["test"] == {"TNBC-02", "TNBC-04", "TNBC-06", "TNBC-08", "TNBC-10"}
    assert not patients["training"] & (patients["test"] | patients["selection"])
