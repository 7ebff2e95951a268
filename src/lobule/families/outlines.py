"""Outlines of all nuclei of a label map at once: the cracks between pixels, put in order.

A crack is the side of a pixel of a nucleus beyond which lies something else. Walked with the nucleus on the
right, each crack has one next crack, found by looking at two pixels; the order along an outline comes from
doubling (where am I after 1, 2, 4, … steps), so that the number of steps of NumPy grows with the logarithm of
the longest outline and not with the number of nuclei.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["after", "before", "outer_outlines", "smoothed"]

_TOP, _RIGHT, _BOTTOM, _LEFT = range(4)
_MIDDLE_X = (0.5, 1.0, 0.5, 0.0)
_MIDDLE_Y = (0.0, 0.5, 1.0, 0.5)


def outer_outlines(
    labels: NDArray[np.int32], chosen: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The outer outline of each chosen label, closed without repeating its first point.

    ``labels`` (H, W), each label one 4-connected component; ``chosen`` (N,) labels that occur. Returns points
    (M, 2), (x, y) in pixels from the array's corner, and starts (N + 1,): outline k is
    ``points[starts[k]:starts[k + 1]]``. A point is the middle of a crack, from the topmost row's leftmost
    pixel on, the nucleus on the right (x to the right, y down). It is the outline that marching squares at
    half height gives, holes left out and pixels that touch by a corner kept apart.
    """
    height, width = labels.shape
    stride = width + 2
    padded = np.zeros((height + 2, stride), np.int32)
    padded[1:-1, 1:-1] = labels
    flat = padded.reshape(-1)
    wanted = np.zeros(int(labels.max(initial=0)) + 1, bool)
    wanted[chosen] = True

    above = np.flatnonzero(flat[stride:] != flat[:-stride])
    left = np.flatnonzero(flat[1:] != flat[:-1])
    cracks = [
        pixels[wanted[flat[pixels]]] for pixels in (above + stride, left, above, left + 1)
    ]  # top, right, bottom, left
    following = _following(flat, stride, cracks)

    of_top = flat[cracks[_TOP]]
    first = np.zeros(len(wanted), np.intp)
    # raster order: of several writes to one place the last stays, which here is the first crack
    first[of_top[::-1]] = np.arange(len(of_top) - 1, -1, -1)
    order, starts = _walked(following, first[chosen])

    y, x = np.divmod(np.concatenate(cracks), stride)
    points = np.empty((len(x), 2))
    sizes = [len(pixels) for pixels in cracks]
    # the padding's pixel lies before the array's first
    points[:, 0] = x + (np.repeat(_MIDDLE_X, sizes) - 1)
    points[:, 1] = y + (np.repeat(_MIDDLE_Y, sizes) - 1)
    return points[order], starts


def _following(flat: NDArray[np.int32], stride: int, cracks: list[NDArray[np.intp]]) -> NDArray[np.int32]:
    """The number of the crack that follows each, all cracks numbered through: top, right, bottom, left."""
    size = len(flat)
    number = np.empty(4 * size, np.int32)
    steps = (1, stride, -1, -stride)
    keys = []
    count = 0
    for side, pixels in enumerate(cracks):
        number[side * size + pixels] = np.arange(count, count + len(pixels), dtype=np.int32)
        count += len(pixels)
        ahead, outward = steps[side], steps[side - 1]
        own = flat[pixels]
        on = flat[pixels + ahead] == own
        # 4-connected: a pixel that touches by its corner only is not gone on to
        turned = on & (flat[pixels + (ahead + outward)] == own)
        go = np.array(
            [
                (side + 1) % 4 * size,
                side * size + ahead,
                (side + 3) % 4 * size + ahead + outward,
            ]
        )
        keys.append(pixels + go[on.view(np.int8) + turned.view(np.int8)])
    following: NDArray[np.int32] = number[np.concatenate(keys)]
    return following


def _walked(
    following: NDArray[np.int32], first: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """The cracks met from each ``first`` (N,) until it comes again, one walk after the other, and their starts."""
    lengths = np.zeros(len(first), np.int64)
    walking, walks = np.arange(len(first)), first[:, None]
    jump = following.astype(np.intp)
    ended: list[tuple[NDArray[np.intp], NDArray[np.intp]]] = []
    while len(walking):
        further = jump[walks]
        back = further == walks[:, :1]
        closed = back.any(axis=1)
        doubled = np.concatenate([walks, further], axis=1)
        if closed.any():
            lengths[walking[closed]] = walks.shape[1] + back[closed].argmax(axis=1)
            ended.append((walking[closed], doubled[closed]))
        walking, walks = walking[~closed], doubled[~closed]
        if len(walking):
            jump = jump[jump]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    order = np.empty(starts[-1], np.intp)
    for which, steps in ended:
        within = np.arange(steps.shape[1]) < lengths[which, None]
        order[(starts[which, None] + np.arange(steps.shape[1]))[within]] = steps[within]
    return order, starts


def after(values: NDArray[np.float64], starts: NDArray[np.int64]) -> NDArray[np.float64]:
    """For each point of closed outlines the value at the next point; the first follows the last."""
    moved = np.empty_like(values)
    moved[:-1] = values[1:]
    moved[starts[1:] - 1] = values[starts[:-1]]
    return moved


def before(values: NDArray[np.float64], starts: NDArray[np.int64]) -> NDArray[np.float64]:
    """As `after`, the value at the previous point."""
    moved = np.empty_like(values)
    moved[1:] = values[:-1]
    moved[starts[:-1]] = values[starts[1:] - 1]
    return moved


def smoothed(points: NDArray[np.float64], starts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Closed outlines, each point averaged with its two neighbors by (1, 2, 1)/4; takes away the staircase."""
    pairs = points + after(points, starts)
    return (pairs + before(pairs, starts)) / 4
