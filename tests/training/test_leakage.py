"""Leaks that were planted are found, of every kind; none is found where there is none."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from lobule.errors import LeakageError
from lobule.training.leakage import _carried, _turned, check_leakage, shared_patients, shared_pixels
from lobule.training.nuclei_sets import NucleiField, read_set
from lobule.training.splits import by_patient, half_of_images

Pixels = NDArray[np.uint8]


def draw_tissue(seed: int, side: int = 320) -> Pixels:
    """Dark blobs on a cloudy ground, in color: no two seeds alike."""
    rng = np.random.default_rng(seed)
    cloud = ndimage.gaussian_filter(rng.normal(size=(side, side)), 12) * 220
    blobs = ndimage.gaussian_filter(rng.normal(size=(side, side)), 5) * 5
    nuclei = np.where(blobs > 0.35, 90.0, 0.0)
    noise = ndimage.gaussian_filter(rng.normal(size=(side, side, 3)), (1, 1, 0)) * 12
    plane = 190 + cloud - ndimage.gaussian_filter(nuclei, 1)
    return np.clip(plane[..., None] + noise + (20, -30, 15), 0, 255).astype(np.uint8)


def field(name: str, pixels: Pixels, patient: str | None = None) -> NucleiField:
    return NucleiField(
        name, patient or name, pixels, np.zeros(pixels.shape[:2], np.int32), None, name.split("/")[0]
    )


def compressed(pixels: Pixels, quality: int) -> Pixels:
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "JPEG", quality=quality)
    return np.asarray(Image.open(held))


OTHERS = [field(f"x/{k}", draw_tissue(100 + k)) for k in range(4)]


def leaks(pixels: Pixels, source: Pixels) -> Sequence[str]:
    """The names found to share pixels with the field made of ``pixels``, which was taken from ``source``."""
    blocks = {
        "training": [*OTHERS[:2], field("x/source", source)],
        "test": [field("x/taken", pixels), *OTHERS[2:]],
    }
    return [f"{one.first} {one.second}" for _, _, one in shared_pixels(blocks)]


FOUND = ["x/source x/taken"]


@settings(max_examples=16)
@given(seed=st.integers(0, 50), symmetry=st.integers(0, 7), quality=st.sampled_from([None, 95, 80, 70]))
def test_an_image_is_found_again_turned_and_compressed(seed: int, symmetry: int, quality: int | None) -> None:
    source = draw_tissue(seed)
    taken = np.ascontiguousarray(_turned(source, symmetry))
    assert leaks(compressed(taken, quality) if quality else taken, source) == FOUND


@settings(max_examples=12)
@given(
    seed=st.integers(0, 50),
    corner=st.tuples(st.integers(0, 120), st.integers(0, 120)),
    size=st.tuples(st.integers(140, 200), st.integers(140, 200)),
    symmetry=st.integers(0, 7),
)
def test_a_crop_is_found_again_and_its_size_is_told(
    seed: int, corner: tuple[int, int], size: tuple[int, int], symmetry: int
) -> None:
    source = draw_tissue(seed)
    crop = source[corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]]
    blocks = {"a": [field("x/0", source)], "b": [field("x/1", np.ascontiguousarray(_turned(crop, symmetry)))]}
    [(first, second, shared)] = shared_pixels(blocks)
    assert (first, second, shared.first, shared.second) == ("a", "b", "x/0", "x/1")
    assert (shared.height_px, shared.width_px) == size
    assert shared.correlation > 0.8


@settings(max_examples=10)
@given(seed=st.integers(0, 50), along=st.integers(150, 200), across=st.integers(0, 100))
def test_images_that_overlap_are_found(seed: int, along: int, across: int) -> None:
    whole = draw_tissue(seed, 520)
    first, second = whole[:320, :320], whole[across : across + 320, 320 - along : 640 - along]
    blocks = {"a": [field("x/0", first)], "b": [field("x/1", compressed(second, 85))]}
    [(_, _, shared)] = shared_pixels(blocks)
    assert (shared.height_px, shared.width_px) == (320 - across, min(along, 320))


@settings(max_examples=40)
@given(shape=st.tuples(st.integers(1, 9), st.integers(1, 9)), symmetry=st.integers(0, 7), data=st.data())
def test_a_pixel_is_carried_where_the_array_is_turned(
    shape: tuple[int, int], symmetry: int, data: st.DataObject
) -> None:
    at = data.draw(st.tuples(st.integers(0, shape[0] - 1), st.integers(0, shape[1] - 1)))
    marked = np.zeros(shape, bool)
    marked[at] = True
    assert tuple(np.argwhere(_turned(marked, symmetry))[0]) == _carried(at, shape, symmetry)


def test_nothing_is_found_among_images_apart() -> None:
    blocks = {
        "training": [field(f"x/{k}", draw_tissue(k)) for k in range(6)],
        "selection": [field("x/6", draw_tissue(6))],
        "test": [field(f"x/{k}", draw_tissue(k)) for k in range(7, 10)],
    }
    check_leakage(blocks)


def test_pale_images_that_are_equal_are_found_and_glass_of_one_color_is_not() -> None:
    pale = np.full((200, 240, 3), 240, np.uint8)
    glass = {"a": [field("x/0", pale)], "b": [field("x/1", pale.copy())]}
    check_leakage(glass)
    haze = pale.copy()
    haze[20, 30] = 239
    haze[90, 100] = (238, 240, 240)
    with pytest.raises(LeakageError, match="share 240 × 200 px"):
        check_leakage({"a": [field("x/0", haze)], "b": [field("x/1", np.rot90(haze).copy())]})


def test_the_same_image_within_one_part_is_no_leak() -> None:
    image = draw_tissue(3)
    check_leakage({"training": [field("x/0", image, "p"), field("x/1", image, "p")], "test": [OTHERS[0]]})


def test_a_patient_in_two_parts_is_refused_unless_that_is_asked_for() -> None:
    blocks = {
        "training": [field("x/0", draw_tissue(0), "p1"), field("x/1", draw_tissue(1), "p2")],
        "test": [field("x/2", draw_tissue(2), "p1")],
    }
    assert shared_patients(blocks) == {"p1": ["training", "test"]}
    with pytest.raises(LeakageError, match="patient p1 is in training and test") as caught:
        check_leakage(blocks)
    assert caught.value.found == ("patient p1 is in training and test",)
    assert "\n" not in str(caught.value)
    check_leakage(blocks, patients_apart=False)


def test_of_many_leaks_the_first_few_are_told_and_all_are_kept() -> None:
    fields = [field(f"x/{k}", draw_tissue(0, 140), f"p{k}") for k in range(8)]
    other = [field(f"y/{k}", draw_tissue(1 + k, 140), f"p{k}") for k in range(8)]
    with pytest.raises(LeakageError, match="and 3 more") as caught:
        check_leakage({"a": fields, "b": other})
    assert len(caught.value.found) == 8


def test_images_too_small_for_the_search_and_empty_parts_pass() -> None:
    small = {"a": [field("x/0", draw_tissue(0, 40))], "b": [field("x/1", draw_tissue(1, 40))], "c": []}
    check_leakage(small)
    check_leakage({"a": [], "b": []})


def test_the_real_sets_are_apart_and_what_is_planted_in_them_is_found(data_dir: Path) -> None:
    fields = [field for name in ("tnbc", "monuseg") for field in read_set(data_dir / name)[0]]
    parts = by_patient(fields, ("TNBC-11",))
    check_leakage(parts)
    halves = half_of_images(fields, 0)
    check_leakage(halves, patients_apart=False)
    assert len(shared_patients(halves)) > 5
    rng = np.random.default_rng(5)
    planted = []
    for symmetry, taken in enumerate(fields[3::10]):
        y, x = (int(rng.integers(0, length - 160)) for length in taken.instances.shape)
        window = np.ascontiguousarray(_turned(taken.pixels[y : y + 160, x : x + 160], symmetry))
        planted.append(replace(taken, name=f"planted/{taken.name}", pixels=compressed(window, 80)))
    found = shared_pixels({"training": fields, "test": planted})
    assert {one.second.removeprefix("planted/") for _, _, one in found} == {one.name for one in fields[3::10]}
    assert all(one.second == f"planted/{one.first}" for _, _, one in found)


def test_a_patient_is_one_however_two_sets_spell_the_name() -> None:
    blocks = {
        "training": [field("a/1", draw_tissue(1), "Case-P1"), field("a/2", draw_tissue(2), "P2")],
        "test": [field("b/3", draw_tissue(3), "case-p1")],
    }
    assert shared_patients(blocks) == {"case-p1": ["training", "test"]}
    with pytest.raises(LeakageError, match="patient case-p1 is in training and test"):
        check_leakage(blocks)
