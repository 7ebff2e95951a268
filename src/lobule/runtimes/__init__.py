"""Runtimes: what runs an ONNX graph. `open_runtime` chooses one and checks the graph against its card."""

from lobule.runtimes.runtime import Runtime, RuntimeKind, choose_runtime, open_runtime

__all__ = ["Runtime", "RuntimeKind", "choose_runtime", "open_runtime"]
