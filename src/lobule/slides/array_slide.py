"""A slide that lies in memory: for tests, for fields cut by other programs, for phantoms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lobule.errors import SlideReadError, UnsupportedSlideError
from lobule.geometry import Mpp
from lobule.slides.levels import build_levels, read_clipped
from lobule.slides.slide import MppSource, RgbImage, Slide, SlideProperties

__all__ = ["ArraySlide"]


class ArraySlide(Slide):
    """``array`` (H, W, 3) uint8 RGB as level 0, ``levels`` its reduced copies, finest first.

    Nothing is copied. Raises UnsupportedSlideError for any other shape or dtype.
    """

    thread_safe = True

    def __init__(
        self,
        array: NDArray[np.uint8],
        mpp: Mpp | float | None = None,
        *,
        levels: Sequence[NDArray[np.uint8]] = (),
        mpp_source: MppSource = "option",
        background: tuple[int, int, int] = (255, 255, 255),
    ) -> None:
        images = [array, *levels]
        for image in images:
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
                raise UnsupportedSlideError(
                    None,
                    f"an array slide needs (height, width, 3) uint8 RGB, this is {image.shape} {image.dtype}",
                )
        if isinstance(mpp, (int, float)):
            mpp = Mpp(float(mpp), float(mpp))
        self.path = None
        sizes = [(image.shape[1], image.shape[0]) for image in images]
        self.levels, kept = build_levels(sizes)
        self._images: list[RgbImage] | None = [images[index] for index in kept]
        self.properties = SlideProperties(
            format="array",
            reader="array",
            mpp=mpp,
            mpp_source=None if mpp is None else mpp_source,
            mpp_problem="an array states no micrometers per pixel" if mpp is None else None,
            background=background,
        )

    @property
    def held_bytes(self) -> int:
        return sum(image.nbytes for image in self._images or ())

    @property
    def array(self) -> RgbImage:
        """Level 0, (H, W, 3) uint8; not a copy."""
        return self._open_images()[0]

    def _open_images(self) -> list[RgbImage]:
        if self._images is None:
            raise SlideReadError(None, "the slide is closed")
        return self._images

    def read_level(self, level: int, origin: tuple[int, int], size: tuple[int, int]) -> RgbImage:
        image = self._open_images()[level]

        def read(corner: tuple[int, int], extent: tuple[int, int]) -> RgbImage:
            (x, y), (width, height) = corner, extent
            return image[y : y + height, x : x + width].copy()

        return read_clipped(self.levels[level].size, origin, size, self.properties.background, read)

    def close(self) -> None:
        self._images = None
