"""The kind of a picture and the sharpness of a tile."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from lobule.tissue import SHARP_FROM, find_tissue, judge_stain, sharpness


def _spots(ground: tuple[int, int, int], spot: tuple[int, int, int], share: float = 0.3) -> np.ndarray:
    random = np.random.default_rng(0)
    image = np.full((120, 120, 3), ground, np.float64)
    smooth = ndimage.gaussian_filter(random.random((120, 120)), 1.5)
    image[smooth > np.quantile(smooth, 1 - share)] = spot
    return np.clip(image + random.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (_spots((226, 170, 205), (120, 80, 160)), "he"),
        (_spots((240, 225, 235), (120, 80, 160)), "he"),
        (_spots((215, 222, 235), (110, 70, 40)), "ihc"),
        (_spots((235, 236, 238), (150, 170, 205)), "ihc"),
        (_spots((4, 4, 8), (20, 40, 190)), "fluorescence"),
        (_spots((25, 25, 25), (150, 150, 150)), "fluorescence"),
        (_spots((70, 110, 50), (150, 120, 80)), "other"),
        (_spots((240, 240, 240), (30, 90, 190), 0.7), "other"),
        (_spots((200, 200, 200), (90, 90, 90)), "other"),
        (np.full((50, 50, 3), 2, np.uint8), "other"),
        (np.full((50, 50, 3), 240, np.uint8), "other"),
    ],
)
def test_a_drawn_picture_is_judged_by_its_hues(image: np.ndarray, kind: str) -> None:
    judgement = judge_stain(image, np.ones(image.shape[:2], bool))
    assert judgement.kind == kind, judgement
    assert judgement.reason and "\n" not in judgement.reason
    assert judge_stain(image, np.zeros(image.shape[:2], bool)).kind == kind


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="mask"):
        judge_stain(np.zeros((4, 5, 3), np.uint8), np.zeros((4, 4), bool))


def _kind(image: np.ndarray, mpp: float) -> str:
    return judge_stain(image, find_tissue(image, mpp).mask).kind


def test_real_slides_are_judged_right(slides_dir: Path) -> None:
    import openslide
    import tifffile

    for name, kind in {
        "aperio/CMU-1-Small-Region.svs": "he",
        "aperio/tcga-cr-7395-01a-01-ts1.svs": "he",
        "hamamatsu/test3-DAPI-2-(387).ndpi": "fluorescence",
        "dicom/jpeg.dicom": "other",
        "tiff/no_dzi.tif": "other",
    }.items():
        with openslide.OpenSlide(slides_dir / name) as slide:
            image = np.asarray(slide.get_thumbnail((400, 400)).convert("RGB"))
        assert _kind(image, 8.0) == kind, name
    for name, step, kind in (("OS-1-detail", 8, "he"), ("OS-2-ndpi", 4, "ihc")):
        pixels = tifffile.imread(slides_dir / "ome_tiff" / f"{name}.ome.tif")
        assert _kind(np.ascontiguousarray(pixels[::step, ::step]), 0.23 * step) == kind, name
    kidney = tifffile.imread(slides_dir / "tiff" / "kidney-48-5.tif")[..., :3]
    assert _kind(np.ascontiguousarray(kidney), 8.0) == "ihc"


def test_real_fields_of_h_and_e_are_judged_so(data_dir: Path) -> None:
    for path in sorted((data_dir / "bach").glob("*.jpg"))[::9]:
        with Image.open(path) as image:
            assert _kind(np.asarray(image.convert("RGB").reduce(4)), 0.84 * 4) == "he", path.name


def _texture(size: int = 256) -> np.ndarray:
    random = np.random.default_rng(5)
    sharp = ndimage.gaussian_filter(random.random((size, size)), 0.7)
    stain = ndimage.gaussian_filter(random.random((size, size)), 3)
    green = 150 + 400 * (sharp - 0.5) + 500 * (stain - 0.5)
    return np.repeat(np.clip(green, 0, 255)[..., None], 3, axis=2)


def _bytes(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _sharpness(tile: np.ndarray, mpp: float) -> float:
    return float(sharpness(tile[None], mpp)[0])


@pytest.mark.parametrize(("side", "mpp"), [(256, 1.0), (100, 1.0), (256, 0.5)])
def test_what_a_tile_gives_does_not_depend_on_those_beside_it(side: int, mpp: float) -> None:
    random = np.random.default_rng(8)
    tiles = np.stack(
        [random.integers(0, most, (side, side, 3), np.uint8) for most in (2, 120, 150, 200, 255)]
    )
    together = sharpness(tiles, mpp)
    assert np.isnan(together[0]) and np.isfinite(together[1:]).all()
    for start in range(len(tiles)):
        for stop in range(start + 1, len(tiles) + 1):
            np.testing.assert_array_equal(sharpness(tiles[start:stop], mpp), together[start:stop])


def test_blur_lowers_sharpness_and_contrast_does_not_change_it() -> None:
    image = _texture()
    values = [
        _sharpness(_bytes(ndimage.gaussian_filter(image, (s, s, 0))), 1.0) for s in (0.0, 1.0, 2.0, 4.0)
    ]
    assert values == sorted(values, reverse=True)
    assert values[0] > SHARP_FROM > values[2]
    assert _sharpness(_bytes(200 + (image - 150) * 0.3), 1.0) == pytest.approx(values[0], rel=0.1)


def test_sharpness_is_that_of_the_spectrum_in_double_precision() -> None:
    image = _bytes(_texture(100))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(100), np.fft.fftfreq(100)))
    gains = [np.exp(-2 * (np.pi * sigma * frequency) ** 2) for sigma in (0.8, 1.6, 3.2)]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(100) / 100)
    green = image[..., 1] - image[..., 1].mean()
    power = np.abs(np.fft.fft2(green * np.outer(hann, hann))) ** 2
    bands = [np.sqrt((power * band**2).sum()) for band in (1 - gains[0], gains[1] - gains[2])]
    assert _sharpness(image, 1.0) == pytest.approx(bands[0] / bands[1], rel=1e-5)


def test_a_finer_tile_is_averaged_to_the_same_sharpness() -> None:
    image = _bytes(_texture())
    assert _sharpness(image.repeat(4, 0).repeat(4, 1), 0.25) == pytest.approx(_sharpness(image, 1.0))


def test_an_empty_or_tiny_tile_has_no_sharpness() -> None:
    assert math.isnan(_sharpness(np.full((256, 256, 3), 240, np.uint8), 1.0))
    assert math.isnan(_sharpness(_bytes(_texture(15)), 1.0))
    assert math.isnan(_sharpness(_bytes(_texture(40)), 0.25))
    with pytest.raises(ValueError):
        sharpness(np.zeros((32, 32, 3), np.uint8), 1.0)


def test_real_fields_are_sharp_and_blurred_ones_are_not(data_dir: Path) -> None:
    for path in sorted((data_dir / "bach").glob("*.jpg"))[::30]:
        with Image.open(path) as image:
            field = np.asarray(image.convert("RGB").resize((860, 645), Image.Resampling.BOX))[:512, :512]
        blurred = _bytes(ndimage.gaussian_filter(field.astype(np.float32), (2, 2, 0)))
        assert _sharpness(field, 1.0) > SHARP_FROM
        value = _sharpness(blurred, 1.0)
        assert math.isnan(value) or value < SHARP_FROM
