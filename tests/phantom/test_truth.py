"""The truth is valid, lies inside the slide and is what the pixels show."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import openslide
import pytest
import shapely
from PIL import Image, ImageDraw

from lobule.errors import AnnotationError
from lobule.geometry import Mpp, WorkingFrame
from lobule.phantom import PhantomSpec, PhantomTruth, read_truth, truth_mask
from lobule.phantom.layout import lay_out
from lobule.phantom.truth import region_features


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
