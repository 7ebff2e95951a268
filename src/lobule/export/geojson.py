"""Regions and nuclei as GeoJSON that QuPath opens on the slide.

A file is one FeatureCollection. Beside ``features`` stands ``lobule`` (a foreign member in RFC 7946's sense)
with the research-use notice, the frame and the slide's id. Coordinates are level-0 pixels minus
``frame.geojson_offset_px``, the origin of QuPath's cropped view of a slide with OpenSlide bounds, rounded to
0.01 px. Text outside ASCII is escaped. QuPath opens ``.geojson`` by itself; ``.geojson.gz`` it wants unpacked
first. Rings are closed; exteriors turn counter-clockwise and holes clockwise by RFC 7946's rule, that is by
the sign of the area of the numbers (y down on the screen makes it look the other way round).
"""

from __future__ import annotations

import gzip
import json
import math
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lobule.findings.maps import TumorRegion
from lobule.findings.nuclei import MEASURES, Nuclei
from lobule.findings.schema import Frame
from lobule.whole_file import whole_file

if TYPE_CHECKING:
    from shapely import Geometry, Polygon

__all__ = ["NUCLEUS_COLOR", "TUMOR_COLOR", "nucleus_id", "write_nuclei", "write_regions"]

TUMOR_COLOR = (200, 0, 0)
NUCLEUS_COLOR = (0, 110, 200)
_NOTICE = "For research use only. Not for diagnosis."
_GRID_PX = 0.01
_CHUNK = 4096
"""Nuclei made into text at once: bounds the memory of a large batch."""
_BLOCK_BYTES = 1 << 20


def _json(value: object) -> str:
    # ASCII with JSON's escapes: QuPath reads in the computer's own character set, and a file name that is not
    # UTF-8 has lone surrogates
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)


def _head(frame: Frame, slide_id: str) -> str:
    about = {"notice": _NOTICE, "frame": frame.model_dump(mode="json"), "slide": slide_id}
    return f'{{"type":"FeatureCollection","lobule":{_json(about)},"features":['


def _slide_namespace(slide_id: str) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_OID, f"lobule/{_json(slide_id)}")


def nucleus_id(slide_id: str, index: int) -> str:
    """The feature id of the slide's ``index``-th nucleus (from 0, over all batches)."""
    return str(uuid.uuid5(_slide_namespace(slide_id), f"nucleus/{index}"))


def _polygons(geometry: Geometry) -> list[Polygon]:
    """The polygons that a geometry holds, in its order, without lines, points and empty parts."""
    if geometry.geom_type == "Polygon":
        return [] if geometry.is_empty else [geometry]
    return [polygon for part in getattr(geometry, "geoms", ()) for polygon in _polygons(part)]


def _valid_on_grid(geometry: Geometry) -> Geometry:
    """The geometry made valid with every coordinate on the 0.01 px grid; may be empty."""
    import shapely

    rounded = shapely.transform(geometry, lambda points: np.round(points, 2))
    if shapely.is_valid(rounded):
        return rounded
    return shapely.set_precision(shapely.make_valid(geometry), _GRID_PX)


def _repaired_outline(outline: NDArray[np.float64], size: tuple[float, float, float, float]) -> Polygon:
    """One valid polygon for an outline that crosses or touches itself or has no area.

    The largest part of the outline made valid; where nothing with an area is left (a point, a line), half a
    pixel around it, which is what a pixel-wide instance covers.
    """
    import shapely

    parts: list[Polygon] = []
    if len(outline) >= 3:
        parts = _polygons(_valid_on_grid(shapely.Polygon(outline)))
    if not parts:
        thin = shapely.LineString(outline) if len(outline) > 1 else shapely.Point(outline[0])
        around = shapely.buffer(thin, 0.5, cap_style="square", join_style="mitre")
        parts = _polygons(_valid_on_grid(around.intersection(shapely.box(*size)).buffer(0)))
    if not parts:  # the outline lies outside the slide: keep the nucleus, at the place it was given
        parts = [shapely.box(*(np.round(outline[0], 2) - 0.5), *(np.round(outline[0], 2) + 0.5))]
    return max(parts, key=lambda part: part.area)


def _ring(ring: NDArray[np.float64], counter_clockwise: bool) -> str:
    """A closed ring's coordinates (n, 2) as JSON, turned the asked way."""
    x, y = ring[:, 0] - ring[0, 0], ring[:, 1] - ring[0, 1]
    area = float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))
    if (area > 0) != counter_clockwise:
        ring = ring[::-1]
    return "[" + ",".join(["[%.2f,%.2f]"] * len(ring)) % tuple(ring.ravel().tolist()) + "]"


