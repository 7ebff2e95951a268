"""The tissue mask of an overview."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lobule.tissue.artifacts import find_black, find_folds, find_pen, find_unscanned
from lobule.tissue.color import find_glass, histogram, is_even, saturation_value, white_balanced
from lobule.tissue.morphology import close_disk, dilate_disk, drop_small, fill_small

__all__ = ["Tissue", "TissueMethod", "TissueWarning", "find_tissue"]

TissueMethod = Literal["hsv", "otsu", "whole"]


class TissueWarning(NamedTuple):
    """What is wrong with the tissue, in words, and a code to sort such words by."""

    code: Literal["tissue", "pen", "ink", "folds", "unscanned"]
    text: str


# H2G-Net: saturation ≥ 20 of 255 at ×1.25 (8 µm per pixel), closing with a disk of 5, then of 3 pixels
_SATURATION = 20
_LEAST_STEP = 8
_CLOSING_UM = (40.0, 24.0)
_WORKING_MPP = 8.0
_SPECK_MM2 = 0.01
_HOLE_MM2 = 0.004
_INK_MM2, _INK_SHARE = 0.003, 0.001
"""Of so much black in all, on so large a share of the tissue, a warning tells."""
_FIELD_UM = 2000.0
# JPEG noise on black padding has any saturation
_DARKEST = 24
_EVEN_LIGHT, _EVEN_DARK = 14, 6
"""What the channels of a blank image vary by at most, light and dark ones."""


@dataclass(frozen=True, slots=True)
class Tissue:
    """Where tissue is on an overview. All masks are (H, W) bool on the overview's frame.

    mask: tissue, without pen and unscanned parts; folds stay in. method: what made the mask, after
    fallback. pen, fold, unscanned: what was found beside or on it. warnings: one line each.
    """

    mask: NDArray[np.bool_]
    method: TissueMethod
    pen: NDArray[np.bool_]
    fold: NDArray[np.bool_]
    unscanned: NDArray[np.bool_]
    warnings: tuple[TissueWarning, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is no tissue at all."""
        return not bool(self.mask.any())

    @property
    def share(self) -> float:
        """Tissue as a share of the image."""
        return np.count_nonzero(self.mask) / self.mask.size

    @property
    def pen_share(self) -> float:
        """Pen as a share of the image."""
        return np.count_nonzero(self.pen) / self.pen.size

    @property
    def fold_share(self) -> float:
        """Folds as a share of the tissue; 0 where there is none."""
        return np.count_nonzero(self.fold) / np.count_nonzero(self.mask) if self.mask.any() else 0.0

    @property
    def unscanned_share(self) -> float:
        """Unscanned parts as a share of the image."""
        return np.count_nonzero(self.unscanned) / self.unscanned.size


