"""A result becomes files: each appears whole, findings.json last."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lobule.analysis.nuclei_stage import NucleiOutcome
from lobule.analysis.results import FINDINGS, output_file, writing
from lobule.analysis.single import Result
from lobule.export.geojson import write_nuclei, write_regions, write_tissue
from lobule.export.heatmap import write_heatmap
from lobule.export.tables import write_nuclei_csv, write_nuclei_parquet
from lobule.geometry import Box
from lobule.report import (
    Areas,
    Drawn,
    Evidence,
    GalleryNucleus,
    GalleryRow,
    NucleiSample,
    draw,
    write_report,
)
from lobule.slides import read_region
from lobule.strict import values_of
from lobule.whole_file import whole_file

__all__ = ["write_result"]

_TABLES = {
    "csv": ("nuclei.csv.gz", write_nuclei_csv),
    "parquet": ("nuclei.parquet", write_nuclei_parquet),
}
_WRITTEN = {
    "heatmap.ome.tif",
    "regions.geojson",
    "nuclei.geojson.gz",
    *(name for name, _ in _TABLES.values()),
}
_LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")
GALLERY = 6
"""Nuclei of each kind in the report's gallery."""
GALLERY_UM = (16.0, 48.0)
"""The least and the largest side of its crops."""
LEAST_TO_COMPARE = 20
"""Fewer nuclei of other tissue make no distribution."""
SAMPLES = 12
SAMPLE_PX = 256


def write_result(result: Result, folder: Path) -> Path:
    """Writes the slide's files into ``folder``. A findings.json there means that all others are whole.

    The report's own digest is not among the files, since it shows the run's seconds; it is written before.
    """
    # the report shows places of the slide: if it is closed, a pixel beside it says so before anything is changed
    result.prepared.slide.read_level(0, (-1, -1), (1, 1))
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FINDINGS).unlink(missing_ok=True)
        (folder / "report.html").unlink(missing_ok=True)
        for part in folder.glob(".*.part"):
            part.unlink()
    # the pictures are drawn while the other files are written: one core would do either alone
    with ThreadPoolExecutor(1, thread_name_prefix="lobule-report") as ahead:
        drawing = ahead.submit(_drawn, result)
        files = _write_data(result, folder)
    drawn = drawing.result()
    findings = result.findings([output_file(folder / name) for name in files])
    with result.clock.stage("report"), writing(folder):
        write_report(folder / "report.html", findings, drawn)
        text = json.dumps(values_of(findings), indent=1, ensure_ascii=False, allow_nan=False)
        with whole_file(folder / FINDINGS) as stream:
            # a name that is no UTF-8 is written as \\udcXX: half a surrogate pair is no JSON
            stream.write(_LONE_SURROGATE.sub(lambda half: f"\\\\u{ord(half[0]):04x}", text).encode() + b"\n")
    return folder


def _drawn(result: Result) -> Drawn:
    with result.clock.stage("report"):
        return draw(_evidence(result))


def _write_data(result: Result, folder: Path) -> list[str]:
    """Writes maps, outlines and tables; removes those of an earlier run that this one has not. Returns their names."""
    frame, slide_id = result.frame, result.slide_id
    files = []
    with result.clock.stage("write"), writing(folder):
        write_tissue(folder / "tissue.geojson", result.tissue.polygons, frame, slide_id)
        files.append("tissue.geojson")
        if result.tumor is not None:
            maps = [("tumor probability, patch classifier", result.tumor.heatmap)]
            if result.tumor.refined is not None:
                maps.append(("tumor probability, refined", result.tumor.refined))
            write_heatmap(folder / "heatmap.ome.tif", maps)
            write_regions(folder / "regions.geojson", result.tumor.regions, frame, slide_id)
            files += ["heatmap.ome.tif", "regions.geojson"]
        if result.nuclei is not None:
            write_nuclei(folder / "nuclei.geojson.gz", result.nuclei.batches(), frame, slide_id)
            files.append("nuclei.geojson.gz")
            for kind in sorted(set(result.prepared.options.tables)):
                name, write = _TABLES[kind]
                write(folder / name, result.nuclei.batches(), slide_id)
                files.append(name)
        for stale in _WRITTEN - set(files):
            (folder / stale).unlink(missing_ok=True)
    return files


def _evidence(result: Result) -> Evidence:
    tumor, seen = result.tumor, result.tissue
    models = [result.prepared.models[stage.name] for stage in result.stages if stage.model is not None]
    return Evidence(
        overview=seen.overview,
        frame=seen.frame,
        tissue=seen.tissue.mask,
        pen=seen.tissue.pen,
        fold=seen.tissue.fold,
        heatmap=None if tumor is None else tumor.heatmap,
        refined=None if tumor is None else tumor.refined,
        blurred=None if tumor is None else tumor.blurred,
        regions=() if tumor is None else tumor.regions,
        samples=() if result.nuclei is None else tuple(_samples(result, result.nuclei)),
        areas=() if result.nuclei is None else tuple(_areas(result.nuclei)),
        gallery=() if result.nuclei is None else tuple(_gallery(result, result.nuclei)),
        cards=tuple(model.card for model in models),
        differences=result.differences(),
    )


