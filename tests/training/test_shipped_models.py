"""Shipped models: their cards hold, their files are the ones that the cards describe, and they fit a wheel."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

import lobule
from lobule.models.card import read_card
from lobule.models.zoo import load_model

ZOO = Path(lobule.__file__).parent / "zoo"
CARDS = sorted(ZOO.glob("*/card.json"))


def test_the_first_models_are_shipped() -> None:
    assert {path.parent.name for path in CARDS} >= {"tumor-breast-lite0", "nuclei-breast-lite0"}
    assert sum(path.stat().st_size for path in ZOO.glob("*/*.onnx")) < 40_000_000


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.parent.name)
def test_a_card_is_valid_and_its_digests_are_right(path: Path) -> None:
    card = read_card(path)
    assert card.name == path.parent.name
    own = {one.file for one in card.files() if one.of is None}
    assert own == {file.name for file in path.parent.glob("*.onnx")}
    for file, sha256, _, borrowed in card.files():
        data = (ZOO / (borrowed or path.parent.name) / file).read_bytes()
        assert hashlib.sha256(data).hexdigest() == sha256
        assert len(data) < 15_000_000
    used = {entry.used_for for entry in card.data}
    assert used >= {"training", "test"}
    # decision values were chosen on what neither trains nor tests, or came with the recipe
    assert "selection" in used or "the thresholds are the recipe's" in card.calibration
    for score in card.scores:
        if score.low is None:
            # two fields have a mean and no interval
            assert score.high is None and score.on.startswith("2 fields")
            continue
        assert score.high is not None and score.low <= score.value <= score.high


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.parent.name)
def test_a_graph_takes_and_gives_what_its_card_says(path: Path) -> None:
    import onnxruntime

    rng = np.random.default_rng(0)
    model = load_model(path.parent)
    for graph in model.card.graphs:
        session = onnxruntime.InferenceSession(str(model.file(graph)), providers=["CPUExecutionProvider"])
        assert [one.name for one in session.get_inputs()] == [one.name for one in graph.inputs]
        assert [one.name for one in session.get_outputs()] == [one.name for one in graph.outputs]
        feeds = {}
        for tensor in graph.inputs:
            # An open batch is two, an open height or width 64.
            shape = [n if n != -1 else 2 if axis == 0 else 64 for axis, n in enumerate(tensor.shape)]
            value = rng.random(shape)
            feeds[tensor.name] = (value * 255 if tensor.dtype == "uint8" else value).astype(tensor.dtype)
        for tensor, got in zip(graph.outputs, session.run(None, feeds), strict=True):
            assert got.dtype == tensor.dtype and got.ndim == len(tensor.shape)
            assert all(want in (-1, size) for want, size in zip(tensor.shape, got.shape, strict=True))
            assert got.min() >= 0 and got.max() <= 1


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.parent.name)
def test_the_terms_are_those_of_every_set_that_trained(path: Path) -> None:
    card = read_card(path)
    sources = " ".join(f"{entry.name} {entry.source}" for entry in card.data if entry.used_for == "training")
    told = [name for name in ("BACH", "MoNuSeg", "TNBC") if name in sources]
    assert told and all(name in card.terms for name in told)
    if "MoNuSeg" in sources and card.family == "tumor":
        assert any("MoNuSeg" in limit for limit in card.limits)
