"""The report's pictures: overlays drawn with Pillow, encoded into ``data:`` addresses."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lobule.findings.maps import ScalarMap, TumorRegion
from lobule.geometry import WorkingFrame
from lobule.report.evidence import Evidence, NucleiSample

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "BLUR_COLOR",
    "FOLD_COLOR",
    "NUCLEUS_COLOR",
    "PEN_COLOR",
    "REGION_COLOR",
    "TISSUE_COLOR",
    "Picture",
    "View",
    "heatmap_picture",
    "nuclei_pictures",
    "probability_bar",
    "quality_picture",
    "regions_picture",
    "scale_length_um",
    "thumbnail_picture",
    "tissue_picture",
    "view_of",
]

Color = tuple[int, int, int]

TISSUE_COLOR: Color = (0, 92, 138)
PEN_COLOR: Color = (235, 120, 0)
FOLD_COLOR: Color = (190, 0, 160)
REGION_COLOR: Color = (255, 221, 0)
BLUR_COLOR: Color = (0, 110, 220)
NUCLEUS_COLOR: Color = (0, 240, 110)

_LARGEST_PX = 1200
_SMALLEST_PX = 600
_SAMPLE_PX = 384
_FINER = 3
"""Lines are drawn this many times finer and averaged down: Pillow's own lines have steps."""
_NUMBERED = 25
"""Regions that get their number in the picture, largest first."""


@dataclass(frozen=True)
class Picture:
    """An encoded picture; ``data`` is its ``data:`` address, ``size`` (width, height) its pixels."""

    data: str
    size: tuple[int, int]


