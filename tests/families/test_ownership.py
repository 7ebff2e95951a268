"""A field in tiles holds the nuclei of the field as a whole: each once, none cut, none at a seam more or less."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from lobule.families.nuclei import decode_tile
from lobule.families.ownership import REACH_UM, within_others
from lobule.findings.nuclei import Nuclei
from lobule.geometry import Mpp, WorkingFrame
from lobule.models.card import Card, read_card
from lobule.models.zoo import shipped_models
from lobule.strict import changed
from lobule.tiles import TileGrid

SIZE = (2100, 1000)
HALO_PX = 64
SEAM_PX = 128
"""Every seam of the tiles below lies on a multiple of this."""
TILES_PX = (256, 512, 1024, 2048)
WHOLE_PX = 2304
LARGEST_RADIUS_PX = 20
WAYS = {"learned": {"depth": 0.15}, "watershed": {"split_um": 0.75}, "components": {}}


@pytest.fixture(scope="module")
def field() -> tuple[np.ndarray, np.ndarray]:
    """Maps (2, H, W) and pixels: nuclei alone, in chains, on every seam, and with their center exactly on one."""
    random = np.random.default_rng(12)
    width, height = SIZE
    maps = np.zeros((2, height, width), np.float32)
    places = []
    for y in range(SEAM_PX, height, SEAM_PX):
        for x in range(SEAM_PX, width, SEAM_PX):
            places.append((x, y, 10.0))  # symmetric: its center is the corner of four tiles
    for _ in range(300):
        x, y = random.uniform(0, width), random.uniform(0, height)
        places.append((x, y, random.uniform(6, LARGEST_RADIUS_PX)))
        for _ in range(random.integers(0, 4)):
            radius, angle = random.uniform(6, 12), random.uniform(0, 2 * np.pi)
            x, y = x + 1.4 * radius * np.cos(angle), y + 1.4 * radius * np.sin(angle)
            places.append((x, y, radius))
    # no two pixels as far from an edge: which of equals is flooded first is the learned map's own affair
    noise = random.uniform(0, 1e-3, (height, width)).astype(np.float32)
    for x, y, radius in places:
        x0, y0 = max(0, int(x - radius) - 1), max(0, int(y - radius) - 1)
        x1, y1 = min(int(x + radius) + 2, width), min(int(y + radius) + 2, height)
        if x1 <= x0 or y1 <= y0:
            continue
        here = (slice(y0, y1), slice(x0, x1))
        rows, columns = np.mgrid[here]
        distance = 1 - np.hypot(columns + 0.5 - x, rows + 0.5 - y) / radius
        maps[0][here] = np.maximum(maps[0][here], np.where(distance > 0, 0.9, 0))
        maps[1][here] = np.maximum(maps[1][here], np.clip(distance, 0, 1) + noise[here])
    return maps, random.integers(0, 256, (height, width, 3), np.uint8)


def shipped_card(thresholds: dict[str, float]) -> Card:
    card = read_card(shipped_models()["nuclei-breast-lite0"] / "card.json")
    return changed(card, thresholds={"mask": 0.5, "min_area_um2": 3.0, **thresholds})


def in_tiles(
    field: tuple[np.ndarray, np.ndarray], tile_px: int, thresholds: dict[str, float], halo_px: int = HALO_PX
) -> tuple[Nuclei, TileGrid]:
    """The field's nuclei, decoded tile by tile, by rising y and x."""
    maps, pixels = field
    height, width = pixels.shape[:2]
    frame = WorkingFrame((width, height), Mpp(0.25, 0.25), Mpp(0.25, 0.25))
    grid = TileGrid((width, height), tile_px, halo_px)
    around = tile_px
    wide = np.pad(maps, ((0, 0), (around, around), (around, around)))
    colors = np.pad(pixels, ((around, around), (around, around), (0, 0)), constant_values=255)
    card, parts = shipped_card(thresholds), []
    for index in range(len(grid)):
        read = grid.read(index)
        here = (
            slice(read.y0 + around, read.y1 + around),
            slice(read.x0 + around, read.x1 + around),
        )
        parts.append(
            decode_tile(
                card,
                np.ascontiguousarray(wide[(slice(None), *here)])[None],
                np.ascontiguousarray(colors[here]),
                read=read,
                kept=grid.kept(index),
                frame=frame,
            )
        )
    return Nuclei.joined(parts), grid


def order(nuclei: Nuclei) -> np.ndarray:
    return np.lexsort(np.round(nuclei.centroid_px, 6).T)


@pytest.fixture(scope="module")
def wholes(field: tuple[np.ndarray, np.ndarray]) -> dict[str, Nuclei]:
    """By way, from one tile that holds the whole field."""
    found = {}
    for way, thresholds in WAYS.items():
        nuclei, grid = in_tiles(field, WHOLE_PX, thresholds)
        assert len(grid) == 1 and len(nuclei) > 200
        found[way] = nuclei
    return found


@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("tile_px", TILES_PX)
def test_tiles_of_every_size_give_the_nuclei_of_the_whole_field(
    way: str, tile_px: int, field: tuple[np.ndarray, np.ndarray], wholes: dict[str, Nuclei]
) -> None:
    whole = wholes[way]
    tiled, grid = in_tiles(field, tile_px, WAYS[way])
    assert len(grid) > 1
    if way == "components":
        # a chain of touching nuclei counts as one here, and those longer than the halo are cut
        longest = np.array([np.ptp(whole.outline_px(k), 0).max() for k in range(len(whole))])
        assert abs(len(tiled) - len(whole)) <= np.count_nonzero(longest > HALO_PX)
        return
    assert len(tiled) == len(whole)
    one, other = order(whole), order(tiled)
    np.testing.assert_allclose(tiled.centroid_px[other], whole.centroid_px[one], atol=1e-6)
    np.testing.assert_allclose(tiled.measures[other], whole.measures[one], rtol=2e-5, atol=2e-5)
    for k, j in zip(one, other, strict=True):
        np.testing.assert_allclose(tiled.outline_px(j), whole.outline_px(k), atol=1e-3)


