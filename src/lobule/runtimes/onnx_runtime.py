"""ONNX Runtime behind the contract of a runtime; the only module that calls it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from lobule.errors import InferenceError, ModelOutputError
from lobule.models.card import Graph
from lobule.runtimes.agreement import check_agreement
from lobule.runtimes.pixels import prepared
from lobule.runtimes.runtime import Arrays, Precision, threads_of

__all__ = ["OnnxRuntime"]

_DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}
# every class that ONNX Runtime raises derives from Exception alone, so each is named
_ERRORS = tuple(
    getattr(ort.capi.onnxruntime_pybind11_state, name)
    for name in (
        "EPFail",
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "NoModel",
        "NoSuchFile",
        "NotImplemented",
        "RuntimeException",
    )
)


class OnnxRuntime:
    """A session of `threads_of` the graph per call; calls from several threads run side by side."""

    kind = "onnxruntime"

    def __init__(self, model: str, path: Path, graph: Graph, *, precision: Precision = "float32") -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads_of(graph)
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # the arena would keep near 1 GB for the one large picture of a refinement; tiles gain from it
        options.enable_cpu_mem_arena = graph.role != "refine"
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except (*_ERRORS, RuntimeError) as error:
            raise ModelOutputError(model, f"{path} cannot be loaded by ONNX Runtime: {error}") from error
        self._model, self._graph = model, graph

        def signature(nodes: list[ort.NodeArg]) -> dict[str, tuple[str, list[int | None]]]:
            return {
                node.name: (
                    _DTYPES.get(node.type, node.type),
                    [size if isinstance(size, int) else None for size in node.shape],
                )
                for node in nodes
            }

        check_agreement(
            model, graph, signature(self._session.get_inputs()), signature(self._session.get_outputs())
        )
        self._outputs = [tensor.name for tensor in graph.outputs]
        provider = self._session.get_providers()[0]
        self.description = f"ONNX Runtime {ort.__version__}, {provider}, {precision}"

    def run(self, inputs: Arrays) -> dict[str, NDArray[np.generic]]:
        """See Runtime."""
        try:
            results = self._session.run(self._outputs, prepared(inputs, self._graph))
        except (*_ERRORS, RuntimeError) as error:
            raise InferenceError(
                f"model {self._model}: ONNX Runtime failed: {error}", runtime=self.kind
            ) from error
        return dict(zip(self._outputs, results, strict=True))

    def close(self) -> None:
        """See Runtime."""
        del self._session
