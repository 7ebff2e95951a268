"""Makes the tiles of a block of 4096 px: reused where one layer shows, composed where layers or marks meet.

A tile on which one repeating layer shows alone is that canvas's JPEG tile as it is. Every other tile is put
together pixel by pixel. Where a border would cut a nucleus, it bends around it: a nucleus shows whole where
its center pixel belongs to its layer, and not at all elsewhere. (Nuclei of two layers may so overlap at a
border; the later layer's is on top.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lobule.phantom.layout import GLASS, Layout
from lobule.phantom.pyramid import TILE_PX
from lobule.phantom.texture import PERIOD_TILES, Rgb, Texture, encode_jpeg, reduce_by_4

__all__ = ["BLOCK_TILES", "Block", "Composer", "EncodedTile", "ShownNuclei"]

BLOCK_TILES = PERIOD_TILES
_QUARTER = TILE_PX // 4


@dataclass(frozen=True, slots=True)
class EncodedTile:
    """A tile of the file. ``repeated`` names its data where the same bytes occur again."""

    level: int
    column: int
    row: int
    data: bytes
    repeated: tuple[int, int, int, int] | None


@dataclass(frozen=True, slots=True)
class ShownNuclei:
    """Nuclei of one layer in a block: ``outlines`` in level-0 px, each (m, 2), and the mark over each."""

    layer: str
    outlines: list[NDArray[np.float64]]
    marks: list[str]


@dataclass(frozen=True, slots=True)
class Block:
    """One block's tiles of levels 0 to 2, its picture at 1/64 (64, 64, 3), and its nuclei."""

    tiles: list[EncodedTile]
    smallest: Rgb
    nuclei: list[ShownNuclei]


