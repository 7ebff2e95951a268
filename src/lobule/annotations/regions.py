"""Regions that somebody drew, read from the files of several tools."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from lobule.errors import AnnotationError

if TYPE_CHECKING:
    from shapely import MultiPolygon, Polygon

__all__ = ["Region", "read_bytes", "read_regions"]

_LARGEST_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Region:
    """A named area in level-0 pixels. ``name``: its class or group, "" where the file gives none."""

    name: str
    geometry: Polygon | MultiPolygon


def read_bytes(path: str | PathLike[str]) -> bytes:
    """The content of an annotation file of at most 1 GiB. Raises AnnotationError."""
    file = Path(path)
    try:
        if not file.is_file():
            raise AnnotationError(path, "no such annotation file")
        if file.stat().st_size > _LARGEST_BYTES:
            raise AnnotationError(
                path, f"{file.stat().st_size / 2**30:.1f} GiB is too large for an annotation"
            )
        content = file.read_bytes()
    except OSError as error:
        raise AnnotationError(path, f"cannot be read: {error.strerror or error}") from error
    if not content.strip():
        raise AnnotationError(path, "the annotation file is empty")
    return content


def read_regions(
    path: str | PathLike[str],
    tell: Callable[[str], None] | None = None,
    *,
    geojson_origin_px: tuple[int, int] = (0, 0),
    nuclei: bool = False,
) -> list[Region]:
    """The areas in an annotation file, in its order; valid geometries in level-0 pixels.

    Read by content: GeoJSON (FeatureCollection, Feature, bare list or geometry, QuPath's classification),
    ASAP XML (polygons, rectangles, and splines as the polygon of their points; groups are names, ASAP has
    no holes), ImageScope XML and Halo ``.annotations`` (polygons, rectangles, ellipses; regions with
    NegativeROA are holes in their layer). Points, lines, rulers and arrows are passed over. Rings that
    cross themselves are repaired. ``tell`` is told of every polygon that was repaired or left out ("crosses
    itself", "has no area"), and where it is given polygons in XML of fewer than 3 points are left out and told
    of ("has fewer than 3 points"), not refused. ``geojson_origin_px``: the corner of the slide's bounds, from
    which QuPath counts; a file that lobule wrote says it itself. ``nuclei``: nuclei are asked for; of QuPath's
    cells their nuclei are taken, and annotations beside cells or detections left out, each told ("is a cell", "is a
    cell without a nucleus", "is an annotation beside detections"). Raises AnnotationError.
    """
    from lobule.annotations.geojson import regions_from_geojson
    from lobule.annotations.xml_regions import regions_from_xml

    content = read_bytes(path)
    start = content[:64].lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    try:
        if start in (b"{", b"["):
            return regions_from_geojson(content, tell, geojson_origin_px, nuclei=nuclei)
        if start == b"<" or content[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return regions_from_xml(content, tell)
    except ValueError as error:
        raise AnnotationError(path, str(error)) from error
    raise AnnotationError(path, "neither GeoJSON nor XML; ASAP, ImageScope, Halo and QuPath files are read")
