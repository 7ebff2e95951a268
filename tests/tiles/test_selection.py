"""Which tiles lie on a mask."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lobule.geometry import Mpp, WorkingFrame
from lobule.tiles import TileGrid, select, tile_shares


def _overlap(a0: Fraction, a1: Fraction, b0: Fraction, b1: Fraction) -> Fraction:
    return max(Fraction(0), min(a1, b1) - max(a0, b0))


def _slow_share(
    grid: TileGrid,
    k: int,
    mask: np.ndarray,
    scale_mask: Fraction,
    scale_grid: Fraction,
    size: tuple[int, int],
) -> Fraction:
    row, column = grid.position(k)
    x0, y0 = column * grid.stride_px * scale_grid, row * grid.stride_px * scale_grid
    x1 = min(x0 + grid.stride_px * scale_grid, Fraction(size[0]))
    y1 = min(y0 + grid.stride_px * scale_grid, Fraction(size[1]))
    covered = Fraction(0)
    for j, i in zip(*np.nonzero(mask), strict=True):
        i, j = int(i), int(j)
        covered += _overlap(x0, x1, i * scale_mask, (i + 1) * scale_mask) * _overlap(
            y0, y1, j * scale_mask, (j + 1) * scale_mask
        )
    return covered / ((x1 - x0) * (y1 - y0))


@settings(max_examples=60)
@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    mask_eighths=st.integers(8, 100),
    grid_eighths=st.integers(8, 40),
    stride=st.integers(1, 20),
    seed=st.integers(0, 2**16),
)
def test_shares_equal_a_slow_exact_oracle(
    size: tuple[int, int], mask_eighths: int, grid_eighths: int, stride: int, seed: int
) -> None:
    one = Mpp(1.0, 1.0)
    mask_frame = WorkingFrame(size, one, Mpp(mask_eighths / 8, mask_eighths / 8))
    grid_frame = WorkingFrame(size, one, Mpp(grid_eighths / 8, grid_eighths / 8))
    grid = TileGrid(grid_frame.size, stride + 4, 2)
    mask = np.random.default_rng(seed).random(mask_frame.size[::-1]) < 0.5
    shares = tile_shares(grid, mask, mask_frame, grid_frame)
    chosen = set(select(grid, mask, mask_frame, grid_frame).tolist())
    for k in range(0, len(grid), max(1, len(grid) // 12)):
        exact = _slow_share(grid, k, mask, Fraction(mask_eighths, 8), Fraction(grid_eighths, 8), size)
        assert shares[grid.position(k)] == pytest.approx(float(exact), abs=1e-9)
        assert (k in chosen) == (exact > Fraction(1, 4))


def test_exactly_a_quarter_of_tissue_is_not_enough() -> None:
    frame = WorkingFrame((8, 8), Mpp(1.0, 1.0), Mpp(1.0, 1.0))
    mask = np.zeros((8, 8), bool)
    mask[:2, :2] = True
    mask[:3, 4:6] = True
    assert select(TileGrid((8, 8), 4), mask, frame, frame).tolist() == [1]


def test_a_full_mask_selects_every_tile_in_grid_order_also_at_the_slide_edge() -> None:
    slide, mpp = (1003, 777), Mpp(0.25, 0.25)
    mask_frame, grid_frame = WorkingFrame(slide, mpp, Mpp(8.0, 8.0)), WorkingFrame(slide, mpp, Mpp(1.0, 1.0))
    grid = TileGrid(grid_frame.size, 64, 8)
    mask = np.ones(mask_frame.size[::-1], bool)
    assert select(grid, mask, mask_frame, grid_frame, 0.999).tolist() == list(range(len(grid)))
    assert select(grid, ~mask, mask_frame, grid_frame, 0.0).tolist() == []


def test_anisotropic_pixels_are_weighed_by_their_area() -> None:
    mask_frame = WorkingFrame((8, 8), Mpp(0.25, 0.5), Mpp(1.0, 1.0))
    grid_frame = WorkingFrame((8, 8), Mpp(0.25, 0.5), Mpp(0.5, 0.5))
    mask = np.zeros((4, 2), bool)
    mask[0] = True
    assert tile_shares(TileGrid(grid_frame.size, 4), mask, mask_frame, grid_frame).ravel().tolist() == [
        0.5,
        0.0,
    ]


def test_a_mask_that_does_not_fit_its_frame_is_refused() -> None:
    frame = WorkingFrame((8, 8), Mpp(1.0, 1.0), Mpp(1.0, 1.0))
    other = WorkingFrame((9, 8), Mpp(1.0, 1.0), Mpp(1.0, 1.0))
    grid = TileGrid((8, 8), 4)
    with pytest.raises(ValueError, match="does not fit"):
        select(grid, np.ones((7, 8), bool), frame, frame)
    with pytest.raises(ValueError, match="does not fit"):
        select(grid, np.ones((8, 8), np.uint8), frame, frame)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="does not fit"):
        select(TileGrid((9, 8), 4), np.ones((8, 8), bool), frame, frame)
    with pytest.raises(ValueError, match="two slides"):
        select(grid, np.ones((8, 9), bool), other, frame)
