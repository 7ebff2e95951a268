"""Regions and nuclei as GeoJSON that QuPath opens on the slide.

A file is one FeatureCollection. Beside ``features`` stands ``lobule`` (a foreign member in RFC 7946's sense)
with the research-use notice, the frame and the slide's id. Coordinates are level-0 pixels minus
``frame.geojson_offset_px``, the origin of QuPath's cropped view of a slide with OpenSlide bounds, rounded to
0.01 px. Text outside ASCII is escaped. QuPath opens ``.geojson`` by itself; ``.geojson.gz`` it wants unpacked
first. Rings are closed; exteriors turn counter-clockwise and holes clockwise by RFC 7946's rule, that is by
the sign of the area of the numbers (y down on the screen makes it look the other way round).
"""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lobule.export.packed import Packed
from lobule.findings.maps import TumorRegion
from lobule.findings.nuclei import MEASURES, Nuclei
from lobule.findings.schema import Frame
from lobule.strict import values_of
from lobule.whole_file import whole_file

if TYPE_CHECKING:
    from shapely import Geometry, Polygon

__all__ = [
    "NUCLEUS_COLOR",
    "TISSUE_COLOR",
    "TUMOR_COLOR",
    "nucleus_id",
    "nucleus_ids",
    "write_nuclei",
    "write_regions",
    "write_tissue",
]

TISSUE_COLOR = (0, 130, 60)
TUMOR_COLOR = (200, 0, 0)
NUCLEUS_COLOR = (0, 110, 200)
_NOTICE = "For research use only. Not for diagnosis."
_GRID_PX = 0.01
_CHUNK = 1024
"""Nuclei made into text at once: enough for NumPy, and a bound for the memory of a large batch."""


def _json(value: object) -> str:
    # ASCII with JSON's escapes: QuPath reads in the computer's own character set, and a file name that is not
    # UTF-8 has lone surrogates
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)


def _head(frame: Frame, slide_id: str) -> str:
    about = {"notice": _NOTICE, "frame": values_of(frame), "slide": slide_id}
    return f'{{"type":"FeatureCollection","lobule":{_json(about)},"features":['


def _slide_namespace(slide_id: str) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_OID, f"lobule/{_json(slide_id)}")


def nucleus_id(slide_id: str, index: int) -> str:
    """The feature id of the slide's ``index``-th nucleus (from 0, over all batches)."""
    return str(uuid.uuid5(_slide_namespace(slide_id), f"nucleus/{index}"))


def nucleus_ids(slide_id: str, first: int, count: int) -> list[str]:
    """The feature ids of ``count`` nuclei from the ``first`` on, each as `nucleus_id` gives it."""
    names = [b"nucleus/%d" % (first + k) for k in range(count)]
    return _version_5(_slide_namespace(slide_id).bytes, names)


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


def write_tissue(path: Path, parts: Sequence[Polygon], frame: Frame, slide_id: str) -> None:
    """Writes the tissue's parts (level-0 px), with their holes, as locked annotations of class ``Tissue``.

    They are what ``lobule analyze --tissue`` reads. Raises ResultWriteError.
    """
    mm2_per_px = frame.mpp_um_per_px[0] * frame.mpp_um_per_px[1] / 1e6
    features: list[str] = []
    for index, part in enumerate(parts, 1):
        geometry = _region_geometry(part, frame)
        if geometry is None:
            continue
        properties = {
            "objectType": "annotation",
            "classification": {"name": "Tissue", "color": list(TISSUE_COLOR)},
            "name": f"Tissue {index}",
            "isLocked": True,
            "measurements": {"Area mm²": float(f"{part.area * mm2_per_px:.6g}")},
        }
        place = uuid.uuid5(_slide_namespace(slide_id), f"tissue/{index}")
        features.append(_feature(str(place), geometry, properties))
    _write_features(path, features, frame, slide_id)


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
        features.append(_feature(region.id, geometry, properties))
    _write_features(path, features, frame, slide_id)


def _feature(name: str, geometry: str, properties: object) -> str:
    return f'{{"type":"Feature","id":{_json(name)},"geometry":{geometry},"properties":{_json(properties)}}}'


def _write_features(path: Path, features: Sequence[str], frame: Frame, slide_id: str) -> None:
    text = _head(frame, slide_id) + "\n" + ",\n".join(features) + "\n]}\n"
    with whole_file(path) as stream:
        stream.write(text.encode("ascii"))


def _measure_names() -> list[str]:
    return [f"{label} {unit}".strip() for label, unit in MEASURES.values()]


