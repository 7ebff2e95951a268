"""The benchmark's network: MobileNetV2 with H2G-Net's head, seeded weights, written as ONNX.

Untrained on purpose: it costs what a trained one costs and means nothing. Its input is N x 3 x 256 x 256 float32
RGB in 0..1, its output N x 2 probabilities. Weights are drawn from a seed and then scaled, layer by layer, so that
every layer's outputs have mean 0 and SD 1 over a few made-up patches: what batch normalization does in
training, folded into the convolutions. Activations therefore neither die nor explode.

    python bench/network.py FOLDER      patch.onnx (any batch), patch_b1.onnx (batch 1), patch.npz (the weights)
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

TILE_PX = 256
HIDDEN = 100
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""MobileNetV2, Sandler et al. 2018, table 2: expansion, channels, repeats, stride of the first."""


@dataclass(frozen=True)
class Convolution:
    """One convolution with its bias; ``clipped``: ReLU6 follows. Padding keeps the size (before the stride)."""

    name: str
    channels_in: int
    channels_out: int
    side: int
    stride: int
    depthwise: bool
    clipped: bool


@dataclass(frozen=True)
class Block:
    """Convolutions in a row; ``residual``: the block's input is added to its output."""

    convolutions: tuple[Convolution, ...]
    residual: bool


def blocks() -> tuple[Block, ...]:
    """The whole feature extractor, in order."""
    found = [Block((Convolution("stem", 3, 32, 3, 2, False, True),), False)]
    channels = 32
    for stage, (expansion, out, repeats, first_stride) in enumerate(STAGES):
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            wide, name = channels * expansion, f"s{stage}r{repeat}"
            row = [] if expansion == 1 else [Convolution(f"{name}.expand", channels, wide, 1, 1, False, True)]
            row.append(Convolution(f"{name}.depthwise", wide, wide, 3, stride, True, True))
            row.append(Convolution(f"{name}.project", wide, out, 1, 1, False, False))
            found.append(Block(tuple(row), stride == 1 and channels == out))
            channels = out
    found.append(Block((Convolution("last", channels, 1280, 1, 1, False, True),), False))
    return tuple(found)


def convolve(x: Floats, weight: Floats, stride: int, depthwise: bool) -> Floats:
    """Plain convolution in NumPy, (N, C, H, W) by (out, in, k, k), zero padding k // 2."""
    side = weight.shape[2]
    pad = side // 2
    rows, columns = x.shape[2], x.shape[3]
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad))) if pad else x
    total: Any = 0
    for dy in range(side):
        for dx in range(side):
            part = padded[:, :, dy : dy + rows : stride, dx : dx + columns : stride]
            if depthwise:
                total = total + weight[:, 0, dy, dx][None, :, None, None] * part
            else:
                flat = part.reshape(part.shape[0], part.shape[1], -1)
                product = weight[:, :, dy, dx] @ flat
                total = total + product.reshape(part.shape[0], -1, *part.shape[2:])
    return np.asarray(total, np.float32)


def made_up_patches(count: int, seed: int) -> Floats:
    """(count, 3, 256, 256) in 0..1: from glass to deep violet, with blobs and grain, roughly as H&E is colored."""
    rng = np.random.default_rng(seed)
    stains = np.array([[0.65, 0.70, 0.29], [0.09, 0.95, 0.28]], np.float32)
    patches = []
    for number in range(count):
        coarse = rng.random((2, 20, 20), np.float32)
        blobs = np.kron(coarse, np.ones((1, 13, 13), np.float32))[:, :TILE_PX, :TILE_PX]
        strength = (
            np.array([rng.uniform(0.1, 1.2), rng.uniform(0.1, 0.7)], np.float32) * number / max(count - 1, 1)
        )
        density = np.einsum("shw,sc->chw", blobs * strength[:, None, None], stains)
        light = 0.95 * np.exp(-density) + 0.03 * rng.standard_normal((1, TILE_PX, TILE_PX), np.float32)
        patches.append(np.clip(light, 0, 1))
    return np.stack(patches).astype(np.float32)


def features(
    images: Floats, weights: dict[str, Floats], scale_with: np.random.Generator | None = None
) -> Floats:
    """(N, 1280) features of images in 0..1. With ``scale_with``, draws and scales ``weights`` on the way."""
    x = images * 2 - 1
    for block in blocks():
        before = x
        for layer in block.convolutions:
            if scale_with is not None:
                inputs = 1 if layer.depthwise else layer.channels_in
                shape = (layer.channels_out, inputs, layer.side, layer.side)
                drawn = scale_with.standard_normal(shape, np.float32)
                drawn -= 0 if layer.depthwise else drawn.mean((1, 2, 3), keepdims=True)
                out = convolve(x, drawn, layer.stride, layer.depthwise)
                mean, sd = out.mean((0, 2, 3)), out.std((0, 2, 3)) + 1e-5
                weights[f"{layer.name}.weight"] = drawn / sd[:, None, None, None]
                weights[f"{layer.name}.bias"] = -mean / sd
            x = convolve(x, weights[f"{layer.name}.weight"], layer.stride, layer.depthwise)
            x += weights[f"{layer.name}.bias"][None, :, None, None]
            if layer.clipped:
                np.clip(x, 0, 6, out=x)
        if block.residual:
            x = x + before
    return np.asarray(x.mean((2, 3)), np.float32)


