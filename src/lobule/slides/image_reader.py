"""Plain pictures, a field of view each: PNG, JPEG, and what else Pillow reads safely."""

from __future__ import annotations

import struct
import warnings as python_warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lobule.errors import SlideReadError, UnsupportedSlideError
from lobule.slides.levels import build_levels, read_clipped
from lobule.slides.orientation import TURNS
from lobule.slides.resolution import Resolution, mpp_from_resolution_tag
from lobule.slides.slide import RgbImage, Slide, SlideProperties

if TYPE_CHECKING:
    from PIL.Image import Image

NAME = "image"
READS_VENDORS = False

LARGEST_PX = 64_000_000
"""A plain picture is held in memory whole: 192 MB, three times that while it is decoded."""

MAGIC = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"BM": "BMP",
}


def detect(path: Path, head: bytes) -> str | None:
    """None for a PNG, JPEG or BMP, else why it declines. Never raises."""
    return None if _kind(head) else "not a PNG, JPEG or BMP"


def _kind(head: bytes) -> str | None:
    return next((name for magic, name in MAGIC.items() if head.startswith(magic)), None)


def open(path: Path, head: bytes) -> Slide:
    """Decodes the whole picture. Raises UnsupportedSlideError, SlideReadError."""
    kind = _kind(head)
    assert kind is not None
    return ImageSlide(path, kind)


class ImageSlide(Slide):
    """A picture of one level, held in memory."""

    thread_safe = True

    def __init__(self, path: Path, kind: str) -> None:
        self.path = path
        notes: list[str] = []
        pixels, resolution, icc = _decode(path, kind, notes)
        self._pixels: RgbImage | None = pixels
        self.levels, _ = build_levels([(pixels.shape[1], pixels.shape[0])])
        self.properties = SlideProperties(
            format=kind.lower(),
            reader=NAME,
            mpp=resolution.mpp,
            mpp_source=resolution.source,
            mpp_problem=resolution.problem,
            icc_profile=icc,
            warnings=(*notes, *resolution.warnings),
        )

    @property
    def held_bytes(self) -> int:
        return 0 if self._pixels is None else self._pixels.nbytes

    def read_level(self, level: int, origin: tuple[int, int], size: tuple[int, int]) -> RgbImage:
        pixels = self._pixels
        if pixels is None:
            raise SlideReadError(self.path, "the slide is closed")

        def read(corner: tuple[int, int], extent: tuple[int, int]) -> RgbImage:
            (x, y), (width, height) = corner, extent
            return pixels[y : y + height, x : x + width].copy()

        return read_clipped(self.levels[level].size, origin, size, self.properties.background, read)

    def close(self) -> None:
        self._pixels = None


def _decode(path: Path, kind: str, notes: list[str]) -> tuple[RgbImage, Resolution, bytes | None]:
    """Pixels (H, W, 3) uint8 upright, resolution, ICC profile. Appends to ``notes`` what was changed."""
    import PIL.Image

    try:
        with python_warnings.catch_warnings():
            python_warnings.simplefilter("ignore")  # Pillow's own size limit is replaced by ours below
            with PIL.Image.open(path, formats=[kind]) as image:
                width, height = image.size
                if width * height > LARGEST_PX:
                    raise UnsupportedSlideError(
                        path,
                        f"a {kind} of {width} x {height} px is too large to hold in memory; "
                        "convert it to a tiled pyramidal TIFF",
                    )
                frames = int(getattr(image, "n_frames", 1))
                if frames > 1:
                    notes.append(f"only the first of {frames} pictures in the file is used")
                turned = _orientation(image, notes)
                resolution = _resolution(image, kind, sideways=turned in (5, 6, 7, 8))
                icc = image.info.get("icc_profile")
                image.load()
                pixels = _to_rgb(image, path, notes)
                if turned in TURNS and turned != 1:
                    notes.append(f"the picture was turned upright (orientation tag {turned})")
                    pixels = np.ascontiguousarray(TURNS[turned].apply(pixels))
    except UnsupportedSlideError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError, IndexError, TypeError) as error:
        raise SlideReadError(path, f"the {kind} is damaged or cut short: {error}") from error
    except PIL.Image.DecompressionBombError as error:
        raise UnsupportedSlideError(path, f"the {kind} is too large: {error}") from error
    return pixels, resolution, bytes(icc) if icc else None


def _orientation(image: Image, notes: list[str]) -> int:
    """The EXIF tag of that name; 1 (upright) where there is none or it cannot be read."""
    try:
        return int(image.getexif().get(0x0112, 1))
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, AttributeError, struct.error):
        notes.append("its EXIF data are damaged; it is taken to stand upright")
        return 1


def _resolution(image: Image, kind: str, *, sideways: bool) -> Resolution:
    if kind == "JPEG":
        density = image.info.get("jfif_density")
        unit = {1: "inch", 2: "centimeter"}.get(image.info.get("jfif_unit", 0))
        if density is None:
            return mpp_from_resolution_tag(None, None, None)
    else:
        density, unit = image.info.get("dpi"), "inch"
        if density is None:
            return mpp_from_resolution_tag(None, None, None)
    x, y = float(density[0]), float(density[1])
    if sideways:
        x, y = y, x
    size = (image.height, image.width) if sideways else image.size
    return mpp_from_resolution_tag(x, y, unit, size=size)


def _to_rgb(image: Image, path: Path, notes: list[str]) -> RgbImage:
    import PIL.Image

    mode = image.mode
    if mode == "RGB":
        return np.asarray(image)
    if mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        if rgba.getchannel("A").getextrema() == (255, 255):
            if mode in ("LA", "La"):
                notes.append("the picture is gray, not H&E in color")
            return np.asarray(rgba.convert("RGB"))
        white = PIL.Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        notes.append("transparent parts are shown white")
        return np.asarray(PIL.Image.alpha_composite(white, rgba).convert("RGB"))
    if mode in ("P", "CMYK", "YCbCr"):
        notes.append(f"colors were converted from {mode} to RGB")
        return np.asarray(image.convert("RGB"))
    if mode == "L":
        notes.append("the picture is gray, not H&E in color")
        return np.asarray(image.convert("RGB"))
    if mode in ("I;16", "I;16B", "I;16L"):
        notes.append("the picture is gray, not H&E in color; 16 bit were scaled to 8")
        gray = (np.asarray(image).astype(np.uint32) * 255 + 32767) // 65535
        return np.repeat(gray.astype(np.uint8)[..., None], 3, axis=2)
    raise UnsupportedSlideError(
        path, f"pixels of mode {mode} are not an RGB picture (a mask or a measurement?)"
    )
