"""The benchmark's network and its card."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from kit import write_model_folder
from network import blocks, convolve, made_up_patches, make_weights, onnx_network, probabilities
from roofline import quantized

Weights = dict[str, "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"]


@pytest.fixture(scope="module")
def weights() -> Weights:
    return make_weights()


@pytest.fixture(scope="module")
def onnx_file(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    onnx = pytest.importorskip("onnx")
    path = tmp_path_factory.mktemp("network") / "patch.onnx"
    onnx.save(onnx_network(weights, None), str(path))
    return path


def test_it_is_mobilenet_v2_in_layers_and_parameters(weights: Weights) -> None:
    layers = [layer for block in blocks() for layer in block.convolutions]
    assert len(layers) == 52
    assert sum(block.residual for block in blocks()) == 10
    convolutional = sum(v.size for k, v in weights.items() if not k.startswith(("dense", "norm", "out")))
    # the paper's 2,223,872 have four numbers of batch norm a channel, folded to one bias here
    channels = sum(layer.channels_out for layer in layers)
    assert convolutional == 2_223_872 - channels


def test_a_plain_convolution_is_the_sum_over_its_window() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.random((1, 2, 5, 5), np.float32), rng.random((3, 2, 3, 3), np.float32)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    got = convolve(x, w, 2, False)
    assert got.shape == (1, 3, 3, 3)
    for o in range(3):
        for i in range(3):
            for j in range(3):
                window = padded[0, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
                assert got[0, o, i, j] == pytest.approx(float((window * w[o]).sum()), rel=1e-5)


def test_onnx_gives_what_plain_numpy_gives_finite_and_not_constant(weights: Weights, onnx_file: Path) -> None:
    import onnxruntime

    images = made_up_patches(3, seed=11)
    session = onnxruntime.InferenceSession(str(onnx_file), providers=["CPUExecutionProvider"])
    got = session.run(None, {"input": images})[0]
    assert got.shape == (3, 2)
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got.sum(1), 1, rtol=1e-5)
    assert got[:, 1].std() > 0.02
    np.testing.assert_allclose(got, probabilities(images, weights), atol=1e-3)


def test_lobule_accepts_its_card_and_a_runtime_runs_it(onnx_file: Path, tmp_path: Path) -> None:
    from lobule.models.zoo import load_model

    write_model_folder(onnx_file, tmp_path / "bench-patch")
    model = load_model(tmp_path / "bench-patch")
    graph = model.card.graph("patch")
    assert graph is not None
    assert (graph.tile_px, graph.mpp, graph.std) == (256, 1.0, (255, 255, 255))
    assert model.card.thresholds == {"patch": 0.5}
    before = (tmp_path / "bench-patch" / "card.json").stat().st_mtime_ns
    write_model_folder(onnx_file, tmp_path / "bench-patch")
    assert (tmp_path / "bench-patch" / "card.json").stat().st_mtime_ns == before


def test_its_int8_variant_says_that_nothing_is_proven_of_it(onnx_file: Path, tmp_path: Path) -> None:
    from lobule.models.zoo import load_model

    made = quantized(onnx_file, [{"input": one[None]} for one in made_up_patches(2, 3)], tmp_path / "int8")
    assert made == quantized(onnx_file, [], tmp_path / "int8"), "made once"
    write_model_folder(onnx_file, tmp_path / "bench-patch-int8", made)
    model = load_model(tmp_path / "bench-patch-int8")
    graph = model.card.graphs[0]
    lower = graph.lower("int8")
    assert lower is not None and "untrained" in lower.score and lower.speedup == 1
    assert model.file(graph, "int8").read_bytes() == made.read_bytes() != onnx_file.read_bytes()
