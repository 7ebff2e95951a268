"""Every reader keeps the contract of a slide."""

from __future__ import annotations

import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import PIL.Image
import pytest
import tifffile
from mirax_slides import write_mirax
from slides.painted import Picture, paint, reduce, write_dicom, write_leica_with_bounds, write_pyramid
from slides.slide_contract import SlideContract

from lobule.errors import SlideReadError, UnsupportedSlideError
from lobule.geometry import Box, Mpp
from lobule.slides import ArraySlide, Slide, open_slide
from lobule.slides.openslide_reader import OpenSlideSlide
from lobule.slides.slide import listed


class TestAperio(SlideContract):
    @pytest.fixture
    def opened(self, picture: Picture, tmp_path: Path) -> Slide:
        write_pyramid(tmp_path / "a.svs", picture, 0.5, kind="aperio", power="20")
        return open_slide(tmp_path / "a.svs")

    def test_is_read_by_openslide(self, slide: Slide) -> None:
        assert (slide.properties.reader, slide.properties.format) == ("openslide", "aperio")
        assert slide.properties.objective_power == 20.0 and slide.properties.mpp_source == "file"
        assert [level.downsample for level in slide.levels] == [(1, 1), (2, 2), (4, 4)]
        assert slide.files() == (slide.path,)


class TestMirax(SlideContract):
    @pytest.fixture
    def picture(self) -> Picture:
        return paint(256, 256)

    @pytest.fixture
    def opened(self, picture: Picture, tmp_path: Path) -> Slide:
        return open_slide(write_mirax(tmp_path / "a.mrxs", picture, mpp=0.5))

    def test_is_the_file_and_all_that_its_folder_holds(self, slide: Slide) -> None:
        assert (slide.properties.reader, slide.properties.format) == ("openslide", "mirax")
        names = [path.name for path in slide.files()]
        assert names == ["a.mrxs", "Data0000.dat", "Index.dat", "Slidedat.ini"]


class TestLeicaWithBounds(SlideContract):
    corner = (36, 20)

    @pytest.fixture
    def picture(self) -> Picture:
        return paint(248, 196)

    @pytest.fixture
    def opened(self, picture: Picture, tmp_path: Path) -> Slide:
        self.bounds = write_leica_with_bounds(tmp_path / "a.scn", picture, offset_px=self.corner)
        return open_slide(tmp_path / "a.scn")

    def test_has_the_size_of_the_glass_and_bounds(self, slide: Slide) -> None:
        assert slide.size == (400, 300)
        assert slide.properties.bounds == self.bounds == Box(36, 20, 36 + 248, 20 + 196)

    def test_what_was_never_scanned_is_background(self, slide: Slide) -> None:
        assert (slide.read_level(0, (0, 0), (36, 20)) == 255).all()
        assert (slide.read_level(1, (150, 0), (50, 150)) == 255).all()
        assert slide.associated_images() == ("macro",)


class TestGenericJpeg(SlideContract):
    tolerance = 8
    level_tolerance = 3

    @pytest.fixture
    def picture(self) -> Picture:
        return paint(192, 128)  # whole tiles: padding would bleed into the last JPEG blocks

    @pytest.fixture
    def opened(self, picture: Picture, tmp_path: Path) -> Slide:
        write_pyramid(
            tmp_path / "a.tif", picture, levels=(2,), compression="jpeg", compressionargs={"level": 100}
        )
        return open_slide(tmp_path / "a.tif")

    def test_mpp_comes_from_the_tags(self, slide: Slide) -> None:
        assert slide.properties.reader == "tiff"
        assert slide.properties.mpp_source == "resolution-tag"


class TestDeflateTiff(SlideContract):
    @pytest.fixture
    def opened(self, picture: Picture, tmp_path: Path) -> Slide:
        write_pyramid(tmp_path / "a.tif", picture)
        return open_slide(tmp_path / "a.tif")

    def test_is_read_by_our_own_reader(self, slide: Slide) -> None:
        assert slide.properties.reader == "tiff" and len(slide.levels) == 3


class TestOmeTiff(SlideContract):
    mpp = Mpp(0.25, 0.5)

    @pytest.fixture
    def opened(self, picture: Picture, tmp_path: Path) -> Slide:
        write_pyramid(tmp_path / "a.ome.tif", picture, (0.25, 0.5), kind="ome", compression="lzw")
        return open_slide(tmp_path / "a.ome.tif")

    def test_levels_come_from_sub_directories(self, slide: Slide) -> None:
        assert slide.properties.format == "ome-tiff" and len(slide.levels) == 3


