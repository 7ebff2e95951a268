"""Masks drawn as images."""

from __future__ import annotations

import struct
import warnings
import zlib
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from lobule.annotations.regions import read_bytes
from lobule.errors import AnnotationError

__all__ = ["is_image", "read_mask"]

_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# below the size from which Pillow refuses an image
_MOST_PIXELS = 170_000_000
_ENOUGH_PIXELS = 64_000_000
_ASPECT_TOLERANCE = 0.02
# a mask is one picture and its smaller copies
_MOST_DIRECTORIES = 64
_MOST_TAGS = 1024

# orientation (TIFF 6.0) → whether the axes are swapped, then x mirrored, then y; any other stands upright
_TURNS = {
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}

# bytes of one value by TIFF field type
_VALUE_BYTES = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8,
}  # fmt: skip


def is_image(start: bytes) -> bool:
    """Whether a file that starts so is a PNG or TIFF."""
    return start.startswith((_PNG, *_TIFF))


def read_mask(path: str | PathLike[str], slide_size: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask of a whole slide from a PNG or TIFF, (H, W) bool at the file's own size; nonzero is True.

    slide_size: level-0 (width, height). Any size fits whose aspect is the slide's within 2 %, or within
    the pixel that rounding may cost a small mask. Of several levels the largest of up to 64 million pixels
    is read. In color any channel but alpha counts; alpha 0 is outside. Of a palette, which must begin with
    black, the numbers count. A turned TIFF is put upright. Raises AnnotationError.
    """
    content = read_bytes(path)
    if not is_image(content[:8]):
        raise AnnotationError(path, "a mask must be a PNG or a TIFF")
    try:
        pixels = (
            _read_png(path, content[:24], slide_size)
            if content.startswith(_PNG)
            else _read_tiff(path, content, slide_size)
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
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        opaque: NDArray[np.bool_] = (pixels[..., :-1] != 0).any(axis=2) & (pixels[..., -1] != 0)
        return opaque
    if pixels.ndim not in (2, 3):
        raise AnnotationError(path, f"a mask has one plane, not an array of shape {pixels.shape}")
    marked: NDArray[np.bool_] = pixels != 0
    if marked.ndim == 3:
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


def _read_png(path: str | PathLike[str], header: bytes, slide_size: tuple[int, int]) -> NDArray[np.generic]:
    from PIL import Image

    width, height = struct.unpack(">II", header[16:24])
    _check(path, width, height, slide_size)
    with warnings.catch_warnings():
        # the size is checked here, before any pixel is decoded
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path) as image:
            if image.mode == "P" and any((image.getpalette("RGB") or [])[:3]):
                raise _palette_error(path)
            return np.asarray(image)


def _palette_error(path: str | PathLike[str]) -> AnnotationError:
    # what is 0 counts as outside: in such a palette that may be the white that was drawn
    return AnnotationError(
        path, "the first color of the mask's palette is not black; save the mask in gray, black outside"
    )


def _check_directories(path: str | PathLike[str], content: bytes) -> None:
    """Refuses a TIFF whose directories loop, lie beyond its end or claim more than it holds.

    tifffile follows garbage for as long as it looks like a directory, hours in a file of 40 kB. Slides are
    checked so by ``lobule.slides``, which this room may not import.
    """
    order = "<" if content[:2] == b"II" else ">"
    big = content[2:4] in (b"+\0", b"\0+")
    # a place or a number of values, a number of tags
    word, inline, short, entry_bytes = ("Q", 8, "Q", 20) if big else ("I", 4, "H", 12)

    def number(code: str, where: int) -> int:
        if where + struct.calcsize(order + code) > len(content):
            raise AnnotationError(
                path, f"the TIFF is cut short or damaged: a directory at byte {where} lies beyond its end"
            )
        return int(struct.unpack_from(order + code, content, where)[0])

    waiting = [(number(word, 8 if big else 4), True)]
    seen: set[int] = set()
    claimed = 0
    while waiting:
        directory, in_chain = waiting.pop()
        if directory == 0:
            continue
        if directory in seen:
            raise AnnotationError(
                path, f"the TIFF is damaged: its directories run in a loop (back to byte {directory})"
            )
        seen.add(directory)
        if len(seen) > _MOST_DIRECTORIES:
            raise AnnotationError(
                path, f"the TIFF holds more than {_MOST_DIRECTORIES} pictures; save the mask alone"
            )
        count = number(short, directory)
        if not 0 < count <= _MOST_TAGS:
            raise AnnotationError(
                path, f"the TIFF is damaged: its directory at byte {directory} claims {count} tags"
            )
        first = directory + struct.calcsize(order + short)
        end = first + count * entry_bytes
        for entry in range(first, end, entry_bytes):
            tag, kind, values = number("H", entry), number("H", entry + 2), number(word, entry + 4)
            total = values * _VALUE_BYTES.get(kind, 0)
            place = entry + 4 + inline
            if total > inline:
                place = number(word, place)
                if place + total > len(content):
                    continue  # tifffile leaves it out, too
                claimed += total
            if tag == 330 and kind in (4, 13, 16, 18):
                code = "I" if kind in (4, 13) else "Q"
                below = range(place, place + total, _VALUE_BYTES[kind])[: _MOST_DIRECTORIES + 1]
                waiting += [(number(code, where), False) for where in below]
        if claimed > 2 * len(content):
            raise AnnotationError(
                path, f"the TIFF is damaged: its tags claim more than twice its {len(content)} bytes"
            )
        if in_chain and end + inline <= len(content):
            waiting.append((number(word, end), True))


def _read_tiff(path: str | PathLike[str], content: bytes, slide_size: tuple[int, int]) -> NDArray[np.generic]:
    import tifffile

    _check_directories(path, content)
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
        orientation = series.keyframe.tags.valueof(274, default=1)
        swap, mirror_x, mirror_y = _TURNS.get(orientation, (False, False, False))
        _check(path, *(size[::-1] if swap else size), slide_size)
        photometric, bits = level.keyframe.photometric, level.keyframe.bitspersample
        colors = level.keyframe.colormap
        if photometric == 3 and colors is not None and colors[:, 0].any():
            raise _palette_error(path)
        if int(np.prod(level.shape, dtype=np.float64)) > 4 * size[0] * size[1]:
            raise AnnotationError(path, f"a mask has one plane, not an array of shape {level.shape}")
        pixels = np.asarray(level.asarray())
        if photometric == 0 and bits == 1:
            # programs write black and white as a fax does, 1 is black; in gray, numbers are believed as they are
            pixels = pixels == 0
        axes = level.axes
    # samples last; axes of length 1 away
    keep = [axis for axis in range(pixels.ndim) if axes[axis] in "YX" or pixels.shape[axis] > 1]
    pixels = pixels.reshape([pixels.shape[axis] for axis in keep])
    place = {"Y": 0, "X": 1}
    order = sorted(range(len(keep)), key=lambda axis: place.get(axes[keep[axis]], 2))
    pixels = pixels.transpose(order)
    if swap:
        pixels = pixels.swapaxes(0, 1)
    if mirror_x:
        pixels = pixels[:, ::-1]
    return pixels[::-1] if mirror_y else pixels
