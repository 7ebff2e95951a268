"""Proving a lower precision: what does as well and gains is written and kept, everything else goes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from drawn_models import darkness_model
from numpy.typing import NDArray
from training.drawn_networks import convolutional

from lobule.errors import ConfigurationError, ResultWriteError
from lobule.models.card import Card, Graph
from lobule.models.zoo import load_model
from lobule.runtimes import Runtime, computes_in
from lobule.strict import changed
from lobule.training import precision
from lobule.training.bach import FieldImage
from lobule.training.cards import write_card
from lobule.training.precision import prove_precisions
from lobule.training.recipe import read_recipe

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
NUCLEI = RECIPES / "nuclei-breast-lite0.toml"


class _Trial:
    """A made-up score for each precision, on made-up pixels."""

    values: ClassVar[dict[str, float]] = {}

    def __init__(self, *_: object) -> None:
        self._pixels = list(np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3)).astype(np.uint8))

    def score(self, graph: Graph, runtime: Runtime) -> precision._Measured:
        runtime.run(self.sample(graph))
        for name, value in self.values.items():
            engine, _, number_format = name.rpartition(" ")
            if number_format in runtime.description and engine in runtime.description:
                return precision._Measured("Dice", value, "a test part", "made up")
        return precision._Measured("Dice", 0.8, "a test part", "made up")

    def sample(self, graph: Graph) -> dict[str, NDArray[np.generic]]:
        return {graph.inputs[0].name: self._pixels[0][None]}

    def calibration(self, graph: Graph) -> Sequence[NDArray[np.uint8]]:
        return self._pixels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A nuclei model that is a small convolutional network."""
    folder = darkness_model(tmp_path / "model", tile_px=64, halo_px=8)
    convolutional(folder / "model.onnx")
    card = json.loads((folder / "card.json").read_text())
    graph = card["graphs"][0]
    graph["sha256"] = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    graph["outputs"][0]["shape"] = [-1, 1, -1, -1]
    (folder / "card.json").write_text(json.dumps(card))
    load_model(folder)
    return folder


def _prove(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    speedups: dict[str, float] | None = None,
    native: bool = True,
    **values: float,
) -> tuple[Card, list[str]]:
    """Proves with these scores by precision (0.8 where none is given) and speeds; ``native``: bfloat16 is computed."""
    faster = {"float32": 1.0, "bfloat16": 2.0, "int8": 3.0, **(speedups or {})}
    monkeypatch.setattr(precision, "_Nuclei", _Trial)
    monkeypatch.setattr(_Trial, "values", {name.replace("_", " "): value for name, value in values.items()})
    monkeypatch.setattr(precision, "computes_in", lambda _, which: native or which != "bfloat16")
    monkeypatch.setattr(precision, "_speedups", lambda given, _: {name: faster[name] for name in given})
    said: list[str] = []
    card = prove_precisions(folder, NUCLEI, folder, folder.parent / "work", say=said.append)
    assert load_model(folder).card == card
    return card, said


def _proven(card: Card) -> dict[str, Any]:
    return {lower.precision: lower for lower in card.graphs[0].lower_precisions}


def test_both_are_proven_and_the_int8_file_lies_beside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card, said = _prove(folder, monkeypatch, int8=0.801)
    proven = _proven(card)
    assert set(proven) == {"bfloat16", "int8"}
    assert proven["int8"].value == 0.801 and proven["int8"].float32 == 0.8
    assert proven["int8"].speedup == 3.0 and "one core, OpenVINO" in proven["int8"].measured_on
    (small,) = folder.glob("model-int8-*.onnx")
    assert {path.name for path in folder.iterdir()} == {"card.json", "model.onnx", small.name}
    assert proven["int8"].file == small.name and proven["int8"].sha256[:8] in small.name
    assert any("int8, 3.00 × as fast: proven" in line for line in said)
    before = small.read_bytes()
    assert _prove(folder, monkeypatch, int8=0.801)[0] == card, "the command gives the same again"
    assert small.read_bytes() == before


