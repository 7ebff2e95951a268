"""DICOM whole slides that OpenSlide would read wrongly or not at all; the others are left to it.

The case that matters: a file says its JPEG frames are RGB while they are YCbCr, and OpenSlide, which
believes the file, paints the tissue green. Here every frame is decoded in the color space of its own markers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from lobule.errors import SlideReadError, UnsupportedSlideError
from lobule.slides.dicom_structure import (
    WHOLE_SLIDE,
    DicomImage,
    is_dicom,
    locate_frames,
    read_dicom_header,
    siblings_of,
)
from lobule.slides.jpeg_frames import DecodeError, decode_jpeg, read_jpeg_header
from lobule.slides.levels import build_levels, read_clipped
from lobule.slides.resolution import judge_mpp, magnification, parse_number
from lobule.slides.reused_memory import borrow
from lobule.slides.slide import RgbImage, Slide, SlideProperties
from lobule.slides.tiff_levels import SegmentCache
from lobule.slides.tiff_structure import ByteFile
from lobule.slides.tile_assembly import FetchTile, Use, means_of_tiles, pixels_of_tiles

NAME = "dicom"
READS_VENDORS = True

JPEG = "1.2.840.10008.1.2.4.50"
JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
OPENSLIDE_READS = (
    "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", JPEG, "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91",
)  # fmt: skip
LARGEST_FRAME_PX = 64_000_000


def detect(path: Path, head: bytes) -> str | None:
    """None for a DICOM file, else why it declines. Never raises."""
    return None if is_dicom(head) else "not a DICOM file"


def open(path: Path, head: bytes) -> Slide | None:
    """The slide that the file's series is, or None where OpenSlide reads it as well or better.

    Raises UnsupportedSlideError for what can be no H&E slide, SlideReadError for damage.
    """
    named = read_dicom_header(path)
    if named.sop_class != WHOLE_SLIDE:
        raise UnsupportedSlideError(path, f"this is a DICOM object of another kind: {named.kind}")
    if not named.flavor:
        raise UnsupportedSlideError(
            path,
            "the DICOM file lacks metadata: no ImageType says what it shows and in which order",
        )
    volumes = [image for image in (named, *siblings_of(named)) if image.flavor == "VOLUME"]
    if not volumes:
        raise UnsupportedSlideError(
            path, f"the DICOM file holds only the {named.flavor.lower()} image, no level of the slide"
        )
    volumes.sort(key=lambda image: -image.matrix[0] * image.matrix[1])
    _refuse_unsuitable(path, volumes)
    base = volumes[0]
    if base.transfer_syntax == JPEG and _mislabeled(base):
        return DicomSlide(path, volumes, ("the file misnames its colors; the JPEG frames' own were used",))
    if base.transfer_syntax in JPEG_LS:
        return DicomSlide(path, volumes, ())
    if base.transfer_syntax not in OPENSLIDE_READS:
        raise UnsupportedSlideError(path, f"DICOM transfer syntax {base.transfer_syntax} is not supported")
    return None


def _refuse_unsuitable(path: Path, volumes: list[DicomImage]) -> None:
    for image in volumes:
        if 0 in (*image.matrix, *image.frame) or image.frames < 1:
            raise UnsupportedSlideError(path, f"the DICOM image is {image.matrix[0]} x {image.matrix[1]} px")
        if image.samples != 3 or image.photometric.startswith("MONOCHROME"):
            raise UnsupportedSlideError(
                path,
                f"the DICOM pixels are {image.photometric or 'of unknown color'} of {image.bits} bits and "
                f"{image.optical_paths} optical path(s) (fluorescence?), not an H&E picture in RGB",
            )
        if image.bits != 8:
            raise UnsupportedSlideError(path, f"the DICOM pixels have {image.bits} bits, not 8")
        if image.frame[0] * image.frame[1] > LARGEST_FRAME_PX:
            raise UnsupportedSlideError(path, f"a DICOM frame claims {image.frame[0]} x {image.frame[1]} px")


def _mislabeled(image: DicomImage) -> bool:
    """Whether the first frame's own markers contradict what the header says of its colors."""
    file = ByteFile(image.path)
    try:
        offset, count = locate_frames(file, image)[0]
        header = read_jpeg_header(file.read(offset, count))
    except DecodeError as error:
        raise SlideReadError(image.path, f"the first frame: {error}") from error
    finally:
        file.close()
    declared = _declared(image)
    return len(header.component_ids) == 3 and header.color_space(declared) != declared


def _declared(image: DicomImage) -> Literal["RGB", "YCBCR"]:
    return "YCBCR" if image.photometric.startswith("YBR") else "RGB"


