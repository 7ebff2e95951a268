"""Connected parts by runs, held against SciPy's labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from lobule.annotations.parts import connected_parts

masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=24))


@given(masks, st.booleans())
def test_the_parts_are_those_of_scipy(mask: np.ndarray, diagonal: bool) -> None:
    parts = connected_parts(mask, diagonal=diagonal)
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)) if diagonal else None)
    assert len(parts.area) == count
    np.testing.assert_array_equal(parts.labels(), labels)
    np.testing.assert_array_equal(parts.area, np.bincount(labels.ravel(), minlength=count + 1)[1:])
    edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    np.testing.assert_array_equal(np.flatnonzero(parts.at_edge()) + 1, edge[edge > 0])


@given(masks, st.data())
def test_chosen_parts_are_painted_and_no_others(mask: np.ndarray, data: st.DataObject) -> None:
    parts = connected_parts(mask, diagonal=False)
    chosen = np.array(
        data.draw(st.lists(st.booleans(), min_size=len(parts.area), max_size=len(parts.area))), bool
    )
    expected = np.isin(parts.labels(), np.flatnonzero(chosen) + 1)
    np.testing.assert_array_equal(parts.painted(chosen), expected)


@pytest.mark.parametrize("turns", range(4))
def test_a_long_spiral_is_one_part(turns: int) -> None:
    # the worst case for joining runs: each row's runs belong together only through many others
    side = 61
    mask = np.zeros((side, side), bool)
    top, left, bottom, right = 0, 0, side - 1, side - 1
    while top <= bottom and left <= right:
        mask[top, left : right + 1] = mask[top : bottom + 1, right] = mask[bottom, left : right + 1] = True
        mask[top + 2 : bottom + 1, left] = True
        mask[top + 2, left : left + 2] = True
        top, left, bottom, right = top + 2, left + 2, bottom - 2, right - 2
    mask = np.rot90(mask, turns).copy()
    _, count = ndimage.label(mask)
    assert len(connected_parts(mask, diagonal=False).area) == count
