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
    "PrecisionChoice",
    "Runtime",
    "RuntimeKind",
    "choose_precision",
    "choose_runtime",
    "computes_in",
    "open_runtime",
    "threads_of",
]

REFINE_THREADS = 2
"""Threads of one run of a refining graph."""

RuntimeKind = Literal["auto", "onnxruntime", "openvino", "torch"]
Precision = Literal["float32", "bfloat16", "int8"]
PrecisionChoice = Literal["auto", "float32", "bfloat16", "int8"]
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


def choose_precision(kind: str, asked: PrecisionChoice, graph: Graph) -> tuple[Precision, str]:
    """(precision, why) for a graph on this machine.

    ``auto``: of what the card proves and this processor computes in, the fastest by the card; else float32. A rule,
    not a stopwatch, as `choose_runtime` is. Asking for bfloat16 takes it unproven; int8 is there only once proven.
    Raises ConfigurationError where a precision is asked for and cannot be had.
    """
    if asked == "float32":
        return "float32", "asked for"
    if asked == "bfloat16":
        if not computes_in(kind, "bfloat16"):
            raise ConfigurationError(
                "--precision",
                "bf16",
                "it needs OpenVINO and a processor with bf16 (AVX-512 or AMX); choose f32",
            )
        return "bfloat16", "asked for"
    if asked == "int8":
        if kind == "torch":
            raise ConfigurationError(
                "--precision", "int8", "torch cannot run it; use another --runtime, or f32"
            )
        if graph.lower("int8") is None:
            raise ConfigurationError(
                "--precision", "int8", f"the {graph.role} graph has none (lobule prove makes it); choose auto"
            )
        return "int8", "asked for"
    if not graph.lower_precisions:
        return "float32", "the card proves no lower precision"
    native = [lower for lower in graph.lower_precisions if computes_in(kind, lower.precision)]
    if not native:
        proven = ", ".join(lower.precision for lower in graph.lower_precisions)
        return "float32", f"the card proves {proven}, which nothing here computes faster"
    fastest = max(native, key=lambda lower: lower.speedup)
    if fastest.speedup <= 1:
        return "float32", "the card says that nothing proven is faster"
    return fastest.precision, "proven by the card, and the fastest that this processor computes in"


def computes_in(kind: str, precision: Precision) -> bool:
    """Whether this runtime and processor are known to compute faster in it: by the processor's own word.

    bfloat16 needs OpenVINO and AVX-512 bf16 or AMX. int8 was measured faster from AVX2 on, with OpenVINO and ONNX
    Runtime; on other processors it was not measured, so it is not taken unasked.
    """
    flags = _flags()
    if precision == "bfloat16":
        return kind == "openvino" and not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags)
    if precision == "int8":
        return kind in ("openvino", "onnxruntime") and "avx2" in flags
    return True


def _flags() -> frozenset[str]:
    """The instruction sets that Linux names; none elsewhere, and then float32 is taken, which is right everywhere."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    line = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return frozenset(line.split())


def open_runtime(
    kind: str, model: str, path: Path, graph: Graph, *, workers: int, precision: Precision = "float32"
) -> Runtime:
    """Loads a graph for ``workers`` threads. Raises ModelOutputError if it is not what the card says.

    ``precision``: as `choose_precision` said; ``path`` is the file for it. OpenVINO knows all of them, ONNX Runtime
    float32 and int8, torch float32.
    """
    if kind == "openvino":
        from lobule.runtimes.openvino_runtime import OpenVinoRuntime

        return OpenVinoRuntime(model, path, graph, workers=workers, precision=precision)
    if kind == "torch":
        from lobule.runtimes.torch_runtime import TorchRuntime

        return TorchRuntime(model, path, graph)
    from lobule.runtimes.onnx_runtime import OnnxRuntime

    return OnnxRuntime(model, path, graph, precision=precision)
