"""One slide from pixels to files, on painted slides with known answers."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import shapely
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from painted_slides import MPP, SQUARES, paint
from PIL import Image

from lobule import analyze, open_slide
from lobule.analysis import Options
from lobule.analysis.memory import estimate_bytes, fit_workers
from lobule.analysis.stages import TissueOutcome, look_for_tissue
from lobule.analysis.tumor_stage import TumorPass
from lobule.analysis.work import FolderWork
from lobule.errors import (
    ConfigurationError,
    MissingResolutionError,
    ResultLockedError,
    ResultWriteError,
    SlideReadError,
    WrongStainError,
)
from lobule.findings.schema import json_schema
from lobule.geometry import Mpp, WorkingFrame
from lobule.models.zoo import select_models
from lobule.slides import ArraySlide
from lobule.tissue import StainJudgement, Tissue

CELL_PX = 64 / MPP


@pytest.fixture(scope="module")
def results(painted: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with open_slide(painted) as slide:
        options = Options(models=(str(models),), nuclei_tiles=None, workers=2)
        return analyze(slide, options=options).write(tmp_path_factory.mktemp("out"))


def _features(path: Path) -> list[dict[str, object]]:
    data = path.read_bytes()
    features: list[dict[str, object]] = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)[
        "features"
    ]
    return features


def test_the_painted_squares_come_back_within_one_heatmap_cell(results: Path) -> None:
    found = sorted(
        (shapely.geometry.shape(feature["geometry"]) for feature in _features(results / "regions.geojson")),
        key=lambda polygon: polygon.bounds,
    )
    assert len(found) == len(SQUARES)
    for polygon, square in zip(found, sorted(SQUARES), strict=True):
        assert polygon.is_valid
        np.testing.assert_allclose(polygon.bounds, square, atol=CELL_PX)
        assert polygon.symmetric_difference(shapely.box(*square)).area <= polygon.length * CELL_PX / 2


def test_tissue_that_no_tile_holds_enough_of_is_not_called_free_of_tumor(
    models: Path, tmp_path: Path
) -> None:
    """Fragments, one to a tile and less than a quarter of it."""
    image = np.full((1024, 1024, 3), (240, 238, 241), np.uint8)
    rows, columns = np.mgrid[:1024, :1024]
    # a tile is 128 px wide
    inside = np.hypot(rows % 128 - 64, columns % 128 - 64) < 30
    random = np.random.default_rng(0)
    image[inside] = np.clip(random.normal((200, 120, 170), 15, (inside.sum(), 3)), 0, 255)
    Image.fromarray(inside).save(tmp_path / "fragments.png")
    options = Options(only=("tumor",), models=(str(models),), tissue=tmp_path / "fragments.png")
    result = analyze(ArraySlide(image, Mpp(0.5, 0.5)), options=options)
    assert result.tissue.tissue.mask.any() and result.tumor is not None and result.tumor.tiles == 0
    assert not {"small-field", "enlarged"} & {notice.code for notice in result.warnings}
    assert any(notice.message.startswith("100% of the tissue") for notice in result.warnings)
    numbers = {measurement.name: measurement for measurement in result.measurements}
    for name in ("tumor_area", "tumor_regions", "tumor_share"):
        assert numbers[name].value is None and numbers[name].low is None
    report = (result.write(tmp_path) / "report.html").read_text("utf-8")
    assert "No tile held enough tissue" in report and "No tumor region was found" not in report
    assert "Nothing was judged." in report and "No region was found." not in report


def test_a_field_smaller_than_a_tile_is_judged_by_its_tissue_alone(models: Path, tmp_path: Path) -> None:
    """What a tile has beyond the slide is the mirror image: glass there would count as normal tissue."""
    from PIL import Image

    red = np.full((80, 120, 3), (210, 60, 90), np.uint8)
    mask = tmp_path / "all.png"
    Image.fromarray(np.full((80, 120), 255, np.uint8)).save(mask)
    options = Options(models=(str(models),), only=("tumor",), tissue=mask)
    result = analyze(ArraySlide(red, MPP), options=options)
    assert result.tumor is not None
    np.testing.assert_allclose(result.tumor.heatmap.values, 1, atol=1e-6)
    np.testing.assert_allclose(result.tissue.mean_rgb, (210, 60, 90), atol=1)
    area = next(m for m in result.measurements if m.name == "tumor_area")
    assert area.value == area.low == area.high == pytest.approx(80 * 120 * MPP**2 / 1e6)


def test_every_dot_is_one_nucleus_in_its_place_with_its_area(results: Path, dots: np.ndarray) -> None:
    polygons = [
        shapely.geometry.shape(feature["geometry"]) for feature in _features(results / "nuclei.geojson.gz")
    ]
    assert all(polygon.is_valid for polygon in polygons)
    centers = np.array([polygon.centroid.coords[0] for polygon in polygons])
    gaps = np.hypot(*(dots[:, None] + 0.5 - centers[None]).transpose(2, 0, 1))
    assert len(centers) == len(dots)
    assert gaps.min(1).max() < 1.0
    assert sorted(gaps.argmin(1)) == list(range(len(dots)))
    findings = json.loads((results / "findings.json").read_text())
    median = next(m for m in findings["measurements"] if m["name"] == "nuclear_area_median")
    truth_um2 = (np.hypot(*np.mgrid[-9:10, -9:10]) < 8).sum() * MPP**2
    assert median["value"] == pytest.approx(truth_um2, rel=0.03)
    assert median["unit"] == "µm²"


def test_findings_keep_their_published_schema(results: Path) -> None:
    findings = json.loads((results / "findings.json").read_text())
    jsonschema.Draft202012Validator(json_schema()).validate(findings)
    published = Path(__file__).resolve().parents[2] / "docs" / "reference" / "findings.schema.json"
    assert json.loads(published.read_text()) == json_schema(), (
        "write it again: lobule.findings.schema.json_schema()"
    )


def test_areas_are_right(results: Path) -> None:
    findings = json.loads((results / "findings.json").read_text())
    numbers = {m["name"]: m for m in findings["measurements"]}
    tissue_mm2 = (2048 - 256) * (1536 - 256) * MPP**2 / 1e6
    assert numbers["tissue_area"]["value"] == pytest.approx(tissue_mm2, rel=0.02)
    tumor_mm2 = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in SQUARES) * MPP**2 / 1e6
    assert numbers["tumor_area"]["value"] == pytest.approx(tumor_mm2, rel=0.02)
    assert numbers["tumor_area"]["low"] <= numbers["tumor_area"]["value"] <= numbers["tumor_area"]["high"]
    assert sum(region["area_mm2"] for region in findings["regions"]) == pytest.approx(
        numbers["tumor_area"]["value"]
    )


def test_findings_say_what_made_them(results: Path) -> None:
    findings = json.loads((results / "findings.json").read_text())
    assert {model["name"] for model in findings["models"]} == {"redness", "darkness"}
    assert findings["slide"]["mpp_source"] in ("file", "resolution-tag")
    assert findings["run"]["peak_memory_bytes"] > 0
    assert {"tissue", "tumor", "nuclei", "write"} <= {row["stage"] for row in findings["run"]["seconds"]}
    assert {file["name"] for file in findings["files"]} == {
        "heatmap.ome.tif",
        "nuclei.csv.gz",
        "nuclei.geojson.gz",
        "regions.geojson",
        "tissue.geojson",
    }
    assert (results / "report.html").stat().st_size > 10_000


def test_the_heatmap_lies_on_the_slide(results: Path) -> None:
    with tifffile.TiffFile(results / "heatmap.ome.tif") as tiff:
        heat = tiff.series[0].asarray()
        assert tiff.is_ome and len(tiff.series[0].levels) >= 2
    assert heat.shape == (1536 / CELL_PX, 2048 / CELL_PX)
    for row, column in np.ndindex(heat.shape):
        x, y = (column + 0.5) * CELL_PX, (row + 0.5) * CELL_PX
        inside = any(x0 < x < x1 and y0 < y < y1 for x0, y0, x1, y1 in SQUARES)
        if np.isfinite(heat[row, column]):
            assert (heat[row, column] >= 0.4) == inside


@pytest.mark.parametrize("tile_px", [128, 512])
def test_nuclei_do_not_depend_on_the_tile(
    tile_px: int, painted: Path, tmp_path: Path, dots: np.ndarray
) -> None:
    from drawn_models import darkness_model

    darkness_model(tmp_path / "darkness", tile_px=tile_px)
    with open_slide(painted) as slide:
        options = Options(
            only=("nuclei",), models=(str(tmp_path / "darkness"),), nuclei_tiles=None, workers=2
        )
        result = analyze(slide, options=options)
    assert result.nuclei is not None
    with open_slide(painted) as slide:
        found = sum(len(batch) for batch in result.nuclei.batches())
    assert found == len(dots)


def test_a_damaged_tile_that_nobody_asks_for_does_not_matter_whenever_tissue_is_found(
    painted: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tiles full of color are looked at while tissue is found; one of them may turn out to be none."""
    tried = []
    look = TumorPass._look

    def damaged_at_first(self: TumorPass, indices: Sequence[int]) -> list[bytes]:
        tried.append(indices)
        if len(tried) == 2:
            raise SlideReadError(painted, "a tile is damaged")
        return look(self, indices)

    def found_late(*arguments: Any) -> Any:
        time.sleep(0.5)
        return look_for_tissue(*arguments)

    monkeypatch.setattr("lobule.analysis.single.look_for_tissue", found_late)
    options = Options(only=("tumor",), models=(str(models),))
    with open_slide(painted) as slide:
        plain = analyze(slide, options=options)
        monkeypatch.setattr(TumorPass, "_look", damaged_at_first)
        result = analyze(slide, options=options)
    assert len(tried) > 2
    assert plain.tumor is not None and result.tumor is not None
    np.testing.assert_array_equal(result.tumor.heatmap.values, plain.tumor.heatmap.values)


