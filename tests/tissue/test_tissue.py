"""The tissue mask, pen, folds, unscanned parts."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from lobule.tissue import find_folds, find_pen, find_tissue, find_unscanned, judge_stain
from lobule.tissue.color import to_hsv
from lobule.tissue.mask import _otsu
from lobule.tissue.morphology import dilate_disk, drop_small, erode_disk, fill_small

GLASS, STROMA, NUCLEI = (240, 238, 241), (226, 170, 205), (140, 90, 165)


def _slide(height: int = 300, width: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """A drawn overview at 8 mpp: a disk of stroma with nests of nuclei on glass; and where it is."""
    y, x = np.mgrid[:height, :width]
    inside = (x - width / 2) ** 2 + (y - height / 2) ** 2 < (0.4 * height) ** 2
    image = np.empty((height, width, 3), np.float64)
    image[:] = GLASS
    image[inside] = STROMA
    image[inside & ((x // 20 + y // 20) % 3 == 0)] = NUCLEI
    random = np.random.default_rng(0)
    image += (
        random.normal(0, 2, image.shape) + np.where(inside, random.normal(0, 12, inside.shape), 0)[..., None]
    )
    return image.clip(0, 255).astype(np.uint8), inside


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize("method", ["hsv", "otsu"])
def test_tissue_on_glass_is_found(method: str) -> None:
    image, truth = _slide()
    tissue = find_tissue(image, 8.0, method=method)  # type: ignore[arg-type]
    assert tissue.method == method
    assert _dice(tissue.mask, truth) > 0.98
    assert not tissue.pen.any() and not tissue.unscanned.any() and tissue.warnings == ()


@pytest.mark.parametrize("method", ["hsv", "otsu"])
def test_the_search_takes_little_memory_beside_the_overview(method: str) -> None:
    """A run's peak lies here: at most 18 bytes a pixel, of which 8 are what is found and the balanced image."""
    image, _ = _slide(1500, 2000)
    tracemalloc.start()
    try:
        tissue = find_tissue(image, 8.0, method=method)  # type: ignore[arg-type]
        judge_stain(image, tissue.mask)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 18 * tissue.mask.size, f"{peak / tissue.mask.size:.1f} bytes a pixel"


@pytest.mark.parametrize("cast", [(1.0, 1.0, 0.8), (0.85, 1.0, 1.0), (1.0, 0.88, 1.0)])
def test_a_color_cast_of_the_lamp_does_not_make_glass_tissue(cast: tuple[float, float, float]) -> None:
    image, truth = _slide()
    tinted = (image * np.array(cast)).astype(np.uint8)
    assert _dice(find_tissue(tinted, 8.0).mask, truth) > 0.95


@pytest.mark.parametrize("method", ["hsv", "otsu"])
@pytest.mark.parametrize("fill", [(255, 255, 255), (0, 0, 0)])
def test_unscanned_parts_are_not_tissue_and_do_not_trap_the_threshold(
    method: str, fill: tuple[int, ...]
) -> None:
    image, truth = _slide()
    image[:, :90] = fill
    tissue = find_tissue(image, 8.0, method=method)  # type: ignore[arg-type]
    truth[:, :90] = False
    assert _dice(tissue.mask, truth) > 0.97
    assert tissue.unscanned_share == pytest.approx(90 / 400, abs=0.01)
    assert any("not scanned" in warning.text for warning in tissue.warnings)


def test_pure_white_glass_everywhere_counts_as_scanned() -> None:
    image, truth = _slide()
    image[~truth] = 255
    tissue = find_tissue(image, 8.0)
    assert _dice(tissue.mask, truth) > 0.98
    assert not tissue.unscanned.any()


