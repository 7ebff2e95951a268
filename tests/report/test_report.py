from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from PIL import Image

from lobule.errors import ResultWriteError
from lobule.findings.maps import ScalarMap, TumorRegion
from lobule.findings.nuclei import MEASURES, Nuclei
from lobule.findings.schema import (
    Findings,
    Frame,
    Measurement,
    ModelUse,
    Notice,
    OutputFile,
    RegionFinding,
    Run,
    SlideFinding,
    Stage,
    StageSeconds,
)
from lobule.geometry import Box, Mpp, WorkingFrame
from lobule.models.card import Card
from lobule.report import Areas, Evidence, GalleryNucleus, GalleryRow, NucleiSample, draw, write_report
from lobule.report.pictures import AREA_COLORS, NUCLEUS_COLOR, histogram
from lobule.strict import changed, from_values

SIZE = (4000, 3000)
MPP = Mpp(0.5, 0.5)
FRAME = WorkingFrame(SIZE, MPP, Mpp(5.0, 5.0))
NASTY = "<script>alert('x')</script> & \"quoted\""


def make_card(**changes: Any) -> Card:
    tensor = {"name": "x", "dtype": "float32", "layout": "NC", "shape": [-1, 2], "meaning": "m"}
    graph = {"file": "model.onnx", "sha256": "a" * 64, "role": "patch", "mpp": 1.0, "tile_px": 256}
    content: dict[str, Any] = {
        "card_version": 1,
        "name": "tumor-patch",
        "version": "1.2.3",
        "family": "tumor",
        "task": "Tells carcinoma from none.",
        "classes": ["none", "carcinoma"],
        "graphs": [{**graph, "inputs": [tensor], "outputs": [tensor]}],
        "thresholds": {"patch": 0.5},
        "data": [
            {
                "name": "set one",
                "source": "https://example.org/data",
                "terms": "research",
                "used_for": "training",
                "count": "200 fields",
                "split": "by patient",
            }
        ],
        "scores": [
            {
                "name": "AUC",
                "value": 0.9412,
                "low": 0.9,
                "high": 0.97,
                "on": "held-out block",
                "how": "bootstrap",
            }
        ],
        "calibration": "temperature 1.3",
        "pixel_mean": (200, 160, 190),
        "pixel_std": (20, 25, 18),
        "terms": "research only",
        "intended_use": "to look at regions",
        "limits": ["one scanner"],
        "made_by": "seed 0",
    }
    return from_values({**content, **changes}, Card)


def make_measurement(name: str, value: float | int | None, unit: str = "", **changes: Any) -> Measurement:
    return Measurement(
        stage="tumor", name=name, label=name.replace("_", " "), value=value, unit=unit, **changes
    )


def make_findings(**changes: Any) -> Findings:
    slide = SlideFinding(
        id="case 12",
        file="case 12.svs",
        format="Aperio SVS",
        reader="openslide",
        identity="c" * 64,
        identity_method="sha256",
        size_bytes=123456789,
        size_px=SIZE,
        level_sizes_px=(SIZE, (1000, 750)),
        mpp_source="file",
        objective_power=20.0,
        stain="he: 97% of the color is pink to purple",
        has_icc_profile=False,
    )
    run = Run(
        lobule_version="0.1.0",
        started="2026-01-01T00:00:00Z",
        host="host",
        platform="Linux",
        python="3.11",
        packages={"numpy": "2.3"},
        workers=2,
        seconds=(StageSeconds(stage="tumor", total=12.5, read=3.0),),
        seconds_total=3700.0,
        tiles_resumed=0,
        read_bytes=None,
        peak_memory_bytes=712_000_000,
    )
    content: dict[str, Any] = {
        "lobule_version": "0.1.0",
        "plan_sha256": "b" * 64,
        "slide": slide,
        "frame": Frame(
            size_px=SIZE, mpp_um_per_px=(0.5, 0.5), bounds_px=(10, 20, 3000, 2000), geojson_offset_px=(10, 20)
        ),
        "options": {"only": ["tissue", "tumor"], "mpp": None, "models": []},
        "stages": (
            Stage(name="tissue", status="done"),
            Stage(
                name="tumor", status="done", model="tumor-patch 1.2.3", working_mpp=(1.0, 1.0), tiles=12345
            ),
            Stage(name="nuclei", status="skipped", reason="no model of this family is there"),
        ),
        "models": (
            ModelUse(
                name="tumor-patch",
                version="1.2.3",
                family="tumor",
                files_sha256={"model.onnx": "a" * 64},
                card_sha256="d" * 64,
                terms="t",
                intended_use="u",
            ),
        ),
        "measurements": (
            make_measurement("tissue_area", 12.345, "mm²"),
            make_measurement("tumor_area", 3.21, "mm²", low=3.0, high=3.5, how="threshold moved"),
            make_measurement("tumor_regions", 2),
            make_measurement("tumor_share", 0.26),
        ),
        "regions": (),
        "warnings": (Notice(code="pen", message="Pen marks were found."),),
        "files": (OutputFile(name="regions.geojson", size_bytes=10, sha256="e" * 64),),
        "run": run,
    }
    return Findings(**{**content, **changes})