@pytest.mark.parametrize(("side_px", "said"), [(20, "too small"), (60, "mirror image"), (300, "")])
def test_an_image_smaller_than_a_tile_is_said_to_be_judged_by_its_mirror_image(
    models: Path, side_px: int, said: str, tmp_path: Path
) -> None:
    mask = tmp_path / "all.png"
    Image.fromarray(np.full((side_px, side_px), 255, np.uint8)).save(mask)
    field = np.full((side_px, side_px, 3), (210, 60, 90), np.uint8)
    options = Options(only=("tumor",), models=(str(models),), tissue=mask)
    result = analyze(ArraySlide(field, Mpp(0.5, 0.5)), options=options)
    stage = next(stage for stage in result.stages if stage.name == "tumor")
    told = [stage.reason or "", *(notice.message for notice in result.warnings)]
    for words in ("too small", "mirror image"):
        assert any(words in line for line in told) == (words == said)
    assert stage.status == ("skipped" if said == "too small" else "done")


@pytest.mark.parametrize(("x", "y"), [(1.25, 1.0), (1.0, 1.25), (0.5, 0.5)])
def test_a_slide_that_is_enlarged_along_one_axis_says_so(models: Path, x: float, y: float) -> None:
    image = paint((700, 700), [(100, 100, 400, 400)], np.zeros((0, 2)))
    result = analyze(ArraySlide(image, Mpp(x, y)), options=Options(only=("tumor",), models=(str(models),)))
    told = [notice.message for notice in result.warnings if notice.code == "enlarged"]
    assert len(told) == (x != y)
    assert all("across and" in message for message in told)