def probabilities(
    images: Floats, weights: dict[str, Floats], scale_with: np.random.Generator | None = None
) -> Floats:
    """The whole network in NumPy: (N, 2). Slow; it makes the weights and is the oracle of the tests."""
    pooled = features(images, weights, scale_with)

    def dense(x: Floats, name: str, count: int) -> Floats:
        if scale_with is not None:
            drawn = scale_with.standard_normal((count, x.shape[1]), np.float32)
            out = x @ drawn.T
            sd = out.std(0) + 1e-5
            weights[f"{name}.weight"], weights[f"{name}.bias"] = drawn / sd[:, None], -out.mean(0) / sd
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    hidden = np.maximum(dense(pooled, "dense", HIDDEN), 0)
    if scale_with is not None:
        weights["norm.mean"], weights["norm.variance"] = hidden.mean(0), hidden.var(0)
    normal = (hidden - weights["norm.mean"]) / np.sqrt(weights["norm.variance"] + 1e-3)
    logits = dense(normal, "out", 2)
    grown = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(grown / grown.sum(1, keepdims=True), np.float32)


def make_weights(seed: int = 7) -> dict[str, Floats]:
    """Every weight and bias by name; the same seed, the same numbers."""
    weights: dict[str, Floats] = {}
    probabilities(made_up_patches(6, seed), weights, np.random.default_rng(seed))
    return {name: np.ascontiguousarray(value, np.float32) for name, value in weights.items()}


def onnx_network(weights: dict[str, Floats], batch: int | None) -> Any:
    """The network as an ONNX model of ``batch`` images, or of any number (None)."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    constants = {"two": np.array(2, np.float32), "one": np.array(1, np.float32)}
    constants |= {"low": np.array(0, np.float32), "high": np.array(6, np.float32), **weights}
    constants["norm.scale"] = np.ones(HIDDEN, np.float32)
    constants["norm.shift"] = np.zeros(HIDDEN, np.float32)
    nodes = []

    def add(kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    x = add("Sub", [add("Mul", ["input", "two"], "doubled"), "one"], "centered")
    for number, block in enumerate(blocks()):
        before = x
        for layer in block.convolutions:
            pad = layer.side // 2
            x = add(
                "Conv",
                [x, f"{layer.name}.weight", f"{layer.name}.bias"],
                layer.name,
                kernel_shape=[layer.side] * 2,
                strides=[layer.stride] * 2,
                pads=[pad] * 4,
                group=layer.channels_in if layer.depthwise else 1,
            )
            if layer.clipped:
                x = add("Clip", [x, "low", "high"], f"{layer.name}.relu6")
        if block.residual:
            x = add("Add", [x, before], f"sum{number}")
    x = add("Flatten", [add("GlobalAveragePool", [x], "pooled")], "flat")
    x = add("Relu", [add("Gemm", [x, "dense.weight", "dense.bias"], "dense", transB=1)], "dense.relu")
    norm = ["norm.scale", "norm.shift", "norm.mean", "norm.variance"]
    x = add("BatchNormalization", [x, *norm], "norm", epsilon=1e-3)
    x = add("Gemm", [x, "out.weight", "out.bias"], "logits", transB=1)
    add("Softmax", [x], "output", axis=1)
    size: str | int = "n" if batch is None else batch
    graph = helper.make_graph(
        nodes,
        "patch",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [size, 3, TILE_PX, TILE_PX])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [size, 2])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    # an old dialect: the rivals' own runtimes are older than ours
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 13)], producer_name="lobule bench"
    )
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


def write_network(folder: Path, seed: int = 7) -> None:
    """Writes patch.onnx, patch_b1.onnx and patch.npz (the last one marks that all are there)."""
    import onnx

    folder.mkdir(parents=True, exist_ok=True)
    weights = make_weights(seed)
    onnx.save(onnx_network(weights, None), str(folder / "patch.onnx"))
    onnx.save(onnx_network(weights, 1), str(folder / "patch_b1.onnx"))
    np.savez(folder / "patch.npz", **weights)  # type: ignore[arg-type]


if __name__ == "__main__":
    write_network(Path(sys.argv[1]))
