"""Sets of nuclei: what each layout holds is read, and whatever is wrong with a file is named in one line."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from lobule.errors import AnnotationError, ConfigurationError, LobuleError
from lobule.geometry import Mpp
from lobule.training.field_files import _pieces, read_label_map, read_outlines, read_pixels
from lobule.training.nuclei_sets import detect, read_folder, read_monuseg, read_set, read_tnbc

SIZE = (60, 48)
"""Width and height of drawn fields."""


def draw(seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)


def draw_labels() -> NDArray[np.int32]:
    labels = np.zeros((SIZE[1], SIZE[0]), np.int32)
    labels[5:12, 6:15] = 3
    labels[5:12, 15:20] = 7
    labels[30:40, 40:50] = 300
    return labels


def save(path: Path, array: NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, "utf-8")
    return path


def xml(*rings: list[tuple[float, float]], negative: int = 0) -> str:
    regions = "".join(
        f'<Region Type="0" NegativeROA="{negative}"><Vertices>'
        + "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in ring)
        + "</Vertices></Region>"
        for ring in rings
    )
    return f"<Annotations><Annotation><Regions>{regions}</Regions></Annotation></Annotations>"


def geojson(*geometries: tuple[str, Any]) -> str:
    features = [
        {"type": "Feature", "properties": {}, "geometry": {"type": kind, "coordinates": coordinates}}
        for kind, coordinates in geometries
    ]
    return json.dumps({"type": "FeatureCollection", "features": features})


def square(x: float, y: float, side: float) -> list[tuple[float, float]]:
    return [(x, y), (x + side, y), (x + side, y + side), (x, y + side), (x, y)]


def make_tnbc(folder: Path) -> Path:
    mask = ((draw_labels() > 0) * 255).astype(np.uint8)
    for name in ("01_1", "01_2", "02_1"):
        slide = name[:2]
        opaque = np.dstack([draw(), np.full((SIZE[1], SIZE[0]), 255, np.uint8)])
        save(folder / f"Slide_{slide}" / f"{name}.png", opaque if name == "01_1" else draw())
        save(folder / f"GT_{slide}" / f"{name}.png", mask)
    return folder


def make_folder(folder: Path, kind: str = "labels") -> Path:
    for name in ("a", "b"):
        save(folder / "images" / f"{name}.png", draw())
        if kind == "labels":
            save(folder / "labels" / f"{name}.png", draw_labels().astype(np.uint16))
        elif kind == "masks":
            save(folder / "masks" / f"{name}.png", ((draw_labels() > 0) * 255).astype(np.uint8))
        else:
            text(folder / "geojson" / f"{name}.geojson", geojson(("Polygon", [square(6, 5, 9)])))
    return folder


def test_tnbc_is_read_with_its_patients_and_connected_nuclei(tmp_path: Path) -> None:
    root = make_tnbc(tmp_path / "tnbc")
    assert detect(root) == "tnbc"
    fields, report = read_set(root)
    assert [field.name for field in fields] == ["tnbc/01_1", "tnbc/01_2", "tnbc/02_1"]
    assert [field.patient for field in fields] == ["TNBC-01", "TNBC-01", "TNBC-02"]
    assert {(field.organ, field.source_set, field.part) for field in fields} == {("Breast", "tnbc", None)}
    assert fields[0].pixels.dtype == np.uint8 and fields[0].instances.dtype == np.int32
    np.testing.assert_array_equal(fields[0].pixels, draw())
    np.testing.assert_array_equal(fields[0].instances > 0, draw_labels() > 0)
    # the two that touch are one component of a mask
    assert (report.fields, report.patients, report.nuclei) == (3, 2, 6)
    assert any("opaque alpha" in note and "01_1" in note for note in report.notes)
    assert str(report) == "tnbc: 3 fields of 2 patients, 6 nuclei (TNBC's layout)"


def test_tnbc_may_lie_one_folder_deeper_and_nuclei_that_touch_at_a_corner_are_one(tmp_path: Path) -> None:
    root = make_tnbc(tmp_path / "set" / "TNBC_NucleiSegmentation")
    mask = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    mask[3, 3] = mask[4, 4] = 255
    save(root / "GT_02" / "02_1.png", mask)
    fields, _ = read_tnbc(tmp_path / "set")
    assert fields[2].name == "set/02_1" and fields[2].instances.max() == 1


def _spoil_tnbc(root: Path, what: str) -> None:
    image, mask = root / "Slide_02" / "02_1.png", root / "GT_02" / "02_1.png"
    if what == "no mask":
        mask.unlink()
    elif what == "no image":
        save(root / "GT_02" / "02_2.png", np.zeros((4, 4), np.uint8))
    elif what == "no folder":
        shutil.rmtree(root / "GT_02")
    elif what == "other name":
        image.rename(root / "Slide_02" / "03_1.png")
        mask.rename(root / "GT_02" / "03_1.png")
    elif what == "gray":
        save(image, draw()[..., 0])
    elif what == "gray as RGB":
        save(image, np.repeat(draw()[..., :1], 3, axis=2))
    elif what == "16 bit gray":
        save(image, draw()[..., 0].astype(np.uint16) * 200)
    elif what == "transparent":
        save(image, np.dstack([draw(), np.full((SIZE[1], SIZE[0]), 254, np.uint8)]))
    elif what == "size":
        save(mask, np.zeros((SIZE[1], SIZE[0] + 1), np.uint8))
    elif what == "many values":
        save(mask, draw()[..., 0])
    elif what == "no background":
        save(mask, np.full((SIZE[1], SIZE[0]), 255, np.uint8))
    elif what == "inner values":
        save(mask, np.where(draw_labels() > 0, 255, 1).astype(np.uint8))
    elif what == "color mask":
        save(mask, draw())
    elif what == "not an image":
        image.write_text("hello")
    elif what == "truncated":
        image.write_bytes(image.read_bytes()[:300])
    elif what == "empty file":
        mask.write_bytes(b"")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no mask", "02_1.*an empty one says"),
        ("no image", "1 of 2 annotations have no image.*02_2"),
        ("no folder", "Slide_02 but no GT_02"),
        ("other name", "start with the patient's number: 02_"),
        ("gray", "image is gray"),
        ("gray as RGB", "gray, stored as RGB"),
        ("16 bit gray", "16 bits a channel; save it with 8"),
        ("transparent", "partly transparent"),
        ("size", "is 61 × 48 px, its image 60 × 48 px"),
        ("many values", "two values, this has .* put it into labels/"),
        ("no background", "every pixel as nucleus"),
        ("inner values", r"background must be 0, its values are \[1, 255\]"),
        ("color mask", "color picture"),
        ("not an image", "no PNG, JPEG, TIFF or BMP"),
        ("truncated", "cannot be decoded"),
        ("empty file", "no PNG, JPEG, TIFF or BMP"),
    ],
)
def test_what_is_wrong_in_tnbc_is_named_in_one_line(tmp_path: Path, what: str, message: str) -> None:
    root = make_tnbc(tmp_path / "tnbc")
    _spoil_tnbc(root, what)
    with pytest.raises(LobuleError, match=message) as caught:
        read_set(root)
    assert isinstance(caught.value, AnnotationError | ConfigurationError)
    assert "\n" not in str(caught.value) and "_02" in str(caught.value)


def test_an_empty_mask_is_a_field_without_nuclei_and_is_noted(tmp_path: Path) -> None:
    root = make_tnbc(tmp_path / "tnbc")
    save(root / "GT_02" / "02_1.png", np.zeros((SIZE[1], SIZE[0]), np.uint8))
    fields, report = read_set(root)
    assert not fields[2].instances.any()
    assert "without nuclei: 1 field (02_1)" in report.notes


@pytest.mark.parametrize(("kind", "nuclei"), [("labels", 3), ("masks", 2), ("geojson", 1)])
def test_a_users_own_set_is_read(tmp_path: Path, kind: str, nuclei: int) -> None:
    root = make_folder(tmp_path / "mine", kind)
    assert detect(root) == "folder"
    fields, report = read_set(root)
    assert [field.name for field in fields] == ["mine/a", "mine/b"]
    assert report.nuclei == 2 * nuclei and report.patients == 2
    assert any("every file counts as a patient of its own" in note for note in report.notes)
    if kind == "labels":
        np.testing.assert_array_equal(fields[0].instances, draw_labels())
    if kind == "geojson":
        expected = np.zeros((SIZE[1], SIZE[0]), bool)
        expected[5:14, 6:15] = True
        np.testing.assert_array_equal(fields[0].instances > 0, expected)


def test_a_manifest_gives_patients_organs_and_parts(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "mine")
    text(root / "manifest.csv", "\ufefffile,Patient,organ,split\na.png,P7,Breast,train\nb,P7,,test\n")
    fields, report = read_set(root)
    assert [(f.patient, f.organ, f.part) for f in fields] == [("P7", "Breast", "train"), ("P7", None, "test")]
    assert report.patients == 1 and report.notes == ()


def test_without_a_manifest_barcodes_name_the_patients(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "mine")
    for kind in ("images", "labels"):
        for name, code in (("a", "TCGA-XX-0001-01Z-00-DX1"), ("b", "TCGA-XX-0001-01Z-00-DX2")):
            (root / kind / f"{name}.png").rename(root / kind / f"{code}.png")
    fields, report = read_set(root)
    assert report.kind == "folder" and {field.patient for field in fields} == {"TCGA-XX-0001"}


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("file,patient\na,1\n", "no row for b"),
        ("file,patient\na,1\nb,1\nc,2\n", "not there: c"),
        ("file,patient\na,1\na,1\nb,2\n", "two rows for a"),
        ("file,patient\na,1\nb,\n", "no patient for b"),
        ("file,patient,Patient\na,1,2\nb,1,2\n", "names the column 'patient' twice"),
        ("image,patient\na,1\n", "needs a column 'file'; it has image, patient"),
        ("", "needs a column 'file'; it has none"),
        ("file,patient\na,1,2\nb,1\n", "line 2: 2 cells are needed, 3 are there"),
        ("file,mpp\na,fine\nb,0.25\n", "'fine' as mpp of a; µm per pixel"),
    ],
)
def test_what_is_wrong_in_a_manifest_is_named(tmp_path: Path, manifest: str, message: str) -> None:
    root = make_folder(tmp_path / "mine")
    text(root / "manifest.csv", manifest)
    with pytest.raises(AnnotationError, match=message):
        read_set(root)


@pytest.mark.parametrize(
    "manifest",
    [
        "\ufefffile;patient;mpp\r\na.png;P7;0,25\r\nb.png;P8;0,5\r\n",
        "file,patient,mpp\na.png,P7,0,25\nb.png,P8,0.5\n",
        "File\tpatient\tmpp\na.png\tP7\t0.25\n\nb.png\tP8\t0.5\n",
    ],
)
def test_a_manifest_is_read_as_spreadsheets_write_it(tmp_path: Path, manifest: str) -> None:
    root = make_folder(tmp_path / "mine")
    (root / "manifest.csv").write_bytes(manifest.encode())
    fields, _ = read_set(root)
    assert [(f.patient, f.mpp) for f in fields] == [("P7", Mpp(0.25, 0.25)), ("P8", Mpp(0.5, 0.5))]


def test_a_resolution_is_stated_by_the_manifest_else_by_a_tiffs_tags(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "mine")
    for name in ("a", "b"):
        (root / "images" / f"{name}.png").unlink()
        tifffile.imwrite(
            root / "images" / f"{name}.tif", draw(), resolution=(20_000, 20_000), resolutionunit="CENTIMETER"
        )
    shutil.copy(root / "labels" / "a.png", root / "labels" / "c.png")
    tifffile.imwrite(root / "images" / "c.tif", draw(), resolution=(300, 300), resolutionunit="INCH")
    text(root / "manifest.csv", "file,mpp\na,0.25\nb,\nc,\n")
    fields, _ = read_set(root)
    # 300 dots per inch are for printers
    assert [field.mpp for field in fields] == [Mpp(0.25, 0.25), Mpp(0.5, 0.5), None]


def test_a_resolution_that_nobody_works_at_is_refused(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "mine")
    text(root / "manifest.csv", "file,mpp\na,0\nb,0.25\n")
    with pytest.raises(ConfigurationError, match=r"manifest.csv mpp of a: 0.0 .*finite and positive"):
        read_set(root)


def test_a_manifest_without_patients_is_as_good_as_none_and_says_so(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "mine")
    text(root / "manifest.csv", "file,organ\na,Breast\nb,Lung\n")
    fields, report = read_set(root)
    assert [field.organ for field in fields] == ["Breast", "Lung"]
    assert any("patient of its own" in note for note in report.notes)


def test_an_unreadable_manifest_is_named(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "mine")
    (root / "manifest.csv").write_bytes(b"file,patient\n\xff\xfe,1\n")
    with pytest.raises(AnnotationError, match="UTF-8"):
        read_set(root)


def _labels_as(values: NDArray[Any], suffix: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / f"labels{suffix}"
        if suffix == ".npy":
            np.save(path, values)
        elif suffix == ".tif":
            tifffile.imwrite(path, values, photometric="minisblack")
        else:
            save(path, values)
        return path

    return write


BIG = draw_labels().astype(np.int64)
BIG[BIG == 300] = 2**40


@pytest.mark.parametrize(
    "write",
    [
        _labels_as(draw_labels().astype(np.uint16), ".png"),
        _labels_as(draw_labels().astype(np.uint16), ".tif"),
        _labels_as(draw_labels(), ".tif"),
        _labels_as(draw_labels().astype(np.float32), ".tif"),
        _labels_as(draw_labels(), ".npy"),
        _labels_as(draw_labels()[..., None].astype(np.uint32), ".npy"),
        _labels_as(BIG, ".npy"),
        _labels_as((draw_labels() % 251).astype(np.uint8), ".png"),
    ],
)
def test_label_maps_of_many_kinds_hold_the_same_nuclei(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    told: list[str] = []
    labels = read_label_map(write(tmp_path), told.append)
    assert labels.dtype == np.int32 and told == []
    pairs = set(zip(labels.ravel().tolist(), draw_labels().ravel().tolist(), strict=True))
    assert len(pairs) == 4 and (0, 0) in pairs, "numbers may differ, nuclei may not"


SEVERAL = np.zeros((20, 20), np.uint8)
SEVERAL[2:4, 2:4] = SEVERAL[9:12, 9:12] = 255


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_labels_as(np.full((9, 9), 5, np.uint8), ".png"), "holds 5 everywhere"),
        (_labels_as(SEVERAL, ".png"), r"one number \(255\) in 2 separate pieces: a binary mask\?"),
        (_labels_as(draw(), ".png"), "color picture; each nucleus needs a number"),
        (_labels_as(draw_labels() - 1, ".npy"), r"negative numbers \(-1\)"),
        (_labels_as(draw_labels() + 0.5, ".npy"), "fractions"),
        (_labels_as(np.where(draw_labels() > 0, np.nan, 0.0), ".npy"), "fractions"),
        (_labels_as(draw_labels().astype(np.complex64), ".npy"), "complex64"),
        (_labels_as(np.array([{"a": 1}], dtype=object), ".npy"), "cannot be read"),
        (_labels_as(np.where(draw_labels() > 0, 1e30, 0.0), ".npy"), r"numbers as large as 1e\+30"),
        (_labels_as(np.stack([draw_labels()] * 2, 2), ".npy"), r"shape \(48, 60, 2\)"),
        (_labels_as(np.zeros((0, 5), np.int32), ".npy"), r"shape \(0, 5\)"),
        (_labels_as(np.zeros((3, 20, 20), np.uint16), ".tif"), "3 planes|color picture"),
        (_labels_as(SEVERAL, ".jpg"), "JPEG"),
    ],
)
def test_what_is_no_label_map_is_refused(tmp_path: Path, write: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(AnnotationError, match=message) as caught:
        read_label_map(write(tmp_path), lambda _: None)
    assert "\n" not in str(caught.value)


def test_nuclei_in_pieces_are_noted(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "mine")
    labels = draw_labels().astype(np.uint16)
    labels[45, 3] = 300
    save(root / "labels" / "b.png", labels)
    _, report = read_set(root)
    assert "has nuclei in several pieces: 1 field (b)" in report.notes


def test_pictures_of_many_kinds_are_read_alike(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "mine")
    (root / "images" / "a.png").unlink()
    (root / "images" / "b.png").unlink()
    tifffile.imwrite(root / "images" / "a.tif", draw(), photometric="rgb", compression="zlib")
    tifffile.imwrite(root / "images" / "b.tiff", draw().transpose(2, 0, 1), photometric="rgb")
    fields, _ = read_set(root)
    for field in fields:
        np.testing.assert_array_equal(field.pixels, draw())


def test_16_bit_and_turned_and_cmyk_pictures_are_refused(tmp_path: Path) -> None:
    def refused(write: Callable[[Path], object], name: str, message: str) -> None:
        root = make_folder(tmp_path / name)
        (root / "images" / "b.png").unlink()
        write(root / "images" / name)
        (root / "images" / name).rename(root / "images" / f"b{Path(name).suffix}")
        with pytest.raises(AnnotationError, match=message):
            read_set(root)

    wide = draw().astype(np.uint16) * 257
    refused(lambda path: tifffile.imwrite(path, wide, photometric="rgb"), "wide.tif", "16 bits a channel")
    turned = Image.Exif()
    turned[0x0112] = 6
    refused(lambda path: Image.fromarray(draw()).save(path, exif=turned), "turned.jpg", "orientation 6")
    tag = (0x0112, "H", 1, 6, True)
    refused(
        lambda path: tifffile.imwrite(path, draw(), photometric="rgb", extratags=[tag]),
        "turned.tif",
        "orientation 6",
    )
    refused(lambda path: Image.fromarray(draw()).convert("CMYK").save(path), "ink.jpg", "CMYK")
    refused(
        lambda path: tifffile.imwrite(path, np.stack([draw(), draw()]), photometric="rgb"),
        "two.tif",
        "2 planes",
    )
    refused(lambda path: path.write_bytes(b"II*\0 and no more"), "broken.tif", "cannot be decoded|no image")


def test_a_16_bit_color_png_is_refused_not_cut_down(tmp_path: Path) -> None:
    import imagecodecs

    root = make_folder(tmp_path / "mine")
    (root / "images" / "b.png").write_bytes(imagecodecs.png_encode(draw().astype(np.uint16) * 257))
    with pytest.raises(AnnotationError, match="16 bits a channel"):
        read_set(root)


def test_what_has_no_partner_or_two_is_named(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "mine")
    save(root / "images" / "b.bmp", draw())
    with pytest.raises(ConfigurationError, match=r"b\.bmp has the same name|b\.png has|same name"):
        read_set(root)
    (root / "images" / "b.bmp").unlink()
    for k in range(6):
        save(root / "images" / f"x{k}.png", draw())
    with pytest.raises(ConfigurationError, match=r"6 of 8 images.*x0, x1, x2, x3 and 2 more.*x0\.png"):
        read_set(root)


def test_two_kinds_of_annotation_and_empty_folders_are_refused(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "mine")
    (root / "masks").mkdir()
    with pytest.raises(ConfigurationError, match="masks/ and labels/; leave the one"):
        read_set(root)
    (tmp_path / "none" / "images").mkdir(parents=True)
    (tmp_path / "none" / "masks").mkdir()
    with pytest.raises(ConfigurationError, match="holds no image"):
        read_set(tmp_path / "none")
    with pytest.raises(ConfigurationError, match="images/ and one of"):
        read_folder(tmp_path)


def test_other_files_are_noted_and_hidden_ones_passed_over(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "mine")
    text(root / "images" / "readme.txt", "hello")
    text(root / "images" / ".DS_Store", "x")
    _, report = read_set(root)
    assert "not read: readme.txt" in report.notes


def test_what_is_no_set_is_told_what_was_looked_for(tmp_path: Path) -> None:
    text(tmp_path / "x" / "notes.txt", "hello")
    with pytest.raises(
        ConfigurationError, match=r"Slide_01.*Tissue Images.*masks/.*it holds notes\.txt"
    ) as caught:
        read_set(tmp_path / "x")
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="no such folder"):
        read_set(tmp_path / "y")
    for read in (read_tnbc, read_monuseg):
        with pytest.raises(ConfigurationError):
            read(tmp_path / "x")


NAME = "TCGA-A7-A13E-01Z-00-DX1"


def make_released(folder: Path, content: str) -> Path:
    (folder / "Tissue Images").mkdir(parents=True)
    tifffile.imwrite(folder / "Tissue Images" / f"{NAME}.tif", draw(), photometric="rgb")
    text(folder / "Annotations" / f"{NAME}.xml", content)
    return folder


def test_monuseg_as_released_is_read_also_some_folders_deeper_or_side_by_side(tmp_path: Path) -> None:
    content = xml([(10, 10), (20, 10), (20, 20), (10, 20)])
    make_released(tmp_path / "a", content)
    make_released(tmp_path / "b" / "MoNuSeg 2018 Training Data" / "MoNuSeg 2018 Training Data", content)
    beside = tmp_path / "c" / "MoNuSegTestData"
    make_released(tmp_path / "made", content)
    beside.mkdir(parents=True)
    for path in (tmp_path / "made").rglob("TCGA*"):
        shutil.copy(path, beside)
    for name in "abc":
        assert detect(tmp_path / name) == "monuseg"
        [field], report = read_set(tmp_path / name)
        assert (field.name, field.patient, field.organ) == (f"{name}/{NAME}", "TCGA-A7-A13E", "Breast")
        assert report.nuclei == 1
        # whole numbers name pixels; of an outline's pixels those below and right are inside
        inside = np.argwhere(field.instances)
        assert inside.min(axis=0).tolist() == [11, 11] and inside.max(axis=0).tolist() == [20, 20]


def test_outlines_that_cross_or_are_too_small_or_lie_outside_are_told(tmp_path: Path) -> None:
    bow = [(5.0, 5.0), (15.0, 15.0), (15.0, 5.0), (5.0, 15.0)]
    content = xml(
        [(20, 20), (30, 20), (30, 30), (20, 30)], bow, [(1, 1), (2, 2)], [(1, 1), (9, 9), (5, 5)],
        [(100, 100), (110, 100), (105, 110)], [(50, 40), (90, 40), (90, 90), (50, 90)],
        [(21, 21), (29, 21), (29, 29), (21, 29)],
    )  # fmt: skip
    [field], report = read_set(make_released(tmp_path / "a", content))
    assert report.nuclei == 3
    assert set(report.notes) == {
        f"crosses itself, repaired: 1 outline ({NAME})",
        f"has fewer than 3 points, left out: 1 outline ({NAME})",
        f"has no area, left out: 1 outline ({NAME})",
        f"lies outside of the image, left out: 1 outline ({NAME})",
        f"holds no pixel that is not another's, left out: 1 outline ({NAME})",
    }
    assert (field.instances[41:, 51:] == 3).all(), "what reaches beyond the image is cut off at its border"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<Annotations><Annotation>", "not XML: .* line 1"),
        ("<other/>", "neither ASAP, ImageScope nor Halo"),
        ("", "empty"),
        (xml([(100, 100), (110, 100), (105, 110)]), "all 1 outlines lie outside"),
        (xml([(1, 1), (2, 9), (8, 4)]).replace('X="2"', 'X="two"'), "'two'"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><Annotations/>', "document type or entities"),
    ],
)
def test_broken_xml_is_named(tmp_path: Path, content: str, message: str) -> None:
    root = make_released(tmp_path / "a", content)
    with pytest.raises(AnnotationError, match=message) as caught:
        read_set(root)
    assert NAME in str(caught.value) and "\n" not in str(caught.value)


def test_xml_without_regions_is_a_field_without_nuclei(tmp_path: Path) -> None:
    _, report = read_set(make_released(tmp_path / "a", xml()))
    assert report.nuclei == 0 and f"without nuclei: 1 field ({NAME})" in report.notes


def test_files_of_monuseg_without_barcodes_are_refused(tmp_path: Path) -> None:
    root = make_released(tmp_path / "a", xml())
    for path in root.rglob("TCGA*"):
        path.rename(path.with_name(f"one{path.suffix}"))
    with pytest.raises(ConfigurationError, match="TCGA barcodes"):
        read_set(root)


def test_images_without_xml_and_missing_folders_are_named(tmp_path: Path) -> None:
    root = make_released(tmp_path / "a", xml())
    (root / "Annotations" / f"{NAME}.xml").unlink()
    with pytest.raises(ConfigurationError, match=rf"1 of 1 images have no annotation.*{NAME}\.xml"):
        read_set(root)
    (root / "Annotations").rmdir()
    with pytest.raises(ConfigurationError, match="no such folder beside"):
        read_set(root)


def test_geojson_holes_and_several_parts_are_kept_and_crossing_ones_repaired(tmp_path: Path) -> None:
    ring, hole = square(5, 5, 20), square(10, 10, 5)
    two = [[square(40, 5, 4)], [square(50, 5, 4)]]
    bow = [(30.0, 30.0), (40.0, 40.0), (40.0, 30.0), (30.0, 40.0), (30.0, 30.0)]
    path = text(
        tmp_path / "a.geojson",
        geojson(("Polygon", [ring, hole]), ("MultiPolygon", two), ("Polygon", [bow]), ("Point", [1, 1])),
    )
    told: list[str] = []
    labels = read_outlines(path, SIZE, told.append)
    assert (labels == 1).sum() == 400 - 25 and labels[12, 12] == 0
    assert (labels == 2).sum() == 32
    assert (labels == 3).sum() > 30
    assert told == ["crosses itself", "is a point or a line, not an outline"]


def qupath(kind: str, x: float, y: float, side: float, **more: object) -> dict[str, object]:
    shape = {"type": "Polygon", "coordinates": [square(x, y, side)]}
    return {"type": "Feature", "geometry": shape, "properties": {"objectType": kind}, **more}


def test_of_qupaths_cells_the_nuclei_are_learned(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "mine", "geojson")
    nucleus = {"type": "Polygon", "coordinates": [square(10, 10, 8)]}
    cells = [qupath("cell", 5, 5, 20, nucleusGeometry=nucleus), qupath("cell", 30, 20, 12)]
    for document in ({"type": "FeatureCollection", "features": cells}, cells):
        text(root / "geojson" / "a.geojson", json.dumps(document))
        fields, report = read_set(root)
        assert np.argwhere(fields[0].instances).min() == 10 and (fields[0].instances > 0).sum() == 64
        assert "is a cell, of which the nucleus counts: 1 outline (a)" in report.notes
        assert "is a cell without a nucleus, left out: 1 outline (a)" in report.notes


@pytest.mark.parametrize("nuclei", ["cell", "detection"])
def test_a_region_annotated_around_detections_is_no_nucleus(tmp_path: Path, nuclei: str) -> None:
    root = make_folder(tmp_path / "mine", "geojson")
    inner = {"nucleusGeometry": {"type": "Polygon", "coordinates": [square(5, 5, 8)]}}
    features = [qupath("annotation", 0, 0, 48), qupath(nuclei, 5, 5, 8, **inner if nuclei == "cell" else {})]
    text(root / "geojson" / "a.geojson", json.dumps({"type": "FeatureCollection", "features": features}))
    fields, report = read_set(root)
    assert (fields[0].instances > 0).sum() == 64
    assert "is an annotation beside detections, left out: 1 outline (a)" in report.notes
    # annotations alone are nuclei that somebody drew
    features = [qupath("annotation", 20, 20, 10), qupath("annotation", 5, 5, 8)]
    text(root / "geojson" / "a.geojson", json.dumps({"type": "FeatureCollection", "features": features}))
    assert read_set(root)[1].nuclei == 3


@pytest.mark.parametrize("kind", ["geojson", "masks", "labels"])
def test_what_marks_most_of_a_field_as_one_nucleus_is_refused(tmp_path: Path, kind: str) -> None:
    root = make_folder(tmp_path / "mine", kind)
    if kind == "geojson":
        around = [("Polygon", [square(6, 5, 9)]), ("Polygon", [square(0, 0, 60)])]
        text(root / "geojson" / "b.geojson", geojson(*around))
    elif kind == "masks":
        save(root / "masks" / "b.png", ((draw_labels() == 0) * 255).astype(np.uint8))
    else:
        save(root / "labels" / "b.png", (draw_labels() + 1).astype(np.uint16))
    with pytest.raises(
        AnnotationError, match=rf"{kind}/b\..*one nucleus covers 9\d% of the field: is the mask inv"
    ):
        read_set(root)


def test_label_maps_of_monuseg_move_by_a_pixel_and_those_of_others_do_not(tmp_path: Path) -> None:
    large = np.zeros((1000, 1000), np.uint16)
    large[: SIZE[1], : SIZE[0]] = draw_labels()
    for name, code, whole in (
        ("released", NAME, True),
        ("cut", NAME, False),
        ("monuseg-mine", "TCGA-A7-A13E-01Z-00-DX1-b", True),
        ("other", "TCGA-XX-0001-01Z", True),
    ):
        labels = large if whole else large[: SIZE[1], : SIZE[0]]
        pixels = np.random.default_rng(0).integers(0, 256, (*labels.shape, 3), dtype=np.uint8)
        save(tmp_path / name / "images" / f"{code}.png", pixels)
        save(tmp_path / name / "labels" / f"{code}.png", labels)
    assert detect(tmp_path / "released") == "monuseg-labels" and detect(tmp_path / "other") == "folder"
    [field], report = read_set(tmp_path / "released")
    np.testing.assert_array_equal(field.instances[1:, 1:], large[:-1, :-1])
    assert not field.instances[0].any() and not field.instances[:, 0].any()
    assert (field.patient, field.organ) == ("TCGA-A7-A13E", "Breast")
    assert any("moved by one pixel" in note for note in report.notes)
    for name in ("cut", "monuseg-mine", "other"):
        [field], report = read_set(tmp_path / name)
        np.testing.assert_array_equal(field.instances[: SIZE[1], : SIZE[0]], draw_labels())
        assert not any("moved by one pixel" in note for note in report.notes)


def test_patients_are_one_however_their_letters_are_spelled(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "mine")
    text(root / "manifest.csv", "file,patient\na,P1\nb,p1\n")
    fields, report = read_set(root)
    assert report.patients == 1 and {field.patient for field in fields} == {"P1"}


def test_names_are_the_same_whether_accents_are_written_apart_or_not(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "mine")
    (root / "images" / "a.png").rename(root / "images" / "e\u0301.png")
    (root / "labels" / "a.png").rename(root / "labels" / "\u00e9.png")
    text(root / "manifest.csv", "file,patient\ne\u0301.png,P1\nb,P2\n")
    fields, _ = read_set(root)
    assert [field.name for field in fields] == ["mine/b", "mine/\u00e9"]


def test_the_real_sets_hold_what_their_papers_and_manifests_say(data_dir: Path) -> None:
    fields, report = read_set(data_dir / "tnbc")
    assert (report.kind, report.fields, report.patients, report.nuclei) == ("tnbc", 50, 11, 4028)
    fields, report = read_set(data_dir / "monuseg")
    assert (report.kind, report.fields, report.patients, report.nuclei) == ("monuseg-labels", 30, 30, 16958)
    assert sum(field.organ == "Breast" for field in fields) == 6
    assert len({field.organ for field in fields}) == 7
    # without the manifest the barcodes say the same
    from lobule.training.nuclei_sets import _ORGAN_OF

    assert {field.patient: field.organ for field in fields} == _ORGAN_OF


def test_outlines_and_label_maps_of_one_real_field_agree(data_dir: Path) -> None:
    [drawn], report = read_monuseg(data_dir / "monuseg" / "original_layout")
    [stored] = [f for f in read_monuseg(data_dir / "monuseg")[0] if f.patient == drawn.patient]
    assert report.nuclei == np.unique(stored.instances).size - 1 == 359
    assert any(note.startswith("crosses itself, repaired: 300 outlines") for note in report.notes)
    ious, dices = [], []
    for label in np.unique(stored.instances)[1:]:
        own = stored.instances == label
        under = np.bincount(drawn.instances[own])
        under[0] = 0
        other = drawn.instances == under.argmax()
        both = int((own & other).sum())
        ious.append(both / (own | other).sum())
        dices.append(2 * both / (own.sum() + other.sum()))
    assert np.mean(dices) > 0.995 and np.mean(ious) > 0.99 and np.min(ious) > 0.9


def _intact() -> dict[str, bytes]:
    held: dict[str, bytes] = {}
    for name, kind in (("png", "PNG"), ("jpg", "JPEG"), ("bmp", "BMP")):
        stream = io.BytesIO()
        Image.fromarray(draw()).save(stream, kind)
        held[name] = stream.getvalue()
    stream = io.BytesIO()
    tifffile.imwrite(stream, draw(), photometric="rgb", compression="zlib")
    held["tif"] = stream.getvalue()
    stream = io.BytesIO()
    np.save(stream, draw_labels())
    held["npy"] = stream.getvalue()
    return held


@settings(max_examples=150)
@given(kind=st.sampled_from(["png", "jpg", "bmp", "tif", "npy"]), data=st.data())
def test_flipped_and_cut_bytes_never_raise_anything_but_an_annotation_error(
    kind: str, data: st.DataObject, tmp_path: Path
) -> None:
    content = bytearray(_intact()[kind])
    for _ in range(data.draw(st.integers(0, 6))):
        # headers, mostly
        at = data.draw(st.one_of(st.integers(0, 160), st.integers(0, len(content) - 1)))
        content[min(at, len(content) - 1)] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    path = tmp_path / f"a.{kind}"
    path.write_bytes(bytes(content[:cut]))
    for read in (read_pixels, read_label_map):
        if kind == "npy" and read is read_pixels:
            continue
        try:
            found = read(path, lambda _: None)
        except AnnotationError as error:
            assert "\n" not in str(error)
        else:
            assert found.dtype in (np.uint8, np.int32)


def test_numbers_beyond_the_pixels_are_counted_through(tmp_path: Path) -> None:
    stored = np.zeros((8, 9), np.uint32)
    stored[0, 0], stored[5:7, 2], stored[3, 4] = 2**31 - 1, 7, 2**32 - 1
    np.save(tmp_path / "a.npy", stored)
    labels = read_label_map(tmp_path / "a.npy", lambda _: None)
    assert labels.dtype == np.int32 and labels.max() == 3 and (labels > 0).sum() == 4
    np.testing.assert_array_equal(labels == labels[5, 2], stored == 7)
    assert _pieces(np.array([[5, 0, 5], [0, 0, 0], [2, 2, 0], [0, 0, 2]])) == 3