def test_a_result_is_written_while_its_slide_is_open(painted: Path, models: Path, tmp_path: Path) -> None:
    with open_slide(painted) as slide:
        result = analyze(slide, options=Options(only=("tumor",), models=(str(models),)))
        folder = result.write(tmp_path)
    before = (folder / "findings.json").read_bytes()
    with pytest.raises(SlideReadError, match="closed"):
        result.write(tmp_path)
    assert (folder / "findings.json").read_bytes() == before and (folder / "report.html").is_file()


def test_a_failed_rerun_leaves_no_report_of_the_earlier_results(
    painted: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*arguments: Any) -> None:
        raise SlideReadError(painted, "a tile is damaged")

    with open_slide(painted) as slide:
        result = analyze(slide, options=Options(only=("tumor",), models=(str(models),)))
        folder = result.write(tmp_path)
        monkeypatch.setattr("lobule.analysis.files.draw", failing)
        with pytest.raises(SlideReadError, match="a tile is damaged"):
            result.write(tmp_path)
    assert not (folder / "report.html").exists() and not (folder / "findings.json").exists()


def test_a_stage_without_a_model_is_skipped_aloud(painted: Path, models: Path) -> None:
    with open_slide(painted) as slide:
        result = analyze(slide, options=Options(models=(str(models),), specimen="node", nuclei_tiles=2))
    stages = {stage.name: stage for stage in result.stages}
    assert stages["tumor"].status == "skipped"
    assert "metastasis" in (stages["tumor"].reason or "")
    assert result.tumor is None


