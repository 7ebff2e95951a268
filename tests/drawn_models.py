"""Model folders with known answers, drawn by hand: a classifier of redness and a finder of dark spots."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_TEXTS = {
    "terms": "none",
    "intended_use": "tests",
    "limits": ["knows nothing"],
    "made_by": "tests/drawn_models.py",
    "calibration": "none",
}


def _save(
    path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: dict[str, Any]
) -> str:
    graph = helper.make_graph(
        nodes,
        "drawn",
        inputs,
        outputs,
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _card(
    folder: Path, family: str, graph: dict[str, Any], thresholds: dict[str, float], **more: Any
) -> Path:
    card = {
        "card_version": 1,
        "name": folder.name,
        "version": "1.0.0",
        "family": family,
        "task": "a test",
        "classes": ["normal", "tumor"] if family == "tumor" else ["nucleus"],
        "graphs": [graph],
        "thresholds": thresholds,
        "data": [
            {
                "name": "none",
                "source": "none",
                "terms": "none",
                "used_for": "training",
                "count": "0",
                "split": "none",
            }
        ],
        "scores": [],
        "pixel_mean": [200, 150, 200],
        "pixel_std": [30, 30, 30],
        **_TEXTS,
        **more,
    }
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def redness_model(folder: Path, *, tile_px: int = 64, mpp: float = 1.0) -> Path:
    """P(tumor) = share of a tile whose red exceeds its blue by 100 or more."""
    # red - blue per pixel, clipped to 0 or 1 around 100, averaged
    nodes = [
        helper.make_node("Cast", ["pixels"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "redness"], ["r"]),
        helper.make_node("Sub", ["r", "limit"], ["d"]),
        helper.make_node("Clip", ["d", "zero", "one"], ["c"]),
        helper.make_node("ReduceMean", ["c"], ["p1"], axes=[1, 2], keepdims=0),
        helper.make_node("Sub", ["one", "p1"], ["p0"]),
        helper.make_node("Concat", ["p0", "p1"], ["probabilities"], axis=1),
    ]
    shape = ["N", tile_px, tile_px, 3]
    sha = _save(
        folder / "model.onnx",
        nodes,
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2])],
        {
            "redness": np.array([[1.0], [0.0], [-1.0]], np.float32),
            "limit": np.float32(99.0),
            "zero": np.float32(0),
            "one": np.float32(1),
        },
    )
    graph = {
        "file": "model.onnx",
        "sha256": sha,
        "role": "patch",
        "mpp": mpp,
        "tile_px": tile_px,
        "inputs": [
            {
                "name": "pixels",
                "dtype": "uint8",
                "layout": "NHWC",
                "shape": [-1, tile_px, tile_px, 3],
                "meaning": "tile",
            }
        ],
        "outputs": [
            {
                "name": "probabilities",
                "dtype": "float32",
                "layout": "NC",
                "shape": [-1, 2],
                "meaning": "normal, tumor",
            }
        ],
    }
    return _card(folder, "tumor", graph, {"patch": 0.5, "refine": 0.5})


def undecided(path: Path) -> None:
    """Changes a redness graph so that it says 0.25 to 0.75 where it said 0 to 1."""
    model = onnx.load(str(path))
    for name in ("half", "quarter"):
        value = np.float32({"half": 0.5, "quarter": 0.25}[name])
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    last = model.graph.node[-1]
    last.output[0] = "sure"
    model.graph.node.append(helper.make_node("Mul", ["sure", "half"], ["halved"]))
    model.graph.node.append(helper.make_node("Add", ["halved", "quarter"], ["probabilities"]))
    onnx.save(model, str(path))


def planar(folder: Path, *, color_order: str = "BGR") -> Path:
    """A redness model that wants its pixels as float32 planes (NCHW), scaled by mean and SD, in that order."""
    card = json.loads((folder / "card.json").read_text())
    graph = card["graphs"][0]
    mean, std = [10.0, 20.0, 30.0], [2.0, 4.0, 8.0]
    side = graph["tile_px"]
    nodes = [
        helper.make_node("Transpose", ["planes"], ["rows"], perm=[0, 2, 3, 1]),
        helper.make_node("Mul", ["rows", "std"], ["scaled"]),
        helper.make_node("Add", ["scaled", "mean"], ["x"]),
        helper.make_node("MatMul", ["x", "redness"], ["r"]),
        helper.make_node("Sub", ["r", "limit"], ["d"]),
        helper.make_node("Clip", ["d", "zero", "one"], ["c"]),
        helper.make_node("ReduceMean", ["c"], ["p1"], axes=[1, 2], keepdims=0),
        helper.make_node("Sub", ["one", "p1"], ["p0"]),
        helper.make_node("Concat", ["p0", "p1"], ["probabilities"], axis=1),
    ]
    red = np.array([[1.0], [0.0], [-1.0]], np.float32)
    graph["sha256"] = _save(
        folder / "model.onnx",
        nodes,
        [helper.make_tensor_value_info("planes", TensorProto.FLOAT, ["N", 3, side, side])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2])],
        {
            "mean": np.array(mean, np.float32),
            "std": np.array(std, np.float32),
            "redness": red if color_order == "RGB" else red[::-1].copy(),
            "limit": np.float32(99.0),
            "zero": np.float32(0),
            "one": np.float32(1),
        },
    )
    graph |= {"color_order": color_order, "mean": mean, "std": std}
    graph["inputs"] = [
        {
            "name": "planes",
            "dtype": "float32",
            "layout": "NCHW",
            "shape": [-1, 3, side, side],
            "meaning": "tile",
        }
    ]
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def screened(folder: Path, *, misled: bool = False) -> Path:
    """A redness model with a screening graph that says the same, or where ``misled`` the contrary."""
    card = json.loads((folder / "card.json").read_text())
    patch = card["graphs"][0]
    model = onnx.load(str(folder / "model.onnx"))
    if misled:
        last = model.graph.node[-1]
        last.input[0], last.input[1] = last.input[1], last.input[0]
    onnx.save(model, str(folder / "screen.onnx"))
    sha = hashlib.sha256((folder / "screen.onnx").read_bytes()).hexdigest()
    card["graphs"].append({**patch, "file": "screen.onnx", "role": "screen", "sha256": sha})
    card["thresholds"] |= {"screen_low": 0.1, "screen_high": 0.9}
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def darkness_model(folder: Path, *, tile_px: int = 256, halo_px: int = 32, mpp: float = 0.5) -> Path:
    """Nucleus where the mean of R, G, B is below 100; the distance map is the same, so nothing is split."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "mean"], ["m"]),
        helper.make_node("Sub", ["limit", "m"], ["d"]),
        helper.make_node("Clip", ["d", "zero", "one"], ["p"]),
        helper.make_node("Concat", ["p", "p"], ["both"], axis=3),
        helper.make_node("Transpose", ["both"], ["maps"], perm=[0, 3, 1, 2]),
    ]
    sha = _save(
        folder / "model.onnx",
        nodes,
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["N", 2, "H", "W"])],
        {
            "mean": np.full((3, 1), 1 / 3, np.float32),
            "limit": np.float32(100.0),
            "zero": np.float32(0),
            "one": np.float32(1),
        },
    )
    graph = {
        "file": "model.onnx",
        "sha256": sha,
        "role": "segment",
        "mpp": mpp,
        "tile_px": tile_px,
        "halo_px": halo_px,
        "inputs": [
            {
                "name": "pixels",
                "dtype": "uint8",
                "layout": "NHWC",
                "shape": [-1, -1, -1, 3],
                "meaning": "tile",
            }
        ],
        "outputs": [
            {
                "name": "maps",
                "dtype": "float32",
                "layout": "NCHW",
                "shape": [-1, 2, -1, -1],
                "meaning": "two maps",
            }
        ],
    }
    return _card(folder, "nuclei", graph, {"mask": 0.5, "depth": 0.15, "min_area_um2": 8.0})
