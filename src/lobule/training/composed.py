"""Slides composed of fields, for training and scoring the refining stage.

Tissue of drawn outline on glass, with tumor regions of drawn outline in it; inside, fields as a patchwork.
Stage 1 is really run on every tile, so its errors on fields it never saw are those that stage 2 meets.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lobule.errors import ResultWriteError
from lobule.evaluation.interval import bootstrap
from lobule.evaluation.pixels import dice
from lobule.families.tumor import heatmap_on_grid, refinement_frame
from lobule.findings.maps import ScalarMap
from lobule.geometry import Mpp, WorkingFrame
from lobule.models.card import Score
from lobule.strict import values_of
from lobule.training.augment import augment_color, resize_area, turn
from lobule.training.bach import FieldImage, tissue_share
from lobule.training.recipe import ComposeSettings, RefineSettings, TumorRecipe
from lobule.training.score import score_of

__all__ = [
    "Frame",
    "FrameSource",
    "at_working_mpp",
    "compose_frames",
    "compose_slide",
    "cut_tiles",
    "frame_of",
    "map_of",
    "region_scores",
    "threshold_of_regions",
]

Rng = np.random.Generator
Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Classify = Callable[[Pixels], NDArray[np.float32]]
_OUTLINE_PX = 16
"""Outlines are drawn on a grid of 16 µm."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One slide fitted into the refining square, without the padding.

    ``pixels`` (h, w, 3) uint8, ``heatmap`` and ``cells`` (h, w) float32: stage 1's probability, bilinear and
    as the squares that it is; ``truth`` (h, w) bool.
    """

    pixels: Pixels
    heatmap: NDArray[np.float32]
    cells: NDArray[np.float32]
    truth: Mask

    def inputs(self, size_px: int) -> dict[str, NDArray]:
        """Returns the refining graph's inputs: top left in a square, white and 0 beyond."""
        height, width = self.truth.shape
        pixels = np.full((1, size_px, size_px, 3), 255, np.uint8)
        heatmap = np.zeros((1, size_px, size_px, 1), np.float32)
        pixels[0, :height, :width] = self.pixels
        heatmap[0, :height, :width, 0] = self.heatmap
        return {"pixels": pixels, "heatmap": heatmap}


def _noise(shape: tuple[int, int], sigma: float, rng: Rng) -> NDArray[np.float64]:
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(rng.normal(size=shape), sigma, mode="reflect")
    return (smooth - smooth.mean()) / max(float(smooth.std()), 1e-9)


def _outlines(settings: ComposeSettings, rng: Rng) -> tuple[Mask, Mask]:
    """Returns where tissue is and where tumor is, on the 16 µm grid."""
    low, high = np.log(settings.side_mm)
    side = float(np.exp(rng.uniform(low, high))) * 1000 / _OUTLINE_PX
    aspect = float(np.exp(rng.uniform(-0.5, 0.5)))
    top = settings.side_mm[1] * 1000 / _OUTLINE_PX
    height, width = (int(np.clip(side * f, 24, top)) for f in (aspect**0.5, aspect**-0.5))
    rows, columns = np.mgrid[:height, :width]
    y, x = (rows + 0.5) / height * 2 - 1, (columns + 0.5) / width * 2 - 1
    power = rng.uniform(2, 8)
    bound = np.abs(x) ** power + np.abs(y) ** power
    rough = rng.uniform(0.1, 0.6) * _noise((height, width), 0.12 * min(height, width), rng)
    tissue = bound + rough < rng.uniform(0.5, 1.1)
    if rng.random() < 0.5:  # fat and lumina: glass within the tissue
        tissue &= _noise((height, width), rng.uniform(3, 12), rng) < rng.uniform(1.0, 2.2)
    kind = rng.random()
    if kind < settings.no_tumor_share or not tissue.any():
        return tissue, np.zeros_like(tissue)
    if kind < settings.no_tumor_share + settings.all_tumor_share:
        return tissue, tissue.copy()
    tumor = np.zeros_like(tissue)
    places = np.argwhere(tissue)
    for _ in range(int(rng.integers(1, 4))):
        row, column = places[int(rng.integers(len(places)))]
        low, high = np.log(settings.tumor_mm)
        diameter = float(np.exp(rng.uniform(low, high))) * 1000 / _OUTLINE_PX
        radius = min(diameter, 0.9 * max(height, width)) / 2
        stretch = float(np.exp(rng.uniform(-0.3, 0.3)))
        distance = np.hypot((rows - row) * stretch, (columns - column) / stretch) / radius
        tumor |= distance + 0.3 * _noise((height, width), max(radius * 0.3, 1.5), rng) < 1
    return tissue, tumor & tissue


