"""From a path to a slide: the table of readers and what is said when none fits."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lobule.errors import SlideNotFoundError, UnsupportedSlideError
from lobule.geometry import Mpp
from lobule.slides.resolution import mpp_from_option, with_given_mpp
from lobule.slides.slide import Slide

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["open_slide"]

READERS = (
    "lobule.slides.openslide_reader",
    "lobule.slides.image_reader",
)
"""Tried in this order. Each has NAME, ``detect(path, head) -> None | why not`` and ``open(path, head)``."""

HEAD_BYTES = 4096


def open_slide(
    path: str | Path | NDArray[np.uint8],
    *,
    mpp: Mpp | float | None = None,
    mpp_source: Literal["option", "csv"] = "option",
) -> Slide:
    """Opens a slide: a path, or an (H, W, 3) uint8 array.

    ``mpp`` (µm per pixel, a pair or one number) overrides whatever the file says.

    Raises SlideNotFoundError, UnsupportedSlideError (with what was tried), SlideReadError (damaged),
    ConfigurationError (impossible mpp).
    """
    given = None if mpp is None else mpp_from_option(mpp)
    if not isinstance(path, (str, Path)):
        from lobule.slides.array_slide import ArraySlide

        return ArraySlide(path, given, mpp_source=mpp_source)
    slide = _open_path(Path(path))
    if given is not None:
        slide.properties = with_given_mpp(slide.properties, given, mpp_source)
    return slide


def _read_head(path: Path) -> bytes:
    try:
        if not path.exists():
            raise SlideNotFoundError(path, "there is no such file")
        if path.is_dir():
            raise SlideNotFoundError(path, "this is a folder; name the slide's file")
        if not path.is_file():
            raise SlideNotFoundError(path, "this is not a regular file")
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except SlideNotFoundError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SlideNotFoundError(path, f"the file cannot be read: {reason}") from error


def _open_path(path: Path) -> Slide:
    head = _read_head(path)
    tried: list[tuple[str, str]] = []
    for module in READERS:
        reader: Any = import_module(module)
        declined = reader.detect(path, head)
        if declined is not None:
            tried.append((reader.NAME, declined))
            continue
        try:
            slide: Slide = reader.open(path, head)
        except UnsupportedSlideError as error:
            tried.append((reader.NAME, error.reason))
            continue
        return slide
    raise UnsupportedSlideError(path, "no reader can open this file", tried)
