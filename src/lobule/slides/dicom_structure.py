"""What DICOM files say of themselves: one header each, and where the frames of one lie."""

from __future__ import annotations

import logging
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lobule.errors import SlideReadError
from lobule.slides.slide import listed
from lobule.slides.tiff_structure import ByteFile

__all__ = ["DicomImage", "is_dicom", "locate_frames", "read_dicom_header", "siblings_of"]

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
MOST_FILES = 100_000
DEFLATED = "1.2.840.10008.1.2.1.99"


def is_dicom(head: bytes) -> bool:
    """Whether the file has DICOM's preamble and mark (PS3.10)."""
    return head[128:132] == b"DICM"


@dataclass(frozen=True, slots=True)
class DicomImage:
    """The header of one file, values as stated; 0, "" or None where absent."""

    path: Path
    kind: str
    sop_class: str
    series: str
    flavor: str
    transfer_syntax: str
    photometric: str
    samples: int
    bits: int
    matrix: tuple[int, int]
    frame: tuple[int, int]
    frames: int
    organization: str
    optical_paths: int
    focal_planes: int
    concatenated: bool
    spacing_mm: tuple[object, object]
    objective_power: object
    icc_profile: bytes | None
    pixel_offset: int
    big_endian: bool

    @property
    def grid(self) -> tuple[int, int]:
        """Frames across and down."""
        return -(-self.matrix[0] // self.frame[0]), -(-self.matrix[1] // self.frame[1])


def read_dicom_header(path: Path) -> DicomImage:
    """Reads everything before the pixels. Raises SlideReadError, also where the header is compressed."""
    import pydicom
    from pydicom.errors import BytesLengthException, InvalidDicomError
    from pydicom.filereader import read_file_meta_info

    # pydicom warns of every value that breaks the standard's form; what matters is checked here
    logging.getLogger("pydicom").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")
            if str(read_file_meta_info(path).get("TransferSyntaxUID", "")) == DEFLATED:
                # pydicom would unpack all of it, however large it claims to be
                raise SlideReadError(
                    path,
                    "the DICOM file is compressed as a whole (deflated transfer syntax), which is not read; "
                    "save it as Explicit VR Little Endian",
                )
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=None)
            return _describe(path, header, file.tell())
    except SlideReadError:
        raise
    except InvalidDicomError as error:
        raise SlideReadError(path, "this is no DICOM file") from error
    except (
        OSError, EOFError, struct.error, ValueError, KeyError, AttributeError, TypeError, IndexError,
        NotImplementedError, OverflowError, MemoryError, RecursionError, BytesLengthException,
        zlib.error,
    ) as error:  # fmt: skip
        raise SlideReadError(path, f"the DICOM header is damaged: {type(error).__name__} {error}") from error


def _first(sequence: Any) -> Any:
    return sequence[0] if sequence else None


def _describe(path: Path, header: Any, pixel_offset: int) -> DicomImage:
    shared = _first(header.get("SharedFunctionalGroupsSequence"))
    measures = None if shared is None else _first(shared.get("PixelMeasuresSequence"))
    spacing = (None if measures is None else measures.get("PixelSpacing")) or header.get("PixelSpacing")
    matrix = (
        int(header.get("TotalPixelMatrixColumns") or header.get("Columns") or 0),
        int(header.get("TotalPixelMatrixRows") or header.get("Rows") or 0),
    )
    if spacing is not None and len(spacing) == 2:
        # PixelSpacing is (between rows, between columns)
        spacing_mm: tuple[object, object] = (spacing[1], spacing[0])
    else:
        spacing_mm = (None, None)
    path_item = _first(header.get("OpticalPathSequence"))
    image_type = header.get("ImageType") or []
    sop_class = header.get("SOPClassUID")
    syntax = str(header.file_meta.get("TransferSyntaxUID", ""))
    return DicomImage(
        path=path,
        kind=getattr(sop_class, "name", "") or "unknown",
        sop_class=str(sop_class or ""),
        series=str(header.get("SeriesInstanceUID") or ""),
        flavor=str(image_type[2]) if len(image_type) > 2 else "",
        transfer_syntax=syntax,
        photometric=str(header.get("PhotometricInterpretation") or ""),
        samples=int(header.get("SamplesPerPixel") or 0),
        bits=int(header.get("BitsAllocated") or 0),
        matrix=matrix,
        frame=(int(header.get("Columns") or 0), int(header.get("Rows") or 0)),
        frames=int(header.get("NumberOfFrames") or 1),
        organization=str(header.get("DimensionOrganizationType") or ""),
        optical_paths=int(header.get("NumberOfOpticalPaths") or 1),
        focal_planes=int(header.get("TotalPixelMatrixFocalPlanes") or 1),
        concatenated="ConcatenationUID" in header,
        spacing_mm=spacing_mm,
        objective_power=None if path_item is None else path_item.get("ObjectiveLensPower"),
        icc_profile=None if path_item is None else path_item.get("ICCProfile"),
        pixel_offset=pixel_offset,
        big_endian=syntax == "1.2.840.10008.1.2.2",
    )