def compose_slide(fields: Sequence[FieldImage], settings: ComposeSettings, rng: Rng) -> tuple[Pixels, Mask]:
    """Returns a slide (H, W, 3) uint8 at the resolution of the fields' pixels and its tumor mask / 16.

    ``fields`` must hold carcinoma and other fields; some slides are one field and nothing else.
    """
    if rng.random() < settings.field_share:
        field = fields[int(rng.integers(len(fields)))]
        (pixels,) = turn([field.pixels], rng)
        height, width = (int(n * rng.uniform(0.5, 1)) // _OUTLINE_PX * _OUTLINE_PX for n in pixels.shape[:2])
        pixels = pixels[:height, :width]
        return pixels, np.full((height // _OUTLINE_PX, width // _OUTLINE_PX), field.tumor)
    tissue, tumor = _outlines(settings, rng)
    glass = rng.uniform(232, 252) + rng.normal(0, 2, 3)
    height, width = (n * _OUTLINE_PX for n in tissue.shape)
    slide = np.empty((height, width, 3), np.uint8)
    slide[:] = np.clip(glass + rng.normal(0, 1.5, (1, width, 3)), 0, 255).astype(np.uint8)
    palettes = []
    for wanted, most in ((False, 6), (True, 4)):
        own = [field for field in fields if field.tumor == wanted]
        count = min(len(own), int(rng.integers(1, most + 1)))
        palettes.append([own[k].pixels for k in rng.choice(len(own), count, replace=False)])
    target = _density(palettes[0][0])
    pull = rng.uniform(0.3, 0.9)
    palettes = [[_stained(image, target, pull) for image in palette] for palette in palettes]
    tall = bool(rng.integers(2))
    step_y, step_x = sorted(palettes[0][0].shape[:2], reverse=tall)
    shift_y, shift_x = int(rng.integers(step_y)), int(rng.integers(step_x))
    for y in range(-shift_y, height, step_y):
        for x in range(-shift_x, width, step_x):
            y0, x0, y1, x1 = max(y, 0), max(x, 0), min(y + step_y, height), min(x + step_x, width)
            where = _spread(tissue, y0, y1, x0, x1)
            if not where.any():
                continue
            ill = _spread(tumor, y0, y1, x0, x1)
            for palette, inside in ((palettes[0], where & ~ill), (palettes[1], ill)):
                if not inside.any():
                    continue
                image = palette[int(rng.integers(len(palette)))]
                (image,) = turn([image], rng)
                if (image.shape[0] > image.shape[1]) != tall:
                    image = np.ascontiguousarray(np.rot90(image))
                part = image[y0 - y : y1 - y, x0 - x : x1 - x]
                slide[y0:y1, x0:x1][inside] = part[inside]
    return slide, tumor


def _spread(mask: Mask, y0: int, y1: int, x0: int, x1: int) -> Mask:
    rows, columns = np.arange(y0, y1) // _OUTLINE_PX, np.arange(x0, x1) // _OUTLINE_PX
    return mask[rows[:, None], columns[None]]


def _density(image: Pixels) -> NDArray[np.float64]:
    density = -np.log((image.reshape(-1, 3)[::17].astype(np.float64) + 1) / 256)
    return np.maximum(density.mean(axis=0), 0.02)


def _stained(image: Pixels, target: NDArray[np.float64], pull: float) -> Pixels:
    # Fields of one slide share a stain, else the seams would tell normal from tumor.
    gain = (target / _density(image)) ** pull
    levels = (np.arange(256)[:, None] + 1) / 256
    table = np.clip(256 * levels**gain - 1, 0, 255).astype(np.uint8)
    return np.stack([table[:, c][image[..., c]] for c in range(3)], axis=-1)


def cut_tiles(pixels: Pixels, tile_px: int, min_tissue: float) -> tuple[NDArray[np.intp], Pixels]:
    """Returns the (row, column) of every tile with enough tissue (N, 2) and the tiles, white beyond the slide."""
    height, width = pixels.shape[:2]
    spots, tiles = [], []
    for row in range(-(-height // tile_px)):
        for column in range(-(-width // tile_px)):
            tile = np.full((tile_px, tile_px, 3), 255, np.uint8)
            part = pixels[row * tile_px : (row + 1) * tile_px, column * tile_px : (column + 1) * tile_px]
            tile[: part.shape[0], : part.shape[1]] = part
            if tissue_share(tile) > min_tissue:
                spots.append((row, column))
                tiles.append(tile)
    if not tiles:
        return np.zeros((0, 2), np.intp), np.zeros((0, tile_px, tile_px, 3), np.uint8)
    return np.array(spots), np.stack(tiles)


def map_of(
    spots: NDArray[np.intp], values: NDArray[np.float32], slide_size: tuple[int, int], tile_px: int
) -> ScalarMap:
    """Returns tile values (N,) as stage 1's map of a slide at 1 µm/px, NaN where no tile was looked at."""
    width, height = slide_size
    cells = np.full((-(-height // tile_px), -(-width // tile_px)), np.nan, np.float32)
    if len(spots):
        cells[tuple(spots.T)] = values
    return ScalarMap(cells, WorkingFrame(slide_size, Mpp(1.0, 1.0), Mpp(tile_px, tile_px)))


def frame_of(
    pixels: Pixels, tumor: Mask, classify: Classify, tile_px: int, min_tissue: float, size_px: int
) -> Frame:
    """Runs stage 1 on a slide at 1 µm/px and fits slide, heatmap and truth into the refining square."""
    from PIL import Image

    height, width = pixels.shape[:2]
    spots, tiles = cut_tiles(pixels, tile_px, min_tissue)
    values = classify(tiles) if len(tiles) else np.zeros(0, np.float32)
    heat = map_of(spots, values, (width, height), tile_px)
    grid = refinement_frame((width, height), Mpp(1.0, 1.0), size_px)
    fitted = (min(grid.size[0], size_px), min(grid.size[1], size_px))
    heatmap = heatmap_on_grid(heat, grid, (fitted[1], fitted[0]))
    scale = max(height, width) / size_px
    ys = np.minimum(((np.arange(fitted[1]) + 0.5) * scale).astype(int), height - 1)
    xs = np.minimum(((np.arange(fitted[0]) + 0.5) * scale).astype(int), width - 1)
    cells = np.nan_to_num(heat.values)[ys[:, None] // tile_px, xs[None] // tile_px]
    truth = tumor[ys[:, None] // _OUTLINE_PX, xs[None] // _OUTLINE_PX]
    how = Image.Resampling.BOX if scale > 1 else Image.Resampling.BILINEAR
    small = np.asarray(Image.fromarray(pixels).resize(fitted, how))
    return Frame(small, heatmap, cells.astype(np.float32), truth)


def at_working_mpp(fields: Sequence[FieldImage], field_mpp: float, mpp: float) -> list[FieldImage]:
    """Returns the fields resized to ``mpp``."""
    ratio = field_mpp / mpp
    return [
        FieldImage(
            field.name,
            field.label,
            field.order,
            resize_area(
                field.pixels, (round(field.pixels.shape[1] * ratio), round(field.pixels.shape[0] * ratio))
            ),
        )
        for field in fields
    ]


def key_of_made(fields: Sequence[FieldImage], *circumstances: object) -> str:
    """The digest of the fields and of whatever else something was made of (values with a stable ``repr``)."""
    named = [
        (
            field.name,
            field.label,
            field.pixels.shape,
            hashlib.sha256(field.pixels.tobytes()).hexdigest(),
        )
        for field in fields
    ]
    return hashlib.sha256(repr((named, circumstances)).encode()).hexdigest()


def compose_frames(
    recipe: TumorRecipe,
    fields: Sequence[FieldImage],
    classify: Classify,
    count: int,
    seed: int,
    folder: Path,
) -> list[Frame]:
    """Returns ``count`` composed slides as frames; kept in ``folder``, from which a killed run goes on.

    What was made there by another classifier, of other fields or by another recipe is made anew.
    """
    settings, mpp = recipe.patch, recipe.patch.mpp
    scaled = at_working_mpp(fields, recipe.field_mpp, mpp)
    probe = np.random.default_rng(0).integers(0, 256, (1, settings.tile_px, settings.tile_px, 3), np.uint8)
    key = key_of_made(
        fields,
        seed,
        recipe.field_mpp,
        settings.tile_px,
        settings.mpp,
        settings.min_tissue,
        recipe.refine.size_px,
        values_of(recipe.refine.compose),
        classify(probe).tolist(),
    )
    frames = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            path = folder / f"{number:03d}.npz"
            try:
                with path.open("rb") as handle, np.load(handle) as held:
                    if str(held["made_of"]) == key:
                        frames.append(Frame(held["pixels"], held["heatmap"], held["cells"], held["truth"]))
                        continue
            except (FileNotFoundError, zipfile.BadZipFile, EOFError, ValueError, KeyError):
                pass  # not made yet, or cut off while it was written
            slide, tumor = compose_slide(scaled, recipe.refine.compose, np.random.default_rng([seed, number]))
            frame = frame_of(
                slide, tumor, classify, settings.tile_px, settings.min_tissue, recipe.refine.size_px
            )
            np.savez(
                path,
                pixels=frame.pixels,
                heatmap=frame.heatmap,
                cells=frame.cells,
                truth=frame.truth,
                made_of=key,
            )
            frames.append(frame)
    except OSError as error:
        raise ResultWriteError(folder, f"composed slides cannot be kept: {error}") from error
    return frames


class FrameSource:
    """Draws augmented training squares of composed slides for the refining U-Net.

    A square holds one slide or a mosaic of several (a larger slide with more pieces), whole at reduced size
    or as a crop. ``draw(rng, count)`` returns pixels (count, side, side, 3) uint8, heatmaps (count, side,
    side, 1) float32 and truths (count, 1, side, side) float32.
    """

    def __init__(self, frames: Sequence[Frame], settings: RefineSettings) -> None:
        self._frames, self._settings = frames, settings

    def draw(self, rng: Rng, count: int) -> tuple[Pixels, NDArray[np.float32], NDArray[np.float32]]:
        side = self._settings.crop_px
        pixels = np.empty((count, side, side, 3), np.uint8)
        heatmaps = np.empty((count, side, side, 1), np.float32)
        truths = np.empty((count, 1, side, side), np.float32)
        for i in range(count):
            image, heat, truth = self._square(rng)
            pixels[i] = augment_color(image, self._settings.augment, rng)
            heatmaps[i, ..., 0] = self._shaken(heat, rng)
            truths[i, 0] = truth
        return pixels, heatmaps, truths

    def _square(self, rng: Rng) -> tuple[Pixels, NDArray[np.float32], NDArray[np.float32]]:
        side, size = self._settings.crop_px, self._settings.size_px
        image = np.full((side, side, 3), 255, np.uint8)
        heat, truth = np.zeros((side, side), np.float32), np.zeros((side, side), np.float32)
        low, high = self._settings.augment.scale
        if rng.random() < 0.35:  # a mosaic
            across = int(rng.integers(2, 5))
            step = side // across
            for row in range(across):
                for column in range(across):
                    part = self._scaled(step / size * rng.uniform(0.6, 1.0), rng)
                    self._put(part, (image, heat, truth), row * step, column * step)
        elif rng.random() < 0.5:  # the whole slide at the size of the square
            self._put(self._scaled(side / size * rng.uniform(low, 1.0), rng), (image, heat, truth), 0, 0)
        else:  # a crop at full size
            part = self._scaled(rng.uniform(low, high), rng)
            height, width = part[1].shape
            y, x = int(rng.integers(max(0, height - side) + 1)), int(rng.integers(max(0, width - side) + 1))
            self._put([array[y:, x:] for array in part], (image, heat, truth), 0, 0)
        return image, heat, truth

    def _scaled(self, factor: float, rng: Rng) -> list[NDArray]:
        from PIL import Image

        frame = self._frames[int(rng.integers(len(self._frames)))]
        height, width = frame.truth.shape
        target = (max(1, round(width * factor)), max(1, round(height * factor)))
        arrays = (frame.pixels, frame.heatmap, frame.truth.astype(np.float32))
        return turn(
            [
                np.asarray(Image.fromarray(array).resize(target, Image.Resampling.BILINEAR))
                for array in arrays
            ],
            rng,
        )

    @staticmethod
    def _put(part: Sequence[NDArray], into: Sequence[NDArray], y: int, x: int) -> None:
        for source, target in zip(part, into, strict=True):
            room = target[y:, x:]
            height, width = min(room.shape[0], source.shape[0]), min(room.shape[1], source.shape[1])
            room[:height, :width] = source[:height, :width]

    def _shaken(self, heat: NDArray[np.float32], rng: Rng) -> NDArray[np.float32]:
        if rng.random() > self._settings.augment.share:
            return heat
        odds = np.log((heat + 1e-3) / (1 - heat + 1e-3))
        moved = odds * rng.uniform(0.7, 1.4) + rng.normal(0, 0.5)
        return np.where(heat > 0, 1 / (1 + np.exp(-moved)), 0).astype(np.float32)


def threshold_of_regions(frames: Sequence[Frame], maps: Sequence[NDArray[np.float32]]) -> float:
    """Returns the threshold that serves the slides best on average.

    A slide with tumor counts its DSC, one without the share of its area that is rightly left alone: there DSC
    would be 0 for a single pixel and would drive the threshold up.
    """

    def served(threshold: float) -> float:
        each = [
            dice(frame.truth, one > threshold) if frame.truth.any() else 1 - float((one > threshold).mean())
            for frame, one in zip(frames, maps, strict=True)
        ]
        return float(np.mean(each))

    return float(max(np.arange(0.1, 0.81, 0.05).round(2).tolist(), key=served))


def region_scores(
    frames: Sequence[Frame],
    refined: Sequence[Mask],
    patch_threshold: float,
    region_threshold: float,
    refine_threshold: float,
) -> list[Score]:
    """Returns the DSC of stage 1 alone and of the refined region, and the area wrongly called on others.

    Stage 1 stands there twice: with its threshold chosen by tile and with one chosen by region, as the refined
    one is, so that the comparison of the stages is fair.
    """
    ill = [k for k, frame in enumerate(frames) if frame.truth.any()]
    well = [k for k, frame in enumerate(frames) if not frame.truth.any()]
    out = []
    for name, masks, how in (
        (
            "stage 1 alone",
            [frame.cells > patch_threshold for frame in frames],
            f"tiles above {patch_threshold:g}, chosen by tile",
        ),
        (
            "stage 1 alone, threshold by region",
            [frame.cells > region_threshold for frame in frames],
            f"tiles above {region_threshold:g}, chosen on composed slides",
        ),
        (
            "with refinement",
            refined,
            f"refined probability above {refine_threshold:g}, chosen on composed slides",
        ),
    ):
        each = np.array([dice(frames[k].truth, masks[k]) for k in ill])
        if ill:
            interval = bootstrap(lambda at, v=each: float(v[at].mean()), len(ill))  # type: ignore[misc]
            out.append(
                score_of(
                    f"region DSC, {name}",
                    interval,
                    f"{len(ill)} slides with tumor composed of BACH test block fields",
                    f"mean over slides, {how}",
                    "slides, which share fields",
                )
            )
        if well:
            wrong = np.array([float(masks[k].mean()) for k in well])
            interval = bootstrap(lambda at, v=wrong: float(v[at].mean()), len(well))  # type: ignore[misc]
            out.append(
                score_of(
                    f"area wrongly called tumor, {name}",
                    interval,
                    f"{len(well)} slides without tumor composed of BACH test block fields",
                    f"share of the slide's area, {how}",
                    "slides, which share fields",
                )
            )
    return out
