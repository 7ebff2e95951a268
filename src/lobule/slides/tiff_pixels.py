"""What kind of picture a TIFF directory holds, whether it can be H&E, and its way to RGB."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lobule.slides.slide import RgbImage
from lobule.slides.tiff_structure import Directory

__all__ = ["COMPRESSIONS", "JPEG_2000", "PixelPlan", "UnsuitablePixels", "plan_pixels", "to_rgb"]

JPEG_2000 = (33003, 33004, 33005, 34712)
COMPRESSIONS = {
    1: "none", 5: "LZW", 7: "JPEG", 8: "deflate", 32773: "PackBits", 32946: "deflate",
    **dict.fromkeys(JPEG_2000, "JPEG 2000"), 34925: "LZMA", 50000: "Zstandard", 50001: "WebP",
}  # fmt: skip

REFUSED_COMPRESSIONS = {
    2: "CCITT fax", 3: "CCITT fax", 4: "CCITT fax", 6: "old-style JPEG", 34887: "LERC", 52546: "JPEG XL",
}  # fmt: skip

LARGEST_SEGMENT_BYTES = 128 * 1024 * 1024
"""A tile or strip is decoded whole; one that claims more than this is not."""


class UnsuitablePixels(Exception):
    """The picture cannot be taken for H&E in RGB; the text says why."""


@dataclass(frozen=True, slots=True)
class PixelPlan:
    """How one directory stores its pixels. ``across`` x ``down`` segments for each of ``planes``.

    ``samples`` are per pixel, in one segment if ``planes`` is 1; ``dtype`` has the file's byte order.
    """

    width: int
    height: int
    segment_width: int
    segment_height: int
    tiled: bool
    across: int
    down: int
    planes: int
    samples: int
    dtype: np.dtype[np.uint8] | np.dtype[np.uint16]
    compression: int
    predictor: int
    photometric: int
    alpha: str | None
    notes: tuple[str, ...]

    @property
    def segment_samples(self) -> int:
        """Samples per pixel in one segment."""
        return 1 if self.planes > 1 else self.samples

    @property
    def segments(self) -> int:
        return self.across * self.down * self.planes


def plan_pixels(directory: Directory, byte_order: str) -> PixelPlan:
    """Reads the layout from the tags. Raises UnsuitablePixels if it is no color picture of 8 or 16 bit."""
    width, height = directory.size
    if width < 1 or height < 1:
        raise UnsuitablePixels(f"the picture is {width} x {height} px")
    if directory.integer(32997, 1) > 1:
        raise UnsuitablePixels(f"the picture has {directory.integer(32997, 1)} slices in depth")
    samples = directory.integer(277, 1)
    photometric = directory.integer(262, -1)
    compression = directory.integer(259, 1)
    notes: list[str] = []
    dtype = _dtype(directory, byte_order, notes)
    if compression not in COMPRESSIONS:
        name = REFUSED_COMPRESSIONS.get(compression, "unknown")
        raise UnsuitablePixels(f"compression {compression} ({name}) is not supported")
    if directory.integer(266, 1) == 2 and compression not in (7, *JPEG_2000, 50001):
        raise UnsuitablePixels("its bits are stored in reverse (FillOrder 2); convert it to a plain TIFF")
    alpha = _check_photometric(directory, photometric, samples, compression, dtype, notes)
    predictor = directory.integer(317, 1)
    if predictor not in (1, 2):
        raise UnsuitablePixels(f"predictor {predictor} is not supported")
    tiled = directory.is_tiled
    if tiled:
        segment_width, segment_height = directory.integer(322, 0), directory.integer(323, 0)
    else:
        segment_width, segment_height = width, min(directory.integer(278, height), height)
    if segment_width < 1 or segment_height < 1:
        raise UnsuitablePixels(f"its tiles are {segment_width} x {segment_height} px")
    planes = samples if directory.integer(284, 1) == 2 and samples > 1 else 1
    if planes > 1 and compression not in (1, 5, 8, 32773, 32946, 34925, 50000):
        raise UnsuitablePixels(f"planes stored apart with compression {COMPRESSIONS[compression]}")
    segment_bytes = segment_width * segment_height * (1 if planes > 1 else samples) * dtype.itemsize
    if segment_bytes > LARGEST_SEGMENT_BYTES and (tiled or compression != 1):
        raise UnsuitablePixels(
            f"a single {'tile' if tiled else 'strip'} claims {segment_bytes / 1e6:.0f} MB; convert it to a "
            "tiled pyramidal TIFF"
        )
    return PixelPlan(
        width=width,
        height=height,
        segment_width=segment_width,
        segment_height=segment_height,
        tiled=tiled,
        across=math.ceil(width / segment_width),
        down=math.ceil(height / segment_height),
        planes=planes,
        samples=samples,
        dtype=dtype,
        compression=compression,
        predictor=predictor,
        photometric=photometric,
        alpha=alpha,
        notes=tuple(notes),
    )


def _dtype(
    directory: Directory, byte_order: str, notes: list[str]
) -> np.dtype[np.uint8] | np.dtype[np.uint16]:
    stated = directory.numbers(258)
    bits = {1} if stated is None or stated.dtype.kind != "u" else {int(value) for value in stated}
    formats = directory.numbers(339)
    kinds = {1} if formats is None or formats.dtype.kind != "u" else {int(value) for value in formats}
    if kinds == {3}:
        raise UnsuitablePixels(f"its pixels are floating-point numbers of {max(bits)} bits, a measurement")
    if kinds - {1, 4}:
        raise UnsuitablePixels("its pixels are signed or complex numbers, a measurement")
    if bits == {1}:
        raise UnsuitablePixels("its pixels have 1 bit: a mask or a fax, not a slide")
    if bits == {16}:
        notes.append("16 bit per channel were scaled to 8")
        return np.dtype(np.uint16).newbyteorder("<" if byte_order == "<" else ">")
    if bits != {8}:
        raise UnsuitablePixels(f"its pixels have {'/'.join(map(str, sorted(bits)))} bits, not 8 or 16")
    return np.dtype(np.uint8)


def _check_photometric(
    directory: Directory,
    photometric: int,
    samples: int,
    compression: int,
    dtype: np.dtype[np.uint8] | np.dtype[np.uint16],
    notes: list[str],
) -> str | None:
    """Refuses what is not color or gray; returns how a fourth sample is alpha: straight, premultiplied."""
    names = {
        4: "a mask",
        5: "CMYK, made for print",
        8: "CIELab",
        9: "CIELab",
        10: "CIELab",
        32803: "raw sensor",
    }
    if photometric in names:
        raise UnsuitablePixels(f"its colors are {names[photometric]}, not RGB")
    if photometric in (0, 1):
        if samples != 1:
            raise UnsuitablePixels(f"it has {samples} gray channels, not red, green and blue")
        notes.append("the picture is gray, not H&E in color")
        return None
    if photometric == 3:
        if samples != 1 or dtype.itemsize != 1:
            raise UnsuitablePixels("its palette has an unknown layout")
        palette = directory.numbers(320)
        if palette is None or palette.size != 768 or palette.dtype.kind != "u":
            raise UnsuitablePixels("its palette is missing")
        notes.append("colors were converted from a palette to RGB")
        return None
    if photometric == 6:
        if samples != 3 or compression not in (7, *JPEG_2000, 50001):
            raise UnsuitablePixels("its YCbCr colors are not compressed as JPEG")
        return None
    if photometric != 2:
        raise UnsuitablePixels(f"its color kind {photometric} is unknown")
    if samples not in (3, 4):
        raise UnsuitablePixels(f"it has {samples} channels, not red, green and blue")
    if samples == 3:
        return None
    if compression == 7:
        raise UnsuitablePixels("its JPEG has four channels")
    if directory.integer(338, 0) == 1:
        notes.append("transparent parts are shown white")
        return "premultiplied"
    if directory.integer(338, 0) == 2:
        notes.append("transparent parts are shown white")
        return "straight"
    notes.append("a fourth channel of unknown meaning is left out")
    return None


def to_rgb(pixels: NDArray[np.generic], plan: PixelPlan, palette: NDArray[np.generic] | None) -> RgbImage:
    """Stored samples (H, W, samples) to (H, W, 3) uint8; themselves where they are that already."""
    if plan.samples == 3 and pixels.dtype == np.uint8 and plan.photometric in (2, 6):
        colors: RgbImage = pixels.view(np.uint8)
        return colors
    if pixels.dtype != np.uint8:
        scaled = (pixels.astype(np.uint32) * 255 + 32767) // 65535
        pixels = scaled.astype(np.uint8)
    if plan.photometric == 3:
        assert palette is not None
        # some writers fill the 16 bits of a palette with 8: libtiff, too, tells these by their size
        full = 257 if palette.max() > 255 else 1
        table = (palette.astype(np.uint32).reshape(3, 256) // full).astype(np.uint8)
        return np.ascontiguousarray(table[:, pixels[..., 0].astype(np.intp)].transpose(1, 2, 0))
    if plan.samples == 1:
        gray = pixels.astype(np.uint8)
        return np.repeat(255 - gray if plan.photometric == 0 else gray, 3, axis=2)
    rgb: RgbImage = pixels[..., :3].astype(np.uint8)
    if plan.alpha is not None:
        cover = pixels[..., 3:4].astype(np.float32) / 255.0
        share = rgb.astype(np.float32) if plan.alpha == "premultiplied" else rgb * cover
        rgb = np.rint(share + 255.0 * (1.0 - cover)).clip(0, 255).astype(np.uint8)
    return rgb
