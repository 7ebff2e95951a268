"""Random changes keep shapes and repeat for a seed; area resizing equals the slow mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lobule.training.augment import augment_color, pale_tile, resize_area, turn

from .test_bach import AUGMENT


def slow_resize(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    # Every pixel repeated so often that the target's pixels are whole blocks of repeats.
    fine = np.repeat(np.repeat(pixels.astype(float), height, axis=0), width, axis=1)
    blocks = fine.reshape(height, pixels.shape[0], width, pixels.shape[1], 3)
    return blocks.mean(axis=(1, 3))


@settings(max_examples=40)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_area_resizing_is_the_mean_of_what_a_pixel_covers(
    rows: int, columns: int, height: int, width: int, seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (rows, columns, 3)).astype(np.uint8)
    out = resize_area(pixels, (width, height))
    assert out.shape == (height, width, 3)
    assert np.abs(out - slow_resize(pixels, width, height)).max() <= 0.501


def test_arrays_turn_together() -> None:
    image = np.arange(36).reshape(6, 6)
    seen = set()
    for seed in range(60):
        a, b = turn([image, image + 1], np.random.default_rng(seed))
        np.testing.assert_array_equal(a + 1, b)
        seen.add(a.tobytes())
    assert len(seen) == 8


@pytest.mark.parametrize("seed", range(12))
def test_a_changed_tile_keeps_its_shape_and_repeats(seed: int) -> None:
    tile = np.random.default_rng(0).integers(0, 256, (48, 48, 3)).astype(np.uint8)
    first = augment_color(tile, AUGMENT, np.random.default_rng(seed))
    assert first.shape == tile.shape and first.dtype == np.uint8
    np.testing.assert_array_equal(first, augment_color(tile, AUGMENT, np.random.default_rng(seed)))


def test_strong_changes_leave_a_pink_tile_recognizable() -> None:
    tile = np.full((32, 32, 3), (210, 140, 190), np.uint8)
    means = [
        augment_color(tile, AUGMENT, np.random.default_rng(seed)).mean(axis=(0, 1)) for seed in range(50)
    ]
    assert np.std(means, axis=0).min() > 3
    assert np.mean([mean[1] < mean[0] for mean in means]) > 0.8


def test_pale_tiles_are_of_many_kinds() -> None:
    tissue = np.random.default_rng(0).integers(50, 200, (32, 32, 3)).astype(np.uint8)
    tiles = [pale_tile(32, np.random.default_rng(seed), tissue) for seed in range(40)]
    assert all(tile.shape == (32, 32, 3) and tile.dtype == np.uint8 for tile in tiles)
    assert np.std([tile.mean() for tile in tiles]) > 10
