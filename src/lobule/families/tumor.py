"""Tumor regions in two stages, after H2G-Net (Pedersen et al. 2022): patch classifier, then refinement.

Departures from the paper: the shipped networks are smaller; a slide keeps its aspect (``fit="pad"``); regions
below a stated area are dropped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from lobule.annotations.parts import connected_parts
from lobule.errors import ModelOutputError
from lobule.findings.maps import ScalarMap, TumorRegion
from lobule.geometry import Mpp, WorkingFrame
from lobule.models.card import Graph
from lobule.slides.slide import RgbImage

if TYPE_CHECKING:
    from shapely import Geometry, LinearRing, Polygon

__all__ = [
    "MIN_HOLE_MM2",
    "MIN_REGION_MM2",
    "cell_areas_mm2",
    "decode_patch",
    "heatmap_on_grid",
    "least_region_mm2",
    "longest_diameter_px",
    "parts_on_slide",
    "prepare_refinement",
    "refinement_frame",
    "tumor_mask",
    "tumor_regions",
]

MIN_REGION_MM2 = 0.02
"""Smaller regions are dropped: a third of a heatmap cell is below what the classifier can place."""
MIN_HOLE_MM2 = 0.01
"""Smaller holes are filled."""


def decode_patch(model: str, output: NDArray[np.generic]) -> float:
    """P(tumor) of one tile from the classifier's (1, 2) probabilities (normal, tumor)."""
    if output.shape != (1, 2) or not np.isfinite(output).all():
        raise ModelOutputError(
            model, f"a patch gives {output.shape} numbers or not finite ones, (1, 2) expected"
        )
    return float(output[0, 1])


def refinement_frame(
    slide_size: tuple[int, int], slide_mpp: Mpp, size_px: int, fit: Literal["pad", "squash"] = "pad"
) -> WorkingFrame:
    """The frame in which the whole slide fits a square of ``size_px``: its aspect kept, or squashed to fill it.

    H2G-Net squashes (Pedersen et al. 2022); pixels of such a frame are not square.
    """
    width_um, height_um = slide_size[0] * slide_mpp.x, slide_size[1] * slide_mpp.y
    if fit == "pad":
        width_um = height_um = max(width_um, height_um)
    return WorkingFrame(slide_size, slide_mpp, Mpp(width_um / size_px, height_um / size_px))


