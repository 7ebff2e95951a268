"""The stages of one slide: tissue, tumor region, nuclei. Each gives typed results; none writes a result file."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lobule.analysis.clock import Clock
from lobule.analysis.engine import Engine, TumorNetworks
from lobule.analysis.work import Records
from lobule.errors import InferenceError, LobuleError
from lobule.families.nuclei import decode_tile, inside
from lobule.families.tumor import (
    decode_patch,
    prepare_refinement,
    refinement_frame,
    tumor_mask,
    tumor_regions,
)
from lobule.findings.maps import ScalarMap, TumorRegion
from lobule.findings.nuclei import Nuclei
from lobule.geometry import Mpp, WorkingFrame
from lobule.inference.stream import in_order
from lobule.models.zoo import Model
from lobule.progress import Reporter
from lobule.runtimes import Runtime
from lobule.slides import Slide, read_overview, read_region, working_frame
from lobule.slides.slide import RgbImage
from lobule.tiles import TileGrid, select
from lobule.tissue import SHARP_FROM, StainJudgement, Tissue, find_tissue, judge_stain, sharpness

if TYPE_CHECKING:
    from shapely import Polygon

__all__ = [
    "NucleiOutcome",
    "TissueOutcome",
    "TumorOutcome",
    "find_tumor",
    "look_for_tissue",
    "measure_nuclei",
    "overview_frame",
    "too_coarse",
]

OVERVIEW_MPP = 8.0
"""The x1.25 level on which H2G-Net finds tissue."""
OVERVIEW_LONGEST_PX = (768, 5120)
"""A small field is looked at finer, a huge slide coarser, so that the overview has a useful size."""
COARSEST_RATIO = {"tumor": 1.3, "nuclei": 2.2}
"""How much coarser than a model's working mpp a slide may be and still be enlarged for it."""

_TILE = struct.Struct(
    "<ddd3d"
)  # P(tumor) by the screen, by the classifier (nan: not asked), sharpness, mean R, G, B

AUDIT_EVERY, LEAST_AUDITED = 32, 16
"""One in so many tiles, wherever they lie, goes through the classifier even if it is settled without; on a small
slide more of them, so that about LEAST_AUDITED do."""
AUDIT_TOLERANCE = 0.05
"""If more of these (and more than one) are judged otherwise by the classifier, every tile goes through it."""


@dataclass(frozen=True, eq=False)
class TissueOutcome:
    """The overview and what was seen on it."""

    overview: RgbImage
    frame: WorkingFrame
    tissue: Tissue
    stain: StainJudgement
    source: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class TumorOutcome:
    """Both stages' maps and the regions. ``refined`` is None where the model or the slide has no second stage."""

    heatmap: ScalarMap
    refined: ScalarMap | None
    decided_on: ScalarMap
    threshold: float
    mask: NDArray[np.bool_]
    regions: tuple[TumorRegion, ...]
    blurred: ScalarMap
    mean_rgb: tuple[float, float, float] | None
    tiles: int
    screened: int
    """Tiles that the screening network saw."""
    classified: int
    """Tiles that the patch classifier saw."""
    resumed: int
    grid: TileGrid
    frame: WorkingFrame
    runtime: str
    note: str | None


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


def too_coarse(family: str, slide_mpp: Mpp, model_mpp: float) -> str | None:
    """Why a slide has too few pixels for a model, or None."""
    allowed = COARSEST_RATIO[family] * model_mpp
    if slide_mpp.mean <= allowed:
        return None
    return (
        f"the slide has {slide_mpp.mean:.3g} µm/px, the model works at {model_mpp:g} µm/px and takes slides up to "
        f"{allowed:.3g}: too coarse"
    )


def overview_frame(slide: Slide, mpp: Mpp) -> WorkingFrame:
    """The frame of the overview: 8 µm/px, finer for a small field, coarser for a huge slide."""
    longest_um = max(slide.size[0] * mpp.x, slide.size[1] * mpp.y)
    low, high = OVERVIEW_LONGEST_PX
    side = min(max(OVERVIEW_MPP, longest_um / high), max(longest_um / low, mpp.x, mpp.y))
    return WorkingFrame(slide.size, mpp, Mpp(side, side))


