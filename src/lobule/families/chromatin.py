"""How coarse chromatin is: gray-level co-occurrence of haematoxylin's density within each nucleus (Haralick 1973).

Density is cut into `LEVELS` levels of `LEVEL_OD` each, the same for every nucleus and slide, the last open above.
Pairs are neighboring working pixels of one nucleus in the four directions (right, down and both diagonals), either
way round, all in one matrix p(i, j).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEVELS", "LEVEL_OD", "co_occurrence"]

LEVELS = 16
LEVEL_OD = 0.1
_BITS = 4


def co_occurrence(
    places: NDArray[np.intp],
    owner: NDArray[np.intp],
    density: NDArray[np.floating],
    *,
    count: int,
    shape: tuple[int, int],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Contrast Σ p(i, j) (i − j)² and entropy −Σ p(i, j) log₂ p(i, j), in levels² and bits, of ``count`` nuclei.

    ``places`` (n,): pixels of the flattened array of ``shape``; ``owner`` (n,): the nucleus each belongs to, from 0;
    ``density`` (n,): haematoxylin's there. Both are 0 for a nucleus without two neighboring pixels. Needs 2 KB a
    nucleus.
    """
    height, width = shape
    stride = width + 1
    # an empty column and row keep a step from going round the edge; what is empty equals no nucleus
    coded = np.zeros((height + 1) * stride + 1, np.int32)
    places = places + places // width
    # a density on the edge of two levels belongs to the upper one, whatever float32 makes of it
    levels = np.minimum(density * np.float32(1 / LEVEL_OD) + np.float32(1e-4), LEVELS - 1).astype(np.int32)
    here = ((owner + 1).astype(np.int32) << _BITS) | levels
    coded[places] = here
    cells = LEVELS * LEVELS
    first = here << _BITS
    pairs = np.empty((4, len(here)), np.intp)
    for pair, step in zip(pairs, (1, stride - 1, stride, stride + 1), strict=True):
        there = coded.take(places + step)
        # the same nucleus: they differ in the level's bits alone; what is no pair is counted where no nucleus is
        same = (here ^ there) < LEVELS
        np.multiply(first | (there & (LEVELS - 1)), same, out=pair)
    table = np.bincount(pairs.reshape(-1), minlength=(count + 1) * cells)[cells:].reshape(count, cells)
    total = np.maximum(table.sum(axis=1), 1)
    i, j = np.divmod(np.arange(cells), LEVELS)
    contrast = table @ ((i - j) ** 2).astype(np.float64) / total
    square = table.reshape(count, LEVELS, LEVELS)
    both_ways = (square + square.transpose(0, 2, 1)).reshape(count, cells)
    number = np.arange(int(both_ways.max(initial=0)) + 1)
    times_log = number * np.log2(np.maximum(number, 1))
    entropy = np.log2(2 * total) - times_log.take(both_ways).sum(axis=1) / (2 * total)
    # one level alone: what is left of the difference is rounding
    most = both_ways.max(axis=1, initial=0)
    entropy[(most == 2 * total) | (most == 0)] = 0
    return contrast, entropy
