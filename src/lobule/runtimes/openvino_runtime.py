"""OpenVINO behind the contract of a runtime; the only module that calls it."""

from __future__ import annotations

import io
import threading
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lobule.errors import InferenceError, ModelOutputError
from lobule.models.card import Graph
from lobule.runtimes.agreement import check_agreement
from lobule.runtimes.compiled import keep_compiled, kept_compiled, key_of
from lobule.runtimes.openvino_library import openvino as ov
from lobule.runtimes.pixels import takes_plain_pixels
from lobule.runtimes.runtime import Arrays, Precision, threads_of
from lobule.strict import values_of

__all__ = ["OpenVinoRuntime"]

_ALONE = threading.Lock()
_DTYPES = {"u8": "uint8", "f32": "float32"}


class OpenVinoRuntime:
    """One stream per worker, of one thread, or for a refining graph of REFINE_THREADS; each caller keeps a request."""

    kind = "openvino"

    def __init__(
        self, model: str, path: Path, graph: Graph, *, workers: int, precision: Precision = "float32"
    ) -> None:
        with _ALONE:
            _set_up_python_half()
        self._model, self._path, self._graph = model, path, graph
        self._settings = {
            # processors with bfloat16 would use it unasked; what is int8 stands in the graph itself
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
            "NUM_STREAMS": str(workers),
            "INFERENCE_NUM_THREADS": str(workers * threads_of(graph)),
            "ENABLE_CPU_PINNING": False,
        }
        # a fixed shape lets OpenVINO plan its memory once; the batch is one tile
        self._compiled = self._load(graph.tile_px)
        self._of_any_size: ov.CompiledModel | None = None
        self._compiling = threading.Lock()
        # by number a tensor is found sooner than by name
        self._inputs = {port.get_any_name(): place for place, port in enumerate(self._compiled.inputs)}
        self._outputs = {port.get_any_name(): place for place, port in enumerate(self._compiled.outputs)}
        self._own = threading.local()
        version = ov.get_version().split("-")[0]
        self.description = f"OpenVINO {version}, CPU, {precision}"

    def _load(self, side: int) -> ov.CompiledModel:
        """The network for tiles of ``side`` px, of any size where that is -1: as it was kept, or compiled and kept."""
        core = ov.Core()
        made_from = {
            "side": side,
            "graph": values_of(self._graph),
            "settings": sorted(self._settings.items()),
            "openvino": ov.get_version(),
            "processor": core.get_property("CPU", "FULL_DEVICE_NAME"),
            "formats": sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
        }
        try:
            key = key_of(self._path, made_from)
        except OSError as error:
            raise ModelOutputError(self._model, f"{self._path} cannot be read: {error.strerror}") from error
        if (blob := kept_compiled(key)) is not None:
            try:
                return core.import_model(blob, "CPU", self._settings)
            except RuntimeError:
                # a build of OpenVINO that refuses what another of the same version wrote: compiled anew
                pass
        compiled = self._compile(core, side)
        stream = io.BytesIO()
        compiled.export_model(stream)
        keep_compiled(key, stream.getvalue())
        return compiled

    def _compile(self, core: ov.Core, side: int) -> ov.CompiledModel:
        try:
            network = core.read_model(self._path)
        except RuntimeError as error:
            raise ModelOutputError(
                self._model, f"{self._path} cannot be loaded by OpenVINO: {error}"
            ) from error
        check_agreement(self._model, self._graph, _signature(network.inputs), _signature(network.outputs))
        shapes = {
            tensor.name: [
                1 if axis == "N" else side if size == -1 else size
                for axis, size in zip(tensor.layout, tensor.shape, strict=True)
            ]
            for tensor in self._graph.inputs
        }
        try:
            network.reshape(shapes)
            if not takes_plain_pixels(self._graph):
                network = _with_preparation(network, self._graph)
            return core.compile_model(network, "CPU", self._settings)
        except RuntimeError as error:
            raise ModelOutputError(
                self._model, f"{self._path} cannot be compiled by OpenVINO: {error}"
            ) from error

    def _request(self, inputs: Arrays) -> ov.InferRequest:
        """This thread's request for inputs of that shape."""
        side = self._graph.tile_px
        usual = self._graph.role == "refine" or inputs[self._graph.inputs[0].name].shape[1:3] == (side, side)
        name = "request" if usual else "request_of_any_size"
        request = getattr(self._own, name, None)
        if request is None:
            if not usual:
                with self._compiling:
                    if self._of_any_size is None:
                        self._of_any_size = self._load(-1)
            compiled = self._compiled if usual else self._of_any_size
            assert compiled is not None
            request = compiled.create_infer_request()
            setattr(self._own, name, request)
        return request

    def run(self, inputs: Arrays) -> dict[str, NDArray[np.generic]]:
        """See Runtime."""
        try:
            request = self._request(inputs)
            # the tensors are the arrays themselves, which this holds until they have been read
            given = {
                self._inputs[name]: values if values.flags.carray else np.array(values, order="C")
                for name, values in inputs.items()
            }
            for place, values in given.items():
                request.set_input_tensor(place, ov.Tensor(values, shared_memory=True))
            # not infer(), which looks at every input and output in Python while no other thread can
            request.start_async()
            request.wait()
            # the request's buffers are overwritten by the next call: the caller gets copies
            return {
                name: np.array(request.get_output_tensor(place).data) for name, place in self._outputs.items()
            }
        except RuntimeError as error:
            raise InferenceError(
                f"model {self._model}: OpenVINO failed: {error}", runtime=self.kind
            ) from error

    def close(self) -> None:
        """See Runtime."""
        self._own = threading.local()
        del self._compiled, self._of_any_size


def _signature(ports: list[ov.Output]) -> dict[str, tuple[str, list[int | None]]]:
    """Name → element type and shape, None for a size that is not fixed."""
    found = {}
    for port in ports:
        kind = port.get_element_type().get_type_name()
        sizes = [None if size.is_dynamic else size.get_length() for size in port.get_partial_shape()]
        found[port.get_any_name()] = (_DTYPES.get(kind, kind), sizes)
    return found


@cache
def _set_up_python_half() -> None:
    """Touches what OpenVINO's Python half sets up at first use, by one thread alone.

    It guards that by locks of C++ which wait for Python's own lock: two threads that infer for the first time at
    the same moment can wait for each other for ever.
    """
    for kind in (ov.Type.u8, ov.Type.f32):
        array = np.zeros(1, kind.to_dtype())
        np.array(ov.Tensor(array, shared_memory=True).data)


def _with_preparation(network: ov.Model, graph: Graph) -> ov.Model:
    """The network with RGB bytes as its pixels input: order, scale and layout are dealt with in the graph."""
    tensor = graph.inputs[0]
    steps = ov.preprocess.PrePostProcessor(network)
    pixels = steps.input(tensor.name)
    pixels.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    pixels.model().set_layout(ov.Layout(tensor.layout))
    if graph.color_order == "BGR":
        pixels.tensor().set_color_format(ov.preprocess.ColorFormat.RGB)
        pixels.preprocess().convert_color(ov.preprocess.ColorFormat.BGR)
    if tensor.dtype == "float32":
        pixels.preprocess().convert_element_type(ov.Type.f32)
        if graph.mean is not None and graph.std is not None:
            pixels.preprocess().mean(list(graph.mean)).scale(list(graph.std))
    return steps.build()
