"""Elastic deformation: the same for image and maps, within its bounds, nothing folded, nothing at strength 0."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from lobule.training.warp import displacement, elastic, warp


def draw(side: int = 96) -> list[np.ndarray]:
    rng = np.random.default_rng(4)
    smooth = ndimage.gaussian_filter(rng.normal(size=(side, side, 3)), (4, 4, 0))
    pixels = np.clip(128 + 900 * smooth, 0, 255).astype(np.uint8)
    labels = (np.arange(side)[:, None] // 16 * 10 + np.arange(side)[None] // 16).astype(np.int32) * 7
    mask = ((labels % 2 == 0) * 255).astype(np.uint8)
    return [pixels, mask, labels]


def test_strength_zero_changes_nothing() -> None:
    images = draw()
    for before, after in zip(images, elastic(images, 0.0, np.random.default_rng(0)), strict=True):
        np.testing.assert_array_equal(before, after)
        assert after is not before


def test_the_same_generator_gives_the_same_deformation() -> None:
    first = elastic(draw(), 6, np.random.default_rng(9))
    for a, b in zip(first, elastic(draw(), 6, np.random.default_rng(9)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (first[0] != elastic(draw(), 6, np.random.default_rng(10))[0]).any()


@settings(max_examples=40)
@given(
    height=st.integers(3, 400), width=st.integers(3, 400), largest=st.floats(0, 30), seed=st.integers(0, 999)
)
def test_displacements_stay_within_their_bound_and_fold_nothing(
    height: int, width: int, largest: float, seed: int
) -> None:
    moved = displacement((height, width), largest, np.random.default_rng(seed))
    assert np.hypot(moved[..., 0], moved[..., 1]).max() <= largest + 1e-9
    across, down = width / (moved.shape[1] - 1), height / (moved.shape[0] - 1)
    assert np.abs(np.diff(moved, axis=1)).max(initial=0) < across / 2
    assert np.abs(np.diff(moved, axis=0)).max(initial=0) < down / 2


def test_an_even_displacement_is_a_shift() -> None:
    pixels, mask, labels = draw()
    by = np.full((4, 4, 2), (3.0, -5.0))
    shifted, shifted_mask, shifted_labels = warp([pixels, mask, labels], by)
    # the result at (x, y) comes from (x + 3, y - 5), clear of the border cells, which are clamped
    inner = (slice(40, 60), slice(34, 60))
    source = (slice(35, 55), slice(37, 63))
    assert np.abs(shifted[inner].astype(int) - pixels[source]).max() <= 1
    assert np.abs(shifted_mask[inner].astype(int) - mask[source]).max() <= 1
    np.testing.assert_array_equal(shifted_labels[inner], labels[source])


def test_a_warp_equals_the_slow_one() -> None:
    pixels, mask, labels = draw()
    moved = displacement((96, 96), 6.0, np.random.default_rng(2))
    nodes = moved.shape[0]
    at = np.linspace(0, 96, nodes)
    source = np.stack(
        [np.clip(at[None, :] + moved[..., 0], 0, 96), np.clip(at[:, None] + moved[..., 1], 0, 96)]
    )
    centers = (np.arange(96) + 0.5) / 96 * (nodes - 1)
    grid = np.meshgrid(centers, centers, indexing="ij")
    x, y = (ndimage.map_coordinates(plane, grid, order=1) - 0.5 for plane in source)
    warped = warp([pixels, mask, labels], moved)
    for k in range(3):
        slow = ndimage.map_coordinates(pixels[..., k].astype(float), (y, x), order=1, mode="nearest")
        assert (np.abs(warped[0][..., k] - slow) <= 1.01).all()
    slow = ndimage.map_coordinates(labels, (y, x), order=0, mode="nearest")
    assert (warped[2] == slow).mean() > 0.995
    slow = ndimage.map_coordinates(mask.astype(float), (y, x), order=1, mode="nearest")
    assert (np.abs(warped[1] - slow) <= 1.01).all()


def test_labels_are_only_those_that_were_there_and_types_and_shapes_stay() -> None:
    pixels, mask, labels = draw()
    other = labels.astype(np.uint16)
    out = elastic([labels, mask, pixels, other], 15, np.random.default_rng(1))
    assert [a.dtype for a in out] == [np.int32, np.uint8, np.uint8, np.uint16]
    assert [a.shape for a in out] == [labels.shape, mask.shape, pixels.shape, labels.shape]
    assert set(np.unique(out[0])) <= set(np.unique(labels))
    np.testing.assert_array_equal(out[0], out[3])


def test_nothing_comes_from_beyond_the_border() -> None:
    for seed in range(20):
        [out] = elastic([np.full((70, 90, 3), 255, np.uint8)], 20, np.random.default_rng(seed))
        assert out.min() >= 254


def test_what_cannot_be_warped_is_refused() -> None:
    pixels, mask, _ = draw()
    with pytest.raises(ValueError, match="one size"):
        elastic([pixels, mask[:-1]], 3, np.random.default_rng(0))
    with pytest.raises(ValueError, match="integers"):
        elastic([pixels.astype(np.float32)], 3, np.random.default_rng(0))
