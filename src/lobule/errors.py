"""What can go wrong, in one tree.

::

    LobuleError
     ├ SlideError (path)      SlideNotFoundError  UnsupportedSlideError  SlideReadError
     │                        MissingResolutionError  WrongStainError
     ├ ModelError (name)      UnknownModelError  WeightsNotFoundError  WeightsDigestError
     │                        CardError  ModelOutputError
     ├ AnnotationError (path)
     ├ InferenceError (slide, tile, runtime)
     ├ ConfigurationError (option, value, allowed)
     ├ LeakageError (found)
     ├ MissingDependencyError (package, extra)
     └ ResultError (path)     ResultLockedError  ResultWriteError

A message says what was asked, what was found and what to do, in one line. Errors of other libraries
are translated in the one module that calls them.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike, fspath

__all__ = [
    "AnnotationError",
    "CardError",
    "ConfigurationError",
    "InferenceError",
    "LeakageError",
    "LobuleError",
    "MissingDependencyError",
    "MissingResolutionError",
    "ModelError",
    "ModelOutputError",
    "ResultError",
    "ResultLockedError",
    "ResultWriteError",
    "SlideError",
    "SlideNotFoundError",
    "SlideReadError",
    "UnknownModelError",
    "UnsupportedSlideError",
    "WeightsDigestError",
    "WeightsNotFoundError",
    "WrongStainError",
]


def _one_line(text: str) -> str:
    return " ".join(text.split())


class LobuleError(Exception):
    """Base of every error that lobule raises on purpose; its text is one line."""

    def __init__(self, message: str) -> None:
        super().__init__(_one_line(message))


class _PathError(LobuleError):
    def __init__(self, path: str | PathLike[str] | None, message: str) -> None:
        self.path = None if path is None else fspath(path)
        super().__init__(message if path is None else f"{self.path}: {message}")
        self.reason = _one_line(message)


class SlideError(_PathError):
    """Something is wrong with a slide. ``path`` is None for an in-memory slide."""


class SlideNotFoundError(SlideError, FileNotFoundError):
    """The slide's file does not exist or is not a file."""


class UnsupportedSlideError(SlideError, ValueError):
    """No reader can open the file rightly. ``tried`` holds (reader, why it declined) pairs."""

    def __init__(
        self, path: str | PathLike[str] | None, message: str, tried: Sequence[tuple[str, str]] = ()
    ) -> None:
        self.tried = tuple(tried)
        listed = "; ".join(f"{reader}: {why}" for reader, why in self.tried)
        super().__init__(path, f"{message} ({listed})" if listed else message)


class SlideReadError(SlideError, OSError):
    """The slide was opened but pixels could not be read (damaged or truncated file)."""


class MissingResolutionError(SlideError, ValueError):
    """The slide states no believable micrometers per pixel; give one with --mpp."""


class WrongStainError(SlideError, ValueError):
    """The image is not a brightfield H&E slide (fluorescence, mask, photograph …)."""


class ModelError(LobuleError):
    """Something is wrong with a model."""

    def __init__(self, name: str, message: str) -> None:
        self.name = name
        super().__init__(f"model {name}: {message}")
        self.reason = _one_line(message)


class UnknownModelError(ModelError, KeyError):
    """No model of that name or folder."""

    __str__ = Exception.__str__


class WeightsNotFoundError(ModelError, FileNotFoundError):
    """The card names a file that is not there."""


class WeightsDigestError(ModelError, ValueError):
    """A weights file is not the one the card describes (its sha256 differs)."""


class CardError(ModelError, ValueError):
    """The card breaks its schema."""


class ModelOutputError(ModelError, ValueError):
    """The graph cannot be loaded, or its inputs or outputs are not what the card says."""


class AnnotationError(_PathError, ValueError):
    """An annotation or mask file cannot be used."""


class InferenceError(LobuleError, RuntimeError):
    """A model failed on a tile."""

    def __init__(self, message: str, *, slide: str = "", tile: int | None = None, runtime: str = "") -> None:
        self.slide, self.tile, self.runtime = slide, tile, runtime
        super().__init__(message)


class ConfigurationError(LobuleError, ValueError):
    """An option has a value that it cannot have; None: it is needed and was left out."""

    def __init__(self, option: str, value: object, allowed: str) -> None:
        self.option, self.value, self.allowed = option, value, allowed
        what = f"{option} is needed" if value is None else f"{option}: {value!r} is not possible here"
        super().__init__(f"{what}; {allowed}")


class LeakageError(LobuleError, ValueError):
    """What a model is tested on is also what it learns from. ``found``: every case, one line each."""

    def __init__(self, message: str, found: Sequence[str] = ()) -> None:
        self.found = tuple(found)
        super().__init__(message)


class MissingDependencyError(LobuleError, ImportError):
    """An optional package is needed for what was asked."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        self.package, self.extra = package, extra
        super().__init__(f"{purpose} needs {package}: pip install '.[{extra}]' in lobule's folder")


class ResultError(_PathError, OSError):
    """Results cannot be written or read."""


class ResultLockedError(ResultError):
    """Another run is writing these results."""


class ResultWriteError(ResultError):
    """The results folder cannot be written (permission, full disk, not a folder)."""