def make_evidence(**changes: Any) -> Evidence:
    width, height = FRAME.size
    overview = np.full((height, width, 3), (240, 235, 240), np.uint8)
    overview[50:250, 60:300] = (200, 120, 170)
    return replace(Evidence(overview, FRAME), **changes)


def make_region(polygon: shapely.Polygon) -> TumorRegion:
    return TumorRegion("r", polygon, polygon.area * 0.25e-6, 1.0, 1.0, 0.5, None)


def full_evidence() -> Evidence:
    width, height = FRAME.size
    tissue = np.zeros((height, width), bool)
    tissue[50:250, 60:300] = True
    pen, fold = np.zeros_like(tissue), np.zeros_like(tissue)
    pen[10:20, 10:100] = True
    fold[100:104, 100:200] = True
    cells = WorkingFrame(SIZE, MPP, Mpp(256.0, 256.0))
    columns, rows = cells.size
    values = np.linspace(0, 1, rows * columns, dtype=np.float32).reshape(rows, columns)
    values[0, 0] = np.nan
    square = np.array([(1010, 1010), (1030, 1010), (1030, 1030), (1010, 1030)], np.float32)
    nuclei = Nuclei(
        np.array([[1020.0, 1020.0], [1999.0, 1999.0]]),
        np.array([0, 4, 8]),
        np.concatenate([square, square + 979]),
        np.ones((2, len(MEASURES)), np.float32),
    )
    image = np.full((128, 128, 3), 200, np.uint8)
    donut = shapely.Polygon(
        [(600, 500), (3000, 500), (3000, 2500), (600, 2500)],
        [[(1000, 1000), (1000, 1500), (1500, 1500), (1500, 1000)]],
    )
    return make_evidence(
        tissue=tissue,
        pen=pen,
        fold=fold,
        heatmap=ScalarMap(values, cells),
        refined=ScalarMap(values, cells),
        blurred=ScalarMap((values > 0.8).astype(np.float32), cells),
        regions=(make_region(donut), make_region(shapely.box(3800, 100, 3830, 130))),
        samples=tuple(NucleiSample(image, Box(1000, 1000, 1128, 1128), nuclei) for _ in range(14)),
        cards=(make_card(),),
        differences=("tumor: trained at 1 µm/px.",),
    )


class Page(HTMLParser):
    """What a browser would make of the page: tags that are balanced, addresses, text, tables."""

    VOID = frozenset(("meta", "img", "input", "br", "link", "hr"))

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.source = path.read_text("utf-8")
        self.feed(self.source)
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).replace("\u202f", " ").split())

    def attributes(self, tag: str, name: str) -> list[str]:
        return [attributes[name] for found, attributes in self.tags if found == tag and name in attributes]


def report(folder: Path, findings: Findings, evidence: Evidence) -> Page:
    write_report(folder / "report.html", findings, draw(evidence))
    return Page(folder / "report.html")


def scale_bars(page: Page) -> list[tuple[str, float]]:
    """Label and length (percent of the picture) of each scale bar; the label stands beside its line, not in it."""
    found = re.findall(
        r'<span class="bar"><span>([^<]+)</span><i style="width: ([\d.]+)%"></i></span>', page.source
    )
    return [(label, float(percent)) for label, percent in found]


def decoded(address: str) -> np.ndarray:
    blob = base64.b64decode(address.split(",", 1)[1])
    with Image.open(io.BytesIO(blob)) as picture:
        return np.asarray(picture)


