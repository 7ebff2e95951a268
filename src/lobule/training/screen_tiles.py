"""Tiles on which a screening network learns what the patch network says, and the patch network's answers.

No label is needed: whatever the patch network may meet is shown to it, and its answer is the target. Tiles come
from fields of the training block, slides composed of them, drawn phantoms, drawn textures of no kind of tissue
in particular, glass, fat and pen; all are changed in stain, color, sharpness and compression before both see them.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lobule.errors import ConfigurationError, ModelOutputError, ResultWriteError
from lobule.geometry import Box
from lobule.phantom import PhantomSpec, write_phantom
from lobule.phantom.noise import periodic_noise
from lobule.slides import open_slide, read_region, working_frame
from lobule.strict import values_of
from lobule.training.augment import augment_color, pale_tile, resize_area, turn
from lobule.training.bach import FieldImage, tissue_share
from lobule.training.composed import at_working_mpp, compose_slide, key_of_made
from lobule.training.recipe import ComposeSettings, ScreenRecipe, TileMix

__all__ = [
    "ScreenTiles",
    "Teacher",
    "TileMaker",
    "draw_texture",
    "feature_basis",
    "halve",
    "make_tiles",
    "part_fields",
    "principal_axes",
    "read_unlabeled",
]

Rng = np.random.Generator
Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


def halve(tiles: Pixels) -> Pixels:
    """Returns the means of 2 × 2 pixels, (..., H, W, 3) → (..., H / 2, W / 2, 3), rounded half up."""
    wide = tiles.astype(np.uint16)
    rows = wide[..., 0::2, :, :] + wide[..., 1::2, :, :]
    return ((rows[..., 0::2, :] + rows[..., 1::2, :] + 2) >> 2).astype(np.uint8)


class Teacher:
    """The shipped patch network, one tile a call, with the map of features that it pools.

    ``features`` are what its global pooling takes: (channels, rows, columns). OpenVINO, float32, one thread.
    Raises ModelOutputError where the graph has no global pooling.
    """

    def __init__(self, path: Path, tile_px: int) -> None:
        from lobule.runtimes.openvino_library import openvino

        core = openvino.Core()
        graph = core.read_model(path)
        pooled = [node for node in graph.get_ordered_ops() if node.get_type_name() == "ReduceMean"]
        if not pooled:
            raise ModelOutputError(path.parent.name, f"{path.name} has no global pooling to learn from")
        graph.add_outputs(pooled[-1].input_value(0))
        graph.reshape([1, tile_px, tile_px, 3])
        how = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": "1"}
        self._request = core.compile_model(graph, "CPU", how).create_infer_request()

    def judge(self, tile: Pixels) -> float:
        """Returns the probability of tumor of a tile (H, W, 3); `features` are its own until the next call."""
        self._request.infer({0: np.ascontiguousarray(tile[None])}, share_inputs=True)
        return float(self._request.get_output_tensor(0).data[0, 1])

    @property
    def features(self) -> Floats:
        """The map of features of the last tile, (channels, rows, columns)."""
        return np.array(self._request.get_output_tensor(1).data[0])

    def classify(self, tiles: Pixels) -> Floats:
        """Returns the probabilities of tumor of tiles (N, H, W, 3)."""
        return np.array([self.judge(tile) for tile in tiles], np.float32)


@dataclass(frozen=True, eq=False)
class ScreenTiles:
    """Tiles with the patch network's answers.

    ``tiles`` (N, H / 2, W / 2, 3) uint8, halved; ``probability`` (N,) float32; ``features`` (N, rows, columns,
    kept) float16: the leading principal components of the patch network's features, each of unit spread.
    """

    tiles: Pixels
    probability: Floats
    features: NDArray[np.float16]


def draw_texture(side_px: int, rng: Rng) -> Pixels:
    """Returns a drawn texture (side, side, 3) at 1 µm/px: fibers, round nuclei and gaps, all of chance amounts.

    It is no tissue in particular. A network that has to answer the same as another one on any slide has to be
    shown more than slides.
    """
    side = 2 * side_px  # drawn at 0.5 µm/px
    long = float(np.exp(rng.uniform(0, 1.6)))
    scale = float(np.exp(rng.uniform(np.log(4), np.log(40))))
    eosin = rng.uniform(0.15, 0.6) + rng.uniform(0.03, 0.16) * periodic_noise(
        rng, side, scale, along=scale * long
    )
    eosin += rng.uniform(0.0, 0.08) * periodic_noise(rng, side, rng.uniform(2.5, 6))
    per_mm2 = float(np.exp(rng.uniform(np.log(150), np.log(12000))))
    radius = rng.uniform(4, 12)
    body = _draw_bodies(side, int(per_mm2 * (side_px / 1000) ** 2), radius, rng)
    eosin *= 1 - rng.uniform(0.2, 0.9) * np.minimum(body, 1)
    gap = periodic_noise(rng, side, rng.uniform(30, 200), along=rng.uniform(30, 200))
    open_ = np.clip((gap - rng.uniform(0.8, 2.4)) * rng.uniform(1.5, 6), 0, 1) * rng.uniform(0.5, 1)
    hematoxylin = rng.uniform(0, 0.15) + rng.uniform(0.4, 1.1) * body
    stains = np.array([[0.65, 0.70, 0.29], [0.08, 0.96, 0.24]]) + rng.normal(0, 0.05, (2, 3))
    density = hematoxylin[..., None] * stains[0] + eosin[..., None] * stains[1]
    density = np.maximum(density, 0) * (1 - open_[..., None])
    glass = rng.uniform(228, 253) + rng.normal(0, 2, 3)
    image = glass * np.exp(-density)
    image += (
        rng.uniform(0, 18) * periodic_noise(rng, side, rng.uniform(2, 4))[..., None] * (1 - open_[..., None])
    )
    return halve(np.clip(image, 0, 255).astype(np.uint8))


def _draw_bodies(side: int, count: int, radius: float, rng: Rng) -> Floats:
    """Round bodies with a grain and a darker rim, 0 to about 1.3, (side, side), wrapped around at the edges."""
    out = np.zeros((side, side), np.float32)
    grain = 1 + rng.uniform(0, 0.4) * periodic_noise(rng, side, rng.uniform(3, 7))
    rim = rng.uniform(0, 0.4)
    spread = rng.uniform(0.05, 0.35)
    thin = rng.uniform(0.4, 0.95)
    groups = rng.random() < 0.4
    seeds = rng.uniform(0, side, (max(1, count // 25), 2))
    for _ in range(count):
        a = radius * float(np.exp(rng.normal(0, spread)))
        b, angle = a * rng.uniform(thin, 1), rng.uniform(0, np.pi)
        at = rng.uniform(0, side, 2)
        if groups:
            at = seeds[int(rng.integers(len(seeds)))] + rng.normal(0, 5 * radius, 2)
        row, column = int(at[0]), int(at[1])
        reach = int(1.3 * a) + 2
        y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
        u, v = (x * np.cos(angle) + y * np.sin(angle)) / a, (y * np.cos(angle) - x * np.sin(angle)) / b
        d = u * u + v * v
        shape = np.clip((1.15 - d) * 4, 0, 1) * rng.uniform(0.6, 1.15) + rim * np.exp(-(((d - 0.9) * 6) ** 2))
        place = np.ix_(
            np.arange(row - reach, row + reach + 1) % side,
            np.arange(column - reach, column + reach + 1) % side,
        )
        out[place] = np.maximum(out[place], shape)
    return out * grain


class TileMaker:
    """Draws tiles of all kinds, already changed at random, as `make_tiles` shows them to the patch network.

    ``pools`` holds squares cut from composed slides, from phantoms and from drawn textures, by those names.
    """

    def __init__(
        self,
        fields: Sequence[FieldImage],
        recipe: ScreenRecipe,
        mix: TileMix,
        pools: dict[str, Sequence[Pixels]],
    ) -> None:
        self._fields, self._recipe, self._mix, self._pools = fields, recipe, mix, pools
        shares = values_of(mix)
        self._kinds = [
            name
            for name in ("field", "composed", "phantom", "texture", "pale", "patchwork")
            if shares[name] > 0
        ]
        self._shares = np.array([shares[name] for name in self._kinds], np.float64)
        self._shares /= self._shares.sum()

    def draw(self, rng: Rng) -> Pixels:
        """Returns a tile (tile_px, tile_px, 3) uint8."""
        recipe, mix = self._recipe, self._mix
        kind = self._kinds[int(rng.choice(len(self._kinds), p=self._shares))]
        if kind == "pale":
            tile = pale_tile(recipe.tile_px, rng, self._field_crop(rng))
        elif kind == "field":
            tile = self._field_crop(rng)
        elif kind == "patchwork":
            tile = self._patchwork(rng)
        else:
            tile = self._pool_crop(kind, rng)
        if rng.random() < mix.glass:
            tile = self._beside_glass(tile, rng)
        if rng.random() < mix.changed:
            tile = augment_color(tile, recipe.augment, rng)
        return tile

    def _field_crop(self, rng: Rng) -> Pixels:
        field = self._fields[int(rng.integers(len(self._fields)))]
        return self._crop(field.pixels, self._recipe.mpp / self._recipe.field_mpp, rng)

    def _pool_crop(self, kind: str, rng: Rng) -> Pixels:
        pool = self._pools[kind]
        square = pool[int(rng.integers(len(pool)))]
        if square.shape[0] == self._recipe.tile_px:
            (turned,) = turn([square], rng)
            return turned
        return self._crop(square, 1.0, rng)

    def _crop(self, pixels: Pixels, ratio: float, rng: Rng) -> Pixels:
        from PIL import Image

        size = self._recipe.tile_px
        low, high = np.log(self._recipe.augment.scale)
        scale = float(np.exp(rng.uniform(low, high))) if rng.random() < self._mix.changed else 1.0
        side = min(size * ratio * scale, *pixels.shape[:2])
        height, width = pixels.shape[:2]
        x, y = rng.uniform(0, width - side), rng.uniform(0, height - side)
        how = Image.Resampling.BOX if rng.random() < 0.5 else Image.Resampling.BILINEAR
        tile = Image.fromarray(pixels).resize((size, size), how, box=(x, y, x + side, y + side))
        (turned,) = turn([np.asarray(tile)], rng)
        return turned

    def _region(self, rng: Rng) -> NDArray[np.bool_]:
        """A part of the tile beyond a wavy line."""
        from PIL import Image

        size = self._recipe.tile_px
        angle = rng.uniform(0, 2 * np.pi)
        rows, columns = np.mgrid[:size, :size] / size - 0.5
        wave = rng.normal(0, rng.uniform(0.02, 0.12), (6, 6)).astype(np.float32)
        wave = np.asarray(Image.fromarray(wave).resize((size, size), Image.Resampling.BICUBIC))
        return rows * np.sin(angle) + columns * np.cos(angle) + wave > rng.uniform(-0.35, 0.35)

    def _patchwork(self, rng: Rng) -> Pixels:
        """Two tiles, side by side or one through the other: what the patch network is undecided about."""
        one, two = (
            self._field_crop(rng)
            if rng.random() < 0.8 or not self._pools["phantom"]
            else self._pool_crop("phantom", rng)
            for _ in range(2)
        )
        if rng.random() < 0.4:
            share = rng.uniform(0.2, 0.8)
            return np.rint(one * share + two * (1 - share)).astype(np.uint8)
        return np.where(self._region(rng)[..., None], one, two)

    def _beside_glass(self, tile: Pixels, rng: Rng) -> Pixels:
        glass = rng.uniform(225, 255) + rng.normal(0, 2, 3) + rng.normal(0, 1.5, tile.shape)
        return np.where(self._region(rng)[..., None], np.clip(glass, 0, 255).astype(np.uint8), tile)


def _composed_tiles(fields: Sequence[FieldImage], recipe: ScreenRecipe, count: int, rng: Rng) -> list[Pixels]:
    compose: ComposeSettings = recipe.compose
    size = recipe.tile_px
    tiles: list[Pixels] = []
    while len(tiles) < count:
        slide, _ = compose_slide(fields, compose, rng)
        if min(slide.shape[:2]) < size:
            continue
        for _ in range(60):
            y, x = (int(rng.integers(n - size + 1)) for n in slide.shape[:2])
            tile = slide[y : y + size, x : x + size]
            if tissue_share(tile) > recipe.min_tissue:
                tiles.append(tile.copy())
    return tiles[:count]


def _phantom_tiles(recipe: ScreenRecipe, count: int, number: int, folder: Path) -> list[Pixels]:
    """Squares of a drawn slide, somewhat larger than a tile, at the working mpp."""
    seed = 100_000 + recipe.seed * 1000 + number  # far from the seeds of slides that anybody measures on
    rng = np.random.default_rng([seed, 7])
    spec = PhantomSpec(
        (13312, 13312),
        0.25,
        seed=seed,
        tissue_share=0.6,
        tumor_share=float(rng.uniform(0.15, 0.6)),
        compact=True,
    )
    path = folder / "phantom.tif"
    written = write_phantom(path, spec, workers=1)
    size = recipe.tile_px + recipe.tile_px // 4
    tiles: list[Pixels] = []
    try:
        with open_slide(path) as slide:
            frame = working_frame(slide, recipe.mpp)
            while len(tiles) < count:
                x, y = (int(rng.integers(n - size + 1)) for n in frame.size)
                tile = read_region(slide, frame, Box(x, y, x + size, y + size))
                if tissue_share(tile) > recipe.min_tissue:
                    tiles.append(np.array(tile))
    finally:
        path.unlink()
        written.regions.unlink()
    return tiles


def _make_shard(
    fields: Sequence[FieldImage],
    scaled: Sequence[FieldImage],
    teacher: Teacher,
    basis: tuple[Floats, Floats],
    recipe: ScreenRecipe,
    mix: TileMix,
    number: int,
    folder: Path,
) -> ScreenTiles:
    rng = np.random.default_rng([recipe.seed, number])
    wanted = {name: getattr(mix, name) > 0 for name in ("composed", "phantom", "texture")}
    squares = mix.shard // 6
    textures = range(max(1, mix.shard // 170))
    pools: dict[str, Sequence[Pixels]] = {
        "composed": _composed_tiles(scaled, recipe, squares, rng) if wanted["composed"] else (),
        "phantom": _phantom_tiles(recipe, squares, number, folder) if wanted["phantom"] else (),
        "texture": [draw_texture(2 * recipe.tile_px, rng) for _ in textures] if wanted["texture"] else (),
    }
    maker = TileMaker(fields, recipe, mix, pools)
    mean, axes = basis
    tiles = np.empty((mix.shard, recipe.tile_px // 2, recipe.tile_px // 2, 3), np.uint8)
    probability = np.empty(mix.shard, np.float32)
    features: list[NDArray[np.float16]] = []
    for k in range(mix.shard):
        tile = maker.draw(rng)
        probability[k] = teacher.judge(tile)
        features.append(((teacher.features.transpose(1, 2, 0) - mean) @ axes).astype(np.float16))
        tiles[k] = halve(tile)
    return ScreenTiles(tiles, probability, np.stack(features))


def principal_axes(features: Floats, kept: int) -> tuple[Floats, Floats]:
    """Returns the mean (C,) of features (N, C) and the axes (C, kept) onto their leading components of unit spread."""
    mean = features.mean(axis=0)
    centered = (features - mean).astype(np.float64)
    values, vectors = np.linalg.eigh(centered.T @ centered / len(features))
    order = np.argsort(values)[::-1][:kept]
    axes = vectors[:, order] / np.sqrt(np.maximum(values[order], 1e-9))
    return mean.astype(np.float32), axes.astype(np.float32)


def make_tiles(
    fields: Sequence[FieldImage],
    teacher: Teacher,
    basis: tuple[Floats, Floats],
    recipe: ScreenRecipe,
    mix: TileMix,
    folder: Path,
    say: Callable[[str], None],
    first: int = 0,
) -> ScreenTiles:
    """Returns tiles of ``mix``; kept in ``folder`` by shards, from which a killed run goes on.

    ``basis`` is `feature_basis`'s; shards are numbered, and drawn, from ``first`` on. Slides are composed of the
    fields that are as large as the first. Shards of another teacher, other fields or another recipe are made anew.
    Raises ResultWriteError.
    """
    probe = np.random.default_rng(0).integers(0, 256, (recipe.tile_px, recipe.tile_px, 3), np.uint8)
    drawn_by = {name: value for name, value in values_of(recipe).items() if name not in ("loop", "network")}
    made_of = (drawn_by, values_of(mix), teacher.judge(probe), basis[0].tobytes(), basis[1].tobytes())
    key = key_of_made(fields, *made_of)
    alike = [field for field in fields if field.pixels.shape == fields[0].pixels.shape]
    scaled = at_working_mpp(alike, recipe.field_mpp, recipe.mpp)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        side = recipe.tile_px // 2
        tiles = np.empty((mix.shards * mix.shard, side, side, 3), np.uint8)
        probability = np.empty(len(tiles), np.float32)
        features: list[NDArray[np.float16]] = []
        for at in range(mix.shards):
            number = first + at
            path = folder / f"{number:03d}.npz"
            shard = _held(path, key)
            if shard is None:
                shard = _make_shard(fields, scaled, teacher, basis, recipe, mix, number, folder)
                part = path.with_suffix(".part")
                with part.open("wb") as handle:
                    np.savez(
                        handle,
                        tiles=shard.tiles,
                        probability=shard.probability,
                        features=shard.features,
                        made_of=key,
                    )
                part.replace(path)
                say(f"tiles: {at + 1} of {mix.shards} × {mix.shard} judged by the patch network")
            own = slice(at * mix.shard, (at + 1) * mix.shard)
            tiles[own], probability[own] = shard.tiles, shard.probability
            features.append(shard.features)
    except OSError as error:
        raise ResultWriteError(folder, f"tiles cannot be kept: {error}") from error
    return ScreenTiles(tiles, probability, np.concatenate(features))


def _held(path: Path, key: str) -> ScreenTiles | None:
    try:
        with path.open("rb") as handle, np.load(handle) as held:
            arrays: Any = held
            if str(arrays["made_of"]) != key:
                return None
            return ScreenTiles(arrays["tiles"], arrays["probability"], arrays["features"])
    except (FileNotFoundError, zipfile.BadZipFile, EOFError, ValueError, KeyError):
        return None  # not made yet, or cut off while it was written


def feature_basis(
    fields: Sequence[FieldImage], teacher: Teacher, recipe: ScreenRecipe
) -> tuple[Floats, Floats]:
    """Returns the mean and the leading axes of the patch network's features on a corner of every field."""
    size = recipe.tile_px
    found = []
    for field in at_working_mpp(fields, recipe.field_mpp, recipe.mpp):
        teacher.judge(field.pixels[:size, :size])
        features = teacher.features
        found.append(features.reshape(features.shape[0], -1).T)
    return principal_axes(np.concatenate(found), recipe.network.features)


