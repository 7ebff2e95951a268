"""What every reader owes: inherited by the tests of each."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from slides.painted import Picture

from lobule.errors import SlideReadError
from lobule.geometry import Mpp
from lobule.slides import Slide


class SlideContract:
    """A subclass gives ``opened``: a slide that shows ``picture``, its first pixel at ``corner``."""

    corner = (0, 0)
    tolerance = 0
    """Gray levels lost to compression."""
    level_tolerance = 1
    mpp: Mpp | None = Mpp(0.5, 0.5)

    @pytest.fixture
    def slide(self, opened: Slide) -> Iterator[Slide]:
        yield opened
        opened.close()

    def test_states_the_mpp_that_was_written(self, slide: Slide) -> None:
        if self.mpp is None:
            assert slide.properties.mpp is None and slide.properties.mpp_problem
        else:
            assert slide.properties.mpp is not None
            assert slide.properties.mpp.x == pytest.approx(self.mpp.x, rel=1e-3)
            assert slide.properties.mpp.y == pytest.approx(self.mpp.y, rel=1e-3)

    def test_gives_the_pixels_that_were_painted(self, slide: Slide, picture: Picture) -> None:
        pixels = slide.read_level(0, self.corner, (picture.shape[1], picture.shape[0]))
        assert pixels.dtype == np.uint8 and pixels.shape == picture.shape
        assert np.abs(pixels.astype(int) - picture).max() <= self.tolerance

    def test_every_level_shows_a_pixel_at_its_place(self, slide: Slide, picture: Picture) -> None:
        for index, level in enumerate(slide.levels):
            dx, dy = level.downsample
            columns = np.arange(2, int(picture.shape[1] / dx) - 2)
            rows = np.arange(2, int(picture.shape[0] / dy) - 2)
            if not columns.size or not rows.size:
                continue
            left, top = round(self.corner[0] / dx), round(self.corner[1] / dy)
            pixels = slide.read_level(index, (left + 2, top + 2), (columns.size, rows.size)).astype(float)
            x = (left + columns + 0.5) * dx - 0.5 - self.corner[0]
            y = (top + rows + 0.5) * dy - 0.5 - self.corner[1]
            # half a pixel of this level, and what rounding and compression take
            slack = self.level_tolerance + 0.5
            assert np.abs(pixels[..., 0] - x[None, :]).max() <= 0.5 * dx + slack
            assert np.abs(pixels[..., 1] - y[:, None]).max() <= 0.5 * dy + slack
            # the middle of the differences shows a shift much finer than a pixel
            assert abs(np.median(pixels[..., 0] - x[None, :])) <= 0.25 * dx + self.level_tolerance
            assert abs(np.median(pixels[..., 1] - y[:, None])) <= 0.25 * dy + self.level_tolerance

    def test_outside_the_level_is_background(self, slide: Slide) -> None:
        background = np.asarray(slide.properties.background)
        for index, level in enumerate(slide.levels):
            width, height = level.size
            for origin in ((-9, -7), (width - 2, height - 3), (-9, height - 3), (width - 2, -7)):
                pixels = slide.read_level(index, origin, (13, 11))
                x = np.arange(origin[0], origin[0] + 13)
                y = np.arange(origin[1], origin[1] + 11)
                outside = ((x < 0) | (x >= width))[None, :] | ((y < 0) | (y >= height))[:, None]
                assert outside.any()
                assert (pixels[outside] == background).all()
            far = slide.read_level(index, (width + 1000, -5000), (3, 2))
            assert far.shape == (2, 3, 3) and (far == background).all()

    def test_a_region_is_the_same_in_pieces(self, slide: Slide) -> None:
        for index, level in enumerate(slide.levels):
            width, height = level.size
            whole = slide.read_level(index, (0, 0), (width, height))
            random = np.random.default_rng(index)
            for _ in range(6):
                x, y = int(random.integers(0, width)), int(random.integers(0, height))
                w, h = int(random.integers(1, width - x + 1)), int(random.integers(1, height - y + 1))
                part = slide.read_level(index, (x, y), (w, h))
                assert np.array_equal(part, whole[y : y + h, x : x + w])

    def test_a_region_belongs_to_the_caller(self, slide: Slide) -> None:
        first = slide.read_level(0, (3, 4), (20, 10))
        kept = first.copy()
        first[...] = 0
        assert np.array_equal(slide.read_level(0, (3, 4), (20, 10)), kept)

    def test_threads_read_the_same(self, slide: Slide) -> None:
        assert slide.thread_safe
        places = [(x, y) for x in range(0, 200, 40) for y in range(0, 160, 40)]
        alone = [slide.read_level(0, place, (40, 40)) for place in places]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda place: slide.read_level(0, place, (40, 40)), places * 3))
        assert all(np.array_equal(a, b) for a, b in zip(alone * 3, together, strict=True))

    def test_levels_shrink(self, slide: Slide) -> None:
        assert slide.levels[0].downsample == (1.0, 1.0) and slide.size == slide.levels[0].size
        sizes = [level.size for level in slide.levels]
        assert sizes == sorted(sizes, reverse=True)

    def test_an_unknown_associated_image_is_a_key_error(self, slide: Slide) -> None:
        with pytest.raises(KeyError):
            slide.read_associated("no such image")
        for name in slide.associated_images():
            image = slide.read_associated(name)
            assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8

    def test_reading_after_closing_is_a_read_error(self, slide: Slide) -> None:
        slide.close()
        slide.close()
        with pytest.raises(SlideReadError, match="closed"):
            slide.read_level(0, (0, 0), (1, 1))
