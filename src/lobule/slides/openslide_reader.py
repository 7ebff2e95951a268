"""Slides that OpenSlide reads: SVS, NDPI, MRXS, SCN, BIF, SVSlide, VMS, CZI, DICOM, Philips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lobule.errors import SlideReadError, UnsupportedSlideError
from lobule.geometry import Box
from lobule.slides.levels import build_levels, read_clipped
from lobule.slides.resolution import judge_mpp, magnification, parse_number
from lobule.slides.slide import RgbImage, Slide, SlideProperties, listed
from lobule.slides.sniff import OF_NO_VENDOR, VENDOR_SUFFIXES
from lobule.slides.tiff_levels import SegmentCache, StoredLevel
from lobule.slides.tiff_pixels import UnsuitablePixels, plan_pixels
from lobule.slides.tiff_structure import ByteFile, is_tiff, read_tiff_structure

if TYPE_CHECKING:
    import openslide
    from PIL.Image import Image

NAME = "openslide"
READS_VENDORS = True

UNSUPPORTED_MARKS = (
    "Unsupported",
    "Unrecognized",
    "not supported",
    "No pyramid levels",
    "image flavor",
    "!=",
)
"""Words of OpenSlide's messages for slides that are whole but of a kind it cannot read."""

OPAQUE = 0xFF000000
"""The least number of four bytes whose last, alpha, is full, the last byte counting most."""

NOT_KNOWN = "not one of its formats"
XMP = 700
FIRST_NDPI_TAG = 65420
TEXT_TAGS = (270, 271, 272, 305)
"""ImageDescription, Make, Model, Software."""
MAKERS_MARKS = (
    "aperio", "leica", "philips", "dataobject", "medscan", "trestle", "ventana", "iscan", "hamamatsu",
)  # fmt: skip
"""One of these, XMP or tags as in NDPI stand in every TIFF that OpenSlide takes for a vendor's slide."""


def detect(path: Path, head: bytes) -> str | None:
    """None if OpenSlide knows the file and reads it rightly, else why it declines. Never raises."""
    if is_tiff(head) and path.suffix.lower() not in VENDOR_SUFFIXES:
        answer = _plain_tiff(path)
        if answer is not None:
            return answer
    import openslide

    try:
        vendor = openslide.OpenSlide.detect_format(path)
    except (openslide.OpenSlideError, OSError, ValueError) as error:
        return f"detection failed: {error}"
    if vendor is None:
        return NOT_KNOWN
    if vendor == "generic-tiff":
        # OpenSlide would turn gray, 16 bit and CMYK to RGB without a word, leave turned pictures on their side,
        # and take YCbCr for RGB where the tags say so; where it is right, our own reader is twice as fast
        return OF_NO_VENDOR
    return None


def _plain_tiff(path: Path) -> str | None:
    """What OpenSlide would say of a TIFF that bears no maker's mark, found without loading it; else None."""
    try:
        file = ByteFile(path)
        try:
            structure = read_tiff_structure(file)
        finally:
            file.close()
    except SlideReadError:
        return None
    for directory in structure.every():
        if any(tag == XMP or tag >= FIRST_NDPI_TAG for tag in (*directory.tags, *directory.lost)):
            return None
        if directory.lost & set(TEXT_TAGS):
            return None
        text = " ".join(directory.text(tag) for tag in TEXT_TAGS).lower()
        if any(mark in text for mark in MAKERS_MARKS):
            return None
    return OF_NO_VENDOR if structure.chain[0].is_tiled else NOT_KNOWN


def open(path: Path, head: bytes) -> Slide:
    """Opens the slide and reads its first and last pixel. Raises UnsupportedSlideError, SlideReadError."""
    return OpenSlideSlide(path)