class DicomSlide(Slide):
    """A tiled DICOM slide whose frames lie in rows, left to right, top to bottom (TILED_FULL)."""

    thread_safe = True

    def __init__(self, path: Path, volumes: list[DicomImage], notes: tuple[str, ...]) -> None:
        self.path = path
        self._cache = SegmentCache()
        self._closed = False
        self._files: list[ByteFile] = []
        try:
            self._describe(volumes, notes)
            width, height = self.size
            for corner in {(0, 0), (width - 1, height - 1)}:
                self.read_level(0, corner, (1, 1))
        except (SlideReadError, UnsupportedSlideError):
            self.close()
            raise

    def _describe(self, volumes: list[DicomImage], notes: tuple[str, ...]) -> None:
        for image in volumes:
            across, down = image.grid
            if image.organization not in ("", "TILED_FULL") or image.frames != across * down:
                raise UnsupportedSlideError(
                    self.path,
                    f"{image.path.name} has {image.frames} frames ({image.organization or 'order unknown'}) "
                    f"where {across} x {down} make up its {image.matrix[0]} x {image.matrix[1]} px",
                )
        self.levels, kept = build_levels([v.matrix for v in volumes], [v.frame for v in volumes])
        self._images = [volumes[index] for index in kept]
        self._frames: list[list[tuple[int, int]]] = []
        for image in self._images:
            self._files.append(ByteFile(image.path))
            self._frames.append(locate_frames(self._files[-1], image))
        base = self._images[0]
        x, y = (parse_number(value) for value in base.spacing_mm)
        power = magnification(base.objective_power)
        resolution = judge_mpp(
            None if x is None else x * 1000.0,
            None if y is None else y * 1000.0,
            "file",
            size=base.matrix,
            objective_power=power,
        )
        self.properties = SlideProperties(
            format="dicom",
            reader=NAME,
            mpp=resolution.mpp,
            mpp_source=resolution.source,
            mpp_problem=resolution.problem,
            objective_power=power,
            icc_profile=base.icc_profile,
            warnings=(*notes, *resolution.warnings),
            raw={
                "dicom.SeriesInstanceUID": base.series,
                "dicom.TransferSyntaxUID": base.transfer_syntax,
                "dicom.PhotometricInterpretation": base.photometric,
            },
        )

    def read_level(self, level: int, origin: tuple[int, int], size: tuple[int, int]) -> RgbImage:
        if self._closed:
            raise SlideReadError(self.path, "the slide is closed")
        image = self._images[level]

        def read(corner: tuple[int, int], extent: tuple[int, int]) -> RgbImage:
            return pixels_of_tiles(self._fetch(level), image.matrix, image.frame, corner, extent)

        return read_clipped(self.levels[level].size, origin, size, self.properties.background, read)

    def read_means(
        self, level: int, first: tuple[int, int], size: tuple[int, int], factor: tuple[int, int]
    ) -> RgbImage | None:
        if self._closed:
            raise SlideReadError(self.path, "the slide is closed")
        image = self._images[level]
        return means_of_tiles(
            self._fetch(level), image.matrix, image.frame, first, size, factor, self.properties.background
        )

    def _fetch(self, level: int) -> FetchTile:
        across = self._images[level].grid[0]
        return lambda row, column, use: self._frame(level, row * across + column, use)

    def _frame(self, level: int, index: int, use: Use) -> RgbImage:
        found = self._cache.find((level, index))
        if found is not None:
            return found.copy() if use == "result" else found
        image = self._images[level]
        width, height = image.frame
        data = self._files[level].read(*self._frames[level][index])
        try:
            frame = _decode(data, image, borrow("tile", (height, width, 3)) if use == "whole" else None)
        except DecodeError as error:
            raise SlideReadError(image.path, f"frame {index + 1}: {error}") from error
        if frame.shape[0] < height or frame.shape[1] < width or frame.shape[2] != 3:
            raise SlideReadError(
                image.path, f"frame {index + 1} holds {frame.shape} where {(height, width, 3)} belong"
            )
        if use == "part":
            frame.flags.writeable = False
            self._cache.keep((level, index), frame)
        return frame

    def files(self) -> tuple[Path, ...]:
        assert self.path is not None
        others = sorted({image.path for image in self._images} - {self.path})
        return (self.path, *others)

    def close(self) -> None:
        self._closed = True
        self._cache.clear()
        for file in self._files:
            file.close()


def _decode(data: bytes, image: DicomImage, out: RgbImage | None) -> RgbImage:
    if image.transfer_syntax == JPEG:
        return decode_jpeg(data, declared=_declared(image), largest=image.frame, out=out)
    import imagecodecs

    try:
        pixels = np.asarray(imagecodecs.jpegls_decode(data))
    except (RuntimeError, ValueError, TypeError, MemoryError) as error:
        raise DecodeError(f"a JPEG-LS frame cannot be decoded: {error}") from error
    if pixels.dtype != np.uint8 or pixels.ndim != 3:
        raise DecodeError(f"a JPEG-LS frame holds {pixels.shape} {pixels.dtype}")
    decoded: RgbImage = pixels
    return decoded
