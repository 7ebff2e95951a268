"""Memory for pixels: new pages are dear, and decoders are slower on some addresses than on others."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lobule.slides.slide import RgbImage

__all__ = ["borrow", "empty_pixels", "fill"]

LARGEST_KEPT_BYTES = 4 * 1024 * 1024
"""Larger ones are rare and are taken and freed each time, so that no thread sits on them."""

OFF_VECTOR_BYTES = 8
"""Where rows begin on a whole vector (16 or 32 bytes) libjpeg-turbo writes past the caches, straight to
memory: a fifth to a quarter slower, and whoever reads the pixels next has to fetch them again."""


MOST_VIEWS = 64


class _Shelf(threading.local):
    def __init__(self) -> None:
        self.kept: dict[str, NDArray[np.uint8]] = {}
        self.views: dict[tuple[str, tuple[int, ...], Any], NDArray[Any]] = {}


_shelf = _Shelf()


def empty_pixels(height: int, width: int) -> RgbImage:
    """A new (height, width, 3) uint8 array, not filled, at an address that decoders write to fast."""
    bytes_ = height * width * 3
    pixels: RgbImage = np.empty(bytes_ + OFF_VECTOR_BYTES, np.uint8)[OFF_VECTOR_BYTES:]
    return pixels.reshape(height, width, 3)


def fill(pixels: RgbImage, color: tuple[int, int, int]) -> None:
    """Gives all of ``pixels`` (H, W, 3) one color, a row at a time: pixel by pixel takes ten times as long."""
    pixels[...] = (
        color[0]
        if color[0] == color[1] == color[2]
        else np.tile(np.array(color, np.uint8), (pixels.shape[1], 1))
    )


def borrow(name: str, shape: tuple[int, ...], dtype: Any = np.uint8) -> NDArray[Any]:
    """This thread's array of that name, not filled, C-contiguous; valid until it is borrowed again.

    ``shape`` and ``dtype`` may differ from one time to the next. Memory: the largest of each name, up to
    LARGEST_KEPT_BYTES, as long as the thread lives.
    """
    key = name, shape, dtype
    view = _shelf.views.get(key)
    if view is not None:
        return view
    needed = math.prod(shape) * np.dtype(dtype).itemsize
    kept = _shelf.kept.get(name)
    if kept is None or kept.size < needed:
        kept = np.empty(needed + OFF_VECTOR_BYTES, np.uint8)[OFF_VECTOR_BYTES:]
        if needed > LARGEST_KEPT_BYTES:
            large: NDArray[Any] = kept.view(dtype).reshape(shape)
            return large
        _shelf.kept[name] = kept
        _shelf.views.clear()  # some are of the smaller one
    if len(_shelf.views) >= MOST_VIEWS:
        _shelf.views.clear()
    lent: NDArray[Any] = kept[:needed].view(dtype).reshape(shape)
    _shelf.views[key] = lent
    return lent
