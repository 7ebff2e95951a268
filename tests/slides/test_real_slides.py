"""Every real slide, whole or odd: the right picture, or one typed line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import openslide
import PIL.Image
import pytest

from lobule.errors import SlideReadError, UnsupportedSlideError
from lobule.geometry import Box, Mpp, WorkingFrame
from lobule.slides import open_slide, read_overview, read_region, working_frame

OPENED: dict[str, tuple[str, tuple[int, int], int, float | None, str]] = {
    # path: reader, size, levels, mpp along x, a word of a warning
    "aperio/CMU-1-Small-Region.svs": ("openslide", (2220, 2967), 1, 0.499, ""),
    "aperio/tcga-cr-7395-01a-01-ts1.svs": ("openslide", (4443, 3567), 2, None, ""),
    "hamamatsu/test3-DAPI-2-(387).ndpi": ("openslide", (3968, 4864), 7, 0.22818, ""),
    "dicom/cmu-1-small-region/level-0.dcm": ("dicom", (2220, 2967), 12, 0.499, "colors"),
    "dicom/cmu-1-small-region/level-11.dcm": ("dicom", (2220, 2967), 12, 0.499, "colors"),
    "dicom/jpeg.dicom": ("openslide", (957, 715), 1, None, ""),
    "dicom/jpeg2000.dicom": ("openslide", (957, 715), 1, None, ""),
    "dicom/sm_image.dcm": ("openslide", (50, 50), 1, 0.499, ""),
    "ome_tiff/OS-1-detail.ome.tif": ("tiff", (1101, 1101), 1, 0.2271, ""),
    "ome_tiff/OS-2-ndpi.ome.tif": ("tiff", (2202, 2202), 1, 0.2271, ""),
    "ome_tiff/cells.ome.tif": ("tiff", (93, 131), 1, 0.25, ""),
    "tiff/kidney-48-5.tif": ("tiff", (1493, 901), 1, None, ""),
    "tiff/no_dzi.tif": ("tiff", (3072, 3968), 4, 0.97237, "gray"),
    "tiff/usda_naip_256_webp_z3.tif": ("tiff", (1024, 2048), 3, None, "white"),
    "tiff/yb10kx5k.zstd.tiff": ("tiff", (10000, 5000), 5, None, ""),
    "odd/😐.svs": ("openslide", (16, 16), 1, 0.499, ""),
    "odd/boxes.tiff": ("tiff", (300, 250), 4, None, ""),
    "odd/BigTIFFMotorola.tif": ("tiff", (64, 64), 1, None, ""),
    "odd/child_ifd.tiff": ("tiff", (32, 32), 3, None, ""),
    "odd/full_no_bot.dcm": ("openslide", (154, 290), 1, None, ""),
    "odd/sm_image_jpegls.dcm": ("dicom", (50, 50), 1, 0.499, ""),
    "odd/test_orient6.tif": ("tiff", (180, 120), 3, None, "upright"),
    "odd/tiff_strip_planar_raw_with_overviews.tif": ("tiff", (278, 374), 5, None, ""),
    "odd/tiff_tiled_planar_16bit_RGBa.tiff": ("tiff", (100, 40), 1, None, "16 bit"),
    "odd/tiff_tiled_planar_lzw.tiff": ("tiff", (278, 374), 1, None, ""),
    "odd/tiff_tiled_ycbcr_jpeg_2x2_sampling.tif": ("tiff", (480, 360), 1, None, ""),
}

REFUSED: dict[str, tuple[type[Exception], str]] = {
    "qptiff/small_vectra.qptiff": (UnsupportedSlideError, "3 gray channels"),
    "dicom/small_dicom.dcm": (UnsupportedSlideError, "ImageType"),
    "vsi/vsi-ets-test-jpg2k.vsi": (UnsupportedSlideError, "VSI"),
    "vsi/_vsi-ets-test-jpg2k_/stack1/frame_t_0.ets": (UnsupportedSlideError, "VSI"),
    "czi/newCZI_compressed.czi": (UnsupportedSlideError, 'subblock dimension "Z"'),
    "czi/S3_1Pos_2Mosaic_T1_Z1_CH1.czi": (UnsupportedSlideError, 'subblock dimension "Z"'),
    "odd/unreadable.svs": (SlideReadError, "Bogus marker length"),
    "odd/unopenable.tiff": (UnsupportedSlideError, "52479"),
    "odd/corrupted.ndpi": (UnsupportedSlideError, "empty"),
    "odd/ndpi_test.ndpi": (UnsupportedSlideError, "git lfs pull"),
    "odd/Mirax2-Fluorescence-1.mrxs": (SlideReadError, "Index.dat"),
    "odd/crash-tiled-jpeg-short-read.tif": (SlideReadError, "cut short"),
    "odd/crash-tile-length-zero.tif": (SlideReadError, "cut short or damaged"),
    "odd/seek_too_large.tif": (SlideReadError, "beyond the end"),
    "odd/multipage_multiple_frame_loop.tiff": (SlideReadError, "loop"),
    "odd/libtiff_segfault.tif": (UnsupportedSlideError, "65535 gray channels"),
    "odd/tiff_tiled_cmyk_jpeg.tif": (UnsupportedSlideError, "CMYK"),
    "odd/tiled-gray-i1.tif": (UnsupportedSlideError, "1 bit"),
    "odd/ojpeg-tile.tif": (UnsupportedSlideError, "old-style JPEG"),
    "odd/tiff_wrong_bits_per_sample.tiff": (SlideReadError, "beyond its end"),
    "odd/zero_gi.tif": (UnsupportedSlideError, "2 x 0 px"),
    "odd/cells-gray32.tif": (UnsupportedSlideError, "floating-point"),
    "odd/sm_image_grayscale.dcm": (UnsupportedSlideError, "MONOCHROME2 of 16 bits"),
    "odd/test_label_only.dcm": (UnsupportedSlideError, "only the label"),
}
for _name in ("1_Map", "2", "6_0", "7_0", "8_0", "9_0"):
    REFUSED[f"dicom/bpaec_fluorescence/{_name}"] = (UnsupportedSlideError, "MONOCHROME2")
for _name in ("Slidedat.ini", "Index.dat", "Data0000.dat", "Data0001.dat", "Data0002.dat"):
    REFUSED[f"odd/Mirax2-Fluorescence-1/{_name}"] = (UnsupportedSlideError, "no reader|text")


@pytest.mark.parametrize("name", OPENED)
def test_a_slide_is_opened_by_its_reader(name: str, slides_dir: Path) -> None:
    reader, size, levels, mpp, word = OPENED[name]
    with open_slide(slides_dir / name) as slide:
        assert (slide.properties.reader, slide.size, len(slide.levels)) == (reader, size, levels)
        if mpp is None:
            assert slide.properties.mpp is None and slide.properties.mpp_problem
        else:
            assert slide.properties.mpp is not None
            assert slide.properties.mpp.x == pytest.approx(mpp, rel=1e-3)
        assert any(word in warning for warning in slide.properties.warnings) or not word
        scale = max(1.0, max(size) / 100)
        frame = WorkingFrame(slide.size, Mpp(1, 1), Mpp(scale, scale))
        overview = read_overview(slide, frame)
        assert overview.shape == (frame.size[1], frame.size[0], 3)
        # the smaller levels show the same picture as level 0 (some writers only took every n-th pixel)
        exact = np.asarray(
            PIL.Image.fromarray(slide.read_level(0, (0, 0), size)).resize(
                frame.size, PIL.Image.Resampling.BOX
            )
        )
        assert np.abs(overview.astype(int) - exact)[:-1, :-1].mean() < 12
        for image in slide.associated_images():
            assert slide.read_associated(image).ndim == 3


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_a_slide_is_one_clear_line(name: str, slides_dir: Path) -> None:
    kind, word = REFUSED[name]
    with pytest.raises(kind, match=word) as caught:
        open_slide(slides_dir / name)
    assert "\n" not in str(caught.value) and str(slides_dir / name) in str(caught.value)


def test_every_file_is_in_one_of_the_two_lists(slides_dir: Path) -> None:
    for name in json.loads((slides_dir / "observed.json").read_text("utf-8")):
        if name.startswith("annotations/") or "cmu-1-small-region/level-" in name:
            with (
                pytest.raises(UnsupportedSlideError)
                if name.startswith("ann")
                else open_slide(slides_dir / name)
            ):
                open_slide(slides_dir / name).close()
        else:
            assert (name in OPENED) != (name in REFUSED), name


def test_the_mislabeled_dicom_equals_the_svs_it_was_made_from(slides_dir: Path) -> None:
    with (
        open_slide(slides_dir / "aperio/CMU-1-Small-Region.svs") as svs,
        open_slide(slides_dir / "dicom/cmu-1-small-region/level-0.dcm") as dicom,
    ):
        assert svs.size == dicom.size and svs.properties.mpp == dicom.properties.mpp
        for box in (Box(0, 0, 300, 300), Box(900, 1500, 1300, 1800), Box(2000, 2800, 2220, 2967)):
            a, b = (read_region(s, working_frame(s, 0.499), box).astype(int) for s in (svs, dicom))
            # coded again with coarser color: alike pixel by pixel, the same on average, and not shifted
            loss = np.abs(a - b).mean()
            assert loss < 9 and np.abs(a.mean((0, 1)) - b.mean((0, 1))).max() < 1
            assert loss < min(np.abs(a[1:] - b[:-1]).mean(), np.abs(a[:, 1:] - b[:, :-1]).mean())
        thumbnails = [read_overview(s, working_frame(s, 8.0)).astype(int) for s in (svs, dicom)]
        height, width = (min(image.shape[axis] for image in thumbnails) for axis in (0, 1))
        a, b = (
            PIL.Image.fromarray(image[: height - 1, : width - 1].astype(np.uint8)).reduce(8)
            for image in thumbnails
        )
        assert np.abs(np.asarray(a).astype(int) - np.asarray(b)).mean() < 4


def test_two_codings_of_one_picture_look_the_same(slides_dir: Path) -> None:
    pairs = [("dicom/jpeg.dicom", "dicom/jpeg2000.dicom"), ("dicom/sm_image.dcm", "odd/sm_image_jpegls.dcm")]
    for first, second in pairs:
        with open_slide(slides_dir / first) as a, open_slide(slides_dir / second) as b:
            assert a.size == b.size
            difference = np.abs(a.read_level(0, (0, 0), a.size).astype(int) - b.read_level(0, (0, 0), b.size))
            assert difference.mean() < 3


@pytest.mark.parametrize(
    "name",
    ["aperio/CMU-1-Small-Region.svs", "aperio/tcga-cr-7395-01a-01-ts1.svs", "odd/😐.svs",
     "odd/tiff_tiled_ycbcr_jpeg_2x2_sampling.tif", "odd/boxes.tiff", "tiff/yb10kx5k.zstd.tiff"],
)  # fmt: skip
def test_openslide_itself_sees_the_same_pixels(name: str, slides_dir: Path) -> None:
    theirs = openslide.OpenSlide(slides_dir / name)
    with theirs, open_slide(slides_dir / name) as ours:
        width, height = ours.size
        for x, y in ((0, 0), (width // 3, height // 5), (max(0, width - 150), max(0, height - 120))):
            size = (min(200, width - x), min(170, height - y))
            expected = np.asarray(theirs.read_region((x, y), 0, size))[..., :3].astype(int)
            # both decode JPEG with libjpeg; the way from YCbCr may round otherwise
            assert np.abs(ours.read_level(0, (x, y), size) - expected).max() <= 2
