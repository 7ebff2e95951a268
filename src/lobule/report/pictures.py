"""The report's pictures: overlays drawn with Pillow, encoded into ``data:`` addresses."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lobule.findings.maps import ScalarMap, TumorRegion
from lobule.geometry import WorkingFrame
from lobule.report.evidence import Areas, Evidence, GalleryNucleus, NucleiSample

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "AREA_COLORS",
    "BLUR_COLOR",
    "FOLD_COLOR",
    "NUCLEUS_COLOR",
    "PEN_COLOR",
    "REGION_COLOR",
    "TISSUE_COLOR",
    "Histogram",
    "Picture",
    "ScaleBar",
    "Shown",
    "View",
    "areas_picture",
    "gallery_picture",
    "heatmap_picture",
    "histogram",
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
AREA_COLORS: tuple[Color, ...] = ((0, 92, 138), (214, 92, 0))
"""Of the region's nuclei, and of those they are compared with."""

_LARGEST_PX = 1200
_SMALLEST_PX = 600
_SAMPLE_PX = 384
_CROP_PX = 200
_PLOT_PX = (760, 340)
"""On the page; its pixels are twice as fine."""
_FINER = 2
"""Lines are drawn this many times finer and averaged down: Pillow's own lines have steps."""
_NUMBERED = 25
"""Regions that get their number in the picture, largest first."""


@dataclass(frozen=True)
class ScaleBar:
    """A scale bar that the page lays over a picture: it stays legible at any size of display."""

    percent: float
    """Its length in percent of the picture's width."""
    label: str


@dataclass(frozen=True)
class Picture:
    """An encoded picture; ``data`` is its ``data:`` address, ``size`` (width, height) its pixels."""

    data: str
    size: tuple[int, int]
    bar: ScaleBar | None

    @property
    def ratio(self) -> float:
        """Width over height."""
        return round(self.size[0] / self.size[1], 4)


