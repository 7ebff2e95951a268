"""Downsamples from the sizes of levels."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lobule.slides.levels import build_levels, read_clipped


@given(
    size=st.tuples(st.integers(600, 300_000), st.integers(600, 300_000)),
    rounding=st.sampled_from([math.floor, math.ceil, round]),
    factors=st.sampled_from([(2, 4, 8, 16), (4, 16, 64), (3, 9, 27), (2, 8, 32), (4, 8), (5, 10)]),
)
def test_whole_factors_are_found_however_sizes_were_rounded(
    size: tuple[int, int], rounding: Callable[[float], int], factors: tuple[int, ...]
) -> None:
    sizes = [size, *((rounding(size[0] / f), rounding(size[1] / f)) for f in factors)]
    levels, kept = build_levels(sizes)
    assert [level.downsample for level in levels] == [(1.0, 1.0), *((f, f) for f in factors)]
    assert kept == tuple(range(len(sizes)))


def test_a_pyramid_down_to_one_pixel_halves_at_every_step() -> None:
    sizes = [(2220, 2967), (1110, 1483), (555, 741), (277, 370), (138, 185), (69, 92), (34, 46), (17, 23)]
    sizes += [(8, 11), (4, 5), (2, 2), (1, 1)]
    levels, _ = build_levels(sizes)
    assert [level.downsample[0] for level in levels] == [2.0**k for k in range(12)]


def test_a_factor_that_is_not_whole_is_kept_exactly() -> None:
    levels, _ = build_levels([(30_000, 20_000), (20_000, 13_333)])
    assert levels[1].downsample == (1.5, 20_000 / 13_333)


@pytest.mark.parametrize(
    "other", [(1000, 3000), (20_000, 1), (30_000, 20_000), (40_000, 26_666), (1280, 431)]
)
def test_an_image_that_is_no_reduced_copy_is_left_out(other: tuple[int, int]) -> None:
    levels, kept = build_levels([(30_000, 20_000), other, (15_000, 10_000)])
    assert [level.size for level in levels] == [(30_000, 20_000), (15_000, 10_000)] and kept == (0, 2)


@given(
    origin=st.tuples(st.integers(-30, 30), st.integers(-30, 30)),
    size=st.tuples(st.integers(0, 40), st.integers(0, 40)),
)
def test_reads_are_framed_by_background(origin: tuple[int, int], size: tuple[int, int]) -> None:
    level = np.arange(20 * 15 * 3, dtype=np.uint32).astype(np.uint8).reshape(15, 20, 3)

    def read(corner: tuple[int, int], extent: tuple[int, int]) -> np.ndarray:
        assert corner[0] >= 0 and corner[1] >= 0 and extent[0] > 0 and extent[1] > 0
        assert corner[0] + extent[0] <= 20 and corner[1] + extent[1] <= 15
        return level[corner[1] : corner[1] + extent[1], corner[0] : corner[0] + extent[0]]

    padded = np.empty((150, 150, 3), np.uint8)
    padded[...] = (1, 2, 3)
    padded[40:55, 40:60] = level
    expected = padded[40 + origin[1] :, 40 + origin[0] :][: size[1], : size[0]]
    assert np.array_equal(read_clipped((20, 15), origin, size, (1, 2, 3), read), expected)