def test_only_what_is_asked_for_is_done(painted: Path, models: Path) -> None:
    with open_slide(painted) as slide:
        result = analyze(slide, only=("tumor",), options=Options(models=(str(models),)))
    assert result.nuclei is None
    assert [stage.reason for stage in result.stages if stage.name == "nuclei"] == ["not asked for"]


def test_wrong_options_name_what_is_allowed() -> None:
    with pytest.raises(ConfigurationError, match=r"give a tuple, such as \('nuclei',\)"):
        Options(only="nuclei")  # type: ignore[arg-type]
    for wrong in (
        {"only": ("kidney",)},
        {"only": ()},
        {"workers": 0},
        {"nuclei_tiles": 0},
        {"max_ram_bytes": 1000},
        {"specimen": "liver"},
    ):
        with pytest.raises(ConfigurationError, match="--"):
            Options(**wrong)  # type: ignore[arg-type]


def test_too_little_memory_for_one_worker_is_said(painted: Path, models: Path) -> None:
    with (
        open_slide(painted) as slide,
        pytest.raises(ConfigurationError, match="one worker of these models need"),
    ):
        analyze(slide, options=Options(models=(str(models),), max_ram_bytes=270_000_000))


def test_an_array_without_mpp_is_refused_and_with_one_analyzed(models: Path) -> None:
    from lobule.geometry import Mpp

    image = paint((900, 800), [(128, 128, 640, 640)], margin=20)
    with pytest.raises(MissingResolutionError, match="--mpp"):
        analyze(open_slide(image), options=Options(models=(str(models),)))
    result = analyze(
        ArraySlide(image, Mpp(0.5, 0.5)), only=("tumor",), options=Options(models=(str(models),))
    )
    assert result.tumor is not None and len(result.tumor.regions) == 1


def test_fluorescence_is_refused(models: Path) -> None:
    from lobule.geometry import Mpp

    image = np.random.default_rng(1).integers(4, 14, (800, 800, 3), np.uint8)
    image[200:300, 200:300, 2] = 220
    with pytest.raises(WrongStainError, match="not a brightfield slide"):
        analyze(ArraySlide(image, Mpp(0.5, 0.5)), options=Options(models=(str(models),)))


def test_blank_glass_has_no_tissue_and_no_stages(models: Path) -> None:
    from lobule.geometry import Mpp

    result = analyze(
        ArraySlide(np.full((900, 900, 3), 245, np.uint8), Mpp(0.5, 0.5)),
        options=Options(models=(str(models),)),
    )
    assert {m.name: m.value for m in result.measurements}["tissue_area"] == 0
    assert [stage.status for stage in result.stages] == ["done", "skipped", "skipped"]


def test_anisotropic_pixels_keep_their_areas(models: Path) -> None:
    from lobule.geometry import Mpp

    image = paint((1600, 800), [(400, 200, 1200, 600)], margin=40)
    result = analyze(
        ArraySlide(image, Mpp(0.25, 0.5)), only=("tumor",), options=Options(models=(str(models),))
    )
    area = {m.name: m.value for m in result.measurements}["tumor_area"]
    assert area == pytest.approx(800 * 400 * 0.25 * 0.5 / 1e6, rel=0.3)
    assert result.tumor is not None and result.tumor.heatmap.values.shape == (7, 7)


