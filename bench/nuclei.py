"""Nuclei from slide to GeoJSON: fields of 512 x 512 px a second, against the runtime alone on as many tiles.

A square of the slide's densest tissue is given as the tissue mask; every tile on it is looked at. The area counted is
what the tiles keep, not their halos: on both sides the same.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from analyses import analyze, engine_of, precision_of
from jpeg_tiles import TILE_PX, tile_levels
from kit import Kit, command
from pairs import CommandFailed, spread
from report import Bar, Row
from roofline import Throughput, network_inputs, tissue_pixels

REGION_MM2 = 9.0  # as much as lobule finds to be tumor on this slide
LIMIT = 0.85


def dense_square(slide: Path, side_px: int) -> tuple[int, int]:
    """Top left corner (x, y), level-0 px, of the square whose tiles take most bytes."""
    level = tile_levels(slide)[0]
    weights = level.lengths.reshape(level.rows, level.columns).astype(float)
    span = side_px // TILE_PX
    sums = np.pad(weights, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    inside = sums[span:, span:] - sums[:-span, span:] - sums[span:, :-span] + sums[:-span, :-span]
    y, x = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(x) * TILE_PX, int(y) * TILE_PX


def write_square(path: Path, corner: tuple[int, int], side_px: int) -> None:
    """The square as a GeoJSON polygon in level-0 px."""
    (x, y), s = corner, side_px
    ring = [[x, y], [x + s, y], [x + s, y + s], [x, y + s], [x, y]]
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))


def measure(kit: Kit) -> Row:
    """The shipped nuclei model over the square, and its runtime alone."""
    from lobule.models.zoo import select_models

    slide = kit.slide()
    model = select_models()["nuclei"]
    graph = model.card.graph("segment")
    if graph is None or graph.mpp is None:
        raise CommandFailed("the shipped nuclei model has no segment graph")
    side = round(math.sqrt(REGION_MM2) * 1000 / 0.25) // TILE_PX * TILE_PX
    mask = kit.work / "nuclei-square.geojson"
    write_square(mask, dense_square(slide, side), side)
    arguments = ["--only", "nuclei", "--nuclei", "all", "--tissue", str(mask)]
    inputs = network_inputs(model.file(graph), tissue_pixels(slide, 0, 8), graph.tile_px)
    fields = ((graph.tile_px - 2 * graph.halo_px) / 512) ** 2  # a tile's kept area in fields
    whole, stage_only, alone, walls, peaks = [], [], [], [], []
    throughput: Throughput | None = None
    runtime, tiles = "", 0
    numbers: dict[str, Any] = {}
    for number in range(kit.rounds + 1):
        done = analyze(kit, slide, "nuclei", arguments)
        stage = done.stage("nuclei")
        runtime, tiles = stage["runtime"], int(stage["tiles"])
        if throughput is None:
            precision = precision_of(runtime)
            path = model.file(graph, precision)
            engine = engine_of(runtime)
            throughput = Throughput(path, inputs, kit.cores, engine, precision)  # type: ignore[arg-type]
        rate = throughput.measure(max(kit.seconds, 2.0))
        if not number:
            continue
        alone.append(rate * fields)
        walls.append(done.cost.wall_seconds)
        whole.append(tiles * fields / done.cost.wall_seconds)
        stage_only.append(tiles * fields / done.seconds("nuclei")["total"])
        peaks.append(done.cost.peak_bytes / 2**20)
        numbers["stages"] = done.findings["run"]["seconds"]
    share = spread([a / b for a, b in zip(whole, alone, strict=True)])
    share_stage = spread([a / b for a, b in zip(stage_only, alone, strict=True)])
    cells = (
        (f"runtime alone, {runtime}", spread(alone).text(), "1", ""),
        ("from slide to GeoJSON, whole process", spread(whole).text(), share.text(), f"{max(peaks):.0f}"),
        ("the nuclei stage of that run", spread(stage_only).text(), share_stage.text(), ""),
    )
    notes = (
        f"{tiles} tiles of {graph.tile_px} px, {graph.tile_px - 2 * graph.halo_px} px kept, at {graph.mpp:g} µm/px "
        f"over {REGION_MM2:g} mm²; process {spread(walls).text(1)} s; median (min-max) of {kit.rounds} rounds",
    )
    numbers |= {"alone": alone, "whole": whole, "stage": stage_only, "tiles": tiles}
    bars = (Bar("nuclei, slide → GeoJSON / runtime alone", share.median, LIMIT, "higher"),)
    columns = ("what", "fields of 512²/s", "share of the runtime", "peak MiB")
    return Row("nuclei", "Nuclei", columns, cells, notes, bars, numbers)


if __name__ == "__main__":
    command(measure, __doc__)
