"""Static quantization: near float32, the same file every time, safe on processors without VNNI, ends left float."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from drawn_models import darkness_model
from numpy.typing import NDArray
from onnx import numpy_helper
from training.drawn_networks import convolutional

from lobule.errors import ModelOutputError
from lobule.training import quantize
from lobule.training.quantize import quantize_graph


def _samples(count: int, seed: int = 1) -> list[dict[str, NDArray[np.generic]]]:
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (count, 1, 8, 8, 3))
    return [{"pixels": np.kron(one, np.ones((1, 8, 8, 1))).astype(np.uint8)} for one in coarse]


def _run(path: Path, engine: str) -> NDArray[np.float64]:
    inputs = _samples(6, seed=2)
    if engine == "onnxruntime":
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return np.stack([session.run(None, one)[0] for one in inputs]).astype(np.float64)
    import openvino

    network = openvino.Core().read_model(path)
    compiled = openvino.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.stack([compiled(one)[0] for one in inputs]).astype(np.float64)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_int8_is_near_float32_with_both_runtimes(engine: str, tmp_path: Path) -> None:
    source, out = convolutional(tmp_path / "model.onnx"), tmp_path / "deeper" / "model-int8.onnx"
    quantize_graph(source, out, _samples(16))
    full, small = _run(source, "onnxruntime"), _run(out, engine)
    assert full.std() > 0.02, "a network that says the same everywhere proves nothing"
    assert np.abs(small - full).mean() < 0.1 * full.std()
    assert out.stat().st_size > 0


def test_the_same_graph_and_samples_give_the_same_file(tmp_path: Path) -> None:
    source = convolutional(tmp_path / "model.onnx")
    before = source.read_bytes()
    for name in ("a.onnx", "b.onnx"):
        quantize_graph(source, tmp_path / name, _samples(4))
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert source.read_bytes() == before
    assert str(tmp_path).encode() not in (tmp_path / "a.onnx").read_bytes()


def test_weights_have_seven_bits_and_a_scale_for_each_channel(tmp_path: Path) -> None:
    source, out = convolutional(tmp_path / "model.onnx"), tmp_path / "int8.onnx"
    quantize_graph(source, out, _samples(4))
    full = {one.name: numpy_helper.to_array(one) for one in onnx.load(str(source)).graph.initializer}
    stored = {one.name: numpy_helper.to_array(one) for one in onnx.load(str(out)).graph.initializer}
    weights = {name: value for name, value in stored.items() if value.dtype == np.int8 and value.ndim == 4}
    assert len(weights) == 4
    for name, value in weights.items():
        # two products with 8-bit activations fit into 16 bits with a sign
        assert np.abs(value.astype(int)).max() <= 64 and 2 * 255 * 64 < 2**15
        original = full[name.removesuffix("_quantized")]
        scale = stored[name.removesuffix("_quantized") + "_scale"]
        assert scale.shape == original.shape[:1]
        error = np.abs(value * scale.reshape(-1, 1, 1, 1) - original)
        assert (error <= scale.reshape(-1, 1, 1, 1) * 0.51).all()


def test_what_lies_outside_the_convolutions_stays_float(tmp_path: Path) -> None:
    source, out = convolutional(tmp_path / "model.onnx"), tmp_path / "int8.onnx"
    quantize_graph(source, out, _samples(4))
    nodes = onnx.load(str(out)).graph.node
    by_output = {name: node for node in nodes for name in node.output}
    for node in nodes:
        if node.op_type == "Mul":
            assert by_output[node.input[0]].op_type == "Cast"
    assert nodes[-1].op_type == "Sigmoid" and nodes[-1].output[0] == "maps"


def test_corrected_biases_bring_the_mean_nearer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    off = {"plain": 0.0, "corrected": 0.0}
    for seed in range(4):
        source = convolutional(tmp_path / f"{seed}.onnx", seed=seed)
        full = _run(source, "onnxruntime")
        for name in off:
            with monkeypatch.context() as patched:
                if name == "plain":
                    patched.setattr(quantize, "_correct_biases", lambda *_: None)
                quantize_graph(source, tmp_path / f"{name}.onnx", _samples(16))
            off[name] += abs(float((_run(tmp_path / f"{name}.onnx", "onnxruntime") - full).mean()))
    assert off["corrected"] < 0.6 * off["plain"]


def test_channel_means_are_those_of_numpy(tmp_path: Path) -> None:
    network = onnx.load(str(convolutional(tmp_path / "model.onnx")))
    samples = _samples(5)
    means = quantize._channel_means(network, samples)
    assert set(means) == {"scaled", "stem6", "deep6", "sum"}
    expected = np.concatenate([one["pixels"] for one in samples]).mean(axis=(0, 1, 2)) / 64
    np.testing.assert_allclose(means["scaled"], expected, rtol=1e-5)


def test_a_graph_without_convolutions_is_refused(tmp_path: Path) -> None:
    folder = darkness_model(tmp_path / "dark")
    with pytest.raises(ModelOutputError, match=r"model dark: model\.onnx has no convolution"):
        quantize_graph(folder / "model.onnx", tmp_path / "int8.onnx", _samples(1))
    assert not (tmp_path / "int8.onnx").exists()
