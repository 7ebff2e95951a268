"""Binary morphology with exact disks.

Written in NumPy rather than called from SciPy: starting SciPy takes longer than all of a slide's morphology,
and a slide's first tile waits for its tissue. The tests hold it against SciPy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lobule.annotations.parts import connected_parts

__all__ = ["close_disk", "dilate_disk", "drop_small", "erode_disk", "fill_small", "open_disk"]


def dilate_disk(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Dilation by the disk ``dx² + dy² ≤ radius²``; outside the image counts as False."""
    out = mask.copy()
    if radius < 1:
        return out
    height, width = mask.shape
    # from the disk's narrow top to its middle: each row's reach grows from that of the row before
    wide, reach = mask.copy(), 0
    for dy in range(min(radius, height - 1), -1, -1):
        half = min(int((radius * radius - dy * dy) ** 0.5 + 1e-9), width - 1)
        while reach < half:
            # a run that the image's edge cuts to `reach + 1` still leaves no gap
            step = min(half - reach, reach + 1)
            grown = wide.copy()
            grown[:, step:] |= wide[:, :-step]
            grown[:, :-step] |= wide[:, step:]
            wide, reach = grown, reach + step
        if dy == 0:
            out |= wide
        else:
            out[dy:] |= wide[:-dy]
            out[:-dy] |= wide[dy:]
    return out


def erode_disk(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Erosion by the disk; outside the image counts as True, so that borders are left alone."""
    return ~dilate_disk(~mask, radius)


def close_disk(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Dilation, then erosion, of the mask gone on beyond the image as its edge is.

    So a strip of glass along the edge stays one, however narrow: it is not taken for a gap in what is not seen.
    """
    reach = 2 * radius
    if reach < 1:
        return mask.copy()
    closed = erode_disk(dilate_disk(np.pad(mask, reach, mode="edge"), radius), radius)
    return closed[reach:-reach, reach:-reach]


def open_disk(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Erosion, then dilation."""
    return dilate_disk(erode_disk(mask, radius), radius)


def drop_small(mask: NDArray[np.bool_], area_px: float) -> NDArray[np.bool_]:
    """The mask without its 8-connected parts of fewer than ``area_px`` pixels."""
    parts = connected_parts(mask, diagonal=True)
    small = parts.area < area_px
    return parts.painted(~small) if small.any() else mask.copy()


def fill_small(mask: NDArray[np.bool_], area_px: float) -> NDArray[np.bool_]:
    """The mask with its holes of fewer than ``area_px`` pixels filled; the image's edge closes no hole."""
    parts = connected_parts(~mask, diagonal=False)
    holes = (parts.area < area_px) & ~parts.at_edge()
    return mask | parts.painted(holes) if holes.any() else mask.copy()
