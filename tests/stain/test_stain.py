"""Optical density, separation of stains, normalization."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lobule.stain import haematoxylin, macenko, optical_density, reinhard, reinhard_statistics, separate
from lobule.stain.density import RUIFROK_HE


def _painted(amounts: np.ndarray, stains: np.ndarray) -> np.ndarray:
    unit = stains / np.linalg.norm(stains, axis=1, keepdims=True)
    return np.rint(255 * 10.0 ** -(amounts @ unit)).clip(0, 255).astype(np.uint8)


def test_optical_density_is_the_negative_decimal_logarithm() -> None:
    levels = np.arange(256, dtype=np.uint8)
    expected = [-math.log10(max(level, 1) / 255) for level in range(256)]
    assert optical_density(levels) == pytest.approx(expected, abs=1e-6)


@settings(max_examples=40)
@given(st.integers(0, 2**16))
def test_separation_equals_solving_the_mixture_pixel_by_pixel(seed: int) -> None:
    rgb = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    hed = RUIFROK_HE / np.linalg.norm(RUIFROK_HE, axis=1, keepdims=True)
    rest = np.cross(hed[0], hed[1])
    mixture = np.vstack([hed, rest / np.linalg.norm(rest)]).T
    amounts = separate(rgb)
    for row in range(3):
        for column in range(4):
            density = [-math.log10(max(int(v), 1) / 255) for v in rgb[row, column]]
            slow = np.linalg.solve(mixture, density)
            assert amounts[row, column] == pytest.approx(slow[:2], abs=2e-5)
            assert haematoxylin(rgb)[row, column] == pytest.approx(max(slow[0], 0.0), abs=2e-5)


def test_separation_agrees_with_scikit_image() -> None:
    from skimage.color import separate_stains

    rgb = np.random.default_rng(1).integers(1, 256, (20, 30, 3), dtype=np.uint8)
    unit = RUIFROK_HE / np.linalg.norm(RUIFROK_HE, axis=1, keepdims=True)
    rest = np.cross(unit[0], unit[1])
    inverse = np.linalg.inv(np.vstack([unit, rest / np.linalg.norm(rest)]))
    # scikit-image divides the density by log(1e-6), a constant, and clips at 0
    theirs = separate_stains(rgb, inverse)[..., :2] * -math.log10(1e-6)
    amounts = separate(rgb)
    factor = theirs[amounts > 0.2] / amounts[amounts > 0.2]
    assert np.ptp(factor) < 1e-3


def test_separation_by_parts_equals_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    rgb = np.random.default_rng(2).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    whole = separate(rgb)
    monkeypatch.setattr("lobule.stain.density._PIXELS_AT_ONCE", 10)
    assert separate(rgb) == pytest.approx(whole, abs=1e-6)


def test_macenko_finds_the_stains_that_an_image_was_painted_with() -> None:
    random = np.random.default_rng(3)
    truth = np.array([[0.62, 0.73, 0.28], [0.17, 0.92, 0.35]])
    share = random.random((200, 200, 1))
    amounts = np.concatenate([share, 1 - share], axis=2) * random.uniform(0.5, 1.2, (200, 200, 1))
    amounts[:20] = 0
    found = macenko(_painted(amounts, truth))
    unit = truth / np.linalg.norm(truth, axis=1, keepdims=True)
    assert (found * unit).sum(axis=1) == pytest.approx([1.0, 1.0], abs=5e-3)
    assert np.linalg.norm(found, axis=1) == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize(("level", "words"), [(250, "too few"), (100, "cannot be told apart")])
def test_macenko_refuses_glass_and_one_color(level: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        macenko(np.full((40, 40, 3), level, np.uint8))


def test_reinhard_gives_the_target_its_mean_and_spread() -> None:
    random = np.random.default_rng(4)
    source = _painted(random.uniform(0.1, 0.6, (60, 60, 2)), RUIFROK_HE)
    target = reinhard_statistics(_painted(random.uniform(0.2, 0.5, (60, 60, 2)), RUIFROK_HE))
    result = reinhard_statistics(reinhard(source, target))
    assert result[0] == pytest.approx(target[0], abs=0.01)
    assert result[1] == pytest.approx(target[1], rel=0.15, abs=0.005)


def test_reinhard_to_itself_changes_nothing() -> None:
    rgb = _painted(np.random.default_rng(5).uniform(0.1, 0.6, (30, 30, 2)), RUIFROK_HE)
    assert np.abs(reinhard(rgb, reinhard_statistics(rgb)).astype(int) - rgb).max() <= 1


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError):
        separate(np.zeros((4, 4), np.uint8))
    with pytest.raises(ValueError, match="same color"):
        separate(np.zeros((4, 4, 3), np.uint8), np.array([[1.0, 1, 1], [2, 2, 2]]))
    with pytest.raises(ValueError):
        reinhard(np.zeros((4, 4, 3), np.uint8), np.zeros(3))