def heatmap_on_grid(heatmap: ScalarMap, grid: WorkingFrame, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Stage 1's map on another frame's pixels, (rows, columns) float32, bilinear between cell centers.

    Beyond the outermost centers the nearest cell holds; cells that were not looked at count as 0.
    """
    cells = np.nan_to_num(heatmap.values, nan=0.0).astype(np.float32)

    def weights(
        count: int, length: int, ratio: float
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
        at = np.clip((np.arange(length) + 0.5) * ratio - 0.5, 0, count - 1)
        low = np.floor(at).astype(np.intp)
        return low, np.minimum(low + 1, count - 1), (at - low).astype(np.float32)

    y0, y1, wy = weights(cells.shape[0], shape[0], grid.scale[1] / heatmap.frame.scale[1])
    x0, x1, wx = weights(cells.shape[1], shape[1], grid.scale[0] / heatmap.frame.scale[0])
    rows = cells[y0] * (1 - wy)[:, None] + cells[y1] * wy[:, None]
    return np.asarray(rows[:, x0] * (1 - wx) + rows[:, x1] * wx, np.float32)


def prepare_refinement(
    overview: RgbImage, heatmap: ScalarMap, frame: WorkingFrame, graph: Graph
) -> dict[str, NDArray[np.generic]]:
    """The inputs of the refinement graph: the slide at the top left of a white square, and the heatmap on it."""
    side = graph.tile_px
    pixels = np.full((side, side, 3), 255, np.uint8)
    height, width = min(overview.shape[0], side), min(overview.shape[1], side)
    pixels[:height, :width] = overview[:height, :width]
    guide = np.zeros((side, side, 1), np.float32)
    guide[:height, :width, 0] = heatmap_on_grid(heatmap, frame, (height, width))
    return {graph.inputs[0].name: pixels[None], graph.inputs[1].name: guide[None]}


def least_region_mm2(frame: WorkingFrame) -> float:
    """The least area of a tumor region: MIN_REGION_MM2, in a small field a tenth of the field."""
    slide_mm2 = frame.slide_size[0] * frame.slide_size[1] * frame.slide_mpp.pixel_area_um2 / 1e6
    return min(MIN_REGION_MM2, 0.1 * slide_mm2)


def cell_areas_mm2(map_: ScalarMap) -> NDArray[np.float64]:
    """The area of each of a map's cells (rows, columns), of the last ones as far as there is slide."""
    frame = map_.frame
    sides = [
        np.clip(size - np.arange(count) * step, 0, step) * um / 1e3
        for size, count, step, um in zip(
            frame.slide_size,
            map_.values.shape[::-1],
            frame.scale,
            (frame.slide_mpp.x, frame.slide_mpp.y),
            strict=True,
        )
    ]
    return np.outer(sides[1], sides[0])


def tumor_mask(map_: ScalarMap, threshold: float) -> NDArray[np.bool_]:
    """Cells at or above the threshold, without specks (`least_region_mm2`) and small holes (MIN_HOLE_MM2)."""
    mask: NDArray[np.bool_] = np.nan_to_num(map_.values, nan=0.0) >= threshold
    parts = connected_parts(mask, diagonal=False)
    cell_mm2 = map_.frame.mpp.pixel_area_um2 / 1e6
    areas_mm2 = np.asarray(parts.area * cell_mm2, np.float64)
    if parts.at_edge().any():
        # the last cells reach beyond the slide
        cells = np.bincount(parts.labels().ravel(), cell_areas_mm2(map_).ravel())
        areas_mm2 = np.asarray(cells[1:], np.float64)
    mask = mask & ~parts.painted(areas_mm2 < least_region_mm2(map_.frame))
    holes = connected_parts(~mask, diagonal=False)
    return mask | holes.painted(holes.area * cell_mm2 < MIN_HOLE_MM2)


def _edges(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of a ring's points: the edge that begins at each, and which way the ring turns there (0: straight on)."""
    edges = np.roll(points, -1, axis=0) - points
    before = np.roll(edges, 1, axis=0)
    return edges, np.sign(before[:, 0] * edges[:, 1] - before[:, 1] * edges[:, 0])


def _outline_um(ring: LinearRing, cell: Mpp) -> float:
    """The length of an outline (µm) along cells of that size, in µm, without the steps from cell to cell.

    These make a slanting edge up to 1.4 times as long. It turns left and right by turns, and of two edges that meet
    one is a cell long: the middles of its steps lie on the line itself. A corner stays where both its edges are
    longer, or where the outline turns the same way on either side of it, as that of a rectangle of any size does.
    """
    points = np.asarray(ring.coords)[:-1]
    points = points[_edges(points)[1] != 0]
    edges, turn = _edges(points)
    # lengths in µm are rounded
    long = (np.abs(edges) > 1.001 * np.array([cell.x, cell.y])).any(axis=1)
    same = turn == np.roll(turn, -1)
    corner = (long & np.roll(long, 1)) | (same & np.roll(same, 1))
    stops = np.stack([points, points + edges / 2], axis=1)
    path = stops[np.stack([corner, np.ones_like(corner)], axis=1)]
    steps = np.roll(path, -1, axis=0) - path
    return float(np.hypot(steps[:, 0], steps[:, 1]).sum())


def longest_diameter_px(polygon: Polygon, mpp: Mpp) -> float:
    """The longest distance between two points of the polygon, in µm."""
    points = np.asarray(polygon.convex_hull.exterior.coords) * (mpp.x, mpp.y)
    gaps = points[:, None] - points[None]
    return float(np.sqrt((gaps**2).sum(-1).max()))


def parts_on_slide(polygon: Polygon, frame: WorkingFrame, within: Geometry | None) -> list[Polygon]:
    """A polygon of a map's cells in level-0 px, as far as there is slide, and within a geometry of level-0 px.

    What the cut along ``within`` leaves of it below `least_region_mm2` is left out, as specks of the map are.
    """
    import shapely
    from shapely import affinity

    placed = affinity.scale(polygon, *frame.scale, origin=(0, 0))
    found = placed.intersection(shapely.box(0, 0, *frame.slide_size))
    least_px = 0.0
    if within is not None:
        found = found.intersection(within)
        # a field that is all one region may fall short of itself by rounding
        least_px = (1 - 1e-9) * least_region_mm2(frame) * 1e6 / frame.slide_mpp.pixel_area_um2
    return [part for part in shapely.get_parts(found) if part.geom_type == "Polygon" and part.area > least_px]


def tumor_regions(
    slide_id: str,
    map_: ScalarMap,
    mask: NDArray[np.bool_],
    polygons: Sequence[Polygon],
    blurred: ScalarMap | None,
    within: Geometry | None = None,
) -> tuple[TumorRegion, ...]:
    """Regions, largest first, from the mask's polygons (in mask cells, see polygons_from_mask).

    ``blurred`` holds 1 for a tile out of focus, 0 for a sharp one, NaN for one that was not judged; ``within``
    bounds the regions (level-0 px). The perimeter is that of the outline without the steps between cells.
    """
    import uuid

    from shapely import affinity

    mpp = map_.frame.slide_mpp
    regions = []
    for polygon in polygons:
        for part in parts_on_slide(polygon, map_.frame, within):
            area_mm2 = part.area * mpp.pixel_area_um2 / 1e6
            in_um = affinity.scale(part, mpp.x, mpp.y, origin=(0, 0))
            rings = (in_um.exterior, *in_um.interiors)
            regions.append(
                TumorRegion(
                    id="",
                    polygon=part,
                    area_mm2=area_mm2,
                    perimeter_mm=sum(_outline_um(ring, map_.frame.mpp) for ring in rings) / 1e3,
                    longest_diameter_mm=longest_diameter_px(part, mpp) / 1e3,
                    mean_probability=_mean_inside(map_, part),
                    blurred_share=None if blurred is None else _mean_inside(blurred, part),
                )
            )
    regions.sort(key=lambda region: (-region.area_mm2, region.polygon.bounds))
    return tuple(
        TumorRegion(
            str(uuid.uuid5(uuid.NAMESPACE_URL, f"lobule:{slide_id!a}:region:{number}")),
            region.polygon,
            region.area_mm2,
            region.perimeter_mm,
            region.longest_diameter_mm,
            region.mean_probability,
            region.blurred_share,
        )
        for number, region in enumerate(regions)
    )


def _mean_inside(map_: ScalarMap, polygon: Polygon) -> float | None:
    """Mean of the cells whose centers lie in the polygon (level-0 px); None where no judged cell does.

    A cell's center is that of its part on the slide: a small field is less than half of a cell.
    """
    import shapely

    sx, sy = map_.frame.scale
    width, height = map_.frame.slide_size
    x0, y0, x1, y1 = polygon.bounds
    columns = np.arange(max(0, math.floor(x0 / sx)), min(map_.values.shape[1], math.ceil(x1 / sx)))
    rows = np.arange(max(0, math.floor(y0 / sy)), min(map_.values.shape[0], math.ceil(y1 / sy)))
    if not len(columns) or not len(rows):
        return None
    values = map_.values[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    shapely.prepare(polygon)
    x, y = np.meshgrid(
        (columns * sx + np.minimum((columns + 1) * sx, width)) / 2,
        (rows * sy + np.minimum((rows + 1) * sy, height)) / 2,
    )
    inside = values[shapely.contains_xy(polygon, x, y) & np.isfinite(values)]
    return float(inside.mean(dtype=np.float64)) if inside.size else None
