"""The tumor stage: a pass over the tiles, easy ones settled by a small network, then the whole slide at once."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lobule.analysis.clock import Clock
from lobule.analysis.networks import Networks
from lobule.analysis.stages import StageTiles, TissueOutcome
from lobule.analysis.work import Records
from lobule.errors import LobuleError, SlideReadError
from lobule.families.tumor import (
    decode_patch,
    prepare_refinement,
    refinement_frame,
    tumor_mask,
    tumor_regions,
)
from lobule.findings.maps import ScalarMap, TumorRegion
from lobule.geometry import Mpp, WorkingFrame
from lobule.inference.stream import in_order
from lobule.models.zoo import Model
from lobule.progress import Reporter
from lobule.runtimes import Runtime
from lobule.slides import Slide, read_overview, working_frame
from lobule.slides.slide import RgbImage
from lobule.tiles import TileGrid, select
from lobule.tissue import SHARP_FROM, saturation_value, sharpness

if TYPE_CHECKING:
    from shapely import Geometry

__all__ = ["TumorOutcome", "TumorPass", "find_tumor"]

MIN_TISSUE_SHARE = 0.25
"""Tiles with more tissue are looked at (H2G-Net)."""
SURE_SHARE, SURE_SATURATION = 0.6, 20
"""Tiles so full of colored pixels are looked at while tissue is still being found; see `TumorPass.begin`."""
PROBED_TILES, LEAST_SETTLED = 48, 0.2
"""If the screen settles a smaller share of so many tiles spread over the slide, it is left out: it would cost more
than it saves."""
AUDIT_SHARE, LEAST_AUDITED = 1 / 32, 16
"""Of the tiles settled without the classifier so many are given to it, too."""
AUDIT_TOLERANCE = 0.05
"""If it judges more of these otherwise (and more than one), every tile goes through it."""
TILES_TOGETHER, LEAST_TURNS = 12, 4
"""So many tiles a worker takes at a time and measures their sharpness in one go, or fewer, for so many turns each."""
MIN_CELLS_TO_REFINE = 6

_TILE = struct.Struct("<ddd")


@dataclass(frozen=True, eq=False)
class TumorOutcome:
    """Both stages' maps and the regions. ``refined`` is None where the model or the slide has no second stage."""

    heatmap: ScalarMap
    refined: ScalarMap | None
    decided_on: ScalarMap
    threshold: float
    within: Geometry | None
    """What bounds the regions (level-0 px), where a user has drawn it."""
    mask: NDArray[np.bool_]
    regions: tuple[TumorRegion, ...]
    blurred: ScalarMap
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


@dataclass(frozen=True)
class TumorTile:
    """What is known of one tile: P(tumor) by screen and by classifier (nan: not asked), sharpness."""

    screened: float
    classified: float
    sharpness: float

    def to_bytes(self) -> bytes:
        return _TILE.pack(self.screened, self.classified, self.sharpness)

    @staticmethod
    def from_bytes(record: bytes) -> TumorTile:
        return TumorTile(*_TILE.unpack(record))

    @property
    def probability(self) -> float:
        """The classifier's word where it was asked."""
        return self.screened if math.isnan(self.classified) else self.classified


