"""Whether a loaded graph has the inputs and outputs that its card states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lobule.errors import ModelOutputError
from lobule.models.card import Graph, Tensor

__all__ = ["check_agreement"]

Signature = Mapping[str, tuple[str, Sequence[int | None]]]
"""Name → (dtype as the card writes it, shape with None for any size)."""


def check_agreement(model: str, graph: Graph, inputs: Signature, outputs: Signature) -> None:
    """Raises ModelOutputError that names the first tensor where graph and card differ."""
    for kind, stated, found in (("input", graph.inputs, inputs), ("output", graph.outputs, outputs)):
        for tensor in stated:
            _check(model, graph, kind, tensor, found)
        extra = sorted(set(found) - {tensor.name for tensor in stated})
        if extra and kind == "input":
            raise ModelOutputError(
                model, f"{graph.file} asks for an input {extra[0]!r} that the card does not state"
            )


def _check(model: str, graph: Graph, kind: str, tensor: Tensor, found: Signature) -> None:
    if tensor.name not in found:
        raise ModelOutputError(
            model, f"{graph.file} has no {kind} {tensor.name!r}; it has {', '.join(sorted(found)) or 'none'}"
        )
    dtype, shape = found[tensor.name]
    if dtype != tensor.dtype:
        raise ModelOutputError(
            model, f"{graph.file}: {kind} {tensor.name!r} is {dtype}, the card says {tensor.dtype}"
        )
    fits = len(shape) == len(tensor.shape) and all(
        have is None or want == -1 or have == want for have, want in zip(shape, tensor.shape, strict=True)
    )
    if not fits:
        raise ModelOutputError(
            model,
            f"{graph.file}: {kind} {tensor.name!r} has shape {list(shape)}, the card says {list(tensor.shape)}",
        )
