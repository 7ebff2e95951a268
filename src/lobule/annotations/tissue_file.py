"""A tissue mask that somebody made, from any file that lobule reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lobule.annotations.masks import is_image, read_mask, warn_user
from lobule.annotations.raster import rasterize
from lobule.annotations.regions import read_bytes, read_regions
from lobule.errors import AnnotationError
from lobule.geometry import WorkingFrame

__all__ = ["tissue_from_file"]

# QuPath's "Ignore*" and the names people give to what shall not count
_LEFT_OUT = frozenset({"ignore*", "ignore", "exclude", "exclusion", "background"})
_EDGE_PX = 1.0


def tissue_from_file(
    path: str | PathLike[str],
    frame: WorkingFrame,
    *,
    geojson_origin_px: tuple[int, int] = (0, 0),
    warn: Callable[[str], None] = warn_user,
) -> NDArray[np.bool_]:
    """Tissue on ``frame``, (H, W) bool, from a mask (PNG, TIFF) or polygons (GeoJSON, ASAP, ImageScope, Halo).

    A mask's pixels are looked up at the working pixels' centers. Polygons of every class count, save those
    of a class named Ignore*, Exclude or Background, which are cut out. What lies outside the slide is cut
    off and told to ``warn`` (by default `warnings.warn`), as is what `read_mask` warns of.
    ``geojson_origin_px`` as in `read_regions`.
    Raises AnnotationError, also where the file marks nothing on the slide.
    """
    content = read_bytes(path)
    if content.startswith(b"\xff\xd8"):
        raise AnnotationError(path, "a JPEG blurs a mask's edges; save it as PNG or TIFF")
    if is_image(content[:8]):
        mask = read_mask(path, frame.slide_size, warn=warn)
        if not mask.any():
            raise AnnotationError(path, "the mask marks nothing")
        return _looked_up(mask, frame)
    if (stated := _stated_size(content)) not in (None, frame.slide_size):
        written, own = (" × ".join(f"{side:,}" for side in size) for size in (stated, frame.slide_size))
        raise AnnotationError(path, f"it was written for a slide of {written} px, and this one has {own} px")
    return _from_polygons(path, frame, geojson_origin_px, warn)


def _stated_size(content: bytes) -> tuple[int, int] | None:
    """The size (level-0 px) of the slide that a file of lobule's own was written for; None for other files."""
    head, features, _ = content.partition(b',"features":[')
    if not features:
        return None
    try:
        width, height = json.loads(head + b"}")["lobule"]["frame"]["size_px"]
        return int(width), int(height)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


def _looked_up(mask: NDArray[np.bool_], frame: WorkingFrame) -> NDArray[np.bool_]:
    indices = []
    for axis in (1, 0):
        centers = (np.arange(frame.size[axis]) + 0.5) * frame.scale[axis]
        count = mask.shape[1 - axis]
        place = np.floor(centers * (count / frame.slide_size[axis])).astype(np.int64)
        # the last working pixel may have its center beyond the slide
        indices.append(np.minimum(place, count - 1))
    return mask[np.ix_(*indices)]


def _from_polygons(
    path: str | PathLike[str],
    frame: WorkingFrame,
    geojson_origin_px: tuple[int, int],
    warn: Callable[[str], None],
) -> NDArray[np.bool_]:
    import shapely

    regions = read_regions(path, geojson_origin_px=geojson_origin_px)
    drawn = [region.geometry for region in regions if region.name.strip().lower() not in _LEFT_OUT]
    if not drawn:
        raise AnnotationError(path, "holds no polygon that marks tissue")
    width, height = frame.slide_size
    slide = shapely.box(0, 0, width, height)
    areas: Any = shapely.area(shapely.intersection(drawn, slide))
    if not (areas > 0).any():
        raise AnnotationError(
            path,
            f"lies outside the slide ({width} × {height} px); is it of another slide, or not in level-0 px?",
        )
    nearly = shapely.box(-_EDGE_PX, -_EDGE_PX, width + _EDGE_PX, height + _EDGE_PX)
    beyond = int((~shapely.covers(nearly, drawn)).sum())
    if beyond:
        warn(f"{path}: {beyond} of {len(drawn)} polygons reach outside the slide and were cut off there")
    tissue = rasterize(drawn, frame)
    left_out = [region.geometry for region in regions if region.name.strip().lower() in _LEFT_OUT]
    if left_out:
        tissue &= ~rasterize(left_out, frame)
    if not tissue.any():
        raise AnnotationError(path, "marks less than one pixel of the working frame as tissue")
    return tissue
