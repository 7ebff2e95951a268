"""Maps and regions in memory, before they become files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lobule.geometry import WorkingFrame

if TYPE_CHECKING:
    from shapely import Polygon

__all__ = ["ScalarMap", "TumorRegion"]


@dataclass(frozen=True, eq=False)
class ScalarMap:
    """One number per cell of a working frame: ``values`` float32 (rows, columns), NaN where nothing was looked at.

    Cell (row j, column i) covers the frame's working pixel (i, j).
    """

    values: NDArray[np.float32]
    frame: WorkingFrame


@dataclass(frozen=True, eq=False)
class TumorRegion:
    """One region, its outline with holes in level-0 px; see RegionFinding for the numbers."""

    id: str
    polygon: Polygon
    area_mm2: float
    perimeter_mm: float
    longest_diameter_mm: float
    mean_probability: float | None
    blurred_share: float | None
