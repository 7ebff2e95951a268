"""What is read from files that people write, and written for others to read: records that take nothing amiss.

An unknown field, a missing one, another type or a value out of bounds is an error that names its place. Types and
bounds are checked when a record is read; what its fields have to do with each other whenever one is made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

__all__ = ["InvalidError", "Strict", "changed", "from_json", "from_values", "values_of"]


class InvalidError(ValueError):
    """What is read is not what it should be: ``place: what``."""


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A record of named values."""


Kind = TypeVar("Kind", bound=Strict)


def from_json(content: bytes, kind: type[Kind]) -> Kind:
    """Reads a record from JSON. Raises InvalidError."""
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        raise InvalidError(_told(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidError(f"it is not JSON: {error}") from error
    except RecursionError as error:
        raise InvalidError("it is nested too deeply") from error


def from_values(values: object, kind: type[Kind]) -> Kind:
    """Makes a record from dictionaries, lists and records. Raises InvalidError."""
    if (place := _not_finite(values)) is not None:
        raise InvalidError(f"{place}: Expected a finite number")
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise InvalidError(_told(error)) from error


def values_of(record: Strict) -> dict[str, Any]:
    """The record as dictionaries and lists, as it is written."""
    values: dict[str, Any] = msgspec.to_builtins(record)
    return values


def changed(record: Kind, **changes: Any) -> Kind:
    """The record with other values in some fields."""
    return msgspec.structs.replace(record, **changes)


_FIELD = {
    "Object missing required field": "it is missing",
    "Object contains unknown field": "there is no such field",
}


def _told(error: msgspec.ValidationError) -> str:
    """The place, as keys and numbers with dots between them, and what is wrong there."""
    what, _, place = str(error).partition(" - at `$")
    parts = [part for part in place.rstrip("`").replace("[", ".").replace("]", "").split(".") if part]
    for begins, told in _FIELD.items():
        if what.startswith(begins):
            parts.append(what.split("`")[1])
            what = told
    return f"{'.'.join(parts)}: {what}" if parts else what


def _not_finite(values: object, place: str = "") -> str | None:
    """Where the first number lies that is not finite; TOML has such, JSON does not."""
    if isinstance(values, float):
        return None if math.isfinite(values) else place
    if isinstance(values, Mapping):
        inside = ((value, f"{place}.{key}".lstrip(".")) for key, value in values.items())
    elif isinstance(values, Sequence) and not isinstance(values, str):
        inside = ((value, f"{place}.{at}") for at, value in enumerate(values))
    else:
        return None
    return next((found for value, at in inside if (found := _not_finite(value, at)) is not None), None)
