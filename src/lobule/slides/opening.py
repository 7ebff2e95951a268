"""From a path to a slide: the table of readers and what is said when none fits."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lobule.errors import SlideNotFoundError, SlideReadError, UnsupportedSlideError
from lobule.slides.resolution import GivenMpp, mpp_from_option, with_given_mpp
from lobule.slides.slide import Slide
from lobule.slides.sniff import OF_NO_VENDOR, VENDOR_SUFFIXES, explain_unsupported
from lobule.slides.tiff_structure import ByteFile, is_tiff, read_tiff_structure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["open_slide"]

READERS = (
    "lobule.slides.dicom_reader",
    "lobule.slides.openslide_reader",
    "lobule.slides.tiff_reader",
    "lobule.slides.image_reader",
)
"""Tried in this order. Each module has

* ``NAME`` and ``READS_VENDORS``: whether it knows vendors' whole-slide formats or only plain pictures;
* ``detect(path, head)``: None if the file is its own, else why not; reads a few bytes and never raises;
* ``open(path, head)``: the slide; None leaves it to the next; raises UnsupportedSlideError, SlideReadError.
"""

MARKS = {"lobule.slides.dicom_reader": ("dicom", slice(128, 132), b"DICM", "not a DICOM file")}
"""Readers whose files all bear a mark: their name, where it stands, what it is, and what is said where it is
not; the module need not be loaded to see that."""

HEAD_BYTES = 4096


def open_slide(
    path: str | Path | NDArray[np.uint8],
    *,
    mpp: GivenMpp | None = None,
    mpp_source: Literal["option", "csv"] = "option",
) -> Slide:
    """Opens a slide: a path, or an (H, W, 3) uint8 array.

    ``mpp`` (µm per pixel, a pair (x, y) or one number) overrides whatever the file says.

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
    unsupported = explain_unsupported(path, head)
    if unsupported is not None:
        raise UnsupportedSlideError(path, unsupported)
    suffix = path.suffix.lower()
    if is_tiff(head) and suffix != ".ndpi":
        # before any library sees them: loops, cuts and lies that some versions crash on
        _check_tiff(path)
    tried: list[tuple[str, str]] = []
    for module in READERS:
        if module in MARKS:
            name, place, mark, otherwise = MARKS[module]
            if head[place] != mark:
                tried.append((name, otherwise))
                continue
        reader: Any = import_module(module)
        of_no_vendor = ("openslide", OF_NO_VENDOR) in tried  # programs save plain pyramids as .svs, too
        if suffix in VENDOR_SUFFIXES and not reader.READS_VENDORS and not of_no_vendor:
            tried.append((reader.NAME, f"would find only a preview in a {suffix}"))
            continue
        declined = reader.detect(path, head)
        if declined is not None:
            tried.append((reader.NAME, declined))
            continue
        try:
            slide: Slide | None = reader.open(path, head)
        except UnsupportedSlideError as error:
            # a reader that knows the format has spoken: another would find something else in the file
            raise UnsupportedSlideError(path, error.reason, tried) from error
        if slide is not None:
            return slide
        tried.append((reader.NAME, "left to OpenSlide"))
    raise UnsupportedSlideError(path, _summary(path, suffix), tried)


def _summary(path: Path, suffix: str) -> str:
    if suffix == ".mrxs" and not path.with_suffix("").is_dir():
        return f"an MRXS slide needs the folder {path.stem} beside it, which is missing"
    return "no reader can open this file"


def _check_tiff(path: Path) -> None:
    file = ByteFile(path)
    try:
        structure = read_tiff_structure(file)
        for directory in structure.every():
            offsets, counts = directory.numbers(324), directory.numbers(325)
            if offsets is None or counts is None or offsets.size != counts.size:
                continue
            if offsets.dtype.kind != "u" or counts.dtype.kind != "u":
                raise SlideReadError(path, "the file is damaged: the places of its tiles are no numbers")
            beyond = int((offsets.astype("u8") + counts.astype("u8") > file.size_bytes).sum())
            if beyond:
                width, height = directory.size
                raise SlideReadError(
                    path,
                    f"the file is cut short: {beyond} of {offsets.size} tiles of its {width} x {height} px "
                    "level lie beyond its end",
                )
    finally:
        file.close()