def find_tissue(overview: NDArray[np.uint8], mpp: float, *, method: Literal["hsv", "otsu"] = "hsv") -> Tissue:
    """Tissue on an overview of a slide or on a small field.

    overview: (H, W, 3) uint8 RGB; mpp: its micrometers per pixel (any; finer ones are averaged to about
    8, coarser ones used as they are). ``hsv``: saturation ≥ 20 of 255 after the glass is made gray, closed
    with disks of 40 and 24 µm (H2G-Net). ``otsu``: Otsu's threshold on saturation (Khalil et al.), as long
    as what lies below looks like glass and what lies above differs from it, else 20. Parts under 0.01 mm²
    are dropped, holes under 0.004 mm² filled. In a field of at most 2 mm without any glass, textured pixels
    count as tissue too, however pale. Where that finds nothing, Otsu on brightness is tried; where that
    finds nothing either, an image without any glass is taken whole, and one with glass stays empty, as does
    a blank one. Each with a warning.
    Raises ValueError for another shape, type or mpp.
    """
    if overview.ndim != 3 or overview.shape[2] != 3 or overview.dtype != np.uint8 or overview.size == 0:
        raise ValueError(f"an overview is (H, W, 3) uint8, not {overview.shape} {overview.dtype}")
    if not (np.isfinite(mpp) and mpp > 0):
        raise ValueError(f"mpp must be finite and positive, not {mpp!r}")
    height, width = overview.shape[:2]
    # small fields keep at least 64 px a side: shapes are judged on them too
    factor = max(1, min(int(_WORKING_MPP / mpp + 1e-6), min(height, width) // 64))
    image = _averaged(overview, factor)
    found = _find(image, mpp * factor, method)
    if factor == 1:
        return found

    def enlarged(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return mask.repeat(factor, axis=0).repeat(factor, axis=1)[:height, :width]

    return Tissue(
        enlarged(found.mask),
        found.method,
        enlarged(found.pen),
        enlarged(found.fold),
        enlarged(found.unscanned),
        found.warnings,
    )


def _averaged(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Mean over factor × factor blocks; blocks at the right and lower edge repeat the last pixel."""
    if factor == 1:
        return image
    height, width = image.shape[:2]
    bottom, right = -height % factor, -width % factor
    if bottom or right:
        image = np.pad(image, ((0, bottom), (0, right), (0, 0)), mode="edge")
    blocks = image.reshape(image.shape[0] // factor, factor, image.shape[1] // factor, factor, 3)
    mean = blocks.mean(axis=(1, 3), dtype=np.float32)
    rounded: NDArray[np.uint8] = np.rint(mean).astype(np.uint8)
    return rounded


def _find(image: NDArray[np.uint8], mpp: float, method: Literal["hsv", "otsu"]) -> Tissue:
    warnings: list[TissueWarning] = []
    even = is_even(image)
    unscanned = find_unscanned(image, even)
    glass = find_glass(image, even, unscanned)
    balanced = white_balanced(image, glass)
    pen = find_pen(balanced, mpp) & ~unscanned
    usable = ~(pen | unscanned)
    used: TissueMethod = method
    if not usable.any() or _is_blank(image, usable):
        nothing = np.zeros(usable.shape, np.bool_)
        why = "the image is blank" if usable.any() else "all of the image is pen or unscanned"
        warning = TissueWarning("tissue", f"no tissue found: {why}")
        return Tissue(nothing, method, pen, nothing, unscanned, (warning,))
    colored = _colored(balanced, usable, method)
    if glass is None and max(image.shape[:2]) * mpp <= _FIELD_UM:
        # a field taken inside tissue; pale stroma has next to no saturation, but glass has no fibers
        colored |= ~even & usable
    # here a slide's analysis takes most memory: no mask is kept beyond its use
    del even
    mask = _shaped(colored, usable, mpp)
    del colored
    if not mask.any():
        used = "otsu"
        mask = _shaped(_darker_than_otsu(balanced, usable), usable, mpp)
        if mask.any():
            text = f"{method} found no tissue; Otsu's threshold on brightness was used instead"
            warnings.append(TissueWarning("tissue", text))
    if not mask.any() and glass is None:
        used = "whole"
        mask = usable.copy()
        text = "no tissue found by saturation or brightness; the whole image was taken as tissue"
        warnings.append(TissueWarning("tissue", text))
    elif not mask.any():
        used = method
        text = "no tissue found: beside glass there is only what is too small or too pale"
        warnings.append(TissueWarning("tissue", text))
    fold = find_folds(balanced, mask, mpp)
    if pen.any():
        share = np.count_nonzero(pen) / pen.size
        text = f"pen or ink marks cover {share:.1%} of the slide and are left out of the tissue"
        warnings.append(TissueWarning("pen", text))
    black = find_black(balanced) & usable
    if np.count_nonzero(black) * mpp**2 / 1e6 >= _INK_MM2:
        black &= dilate_disk(mask, round(_CLOSING_UM[0] / mpp))
        inked = np.count_nonzero(black)
        if inked * mpp**2 / 1e6 >= _INK_MM2 and inked >= _INK_SHARE * np.count_nonzero(mask):
            text = (
                f"black marks, such as a margin's ink, cover {inked * mpp**2 / 1e6:.2g} mm² on and along the tissue; "
                "what is found there, nuclei above all, may be ink"
            )
            warnings.append(TissueWarning("ink", text))
    if mask.any() and np.count_nonzero(fold) >= 0.01 * np.count_nonzero(mask):
        share = np.count_nonzero(fold) / np.count_nonzero(mask)
        warnings.append(TissueWarning("folds", f"folds cover {share:.1%} of the tissue"))
    if unscanned.any():
        share = np.count_nonzero(unscanned) / unscanned.size
        warnings.append(TissueWarning("unscanned", f"{share:.1%} of the slide was not scanned"))
    return Tissue(mask, used, pen, fold, unscanned, tuple(warnings))


def _colored(
    balanced: NDArray[np.uint8], usable: NDArray[np.bool_], method: Literal["hsv", "otsu"]
) -> NDArray[np.bool_]:
    """Where a usable pixel is as saturated as stain is."""
    saturation, value = saturation_value(balanced)
    threshold = _SATURATION if method == "hsv" else _otsu_saturation(saturation, value, usable)
    colored: NDArray[np.bool_] = saturation >= threshold
    colored &= value > _DARKEST
    colored &= usable
    return colored


def _is_blank(image: NDArray[np.uint8], usable: NDArray[np.bool_]) -> bool:
    """Whether what was scanned holds nothing but an even color: noise, no structure."""
    spreads, middles = [], []
    for channel in range(3):
        # percentiles from a histogram: exact, and in one pass
        below = np.cumsum(histogram(image[..., channel][usable])) / np.count_nonzero(usable)
        low, middle, high = np.searchsorted(below, (0.0005, 0.5, 0.9995))
        if high - low > _EVEN_LIGHT:
            return False
        spreads.append(high - low)
        middles.append(middle)
    return bool(max(spreads) <= (_EVEN_LIGHT if np.median(middles) >= 190 else _EVEN_DARK))


def _shaped(raw: NDArray[np.bool_], usable: NDArray[np.bool_], mpp: float) -> NDArray[np.bool_]:
    mask = raw
    for radius_um in _CLOSING_UM:
        # of an image smaller than the disk nothing is left to tell
        mask = close_disk(mask, min(round(radius_um / mpp), max(mask.shape)))
    mask &= usable
    # on a small field a speck is 0.5 % of it
    mask = drop_small(mask, min(_SPECK_MM2 * 1e6 / mpp**2, 0.005 * mask.size))
    return fill_small(mask, _HOLE_MM2 * 1e6 / mpp**2) & usable


def _otsu(values: NDArray[np.uint8]) -> int:
    """Otsu's threshold: the smallest level t that best parts values < t from values ≥ t."""
    counts = histogram(values).astype(np.float64)
    levels = np.arange(256)
    below = np.cumsum(counts)
    total = below[-1]
    sums = np.cumsum(counts * levels)
    above = total - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    between = np.nan_to_num(between, nan=0.0, posinf=0.0)
    return int(np.argmax(between)) + 1


def _otsu_saturation(
    saturation: NDArray[np.uint8], value: NDArray[np.uint8], usable: NDArray[np.bool_]
) -> int:
    saturation, value = saturation[usable], value[usable]
    threshold = _otsu(saturation)
    below = saturation < threshold
    if not below.any() or below.all():
        return _SATURATION
    # the noise of empty glass falls into two parts too; stain and glass differ by 10 and more
    if saturation[~below].mean() - saturation[below].mean() < _LEAST_STEP:
        return _SATURATION
    # no glass, so Otsu parts pale from dark tissue: not what is asked
    glassy = np.median(value[below]) >= 200 and np.median(saturation[below]) < 25
    return threshold if glassy else min(threshold, _SATURATION)


def _darker_than_otsu(image: NDArray[np.uint8], usable: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Darker than Otsu's threshold on brightness, where that parts two truly different levels."""
    gray = np.rint(image @ np.array([0.299, 0.587, 0.114], np.float32)).astype(np.uint8)
    values = gray[usable]
    threshold = _otsu(values)
    dark = values < threshold
    if not dark.any() or dark.all() or values[~dark].mean() - values[dark].mean() < 12:
        return np.zeros_like(usable)
    return (gray < threshold) & (gray > _DARKEST) & usable
