"""One tile or strip of a TIFF, from bytes to samples."""

from __future__ import annotations

import zlib
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lobule.slides.jpeg_frames import DecodeError, decode_jpeg
from lobule.slides.slide import RgbImage
from lobule.slides.tiff_pixels import JPEG_2000, PixelPlan

__all__ = ["decode_segment"]

DIFFERENCED = (5, 8, 32946, 34925, 50000)
"""Compressions whose pixels may be stored as differences; under all others libtiff ignores the predictor tag."""


def decode_segment(
    data: bytes, plan: PixelPlan, rows: int, tables: bytes | None, out: RgbImage | None = None
) -> NDArray[np.generic]:
    """Samples (rows, segment_width, segment_samples) in native byte order.

    ``rows``: the segment's height; the last strip is lower than the others. ``tables``: shared JPEG tables.
    ``out``: memory that may be used, and then is returned, where the segment is a JPEG of that very size.
    Raises DecodeError where the bytes are not what the tags say; never takes more memory than these allow.
    """
    width, samples = plan.segment_width, plan.segment_samples
    if plan.compression in (7, *JPEG_2000, 50001):
        pixels = _decode_picture(data, plan, rows, tables, out)
        if pixels.shape[0] < rows or pixels.shape[1] < width or pixels.shape[2] != samples:
            raise DecodeError(f"a tile holds {pixels.shape} where {(rows, width, samples)} belong")
        return pixels if pixels.shape[:2] == (rows, width) else pixels[:rows, :width]
    expected = rows * width * samples * plan.dtype.itemsize
    raw = _decompress(data, plan.compression, expected)
    if len(raw) < expected:
        raise DecodeError(f"a tile or strip holds {len(raw)} bytes where {expected} belong")
    stored = np.frombuffer(raw, plan.dtype, count=rows * width * samples).reshape(rows, width, samples)
    native = stored.astype(stored.dtype.newbyteorder("="))
    if plan.predictor == 2 and plan.compression in DIFFERENCED:
        native = np.cumsum(native, axis=1, dtype=native.dtype)
    return native


def _decompress(data: bytes, compression: int, expected: int) -> bytes:
    import imagecodecs

    try:
        if compression == 1:
            return data
        if compression in (8, 32946):
            return zlib.decompressobj().decompress(data, expected)
        if compression == 5:
            return bytes(imagecodecs.lzw_decode(data, out=expected))
        if compression == 32773:
            return bytes(imagecodecs.packbits_decode(data, out=expected))
        if compression == 50000:
            return bytes(imagecodecs.zstd_decode(data, out=expected))
        return bytes(imagecodecs.lzma_decode(data, out=expected))
    except (RuntimeError, ValueError, TypeError, MemoryError, zlib.error) as error:
        raise DecodeError(f"a tile or strip cannot be decompressed: {error}") from error


def _decode_picture(
    data: bytes, plan: PixelPlan, rows: int, tables: bytes | None, out: RgbImage | None
) -> NDArray[np.generic]:
    import imagecodecs

    # encoders round the last tile up to whole JPEG blocks
    largest = (plan.segment_width + 63, max(rows, plan.segment_height) + 63)
    if plan.compression == 7:
        declared: Literal["RGB", "YCBCR"] = "YCBCR" if plan.photometric == 6 else "RGB"
        return decode_jpeg(data, declared=declared, largest=largest, tables=tables, out=out)
    width, height = _picture_size(data, plan.compression)
    if width > largest[0] or height > largest[1]:
        raise DecodeError(f"a tile claims {width} x {height} px where {largest[0]} x {largest[1]} belong")
    try:
        if plan.compression == 50001:
            pixels = imagecodecs.webp_decode(data, hasalpha=plan.samples == 4)
        else:
            pixels = imagecodecs.jpeg2k_decode(data)
    except (RuntimeError, ValueError, TypeError, MemoryError) as error:
        raise DecodeError(f"a tile cannot be decoded: {error}") from error
    decoded: NDArray[np.generic] = np.asarray(pixels)
    if decoded.dtype.itemsize != plan.dtype.itemsize:
        raise DecodeError(f"a tile holds {decoded.dtype} samples")
    if decoded.ndim == 2:
        decoded = decoded[..., None]
    # Aperio's 33003 says RGB and is YCbCr: it is read through OpenSlide; of others the tag is right
    if plan.photometric == 6 and plan.compression in JPEG_2000:
        decoded = _ycbcr_to_rgb(decoded)
    return decoded


def _picture_size(data: bytes, compression: int) -> tuple[int, int]:
    """(width, height) that a WebP or JPEG 2000 stream claims. Raises DecodeError."""
    if compression == 50001:
        kind = data[12:16]
        if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
            raise DecodeError("a WebP tile does not begin like one")
        if kind == b"VP8X":
            return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
        if kind == b"VP8L":
            packed = int.from_bytes(data[21:25], "little")
            return 1 + (packed & 0x3FFF), 1 + ((packed >> 14) & 0x3FFF)
        return (
            int.from_bytes(data[26:28], "little") & 0x3FFF,
            int.from_bytes(data[28:30], "little") & 0x3FFF,
        )
    start = data.find(b"\xff\x4f\xff\x51", 0, 4096)  # codestream and its size marker, boxed or bare
    if start < 0 or len(data) < start + 24:
        raise DecodeError("a JPEG 2000 tile does not begin like one")
    x1, y1, x0, y0 = (int.from_bytes(data[start + at : start + at + 4], "big") for at in (8, 12, 16, 20))
    return x1 - x0, y1 - y0


def _ycbcr_to_rgb(pixels: NDArray[np.generic]) -> NDArray[np.generic]:
    """Full-range BT.601, as in JPEG (JFIF 1.02, section 7)."""
    if pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise DecodeError("a YCbCr tile has not three channels of 8 bits")
    y, cb, cr = (pixels[..., index].astype(np.float32) for index in range(3))
    cb, cr = cb - 128.0, cr - 128.0
    rgb = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=2)
    converted: NDArray[np.generic] = np.rint(rgb).clip(0, 255).astype(np.uint8)
    return converted
