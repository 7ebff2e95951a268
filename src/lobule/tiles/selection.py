"""Which tiles of a grid lie on a mask."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lobule.geometry import WorkingFrame
from lobule.tiles.grid import TileGrid

__all__ = ["select", "tile_shares"]

# a share is a quotient of sums of areas: below this it differs from the limit by rounding alone
_ROUNDING = 1e-9


def _sums_between(
    values: NDArray[np.bool_] | NDArray[np.float64], edges: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Integrals along axis 0 of a piecewise constant function between fractional edges, (edges - 1, columns).

    Between two edges lie whole rows, less what the first leaves out of its row, and what the last takes of its own.
    """
    bytes_or_floats = values.view(np.uint8) if values.dtype == np.bool_ else values
    kind = np.uint32 if values.dtype == np.bool_ else np.float64
    rows = len(values)
    sums = np.zeros((len(edges) - 1, values.shape[1]))
    for row, (start, stop) in enumerate(pairwise(edges.tolist())):
        first, last = min(int(start), rows), min(int(stop), rows)
        sums[row] = bytes_or_floats[first:last].sum(axis=0, dtype=kind)
        if first < rows:
            sums[row] -= bytes_or_floats[first] * (start - first)
        if last < rows:
            sums[row] += bytes_or_floats[last] * (stop - last)
    return sums


def tile_shares(
    grid: TileGrid, mask: NDArray[np.bool_], mask_frame: WorkingFrame, grid_frame: WorkingFrame
) -> NDArray[np.float64]:
    """The share of each tile's kept box, as far as it lies on the slide, that a mask covers.

    mask: (H, W) bool on ``mask_frame``, a frame of the same slide with any mpp. Returns (rows, columns)
    float64 in [0, 1]; exact, with fractions of mask pixels at the tiles' edges weighted by area.
    Raises ValueError if mask or grid do not fit their frames, or the frames are of two slides.
    """
    if mask.shape != mask_frame.size[::-1] or mask.dtype != np.bool_:
        raise ValueError(
            f"a mask of shape {mask.shape} ({mask.dtype}) does not fit a frame of {mask_frame.size} px"
        )
    if grid.size_px != grid_frame.size:
        raise ValueError(f"a grid over {grid.size_px} px does not fit a frame of {grid_frame.size} px")
    if mask_frame.slide_size != grid_frame.slide_size:
        raise ValueError(f"frames of two slides: {mask_frame.slide_size} and {grid_frame.slide_size} px")
    edges = []
    for axis, count in ((1, grid.rows), (0, grid.columns)):
        on_slide = np.arange(count + 1) * (grid.stride_px * grid_frame.scale[axis])
        edges.append(np.minimum(on_slide, grid_frame.slide_size[axis]) / mask_frame.scale[axis])
    y_edges, x_edges = edges
    rows_summed = _sums_between(mask, y_edges)
    covered = _sums_between(np.ascontiguousarray(rows_summed.T), x_edges).T
    areas = np.diff(y_edges)[:, None] * np.diff(x_edges)[None, :]
    shares: NDArray[np.float64] = np.divide(covered, areas, out=np.zeros_like(covered), where=areas > 0)
    np.clip(shares, 0.0, 1.0, out=shares)
    return shares


def select(
    grid: TileGrid,
    mask: NDArray[np.bool_],
    mask_frame: WorkingFrame,
    grid_frame: WorkingFrame,
    min_share: float = 0.25,
) -> NDArray[np.int64]:
    """The tiles of which the mask covers more than ``min_share``, as indices in grid order.

    A tile at the slide's edge is judged by the part of it that lies on the slide. The default is
    H2G-Net's: kept where more than 25 % is tissue. Arguments and errors as in `tile_shares`.
    """
    shares = tile_shares(grid, mask, mask_frame, grid_frame)
    return np.flatnonzero(shares.ravel() > min_share + _ROUNDING).astype(np.int64)