@dataclass(frozen=True)
class _Rounded:
    """A batch of nuclei in the file's frame: what of it is kept until enough are there to be made into text."""

    points: NDArray[np.float64]
    """(M, 2) on the 0.01 px grid, moved into the slide; not finite where the outline is not."""
    lengths: NDArray[np.int64]
    centers: NDArray[np.float64]
    measures: NDArray[np.float32]


class _NucleusText:
    """Makes nuclei into features' text, thousands at once by NumPy; those that need repair one by one."""

    def __init__(self, frame: Frame, slide_id: str) -> None:
        self._slide_id = slide_id
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

    def rounded(self, nuclei: Nuclei) -> _Rounded:
        """The batch on the file's grid, sharing no memory with it."""
        points = np.round(nuclei.vertices_px[nuclei.starts[0] : nuclei.starts[-1]] - self._offset, 2)
        np.clip(points, self._box[:2], self._box[2:], out=points)
        centers = np.round(nuclei.centroid_px - self._offset, 2)
        return _Rounded(points, np.diff(nuclei.starts), centers, nuclei.measures.copy())

    def features(self, parts: Sequence[_Rounded], first: int) -> list[str]:
        """The features of the nuclei of all parts, the first of which has the number ``first``."""
        points = np.concatenate([part.points for part in parts])
        lengths = np.concatenate([part.lengths for part in parts])
        centers = np.concatenate([part.centers for part in parts])
        measures = np.concatenate([part.measures for part in parts])
        starts = np.cumsum(lengths) - lengths
        sound = _sound(points, lengths)
        rings = iter(_ring_texts(points, starts[sound], lengths[sound]))
        identities = nucleus_ids(self._slide_id, first, len(lengths))
        finite = np.isfinite(measures).all(axis=1).tolist()
        middle, all_measures = self._middle, self._all_measures
        features = []
        for k, (is_sound, identity, row) in enumerate(
            zip(sound.tolist(), identities, measures.tolist(), strict=True)
        ):
            if is_sound:
                ring = next(rings)
            else:
                outline = points[starts[k] : starts[k] + lengths[k]]
                outline = outline[np.isfinite(outline).all(axis=1)]
                ring = _polygon(_repaired_outline(outline if len(outline) else centers[k : k + 1], self._box))
            values = all_measures % tuple(row) if finite[k] else self._some_measures(row)
            features.append(
                f'{{"type":"Feature","id":"{identity}","geometry":{{"type":"Polygon","coordinates":{ring}'
                f"{middle}{values}}}}}}}"
            )
        return features

    def _some_measures(self, row: list[float]) -> str:
        pairs = zip(self._labels, row, strict=True)
        return ",".join(f"{label}:{value:.6g}" for label, value in pairs if math.isfinite(value))


