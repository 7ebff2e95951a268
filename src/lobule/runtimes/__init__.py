"""Runtimes: what runs an ONNX graph. `open_runtime` chooses one and checks the graph against its card."""

from lobule.runtimes.runtime import (
    Precision,
    PrecisionChoice,
    Runtime,
    RuntimeKind,
    choose_precision,
    choose_runtime,
    computes_in,
    open_runtime,
)

__all__ = [
    "Precision",
    "PrecisionChoice",
    "Runtime",
    "RuntimeKind",
    "choose_precision",
    "choose_runtime",
    "computes_in",
    "open_runtime",
]
