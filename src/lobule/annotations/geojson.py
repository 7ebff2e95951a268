"""GeoJSON as QuPath, the Digital Slide Archive and others write it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from lobule.annotations.regions import Region
from lobule.annotations.shapes import FARTHEST_PX, polygon_of, polygonal, ring_of

__all__ = ["regions_from_geojson"]

_NAMES = ("classification", "class", "label", "group", "name")
_PASSED_OVER = ("Point", "MultiPoint", "LineString", "MultiLineString")


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")


def regions_from_geojson(
    content: bytes,
    tell: Callable[[str], None] | None = None,
    origin_px: tuple[int, int] = (0, 0),
    *,
    nuclei: bool = False,
) -> list[Region]:
    """The polygons of a GeoJSON document, in level-0 px. Raises ValueError, saying what is wrong.

    ``origin_px``: where on level 0 its coordinates begin, unless the document says so itself, as lobule's do.
    ``tell`` is told what `shapes.polygonal` did to each polygon that needed it. ``nuclei``: see `read_regions`.
    """
    try:
        document = json.loads(content.decode("utf-8-sig"), parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    regions: list[Region] = []
    try:
        _collect(_nuclei_of(document, tell) if nuclei else document, "", regions, tell)
    except RecursionError:
        raise ValueError("GeoJSON nested too deeply") from None
    x, y = _stated_origin(document) or origin_px
    if (x, y) == (0, 0):
        return regions
    from shapely import affinity

    return [Region(region.name, affinity.translate(region.geometry, x, y)) for region in regions]


def _stated_origin(document: Any) -> tuple[int, int] | None:
    """What lobule's own files say was subtracted from level-0 coordinates; None in others."""
    try:
        x, y = document["lobule"]["frame"]["geojson_offset_px"]
    except (TypeError, KeyError, ValueError):
        return None
    if not all(type(value) is int and abs(value) <= FARTHEST_PX for value in (x, y)):
        raise ValueError("geojson_offset_px is not two whole numbers of px on a slide")
    return x, y


def _nuclei_of(document: Any, tell: Callable[[str], None] | None) -> Any:
    """The document's features with QuPath's cells as their nuclei, and without annotations around what was detected."""
    features = document.get("features", [document]) if isinstance(document, dict) else document
    if not isinstance(features, list):
        return document
    kinds = [_object_type(feature) for feature in features]
    detected = not {"cell", "detection"}.isdisjoint(kinds)
    kept = []
    for feature, kind in zip(features, kinds, strict=True):
        case = None
        if isinstance(feature, dict) and isinstance(feature.get("nucleusGeometry"), dict):
            case = "is a cell"
            kept.append(feature | {"geometry": feature["nucleusGeometry"]})
        elif kind == "cell":
            case = "is a cell without a nucleus"
        elif kind == "annotation" and detected:
            case = "is an annotation beside detections"
        else:
            kept.append(feature)
        if case is not None and tell is not None:
            tell(case)
    return kept


def _object_type(feature: Any) -> str:
    """What QuPath calls a Feature: annotation, detection, cell, ...; "" where nobody says."""
    properties = feature.get("properties") if isinstance(feature, dict) else None
    if not isinstance(properties, dict):
        return ""
    # the second is how QuPath 0.3 spelled it
    return str(properties.get("objectType", properties.get("object_type", ""))).lower()


def _name_of(properties: Any) -> str:
    if not isinstance(properties, dict):
        return ""
    for key in _NAMES:
        value = properties.get(key)
        if isinstance(value, dict):
            names = value.get("names")
            value = ": ".join(map(str, names)) if isinstance(names, list) and names else value.get("name")
        if isinstance(value, str | int | float) and not isinstance(value, bool) and str(value):
            return str(value)
    return ""


def _list(item: dict[str, Any], key: str) -> list[Any]:
    value = item.get(key)
    if not isinstance(value, list):
        raise ValueError(f"{item.get('type')} without a list of {key}")
    return value


def _collect(item: Any, name: str, regions: list[Region], tell: Callable[[str], None] | None) -> None:
    if isinstance(item, list):
        for member in item:
            _collect(member, name, regions, tell)
        return
    if not isinstance(item, dict):
        raise ValueError(f"not GeoJSON: an object was expected, not {type(item).__name__}")
    kind = item.get("type")
    if kind == "FeatureCollection":
        _collect(_list(item, "features"), name, regions, tell)
    elif kind == "Feature":
        if item.get("geometry") is None:
            if tell is not None:
                tell("has no geometry")
        else:
            _collect(item["geometry"], _name_of(item.get("properties")), regions, tell)
    elif kind == "GeometryCollection":
        _collect(_list(item, "geometries"), name, regions, tell)
    elif kind == "Polygon":
        rings = [ring_of(ring) for ring in _list(item, "coordinates")]
        geometry = polygon_of(rings, tell) if rings else None
        if geometry is not None:
            regions.append(Region(name, geometry))
    elif kind == "MultiPolygon":
        parts = []
        for polygon in _list(item, "coordinates"):
            if not isinstance(polygon, list):
                raise ValueError("MultiPolygon: a polygon is not a list of rings")
            rings = [ring_of(ring) for ring in polygon]
            parts.append(polygon_of(rings, tell) if rings else None)
        _append_union(name, [part for part in parts if part is not None], regions)
    elif kind not in _PASSED_OVER:
        raise ValueError(f"not GeoJSON: an object of type {kind!r}"[:200])
    elif tell is not None:
        tell("is a point or a line, not an outline")


def _append_union(name: str, parts: list[Any], regions: list[Region]) -> None:
    import shapely

    geometry = polygonal(shapely.union_all(parts)) if parts else None
    if geometry is not None:
        regions.append(Region(name, geometry))
