"""A graph in 8-bit integers: static quantization, ranges and biases taken from training tiles.

Weights are quantized per channel, symmetric, to 7 bits: processors without VNNI add two products of 8-bit numbers
in 16, which overflows with the eighth. The file then gives the same on every processor. Activations get 8 bits, their
ranges are the least and largest value seen. What comes before the first convolution and after the last stays float.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lobule.errors import MissingDependencyError, ModelOutputError

__all__ = ["quantize_graph"]

Arrays = Mapping[str, NDArray[np.generic]]


def quantize_graph(source: Path, out: Path, samples: Sequence[Arrays]) -> None:
    """Writes the float32 graph ``source`` as ``out`` in int8 (QDQ), calibrated on ``samples``: input name → array.

    The same graph and samples give the same file. Raises MissingDependencyError without the onnx package,
    ModelOutputError where the graph has no convolution.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError("onnx", "train", "making a graph int8") from error
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    network = onnx.load(str(source))
    outside = _outside_convolutions(network, source)
    with TemporaryDirectory() as scratch, _quiet():
        named, quantized = Path(scratch) / "named.onnx", Path(scratch) / "int8.onnx"
        onnx.save(network, str(named))
        quantize_static(
            str(named),
            str(quantized),
            _Samples(samples),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=outside,
        )
        small = onnx.load(str(quantized))
    _correct_biases(network, small, samples)
    out.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(small, str(out))


class _Samples:
    """Samples one after the other, as ONNX Runtime's calibration asks for them."""

    def __init__(self, samples: Sequence[Arrays]) -> None:
        self._left = iter(samples)

    def get_next(self) -> Arrays | None:
        return next(self._left, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the quantizer's advice, which goes to the root logger."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _outside_convolutions(network: Any, source: Path) -> list[str]:
    """The names of the nodes before the first convolution and after the last; nodes without a name get one."""
    nodes = network.graph.node
    places = [place for place, node in enumerate(nodes) if node.op_type == "Conv"]
    if not places:
        raise ModelOutputError(source.parent.name, f"{source.name} has no convolution to compute in int8")
    for place, node in enumerate(nodes):
        node.name = node.name or f"node_{place}_of_{node.op_type}"
    return [node.name for place, node in enumerate(nodes) if not places[0] <= place <= places[-1]]


def _correct_biases(network: Any, small: Any, samples: Sequence[Arrays]) -> None:
    """Adds to each convolution's bias what rounding its weights takes from its mean output (Nagel et al. 2019).

    For weights W, rounded Ŵ, and the mean x̄ of each input channel over the samples: Σ (W - Ŵ) x̄, the sum over
    the input channels and the kernel's places.
    """
    from onnx import numpy_helper

    means = _channel_means(network, samples)
    full = {each.name: each for each in network.graph.initializer}
    stored = {each.name: each for each in small.graph.initializer}
    made_by = {name: node for node in small.graph.node for name in node.output}
    rounded = {node.name: node for node in small.graph.node if node.op_type == "Conv"}

    def dequantized(name: str) -> tuple[Any, NDArray[np.float64]] | None:
        """What is stored for a tensor, and the scale that it is multiplied with."""
        node = made_by.get(name)
        if node is None or node.op_type != "DequantizeLinear" or node.input[0] not in stored:
            return None
        scale = numpy_helper.to_array(stored[node.input[1]]).astype(np.float64)
        return stored[node.input[0]], scale

    for node in network.graph.node:
        if node.op_type != "Conv" or len(node.input) < 3 or node.input[1] not in full:
            continue
        twin = rounded[node.name]
        weights, bias = dequantized(twin.input[1]), dequantized(twin.input[2])
        if weights is None or bias is None:
            continue
        exact = numpy_helper.to_array(full[node.input[1]]).astype(np.float64)
        steps = numpy_helper.to_array(weights[0]).astype(np.float64)
        lost = (exact - steps * weights[1].reshape(-1, *[1] * (steps.ndim - 1))).sum(axis=(2, 3))
        count, inputs = lost.shape
        groups = means[node.input[0]].size // inputs
        mean = np.repeat(means[node.input[0]].reshape(groups, inputs), count // groups, axis=0)
        value = numpy_helper.to_array(bias[0]) + np.rint((lost * mean).sum(axis=1) / bias[1])
        bias[0].CopyFrom(numpy_helper.from_array(value.astype(np.int32), bias[0].name))


def _channel_means(network: Any, samples: Sequence[Arrays]) -> dict[str, NDArray[np.float64]]:
    """Mean over samples and places of each channel of what goes into the convolutions: tensor → (channels,)."""
    import onnx
    import onnxruntime

    probe = onnx.ModelProto()
    probe.CopyFrom(network)
    names = sorted({node.input[0] for node in network.graph.node if node.op_type == "Conv"})
    for name in names:
        pooled = onnx.helper.make_node("GlobalAveragePool", [name], [f"{name}.mean"])
        probe.graph.node.append(pooled)
        probe.graph.output.append(onnx.ValueInfoProto(name=f"{name}.mean"))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    wanted = [f"{name}.mean" for name in names]
    totals = {name: np.zeros(1) for name in names}
    for sample in samples:
        for name, value in zip(names, session.run(wanted, dict(sample)), strict=True):
            totals[name] = totals[name] + value.mean(axis=0, dtype=np.float64).reshape(-1)
    return {name: total / len(samples) for name, total in totals.items()}
