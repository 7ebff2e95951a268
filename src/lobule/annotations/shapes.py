"""From checked vertices to valid polygons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from shapely import MultiPolygon, Polygon

__all__ = ["FARTHEST_PX", "ellipse_in", "polygon_of", "polygonal", "ring_of"]

# level-0 pixels; a slide of 10^8 px would be 20 m wide
FARTHEST_PX = 1e8
_ELLIPSE_VERTICES = 256


def ring_of(positions: Any) -> NDArray[np.float64]:
    """Vertices (n, 2) of a ring given as a sequence of (x, y, …) numbers.

    Raises ValueError, saying what is wrong, for anything else: text, nan, fewer than three vertices.
    """
    if not isinstance(positions, Sequence) or isinstance(positions, str):
        raise ValueError("a ring is not a list of points")
    if not all(isinstance(p, Sequence) and not isinstance(p, str) and len(p) >= 2 for p in positions):
        raise ValueError("a point is not a pair of numbers")
    if not all(type(v) in (int, float) for p in positions for v in p[:2]):
        raise ValueError("a coordinate is not a number")
    try:
        ring = np.array([p[:2] for p in positions], np.float64)
    except OverflowError:
        raise ValueError("a coordinate is too large") from None
    if len(ring) < 3:
        raise ValueError(f"a polygon of {len(ring)} points")
    if not np.isfinite(ring).all():
        raise ValueError("a coordinate is not finite")
    if np.abs(ring).max() > FARTHEST_PX:
        raise ValueError(f"a coordinate beyond {FARTHEST_PX:.0e} px")
    return ring


def polygonal(geometry: Any, tell: Callable[[str], None] | None = None) -> Polygon | MultiPolygon | None:
    """The valid polygons in a geometry: repaired where rings cross, None where no area is left.

    What was done is told to ``tell``: "crosses itself" or "has no area".
    """
    import shapely

    valid = geometry.is_valid
    if not valid:
        geometry = shapely.make_valid(geometry)
    if geometry.geom_type not in ("Polygon", "MultiPolygon"):
        parts = [p for p in shapely.get_parts(geometry) if p.geom_type in ("Polygon", "MultiPolygon")]
        geometry = shapely.union_all(parts)
    if geometry.is_empty or geometry.area == 0:
        if tell is not None:
            tell("has no area")
        return None
    if tell is not None and not valid:
        tell("crosses itself")
    found: Polygon | MultiPolygon = geometry
    return found


def polygon_of(
    rings: Sequence[NDArray[np.float64]], tell: Callable[[str], None] | None = None
) -> Polygon | MultiPolygon | None:
    """A polygon from its outer ring and its holes; None where it has no area. ``tell`` as for `polygonal`."""
    import shapely

    whole = shapely.Polygon(rings[0], rings[1:])
    if whole.is_valid or len(rings) == 1:
        return polygonal(whole, tell)
    # repaired together, a hole that crosses the outline would become area where it lies outside, and two holes where
    # they overlap
    outer, *holes = (shapely.make_valid(shapely.Polygon(ring)) for ring in rings)
    if tell is not None:
        tell("crosses itself")
    return polygonal(shapely.difference(outer, shapely.union_all(holes)), tell)


def ellipse_in(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """The ellipse in the box that ``corners`` (n, 2) span, as 256 vertices."""
    low, high = corners.min(axis=0), corners.max(axis=0)
    angle = np.arange(_ELLIPSE_VERTICES) * (2 * np.pi / _ELLIPSE_VERTICES)
    ring: NDArray[np.float64] = (low + high) / 2 + np.stack([np.cos(angle), np.sin(angle)], 1) * (
        high - low
    ) / 2
    return ring
