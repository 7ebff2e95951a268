"""What two tiles say about one place beside a seam is settled: one nucleus, one owner."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lobule.families.ownership import COVERED, SAME, SPARE_UM, settled


def settle(rows: list[tuple[float, float, float, int, bool]]) -> list[bool]:
    """Rows of x, y, radius (µm), tile and whether spare."""
    table = np.array([row[:3] for row in rows], float).reshape(-1, 3)
    tile = np.array([row[3] for row in rows], np.int64)
    spare = np.array([row[4] for row in rows], bool)
    stays: list[bool] = settled(table[:, :2], table[:, 2], tile, spare).tolist()
    return stays


def test_nothing_settles_to_nothing() -> None:
    assert settle([]) == []
    assert settle([(1, 1, 3, 0, True)]) == [False]


def test_one_nucleus_that_two_tiles_own_stays_with_the_first() -> None:
    assert settle([(10.1, 5, 3, 1, False), (9.9, 5, 3, 0, False)]) == [False, True]


def test_one_nucleus_that_each_of_two_tiles_leaves_to_the_other_is_kept_once() -> None:
    assert settle([(10.1, 5, 3, 0, True), (9.9, 5, 3, 1, True)]) == [True, False]


def test_a_place_that_several_have_as_spare_is_kept_once() -> None:
    """By the first tile of those that have it: of two halves, of three tiles, of three of which two lie far apart."""
    assert settle([(10, 5, 4, 0, True), (9.2, 5, 3, 1, True), (10.8, 5, 3, 1, True)]) == [True, False, False]
    assert settle([(10, 5, 3, 0, True), (10.1, 5, 3, 1, True), (9.9, 5, 3, 2, True)]) == [True, False, False]
    assert settle([(9, 5, 3, 0, True), (10.2, 5, 3, 1, True), (11.4, 5, 3, 2, True)]) == [True, False, False]


def test_a_spare_nucleus_that_its_owner_does_not_see_is_dropped() -> None:
    assert settle([(10.1, 5, 3, 0, True), (30, 5, 3, 1, False)]) == [False, True]


def test_a_spare_nucleus_in_the_place_of_a_third_tiles_is_dropped() -> None:
    rows = [(10.1, 5, 3, 0, True), (9.9, 5, 3, 1, True), (10, 6, 3, 2, False)]
    assert settle(rows) == [False, False, True]


def test_a_spare_nucleus_whose_owner_has_it_is_dropped() -> None:
    assert settle([(10.1, 5, 3, 0, True), (10.0, 5, 3.1, 1, False)]) == [False, True]


def test_a_spare_nucleus_that_its_owner_sees_as_part_of_a_larger_one_is_dropped() -> None:
    assert settle([(10.1, 5, 3, 0, True), (12.5, 5, 4.5, 1, False)]) == [False, True]


def test_neighbors_that_touch_across_a_seam_are_two() -> None:
    assert settle([(9, 5, 3, 0, False), (14, 5, 3, 1, False)]) == [True, True]
    # side by side, narrow
    assert settle([(9, 5, 2, 0, False), (10.8, 5, 2, 1, False)]) == [True, True]


def test_what_one_tile_tells_apart_is_not_joined() -> None:
    assert settle([(9, 5, 3, 0, False), (9.5, 5, 3, 0, False)]) == [True, True]


@settings(max_examples=60)
@given(st.integers(0, 2**16), st.integers(1, 60))
def test_the_order_of_tiles_does_not_matter_and_the_result_is_settled(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    rows = [
        (
            *random.uniform(0, 20, 2),
            random.uniform(1, 5),
            int(random.integers(0, 4)),
            bool(random.integers(0, 2)),
        )
        for _ in range(count)
    ]
    rows.sort(key=lambda row: row[3])
    found = settle(rows)
    # tiles in another order, each tile's nuclei in their own
    tiles = random.permutation(4).tolist()
    numbers = [k for tile in tiles for k in range(count) if rows[k][3] == tile]
    again = settle([rows[k] for k in numbers])
    assert [again[numbers.index(k)] for k in range(count)] == found
    # where two tiles left a nucleus to each other, one stays
    for k, one in enumerate(rows):
        for other in rows[k + 1 :]:
            apart = float(np.hypot(one[0] - other[0], one[1] - other[1]))
            same = apart < min(SPARE_UM, SAME * min(one[2], other[2]))
            if one[4] and other[4] and one[3] != other[3] and same:
                gaps = (
                    np.hypot(one[0] - row[0], one[1] - row[1]) / (one[2] + row[2])
                    for row, stays in zip(rows, found, strict=True)
                    if stays
                )
                assert min(gaps, default=1) < COVERED
    kept = [row for row, stays in zip(rows, found, strict=True) if stays]
    assert all(settle([(*row[:4], False) for row in kept]))
