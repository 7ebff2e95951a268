"""What lies on an overview beside tissue: marker pen, folds, parts that were never scanned."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lobule.tissue.color import bands, extremes, is_even, look_up, quantile, to_hsv
from lobule.tissue.morphology import dilate_disk, drop_small, fill_small, open_disk

__all__ = ["find_black", "find_folds", "find_pen", "find_unscanned"]

_PEN_AREA_MM2 = 0.01
_FOLD_AREA_MM2 = 0.01
_PEN_REACH_UM = 100.0
_DENSITY_STEPS = 5000
"""Steps of an optical density of 1; three channels of black, 2.4 each, fit 16 bits."""


def find_unscanned(rgb: NDArray[np.uint8], even: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Parts that hold no scan, (H, W) bool: black padding, and pure white beside glass of another white.

    rgb: (H, W, 3) uint8; even: where it may be glass, by default where `is_even` says so. A part is at least
    0.1 % of the image and 16 px. Where all glass is pure white nothing tells scanned from unscanned, and it
    counts as scanned.
    """
    shape = rgb.shape[:2]
    if even is None:
        even = is_even(rgb)
    area = max(16.0, 0.001 * shape[0] * shape[1])
    black, white = np.empty(shape, np.bool_), np.empty(shape, np.bool_)
    off_white = 0
    for rows in bands(*shape):
        low, high = extremes(rgb[rows])
        black[rows], white[rows] = high <= 12, low >= 254
        # pale tissue is as bright and as gray as glass, but not as even
        off_white += int(np.count_nonzero((low >= 200) & (low <= 251) & (high - low < 32) & even[rows]))
    black = drop_small(black, area)
    if off_white < 0.02 * white.size:
        return black
    return black | drop_small(open_disk(white, 2), area)


def find_pen(rgb: NDArray[np.uint8], mpp: float) -> NDArray[np.bool_]:
    """Marker strokes in green, blue, red or black, (H, W) bool.

    rgb: (H, W, 3) uint8 at about 4 to 16 µm per pixel. Each color has a core that neither haematoxylin,
    eosin nor blood reach at that scale, of at least 0.01 mm²; a stroke's paler rim is taken with it where
    it lies within 100 µm of a core.
    """
    shape = rgb.shape[:2]
    core, rim = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    for rows in bands(*shape):
        if _may_hold_pen(rgb[rows]):
            core[rows], rim[rows] = _pen_colors(rgb[rows])
    area_px = max(12.0, _PEN_AREA_MM2 * 1e6 / mpp**2)
    # on a small field a stroke cannot be as large
    area_px = min(area_px, max(12.0, 0.02 * core.size))
    reach = int(min(max(1, round(_PEN_REACH_UM / mpp)), 40))
    solid = drop_small(open_disk(core, 1), area_px)
    if not solid.any():
        return solid
    stroke = solid | (dilate_disk(solid, reach) & rim)
    return fill_small(dilate_disk(stroke, 1), area_px)


def _may_hold_pen(rgb: NDArray[np.uint8]) -> bool:
    """Whether any pixel can be of a marker's color or its rim, by tests that need no hue; hue costs most."""
    red, green = rgb[..., 0], rgb[..., 1]
    low, high = extremes(rgb)
    spread = high - low
    # green at or above red; or dark and nearly gray; or as bright and as saturated as a red marker's rim
    dark = (high <= 110) & (spread <= 32)
    vivid = (high >= 165) & (spread >= 70)
    # paler than 20 of 255 it is neither core nor rim: less than 1 in 13 of its brightest channel
    colored = spread >= high // 13
    return bool((((green >= red) & colored) | dark | vivid).any())


def _pen_colors(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(pixels of a color that only a marker has, pixels that may be a stroke's rim)."""
    hsv = to_hsv(rgb)
    red, green = (rgb[..., c].astype(np.int16) for c in range(2))
    hue, saturation, value = hsv.hue, hsv.saturation, hsv.value
    low, high = extremes(rgb)
    spread = high - low
    reddish = (hue >= 345) | (hue <= 20)
    # haematoxylin keeps red above green; a blue or green marker does not
    green_core = (green - red >= 20) & (hue >= 75) & (hue < 190) & (saturation >= 70)
    blue_core = (green - red >= 4) & (hue >= 190) & (hue <= 248) & (saturation >= 120)
    # blood is dark where it is as saturated as a marker
    red_core = reddish & (saturation >= 190) & (value >= 165)
    core = green_core | blue_core | red_core | _is_black(low, high)
    rim = (
        ((green - red >= 8) & (hue >= 75) & (hue < 190))
        | ((green >= red) & (hue >= 190) & (hue <= 250))
        | (reddish & (saturation >= 110) & (value >= 165))
        | ((value <= 110) & (spread <= 32))
    )
    return core, (rim | core) & (saturation >= 20)


def find_black(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Black pixels, (H, W) bool: a margin's ink, carbon, dark pigment. Haematoxylin never is without color.

    Too fine for a marker's stroke as they may be, a network takes them for nuclei. rgb: as for `find_pen`.
    """
    height, width = rgb.shape[:2]
    black = np.empty((height, width), np.bool_)
    for rows in bands(height, width):
        low, high = extremes(rgb[rows])
        black[rows] = _is_black(low, high)
    return black


def _is_black(low: NDArray[np.uint8], high: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Dark and nearly gray, by the least and the largest channel; what is darker still was not scanned."""
    found: NDArray[np.bool_] = (high <= 75) & (high > 12) & (high - low <= 26)
    return found


def find_folds(rgb: NDArray[np.uint8], tissue: NDArray[np.bool_], mpp: float) -> NDArray[np.bool_]:
    """Folded tissue, (H, W) bool: bands about twice as dense as the slide's tissue is.

    A fold stacks two or three layers, whose optical densities add. A pixel is folded where its mean
    density is at least 1.9 times the median of the tissue and 0.42, and every channel above 0.22 (dark
    nuclei let some red pass, blood lets red pass), in parts of at least 0.01 mm². Dense keratin and
    crushed nuclei come near; two layers of a pale slide may stay below.
    """
    if not tissue.any():
        return np.zeros_like(tissue)
    # in whole numbers, so that the median comes from a histogram and every machine agrees
    density = np.rint(-np.log10(np.maximum(np.arange(256), 1) / 255.0) * _DENSITY_STEPS).astype(np.uint16)
    summed = np.zeros(tissue.shape, np.uint16)
    dense = np.empty(tissue.shape, np.bool_)
    for rows in bands(*tissue.shape):
        for channel in range(3):
            summed[rows] += look_up(density, rgb[rows, :, channel])
        # the brightest channel is the least dense
        dense[rows] = look_up(density, extremes(rgb[rows])[1]) >= 0.22 * _DENSITY_STEPS
    usual = quantile(summed[tissue], 0.5) / (3 * _DENSITY_STEPS)
    dense &= summed >= 3 * _DENSITY_STEPS * max(1.9 * usual, 0.42)
    dense &= tissue
    del summed
    return drop_small(open_disk(dense, 1), max(9.0, _FOLD_AREA_MM2 * 1e6 / mpp**2)) & tissue