class TumorPass:
    """The pass over a slide's tiles: a small network settles the easy ones, the classifier judges the others.

    What a tile gives does not depend on when it is looked at or which tiles are looked at beside it.
    """

    def __init__(
        self, slide: Slide, model: Model, networks: Networks, workers: int, *, thorough: bool, clock: Clock
    ) -> None:
        graph = model.card.graph("patch")
        if graph is None or graph.mpp is None:
            raise LobuleError(f"model {model.name} has no patch graph with a working mpp")
        self.model = model
        self.frame = working_frame(slide, graph.mpp)
        self._tiles = StageTiles(slide, model, "patch", self.frame, clock, "tumor")
        self.grid = self._tiles.grid
        self._slide, self._workers, self._clock = slide, workers, clock
        self._patch: Runtime = networks.get(model, "patch", workers)
        screened = model.card.graph("screen") is not None and not thorough
        self._screen = networks.get(model, "screen", workers) if screened else None
        self.runtime = self._patch.description
        self._probed = False
        self.screening: str | None = None
        """Why a screen that the model has is not used."""
        if model.card.graph("screen") is not None and thorough:
            self.screening = "the screening network was left out as asked"

    @property
    def screens(self) -> bool:
        """Whether a screening network settles easy tiles."""
        return self._screen is not None

    def probe(self, indices: Sequence[int]) -> dict[int, bytes]:
        """Looks at a sample of the tiles and leaves the screen out where it settles too few of them.

        Which tiles are probed depends on the slide alone, and what it settled before it was left out is looked at
        again: results do not depend on when the screen was given up. Returns the records that stay good.
        """
        count = min(PROBED_TILES, len(indices))
        if self._screen is None or self._probed or count == 0:
            return {}
        probed = [indices[k * len(indices) // count] for k in range(count)]
        records = dict(self._looked(probed, count))
        self._probed = True
        settled = [index for index in probed if self.settled(TumorTile.from_bytes(records[index]))]
        if len(settled) < LEAST_SETTLED * count:
            self._screen = None
            self.screening = (
                f"the screening network was left out: it settled {len(settled)} of {count} probed tiles"
            )
            # without the screen's word a record is that of a pass without a screen
            return {
                index: replace(TumorTile.from_bytes(record), screened=math.nan).to_bytes()
                for index, record in records.items()
                if index not in settled
            }
        return records

    def begin(
        self, overview: RgbImage, frame: WorkingFrame, *, until: Callable[[], bool]
    ) -> dict[int, bytes]:
        """Looks at tiles full of color until ``until()``: the cores need not wait until tissue is found.

        Returns their records. A few may turn out not to be tissue (a marker): nobody will ask for them.
        """
        # a quarter of the pixels tells as much, and the first tile waits for it
        sparse = WorkingFrame(frame.slide_size, frame.slide_mpp, Mpp(2 * frame.mpp.x, 2 * frame.mpp.y))
        width, height = sparse.size
        saturation, _ = saturation_value(overview[::2, ::2][:height, :width])
        sure = select(self.grid, saturation >= SURE_SATURATION, sparse, self.frame, min_share=SURE_SHARE)

        def while_waiting() -> Iterator[int]:
            for index in sure.tolist():
                if until():
                    return
                if index not in records:
                    yield index

        records: dict[int, bytes] = {}
        with self._clock.stage("tumor"), self._clock.reading("tumor", self._slide):
            try:
                records |= self.probe(sure.tolist())
                for index, payload in self._looked(while_waiting(), len(sure)):
                    records[index] = payload
            except SlideReadError:
                # perhaps of a tile that nobody will ask for: one that is wanted is read again, and fails there
                pass
        return records

    def run(self, indices: Sequence[int], records: Records, reporter: Reporter, label: str) -> None:
        """Looks at the tiles and keeps their records."""
        with self._clock.reading("tumor", self._slide), reporter.step(label, len(indices)) as step:
            for index, payload in self._looked(indices, len(indices)):
                records.append(index, payload)
                step.advance()

    def classify(
        self,
        indices: Sequence[int],
        known: dict[int, TumorTile],
        records: Records,
        reporter: Reporter,
        label: str,
    ) -> None:
        """Asks the classifier about tiles that were settled without it; ``known`` and records learn its word."""

        def look_again(index: int) -> bytes:
            probability = self._probability(self._patch, "patch", index, self._tiles.read(index))
            return replace(known[index], classified=probability).to_bytes()

        asked = [index for index in indices if math.isnan(known[index].classified)]
        with self._clock.reading("tumor", self._slide), reporter.step(label, len(asked)) as step:
            for index, payload in in_order(asked, look_again, workers=self._workers):
                records.append(index, payload)
                known[index] = TumorTile.from_bytes(payload)
                step.advance()

    def settled(self, tile: TumorTile) -> bool:
        """Whether the screen's word was enough."""
        thresholds = self.model.card.thresholds
        return tile.screened <= thresholds["screen_low"] or tile.screened >= thresholds["screen_high"]

    def _looked(self, indices: Iterable[int], count: int) -> Iterator[tuple[int, bytes]]:
        """The tiles, at most ``count``, with their records, in order."""
        together = max(1, min(TILES_TOGETHER, count // (LEAST_TURNS * self._workers)))
        waiting = iter(indices)
        groups = iter(lambda: tuple(islice(waiting, together)), ())
        for group, records in in_order(groups, self._look, workers=self._workers):
            yield from zip(group, records, strict=True)

    def _look(self, indices: Sequence[int]) -> list[bytes]:
        tiles = [self._tiles.read(index) for index in indices]
        screened = [math.nan] * len(indices)
        if self._screen is not None:
            screened = [
                self._probability(self._screen, "screen", index, pixels)
                for index, pixels in zip(indices, tiles, strict=True)
            ]
        with self._clock.part("tumor", "decode_maps"):
            sharp = sharpness(tiles, self.frame.mpp.mean).tolist()
        records = []
        for index, pixels, word, focus in zip(indices, tiles, screened, sharp, strict=True):
            tile = TumorTile(word, math.nan, focus)
            if math.isnan(tile.screened) or not self.settled(tile):
                tile = replace(tile, classified=self._probability(self._patch, "patch", index, pixels))
            records.append(tile.to_bytes())
        return records

    def _probability(self, network: Runtime, role: str, index: int, pixels: RgbImage) -> float:
        return decode_patch(self.model.name, self._tiles.infer(network, role, index, pixels))


def find_tumor(
    slide: Slide,
    slide_id: str,
    seen: TissueOutcome,
    over: TumorPass,
    begun: Mapping[int, bytes],
    networks: Networks,
    *,
    within: Geometry | None,
    records: Records,
    clock: Clock,
    reporter: Reporter,
) -> TumorOutcome:
    """Stage 1 over every tile with more than 25 % tissue, stage 2 over the whole slide, regions.

    ``begun`` holds records of tiles that were looked at ahead (`TumorPass.begin`). ``within`` bounds the regions
    (level-0 px): tiles reach beyond the tissue that a user has drawn.
    """
    from lobule.annotations import polygons_from_mask

    model, frame, grid = over.model, over.frame, over.grid
    with clock.stage("tumor"):
        shown = select(grid, seen.tissue.mask, seen.frame, frame, min_share=MIN_TISSUE_SHARE)
        kept: list[int] = shown.tolist()
        resumed = sum(index in records for index in kept)
        if model.card.graph("refine") is not None and len(kept) >= MIN_CELLS_TO_REFINE:
            networks.start(model, "refine", 1)
        # tiles that were looked at ahead include the probe; where none were, it is made here
        begun = {**begun, **over.probe([index for index in kept if index not in begun])}
        for index in kept:
            if index not in records and index in begun:
                records.append(index, begun[index])
        with ThreadPoolExecutor(1, thread_name_prefix="lobule-refine") as ahead:
            # stage 2's picture is read while the tiles are looked at: afterwards one core would do it alone
            overview = ahead.submit(_refinement_overview, slide, model, frame.slide_mpp, len(kept), clock)
            over.run(
                [index for index in kept if index not in records], records, reporter, f"{slide_id}: tumor"
            )
        known = {index: TumorTile.from_bytes(records.read(index)) for index in kept}
        screening = _audit(over, known, records, reporter, slide_id) if over.screens else over.screening

        values = np.full((grid.rows, grid.columns), np.nan, np.float32)
        blurred = values.copy()
        for index, tile in known.items():
            place = grid.position(index)
            values[place] = tile.probability
            if math.isfinite(tile.sharpness):
                blurred[place] = tile.sharpness < SHARP_FROM
        cells = WorkingFrame(
            slide.size, frame.slide_mpp, Mpp(frame.mpp.x * grid.stride_px, frame.mpp.y * grid.stride_px)
        )
        heatmap, blur_map = ScalarMap(values, cells), ScalarMap(blurred, cells)

        refined, note = _refine(overview.result(), heatmap, seen, model, networks, clock)
        decided = heatmap if refined is None else refined
        threshold = model.card.thresholds["patch" if refined is None else "refine"]
        mask = tumor_mask(decided, threshold)
        polygons = polygons_from_mask(mask)
        regions = tumor_regions(slide_id, decided, mask, polygons, blur_map, within)
    return TumorOutcome(
        heatmap=heatmap,
        refined=refined,
        decided_on=decided,
        threshold=threshold,
        within=within,
        mask=mask,
        regions=regions,
        blurred=blur_map,
        tiles=len(kept),
        screened=sum(not math.isnan(tile.screened) for tile in known.values()),
        classified=sum(not math.isnan(tile.classified) for tile in known.values()),
        resumed=resumed,
        grid=grid,
        frame=frame,
        runtime=over.runtime,
        note="; ".join(part for part in (screening, note) if part) or None,
    )


def _audit(
    over: TumorPass, known: dict[int, TumorTile], records: Records, reporter: Reporter, slide_id: str
) -> str:
    """Gives a sample of the settled tiles to the classifier, all of them where the screen does not know the slide."""
    settled = [index for index, tile in known.items() if over.settled(tile)]
    count = min(len(settled), max(LEAST_AUDITED, round(AUDIT_SHARE * len(settled))))
    audited = [settled[k * len(settled) // count] for k in range(count)]
    over.classify(audited, known, records, reporter, f"{slide_id}: tumor, audit")
    threshold = over.model.card.thresholds["patch"]
    misled = sum(
        (known[index].screened >= 0.5) != (known[index].classified >= threshold) for index in audited
    )
    found = f"of {count} audited, the classifier judged {misled} otherwise"
    if misled <= max(1, AUDIT_TOLERANCE * count):
        return f"{len(settled)} of {len(known)} tiles settled by the screening network; {found}"
    over.classify(settled, known, records, reporter, f"{slide_id}: tumor, every tile")
    return f"the screening network does not know this slide ({found}): every tile went through the classifier"


def _refinement_overview(slide: Slide, model: Model, mpp: Mpp, tiles: int, clock: Clock) -> RgbImage | None:
    """The slide as stage 2 sees it; None where there will be no stage 2."""
    graph = model.card.graph("refine")
    if graph is None or tiles < MIN_CELLS_TO_REFINE:
        return None
    with clock.part("tumor", "decode"):
        return read_overview(slide, refinement_frame(slide.size, mpp, graph.tile_px, graph.fit or "pad"))


def _refine(
    overview: RgbImage | None,
    heatmap: ScalarMap,
    seen: TissueOutcome,
    model: Model,
    networks: Networks,
    clock: Clock,
) -> tuple[ScalarMap | None, str | None]:
    """(stage 2's map, why there is none). Where there is neither tissue nor a judged tile the map is NaN."""
    graph = model.card.graph("refine")
    if graph is None:
        return None, "the model has no refinement stage: regions are the heatmap at its threshold"
    if overview is None:
        cells = int(np.isfinite(heatmap.values).sum())
        return (
            None,
            f"too few tiles hold tissue to refine ({cells}): regions are the heatmap at its threshold",
        )
    frame = refinement_frame(
        heatmap.frame.slide_size, heatmap.frame.slide_mpp, graph.tile_px, graph.fit or "pad"
    )
    with clock.part("tumor", "prepare"):
        inputs = prepare_refinement(overview, heatmap, frame, graph)
    # one picture a slide: one run at a time, whose threads do not depend on how many workers there are
    runtime = networks.get(model, "refine", 1)
    with clock.part("tumor", "infer"):
        output = runtime.run(inputs)[graph.outputs[0].name]
    # the memory of one picture of this size is more than that of all tiles at work
    networks.release(model, "refine", 1)
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
