"""Weights that an ONNX file keeps in other files are seen, wherever the tensor stands, and nothing else is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from drawn_models import redness_model
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from lobule.errors import CardError
from lobule.models.external_data import has_external_data
from lobule.models.zoo import load_model, shipped_models


def _outside(name: str = "w") -> TensorProto:
    tensor = numpy_helper.from_array(np.ones((4, 4), np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    return tensor


def _constant(tensor: TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["c"], value=tensor)


def _model(nodes: list[onnx.NodeProto], tensors: list[TensorProto]) -> bytes:
    graph = helper.make_graph(nodes, "g", [], [], tensors)
    model = helper.make_model(graph)
    helper.set_model_props(model, {"location": "weights.bin", "external_data": "p\x01"})
    return bytes(model.SerializeToString())


def _branch(tensor: TensorProto) -> onnx.NodeProto:
    inner = helper.make_graph([_constant(tensor)], "inner", [], [])
    return helper.make_node("If", ["condition"], ["y"], then_branch=inner, else_branch=inner)


def test_a_tensor_outside_is_seen_wherever_it_stands() -> None:
    inside = numpy_helper.from_array(np.zeros(3, np.float32), "location")
    assert has_external_data(_model([], [inside, _outside()]))
    assert has_external_data(_model([_constant(_outside())], []))
    assert has_external_data(_model([_branch(_outside())], []))
    function = helper.make_function("d", "f", [], ["c"], [_constant(_outside())], [])
    model = helper.make_model(helper.make_graph([], "g", [], []), functions=[function])
    assert has_external_data(model.SerializeToString())


def test_what_only_looks_like_it_is_not_taken_for_it() -> None:
    marks = numpy_helper.from_array(np.frombuffer(b"\x70\x01\x72\x01location", np.uint8), "external_data")
    nodes = [
        _constant(marks),
        _branch(marks),
        helper.make_node("Identity", ["location"], ["p\x01"], name="location"),
    ]
    assert not has_external_data(_model(nodes, [marks]))


@pytest.mark.parametrize("name", sorted(shipped_models()))
def test_a_shipped_model_has_all_its_weights_inside(name: str) -> None:
    for path in shipped_models()[name].glob("*.onnx"):
        assert not has_external_data(path.read_bytes())


@given(st.binary(max_size=300), st.integers(0, 10_000))
def test_bytes_that_are_no_onnx_file_are_left_to_the_runtime(noise: bytes, cut: int) -> None:
    assert has_external_data(noise) in (False, True)
    whole = _model([_branch(_outside())], [_outside()])
    assert has_external_data(whole[: cut % len(whole)]) in (False, True)
    assert not has_external_data(b"")


def test_a_model_with_weights_outside_is_refused_and_the_line_says_how_to_mend_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = redness_model(tmp_path / "redness")
    path = folder / "model.onnx"

    def card_for_it() -> None:
        card = json.loads((folder / "card.json").read_text())
        card["graphs"][0]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        (folder / "card.json").write_text(json.dumps(card))

    onnx.save(onnx.load(path), path, save_as_external_data=True, location="model.data", size_threshold=0)
    card_for_it()
    with pytest.raises(CardError, match=r"model\.onnx keeps weights in another file") as caught:
        load_model(folder)
    advice = "onnx.save(onnx.load('model.onnx'), 'model.onnx')"
    assert advice in str(caught.value)
    monkeypatch.chdir(folder)
    exec(advice, {"onnx": onnx})
    (folder / "model.data").unlink()
    card_for_it()
    load_model(folder)
