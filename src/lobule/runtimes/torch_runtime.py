"""PyTorch behind the contract of a runtime, through onnx2torch; the only module here that calls them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.version_converter
import torch
from numpy.typing import NDArray

from lobule.errors import InferenceError, ModelOutputError
from lobule.models.card import Graph
from lobule.runtimes.agreement import check_agreement
from lobule.runtimes.pixels import prepared
from lobule.runtimes.runtime import Arrays
from lobule.runtimes.torch_builds import import_beside_torch

__all__ = ["TorchRuntime"]

_OPSET = 17
_DTYPES = {onnx.TensorProto.UINT8: "uint8", onnx.TensorProto.FLOAT: "float32"}


class TorchRuntime:
    """The graph as a torch module; one thread per call."""

    kind = "torch"

    def __init__(self, model: str, path: Path, graph: Graph) -> None:
        convert = import_beside_torch("onnx2torch", "torch", "--runtime torch").convert
        try:
            proto = onnx.load(str(path))
            _drop_needless_allowzero(proto)
            # onnx2torch knows operators up to opset 17
            network = convert(onnx.version_converter.convert_version(proto, _OPSET))
        except (
            OSError,
            ValueError,
            RuntimeError,
            NotImplementedError,
            onnx.checker.ValidationError,
        ) as error:
            raise ModelOutputError(
                model, f"{path} cannot be loaded by torch (onnx2torch): {error}"
            ) from error

        def signature(values: list[onnx.ValueInfoProto]) -> dict[str, tuple[str, list[int | None]]]:
            found: dict[str, tuple[str, list[int | None]]] = {}
            for value in values:
                tensor = value.type.tensor_type
                sizes = [size.dim_value if size.dim_value > 0 else None for size in tensor.shape.dim]
                found[value.name] = (_DTYPES.get(tensor.elem_type, str(tensor.elem_type)), sizes)
            return found

        check_agreement(model, graph, signature(proto.graph.input), signature(proto.graph.output))
        torch.set_num_threads(1)
        self._network = network.eval()
        self._model, self._graph = model, graph
        self._inputs = [value.name for value in proto.graph.input]
        self._outputs = [value.name for value in proto.graph.output]
        self.description = f"PyTorch {torch.__version__}, CPU, float32"

    def run(self, inputs: Arrays) -> dict[str, NDArray[np.generic]]:
        """See Runtime."""
        ready = prepared(inputs, self._graph)
        try:
            with torch.inference_mode():
                results = self._network(*(torch.from_numpy(np.array(ready[name])) for name in self._inputs))
        except RuntimeError as error:
            raise InferenceError(f"model {self._model}: torch failed: {error}", runtime=self.kind) from error
        if isinstance(results, torch.Tensor):
            results = (results,)
        return {name: result.numpy() for name, result in zip(self._outputs, results, strict=True)}

    def close(self) -> None:
        """See Runtime."""
        del self._network


def _drop_needless_allowzero(proto: onnx.ModelProto) -> None:
    """Takes ``allowzero`` off reshapes to stated sizes without a zero, where it means nothing; onnx2torch lacks it."""
    stated = {each.name: onnx.numpy_helper.to_array(each) for each in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Reshape" and node.input[1] in stated and stated[node.input[1]].all():
            kept = [attribute for attribute in node.attribute if attribute.name != "allowzero"]
            del node.attribute[:]
            node.attribute.extend(kept)