def look_for_tissue(
    slide: Slide, mpp: Mpp, method: str, mask_file: Path | None, clock: Clock
) -> TissueOutcome:
    """Reads the overview, judges the stain and finds tissue (or takes it from a file)."""
    with clock.stage("tissue"):
        frame = overview_frame(slide, mpp)
        with clock.reading("tissue", slide), clock.part("tissue", "decode"):
            overview = read_overview(slide, frame)
        with clock.part("tissue", "decode_maps"):
            tissue = find_tissue(overview, frame.mpp.mean, method="otsu" if method == "otsu" else "hsv")
            source: str = tissue.method
            warnings = list(tissue.warnings)
            stain = judge_stain(overview, tissue.mask)
        if mask_file is not None:
            from dataclasses import replace

            from lobule.annotations import tissue_from_file

            warnings = []
            tissue = replace(
                tissue, mask=tissue_from_file(mask_file, frame, warn=warnings.append), warnings=()
            )
            source = f"file {mask_file.name}"
            if not tissue.mask.any():
                warnings.append(f"the mask {mask_file.name} marks nothing on this slide")
    return TissueOutcome(overview, frame, tissue, stain, source, tuple(warnings))


class _Tiles:
    """Reads tiles of one graph's grid and runs networks on them, each step timed."""

    def __init__(
        self, slide: Slide, model: Model, role: str, frame: WorkingFrame, clock: Clock, stage: str
    ) -> None:
        graph = model.card.graph(role)
        if graph is None:
            raise LobuleError(f"model {model.name} has no graph of role {role}")
        self.grid = TileGrid(frame.size, graph.tile_px, graph.halo_px)
        self._slide, self._model, self._frame = slide, model, frame
        self._clock, self._stage = clock, stage

    def read(self, index: int) -> RgbImage:
        """The pixels of the tile's read box."""
        with self._clock.part(self._stage, "decode"):
            return read_region(self._slide, self._frame, self.grid.read(index))

    def infer(self, runtime: Runtime, role: str, index: int, pixels: RgbImage) -> NDArray[np.generic]:
        """The first output of the model's graph of that role."""
        graph = self._model.card.graph(role)
        assert graph is not None
        with self._clock.part(self._stage, "infer"):
            try:
                outputs = runtime.run({graph.inputs[0].name: pixels[None]})
            except InferenceError as error:
                raise InferenceError(
                    f"{error} (tile {index})",
                    slide=str(self._slide.path),
                    tile=index,
                    runtime=runtime.kind,
                ) from error
        return outputs[graph.outputs[0].name]


@dataclass(frozen=True)
class _TumorTile:
    """What is known of one tile: P(tumor) by screen and classifier (nan: not asked), sharpness, mean RGB."""

    screened: float
    classified: float
    sharpness: float
    mean_rgb: tuple[float, float, float]

    def to_bytes(self) -> bytes:
        return _TILE.pack(self.screened, self.classified, self.sharpness, *self.mean_rgb)

    @staticmethod
    def from_bytes(record: bytes) -> _TumorTile:
        screened, classified, sharp, red, green, blue = _TILE.unpack(record)
        return _TumorTile(screened, classified, sharp, (red, green, blue))

    @property
    def probability(self) -> float:
        """The classifier's word where it was asked."""
        return self.screened if math.isnan(self.classified) else self.classified