def part_fields(fields: Sequence[FieldImage]) -> tuple[list[FieldImage], list[FieldImage]]:
    """Parts each class's series of fields in two, one field between them left out: neighbors may be one patient."""
    first, second = [], []
    for label in sorted({field.label for field in fields}):
        own = sorted((field for field in fields if field.label == label), key=lambda field: field.order)
        half = len(own) // 2
        first += own[:half]
        second += own[half + 1 :]
    return first, second


def read_unlabeled(data: Path, field_mpp: float) -> list[FieldImage]:
    """Returns the pieces with tissue of BACH part B's large fields and MoNuSeg's fields at ``field_mpp``.

    Nothing is known, or used, of what they show. Raises ConfigurationError where they are absent.
    """
    from PIL import Image

    sets = (("bach_b", "*.jpg", 0.467, (4, 3)), ("monuseg/images", "*", 0.25, (1, 1)))
    out = []
    for folder, pattern, mpp, (rows, columns) in sets:
        files = sorted((data / folder).glob(pattern))
        if not files:
            raise ConfigurationError("--data", str(data), f"it must hold {folder} with images")
        for file in files:
            with Image.open(file) as image:
                pixels = np.asarray(image.convert("RGB"))
            ratio = mpp / field_mpp
            height, width = (round(n * ratio) for n in pixels.shape[:2])
            pixels = resize_area(pixels, (width, height))
            for row in range(rows):
                for column in range(columns):
                    piece = pixels[
                        row * height // rows : (row + 1) * height // rows,
                        column * width // columns : (column + 1) * width // columns,
                    ]
                    if tissue_share(piece) > 0.3:
                        name = f"{folder}/{file.stem}-{row}-{column}"
                        out.append(FieldImage(name, "unlabeled", 0, np.ascontiguousarray(piece)))
    return out
