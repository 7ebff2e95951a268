"""Jitter of a crop's own stains: known vectors are found, known changes come out, glass stays glass."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lobule.stain import separate
from lobule.training.stain_jitter import jitter_stains, own_stains

STAINS = np.array([[0.62, 0.72, 0.31], [0.12, 0.95, 0.20]])
STAINS /= np.linalg.norm(STAINS, axis=1, keepdims=True)


def draw_stained(side: int = 128, seed: int = 0) -> NDArray[np.uint8]:
    """Pixels of the two stains in many proportions, some pure, some glass."""
    rng = np.random.default_rng(seed)
    amounts = rng.uniform(0.1, 0.9, (side, side, 2))
    amounts[: side // 4, :, 0] = 0
    amounts[side // 4 : side // 2, :, 1] = 0
    amounts[-side // 8 :] = 0
    return np.clip(np.rint(255 * 10 ** -(amounts @ STAINS)), 0, 255).astype(np.uint8)


def test_the_stains_of_a_crop_are_found() -> None:
    found = own_stains(draw_stained())
    assert found is not None
    np.testing.assert_allclose(found, STAINS, atol=0.03)


def test_strength_zero_changes_nothing_and_one_generator_gives_one_change() -> None:
    pixels = draw_stained()
    np.testing.assert_array_equal(jitter_stains(pixels, 0.0, np.random.default_rng(0)), pixels)
    first = jitter_stains(pixels, 0.3, np.random.default_rng(1))
    np.testing.assert_array_equal(first, jitter_stains(pixels, 0.3, np.random.default_rng(1)))
    assert (first != jitter_stains(pixels, 0.3, np.random.default_rng(2))).any()
    assert first.dtype == np.uint8 and first.shape == pixels.shape


class _Fixed:
    """A generator that gives the numbers it is told."""

    def __init__(self, *values: NDArray[np.float64]) -> None:
        self._values = list(values)

    def uniform(self, low: float, high: float, size: object) -> NDArray[np.float64]:
        value = self._values.pop(0)
        assert (low <= value).all() and (value <= high).all()
        return value


def test_amounts_are_multiplied_by_the_gains_and_colors_kept_where_none_turns() -> None:
    pixels = draw_stained()
    rng = _Fixed(np.array([0.3, -0.4]), np.zeros((2, 3)))
    out = jitter_stains(pixels, 0.5, rng)  # type: ignore[arg-type]
    stains = own_stains(pixels)
    assert stains is not None
    before, after = separate(pixels, stains), separate(out, stains)
    shown = (pixels.min(axis=2) > 25) & (out.min(axis=2) > 25)
    np.testing.assert_allclose(after[shown], before[shown] * [1.3, 0.6], atol=0.04)


def test_a_turned_stain_gives_its_new_color() -> None:
    pixels = draw_stained()
    turn = np.array([[0.07, -0.05, 0.02], [0.0, 0.0, 0.0]])
    out = jitter_stains(pixels, 0.5, _Fixed(np.zeros(2), turn))  # type: ignore[arg-type]
    stains, changed = own_stains(pixels), own_stains(out)
    assert stains is not None and changed is not None
    expected = stains[0] + turn[0]
    np.testing.assert_allclose(changed[0], expected / np.linalg.norm(expected), atol=0.02)
    np.testing.assert_allclose(changed[1], stains[1], atol=0.02)


@settings(max_examples=25)
@given(strength=st.floats(0, 0.5), seed=st.integers(0, 99))
def test_white_stays_white_and_no_change_leaves_its_bounds(strength: float, seed: int) -> None:
    pixels = draw_stained(64, seed)
    pixels[5, 5] = 255
    out = jitter_stains(pixels, strength, np.random.default_rng(seed))
    assert (out[5, 5] == 255).all()
    stains = own_stains(pixels)
    assert stains is not None
    amounts = separate(pixels, stains).mean(axis=(0, 1)), separate(out, stains).mean(axis=(0, 1))
    assert (np.abs(amounts[1] / amounts[0] - 1) <= 1.6 * strength + 0.03).all()


@pytest.mark.parametrize("kind", ["glass", "black", "one color", "small"])
def test_crops_without_two_stains_are_returned_as_they_are(kind: str) -> None:
    rng = np.random.default_rng(0)
    pixels = {
        "glass": rng.integers(244, 252, (64, 64, 3), dtype=np.uint8),
        "black": np.zeros((64, 64, 3), np.uint8),
        "one color": np.full((64, 64, 3), (120, 60, 140), np.uint8),
        "small": draw_stained()[:4, :4],
    }[kind]
    np.testing.assert_array_equal(jitter_stains(pixels, 0.5, np.random.default_rng(1)), pixels)


def test_as_many_numbers_are_drawn_whatever_the_crop_holds() -> None:
    one, other = np.random.default_rng(3), np.random.default_rng(3)
    jitter_stains(draw_stained(), 0.2, one)
    jitter_stains(np.full((64, 64, 3), 250, np.uint8), 0.2, other)
    assert one.random() == other.random()