def _polygon(polygon: Polygon) -> str:
    rings = [_ring(np.asarray(polygon.exterior.coords, np.float64), True)]
    rings += [_ring(np.asarray(hole.coords, np.float64), False) for hole in polygon.interiors]
    return "[" + ",".join(rings) + "]"


def _region_geometry(polygon: Polygon, frame: Frame) -> str | None:
    """The region's GeoJSON geometry in the file's frame, or None where nothing of an area is left."""
    import shapely

    offset = np.array(frame.geojson_offset_px, np.float64)
    slide = shapely.box(0, 0, *frame.size_px)
    inside = polygon if slide.covers(polygon) else shapely.make_valid(polygon).intersection(slide)
    placed = _valid_on_grid(shapely.transform(inside, lambda points: points - offset))
    parts = _polygons(placed)
    if not parts:
        return None
    if len(parts) == 1:
        return f'{{"type":"Polygon","coordinates":{_polygon(parts[0])}}}'
    return f'{{"type":"MultiPolygon","coordinates":[{",".join(_polygon(part) for part in parts)}]}}'


def write_regions(path: Path, regions: Sequence[TumorRegion], frame: Frame, slide_id: str) -> None:
    """Writes tumor regions, with their holes, as locked annotations of class ``Tumor``.

    A region whose outline is not valid is repaired and keeps all its parts (then a MultiPolygon); what
    reaches past the slide is cut. A feature's id is the region's. Raises ResultWriteError.
    """
    features: list[str] = []
    for index, region in enumerate(regions, 1):
        geometry = _region_geometry(region.polygon, frame)
        if geometry is None:
            continue
        measures: dict[str, float | None] = {
            "Area mm²": region.area_mm2,
            "Perimeter mm": region.perimeter_mm,
            "Longest diameter mm": region.longest_diameter_mm,
            "Mean probability": region.mean_probability,
            "Blurred share": region.blurred_share,
        }
        properties = {
            "objectType": "annotation",
            "classification": {"name": "Tumor", "color": list(TUMOR_COLOR)},
            "name": f"Tumor region {index}",
            "isLocked": True,
            "measurements": {
                name: float(f"{value:.6g}")
                for name, value in measures.items()
                if value is not None and math.isfinite(value)
            },
        }
        features.append(
            f'{{"type":"Feature","id":{_json(region.id)},"geometry":{geometry},"properties":{_json(properties)}}}'
        )
    text = _head(frame, slide_id) + "\n" + ",\n".join(features) + "\n]}\n"
    with whole_file(path) as stream:
        stream.write(text.encode("ascii"))


def _measure_names() -> list[str]:
    return [f"{label} {unit}".strip() for label, unit in MEASURES.values()]


class _NucleusText:
    """Makes batches of nuclei into features' text; the fast path is NumPy and one ``%`` a nucleus."""

    def __init__(self, frame: Frame, slide_id: str) -> None:
        self._namespace = _slide_namespace(slide_id)
        offset_x, offset_y = frame.geojson_offset_px
        width, height = frame.size_px
        self._offset = np.array([offset_x, offset_y], np.float64)
        self._box = (-offset_x, -offset_y, width - offset_x, height - offset_y)
        self._labels = [_json(name) for name in _measure_names()]
        style = _json({"name": "Nucleus", "color": list(NUCLEUS_COLOR)})
        self._middle = (
            f'}},"properties":{{"objectType":"detection","classification":{style},"measurements":{{'
        )
        self._all_measures = ",".join(f"{label}:%.6g" for label in self._labels)

    def features(self, nuclei: Nuclei, first: int) -> Iterator[str]:
        """The features of one batch whose first nucleus has the number ``first``."""
        import shapely

        lengths = np.diff(nuclei.starts)
        points = np.round(nuclei.vertices_px[nuclei.starts[0] : nuclei.starts[-1]] - self._offset, 2)
        np.clip(points, self._box[:2], self._box[2:], out=points)
        starts = nuclei.starts[:-1] - nuclei.starts[0]
        counted = np.arange(len(nuclei))
        enough: NDArray[np.bool_] = lengths >= 3
        owner = np.repeat(counted, lengths)
        enough[owner[~np.isfinite(points).all(axis=1)]] = False
        kept = enough[owner]
        sound = np.zeros(len(nuclei), bool)
        if enough.any():
            # ring numbers must count up without gaps for shapely
            order = np.cumsum(enough) - 1
            rings = shapely.linearrings(points[kept], indices=order[owner[kept]])
            shapes = shapely.polygons(rings)
            sound[enough] = np.logical_and(shapely.is_valid(shapes), shapely.area(shapes) > 0)
        texts = _outline_texts(points, starts, lengths)
        finite = np.all(np.isfinite(nuclei.measures), axis=1)
        rows = nuclei.measures.tolist()
        for k in range(len(nuclei)):
            if sound[k]:
                rings_text = texts(k)
            else:
                outline = points[starts[k] : starts[k] + lengths[k]]
                outline = outline[np.isfinite(outline).all(axis=1)]
                if not len(outline):
                    outline = np.round(nuclei.centroid_px[k : k + 1] - self._offset, 2)
                rings_text = _polygon(_repaired_outline(outline, self._box))
            measures = self._all_measures % tuple(rows[k]) if finite[k] else self._some_measures(rows[k])
            identity = uuid.uuid5(self._namespace, f"nucleus/{first + k}")
            yield (
                f'{{"type":"Feature","id":"{identity}","geometry":{{"type":"Polygon","coordinates":{rings_text}'
                f"{self._middle}{measures}}}}}}}"
            )

    def _some_measures(self, row: list[float]) -> str:
        pairs = zip(self._labels, row, strict=True)
        return ",".join(f"{label}:{value:.6g}" for label, value in pairs if math.isfinite(value))


