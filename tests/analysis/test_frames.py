"""Where results lie: bounds, masks from files, and a round trip as QuPath would see it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import shapely
import tifffile
from drawn_models import redness_model
from painted_slides import paint

from lobule import analyze, open_slide
from lobule.analysis import Options


@pytest.fixture(scope="module")
def redness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return redness_model(tmp_path_factory.mktemp("models") / "redness")


def _leica(path: Path, image: np.ndarray, offset: tuple[int, int], glass: tuple[int, int]) -> None:
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("painted_leica", Path(__file__).parents[1] / "slides" / "painted.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.write_leica_with_bounds(path, image, mpp=0.5, offset_px=offset, slide_px=glass)


def test_an_overlay_lands_right_in_qupath_on_a_slide_with_bounds(redness: Path, tmp_path: Path) -> None:
    """QuPath shows the bounds alone and counts from their corner: the scanned picture itself."""
    square = (256, 256, 640, 640)
    image = paint((1024, 896), [square])
    _leica(tmp_path / "bounded.scn", image, (384, 256), (1792, 1408))
    with open_slide(tmp_path / "bounded.scn") as slide:
        assert slide.size == (1792, 1408)
        assert slide.properties.bounds is not None
        folder = analyze(slide, only=("tumor",), options=Options(models=(str(redness),))).write(tmp_path)
    data = json.loads((folder / "regions.geojson").read_text())
    (feature,) = data["features"]
    in_qupath = shapely.geometry.shape(feature["geometry"])
    np.testing.assert_allclose(in_qupath.bounds, square, atol=128)
    # what QuPath would cut out under the overlay is tumor-colored
    x0, y0, x1, y1 = (round(v) for v in in_qupath.buffer(-64).bounds)
    seen = image[y0:y1, x0:x1].reshape(-1, 3).mean(0)
    np.testing.assert_allclose(seen, (230, 120, 100), atol=12)
    assert data["lobule"]["frame"]["geojson_offset_px"] == [384, 256]
    findings = json.loads((folder / "findings.json").read_text())
    assert findings["frame"]["bounds_px"] == [384, 256, 1024, 896]
    x, y, width, height = findings["regions"][0]["box_px"]
    np.testing.assert_allclose((x, y), (384 + in_qupath.bounds[0], 256 + in_qupath.bounds[1]), atol=1)
    assert abs(width - 384) <= 128 and abs(height - 384) <= 128
    with tifffile.TiffFile(folder / "heatmap.ome.tif") as tiff:
        heat = tiff.series[0].asarray()
    row, column = np.argwhere(np.nan_to_num(heat) > 0.9).mean(0)
    np.testing.assert_allclose(((column + 0.5) * 128 - 384, (row + 0.5) * 128 - 256), (448, 448), atol=64)


def test_a_tissue_mask_from_a_file_says_where_to_look(redness: Path, tmp_path: Path) -> None:
    from PIL import Image

    from lobule.geometry import Mpp
    from lobule.slides import ArraySlide

    image = paint((1024, 1024), [(128, 128, 512, 512), (512, 512, 1024, 1024)], margin=0)
    ring = [[600, 600], [1000, 600], [1000, 1000], [600, 1000], [600, 600]]
    (tmp_path / "t.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    mask = np.zeros((256, 256), np.uint8)
    mask[150:250, 150:250] = 255
    Image.fromarray(mask).save(tmp_path / "t.png")
    for name in ("t.geojson", "t.png"):
        options = Options(models=(str(redness),), tissue=tmp_path / name)
        result = analyze(ArraySlide(image, Mpp(0.5, 0.5)), only=("tumor",), options=options)
        assert result.tumor is not None
        (region,) = result.tumor.regions
        assert region.polygon.centroid.distance(shapely.Point(768, 768)) < 130
        area = {m.name: m.value for m in result.measurements}["tissue_area"]
        assert area == pytest.approx(400 * 400 * 0.25 / 1e6, rel=0.02)


def test_the_share_of_the_region_on_blurred_tissue_is_told(redness: Path) -> None:
    from scipy import ndimage

    from lobule.geometry import Mpp
    from lobule.slides import ArraySlide

    random = np.random.default_rng(0)
    image = paint((2048, 1024), [(0, 0, 2048, 1024)], margin=0).astype(np.int16)
    for sigma, contrast in ((1.5, 10), (12, 15)):
        texture = ndimage.gaussian_filter(random.normal(0, 1, image.shape[:2]), sigma)
        image += (contrast * np.clip(texture / texture.std(), -2, 2)).astype(np.int16)[..., None]
    image[:, 1024:] = ndimage.gaussian_filter(image[:, 1024:].astype(float), (5, 5, 0))
    result = analyze(
        ArraySlide(np.clip(image, 0, 255).astype(np.uint8), Mpp(0.5, 0.5)),
        only=("tumor",),
        options=Options(models=(str(redness),)),
    )
    share = {m.name: m.value for m in result.measurements}["tumor_blurred_share"]
    assert share == pytest.approx(0.5, abs=0.1)
    assert any(notice.code == "blur" for notice in result.warnings)