def _sound(points: NDArray[np.float64], lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which outlines are valid polygons with an area as they are, (N,)."""
    import shapely

    enough: NDArray[np.bool_] = lengths >= 3
    owner = np.repeat(np.arange(len(lengths)), lengths)
    enough[owner[~np.isfinite(points).all(axis=1)]] = False
    sound = np.zeros(len(lengths), bool)
    if enough.any():
        kept = enough[owner]
        # ring numbers must count up without gaps for shapely
        number = np.cumsum(enough) - 1
        shapes = shapely.polygons(shapely.linearrings(points[kept], indices=number[owner[kept]]))
        sound[enough] = np.logical_and(shapely.is_valid(shapes), shapely.area(shapes) > 0)
    return sound


def _version_5(namespace: bytes, names: Sequence[bytes]) -> list[str]:
    """As ``str(uuid.uuid5(namespace, name))`` of each name, in a fifth of the time."""
    digests = b"".join([hashlib.sha1(namespace + name, usedforsecurity=False).digest() for name in names])
    of = np.frombuffer(digests, np.uint8).reshape(-1, 20)[:, :16].copy()
    of[:, 6] = of[:, 6] & 0x0F | 0x50
    of[:, 8] = of[:, 8] & 0x3F | 0x80
    digits = np.frombuffer(of.tobytes().hex().encode("ascii"), np.uint8).reshape(-1, 32)
    text = np.full((len(names), 36), ord("-"), np.uint8)
    for start, stop, dashes in ((0, 8, 0), (8, 12, 1), (12, 16, 2), (16, 20, 3), (20, 32, 4)):
        text[:, start + dashes : stop + dashes] = digits[:, start:stop]
    flat = text.tobytes().decode("ascii")
    return [flat[k : k + 36] for k in range(0, len(flat), 36)]


def _ring_texts(
    points: NDArray[np.float64], starts: NDArray[np.int64], lengths: NDArray[np.int64]
) -> list[str]:
    """Each outline as a polygon's coordinates in JSON, counter-clockwise and closed; all are finite.

    Every number is laid out in a row of bytes of one width, and then what it does not need is left out.
    """
    if not len(starts):
        return []
    hundredths = np.rint(points * 100, where=np.isfinite(points), out=np.zeros_like(points)).astype(np.int64)
    # one more place than points, for the first again
    count = lengths + 1
    owner = np.repeat(np.arange(len(starts)), count)
    step = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    step[step == lengths[owner]] = 0
    here = hundredths[starts[owner] + step]
    from_first = here - hundredths[starts][owner]
    cross = from_first[:-1, 0] * from_first[1:, 1] - from_first[:-1, 1] * from_first[1:, 0]
    # the step from one outline's last place to the next one's first adds nothing: both are zero
    clockwise = np.add.reduceat(np.append(cross, 0), np.cumsum(count) - count) < 0
    turned = clockwise[owner]
    step[turned] = (lengths[owner] - 1 - step)[turned]
    here = hundredths[starts[owner] + step]

    digits = [len(str(int(np.abs(here[:, axis]).max()) // 100)) for axis in (0, 1)]
    width = sum(digits) + 12
    text = np.empty((len(here), width), np.uint8)
    shown = np.ones((len(here), width), bool)
    at = 0
    for axis, (before, after) in enumerate(((b"[", b","), (b"", b"],"))):
        text[:, at : at + len(before) + 1] = np.frombuffer(before + b"-", np.uint8)
        at += len(before)
        shown[:, at] = here[:, axis] < 0
        at += 1
        whole, rest = np.divmod(np.abs(here[:, axis]).astype(np.uint32), 100)
        for place in range(digits[axis] - 1, -1, -1):
            above, digit = np.divmod(whole, 10)
            text[:, at + place] = digit
            if place < digits[axis] - 1:
                shown[:, at + place] = whole > 0
            whole = above
        text[:, at : at + digits[axis]] += ord("0")
        at += digits[axis]
        text[:, at] = ord(".")
        text[:, at + 1], text[:, at + 2] = rest // 10 + ord("0"), rest % 10 + ord("0")
        text[:, at + 3 : at + 3 + len(after)] = np.frombuffer(after, np.uint8)
        at += 3 + len(after)
    flat = text[shown].tobytes().decode("ascii")
    ends = np.add.reduceat(np.count_nonzero(shown, axis=1), np.cumsum(count) - count).cumsum().tolist()
    # without the comma after an outline's last pair
    return [f"[[{flat[start : end - 1]}]]" for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def write_nuclei(path: Path, batches: Iterable[Nuclei], frame: Frame, slide_id: str) -> int:
    """Writes nuclei as gzip-compressed detections of class ``Nucleus``, batch by batch; returns their number.

    Every geometry is a valid polygon: an outline that crosses or touches itself is repaired and keeps its
    largest part, one without area becomes the half pixel around it, what reaches past the slide is moved to
    its edge. A measure that is not finite is left out. Equal nuclei in equal order give equal bytes however
    they are batched (no time, no name in the gzip header). Raises ResultWriteError.

    Memory bound: one batch, and the text of some 5,000 nuclei.
    """
    text = _NucleusText(frame, slide_id)
    with whole_file(path) as stream, Packed(stream) as packed:
        packed.write(_head(frame, slide_id))
        count = 0
        for parts in _gathered(text.rounded(batch) for batch in batches):
            features = text.features(parts, count)
            packed.write(("\n" if count == 0 else ",\n") + ",\n".join(features))
            count += len(features)
        packed.write("\n]}\n")
    return count


def _gathered(batches: Iterable[_Rounded]) -> Iterator[list[_Rounded]]:
    """The batches in portions of `_CHUNK` nuclei and a last smaller one, cut where need be; none is empty."""
    waiting: list[_Rounded] = []
    count = 0
    for batch in batches:
        ends = np.concatenate([[0], np.cumsum(batch.lengths)])
        start = 0
        while start < len(batch.lengths):
            stop = min(start + _CHUNK - count, len(batch.lengths))
            waiting.append(
                _Rounded(
                    batch.points[ends[start] : ends[stop]],
                    batch.lengths[start:stop],
                    batch.centers[start:stop],
                    batch.measures[start:stop],
                )
            )
            count += stop - start
            start = stop
            if count == _CHUNK:
                yield waiting
                waiting, count = [], 0
    if waiting:
        yield waiting
