"""The obvious way from maps to nuclei, one nucleus at a time: what the fast one is held against."""

from __future__ import annotations

import numpy as np
import shapely
from scipy import ndimage
from skimage.color import separate_stains
from skimage.feature import graycomatrix
from skimage.measure import find_contours, regionprops
from skimage.segmentation import watershed

from lobule.families.chromatin import LEVEL_OD, LEVELS
from lobule.geometry import Box, Mpp
from lobule.stain.density import RUIFROK_HE

__all__ = ["chromatin_slowly", "describe_slowly", "find_slowly", "outline_slowly"]


def find_slowly(
    maps: np.ndarray,
    mask_threshold: float,
    depth: float | None = None,
    min_area_px: float = 1,
    split_px: float | None = None,
) -> np.ndarray:
    """Labels without gaps: the whole image is flooded, every hole looked at by itself."""
    mask = maps[0] > np.float32(mask_threshold)
    distance = own_distance(mask) if depth is None else maps[1]
    least = split_px if depth is None else depth
    markers = np.zeros(mask.shape, np.int32) if least is None else high_maxima(mask, distance, least)
    count = int(markers.max(initial=0))
    # of equal distances the later in reading order is the higher
    distance = distance.ravel().argsort(kind="stable").argsort().reshape(mask.shape)
    parts, part_count = ndimage.label(mask)
    for part in range(1, part_count + 1):
        if not markers[parts == part].any():
            count += 1
            markers[parts == part] = count
    labels = watershed(-distance, markers, mask=mask, connectivity=1)
    areas = np.bincount(labels.ravel())
    filled = labels.copy()
    holes, hole_count = ndimage.label(~mask, structure=np.ones((3, 3)))
    border = {*holes[0], *holes[-1], *holes[:, 0], *holes[:, -1]}
    for hole in set(range(1, hole_count + 1)) - border:
        inside = holes == hole
        around = set(labels[ndimage.binary_dilation(inside) & ~inside])
        if len(around) == 1 and inside.sum() <= areas[max(around)]:
            filled[inside] = max(around)
    result = np.zeros_like(filled)
    number = 0
    for label in range(1, count + 1):
        if (filled == label).sum() >= max(min_area_px, 1):
            number += 1
            result[filled == label] = number
    return result


def own_distance(mask: np.ndarray) -> np.ndarray:
    """Each pixel's distance to the nearest pixel outside its own part, beyond the array included; float32."""
    parts, count = ndimage.label(mask)
    distance = np.zeros(mask.shape, np.float32)
    for part in range(1, count + 1):
        rows, columns = np.nonzero(parts == part)
        outside = np.argwhere(np.pad(parts != part, 1, constant_values=True)) - 1
        for row, column in zip(rows, columns, strict=True):
            distance[row, column] = np.hypot(*(outside - (row, column)).T).min()
    return distance


def high_maxima(mask: np.ndarray, distance: np.ndarray, depth: float) -> np.ndarray:
    """Numbers the places that are connected above their own top less ``depth``, a part at a time."""
    parts, part_count = ndimage.label(mask)
    markers, count = np.zeros(mask.shape, np.int32), 0
    for part in range(1, part_count + 1):
        for top in np.unique(distance[parts == part]):
            places, place_count = ndimage.label((parts == part) & (distance >= np.float64(top) - depth))
            for place in range(1, place_count + 1):
                if distance[places == place].max() == top:
                    count += 1
                    markers[places == place] = count
    return markers


def outline_slowly(mask: np.ndarray) -> np.ndarray:
    """Marching squares' outline of largest extent around one nucleus, (n, 2) (x, y), not smoothed."""
    contours = find_contours(np.pad(mask, 1).astype(float), 0.5)
    outer = max(contours, key=lambda points: shapely.Polygon(points).envelope.area)[:-1]
    return outer[:, ::-1] - 0.5


def chromatin_slowly(mask: np.ndarray, density: np.ndarray) -> dict[str, float]:
    """Co-occurrence within one nucleus by scikit-image: what is outside is a level of its own, then left out."""
    levels = np.clip(np.floor(density / LEVEL_OD + 1e-4), 0, LEVELS - 1).astype(np.uint8)
    levels[~mask] = LEVELS
    angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
    table = graycomatrix(levels, [1], angles, levels=LEVELS + 1, symmetric=True)
    p = table[:LEVELS, :LEVELS].sum(axis=(2, 3)).astype(float)
    p /= max(p.sum(), 1)
    i, j = np.mgrid[:LEVELS, :LEVELS]
    return {
        "chromatin_contrast": float((p * (i - j) ** 2).sum()),
        "chromatin_entropy_bits": float(-(p[p > 0] * np.log2(p[p > 0])).sum()),
    }


def describe_slowly(
    labels: np.ndarray, probability: np.ndarray, pixels: np.ndarray, read: Box, kept: Box, mpp: Mpp
) -> list[tuple[tuple[float, float], dict[str, float], np.ndarray]]:
    """Centroid, measures and smoothed outline (all in working px) of what ``kept`` owns; square pixels only."""
    unit = RUIFROK_HE / np.linalg.norm(RUIFROK_HE, axis=1, keepdims=True)
    rest = np.cross(unit[0], unit[1])
    inverse = np.linalg.inv(np.vstack([unit, rest / np.linalg.norm(rest)]))
    stains = separate_stains(np.maximum(pixels, 1), inverse)[..., 0] * -np.log10(1e-6)
    found = []
    for region in regionprops(labels):
        row, column = region.centroid
        x, y = column + 0.5 + read.x0, row + 0.5 + read.y0
        if not (kept.x0 <= x < kept.x1 and kept.y0 <= y < kept.y1):
            continue
        mask = labels == region.label
        # each pixel a square: 1/12 of its own beside what its center adds
        spread = np.cov(region.coords.T, bias=True) + np.eye(2) / 12
        small, large = np.linalg.eigvalsh(spread)
        outline = outline_slowly(mask)
        smooth = (np.roll(outline, 1, 0) + 2 * outline + np.roll(outline, -1, 0)) / 4
        polygon = shapely.Polygon(smooth)
        corners = np.abs(
            np.sum(smooth[:, 0] * np.roll(smooth[:, 1], -1) - smooth[:, 1] * np.roll(smooth[:, 0], -1))
        )
        found.append(
            (
                (x, y),
                {
                    "area_um2": region.area * mpp.x**2,
                    "perimeter_um": polygon.length * mpp.x,
                    "major_axis_um": 4 * np.sqrt(large) * mpp.x,
                    "minor_axis_um": 4 * np.sqrt(small) * mpp.x,
                    "eccentricity": np.sqrt(1 - small / large),
                    "solidity": min(corners / 2 / polygon.convex_hull.area, 1),
                    "circularity": min(4 * np.pi * region.area / polygon.length**2, 1),
                    "haematoxylin_od_mean": stains[mask].mean(),
                    "haematoxylin_od_sd": stains[mask].std(),
                    **chromatin_slowly(mask, stains),
                    "probability": probability[mask].mean(dtype=np.float64),
                },
                smooth + np.array([read.x0, read.y0]),
            )
        )
    return found
