"""A small convolutional network with seeded weights, as ONNX: what a trained one is built of, in milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def convolutional(path: Path, *, seed: int = 0) -> Path:
    """uint8 (N, H, W, 3) → maps (N, 1, H, W) in [0, 1]: plain, depthwise and pointwise convolutions, a residual."""
    random = np.random.default_rng(seed)
    constants: dict[str, Any] = {"low": np.float32(0), "high": np.float32(6), "scale": np.float32(1 / 64)}
    nodes: list[Any] = []

    def add(kind: str, inputs: list[str], out: str, name: str | None = None, **more: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [out], out if name is None else name, **more))
        return out

    def convolve(x: str, name: str, into: int, count: int, side: int, group: int = 1) -> str:
        fan = into // group * side * side
        weights = 1.5 * random.normal(0.1, 1.0, (count, into // group, side, side)) / np.sqrt(fan)
        constants[f"{name}.w"] = weights.astype(np.float32)
        constants[f"{name}.b"] = random.normal(0, 0.1, count).astype(np.float32)
        pads = [side // 2] * 4
        inputs = [x, f"{name}.w", f"{name}.b"]
        return add("Conv", inputs, name, kernel_shape=[side, side], pads=pads, group=group)

    x = add("Transpose", ["pixels"], "planes", perm=[0, 3, 1, 2])
    # a node without a name, as exporters leave them
    x = add("Mul", [add("Cast", [x], "floats", to=TensorProto.FLOAT), "scale"], "scaled", name="")
    x = add("Clip", [convolve(x, "stem", 3, 16, 3), "low", "high"], "stem6")
    y = add("Clip", [convolve(x, "deep", 16, 16, 3, group=16), "low", "high"], "deep6")
    y = add("Add", [convolve(y, "point", 16, 16, 1), x], "sum")
    y = convolve(y, "last", 16, 1, 1)
    add("Sigmoid", [y], "maps")
    graph = helper.make_graph(
        nodes,
        "drawn",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["N", 1, "H", "W"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return path
