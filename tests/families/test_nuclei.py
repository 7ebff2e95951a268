"""A tile's nuclei: found, outlined and measured at once as one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shapely
from families.slow_nuclei import describe_slowly, find_slowly, outline_slowly
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from lobule.errors import ModelOutputError
from lobule.families.instances import Splitting, split, split_near
from lobule.families.nuclei import OUTLINE_TOLERANCE_PX, decode_tile, describe_instances, from_all_sides
from lobule.families.outlines import outer_outlines
from lobule.findings.nuclei import Nuclei
from lobule.geometry import Box, Mpp, WorkingFrame
from lobule.models.card import read_card
from lobule.models.zoo import shipped_models
from lobule.strict import changed


def cloud(seed: int, shape: tuple[int, int], sigma: float) -> np.ndarray:
    """Maps (2, h, w) of random blobs with touching, holes and specks; no two distances are equal."""
    random = np.random.default_rng(seed)
    fields = ndimage.gaussian_filter(random.normal(size=(2, *shape)), (0, sigma, sigma))
    fields[1] += fields[0] * random.uniform(0, 2)
    ranks = fields.reshape(2, -1).argsort(axis=1).argsort(axis=1).reshape(fields.shape)
    return ((ranks + 0.5) / ranks[0].size).astype(np.float32)


clouds = st.builds(
    cloud,
    st.integers(0, 2**20),
    st.tuples(st.integers(3, 60), st.integers(3, 70)),
    st.sampled_from([0.5, 0.8, 1.2, 2.0, 3.0]),
)


def same_partition(one: np.ndarray, other: np.ndarray) -> bool:
    pairs = np.unique(np.stack([one.ravel(), other.ravel()], 1), axis=0)
    return len(pairs) == len(np.unique(pairs[:, 0])) == len(np.unique(pairs[:, 1]))


@settings(max_examples=120)
@given(
    clouds,
    st.floats(0.2, 0.8),
    st.floats(0.02, 0.6) | st.just(0.001),
    st.integers(0, 20),
    st.sampled_from([0, 4, 10, 64]),
    st.sampled_from([0, 0.5]),
)
def test_instances_are_those_of_flooding_the_whole_image(
    maps: np.ndarray, mask_threshold: float, depth: float, min_area_px: int, levels: int, lowered: float
) -> None:
    if levels:  # many equal heights: plateaus, tops and passes alike
        maps[1] = np.round(maps[1] * levels) / levels
    maps[1] -= lowered
    slow = find_slowly(maps, mask_threshold, depth, min_area_px)
    fast = split(
        maps,
        "learned",
        mask_threshold=mask_threshold,
        depth=depth,
        min_area_px=min_area_px,
    )
    assert same_partition(slow, fast)
    assert fast.max() == slow.max()


@settings(max_examples=120)
@given(clouds, st.floats(0.2, 0.8), st.floats(0.2, 4), st.integers(0, 20))
def test_the_classic_watershed_is_that_of_flooding_every_parts_own_distances(
    maps: np.ndarray, mask_threshold: float, split_px: float, min_area_px: int
) -> None:
    slow = find_slowly(maps, mask_threshold, None, min_area_px, split_px)
    fast = split(
        maps[:1], "watershed", mask_threshold=mask_threshold, split_px=split_px, min_area_px=min_area_px
    )
    assert fast.max() == slow.max()
    assert same_partition(slow, fast)


@settings(max_examples=60)
@given(clouds, st.floats(0.2, 0.8), st.integers(0, 20))
def test_components_are_the_parts_of_the_mask_with_small_holes_filled(
    maps: np.ndarray, mask_threshold: float, min_area_px: int
) -> None:
    slow = find_slowly(maps, mask_threshold, None, min_area_px)
    fast = split(maps[:1], "components", mask_threshold=mask_threshold, min_area_px=min_area_px)
    assert same_partition(slow, fast)


@settings(max_examples=80)
@given(clouds, st.floats(0.3, 0.8), st.floats(0.02, 0.6), st.data())
def test_near_a_box_are_all_instances_whose_centroid_may_lie_in_it(
    maps: np.ndarray, mask_threshold: float, depth: float, data: Any
) -> None:
    height, width = maps.shape[1:]
    x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    box = Box(x0, y0, data.draw(st.integers(x0 + 1, width)), data.draw(st.integers(y0 + 1, height)))
    whole = find_slowly(maps, mask_threshold, depth, 1)
    near, at = split_near(maps, box, Splitting("learned", mask_threshold, depth), um_per_px=0.25)
    assert near.shape == (at.height, at.width)
    placed = np.zeros_like(whole)
    placed[at.y0 : at.y1, at.x0 : at.x1] = near
    for label, (rows, columns) in enumerate(ndimage.find_objects(whole), 1):
        touches = columns.start < box.x1 and columns.stop > box.x0
        if touches and rows.start < box.y1 and rows.stop > box.y0:
            of = placed[whole == label]
            assert of[0] > 0
            np.testing.assert_array_equal(placed == of[0], whole == label)


def test_a_nucleus_far_from_the_box_still_keeps_the_hole_around_it_open() -> None:
    rows, columns = np.mgrid[:60, :60]
    radius = np.hypot(rows - 30, columns - 30)
    maps = np.zeros((2, 60, 60), np.float32)
    maps[0][((radius < 22) & (radius > 10)) | (radius < 3)] = 1
    maps[1] = maps[0] * 0.2
    splitting = Splitting("learned", 0.5, 0.4)
    near, at = split_near(maps, Box(0, 0, 12, 60), splitting, um_per_px=0.25)
    assert (at.x0, at.y0, at.x1, at.y1) == (9, 9, 52, 52)
    assert near[30 - at.y0, 24 - at.x0] == 0
    maps[0][radius < 3] = 0
    near, at = split_near(maps, Box(0, 0, 12, 60), splitting, um_per_px=0.25)
    assert near[30 - at.y0, 24 - at.x0] == near[30 - at.y0, 12 - at.x0] > 0


def test_nothing_near_the_box_is_an_empty_map() -> None:
    maps = np.zeros((2, 40, 40), np.float32)
    maps[0, 30:35, 30:35] = 1
    near, at = split_near(maps, Box(0, 0, 10, 10), Splitting("learned", 0.5, 0.4), um_per_px=0.25)
    assert near.shape == (0, 0) and at.size == (0, 0)


def _from_least(points: np.ndarray) -> np.ndarray:
    """A closed outline from its least point on, toward the lesser of that point's neighbors."""
    start = np.lexsort(points.T)[0]
    ways = np.roll(points, -start, 0), np.roll(points[::-1], start + 1, 0)
    return min(ways, key=lambda way: tuple(way[1]))


