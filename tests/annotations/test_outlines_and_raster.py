"""Masks to polygons and back."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from scipy import ndimage

from lobule.annotations import polygons_from_mask, raster, rasterize
from lobule.geometry import Mpp, WorkingFrame

masks = st_numpy.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def _pixels(width: int, height: int) -> WorkingFrame:
    return WorkingFrame((width, height), Mpp(1.0, 1.0), Mpp(1.0, 1.0))


def _check(mask: np.ndarray) -> None:
    polygons = polygons_from_mask(mask)
    labels, count = ndimage.label(mask)
    assert len(polygons) == count
    assert [p.area for p in polygons] == np.bincount(labels.ravel(), minlength=count + 1)[1:].tolist()
    for k, polygon in enumerate(polygons, 1):
        assert polygon.geom_type == "Polygon"
        assert polygon.is_valid, shapely.is_valid_reason(polygon)
        assert (rasterize([polygon], _pixels(*mask.shape[::-1])) == (labels == k)).all()
    assert (rasterize(polygons, _pixels(*mask.shape[::-1])) == mask).all()


@settings(max_examples=300)
@given(masks)
def test_polygons_have_the_parts_area_are_valid_and_paint_the_mask_again(mask: np.ndarray) -> None:
    _check(mask)


@pytest.mark.parametrize("density", [0.3, 0.5, 0.6, 0.7, 0.9])
def test_noise_with_many_touching_corners_comes_back_exactly(density: float) -> None:
    _check(np.random.default_rng(7).random((60, 70)) < density)


def test_a_ring_closed_by_a_corner_is_a_shell_that_its_hole_touches() -> None:
    mask = np.array([[0, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]], bool)
    (polygon,) = polygons_from_mask(mask)
    assert polygon.is_valid
    assert polygon.area == 11
    assert len(polygon.interiors) == 1


def test_an_empty_mask_has_no_polygons_and_a_full_one_a_box() -> None:
    assert polygons_from_mask(np.zeros((3, 4), bool)) == []
    (polygon,) = polygons_from_mask(np.ones((3, 4), bool))
    assert polygon.equals(shapely.box(0, 0, 4, 3))
    assert len(polygon.exterior.coords) == 5


@settings(max_examples=60)
@given(masks, st.floats(0.5, 3))
def test_simplified_polygons_stay_valid(mask: np.ndarray, tolerance: float) -> None:
    simple = polygons_from_mask(mask, simplify_px=tolerance)
    assert len(simple) == len(polygons_from_mask(mask))
    assert all(p.is_valid and not p.is_empty for p in simple)


def test_arrays_that_are_no_mask_are_refused() -> None:
    for wrong in (np.zeros((2, 2), np.uint8), np.zeros((2, 2, 2), bool)):
        with pytest.raises(ValueError, match="mask"):
            polygons_from_mask(wrong)  # type: ignore[arg-type]


coordinates = st.floats(-20, 60, allow_nan=False).map(lambda v: round(v, 3) + 0.000123)
rings = st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=9)


@settings(max_examples=150)
@given(rings, st.floats(0.6, 4.0), st.floats(0.6, 4.0))
def test_a_pixel_is_painted_exactly_where_shapely_finds_its_center_inside(
    ring: list[tuple[float, float]], sx: float, sy: float
) -> None:
    frame = WorkingFrame((37, 29), Mpp(1.0, 1.0), Mpp(sx, sy))
    geometry = shapely.make_valid(shapely.Polygon(ring))
    parts = [p for p in shapely.get_parts(geometry) if p.geom_type == "Polygon"]
    painted = rasterize(parts, frame)
    width, height = frame.size
    x, y = np.meshgrid((np.arange(width) + 0.5) * sx, (np.arange(height) + 0.5) * sy)
    union = shapely.union_all(parts)
    expected = shapely.contains_xy(union, x, y)
    clear = shapely.distance(shapely.boundary(union), shapely.points(x, y)) > 1e-7 if parts else True
    assert (painted == expected)[clear].all()


@settings(max_examples=150)
@given(rings, st.integers(1, 40), st.integers(1, 200))
def test_a_polygon_painted_in_bands_is_the_same(
    ring: list[tuple[float, float]], crossings: int, pixels: int
) -> None:
    frame = _pixels(37, 29)
    polygon = shapely.Polygon(ring)
    whole = rasterize([polygon], frame)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raster, "_MOST_CROSSINGS", crossings)
        patch.setattr(raster, "_MOST_PIXELS", pixels)
        assert (rasterize([polygon], frame) == whole).all()


def test_a_comb_of_many_long_teeth_takes_little_memory() -> None:
    teeth, height = 1000, 3000
    x = np.repeat(np.arange(2 * teeth) + 0.25, 2)[: 4 * teeth]
    y = np.tile([0.0, height, height, 0.0], teeth)
    polygon = shapely.Polygon([*zip(x, y, strict=True), (2 * teeth, -1.0), (0.25, -1.0)])
    frame = _pixels(2 * teeth, height)
    tracemalloc.start()
    try:
        painted = rasterize([polygon], frame)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 150e6
    assert painted[:, ::2].all() and not painted[:, 1:-1:2].any()


def test_polygons_that_share_an_edge_through_centers_share_no_pixel() -> None:
    frame = _pixels(8, 8)
    left, right = shapely.box(0, 0, 3.5, 8), shapely.box(3.5, 0, 8, 8)
    a, b = rasterize([left], frame), rasterize([right], frame)
    assert not (a & b).any()
    assert (a | b).all()


def test_overlapping_polygons_are_united_and_holes_stay_open() -> None:
    ring = shapely.Polygon(shapely.box(0, 0, 8, 8).exterior, [shapely.box(2, 2, 6, 6).exterior])
    painted = rasterize([ring, shapely.box(4, 4, 8, 8)], _pixels(8, 8))
    assert painted.sum() == 48 + 4


def test_what_lies_outside_the_frame_paints_nothing() -> None:
    frame = _pixels(5, 5)
    assert not rasterize([shapely.box(10, 10, 20, 20), shapely.box(-9, -9, -1, -1)], frame).any()
    assert rasterize([shapely.box(-1e6, -1e6, 1e6, 1e6)], frame).all()
    assert not rasterize([], frame).any()
