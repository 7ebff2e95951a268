"""Tumor regions: how small one may be, what lies at the slide's edge, what of it was judged."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from lobule.annotations import polygons_from_mask
from lobule.families.tumor import (
    cell_areas_mm2,
    least_region_mm2,
    parts_on_slide,
    refinement_frame,
    tumor_mask,
    tumor_regions,
)
from lobule.findings.maps import ScalarMap
from lobule.geometry import Mpp, WorkingFrame


def map_of(values: list[list[float]], slide_px: tuple[int, int], mpp: float = 0.25) -> ScalarMap:
    """A map of cells of 256 µm over a slide."""
    frame = WorkingFrame(slide_px, Mpp(mpp, mpp), Mpp(256, 256))
    return ScalarMap(np.array(values, np.float32), frame)


SIZES = st.tuples(st.integers(300, 200_000), st.integers(300, 200_000))


@given(SIZES, st.floats(0.1, 1.0), st.floats(0.5, 2.0))
def test_a_squashed_slide_fills_the_square_and_a_padded_one_its_longer_side(
    size: tuple[int, int], mpp: float, ratio: float
) -> None:
    um = Mpp(mpp, mpp * ratio)
    squashed = refinement_frame(size, um, 256, "squash")
    assert squashed.size == (256, 256)
    assert squashed.scale == pytest.approx((size[0] / 256, size[1] / 256))
    padded = refinement_frame(size, um, 256)
    assert max(padded.size) == 256 and padded.mpp.x == padded.mpp.y


def test_cells_count_as_far_as_there_is_slide() -> None:
    areas = cell_areas_mm2(map_of([[1, 1], [1, 1]], (1536, 1280)))
    np.testing.assert_allclose(areas, 0.256**2 * np.outer([1, 0.25], [1, 0.5]))
    assert areas.sum() == pytest.approx(1536 * 1280 * 0.25**2 / 1e6)


def test_a_speck_at_the_slides_edge_is_judged_by_its_area_on_the_slide() -> None:
    """A quarter of a cell is 0.0164 mm²; a whole one at the edge stays, as one within does."""
    cut = map_of([[0, 0, 0], [0, 0, 0], [0, 0, 1]], (2048 + 512, 2048 + 512))
    assert least_region_mm2(cut.frame) == 0.02
    assert not tumor_mask(cut, 0.5).any()
    for values in ([[1, 0, 0], [0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 1, 0], [0, 0, 0]]):
        whole = map_of(values, (2560, 2560))
        np.testing.assert_array_equal(tumor_mask(whole, 0.5), np.array(values, bool))


def perimeter_mm(map_: ScalarMap) -> float:
    mask = map_.values > 0.5
    (region,) = tumor_regions("slide", map_, mask, polygons_from_mask(mask), None)
    return region.perimeter_mm


@pytest.mark.parametrize("cells", [6, 15, 40])
@pytest.mark.parametrize("flat", [1.0, 0.6, 0.4])
@pytest.mark.parametrize("turned", [0.0, 0.4, np.pi / 4, 1.3])
def test_the_perimeter_is_that_of_the_shape_not_of_its_steps(cells: int, flat: float, turned: float) -> None:
    """A disk and slanted ellipses, against Ramanujan's perimeter; along the steps it is up to 1.35 times as long."""
    side = 2 * cells + 4
    y, x = np.mgrid[:side, :side] + 0.5 - side / 2
    along, across = (
        x * np.cos(turned) + y * np.sin(turned),
        (y * np.cos(turned) - x * np.sin(turned)) / flat,
    )
    drawn = map_of((np.hypot(along, across) < cells).astype(float).tolist(), (side * 1024, side * 1024))
    third = 3 * ((1 - flat) / (1 + flat)) ** 2
    true_mm = np.pi * cells * 0.256 * (1 + flat) * (1 + third / (10 + np.sqrt(4 - third)))
    assert perimeter_mm(drawn) == pytest.approx(true_mm, rel=0.06 if cells == 6 else 0.025)


