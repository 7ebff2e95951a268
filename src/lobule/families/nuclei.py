"""Nuclei: a U-Net's maps become instances, each with an outline and measures in µm (Kasturi et al. 2022).

A tile is read with a halo; a nucleus belongs to the tile whose kept center holds its centroid, so on a slide
every nucleus is counted once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lobule.errors import ModelOutputError
from lobule.families.chromatin import co_occurrence
from lobule.families.instances import Splitting, split_near
from lobule.families.outlines import after, before, outer_outlines, smoothed
from lobule.findings.nuclei import MEASURES, Nuclei
from lobule.geometry import Box, Mpp, WorkingFrame
from lobule.models.card import Card
from lobule.slides.slide import RgbImage

__all__ = [
    "OUTLINE_TOLERANCE_PX",
    "SIDES",
    "decode_tile",
    "describe_instances",
    "from_all_sides",
    "inside",
    "splitting_of",
]

OUTLINE_TOLERANCE_PX = 0.15
"""How far, in working pixels, an outline's kept vertices may pass by the others: 0.04 µm at 0.25 µm a pixel."""
SIDES = 8
"""Positions of an image: four turns, each as it is and mirrored."""


def from_all_sides(look: Callable[[RgbImage], NDArray[np.generic]], pixels: RgbImage) -> NDArray[np.float32]:
    """The mean of what ``look`` gives for the image turned and mirrored in all eight ways, brought back.

    ``look``: (h, w, 3) uint8 → maps (…, h, w). A network that learned from turned images still judges them a little
    differently; of tissue no side is the upper one.
    """
    total = None
    for turns in range(4):
        for mirrored in (False, True):
            shown = np.rot90(pixels, turns)
            maps = look(np.ascontiguousarray(shown[:, ::-1] if mirrored else shown))
            back = np.rot90(maps[..., ::-1] if mirrored else maps, -turns, axes=(-2, -1))
            total = back.astype(np.float32) if total is None else total + back
    assert total is not None
    mean: NDArray[np.float32] = np.divide(total, SIDES, dtype=np.float32)
    return mean


def decode_tile(
    card: Card, maps: NDArray[np.generic], pixels: RgbImage, *, read: Box, kept: Box, frame: WorkingFrame
) -> Nuclei:
    """The nuclei that one tile owns.

    ``maps`` (1, 1, h, w) or (1, 2, h, w): nucleus probability and, for the learned way, the normalized distance;
    ``pixels`` (h, w, 3) uint8; ``read`` and ``kept`` are the tile's boxes in the working frame. The card's
    thresholds choose how touching nuclei are told apart (`Splitting.of`); ``min_area_um2`` is the least area. What
    the maps hold beyond the slide is left out.
    Raises ModelOutputError where the maps do not fit.
    """
    splitting, min_area_um2 = splitting_of(card)
    # a number that is not finite shows in the least or the largest, NaN in both
    fits = maps.ndim == 4 and maps.shape[0] == 1 and splitting.maps <= maps.shape[1] <= 2
    if not fits or maps.shape[2:] != pixels.shape[:2] or not np.isfinite([maps.min(), maps.max()]).all():
        raise ModelOutputError(
            card.name,
            f"a tile of {pixels.shape[1]} × {pixels.shape[0]} px gives maps of shape {maps.shape} or numbers that "
            f"are not finite; the {splitting.way} way reads (1, {splitting.maps}, height, width)",
        )
    inner = read.clipped(*frame.size)
    rows, columns = (
        slice(inner.y0 - read.y0, inner.y1 - read.y0),
        slice(inner.x0 - read.x0, inner.x1 - read.x0),
    )
    probabilities, pixels, read = (
        np.asarray(maps[0, :, rows, columns], np.float32),
        pixels[rows, columns],
        inner,
    )
    labels, at = split_near(
        probabilities,
        Box(kept.x0 - read.x0, kept.y0 - read.y0, kept.x1 - read.x0, kept.y1 - read.y0),
        splitting,
        um_per_px=frame.mpp.mean,
    )
    return describe_instances(
        labels,
        probabilities[0, at.y0 : at.y1, at.x0 : at.x1],
        pixels[at.y0 : at.y1, at.x0 : at.x1],
        read=Box(read.x0 + at.x0, read.y0 + at.y0, read.x0 + at.x1, read.y0 + at.y1),
        kept=kept,
        frame=frame,
        seen=read,
        min_area_px=round(min_area_um2 / frame.mpp.pixel_area_um2),
    )


def splitting_of(card: Card) -> tuple[Splitting, float]:
    """How the thresholds of a nuclei model tell nuclei apart, and the least area in µm²."""
    return Splitting.of(card.thresholds), card.thresholds["min_area_um2"]


