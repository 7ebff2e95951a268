"""Slides drawn for tests: a pixel's color says where it is."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from lobule.geometry import Box

Picture = NDArray[np.uint8]


def paint(width: int, height: int, downsample: tuple[float, float] = (1.0, 1.0)) -> Picture:
    """A picture whose red is the level-0 x and green the level-0 y of a pixel's center, up to 255.

    ``width`` and ``height`` are in pixels of the level; blue is 77 everywhere.
    """
    x = (np.arange(width) + 0.5) * downsample[0] - 0.5
    y = (np.arange(height) + 0.5) * downsample[1] - 0.5
    picture = np.full((height, width, 3), 77, np.uint8)
    picture[..., 0] = np.rint(x).clip(0, 255)[None, :]
    picture[..., 1] = np.rint(y).clip(0, 255)[:, None]
    return picture


def reduce(picture: Picture, factor: int) -> Picture:
    """Means of ``factor`` x ``factor`` pixels; what does not fill a whole one is cut off."""
    height, width = picture.shape[0] // factor, picture.shape[1] // factor
    whole = picture[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    return np.rint(whole.mean(axis=(1, 3))).astype(np.uint8)


def write_pyramid(
    path: Path,
    array: Picture | Sequence[Picture],
    mpp: float | tuple[float, float] | None = 0.5,
    levels: Sequence[int] = (2, 4),
    *,
    kind: str = "generic",
    compression: str = "deflate",
    tile: int | None = 64,
    description: str | None = None,
    power: str = "40",
    **options: Any,
) -> None:
    """Writes a pyramid; ``array`` is level 0 (reduced by ``levels``) or all levels.

    ``kind``: "generic" (mpp in the resolution tags), "aperio" (mpp in the description), "ome" (OME-XML and
    sub-directories). ``tile`` None writes strips. ``mpp`` None states nothing.
    """
    if isinstance(array, np.ndarray):
        pictures = [array, *(reduce(array, factor) for factor in levels)]
    else:
        pictures = list(array)
    pair = (mpp, mpp) if isinstance(mpp, (int, float)) else mpp
    height, width = pictures[0].shape[:2]
    if description is None and kind == "aperio":
        stated = "" if pair is None else f"|MPP = {pair[0]}"
        description = (
            f"Aperio Image Library v12.0.15\r\n{width}x{height} [0,0 {width}x{height}] (64x64) "
            f"none|AppMag = {power}{stated}"
        )
    if description is None and kind == "ome":
        sizes = "" if pair is None else f'PhysicalSizeX="{pair[0]}" PhysicalSizeY="{pair[1]}" '
        description = (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
            '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" '
            f'SizeX="{width}" SizeY="{height}" SizeC="3" SizeZ="1" SizeT="1" {sizes}>'
            '<Channel ID="Channel:0:0" SamplesPerPixel="3"/><TiffData IFD="0" PlaneCount="1"/>'
            "</Pixels></Image></OME>"
        )
    below = len(pictures) - 1 if kind == "ome" else 0
    with tifffile.TiffWriter(path, bigtiff=options.pop("bigtiff", False)) as writer:
        for index, picture in enumerate(pictures):
            settings: dict[str, Any] = {
                "photometric": "rgb",
                "compression": compression,
                "tile": None if tile is None else (tile, tile),
                "metadata": None,
                "description": description if index == 0 or kind == "aperio" else None,
                "subfiletype": 1 if index and kind != "aperio" else 0,
                "subifds": below if index == 0 and below else None,
            }
            if kind == "generic" and pair is not None and index == 0:
                settings["resolution"] = (1e4 / pair[0], 1e4 / pair[1])
                settings["resolutionunit"] = "CENTIMETER"
            writer.write(picture, **{**settings, **options})


def write_leica_with_bounds(
    path: Path,
    array: Picture,
    *,
    mpp: float = 0.5,
    offset_px: tuple[int, int] = (37, 21),
    slide_px: tuple[int, int] = (400, 300),
    levels: Sequence[int] = (2, 4),
    compression: str = "deflate",
) -> Box:
    """A Leica SCN whose scanned part ``array`` lies at ``offset_px`` of a glass of ``slide_px``.

    OpenSlide gives it the size of the glass and bounds; the rest was never scanned. Returns the bounds.
    """
    nm = round(mpp * 1000)
    height, width = array.shape[:2]
    glass = (slide_px[0] * nm, slide_px[1] * nm)
    macro = np.full((32, 48, 3), 200, np.uint8)
    pictures = [array, *(reduce(array, factor) for factor in levels)]

    def image(name: str, images: list[Picture], first: int, view: tuple[int, int, int, int]) -> str:
        dimensions = "".join(
            f'<dimension r="{index}" ifd="{first + index}" sizeX="{each.shape[1]}" sizeY="{each.shape[0]}"/>'
            for index, each in enumerate(images)
        )
        return (
            f'<image name="{name}"><creationDate>2026-01-01T00:00:00Z</creationDate>'
            '<device model="drawn" version="1"/>'
            f'<pixels sizeX="{images[0].shape[1]}" sizeY="{images[0].shape[0]}">{dimensions}</pixels>'
            f'<view sizeX="{view[2]}" sizeY="{view[3]}" offsetX="{view[0]}" offsetY="{view[1]}"/>'
            "<scanSettings><objectiveSettings><objective>20</objective></objectiveSettings>"
            "<illuminationSettings><numericalAperture>0.4</numericalAperture>"
            "<illuminationSource>brightfield</illuminationSource></illuminationSettings></scanSettings></image>"
        )

    description = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        f'<collection name="drawn" sizeX="{glass[0]}" sizeY="{glass[1]}"><barcode>MQ==</barcode>'
        + image("macro", [macro], 0, (0, 0, *glass))
        + image("main", pictures, 1, (offset_px[0] * nm, offset_px[1] * nm, width * nm, height * nm))
        + "</collection></scn>"
    )
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for index, picture in enumerate([macro, *pictures]):
            writer.write(
                picture,
                photometric="rgb",
                compression=compression,
                tile=(64, 64),
                metadata=None,
                description=description if index == 0 else None,
                resolution=(1e4 / mpp, 1e4 / mpp),
                resolutionunit="CENTIMETER",
            )
    return Box(offset_px[0], offset_px[1], offset_px[0] + width, offset_px[1] + height)


def write_dicom(
    path: Path,
    array: Picture,
    *,
    mpp: float | None = 0.5,
    frame: int = 64,
    photometric: str = "YBR_FULL_422",
    series: str = "1.2.826.0.1.3680043.8.498.1",
    flavor: str = "VOLUME",
    stored: str = "YCBCR",
    **changes: Any,
) -> None:
    """A tiled DICOM slide of one level in JPEG. ``stored``: the color space inside the JPEG frames."""
    import imagecodecs
    import pydicom
    from pydicom.dataset import FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import generate_uid

    height, width = array.shape[:2]
    across, down = -(-width // frame), -(-height // frame)
    padded = np.pad(array, ((0, down * frame - height), (0, across * frame - width), (0, 0)), mode="edge")
    frames = [
        imagecodecs.jpeg8_encode(
            np.ascontiguousarray(padded[y * frame : (y + 1) * frame, x * frame : (x + 1) * frame]),
            level=100,
            colorspace="RGB",
            outcolorspace=stored,
            subsampling="444",
        )
        for y in range(down)
        for x in range(across)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = pydicom.Dataset()
        data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.6"
        data.SOPInstanceUID = generate_uid(entropy_srcs=[path.name])
        data.SeriesInstanceUID = series
        data.Modality = "SM"
        data.ImageType = ["ORIGINAL", "PRIMARY", flavor, "NONE"]
        data.DimensionOrganizationType = "TILED_FULL"
        data.TotalPixelMatrixColumns, data.TotalPixelMatrixRows = width, height
        data.NumberOfFrames, data.Rows, data.Columns = len(frames), frame, frame
        data.SamplesPerPixel, data.PlanarConfiguration = 3, 0
        data.PhotometricInterpretation = photometric
        data.BitsAllocated = data.BitsStored = 8
        data.HighBit, data.PixelRepresentation = 7, 0
        data.NumberOfOpticalPaths = data.TotalPixelMatrixFocalPlanes = 1
        if mpp is not None:
            measures = pydicom.Dataset()
            measures.PixelSpacing = [mpp / 1000, mpp / 1000]
            shared = pydicom.Dataset()
            shared.PixelMeasuresSequence = [measures]
            data.SharedFunctionalGroupsSequence = [shared]
        for name, value in changes.items():
            setattr(data, name, value)
        data.PixelData = encapsulate(frames)
        data["PixelData"].VR = "OB"
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.50"
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        data.save_as(path, enforce_file_format=True)


def raw_tiff(
    tags: dict[int, tuple[int, Sequence[int]]], *, body: bytes = b"", next_offset: int = 0, order: str = "<"
) -> bytes:
    """A TIFF of one directory, made to lie.

    ``tags``: number → (type 3 (16 bit) or 4 (32 bit), numbers). ``body`` follows the directory.
    """
    letters = {3: "H", 4: "I"}
    entries, extra = b"", b""
    start = 8 + 2 + 12 * len(tags) + 4
    for tag, (kind, numbers) in sorted(tags.items()):
        data = struct.pack(f"{order}{len(numbers)}{letters[kind]}", *numbers)
        if len(data) <= 4:
            value = data.ljust(4, b"\0")
        else:
            value = struct.pack(order + "I", start + len(extra))
            extra += data
        entries += struct.pack(order + "HHI", tag, kind, len(numbers)) + value
    head = (b"II\x2a\0" if order == "<" else b"MM\0\x2a") + struct.pack(order + "I", 8)
    return (
        head
        + struct.pack(order + "H", len(tags))
        + entries
        + struct.pack(order + "I", next_offset)
        + extra
        + body
    )
