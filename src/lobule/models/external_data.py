"""Whether an ONNX file keeps numbers in other files, told without the ``onnx`` package, in about a millisecond.

Such numbers are in no digest: neither the card's nor that of a kept compiled network would change with them.
The file is protobuf, of which only as much is read as leads to tensors; field numbers are those of ``onnx.proto3``.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["has_external_data"]

_TENSOR = "tensor"
_LOCATION, _EXTERNAL = 14, 1
_LOCATION_IS_EXTERNAL = bytes([_LOCATION << 3, _EXTERNAL])
_LEADS_TO: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: _TENSOR, 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: _TENSOR, 6: "graph", 10: _TENSOR, 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: _TENSOR, 2: _TENSOR},
}
"""Message → the fields through which a tensor can be reached, and what message each holds."""


def has_external_data(content: bytes) -> bool:
    """Whether a tensor's numbers lie in another file than the ONNX file of that content; no, where it is none."""
    try:
        return _leads_outside(content, "model", 0, len(content))
    except (IndexError, ValueError, RecursionError):
        # not protobuf: the runtime says what is wrong with it
        return False


def _leads_outside(content: bytes, message: str, at: int, end: int) -> bool:
    if message == _TENSOR:
        return any(
            number == _LOCATION and content[at] == _EXTERNAL for number, at, _ in _fields(content, at, end)
        )
    if message == "node" and content.find(_LOCATION_IS_EXTERNAL, at, end) < 0:
        # a graph has many nodes, nearly all without a tensor of their own
        return False
    leads_to = _LEADS_TO[message]
    return any(
        number in leads_to and _leads_outside(content, leads_to[number], start, stop)
        for number, start, stop in _fields(content, at, end)
    )


def _fields(content: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Each field's number and where its value begins and ends. Raises IndexError, ValueError: not protobuf."""
    while at < end:
        tag, at = _varint(content, at)
        kind = tag & 7
        if kind == 2:
            length, at = _varint(content, at)
            stop = at + length
        elif kind == 0:
            _, stop = _varint(content, at)
        elif kind in (1, 5):
            stop = at + (8 if kind == 1 else 4)
        else:
            raise ValueError(f"no field of kind {kind}")
        if stop > end:
            raise ValueError("a field goes on beyond what holds it")
        yield tag >> 3, at, stop
        at = stop


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, lowest first, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number of more than 64 bits")