def describe_instances(
    labels: NDArray[np.int32],
    probability: NDArray[np.float32],
    pixels: RgbImage,
    *,
    read: Box,
    kept: Box,
    frame: WorkingFrame,
    seen: Box | None = None,
    min_area_px: float = 1,
) -> Nuclei:
    """Outlines and measures of the instances of ``min_area_px`` or more whose centroid lies in ``kept``.

    ``labels`` (h, w), each one 4-connected component, cover the working pixels ``read``; of ``seen``, which holds
    ``read`` and by default is it, the network saw every pixel. A nucleus at the edge of ``seen`` or of the slide
    touches the border: no more of it is known.

    Area is the pixel count. Axes, eccentricity and orientation are those of the ellipse with the same second
    moments (each pixel counted with its own extent). Perimeter and solidity come from the smoothed outline;
    what is kept of it are the vertices needed to stay within `OUTLINE_TOLERANCE_PX` of it.
    """
    runs = _LabelRuns.of(labels)
    count = int(runs.label.max(initial=0))
    length, middle = runs.length.astype(np.float64), runs.x + runs.length / 2

    def total(values: NDArray[np.floating]) -> NDArray[np.float64]:
        return np.asarray(np.bincount(runs.label, weights=values, minlength=count + 1), np.float64)

    area_px = total(length)
    area_px[area_px == 0] = np.nan
    center_x, center_y = total(length * middle) / area_px, total(length * (runs.y + 0.5)) / area_px
    chosen = np.flatnonzero(
        (area_px >= min_area_px)
        & (center_x + read.x0 >= kept.x0)
        & (center_x + read.x0 < kept.x1)
        & (center_y + read.y0 >= kept.y0)
        & (center_y + read.y0 < kept.y1)
    )
    if not len(chosen):
        return Nuclei.none()

    touching = _touching(runs, count, read, (seen or read).clipped(*frame.size))[chosen]
    mpp = frame.mpp
    dx, dy = (middle - center_x[runs.label]) * mpp.x, (runs.y + 0.5 - center_y[runs.label]) * mpp.y
    # a run of n pixel squares has the second moment n²/12 along itself, and 1/12 across
    xx = total(length * (dx * dx + (length * mpp.x) ** 2 / 12)) / area_px
    yy = total(length * (dy * dy)) / area_px + mpp.y**2 / 12
    xy = total(length * (dx * dy)) / area_px
    xx, yy, xy, area_px = xx[chosen], yy[chosen], xy[chosen], area_px[chosen]
    spread = np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    large, small = (xx + yy) / 2 + spread, np.maximum((xx + yy) / 2 - spread, 0)
    area_um2 = area_px * mpp.pixel_area_um2

    points, starts = outer_outlines(labels, chosen)
    points = smoothed(points, starts)
    outlines = _Outlines.of(points, starts, mpp)
    measured = {
        "area_um2": area_um2,
        "perimeter_um": outlines.perimeter_um,
        "equivalent_diameter_um": np.sqrt(4 * area_um2 / np.pi),
        "major_axis_um": 4 * np.sqrt(large),
        "minor_axis_um": 4 * np.sqrt(small),
        "eccentricity": np.sqrt(1 - small / large),
        "solidity": outlines.solidity,
        "circularity": np.minimum(4 * np.pi * area_um2 / np.maximum(outlines.perimeter_um, 1e-9) ** 2, 1),
        "orientation_deg": _orientation_deg(xx, yy, xy),
        **_intensities(runs, chosen, probability, pixels),
        "nearest_distance_um": np.full(len(chosen), np.nan),
        "touches_border": touching.astype(np.float64),
    }
    width, height = frame.slide_size
    origin = np.asarray([read.x0, read.y0])
    vertices = frame.to_slide(outlines.vertices + origin)
    return Nuclei(
        centroid_px=frame.to_slide(np.stack([center_x[chosen], center_y[chosen]], 1) + origin),
        starts=outlines.starts,
        # a frame's last pixel may reach past the slide
        vertices_px=np.clip(vertices, 0, (width, height)).astype(np.float32),
        measures=np.stack([measured[name] for name in MEASURES], 1).astype(np.float32),
    )


def _touching(runs: _LabelRuns, count: int, read: Box, seen: Box) -> NDArray[np.bool_]:
    """Which labels, 0 to ``count``, have a pixel on the edge of ``seen``."""
    x, y = runs.x + read.x0, runs.y + read.y0
    at_edge = (x <= seen.x0) | (x + runs.length >= seen.x1) | (y <= seen.y0) | (y + 1 >= seen.y1)
    touching = np.zeros(count + 1, bool)
    touching[runs.label[at_edge]] = True
    return touching


