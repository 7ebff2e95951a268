"""The nuclei stage: tiles spread over a region, each nucleus owned by one of them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lobule.analysis.clock import Clock
from lobule.analysis.networks import Networks
from lobule.analysis.stages import StageTiles
from lobule.analysis.work import Records
from lobule.errors import LobuleError
from lobule.families.nuclei import decode_tile, inside
from lobule.findings.nuclei import Nuclei
from lobule.geometry import Mpp, WorkingFrame
from lobule.inference.stream import in_order
from lobule.models.zoo import Model
from lobule.progress import Reporter
from lobule.slides import Slide, working_frame
from lobule.tiles import TileGrid, select

if TYPE_CHECKING:
    from shapely import Polygon

__all__ = ["NucleiOutcome", "measure_nuclei"]


@dataclass(frozen=True, eq=False)
class NucleiOutcome:
    """The nuclei, tile by tile. ``tile_counts`` and ``tile_area_mm2`` are per looked-at tile, in grid order."""

    batches: Callable[[], Iterator[Nuclei]]
    indices: NDArray[np.int64]
    candidates: int
    tile_counts: NDArray[np.int64]
    tile_area_mm2: NDArray[np.float64]
    grid: TileGrid
    frame: WorkingFrame
    resumed: int
    runtime: str
    where: str


def measure_nuclei(
    slide: Slide,
    slide_id: str,
    polygons: tuple[Polygon, ...],
    where: str,
    model: Model,
    networks: Networks,
    workers: int,
    *,
    limit: int | None,
    records: Records,
    clock: Clock,
    reporter: Reporter,
) -> NucleiOutcome:
    """Nuclei whose centroid lies in ``polygons`` (level-0 px), on at most ``limit`` tiles spread evenly over them."""
    import shapely

    from lobule.annotations import rasterize

    graph = model.card.graph("segment")
    if graph is None or graph.mpp is None:
        raise LobuleError(f"model {model.name} has no segment graph with a working mpp")
    with clock.stage("nuclei"):
        frame = working_frame(slide, graph.mpp)
        tiles = StageTiles(slide, model, "segment", frame, clock, "nuclei")
        grid = tiles.grid
        region = shapely.union_all(polygons)
        # a sample is taken from tiles half covered by the region; a region smaller than that keeps what it touches
        coarse = WorkingFrame(
            slide.size,
            frame.slide_mpp,
            Mpp(frame.mpp.x * grid.stride_px / 8, frame.mpp.y * grid.stride_px / 8),
        )
        mask = rasterize(list(polygons), coarse)
        candidates = select(grid, mask, coarse, frame, min_share=0.0)
        if limit is not None and len(half := select(grid, mask, coarse, frame, min_share=0.5)):
            candidates = half
        chosen = _spread(candidates, limit)
        runtime = networks.get(model, "segment", workers)
        shapely.prepare(region)

        def look(index: int) -> bytes:
            pixels = tiles.read(index)
            output = tiles.infer(runtime, "segment", index, pixels)
            with clock.part("nuclei", "decode_maps"):
                nuclei = decode_tile(
                    model.card, output, pixels, read=grid.read(index), kept=grid.kept(index), frame=frame
                )
                x, y = nuclei.centroid_px.T
                return zlib.compress(inside(nuclei, shapely.contains_xy(region, x, y)).to_bytes(), 1)

        todo = [int(index) for index in chosen if int(index) not in records]
        with clock.reading("nuclei", slide), reporter.step(f"{slide_id}: nuclei", len(todo)) as step:
            for index, payload in in_order(todo, look, workers=workers):
                records.append(index, payload)
                step.advance()

        def batches() -> Iterator[Nuclei]:
            for index in chosen:
                yield Nuclei.from_bytes(zlib.decompress(records.read(int(index))))

        sx, sy = frame.scale
        boxes = [grid.kept(int(index)) for index in chosen]
        pieces = shapely.box(
            *(np.array([[b.x0 * sx, b.y0 * sy, b.x1 * sx, b.y1 * sy] for b in boxes]).T.reshape(4, -1))
        )
        area_mm2 = shapely.area(shapely.intersection(region, pieces)) * frame.slide_mpp.pixel_area_um2 / 1e6
        counts = np.array([len(batch) for batch in batches()], np.int64)
    return NucleiOutcome(
        batches=batches,
        indices=chosen,
        candidates=len(candidates),
        tile_counts=counts,
        tile_area_mm2=np.asarray(area_mm2, np.float64),
        grid=grid,
        frame=frame,
        resumed=len(chosen) - len(todo),
        runtime=runtime.description,
        where=where,
    )


def _spread(candidates: NDArray[np.int64], limit: int | None) -> NDArray[np.int64]:
    """At most ``limit`` of the candidates, at even steps through their order."""
    if limit is None or len(candidates) <= limit:
        return candidates
    chosen: NDArray[np.int64] = candidates[
        ((np.arange(limit) + 0.5) * len(candidates) / limit).astype(np.int64)
    ]
    return chosen
