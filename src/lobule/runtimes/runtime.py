"""The contract of a runtime and the choice among them.

Every runtime here computes one tile on one thread, and several tiles at once on several threads. A tile's
numbers therefore do not depend on how many workers there are or which tiles run beside it: bit for bit.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from lobule.errors import ConfigurationError, MissingDependencyError
from lobule.models.card import Graph

__all__ = ["Arrays", "Runtime", "RuntimeKind", "choose_runtime", "open_runtime"]

RuntimeKind = Literal["auto", "onnxruntime", "openvino", "torch"]
Arrays = Mapping[str, NDArray[np.generic]]


class Runtime(Protocol):
    """Runs one graph. `run` may be called from several threads at once."""

    kind: str
    description: str
    """Engine, version and device really in use."""

    def run(self, inputs: Arrays) -> dict[str, NDArray[np.generic]]:
        """Output name → array that belongs to the caller."""
        ...

    def close(self) -> None:
        """Frees the graph."""
        ...


def choose_runtime(kind: RuntimeKind = "auto") -> tuple[str, str]:
    """(runtime, why). ``auto`` is a rule, not a stopwatch, so that the same machine always gives the same bytes.

    The rule follows measurements (``lobule doctor --measure`` repeats them): on x86-64 OpenVINO was the faster
    of the two for each shipped model, most so with AVX-512; elsewhere ONNX Runtime is the safe choice.
    """
    if kind != "auto":
        if kind not in ("onnxruntime", "openvino", "torch"):
            raise ConfigurationError("--runtime", kind, "choose auto, onnxruntime, openvino or torch")
        needed = {"torch": "onnx2torch"}.get(kind, kind)
        if find_spec(needed) is None:
            raise MissingDependencyError(
                needed, "torch" if kind == "torch" else "openvino", f"--runtime {kind}"
            )
        return kind, "asked for"
    if platform.machine().lower() in ("x86_64", "amd64") and find_spec("openvino") is not None:
        return "openvino", "measured faster than ONNX Runtime on x86-64"
    return "onnxruntime", "OpenVINO is absent or was not measured on this kind of processor"


def open_runtime(kind: str, model: str, path: Path, graph: Graph, *, workers: int) -> Runtime:
    """Loads a graph for ``workers`` threads. Raises ModelOutputError if it is not what the card says."""
    if kind == "openvino":
        from lobule.runtimes.openvino_runtime import OpenVinoRuntime

        return OpenVinoRuntime(model, path, graph, workers=workers)
    if kind == "torch":
        from lobule.runtimes.torch_runtime import TorchRuntime

        return TorchRuntime(model, path, graph)
    from lobule.runtimes.onnx_runtime import OnnxRuntime

    return OnnxRuntime(model, path, graph)
