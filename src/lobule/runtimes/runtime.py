"""The contract of a runtime and the choice among them.

Every runtime here computes one tile on one thread, and several tiles at once on several threads. A tile's
numbers therefore do not depend on how many workers there are or which tiles run beside it: bit for bit. A
refining graph, of which a slide needs one run, takes a number of threads that is the same for any number of workers.
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

__all__ = [
    "Arrays",
    "Precision",
    "Runtime",
    "RuntimeKind",
    "choose_precision",
    "choose_runtime",
    "open_runtime",
    "threads_of",
]

REFINE_THREADS = 2
"""Threads of one run of a refining graph."""

RuntimeKind = Literal["auto", "onnxruntime", "openvino", "torch"]
Precision = Literal["float32", "bfloat16"]
Arrays = Mapping[str, NDArray[np.generic]]


class Runtime(Protocol):
    """Runs one graph. `run` may be called from several threads at once."""

    kind: str
    description: str
    """Engine, version and device really in use."""

    def run(self, inputs: Arrays) -> dict[str, NDArray[np.generic]]:
        """Output name → array that belongs to the caller.

        ``inputs``: name → array. The pixels, the graph's first input, are given as (1, h, w, 3) uint8 RGB
        whatever the card says: the runtime brings them into the card's order, scale and layout.
        """
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


def threads_of(graph: Graph) -> int:
    """Threads of one run of a graph."""
    return REFINE_THREADS if graph.role == "refine" else 1


def choose_precision(
    kind: str, asked: Literal["auto", "float32", "bfloat16"], graph: Graph
) -> tuple[Precision, str]:
    """(precision, why) for a graph on this machine.

    ``auto``: bfloat16 where the card proves it and the processor computes in it; else float32. Asking for
    bfloat16 takes it unproven. Raises ConfigurationError where it is asked for and cannot be had.
    """
    if asked == "float32":
        return "float32", "asked for"
    native = kind == "openvino" and _has_bfloat16()
    if asked == "bfloat16":
        if not native:
            raise ConfigurationError(
                "--precision",
                "bf16",
                "it needs OpenVINO and a processor with bf16 (AVX-512 or AMX); choose f32",
            )
        return "bfloat16", "asked for"
    if not any(lower.precision == "bfloat16" for lower in graph.lower_precisions):
        return "float32", "the card proves no lower precision"
    if not native:
        return "float32", "nothing here computes in bfloat16"
    return "bfloat16", "proven by the card, and this processor computes in it"


def _has_bfloat16() -> bool:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        # without the processor's own word: float32, which is right everywhere
        return False
    line = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(line.split())


def open_runtime(
    kind: str, model: str, path: Path, graph: Graph, *, workers: int, precision: Precision = "float32"
) -> Runtime:
    """Loads a graph for ``workers`` threads. Raises ModelOutputError if it is not what the card says.

    ``precision``: as `choose_precision` said; only OpenVINO knows another than float32.
    """
    if kind == "openvino":
        from lobule.runtimes.openvino_runtime import OpenVinoRuntime

        return OpenVinoRuntime(model, path, graph, workers=workers, precision=precision)
    if kind == "torch":
        from lobule.runtimes.torch_runtime import TorchRuntime

        return TorchRuntime(model, path, graph)
    from lobule.runtimes.onnx_runtime import OnnxRuntime

    return OnnxRuntime(model, path, graph)
