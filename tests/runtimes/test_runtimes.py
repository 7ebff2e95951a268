"""Runtimes: they agree, they check graph against card, and their numbers do not depend on who runs beside."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_models import darkness_model, planar, redness_model

from lobule.errors import ConfigurationError, ModelOutputError
from lobule.models.card import Graph, LowerPrecision
from lobule.models.zoo import Model, load_model, select_models
from lobule.runtimes import Runtime, choose_precision, choose_runtime, computes_in, open_runtime
from lobule.runtimes import runtime as runtime_module
from lobule.strict import changed

KINDS = ["onnxruntime", "openvino"]


def _open(kind: str, model: Model, role: str, workers: int = 1) -> Runtime:
    graph = model.card.graph(role)
    assert graph is not None
    return open_runtime(kind, model.name, model.file(graph), graph, workers=workers)


@pytest.mark.parametrize("kind", KINDS)
def test_a_drawn_classifier_gives_the_share_of_red(kind: str, tmp_path: Path) -> None:
    runtime = _open(kind, load_model(redness_model(tmp_path / "m")), "patch")
    tile = np.full((1, 64, 64, 3), 200, np.uint8)
    tile[0, :16, :, 2] = 20
    output = runtime.run({"pixels": tile})["probabilities"]
    np.testing.assert_allclose(output, [[0.75, 0.25]], atol=1e-6)
    tile[0, :, :, 2] = 20
    np.testing.assert_allclose(output, [[0.75, 0.25]], atol=1e-6, err_msg="the array belongs to the caller")
    assert "float32" in runtime.description
    runtime.close()


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_may_lie_in_memory_as_they_like(kind: str, tmp_path: Path) -> None:
    runtime = _open(kind, load_model(redness_model(tmp_path / "m")), "patch")
    plain = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    expected = runtime.run({"pixels": plain})["probabilities"]
    locked = plain.copy()
    locked.setflags(write=False)
    for pixels in (locked, np.asfortranarray(plain), plain[:, ::-1, ::-1].copy()[:, ::-1, ::-1]):
        np.testing.assert_array_equal(runtime.run({"pixels": pixels})["probabilities"], expected)
    runtime.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("family", "role"), [("tumor", "patch"), ("nuclei", "segment")])
def test_numbers_are_the_same_bits_whoever_runs_beside(kind: str, family: str, role: str) -> None:
    model = select_models().get(family)
    assert model is not None, f"no shipped model of the family {family}"
    graph = model.card.graph(role)
    assert graph is not None
    random = np.random.default_rng(0)
    tiles = random.integers(0, 256, (4, 1, graph.tile_px, graph.tile_px, 3), np.uint8)
    results = []
    for workers in (1, 2):
        runtime = _open(kind, model, role, workers)
        with ThreadPoolExecutor(workers) as pool:
            found = pool.map(
                lambda tile, r=runtime: r.run({"pixels": tile})[graph.outputs[0].name].tobytes(), tiles
            )
            results.append(list(found))
        runtime.close()
    assert results[0] == results[1]


@pytest.mark.parametrize(("family", "role"), [("tumor", "patch"), ("nuclei", "segment")])
def test_the_runtimes_agree_on_a_shipped_model(family: str, role: str) -> None:
    model = select_models()[family]
    graph = model.card.graph(role)
    assert graph is not None
    y, x = np.mgrid[: graph.tile_px, : graph.tile_px]
    tile = np.stack([180 + 40 * np.sin(x / 9), 120 + 40 * np.cos(y / 7), 190 + 20 * np.sin((x + y) / 11)], -1)
    batch = tile.astype(np.uint8)[None]
    outputs = [_open(kind, model, role).run({"pixels": batch})[graph.outputs[0].name] for kind in KINDS]
    np.testing.assert_allclose(outputs[0], outputs[1], atol=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_shipped_nuclei_model_looks_at_smaller_fields_in_their_own_size(kind: str) -> None:
    """From several threads at once, beside tiles of the usual size; as ONNX Runtime alone says."""
    import onnxruntime

    model = select_models()["nuclei"]
    graph = model.card.graph("segment")
    assert graph is not None and graph.side_step == 32
    session = onnxruntime.InferenceSession(str(model.file(graph)), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    sizes = [(64, 96), (160, 32), (graph.tile_px, graph.tile_px), (64, 96)]
    fields = [random.integers(0, 256, (1, *size, 3), np.uint8) for size in sizes]
    runtime = _open(kind, model, "segment", 2)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda field: runtime.run({"pixels": field})["maps"], fields))
    for field, maps in zip(fields, found, strict=True):
        assert maps.shape[2:] == field.shape[1:3]
        np.testing.assert_allclose(maps, session.run(None, {"pixels": field})[0], atol=2e-3)


def _rewrite(folder: Path, change: Any) -> Model:
    card = json.loads((folder / "card.json").read_text())
    change(card["graphs"][0])
    card["graphs"][0]["sha256"] = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    (folder / "card.json").write_text(json.dumps(card))
    return load_model(folder)


def _dtype(graph: dict[str, Any]) -> None:
    graph["inputs"][0]["dtype"] = "float32"


def _name(graph: dict[str, Any]) -> None:
    graph["inputs"][0]["name"] = "image"


def _shape(graph: dict[str, Any]) -> None:
    graph["inputs"][0]["shape"] = [-1, 128, 128, 3]


def _output(graph: dict[str, Any]) -> None:
    graph["outputs"][0]["name"] = "scores"


def _classes(graph: dict[str, Any]) -> None:
    graph["outputs"][0]["shape"] = [-1, 5]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_dtype, "is uint8, the card says float32"),
        (_name, "has no input 'image'; it has pixels"),
        (_shape, "the card says"),
        (_output, "has no output 'scores'"),
        (_classes, "the card says"),
    ],
)
def test_a_graph_unlike_its_card_is_refused(kind: str, change: Any, said: str, tmp_path: Path) -> None:
    model = _rewrite(redness_model(tmp_path / "m"), change)
    with pytest.raises(ModelOutputError) as caught:
        _open(kind, model, "patch")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def _garbage(data: bytes) -> list[bytes]:
    random = np.random.default_rng(7)
    flipped = []
    for _ in range(4):
        array = np.frombuffer(data, np.uint8).copy()
        array[random.integers(0, len(array), 12)] ^= 255
        flipped.append(array.tobytes())
    return [b"", b"not a model", data[: len(data) // 2], data[:-7], b"\x00" * 1000, *flipped]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", range(9))
def test_a_file_that_is_no_graph_is_one_clear_line(kind: str, number: int, tmp_path: Path) -> None:
    folder = darkness_model(tmp_path / "m")
    (folder / "model.onnx").write_bytes(_garbage((folder / "model.onnx").read_bytes())[number])
    model = _rewrite(folder, lambda graph: None)
    try:
        runtime = _open(kind, model, "segment")
    except ModelOutputError as error:
        assert "\n" not in str(error) and "model m:" in str(error)
    else:
        # a flipped byte may hit a name or a constant: the graph is another one, but it is a graph
        assert number >= 5
        runtime.close()


def test_openvino_is_imported_without_what_reports_its_use_over_the_network() -> None:
    program = (
        "import sys, lobule.runtimes.openvino_runtime\n"
        "found = [name for name in sys.modules if 'telemetry' in name or name.startswith('openvino.tools')]\n"
        "assert not found, found\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_an_unknown_runtime_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="choose auto, onnxruntime, openvino or torch"):
        choose_runtime("tensorflow")  # type: ignore[arg-type]


def test_the_choice_is_the_same_every_time() -> None:
    assert len({choose_runtime("auto") for _ in range(5)}) == 1


@pytest.mark.parametrize(("family", "role"), [("tumor", "patch"), ("tumor", "refine"), ("nuclei", "segment")])
def test_torch_agrees_with_onnx_runtime(family: str, role: str) -> None:
    if find_spec("onnx2torch") is None:
        pytest.skip("the extra 'torch' is not installed")
    model = select_models()[family]
    graph = model.card.graph(role)
    assert graph is not None
    random = np.random.default_rng(2)
    inputs = {
        tensor.name: random.integers(
            0,
            256,
            [
                1 if axis == "N" else graph.tile_px if size == -1 else size
                for axis, size in zip(tensor.layout, tensor.shape, strict=True)
            ],
        )
        for tensor in graph.inputs
    }
    for tensor in graph.inputs:
        value = inputs[tensor.name][:1]
        inputs[tensor.name] = (
            value.astype(tensor.dtype) if tensor.dtype == "uint8" else (value / 255).astype("f4")
        )
    results = [
        _open(kind, model, role).run(inputs)[graph.outputs[0].name] for kind in ("torch", "onnxruntime")
    ]
    np.testing.assert_allclose(*results, atol=2e-3)


@pytest.mark.parametrize("color_order", ["RGB", "BGR"])
@pytest.mark.parametrize("kind", [*KINDS, "torch"])
def test_pixels_are_brought_into_the_cards_order_scale_and_layout(
    kind: str, color_order: str, tmp_path: Path
) -> None:
    if kind == "torch" and find_spec("onnx2torch") is None:
        pytest.skip("the extra 'torch' is not installed")
    plain = load_model(redness_model(tmp_path / "plain"))
    other = load_model(planar(redness_model(tmp_path / "planar"), color_order=color_order))
    tile = np.random.default_rng(3).integers(0, 256, (1, 64, 64, 3)).astype(np.uint8)
    tile[0, :20, :, 2] = 0
    tile[0, :20, :, 0] = 255
    expected = _open("onnxruntime", plain, "patch").run({"pixels": tile})["probabilities"]
    assert 0.3 < expected[0, 1] < 0.7
    found = _open(kind, other, "patch").run({"planes": tile})["probabilities"]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def _proof(precision: str, speedup: float) -> LowerPrecision:
    own = {"file": "small.onnx", "sha256": "0" * 64} if precision == "int8" else {}
    return LowerPrecision(
        precision=precision,  # type: ignore[arg-type]
        score="Dice",
        float32=0.8,
        value=0.799,
        on="a test part",
        how="both",
        speedup=speedup,
        measured_on="a processor",
        **own,
    )


def _proven(**speedups: float) -> Graph:
    """The shipped nuclei graph with these proofs and no others."""
    graph = select_models()["nuclei"].card.graph("segment")
    assert graph is not None
    proofs = tuple(_proof(precision, speedup) for precision, speedup in speedups.items())
    return changed(graph, lower_precisions=proofs)


HASWELL, CASCADE_LAKE = {"avx2"}, {"avx2", "avx512f", "avx512_vnni"}
ZEN_5, SAPPHIRE_RAPIDS = (
    {*CASCADE_LAKE, "avx512_bf16"},
    {*CASCADE_LAKE, "avx512_bf16", "amx_bf16", "amx_int8"},
)
OTHER: set[str] = set()


def _processor(monkeypatch: pytest.MonkeyPatch, flags: set[str]) -> None:
    monkeypatch.setattr(runtime_module, "_flags", lambda: frozenset(flags))


@pytest.mark.parametrize(
    ("flags", "kind", "speedups", "taken"),
    [
        (ZEN_5, "openvino", {}, "float32"),
        (ZEN_5, "openvino", {"bfloat16": 1.9}, "bfloat16"),
        (SAPPHIRE_RAPIDS, "openvino", {"bfloat16": 1.9}, "bfloat16"),
        (ZEN_5, "openvino", {"int8": 3.2}, "int8"),
        (ZEN_5, "openvino", {"bfloat16": 1.9, "int8": 3.2}, "int8"),
        (ZEN_5, "openvino", {"int8": 1.8, "bfloat16": 1.9}, "bfloat16"),
        (ZEN_5, "openvino", {"bfloat16": 0.8}, "float32"),
        (ZEN_5, "onnxruntime", {"bfloat16": 1.9}, "float32"),
        (ZEN_5, "onnxruntime", {"bfloat16": 1.9, "int8": 1.8}, "int8"),
        (ZEN_5, "torch", {"bfloat16": 1.9, "int8": 3.2}, "float32"),
        (CASCADE_LAKE, "openvino", {"bfloat16": 1.9}, "float32"),
        (CASCADE_LAKE, "openvino", {"bfloat16": 1.9, "int8": 1.8}, "int8"),
        (HASWELL, "openvino", {"bfloat16": 1.9, "int8": 3.2}, "int8"),
        (HASWELL, "onnxruntime", {"int8": 3.2}, "int8"),
        (OTHER, "openvino", {"bfloat16": 1.9, "int8": 3.2}, "float32"),
        (OTHER, "onnxruntime", {"int8": 3.2}, "float32"),
    ],
)
def test_auto_takes_the_fastest_that_is_proven_and_computed_here(
    flags: set[str],
    kind: str,
    speedups: dict[str, float],
    taken: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _processor(monkeypatch, flags)
    graph = _proven(**speedups)
    assert choose_precision(kind, "auto", graph)[0] == taken
    assert choose_precision(kind, "float32", graph)[0] == "float32"


def test_a_precision_that_is_asked_for_is_taken_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bare, proven = _proven(), _proven(int8=3.2)
    _processor(monkeypatch, ZEN_5)
    assert choose_precision("openvino", "bfloat16", bare)[0] == "bfloat16"
    with pytest.raises(ConfigurationError, match="OpenVINO"):
        choose_precision("onnxruntime", "bfloat16", bare)
    with pytest.raises(ConfigurationError, match=r"the segment graph has none \(lobule prove makes it\)"):
        choose_precision("openvino", "int8", bare)
    with pytest.raises(ConfigurationError, match="torch cannot run it"):
        choose_precision("torch", "int8", proven)
    _processor(monkeypatch, OTHER)
    assert choose_precision("onnxruntime", "int8", proven)[0] == "int8"
    with pytest.raises(ConfigurationError, match="choose f32"):
        choose_precision("openvino", "bfloat16", bare)


def test_without_the_processors_word_float32_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(self: Path, *_: object, **__: object) -> str:
        raise FileNotFoundError(self)

    graph = _proven(bfloat16=1.9, int8=3.2)
    monkeypatch.setattr(Path, "read_text", absent)
    assert choose_precision("openvino", "auto", graph)[0] == "float32"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("family", "role"), [("tumor", "patch"), ("nuclei", "segment")])
def test_shipped_int8_is_near_float32_and_the_same_for_any_number_of_workers(
    kind: str, family: str, role: str
) -> None:
    model = select_models(thorough=True)[family]
    graph = model.card.graph(role)
    assert graph is not None and graph.lower("int8") is not None
    y, x = np.mgrid[: graph.tile_px, : graph.tile_px]
    tile = np.stack([180 + 40 * np.sin(x / 9), 120 + 40 * np.cos(y / 7), 190 + 20 * np.sin((x + y) / 11)], -1)
    batch = {graph.inputs[0].name: tile.astype(np.uint8)[None]}
    outputs = []
    for workers in (1, 2):
        path = model.file(graph, "int8")
        runtime = open_runtime(kind, model.name, path, graph, workers=workers, precision="int8")
        assert "int8" in runtime.description
        with ThreadPoolExecutor(workers) as pool:
            found = pool.map(lambda _, r=runtime: r.run(batch)[graph.outputs[0].name], range(2 * workers))
            outputs += list(found)
        runtime.close()
    assert len({output.tobytes() for output in outputs}) == 1
    exact = _open(kind, model, role).run(batch)[graph.outputs[0].name]
    assert float(np.abs(outputs[0] - exact).mean()) < 0.03


@pytest.mark.skipif(not computes_in("openvino", "bfloat16"), reason="this processor has no bfloat16 units")
@pytest.mark.parametrize(("family", "role"), [("tumor", "patch"), ("nuclei", "segment")])
def test_bfloat16_is_near_float32_and_the_same_for_any_number_of_workers(family: str, role: str) -> None:
    model = select_models()[family]
    graph = model.card.graph(role)
    assert graph is not None and graph.lower("bfloat16") is not None
    y, x = np.mgrid[: graph.tile_px, : graph.tile_px]
    tile = np.stack([180 + 40 * np.sin(x / 9), 120 + 40 * np.cos(y / 7), 190 + 20 * np.sin((x + y) / 11)], -1)
    batch = {graph.inputs[0].name: tile.astype(np.uint8)[None]}
    outputs = []
    for workers in (1, 2):
        runtime = open_runtime(
            "openvino", model.name, model.file(graph), graph, workers=workers, precision="bfloat16"
        )
        assert "bfloat16" in runtime.description
        with ThreadPoolExecutor(workers) as pool:
            found = pool.map(lambda _, r=runtime: r.run(batch)[graph.outputs[0].name], range(2 * workers))
            outputs += list(found)
        runtime.close()
    assert len({output.tobytes() for output in outputs}) == 1
    exact = _open("openvino", model, role).run(batch)[graph.outputs[0].name]
    # a made-up picture: some pixels differ, most hardly
    assert float(np.abs(outputs[0] - exact).mean()) < 0.02
