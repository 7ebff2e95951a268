"""What is opened by whom, and what is said of a file that is no slide."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile
from slides.painted import Picture, paint, write_dicom, write_leica_with_bounds, write_pyramid

from lobule.errors import SlideError, SlideNotFoundError, SlideReadError, UnsupportedSlideError
from lobule.slides import open_slide
from lobule.slides.opening import READERS


def test_an_absent_file_a_folder_and_a_pipe_are_not_found(tmp_path: Path) -> None:
    with pytest.raises(SlideNotFoundError, match="no such file"):
        open_slide(tmp_path / "absent.svs")
    with pytest.raises(SlideNotFoundError, match="folder"):
        open_slide(tmp_path)
    with pytest.raises(SlideNotFoundError):
        open_slide("with\0zero.svs")
    with pytest.raises(SlideNotFoundError):
        open_slide(tmp_path / ("n" * 5000))
    os.mkfifo(tmp_path / "pipe.svs")
    with pytest.raises(SlideNotFoundError, match="regular"):
        open_slide(tmp_path / "pipe.svs")


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("a.svs", b"", "empty"),
        ("a.svs", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        ("a.vsi", b"II\x2a\0\x08\0\0\0", "VSI"),
        ("a.ets", b"SIS\0" + bytes(60), "VSI"),
        ("a.tif", b"PK\x03\x04rest", "ZIP"),
        ("a.tif", b"\x1f\x8b\x08rest", "gzip"),
        ("a.svs", b"%PDF-1.7", "PDF"),
        ("a.svs", b"<?xml version='1.0'?><a/>", "XML"),
        ("a.svs", b"<html></html>", "HTML"),
        ("a.json", b'{"a": 1}', "JSON"),
        ("a.csv", b"a,b,c\n1,2,3\n", "CSV"),
        ("a.txt", "naïve text with no commas".encode(), "text"),
        ("a.isyntax", b"<DataObject>", "iSyntax"),
        ("a.h5", b"\x89HDF\r\n", "HDF5"),
        ("a.npy", b"\x93NUMPY\x01", "NumPy"),
        ("a.svs", bytes(5000), "zeros"),
        ("a.gif", b"GIF89a\x01", "GIF"),
        ("a.svs", b" \n\n ", "blanks"),
    ],
)
def test_a_file_that_is_no_slide_is_named(name: str, content: bytes, word: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnsupportedSlideError, match=word) as caught:
        open_slide(tmp_path / name)
    assert "\n" not in str(caught.value) and name in str(caught.value)


def test_what_nobody_knows_lists_what_every_reader_said(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(range(1, 256)) * 20)
    with pytest.raises(UnsupportedSlideError) as caught:
        open_slide(tmp_path / "a.bin")
    names = [name for name, _ in caught.value.tried]
    assert names == ["dicom", "openslide", "tiff", "image"]
    assert all(f"{name}: " in str(caught.value) for name in names)
    assert len(READERS) == len(names)


@pytest.mark.parametrize("suffix", [".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".czi", ".dcm", ".vms"])
def test_a_preview_under_a_vendors_name_is_not_opened_as_the_slide(suffix: str, tmp_path: Path) -> None:
    PIL.Image.fromarray(paint(60, 40)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").rename(tmp_path / f"a{suffix}")
    with pytest.raises((UnsupportedSlideError, SlideReadError)):
        open_slide(tmp_path / f"a{suffix}")


def test_an_mrxs_without_its_folder_says_so(tmp_path: Path) -> None:
    PIL.Image.fromarray(paint(60, 40)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").rename(tmp_path / "a.mrxs")
    with pytest.raises(UnsupportedSlideError, match="folder a beside it"):
        open_slide(tmp_path / "a.mrxs")


def test_a_plain_tiff_named_svs_is_refused(picture: Picture, tmp_path: Path) -> None:
    write_pyramid(tmp_path / "a.svs", picture, tile=None)
    with pytest.raises(UnsupportedSlideError, match=r"preview in a \.svs"):
        open_slide(tmp_path / "a.svs")


def test_a_tiled_pyramid_of_no_vendor_may_be_named_svs(picture: Picture, tmp_path: Path) -> None:
    write_pyramid(tmp_path / "a.svs", picture)
    with open_slide(tmp_path / "a.svs") as slide:
        assert slide.properties.reader == "tiff" and len(slide.levels) == 3


def test_an_array_that_is_no_picture_is_refused() -> None:
    for array in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(UnsupportedSlideError, match="array slide needs"):
            open_slide(array)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["mit Leerzeichen (1).svs", "😐.svs", "ümläut.SVS", "a'b\"c.svs", "-x.svs"])
def test_names_do_not_matter(name: str, picture: Picture, tmp_path: Path) -> None:
    write_pyramid(tmp_path / name, picture, kind="aperio")
    with open_slide(str(tmp_path / name)) as slide:
        assert slide.size == (251, 199)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}, "another kind"),
        ({"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"}, "MONOCHROME2"),
        ({"BitsAllocated": 16}, "16 bits"),
        ({"ImageType": ["ORIGINAL", "PRIMARY"]}, "ImageType"),
        ({"TotalPixelMatrixColumns": 70_000, "TotalPixelMatrixRows": 70_000}, "frame"),
        ({"Rows": 0}, "px"),
        ({"Rows": 40_000, "Columns": 40_000}, "claims"),
        ({"DimensionOrganizationType": "TILED_SPARSE", "PhotometricInterpretation": "RGB"}, "TILED_SPARSE"),
        ({"NumberOfFrames": 3, "PhotometricInterpretation": "RGB"}, "frames"),
    ],
)
def test_a_dicom_that_is_no_color_slide_is_refused(
    changes: dict[str, object], word: str, picture: Picture, tmp_path: Path
) -> None:
    write_dicom(tmp_path / "a.dcm", picture, **changes)
    with pytest.raises(SlideError, match=word):
        open_slide(tmp_path / "a.dcm")


def test_a_dicom_of_only_the_label_is_refused(picture: Picture, tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", picture, flavor="LABEL")
    with pytest.raises(UnsupportedSlideError, match="only the label"):
        open_slide(tmp_path / "a.dcm")
    write_dicom(tmp_path / "b.dcm", picture)
    with open_slide(tmp_path / "a.dcm") as slide:
        assert slide.size == (251, 199)


@pytest.mark.parametrize("kind", ["plain", "ome"])
def test_a_tiff_whose_first_picture_is_not_the_largest_is_refused(
    kind: str, picture: Picture, tmp_path: Path
) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path, ome=kind == "ome") as writer:
        for each in (picture[:60, :80], picture):
            writer.write(each, photometric="rgb", tile=(64, 64), metadata={} if kind == "ome" else None)
    height, width = picture.shape[:2]
    with pytest.raises(UnsupportedSlideError, match=f"80 x 60 px, .* {width} x {height} px") as error:
        open_slide(path)
    assert "\n" not in str(error.value)


def test_a_label_or_another_kind_of_data_behind_the_slide_is_no_obstacle(
    picture: Picture, tmp_path: Path
) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(picture, photometric="rgb", tile=(64, 64), metadata=None)
        writer.write(picture[:60, :80], photometric="rgb", metadata=None)
        # a measurement for every place, which can be no slide
        writer.write(np.zeros((500, 500), np.float32), metadata=None)
    with open_slide(path) as slide:
        assert np.array_equal(slide.read_level(0, (0, 0), slide.size), picture)


def test_bounds_and_size_of_a_slide_with_unscanned_glass(tmp_path: Path) -> None:
    bounds = write_leica_with_bounds(tmp_path / "a.scn", paint(248, 196), mpp=0.25)
    with open_slide(tmp_path / "a.scn") as slide:
        assert slide.properties.bounds == bounds and slide.size == (400, 300)


def test_importing_slides_loads_no_reader() -> None:
    code = (
        "import sys, lobule.slides; heavy = {'openslide', 'tifffile', 'PIL', 'pydicom', 'imagecodecs', 'scipy'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("kind", ["generic", "ome", "aperio", "leica", "strips", "bare description"])
def test_a_tiff_without_a_makers_mark_is_told_as_openslide_tells_it(
    kind: str, picture: Picture, tmp_path: Path
) -> None:
    import openslide

    from lobule.slides import openslide_reader

    path = tmp_path / "a.tif"
    if kind == "leica":
        write_leica_with_bounds(path, picture)
    elif kind == "strips":
        write_pyramid(path, picture, tile=None)
    elif kind == "bare description":
        write_pyramid(path, picture, description="a section, stained")
    else:
        write_pyramid(path, picture, kind=kind)
    vendor = openslide.OpenSlide.detect_format(path)
    told = {None: openslide_reader.NOT_KNOWN, "generic-tiff": openslide_reader.OF_NO_VENDOR}.get(vendor)
    assert openslide_reader.detect(path, path.read_bytes()[:4096]) == told


def test_a_plain_tiff_is_opened_without_loading_readers_of_others(picture: Picture, tmp_path: Path) -> None:
    write_pyramid(tmp_path / "a.tif", picture, compression="jpeg")
    code = (
        "import sys; from lobule.slides import open_slide\n"
        "with open_slide(sys.argv[1]) as slide: slide.read_level(0, (0, 0), (9, 9))\n"
        "heavy = {'openslide', 'tifffile', 'PIL', 'pydicom', 'scipy', 'xml.etree', 'lobule.slides.dicom_reader'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.tif")], check=True)
