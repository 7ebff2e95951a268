"""JPEG pictures inside slides: what their markers say, and decoding them in their own color space."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from lobule.slides.reused_memory import empty_pixels
from lobule.slides.slide import RgbImage

__all__ = ["DecodeError", "JpegHeader", "decode_jpeg", "read_jpeg_header"]

LONGEST_HEAD_BYTES = 2048


class DecodeError(Exception):
    """Compressed pixels cannot be decoded; the reader turns it into a SlideReadError with its path."""


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """What stands before the pixels of a JPEG. ``adobe_transform`` None: no Adobe marker."""

    width: int
    height: int
    bits: int
    component_ids: tuple[int, ...]
    subsampled: bool
    jfif: bool
    adobe_transform: int | None

    def color_space(self, declared: Literal["RGB", "YCBCR"]) -> Literal["RGB", "YCBCR"]:
        """The space of a three-component picture: its own markers, where it has any, else as ``declared``.

        JFIF is YCbCr by definition; Adobe states its transform; components named R, G, B speak for
        themselves; and nobody stores fewer greens than reds, so a subsampled picture is YCbCr.
        """
        if self.adobe_transform is not None:
            return "YCBCR" if self.adobe_transform == 1 else "RGB"
        if self.jfif:
            return "YCBCR"
        if self.component_ids == tuple(b"RGB"):
            return "RGB"
        return "YCBCR" if self.subsampled else declared


def read_jpeg_header(data: bytes) -> JpegHeader:
    """Walks the markers up to the frame header. Raises DecodeError."""
    if data[:2] != b"\xff\xd8":
        raise DecodeError("a JPEG does not begin like one")
    jfif, adobe = False, None
    place = 2
    while place + 4 <= len(data):
        if data[place] != 0xFF:
            raise DecodeError("a JPEG's markers are damaged")
        marker = data[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        if 0xD0 <= marker <= 0xD8 or marker == 0x01:
            place += 2
            continue
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        body = data[place + 4 : place + 2 + length]
        if length < 2 or len(body) != length - 2:
            raise DecodeError("a JPEG is cut short")
        if marker == 0xE0 and body[:5] == b"JFIF\0":
            jfif = True
        elif marker == 0xEE and body[:5] == b"Adobe" and len(body) >= 12:
            adobe = body[11]
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if len(body) < 6 or len(body) < 6 + 3 * body[5]:
                raise DecodeError("a JPEG's frame header is cut short")
            parts = [body[6 + 3 * index : 9 + 3 * index] for index in range(body[5])]
            return JpegHeader(
                width=int.from_bytes(body[3:5], "big"),
                height=int.from_bytes(body[1:3], "big"),
                bits=body[0],
                component_ids=tuple(part[0] for part in parts),
                subsampled=len({part[1] for part in parts}) > 1,
                jfif=jfif,
                adobe_transform=adobe,
            )
        elif marker in (0xD9, 0xDA):
            break
        place += 2 + length
    raise DecodeError("a JPEG has no frame header")


@lru_cache(maxsize=32)
def _header_that_begins(head: bytes) -> JpegHeader:
    return read_jpeg_header(head)


def _header(data: bytes) -> JpegHeader:
    """As `read_jpeg_header`, at once where this head was met before: the tiles of a slide share theirs."""
    scan = data.find(b"\xff\xda", 0, LONGEST_HEAD_BYTES)
    if scan >= 0:
        try:
            return _header_that_begins(data[: scan + 2])
        except DecodeError:
            pass  # what looks like the first scan may lie inside a marker before it
    return read_jpeg_header(data)


def decode_jpeg(
    data: bytes,
    *,
    declared: Literal["RGB", "YCBCR"],
    largest: tuple[int, int],
    tables: bytes | None = None,
    out: RgbImage | None = None,
) -> RgbImage:
    """One baseline JPEG as (H, W, 3) or, of one component, (H, W, 1) uint8; `out` itself where it fits.

    ``out``: (H, W, 3) uint8, C-contiguous; for another shape, and for gray, a new array is returned.
    ``declared`` is the container's word for the color space, heeded where the picture itself has none.
    ``largest`` (width, height): a picture that claims more is refused before memory is taken. ``tables``: the
    TIFF's shared tables. Raises DecodeError.
    """
    import imagecodecs

    header = _header(data)
    if header.width > largest[0] or header.height > largest[1] or 0 in (header.width, header.height):
        raise DecodeError(
            f"a JPEG claims {header.width} x {header.height} px where {largest[0]} x {largest[1]} belong"
        )
    if header.bits != 8 or len(header.component_ids) not in (1, 3):
        raise DecodeError(f"a JPEG has {len(header.component_ids)} components of {header.bits} bits")
    gray = len(header.component_ids) == 1
    if gray:
        out = None
    elif out is None or out.shape != (header.height, header.width, 3):
        out = empty_pixels(header.height, header.width)
    try:
        pixels = imagecodecs.jpeg8_decode(
            data,
            tables=tables,
            colorspace="GRAYSCALE" if gray else header.color_space(declared),
            outcolorspace="GRAYSCALE" if gray else "RGB",
            out=out,
        )
    except (RuntimeError, ValueError, TypeError, MemoryError) as error:
        raise DecodeError(f"a JPEG cannot be decoded: {error}") from error
    decoded: RgbImage = np.asarray(pixels, np.uint8)
    return decoded[..., None] if decoded.ndim == 2 else decoded