class TestStripsOfBarePixels(SlideContract):
    @pytest.fixture
    def opened(self, picture: Picture, tmp_path: Path) -> Slide:
        write_pyramid(tmp_path / "a.tif", picture, tile=None, compression="none", rowsperstrip=33)
        return open_slide(tmp_path / "a.tif")


class TestTurnedTiff(SlideContract):
    mpp = Mpp(0.5, 0.25)

    @pytest.fixture
    def opened(self, picture: Picture, tmp_path: Path) -> Slide:
        # orientation 6: row 0 is the right side, column 0 the top
        stored = [np.ascontiguousarray(p[:, ::-1].transpose(1, 0, 2)) for p in (picture, reduce(picture, 2))]
        write_pyramid(tmp_path / "a.tif", stored, (0.25, 0.5), extratags=[(274, 3, 1, 6, True)])
        return open_slide(tmp_path / "a.tif")

    def test_says_that_it_was_turned(self, slide: Slide) -> None:
        assert any("upright" in warning for warning in slide.properties.warnings)


class TestPng(SlideContract):
    mpp = None

    @pytest.fixture
    def opened(self, picture: Picture, tmp_path: Path) -> Slide:
        PIL.Image.fromarray(picture).save(tmp_path / "a.png", dpi=(72, 72))
        return open_slide(tmp_path / "a.png")


class TestArray(SlideContract):
    @pytest.fixture
    def opened(self, picture: Picture) -> Slide:
        return ArraySlide(picture, 0.5, levels=(reduce(picture, 2), reduce(picture, 3)))


class TestDicomByOpenSlide(SlideContract):
    tolerance = 5
    level_tolerance = 5

    @pytest.fixture
    def opened(self, picture: Picture, tmp_path: Path) -> Slide:
        write_dicom(tmp_path / "a.dcm", picture)
        return open_slide(tmp_path / "a.dcm")

    def test_is_left_to_openslide(self, slide: Slide) -> None:
        assert slide.properties.reader == "openslide"


class TestMislabeledDicom(SlideContract):
    tolerance = 5
    level_tolerance = 5

    @pytest.fixture
    def opened(self, picture: Picture, tmp_path: Path) -> Slide:
        write_dicom(tmp_path / "a.dcm", picture, photometric="RGB")
        write_dicom(tmp_path / "b.dcm", reduce(picture, 2), photometric="RGB", mpp=1.0)
        write_dicom(tmp_path / "other.dcm", reduce(picture, 4), photometric="RGB", series="1.2.3")
        return open_slide(tmp_path / "b.dcm")

    def test_either_file_of_the_series_names_the_same_slide(self, slide: Slide, tmp_path: Path) -> None:
        assert slide.properties.reader == "dicom" and len(slide.levels) == 2
        with open_slide(tmp_path / "a.dcm") as other:
            assert other.levels == slide.levels
            assert set(other.files()) == set(slide.files()) == {tmp_path / "a.dcm", tmp_path / "b.dcm"}
        assert any("colors" in warning for warning in slide.properties.warnings)


def _open_tiff(path: Path, array: np.ndarray, **options: Any) -> Slide:
    tifffile.imwrite(path, array, metadata=None, **options)
    return open_slide(path)


@pytest.mark.parametrize(
    "compression", ["none", "lzw", "deflate", "zstd", "packbits", "lzma", "webp", "jpeg2000"]
)
@pytest.mark.parametrize("tile", [None, (64, 48)])
def test_each_compression_gives_the_pixels_that_were_painted(
    compression: str, tile: tuple[int, int] | None, picture: Picture, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"tile": tile, "photometric": "rgb", "compression": compression}
    if compression in ("webp", "jpeg2000"):
        options["compressionargs"] = {"lossless": True} if compression == "webp" else {"reversible": True}
    if tile is None:
        options["rowsperstrip"] = 50
    with _open_tiff(tmp_path / "a.tif", picture, **options) as slide:
        assert np.array_equal(slide.read_level(0, (0, 0), slide.size), picture)


