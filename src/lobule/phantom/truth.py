"""The truth of a composed slide: regions as GeoJSON in the slide frame, written and read again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lobule.errors import AnnotationError
from lobule.geometry import WorkingFrame
from lobule.phantom.layout import UNIT_PX, Layout

if TYPE_CHECKING:
    from shapely import Polygon
    from shapely.geometry.base import BaseGeometry

__all__ = ["read_truth", "region_features", "truth_mask"]

# between the fields' whole numbers: no line passes through a corner where it could touch another or itself
_JUST_POSITIVE = 0.01

_COLORS = {
    "tumor": (200, 0, 60),
    "in situ": (230, 120, 0),
    "tissue": (120, 120, 120),
    "fat": (240, 210, 60),
    "gland": (120, 60, 200),
    "lymphocytes": (40, 80, 220),
    "unscanned": (0, 0, 0),
    "fold": (90, 50, 20),
    "blur": (0, 160, 160),
    "dust": (60, 60, 60),
    "pen": (0, 90, 0),
}


def region_features(layout: Layout) -> Iterator[dict[str, Any]]:
    """GeoJSON features, one per connected region: a Polygon in level-0 px with its class.

    Classes: tumor (in situ carcinoma included, which also comes as its own class), tissue (all of it) and
    the other layers and marks under their names. Borders are the layers' own, without their ragged noise,
    so a pixel may differ from the polygons within 20 px plus 16 px of interpolation.
    """
    cells, layers = layout.cells, layout.layers
    last = cells[-1] if layers[-1].name == "unscanned" else None

    def bare(field: NDArray[np.int8], over: list[NDArray[np.int8]]) -> NDArray[np.float32]:
        result = field.astype(np.float32)
        for cover in over:
            np.minimum(result, -cover.astype(np.float32), out=result)
        return result

    on_top = [] if last is None else [last]
    tumor = [cells[k] for k, layer in enumerate(layers) if layer.tumor]
    if tumor:
        yield from _features(
            "tumor", bare(np.max(tumor, axis=0), on_top), layout.cell_px, (0, 0), layout.size
        )
    for k, layer in enumerate(layers):
        if k == 0:
            field = bare(np.max(cells[: len(layers) - len(on_top)], axis=0), on_top)
            yield from _features("tissue", field, layout.cell_px, (0, 0), layout.size)
        elif not layer.tumor or layer.name == "in situ":
            field = bare(cells[k], [cells[j] for j in range(k + 1, len(layers))])
            yield from _features(layer.name, field, layout.cell_px, (0, 0), layout.size)
    for mark in layout.marks:
        yield from _features(
            mark.kind, mark.cells.astype(np.float32), layout.cell_px, mark.origin, layout.size
        )


def _features(
    name: str, field: NDArray[np.float32], cell_px: int, origin: tuple[int, int], size: tuple[int, int]
) -> Iterator[dict[str, Any]]:
    for polygon in _polygons(field, cell_px, origin, size):
        rings = [polygon.exterior, *polygon.interiors]
        yield {
            "type": "Feature",
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[x, y] for x, y in np.asarray(ring.coords).tolist()] for ring in rings],
            },
            "properties": {
                "objectType": "annotation",
                "classification": {"name": name, "color": list(_COLORS.get(name, (150, 150, 150)))},
            },
        }


def _polygons(
    field: NDArray[np.float32], cell_px: int, origin: tuple[int, int], size: tuple[int, int]
) -> list[Polygon]:
    """The places where a field is positive as valid polygons with holes, clipped to the slide."""
    import shapely
    from contourpy import contour_generator

    # one cell beyond the edge as at the edge, then outside: every line closes, and clipping follows
    padded = np.pad(np.pad(field, 1, mode="edge"), 1, constant_values=-127 / UNIT_PX)
    rings = []
    for line in contour_generator(z=padded).lines(_JUST_POSITIVE):
        points = (np.asarray(line) - 2 + np.array(origin) + 0.5) * cell_px
        if len(points) >= 4:
            rings.append(shapely.LinearRing(points))
    if not rings:
        return []
    area = shapely.build_area(shapely.GeometryCollection(rings))
    area = shapely.intersection(area, shapely.box(0, 0, *size))
    area = shapely.set_precision(area, 0.25)
    parts = [part for part in shapely.get_parts(area) if part.geom_type == "Polygon" and part.area > 0]
    return sorted(parts, key=lambda part: (-part.area, part.bounds))


def read_truth(path: str | PathLike[str]) -> list[tuple[str, BaseGeometry]]:
    """(class, polygon in level-0 px) of every region in a truth GeoJSON. Raises AnnotationError."""
    import shapely

    try:
        features = json.loads(Path(path).read_text(encoding="utf-8"))["features"]
        return [
            (str(f["properties"]["classification"]["name"]), shapely.geometry.shape(f["geometry"]))
            for f in features
        ]
    except (OSError, ValueError, KeyError, TypeError, shapely.errors.ShapelyError) as error:
        raise AnnotationError(
            path, f"is not a composed slide's truth ({type(error).__name__}: {error})"
        ) from error


def truth_mask(path: str | PathLike[str], class_: str, frame: WorkingFrame) -> NDArray[np.bool_]:
    """Whether each working pixel's center lies in a region of ``class_``, (height, width) of the frame."""
    from lobule.annotations import rasterize

    return rasterize([region for name, region in read_truth(path) if name == class_], frame)
