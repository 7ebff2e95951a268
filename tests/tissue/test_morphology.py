"""Binary morphology, held against SciPy's and against plain loops."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from lobule.tissue.color import histogram, is_even, quantile
from lobule.tissue.morphology import close_disk, dilate_disk, drop_small, erode_disk, fill_small, open_disk

masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=30))
radii = st.integers(0, 14)


def _disk(radius: int) -> np.ndarray:
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return x * x + y * y <= radius * radius


@given(masks, radii)
def test_a_disk_dilates_and_erodes_as_scipy_does(mask: np.ndarray, radius: int) -> None:
    disk = _disk(radius)
    dilated, eroded = dilate_disk(mask, radius), erode_disk(mask, radius)
    np.testing.assert_array_equal(dilated, ndimage.binary_dilation(mask, disk))
    np.testing.assert_array_equal(eroded, ndimage.binary_erosion(mask, disk, border_value=1))
    # the edge goes on for much farther than a closing sees
    beyond = 4 * radius + 1
    closed = ndimage.binary_closing(np.pad(mask, beyond, mode="edge"), disk)
    np.testing.assert_array_equal(close_disk(mask, radius), closed[beyond:-beyond, beyond:-beyond])
    np.testing.assert_array_equal(open_disk(mask, radius), dilate_disk(eroded, radius))


@given(masks, st.floats(0, 40))
def test_small_parts_go_and_small_holes_are_filled(mask: np.ndarray, area: float) -> None:
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    kept = [k for k in range(1, count + 1) if sizes[k] >= area]
    np.testing.assert_array_equal(drop_small(mask, area), np.isin(labels, kept))

    holes, count = ndimage.label(~mask)
    sizes = np.bincount(holes.ravel(), minlength=count + 1)
    edge = set(np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]]).tolist())
    filled = [k for k in range(1, count + 1) if sizes[k] < area and k not in edge]
    np.testing.assert_array_equal(fill_small(mask, area), mask | np.isin(holes, filled))


@given(hnp.arrays(np.uint8, st.integers(1, 60)), st.floats(0, 1))
def test_a_quantile_from_the_histogram_is_numpys(values: np.ndarray, share: float) -> None:
    assert abs(quantile(values, share) - float(np.quantile(values, share))) < 1e-9
    assert histogram(values).sum() == values.size
    wide = values.astype(np.uint16) * 3
    assert abs(quantile(wide, share) - float(np.quantile(wide, share))) < 1e-9


@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(5, 20), st.integers(5, 20)), elements=st.integers(225, 240))
)
def test_even_glass_is_what_filters_of_scipy_say(green: np.ndarray) -> None:
    rgb = np.repeat(green[..., None], 3, axis=2)
    framed = np.pad(green, 1, mode="edge").astype(int)
    height, width = green.shape
    sums = sum(framed[y : y + height, x : x + width] for y in range(3) for x in range(3))
    expected = (ndimage.maximum_filter(sums, 5) - ndimage.minimum_filter(sums, 5) <= 27) & (
        ndimage.maximum_filter(green, 5) - ndimage.minimum_filter(green, 5) <= 10
    )
    np.testing.assert_array_equal(is_even(rgb), expected)


def test_evenness_does_not_depend_on_where_bands_of_rows_begin() -> None:
    random = np.random.default_rng(0)
    green = random.integers(228, 236, (64, 4096)).astype(np.uint8)
    green[20:44] = 230
    whole = is_even(np.repeat(green[..., None], 3, axis=2))
    assert 0.1 < whole.mean() < 0.9
    for top in (0, 9, 30):
        part = is_even(np.repeat(green[top : top + 34, :, None], 3, axis=2))
        # away from the cut, where the picture is mirrored
        np.testing.assert_array_equal(part[3:-3], whole[top + 3 : top + 31])
