"""Stain vectors of an image (Macenko 2009) and color transfer (Reinhard 2001)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lobule.stain.density import optical_density

__all__ = ["macenko", "reinhard", "reinhard_statistics"]

# Reinhard's matrices: RGB to LMS cone responses, and log LMS to l, alpha, beta
_RGB_TO_LMS = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
_LMS_TO_LAB = np.diag([3**-0.5, 6**-0.5, 2**-0.5]) @ np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]])


def macenko(
    rgb: NDArray[np.uint8], *, least_density: float = 0.065, angle_percentile: float = 1.0
) -> NDArray[np.float64]:
    """The densities of haematoxylin and eosin in R, G, B of this image, (2, 3), rows of length 1.

    Densities below ``least_density`` in any channel are glass (0.15 in natural logarithms, as in the
    paper). The others lie near the plane of their two largest principal axes; the stains are the extreme
    directions in it, taken at the percentiles ``angle_percentile`` and 100 minus that. The stain that
    absorbs more red is haematoxylin. Raises ValueError where fewer than 100 pixels are stained or the
    image holds one color alone.
    """
    density = optical_density(rgb).reshape(-1, 3).astype(np.float64)
    stained = density[(density >= least_density).all(axis=1)]
    if len(stained) < 100:
        raise ValueError(f"only {len(stained)} stained pixels: too few to estimate stains from")
    _, axes = np.linalg.eigh(np.cov(stained, rowvar=False))
    plane = axes[:, [2, 1]]
    plane[:, plane.sum(axis=0) < 0] *= -1
    on_plane = stained @ plane
    angles = np.arctan2(on_plane[:, 1], on_plane[:, 0])
    ends = np.percentile(angles, [angle_percentile, 100.0 - angle_percentile])
    if not ends[1] - ends[0] > 1e-3:
        raise ValueError("one color alone: its two stains cannot be told apart")
    stains = np.stack([np.cos(ends), np.sin(ends)], axis=1) @ plane.T
    # noise may push an extreme direction a little below zero, which no stain absorbs
    stains = np.maximum(stains, 0.0)
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    ordered: NDArray[np.float64] = stains[np.argsort(-stains[:, 0], kind="stable")]
    return ordered


def _to_lab(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    lms = (np.maximum(rgb, 1) / 255.0) @ _RGB_TO_LMS.T
    lab: NDArray[np.float64] = np.log10(lms) @ _LMS_TO_LAB.T
    return lab


def reinhard_statistics(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean and standard deviation of l, alpha, beta over an image, (2, 3): the target of `reinhard`."""
    lab = _to_lab(rgb).reshape(-1, 3)
    return np.stack([lab.mean(axis=0), lab.std(axis=0)])


def reinhard(rgb: NDArray[np.uint8], target: NDArray[np.floating]) -> NDArray[np.uint8]:
    """The image with the mean and spread of its l, alpha, beta channels made those of ``target``.

    rgb: (H, W, 3) uint8; target: (2, 3) as `reinhard_statistics` gives it. A channel without spread keeps
    none. Returns (H, W, 3) uint8. Raises ValueError where the target has another shape.
    """
    if np.shape(target) != (2, 3):
        raise ValueError(f"a target is (2, 3), not {np.shape(target)}")
    lab = _to_lab(rgb)
    mean, spread = reinhard_statistics(rgb)
    gain = np.divide(target[1], spread, out=np.zeros(3), where=spread > 1e-9)
    moved = (lab - mean) * gain + target[0]
    lms = 10.0 ** (moved @ np.linalg.inv(_LMS_TO_LAB).T)
    out: NDArray[np.uint8] = np.rint(np.clip(lms @ np.linalg.inv(_RGB_TO_LMS).T, 0.0, 1.0) * 255).astype(
        np.uint8
    )
    return out