@pytest.mark.parametrize(
    "ink", [(200, 30, 40), (30, 60, 160), (20, 130, 90), (30, 30, 32), (10, 50, 35)], ids=str
)
def test_a_marker_stroke_is_found_and_left_out(ink: tuple[int, int, int]) -> None:
    image, truth = _slide()
    stroke = np.zeros_like(truth)
    stroke[120:145, 20:380] = True
    image[stroke] = np.clip(ink + np.random.default_rng(1).normal(0, 3, (int(stroke.sum()), 3)), 0, 255)
    tissue = find_tissue(image, 8.0)
    assert tissue.pen[stroke].mean() > 0.97
    assert not (tissue.mask & stroke & tissue.pen).any()
    assert (tissue.pen & ~ndimage.binary_dilation(stroke, iterations=4)).sum() == 0
    assert _dice(tissue.mask, truth & ~stroke) > 0.95
    assert any("pen" in warning.text for warning in tissue.warnings)


@pytest.mark.parametrize(
    "color", [(120, 20, 30), (90, 60, 140), (70, 45, 120), (170, 50, 80), (150, 40, 50)], ids=str
)
def test_dark_blood_and_dense_nuclei_are_not_pen(color: tuple[int, int, int]) -> None:
    image, _ = _slide()
    image[110:190, 150:250] = color
    assert not find_pen(image, 8.0).any()
    assert find_tissue(image, 8.0).mask[110:190, 150:250].all()


def test_ink_along_a_margin_is_told_however_thin_and_dark_nuclei_are_not() -> None:
    image, inside = _slide()
    assert find_tissue(image, 8.0).warnings == ()
    edge = inside & ~ndimage.binary_erosion(inside, iterations=1)
    image[edge] = (44, 38, 34)
    tissue = find_tissue(image, 8.0)
    assert [warning.code for warning in tissue.warnings] == ["ink"]
    assert not tissue.pen.any() and _dice(tissue.mask, inside) > 0.97
    image[edge] = (60, 30, 95)
    assert find_tissue(image, 8.0).warnings == ()


def test_a_fold_is_reported_and_stays_in_the_tissue() -> None:
    image, truth = _slide()
    band = np.zeros_like(truth)
    band[140:150] = True
    band &= truth
    image[band] = (image[band] / 255.0 * np.array((140, 70, 110))).astype(np.uint8)
    tissue = find_tissue(image, 8.0)
    assert tissue.fold[band].mean() > 0.8
    assert (tissue.fold & ~band).sum() < 0.1 * band.sum()
    assert tissue.mask[band].all()
    assert any("folds" in warning.text for warning in tissue.warnings)
    assert not find_folds(image, np.zeros_like(truth), 8.0).any()


@pytest.mark.parametrize(
    "color", [(255, 255, 255), (243, 243, 243), (241, 236, 228), (0, 0, 0), (20, 20, 20)]
)
@pytest.mark.parametrize("noise", [0.0, 1.2])
def test_a_blank_image_has_no_tissue_and_says_so(color: tuple[int, int, int], noise: float) -> None:
    image = np.clip(np.random.default_rng(2).normal(color, noise, (200, 260, 3)), 0, 255).astype(np.uint8)
    tissue = find_tissue(image, 8.0)
    assert tissue.empty and tissue.share == 0.0 and tissue.fold_share == 0.0
    assert any("no tissue found" in warning.text for warning in tissue.warnings)


def test_gray_tissue_falls_back_to_brightness() -> None:
    image, truth = _slide()
    gray = np.repeat(image[..., 1:2], 3, axis=2)
    tissue = find_tissue(gray, 8.0)
    assert tissue.method == "otsu"
    assert _dice(tissue.mask, truth) > 0.95
    assert any("brightness" in warning.text for warning in tissue.warnings)


def test_where_nothing_parts_tissue_from_glass_the_whole_image_is_taken_aloud() -> None:
    ramp = np.linspace(226, 250, 260).astype(np.uint8)
    image = np.repeat(np.tile(ramp, (200, 1))[..., None], 3, axis=2)
    image[60, 60] = 200
    tissue = find_tissue(image, 8.0)
    assert not tissue.empty or tissue.warnings
    assert tissue.method in ("otsu", "whole")