def test_the_tissue_is_written_and_can_be_given_back(painted: Path, models: Path, tmp_path: Path) -> None:
    with open_slide(painted) as slide:
        found = analyze(slide, only=("tissue",), options=Options(models=(str(models),)))
        folder = found.write(tmp_path)
        again = analyze(slide, only=("tissue",), options=Options(tissue=folder / "tissue.geojson"))
    (area,) = (m.value for m in found.measurements if m.name == "tissue_area")
    assert area is not None and area > 0.5
    features = _features(folder / "tissue.geojson")
    shapes = [shapely.geometry.shape(feature["geometry"]) for feature in features]
    assert all(shape.is_valid for shape in shapes)
    assert sum(shape.area for shape in shapes) * MPP**2 / 1e6 == pytest.approx(area, rel=1e-3)
    np.testing.assert_array_equal(again.tissue.tissue.mask, found.tissue.tissue.mask)
    assert [(stage.name, stage.status) for stage in found.stages] == [
        ("tissue", "done"),
        ("tumor", "skipped"),
        ("nuclei", "skipped"),
    ]
    named = json.loads((folder / "findings.json").read_text())["files"]
    assert [file["name"] for file in named] == ["tissue.geojson"]


def test_the_results_of_another_slide_are_not_written_over(models: Path, tmp_path: Path) -> None:
    options = Options(only=("tumor",), models=(str(models),))
    first, second = (
        analyze(ArraySlide(paint((700, 700), [(100, 100, side, side)]), Mpp(0.5, 0.5)), options=options)
        for side in (400, 500)
    )
    folder = first.write(tmp_path)
    kept = (folder / "findings.json").read_bytes()
    with pytest.raises(ResultWriteError, match="results of another slide; give this one another slide_id"):
        second.write(tmp_path)
    assert (folder / "findings.json").read_bytes() == kept
    assert first.write(tmp_path) == folder
    with FolderWork(folder / ".lobule"), pytest.raises(ResultLockedError, match="another run is writing"):
        first.write(tmp_path)


@given(
    st.tuples(st.integers(1, 90), st.integers(1, 70)),
    st.tuples(st.floats(0.2, 9), st.floats(0.2, 9)),
    st.integers(0, 2**32 - 1),
)
def test_tissue_counts_as_far_as_there_is_slide(
    size: tuple[int, int], scale: tuple[float, float], seed: int
) -> None:
    """Against every pixel of the overview cut to the slide."""
    frame = WorkingFrame(size, Mpp(0.5, 0.25), Mpp(0.5 * scale[0], 0.25 * scale[1]))
    columns, rows = frame.size
    mask = np.random.default_rng(seed).random((rows, columns)) < 0.5
    tissue = Tissue(mask, "hsv", mask, mask, mask)
    seen = TissueOutcome(
        np.zeros((rows, columns, 3), np.uint8), frame, tissue, StainJudgement("he", ""), "", ()
    )
    sides = [
        [max(0.0, min((i + 1) * step, length) - i * step) for i in range(count)]
        for step, length, count in zip(frame.scale, size, (columns, rows), strict=True)
    ]
    slow = sum(
        sides[0][column] * 0.5 * sides[1][row] * 0.25
        for row in range(rows)
        for column in range(columns)
        if mask[row, column]
    )
    assert seen.area_mm2 == pytest.approx(slow / 1e6, rel=1e-6, abs=1e-15)
    assert seen.area_mm2 <= size[0] * 0.5 * size[1] * 0.25 / 1e6 * (1 + 1e-9)


def test_memory_is_asked_for_what_runs_and_what_the_slide_holds(models: Path) -> None:
    by_family = select_models((str(models),))
    both, tumor = Options(max_ram_bytes=10**12), Options(only=("tumor",), max_ram_bytes=10**12)
    nuclei = by_family["nuclei"].card.graph("segment")
    assert nuclei is not None
    for options, expected in ((both, by_family), (tumor, {"tumor": by_family["tumor"]})):
        tight = replace(options, max_ram_bytes=estimate_bytes(expected.values(), 1, 0), workers=1)
        assert fit_workers(tight, by_family, 0) == 1
        with pytest.raises(ConfigurationError, match="--max-ram"):
            fit_workers(tight, by_family, 0, held_bytes=1_000_000)
    image = np.zeros((30, 40, 3), np.uint8)
    assert ArraySlide(image, 0.5).held_bytes == image.nbytes


