"""The page: what is said, in which order, and how numbers are put into words."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lobule.findings.maps import ScalarMap
from lobule.findings.schema import Findings, Measurement, Stage
from lobule.models.card import Card, Score
from lobule.report import pictures
from lobule.report.evidence import Areas, Evidence
from lobule.report.pictures import Picture
from lobule.whole_file import whole_file

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

__all__ = ["Drawn", "draw", "page_template", "write_report"]

_MOST_REGIONS = 40
_MOST_SAMPLES = 12
_MOST_WARNINGS = 40
_STAGE_NAMES = {
    "tissue": "Tissue",
    "tumor": "Tumor region",
    "nuclei": "Nuclei",
    "metastasis": "Metastasis",
    "field": "Field of view",
    "grading": "Grading",
}
_TIMED = {**_STAGE_NAMES, "report": "Report", "write": "Files"}
_NOT_DONE = {
    "tissue": "Tissue was not looked for",
    "tumor": "Tumor was not looked for",
    "nuclei": "Nuclei were not examined",
    "metastasis": "Metastases were not looked for",
    "field": "Fields of view were not judged",
    "grading": "The slide was not graded",
}
_STAINS = {"he": "H&E", "ihc": "immunohistochemistry"}
_MPP_SOURCES = {
    "file": "stated by the file",
    "resolution-tag": "from the file's resolution tags",
    "option": "given as an option",
    "csv": "given in the table of resolutions",
}
_SHARES = ("positive_tiles", "blurred_tiles")
"""Measurements without a unit that are shares although their name does not end so."""
_THIN = "\u202f"
_MISSING = "–"


@dataclass(frozen=True)
class _Key:
    """One entry of a legend."""

    color: str
    label: str
    line: bool = False


@dataclass(frozen=True)
class _Figure:
    title: str
    caption: str
    picture: Picture
    keys: tuple[_Key, ...] = ()
    bar: Picture | None = None


@dataclass(frozen=True)
class _Fact:
    """One of the large numbers at the top."""

    label: str
    value: str
    unit: str
    note: str


def _number(value: float | int | None) -> str:
    """A number with three or so significant digits and thin spaces between thousands."""
    if value is None or not math.isfinite(value):
        return _MISSING
    if isinstance(value, int) or (abs(value) >= 100 and value == value):
        return f"{round(value):,}".replace(",", _THIN)
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    if decimals > 6:
        return f"{value:.2e}"
    return f"{value:.{decimals}f}"


def _percent(value: float | None) -> str:
    if value is None:
        return _MISSING
    if 0 < abs(value) < 0.001:
        return f"< 0.1{_THIN}%"
    # what is not all must not read as 100 %
    return f"{value * 100:.{0 if abs(value) >= 0.9995 or value == 0 else 1}f}{_THIN}%"


def _stain(told: str) -> str:
    """The kind of stain by its name, with what spoke for it."""
    kind, colon, reason = told.partition(": ")
    return f"{_STAINS.get(kind, kind)}{colon}{reason}"


def _bytes(value: int | None) -> str:
    if value is None:
        return _MISSING
    size = float(value)
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{_number(int(size) if unit == 'B' else size)}{_THIN}{unit}"
        size /= 1000
    return f"{_number(size)}{_THIN}TB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{_number(seconds)}{_THIN}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes}{_THIN}min {rest}{_THIN}s"
    return f"{minutes // 60}{_THIN}h {minutes % 60}{_THIN}min"


def _is_share(measurement: Measurement) -> bool:
    return measurement.unit == "" and (measurement.name.endswith("_share") or measurement.name in _SHARES)


def _value(measurement: Measurement, value: float | int | None) -> str:
    return _percent(value) if _is_share(measurement) else _number(value)


def _interval(measurement: Measurement) -> str:
    if measurement.low is None and measurement.high is None:
        return ""
    return f"{_value(measurement, measurement.low)} to {_value(measurement, measurement.high)}"


def _bounds(measurement: Measurement, *, unit: bool = False) -> str:
    """The bounds with what they are: each of the three kinds means something else."""
    between = _interval(measurement)
    if not between:
        return ""
    if unit:
        between = _with_unit(measurement, between)
    if measurement.bounds == "other thresholds":
        same = measurement.low == measurement.value == measurement.high
        return "the same at other thresholds" if same else f"{between} at other thresholds"
    return f"{measurement.bounds} {between}" if measurement.bounds else between


def _with_unit(measurement: Measurement, text: str) -> str:
    return f"{text} {measurement.unit}" if measurement.unit and text != _MISSING else text


def _plural(count: int, one: str, many: str) -> str:
    return f"{_number(count)} {one if count == 1 else many}"


def _summary(findings: Findings) -> list[str]:
    """The findings in a few plain sentences; only what was measured is said."""
    known = {measurement.name: measurement for measurement in findings.measurements}

    def said(name: str) -> str | None:
        measurement = known.get(name)
        if measurement is None or measurement.value is None:
            return None
        return _with_unit(measurement, _value(measurement, measurement.value))

    def ranged(name: str) -> str:
        between = _bounds(known[name], unit=True)
        return f" ({between})" if between else ""

    sentences = []
    if tissue := said("tissue_area"):
        sentences.append(f"The slide holds {tissue} of tissue.")
    if next((stage.tiles for stage in findings.stages if stage.name == "tumor"), None) == 0:
        sentences.append("No tile held enough tissue to be judged for tumor.")
    elif tumor := said("tumor_area"):
        regions = known.get("tumor_regions")
        number = int(regions.value) if regions is not None and regions.value is not None else None
        if number == 0:
            sentences.append("No tumor region was found.")
        else:
            where = "" if number is None else f" in {_plural(number, 'region', 'regions')}"
            share = said("tumor_share")
            of_tissue = f"; it holds {share} of the tissue" if share else ""
            sentences.append(f"The tumor region measures {tumor}{ranged('tumor_area')}{where}{of_tissue}.")
    if counted := said("nuclei_counted"):
        looked = said("looked_at_area")
        sentence = "1 nucleus was counted" if counted == "1" else f"{counted} nuclei were counted"
        sentence += f" on {looked}" if looked else ""
        if known.get("nuclear_density") and known["nuclear_density"].value is not None:
            density = known["nuclear_density"]
            sentence += f": {_number(density.value)} per mm²"
            sentence += f" ({between})" if (between := _bounds(density)) else ""
        if median := said("nuclear_area_median"):
            sentence += f"; their median area is {median}{ranged('nuclear_area_median')}"
        sentences.append(sentence + ".")
    sentences += [_skipped(stage) for stage in findings.stages if stage.status == "skipped"]
    return sentences


def _skipped(stage: Stage) -> str:
    reason = (stage.reason or "no reason was recorded").rstrip(".")
    return f"{_NOT_DONE[stage.name]}: {reason}."


def _facts(findings: Findings) -> list[_Fact]:
    wanted = (
        ("tissue_area", "Tissue"),
        ("tumor_area", "Tumor region"),
        ("tumor_share", "Tumor, share of tissue"),
        ("nuclear_density", "Nuclei"),
        ("nuclear_area_median", "Median nuclear area"),
    )
    known = {measurement.name: measurement for measurement in findings.measurements}
    facts = []
    for name, label in wanted:
        measurement = known.get(name)
        if measurement is None or measurement.value is None:
            continue
        unit = "per mm²" if measurement.unit == "1/mm²" else measurement.unit
        facts.append(_Fact(label, _value(measurement, measurement.value), unit, _bounds(measurement)))
    return facts


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def _figures(evidence: Evidence) -> list[_Figure]:
    shown = pictures.Shown.of(evidence.overview, evidence.frame)
    # each picture is drawn and encoded outside Python's lock: two at a time take half as long
    with ThreadPoolExecutor(2, thread_name_prefix="lobule-picture") as pool:
        drawn = [
            pool.submit(draw, shown, evidence)
            for draw in (
                _slide_figure,
                _tissue_figure,
                _patch_figure,
                _refined_figure,
                _region_figure,
                _focus_figure,
            )
        ]
        figures = [drawing.result() for drawing in drawn]
    return [figure for figure in figures if figure is not None]


def _slide_figure(shown: pictures.Shown, evidence: Evidence) -> _Figure:
    return _Figure("Slide", "The whole slide as it was read.", pictures.thumbnail_picture(shown))


def _tissue_figure(shown: pictures.Shown, evidence: Evidence) -> _Figure | None:
    tissue = pictures.tissue_picture(shown, evidence)
    if tissue is None:
        return None
    keys = [_Key(_hex(pictures.TISSUE_COLOR), "tissue", line=True)]
    for mask, color, label in (
        (evidence.pen, pictures.PEN_COLOR, "pen mark"),
        (evidence.fold, pictures.FOLD_COLOR, "fold"),
    ):
        if mask is not None and mask.any():
            keys.append(_Key(_hex(color), label))
    return _Figure("Tissue", "What was taken for tissue; the rest is paler.", tissue, tuple(keys))


def _patch_figure(shown: pictures.Shown, evidence: Evidence) -> _Figure | None:
    caption = "Each tile as stage 1 judges it, on the slide in gray. Plain gray was not judged."
    return _map_figure(shown, evidence.heatmap, "Tumor probability, tile by tile", caption)


def _refined_figure(shown: pictures.Shown, evidence: Evidence) -> _Figure | None:
    caption = "After the second stage, which sees the whole slide at once."
    return _map_figure(shown, evidence.refined, "Tumor probability, refined", caption)


def _map_figure(shown: pictures.Shown, scalar: ScalarMap | None, title: str, caption: str) -> _Figure | None:
    if scalar is None:
        return None
    return _Figure(title, caption, pictures.heatmap_picture(shown, scalar), bar=pictures.probability_bar())


def _region_figure(shown: pictures.Shown, evidence: Evidence) -> _Figure | None:
    if evidence.heatmap is None and not evidence.regions:
        return None
    count = len(evidence.regions)
    if evidence.heatmap is not None and not np.isfinite(evidence.heatmap.values).any():
        caption = "Nothing was judged."
    elif count == 0:
        caption = "No region was found."
    else:
        caption = f"{_plural(count, 'region', 'regions')}; numbers as in the table, the largest are numbered."
    return _Figure(
        "Tumor regions",
        caption,
        pictures.regions_picture(shown, evidence),
        (_Key(_hex(pictures.REGION_COLOR), "outline of a region, holes included", line=True),),
    )


def _focus_figure(shown: pictures.Shown, evidence: Evidence) -> _Figure | None:
    blurred = pictures.quality_picture(shown, evidence.blurred)
    if blurred is None:
        return None
    return _Figure(
        "Focus",
        "Tiles that are out of focus; what was measured there is unsure.",
        blurred,
        (_Key(_hex(pictures.BLUR_COLOR), "out of focus"),),
    )


def _areas_figure(areas: Sequence[Areas]) -> _Figure | None:
    """How nuclear areas are distributed, beside those of other tissue where that was looked at."""
    filled = [place for place in areas if len(place.area_um2)]
    if not filled or not len(areas[0].area_um2):
        return None
    counts = [_plural(len(place.area_um2), "nucleus", "nuclei") for place in filled]
    caption = f"{counts[0]} of the {filled[0].place}, those seen whole"
    if len(filled) > 1:
        caption += (
            f", beside {counts[1]} of {filled[1].place}: every kind of cell that lies there, normal epithelium "
            "among stroma and lymphocytes"
        )
    keys = tuple(
        _Key(_hex(color), place.place, line=number > 0)
        for number, (place, color) in enumerate(zip(filled, pictures.AREA_COLORS, strict=False))
    )
    return _Figure("Areas of nuclei", f"{caption}.", pictures.areas_picture(filled), keys)


def _measurement_groups(findings: Findings) -> list[tuple[str, list[tuple[str, str, str, str, str]]]]:
    groups: dict[str, list[tuple[str, str, str, str, str]]] = {}
    for measurement in findings.measurements:
        unit = "" if _is_share(measurement) else measurement.unit
        groups.setdefault(measurement.stage, []).append(
            (
                measurement.label,
                _value(measurement, measurement.value),
                unit,
                _interval(measurement),
                measurement.how or "",
            )
        )
    return [(_STAGE_NAMES.get(stage, stage), rows) for stage, rows in groups.items()]


def _region_rows(findings: Findings) -> list[tuple[int, tuple[str, ...]]]:
    rows = []
    for number, region in enumerate(findings.regions, 1):
        rows.append(
            (
                number,
                (
                    _number(region.area_mm2),
                    _number(region.perimeter_mm),
                    _number(region.longest_diameter_mm),
                    _MISSING if region.mean_probability is None else f"{region.mean_probability:.2f}",
                    _percent(region.blurred_share),
                    f"{region.box_px[0]}, {region.box_px[1]}",
                ),
            )
        )
    # the largest stay, in their own order
    by_area = sorted(range(len(rows)), key=lambda index: (-findings.regions[index].area_mm2, index))
    return [rows[index] for index in sorted(by_area[:_MOST_REGIONS])]


def _score(score: Score) -> tuple[str, str, str, str, str]:
    interval = (
        ""
        if score.low is None or score.high is None
        else f"{_score_number(score.low)} to {_score_number(score.high)}"
    )
    return score.name, _score_number(score.value), interval, score.on, score.how


def _score_number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else _number(value)


def _card(card: Card) -> dict[str, Any]:
    return {
        "name": card.name,
        "version": card.version,
        "task": card.task,
        "intended_use": card.intended_use,
        "terms": card.terms,
        "limits": card.limits,
        "calibration": card.calibration,
        "data": [(data.name, data.used_for, data.count, data.split, data.terms) for data in card.data],
        "scores": [_score(score) for score in card.scores],
        "works_at": ", ".join(f"{graph.mpp:g} µm/px ({graph.role})" for graph in card.graphs if graph.mpp),
    }


def _slide_rows(findings: Findings) -> list[tuple[str, str]]:
    slide, frame = findings.slide, findings.frame
    mpp = _mpp(frame.mpp_um_per_px)
    size_mm = (
        " × ".join(
            _number(pixels * mpp_ / 1000)
            for pixels, mpp_ in zip(slide.size_px, frame.mpp_um_per_px, strict=True)
        )
        + " mm"
    )
    rows = [
        ("File", slide.file),
        ("Format", f"{slide.format}, read by {slide.reader}"),
        ("Size", f"{_pixels(slide.size_px)} px = {size_mm}"),
        ("Resolution", f"{mpp} µm/px, {_MPP_SOURCES.get(slide.mpp_source, slide.mpp_source)}"),
        ("Levels", "; ".join(_pixels(size) for size in slide.level_sizes_px)),
        (
            "Objective",
            f"{slide.objective_power:g} ×" if slide.objective_power is not None else "not stated by the file",
        ),
        ("Stain", _stain(slide.stain)),
        ("Color profile", "ICC profile present" if slide.has_icc_profile else "none"),
        ("File size", _bytes(slide.size_bytes)),
        ("Identity", f"{slide.identity_method} {slide.identity}"),
        ("Scanned part", _box(frame.bounds_px)),
        ("GeoJSON origin", f"level-0 px {frame.geojson_offset_px[0]}, {frame.geojson_offset_px[1]}"),
    ]
    return [(name, text) for name, text in rows if text]


def _mpp(mpp: tuple[float, float]) -> str:
    return " × ".join(dict.fromkeys(f"{value:.4g}" for value in mpp))


def _pixels(size: tuple[int, int]) -> str:
    return " × ".join(_number(int(value)) for value in size)


def _box(box: tuple[int, int, int, int] | None) -> str:
    if box is None:
        return ""
    return f"{_pixels((box[2], box[3]))} px at {box[0]}, {box[1]} (OpenSlide bounds)"


def _run_rows(findings: Findings) -> list[tuple[str, str]]:
    run = findings.run
    return [
        ("Started", run.started),
        ("Took", _duration(run.seconds_total)),
        ("Workers", str(run.workers)),
        ("Peak memory of this process so far", _bytes(run.peak_memory_bytes)),
        ("Read by this process so far", _bytes(run.read_bytes)),
        ("Tiles taken over", f"{run.tiles_resumed} from an earlier run" if run.tiles_resumed else "none"),
        ("Computer", f"{run.host}, {run.platform}"),
        ("Versions", ", ".join(_versions(run.lobule_version, run.python, run.packages))),
    ]


def _versions(lobule: str, python: str, packages: Mapping[str, str]) -> list[str]:
    return [
        f"lobule {lobule}",
        f"Python {python}",
        *(f"{name} {packages[name]}" for name in sorted(packages)),
    ]


def _seconds_rows(findings: Findings) -> list[tuple[str, ...]]:
    return [
        (
            _TIMED.get(row.stage, row.stage),
            *(
                f"{value:.1f}" if value else _MISSING
                for value in (
                    row.total,
                    row.read,
                    row.decode,
                    row.prepare,
                    row.infer,
                    row.decode_maps,
                    row.write,
                )
            ),
        )
        for row in findings.run.seconds
    ]


def _stage_rows(findings: Findings) -> list[tuple[str, bool, str, str]]:
    rows = []
    for stage in findings.stages:
        if stage.status == "skipped":
            rows.append((_STAGE_NAMES[stage.name], False, stage.reason or "", ""))
            continue
        how = [stage.model or "no model needed"]
        if stage.runtime:
            how.append(stage.runtime)
        if stage.working_mpp:
            how.append(
                "at " + " × ".join(f"{value:.4g}" for value in dict.fromkeys(stage.working_mpp)) + " µm/px"
            )
        if stage.reason:
            how.append(stage.reason)
        tiles = _MISSING if stage.tiles is None else _number(stage.tiles)
        rows.append((_STAGE_NAMES[stage.name], True, ", ".join(how), tiles))
    return rows


def _option(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(_option(item) for item in value) or _MISSING
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_option(item)}" for key, item in value.items()) or _MISSING
    return _MISSING if value is None else str(value)


@dataclass(frozen=True, eq=False)
class Drawn:
    """Everything of a page that does not depend on the other files: the pictures, and what the evidence says."""

    figures: Sequence[_Figure]
    samples: Sequence[tuple[Picture, Picture, int, str]]
    """A place as it is, its outlines, how many nuclei are in it, where it is."""
    areas: _Figure | None
    gallery: Sequence[tuple[str, Sequence[tuple[Picture, str]]]]
    evidence: Evidence


def draw(evidence: Evidence) -> Drawn:
    """Draws a page's pictures."""
    um_per_px = evidence.frame.slide_mpp.x
    # crops of one scale differ by a pixel
    widest_px = max((one.box.width for row in evidence.gallery for one in row.nuclei), default=1)
    bar_um = pictures.scale_length_um(widest_px * um_per_px)
    return Drawn(
        _figures(evidence),
        [
            (*pictures.nuclei_pictures(sample, um_per_px), f"{sample.box.x0}, {sample.box.y0}")
            for sample in evidence.samples[:_MOST_SAMPLES]
        ],
        _areas_figure(evidence.areas),
        [
            (
                row.title,
                [
                    (pictures.gallery_picture(nucleus, um_per_px, bar_um), nucleus.value)
                    for nucleus in row.nuclei
                ],
            )
            for row in evidence.gallery
            if row.nuclei
        ],
        evidence,
    )