@pytest.mark.parametrize("method", ["hsv", "otsu"])
def test_an_empty_glass_slide_with_dust_has_no_tissue_and_says_so(method: str) -> None:
    random = np.random.default_rng(4)
    image = random.normal(GLASS, 1.0, (300, 400, 3))
    for y, x in random.integers(10, 290, (40, 2)):
        image[y : y + 5, x : x + 5] = random.integers(60, 160)
    tissue = find_tissue(image.clip(0, 255).astype(np.uint8), 8.0, method=method)  # type: ignore[arg-type]
    assert tissue.empty and tissue.method == method
    assert [warning.code for warning in tissue.warnings] == ["tissue"]
    assert tissue.warnings[0].text.startswith("no tissue found: ")


@pytest.mark.parametrize("gain", [1.1, 1.2])
def test_glass_that_the_scanner_clips_to_white_is_scanned_though_some_tissue_is_pale(gain: float) -> None:
    image, truth = _slide()
    random = np.random.default_rng(5)
    pale = truth & (np.mgrid[:300, :400][0] < 130)
    image[pale] = random.normal((222, 205, 214), 9, (300, 400, 3)).clip(0, 255).astype(np.uint8)[pale]
    bright = np.clip(image * gain, 0, 255).astype(np.uint8)
    assert not find_unscanned(bright).any()
    tissue = find_tissue(bright, 8.0)
    assert not tissue.unscanned.any() and tissue.warnings == ()
    assert judge_stain(bright, tissue.mask).kind == "he"


@pytest.mark.parametrize("mpp", [0.25, 0.5, 1.0, 4.0, 8.0, 16.0])
def test_a_field_without_glass_is_all_tissue_at_any_scale(mpp: float) -> None:
    random = np.random.default_rng(3)
    image = np.clip(np.array(STROMA) + random.normal(0, 10, (256, 256, 1)), 0, 255).astype(np.uint8)
    image[random.random((256, 256)) < 0.2] = NUCLEI
    for method in ("hsv", "otsu"):
        assert find_tissue(image, mpp, method=method).share > 0.98  # type: ignore[arg-type]


@pytest.mark.parametrize("strip_um", [16, 30, 45])
@pytest.mark.parametrize("side", range(4))
def test_a_strip_of_glass_along_a_small_field_is_not_tissue(strip_um: int, side: int) -> None:
    random = np.random.default_rng(4)
    image = np.full((512, 512, 3), STROMA, np.float64) + random.normal(0, 12, (512, 512, 1))
    image[:, : strip_um * 4] = GLASS + random.normal(0, 1, (512, strip_um * 4, 3))
    field = np.rot90(image, side).clip(0, 255).astype(np.uint8)
    tissue = find_tissue(field, 0.25)
    assert abs(tissue.share - (1 - strip_um / 128)) < 0.02


def test_specks_are_dropped_and_tiny_holes_filled() -> None:
    image, truth = _slide()
    image[10:13, 10:13] = STROMA
    image[149:151, 199:201] = GLASS
    mask = find_tissue(image, 8.0).mask
    assert not mask[5:20, 5:20].any()
    assert mask[145:155, 195:205].all() and truth[150, 200]


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (3, 3), (2, 700), (65, 64)])
def test_images_of_any_size_are_taken(shape: tuple[int, int]) -> None:
    for mpp in (0.25, 8.0, 1000.0):
        for color in (GLASS, STROMA):
            tissue = find_tissue(np.full((*shape, 3), color, np.uint8), mpp)
            assert (
                tissue.mask.shape == tissue.pen.shape == tissue.fold.shape == tissue.unscanned.shape == shape
            )


def test_a_finer_overview_gives_the_same_tissue() -> None:
    image, truth = _slide()
    fine = image.repeat(4, axis=0).repeat(4, axis=1)[:-3, :-2]
    mask = find_tissue(fine, 2.0).mask
    assert mask.shape == fine.shape[:2]
    assert (mask == find_tissue(image, 8.0).mask.repeat(4, 0).repeat(4, 1)[:-3, :-2]).mean() > 0.995
    assert truth.any()


