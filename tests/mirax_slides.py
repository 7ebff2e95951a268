"""A small MIRAX slide (one level, no overlap, PNG tiles) as OpenSlide reads it: a short file and a folder beside it."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TILE_PX = 256
_ID = "0123456789ABCDEF0123456789ABCDEF"


def write_mirax(path: Path, image: NDArray[np.uint8], *, mpp: float) -> Path:
    """``image`` (H, W, 3), both sides multiples of `TILE_PX`; ``mpp`` µm per px."""
    rows, columns = image.shape[0] // TILE_PX, image.shape[1] // TILE_PX
    folder = path.with_suffix("")
    folder.mkdir()
    # what OpenSlide tells the format by is the ending and the folder; the file itself holds a preview
    Image.fromarray(image[:64, :64]).save(path, "JPEG")
    pixels, places = bytearray(), []
    for number in range(rows * columns):
        y, x = (side * TILE_PX for side in divmod(number, columns))
        tile = io.BytesIO()
        Image.fromarray(image[y : y + TILE_PX, x : x + TILE_PX]).save(tile, "PNG")
        places.append(struct.pack("<4i", number, len(pixels), tile.tell(), 0))
        pixels += tile.getvalue()
    (folder / "Data0000.dat").write_bytes(pixels)
    # version and id, the places of two tables, then the one that is used: level → page → page of tile places
    head = b"01.02" + _ID.encode()
    level = len(head) + 8
    page = level + 12
    (folder / "Index.dat").write_bytes(
        head
        + struct.pack("<2i", level, 0)
        + struct.pack("<i", level + 4)
        + struct.pack("<2i", 0, page)
        + struct.pack("<2i", len(places), 0)
        + b"".join(places)
    )
    about = {
        "GENERAL": {
            "SLIDE_VERSION": "01.02",
            "SLIDE_ID": _ID,
            "IMAGENUMBER_X": columns,
            "IMAGENUMBER_Y": rows,
            "CameraImageDivisionsPerSide": 1,
            "OBJECTIVE_MAGNIFICATION": round(10 / mpp),
        },
        "HIERARCHICAL": {
            "HIER_COUNT": 1,
            "NONHIER_COUNT": 0,
            "INDEXFILE": "Index.dat",
            "HIER_0_NAME": "Slide zoom level",
            "HIER_0_COUNT": 1,
            "HIER_0_VAL_0": "ZoomLevel_0",
            "HIER_0_VAL_0_SECTION": "LEVEL_0",
        },
        "DATAFILE": {"FILE_COUNT": 1, "FILE_0": "Data0000.dat"},
        "LEVEL_0": {
            "OVERLAP_X": 0,
            "OVERLAP_Y": 0,
            "MICROMETER_PER_PIXEL_X": mpp,
            "MICROMETER_PER_PIXEL_Y": mpp,
            "IMAGE_FILL_COLOR_BGR": 0xFFFFFF,
            "DIGITIZER_WIDTH": TILE_PX,
            "DIGITIZER_HEIGHT": TILE_PX,
            "IMAGE_CONCAT_FACTOR": 0,
            "IMAGE_FORMAT": "PNG",
        },
    }
    lines = [
        line
        for name, values in about.items()
        for line in (f"[{name}]", *(f"{key} = {value}" for key, value in values.items()))
    ]
    (folder / "Slidedat.ini").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