def _context(findings: Findings, drawn: Drawn) -> dict[str, Any]:
    evidence = drawn.evidence
    return {
        "slide_id": findings.slide.id,
        "notice": findings.notice,
        "subtitle": " · ".join(
            (
                findings.slide.file,
                findings.slide.format,
                _stain(findings.slide.stain),
            )
        ),
        "started": findings.run.started,
        "version": findings.lobule_version,
        "summary": _summary(findings),
        "facts": _facts(findings),
        "warnings": findings.warnings[:_MOST_WARNINGS],
        "warnings_left_out": max(0, len(findings.warnings) - _MOST_WARNINGS),
        "stages": _stage_rows(findings),
        "figures": drawn.figures,
        "samples": drawn.samples,
        "areas": drawn.areas,
        "gallery": drawn.gallery,
        "samples_left_out": len(evidence.samples) - len(drawn.samples),
        "nucleus_color": _hex(pictures.NUCLEUS_COLOR),
        "measurements": _measurement_groups(findings),
        "regions": _region_rows(findings),
        "regions_left_out": max(0, len(findings.regions) - _MOST_REGIONS),
        "cards": [_card(card) for card in evidence.cards],
        "models": findings.models,
        "differences": evidence.differences,
        "slide_rows": _slide_rows(findings),
        "run_rows": _run_rows(findings),
        "seconds": _seconds_rows(findings),
        "options": [(name, _option(value)) for name, value in sorted(findings.options.items())],
        "files": [(file.name, _bytes(file.size_bytes), file.sha256) for file in findings.files],
        "plan": findings.plan_sha256,
    }


def _options_whole(text: str) -> Markup:
    """The text, escaped; no line ends within an option such as --mpp."""
    from markupsafe import Markup, escape

    return Markup(
        re.sub(r"(?<![\w-])--[a-z][a-z-]*", r'<span class="option">\g<0></span>', str(escape(text)))
    )


@cache
def page_template() -> Template:
    """The page's template; to compile it takes a fiftieth of a second, which may be spent ahead of time."""
    from jinja2 import Environment, StrictUndefined

    source = resources.files("lobule.report").joinpath("page.html.jinja").read_text("utf-8")
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["options_whole"] = _options_whole
    return environment.from_string(source)


def write_report(path: Path, findings: Findings, drawn: Drawn) -> None:
    """Writes one self-contained HTML page on a slide.

    Style and pictures lie in the page; it asks the network for nothing, runs no script and says so in its
    content security policy. Every text from outside (names, reasons, cards) is escaped. Raises
    ResultWriteError.
    """
    text = page_template().render(_context(findings, drawn))
    with whole_file(path) as stream:
        # a file name that is not valid UTF-8 must not lose the report
        stream.write(text.encode("utf-8", "backslashreplace"))
