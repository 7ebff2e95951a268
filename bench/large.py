"""The 26-gigapixel slide, tumor stage: seconds by stage, per gigapixel of tissue, beside the roofline; peak memory.

BIG=slide.tif python bench/large.py     without BIG it is composed first (1.2 GB, minutes)
"""

from __future__ import annotations

import os
from pathlib import Path

from lobule.models.card import Graph
from lobule.models.zoo import Model

from analyses import Analysis, analyze, engine_of, precision_of
from jpeg_tiles import decode_all
from kit import Kit, command, say
from pairs import CommandFailed, spread
from report import Bar, Row
from roofline import Engine, Roofline, Throughput, needed_tiles, network_inputs, tissue_pixels

SIZE = (113_501, 228_816)
LIMIT_GB = 2.0


def composed(kit: Kit, size: tuple[int, int], tissue: float) -> Path:
    """A drawn slide of that size; repeated tiles are stored once, so that even the largest is a few GB."""
    path = kit.folder / f"composed-{size[0]}x{size[1]}-{round(tissue * 100)}.svs"
    if not path.is_file():
        from slide_maker import draw

        say(f"composing {path}")
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(path, size, tissue, compact=True)
    return path


def tissue_gigapixels(done: Analysis) -> float:
    """Level-0 gigapixels of tissue, by the run's own measurement of its area."""
    area_mm2 = next(m["value"] for m in done.findings["measurements"] if m["name"] == "tissue_area")
    x, y = done.findings["frame"]["mpp_um_per_px"]
    return float(area_mm2) * 1e6 / (x * y) / 1e9


def limit_of(kit: Kit, slide: Path, done: Analysis, model: Model, graph: Graph, mpp: float) -> Roofline:
    """Both parts alone for a run that has been."""
    stage = done.stage("tumor")
    inputs = network_inputs(model.file(graph), tissue_pixels(slide, 1, 16), 256)
    precision = precision_of(stage["runtime"])
    path = model.file(graph, precision)
    engine: Engine = "openvino" if engine_of(stage["runtime"]) == "openvino" else "onnxruntime"
    rate = Throughput(path, inputs, kit.cores, engine, precision).measure(max(kit.seconds, 2.0))
    decode = decode_all(needed_tiles(slide, done.heatmap, mpp), kit.cores)
    return Roofline(decode.wall, int(stage["tiles"]) / rate)


def measure(kit: Kit) -> Row:
    """The shipped tumor model on the large slide, as often as there are rounds."""
    from lobule.models.zoo import select_models

    slide = Path(os.environ["BIG"]).resolve() if os.environ.get("BIG") else composed(kit, SIZE, 0.28)
    model = select_models()["tumor"]
    graph = model.card.graph("patch")
    if graph is None or graph.mpp is None:
        raise CommandFailed("the shipped tumor model has no patch graph")
    runs, lines = [], []
    for number in range(kit.rounds):
        say(f"large: round {number + 1} of {kit.rounds}")
        runs.append(analyze(kit, slide, "large", ["--only", "tumor"]))
        lines.append(limit_of(kit, slide, runs[-1], model, graph, graph.mpp))
    tissue = tissue_gigapixels(runs[-1])
    cells = []

    def add(what: str, values: list[float], about: str = "") -> None:
        got = spread(values)
        cells.append((what, got.text(), f"{got.median / tissue:.2f}", about))

    add("decoding alone", [line.decode_seconds for line in lines])
    stage = runs[-1].stage("tumor")
    add(
        "inference alone",
        [line.infer_seconds for line in lines],
        f"{stage['tiles']} patches, {stage['runtime']}",
    )
    add("whole process", [run.cost.wall_seconds for run in runs])
    for name in [entry["stage"] for entry in runs[-1].findings["run"]["seconds"]]:
        last = runs[-1].seconds(name)
        inner = ", ".join(f"{key} {value:.1f}" for key, value in last.items() if key != "total" and value)
        add(f"stage {name}", [run.seconds(name)["total"] for run in runs], inner)
    add("outside the run", [run.outside_seconds for run in runs])
    peak = max(run.cost.peak_bytes for run in runs)
    against = spread([line.ratio(run.cost.wall_seconds) for line, run in zip(lines, runs, strict=True)])
    size = runs[-1].findings["slide"]["size_px"]
    notes = (
        f"{size[0]:,} × {size[1]:,} px, {size[0] * size[1] / 1e9:.1f} gigapixels, {tissue:.2f} of tissue; parts of a "
        "stage are summed over threads",
        f"wall / roofline {against.text()}; peak {peak / 2**20:.0f} MiB",
        "screened tiles count as patches: the roofline is that of the plain pass",
    )
    bars = (Bar("26 gigapixels: peak memory", peak / 1e9, LIMIT_GB, "lower", " GB"),)
    columns = ("what", "s", "s per gigapixel of tissue", "")
    numbers = {
        "tissue_gigapixels": tissue,
        "wall_seconds": [run.cost.wall_seconds for run in runs],
        "seconds": [run.findings["run"]["seconds"] for run in runs],
        "decode_seconds": [line.decode_seconds for line in lines],
        "infer_seconds": [line.infer_seconds for line in lines],
        "peak_bytes": peak,
    }
    return Row("large", "26 gigapixels, tumor stage", columns, tuple(cells), notes, bars, numbers)


if __name__ == "__main__":
    command(measure, __doc__)
