"""The connected parts of a mask.

By runs of pixels, in NumPy: what SciPy's label does, without the quarter of a second that starting SciPy takes,
which the first tile of every slide would wait for. The tests hold it against SciPy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Parts", "connected_parts", "connected_runs", "ends"]


@dataclass(frozen=True, eq=False)
class Parts:
    """The connected parts of a mask, by runs of pixels along its rows, parts in order of their first pixel.

    ``row``, ``start``, ``end`` (R,): each run covers columns ``start ≤ x < end``; ``part`` (R,): the number of
    its part, 0 to P - 1; ``area`` (P,): pixels.
    """

    shape: tuple[int, int]
    row: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    part: NDArray[np.int64]
    area: NDArray[np.int64]

    def painted(self, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """A mask of the parts where ``chosen`` (P,) holds."""
        height, width = self.shape
        runs = chosen[self.part]
        # +1 where a run starts and -1 behind its end, summed along the rows; a spare column takes the last ends
        steps = np.zeros((height, width + 1), np.int8)
        steps[self.row[runs], self.start[runs]] = 1
        steps[self.row[runs], self.end[runs]] = -1
        filled: NDArray[np.bool_] = np.cumsum(steps, axis=1, dtype=np.int8)[:, :width].view(np.bool_)
        return np.ascontiguousarray(filled)

    def labels(self) -> NDArray[np.int32]:
        """A (H, W) label image: part number + 1, 0 where the mask is False."""
        height, width = self.shape
        steps = np.zeros((height, width + 1), np.int32)
        steps[self.row, self.start] = self.part + 1
        # a run's end is never the next one's start: a pixel that is False lies between
        steps[self.row, self.end] = -(self.part + 1)
        return np.cumsum(steps, axis=1, dtype=np.int32)[:, :width]

    def at_edge(self) -> NDArray[np.bool_]:
        """Which parts touch the image's edge, (P,)."""
        height, width = self.shape
        touching = (self.row == 0) | (self.row == height - 1) | (self.start == 0) | (self.end == width)
        found = np.zeros(len(self.area), np.bool_)
        found[self.part[touching]] = True
        return found


def connected_parts(mask: NDArray[np.bool_], *, diagonal: bool) -> Parts:
    """The parts of a (H, W) mask; ``diagonal``: pixels that meet at a corner are connected, too."""
    height, width = mask.shape
    # every row framed by False, so that runs neither wrap nor touch across rows
    stride = width + 2
    framed = np.zeros((height, stride), np.bool_)
    framed[:, 1:-1] = mask
    flat = framed.reshape(-1)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    start, end = edges[0::2], edges[1::2]
    part, count = connected_runs(start, end, stride=stride, diagonal=diagonal)
    row = start // stride
    area = np.bincount(part, weights=end - start, minlength=count).astype(np.int64)
    return Parts((height, width), row, start - row * stride - 1, end - row * stride - 1, part, area)


def connected_runs(
    start: NDArray[np.intp], end: NDArray[np.intp], *, stride: int, diagonal: bool
) -> tuple[NDArray[np.intp], int]:
    """The connected part, from 0, of each run ``start ≤ pixel < end`` (R,) of a flattened picture, and their number.

    Rows are ``stride`` long, runs in order, parts in order of their first. Runs of neighboring rows touch where they
    share a column, or with ``diagonal`` come within one of each other.
    """
    reach = 1 if diagonal else 0
    first = np.searchsorted(end, start + stride - reach, side="right")
    last = np.searchsorted(start, end + stride + reach, side="left")
    below = np.maximum(last - first, 0)
    one = np.repeat(np.arange(len(start)), below)
    other = np.arange(below.sum()) - np.repeat(np.cumsum(below) - below, below) + np.repeat(first, below)
    least = np.arange(len(start))
    while len(one):
        # of two parts that touch, the later becomes the earlier one's
        np.minimum.at(least, np.maximum(one, other), np.minimum(one, other))
        least = ends(least)
        one, other = least[one], least[other]
        apart = one != other
        one, other = one[apart], other[apart]
    alone = least == np.arange(len(least))
    return (np.cumsum(alone) - 1)[least], int(np.count_nonzero(alone))


def ends(toward: NDArray[np.intp]) -> NDArray[np.intp]:
    """Where each way ends, every step of which is ``toward`` (n,); the last step leads to itself."""
    while True:
        further = toward.take(toward)
        if np.array_equal(toward, further):
            return toward
        toward = further
