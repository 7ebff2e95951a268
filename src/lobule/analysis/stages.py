"""What the stages of one slide share, and the first of them: tissue. Each gives typed results, none writes a file."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lobule.analysis.clock import Clock
from lobule.errors import InferenceError, LobuleError
from lobule.geometry import Box, Mpp, WorkingFrame
from lobule.models.card import Graph
from lobule.models.zoo import Model
from lobule.runtimes import Runtime
from lobule.slides import Slide, read_mirrored, read_overview
from lobule.slides.slide import RgbImage
from lobule.tiles import TileGrid
from lobule.tissue import StainJudgement, Tissue, TissueWarning, find_tissue, judge_stain

if TYPE_CHECKING:
    from shapely import Polygon

__all__ = [
    "StageTiles",
    "TissueOutcome",
    "grid_over",
    "look_at_slide",
    "look_for_tissue",
    "mirrored_share",
    "overview_frame",
    "too_coarse",
    "too_small",
]

OVERVIEW_MPP = 8.0
"""The x1.25 level on which H2G-Net finds tissue."""
OVERVIEW_LONGEST_PX = (768, 5120)
"""A small field is looked at finer, a huge slide coarser, so that the overview has a useful size."""
LEAST_SIDE_SHARE = 0.25
"""Of a tile's side that a slide must have to be judged: the rest of the tile is its mirror image."""
COARSEST_RATIO = {"tumor": 1.3, "nuclei": 2.2}
"""How much coarser than a model's working mpp a slide may be and still be enlarged for it."""


@dataclass(frozen=True, eq=False)
class TissueOutcome:
    """The overview and what was seen on it."""

    overview: RgbImage
    frame: WorkingFrame
    tissue: Tissue
    stain: StainJudgement
    source: str
    warnings: tuple[TissueWarning, ...]

    @cached_property
    def polygons(self) -> tuple[Polygon, ...]:
        """The tissue's parts in level-0 px, as far as there is slide, along the overview's pixels."""
        import shapely
        from shapely import affinity

        from lobule.annotations import polygons_from_mask

        sx, sy = self.frame.scale
        slide = shapely.box(0, 0, *self.frame.slide_size)
        placed = (
            affinity.scale(polygon, sx, sy, origin=(0, 0)).intersection(slide)
            for polygon in polygons_from_mask(self.tissue.mask)
        )
        return tuple(polygon for polygon in placed if polygon.area > 0)

    @cached_property
    def mean_rgb(self) -> NDArray[np.float64] | None:
        """The mean color of the tissue, R G B in 0..255, of about a million of the overview's pixels; None without."""
        step = math.ceil((self.tissue.mask.size / 1e6) ** 0.5)
        shown = self.overview[::step, ::step][self.tissue.mask[::step, ::step]]
        return shown.mean(axis=0) if len(shown) else None

    @property
    def area_mm2(self) -> float:
        """The area of the tissue. The overview's last row and column count as far as there is slide."""
        mask = self.tissue.mask
        cells = np.count_nonzero(mask, axis=1).astype(np.float64)
        beyond = [
            1 - min(1.0, size / step - (count - 1))
            for size, step, count in zip(
                self.frame.slide_size, self.frame.scale, mask.shape[::-1], strict=True
            )
        ]
        cells -= beyond[0] * mask[:, -1]
        cells[-1] *= 1 - beyond[1]
        return float(cells.sum()) * self.frame.mpp.pixel_area_um2 / 1e6


def too_coarse(family: str, slide_mpp: Mpp, model_mpp: float) -> str | None:
    """Why a slide has too few pixels for a model, or None."""
    allowed = COARSEST_RATIO[family] * model_mpp
    coarser = max(slide_mpp.x, slide_mpp.y)
    if coarser <= allowed:
        return None
    one_way = "" if slide_mpp.x == slide_mpp.y else " one way"
    return (
        f"the slide has {coarser:.3g} µm/px{one_way}, the model works at {model_mpp:g} µm/px and takes slides up to "
        f"{allowed:.3g}: too coarse"
    )


def mirrored_share(size_px: tuple[int, int], mpp: Mpp, graph: Graph) -> float:
    """The share of a tile that is mirror image where the slide is smaller than the tile; 0 for larger ones."""
    assert graph.mpp is not None
    tile_um = graph.tile_px * graph.mpp
    seen = [min(1.0, size * um / tile_um) for size, um in zip(size_px, (mpp.x, mpp.y), strict=True)]
    return 1 - seen[0] * seen[1]


