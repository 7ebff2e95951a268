"""The XML of ASAP, of Aperio ImageScope and of Halo."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, TreeBuilder

import numpy as np
from numpy.typing import NDArray

from lobule.annotations.regions import Region
from lobule.annotations.shapes import ellipse_in, polygon_of, polygonal, ring_of

if TYPE_CHECKING:
    from shapely import MultiPolygon, Polygon

__all__ = ["regions_from_xml"]

_DEEPEST = 64


def _parse(content: bytes) -> Element:
    """The document's root. A DTD is refused before it can define an entity."""
    from xml.parsers import expat

    parser = expat.ParserCreate()
    builder = TreeBuilder()
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            raise ValueError("XML nested too deeply for an annotation")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: object) -> int:
        raise ValueError("XML with a document type or entities is not read; save it without")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.ExternalEntityRefHandler = refuse
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        reason = expat.errors.messages[error.code]
        raise ValueError(f"not XML: {reason} at line {error.lineno}") from None
    except LookupError as error:
        raise ValueError(f"not XML: {error}") from None
    return builder.close()


def regions_from_xml(content: bytes, tell: Callable[[str], None] | None = None) -> list[Region]:
    """The areas of an ASAP, ImageScope or Halo document. Raises ValueError, saying what is wrong.

    With ``tell`` it is told "has fewer than 3 points" of each polygon left out for that, which is an error
    without, and what `shapes.polygonal` did.
    """
    root = _parse(content)
    if root.tag == "ASAP_Annotations":
        return _from_asap(root, tell)
    if root.tag == "Annotations":
        return _from_layers(root, tell)
    raise ValueError(f"XML of <{root.tag[:60]}>: neither ASAP, ImageScope nor Halo")


def _points(elements: list[Element]) -> list[tuple[float, float]]:
    points = []
    for element in elements:
        texts = element.get("X", ""), element.get("Y", "")
        try:
            points.append((float(texts[0]), float(texts[1])))
        except ValueError:
            raise ValueError(f"coordinates {texts[0][:20]!r}, {texts[1][:20]!r} are not numbers") from None
    return points


def _order(element: Element) -> int:
    text = element.get("Order", "")
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"Order {text[:20]!r} is not a number") from None


def _too_few(points: list[tuple[float, float]], tell: Callable[[str], None] | None) -> bool:
    """Whether a polygon is left out, and told of, for having no inside; an empty one is no polygon yet."""
    if tell is None or len(points) >= 3:
        return False
    tell("has fewer than 3 points")
    return True


def _from_asap(root: Element, tell: Callable[[str], None] | None) -> list[Region]:
    regions = []
    for annotation in root.iter("Annotation"):
        if annotation.get("Type") not in ("Polygon", "Rectangle", "Spline"):
            continue
        vertices = annotation.findall("Coordinates/Coordinate")
        if all("Order" in vertex.attrib for vertex in vertices):
            vertices.sort(key=_order)
        points = _points(vertices)
        if _too_few(points, tell):
            continue
        geometry = polygon_of([ring_of(points)], tell)
        if geometry is not None:
            group = annotation.get("PartOfGroup", "")
            regions.append(Region("" if group == "None" else group, geometry))
    return regions


# what GeoShape or Halo's Type say, and ImageScope's own numbers where there is no GeoShape
_SHAPES = {
    "polygon": "polygon",
    "area": "polygon",
    "0": "polygon",
    "rectangle": "rectangle",
    "1": "rectangle",
    "ellipse": "ellipse",
    "2": "ellipse",
}


def _ring_in_layer(region: Element, tell: Callable[[str], None] | None) -> NDArray[np.float64] | None:
    shape = _SHAPES.get((region.get("GeoShape") or region.get("Type") or "0").lower())
    vertices = region.findall("Vertices/Vertex") or region.findall("Vertices/V")
    # an empty region is what these tools leave behind after deletion
    if shape is None or not vertices:
        return None
    points = _points(vertices)
    if len(points) == 2 and shape != "polygon":
        (x0, y0), (x1, y1) = points
        points = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    if _too_few(points, tell):
        return None
    ring = ring_of(points)
    return ellipse_in(ring) if shape == "ellipse" and len(ring) == 4 else ring


def _from_layers(root: Element, tell: Callable[[str], None] | None) -> list[Region]:
    """ImageScope and Halo: layers of regions, some of which are holes in their layer."""
    import shapely

    regions = []
    for layer in root.iter("Annotation"):
        drawn: list[tuple[str, Polygon | MultiPolygon]] = []
        holes: list[Polygon | MultiPolygon] = []
        for region in layer.findall("Regions/Region"):
            ring = _ring_in_layer(region, tell)
            geometry = None if ring is None else polygon_of([ring], tell)
            if geometry is None:
                continue
            if region.get("NegativeROA", "0") == "1":
                holes.append(geometry)
            else:
                drawn.append((region.get("Text") or layer.get("Name") or "", geometry))
        tree = shapely.STRtree(holes)  # thousands of holes are not all asked of each of thousands of regions
        for name, geometry in drawn:
            # a hole is cut out of what it lies in; an island drawn within it stays
            met = [holes[k] for k in sorted(tree.query(geometry, predicate="intersects"))]
            cut = [hole for hole in met if hole.area <= geometry.area or not hole.covers(geometry)]
            left = polygonal(shapely.difference(geometry, shapely.union_all(cut))) if cut else geometry
            if left is not None:
                regions.append(Region(name, left))
            elif tell is not None:
                tell(f"region {name!r} is all hole")
    return regions
