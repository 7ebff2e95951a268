"""Annotation files: real ones, and many bad ones."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import shapely
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lobule.annotations import read_mask, read_regions, tissue_from_file
from lobule.errors import AnnotationError
from lobule.geometry import Mpp, WorkingFrame
from lobule.slides import open_slide

FRAME = WorkingFrame((400, 300), Mpp(0.5, 0.5), Mpp(2.0, 2.0))
SQUARE = [[10, 10], [110, 10], [110, 90], [10, 90], [10, 10]]


def _feature(ring: object, **properties: object) -> dict[str, object]:
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": properties,
    }


def _save(folder: Path, content: object, name: str = "drawn.geojson") -> Path:
    path = folder / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def _asap(points: str, kind: str = "Polygon", group: str = "tumor") -> str:
    return (
        f'<?xml version="1.0"?><ASAP_Annotations><Annotations><Annotation Name="a" Type="{kind}" '
        f'PartOfGroup="{group}"><Coordinates>{points}</Coordinates></Annotation></Annotations></ASAP_Annotations>'
    )


TRIANGLE = '<Coordinate Order="0" X="0" Y="0"/><Coordinate Order="1" X="40" Y="0"/><Coordinate Order="2" X="0" Y="40"/>'
BOMB = (
    '<?xml version="1.0"?><!DOCTYPE z [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {chr(98 + k)} "{(f"&{chr(97 + k)};") * 10}">' for k in range(9))
    + "]><ASAP_Annotations>&j;</ASAP_Annotations>"
)


def _png_claiming(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


BAD: dict[str, tuple[object, str]] = {
    "empty": (b"", "is empty"),
    "spaces alone": (b" \n\t ", "is empty"),
    "plain text": ("tumor at 3, 4", "neither GeoJSON nor XML"),
    "a git-lfs pointer": (
        "version https://git-lfs.github.com/spec/v1\noid sha256:0",
        "neither GeoJSON nor XML",
    ),
    "a jpeg": (b"\xff\xd8\xff\xe0" + bytes(90), "neither GeoJSON nor XML|save it as PNG or TIFF"),
    "random bytes": (bytes(range(128, 256)), "neither GeoJSON nor XML"),
    "json cut off": ('{"type": "FeatureCollection", "features": [', "not JSON"),
    "json that is latin-1": ('{"type": "é"}'.encode("latin-1"), "not UTF-8"),
    "json nested deeply": ("[" * 200_000 + "]" * 200_000, "nested too deeply"),
    "json of numbers": ("[1, 2, 3]", "an object was expected"),
    "json of something else": ({"type": "Topology", "objects": {}}, "of type 'Topology'"),
    "json without a type": ({"elements": []}, "of type None"),
    "features that are none": ({"type": "FeatureCollection", "features": 3}, "without a list of features"),
    "a null feature": ({"type": "FeatureCollection", "features": [None]}, "an object was expected"),
    "a polygon without coordinates": ({"type": "Polygon"}, "without a list of coordinates"),
    "coordinates as text": (_feature([["1", "2"], ["3", "4"], ["5", "6"]]), "not a number"),
    "coordinates as booleans": (_feature([[True, 0], [4, 0], [4, 4]]), "not a number"),
    "null coordinates": (_feature([[None, 0], [4, 0], [4, 4]]), "not a number"),
    "points of one number": (_feature([[1], [2], [3]]), "not a pair"),
    "a flat ring": (_feature([1, 2, 3, 4, 5, 6]), "not a pair"),
    "a ring that is text": (_feature("0 0, 1 1, 2 2"), "not a list of points"),
    "two points": (_feature([[0, 0], [5, 5]]), "a polygon of 2 points"),
    "nan": ('{"type": "Polygon", "coordinates": [[[NaN, 0], [4, 0], [4, 4]]]}', "NaN is no JSON number"),
    "infinity": ('{"type": "Polygon", "coordinates": [[[1e999, 0], [4, 0], [4, 4]]]}', "not finite"),
    "a coordinate of 400 digits": (_feature([[10**400, 0], [4, 0], [4, 4]]), "too large"),
    "a coordinate of 1e12": (_feature([[1e12, 0], [4, 0], [4, 4]]), "beyond"),
    "a multipolygon of numbers": ({"type": "MultiPolygon", "coordinates": [1]}, "not a list of rings"),
    "xml cut off": (_asap(TRIANGLE)[:-30], "not XML"),
    "xml of something else": ("<svg/>", "neither ASAP, ImageScope nor Halo"),
    "an entity bomb": (BOMB, "document type"),
    "an external entity": (
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><Annotations>&x;</Annotations>',
        "document type",
    ),
    "xml nested deeply": ("<Annotations>" * 5000, "nested too deeply"),
    "xml in an unknown encoding": ('<?xml version="1.0" encoding="klingon"?><Annotations/>', "not XML"),
    "asap with text for numbers": (_asap('<Coordinate Order="0" X="a" Y="1"/>' * 3), "are not numbers"),
    "asap with a decimal comma": (_asap('<Coordinate Order="0" X="1,5" Y="1"/>' * 3), "are not numbers"),
    "asap with nan": (_asap('<Coordinate Order="0" X="nan" Y="1"/>' * 3), "not finite"),
    "asap with an order of text": (_asap(TRIANGLE.replace('"1"', '"one"')), "Order 'one'"),
    "asap with no points": (_asap(""), "a polygon of 0 points"),
    "asap without Y": (_asap('<Coordinate Order="0" X="1"/>' * 3), "are not numbers"),
    "halo with text for numbers": (
        '<Annotations><Annotation><Regions><Region Type="Polygon"><Vertices><V X="?" Y="1"/></Vertices>'
        "</Region></Regions></Annotation></Annotations>",
        "are not numbers",
    ),
}

NO_TISSUE: dict[str, tuple[object, str]] = {
    "no features": ({"type": "FeatureCollection", "features": []}, "no polygon"),
    "points alone": ({"type": "Point", "coordinates": [3, 4]}, "no polygon"),
    "a null geometry": ({"type": "Feature", "geometry": None, "properties": None}, "no polygon"),
    "a line as polygon": (_feature([[0, 0], [9, 9], [18, 18]]), "no polygon"),
    "a dot of ASAP": (_asap(TRIANGLE, "Dot"), "no polygon"),
    "an empty layer": ("<Annotations/>", "no polygon"),
    "background alone": (_feature(SQUARE, classification={"name": "Ignore*"}), "no polygon"),
    "outside the slide": (_feature([[500, 10], [600, 10], [600, 90]]), "lies outside the slide"),
    "negative": (_feature([[-50, -10], [-60, -10], [-60, -90]]), "lies outside the slide"),
    "touching the edge": (_feature([[400, 10], [500, 10], [500, 90]]), "lies outside the slide"),
    "too small for a pixel": (_feature([[5, 5], [5.1, 5], [5.1, 5.1]]), "less than one pixel"),
    "a png that is cut off": (_png_claiming(40, 30), "cannot be decoded"),
    "a png of 4 terapixels": (_png_claiming(2_000_000, 2_000_000), "is not read"),
    "a png of 300 megapixels": (_png_claiming(20_000, 15_000), "is not read"),
    "a png of size 0": (_png_claiming(0, 0), "mask"),
    "a tiff that is cut off": (b"II*\0\x08\0\0\0", "mask|TIFF"),
    "a tiff of noise": (b"II*\0" + bytes(range(200)), "mask|TIFF"),
}


def _one_line(error: pytest.ExceptionInfo[AnnotationError], path: Path) -> None:
    text = str(error.value)
    assert "\n" not in text and len(text) < 600
    assert text.startswith(str(path))
    assert error.value.path == str(path)


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_one_line_that_says_what_is_wrong(case: str, tmp_path: Path) -> None:
    content, words = BAD[case]
    path = _save(tmp_path, content)
    with pytest.raises(AnnotationError, match=words) as error:
        read_regions(path)
    _one_line(error, path)
    with pytest.raises(AnnotationError, match=words):
        tissue_from_file(path, FRAME)


@pytest.mark.parametrize("case", NO_TISSUE)
def test_a_file_that_marks_no_tissue_is_refused_saying_why(case: str, tmp_path: Path) -> None:
    content, words = NO_TISSUE[case]
    path = _save(tmp_path, content)
    with pytest.raises(AnnotationError, match=words) as error:
        tissue_from_file(path, FRAME)
    _one_line(error, path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.json"):
        with pytest.raises(AnnotationError, match="no such annotation file"):
            tissue_from_file(path, FRAME)


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**31), flips=st.integers(1, 6), kind=st.sampled_from(["json", "xml", "png", "tiff"])
)
def test_flipped_and_cut_bytes_never_raise_anything_but_an_annotation_error(
    tmp_path: Path, seed: int, flips: int, kind: str
) -> None:
    random = np.random.default_rng(seed)
    path = tmp_path / f"flipped.{kind}"
    if kind in ("png", "tiff"):
        picture = np.zeros((30, 40), np.uint8)
        picture[5:20, 5:20] = 255
        if kind == "png":
            Image.fromarray(picture).save(path, format="PNG")
        else:
            tifffile.imwrite(path, picture, tile=(16, 16), compression="zlib")
    else:
        _save(tmp_path, _feature(SQUARE) if kind == "json" else _asap(TRIANGLE), path.name)
    content = bytearray(path.read_bytes())
    for _ in range(flips):
        content[random.integers(len(content))] ^= 1 << random.integers(8)
    path.write_bytes(bytes(content[: random.integers(1, len(content) + 1)]) if seed % 3 == 0 else content)
    try:
        tissue = tissue_from_file(path, FRAME, warn=lambda text: None)
    except AnnotationError:
        return
    assert tissue.shape == FRAME.size[::-1]


@pytest.mark.parametrize(
    "document",
    [
        {"type": "FeatureCollection", "features": [_feature(SQUARE)]},
        [_feature(SQUARE)],
        _feature(SQUARE),
        {"type": "Polygon", "coordinates": [SQUARE]},
        {"type": "Polygon", "coordinates": [[[x, y, 0] for x, y in SQUARE[:-1]]]},
        {"type": "MultiPolygon", "coordinates": [[SQUARE]]},
        {"type": "GeometryCollection", "geometries": [{"type": "Polygon", "coordinates": [SQUARE]}]},
    ],
)
def test_every_shape_of_geojson_gives_the_same_square(document: object, tmp_path: Path) -> None:
    (region,) = read_regions(_save(tmp_path, document))
    assert region.geometry.equals(shapely.box(10, 10, 110, 90))


@pytest.mark.parametrize(
    ("properties", "name"),
    [
        ({"classification": {"name": "Tumor", "colorRGB": -3670016}}, "Tumor"),
        ({"classification": {"names": ["Tumor", "Positive"]}}, "Tumor: Positive"),
        ({"classification": "Stroma"}, "Stroma"),
        ({"class": 0}, "0"),
        ({"label": "Other", "group": "x"}, "Other"),
        ({}, ""),
    ],
)
def test_the_name_is_found_where_tools_put_it(
    properties: dict[str, object], name: str, tmp_path: Path
) -> None:
    (region,) = read_regions(_save(tmp_path, _feature(SQUARE, **properties)))
    assert region.name == name


def test_a_byte_order_mark_is_no_obstacle(tmp_path: Path) -> None:
    assert len(read_regions(_save(tmp_path, b"\xef\xbb\xbf" + json.dumps(_feature(SQUARE)).encode()))) == 1
    assert (
        len(
            read_regions(
                _save(tmp_path, _asap(TRIANGLE).replace('"1.0"', '"1.0" encoding="utf-16"').encode("utf-16"))
            )
        )
        == 1
    )


def test_a_crossing_ring_is_repaired(tmp_path: Path) -> None:
    (region,) = read_regions(_save(tmp_path, _feature([[0, 0], [40, 40], [40, 0], [0, 40]])))
    assert region.geometry.is_valid
    assert region.geometry.area == pytest.approx(800)


def test_asap_vertices_are_put_in_their_order_and_none_is_no_group(tmp_path: Path) -> None:
    shuffled = '<Coordinate Order="2" X="40" Y="40"/><Coordinate Order="0" X="0" Y="0"/>'
    shuffled += '<Coordinate Order="3" X="0" Y="40"/><Coordinate Order="1" X="40" Y="0"/>'
    (region,) = read_regions(_save(tmp_path, _asap(shuffled, group="None"), "a.xml"))
    assert region.geometry.equals(shapely.box(0, 0, 40, 40))
    assert region.name == ""


def test_tissue_from_polygons_is_on_the_frame_and_ignore_is_cut_out(tmp_path: Path) -> None:
    inner = [[50, 50], [90, 50], [90, 90], [50, 90]]
    path = _save(
        tmp_path, [_feature(SQUARE, label="Tissue"), _feature(inner, classification={"name": "Ignore*"})]
    )
    tissue = tissue_from_file(path, FRAME)
    x, y = np.meshgrid(np.arange(FRAME.size[0]) * 4 + 2, np.arange(FRAME.size[1]) * 4 + 2)
    expected = (x > 10) & (x < 110) & (y > 10) & (y < 90) & ~((x > 50) & (x < 90) & (y > 50) & (y < 90))
    on_edge = np.isin(x, (10, 50, 90, 110)) | np.isin(y, (10, 50, 90))
    assert (tissue == expected)[~on_edge].all()


def test_what_reaches_outside_is_cut_off_with_a_warning(tmp_path: Path) -> None:
    path = _save(tmp_path, _feature([[300, 200], [900, 200], [900, 900], [300, 900]]))
    with pytest.warns(UserWarning, match="reach outside the slide"):
        tissue = tissue_from_file(path, FRAME)
    assert tissue.sum() == 25 * 25
    told: list[str] = []
    tissue_from_file(path, FRAME, warn=told.append)
    assert len(told) == 1


@settings(max_examples=40)
@given(width=st.integers(1, 50), seed=st.integers(0, 9), scale=st.floats(0.7, 9))
def test_a_mask_is_looked_up_at_the_centers_of_working_pixels(
    tmp_path: Path, width: int, seed: int, scale: float
) -> None:
    mask = np.random.default_rng(seed).random((max(1, round(width * 0.75)), width)) < 0.5
    mask[0, 0] = True
    path = tmp_path / "mask.png"
    Image.fromarray(mask.astype(np.uint8) * 255).save(path)
    frame = WorkingFrame((400, 300), Mpp(1.0, 1.0), Mpp(scale, scale))
    if not (0.98 < (400 / mask.shape[1]) / (300 / mask.shape[0]) < 1.02):
        return
    try:
        tissue = tissue_from_file(path, frame)
    except AnnotationError:
        pytest.fail("a mask of the slide's shape is refused")
    for row in range(0, frame.size[1], 7):
        for column in range(0, frame.size[0], 7):
            x, y = min((column + 0.5) * scale, 399.999), min((row + 0.5) * scale, 299.999)
            assert tissue[row, column] == mask[int(y * mask.shape[0] / 300), int(x * mask.shape[1] / 400)]


@pytest.mark.parametrize("size", [(400, 300), (40, 30), (41, 30), (800, 600), (404, 300), (4, 3)])
def test_masks_of_the_slides_shape_fit_at_any_size(size: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(np.ones(size[::-1], np.uint8)).save(path)
    if size == (41, 30):
        # 2.5 % off: within the pixel that rounding costs
        assert read_mask(path, (400, 300)).all()
    assert read_mask(path, (400, 300)).shape == size[::-1]


@pytest.mark.parametrize("size", [(300, 400), (420, 300), (400, 310), (2000, 300)])
def test_masks_of_another_shape_are_refused(size: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(np.ones(size[::-1], np.uint8)).save(path)
    with pytest.raises(AnnotationError, match="does not have the shape of the slide"):
        read_mask(path, (400, 300))


def test_masks_come_in_many_pixel_types(tmp_path: Path) -> None:
    truth = np.zeros((30, 40), bool)
    truth[3:9, 5:20] = True
    gray = truth.astype(np.uint8)
    color = np.stack([gray * 0, gray * 200, gray * 0], 2)
    alpha = np.dstack([np.full((30, 40, 3), 9, np.uint8), gray * 255])
    for name, image in {
        "gray.png": Image.fromarray(gray),
        "color.png": Image.fromarray(color),
        "alpha.png": Image.fromarray(alpha),
        "gray with alpha.png": Image.fromarray(alpha).convert("LA"),
        "bits.png": Image.fromarray(gray * 255).convert("1"),
        "deep.png": Image.fromarray(gray.astype(np.uint16) * 7),
    }.items():
        image.save(tmp_path / name)
        assert (read_mask(tmp_path / name, (400, 300)) == truth).all(), name
    tifffile.imwrite(tmp_path / "tiled.tif", gray, tile=(16, 16), compression="lzw")
    tifffile.imwrite(tmp_path / "color.tif", color, photometric="rgb")
    tifffile.imwrite(
        tmp_path / "planar.tif", np.moveaxis(color, 2, 0), photometric="rgb", planarconfig="separate"
    )
    for name in ("tiled.tif", "color.tif", "planar.tif"):
        assert (read_mask(tmp_path / name, (400, 300)) == truth).all(), name


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("stored", ["pages", "channels", "samples"])
def test_planes_that_are_not_alpha_count_together(count: int, stored: str, tmp_path: Path) -> None:
    planes = np.zeros((count, 30, 40), np.uint8)
    for index in range(count):
        planes[index, 7 * index : 7 * index + 5, 5:20] = 255
    path = tmp_path / ("mask.ome.tif" if stored == "channels" else "mask.tif")
    if stored == "samples":
        tifffile.imwrite(path, np.moveaxis(planes, 0, 2), photometric="minisblack", planarconfig="contig")
    else:
        metadata = {"axes": "CYX"} if stored == "channels" else None
        tifffile.imwrite(path, planes, photometric="minisblack", metadata=metadata)
    assert (read_mask(path, (400, 300)) == planes.any(axis=0)).all()


@pytest.mark.parametrize("extra", ["assocalpha", "unassalpha"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("colors", [1, 3])
def test_alpha_of_a_tiff_is_what_it_calls_so(
    colors: int, planar: Literal["contig", "separate"], extra: str, tmp_path: Path
) -> None:
    planes = np.zeros((colors + 1, 30, 40), np.uint8)
    planes[0, 3:20, 5:20] = 255
    planes[-1, 10:28, 5:20] = 255
    array = planes if planar == "separate" else np.moveaxis(planes, 0, 2)
    tifffile.imwrite(
        tmp_path / "mask.tif",
        array,
        photometric="rgb" if colors == 3 else "minisblack",
        planarconfig=planar,
        extrasamples=[extra],
    )
    assert (read_mask(tmp_path / "mask.tif", (400, 300)) == (planes[0] & planes[-1] != 0)).all()


def _tiff_of(entries: list[tuple[int, int, int, int]], following: int, body: bytes = b"") -> bytes:
    """A TIFF of one directory at byte 8; ``entries``: tag, type, number of values, value or place."""
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + packed + struct.pack("<I", following) + body


MASK_TAGS = [
    (256, 4, 1, 40),
    (257, 4, 1, 30),
    (258, 3, 1, 8),
    (259, 3, 1, 1),
    (262, 3, 1, 1),
    (273, 4, 1, 200),
]
MASK_TAGS += [(277, 3, 1, 1), (278, 4, 1, 30), (279, 4, 1, 1200)]
NO_DIRECTORIES = {
    "a loop": (_tiff_of(MASK_TAGS, 8, bytes(2000)), "loop"),
    "a loop through a sub-directory": (_tiff_of([*MASK_TAGS, (330, 4, 1, 8)], 0, bytes(2000)), "loop"),
    "a place beyond the end": (_tiff_of(MASK_TAGS, 1 << 30, bytes(2000)), "beyond the end"),
    "a directory of zeros": (_tiff_of(MASK_TAGS, 1000, bytes(2000)), "claims 0 tags"),
    "garbage": (_tiff_of(MASK_TAGS, 301, b"\1" * 2000), "claims 257 tags|beyond the end"),
    "a chain without an end": (
        _tiff_of(
            MASK_TAGS,
            200,
            bytes(200 - 8 - 2 - 12 * len(MASK_TAGS) - 4)
            + b"".join(
                struct.pack("<HHHIII", 1, 256, 4, 1, 40, 200 + 18 * (index + 1)) for index in range(3000)
            ),
        ),
        "beyond the end",
    ),
    "tags that each claim the whole file": (
        _tiff_of([*MASK_TAGS, *[(65000 + index, 1, 3000, 8) for index in range(9)]], 0, bytes(3000)),
        "claim more than 2 times",
    ),
}


@pytest.mark.parametrize("case", NO_DIRECTORIES)
def test_a_mask_whose_directories_are_damaged_is_refused_before_they_are_followed(
    case: str, tmp_path: Path
) -> None:
    content, words = NO_DIRECTORIES[case]
    path = _save(tmp_path, content, "mask.tif")
    with pytest.raises(AnnotationError, match=words) as error:
        read_mask(path, (400, 300))
    _one_line(error, path)


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("levels", ["alone", "below", "behind"])
def test_a_pyramid_is_a_mask_however_its_directories_hang_together(
    bigtiff: bool, order: Literal["<", ">"], levels: str, tmp_path: Path
) -> None:
    truth = np.zeros((30, 40), np.uint8)
    truth[3:9, 5:20] = 255
    with tifffile.TiffWriter(tmp_path / "mask.tif", bigtiff=bigtiff, byteorder=order) as writer:
        writer.write(truth, tile=(16, 16), subifds=2 if levels == "below" else None, metadata=None)
        for step in (2, 4) if levels != "alone" else ():
            writer.write(truth[::step, ::step], tile=(16, 16), subfiletype=1, metadata=None)
    assert (read_mask(tmp_path / "mask.tif", (400, 300)) == (truth != 0)).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_palette_that_does_not_begin_with_black_is_refused(kind: str, tmp_path: Path) -> None:
    truth = np.zeros((30, 40), np.uint8)
    truth[3:9, 5:20] = 1
    image = Image.fromarray(truth)
    image.putpalette([0, 0, 0, 255, 255, 255])
    image.save(tmp_path / "black-first", format=kind)
    assert (read_mask(tmp_path / "black-first", (400, 300)) == (truth != 0)).all()
    image = Image.fromarray(1 - truth)
    image.putpalette([255, 255, 255, 0, 0, 0])
    image.save(tmp_path / "white-first", format=kind)
    with pytest.raises(AnnotationError, match="is not black; save the mask in gray") as error:
        read_mask(tmp_path / "white-first", (400, 300))
    _one_line(error, tmp_path / "white-first")


@pytest.mark.parametrize("photometric", ["miniswhite", "minisblack"])
def test_white_marks_in_a_tiff_of_one_bit_whichever_number_white_is(photometric: str, tmp_path: Path) -> None:
    truth = np.zeros((30, 40), bool)
    truth[3:9, 5:20] = True
    flipped = photometric == "miniswhite"
    stored = ~truth if flipped else truth
    tifffile.imwrite(tmp_path / "mask.tif", stored, photometric=photometric, software="a fax")
    told: list[str] = []
    assert (read_mask(tmp_path / "mask.tif", (400, 300), warn=told.append) == truth).all()
    assert len(told) == flipped and all("MINISWHITE" in text for text in told)
    if flipped:
        with pytest.warns(UserWarning, match="white was taken for what is marked"):
            assert tissue_from_file(tmp_path / "mask.tif", FRAME).any()


def test_what_tifffile_wrote_of_an_array_of_bool_is_read_as_it_was(tmp_path: Path) -> None:
    truth = np.zeros((30, 40), bool)
    truth[3:9, 5:20] = True
    tifffile.imwrite(tmp_path / "mask.tif", truth)
    assert (read_mask(tmp_path / "mask.tif", (400, 300)) == truth).all()
    assert tissue_from_file(tmp_path / "mask.tif", FRAME).mean() == pytest.approx(truth.mean(), rel=0.1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_tiff_mask_stands_as_the_slide_does(orientation: int, tmp_path: Path) -> None:
    stored = np.zeros((40, 30) if orientation > 4 else (30, 40), np.uint8)
    stored[3:9, 5:20] = 255
    path = tmp_path / "mask.tif"
    tifffile.imwrite(
        path, np.dstack([stored] * 3), photometric="rgb", extratags=[(274, 3, 1, orientation, True)]
    )
    with open_slide(path) as slide:
        upright = slide.read_level(0, (0, 0), slide.size)[..., 0] > 0
    assert (read_mask(path, (400, 300)) == upright).all()


def test_what_a_map_of_numbers_does_not_judge_is_not_marked(tmp_path: Path) -> None:
    values = np.array([[np.nan, 0.0, 0.5, np.nan]] * 3, np.float32)
    tifffile.imwrite(tmp_path / "map.tif", values)
    assert read_mask(tmp_path / "map.tif", (400, 300)).tolist() == [[False, False, True, False]] * 3


def test_a_hole_elsewhere_in_the_layer_cuts_nothing(tmp_path: Path) -> None:
    vertices = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in SQUARE[:4])
    far = "".join(f'<Vertex X="{x + 500}" Y="{y}"/>' for x, y in SQUARE[:4])
    region = '<Region Type="0" NegativeROA="{}"><Vertices>{}</Vertices></Region>'
    (tmp_path / "a.xml").write_text(
        f"<Annotations><Annotation><Regions>{region.format(0, vertices)}{region.format(1, far)}"
        "</Regions></Annotation></Annotations>"
    )
    (found,) = read_regions(tmp_path / "a.xml")
    assert found.geometry.area == 100 * 80


def test_an_empty_mask_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(np.zeros((30, 40), np.uint8)).save(path)
    with pytest.raises(AnnotationError, match="marks nothing"):
        tissue_from_file(path, FRAME)


def test_holes_and_ellipses_of_halo(tmp_path: Path) -> None:
    def region(kind: str, hole: int, x: int) -> str:
        corners = f'<V X="{x}" Y="10"/><V X="{110 - x + 10}" Y="{110 - x + 10}"/>'
        return f'<Region Type="{kind}" NegativeROA="{hole}"><Vertices>{corners}</Vertices></Region>'

    document = (
        '<Annotations><Annotation Name="L"><Regions>'
        + region("Rectangle", 0, 10)
        + region("Ellipse", 1, 30).replace('Y="10"', 'Y="30"')
        + region("Ruler", 0, 10)
        + '<Region Type="Polygon"><Vertices/></Region></Regions></Annotation></Annotations>'
    )
    (found,) = read_regions(_save(tmp_path, document, "a.annotations"))
    assert found.name == "L"
    assert found.geometry.area == pytest.approx(100 * 100 - np.pi * 30 * 30, rel=2e-3)


def test_an_island_within_a_hole_stays(tmp_path: Path) -> None:
    def square(hole: int, low: int, high: int) -> str:
        points = [(low, low), (high, low), (high, high), (low, high)]
        corners = "".join(f'<V X="{x}" Y="{y}"/>' for x, y in points)
        return f'<Region Type="Polygon" NegativeROA="{hole}"><Vertices>{corners}</Vertices></Region>'

    drawn = square(0, 0, 1000) + square(1, 200, 800) + square(0, 400, 600)
    document = f'<Annotations><Annotation Name="L"><Regions>{drawn}</Regions></Annotation></Annotations>'
    found = read_regions(_save(tmp_path, document, "a.annotations"))
    assert [region.geometry.area for region in found] == [1000**2 - 600**2, 200**2]


def test_only_holes_near_a_region_are_held_against_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def square(hole: int, x: int, side: int) -> str:
        corners = "".join(
            f'<V X="{a}" Y="{b}"/>' for a, b in ((x, 0), (x + side, 0), (x + side, side), (x, side))
        )
        return f'<Region Type="Polygon" NegativeROA="{hole}"><Vertices>{corners}</Vertices></Region>'

    asked = []
    for method in (shapely.Polygon.intersects, shapely.Polygon.covers):

        def note(one: shapely.Polygon, other: shapely.Polygon, method: Any = method) -> bool:
            asked.append(one)
            return bool(method(one, other))

        monkeypatch.setattr(shapely.Polygon, method.__name__, note)
    drawn = "".join(square(0, 100 * k, 80) + square(1, 100 * k, 20) for k in range(60))
    document = f'<Annotations><Annotation Name="L"><Regions>{drawn}</Regions></Annotation></Annotations>'
    found = read_regions(_save(tmp_path, document, "a.annotations"))
    assert [region.geometry.area for region in found] == [80**2 - 20**2] * 60
    assert len(asked) <= 2 * 60


REAL = {
    "asap_CMU-1_segmentation.xml": (4, {"malignant", "benign"}),
    "asap_CMU-1_detection.xml": (23, {"malignant", "benign"}),
    "imagescope_e39a8d60.xml": (7, {"Region", "malignant", "normal", "fat", "null", "lymph", "ink"}),
    "qupath_geometry_only_multipolygon.geojson": (1, {""}),
    "dsa_123.annotation.geojson": (2, {"Other", "Tumor"}),
    "test_annotation.geojson": (None, None),
    "qupath_object_classification.geojson": (1, None),
    "halo_example.annotations": (10, {"Layer 1", "Layer 2"}),
    "halo_findholes.annotations": (None, None),
}


@pytest.mark.parametrize("name", REAL)
def test_real_files_give_valid_polygons(name: str, slides_dir: Path) -> None:
    regions = read_regions(slides_dir / "annotations" / name)
    count, names = REAL[name]
    assert regions
    assert all(region.geometry.is_valid and region.geometry.area > 0 for region in regions)
    assert count is None or len(regions) == count
    assert names is None or {region.name for region in regions} == names


def test_halo_holes_are_cut_out_of_their_layer(slides_dir: Path) -> None:
    regions = read_regions(slides_dir / "annotations" / "halo_findholes.annotations")
    rectangle = regions[0].geometry
    outer = (26619 - 7997) * (65467 - 49265)
    assert rectangle.area == pytest.approx(outer - (23027 - 11663) * (61655 - 52931), rel=1e-6)


def test_an_annotation_113_px_beyond_its_slide_is_cut_off(slides_dir: Path) -> None:
    frame = WorkingFrame((2220, 2967), Mpp(0.499, 0.499), Mpp(7.984, 7.984))
    path = slides_dir / "annotations" / "dsa_123.annotation.geojson"
    with pytest.warns(UserWarning, match="1 of 2 polygons reach outside"):
        tissue = tissue_from_file(path, frame)
    assert tissue.sum() * 16**2 == pytest.approx(821**2 + 821 * 708, rel=0.03)


@pytest.mark.parametrize(
    "name", ["asap_CMU-1_segmentation.xml", "asap_CMU-1_detection.xml", "imagescope_e39a8d60.xml"]
)
def test_annotations_of_another_slide_are_refused(name: str, slides_dir: Path) -> None:
    frame = WorkingFrame((2220, 2967), Mpp(0.499, 0.499), Mpp(8.0, 8.0))
    with pytest.raises(AnnotationError, match="lies outside the slide"):
        tissue_from_file(slides_dir / "annotations" / name, frame)


@pytest.mark.parametrize(
    "name",
    ["large_image_sample_annotation.json", "sm_annotations.dcm", "wsinfer_purple_breast-tumor-resnet34.csv"],
)
def test_files_of_other_kinds_are_refused(name: str, slides_dir: Path) -> None:
    with pytest.raises(AnnotationError):
        read_regions(slides_dir / "annotations" / name)


def test_what_was_repaired_or_left_out_is_told_to_whoever_asks(tmp_path: Path) -> None:
    bow = [(5, 5), (15, 15), (15, 5), (5, 15)]
    rings = [bow, [(1, 1), (2, 2)], [(1, 1), (5, 5), (9, 9)], [(30, 30), (40, 30), (40, 40)]]
    regions = "".join(
        "<Region><Vertices>" + "".join(f'<V X="{x}" Y="{y}"/>' for x, y in ring) + "</Vertices></Region>"
        for ring in rings
    )
    path = tmp_path / "a.xml"
    path.write_text(f"<Annotations><Annotation><Regions>{regions}</Regions></Annotation></Annotations>")
    told: list[str] = []
    assert len(read_regions(path, told.append)) == 2
    assert told == ["crosses itself", "has fewer than 3 points", "has no area"]
    with pytest.raises(AnnotationError, match="a polygon of 2 points"):
        read_regions(path)


def test_tissue_that_lobule_wrote_of_a_slide_of_another_size_is_refused(tmp_path: Path) -> None:
    from lobule.export.geojson import write_tissue
    from lobule.findings.schema import Frame

    about = Frame(size_px=(400, 300), mpp_um_per_px=(0.5, 0.5), bounds_px=None, geojson_offset_px=(0, 0))
    written = tmp_path / "tissue.geojson"
    write_tissue(written, [shapely.box(0, 0, 200, 300)], about, "one")
    half = tissue_from_file(written, WorkingFrame((400, 300), Mpp(0.5, 0.5), Mpp(4, 4)))
    assert half.mean() == pytest.approx(0.5, abs=0.02)
    with pytest.raises(AnnotationError, match="for a slide of 400 × 300 px, and this one has 800 × 600 px"):
        tissue_from_file(written, WorkingFrame((800, 600), Mpp(0.25, 0.25), Mpp(4, 4)))


def test_a_mask_saved_as_jpeg_is_refused_by_name(tmp_path: Path) -> None:
    Image.new("L", (40, 30), 255).save(tmp_path / "mask.jpg")
    with pytest.raises(AnnotationError, match="save it as PNG or TIFF"):
        tissue_from_file(tmp_path / "mask.jpg", WorkingFrame((40, 30), Mpp(1, 1), Mpp(8, 8)))


SIDE = [[0, 0], [100, 0], [100, 100], [0, 100], [0, 0]]


@pytest.mark.parametrize(
    ("holes", "left_px"),
    [
        ([[[50, 50], [150, 50], [150, 80], [50, 80], [50, 50]]], 8_500),  # reaches over the outline
        ([[[120, 120], [140, 120], [140, 140], [120, 120]]], 10_000),  # lies outside
        ([SIDE], 0),
        (
            [
                [[20, 20], [60, 20], [60, 60], [20, 60], [20, 20]],
                [[40, 40], [80, 40], [80, 80], [40, 80], [40, 40]],
            ],
            10_000 - 2 * 1_600 + 400,
        ),
    ],
)
def test_holes_are_cut_out_and_never_become_area(holes: list[Any], left_px: int, tmp_path: Path) -> None:
    drawn = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [SIDE, *holes]},
        "properties": {},
    }
    told: list[str] = []
    regions = read_regions(_save(tmp_path, drawn), told.append)
    assert sum(region.geometry.area for region in regions) == pytest.approx(left_px)
    assert all(region.geometry.is_valid for region in regions) and told
    outline = shapely.Polygon(SIDE)
    assert all(outline.covers(region.geometry) for region in regions)


@pytest.mark.parametrize("offset", [10**400, 1e300, 0.5, "3"])
def test_an_offset_that_is_none_is_told(offset: object, tmp_path: Path) -> None:
    document = {
        "type": "FeatureCollection",
        "features": [_feature(SQUARE)],
        "lobule": {"frame": {"geojson_offset_px": [offset, 0]}},
    }
    with pytest.raises(AnnotationError, match="geojson_offset_px is not two whole numbers"):
        read_regions(_save(tmp_path, document))


def test_a_negative_region_as_large_as_its_region_leaves_nothing(tmp_path: Path) -> None:
    corners = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in SIDE[:-1])
    region = '<Region NegativeROA="{}" Type="0"><Vertices>' + corners + "</Vertices></Region>"
    both = region.format(0) + region.format(1)
    layer = f"<Annotations><Annotation><Regions>{both}</Regions></Annotation></Annotations>"
    told: list[str] = []
    assert read_regions(_save(tmp_path, layer.encode(), "drawn.xml"), told.append) == []
    assert any("is all hole" in line for line in told)
