"""The truth is valid, lies inside the slide and is what the pixels show."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import openslide
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageDraw

from lobule.errors import AnnotationError
from lobule.geometry import Mpp, WorkingFrame
from lobule.phantom import PhantomSpec, PhantomTruth, read_truth, truth_mask
from lobule.phantom.layout import lay_out
from lobule.phantom.truth import _polygons, region_features


def test_regions_are_valid_and_inside_the_slide(drawn: PhantomTruth, patched: PhantomTruth) -> None:
    for truth in (drawn, patched):
        slide = shapely.box(0, 0, *truth.size)
        regions = read_truth(truth.regions)
        assert {"tumor", "tissue"} <= {name for name, _ in regions}
        for name, polygon in regions:
            assert polygon.geom_type == "Polygon", name
            assert polygon.is_valid, name
            assert polygon.area > 0, name
            assert slide.covers(polygon), name
        tissue = shapely.union_all([polygon for name, polygon in regions if name == "tissue"])
        tumor = shapely.union_all([polygon for name, polygon in regions if name == "tumor"])
        assert tumor.difference(tissue).area < 0.01 * tumor.area
        assert truth.area_mm2["tumor"] == pytest.approx(tumor.area * truth.mpp**2 / 1e6)


def test_regions_follow_the_labels_of_the_layout() -> None:
    layout = lay_out(PhantomSpec((12_000, 9_000), seed=2))
    frame = WorkingFrame((12_000, 9_000), Mpp(1, 1), Mpp(8, 8))
    y, x = np.mgrid[4:9000:8, 4:12000:8]
    labels = layout.labels_at(x, y)
    shown = {
        "tumor": [k for k, layer in enumerate(layout.layers, 1) if layer.tumor],
        "fat": [2],
        "gland": [3],
        "unscanned": [7],
    }
    for name, numbers in shown.items():
        mask = np.zeros(labels.shape, bool)
        for feature in region_features(layout):
            if feature["properties"]["classification"]["name"] == name:
                polygon = shapely.geometry.shape(feature["geometry"])
                mask |= shapely.contains_xy(polygon, x + 0.0, y + 0.0)
        expected = np.isin(labels, numbers)
        assert 2 * (mask & expected).sum() / (mask.sum() + expected.sum()) > 0.96, name
    assert frame.size == (1500, 1125)


def test_a_tumor_region_has_a_hole() -> None:
    features = list(region_features(lay_out(PhantomSpec((32_000, 24_000), seed=1))))
    tumor = [
        f["geometry"]["coordinates"] for f in features if f["properties"]["classification"]["name"] == "tumor"
    ]
    assert 2 <= len(tumor) <= 6
    assert any(len(rings) > 1 for rings in tumor)


def test_the_mask_of_a_class_agrees_with_shapely(drawn: PhantomTruth) -> None:
    frame = WorkingFrame(drawn.size, Mpp(0.25, 0.25), Mpp(7.3, 5.1))
    mask = truth_mask(drawn.regions, "tissue", frame)
    assert mask.shape == (frame.size[1], frame.size[0])
    y, x = np.mgrid[0 : mask.shape[0], 0 : mask.shape[1]]
    points = frame.to_slide(np.stack([x + 0.5, y + 0.5], axis=-1))
    expected = np.zeros(mask.shape, bool)
    for name, polygon in read_truth(drawn.regions):
        if name == "tissue":
            expected |= shapely.contains_xy(polygon, points[..., 0], points[..., 1])
    assert (mask != expected).mean() < 1e-3
    assert not truth_mask(drawn.regions, "no such class", frame).any()


def test_nuclei_are_valid_dark_and_all_there(drawn: PhantomTruth) -> None:
    assert drawn.nuclei is not None
    with gzip.open(drawn.nuclei, "rt") as stream:
        features = json.load(stream)["features"]
    assert len(features) == drawn.nucleus_count
    assert len(features) > 500
    polygons = [shapely.geometry.shape(feature["geometry"]) for feature in features]
    assert shapely.is_valid(np.array(polygons)).all()
    slide = shapely.box(0, 0, *drawn.size)
    assert shapely.covers(slide, np.array(polygons)).all()
    area_um2 = np.array([polygon.area for polygon in polygons]) * 0.25**2
    assert np.quantile(area_um2, 0.01) > 5
    assert np.quantile(area_um2, 0.99) < 250

    with openslide.OpenSlide(drawn.slide) as opened:
        pixels = opened.read_region((0, 0), 0, opened.dimensions).convert("RGB")
    red = np.asarray(pixels)[..., 0]
    inside = Image.new("1", pixels.size)
    around = Image.new("1", pixels.size)
    for feature, polygon in zip(features, polygons, strict=True):
        if "under" not in feature["properties"]:
            ImageDraw.Draw(inside).polygon(list(polygon.buffer(-2).exterior.coords), fill=1)
        ImageDraw.Draw(around).polygon(list(polygon.buffer(8).exterior.coords), fill=1)
    nuclear, covered = np.asarray(inside), np.asarray(around)
    assert (red[nuclear] < 175).mean() > 0.93
    # beyond the nuclei of the truth nothing is as blue as a nucleus, artifacts apart
    frame = WorkingFrame(drawn.size, Mpp(0.25, 0.25), Mpp(0.25, 0.25))
    marked = np.zeros(covered.shape, bool)
    for name in ("pen", "dust", "fold", "blur"):
        marked |= truth_mask(drawn.regions, name, frame)
    free = ~covered & ~marked
    assert (red[free] < 150).mean() < 1e-3


def test_a_file_that_is_no_truth_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    for text in ("{", "[]", '{"features": [{}]}', '{"features": [{"geometry": {"type": "Blob"}}]}'):
        path.write_text(text)
        with pytest.raises(AnnotationError, match="not a composed slide"):
            read_truth(path)
    with pytest.raises(AnnotationError):
        read_truth(tmp_path / "absent.geojson")


@settings(max_examples=60)
@given(
    hnp.arrays(np.int8, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.integers(-3, 3)),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
)
def test_polygons_hold_the_centers_of_positive_cells_and_no_others(
    field: np.ndarray, origin: tuple[int, int]
) -> None:
    """Zeros, which lines would cross themselves in, and saddles included."""
    cell_px, size = 16, (400, 400)
    polygons = _polygons(field.astype(np.float32), cell_px, origin, size)
    y, x = (np.indices(field.shape) + 0.5 + np.array(origin[::-1])[:, None, None]) * cell_px
    inside = [shapely.contains_xy(polygon, x, y) for polygon in polygons]
    assert all(polygon.is_valid for polygon in polygons)
    # a zero's center lies nearer to the line than the polygons' grid is fine
    told = field != 0
    np.testing.assert_array_equal(
        np.sum(inside, axis=0)[told] if inside else 0 * told[told], (field > 0)[told]
    )


@pytest.mark.parametrize("seed", [1, 3, 6, 8])
def test_regions_have_their_layers_area(seed: int) -> None:
    layout = lay_out(PhantomSpec((12_000 + 3_000 * seed, 9_000), seed=seed))
    found = {"fat": 0.0, "gland": 0.0, "lymphocytes": 0.0}
    for feature in region_features(layout):
        name = feature["properties"]["classification"]["name"]
        if name in found:
            found[name] += shapely.geometry.shape(feature["geometry"]).area
    for k, layer in enumerate(layout.layers):
        if layer.name in found:
            cells = layout.cells[k] > 0
            for over in layout.cells[k + 1 :]:
                cells &= over <= 0
            assert found[layer.name] == pytest.approx(cells.sum() * layout.cell_px**2, rel=0.03), layer.name
