"""Runtimes: what runs an ONNX graph. `open_runtime` chooses one and checks the graph against its card."""

from lobule.runtimes.runtime import (
    Precision,
    Runtime,
    RuntimeKind,
    choose_precision,
    choose_runtime,
    open_runtime,
)

__all__ = ["Precision", "Runtime", "RuntimeKind", "choose_precision", "choose_runtime", "open_runtime"]