def test_a_picture_says_what_it_holds(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(tmp_path / "a.png")
    with open_slide(tmp_path / "a.png") as slide:
        assert slide.held_bytes == 30 * 40 * 3


def test_the_color_told_is_of_tissue_alone_however_narrow(models: Path) -> None:
    """A core as wide as half a tile: the mean of whole tiles would be half glass."""
    core = np.full((900, 900, 3), 240, np.uint8)
    core[:, 300:430] = (210, 60, 90)
    result = analyze(ArraySlide(core, MPP), options=Options(models=(str(models),), only=("tumor",)))
    assert result.tissue.mean_rgb is not None
    # the mask's cells along the core hold some glass
    np.testing.assert_allclose(result.tissue.mean_rgb, (210, 60, 90), atol=15)


def test_the_tumor_share_is_of_tissue_and_never_above_one(models: Path) -> None:
    core = np.full((900, 900, 3), 240, np.uint8)
    core[:, 300:430] = (210, 60, 90)
    result = analyze(ArraySlide(core, MPP), options=Options(models=(str(models),), only=("tumor",)))
    assert result.tumor is not None
    numbers = {measurement.name: measurement.value for measurement in result.measurements}
    regions = shapely.union_all([region.polygon for region in result.tumor.regions])
    tissue = shapely.union_all(result.tissue.polygons)
    assert 0.1 < tissue.intersection(regions).area / tissue.area <= 1
    assert numbers["tumor_share"] == pytest.approx(tissue.intersection(regions).area / tissue.area, abs=5e-3)


def test_a_slide_too_coarse_one_way_is_too_coarse(models: Path) -> None:
    from lobule.analysis.stages import too_coarse

    assert too_coarse("nuclei", Mpp(0.5, 0.5), 0.25) is None
    assert "1.2 µm/px one way" in str(too_coarse("nuclei", Mpp(0.25, 1.2), 0.25))


def test_a_field_that_shows_little_more_than_cut_nuclei_says_so(models: Path) -> None:
    strip = paint((400, 40), [(0, 0, 400, 40)], np.array([[40, 20], [120, 20], [200, 20]]), margin=0)[20:32]
    result = analyze(ArraySlide(strip, MPP), options=Options(models=(str(models),), only=("nuclei",)))
    assert result.nuclei is not None
    touching = int(np.count_nonzero(result.nuclei.columns.touches_border))
    said = [notice.message for notice in result.warnings if notice.code == "cut-nuclei"]
    assert (
        touching
        and len(said) == 1
        and f"{touching} of {len(result.nuclei.columns.area_um2)} nuclei" in said[0]
    )


def test_a_name_as_long_as_a_file_system_takes_is_a_folder_like_any_other(
    models: Path, tmp_path: Path
) -> None:
    from lobule.analysis.batch import analyze_slides
    from lobule.progress import reporter_for

    slide = tmp_path / f"{'x' * 240}.png"
    Image.fromarray(paint((300, 200), [])).save(slide)
    options = Options(models=(str(models),), only=("tissue",))
    (done,) = analyze_slides(
        [slide], tmp_path / "out", options, mpp=Mpp(0.5, 0.5), reporter=reporter_for(quiet=True)
    )
    assert done.status == "done", done.reason
    assert (tmp_path / "out" / slide.stem / "findings.json").is_file()


def test_a_field_of_nuclei_needs_no_scipy(tmp_path: Path) -> None:
    """Its import takes a third of a second, a field the same."""
    code = """
import sys
import numpy as np
from lobule import analyze
from lobule.slides import ArraySlide

y, x = np.mgrid[:512, :512]
inside = (x % 64 - 32) ** 2 + (y % 64 - 32) ** 2 < 14**2
pixels = np.where(inside[..., None], (90, 60, 140), (225, 170, 200)).astype(np.uint8)
pixels += np.random.default_rng(4).integers(0, 20, pixels.shape, np.uint8)
result = analyze(ArraySlide(pixels, 0.25), only=("nuclei",))
result.write(sys.argv[1])
assert result.nuclei is not None and result.nuclei.tile_counts.sum() > 9, result.nuclei
print("scipy" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[-1] == "False"
