"""How a screened pass agrees with the plain one on composed slides, and the thresholds that keep it so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lobule.evaluation.interval import bootstrap
from lobule.evaluation.pixels import MaskCounts, count_mask
from lobule.families.tumor import heatmap_on_grid, refinement_frame, tumor_mask
from lobule.findings.maps import ScalarMap
from lobule.geometry import Mpp
from lobule.models.card import Score
from lobule.training.bach import FieldImage
from lobule.training.composed import Frame, at_working_mpp, compose_slide, cut_tiles, frame_of, map_of
from lobule.training.recipe import ScreenRecipe
from lobule.training.score import score_of

__all__ = [
    "Agreement",
    "ScreenedSlide",
    "agreement_scores",
    "choose_thresholds",
    "compare",
    "compose_screened",
    "odds",
    "recalibrated",
]

Floats = NDArray[np.float32]
Classify = Callable[[NDArray[np.uint8]], Floats]
Refine = Callable[[Frame], Floats]
"""A frame → the refined probability of tumor (h, w)."""

FEWEST_CELLS = 6
"""A slide of fewer tiles is not refined when it is analyzed: its regions are the heatmap at its threshold."""


def odds(probability: Floats) -> NDArray[np.float64]:
    """Returns the logarithms of the odds of probabilities (N,), within ±14."""
    inside = np.clip(probability.astype(np.float64), 1e-6, 1 - 1e-6)
    return np.log(inside / (1 - inside))


def recalibrated(probability: Floats, scale: float, shift: float) -> Floats:
    """Returns probabilities (N,) with their log odds scaled and shifted."""
    return (1 / (1 + np.exp(-(scale * odds(probability) + shift)))).astype(np.float32)


@dataclass(frozen=True, eq=False)
class ScreenedSlide:
    """A composed slide as both networks see it.

    ``frame`` carries the patch network's heatmap; ``spots`` (N, 2), ``patch`` (N,) and ``screen`` (N,) are its
    tiles with tissue and the two networks' probabilities.
    """

    frame: Frame
    size: tuple[int, int]
    tile_px: int
    spots: NDArray[np.intp]
    patch: Floats
    screen: Floats

    def settled(self, low: float, high: float) -> NDArray[np.bool_]:
        """Which tiles the screen settles (N,)."""
        return (self.screen <= low) | (self.screen >= high)

    def regions(
        self, values: Floats, refine: Refine, thresholds: dict[str, float], size_px: int
    ) -> NDArray[np.bool_]:
        """Returns the tumor mask of tile values (N,) as an analysis makes it, (h, w) of the frame."""
        heat = map_of(self.spots, values, self.size, self.tile_px)
        grid = refinement_frame(self.size, Mpp(1.0, 1.0), size_px)
        if len(self.spots) < FEWEST_CELLS:
            mask = tumor_mask(heat, thresholds["patch"])
            height, width = self.frame.truth.shape
            scale = max(self.size) / size_px / self.tile_px
            rows = ((np.arange(height) + 0.5) * scale).astype(int).clip(max=mask.shape[0] - 1)
            columns = ((np.arange(width) + 0.5) * scale).astype(int).clip(max=mask.shape[1] - 1)
            return np.asarray(mask[rows[:, None], columns], np.bool_)
        shape = (self.frame.truth.shape[0], self.frame.truth.shape[1])
        guided = replace(self.frame, heatmap=heatmap_on_grid(heat, grid, shape))
        return tumor_mask(ScalarMap(refine(guided), grid), thresholds["refine"])


def compose_screened(
    recipe: ScreenRecipe,
    fields: Sequence[FieldImage],
    patch: Classify,
    screen: Classify,
    size_px: int,
    seed: int,
) -> list[ScreenedSlide]:
    """Returns ``recipe.slides`` slides composed of fields, judged by both networks; slides without tissue left out."""
    scaled = at_working_mpp(fields, recipe.field_mpp, recipe.mpp)
    out = []
    for number in range(recipe.slides):
        rng = np.random.default_rng([seed, number])
        pixels, tumor = compose_slide(scaled, recipe.compose, rng)
        spots, tiles = cut_tiles(pixels, recipe.tile_px, recipe.min_tissue)
        if not len(tiles):
            continue
        judged = patch(tiles)
        frame = frame_of(pixels, tumor, lambda _, p=judged: p, recipe.tile_px, recipe.min_tissue, size_px)  # type: ignore[misc]
        size = (pixels.shape[1], pixels.shape[0])
        out.append(ScreenedSlide(frame, size, recipe.tile_px, spots, judged, screen(tiles)))
    return out


@dataclass(frozen=True, eq=False)
class Agreement:
    """How a screened pass compares with the plain one at one pair of thresholds, slide by slide."""

    low: float
    high: float
    tiles: NDArray[np.int64]
    settled: NDArray[np.int64]
    same_side: NDArray[np.int64]
    """Settled tiles that the patch network puts on the same side of its own threshold."""
    counts: tuple[MaskCounts, ...]
    """Regions of the plain pass (as truth) against those of the screened one."""

    def share(self, at: NDArray[np.intp]) -> float:
        """Share of the tiles of slides ``at`` that are settled."""
        return float(self.settled[at].sum() / max(1, self.tiles[at].sum()))

    def sides(self, at: NDArray[np.intp]) -> float:
        """Share of settled tiles on the same side; 1 where none is settled."""
        settled = self.settled[at].sum()
        return float(self.same_side[at].sum() / settled) if settled else 1.0

    def pooled(self, at: NDArray[np.intp]) -> float:
        """DSC of the regions of all slides together."""
        return sum((self.counts[k] for k in at), MaskCounts(0, 0, 0, 0)).dice

    def mean(self, at: NDArray[np.intp]) -> float:
        """Mean of the slides' DSC."""
        return float(np.mean([self.counts[k].dice for k in at]))

    @property
    def all(self) -> NDArray[np.intp]:
        """Every slide."""
        return np.arange(len(self.counts))