@pytest.mark.parametrize("compression", ["none", "packbits"])
@pytest.mark.parametrize("tile", [None, (64, 48)])
def test_a_predictor_counts_only_where_libtiff_heeds_it(
    compression: str, tile: tuple[int, int] | None, picture: Picture, tmp_path: Path
) -> None:
    path = tmp_path / "a.tif"
    # tifffile writes no such tag of its own: one beside it takes its number
    tifffile.imwrite(
        path, picture, photometric="rgb", compression=compression, tile=tile, metadata=None, software=None,
        extratags=[(316, 3, 1, 2, True)],
    )  # fmt: skip
    data, entry = path.read_bytes(), struct.pack("<HHI", 316, 3, 1)
    assert data.count(entry) == 1
    path.write_bytes(data.replace(entry, struct.pack("<HHI", 317, 3, 1)))
    with open_slide(path) as slide:
        assert np.array_equal(slide.read_level(0, (0, 0), slide.size), picture)
        assert np.array_equal(np.asarray(PIL.Image.open(path)), picture)


@pytest.mark.parametrize("code", [33003, 33004, 33005, 34712])
@pytest.mark.parametrize("kind", ["rgb", "ycbcr"])
def test_jpeg_2000_has_the_colors_that_the_file_states(
    code: int, kind: str, picture: Picture, tmp_path: Path
) -> None:
    """QuPath and Bio-Formats write RGB under 33003 and 33004, which Aperio uses for other colors."""
    path = tmp_path / "a.tif"
    stored = picture
    if kind == "ycbcr":
        red, green, blue = (picture[..., channel].astype(float) for channel in range(3))
        y = 0.299 * red + 0.587 * green + 0.114 * blue
        planes = (y, 128 + (blue - y) * 0.564334, 128 + (red - y) * 0.713267)
        stored = np.rint(np.stack(planes, 2)).clip(0, 255).astype(np.uint8)
    tifffile.imwrite(
        path,
        stored,
        metadata=None,
        tile=(64, 64),
        photometric="rgb",
        compression="jpeg2000",
        compressionargs={"reversible": True},
    )
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags[259].overwrite(code)
        file.pages[0].tags[262].overwrite(2 if kind == "rgb" else 6)
    with open_slide(path) as slide:
        found = slide.read_level(0, (0, 0), slide.size)
    if kind == "rgb":
        np.testing.assert_array_equal(found, picture)
    else:
        assert np.abs(found.astype(int) - picture).max() <= 3


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("predictor", [False, True])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_sixteen_bits_are_scaled_to_eight_and_said_so(
    order: str, predictor: bool, planar: str, picture: Picture, tmp_path: Path
) -> None:
    wide = picture.astype(np.uint16) * 257
    array = wide if planar == "contig" else np.ascontiguousarray(wide.transpose(2, 0, 1))
    options: dict[str, Any] = {"photometric": "rgb", "planarconfig": planar, "byteorder": order}
    with _open_tiff(
        tmp_path / "a.tif", array, compression="deflate", predictor=predictor, tile=(64, 64), **options
    ) as slide:
        assert np.array_equal(slide.read_level(0, (0, 0), slide.size), picture)
        assert any("16 bit" in warning for warning in slide.properties.warnings)


def test_alpha_is_laid_over_white(picture: Picture, tmp_path: Path) -> None:
    alpha = np.zeros(picture.shape[:2], np.uint8)
    alpha[:, :100] = 255
    with _open_tiff(
        tmp_path / "a.tif", np.dstack([picture, alpha]), photometric="rgb", extrasamples=["unassalpha"]
    ) as slide:
        pixels = slide.read_level(0, (0, 0), slide.size)
    assert np.array_equal(pixels[:, :100], picture[:, :100]) and (pixels[:, 100:] == 255).all()


def test_jfif_inside_a_tiff_that_says_rgb_keeps_its_colors(tmp_path: Path) -> None:
    import imagecodecs

    flat = np.full((64, 64, 3), (200, 90, 160), np.uint8)
    jpeg = imagecodecs.jpeg8_encode(flat, level=95, colorspace="RGB", outcolorspace="YCBCR")
    assert b"JFIF" in jpeg[:32]
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(
            iter([jpeg]), shape=flat.shape, dtype=np.uint8, tile=(64, 64), photometric="rgb",
            compression="jpeg", metadata=None,
        )  # fmt: skip
    with open_slide(tmp_path / "a.tif") as slide:
        assert np.abs(slide.read_level(0, (0, 0), (64, 64)).astype(int) - flat).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_and_jpeg_turn_pictures_the_same_way(orientation: int, picture: Picture, tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    PIL.Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    with open_slide(tmp_path / "a.png") as turned:
        assert any("turned upright" in note for note in turned.properties.warnings) == (orientation > 1)
    options: dict[str, Any] = {"photometric": "rgb", "extratags": [(274, 3, 1, orientation, True)]}
    with (
        open_slide(tmp_path / "a.png") as png,
        _open_tiff(tmp_path / "a.tif", picture, tile=(64, 64), **options) as tiff,
    ):
        assert png.size == tiff.size
        assert np.array_equal(png.read_level(0, (0, 0), png.size), tiff.read_level(0, (0, 0), png.size))
        part = tiff.read_level(0, (30, 40), (50, 20))
        assert np.array_equal(part, png.read_level(0, (30, 40), (50, 20)))


def _exif(*entries: tuple[int, int, bytes]) -> bytes:
    """EXIF of one value a tag: (tag, type, its four bytes)."""
    body = b"".join(struct.pack("<HHI", tag, kind, 1) + value.ljust(4, b"\0") for tag, kind, value in entries)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4)


