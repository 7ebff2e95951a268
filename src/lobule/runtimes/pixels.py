"""A tile's pixels as a graph wants them, for runtimes that do not prepare them inside the graph."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lobule.models.card import Graph
from lobule.runtimes.runtime import Arrays

__all__ = ["prepared", "takes_plain_pixels"]


def takes_plain_pixels(graph: Graph) -> bool:
    """Whether the graph's first input is RGB bytes, rows by columns by channels, nothing to be done."""
    tensor = graph.inputs[0]
    plain = tensor.dtype == "uint8" and tensor.layout == "NHWC"
    return plain and graph.color_order == "RGB" and graph.mean is None


def prepared(inputs: Arrays, graph: Graph) -> dict[str, NDArray[np.generic]]:
    """The inputs with the pixels (first input, (1, h, w, 3) uint8 RGB) in the card's order, scale and layout."""
    tensor = graph.inputs[0]
    ready = dict(inputs)
    if takes_plain_pixels(graph):
        return ready
    batch = ready[tensor.name]
    if graph.color_order == "BGR":
        batch = batch[..., ::-1]
    if tensor.layout == "NCHW":
        # three planes one after the other: every later step runs over whole rows
        batch = np.ascontiguousarray(batch.transpose(0, 3, 1, 2))
    if graph.mean is not None and graph.std is not None:
        shape = (1, 3, 1, 1) if tensor.layout == "NCHW" else (1, 1, 1, 3)
        mean, std = (np.asarray(numbers, np.float32).reshape(shape) for numbers in (graph.mean, graph.std))
        batch = (batch.astype(np.float32) - mean) / std
    ready[tensor.name] = np.ascontiguousarray(batch, dtype=tensor.dtype)
    return ready