class Composer:
    """Composes blocks; safe to use from several threads, each block depends on nothing but its place.

    ``textures`` maps a layer's number (0 = glass) to its texture; ``grid`` is (columns, rows) of tiles of
    each level of the file.
    """

    def __init__(
        self,
        layout: Layout,
        textures: Mapping[int, Texture],
        grid: tuple[tuple[int, int], ...],
        *,
        mpp: float,
        nuclei: bool,
    ) -> None:
        self._layout = layout
        self._textures = textures
        self._grid = grid
        self._with_nuclei = nuclei
        self._blur_px = max(2.5 / mpp, 1.0)
        self._blur_margin = min(int(np.ceil(3 * self._blur_px)), TILE_PX)
        self._smallest: dict[int, Rgb] = {}

    def block(self, column: int, row: int) -> Block:
        """The block at (column, row), counted in blocks."""
        x0, y0 = column * BLOCK_TILES, row * BLOCK_TILES
        labels = self._layout.sure_labels(x0, y0, BLOCK_TILES, BLOCK_TILES)
        tiles: list[EncodedTile] = []
        first = int(labels[0, 0])
        if first >= 0 and (labels == first).all() and self._textures[first].encoded(0, x0, y0) is not None:
            for level in range(min(3, len(self._grid))):
                self._reuse(tiles, level, column, row, first)
            smallest = self._smallest_of(first)
        else:
            smallest = self._compose_block(tiles, column, row, labels)
        return Block(tiles, smallest, self._nuclei_in(x0, y0) if self._with_nuclei else [])

    def _in_grid(self, level: int, column: int, row: int) -> bool:
        return level < len(self._grid) and column < self._grid[level][0] and row < self._grid[level][1]

    def _reuse(
        self, tiles: list[EncodedTile], level: int, block_column: int, block_row: int, label: int
    ) -> None:
        count = BLOCK_TILES >> (2 * level)
        for row in range(block_row * count, (block_row + 1) * count):
            for column in range(block_column * count, (block_column + 1) * count):
                if self._in_grid(level, column, row):
                    self._reuse_one(tiles, level, column, row, label)

    def _reuse_one(self, tiles: list[EncodedTile], level: int, column: int, row: int, label: int) -> bool:
        data = self._textures[label].encoded(level, column, row)
        if data is None:
            return False
        period = BLOCK_TILES >> (2 * level)
        tiles.append(EncodedTile(level, column, row, data, (label, level, column % period, row % period)))
        return True

    def _smallest_of(self, label: int) -> Rgb:
        if label not in self._smallest:
            from lobule.phantom.texture import decode_jpeg

            data = self._textures[label].encoded(2, 0, 0)
            assert data is not None
            self._smallest[label] = reduce_by_4(decode_jpeg(data))
        return self._smallest[label]

    def _compose_block(
        self, tiles: list[EncodedTile], block_column: int, block_row: int, labels: NDArray[np.int16]
    ) -> Rgb:
        sharp: dict[tuple[int, int], Rgb] = {}
        x0, y0 = block_column * BLOCK_TILES, block_row * BLOCK_TILES
        white = self._textures[GLASS].pixels(0, 0)
        side = BLOCK_TILES * _QUARTER
        level_1 = np.empty((side, side, 3), np.uint8)
        for row in range(BLOCK_TILES):
            for column in range(BLOCK_TILES):
                place = (
                    slice(row * _QUARTER, (row + 1) * _QUARTER),
                    slice(column * _QUARTER, (column + 1) * _QUARTER),
                )
                x, y, label = x0 + column, y0 + row, int(labels[row, column])
                if not self._in_grid(0, x, y):
                    level_1[place] = white[:_QUARTER, :_QUARTER]
                    continue
                if label >= 0:
                    if self._reuse_one(tiles, 0, x, y, label):
                        level_1[place] = self._textures[label].reduced(x, y)
                        continue
                    image = self._textures[label].pixels(x, y)
                else:
                    image = self.tile(x, y, sharp)
                tiles.append(EncodedTile(0, x, y, encode_jpeg(image), None))
                level_1[place] = reduce_by_4(image)
        for row in range(4):
            for column in range(4):
                x, y = block_column * 4 + column, block_row * 4 + row
                if self._in_grid(1, x, y):
                    part = labels[row * 4 : row * 4 + 4, column * 4 : column * 4 + 4]
                    label = int(part[0, 0])
                    if label >= 0 and (part == label).all() and self._reuse_one(tiles, 1, x, y, label):
                        continue
                    tile = level_1[
                        row * TILE_PX : (row + 1) * TILE_PX, column * TILE_PX : (column + 1) * TILE_PX
                    ]
                    tiles.append(EncodedTile(1, x, y, encode_jpeg(np.ascontiguousarray(tile)), None))
        level_2 = reduce_by_4(level_1)
        if self._in_grid(2, block_column, block_row):
            tiles.append(EncodedTile(2, block_column, block_row, encode_jpeg(level_2), None))
        return reduce_by_4(level_2)

    def tile(self, column: int, row: int, sharp: dict[tuple[int, int], Rgb] | None = None) -> Rgb:
        """One level-0 tile, (256, 256, 3) uint8, with its marks.

        ``sharp`` keeps tiles without blur, dust and pen for neighbors that need them.
        """
        sharp = {} if sharp is None else sharp
        image = self._sharp(column, row, sharp)
        for mark, distance in self._layout.marks_in(column, row):
            if mark.kind == "blur":
                image = _mix(image, self._blurred(column, row, sharp), np.clip(distance / 100, 0, 1))
            elif mark.kind == "dust":
                shade = image * (np.asarray(mark.shade, np.float32) / 255)
                image = _mix(image, shade, np.clip(distance / 30 + 0.3, 0, 1))
            elif mark.kind == "pen":
                # ink is thicker along the rim of a stroke, where it dries last
                rim = 0.78 + 0.14 * np.exp(-np.maximum(distance, 0) / 60)
                shade = image * (np.asarray(mark.shade, np.float32) / 255)
                image = _mix(image, shade, np.clip(distance / 8 + 0.5, 0, 1) * rim)
        return image

    def _sharp(self, column: int, row: int, known: dict[tuple[int, int], Rgb]) -> Rgb:
        key = column, row
        if key not in known:
            image = self._plain(column, row)
            for mark, distance in self._layout.marks_in(column, row):
                if mark.kind == "fold":
                    # two layers of tissue: their optical densities add
                    other = self._plain(column + 1, row)
                    both = image.astype(np.float32) * other / 270
                    image = _mix(image, both, np.clip(distance / 6 + 0.5, 0, 1))
            known[key] = image
        return known[key]

    def _blurred(self, column: int, row: int, sharp: dict[tuple[int, int], Rgb]) -> Rgb:
        from PIL import Image, ImageFilter

        m = self._blur_margin
        wide = np.empty((TILE_PX + 2 * m, TILE_PX + 2 * m, 3), np.uint8)
        spans = (
            (-1, slice(0, m), slice(TILE_PX - m, TILE_PX)),
            (0, slice(m, m + TILE_PX), slice(0, TILE_PX)),
            (1, slice(m + TILE_PX, 2 * m + TILE_PX), slice(0, m)),
        )
        for dy, to_y, from_y in spans:
            for dx, to_x, from_x in spans:
                wide[to_y, to_x] = self._sharp(column + dx, row + dy, sharp)[from_y, from_x]
        soft = np.asarray(Image.fromarray(wide).filter(ImageFilter.GaussianBlur(self._blur_px)))
        return soft[m : m + TILE_PX, m : m + TILE_PX]

    def _plain(self, column: int, row: int) -> Rgb:
        labels, near = self._layout.tile_labels(column, row)
        if len(near) == 1:
            return self._textures[near[0]].pixels(column, row)
        labels = self._keep_nuclei_whole(labels, near, column, row)
        present = [int(label) for label in np.flatnonzero(np.bincount(labels.ravel()))]
        image = self._textures[present[0]].pixels(column, row).copy()
        for label in present[1:]:
            # as items of 3 bytes, masked copying is some 50 times faster than on (256, 256, 3)
            source = np.ascontiguousarray(self._textures[label].pixels(column, row))
            np.copyto(image.view("V3")[..., 0], source.view("V3")[..., 0], where=labels == label)
        return image

    def _keep_nuclei_whole(
        self, labels: NDArray[np.uint8], near: list[int], column: int, row: int
    ) -> NDArray[np.uint8]:
        found: list[tuple[int, NDArray[np.uint16], NDArray[np.uint8]]] = []
        middle = np.array([column * TILE_PX + TILE_PX // 2, row * TILE_PX + TILE_PX // 2])
        for label in near:
            texture = self._textures[label]
            if texture.nuclei is None:
                continue
            centers = self._unwrapped(texture.nuclei.centers, middle)
            close = (np.abs(centers - middle) < TILE_PX // 2 + texture.nuclei.reach_px).all(axis=1)
            which = np.flatnonzero(close)
            at_center = self._layout.labels_at(centers[which, 0], centers[which, 1])
            here = labels == label
            to_show = (at_center == label).any() and not here.all()
            to_hide = (at_center != label).any() and here.any()
            ids = texture.ids(column, row) if to_show or to_hide else None
            if ids is not None:
                # home[k]: the layer at the center of nucleus k; home[0] stands for no nucleus
                home = np.full(len(centers) + 1, label, np.uint8)
                home[which + 1] = at_center
                found.append((label, ids, home))
        if not found:
            return labels
        result = labels.copy()
        for label, ids, home in found:
            foreign = (labels == label) & (home[ids] != label)
            result[foreign] = home[ids[foreign]]
        for label, ids, home in found:
            # two nuclei that both show elsewhere meet here: a small cleft is left between them
            result[(result == label) & (home[ids] != label)] = GLASS
        for label, ids, home in found:
            result[(ids > 0) & (home[ids] == label)] = label
        return result

    @staticmethod
    def _unwrapped(centers: NDArray[np.int64], middle: NDArray[np.int64]) -> NDArray[np.int64]:
        """Canvas centers at the repetition nearest to a point of the slide, in slide px."""
        side = PERIOD_TILES * TILE_PX
        nearest: NDArray[np.int64] = (centers - middle + side // 2) % side - side // 2 + middle
        return nearest

    def _nuclei_in(self, x0: int, y0: int) -> list[ShownNuclei]:
        shown: list[ShownNuclei] = []
        width, height = self._layout.size
        for label, texture in sorted(self._textures.items()):
            if texture.nuclei is None or not len(texture.nuclei.centers):
                continue
            places = texture.nuclei.centers + np.array([x0 * TILE_PX, y0 * TILE_PX])
            mine = np.flatnonzero(self._layout.labels_at(places[:, 0], places[:, 1]) == label)
            outlines: list[NDArray[np.float64]] = []
            kept: list[int] = []
            for k in mine:
                outline = texture.nuclei.outlines[k] + places[k]
                low, high = outline.min(axis=0), outline.max(axis=0)
                if low.min() >= 0 and high[0] <= width and high[1] <= height:
                    outlines.append(outline)
                    kept.append(int(k))
            if kept:
                marks = self._layout.marks_at(places[kept, 0], places[kept, 1])
                shown.append(ShownNuclei(self._layout.layers[label - 1].name, outlines, marks))
        return shown


def _mix(image: NDArray[Any], other: NDArray[Any], share: NDArray[Any]) -> Rgb:
    weight = share.astype(np.float32)[:, :, None]
    return np.asarray(np.rint(image + (other - image.astype(np.float32)) * weight), np.uint8)
