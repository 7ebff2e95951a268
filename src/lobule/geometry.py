"""Frames and the one place that converts and rounds between them.

Two frames cross room borders:

* the **slide frame**: level-0 pixels, origin at the top left corner of the level-0 pixel (0, 0);
* the **working frame**: pixels of a stated mpp on the same origin: working pixel (i, j) covers
  level-0 ``[i·sx, (i+1)·sx) × [j·sy, (j+1)·sy)`` where ``(sx, sy)`` is the scale.

Points are (x, y), sizes (width, height); arrays are [row, column]. Pixel *areas* are half open; a pixel's
center lies at +0.5. mpp is micrometers per pixel, a pair (x, y).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Box", "Mpp", "WorkingFrame"]


@dataclass(frozen=True, slots=True)
class Mpp:
    """Micrometers per pixel along x and y; finite and positive."""

    x: float
    y: float

    def __post_init__(self) -> None:
        for value in (self.x, self.y):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"mpp must be finite and positive, not {value!r}")

    @property
    def mean(self) -> float:
        """Geometric mean, so that ``mean**2`` is the area of a pixel in µm²."""
        return math.sqrt(self.x * self.y)

    @property
    def pixel_area_um2(self) -> float:
        """Area of one pixel in µm²."""
        return self.x * self.y


@dataclass(frozen=True, slots=True)
class Box:
    """Integer rectangle, half open: columns ``x0 ≤ x < x1``, rows ``y0 ≤ y < y1``. The frame is the user's."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def width(self) -> int:
        return self.x1 - self.x0

    @property
    def height(self) -> int:
        return self.y1 - self.y0

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.width, self.height

    def grown(self, margin: int) -> Box:
        """The box with ``margin`` pixels added on every side."""
        return Box(self.x0 - margin, self.y0 - margin, self.x1 + margin, self.y1 + margin)

    def clipped(self, width: int, height: int) -> Box:
        """The part inside ``[0, width) × [0, height)``; may be empty (width or height 0)."""
        x0, y0 = min(max(self.x0, 0), width), min(max(self.y0, 0), height)
        return Box(x0, y0, max(min(self.x1, width), x0), max(min(self.y1, height), y0))


@dataclass(frozen=True, slots=True)
class WorkingFrame:
    """Pixels of ``mpp`` laid over a slide of ``slide_size`` level-0 pixels of ``slide_mpp``.

    ``scale`` is level-0 pixels per working pixel along x and y (2.0 = half the resolution).
    """

    slide_size: tuple[int, int]
    slide_mpp: Mpp
    mpp: Mpp

    @property
    def scale(self) -> tuple[float, float]:
        return self.mpp.x / self.slide_mpp.x, self.mpp.y / self.slide_mpp.y

    @property
    def size(self) -> tuple[int, int]:
        """Working pixels that cover the slide, (width, height); the last may reach past its edge."""
        sx, sy = self.scale
        # 1e-6 of a pixel is noise of the division, not slide
        return (
            max(1, math.ceil(self.slide_size[0] / sx - 1e-6)),
            max(1, math.ceil(self.slide_size[1] / sy - 1e-6)),
        )

    def to_slide(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Continuous working (x, y) points, shape (..., 2), to continuous level-0 points."""
        level0: NDArray[np.float64] = np.multiply(points, self.scale, dtype=np.float64)
        return level0

    def from_slide(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Continuous level-0 (x, y) points, shape (..., 2), to continuous working points."""
        working: NDArray[np.float64] = np.divide(points, self.scale, dtype=np.float64)
        return working
