"""From a nucleus map and a distance map to one label a nucleus: marker-based watershed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["find_instances"]


def find_instances(
    maps: NDArray[np.float32], *, mask_threshold: float, marker_threshold: float, min_area_px: float
) -> NDArray[np.int32]:
    """Returns the label map of the nuclei in ``maps``, labels 1…n without gaps, 0 outside.

    ``maps`` (2, H, W) float32: the probability of nucleus and the distance to the nucleus's own border over
    its largest, both in [0, 1]. The mask is where the probability exceeds ``mask_threshold``; markers are the
    4-connected parts of it whose distance exceeds ``marker_threshold``. From the markers the distance is
    flooded downhill within the mask; a part of the mask without a marker becomes one nucleus of its own.
    Holes that one nucleus encloses, and that are no larger than it, are filled; nuclei of fewer than
    ``min_area_px`` pixels are removed. Every label is one 4-connected component.

    What is decided about a nucleus depends on the nuclei it touches only, not on where in the array it lies.
    Raises ValueError where ``maps`` has another shape.
    """
    from scipy import ndimage
    from skimage.segmentation import watershed

    if maps.ndim != 3 or maps.shape[0] != 2:
        raise ValueError(f"maps must be (2, height, width), not {maps.shape}")
    probability, distance = maps
    mask = probability > mask_threshold
    if not mask.any():
        return np.zeros(mask.shape, np.int32)
    markers, count = ndimage.label(mask & (distance > marker_threshold), output=np.int32)
    parts, part_count = ndimage.label(mask, output=np.int32)
    marked = np.zeros(part_count + 1, bool)
    marked[parts[markers > 0]] = True
    marked[0] = True
    alone = ~marked[parts]
    # Numbers of unmarked parts follow those of the markers; gaps are closed at the end.
    markers[alone] = parts[alone] + count
    labels = watershed(-distance, markers, mask=mask, connectivity=1).astype(np.int32, copy=False)
    _fill_holes(labels)
    return _without_small(labels, min_area_px)


def _fill_holes(labels: NDArray[np.int32]) -> None:
    """Fills, in place, each background part that touches one label only, not the border, and is no larger."""
    from scipy import ndimage

    holes, count = ndimage.label(labels == 0, structure=np.ones((3, 3)), output=np.int32)
    if count == 0:
        return
    inner = np.ones(count + 1, bool)
    for edge in (holes[0], holes[-1], holes[:, 0], holes[:, -1]):
        inner[edge] = False
    inner[0] = False
    if not inner.any():
        return
    lowest = np.full(count + 1, np.iinfo(np.int32).max, np.int32)
    highest = np.zeros(count + 1, np.int32)
    for here, beside in (
        ((slice(1, None), slice(None)), (slice(None, -1), slice(None))),
        ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
    ):
        for hole, label in ((holes[here], labels[beside]), (holes[beside], labels[here])):
            touching = (hole > 0) & (label > 0)
            np.minimum.at(lowest, hole[touching], label[touching])
            np.maximum.at(highest, hole[touching], label[touching])
    areas = np.bincount(labels.ravel())
    fill = inner & (lowest == highest)
    fill &= np.bincount(holes.ravel(), minlength=count + 1) <= areas[np.where(fill, highest, 0)]
    inside = fill[holes]
    labels[inside] = highest[holes[inside]]


def _without_small(labels: NDArray[np.int32], min_area_px: float) -> NDArray[np.int32]:
    areas = np.bincount(labels.ravel())
    kept = areas >= max(min_area_px, 1)
    kept[0] = False
    number = np.cumsum(kept, dtype=np.int32)
    number[~kept] = 0
    return number[labels]
