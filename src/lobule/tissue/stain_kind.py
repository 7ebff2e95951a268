"""Whether a picture is H&E, IHC, fluorescence or something else, by its hues."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lobule.tissue.artifacts import find_unscanned
from lobule.tissue.color import extremes, quantile, to_hsv

__all__ = ["StainJudgement", "StainKind", "judge_stain"]

StainKind = Literal["he", "ihc", "fluorescence", "other"]

# every H&E field that was looked at (348 of bach, tnbc and monuseg) has more than 0.6 of its color there
_HE_HUES_SHARE = 0.4


@dataclass(frozen=True, slots=True)
class StainJudgement:
    """A kind of picture and, in a few words, what speaks for it."""

    kind: StainKind
    reason: str


def judge_stain(overview: NDArray[np.uint8], mask: NDArray[np.bool_]) -> StainJudgement:
    """Tells H&E from IHC (DAB, haematoxylin), fluorescence and pictures of other things.

    overview: (H, W, 3) uint8 RGB, of any scale; mask: its tissue, (H, W) bool (where it is empty, the
    whole image is judged). A rule on hues, not a classifier: it finds the wrong slide in a folder, and
    its word is a warning or a refusal for the caller to choose. Raises ValueError where shapes differ.
    """
    if overview.shape != (*mask.shape, 3) or overview.dtype != np.uint8:
        raise ValueError(f"an overview of shape {overview.shape} has no mask of shape {mask.shape}")
    # hues of a million pixels tell as much as those of all
    step = max(1, math.ceil(math.sqrt(mask.size / 1_000_000)))
    overview, mask = overview[::step, ::step], mask[::step, ::step]
    value = extremes(overview)[1]
    brightest = quantile(value, 0.999)
    if brightest <= 30:
        return StainJudgement("other", f"nearly black: no pixel above {brightest:.0f} of 255")
    # pure white has no hue even where it is glass: beside anything pale it is left out
    unscanned = find_unscanned(overview, np.ones(mask.shape, np.bool_))
    scanned = value[~unscanned]
    if scanned.size and quantile(scanned, 0.5) <= 60:
        return StainJudgement("fluorescence", f"{(scanned <= 60).mean():.0%} of what was scanned is dark")

    hsv = to_hsv(overview)
    hue, saturation = hsv.hue, hsv.saturation
    if quantile(value, 0.5) <= 60:
        # black beside a photograph or a scan is padding; beside one pure color or gray it is dark ground
        pure = quantile(saturation[~unscanned], 0.5)
        if pure >= 170 or pure <= 5:
            return StainJudgement("fluorescence", f"one color on {(value <= 60).mean():.0%} of dark ground")
    seen = (hsv.value > 30) & ~unscanned
    tissue = mask & seen if (mask & seen).any() else seen
    # pale tissue is judged by its most colored part
    limit = float(np.clip(quantile(saturation[tissue], 0.7), 0, 20)) if tissue.any() else 0.0
    if limit < 5:
        return StainJudgement("other", "without color")

    everywhere = seen & (saturation >= 20)
    vivid = everywhere & (saturation >= 110) & (hue >= 60) & (hue <= 248)
    if np.count_nonzero(vivid) > 0.5 * np.count_nonzero(everywhere):
        return StainJudgement("other", "most of the color is vivid blue or green")
    colored = tissue & (saturation >= limit)
    hues = hue[colored]
    # pale pixels take their hue from the lamp, so a pixel's word counts by its saturation
    weights = saturation[colored].astype(np.float64)
    if quantile(saturation[colored], 0.5) > 215:
        return StainJudgement("other", "colors too pure for a stain")

    def share(low: float, high: float) -> float:
        return float(weights[(hues >= low) & (hues < high)].sum() / weights.sum())

    he, blue, green = share(235, 360) + share(0, 12), share(185, 235), share(50, 185)
    dab = colored & (hue >= 12) & (hue < 50) & (saturation >= 70) & (hsv.value <= 190)
    brown = np.count_nonzero(dab) / np.count_nonzero(colored)
    if he >= _HE_HUES_SHARE and brown < 0.05 and blue < 0.5:
        return StainJudgement("he", f"{he:.0%} of the color is pink to purple")
    if green < 0.15 and brown >= 0.02 and brown + blue >= 0.5 * (1.0 - green):
        return StainJudgement("ihc", f"{brown:.0%} of the color is DAB brown")
    if green < 0.15 and blue >= 0.5:
        return StainJudgement("ihc", f"{blue:.0%} of the color is blue, as of haematoxylin without eosin")
    return StainJudgement("other", f"only {he:.0%} of the color is pink to purple")
