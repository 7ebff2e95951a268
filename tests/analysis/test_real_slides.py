"""Every real slide, sane or odd: a result or one line that says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import shapely

from lobule.analysis.batch import Outcome, analyze_slides
from lobule.analysis.options import Options
from lobule.progress import QuietReporter

NOT_SLIDES = {".md", ".csv", ".json", ".ini", ".dat"}
MUST_BE_DONE = {
    "CMU-1-Small-Region.svs",
    "OS-1-detail.ome.tif",
    "OS-2-ndpi.ome.tif",
    "level-0.dcm",
    "😐.svs",
}
MUST_BE_REFUSED = {
    "Mirax2-Fluorescence-1.mrxs",
    "cells-gray32.tif",
    "corrupted.ndpi",
    "ndpi_test.ndpi",
    "small_vectra.qptiff",
    "tcga-cr-7395-01a-01-ts1.svs",
    "test3-DAPI-2-(387).ndpi",
    "test_label_only.dcm",
    "vsi-ets-test-jpg2k.vsi",
}


@pytest.fixture(scope="module")
def outcomes(slides_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, ...]:
    slides = [
        path
        for path in sorted(slides_dir.rglob("*"))
        if path.is_file() and path.suffix not in NOT_SLIDES and "annotations" not in path.parts
    ]
    out = tmp_path_factory.mktemp("out")
    return analyze_slides(slides, out, Options(nuclei_tiles=2), mpp=None, reporter=QuietReporter())


def test_every_file_gives_a_result_or_one_line(outcomes: tuple[Outcome, ...]) -> None:
    assert len(outcomes) > 60
    for outcome in outcomes:
        assert "unforeseen" not in outcome.reason, outcome
        if outcome.status == "failed":
            assert outcome.folder is None
            assert outcome.reason and "\n" not in outcome.reason
            assert outcome.slide.name in outcome.reason or "dicom" in str(outcome.slide).lower()
        else:
            assert outcome.folder is not None and (outcome.folder / "report.html").is_file()


def test_the_sane_are_done_and_the_misleading_refused(outcomes: tuple[Outcome, ...]) -> None:
    status = {outcome.slide.name: outcome.status for outcome in outcomes}
    assert {name for name in MUST_BE_DONE if status[name] != "done"} == set()
    assert {name for name in MUST_BE_REFUSED if status[name] != "failed"} == set()


def test_regions_are_valid_and_inside_their_slides(outcomes: tuple[Outcome, ...]) -> None:
    seen = 0
    for outcome in outcomes:
        if (
            outcome.folder is None
            or outcome.findings is None
            or not (outcome.folder / "regions.geojson").exists()
        ):
            continue
        frame = shapely.box(0, 0, *outcome.findings.frame.size_px)
        for feature in json.loads((outcome.folder / "regions.geojson").read_text())["features"]:
            polygon = shapely.geometry.shape(feature["geometry"])
            assert polygon.is_valid and frame.buffer(0.01).covers(polygon), outcome.slide
            seen += 1
    assert seen >= 2


def test_the_same_picture_in_two_formats_gives_the_same_tissue(outcomes: tuple[Outcome, ...]) -> None:
    areas = {
        outcome.slide.name: next(m.value for m in outcome.findings.measurements if m.name == "tissue_area")
        for outcome in outcomes
        if outcome.findings is not None and outcome.slide.name in ("CMU-1-Small-Region.svs", "level-0.dcm")
    }
    assert areas["level-0.dcm"] == pytest.approx(areas["CMU-1-Small-Region.svs"], rel=0.01)
