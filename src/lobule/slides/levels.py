"""Levels of a pyramid from their sizes alone, and the frame around a read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from lobule.slides.reused_memory import fill
from lobule.slides.slide import Level, RgbImage

__all__ = ["build_levels", "read_clipped"]

ReadInside = Callable[[tuple[int, int], tuple[int, int]], RgbImage]


def _factor_interval(full: int, reduced: int) -> tuple[float, float]:
    """The open interval of factors d for which floor(full/d) or ceil(full/d) is ``reduced``."""
    high = full / (reduced - 1) if reduced > 1 else math.inf
    return full / (reduced + 1), high


def _nominal_factor(size0: tuple[int, int], size: tuple[int, int], previous: int) -> int | None:
    """The whole factor that both axes' sizes stand for, whichever way they were rounded; None: there is none.

    Small levels allow several: a power of two is what scanners mean, else a multiple of the level before.
    """
    low_x, high_x = _factor_interval(size0[0], size[0])
    low_y, high_y = _factor_interval(size0[1], size[1])
    low, high = max(low_x, low_y), min(high_x, high_y)
    first = math.floor(low) + 1
    if not first < high:
        return None
    power = int(2 ** math.ceil(math.log2(first)))
    if power < high:
        return power
    multiple = math.ceil(first / previous) * previous
    if multiple < high:
        return multiple
    ratio = math.sqrt((size0[0] / size[0]) * (size0[1] / size[1]))
    nearest = max(first, round(ratio))
    return nearest if nearest < high else first


def build_levels(
    sizes: Sequence[tuple[int, int]], tile_sizes: Sequence[tuple[int, int] | None] = ()
) -> tuple[tuple[Level, ...], tuple[int, ...]]:
    """Levels, finest first, from the images' (width, height), and the index of each in ``sizes``.

    ``sizes[0]`` is level 0. The downsample is the whole factor that the sizes stand for (a 4443 px wide
    slide's 2221 px level is halved, not divided by 2.0005), else exactly W0/Wk and H0/Hk. An image that is
    not a reduced copy (not smaller, or of another aspect) is left out.
    """
    tiles: list[tuple[int, int] | None] = list(tile_sizes) or [None] * len(sizes)
    width0, height0 = sizes[0]
    levels = [Level((width0, height0), (1.0, 1.0), tiles[0])]
    kept = [0]
    previous = 1
    for index in sorted(range(1, len(sizes)), key=lambda i: -(sizes[i][0] * sizes[i][1])):
        width, height = sizes[index]
        last = levels[-1].size
        if width > last[0] or height > last[1] or (width, height) == last:
            continue
        factor = _nominal_factor(sizes[0], (width, height), previous)
        if factor is not None and factor > 1:
            downsample = (float(factor), float(factor))
            previous = factor
        else:
            downsample = (width0 / width, height0 / height)
            # each axis may be off by the rounding of one pixel
            slack = 1.0 / width + 1.0 / height + 0.002
            if abs(math.log(downsample[0] / downsample[1])) > slack:
                continue
        levels.append(Level((width, height), downsample, tiles[index]))
        kept.append(index)
    return tuple(levels), tuple(kept)


def read_clipped(
    level_size: tuple[int, int],
    origin: tuple[int, int],
    size: tuple[int, int],
    background: tuple[int, int, int],
    read: ReadInside,
) -> RgbImage:
    """Asks ``read(origin, size)`` only for what lies inside the level and frames it with the background."""
    if size[0] < 0 or size[1] < 0:
        raise ValueError(f"a region's size is not negative: {size}")
    x0, y0 = max(origin[0], 0), max(origin[1], 0)
    x1, y1 = min(origin[0] + size[0], level_size[0]), min(origin[1] + size[1], level_size[1])
    inside = x1 > x0 and y1 > y0
    if inside and (x1 - x0, y1 - y0) == size:
        return read((x0, y0), size)
    framed = np.empty((size[1], size[0], 3), np.uint8)
    fill(framed, background)
    if inside:
        top, left = y0 - origin[1], x0 - origin[0]
        framed[top : top + y1 - y0, left : left + x1 - x0] = read((x0, y0), (x1 - x0, y1 - y0))
    return framed
