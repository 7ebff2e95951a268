"""Algorithm 1: three images of each field in place of it, equal to slow ones, nuclei where they belong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from lobule.training.algorithm_one import algorithm_one, resize_bilinear, resize_nearest, rotate
from lobule.training.nuclei_sets import read_set
from lobule.training.splits import half_of_images


def draw(side: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    instances = np.zeros((side, side), np.int32)
    rows, columns = np.mgrid[:side, :side]
    for label in range(1, 6):
        row, column = rng.uniform(0.3 * side, 0.7 * side, 2)
        instances[np.hypot(rows - row, columns - column) < side / 30] = label
    pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
    return pixels, instances


def test_a_field_of_512_px_gives_its_two_flips_unchanged_and_itself_rotated() -> None:
    pixels, instances = draw(512)
    (left_right, l1), (top_bottom, l2), (turned, l3) = algorithm_one(pixels, instances)
    np.testing.assert_array_equal(left_right, pixels[:, ::-1])
    np.testing.assert_array_equal(l1, instances[:, ::-1])
    np.testing.assert_array_equal(top_bottom, pixels[::-1])
    np.testing.assert_array_equal(l2, instances[::-1])
    expected, expected_labels = rotate(pixels, instances, 45)
    np.testing.assert_array_equal(turned, expected)
    np.testing.assert_array_equal(l3, expected_labels)
    assert turned.dtype == np.uint8 and l3.dtype == np.int32


@pytest.mark.parametrize("degrees", [45.0, 30.0, 90.0, 180.0])
def test_rotation_equals_scipys(degrees: float) -> None:
    pixels, instances = draw(101, 3)
    smooth = ndimage.gaussian_filter(pixels.astype(float), (2, 2, 0)).astype(np.uint8)
    turned, labels = rotate(smooth, instances, degrees)
    # scipy turns the other way about, as its rows point down
    expected = np.stack(
        [
            ndimage.rotate(smooth[..., k].astype(float), degrees, reshape=False, order=1, mode="mirror")
            for k in range(3)
        ],
        axis=-1,
    )
    assert np.abs(turned - expected).max() <= 0.51 + 0.1
    nearest = ndimage.rotate(instances, degrees, reshape=False, order=0, mode="constant")
    assert (labels != nearest).mean() < 0.002


def test_four_quarters_of_rotation_are_rot90_and_the_identity() -> None:
    pixels, instances = draw(64, 1)
    np.testing.assert_array_equal(rotate(pixels, instances, 90)[0], np.rot90(pixels))
    np.testing.assert_array_equal(rotate(pixels, instances, 90)[1], np.rot90(instances))
    np.testing.assert_array_equal(rotate(pixels, instances, 0)[0], pixels)


def test_a_disk_in_the_middle_stays_and_one_beside_it_moves_by_45_degrees() -> None:
    side = 201
    rows, columns = np.mgrid[:side, :side] - 100
    instances = np.zeros((side, side), np.int32)
    instances[np.hypot(rows, columns) < 20] = 1
    instances[np.hypot(rows, columns - 60) < 12] = 2
    pixels = np.repeat((instances == 0)[..., None] * np.uint8(200), 3, axis=2)
    turned, labels = rotate(pixels, instances, 45)
    overlap = ((labels == 1) & (instances == 1)).sum() / ((labels == 1) | (instances == 1)).sum()
    assert overlap > 0.95
    # to the right, turned counter-clockwise, is up and to the right
    middle = np.argwhere(labels == 2).mean(axis=0) - 100
    np.testing.assert_allclose(middle, [-60 / np.sqrt(2), 60 / np.sqrt(2)], atol=0.3)
    assert (labels == 2).sum() == pytest.approx((instances == 2).sum(), rel=0.03)
    assert turned[labels == 1].mean() < 10 and turned[labels == 0].mean() > 195


def test_uncovered_corners_hold_no_nucleus_and_mirror_the_image() -> None:
    pixels = np.full((120, 120, 3), 77, np.uint8)
    turned, labels = rotate(pixels, np.ones((120, 120), np.int32), 45)
    assert labels[0, 0] == labels[-1, -1] == labels[0, -1] == labels[-1, 0] == 0
    assert labels[60, 60] == 1
    assert (turned == 77).all()


@settings(max_examples=30)
@given(height=st.integers(1, 60), width=st.integers(1, 60), side=st.integers(1, 70), seed=st.integers(0, 9))
def test_resizing_equals_the_slow_one(height: int, width: int, side: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    instances = rng.integers(0, 9, (height, width)).astype(np.int32)
    fast, labels = resize_bilinear(pixels, side), resize_nearest(instances, side)
    assert fast.shape == (side, side, 3) and labels.shape == (side, side)
    for row in rng.integers(0, side, 3):
        for column in rng.integers(0, side, 3):
            y = min(max((row + 0.5) * height / side - 0.5, 0), height - 1)
            x = min(max((column + 0.5) * width / side - 0.5, 0), width - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
            a, b = y - y0, x - x0
            slow = (pixels[y0, x0] * (1 - b) + pixels[y0, x1] * b) * (1 - a) + (
                pixels[y1, x0] * (1 - b) + pixels[y1, x1] * b
            ) * a
            assert np.abs(fast[row, column] - slow).max() <= 0.501
            inside = int((row + 0.5) * height / side), int((column + 0.5) * width / side)
            assert labels[row, column] == instances[inside]


def test_image_and_labels_of_two_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="do not belong together"):
        algorithm_one(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9), np.int32))


def test_the_papers_55_fields_make_165_images_with_about_three_times_their_nuclei(data_dir: Path) -> None:
    fields = [field for name in ("tnbc", "monuseg") for field in read_set(data_dir / name)[0]]
    training = half_of_images(fields, 0)["training"]
    assert len(training) == 55
    made = [pair for field in training for pair in algorithm_one(field.pixels, field.instances)]
    assert len(made) == 165
    assert {p.shape for p, _ in made} == {(512, 512, 3)} and {i.shape for _, i in made} == {(512, 512)}
    before = [np.unique(field.instances).size - 1 for field in training]
    after = [np.unique(labels).size - 1 for _, labels in made]
    flips = np.array(after).reshape(-1, 3)
    # flips keep every nucleus but those of a few pixels; the rotation loses those beyond the corners
    assert flips[:, :2].sum() >= 2 * 0.995 * sum(before)
    assert 0.75 * sum(before) < flips[:, 2].sum() < 0.95 * sum(before)
    share = [(field.instances > 0).mean() for field in training]
    kept = [(labels > 0).mean() for _, labels in made[0::3]]
    np.testing.assert_allclose(kept, share, atol=0.004)
