"""Fields of BACH: how they are split, read and cut into tiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lobule.errors import ConfigurationError
from lobule.spreadsheet import read_sheet
from lobule.training.augment import augment_color, pale_tile, resize_area, turn
from lobule.training.recipe import AugmentSettings, BlockSplit

__all__ = [
    "TUMOR_LABELS",
    "FieldImage",
    "TileSource",
    "read_fields",
    "split_blocks",
    "tile_field",
    "tile_side_px",
    "tissue_share",
]

Pixels = NDArray[np.uint8]
TUMOR_LABELS = ("insitu", "invasive")
_LABELS = ("normal", "benign", *TUMOR_LABELS)
_BLOCKS = ("training", "selection", "test")


@dataclass(frozen=True)
class FieldImage:
    """One field: its file name, label, number in its class's series, and pixels (H, W, 3) uint8."""

    name: str
    label: str
    order: int
    pixels: Pixels

    @property
    def tumor(self) -> bool:
        """Whether the field is carcinoma, in situ or invasive."""
        return self.label in TUMOR_LABELS


def split_blocks(orders: Sequence[int], split: BlockSplit) -> dict[str, list[int]]:
    """Cuts a series of numbers into contiguous blocks 'training', 'selection' and 'test'.

    Numbers next to each other may come from one patient. A cut goes to the widest gap within ``split.search``
    places of its nominal one (the nearest of equals) if that gap is at least ``split.natural_gap`` wide; else
    it stays and ``split.dropped`` numbers after it belong to no block.
    """
    series = sorted(orders)
    blocks: dict[str, list[int]] = {}
    start, share = 0, 0.0
    for name in _BLOCKS[:2]:
        share += getattr(split, name)
        nominal = round(share * len(series))
        near = [
            at for at in range(nominal - split.search, nominal + split.search + 1) if start < at < len(series)
        ]
        cut = max(near, key=lambda at: (series[at] - series[at - 1], -abs(at - nominal)), default=nominal)
        natural = 0 < cut < len(series) and series[cut] - series[cut - 1] >= split.natural_gap
        if not natural:
            cut = nominal
        blocks[name] = series[start:cut]
        start = cut if natural else cut + split.dropped
    blocks["test"] = series[start:]
    return blocks


def tile_side_px(tile_px: int, mpp: float, field_mpp: float) -> int:
    """How many pixels of a field at ``field_mpp`` the side of a tile at ``mpp`` takes, rounded up."""
    return math.ceil(tile_px * mpp / field_mpp - 1e-9)


def read_fields(folder: Path, split: BlockSplit, least_px: int) -> dict[str, list[FieldImage]]:
    """Reads ``labels.csv`` and the fields; returns them by block.

    Raises ConfigurationError that names the row where the table or an image cannot be used, a field is smaller than
    ``least_px`` each way (`tile_side_px`) or two of a label share an order, and where a block has no field.
    """
    table = folder / "labels.csv"
    if not table.is_file():
        raise ConfigurationError("--data", str(folder), "it must hold labels.csv with file, label, order")
    by_label: dict[str, dict[int, FieldImage]] = {}
    for where, name, label, order in _rows(table):
        of_label = by_label.setdefault(label, {})
        if order in of_label:
            raise ConfigurationError(
                "--data",
                where,
                f"order {order} of {label} is that of {of_label[order].name}, too; number them apart",
            )
        pixels = _read_image(folder / name, where)
        height, width = pixels.shape[:2]
        if min(height, width) < least_px:
            raise ConfigurationError(
                "--data",
                where,
                f"{name} is {width} × {height} px, smaller than a tile ({least_px} px); leave it out",
            )
        of_label[order] = FieldImage(name, label, order, pixels)
    out: dict[str, list[FieldImage]] = {name: [] for name in _BLOCKS}
    for label in sorted(by_label):
        for block, orders in split_blocks(list(by_label[label]), split).items():
            out[block].extend(by_label[label][order] for order in orders)
    empty = [block for block, fields in out.items() if not fields]
    if empty:
        count = sum(len(fields) for fields in by_label.values())
        raise ConfigurationError(
            "--data",
            str(table),
            f"of its fields ({count}) none is left for the {empty[0]} block; add fields",
        )
    return out


def _rows(table: Path) -> list[tuple[str, str, str, int]]:
    """Place in the table, file, label and order of each field."""
    try:
        sheet = read_sheet(table)
    except ValueError as error:
        raise ConfigurationError("--data", str(table), str(error)) from error
    missing = {"file", "label", "order"} - set(sheet.columns)
    if missing:
        raise ConfigurationError(
            "--data",
            str(table),
            f"line 1 must name columns file, label and order, not {', '.join(sheet.columns) or 'none'}",
        )
    rows = []
    for line, row in sheet.rows:
        where = f"{table} line {line}"
        if not row["file"] or not row["label"]:
            raise ConfigurationError("--data", where, "the file and its label must be named")
        if row["label"] not in _LABELS:
            raise ConfigurationError(
                "--data", where, f"the label {row['label']!r} is none of {', '.join(_LABELS)}"
            )
        try:
            order = int(row["order"])
        except ValueError as error:
            raise ConfigurationError(
                "--data", where, f"order must be a whole number, not {row['order']!r}"
            ) from error
        rows.append((where, row["file"], row["label"], order))
    return rows


