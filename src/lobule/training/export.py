"""From a trained network to an ONNX file that is proven to compute the same."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lobule.errors import MissingDependencyError, ModelOutputError
from lobule.training.networks import ScreenNet

__all__ = [
    "OPSET",
    "PatchGraph",
    "RefineGraph",
    "ScreenGraph",
    "SegmentGraph",
    "export_graph",
    "largest_difference",
]

OPSET = 18
_TOLERANCE = 1e-3

Arrays = Mapping[str, NDArray]


class PatchGraph(nn.Module):
    """A tile classifier that gives probabilities (N, classes)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.network(pixels), dim=1)


class ScreenGraph(nn.Module):
    """A screening network on one whole tile (1, H, W, 3), H and W multiples of 32: probabilities (1, classes)."""

    def __init__(self, network: ScreenNet) -> None:
        super().__init__()
        self.stem, self.blocks, self.head = network.whole_stem(), network.blocks, network.head

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = self.stem(pixels)
        for stage in self.blocks:
            x = stage(x)
        return torch.softmax(self.head(x.mean(dim=(2, 3))), dim=1)


class SegmentGraph(nn.Module):
    """A segmenting network that gives maps (N, maps, H, W) in [0, 1]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.network(pixels))


class RefineGraph(nn.Module):
    """A refining network that gives the probability of tumor (N, H, W)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor, heatmap: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.network(pixels, heatmap))[:, 0]


def export_graph(
    graph: nn.Module,
    path: Path,
    samples: Sequence[Arrays],
    *,
    output: str,
    dynamic: Mapping[str, Mapping[int, str]],
) -> float:
    """Writes ``graph`` as ONNX and returns the largest difference between torch and the runtimes.

    ``samples`` are named inputs to compare on, the first of which also traces the graph; ``dynamic`` names
    the axes of each input that may take any size. Raises ModelOutputError, and removes the file, where ONNX
    Runtime or OpenVINO (in float32) differ from torch by more than 1e-3.
    """
    graph = graph.eval().float()
    names = list(samples[0])
    traced = tuple(torch.tensor(np.ascontiguousarray(samples[0][name])) for name in names)
    shapes = tuple(
        {
            axis: torch.export.Dim(f"{label}", min=1) * 32 if label in ("h", "w") else torch.export.Dim(label)
            for axis, label in dynamic.get(name, {}).items()
        }
        for name in names
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        import_module("onnxscript")
    except ImportError as error:
        raise MissingDependencyError("onnxscript", "train", "exporting a model") from error
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph,
                traced,
                dynamo=True,
                opset_version=OPSET,
                input_names=names,
                output_names=[output],
                dynamic_shapes=shapes,
                external_data=False,
                verbose=False,
            )
            program.save(str(path), external_data=False)
            _forget_where(path)
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    worst = largest_difference(graph, path, samples)
    if worst > _TOLERANCE:
        path.unlink()
        raise ModelOutputError(
            path.parent.name,
            f"{path.name} is refused: torch and the runtimes differ by {worst:.2g} (at most {_TOLERANCE} is allowed)",
        )
    return worst


def _forget_where(path: Path) -> None:
    """Drops what the exporter notes of its own run beside each node: stack traces with the machine's paths."""
    import onnx

    model = onnx.load(str(path))
    graph = model.graph
    for part in (
        model,
        graph,
        *graph.node,
        *graph.input,
        *graph.output,
        *graph.value_info,
        *graph.initializer,
    ):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    onnx.save(model, str(path))


def largest_difference(graph: nn.Module, path: Path, samples: Sequence[Arrays]) -> float:
    """Returns the largest absolute difference between torch, ONNX Runtime and OpenVINO over the samples.

    Where one of them gives no finite number it is infinite.
    """
    import onnxruntime

    from lobule.runtimes.openvino_library import openvino

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    # A CPU with bfloat16 units would round silently otherwise.
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    worst = 0.0
    for sample in samples:
        arrays = {name: np.ascontiguousarray(value) for name, value in sample.items()}
        with torch.no_grad():
            expected = graph(*(torch.tensor(value) for value in arrays.values())).numpy()
        for got in (session.run(None, arrays)[0], compiled(arrays)[0]):
            if got.shape != expected.shape:
                return float("inf")
            apart = float(np.abs(got - expected).max())
            # max(worst, nan) is worst
            worst = max(worst, apart if np.isfinite(apart) else float("inf"))
    return worst