def pictures(page: Page) -> dict[str, np.ndarray]:
    return {
        attributes["alt"].split(".")[0]: decoded(attributes["src"])
        for tag, attributes in page.tags
        if tag == "img" and attributes["alt"]
    }


def test_nothing_is_asked_of_the_network_and_no_script_runs(tmp_path: Path) -> None:
    page = report(tmp_path, make_findings(), full_evidence())
    for name in ("src", "href", "srcset", "action", "data", "poster", "background"):
        for _, attributes in page.tags:
            if name in attributes:
                assert re.match(r"data:image/(png|jpeg);base64,|#", attributes[name])
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "iframe", "object", "embed", "form", "base", "svg"}
    style = page.source.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert "http:" not in page.source
    # a card's source is told nowhere as an address
    assert not page.attributes("a", "target")
    (policy,) = [a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script" not in policy


def test_the_notice_is_the_first_thing_said_and_repeated_at_the_end(tmp_path: Path) -> None:
    text = report(tmp_path, make_findings(), make_evidence()).text
    notice = "For research use only. Not for diagnosis."
    assert text.index(notice) < text.index("lobule · slide report")
    assert text.count(notice) == 2


def test_every_text_from_outside_is_escaped(tmp_path: Path) -> None:
    findings = make_findings()
    slide = changed(findings.slide, id=NASTY, file=NASTY, format=NASTY)
    findings = make_findings(
        slide=slide,
        options={NASTY: NASTY},
        stages=(Stage(name="nuclei", status="skipped", reason=NASTY),),
        warnings=(Notice(code="x", message=NASTY),),
        measurements=(make_measurement("tissue_area", 1.0, NASTY, how=NASTY),),
    )
    card = make_card(task=NASTY, limits=[NASTY], terms=NASTY)
    page = report(tmp_path, findings, make_evidence(cards=(card,), differences=(NASTY,)))
    assert "<script" not in page.source
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(NASTY) >= 10


def test_a_file_name_that_is_not_utf8_does_not_lose_the_report(tmp_path: Path) -> None:
    slide = changed(make_findings().slide, id="sl\udce9")
    page = report(tmp_path, make_findings(slide=slide), make_evidence())
    assert "sl\\udce9" in page.text


def test_the_summary_says_what_was_measured_and_what_was_skipped(tmp_path: Path) -> None:
    text = report(tmp_path, make_findings(), make_evidence()).text
    assert "The slide holds 12.3 mm² of tissue." in text
    assert (
        "The tumor region measures 3.21 mm² (3.00 to 3.50 mm²) in 2 regions; it holds 26.0 % of the tissue."
        in text
    )
    assert "Nuclei were not examined: no model of this family is there." in text
    assert "nuclei were counted" not in text


@pytest.mark.parametrize(
    ("measurement", "said"),
    [
        (
            make_measurement("tumor_area", 3.2, "mm²", low=3.0, high=3.5, bounds="other thresholds"),
            "3.20 mm² (3.00 to 3.50 mm² at other thresholds)",
        ),
        (
            make_measurement("tumor_area", 3.2, "mm²", low=3.2, high=3.2, bounds="other thresholds"),
            "3.20 mm² (the same at other thresholds)",
        ),
        (
            make_measurement(
                "nuclear_density", 4000.0, "1/mm²", low=3000.0, high=5000.0, bounds="95 % interval"
            ),
            "per mm² (95 % interval 3 000 to 5 000)",
        ),
        (
            make_measurement("nuclear_area_median", 17.0, "µm²", low=10.0, high=21.0, bounds="quartiles"),
            "17.0 µm² (quartiles 10.0 to 21.0 µm²)",
        ),
    ],
)
def test_bounds_are_said_to_be_what_they_are(tmp_path: Path, measurement: Measurement, said: str) -> None:
    counted = make_measurement("nuclei_counted", 2) if "nuclear" in measurement.name else None
    known = (measurement,) if counted is None else (counted, measurement)
    assert said in report(tmp_path, make_findings(measurements=known), make_evidence()).text


def test_zero_regions_are_said_plainly(tmp_path: Path) -> None:
    findings = make_findings(
        measurements=(make_measurement("tumor_area", 0.0, "mm²"), make_measurement("tumor_regions", 0))
    )
    for value, said in ((0.1, "No region was found."), (np.nan, "Nothing was judged.")):
        cells = ScalarMap(np.full((6, 8), value, np.float32), WorkingFrame(SIZE, MPP, Mpp(256, 256)))
        page = report(tmp_path, findings, make_evidence(heatmap=cells))
        assert "No tumor region was found." in page.text
        assert said in page.text


def test_a_report_with_nothing_but_an_overview_is_whole(tmp_path: Path) -> None:
    findings = make_findings(measurements=(), models=(), stages=(), warnings=(), files=(), options={})
    page = report(tmp_path, findings, make_evidence())
    assert list(pictures(page)) == ["Slide"]
    assert "Nothing was measured." in page.text
    assert "No model was used." in page.text
    assert "No quality warning was raised." in page.text


def test_all_the_evidence_is_shown_with_alternative_texts_and_table_heads(tmp_path: Path) -> None:
    page = report(tmp_path, make_findings(), full_evidence())
    shown = pictures(page)
    for title in ("Slide", "Tissue", "Tumor probability, tile by tile", "Tumor regions", "Focus"):
        assert title in shown
    assert len(page.attributes("img", "alt")) == sum(tag == "img" for tag, _ in page.tags)
    assert sum(tag == "table" for tag, _ in page.tags) >= 8
    assert all("scope" in attributes for tag, attributes in page.tags if tag == "th")
    # twelve of fourteen samples, each with the one nucleus that lies in it
    assert page.text.count("1 nucleus · at 1000, 1000") == 12
    assert "2 more samples are not shown" in page.text
    for words in (
        "AUC",
        "0.941",
        "0.900 to 0.970",
        "one scanner",
        "by patient",
        "trained at 1 µm/px",
        "61 min 40 s",
    ):
        assert words in page.text
    assert len(page.source) < 5_000_000


def test_regions_beyond_forty_are_left_out_aloud_and_the_largest_stay(tmp_path: Path) -> None:
    rows = tuple(
        RegionFinding(
            id=str(k),
            area_mm2=0.5 + k,
            perimeter_mm=1,
            longest_diameter_mm=1,
            mean_probability=0.5,
            blurred_share=None,
            box_px=(k, 0, 1, 1),
        )
        for k in range(45)
    )
    page = report(tmp_path, make_findings(regions=rows), make_evidence())
    assert "The 5 smaller ones are left out here" in page.text
    assert "44.5" in page.text
    assert " 4.50 " not in page.text


def color_at(picture: np.ndarray, level_0: tuple[float, float]) -> np.ndarray:
    x, y = level_0[0] / SIZE[0] * picture.shape[1], level_0[1] / SIZE[1] * picture.shape[0]
    return picture[int(y), int(x)].astype(int)


def test_overlays_lie_where_the_findings_are(tmp_path: Path) -> None:
    evidence = full_evidence()
    shown = pictures(report(tmp_path, make_findings(), evidence))
    regions = shown["Tumor regions"]
    for edge in ((600, 1800), (3000, 900), (2000, 500), (2000, 2500), (1000, 1250), (1250, 1500)):
        color = color_at(regions, edge)
        assert color[0] > 200, edge
        assert color[1] > 170, edge
        assert color[2] < 110, edge
    assert abs(color_at(regions, (2000, 800)) - (200, 120, 170)).max() < 12
    focus = shown["Focus"]
    assert evidence.blurred is not None
    # cell (row 5, column 7) begins at level-0 (3584, 2560)
    blurred = color_at(focus, (3700, 2700))
    assert blurred[2] > blurred[0] + 60
    sharp = color_at(focus, (300, 800))
    assert abs(sharp[2] - sharp[0]) < 8
    heat = shown["Tumor probability, tile by tile"]
    not_judged, low, high = (color_at(heat, at) for at in ((250, 250), (800, 250), (3700, 2700)))
    assert abs(not_judged[0] - not_judged[2]) < 8
    assert low.sum() > high.sum() + 150
    assert high[0] > high[1] + 50


@pytest.mark.parametrize(
    ("cells", "expected"),
    [((512, 512), (1024, 1024)), ((90, 60), (630, 420)), ((2400, 600), (1200, 300)), ((1, 1), (600, 600))],
)
def test_small_fields_are_enlarged_by_whole_factors_and_large_ones_reduced(
    tmp_path: Path, cells: tuple[int, int], expected: tuple[int, int]
) -> None:
    frame = WorkingFrame((cells[0] * 2, cells[1] * 2), MPP, Mpp(1.0, 1.0))
    overview = np.zeros((cells[1], cells[0], 3), np.uint8)
    page = report(tmp_path, make_findings(), Evidence(overview, frame))
    assert pictures(page)["Slide"].shape[:2] == expected[::-1]


def test_an_anisotropic_slide_is_shown_in_its_true_proportions(tmp_path: Path) -> None:
    frame = WorkingFrame((1000, 1000), Mpp(0.25, 0.5), Mpp(0.25, 0.5))
    page = report(tmp_path, make_findings(), Evidence(np.zeros((1000, 1000, 3), np.uint8), frame))
    height, width = pictures(page)["Slide"].shape[:2]
    assert height == 2 * width


def test_the_scale_bar_is_as_long_as_it_says(tmp_path: Path) -> None:
    page = report(tmp_path, make_findings(), make_evidence())
    ((label, percent),) = scale_bars(page)
    # 4000 px of 0.5 µm are 2 mm across: 500 µm is a quarter
    assert label == "500 µm"
    assert percent == pytest.approx(25)


def test_the_crops_of_a_gallery_have_one_scale_bar_whose_label_may_be_wider(tmp_path: Path) -> None:
    """39.5 and 40 µm across, of which a quarter is 10 µm in one of them only."""
    image = np.full((64, 64, 3), 220, np.uint8)
    ring = np.array([(516, 516), (548, 516), (548, 548), (516, 548)], np.float32)
    nuclei = [GalleryNucleus(image, Box(500, 500, 500 + side, 580), ring, "1") for side in (79, 80)]
    evidence = make_evidence(gallery=(GalleryRow("Largest", nuclei[:1]), GalleryRow("Darkest", nuclei)))
    bars = scale_bars(report(tmp_path, make_findings(), evidence))[1:]
    assert [label for label, _ in bars] == ["10 µm"] * 3
    assert [percent for _, percent in bars] == pytest.approx([1000 / 39.5, 1000 / 39.5, 25], rel=1e-3)


def test_an_option_that_a_text_names_stays_in_one_line(tmp_path: Path) -> None:
    message = f"{NASTY} may be wrong: check the --mpp given, --max-ram too, not a--b."
    findings = make_findings(warnings=(Notice(code="mpp", message=message),))
    page = report(tmp_path, findings, make_evidence())
    assert message in page.text
    assert re.findall(r'<span class="option">(.*?)</span>', page.source) == ["--mpp", "--max-ram"]
    assert re.search(r"\.option \{[^}]*white-space: nowrap", page.source)


def test_seconds_have_rows_with_names(tmp_path: Path) -> None:
    stages = ("tissue", "tumor", "nuclei", "report", "write")
    run = changed(
        make_findings().run, seconds=tuple(StageSeconds(stage=stage, total=12.5) for stage in stages)
    )
    page = report(tmp_path, make_findings(run=run), make_evidence())
    table = page.source.split("Seconds by stage", 1)[1].split("</table>", 1)[0]
    names = re.findall(r'<th scope="row">([^<]*)</th>', table)
    assert names == ["Tissue", "Tumor region", "Nuclei", "Report", "Files"]


def test_equal_findings_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_report(tmp_path / name, make_findings(), draw(full_evidence()))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_folder_that_is_not_there_is_a_result_write_error(tmp_path: Path) -> None:
    with pytest.raises(ResultWriteError, match="cannot be written"):
        write_report(tmp_path / "absent" / "report.html", make_findings(), draw(make_evidence()))


def near(picture: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    return np.abs(picture[..., :3].astype(int) - color).sum(axis=2) < 40


def test_areas_are_drawn_where_they_lie_and_named_for_what_they_are(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    areas = (
        Areas("tumor region", random.normal(80, 4, 900).astype(np.float32)),
        Areas("tissue outside the tumor region", random.normal(30, 4, 400).astype(np.float32)),
    )
    page = report(tmp_path, make_findings(), make_evidence(areas=areas))
    picture = pictures(page)["Distribution of nuclear areas"]
    width = picture.shape[1]
    # the filled shape lies on the right, the line on the left; along the axis both go on
    filled, line = (np.flatnonzero(near(picture, color).sum(axis=0) > 12) for color in AREA_COLORS)
    assert filled.min() > width * 0.6 and line.min() < width * 0.4
    assert (
        "900 nuclei of the tumor region, those seen whole, beside 400 nuclei of tissue outside the tumor region"
        in page.text
    )
    assert "every kind of cell" in page.text and "nuclear area, µm²" in page.text


def test_a_long_tail_leaves_the_bins_of_the_others_narrow(tmp_path: Path) -> None:
    """One in ten is a clump of up to 900 µm²: no bin may hold most of the others, and the tail is one of its own."""
    random = np.random.default_rng(3)
    values = np.concatenate([random.normal(30, 6, 900), random.uniform(100, 900, 100)])
    binned = histogram([values])
    (share,), (beyond,), end = binned.shares, binned.beyond, binned.edges[-1]
    assert share.max() < 0.2
    assert share.sum() + beyond == pytest.approx(1) and beyond == np.mean(values >= end) > 0.05
    assert 12 <= len(share) <= 60 and end < 100
    areas = (Areas("tissue", values.astype(np.float32)),)
    picture = pictures(report(tmp_path, make_findings(), make_evidence(areas=areas)))[
        "Distribution of nuclear areas"
    ]
    # the last bar stands apart at the right end
    bars = np.flatnonzero(near(picture[:600], AREA_COLORS[0]).sum(axis=0) > 12)
    assert bars.max() > picture.shape[1] * 0.85 and np.diff(bars).max() > 10


def test_the_bins_of_a_short_tail_end_at_its_last_hundredth() -> None:
    values = np.random.default_rng(4).normal(50, 8, 5000)
    binned = histogram([values, values[:40]])
    assert np.percentile(values, 99) < binned.edges[-1] <= np.percentile(values, 99) + 1
    assert 0 < binned.beyond[0] <= 0.01
    # two quartile ranges over the cube root of 5000
    assert binned.edges[1] == pytest.approx(2 * 1.349 * 8 / 5000 ** (1 / 3), rel=0.1)
    assert not any(histogram([np.full(9, 50.0)]).beyond)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_few_nuclei_or_one_size_alone_are_drawn_too(tmp_path: Path, count: int) -> None:
    areas = (Areas("tissue", np.full(count, 50, np.float32)),)
    page = report(tmp_path, make_findings(), make_evidence(areas=areas))
    picture = pictures(page)["Distribution of nuclear areas"]
    assert near(picture, AREA_COLORS[0]).any()
    # the median's label has room beside its line, at the right end of the axis
    assert not near(picture, AREA_COLORS[0])[:, -8:].any()
    # the axis begins right of its marks' numbers
    axis = near(picture, (40, 40, 46))
    longest = axis[axis.sum(axis=1).argmax()]
    assert longest.mean() > 0.7 and np.flatnonzero(longest).min() > picture.shape[1] * 0.07


def test_without_nuclei_there_is_no_plot_and_no_section(tmp_path: Path) -> None:
    areas = (Areas("tissue", np.zeros(0, np.float32)), Areas("x", np.ones(9, np.float32)))
    page = report(tmp_path, make_findings(), make_evidence(areas=areas))
    assert "#nuclei" not in page.attributes("a", "href") and "Areas of nuclei" not in page.text


def test_the_gallery_shows_each_nucleus_with_its_outline_and_value(tmp_path: Path) -> None:
    image = np.full((64, 64, 3), 220, np.uint8)
    ring = np.array([(516, 516), (548, 516), (548, 548), (516, 548)], np.float32)
    nucleus = GalleryNucleus(image, Box(500, 500, 564, 564), ring, "63.5 µm²")
    rows = (GalleryRow("Largest <b>", (nucleus, nucleus)), GalleryRow("Darkest", ()))
    page = report(tmp_path, make_findings(), make_evidence(gallery=rows))
    assert "Largest <b>" in page.text and "Darkest" not in page.text
    assert page.text.count("63.5 µm²") == 2
    picture = pictures(page)["Largest <b>: 63"]
    outline = np.argwhere(picture[..., 1].astype(int) - picture[..., 0] > 60)
    assert NUCLEUS_COLOR[1] > NUCLEUS_COLOR[0]
    side = picture.shape[0]
    np.testing.assert_allclose(outline.min(axis=0) / side, 0.25, atol=0.03)
    np.testing.assert_allclose(outline.max(axis=0) / side, 0.75, atol=0.03)
