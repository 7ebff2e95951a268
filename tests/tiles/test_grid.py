"""The tile grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lobule.tiles import TileGrid


@st.composite
def grids(draw: st.DrawFn) -> TileGrid:
    halo = draw(st.integers(0, 9))
    stride = draw(st.integers(1, 40))
    return TileGrid((draw(st.integers(1, 130)), draw(st.integers(1, 130))), stride + 2 * halo, halo)


@given(grids())
def test_kept_centers_cover_every_working_pixel_exactly_once(grid: TileGrid) -> None:
    width, height = grid.size_px
    count = np.zeros((height, width), np.int64)
    for k in range(len(grid)):
        box = grid.kept(k)
        assert box.width > 0 and box.height > 0
        count[box.y0 : box.y1, box.x0 : box.x1] += 1
    assert (count == 1).all()


@given(grids())
def test_read_boxes_are_square_and_hold_the_kept_box_with_its_halo(grid: TileGrid) -> None:
    for k in range(len(grid)):
        kept, read = grid.kept(k), grid.read(k)
        assert read.size == (grid.tile_px, grid.tile_px)
        assert (kept.x0 - read.x0, kept.y0 - read.y0) == (grid.halo_px, grid.halo_px)
        assert kept.x1 + grid.halo_px <= read.x1 and kept.y1 + grid.halo_px <= read.y1


@given(grids(), st.sampled_from([1, 4, 32]))
def test_read_boxes_inside_hold_the_kept_box_with_its_halo_as_far_as_there_is_frame(
    grid: TileGrid, side_step: int
) -> None:
    width, height = grid.size_px
    for k in range(len(grid)):
        kept, box = grid.kept(k), grid.read_inside(k, side_step)
        wanted = grid.read(k).clipped(width, height)
        assert box.x0 <= wanted.x0 <= kept.x0 and box.x1 >= wanted.x1 >= kept.x1
        assert box.y0 <= wanted.y0 <= kept.y0 and box.y1 >= wanted.y1 >= kept.y1
        for start, stop, size in ((box.x0, box.x1, width), (box.y0, box.y1, height)):
            assert start >= 0
            if size >= grid.tile_px:
                assert stop - start == grid.tile_px and stop - size < 32
            else:
                assert stop - size < side_step or stop == grid.tile_px
                assert stop % side_step == 0 or stop == grid.tile_px


def test_read_boxes_inside_a_frame_keep_the_phase_of_a_network_of_stride_32() -> None:
    grid = TileGrid((1000, 700), 768, 128)
    boxes = [grid.read_inside(k, 32) for k in range(len(grid))]
    assert [(box.x0, box.y0, *box.size) for box in boxes[:2]] == [(0, 0, 768, 704), (256, 0, 768, 704)]
    assert all(box.x0 % 32 == box.y0 % 32 == 0 for box in boxes)


@given(grids())
def test_index_and_position_are_inverse_and_run_row_by_row(grid: TileGrid) -> None:
    positions = [grid.position(k) for k in range(len(grid))]
    assert positions == sorted(positions)
    assert [grid.index(*position) for position in positions] == list(range(len(grid)))


def test_a_known_grid() -> None:
    grid = TileGrid((100, 50), 48, 4)
    assert (grid.stride_px, grid.columns, grid.rows, len(grid)) == (40, 3, 2, 6)
    assert grid.kept(5).size == (20, 10)
    assert (grid.read(0).x0, grid.read(0).y0) == (-4, -4)


@pytest.mark.parametrize(
    ("size", "tile", "halo"), [((0, 5), 8, 0), ((5, 5), 8, 4), ((5, 5), 8, -1), ((5, 5), 0, 0)]
)
def test_impossible_grids_are_refused(size: tuple[int, int], tile: int, halo: int) -> None:
    with pytest.raises(ValueError):
        TileGrid(size, tile, halo)


def test_tiles_outside_the_grid_are_refused() -> None:
    grid = TileGrid((10, 10), 5)
    for index in (-1, 4):
        with pytest.raises(IndexError):
            grid.kept(index)
    with pytest.raises(IndexError):
        grid.index(0, 2)
