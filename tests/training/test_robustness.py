"""Disturbances do what they are named after, and what does not move scores 1."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from lobule.training.robustness import DISTURBANCES, Disturbance, measure_robustness


def draw() -> NDArray[np.uint8]:
    """Dark disks, no two alike in place, on a pale ground (64, 96, 3)."""
    rows, columns = np.mgrid[:64, :96]
    pixels = np.full((64, 96, 3), (225, 180, 215), np.uint8)
    for row, column in [(12, 14), (20, 60), (45, 30), (50, 80)]:
        pixels[np.hypot(rows - row, columns - column) < 7] = (90, 60, 140)
    return pixels


def find(pixels: NDArray[np.uint8]) -> NDArray[np.int32]:
    return ndimage.label(pixels.mean(axis=-1) < 150)[0].astype(np.int32)


@pytest.mark.parametrize("disturbance", DISTURBANCES, ids=lambda one: one.name)
def test_a_threshold_on_clear_disks_hardly_moves(disturbance: Disturbance) -> None:
    moved = measure_robustness(find, [draw()] * 5, [disturbance])[0]
    least = 1.0 if "turned" in moved.name or "mirrored" in moved.name else 0.9
    assert moved.dice.value >= least and moved.count_ratio.value == 1
    assert moved.dice.low is not None and moved.dice.high is not None
    assert moved.dice.low <= moved.dice.value <= moved.dice.high


def test_all_eight_positions_are_there_and_come_back() -> None:
    turned = [one for one in DISTURBANCES if "turned" in one.name or "mirrored" in one.name]
    seen = {one.change(draw()).tobytes() for one in turned}
    assert len(turned) == len(seen) == 7
    labels = find(draw())
    for one in turned:
        np.testing.assert_array_equal(one.back(find(one.change(draw())) > 0, (64, 96)), labels > 0)


def test_what_is_lost_shows_in_both_figures() -> None:
    half = Disturbance(
        "the right half is glass", lambda p: np.where(np.arange(96)[:, None] < 48, p, 240).astype(np.uint8)
    )
    moved = measure_robustness(find, [draw()], [half])[0]
    assert moved.count_ratio.value == 0.5
    assert moved.dice.value == pytest.approx(2 / 3, abs=0.01)


def test_an_image_without_nuclei_is_unmoved() -> None:
    glass = np.full((32, 32, 3), 240, np.uint8)
    for moved in measure_robustness(find, [glass]):
        assert moved.dice.value == moved.count_ratio.value == 1