class OpenSlideSlide(Slide):
    """A slide read through OpenSlide. Alpha (never scanned) is laid over the background color."""

    thread_safe = True

    def __init__(self, path: Path) -> None:
        import openslide

        self.path = path
        self._closed = False
        self._file: ByteFile | None = None
        try:
            self._handle: openslide.OpenSlide = openslide.OpenSlide(path)
        except openslide.OpenSlideUnsupportedFormatError as error:
            raise UnsupportedSlideError(path, f"OpenSlide does not know this file: {error}") from error
        except (openslide.OpenSlideError, OSError, ValueError) as error:
            if any(mark in str(error) for mark in UNSUPPORTED_MARKS):
                raise UnsupportedSlideError(path, f"OpenSlide cannot read this slide: {error}") from error
            raise SlideReadError(path, f"the slide is damaged, OpenSlide cannot open it: {error}") from error
        try:
            self._describe()
            width, height = self.size
            for corner in {(0, 0), (width - 1, height - 1)}:
                self.read_level(0, corner, (1, 1))
        except (SlideReadError, UnsupportedSlideError):
            self.close()
            raise

    def _describe(self) -> None:
        raw = self._read_properties()
        vendor = raw.get("openslide.vendor", "unknown")
        sizes = [(int(width), int(height)) for width, height in self._handle.level_dimensions]
        if not sizes or min(min(size) for size in sizes) < 1:
            raise UnsupportedSlideError(self.path, f"the {vendor} slide has an empty level: {sizes}")
        tiles: list[tuple[int, int] | None] = []
        for index in range(len(sizes)):
            width = raw.get(f"openslide.level[{index}].tile-width")
            height = raw.get(f"openslide.level[{index}].tile-height")
            tiles.append((int(width), int(height)) if width and height else None)
        self.levels, self._own_level = build_levels(sizes, tiles)
        self._own_downsample = [float(value) for value in self._handle.level_downsamples]
        self._find_stored_levels(vendor)
        power = magnification(raw.get("openslide.objective-power"))
        resolution = judge_mpp(
            raw.get("openslide.mpp-x", raw.get("aperio.MPP")),
            raw.get("openslide.mpp-y", raw.get("aperio.MPP")),
            "file",
            size=sizes[0],
            objective_power=power,
        )
        background, bounds = self._read_background(raw), self._read_bounds(raw, sizes[0])
        self.properties = SlideProperties(
            format=vendor,
            reader=NAME,
            mpp=resolution.mpp,
            mpp_source=resolution.source,
            mpp_problem=resolution.problem,
            objective_power=power,
            bounds=bounds,
            background=background,
            icc_profile=self._read_icc(),
            warnings=resolution.warnings,
            raw=raw,
        )

    def _read_properties(self) -> dict[str, str]:
        raw: dict[str, str] = {}
        try:
            for name in self._handle.properties:
                try:
                    raw[name] = self._handle.properties[name]
                except KeyError:  # a value that is no text, in a damaged file
                    continue
        except ValueError as error:
            raise SlideReadError(self.path, f"the slide's metadata are damaged: {error}") from error
        return raw

    def _read_background(self, raw: dict[str, str]) -> tuple[int, int, int]:
        color = raw.get("openslide.background-color", "FFFFFF")
        try:
            return int(color[0:2], 16), int(color[2:4], 16), int(color[4:6], 16)
        except ValueError:
            return 255, 255, 255

    def _read_bounds(self, raw: dict[str, str], size: tuple[int, int]) -> Box | None:
        numbers = [
            parse_number(raw.get(f"openslide.bounds-{name}")) for name in ("x", "y", "width", "height")
        ]
        x, y, width, height = numbers
        if x is None or y is None or width is None or height is None:
            return None
        box = Box(int(x), int(y), int(x + width), int(y + height)).clipped(*size)
        return box if box.width and box.height else None

    def _find_stored_levels(self, vendor: str) -> None:
        """Finds the Aperio levels that can be read from the TIFF directly: the same pixels in half the time.

        And always in their place: OpenSlide takes the corner of a region in level-0 pixels. Where its
        downsample is not whole (4443 to 2221 px: 2.0003), no level-0 pixel is the corner of the level's pixel,
        and it delivers the level shifted by up to a quarter of a pixel and blurred. JPEG 2000 in YCbCr and
        levels with tiles left out stay with OpenSlide.
        """
        self._stored: dict[int, StoredLevel] = {}
        self._cache = SegmentCache()
        if vendor != "aperio":
            return
        assert self.path is not None
        self._file = ByteFile(self.path)
        structure = read_tiff_structure(self._file)
        for index, level in enumerate(self.levels):
            for directory in structure.chain:
                if directory.size != level.size or not directory.is_tiled:
                    continue
                try:
                    plan = plan_pixels(directory, structure.byte_order)
                except UnsuitablePixels:
                    continue
                stored = StoredLevel(self._file, directory, plan)
                if plan.compression != 33003 and not stored.is_sparse:
                    self._stored[index] = stored
                break

    def _read_icc(self) -> bytes | None:
        import openslide
        from PIL.ImageCms import PyCMSError

        try:
            profile = self._handle.color_profile
        except (openslide.OpenSlideError, PyCMSError, OSError, ValueError):
            return None  # it is kept and never applied: a damaged one is none
        return None if profile is None else bytes(profile.tobytes())

    @property
    def seconds_in_file(self) -> float:
        """See Slide."""
        return 0.0 if self._file is None else self._file.seconds

    def read_level(self, level: int, origin: tuple[int, int], size: tuple[int, int]) -> RgbImage:
        if self._closed:
            raise SlideReadError(self.path, "the slide is closed")
        stored = self._stored.get(level)
        if stored is not None:
            background = self.properties.background
            return read_clipped(
                self.levels[level].size,
                origin,
                size,
                background,
                lambda corner, extent: stored.read(corner, extent, self._cache, background),
            )
        own = self._own_level[level]
        downsample = self._own_downsample[own]

        def read(corner: tuple[int, int], extent: tuple[int, int]) -> RgbImage:
            location = (round(corner[0] * downsample), round(corner[1] * downsample))
            return self._flatten(
                lambda: self._handle.read_region(location, own, extent),
                f"level {level} at {corner} could not be read",
            )

        return read_clipped(self.levels[level].size, origin, size, self.properties.background, read)

    def read_means(
        self, level: int, first: tuple[int, int], size: tuple[int, int], factor: tuple[int, int]
    ) -> RgbImage | None:
        if self._closed:
            raise SlideReadError(self.path, "the slide is closed")
        stored = self._stored.get(level)
        if stored is None:
            return None
        return stored.read_means(first, size, factor, self._cache, self.properties.background)

    def _flatten(self, fetch: Callable[[], Image], failure: str) -> RgbImage:
        import openslide
        from PIL.Image import DecompressionBombError

        try:
            image = fetch()
            rgba = np.asarray(image)
        except (
            openslide.OpenSlideError, OSError, ValueError, MemoryError, DecompressionBombError,
            KeyError,  # OpenSlide forgets its associated images once a read has failed
        ) as error:  # fmt: skip
            raise SlideReadError(self.path, f"{failure} (damaged or truncated file?): {error}") from error
        if rgba.view(np.dtype("<u4")).min(initial=OPAQUE) >= OPAQUE:
            # Pillow drops the fourth channel five times as fast as NumPy
            packed = np.frombuffer(image.tobytes("raw", "RGB"), np.uint8)
            rgb: RgbImage = packed.reshape(*rgba.shape[:2], 3).copy()
            return rgb
        weight = rgba[..., 3:].astype(np.float32) / 255.0
        color = np.asarray(self.properties.background, np.float32)
        laid: RgbImage = np.rint(rgba[..., :3] * weight + color * (1.0 - weight)).astype(np.uint8)
        return laid

    def associated_images(self) -> tuple[str, ...]:
        return () if self._closed else tuple(sorted(self._handle.associated_images))

    def read_associated(self, name: str) -> RgbImage:
        if name not in self.associated_images():
            raise KeyError(name)
        return self._flatten(
            lambda: self._handle.associated_images[name], f"the {name} image could not be read"
        )

    def files(self) -> tuple[Path, ...]:
        assert self.path is not None
        if self.properties.format == "mirax":
            folder = self.path.with_suffix("")
            if folder.is_dir():
                return (self.path, *(part for part in listed(folder) if part.is_file()))
        if self.properties.format == "hamamatsu" and self.path.suffix.lower() in (".vms", ".vmu"):
            # a text file that names pictures and maps beside it
            named = {value for key, value in self._handle.properties.items() if key.startswith("hamamatsu.")}
            beside = (path for path in listed(self.path.parent) if path.name in named and path.is_file())
            return (self.path, *(path for path in beside if path != self.path))
        if self.properties.format == "dicom":
            from lobule.slides.dicom_structure import read_dicom_header, siblings_of

            return (self.path, *(image.path for image in siblings_of(read_dicom_header(self.path))))
        return (self.path,)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._handle.close()
            if self._file is not None:
                self._file.close()