@pytest.mark.parametrize(
    "odd",
    [
        (0x0128, 4, struct.pack("<I", 700_000)),
        (0x0102, 2, b"8"),
        (0x0100, 11, struct.pack("<f", 0.5)),
        (0x0131, 11, struct.pack("<f", 0.5)),
    ],
    ids=["unit", "bits", "width", "software"],
)
def test_a_turned_picture_with_odd_exif_tags_is_read(
    odd: tuple[int, int, bytes], picture: Picture, tmp_path: Path
) -> None:
    turned = (0x0112, 3, struct.pack("<H", 6))
    stored = PIL.Image.fromarray(picture)
    stored.save(tmp_path / "plain.jpg", exif=_exif(turned))
    stored.save(tmp_path / "odd.jpg", exif=_exif(*sorted([turned, odd])))
    with open_slide(tmp_path / "plain.jpg") as plain, open_slide(tmp_path / "odd.jpg") as slide:
        assert slide.size == plain.size == picture.shape[:2]
        assert np.array_equal(*(one.read_level(0, (0, 0), slide.size) for one in (plain, slide)))


def test_exif_that_cannot_be_read_is_told_and_the_picture_stands_as_stored(
    picture: Picture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    PIL.Image.fromarray(picture).save(tmp_path / "a.png")

    def fail(image: PIL.Image.Image) -> None:
        raise SyntaxError("not a TIFF file")

    monkeypatch.setattr(PIL.Image.Image, "getexif", fail)
    with open_slide(tmp_path / "a.png") as slide:
        assert np.array_equal(slide.read_level(0, (0, 0), slide.size), picture)
        assert any("EXIF data are damaged" in line for line in slide.properties.warnings)


def test_a_damaged_icc_profile_does_not_hide_the_slide(
    picture: Picture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from openslide import OpenSlide
    from PIL.ImageCms import PyCMSError

    def fail(slide: OpenSlide) -> None:
        raise PyCMSError("cannot open profile from string")

    monkeypatch.setattr(OpenSlide, "color_profile", property(fail))
    write_pyramid(tmp_path / "a.svs", picture, 0.5, kind="aperio")
    with open_slide(tmp_path / "a.svs") as slide:
        assert slide.properties.reader == "openslide" and slide.properties.icc_profile is None


def test_a_hamamatsu_text_file_brings_the_pictures_that_it_names(tmp_path: Path) -> None:
    names = {
        "hamamatsu.ImageFile": "a.jpg",
        "hamamatsu.ImageFile(1,0)": "a(1,0).jpg",
        "hamamatsu.MapFile": "gone.jpg",
    }
    for name in ("a.vms", "a.jpg", "a(1,0).jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"")
    slide = SimpleNamespace(
        path=tmp_path / "a.vms",
        properties=SimpleNamespace(format="hamamatsu"),
        _handle=SimpleNamespace(properties={**names, "openslide.vendor": "b.jpg"}),
    )
    found = OpenSlideSlide.files(cast("OpenSlideSlide", slide))
    assert [path.name for path in found] == ["a.vms", "a(1,0).jpg", "a.jpg"]


def test_a_folder_that_may_not_be_listed_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(SlideReadError, match="this folder cannot be read: Permission denied"):
        listed(tmp_path)


def test_uneven_aperio_levels_equal_the_stored_pixels(tmp_path: Path) -> None:
    picture = np.random.default_rng(1).integers(0, 255, (301, 443, 3), np.uint8)
    half = reduce(picture, 2)
    write_pyramid(tmp_path / "a.svs", picture, kind="aperio", levels=(2,))
    with open_slide(tmp_path / "a.svs") as slide:
        assert slide.levels[1].downsample == (2.0, 2.0)
        for x, y in ((0, 0), (57, 33), (151, 101), (220, 149)):
            assert np.array_equal(slide.read_level(1, (x, y), (1, 1)), half[y : y + 1, x : x + 1])


@pytest.mark.parametrize(
    ("mode", "word"),
    [("L", "gray"), ("P", "converted"), ("I;16", "16 bit"), ("LA", "gray")],
)
def test_pictures_that_are_not_rgb_are_converted_with_a_warning(mode: str, word: str, tmp_path: Path) -> None:
    if mode == "I;16":
        image = PIL.Image.fromarray(np.full((40, 50), 32768, np.uint16))
    else:
        image = PIL.Image.new("RGB", (50, 40), (128, 128, 128))
        image = image.quantize(4) if mode == "P" else image.convert(mode)
    image.save(tmp_path / "a.png")
    with open_slide(tmp_path / "a.png") as slide:
        assert any(word in warning for warning in slide.properties.warnings)
        assert np.abs(slide.read_level(0, (0, 0), (50, 40)).astype(int) - 128).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_parts_are_white_and_said_and_opaque_ones_are_not(mode: str, tmp_path: Path) -> None:
    image = PIL.Image.new("RGB", (50, 40), (128, 128, 128)).convert(mode)
    image.save(tmp_path / "opaque.png")
    image.putalpha(PIL.Image.fromarray(np.repeat(np.uint8([255, 0]), 25)[None].repeat(40, 0)))
    image.save(tmp_path / "half.png")
    with open_slide(tmp_path / "opaque.png") as slide:
        assert not any("white" in warning for warning in slide.properties.warnings)
    with open_slide(tmp_path / "half.png") as slide:
        assert any("transparent parts are shown white" in warning for warning in slide.properties.warnings)
        pixels = slide.read_level(0, (0, 0), (50, 40))
        assert (pixels[:, :25] == 128).all() and (pixels[:, 25:] == 255).all()


def test_a_picture_of_a_huge_strip_is_read_in_rows(tmp_path: Path) -> None:
    tall = np.zeros((5000, 300, 3), np.uint8)
    tall[4321] = 200
    with _open_tiff(tmp_path / "a.tif", tall, photometric="rgb", rowsperstrip=5000) as slide:
        assert (slide.read_level(0, (0, 4321), (300, 1)) == 200).all()
        assert (slide.read_level(0, (0, 4322), (300, 678)) == 0).all()


def test_a_second_image_of_an_ome_tiff_is_no_level_of_the_first(tmp_path: Path) -> None:
    first, second = (
        np.full((side, 3 * side // 2, 3), shade, np.uint8) for side, shade in ((400, 200), (200, 90))
    )
    with tifffile.TiffWriter(tmp_path / "two.ome.tif", ome=True) as file:
        for image, mpp in ((first, 0.5), (second, 0.25)):
            about = {"PhysicalSizeX": mpp, "PhysicalSizeY": mpp}
            file.write(image, photometric="rgb", tile=(64, 64), metadata=about)
    with open_slide(tmp_path / "two.ome.tif") as slide:
        assert [level.size for level in slide.levels] == [(600, 400)]


def test_a_palette_of_eight_bits_in_sixteen_is_told_by_its_size(tmp_path: Path) -> None:
    picture = np.arange(65536).reshape(256, 256).astype(np.uint8)
    shades = np.stack([np.arange(256), np.arange(256)[::-1], np.arange(256) // 2]).astype(np.uint16)
    for name, colors in (("8.tif", shades), ("16.tif", shades * 257)):
        tifffile.imwrite(tmp_path / name, picture, photometric="palette", colormap=colors, tile=(64, 64))
        with open_slide(tmp_path / name) as slide:
            seen = slide.read_level(0, (0, 0), slide.size)
        np.testing.assert_array_equal(seen, shades.T.astype(np.uint8)[picture])


def test_bits_stored_in_reverse_are_refused(tmp_path: Path, picture: Picture) -> None:
    # a tag that nobody reads becomes FillOrder
    path = tmp_path / "r.tif"
    tifffile.imwrite(path, picture, photometric="rgb", tile=(64, 64), extratags=[(264, 3, 1, 2, True)])
    stored, tag = path.read_bytes(), (264).to_bytes(2, "little") + b"\3\0\1\0\0\0\2\0"
    assert stored.count(tag) == 1
    path.write_bytes(stored.replace(tag, (266).to_bytes(2, "little") + tag[2:]))
    with pytest.raises(UnsupportedSlideError, match="FillOrder 2"):
        open_slide(path)
