"""Where a run's time went, and the least that its tiles take on this machine: reading alone, inference alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from lobule.analysis.networks import Networks
from lobule.analysis.single import Result
from lobule.geometry import Box, WorkingFrame
from lobule.models.zoo import Model
from lobule.slides import open_slide, read_mirrored
from lobule.slides.slide import RgbImage

__all__ = ["Roofline", "measure_rooflines", "profile_lines"]

SAMPLED_TILES = 128
LEAST_SECONDS = 0.5
"""Each network runs at least so long, on all workers."""


@dataclass(frozen=True)
class Roofline:
    """One stage beside its limits, all with all workers: ``reading`` and ``inference`` are those of all its tiles."""

    stage: str
    tiles: int
    took_seconds: float
    reading_seconds: float
    inference_seconds: float

    @property
    def best_seconds(self) -> float:
        """What no pipeline of these parts can beat where the two overlap in full."""
        return max(self.reading_seconds, self.inference_seconds)


@dataclass(frozen=True)
class _Work:
    stage: str
    model: Model
    frame: WorkingFrame
    indices: Sequence[int]
    tiles: int
    """How many were read; a few more than are known by index where others were looked at to compare with."""
    box_of: Callable[[int], Box]
    """What is read of a tile."""
    runs: dict[str, int]
    """Role → how often that graph ran."""


def measure_rooflines(result: Result) -> tuple[Roofline, ...]:
    """Reads a sample of each stage's tiles again and runs its networks on one of them; takes a few seconds.

    The sample is read through a slide opened anew, so that no decoded tile is at hand; the file's bytes are in
    the system's memory by then, as they are for a disk that keeps up. Stages resumed from an earlier run are
    left out: their seconds are not those of their tiles.
    """
    totals = {row.stage: row.total for row in result.clock.seconds()}
    found = []
    with Networks(result.prepared.runtime, result.prepared.options.precision) as networks:
        for work in _works(result):
            reading, pixels = _reading_seconds(result, work, result.workers)
            inference = sum(
                count * _inference_seconds(networks, work.model, role, pixels, result.workers)
                for role, count in work.runs.items()
            )
            found.append(
                Roofline(work.stage, work.tiles, totals[work.stage], reading * work.tiles, inference)
            )
    return tuple(found)


def _works(result: Result) -> Iterator[_Work]:
    tumor, nuclei = result.tumor, result.nuclei
    if tumor is not None and tumor.tiles and not tumor.resumed:
        indices = np.flatnonzero(np.isfinite(tumor.heatmap.values).ravel()).tolist()
        runs = {"screen": tumor.screened, "patch": tumor.classified}
        yield _Work(
            "tumor",
            result.prepared.models["tumor"],
            tumor.frame,
            indices,
            len(indices),
            tumor.grid.read,
            {role: count for role, count in runs.items() if count},
        )
    if nuclei is not None and len(nuclei.indices) and not nuclei.resumed:
        model, grid = result.prepared.models["nuclei"], nuclei.grid
        graph = model.card.graph("segment")
        assert graph is not None
        step = graph.side_multiple_px
        tiles = len(nuclei.indices) + (0 if nuclei.elsewhere is None else nuclei.elsewhere.tiles)
        yield _Work(
            "nuclei",
            model,
            nuclei.frame,
            nuclei.indices.tolist(),
            tiles,
            lambda index: grid.read_inside(index, step),
            {"segment": tiles * (8 if result.prepared.options.thorough else 1)},
        )


def _reading_seconds(result: Result, work: _Work, workers: int) -> tuple[float, RgbImage]:
    """(seconds a tile with all workers, the pixels of one)."""
    slide = result.prepared.slide
    sampled = [
        work.indices[k] for k in range(0, len(work.indices), max(1, len(work.indices) // SAMPLED_TILES))
    ]
    fresh = slide if slide.path is None else open_slide(slide.path, mpp=result.prepared.mpp)
    try:
        with ThreadPoolExecutor(workers) as pool:
            started = time.perf_counter()
            pixels = list(
                pool.map(lambda index: read_mirrored(fresh, work.frame, work.box_of(index))[::64], sampled)
            )
            taken = time.perf_counter() - started
        return taken / len(pixels), read_mirrored(fresh, work.frame, work.box_of(sampled[len(sampled) // 2]))
    finally:
        if fresh is not slide:
            fresh.close()


def _inference_seconds(networks: Networks, model: Model, role: str, pixels: RgbImage, workers: int) -> float:
    """Seconds a tile with all workers, each running one tile after the other."""
    runtime, graph = networks.get(model, role, workers), model.card.graph(role)
    assert graph is not None
    inputs = {graph.inputs[0].name: pixels[None]}

    def run(until: float) -> int:
        count = 0
        while time.perf_counter() < until:
            runtime.run(inputs)
            count += 1
        return count

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(run, [time.perf_counter() + 0.1] * workers))
        started = time.perf_counter()
        counts = list(pool.map(run, [started + LEAST_SECONDS] * workers))
        taken = time.perf_counter() - started
    return taken / max(1, sum(counts))


_PARTS: tuple[tuple[str, Callable[..., float]], ...] = (
    ("read", lambda row: row.read),
    ("decode", lambda row: row.decode),
    ("infer", lambda row: row.infer),
    ("maps", lambda row: row.decode_maps),
)


def profile_lines(result: Result, rooflines: Sequence[Roofline]) -> tuple[str, ...]:
    """The table that ``--profile`` prints: seconds by stage and part, the cores' share in use, the limits."""
    workers = result.workers
    head = "".join(f"{name:>9}" for name, _ in _PARTS)
    lines = [
        f"{'seconds':<10}{'wall':>9}{head}   cores in use ({workers} workers; parts are summed over them)"
    ]
    for row in result.clock.seconds():
        parts = [value(row) for _, value in _PARTS]
        busy = "" if not sum(parts) else f"   {sum(parts) / max(row.total, 1e-9):.2f} of {workers}"
        cells = "".join(f"{part:>9.2f}" if part else f"{'':>9}" for part in parts)
        lines.append(f"{row.stage:<10}{row.total:>9.2f}{cells}{busy}")
    for line in rooflines:
        lines.append(
            f"{line.stage}: {line.tiles} tiles; alone on this machine reading takes {line.reading_seconds:.2f} s, "
            f"inference {line.inference_seconds:.2f} s; the stage took {line.took_seconds:.2f} s, "
            f"{line.took_seconds / max(line.best_seconds, 1e-9):.2f} × the larger"
        )
    if result.tumor is not None and result.tumor.refined is not None:
        lines.append(
            "  the tumor stage also holds the refinement of the whole map, once a slide: no tile's work"
        )
    return tuple(lines)