@settings(max_examples=80)
@given(clouds, st.floats(0.3, 0.8), st.randoms())
def test_outlines_are_those_of_marching_squares(maps: np.ndarray, threshold: float, random: Any) -> None:
    labels = find_slowly(maps, threshold, 0.7, 1).astype(np.int32)
    every = list(range(1, labels.max() + 1))
    chosen = np.array(sorted(random.sample(every, random.randint(0, len(every)))), np.intp)
    if not len(chosen):
        return
    points, starts = outer_outlines(labels, chosen)
    assert starts[0] == 0 and starts[-1] == len(points)
    for k, label in enumerate(chosen):
        outline = points[starts[k] : starts[k + 1]]
        slow = outline_slowly(labels == label)
        assert len(outline) == len(slow)
        np.testing.assert_array_equal(_from_least(outline), _from_least(slow))
        # clockwise on the screen: the nucleus on the right
        following = np.roll(outline, -1, 0)
        assert np.sum(outline[:, 0] * following[:, 1] - outline[:, 1] * following[:, 0]) > 0


@settings(max_examples=60)
@given(clouds, st.floats(0.3, 0.7), st.integers(0, 12), st.integers(0, 2**16))
def test_measures_and_outlines_are_those_of_each_nucleus_by_itself(
    maps: np.ndarray, threshold: float, margin: int, seed: int
) -> None:
    labels = find_slowly(maps, threshold, 0.8, 1).astype(np.int32)
    height, width = labels.shape
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    mpp = Mpp(0.25, 0.25)
    read = Box(40, 24, 40 + width, 24 + height)
    kept = Box(read.x0 + min(margin, width // 3), read.y0, read.x1, read.y1 - min(margin, height // 3))
    frame = WorkingFrame((400, 360), Mpp(0.125, 0.125), mpp)
    fast = describe_instances(labels, maps[0], pixels, read=read, kept=kept, frame=frame)
    slow = describe_slowly(labels, maps[0], pixels, read, kept, mpp)
    assert len(fast) == len(slow)
    for k, (center, measures, outline) in enumerate(slow):
        assert fast.centroid_px[k] == pytest.approx(np.multiply(center, 2), abs=1e-6)
        for name, value in measures.items():
            assert fast.measure(name)[k] == pytest.approx(value, rel=1e-4, abs=2e-5), name
        drawn = shapely.LinearRing(fast.outline_px(k) / 2)
        assert shapely.hausdorff_distance(drawn, shapely.LinearRing(outline)) < OUTLINE_TOLERANCE_PX + 1e-3


def test_a_disk_is_outlined_with_few_vertices_and_measured_as_a_disk() -> None:
    rows, columns = np.mgrid[:60, :60]
    labels = (np.hypot(rows - 29.5, columns - 29.5) < 20).astype(np.int32)
    frame = WorkingFrame((60, 60), Mpp(0.5, 0.5), Mpp(0.5, 0.5))
    box = Box(0, 0, 60, 60)
    pixels = np.full((60, 60, 3), 128, np.uint8)
    nuclei = describe_instances(labels, labels.astype(np.float32), pixels, read=box, kept=box, frame=frame)
    assert len(nuclei) == 1
    assert nuclei.measure("equivalent_diameter_um")[0] == pytest.approx(20, rel=0.01)
    assert nuclei.measure("major_axis_um")[0] == pytest.approx(20, rel=0.01)
    assert nuclei.measure("perimeter_um")[0] == pytest.approx(20 * np.pi, rel=0.05)
    assert nuclei.measure("solidity")[0] > 0.98
    assert nuclei.measure("haematoxylin_od_sd")[0] == 0
    assert len(nuclei.vertices_px) < 60
    assert shapely.Polygon(nuclei.vertices_px).area == pytest.approx(np.pi * 400, rel=0.01)


def test_instances_smaller_than_asked_are_left_out() -> None:
    labels = np.zeros((20, 30), np.int32)
    labels[2:6, 2:6], labels[10:18, 10:18] = 1, 4
    box = Box(0, 0, 30, 20)
    frame = WorkingFrame((30, 20), Mpp(0.5, 0.5), Mpp(0.5, 0.5))
    pixels = np.zeros((20, 30, 3), np.uint8)
    for least, count in ((16, 2), (17, 1), (65, 0)):
        found = describe_instances(
            labels, labels.astype(np.float32), pixels, read=box, kept=box, frame=frame, min_area_px=least
        )
        assert len(found) == count


@given(
    pixels=st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
        lambda size: st.builds(
            lambda seed: np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8),
            st.integers(0, 2**20),
        )
    ),
    turns=st.integers(0, 3),
    mirrored=st.booleans(),
)
def test_what_is_seen_from_all_sides_turns_with_the_image(
    pixels: np.ndarray, turns: int, mirrored: bool
) -> None:
    def one_sided(image: np.ndarray) -> np.ndarray:
        """Maps that depend on where up and left are."""
        gray = image.sum(2, dtype=np.float32)
        return np.stack([np.cumsum(gray, 0), np.maximum.accumulate(gray, 1)])[None]

    def turned(image: np.ndarray, axes: tuple[int, int]) -> np.ndarray:
        image = np.rot90(image, turns, axes)
        return np.flip(image, axes[1]) if mirrored else image

    seen = from_all_sides(one_sided, pixels)
    assert seen.shape == (1, 2, *pixels.shape[:2]) and seen.dtype == np.float32
    again = from_all_sides(one_sided, turned(pixels, (0, 1)))
    np.testing.assert_allclose(again, turned(seen, (2, 3)), rtol=1e-5)

    def any_sided(image: np.ndarray) -> np.ndarray:
        return image[None, None, ..., 0].astype(np.float32)

    np.testing.assert_array_equal(from_all_sides(any_sided, pixels), any_sided(pixels))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_maps_that_are_not_finite_are_refused(wrong: float) -> None:
    card = read_card(shipped_models()["nuclei-breast-lite0"] / "card.json")
    box = Box(0, 0, 32, 32)
    frame = WorkingFrame((32, 32), Mpp(0.25, 0.25), Mpp(0.25, 0.25))
    maps = np.zeros((1, 2, 32, 32), np.float32)
    pixels = np.zeros((32, 32, 3), np.uint8)
    assert len(decode_tile(card, maps, pixels, read=box, kept=box, frame=frame)) == 0
    maps[0, 1, 5, 7] = wrong
    with pytest.raises(ModelOutputError, match="not finite"):
        decode_tile(card, maps, pixels, read=box, kept=box, frame=frame)