def test_a_file_of_the_same_bytes_keeps_the_name_that_the_card_knows(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _prove(folder, monkeypatch)
    (small,) = folder.glob("model-int8-*.onnx")
    plain = small.rename(folder / "model-int8.onnx")
    card = folder / "card.json"
    card.write_text(card.read_text("utf-8").replace(small.name, plain.name), "utf-8")
    assert _proven(_prove(folder, monkeypatch)[0])["int8"].file == "model-int8.onnx"
    assert [path.name for path in folder.glob("*int8*")] == ["model-int8.onnx"]


def test_a_card_that_cannot_be_written_leaves_a_whole_model_that_can_be_proven_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, _ = _prove(folder, monkeypatch)
    monkeypatch.setattr(
        _Trial, "calibration", lambda self, _: [pixels // 4 for pixels in self._pixels]
    )  # other ranges, other bytes

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(precision, "write_card", full)
        with pytest.raises(OSError, match="No space"):
            _prove(folder, monkeypatch)
    model = load_model(folder)
    assert model.card == before
    assert model.file(model.card.graphs[0], "int8").is_file()
    card, _ = _prove(folder, monkeypatch)
    assert _proven(card)["int8"].sha256 != _proven(before)["int8"].sha256
    assert len(list(folder.glob("*int8*"))) == 1


def test_a_card_is_written_whole_or_not_at_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (folder / "card.json").read_bytes()
    card = load_model(folder).card

    def cut(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", cut)
    with pytest.raises(ResultWriteError):
        write_card(changed(card, version="9.9.9"), folder)
    assert (folder / "card.json").read_bytes() == before


@pytest.mark.parametrize(
    ("scores", "speedups", "kept", "said"),
    [
        ({"int8": 0.7979}, {}, {"bfloat16"}, "3.00 × as fast: not proven"),
        ({"int8": 0.8021}, {}, {"bfloat16"}, "3.00 × as fast: not proven"),
        ({"ONNX Runtime_int8": 0.797}, {}, {"bfloat16"}, "0.79700 in int8"),
        ({"bfloat16": 0.79}, {}, {"int8"}, "0.79000 in bfloat16, 2.00 × as fast: not proven"),
        ({}, {"int8": 2.3}, {"bfloat16"}, "2.30 × as fast: proven, too small a gain"),
        ({"bfloat16": 0.79}, {"int8": 1.3}, {"int8"}, "1.30 × as fast: proven"),
        ({"bfloat16": 0.79}, {"int8": 1.1}, set(), "too small a gain"),
    ],
)
def test_what_is_not_proven_or_gains_too_little_leaves_nothing(
    scores: dict[str, float],
    speedups: dict[str, float],
    kept: set[str],
    said: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _prove(folder, monkeypatch)
    assert len(list(folder.glob("model-int8-*.onnx"))) == 1
    card, lines = _prove(folder, monkeypatch, speedups=speedups, **scores)
    assert set(_proven(card)) == kept
    assert any(said in line for line in lines), lines
    assert len(list(folder.glob("model-int8-*.onnx"))) == ("int8" in kept)


def test_where_bfloat16_is_not_computed_its_proof_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = _prove(folder, monkeypatch, bfloat16=0.8015)
    card, said = _prove(folder, monkeypatch, native=False)
    assert _proven(card)["bfloat16"] == _proven(first)["bfloat16"]
    assert any("bfloat16 not measured" in line for line in said)


def test_a_recipe_of_another_family_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not of the nuclei family"):
        prove_precisions(folder, RECIPES / "tumor-breast-lite0.toml", tmp_path, tmp_path, say=print)


def test_speedups_are_of_processor_time() -> None:
    class Slow:
        def __init__(self, repeats: int) -> None:
            self.repeats = repeats

        def run(self, _: object) -> None:
            for _ in range(self.repeats):
                np.linalg.svd(np.eye(40))

    found = precision._speedups({"float32": Slow(12), "int8": Slow(4)}, {})  # type: ignore[dict-item]
    assert found["float32"] == 1.0
    assert 2.0 < found["int8"] < 4.5


def test_crops_of_small_fields_are_mirrored_out() -> None:
    grown = precision._grown(np.arange(12, dtype=np.uint8).reshape(2, 2, 3), 5)
    assert grown.shape == (5, 5, 3)
    np.testing.assert_array_equal(grown[:2, :2].ravel(), np.arange(12))
    np.testing.assert_array_equal(grown[2], grown[1])
    assert precision._grown(np.zeros((9, 2, 3), np.uint8), 5, 4).shape == (12, 8, 3)


def test_speed_is_measured_on_a_field_with_tissue(folder: Path) -> None:
    recipe = read_recipe(RECIPES / "tumor-breast-lite0.toml")
    glass = np.full((320, 320, 3), 240, np.uint8)
    tissue = glass - np.array([40, 140, 60], np.uint8)
    trial = precision._Tumor.__new__(precision._Tumor)
    trial._recipe = recipe  # type: ignore[assignment]
    trial._fields = {
        "test": [FieldImage(str(k), "normal", k, pixels) for k, pixels in enumerate((glass, tissue))]
    }
    (tile,) = trial.sample(load_model(folder).card.graphs[0]).values()
    assert tile.shape == (1, 256, 256, 3) and (tile == tissue[0, 0]).all()


def test_a_student_is_proven_on_the_data_of_the_recipe_that_it_was_made_of(
    folder: Path, tmp_path: Path
) -> None:
    # read, and refused for the family of the recipe it leads to
    with pytest.raises(ConfigurationError, match="not of the nuclei family"):
        prove_precisions(folder, RECIPES / "tumor-breast-small0.toml", tmp_path, tmp_path, say=print)


def test_bfloat16_is_a_matter_of_openvino() -> None:
    assert not computes_in("onnxruntime", "bfloat16")
    assert computes_in("torch", "float32") and not computes_in("torch", "int8")