@dataclass(frozen=True)
class View:
    """The pixels of a displayed picture: ``size`` (width, height), each a square of ``um_per_px``."""

    size: tuple[int, int]
    um_per_px: float
    frame: WorkingFrame

    @property
    def width_um(self) -> float:
        """What the view shows from left to right."""
        return self.size[0] * self.um_per_px

    def from_slide(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Level-0 (x, y) points, (..., 2), to points of the view."""
        mpp = self.frame.slide_mpp
        scale = np.array([mpp.x / self.um_per_px, mpp.y / self.um_per_px])
        placed: NDArray[np.float64] = points * scale
        return placed


@dataclass(frozen=True, eq=False)
class Shown:
    """An overview as the pictures show it: its view, in color (RGB) and in light gray (L). Pictures start as copies."""

    view: View
    color: Image
    pale: Image

    @staticmethod
    def of(overview: NDArray[np.uint8], frame: WorkingFrame) -> Shown:
        """The overview at the size of its view."""
        view = view_of(overview, frame)
        color = _resized(overview, view.size)
        return Shown(view, color, _pale(color))


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

    filtering = Image.Resampling.BICUBIC if size[0] > pixels.shape[1] else Image.Resampling.BOX
    # a color at a time, since Pillow copies what it resizes, and an overview is among a run's largest arrays
    channels = [
        Image.fromarray(np.ascontiguousarray(pixels[..., c])).resize(size, filtering) for c in range(3)
    ]
    return Image.merge("RGB", channels)


def _encoded(
    picture: Image, width_um: float | None = None, *, drawn: bool = False, bar_um: float | None = None
) -> Picture:
    """A photograph as JPEG, what is drawn or has a clear ground as PNG; ``width_um`` is what it shows across.

    ``bar_um`` is the length of its scale bar, where that is not its own to choose.
    """
    blob = io.BytesIO()
    kind = "png" if drawn or picture.mode == "RGBA" else "jpeg"
    if kind == "png":
        picture.save(blob, "PNG")
    else:
        picture.save(blob, "JPEG", quality=82)
    text = base64.b64encode(blob.getvalue()).decode("ascii")
    bar = None if width_um is None else _scale_bar(width_um, bar_um)
    return Picture(f"data:image/{kind};base64,{text}", picture.size, bar)


def _pale(picture: Image) -> Image:
    """The picture in light gray (mode L), so that color belongs to what is laid over it."""
    return picture.convert("L").point(lambda value: 70 + value * 185 // 255)


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
        # Pillow's coordinates name pixel centers, ours their corners
        points = np.asarray(ring, np.float64) * _FINER - 0.5
        if closed and len(points):
            points = np.concatenate([points, points[:2]])
        if len(points) > 1:
            draw.line(list(map(tuple, points.tolist())), 255, max(1, round(width * _FINER)), joint="curve")
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


def _edge_alpha(mask: NDArray[np.bool_], size: tuple[int, int]) -> Image:
    """The smooth inner rim of a mask."""
    from PIL import Image, ImageChops, ImageFilter

    fine = _mask_alpha(mask, (size[0] * 2, size[1] * 2)).point(lambda value: 255 * (value > 127))
    width_px = max(2, round(max(size) / 400))
    # a box that is not full of mask holds a pixel of the outside; its mean costs the same at any width
    inner = fine.filter(ImageFilter.BoxBlur(2 * width_px)).point(lambda value: 255 * (value == 255))
    return ImageChops.subtract(fine, inner).resize(size, Image.Resampling.BOX)


def scale_length_um(width_um: float) -> float:
    """The longest of 1, 2, 5 × 10ⁿ µm that fills at most a quarter of ``width_um``."""
    target = max(width_um / 4, 1e-9)
    step = 10.0 ** math.floor(math.log10(target))
    return next(factor * step for factor in (5, 2, 1) if factor * step <= target * (1 + 1e-9))


def _length_text(length_um: float) -> str:
    return f"{length_um / 1000:g} mm" if length_um >= 1000 else f"{length_um:g} µm"


def _scale_bar(width_um: float, length_um: float | None = None) -> ScaleBar:
    length_um = length_um or scale_length_um(width_um)
    return ScaleBar(round(100 * length_um / width_um, 3), _length_text(length_um))


_ANCHORS = np.array(
    [(255, 250, 205), (254, 217, 118), (253, 141, 60), (215, 38, 46), (110, 0, 70)], np.float64
)
_STEPS = 250


def _probability_table() -> NDArray[np.uint8]:
    """RGBA of the probabilities 0, 1/250 … 1, and clear for what was not judged, (252, 4).

    Light yellow over orange to dark red; darker and stronger is always higher.
    """
    values = np.linspace(0, 1, _STEPS + 1)
    place = values * (len(_ANCHORS) - 1)
    colors = [np.interp(place, np.arange(len(_ANCHORS)), _ANCHORS[:, channel]) for channel in range(3)]
    table = np.stack([*colors, 255 * (0.35 + 0.4 * values)], axis=1)
    return np.concatenate([np.rint(table), np.zeros((1, 4))]).astype(np.uint8)


def _probability_colors(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The colors (RGBA) of a map (rows, columns), clear where it is NaN because nothing was judged."""
    steps = np.where(np.isfinite(values), np.clip(values, 0, 1) * _STEPS + 0.5, _STEPS + 1)
    return _probability_table()[steps.astype(np.uint8)]


def probability_bar() -> Picture:
    """The colors of the heatmap from 0 (left) to 1 (right) over pale tissue."""
    from PIL import Image

    colors = _probability_colors(np.linspace(0, 1, 256, dtype=np.float32))
    layer = Image.fromarray(np.tile(colors, (14, 1, 1)))
    picture = Image.new("RGB", layer.size, (225, 225, 225))
    picture.paste(layer, (0, 0), layer)
    return _encoded(picture)


def _under(view: View, scalar: ScalarMap, cells: NDArray[np.uint8]) -> Image:
    """What ``cells`` (bytes or RGBA, one for each of the map's) have under the center of each pixel of the view.

    Pixels beside the map get 0.
    """
    from PIL import Image

    mpp = scalar.frame.mpp
    columns = np.floor((np.arange(view.size[0]) + 0.5) * view.um_per_px / mpp.x).astype(int)
    rows = np.floor((np.arange(view.size[1]) + 0.5) * view.um_per_px / mpp.y).astype(int)
    height, width = scalar.values.shape
    # the four bytes of a color go as one number
    values = cells.view(np.uint32)[..., 0] if cells.ndim == 3 else cells
    found = values.take(np.minimum(rows, height - 1), axis=0).take(np.minimum(columns, width - 1), axis=1)
    found[rows >= height] = 0
    found[:, columns >= width] = 0
    return Image.fromarray(found.view(np.uint8).reshape(*found.shape, *cells.shape[2:]))


def thumbnail_picture(shown: Shown) -> Picture:
    """The slide as it is."""
    return _encoded(shown.color, shown.view.width_um)


def tissue_picture(shown: Shown, evidence: Evidence) -> Picture | None:
    """The slide with the tissue's outline, pen marks and folds; None without a tissue mask."""
    if evidence.tissue is None:
        return None
    view, picture = shown.view, shown.color.copy()
    for mask, color in ((evidence.pen, PEN_COLOR), (evidence.fold, FOLD_COLOR)):
        if mask is not None and mask.any():
            _painted(picture, _mask_alpha(mask, view.size).point(lambda value: value * 6 // 10), color)
            _painted(picture, _edge_alpha(mask, view.size), color)
    outside = _mask_alpha(~evidence.tissue, view.size).point(lambda value: value * 45 // 100)
    _painted(picture, outside, (255, 255, 255))
    _painted(picture, _edge_alpha(evidence.tissue, view.size), TISSUE_COLOR)
    return _encoded(picture, view.width_um)


def heatmap_picture(shown: Shown, scalar: ScalarMap) -> Picture:
    """A probability map over the slide in light gray; what was not judged stays gray."""
    picture = shown.pale.convert("RGB")
    layer = _under(shown.view, scalar, _probability_colors(scalar.values))
    picture.paste(layer, (0, 0), layer)
    return _encoded(picture, shown.view.width_um)


def quality_picture(shown: Shown, blurred: ScalarMap | None) -> Picture | None:
    """Tiles that are out of focus (1 in the map), marked; None where nothing was judged."""
    if blurred is None or not np.isfinite(blurred.values).any():
        return None
    view, picture = shown.view, shown.pale.convert("RGB")
    strength = np.where(blurred.values > 0.5, 255 * 55 // 100, 0).astype(np.uint8)
    _painted(picture, _under(view, blurred, strength), BLUR_COLOR)
    return _encoded(picture, view.width_um)


def _rings(view: View, region: TumorRegion) -> list[NDArray[np.float64]]:
    """The region's rings in the view, without the vertices that nobody could see there."""
    import shapely

    lines = [region.polygon.exterior, *region.polygon.interiors]
    placed = shapely.transform(lines, view.from_slide)
    return [np.asarray(line.coords, np.float64)[:-1] for line in shapely.simplify(placed, 0.25)]


def regions_picture(shown: Shown, evidence: Evidence) -> Picture:
    """The outlines of the tumor regions on the slide, the largest with their numbers (from 1, in order)."""
    from PIL import ImageDraw, ImageFont

    view, picture = shown.view, shown.color.copy()
    visible = [region for region in evidence.regions if not region.polygon.is_empty]
    rings = [ring for region in visible for ring in _rings(view, region)]
    if rings:
        _outlined(picture, rings, REGION_COLOR, max(2.0, max(view.size) / 260), (30, 20, 0))
    unit = max(14.0, max(view.size) / 34)
    font = ImageFont.load_default(unit)
    draw = ImageDraw.Draw(picture)
    by_area = sorted(enumerate(evidence.regions, 1), key=lambda pair: (-pair[1].area_mm2, pair[0]))
    for number, region in by_area[:_NUMBERED]:
        if region.polygon.is_empty:
            continue
        x0, y0, x1, y1 = view.from_slide(np.reshape(region.polygon.bounds, (2, 2))).ravel().tolist()
        if min(x1 - x0, y1 - y0) > 2.5 * unit:
            inside = region.polygon.representative_point()
            x, y = view.from_slide(np.array([inside.x, inside.y])).tolist()
        else:  # beside a region that the number would hide
            x, y = (x1 + unit if x1 + 2 * unit < view.size[0] else x0 - unit), (y0 + y1) / 2
        y = min(max(y, unit), view.size[1] - unit)
        style: dict[str, Any] = {"anchor": "mm", "stroke_width": unit / 7, "stroke_fill": (20, 15, 0)}
        draw.text((x, y), str(number), (255, 255, 255), font, **style)
    return _encoded(picture, view.width_um)


def nuclei_pictures(sample: NucleiSample, um_per_level0_px: float) -> tuple[Picture, Picture, int]:
    """The place as it is, the outlines on a clear ground of the same size, and how many nuclei are in it.

    A nucleus is in the place where its centroid is; one that only reaches into it is drawn but not counted.
    ``um_per_level0_px`` is the slide's µm per level-0 pixel along x, for the scale bar.
    """
    from PIL import Image, ImageChops

    height, width = sample.image.shape[:2]
    factor = max(1, round(_SAMPLE_PX / max(width, height)))
    size = (width * factor, height * factor)
    if max(size) > 2 * _SAMPLE_PX:
        shrink = 2 * _SAMPLE_PX / max(size)
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    picture = _resized(sample.image, size)
    scale = np.array([size[0] / sample.box.width, size[1] / sample.box.height])
    corner = np.array([sample.box.x0, sample.box.y0])
    rings = [(sample.nuclei.outline_px(k) - corner) * scale for k in range(len(sample.nuclei))]
    rings = [ring for ring in rings if len(ring) and (ring.max(0) > 0).all() and (ring.min(0) < size).all()]
    centers = (sample.nuclei.centroid_px - corner) * scale
    count = int(((centers >= 0) & (centers < size)).all(axis=1).sum())
    line = _line_alpha(size, rings, 2.2)
    around = _line_alpha(size, rings, 4.2).point(lambda value: value * 30 // 100)
    lines = Image.new("RGB", size, (0, 30, 15))
    _painted(lines, line, NUCLEUS_COLOR)
    lines.putalpha(ImageChops.lighter(line, around))
    return _encoded(picture, sample.box.width * um_per_level0_px), _encoded(lines), count


def gallery_picture(nucleus: GalleryNucleus, um_per_level0_px: float, bar_um: float) -> Picture:
    """One nucleus with its outline, enlarged to about 200 px; ``bar_um`` is the scale bar of the whole gallery."""
    height, width = nucleus.image.shape[:2]
    factor = max(1, round(_CROP_PX / max(width, height)))
    size = (width * factor, height * factor)
    picture = _resized(nucleus.image, size)
    scale = np.array([size[0] / nucleus.box.width, size[1] / nucleus.box.height])
    ring = (np.asarray(nucleus.outline_px, np.float64) - (nucleus.box.x0, nucleus.box.y0)) * scale
    _painted(picture, _line_alpha(size, [ring], 3.2).point(lambda value: value * 35 // 100), (0, 30, 15))
    _painted(picture, _line_alpha(size, [ring], 1.6), NUCLEUS_COLOR)
    return _encoded(picture, nucleus.box.width * um_per_level0_px, bar_um=bar_um)


def _steps(highest: float) -> float:
    """The distance of an axis's marks: 1, 2 or 5 × 10ⁿ, four to nine of them up to ``highest``."""
    raw = highest / 9
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)


@dataclass(frozen=True, eq=False)
class Histogram:
    """Of each place's values the ``shares`` between ``edges`` (from 0) and that from the last edge on (``beyond``)."""

    edges: NDArray[np.float64]
    shares: Sequence[NDArray[np.float64]]
    beyond: Sequence[float]


def histogram(places: Sequence[NDArray[np.float64]]) -> Histogram:
    """Bins by Freedman and Diaconis's rule, 12 to 60 of them, that a long tail does not widen.

    The last edge lies at the 99th percentile, or five quartile ranges above the upper quartile if that comes first, and
    has two digits.
    """
    quartiles = [np.percentile(values, [25, 75]) for values in places]
    last = max(
        min(float(np.percentile(values, 99)), float(upper + 5 * (upper - lower)))
        for values, (lower, upper) in zip(places, quartiles, strict=True)
    )
    digit = 10.0 ** (math.floor(math.log10(last)) - 1)
    end = digit * (math.floor(last / digit) + 1)
    width = min(
        2 * float(upper - lower) / len(values) ** (1 / 3)
        for values, (lower, upper) in zip(places, quartiles, strict=True)
    )
    bins = math.ceil(min(max(end / max(width, 1e-9), 12), 60))
    edges = np.linspace(0, end, bins + 1)
    return Histogram(
        edges,
        [np.histogram(values[values < end], edges)[0] / len(values) for values in places],
        [float((values >= end).mean()) for values in places],
    )


def areas_picture(areas: Sequence[Areas]) -> Picture:
    """How areas are distributed: share of each place's nuclei per step of area, and the medians.

    The first place as a filled shape, the second as a line over it; what lies beyond the axis is a last bin, set apart.
    Pillow's own font has no µ: the unit is the page's to say.
    """
    from PIL import Image, ImageDraw, ImageFont

    shown = [np.asarray(place.area_um2, np.float64) for place in areas]
    binned = histogram(shown)
    edges, shares = binned.edges, binned.shares
    end, long_tail = float(edges[-1]), any(binned.beyond)
    # as wide as its label asks
    apart = (end * 1.04, end * 1.2) if long_tail else (end, end)
    top = max(*(float(share.max()) for share in shares), *binned.beyond) * 1.3

    width, height = _PLOT_PX
    left, right, above, below = 70, 18, 14, 34
    ink, pale, soft = (40, 40, 46), (226, 228, 232), (98, 104, 110)
    scale = 2
    picture = Image.new("RGB", (width * scale, height * scale), "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(15 * scale)

    def x(value: float) -> float:
        return (left + value / apart[1] * (width - left - right)) * scale

    def y(share: float) -> float:
        return (height - below - share / top * (height - above - below)) * scale

    step = _steps(top * 100)
    for mark in np.arange(0, top * 100, step):
        draw.line([x(0), y(mark / 100), x(apart[1]), y(mark / 100)], pale, scale)
        draw.text((x(0) - 8 * scale, y(mark / 100)), f"{mark:g} %", soft, font, "rm")
    for mark in np.arange(0, end, _steps(end)):
        draw.line([x(mark), y(0), x(mark), y(0) + 5 * scale], soft, scale)
        draw.text((x(mark), y(0) + 9 * scale), f"{mark:g}", soft, font, "ma")
    if long_tail:
        draw.text((x(sum(apart) / 2), y(0) + 9 * scale), f"{end:g} and above", soft, font, "ma")
    for number, (share, beyond, color) in enumerate(zip(shares, binned.beyond, AREA_COLORS, strict=False)):
        outline = [(x(0), y(0))]
        for low, high, value in zip(edges[:-1], edges[1:], share, strict=True):
            outline += [(x(low), y(value)), (x(high), y(value))]
        outline.append((x(end), y(0)))
        last = [(x(apart[0]), y(0)), (x(apart[0]), y(beyond)), (x(apart[1]), y(beyond)), (x(apart[1]), y(0))]
        for bars in [outline, last] if beyond else [outline]:
            if number == 0:
                draw.polygon(bars, tuple(round(255 - (255 - channel) * 0.3) for channel in color))
            draw.line(bars, color, round(2.2 * scale), joint="curve")
    for number, (values, color) in enumerate(zip(shown, AREA_COLORS, strict=False)):
        median = float(np.median(values))
        for low in np.arange(0, top, top / 40):
            draw.line([x(median), y(low), x(median), y(low + top / 80)], color, round(1.6 * scale))
        said = f"median {median:.3g}"
        room = draw.textlength(said, font) + 10 * scale
        # the lesser median's label stands left of its line where there is room, so that no line goes through it
        others = [float(np.median(other)) for other in shown]
        lesser = median == min(others) < max(others) and x(median) - x(0) > room
        before = lesser or x(median) + room > x(apart[1])
        beside = x(median) + (-6 if before else 6) * scale
        line = y(top) + (4 + 20 * number) * scale
        draw.text(
            (beside, line),
            said,
            color,
            font,
            "ra" if before else "la",
            stroke_width=3,
            stroke_fill="white",
        )
    draw.line([x(0), y(0), x(apart[1]), y(0)], ink, round(1.5 * scale))
    return _encoded(picture, drawn=True)