def _mean_rgb(pixels: RgbImage) -> tuple[float, float, float]:
    # summed over rows first: long runs of bytes, where a mean over axes of three is twenty times as slow
    rows = pixels.reshape(pixels.shape[0], -1).sum(axis=0, dtype=np.uint32)
    red, green, blue = rows.reshape(-1, 3).sum(axis=0, dtype=np.uint64) / (pixels.size // 3)
    return float(red), float(green), float(blue)


class _TumorPass:
    """The pass over a slide's tiles: a small network settles the easy ones, the classifier judges the others."""

    def __init__(
        self, tiles: _Tiles, networks: TumorNetworks, model: Model, mpp: float, count: int, clock: Clock
    ) -> None:
        if networks.patch is None:
            raise LobuleError(f"model {model.name} has no patch graph")
        self._tiles, self._model, self._mpp, self._clock = tiles, model, mpp, clock
        self._patch, self._screen = networks.patch, networks.screen
        self._audit_every = min(AUDIT_EVERY, max(1, count // LEAST_AUDITED))

    def audited(self, index: int) -> bool:
        """Whether the tile is asked of both; by its number alone, scattered over the slide."""
        return zlib.crc32(index.to_bytes(8, "little")) % self._audit_every == 0

    def settled(self, screened: float) -> bool:
        """Whether the screen's word is enough."""
        thresholds = self._model.card.thresholds
        return screened <= thresholds["screen_low"] or screened >= thresholds["screen_high"]

    def look(self, index: int) -> bytes:
        """Reads and judges one tile; its record."""
        pixels = self._tiles.read(index)
        screened = math.nan
        if self._screen is not None:
            screened = decode_patch(
                self._model.name, self._tiles.infer(self._screen, "screen", index, pixels)
            )
        classified = math.nan
        if math.isnan(screened) or not self.settled(screened) or self.audited(index):
            classified = self._classify(index, pixels)
        with self._clock.part("tumor", "decode_maps"):
            return _TumorTile(
                screened, classified, sharpness(pixels, self._mpp), _mean_rgb(pixels)
            ).to_bytes()

    def look_again(self, index: int, known: _TumorTile) -> bytes:
        """Asks the classifier about a tile that was settled without it."""
        classified = self._classify(index, self._tiles.read(index))
        return _TumorTile(known.screened, classified, known.sharpness, known.mean_rgb).to_bytes()

    def _classify(self, index: int, pixels: RgbImage) -> float:
        return decode_patch(self._model.name, self._tiles.infer(self._patch, "patch", index, pixels))

    def misled(self, known: Iterable[_TumorTile]) -> tuple[int, int]:
        """(audited tiles, those of them that the classifier puts on the other side of its threshold)."""
        threshold = self._model.card.thresholds["patch"]
        both = [
            (tile.screened >= 0.5, tile.classified >= threshold)
            for tile in known
            if self.settled(tile.screened) and not math.isnan(tile.classified)
        ]
        return len(both), sum(screened != classified for screened, classified in both)


def find_tumor(
    slide: Slide,
    slide_id: str,
    seen: TissueOutcome,
    model: Model,
    engine: Engine,
    networks: Callable[[], TumorNetworks],
    *,
    records: Records,
    clock: Clock,
    reporter: Reporter,
) -> TumorOutcome:
    """Stage 1 over every tile with more than 25 % tissue, stage 2 over the whole slide, regions."""
    from lobule.annotations import polygons_from_mask

    graph = model.card.graph("patch")
    if graph is None or graph.mpp is None:
        raise LobuleError(f"model {model.name} has no patch graph with a working mpp")
    with clock.stage("tumor"):
        frame = working_frame(slide, graph.mpp)
        tiles = _Tiles(slide, model, "patch", frame, clock, "tumor")
        grid = tiles.grid
        kept = [int(index) for index in select(grid, seen.tissue.mask, seen.frame, frame, min_share=0.25)]
        opened = networks()
        over = _TumorPass(tiles, opened, model, frame.mpp.mean, len(kept), clock)
        todo = [index for index in kept if index not in records]
        resumed = len(kept) - len(todo)
        with clock.reading("tumor", slide), reporter.step(f"{slide_id}: tumor", len(todo)) as step:
            for index, payload in in_order(todo, over.look, workers=engine.workers):
                records.append(index, payload)
                step.advance()
        known = {index: _TumorTile.from_bytes(records.read(index)) for index in kept}
        screening = None
        if opened.screen is not None:
            screening = _finish_screening(over, known, records, engine.workers, slide_id, reporter)
        description = opened.patch.description if opened.patch is not None else ""
        opened.close()

        values = np.full((grid.rows, grid.columns), np.nan, np.float32)
        blurred = values.copy()
        for index, tile in known.items():
            place = grid.position(index)
            values[place] = tile.probability
            if math.isfinite(tile.sharpness):
                blurred[place] = tile.sharpness < SHARP_FROM
        colors = [tile.mean_rgb for tile in known.values()]
        cells = WorkingFrame(
            slide.size, frame.slide_mpp, Mpp(frame.mpp.x * grid.stride_px, frame.mpp.y * grid.stride_px)
        )
        heatmap, blur_map = ScalarMap(values, cells), ScalarMap(blurred, cells)

        refined, note = _refine(slide, heatmap, seen, model, engine, clock)
        decided = heatmap if refined is None else refined
        threshold = model.card.thresholds["patch" if refined is None else "refine"]
        mask = tumor_mask(decided, threshold)
        polygons = polygons_from_mask(mask)
        regions = tumor_regions(slide_id, decided, mask, polygons, blur_map)
    return TumorOutcome(
        heatmap=heatmap,
        refined=refined,
        decided_on=decided,
        threshold=threshold,
        mask=mask,
        regions=regions,
        blurred=blur_map,
        mean_rgb=tuple(np.mean(colors, 0)) if colors else None,
        tiles=len(kept),
        screened=sum(not math.isnan(tile.screened) for tile in known.values()),
        classified=sum(not math.isnan(tile.classified) for tile in known.values()),
        resumed=resumed,
        grid=grid,
        frame=frame,
        runtime=description,
        note="; ".join(part for part in (screening, note) if part) or None,
    )


def _finish_screening(
    over: _TumorPass,
    known: dict[int, _TumorTile],
    records: Records,
    workers: int,
    slide_id: str,
    reporter: Reporter,
) -> str:
    """Weighs the audit; where the screen does not know this slide, the classifier judges every tile after all."""
    audited, misled = over.misled(known.values())
    alone = [index for index, tile in known.items() if math.isnan(tile.classified)]
    if misled <= max(1, AUDIT_TOLERANCE * audited):
        return (
            f"{len(alone)} of {len(known)} tiles settled by the screening network; of {audited} audited, "
            f"the classifier judged {misled} otherwise"
        )
    with reporter.step(f"{slide_id}: tumor, every tile", len(alone)) as step:
        for index, payload in in_order(
            alone, lambda index: over.look_again(index, known[index]), workers=workers
        ):
            records.append(index, payload)
            known[index] = _TumorTile.from_bytes(payload)
            step.advance()
    return (
        f"the screening network does not know this slide (of {audited} audited tiles the classifier judged "
        f"{misled} otherwise): every tile went through the classifier"
    )


MIN_CELLS_TO_REFINE = 6


def _refine(
    slide: Slide, heatmap: ScalarMap, seen: TissueOutcome, model: Model, engine: Engine, clock: Clock
) -> tuple[ScalarMap | None, str | None]:
    """(stage 2's map, why there is none). Where there is neither tissue nor a judged tile the map is NaN."""
    graph = model.card.graph("refine")
    if graph is None:
        return None, "the model has no refinement stage: regions are the heatmap at its threshold"
    cells = int(np.isfinite(heatmap.values).sum())
    if cells < MIN_CELLS_TO_REFINE:
        return (
            None,
            f"only {cells} tiles hold tissue, too few to refine: regions are the heatmap at its threshold",
        )
    frame = refinement_frame(slide.size, heatmap.frame.slide_mpp, graph.tile_px)
    with clock.part("tumor", "decode"):
        overview = read_overview(slide, frame)
    with clock.part("tumor", "prepare"):
        inputs = prepare_refinement(overview, heatmap, frame, graph)
    # one picture a slide: a single worker's runtime, so that the numbers do not depend on how many there are
    runtime = engine.open(model, "refine", workers=1)
    assert runtime is not None
    with clock.part("tumor", "infer"):
        output = runtime.run(inputs)[graph.outputs[0].name]
    runtime.close()
    height, width = min(overview.shape[0], graph.tile_px), min(overview.shape[1], graph.tile_px)
    values = np.array(output[0, :height, :width], np.float32)
    judged = _at_centers(np.isfinite(heatmap.values), heatmap.frame, frame, (height, width))
    tissue = _at_centers(seen.tissue.mask, seen.frame, frame, (height, width))
    values[~(judged | tissue)] = np.nan
    return ScalarMap(values, frame), None


def _at_centers(
    mask: NDArray[np.bool_], of: WorkingFrame, frame: WorkingFrame, shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """The mask (on frame ``of``) at the pixel centers of ``frame``, (rows, columns)."""
    rows, columns = (
        np.minimum(
            ((np.arange(shape[axis]) + 0.5) * frame.scale[1 - axis] / of.scale[1 - axis]),
            mask.shape[axis] - 1,
        )
        for axis in (0, 1)
    )
    found: NDArray[np.bool_] = mask[rows.astype(np.intp)[:, None], columns.astype(np.intp)]
    return found


def measure_nuclei(
    slide: Slide,
    slide_id: str,
    polygons: tuple[Polygon, ...],
    where: str,
    model: Model,
    engine: Engine,
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
        tiles = _Tiles(slide, model, "segment", frame, clock, "nuclei")
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
        runtime = engine.open(model, "segment")
        assert runtime is not None
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
            for index, payload in in_order(todo, look, workers=engine.workers):
                records.append(index, payload)
                step.advance()
        runtime.close()

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