@given(
    st.integers(1, 6),
    st.integers(1, 6),
    st.integers(0, 2),
    st.integers(0, 2),
    st.floats(0.1, 1),
    st.floats(0.1, 1),
)
def test_the_perimeter_of_a_rectangle_is_exact_also_where_the_slide_ends(
    wide: int, high: int, left: int, above: int, last_x: float, last_y: float
) -> None:
    values = np.zeros((above + high, left + wide))
    values[above:, left:] = 1
    size = tuple(
        round(1024 * (cells - 1 + last)) for cells, last in ((left + wide, last_x), (above + high, last_y))
    )
    um = [0.25 * length - 256 * before for length, before in zip(size, (left, above), strict=True)]
    assert perimeter_mm(map_of(values.tolist(), (size[0], size[1]))) == pytest.approx(2 * sum(um) / 1e3)


@pytest.mark.parametrize(
    ("um", "perimeter"),
    [((128, 128), 0.512), ((250, 250), 1.0), ((512, 128), 1.28), ((512, 256), 1.536), ((256, 256), 1.024)],
)
def test_the_perimeter_of_a_field_that_is_all_tumor_is_the_fields(
    um: tuple[int, int], perimeter: float
) -> None:
    field = map_of([[1.0] * -(-um[0] // 256)] * -(-um[1] // 256), (um[0] * 4, um[1] * 4))
    assert perimeter_mm(field) == pytest.approx(perimeter)


def test_the_perimeter_of_a_bent_strip_and_of_a_hole_follow_the_corners() -> None:
    """Arms of three cells and more are no steps; a point in the middle of an edge is no corner."""
    bent = np.zeros((8, 8))
    bent[1:4, 1:7] = bent[1:7, 1:4] = 1
    assert perimeter_mm(map_of(bent.tolist(), (8192, 8192))) == pytest.approx(24 * 0.256)
    ring = np.ones((5, 5))
    ring[2, 2] = 0
    framed = map_of(ring.tolist(), (5120, 5120))
    assert perimeter_mm(framed) == pytest.approx((20 + 4) * 0.256)
    halves = shapely.Polygon([(0, 0), (512, 0), (1024, 0), (1024, 1024), (0, 1024)])
    one = map_of([[1.0]], (1024, 1024))
    (region,) = tumor_regions("slide", one, one.values > 0.5, [shapely.box(0, 0, 1, 1)], None, halves)
    assert region.perimeter_mm == pytest.approx(1.024)


def test_a_field_smaller_than_half_a_cell_is_a_region_that_was_judged() -> None:
    field = map_of([[0.9]], (400, 400))
    assert least_region_mm2(field.frame) == pytest.approx(0.1 * 0.01)
    mask = tumor_mask(field, 0.5)
    (region,) = tumor_regions("field", field, mask, polygons_from_mask(mask), map_of([[0.0]], (400, 400)))
    assert region.area_mm2 == pytest.approx(0.01)
    assert region.mean_probability == pytest.approx(0.9)
    assert region.blurred_share == 0


def test_what_a_users_outline_leaves_of_a_region_is_no_speck() -> None:
    """Six cells, of which the outline keeps two pieces: one large, one of 0.0164 mm²."""
    whole = map_of([[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]], (4096, 4096))
    mask = whole.values > 0
    drawn = shapely.MultiPolygon([shapely.box(0, 0, 2600, 4096), shapely.box(2900, 1200, 3100, 2500)])
    (region,) = tumor_regions("drawn", whole, mask, polygons_from_mask(mask), None, drawn)
    assert region.polygon.equals(shapely.box(1024, 1024, 2600, 3072))
    parts = parts_on_slide(polygons_from_mask(mask)[0], whole.frame, drawn)
    assert [part.area for part in parts] == [region.polygon.area]
    field = map_of([[0.9]], (400, 400))
    (all_of_it,) = parts_on_slide(shapely.box(0, 0, 1, 1), field.frame, shapely.box(0, 0, 400, 400))
    assert all_of_it.equals(shapely.box(0, 0, 400, 400))