def _outline_texts(
    points: NDArray[np.float64], starts: NDArray[np.int64], lengths: NDArray[np.int64]
) -> Callable[[int], str]:
    """A function from a nucleus's number to its ring's text, counter-clockwise and closed."""
    filled = lengths > 0
    first, count = starts[filled], lengths[filled]
    following = np.roll(points, -1, axis=0)
    following[first + count - 1] = points[first]
    origin = np.repeat(points[first], count, axis=0)
    here, there = points - origin, following - origin
    cross = here[:, 0] * there[:, 1] - there[:, 0] * here[:, 1]
    clockwise = (np.add.reduceat(cross, first) if len(first) else np.zeros(0)) < 0
    place = np.arange(len(points))
    mirrored = np.repeat(2 * first + count - 1, count) - place
    turned = points[np.where(np.repeat(clockwise, count), mirrored, place)]
    # one flat list: a list of pairs costs a second per million points
    flat: list[float] = turned.ravel().tolist()
    bounds: list[tuple[int, int]] = list(
        zip((2 * starts).tolist(), (2 * (starts + lengths)).tolist(), strict=True)
    )
    templates: dict[int, str] = {}

    def text(k: int) -> str:
        begin, end = bounds[k]
        values = flat[begin:end]
        values += values[:2]
        template = templates.get(len(values))
        if template is None:
            pairs = ",".join(["[%.2f,%.2f]"] * (len(values) // 2))
            template = templates[len(values)] = f"[[{pairs}]]"
        return template % tuple(values)

    return text


def _chunks(nuclei: Nuclei) -> Iterator[Nuclei]:
    for start in range(0, len(nuclei), _CHUNK):
        stop = min(start + _CHUNK, len(nuclei))
        first, last = nuclei.starts[start], nuclei.starts[stop]
        yield Nuclei(
            nuclei.centroid_px[start:stop],
            nuclei.starts[start : stop + 1] - first,
            nuclei.vertices_px[first:last],
            nuclei.measures[start:stop],
        )


def write_nuclei(path: Path, batches: Iterable[Nuclei], frame: Frame, slide_id: str) -> int:
    """Writes nuclei as gzip-compressed detections of class ``Nucleus``, batch by batch; returns their number.

    Every geometry is a valid polygon: an outline that crosses or touches itself is repaired and keeps its
    largest part, one without area becomes the half pixel around it, what reaches past the slide is moved to
    its edge. A measure that is not finite is left out. Equal nuclei in equal order give equal bytes however
    they are batched (no time, no name in the gzip header). Raises ResultWriteError.

    Memory bound: one batch, and the text of 4,096 nuclei.
    """
    text = _NucleusText(frame, slide_id)
    count = 0
    waiting = bytearray(_head(frame, slide_id).encode("ascii"))
    with (
        whole_file(path) as stream,
        gzip.GzipFile(filename="", mode="wb", compresslevel=4, fileobj=stream, mtime=0) as packed,
    ):
        for batch in batches:
            for part in _chunks(batch):
                lines = "\n" if count == 0 else ",\n"
                lines += ",\n".join(text.features(part, count))
                waiting += lines.encode("ascii")
                count += len(part)
                # in blocks of one size: some deflate libraries give other bytes for other portions
                whole = len(waiting) // _BLOCK_BYTES * _BLOCK_BYTES
                for start in range(0, whole, _BLOCK_BYTES):
                    packed.write(bytes(waiting[start : start + _BLOCK_BYTES]))
                del waiting[:whole]
        packed.write(bytes(waiting) + b"\n]}\n")
    return count
