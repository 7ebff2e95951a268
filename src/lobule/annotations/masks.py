"""Masks drawn as images."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Callable
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lobule.annotations.regions import read_bytes
from lobule.errors import AnnotationError, SlideReadError

__all__ = ["is_image", "read_mask", "warn_user"]

_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# below the size from which Pillow refuses an image
_MOST_PIXELS = 170_000_000
_ENOUGH_PIXELS = 64_000_000
_ASPECT_TOLERANCE = 0.02


def is_image(start: bytes) -> bool:
    """Whether a file that starts so is a PNG or TIFF."""
    return start.startswith((_PNG, *_TIFF))


def warn_user(text: str) -> None:
    """Tells by `warnings.warn`."""
    warnings.warn(text, UserWarning, stacklevel=3)


def read_mask(
    path: str | PathLike[str], slide_size: tuple[int, int], *, warn: Callable[[str], None] = warn_user
) -> NDArray[np.bool_]:
    """A mask of a whole slide from a PNG or TIFF, (H, W) bool at the file's own size; nonzero is True.

    slide_size: level-0 (width, height). Any size fits whose aspect is the slide's within 2 %, or within
    the pixel that rounding may cost a small mask. Of several levels the largest of up to 64 million pixels
    is read. In color any channel but alpha counts; alpha 0 is outside. Several gray planes (pages, channels)
    count together. Of a palette, which must begin with black, the numbers count. In a TIFF of 1 bit where 0
    is white (MINISWHITE) white is marked, and ``warn`` is told (by default `warnings.warn`); but where
    tifffile wrote it, which stores every array of bool so, True is. A turned TIFF is put upright. Raises
    AnnotationError.
    """
    content = read_bytes(path)
    if not is_image(content[:8]):
        raise AnnotationError(path, "a mask must be a PNG or a TIFF")
    try:
        pixels, has_alpha = (
            _read_png(path, content[:24], slide_size)
            if content.startswith(_PNG)
            else _read_tiff(path, slide_size, warn)
        )
    except AnnotationError:
        raise
    except (
        ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError, SyntaxError,
        TypeError, ValueError, struct.error, zlib.error,
    ) as error:  # fmt: skip
        # Pillow, tifffile and imagecodecs raise all of these on damaged files
        reason = str(error) or type(error).__name__
        raise AnnotationError(path, f"the mask cannot be decoded: {reason[:200]}") from error
    if pixels.ndim not in (2, 3):
        raise AnnotationError(path, f"a mask has one plane, not an array of shape {pixels.shape}")
    # NaN of a map of numbers is what was not looked at
    marked: NDArray[np.bool_] = np.nan_to_num(pixels) != 0 if pixels.dtype.kind == "f" else pixels != 0
    if has_alpha:
        marked = np.any(marked[..., :-1], axis=2) & marked[..., -1]
    elif marked.ndim == 3:
        marked = np.any(marked, axis=2)
    return marked


def _check(path: str | PathLike[str], width: int, height: int, slide_size: tuple[int, int]) -> None:
    if width < 1 or height < 1 or width * height > _MOST_PIXELS:
        raise AnnotationError(
            path, f"a mask of {width} × {height} px is not read; 1 to 170 million pixels are"
        )
    across, down = slide_size[0] / width, slide_size[1] / height
    rounding = max(across / slide_size[0], down / slide_size[1])
    if abs(across / down - 1.0) > max(_ASPECT_TOLERANCE, rounding):
        raise AnnotationError(
            path,
            f"a mask of {width} × {height} px does not have the shape of the slide "
            f"({slide_size[0]} × {slide_size[1]} px); draw it over the whole slide",
        )


def _read_png(
    path: str | PathLike[str], header: bytes, slide_size: tuple[int, int]
) -> tuple[NDArray[np.generic], bool]:
    """The pixels, and whether their last plane is alpha."""
    from PIL import Image

    width, height = struct.unpack(">II", header[16:24])
    _check(path, width, height, slide_size)
    with warnings.catch_warnings():
        # the size is checked here, before any pixel is decoded
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path) as image:
            if image.mode == "P" and any((image.getpalette("RGB") or [])[:3]):
                raise _palette_error(path)
            return np.asarray(image), image.mode in ("LA", "RGBA")


def _palette_error(path: str | PathLike[str]) -> AnnotationError:
    # what is 0 counts as outside: in such a palette that may be the white that was drawn
    return AnnotationError(
        path, "the first color of the mask's palette is not black; save the mask in gray, black outside"
    )


def _read_tiff(
    path: str | PathLike[str], slide_size: tuple[int, int], warn: Callable[[str], None]
) -> tuple[NDArray[np.generic], bool]:
    """The pixels, and whether their last plane is alpha."""
    import tifffile

    from lobule.slides.orientation import TURNS
    from lobule.slides.tiff_structure import ByteFile, read_tiff_structure

    # tifffile follows garbage for as long as it looks like a directory, hours in a file of 40 kB
    file_bytes = ByteFile(Path(path))
    try:
        orientation = read_tiff_structure(file_bytes).chain[0].integer(274, 1)
    except SlideReadError as error:
        raise AnnotationError(path, f"the mask cannot be read: {error.reason}") from error
    finally:
        file_bytes.close()
    turn = TURNS.get(orientation, TURNS[1])
    with tifffile.TiffFile(path) as file:
        if not file.pages:
            raise AnnotationError(path, "the TIFF holds no image")
        series = file.series[0]
        levels = [level for level in series.levels if {"Y", "X"} <= set(level.axes)]
        if not levels:
            raise AnnotationError(path, "the TIFF holds no image")
        sizes = [(level.shape[level.axes.index("X")], level.shape[level.axes.index("Y")]) for level in levels]
        level, size = next(
            ((one, s) for one, s in zip(levels, sizes, strict=True) if s[0] * s[1] <= _ENOUGH_PIXELS),
            (levels[-1], sizes[-1]),
        )
        _check(path, *turn.size(size), slide_size)
        photometric, bits = level.keyframe.photometric, level.keyframe.bitspersample
        colors = level.keyframe.colormap
        if photometric == 3 and colors is not None and colors[:, 0].any():
            raise _palette_error(path)
        if int(np.prod(level.shape, dtype=np.float64)) > 4 * size[0] * size[1]:
            raise AnnotationError(path, f"a mask has one plane, not an array of shape {level.shape}")
        pixels = np.asarray(level.asarray())
        # tifffile gives every array of bool this color and leaves its numbers as they are
        if photometric == 0 and bits == 1 and not file.pages.first.software.startswith("tifffile"):
            # programs write black and white as a fax does, 1 is black; in gray, numbers are believed as they are
            pixels = pixels == 0
            warn(
                f"{path}: in this TIFF of 1 bit 0 is white (MINISWHITE); white was taken for what is marked. "
                "If black is, save the mask in 8 bits, 0 outside"
            )
        axes, extra = level.axes, level.keyframe.extrasamples
    # samples last; axes of length 1 away
    keep = [axis for axis in range(pixels.ndim) if axes[axis] in "YX" or pixels.shape[axis] > 1]
    pixels = pixels.reshape([pixels.shape[axis] for axis in keep])
    place = {"Y": 0, "X": 1}
    order = sorted(range(len(keep)), key=lambda axis: place.get(axes[keep[axis]], 2))
    # other planes, be they two or four, are pages or channels
    has_alpha = pixels.ndim == 3 and axes[keep[order[2]]] == "S" and bool(extra) and extra[-1] in (1, 2)
    return turn.apply(pixels.transpose(order)), has_alpha