def siblings_of(image: DicomImage) -> Iterator[DicomImage]:
    """The other whole-slide files of the same series in the same folder, by name; damaged ones left out.

    A process reads every header of the folder once, 0.5 ms each, and remembers its series as long as the
    file does not change. Raises SlideReadError where there are more than 100,000 files.
    """
    if not image.series:
        return
    paths = listed(image.path.parent)
    if len(paths) > MOST_FILES:
        raise SlideReadError(
            image.path,
            f"its folder holds {len(paths):,} files, too many to look for the slide's other levels in "
            f"(at most {MOST_FILES:,}); put each slide into a folder of its own",
        )
    for path in paths:
        try:
            status = path.stat()
            if path == image.path or not stat.S_ISREG(status.st_mode):
                continue
            if _series_in(str(path.absolute()), status.st_mtime_ns, status.st_size) != image.series:
                continue
            other = read_dicom_header(path)
        except (OSError, SlideReadError):
            continue
        yield other


# the series alone: whole headers, with their color profiles, would fill the memory; errors are not kept
@lru_cache(maxsize=MOST_FILES)
def _series_in(path: str, mtime_ns: int, size_bytes: int) -> str:
    """The series that a file of a whole slide belongs to, else "". Raises OSError, SlideReadError."""
    with Path(path).open("rb") as file:
        if not is_dicom(file.read(132)):
            return ""
    header = read_dicom_header(Path(path))
    return header.series if header.sop_class == WHOLE_SLIDE else ""


def locate_frames(file: ByteFile, image: DicomImage) -> list[tuple[int, int]]:
    """(offset, bytes) of every frame's data. Frames in several fragments are not supported.

    Raises SlideReadError where the frames do not lie in the file.
    """
    head = file.read(image.pixel_offset, 12)
    if head[:4] != b"\xe0\x7f\x10\x00":
        raise SlideReadError(image.path, "the DICOM file holds no pixels, or is cut short")
    if head[4:6] in (b"OB", b"OW", b"UN"):
        start, (length,) = image.pixel_offset + 12, struct.unpack("<I", head[8:12])
    else:
        start, (length,) = image.pixel_offset + 8, struct.unpack("<I", head[4:8])
    if length != 0xFFFFFFFF:
        frame_bytes = image.frame[0] * image.frame[1] * image.samples * (image.bits // 8)
        if start + frame_bytes * image.frames > file.size_bytes:
            raise SlideReadError(image.path, "the DICOM file is cut short: not all its frames are there")
        return [(start + index * frame_bytes, frame_bytes) for index in range(image.frames)]
    fragments: list[tuple[int, int]] = []
    place = start
    while len(fragments) <= image.frames + 1:
        item = file.read(place, 8)
        (size,) = struct.unpack("<I", item[4:])
        if item[:4] == b"\xfe\xff\xdd\xe0":
            break
        if item[:4] != b"\xfe\xff\x00\xe0" or place + 8 + size > file.size_bytes:
            raise SlideReadError(image.path, "the DICOM frames are damaged or cut short")
        fragments.append((place + 8, size))
        place += 8 + size
    if len(fragments) - 1 != image.frames:
        raise SlideReadError(
            image.path, f"{len(fragments) - 1} pieces of pixels where {image.frames} frames are stated"
        )
    return fragments[1:]  # the first item is the table of offsets