def compare(
    slides: Sequence[ScreenedSlide],
    plain: Sequence[NDArray[np.bool_]],
    refine: Refine,
    thresholds: dict[str, float],
    size_px: int,
    low: float,
    high: float,
) -> Agreement:
    """Returns the agreement of a pass screened at ``low`` and ``high`` with the plain pass's regions."""
    counts, settled, same = [], [], []
    for slide, regions in zip(slides, plain, strict=True):
        easy = slide.settled(low, high)
        values = np.where(easy, slide.screen, slide.patch)
        mask = slide.regions(values, refine, thresholds, size_px) if easy.any() else regions
        counts.append(count_mask(regions, mask))
        settled.append(int(easy.sum()))
        called = slide.patch >= thresholds["patch"]
        same.append(int((called == (slide.screen >= thresholds["patch"]))[easy].sum()))
    tiles = np.array([len(slide.patch) for slide in slides])
    return Agreement(low, high, tiles, np.array(settled), np.array(same), tuple(counts))


LOWS = (0.03, 0.05, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3)
HIGHS = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55)


def choose_thresholds(
    try_: Callable[[float, float], Agreement], agreement: float, patch_threshold: float
) -> list[Agreement]:
    """Returns the pairs that were tried, the chosen one last: the most tiles settled at a DSC of ``agreement``.

    Starting from a screen that settles next to nothing, the thresholds move toward each other step by step, the
    one first that keeps the higher DSC, as long as pooled and mean DSC stay; they stop on their sides of the
    patch network's own threshold.
    """
    lows = [0.0] + [value for value in LOWS if value < patch_threshold]
    highs = [1.0] + [value for value in HIGHS if value > patch_threshold]
    at = [0, 0]
    best = try_(lows[0], highs[0])
    tried = [best]
    blocked = [False, False]

    def kept(one: Agreement) -> float:
        return min(one.pooled(one.all), one.mean(one.all))

    while not all(blocked):
        found = []
        for side, ladder in enumerate((lows, highs)):
            if blocked[side] or at[side] + 1 >= len(ladder):
                blocked[side] = True
                continue
            step = [at[0] + (side == 0), at[1] + (side == 1)]
            one = try_(lows[step[0]], highs[step[1]])
            tried.append(one)
            if kept(one) < agreement:
                blocked[side] = True
            else:
                gained = one.share(one.all) - best.share(one.all)
                lost = max(kept(best) - kept(one), 1e-5)
                found.append((gained / lost, side, one))
        if found:
            _, side, best = max(found, key=lambda entry: entry[0])
            at[side] += 1
    return [*tried, best]


def agreement_scores(one: Agreement, where: str) -> list[Score]:
    """Returns share settled, share on the same side and DSC with the plain pass, intervals over slides."""
    how = (
        f"screen settles p ≤ {one.low:g} and p ≥ {one.high:g}, thresholds chosen on slides composed of the"
        " half of the selection block that it did not learn from; "
    )
    rows: tuple[tuple[str, Callable[[NDArray[np.intp]], float], str], ...] = (
        ("screen: share of tiles settled", one.share, "tiles of all slides together"),
        ("screen: settled tiles on the patch network's side", one.sides, "tiles of all slides together"),
        ("screen: region DSC with the plain pass, pooled", one.pooled, "pixels of all slides together"),
        ("screen: region DSC with the plain pass, mean of slides", one.mean, "mean over slides"),
    )
    out = []
    for name, statistic, what in rows:
        interval = bootstrap(statistic, len(one.counts), repeats=1000)
        out.append(score_of(name, interval, where, how + what, "slides, which share fields"))
    return out
