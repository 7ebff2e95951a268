"""A box of the working frame: the right level, the right place, the same pixel through any box."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slides.painted import paint, reduce

from lobule.errors import MissingResolutionError
from lobule.geometry import Box, Mpp, WorkingFrame
from lobule.slides import (
    ArraySlide,
    Slide,
    choose_level,
    read_mirrored,
    read_overview,
    read_region,
    working_frame,
)
from lobule.slides.slide import Level, RgbImage, SlideProperties


def area_means(image: np.ndarray, step: tuple[float, float], box: Box, background: int = 255) -> np.ndarray:
    """The slow oracle: for every working pixel, every level pixel weighted by how much of it lies inside."""
    result = np.zeros((box.height, box.width, 3))
    for row in range(box.height):
        for column in range(box.width):
            x0, x1 = (box.x0 + column) * step[0], (box.x0 + column + 1) * step[0]
            y0, y1 = (box.y0 + row) * step[1], (box.y0 + row + 1) * step[1]
            total = np.zeros(3)
            for y in range(math.floor(y0), math.ceil(y1)):
                for x in range(math.floor(x0), math.ceil(x1)):
                    share = (min(x + 1, x1) - max(x, x0)) * (min(y + 1, y1) - max(y, y0))
                    inside = 0 <= y < image.shape[0] and 0 <= x < image.shape[1]
                    total += share * (image[y, x] if inside else np.full(3, float(background)))
            result[row, column] = total / (step[0] * step[1])
    return result


@st.composite
def boxes(draw: st.DrawFn, reach: int = 40, largest: int = 9) -> Box:
    x, y = draw(st.integers(-reach // 4, reach)), draw(st.integers(-reach // 4, reach))
    return Box(x, y, x + draw(st.integers(1, largest)), y + draw(st.integers(1, largest)))


@settings(max_examples=60)
@given(
    box=boxes(),
    step=st.tuples(*[st.one_of(st.sampled_from([1.0, 2.0, 3.0, 1.5]), st.floats(1.0, 7.0))] * 2),
    size=st.tuples(st.integers(3, 90), st.integers(3, 90)),
    seed=st.integers(0, 5),
)
def test_a_working_pixel_is_the_mean_over_its_area(
    box: Box, step: tuple[float, float], size: tuple[int, int], seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    slide = ArraySlide(image, 0.25)
    frame = WorkingFrame(slide.size, Mpp(0.25, 0.25), Mpp(0.25 * step[0], 0.25 * step[1]))
    expected = area_means(image, frame.scale, box)
    assert np.abs(read_region(slide, frame, box) - expected).max() <= 0.51


@settings(max_examples=60)
@given(
    first=boxes(reach=60, largest=40),
    second=boxes(reach=60, largest=40),
    mpp=st.tuples(*[st.floats(0.1, 3.0)] * 2),
)
def test_a_working_pixel_is_the_same_through_any_box(
    first: Box, second: Box, mpp: tuple[float, float]
) -> None:
    image = np.random.default_rng(3).integers(0, 256, (131, 157, 3), np.uint8)
    slide = ArraySlide(image, 0.25, levels=(reduce(image, 2), reduce(image, 4)))
    frame = WorkingFrame(slide.size, Mpp(0.25, 0.25), Mpp(*mpp))
    common = Box(
        max(first.x0, second.x0), max(first.y0, second.y0), min(first.x1, second.x1), min(first.y1, second.y1)
    )
    if common.width <= 0 or common.height <= 0:
        return

    def part(box: Box) -> np.ndarray:
        left, top = common.x0 - box.x0, common.y0 - box.y0
        whole = read_region(slide, frame, box).astype(int)
        return whole[top : top + common.height, left : left + common.width]

    assert np.abs(part(first) - part(second)).max() <= 1


@settings(max_examples=80)
@given(mpp=st.tuples(*[st.floats(0.1, 4.0)] * 2), own=st.sampled_from([(0.25, 0.25), (0.25, 0.5)]))
def test_a_place_is_exact_to_half_a_working_pixel(mpp: tuple[float, float], own: tuple[float, float]) -> None:
    slide = ArraySlide(
        paint(251, 199), Mpp(*own), levels=(paint(125, 99, (2.0, 2.0)), paint(62, 49, (4.0, 4.0)))
    )
    frame = WorkingFrame(slide.size, Mpp(*own), Mpp(*mpp))
    sx, sy = frame.scale
    width, height = int(244 / sx), int(192 / sy)
    if width < 3 or height < 3:
        return
    pixels = read_region(slide, frame, Box(0, 0, width, height)).astype(float)
    x, y = (np.arange(width) + 0.5) * sx - 0.5, (np.arange(height) + 0.5) * sy - 0.5
    inner = (slice(1, -1), slice(1, -1))
    assert np.abs(pixels[..., 0] - x[None, :])[inner].max() <= max(0.25 * sx, 0.51) + 0.5
    assert np.abs(pixels[..., 1] - y[:, None])[inner].max() <= max(0.25 * sy, 0.51) + 0.5


def test_the_identity_is_a_crop() -> None:
    picture = paint(251, 199)
    slide = ArraySlide(picture, 0.5)
    frame = working_frame(slide, 0.5)
    assert np.array_equal(read_region(slide, frame, Box(13, 17, 80, 90)), picture[17:90, 13:80])
    assert np.array_equal(read_overview(slide, frame), picture)


def test_an_empty_box_is_an_empty_image() -> None:
    slide = ArraySlide(paint(20, 20), 0.5)
    assert read_region(slide, working_frame(slide, 0.5), Box(3, 3, 3, 9)).shape == (6, 0, 3)


@pytest.mark.parametrize(
    ("mpp", "level"), [(0.1, 0), (0.25, 0), (0.49, 0), (0.4997, 1), (0.5, 1), (0.9, 1), (1.0, 2), (9.0, 2)]
)
def test_the_coarsest_level_not_coarser_than_asked_is_read(mpp: float, level: int) -> None:
    picture = paint(248, 196)
    slide = ArraySlide(picture, 0.25, levels=(reduce(picture, 2), reduce(picture, 4)))
    assert choose_level(slide, WorkingFrame(slide.size, Mpp(0.25, 0.25), Mpp(mpp, mpp))) == level


def test_one_axis_may_be_finer_than_the_slide_and_the_other_coarser() -> None:
    slide = ArraySlide(paint(250, 200), Mpp(0.25, 0.5))
    frame = WorkingFrame(slide.size, Mpp(0.25, 0.5), Mpp(0.35, 0.35))
    pixels = read_region(slide, frame, Box(10, 10, 60, 70)).astype(float)
    x, y = (np.arange(10, 60) + 0.5) * 1.4 - 0.5, (np.arange(10, 70) + 0.5) * 0.7 - 0.5
    assert np.abs(pixels[..., 0] - x[None, :]).max() <= 1.0
    assert np.abs(pixels[..., 1] - y[:, None]).max() <= 1.0


def test_a_frame_takes_the_mpp_of_a_level_that_is_near() -> None:
    picture = paint(248, 196)
    slide = ArraySlide(picture, 0.2456, levels=(reduce(picture, 2), reduce(picture, 4)))
    assert working_frame(slide, 1.0).mpp == Mpp(0.2456 * 4, 0.2456 * 4)
    assert working_frame(slide, 1.0).scale == (4.0, 4.0)
    assert working_frame(slide, 1.0, snap=0.0).mpp == Mpp(1.0, 1.0)
    assert working_frame(slide, 0.7).mpp == Mpp(0.7, 0.7)
    uneven = ArraySlide(picture, Mpp(0.25, 0.5))
    assert working_frame(uneven, 0.25).mpp == Mpp(0.25, 0.25)


def test_without_mpp_there_is_no_frame() -> None:
    with pytest.raises(MissingResolutionError, match="--mpp"):
        working_frame(ArraySlide(paint(9, 9)), 1.0)


class Endless(Slide):
    """A slide of one huge level whose pixels are computed; remembers the most that was asked at once."""

    thread_safe = True
    path = None

    def __init__(self, side: int) -> None:
        self.levels = (Level((side, side), (1.0, 1.0)),)
        self.properties = SlideProperties("drawn", "drawn", Mpp(0.25, 0.25), "option")
        self.largest_px = 0

    def read_level(self, level: int, origin: tuple[int, int], size: tuple[int, int]) -> RgbImage:
        self.largest_px = max(self.largest_px, size[0] * size[1])
        pixels = np.empty((size[1], size[0], 3), np.uint8)
        pixels[...] = ((np.arange(size[0]) + origin[0]) * 255 // self.size[0]).astype(np.uint8)[None, :, None]
        return pixels

    def close(self) -> None:
        pass


@pytest.mark.parametrize("mpp", [75.0, 80.3, 1250.0])
def test_the_overview_of_a_slide_of_one_huge_level_takes_little_memory(mpp: float) -> None:
    slide = Endless(5_000)
    frame = WorkingFrame(slide.size, Mpp(0.25, 0.25), Mpp(mpp, mpp))
    tracemalloc.start()
    try:
        image = read_overview(slide, frame)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert slide.largest_px <= 1_100_000
    assert peak <= 100_000_000
    place = (np.arange(image.shape[1]) + 0.5) * 255 / (5_000 / frame.scale[0])
    inside = slice(0, int(5_000 / frame.scale[0]))
    assert np.abs(image[0, inside, 0] - place[inside]).max() <= 1.5


@settings(max_examples=60)
@given(
    box=boxes(reach=60, largest=70),
    step=st.sampled_from([1.0, 2.0, 1.5]),
    size=st.tuples(st.integers(2, 50), st.integers(2, 50)),
    seed=st.integers(0, 5),
)
def test_beyond_the_edges_lies_the_mirror_image(
    box: Box, step: float, size: tuple[int, int], seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    slide = ArraySlide(image, 0.25)
    frame = WorkingFrame(slide.size, Mpp(0.25, 0.25), Mpp(0.25 * step, 0.25 * step))
    width, height = frame.size
    whole = read_region(slide, frame, Box(0, 0, width, height))
    margin = 150
    around = np.pad(whole, ((margin, margin), (margin, margin), (0, 0)), mode="symmetric")
    expected = around[box.y0 + margin : box.y1 + margin, box.x0 + margin : box.x1 + margin]
    got = read_mirrored(slide, frame, box)
    assert np.abs(got.astype(int) - expected).max() <= (0 if step != 1.5 else 1)
