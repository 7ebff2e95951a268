"""The nuclei task: perfect maps score one, thresholds are found, notes say what is there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("torch", reason="torch is not installed (pip install 'lobule[train]')")

import torch

from lobule.errors import ConfigurationError, WeightsNotFoundError
from lobule.strict import changed, values_of
from lobule.training.cards import nuclei_card, segment_graph
from lobule.training.nuclei import LOSS_SCORE, NucleiTask, _corner, _field_loss, nuclei_loss
from lobule.training.nuclei_images import distance_within
from lobule.training.nuclei_sets import NucleiField
from lobule.training.recipe import NucleiRecipe, NucleiSplit, read_recipe

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
        replace(touching_disks(), organ=organ) for organ in ("Breast",) * 5 + ("Kidney",) * 6 + ("Liver",) * 4
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
        f"{part}: 1 of made (1 patient, 3 nuclei)" for part in ("training", "selection", "test")
    ]


def write_fields(folder: Path, manifest: str) -> None:
    for name in ("a", "b", "c"):
        field = touching_disks()
        for kind, array in (("images", field.pixels), ("labels", field.instances.astype(np.uint8))):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array + np.uint8(ord(name) * (kind == "images"))).save(
                folder / kind / f"{name}.png"
            )
    (folder / "manifest.csv").write_text(manifest, "utf-8")


def task_at(data: Path, **changes: Any) -> NucleiTask:
    read = read_recipe(ROOT / "nuclei-breast-lite0.toml")
    assert isinstance(read, NucleiRecipe)
    own = changed(read, sets=("mine",), split=NucleiSplit(by="column"), **changes)
    return NucleiTask(own, ROOT, data, 0)


def test_fields_of_another_resolution_than_the_networks_are_refused(tmp_path: Path) -> None:
    head = "file,patient,split,mpp\na,1,training,0.2527\nb,2,test,"
    write_fields(tmp_path / "mine", f"{head}0.5\nc,3,test,\n")
    with pytest.raises(
        ConfigurationError, match=r"'mine/b' .* at 0.5 µm/px, .*\[network\] mpp is 0.25; resample"
    ):
        task_at(tmp_path).notes()
    write_fields(tmp_path / "mine", f"{head}0.2456\nc,3,test,\n")
    assert task_at(tmp_path).notes()[-1] == (
        "mine: 1 of 3 fields without a stated resolution, taken to be at 0.25 µm/px"
    )


def test_thresholds_are_stated_or_chosen_and_not_both(tmp_path: Path) -> None:
    write_fields(tmp_path / "mine", "file,patient,split\na,1,training\nb,2,test\nc,3,selection\n")
    with pytest.raises(ConfigurationError, match=r"thresholds: .* 1 field in the selection part"):
        task_at(tmp_path).notes()
    assert task_at(tmp_path, thresholds=None).notes()


def test_the_papers_split_is_by_patient_and_nobody_lies_on_two_sides(data_dir: Path) -> None:
    read = read_recipe(ROOT / "nuclei-breast-lite0.toml")
    assert isinstance(read, NucleiRecipe)
    parts = NucleiTask(read, ROOT, data_dir, 0).parts
    assert {part: len(fields) for part, fields in parts.items()} == {
        "training": 58,
        "selection": 0,
        "test": 22,
    }
    patients = {part: {field.patient for field in fields} for part, fields in parts.items()}
    assert patients["test"] == {"TNBC-02", "TNBC-04", "TNBC-06", "TNBC-08", "TNBC-10"}
    assert not patients["training"] & patients["test"]


def test_the_loss_of_a_field_is_that_of_training() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 3, (1, 1, 20, 30)).astype(np.float32)
    truth = random.random((20, 30)) < 0.3
    probability = torch.sigmoid(torch.from_numpy(logits))[0, 0].numpy()
    targets = torch.from_numpy(truth[None, None].astype(np.float32))
    expected = float(nuclei_loss(torch.from_numpy(logits), targets, 0.0))
    assert _field_loss(probability, truth) == pytest.approx(expected, rel=1e-5)
    sure = _field_loss(truth.astype(np.float32), truth)
    assert sure == pytest.approx(0, abs=1e-5)


def test_the_selection_part_is_looked_at_field_by_field_in_its_own_size() -> None:
    """Each field once, mirrored out to what the network needs; the same loss as by hand."""
    task = task_on("nuclei-modified-unet", [touching_disks()] * 3)
    check = task.check()
    assert check is not None
    seen: list[tuple[int, ...]] = []

    class Seeing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = torch.nn.Parameter(torch.zeros(1))

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            seen.append(tuple(pixels.shape))
            return (pixels[..., :1].permute(0, 3, 1, 2) > 0).float() * 40 - 20 + self.bias

    with torch.no_grad():
        assert check(Seeing()) == pytest.approx(0, abs=1e-4)
    assert seen == [(1, 80, 96, 3)] * 3


def test_an_image_of_any_shape_gives_a_corner_that_a_network_takes() -> None:
    tall, small = np.zeros((600, 300, 3), np.uint8), np.zeros((24, 40, 3), np.uint8)
    assert _corner(tall, 512, 32).shape == (512, 288, 3)
    assert _corner(small, 512, 32).size == 0


def test_a_trained_network_is_built_without_the_weights_it_started_from() -> None:
    read = read_recipe(ROOT / "nuclei-resnet50.toml")
    assert isinstance(read, NucleiRecipe)
    recipe = changed(read, network=changed(read.network, weights="gone.pth"))
    task = NucleiTask(recipe, ROOT, Path(), 0)
    with pytest.raises(WeightsNotFoundError, match=r"gone\.pth"):
        task.network()
    task.network(started=False)


@pytest.mark.parametrize(
    ("name", "parts", "said", "unsaid"),
    [
        (
            "nuclei-breast-lite0",
            {
                "training": {"monuseg": (1, 1, 9), "tnbc": (1, 1, 9)},
                "selection": {},
                "test": {"tnbc": (1, 1, 9)},
            },
            ("triple-negative", "how generously", "MoNuSeg", "Encoder weights: Apache-2.0"),
            (),
        ),
        (
            "nuclei-tnbc-lite0",
            {"training": {"tnbc": (1, 1, 9)}, "selection": {}, "test": {"tnbc": (1, 1, 9)}},
            ("triple-negative", "CC BY 4.0"),
            ("how generously", "MoNuSeg"),
        ),
        (
            "organs-nuclei-lite0",
            {
                "training": {"monuseg": (1, 1, 9), "tnbc": (1, 1, 9)},
                "selection": {},
                "test": {"monuseg": (1, 1, 9), "tnbc": (1, 1, 9)},
            },
            ("test besides: ",),
            ("triple-negative",),
        ),
        (
            "nuclei-resnet50",
            {"training": {"tnbc": (1, 1, 9)}, "selection": {}, "test": {"tnbc": (1, 1, 9)}},
            (),
            ("Apache",),
        ),
    ],
)
def test_a_card_says_what_is_true_of_its_recipe(
    name: str,
    parts: dict[str, dict[str, tuple[int, int, int]]],
    said: tuple[str, ...],
    unsaid: tuple[str, ...],
    tmp_path: Path,
) -> None:
    recipe = read_recipe(ROOT / f"{name}.toml")
    assert isinstance(recipe, NucleiRecipe)
    (tmp_path / "model.onnx").write_bytes(b"")
    graph = segment_graph(tmp_path / "model.onnx", recipe.network, 32)
    card = nuclei_card(
        recipe,
        name,
        graph,
        parts,
        fields={part: {f"{of}/1": "0" * 16 for of in found} for part, found in parts.items()},
        thresholds={"mask": 0.5, "min_area_um2": 3.0, "split_um": 0.5},
        pixels=([0.0] * 3, [1.0] * 3),
        made_by="test",
    )
    told = json.dumps(values_of(card), ensure_ascii=False)
    assert all(text in told for text in said)
    assert not any(text in told for text in unsaid)


def test_the_loss_on_the_test_part_is_among_the_scores() -> None:
    task = task_on("nuclei-modified-unet", [touching_disks()])

    def half(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.full((1, *pixels.shape[:2]), 0.5, np.float32)

    thresholds = {"mask": 0.5, "min_area_um2": 3.0, "split_um": 0.5}
    (score,) = (s for s in task.score(half, thresholds, "test").scores if s.name == LOSS_SCORE)
    truth = touching_disks().instances > 0
    dice = (truth.sum() + 1) / (truth.size / 2 + truth.sum() + 1)
    assert score.value == pytest.approx(np.log(2) + 1 - dice, abs=1e-4)