def test_what_lies_beyond_the_slide_is_not_looked_at() -> None:
    """A nucleus on the slide's edge, mirrored there: the half on the slide is found, and said to touch the border."""
    card = read_card(shipped_models()["nuclei-breast-lite0"] / "card.json")
    frame = WorkingFrame((40, 30), Mpp(0.25, 0.25), Mpp(0.25, 0.25))
    y, x = np.mgrid[:64, :64]
    maps = np.zeros((1, 2, 64, 64), np.float32)
    maps[0, :] = np.clip(1.5 - np.hypot(x - 40, y - 15) / 10, 0, 1)
    pixels = np.full((64, 64, 3), 100, np.uint8)
    kept = Box(0, 0, 40, 30)
    found = decode_tile(card, maps, pixels, read=Box(0, 0, 64, 64), kept=kept, frame=frame)
    alone = decode_tile(card, maps[:, :, :30, :40], pixels[:30, :40], read=kept, kept=kept, frame=frame)
    assert len(found) == 1 and found.measure("touches_border")[0] == 1
    np.testing.assert_array_equal(found.measures, alone.measures)
    np.testing.assert_array_equal(found.vertices_px, alone.vertices_px)


def test_a_cards_thresholds_choose_the_way_and_the_number_of_maps() -> None:
    card = read_card(shipped_models()["nuclei-breast-lite0"] / "card.json")
    box = Box(0, 0, 60, 32)
    frame = WorkingFrame((60, 32), Mpp(0.25, 0.25), Mpp(0.25, 0.25))
    rows, columns = np.mgrid[:32, :60]
    maps = np.zeros((1, 1, 32, 60), np.float32)
    maps[0, 0][np.hypot(rows - 16, columns - 18) < 12] = 0.9
    maps[0, 0][np.hypot(rows - 16, columns - 40) < 12] = 0.9
    pixels = np.full((32, 60, 3), 128, np.uint8)

    def count(thresholds: dict[str, float], given: np.ndarray = maps) -> int:
        own = changed(card, thresholds={"min_area_um2": 3.0, **thresholds})
        return len(decode_tile(own, given, pixels, read=box, kept=box, frame=frame))

    assert count({"mask": 0.5}) == 1
    assert count({"mask": 0.5, "split_um": 0.75}) == 2
    assert count({"mask": 0.5, "split_um": 4.0}) == 1
    assert count({"mask": 0.5, "depth": 0.2}, np.repeat(maps, 2, 1)) == 1
    with pytest.raises(ModelOutputError, match=r"learned way reads \(1, 2, height, width\)"):
        count({"mask": 0.5, "depth": 0.2})


@settings(max_examples=30)
@given(st.lists(st.integers(3, 30), max_size=8), st.integers(0, 2**16))
def test_nuclei_come_back_from_bytes_as_they_were(lengths: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    nuclei = Nuclei(
        random.normal(size=(len(lengths), 2)),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        random.normal(size=(sum(lengths), 2)).astype(np.float32),
        random.normal(size=(len(lengths), Nuclei.none().measures.shape[1])).astype(np.float32),
    )
    again = Nuclei.from_bytes(nuclei.to_bytes())
    for name in ("centroid_px", "starts", "vertices_px", "measures"):
        before, after = getattr(nuclei, name), getattr(again, name)
        assert before.dtype == after.dtype
        np.testing.assert_array_equal(before, after)


def test_bytes_that_are_not_nuclei_or_not_all_of_them_are_refused() -> None:
    with pytest.raises(ValueError, match="not nuclei"):
        Nuclei.from_bytes(b"\x93NUMPY and more")
    with pytest.raises(ValueError, match="part of"):
        Nuclei.from_bytes(Nuclei.none().to_bytes() + b"x")
