"""The one module that turns "this box at this mpp" into level, crop and resize."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lobule.geometry import Box, Mpp, WorkingFrame
from lobule.slides.resample import needed_pixels, resample, tidy_step
from lobule.slides.resolution import require_mpp
from lobule.slides.slide import Level, RgbImage, Slide

__all__ = ["choose_level", "read_mirrored", "read_overview", "read_region", "working_frame"]

LEVEL_TOLERANCE = 1e-3
LARGEST_READ_PX = 1_048_576
"""Level pixels read at a time where they are resampled from a copy: 3 MB."""


def working_frame(slide: Slide, mpp: float, snap: float = 0.05) -> WorkingFrame:
    """The frame of square pixels of ``mpp`` µm on this slide.

    If a level's own mpp lies within ``snap`` (a share) of it on both axes, the frame takes that level's own
    mpp, which need not be square: nothing is resampled, and a network sees pixels up to ``snap`` off its
    mpp, less than scanners' nominal values differ. ``snap=0`` turns it off. Raises MissingResolutionError.
    """
    own = require_mpp(slide)
    best: tuple[float, Mpp] | None = None
    for level in slide.levels:
        level_mpp = Mpp(own.x * level.downsample[0], own.y * level.downsample[1])
        off = max(abs(level_mpp.x / mpp - 1.0), abs(level_mpp.y / mpp - 1.0))
        if off <= snap and (best is None or off < best[0]):
            best = off, level_mpp
    return WorkingFrame(slide.size, own, Mpp(mpp, mpp) if best is None else best[1])


def choose_level(slide: Slide, frame: WorkingFrame) -> int:
    """The coarsest level with pixels on neither axis coarser (by 0.1 %) than the working pixels; else 0."""
    sx, sy = frame.scale
    allowed = 1.0 + LEVEL_TOLERANCE
    fitting = [
        index
        for index, level in enumerate(slide.levels)
        if level.downsample[0] <= sx * allowed and level.downsample[1] <= sy * allowed
    ]
    return max(fitting, key=lambda index: slide.levels[index].downsample, default=0)


def read_region(slide: Slide, frame: WorkingFrame, box: Box) -> RgbImage:
    """The working pixels of ``box``, (box.height, box.width, 3) uint8; outside the slide it is background.

    Read from `choose_level` and area-averaged down to the working pixels; along an axis where the frame is
    finer than level 0, bilinear (the only upsampling there is; a caller that asks for it warns). A pixel
    comes out the same whichever box it is read through, to one gray level. Memory: the result and about
    16 MB, whatever the slide and the level: large boxes are read in parts; besides, what the slide's reader
    keeps for the next region. Raises SlideReadError.
    """
    return _read(slide, frame, box, 1)


def read_mirrored(slide: Slide, frame: WorkingFrame, box: Box) -> RgbImage:
    """As `read_region`, but beyond the slide's edges lies its mirror image, the outermost pixels doubled.

    For networks that look around a pixel: a small field's edge is a cut through tissue, not the end of it.
    """
    width, height = frame.size
    if box == box.clipped(width, height):
        return read_region(slide, frame, box)
    x, y = _mirrored(box.x0, box.x1, width), _mirrored(box.y0, box.y1, height)
    seen = Box(int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1)
    return read_region(slide, frame, seen)[y - seen.y0][:, x - seen.x0]


def _mirrored(start: int, stop: int, size: int) -> NDArray[np.intp]:
    """The places in [0, size) of ``start`` … ``stop - 1`` when the axis is mirrored at both ends, again and again."""
    place = np.arange(start, stop) % (2 * size)
    return np.minimum(place, 2 * size - 1 - place)


def read_overview(slide: Slide, frame: WorkingFrame, workers: int = 1) -> RgbImage:
    """The whole slide in the working frame, (frame.size[1], frame.size[0], 3) uint8, in bounded memory.

    ``workers`` threads read parts of it, where the slide allows several; the result is the same.
    """
    width, height = frame.size
    return _read(slide, frame, Box(0, 0, width, height), workers if slide.thread_safe else 1)


def _read(slide: Slide, frame: WorkingFrame, box: Box, workers: int) -> RgbImage:
    width, height = box.size
    if width <= 0 or height <= 0:
        return np.empty((max(height, 0), max(width, 0), 3), np.uint8)
    level, (step_x, step_y) = _level_and_step(slide, frame)
    fits = width * step_x * height * step_y <= LARGEST_READ_PX
    if step_x == int(step_x) and step_y == int(step_y) and (fits or workers == 1):
        factor = int(step_x), int(step_y)
        if fits and factor == (1, 1):
            return slide.read_level(level, (box.x0, box.y0), box.size)
        # a reader that averages tile by tile needs no copy of the level, so that even large boxes are one read
        means = slide.read_means(level, (box.x0, box.y0), box.size, factor)
        if means is not None:
            return means
    if not fits:
        if width * height > 1:
            return _read_in_parts(slide, frame, box, _parts(slide, level, box, (step_x, step_y)), workers)
        # one working pixel of millions of level pixels: average it from a finer frame
        finer = 16
        inner = WorkingFrame(frame.slide_size, frame.slide_mpp, Mpp(frame.mpp.x / finer, frame.mpp.y / finer))
        inner_box = Box(box.x0 * finer, box.y0 * finer, box.x1 * finer, box.y1 * finer)
        return resample(
            read_region(slide, inner, inner_box),
            (inner_box.x0, inner_box.y0),
            (box.x0, box.y0),
            box.size,
            (float(finer), float(finer)),
            inner.size,
        )
    x0, x1 = needed_pixels(box.x0, box.x1, step_x)
    y0, y1 = needed_pixels(box.y0, box.y1, step_y)
    pixels = slide.read_level(level, (x0, y0), (x1 - x0, y1 - y0))
    return resample(pixels, (x0, y0), (box.x0, box.y0), box.size, (step_x, step_y), slide.levels[level].size)


_last_steps: tuple[tuple[Level, ...], WorkingFrame, tuple[int, tuple[float, float]]] | None = None
"""What was found last, for which levels and frame: thousands of regions are read in one frame."""


def _level_and_step(slide: Slide, frame: WorkingFrame) -> tuple[int, tuple[float, float]]:
    """The level to read and its pixels per working pixel (x, y)."""
    global _last_steps
    last = _last_steps
    if last is not None and last[0] is slide.levels and last[1] is frame:
        return last[2]
    level = choose_level(slide, frame)
    sx, sy = frame.scale
    dx, dy = slide.levels[level].downsample
    found = level, (tidy_step(sx / dx), tidy_step(sy / dy))
    _last_steps = slide.levels, frame, found
    return found


def _parts(slide: Slide, level: int, box: Box, step: tuple[float, float]) -> list[Box]:
    """Cuts ``box`` into parts of at most LARGEST_READ_PX level pixels: bands of whole rows where these are not
    too long, or where the level has no tiles: strips, which run across all of it, are then decoded once (those
    that two bands share may be twice). A row that alone is too long is cut; the reader keeps its strips for the
    next part."""
    columns = min(box.width, max(1, math.floor(LARGEST_READ_PX / (step[0] * step[1]))))
    rows = min(box.height, max(1, math.floor(LARGEST_READ_PX / (step[0] * step[1] * columns))))
    tiled = slide.levels[level].tile_size is not None
    if tiled and rows * step[1] < 512 and columns > rows:
        # long bands of few rows decode every tile many times: blocks about as high as wide instead
        side = max(1, math.floor(math.sqrt(LARGEST_READ_PX / (step[0] * step[1]))))
        columns, rows = min(box.width, side), min(box.height, side)
    parts = [
        Box(x, y, min(x + columns, box.x1), min(y + rows, box.y1))
        for y in range(box.y0, box.y1, rows)
        for x in range(box.x0, box.x1, columns)
    ]
    if tiled and box.width > box.height:
        # along the shorter side first, so that tiles that two parts share are still at hand
        parts.sort(key=lambda part: (part.x0, part.y0))
    return parts


def _read_in_parts(slide: Slide, frame: WorkingFrame, box: Box, parts: list[Box], workers: int) -> RgbImage:
    result = np.empty((box.height, box.width, 3), np.uint8)

    def place(part: Box) -> None:
        result[part.y0 - box.y0 : part.y1 - box.y0, part.x0 - box.x0 : part.x1 - box.x0] = _read(
            slide, frame, part, 1
        )

    if workers > 1 and len(parts) > 1:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(min(workers, len(parts))) as pool:
            for _ in pool.map(place, parts):
                pass
    else:
        for part in parts:
            place(part)
    return result