def _orientation_deg(
    xx: NDArray[np.float64], yy: NDArray[np.float64], xy: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Of the major axis, from the x axis toward y (down), in (-90, 90]; 0 for what is as long in any direction.

    Rounding must not decide between the two names of one direction, nor make one up.
    """
    degrees = np.degrees(0.5 * np.arctan2(2 * xy, xx - yy))
    degrees[degrees < -90 + 1e-6] = 90
    degrees[np.hypot(2 * xy, xx - yy) < 1e-9 * (xx + yy)] = 0
    return degrees


@dataclass(frozen=True)
class _LabelRuns:
    """Maximal stretches of one label in a row, in raster order, (n,) each; the background is left out."""

    y: NDArray[np.intp]
    x: NDArray[np.intp]
    length: NDArray[np.intp]
    label: NDArray[np.int32]

    @staticmethod
    def of(labels: NDArray[np.int32]) -> _LabelRuns:
        height, width = labels.shape
        ended = np.zeros((height, width + 1), np.int32)
        ended[:, :-1] = labels
        flat = ended.reshape(-1)
        edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        if len(flat) and flat[0]:
            edges = np.concatenate([np.zeros(1, np.intp), edges])
        label = flat[edges]
        shown = label > 0
        starts = edges[shown]
        length = np.diff(edges, append=len(flat))[shown]
        y, x = np.divmod(starts, width + 1)
        return _LabelRuns(y, x, length, label[shown])


def _intensities(
    runs: _LabelRuns,
    chosen: NDArray[np.intp],
    probability: NDArray[np.float32],
    pixels: RgbImage,
) -> dict[str, NDArray[np.float64]]:
    """Mean probability, and of haematoxylin's density mean, SD and texture, of each chosen label."""
    from lobule.stain import haematoxylin

    place = np.full(int(chosen[-1]) + 1, -1)
    place[chosen] = np.arange(len(chosen))
    number = place[np.minimum(runs.label, chosen[-1])]
    shown = (number >= 0) & (runs.label <= chosen[-1])
    number, y, x, length = number[shown], runs.y[shown], runs.x[shown], runs.length[shown]
    first = np.cumsum(length) - length
    places = np.arange(first[-1] + length[-1]) + np.repeat(y * pixels.shape[1] + x - first, length)
    area = np.bincount(number, weights=length)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(number, weights=np.add.reduceat(values, first)) / area

    single = haematoxylin(pixels.reshape(-1, 3).take(places, axis=0))
    density = single.astype(np.float64)
    od_mean = mean(density)
    contrast, entropy = co_occurrence(
        places, np.repeat(number, length), single, count=len(chosen), shape=pixels.shape[:2]
    )
    return {
        "haematoxylin_od_mean": od_mean,
        "haematoxylin_od_sd": np.sqrt(np.maximum(mean(density * density) - od_mean**2, 0)),
        "chromatin_contrast": contrast,
        "chromatin_entropy_bits": entropy,
        "probability": mean(probability.reshape(-1).take(places).astype(np.float64)),
    }


@dataclass(frozen=True)
class _Outlines:
    """What is kept of smoothed outlines: measures (N,), and the vertices (M, 2) in pixels from ``starts`` on."""

    perimeter_um: NDArray[np.float64]
    solidity: NDArray[np.float64]
    vertices: NDArray[np.float64]
    starts: NDArray[np.int64]

    @staticmethod
    def of(points: NDArray[np.float64], starts: NDArray[np.int64], mpp: Mpp) -> _Outlines:
        import shapely

        first = starts[:-1]
        steps = after(points, starts) - points
        perimeter_um = np.add.reduceat(np.hypot(steps[:, 0] * mpp.x, steps[:, 1] * mpp.y), first)
        crossed = points[:, 0] * steps[:, 1] - points[:, 1] * steps[:, 0]
        area = np.abs(np.add.reduceat(crossed, first)) / 2
        owner = np.repeat(np.arange(len(first)), np.diff(starts))
        # with the nucleus on the right an outline turns right where its hull does
        arriving = before(steps, starts)
        right = arriving[:, 0] * steps[:, 1] > arriving[:, 1] * steps[:, 0]
        hull = shapely.area(shapely.convex_hull(shapely.linestrings(points[right], indices=owner[right])))
        polygons = shapely.polygons(shapely.linearrings(points, indices=owner))
        kept = shapely.simplify(polygons, OUTLINE_TOLERANCE_PX, preserve_topology=False)
        # of something very thin nothing may be left
        lost = shapely.is_empty(kept)
        kept[lost] = polygons[lost]
        vertices = shapely.get_coordinates(kept)
        ends = np.cumsum(shapely.get_num_coordinates(kept))
        open_ = np.ones(len(vertices), bool)
        open_[ends - 1] = False
        return _Outlines(
            perimeter_um,
            np.minimum(area / np.maximum(hull, 1e-9), 1),
            vertices[open_],
            np.concatenate([[0], ends - np.arange(1, len(ends) + 1)]),
        )


def inside(nuclei: Nuclei, keep: NDArray[np.bool_]) -> Nuclei:
    """The nuclei where ``keep`` (N,) holds."""
    lengths = np.diff(nuclei.starts)
    return Nuclei(
        nuclei.centroid_px[keep],
        np.concatenate([[0], np.cumsum(lengths[keep])]).astype(np.int64),
        nuclei.vertices_px[np.repeat(keep, lengths)],
        nuclei.measures[keep],
    )
