"""Nuclei: a U-Net's maps become instances, each with an outline and measures in µm (Kasturi et al. 2022).

A tile is read with a halo; a nucleus belongs to the tile whose kept center holds its centroid, so on a slide
every nucleus is counted once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lobule.errors import ModelOutputError
from lobule.families.instances import find_instances
from lobule.findings.nuclei import MEASURES, Nuclei
from lobule.geometry import Box, WorkingFrame
from lobule.models.card import Card
from lobule.slides.slide import RgbImage

__all__ = ["decode_tile", "describe_instances", "inside"]


def decode_tile(
    card: Card, maps: NDArray[np.generic], pixels: RgbImage, *, read: Box, kept: Box, frame: WorkingFrame
) -> Nuclei:
    """The nuclei that one tile owns.

    ``maps`` (1, 2, h, w): nucleus probability and normalized distance; ``pixels`` (h, w, 3) uint8; ``read``
    and ``kept`` are the tile's boxes in the working frame.
    """
    if maps.shape != (1, 2, *pixels.shape[:2]) or not np.isfinite(maps).all():
        raise ModelOutputError(
            card.name, f"a tile gives maps of shape {maps.shape} or numbers that are not finite"
        )
    probabilities = np.asarray(maps[0], np.float32)
    labels = find_instances(
        probabilities,
        mask_threshold=card.thresholds["mask"],
        marker_threshold=card.thresholds["marker"],
        min_area_px=max(1, round(card.thresholds["min_area_um2"] / frame.mpp.pixel_area_um2)),
    )
    return describe_instances(labels, probabilities[0], pixels, read=read, kept=kept, frame=frame)


def describe_instances(
    labels: NDArray[np.int32],
    probability: NDArray[np.float32],
    pixels: RgbImage,
    *,
    read: Box,
    kept: Box,
    frame: WorkingFrame,
) -> Nuclei:
    """Outlines and measures of the instances whose centroid lies in ``kept``.

    Area is the pixel count. Axes, eccentricity and orientation are those of the ellipse with the same second
    moments (each pixel counted with its own extent). Perimeter and solidity come from the smoothed outline.
    """
    import shapely

    from lobule.stain import haematoxylin

    count = int(labels.max(initial=0))
    if count == 0:
        return Nuclei.none()
    rows, columns = np.nonzero(labels)
    of = labels[rows, columns]
    area_px = np.bincount(of, minlength=count + 1).astype(np.float64)
    area_px[area_px == 0] = np.nan

    def mean(values: NDArray[np.floating]) -> NDArray[np.float64]:
        return np.bincount(of, weights=values, minlength=count + 1) / area_px

    center_x, center_y = mean(columns + 0.5), mean(rows + 0.5)
    owned = (
        (center_x + read.x0 >= kept.x0)
        & (center_x + read.x0 < kept.x1)
        & (center_y + read.y0 >= kept.y0)
        & (center_y + read.y0 < kept.y1)
    )
    chosen = np.flatnonzero(owned)
    if not len(chosen):
        return Nuclei.none()

    mpp = frame.mpp
    dx, dy = (columns + 0.5 - center_x[of]) * mpp.x, (rows + 0.5 - center_y[of]) * mpp.y
    # a pixel is a square, not a point: its own second moment is side²/12
    xx, yy, xy = mean(dx * dx) + mpp.x**2 / 12, mean(dy * dy) + mpp.y**2 / 12, mean(dx * dy)
    spread = np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    large, small = (xx + yy) / 2 + spread, np.maximum((xx + yy) / 2 - spread, 0)
    optical_density = haematoxylin(pixels)[rows, columns].astype(np.float64)
    od_mean = mean(optical_density)
    od_sd = np.sqrt(np.maximum(mean(optical_density**2) - od_mean**2, 0))
    area_um2 = area_px * mpp.pixel_area_um2

    outlines = _outlines(labels, chosen)
    in_um = [
        shapely.polygons(outline * (mpp.x, mpp.y)) if len(outline) >= 3 else shapely.Polygon()
        for outline in outlines
    ]
    perimeter_um = shapely.length(in_um)
    hull_um2 = shapely.area(shapely.convex_hull(in_um))
    measured = {
        "area_um2": area_um2[chosen],
        "perimeter_um": perimeter_um,
        "equivalent_diameter_um": np.sqrt(4 * area_um2[chosen] / np.pi),
        "major_axis_um": 4 * np.sqrt(large[chosen]),
        "minor_axis_um": 4 * np.sqrt(small[chosen]),
        "eccentricity": np.sqrt(1 - small[chosen] / large[chosen]),
        "solidity": np.minimum(shapely.area(in_um) / np.maximum(hull_um2, 1e-9), 1),
        "circularity": np.minimum(4 * np.pi * area_um2[chosen] / np.maximum(perimeter_um, 1e-9) ** 2, 1),
        "orientation_deg": np.degrees(0.5 * np.arctan2(2 * xy[chosen], (xx - yy)[chosen])),
        "haematoxylin_od_mean": od_mean[chosen],
        "haematoxylin_od_sd": od_sd[chosen],
        "probability": mean(probability[rows, columns].astype(np.float64))[chosen],
    }
    width, height = frame.slide_size
    origin = np.asarray([read.x0, read.y0])
    vertices = frame.to_slide(np.concatenate(outlines) + origin)
    return Nuclei(
        centroid_px=frame.to_slide(np.stack([center_x[chosen], center_y[chosen]], 1) + origin),
        starts=np.concatenate([[0], np.cumsum([len(outline) for outline in outlines])]).astype(np.int64),
        # a frame's last pixel may reach past the slide
        vertices_px=np.clip(vertices, 0, (width, height)).astype(np.float32),
        measures=np.stack([measured[name] for name in MEASURES], 1).astype(np.float32),
    )


def _outlines(labels: NDArray[np.int32], chosen: NDArray[np.intp]) -> list[NDArray[np.float64]]:
    """The outer outline of each chosen label, (n, 2) (x, y) in the label map's pixels, smoothed by (1, 2, 1)/4."""
    from scipy.ndimage import find_objects
    from skimage.measure import find_contours

    boxes = find_objects(labels)
    outlines = []
    for label in chosen:
        rows, columns = boxes[label - 1]
        mask = np.pad(labels[rows, columns] == label, 1).astype(np.float32)
        longest = max(find_contours(mask, 0.5), key=len)[:-1]
        smooth = (np.roll(longest, 1, 0) + 2 * longest + np.roll(longest, -1, 0)) / 4
        # contour coordinates are pixel centers of the padded crop
        outlines.append(smooth[:, ::-1] - 0.5 + (columns.start, rows.start))
    return outlines


def inside(nuclei: Nuclei, keep: NDArray[np.bool_]) -> Nuclei:
    """The nuclei where ``keep`` (N,) holds."""
    lengths = np.diff(nuclei.starts)
    return Nuclei(
        nuclei.centroid_px[keep],
        np.concatenate([[0], np.cumsum(lengths[keep])]).astype(np.int64),
        nuclei.vertices_px[np.repeat(keep, lengths)],
        nuclei.measures[keep],
    )
