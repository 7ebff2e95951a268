"""Maps as one pyramidal OME-TIFF that lies right on the slide."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lobule.findings.maps import ScalarMap
from lobule.whole_file import whole_file

__all__ = ["write_heatmap"]

_TILE_PX = 256
_SMALLEST_LEVEL_PX = 256


def _halved(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of each 2 × 2 block (of its cells that are not NaN); an odd last row or column stands alone."""
    rows, columns = values.shape
    padded = np.pad(values, ((0, rows % 2), (0, columns % 2)), constant_values=np.nan)
    # the four cells of every block, each as a view: a sum over two short axes takes four times as long
    cells = [padded[row::2, column::2] for row in (0, 1) for column in (0, 1)]
    count = np.zeros(cells[0].shape, np.uint8)
    total = np.zeros(cells[0].shape, np.float64)
    for cell in cells:
        seen = np.isfinite(cell)
        count += seen
        np.add(total, cell, out=total, where=seen)
    mean = np.full(count.shape, np.nan, np.float32)
    np.divide(total, count, out=mean, where=count > 0, casting="same_kind")
    return mean


def _levels(values: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    # one NaN, so that equal maps give equal bytes whatever arithmetic made the NaN
    levels = [np.where(np.isnan(values), np.float32(np.nan), values.astype(np.float32, copy=False))]
    while len(levels) < 2 or max(levels[-1].shape) > _SMALLEST_LEVEL_PX:
        levels.append(_halved(levels[-1]))
    return levels


def write_heatmap(path: Path, maps: Sequence[tuple[str, ScalarMap]]) -> None:
    """Writes named maps as the images of one pyramidal OME-TIFF, level by level in sub-IFDs.

    Each image is float32, the map's values as they are (probabilities 0 to 1), **NaN where nothing was looked
    at**: a cell that was not judged differs from one judged 0. QuPath and Bio-Formats read float32 and show
    NaN as black. Sub-levels are means over the judged cells of 2 × 2 blocks; even a small map has two levels.

    Placement: an image covers the slide from the top left corner of level-0 pixel (0, 0), so ``PositionX``
    and ``PositionY`` are 0 µm and ``PhysicalSizeX/Y`` are the frame's µm per cell; cell (row j, column i)
    begins at (i · PhysicalSizeX, j · PhysicalSizeY) µm. On a slide with OpenSlide bounds, which QuPath crops
    to, shift by ``frame.geojson_offset_px`` of findings.json.

    The bytes are a function of names, frames and values alone (no time, a UUID made from the names). Raises
    ValueError for no maps or a map that is not two-dimensional, and ResultWriteError.

    Memory bound: the largest map and its pyramid, 4/3 of 4 bytes a cell, beside what the caller holds.
    """
    import tifffile

    if not maps:
        raise ValueError("a heatmap file needs at least one map")
    for name, scalar in maps:
        if scalar.values.ndim != 2 or 0 in scalar.values.shape:
            raise ValueError(f"map {name!r} has shape {scalar.values.shape}, not (rows, columns)")
    # a classic TIFF ends at 4 GiB; pyramids are under 4/3 of the base
    big = sum(scalar.values.size for _, scalar in maps) * 4 * 4 / 3 > 2**31
    identity = uuid.uuid5(uuid.NAMESPACE_OID, "\n".join(name for name, _ in maps))
    with (
        whole_file(path) as stream,
        tifffile.TiffWriter(stream, bigtiff=big, ome=True, byteorder="<") as tiff,
    ):
        for name, scalar in maps:
            levels = _levels(scalar.values)
            mpp = scalar.frame.mpp
            for index, level in enumerate(levels):
                per_cm = (1e4 / (mpp.x * 2**index), 1e4 / (mpp.y * 2**index))
                tiff.write(
                    level,
                    tile=(_TILE_PX, _TILE_PX),
                    compression="zlib",
                    photometric="minisblack",
                    resolution=per_cm,
                    resolutionunit="CENTIMETER",
                    software="lobule",
                    **(
                        {
                            "subifds": len(levels) - 1,
                            "metadata": {
                                "axes": "YX",
                                "Name": name,
                                "UUID": f"urn:uuid:{identity}",
                                "Creator": "lobule",
                                "PhysicalSizeX": mpp.x,
                                "PhysicalSizeXUnit": "µm",
                                "PhysicalSizeY": mpp.y,
                                "PhysicalSizeYUnit": "µm",
                                "Plane": {
                                    "PositionX": [0.0],
                                    "PositionXUnit": ["µm"],
                                    "PositionY": [0.0],
                                    "PositionYUnit": ["µm"],
                                },
                            },
                        }
                        if index == 0
                        else {"subfiletype": 1, "metadata": None}
                    ),
                )
