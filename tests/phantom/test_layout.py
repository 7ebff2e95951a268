"""Layers, tiles and places agree with each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lobule.errors import ConfigurationError
from lobule.phantom import PhantomSpec
from lobule.phantom.layout import Layer, Layout, Mark, lay_out
from lobule.phantom.noise import periodic_noise
from lobule.phantom.pyramid import TILE_PX

CELLS = 12  # three tiles


def random_layout(seed: int, mark: bool) -> Layout:
    rng = np.random.default_rng(seed)
    # coarse steps leave whole tiles of one layer; fine ones mix
    cells = np.repeat(np.repeat(rng.integers(-127, 128, (3, 3, 3)), 4, axis=1), 4, axis=2).astype(np.int8)
    spots = rng.uniform(size=cells.shape) < 0.02
    cells[spots] = rng.integers(-127, 128, int(spots.sum()))
    layers = (Layer("first"), Layer("second", tumor=True), Layer("third", ragged=False))
    marks = (Mark("pen", (5, 6), np.full((2, 3), 40, np.int8)),) if mark else ()
    return Layout((CELLS * 64, CELLS * 64), 64, layers, cells, marks, seed)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), mark=st.booleans())
def test_tile_labels_are_the_labels_of_their_points(seed: int, mark: bool) -> None:
    layout = random_layout(seed, mark)
    column, row = seed % 3, seed // 3 % 3
    labels, near = layout.tile_labels(column, row)
    y, x = np.mgrid[0:TILE_PX, 0:TILE_PX]
    points = layout.labels_at(x + column * TILE_PX, y + row * TILE_PX)
    assert (labels != points).mean() < 1e-4  # the two add in another order: a last digit may differ
    assert set(np.unique(labels)) <= set(near)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6))
def test_a_sure_tile_shows_one_layer_and_so_does_a_cell_around_it(seed: int) -> None:
    layout = random_layout(seed, True)
    sure = layout.sure_labels(0, 0, 3, 3)
    assert sure.shape == (3, 3)
    for row, column in zip(*np.nonzero(sure >= 0), strict=True):
        y, x = np.mgrid[-64 : TILE_PX + 64 : 3, -64 : TILE_PX + 64 : 3]
        around = layout.labels_at(x + column * TILE_PX, y + row * TILE_PX)
        assert (around == sure[row, column]).all()
        assert not layout.marks_in(int(column), int(row))


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_a_label_is_the_last_layer_whose_interpolated_field_is_positive(seed: int) -> None:
    layout = random_layout(seed, False)
    rng = np.random.default_rng(seed)
    for x, y in rng.integers(0, CELLS * 64, (20, 2)).tolist():
        expected, near_zero = 0, False
        for k in range(3):
            field = 0.0
            for cy in range(-1, CELLS + 1):
                for cx in range(-1, CELLS + 1):
                    weight = max(0, 1 - abs((x + 0.5) / 64 - cx - 0.5)) * max(
                        0, 1 - abs((y + 0.5) / 64 - cy - 0.5)
                    )
                    if weight:
                        field += weight * int(
                            layout.cells[k, min(max(cy, 0), CELLS - 1), min(max(cx, 0), CELLS - 1)]
                        )
            if layout.layers[k].ragged:
                field += float(layout._noise[y, x])
            near_zero |= abs(field) < 1e-3
            expected = k + 1 if field > 0 else expected
        assert near_zero or int(layout.labels_at(np.array([x]), np.array([y]))[0]) == expected


def test_shares_of_tissue_and_tumor_are_what_was_asked() -> None:
    spec = PhantomSpec((30_000, 20_000), tissue_share=0.4, tumor_share=0.25, seed=4, artifacts=False)
    layout = lay_out(spec)
    tissue = layout.cells[0] > 0
    tumor = layout.cells[4] > 0
    assert tissue.mean() == pytest.approx(0.4, abs=0.02)
    assert tumor.sum() / tissue.sum() == pytest.approx(0.25, abs=0.03)
    assert tissue[tumor].all()


def test_no_tissue_can_be_asked() -> None:
    layout = lay_out(PhantomSpec((3000, 3000), tissue_share=0.0))
    assert not (layout.cells[:-1] > 0).any()


def test_cells_stay_bounded_on_the_largest_slide() -> None:
    spec = PhantomSpec((600_000, 300_000), artifacts=False)
    layout = lay_out(spec)
    assert layout.cell_px == 256
    assert layout.cells[0].size <= 8_000_000


def test_periodic_noise_wraps_around() -> None:
    noise = periodic_noise(np.random.default_rng(0), 128, 16)
    inner = np.abs(np.diff(noise, axis=0)).mean()
    assert np.abs(noise[0] - noise[-1]).mean() < 2 * inner
    assert noise.std() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"size": (0, 1000)}, "--size"),
        ({"size": (255, 1000)}, "--size"),
        ({"size": (10**7, 1000)}, "--size"),
        ({"size": (1000, 1000), "mpp": float("nan")}, "--mpp"),
        ({"size": (1000, 1000), "mpp": 0.0}, "--mpp"),
        ({"size": (1000, 1000), "seed": -1}, "--seed"),
        ({"size": (1000, 1000), "tissue_share": 1.5}, "--tissue"),
        ({"size": (1000, 1000), "tumor_share": float("nan")}, "--tumor"),
    ],
)
def test_a_spec_that_cannot_be_is_refused_by_name(options: dict[str, object], option: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        PhantomSpec(**options)  # type: ignore[arg-type]
    assert caught.value.option == option