@dataclass(frozen=True)
class View:
    """The pixels of a displayed picture: ``size`` (width, height), each a square of ``um_per_px``."""

    size: tuple[int, int]
    um_per_px: float
    frame: WorkingFrame

    def from_slide(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Level-0 (x, y) points, (..., 2), to points of the view."""
        mpp = self.frame.slide_mpp
        scale = np.array([mpp.x / self.um_per_px, mpp.y / self.um_per_px])
        placed: NDArray[np.float64] = points * scale
        return placed


def view_of(overview: NDArray[np.uint8], frame: WorkingFrame) -> View:
    """The view of an overview: at most 1200 px, small fields enlarged by a whole factor to about 600 px."""
    height, width = overview.shape[:2]
    finest = min(frame.mpp.x, frame.mpp.y)
    longest = max(width * frame.mpp.x, height * frame.mpp.y) / finest
    if longest > _LARGEST_PX:
        um_per_px = finest * longest / _LARGEST_PX
    else:
        um_per_px = finest / max(1, math.ceil(_SMALLEST_PX / longest))
    size = (
        max(1, round(width * frame.mpp.x / um_per_px)),
        max(1, round(height * frame.mpp.y / um_per_px)),
    )
    return View(size, um_per_px, frame)


def _resized(pixels: NDArray[np.uint8], size: tuple[int, int]) -> Image:
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(pixels))
    larger = size[0] > picture.width
    return picture.resize(size, Image.Resampling.BICUBIC if larger else Image.Resampling.BOX)


def _encoded(picture: Image, kind: str = "JPEG") -> Picture:
    blob = io.BytesIO()
    if kind == "JPEG":
        picture.convert("RGB").save(blob, "JPEG", quality=82, optimize=True)
    else:
        picture.save(blob, "PNG", optimize=True)
    text = base64.b64encode(blob.getvalue()).decode("ascii")
    return Picture(f"data:image/{kind.lower()};base64,{text}", picture.size)


def _pale(picture: Image) -> Image:
    """The picture in light gray, so that color belongs to what is laid over it."""
    from PIL import Image

    gray = picture.convert("L").point(lambda value: 70 + value * 185 // 255)
    return Image.merge("RGB", (gray, gray, gray))


def _painted(picture: Image, alpha: Image, color: Color) -> None:
    """Lays ``color`` over the picture, in place, as strong as ``alpha`` (mode L) says."""
    picture.paste(color, (0, 0, *picture.size), alpha)


def _line_alpha(
    size: tuple[int, int], rings: Sequence[NDArray[np.floating]], width: float, *, closed: bool = True
) -> Image:
    """Smooth lines along rings of view points, as a mask (mode L)."""
    from PIL import Image, ImageDraw

    fine = Image.new("L", (size[0] * _FINER, size[1] * _FINER), 0)
    draw = ImageDraw.Draw(fine)
    for ring in rings:
        points = np.asarray(ring, np.float64) * _FINER
        if closed and len(points):
            points = np.concatenate([points, points[:2]])
        if len(points) > 1:
            draw.line(
                [(float(x), float(y)) for x, y in points], 255, max(1, round(width * _FINER)), joint="curve"
            )
    return fine.resize(size, Image.Resampling.BOX)


def _outlined(
    picture: Image, rings: Sequence[NDArray[np.floating]], color: Color, width: float, casing: Color
) -> None:
    """Draws rings over the picture, in place, with a thin casing that sets them off."""
    _painted(picture, _line_alpha(picture.size, rings, width + 1.6), casing)
    _painted(picture, _line_alpha(picture.size, rings, width), color)


def _mask_alpha(mask: NDArray[np.bool_], size: tuple[int, int]) -> Image:
    from PIL import Image

    return Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)


def _edge_alpha(mask: NDArray[np.bool_], size: tuple[int, int], width_px: int) -> Image:
    """The smooth inner rim of a mask, ``width_px`` wide."""
    from PIL import Image, ImageChops, ImageFilter

    fine = _mask_alpha(np.pad(mask, 1), (size[0] * 2, size[1] * 2)).point(lambda value: 255 * (value > 127))
    rim = ImageChops.subtract(fine, fine.filter(ImageFilter.MinFilter(4 * width_px + 1)))
    return rim.resize(size, Image.Resampling.BOX)


def scale_length_um(width_um: float) -> float:
    """The longest of 1, 2, 5 × 10ⁿ µm that fills at most a quarter of ``width_um``."""
    target = max(width_um / 4, 1e-9)
    step = 10.0 ** math.floor(math.log10(target))
    return next(factor * step for factor in (5, 2, 1) if factor * step <= target * (1 + 1e-9))


def _length_text(length_um: float) -> str:
    return f"{length_um / 1000:g} mm" if length_um >= 1000 else f"{length_um:g} µm"


def _with_scale_bar(picture: Image, um_per_px: float) -> None:
    """Draws a scale bar with its length at the lower left, in place."""
    from PIL import ImageDraw, ImageFont

    length_um = scale_length_um(picture.width * um_per_px)
    length = length_um / um_per_px
    unit = max(11.0, picture.width / 62)
    font = ImageFont.load_default(unit)
    draw = ImageDraw.Draw(picture, "RGBA")
    text = _length_text(length_um)
    margin, thick = unit * 0.8, max(2.0, unit * 0.22)
    text_width = draw.textlength(text, font)
    inner = max(length, text_width)
    left, bottom = margin, picture.height - margin
    top = bottom - thick - unit * 1.75
    draw.rounded_rectangle(
        (left - unit * 0.5, top, left + inner + unit * 0.5, bottom + unit * 0.4),
        unit * 0.3,
        fill=(255, 255, 255, 215),
    )
    start = left + (inner - length) / 2
    draw.rectangle((start, bottom - thick, start + length, bottom), fill=(20, 20, 20, 255))
    draw.text((left + inner / 2, bottom - thick - unit * 0.45), text, (20, 20, 20, 255), font, anchor="ms")


_ANCHORS = np.array(
    [(255, 250, 205), (254, 217, 118), (253, 141, 60), (215, 38, 46), (110, 0, 70)], np.float64
)


def _probability_colors(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Values 0 to 1 to RGB, light yellow over orange to dark red; darker is always higher."""
    place = np.clip(values, 0, 1) * (len(_ANCHORS) - 1)
    low = np.clip(np.floor(place).astype(int), 0, len(_ANCHORS) - 2)
    part = (place - low)[..., None]
    mixed: NDArray[np.float64] = _ANCHORS[low] * (1 - part) + _ANCHORS[low + 1] * part
    return mixed


def _probability_strength(values: NDArray[np.floating]) -> NDArray[np.float64]:
    strength: NDArray[np.float64] = 0.35 + 0.4 * np.clip(values, 0, 1).astype(np.float64)
    return strength


def probability_bar() -> Picture:
    """The colors of the heatmap from 0 (left) to 1 (right) over pale tissue."""
    from PIL import Image

    values = np.tile(np.linspace(0, 1, 256), (14, 1))
    strength = _probability_strength(values)[..., None]
    mixed = _probability_colors(values) * strength + 225 * (1 - strength)
    return _encoded(Image.fromarray(mixed.astype(np.uint8)), "PNG")


def _cells_under(view: View, scalar: ScalarMap) -> NDArray[np.float32]:
    """The map's value under the center of each pixel of the view, (rows, columns); NaN where it has none."""
    mpp = scalar.frame.mpp
    columns = np.floor((np.arange(view.size[0]) + 0.5) * view.um_per_px / mpp.x).astype(int)
    rows = np.floor((np.arange(view.size[1]) + 0.5) * view.um_per_px / mpp.y).astype(int)
    height, width = scalar.values.shape
    found = scalar.values[np.ix_(np.minimum(rows, height - 1), np.minimum(columns, width - 1))]
    found[rows >= height] = np.nan
    found[:, columns >= width] = np.nan
    return found


def thumbnail_picture(evidence: Evidence) -> Picture:
    """The slide as it is."""
    view = view_of(evidence.overview, evidence.frame)
    picture = _resized(evidence.overview, view.size)
    _with_scale_bar(picture, view.um_per_px)
    return _encoded(picture)


def tissue_picture(evidence: Evidence) -> Picture | None:
    """The slide with the tissue's outline, pen marks and folds; None without a tissue mask."""
    if evidence.tissue is None:
        return None
    view = view_of(evidence.overview, evidence.frame)
    picture = _resized(evidence.overview, view.size)
    for mask, color in ((evidence.pen, PEN_COLOR), (evidence.fold, FOLD_COLOR)):
        if mask is not None and mask.any():
            _painted(picture, _mask_alpha(mask, view.size).point(lambda value: value * 6 // 10), color)
            _painted(picture, _edge_alpha(mask, view.size, 2), color)
    outside = _mask_alpha(~evidence.tissue, view.size).point(lambda value: value * 45 // 100)
    _painted(picture, outside, (255, 255, 255))
    _painted(picture, _edge_alpha(evidence.tissue, view.size, 2), TISSUE_COLOR)
    _with_scale_bar(picture, view.um_per_px)
    return _encoded(picture)


def heatmap_picture(evidence: Evidence, scalar: ScalarMap) -> Picture:
    """A probability map over the slide in light gray; what was not judged stays gray."""
    from PIL import Image

    view = view_of(evidence.overview, evidence.frame)
    picture = np.asarray(_pale(_resized(evidence.overview, view.size)), np.float64)
    values = _cells_under(view, scalar)
    judged = np.isfinite(values)
    values = np.where(judged, values, 0)
    strength = np.where(judged, _probability_strength(values), 0)[..., None]
    mixed = picture * (1 - strength) + _probability_colors(values) * strength
    result = Image.fromarray(np.round(mixed).astype(np.uint8))
    _with_scale_bar(result, view.um_per_px)
    return _encoded(result)


def quality_picture(evidence: Evidence) -> Picture | None:
    """Tiles that are out of focus, marked; None where nothing was judged."""
    if evidence.blurred is None or not np.isfinite(evidence.blurred.values).any():
        return None
    view = view_of(evidence.overview, evidence.frame)
    picture = _pale(_resized(evidence.overview, view.size))
    values = _cells_under(view, evidence.blurred)
    blurred = np.nan_to_num(values, nan=0.0) > 0.5
    _painted(picture, _mask_alpha(blurred, view.size).point(lambda value: value * 55 // 100), BLUR_COLOR)
    _with_scale_bar(picture, view.um_per_px)
    return _encoded(picture)


def _rings(region: TumorRegion) -> list[NDArray[np.float64]]:
    rings = [region.polygon.exterior, *region.polygon.interiors]
    return [np.asarray(ring.coords, np.float64)[:-1] for ring in rings]


def regions_picture(evidence: Evidence) -> Picture:
    """The outlines of the tumor regions on the slide, the largest with their numbers (from 1, in order)."""
    from PIL import ImageDraw, ImageFont

    view = view_of(evidence.overview, evidence.frame)
    picture = _resized(evidence.overview, view.size)
    rings = [view.from_slide(ring) for region in evidence.regions for ring in _rings(region)]
    if rings:
        _outlined(picture, rings, REGION_COLOR, max(2.0, max(view.size) / 420), (30, 20, 0))
    unit = max(12.0, max(view.size) / 60)
    font = ImageFont.load_default(unit)
    draw = ImageDraw.Draw(picture)
    by_area = sorted(enumerate(evidence.regions, 1), key=lambda pair: (-pair[1].area_mm2, pair[0]))
    for number, region in by_area[:_NUMBERED]:
        if region.polygon.is_empty:
            continue
        inside = region.polygon.representative_point()
        x, y = view.from_slide(np.array([inside.x, inside.y]))
        draw.text(
            (float(x), float(y)), str(number), (255, 255, 255), font, "mm",
            stroke_width=unit / 7, stroke_fill=(20, 15, 0),
        )  # fmt: skip
    _with_scale_bar(picture, view.um_per_px)
    return _encoded(picture)


def nuclei_pictures(sample: NucleiSample, um_per_level0_px: tuple[float, float]) -> tuple[Picture, Picture]:
    """The place as it is, and the nuclei's outlines on a clear ground of the same size."""
    from PIL import Image

    height, width = sample.image.shape[:2]
    factor = max(1, round(_SAMPLE_PX / max(width, height)))
    size = (width * factor, height * factor)
    if max(size) > 2 * _SAMPLE_PX:
        shrink = 2 * _SAMPLE_PX / max(size)
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    picture = _resized(sample.image, size)
    _with_scale_bar(picture, sample.box.width * um_per_level0_px[0] / size[0])
    scale = np.array([size[0] / sample.box.width, size[1] / sample.box.height])
    corner = np.array([sample.box.x0, sample.box.y0])
    rings = [(sample.nuclei.outline_px(k) - corner) * scale for k in range(len(sample.nuclei))]
    wide = _line_alpha(size, rings, 3.2)
    lines = Image.new("RGB", size, (0, 40, 20))
    _painted(lines, _line_alpha(size, rings, 1.7), NUCLEUS_COLOR)
    lines.putalpha(wide)
    return _encoded(picture), _encoded(lines, "PNG")
