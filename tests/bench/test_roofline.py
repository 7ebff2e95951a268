"""The limit of a run, and the tiles that a run needs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from roofline import Roofline, covering_tiles


def test_the_limit_is_the_larger_part() -> None:
    line = Roofline(decode_seconds=1.0, infer_seconds=4.0)
    assert line.seconds == 4.0
    assert line.ratio(5.0) == 1.25
    assert line.start_up_seconds(5.0) == pytest.approx(0.6)
    assert Roofline(6.0, 4.0).seconds == 6.0
    assert line.mean(Roofline(3.0, 2.0)) == Roofline(2.0, 3.0)


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=6),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([256, 300, 512]),
)
def test_covering_tiles_are_those_that_hold_a_pixel_of_a_box(
    corners: list[tuple[int, int]], downsample: int, side: int
) -> None:
    columns = rows = 12
    boxes = np.array([[x * 64, y * 64, x * 64 + side, y * 64 + side] for x, y in corners], float) * downsample
    held = np.zeros((rows * 256, columns * 256), bool)  # every pixel of the level, drawn
    for x, y in corners:
        held[y * 64 : y * 64 + side, x * 64 : x * 64 + side] = True
    tiles = held.reshape(rows, 256, columns, 256).any((1, 3))
    expected = np.flatnonzero(tiles.ravel()).tolist()
    assert covering_tiles(boxes, (downsample, downsample), columns, rows) == expected


def test_a_box_that_ends_on_an_edge_but_for_rounding_does_not_touch_the_next_tile() -> None:
    assert covering_tiles(np.array([[0, 0, 1024.0000001, 1024.0]]), (4.0, 4.0), 10, 10) == [0]