def _samples(result: Result, nuclei: NucleiOutcome) -> Iterator[NucleiSample]:
    """Crops from tiles spread over the looked-at ones, around the middle one of each tile's nuclei."""
    filled = np.flatnonzero(nuclei.tile_counts > 0)
    if not len(filled):
        return
    chosen = filled[
        ((np.arange(min(SAMPLES, len(filled))) + 0.5) * len(filled) / min(SAMPLES, len(filled))).astype(int)
    ]
    for number in chosen.tolist():
        batch = nuclei.batch(number)
        kept = nuclei.grid.kept(int(nuclei.indices[number]))
        # the region may be a corner of the tile, and outside it nothing is outlined
        x, y = np.median(nuclei.frame.from_slide(batch.centroid_px), axis=0)
        x0 = max(kept.x0, min(round(float(x)) - SAMPLE_PX // 2, kept.x1 - SAMPLE_PX))
        y0 = max(kept.y0, min(round(float(y)) - SAMPLE_PX // 2, kept.y1 - SAMPLE_PX))
        box = Box(x0, y0, min(x0 + SAMPLE_PX, kept.x1), min(y0 + SAMPLE_PX, kept.y1))
        image = read_region(result.prepared.slide, nuclei.frame, box)
        yield NucleiSample(image=image, box=_slide_box(nuclei, box), nuclei=batch)


def _areas(nuclei: NucleiOutcome) -> Iterator[Areas]:
    """The distribution over the region, and over the other tissue where it was looked at; of nuclei seen whole."""
    whole = nuclei.columns.touches_border == 0
    if not whole.any():
        return
    yield Areas(nuclei.where, nuclei.columns.area_um2[whole])
    if nuclei.elsewhere is not None and len(nuclei.elsewhere.area_um2) >= LEAST_TO_COMPARE:
        yield Areas(nuclei.elsewhere.name, nuclei.elsewhere.area_um2)


def _gallery(result: Result, nuclei: NucleiOutcome) -> Iterator[GalleryRow]:
    """The nuclei nearest to the median area, and the most extreme in size, shape and darkness."""
    columns = nuclei.columns
    whole = columns.touches_border == 0
    if not whole.any():
        return
    median = float(np.median(columns.area_um2[whole]))
    sized = whole & (columns.area_um2 >= median / 2)
    rows = (
        ("Typical: nearest to the median area", whole, np.abs(columns.area_um2 - median), "area"),
        ("Largest", whole, -columns.area_um2, "area"),
        ("Least circular", sized, columns.circularity, "circularity"),
        ("Darkest: most haematoxylin", sized, -columns.haematoxylin_od, "density"),
    )
    chosen = []
    for title, among, key, shown in rows:
        numbers = np.flatnonzero(among)
        # the first of equals, whatever the sort
        chosen.append((title, numbers[np.argsort(key[numbers], kind="stable")][:GALLERY], shown))
    found = _nuclei_by_number(nuclei, {int(number) for _, numbers, _ in chosen for number in numbers})
    mpp = nuclei.frame.mpp.mean
    widest_um = max(
        float((np.ptp(outline, axis=0) * (result.prepared.mpp.x, result.prepared.mpp.y)).max())
        for outline, _ in found.values()
    )
    side = round(min(max(1.4 * widest_um, GALLERY_UM[0]), GALLERY_UM[1]) / mpp)
    for title, numbers, shown in chosen:
        crops = []
        for number in numbers.tolist():
            outline, center = found[number]
            x, y = nuclei.frame.from_slide(center).tolist()
            corner = round(x - side / 2), round(y - side / 2)
            box = Box(*corner, corner[0] + side, corner[1] + side)
            value = {
                "area": f"{columns.area_um2[number]:.3g} µm²",
                "circularity": f"circularity {columns.circularity[number]:.2f}",
                "density": f"OD {columns.haematoxylin_od[number]:.2f}",
            }[shown]
            image = read_region(result.prepared.slide, nuclei.frame, box)
            crops.append(GalleryNucleus(image, _slide_box(nuclei, box), outline, value))
        yield GalleryRow(title, crops)


def _nuclei_by_number(
    nuclei: NucleiOutcome, wanted: set[int]
) -> dict[int, tuple[NDArray[np.float32], NDArray[np.float64]]]:
    """Outline and centroid, level-0 px, of nuclei by their number over all tiles; only their tiles are read."""
    ends = np.cumsum(nuclei.tile_counts)
    found: dict[int, tuple[NDArray[np.float32], NDArray[np.float64]]] = {}
    by_tile: dict[int, list[int]] = {}
    for number in sorted(wanted):
        by_tile.setdefault(int(np.searchsorted(ends, number, side="right")), []).append(number)
    for tile, numbers in by_tile.items():
        batch, first = nuclei.batch(tile), int(ends[tile] - nuclei.tile_counts[tile])
        for number in numbers:
            found[number] = batch.outline_px(number - first), batch.centroid_px[number - first]
    return found


def _slide_box(nuclei: NucleiOutcome, box: Box) -> Box:
    """The level-0 pixels nearest to a box of the working frame."""
    sx, sy = nuclei.frame.scale
    return Box(round(box.x0 * sx), round(box.y0 * sy), round(box.x1 * sx), round(box.y1 * sy))