@pytest.mark.parametrize("mpp", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_mpp_is_refused(mpp: float) -> None:
    with pytest.raises(ValueError, match="mpp"):
        find_tissue(np.zeros((4, 4, 3), np.uint8), mpp)


def test_arrays_that_are_no_overview_are_refused() -> None:
    for wrong in (
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3)),
        np.zeros((0, 4, 3), np.uint8),
    ):
        with pytest.raises(ValueError, match="overview"):
            find_tissue(wrong, 8.0)  # type: ignore[arg-type]


@settings(max_examples=40)
@given(seed=st.integers(0, 2**16), radius=st.integers(0, 6))
def test_disk_morphology_equals_a_plain_structuring_element(seed: int, radius: int) -> None:
    random = np.random.default_rng(seed)
    mask = random.random(tuple(random.integers(1, 24, 2))) < random.uniform(0.02, 0.98)
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = x * x + y * y <= radius * radius
    assert (dilate_disk(mask, radius) == ndimage.binary_dilation(mask, disk)).all()
    assert (erode_disk(mask, radius) == ndimage.binary_erosion(mask, disk, border_value=1)).all()


def test_small_parts_and_holes_are_told_by_their_area() -> None:
    mask = np.zeros((12, 12), bool)
    mask[1:4, 1:4] = True
    mask[2, 2] = False
    mask[6, 6] = mask[7, 7] = True
    assert drop_small(mask, 3).sum() == 8
    assert drop_small(mask, 2).sum() == 10
    assert fill_small(mask, 2).sum() == 11
    assert fill_small(mask, 1).sum() == 10
    assert not fill_small(np.zeros((5, 5), bool), 100).any()


@settings(max_examples=40)
@given(st.lists(st.integers(0, 255), min_size=2, max_size=60))
def test_otsu_equals_trying_every_threshold(values: list[int]) -> None:
    array = np.array(values, np.uint8)

    def between(t: int) -> float:
        low, high = array[array < t].astype(float), array[array >= t].astype(float)
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2 if len(low) and len(high) else 0.0

    best = max(between(t) for t in range(1, 256))
    assert between(_otsu(array)) == pytest.approx(best)


@settings(max_examples=30)
@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_hsv_is_that_of_the_standard_library(color: tuple[int, int, int]) -> None:
    import colorsys

    hue, saturation, value = colorsys.rgb_to_hsv(*(c / 255 for c in color))
    hsv = to_hsv(np.array([[color]], np.uint8))
    assert hsv.hue[0, 0] == pytest.approx(hue * 360, abs=1e-2)
    assert int(hsv.saturation[0, 0]) == pytest.approx(saturation * 255, abs=0.5 + 1e-9)
    assert hsv.value[0, 0] == round(value * 255)


def test_the_two_whites_of_a_real_slide_are_told_apart(slides_dir: Path) -> None:
    import openslide

    with openslide.OpenSlide(slides_dir / "aperio" / "tcga-cr-7395-01a-01-ts1.svs") as slide:
        image = np.asarray(slide.get_thumbnail((556, 446)).convert("RGB"))
    unscanned = find_unscanned(image)
    assert 0.15 < unscanned.mean() < 0.25
    for method in ("hsv", "otsu"):
        tissue = find_tissue(image, 16.0, method=method)  # type: ignore[arg-type]
        assert 0.55 < tissue.share < 0.68
        assert not tissue.mask[:20, :20].any() and tissue.mask[220, 150]


def test_a_slide_that_is_pen_all_over_is_not_called_blank() -> None:
    image = np.empty((200, 300, 3), np.uint8)
    image[:] = (40, 160, 70)
    image[::2] = (60, 190, 90)
    tissue = find_tissue(image, 8.0)
    assert tissue.pen.all() and tissue.empty
    assert [*tissue.warnings] == [("tissue", "no tissue found: all of the image is pen or unscanned")]