def too_small(size_px: tuple[int, int], mpp: Mpp, graph: Graph) -> str | None:
    """Why a slide holds too little of one of the graph's tiles to be judged, or None."""
    assert graph.mpp is not None
    tile_um = graph.tile_px * graph.mpp
    sides_um = size_px[0] * mpp.x, size_px[1] * mpp.y
    if min(sides_um) >= LEAST_SIDE_SHARE * tile_um:
        return None
    return (
        f"the image measures {sides_um[0]:,.0f} × {sides_um[1]:,.0f} µm and the model judges tiles of "
        f"{tile_um:.3g} µm: too small"
    )


def overview_frame(slide: Slide, mpp: Mpp) -> WorkingFrame:
    """The frame of the overview: 8 µm/px, finer for a small field, coarser for a huge slide."""
    longest_um = max(slide.size[0] * mpp.x, slide.size[1] * mpp.y)
    low, high = OVERVIEW_LONGEST_PX
    side = min(max(OVERVIEW_MPP, longest_um / high), max(longest_um / low, mpp.x, mpp.y))
    return WorkingFrame(slide.size, mpp, Mpp(side, side))


def look_at_slide(slide: Slide, mpp: Mpp, workers: int, clock: Clock) -> tuple[RgbImage, WorkingFrame]:
    """The overview and its frame."""
    frame = overview_frame(slide, mpp)
    with clock.stage("tissue"), clock.reading("tissue", slide), clock.part("tissue", "decode"):
        return read_overview(slide, frame, workers), frame


def look_for_tissue(
    overview: RgbImage,
    frame: WorkingFrame,
    method: str,
    mask_file: Path | None,
    bounds: Box | None,
    clock: Clock,
) -> TissueOutcome:
    """Judges the stain and finds tissue on the overview (or takes it from a file).

    ``bounds`` are the slide's, from whose corner QuPath's GeoJSON counts.
    """
    with clock.stage("tissue"), clock.part("tissue", "decode_maps"):
        tissue = find_tissue(overview, frame.mpp.mean, method="otsu" if method == "otsu" else "hsv")
        source: str = tissue.method
        warnings = list(tissue.warnings)
        stain = judge_stain(overview, tissue.mask)
        if mask_file is not None:
            from lobule.annotations import tissue_from_file

            warnings = []
            origin = (0, 0) if bounds is None else (bounds.x0, bounds.y0)
            told: list[str] = []
            mask = tissue_from_file(mask_file, frame, geojson_origin_px=origin, warn=told.append)
            tissue = replace(tissue, mask=mask, warnings=())
            source = f"file {mask_file.name}"
            if not tissue.mask.any():
                told.append(f"the mask {mask_file.name} marks nothing on this slide")
            warnings += [TissueWarning("tissue", text) for text in told]
    return TissueOutcome(overview, frame, tissue, stain, source, tuple(warnings))


def grid_over(frame: WorkingFrame, graph: Graph) -> TileGrid:
    """The graph's grid over a frame: one tile without a halo where that holds all of it."""
    whole = max(frame.size) <= graph.tile_px
    return TileGrid(frame.size, graph.tile_px, 0 if whole else graph.halo_px)


class StageTiles:
    """Reads tiles of one graph's grid and runs networks on them, each step timed."""

    def __init__(
        self, slide: Slide, model: Model, role: str, frame: WorkingFrame, clock: Clock, stage: str
    ) -> None:
        graph = model.card.graph(role)
        if graph is None:
            raise LobuleError(f"model {model.name} has no graph of role {role}")
        self.grid = grid_over(frame, graph)
        self._side_step = graph.side_multiple_px
        self._slide, self._model, self._frame = slide, model, frame
        self._clock, self._stage = clock, stage

    def read(self, index: int) -> RgbImage:
        """The pixels of the tile's read box; beyond the slide its mirror image, for a field may be a part of a tile."""
        with self._clock.part(self._stage, "decode"):
            return read_mirrored(self._slide, self._frame, self.grid.read(index))

    def read_inside(self, index: int) -> tuple[Box, RgbImage]:
        """The part of the slide that a network looks at for the tile, and its pixels.

        It ends where the slide does: a field's edge is a cut through tissue, and networks know the ends of their
        input from training, where crops are such cuts. What its sides exceed the slide by is mirrored.
        """
        box = self.grid.read_inside(index, self._side_step)
        with self._clock.part(self._stage, "decode"):
            return box, read_mirrored(self._slide, self._frame, box)

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