def test_a_center_on_a_seam_or_on_the_corner_of_four_tiles_has_one_owner(
    field: tuple[np.ndarray, np.ndarray],
) -> None:
    maps = np.zeros_like(field[0])
    corners = [(x, y) for y in range(SEAM_PX, SIZE[1], SEAM_PX) for x in range(SEAM_PX, SIZE[0], SEAM_PX)]
    for x, y in corners:
        maps[:, y - 8 : y + 8, x - 8 : x + 8] = 0.9
    for tile_px in TILES_PX:
        nuclei, _ = in_tiles((maps, field[1]), tile_px, WAYS["learned"])
        np.testing.assert_array_equal(nuclei.centroid_px[order(nuclei)], np.array(corners, float))


def test_a_halo_narrower_than_the_nuclei_cuts_them_and_a_wide_one_does_not(
    field: tuple[np.ndarray, np.ndarray], wholes: dict[str, Nuclei]
) -> None:
    whole = np.sort(wholes["learned"].measure("area_um2"))
    narrow, _ = in_tiles(field, 256, WAYS["learned"], halo_px=8)
    wide, _ = in_tiles(field, 256, WAYS["learned"], halo_px=3 * LARGEST_RADIUS_PX)
    np.testing.assert_allclose(np.sort(wide.measure("area_um2")), whole)
    assert len(narrow) != len(whole) or not np.allclose(np.sort(narrow.measure("area_um2")), whole)


@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("size", [(1, 1), (40, 30), (300, 200)])
def test_fields_with_nothing_or_nothing_but_nucleus_give_none_or_one(way: str, size: tuple[int, int]) -> None:
    width, height = size
    for value, count in ((0.0, 0), (1.0, 1)):
        maps = np.full((2, height, width), value, np.float32)
        pixels = np.full((height, width, 3), 90, np.uint8)
        nuclei, _ = in_tiles((maps, pixels), 512, {**WAYS[way], "min_area_um2": 0.0})
        assert len(nuclei) == count
        if count:
            assert nuclei.measure("area_um2")[0] == pytest.approx(width * height * 0.0625)
            np.testing.assert_allclose(nuclei.centroid_px, [[width / 2, height / 2]])


def _in_others(disks: list[tuple[float, float, float]], tile: list[int]) -> list[bool]:
    centers = np.array([disk[:2] for disk in disks], float).reshape(-1, 2)
    radius = np.array([disk[2] for disk in disks], float)
    outlines = shapely.buffer(shapely.points(centers), radius, quad_segs=32)

    def shared(pairs: np.ndarray) -> np.ndarray:
        one, other = outlines[pairs].T
        return shapely.area(shapely.intersection(one, other)) / shapely.area(outlines[pairs]).min(axis=1)

    return within_others(centers, radius, np.array(tile), shared).tolist()


def test_what_one_tile_parts_and_the_other_does_not_is_counted_once() -> None:
    # the whole across the seam at x = 0 by the one, its two halves by the other
    whole, left, right = (-1.0, 0.0, 6.0), (-3.5, 0.0, 3.4), (3.2, 0.0, 3.4)
    assert _in_others([whole, right], [0, 1]) == [False, True]
    assert _in_others([right, whole], [1, 0]) == [True, False]
    assert _in_others([whole, left, right], [1, 0, 0]) == [False, True, True]
    # of equals the lower tile's
    assert _in_others([whole, whole], [3, 2]) == [True, False]


def test_neighbors_that_touch_across_a_seam_and_parts_of_one_tile_stay() -> None:
    assert _in_others([(-4.0, 0.0, 4.5), (4.0, 0.0, 4.5)], [0, 1]) == [False, False]
    assert _in_others([(0.0, 0.0, 6.0), (1.0, 0.0, 2.0)], [4, 4]) == [False, False]
    # a part of what is itself a part of a larger one is judged by what stays
    chain = [(0.0, 0.0, 8.0), (6.5, 0.0, 5.0), (10.5, 0.0, 3.0)]
    assert _in_others(chain, [0, 1, 2]) == [False, True, False]


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.floats(-15, 15), st.floats(-5, 5), st.floats(1, 6), st.integers(0, 3)),
        max_size=12,
    )
)
def test_no_two_tiles_nuclei_that_stay_lie_in_each_other(
    found: list[tuple[float, float, float, int]],
) -> None:
    disks, tile = [one[:3] for one in found], [one[3] for one in found]
    gone = _in_others(disks, tile)
    outlines = [shapely.Point(x, y).buffer(radius, quad_segs=32) for x, y, radius in disks]

    def inside(small: int, large: int) -> bool:
        apart = np.hypot(*np.subtract(disks[small][:2], disks[large][:2]))
        common = outlines[small].intersection(outlines[large]).area
        return bool(
            tile[small] != tile[large]
            and disks[small][2] <= disks[large][2]
            and apart <= min(REACH_UM, 1.5 * disks[large][2])
            and common > 0.5 * outlines[small].area
        )

    for small in range(len(disks)):
        holders = [k for k in range(len(disks)) if k != small and inside(small, k)]
        stays = [k for k in holders if not gone[k]]
        assert bool(stays) == gone[small]
    # nor does the order matter, but among twins
    back = _in_others(disks[::-1], tile[::-1])[::-1]
    assert back == gone or len(set(found)) < len(found)
