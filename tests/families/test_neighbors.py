"""Distances to the nearest nucleus, and how far around each all are known."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from lobule.families.neighbors import mean_nearest_um, nearest_um, pairs_within, seen_around_um


def test_two_points_at_a_known_distance() -> None:
    np.testing.assert_allclose(nearest_um(np.array([[3.0, 4.0], [0.0, 0.0]])), [5, 5])
    np.testing.assert_allclose(nearest_um(np.array([[0.0, 0.0], [6.0, 0.0], [7.0, 0.0]])), [6, 1, 1])


def test_one_or_none_has_no_neighbor() -> None:
    assert nearest_um(np.zeros((0, 2))).shape == (0,)
    assert nearest_um(np.zeros((1, 2))).tolist() == [np.inf]


def scattered(seed: int, count: int, whole: bool) -> np.ndarray:
    """Crowds of points, some far from all others; on whole numbers many are equally far, and some upon each other."""
    random = np.random.default_rng(seed)
    crowds = random.uniform(0, 10 ** random.uniform(0.5, 4), (1 + count // 9, 2))
    points = random.choice(crowds, count) + random.normal(0, 10 ** random.uniform(-1, 1.5), (count, 2))
    return np.rint(points) if whole else np.asarray(points)


@settings(max_examples=60)
@given(st.integers(0, 2**16), st.integers(2, 400), st.booleans())
def test_the_nearest_is_the_nearest_of_all(seed: int, count: int, whole: bool) -> None:
    points = scattered(seed, count, whole)
    slow = cKDTree(points).query(points, k=2)[0].max(axis=1)
    np.testing.assert_allclose(nearest_um(points), slow, rtol=1e-6)


@settings(max_examples=60)
@given(st.integers(0, 2**16), st.integers(0, 400), st.booleans(), st.sampled_from([1.0, 2.0, 5.0, 33.3]))
def test_pairs_are_all_that_lie_so_near(seed: int, count: int, whole: bool, reach_um: float) -> None:
    points = scattered(seed, count, whole)
    slow = cKDTree(points).query_pairs(reach_um) if count else set()
    found = pairs_within(points, reach_um)
    assert len(found) == len(slow) and {tuple(pair) for pair in found.tolist()} == slow
    some = np.arange(0, count, 3)
    of_some = {(one, other) for pair in slow for one, other in (pair, pair[::-1]) if one % 3 == 0}
    assert {tuple(pair) for pair in pairs_within(points, reach_um, some).tolist()} == of_some


def test_a_crowd_and_nuclei_far_from_it_need_little_memory() -> None:
    """Compared all at once, with each other and with those far away, they would take 220 MB."""
    crowd = np.random.default_rng(6).uniform(-500, 500, (200_000, 2))
    angle = np.linspace(0, 2 * np.pi, 6, endpoint=False)
    points = np.concatenate([crowd, 6000 * np.stack([np.cos(angle), np.sin(angle)], 1)])
    tracemalloc.start()
    found = nearest_um(points)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(found, cKDTree(points).query(points, k=2)[0][:, 1], rtol=1e-5)
    assert peak < 130e6


SIDE_UM = 20.0
COLUMNS = 6
MPP = np.array([0.5, 0.5])


def boxes_of(chosen: np.ndarray) -> np.ndarray:
    y, x = np.divmod(chosen, COLUMNS)
    corners = np.stack([x, y, x + 1, y + 1], 1) * SIDE_UM
    return np.asarray(corners, float)


@settings(max_examples=40)
@given(st.integers(0, 2**16), st.booleans())
def test_how_far_is_seen_is_the_distance_to_where_nobody_looked(seed: int, whole: bool) -> None:
    random = np.random.default_rng(seed)
    chosen = np.flatnonzero(random.random(COLUMNS * 5) < (1.0 if whole else 0.8))
    region_um = shapely.Point(60, 50).buffer(random.uniform(20, 70))
    boxes = boxes_of(chosen)
    known = shapely.intersection(region_um, shapely.union_all(shapely.box(*boxes.T)))
    points = random.uniform(0, 120, (200, 2))
    points = points[shapely.contains_xy(known, *points.T)]
    cell = (points[:, 1] // SIDE_UM * COLUMNS + points[:, 0] // SIDE_UM).astype(int)
    order = np.argsort(cell, kind="stable")
    points, cell = points[order], cell[order]
    region = shapely.transform(region_um, lambda p: p / MPP)
    found = seen_around_um(points, np.searchsorted(chosen, cell), chosen, COLUMNS, boxes, region, MPP)
    slow = np.minimum(shapely.distance(shapely.points(points), known.boundary), SIDE_UM)
    np.testing.assert_allclose(found, slow, atol=1e-4)


def test_the_mean_is_not_drawn_down_by_what_lies_near_the_edge() -> None:
    """Points without pattern, 0.01 per µm²: the mean distance is 1 / (2 √density) = 5 µm."""
    random = np.random.default_rng(3)
    means, naive = [], []
    for _ in range(60):
        points = random.uniform(0, 60, (random.poisson(36), 2))
        seen = np.minimum(points, 60 - points).min(axis=1)
        nearest = nearest_um(points)
        nearest[nearest > seen] = np.nan
        mean = mean_nearest_um(nearest, seen)
        assert mean is not None
        means.append(mean)
        naive.append(np.nanmean(nearest))
    assert np.mean(means) == pytest.approx(5, rel=0.06)
    assert np.mean(naive) < 4.6


def test_no_known_distance_has_no_mean() -> None:
    assert mean_nearest_um(np.array([np.nan]), np.array([1.0])) is None
    assert mean_nearest_um(np.zeros(0), np.zeros(0)) is None
