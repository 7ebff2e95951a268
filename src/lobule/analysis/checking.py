"""A look at slides before a long run: seconds a slide, no model results."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lobule.analysis.clock import Clock
from lobule.analysis.given_mpp import open_with_mpp
from lobule.analysis.memory import estimate_bytes
from lobule.analysis.networks import precision_of
from lobule.analysis.options import Options
from lobule.analysis.stages import (
    TissueOutcome,
    grid_over,
    look_at_slide,
    look_for_tissue,
    too_coarse,
    too_small,
)
from lobule.errors import LobuleError
from lobule.families.nuclei import SIDES
from lobule.geometry import Box, Mpp, WorkingFrame
from lobule.machine import granted_cores
from lobule.models.zoo import Model, select_models
from lobule.provenance import slide_identity
from lobule.runtimes import choose_runtime, open_runtime
from lobule.slides import Slide, read_region, require_mpp, working_frame
from lobule.tiles import TileGrid, select

__all__ = ["Checked", "Costs", "check_slides", "measure_costs"]

FOCUS_TILES = 24
BLURRED_SHARE = 0.5


@dataclass(frozen=True)
class Costs:
    """Seconds per tile and worker of each graph on this machine, measured."""

    seconds: Mapping[str, float]
    tiles_px: Mapping[str, int]


@dataclass(frozen=True)
class Checked:
    """What was seen of one slide. ``problems`` stop it, ``remarks`` do not."""

    slide: Path
    problems: tuple[str, ...]
    remarks: tuple[str, ...]
    seconds: float
    memory_bytes: int
    disk_bytes: int


def measure_costs(models: Mapping[str, Model], runtime: str) -> Costs:
    """Times each tile graph on a grey tile, in the number format that it runs in by default."""
    seconds, sizes = {}, {}
    for family, role in (("tumor", "patch"), ("nuclei", "segment")):
        model = models.get(family)
        graph = None if model is None else model.card.graph(role)
        if model is None or graph is None:
            continue
        precision = precision_of(runtime, "auto", model, role)
        path = model.file(graph, precision)
        loaded = open_runtime(runtime, model.name, path, graph, workers=1, precision=precision)
        batch = np.full((1, graph.tile_px, graph.tile_px, 3), 200, np.uint8)
        taken = []
        for _ in range(4):
            started = time.perf_counter()
            loaded.run({graph.inputs[0].name: batch})
            taken.append(time.perf_counter() - started)
        loaded.close()
        seconds[family], sizes[family] = min(taken), graph.tile_px
    return Costs(seconds, sizes)


def check_slides(
    slides: Sequence[Path], options: Options, mpp: Mpp | Mapping[str, Mpp] | None
) -> tuple[Checked, ...]:
    """Every slide, in order; a slide that repeats an earlier one's content is named as a duplicate."""
    models = select_models(options.models, thorough=options.thorough)
    runtime, _ = choose_runtime(options.runtime)
    costs = measure_costs(models, runtime)
    known: dict[str, Path] = {}
    return tuple(_check(slide, options, mpp, models, costs, known) for slide in slides)


def _check(
    path: Path,
    options: Options,
    mpp: Mpp | Mapping[str, Mpp] | None,
    models: Mapping[str, Model],
    costs: Costs,
    known: dict[str, Path],
) -> Checked:
    try:
        with open_with_mpp(path, mpp) as slide:
            remarks = list(slide.properties.warnings)
            identity = slide_identity(slide.files()).sha256
            if identity in known:
                remarks.append(f"the same slide as {known[identity]}")
            known.setdefault(identity, path)
            slide_mpp = require_mpp(slide)
            clock = Clock()
            overview, frame = look_at_slide(slide, slide_mpp, options.worker_count, clock)
            seen = look_for_tissue(
                overview, frame, options.tissue_method, options.tissue, slide.properties.bounds, clock
            )
            if seen.stain.kind == "fluorescence":
                return Checked(
                    path, (f"{path}: not a brightfield slide: {seen.stain.reason}",), tuple(remarks), 0, 0, 0
                )
            if seen.stain.kind != "he":
                remarks.append(f"not H&E ({seen.stain.kind}): {seen.stain.reason}")
            remarks += [warning.text for warning in seen.warnings]
            share, judged = _blurred_share(slide, seen, slide_mpp)
            if judged and share > BLURRED_SHARE:
                remarks.append(f"out of focus: {share:.0%} of {judged} sampled places")
            return _estimate(path, slide, seen, slide_mpp, options, models, costs, remarks)
    except LobuleError as error:
        return Checked(path, (str(error),), (), 0, 0, 0)


def _blurred_share(slide: Slide, seen: TissueOutcome, mpp: Mpp) -> tuple[float, int]:
    """(share out of focus, places judged) on a few places spread over the tissue, at 1 µm/px."""
    from lobule.tissue.focus import SHARP_FROM, sharpness

    frame = working_frame(slide, max(1.0, mpp.mean))
    grid = TileGrid(frame.size, 256, 0)
    tiles = select(grid, seen.tissue.mask, seen.frame, frame, min_share=0.5)
    step = max(1, len(tiles) // FOCUS_TILES)
    values = [
        float(sharpness([read_region(slide, frame, grid.read(int(tile)))], frame.mpp.mean)[0])
        for tile in tiles[::step]
    ]
    judged = [value for value in values if np.isfinite(value)]
    return (float(np.mean([value < SHARP_FROM for value in judged])), len(judged)) if judged else (0.0, 0)


def _estimate(
    path: Path,
    slide: Slide,
    seen: TissueOutcome,
    mpp: Mpp,
    options: Options,
    models: Mapping[str, Model],
    costs: Costs,
    remarks: list[str],
) -> Checked:
    """Seconds, memory and disk that analyzing the slide will take; reading is timed on this slide's own tiles."""
    seconds, disk = 4.0, 1_500_000.0
    for family, role in (("tumor", "patch"), ("nuclei", "segment")):
        model = models.get(family)
        graph = None if model is None else model.card.graph(role)
        if family not in options.only or graph is None or graph.mpp is None or family not in costs.seconds:
            continue
        why = too_coarse(family, mpp, graph.mpp)
        if family == "tumor":
            why = why or too_small(slide.size, mpp, graph)
        if why is not None:
            remarks.append(f"the {family} stage will be skipped: {why}")
            continue
        frame = working_frame(slide, graph.mpp)
        grid = grid_over(frame, graph)
        tiles = select(grid, seen.tissue.mask, seen.frame, frame, min_share=0.25)
        if not len(tiles):
            continue
        count = len(tiles)
        if family == "nuclei":
            count = min(count, options.nuclei_tiles or count)
            disk += count * 60_000
        looks = SIDES if family == "nuclei" and options.thorough else 1
        seconds += count * (
            looks * costs.seconds[family]
            + _read_seconds(slide, grid.read(int(tiles[len(tiles) // 2])), frame)
        )
    workers = options.worker_count
    return Checked(
        path,
        (),
        tuple(remarks),
        # more workers than cores share them
        seconds / min(workers, granted_cores()),
        estimate_bytes(
            (model for family, model in models.items() if family in options.only),
            workers,
            seen.tissue.mask.size,
            slide.held_bytes,
        ),
        round(disk),
    )


def _read_seconds(slide: Slide, box: Box, frame: WorkingFrame) -> float:
    started = time.perf_counter()
    read_region(slide, frame, box)
    return time.perf_counter() - started