def _read_image(path: Path, where: str) -> Pixels:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError as error:
        raise ConfigurationError("--data", where, f"there is no file {path}") from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise ConfigurationError(
            "--data", where, f"{path} is no image that can be decoded: {error}"
        ) from error


def tissue_share(tile: Pixels) -> float:
    """Returns the share of pixels with HSV saturation of at least 20 of 255 (H2G-Net's tissue rule)."""
    high = tile.max(axis=2).astype(np.int32)
    low = tile.min(axis=2).astype(np.int32)
    return float(((high - low) * 255 >= 20 * np.maximum(high, 1)).mean())


def tile_field(
    pixels: Pixels, field_mpp: float, mpp: float, tile_px: int, min_tissue: float
) -> tuple[list[tuple[int, int]], Pixels]:
    """Cuts a field at ``mpp`` into tiles that cover it, evenly spaced with a little overlap.

    Returns their (x, y) origins and pixels (N, tile, tile, 3) uint8, those with enough tissue only.
    """
    height, width = (round(n * field_mpp / mpp) for n in pixels.shape[:2])
    scaled = resize_area(pixels, (width, height))
    spots = [
        (int(x), int(y))
        for y in np.linspace(0, height - tile_px, -(-height // tile_px)).round()
        for x in np.linspace(0, width - tile_px, -(-width // tile_px)).round()
    ]
    tiles = [scaled[y : y + tile_px, x : x + tile_px] for x, y in spots]
    kept = [i for i, tile in enumerate(tiles) if tissue_share(tile) > min_tissue]
    if not kept:
        return [], np.zeros((0, tile_px, tile_px, 3), np.uint8)
    return [spots[i] for i in kept], np.stack([tiles[i] for i in kept])


class TileSource:
    """Draws batches of augmented training tiles, classes balanced, fields uniform within a class.

    ``draw(rng, count)`` returns tiles (count, tile, tile, 3) uint8 and labels (count,) int64, 1 = carcinoma.
    """

    def __init__(
        self,
        fields: Sequence[FieldImage],
        field_mpp: float,
        mpp: float,
        tile_px: int,
        min_tissue: float,
        pale_share: float,
        augment: AugmentSettings,
    ) -> None:
        if {field.tumor for field in fields} != {True, False}:
            raise ConfigurationError("--data", "training block", "it must hold carcinoma and other fields")
        self._by_label: dict[str, list[FieldImage]] = {}
        for field in fields:
            self._by_label.setdefault(field.label, []).append(field)
        self._ratio = mpp / field_mpp
        self._tile_px, self._min_tissue, self._pale = tile_px, min_tissue, pale_share
        self._augment = augment

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Pixels, NDArray[np.int64]]:
        tiles = np.empty((count, self._tile_px, self._tile_px, 3), np.uint8)
        labels = np.zeros(count, np.int64)
        for i in range(count):
            tumor = bool(rng.integers(2))
            if not tumor and rng.random() < 2 * self._pale:
                base = self._crop(False, rng)
                tiles[i] = augment_color(pale_tile(self._tile_px, rng, base), self._augment, rng)
                continue
            (tile,) = turn([self._crop(tumor, rng)], rng)
            tiles[i] = augment_color(tile, self._augment, rng)
            labels[i] = int(tumor)
        return tiles, labels

    def _crop(self, tumor: bool, rng: np.random.Generator) -> Pixels:
        from PIL import Image

        names = [name for name in sorted(self._by_label) if (name in TUMOR_LABELS) == tumor]
        while True:
            fields = self._by_label[names[int(rng.integers(len(names)))]]
            pixels = fields[int(rng.integers(len(fields)))].pixels
            low, high = self._augment.scale
            scale = float(np.exp(rng.uniform(np.log(low), np.log(high))))
            height, width = pixels.shape[:2]
            side = min(self._tile_px * self._ratio * scale, height, width)
            x, y = rng.uniform(0, width - side), rng.uniform(0, height - side)
            how = Image.Resampling.BOX if rng.random() < 0.3 else Image.Resampling.BILINEAR
            tile = np.asarray(
                Image.fromarray(pixels).resize(
                    (self._tile_px, self._tile_px), how, box=(x, y, x + side, y + side)
                )
            )
            if tissue_share(tile) > self._min_tissue:
                return tile
