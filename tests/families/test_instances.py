"""Nuclei are told apart by markers, whatever their number, size and place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from lobule.families.instances import Splitting, split

VALUES: dict[str, Any] = {
    "way": "learned",
    "mask_threshold": 0.5,
    "depth": 0.2,
    "min_area_px": 10,
}


def draw_disks(shape: tuple[int, int], disks: list[tuple[float, float, float]]) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    maps = np.zeros((2, *shape), np.float32)
    for row, column, radius in disks:
        distance = 1 - np.hypot(rows - row, columns - column) / radius
        maps[0] = np.maximum(maps[0], (distance > 0) * 0.9)
        maps[1] = np.maximum(maps[1], np.clip(distance, 0, 1))
    return maps


def test_empty_maps_hold_no_nuclei() -> None:
    labels = split(np.zeros((2, 32, 48), np.float32), **VALUES)
    assert labels.shape == (32, 48) and labels.dtype == np.int32 and labels.max() == 0


def test_two_touching_disks_become_two_nuclei_split_at_the_middle() -> None:
    labels = split(draw_disks((60, 80), [(30, 28, 14), (30, 50, 14)]), **VALUES)
    assert labels.max() == 2
    assert labels[30, 28] != labels[30, 50]
    left, right = (labels == labels[30, 28]), (labels == labels[30, 50])
    assert abs(int(left.sum()) - int(right.sum())) < 30
    assert not left[:, 41:].any() and not right[:, :38].any()


def test_a_part_whose_distance_hardly_varies_is_one_nucleus() -> None:
    maps = draw_disks((40, 40), [(20, 20, 10)])
    maps[1] *= 0.2
    labels = split(maps, **VALUES)
    assert labels.max() == 1 and labels[20, 20] == 1
    np.testing.assert_array_equal(labels > 0, maps[0] > 0.5)


def test_specks_below_the_least_area_are_dropped_and_labels_have_no_gaps() -> None:
    maps = draw_disks((60, 60), [(10, 10, 1.8), (30, 30, 8), (50, 12, 7)])
    labels = split(maps, **VALUES)
    assert set(np.unique(labels)) == {0, 1, 2} and labels[10, 10] == 0


def test_a_hole_in_one_nucleus_is_filled() -> None:
    maps = draw_disks((40, 40), [(20, 20, 12)])
    maps[0, 18:22, 18:22] = 0.1
    labels = split(maps, **VALUES)
    assert labels[20, 20] == labels[20, 12] > 0


def test_the_lumen_within_a_ring_of_nuclei_stays_open() -> None:
    disks = [(60 + 30 * np.sin(a), 60 + 30 * np.cos(a), 10) for a in np.linspace(0, 2 * np.pi, 14)[:-1]]
    labels = split(draw_disks((120, 120), disks), **VALUES)
    assert labels.max() == 13 and labels[60, 60] == 0


def test_a_wide_thin_ring_of_one_label_is_not_filled() -> None:
    rows, columns = np.mgrid[:80, :80]
    radius = np.hypot(rows - 40, columns - 40)
    maps = np.zeros((2, 80, 80), np.float32)
    maps[0][(radius > 30) & (radius < 33)] = 1
    labels = split(maps, **VALUES)
    assert labels.max() == 1 and labels[40, 40] == 0


def test_the_place_in_the_array_does_not_matter() -> None:
    maps = draw_disks((96, 96), [(40, 40, 9), (42, 54, 8), (60, 44, 10), (58, 60, 7)])
    whole = split(maps, **VALUES)
    part = split(np.ascontiguousarray(maps[:, 17:90, 21:93]), **VALUES)
    inside = whole[17:90, 21:93]
    assert whole.max() == part.max() == 4
    for label in range(1, 5):
        twin = part[inside == label]
        assert (twin == twin[0]).all() and (part == twin[0]).sum() == (inside == label).sum()


def test_parts_that_wind_are_one() -> None:
    maps = np.zeros((1, 41, 83), np.float32)
    maps[0, ::2] = 1  # a serpentine, down and then back up beside a comb
    maps[0, 1::4, -1] = maps[0, 3::4, 0] = 1
    assert split(maps, "components", mask_threshold=0.5).max() == 1
    maps[0, :, 40] = 0
    assert split(maps, "components", mask_threshold=0.5).max() == ndimage.label(maps[0])[1] == 22
    assert split(maps.transpose(0, 2, 1).copy(), "components", mask_threshold=0.5).max() == 22


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="maps must be"):
        split(np.zeros((1, 8, 8), np.float32), **VALUES)


def test_the_classic_watershed_parts_touching_disks_and_leaves_an_ellipse_whole() -> None:
    rows, columns = np.mgrid[:60, :160]
    maps = draw_disks((60, 160), [(30, 28, 14), (30, 50, 14)])[:1]
    maps[0][((rows - 30) / 12) ** 2 + ((columns - 115) / 30) ** 2 < 1] = 0.9
    labels = split(maps, "watershed", mask_threshold=0.5, split_px=3)
    assert labels.max() == 3
    assert labels[30, 28] != labels[30, 50] and labels[30, 90] == labels[30, 140]
    assert not (labels == labels[30, 28])[:, 41:].any()
    assert split(maps, "components", mask_threshold=0.5).max() == 2


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"way": "guess"}, "no way 'guess'"),
        ({"way": "learned"}, "depth belongs"),
        ({"way": "components", "depth": 0.5}, "depth belongs"),
        ({"way": "learned", "depth": 0.0}, "depth is positive"),
        ({"way": "watershed"}, "split_um belongs"),
        ({"way": "components", "split_um": 1.0}, "split_um belongs"),
        ({"way": "watershed", "split_um": 0.0}, "positive"),
    ],
)
def test_values_that_a_way_lacks_or_has_no_use_for_are_refused(values: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Splitting(mask_threshold=0.5, **values)


@settings(max_examples=60)
@given(
    hnp.arrays(np.float32, (2, 18, 23), elements=st.floats(0, 1, width=32)),
    st.integers(0, 12),
    st.floats(0.05, 0.9),
)
def test_every_label_is_one_four_connected_component_of_enough_pixels(
    maps: np.ndarray, min_area_px: int, depth: float
) -> None:
    smooth = np.stack([ndimage.uniform_filter(m, 3) for m in maps])
    labels = split(smooth, "learned", mask_threshold=0.5, depth=depth, min_area_px=min_area_px)
    count = labels.max()
    assert set(np.unique(labels)) >= set(range(1, count + 1))
    for label in range(1, count + 1):
        assert ndimage.label(labels == label)[1] == 1
        assert (labels == label).sum() >= min_area_px
    # Nothing outside the mask but filled holes; nothing in the mask lost but what is small.
    filled = (labels > 0) & ~(smooth[0] > 0.5)
    background, _ = ndimage.label(~(smooth[0] > 0.5), np.ones((3, 3)))
    border = set(np.concatenate([background[0], background[-1], background[:, 0], background[:, -1]]))
    assert not set(background[filled]) & border
