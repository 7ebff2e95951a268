"""Where a layer's pixels come from: flat glass, or a canvas that repeats every 16 tiles."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lobule.phantom.pyramid import TILE_PX

__all__ = [
    "PERIOD_TILES",
    "Canvas",
    "FlatTexture",
    "Nuclei",
    "Texture",
    "decode_jpeg",
    "encode_jpeg",
    "reduce_by_4",
]

PERIOD_TILES = 16
QUALITY = 80

Rgb = NDArray[np.uint8]


def encode_jpeg(image: Rgb) -> bytes:
    """A 256 px tile as JPEG: YCbCr, 4:2:0, quality 80."""
    import imagecodecs

    return bytes(
        imagecodecs.jpeg8_encode(
            image, level=QUALITY, colorspace="RGB", outcolorspace="YCBCR", subsampling="420"
        )
    )


def decode_jpeg(data: bytes) -> Rgb:
    """What `encode_jpeg` wrote, (256, 256, 3) uint8."""
    import imagecodecs

    return np.asarray(imagecodecs.jpeg8_decode(data), np.uint8)


def reduce_by_4(image: Rgb) -> Rgb:
    """An image averaged over squares of 4 px."""
    from PIL import Image

    return np.asarray(Image.fromarray(image).reduce(4))


class Nuclei:
    """The nuclei of a canvas: ``centers`` (n, 2) pixels x, y on it and ``outlines`` around them.

    Outline k is (m, 2) float, x, y relative to the center pixel's top left corner; nucleus k has id k + 1.
    """

    def __init__(self, centers: NDArray[np.int64], outlines: Sequence[NDArray[np.float64]]) -> None:
        self.centers = centers
        self.outlines = tuple(outlines)
        reach = max((float(np.abs(outline).max()) for outline in self.outlines), default=0.0)
        self.reach_px = int(np.ceil(reach)) + 1
        """No nucleus reaches farther from its center pixel."""


class Texture(Protocol):
    """A source of tiles. Coordinates are tiles of the slide at that level."""

    @property
    def nuclei(self) -> Nuclei | None:
        """The nuclei of one repetition; None where they are unknown."""
        ...

    def encoded(self, level: int, column: int, row: int) -> bytes | None:
        """The JPEG tile, the same bytes every `PERIOD_TILES` level-0 tiles; None if it repeats nowhere."""
        ...

    def pixels(self, column: int, row: int) -> Rgb:
        """A level-0 tile, (256, 256, 3) uint8, not to be written to."""
        ...

    def reduced(self, column: int, row: int) -> Rgb:
        """A level-0 tile averaged to (64, 64, 3) uint8."""
        ...

    def ids(self, column: int, row: int) -> NDArray[np.uint16] | None:
        """Which nucleus each pixel of a level-0 tile shows, (256, 256) uint16, 0 none; None if unknown."""
        ...


class FlatTexture:
    """Glass of one color."""

    nuclei = None

    def __init__(self, color: tuple[int, int, int]) -> None:
        self._pixels: Rgb = np.full((TILE_PX, TILE_PX, 3), color, np.uint8)
        self._encoded = encode_jpeg(self._pixels)

    def encoded(self, level: int, column: int, row: int) -> bytes:
        """See Texture."""
        return self._encoded

    def pixels(self, column: int, row: int) -> Rgb:
        """See Texture."""
        return self._pixels

    def reduced(self, column: int, row: int) -> Rgb:
        """See Texture."""
        return self._pixels[: TILE_PX // 4, : TILE_PX // 4]

    def ids(self, column: int, row: int) -> None:
        """See Texture."""


class Canvas:
    """A seamless square of 16 × 16 tiles that repeats over the slide; kept as JPEG tiles.

    Its pixels are what the JPEG tiles decode to, so that a composed tile agrees with its reused neighbors.
    """

    def __init__(self, image: Rgb, ids: NDArray[np.uint16] | None, nuclei: Nuclei | None) -> None:
        side = PERIOD_TILES * TILE_PX
        if image.shape != (side, side, 3):
            raise ValueError(f"a canvas has {side} x {side} px, not {image.shape}")
        self.nuclei = nuclei
        self._reduced = reduce_by_4(image)
        self._tiles: dict[tuple[int, int, int], bytes] = {}
        level, current = 0, image
        while current.shape[0] >= TILE_PX:
            tiles = current.shape[0] // TILE_PX
            for row in range(tiles):
                for column in range(tiles):
                    part = current[
                        row * TILE_PX : (row + 1) * TILE_PX, column * TILE_PX : (column + 1) * TILE_PX
                    ]
                    self._tiles[level, column, row] = encode_jpeg(np.ascontiguousarray(part))
            level, current = level + 1, reduce_by_4(current)
        self._ids: dict[tuple[int, int], bytes] = {}
        if ids is not None:
            for row in range(PERIOD_TILES):
                for column in range(PERIOD_TILES):
                    tile = ids[row * TILE_PX : (row + 1) * TILE_PX, column * TILE_PX : (column + 1) * TILE_PX]
                    self._ids[column, row] = zlib.compress(tile.tobytes(), 1)

    def encoded(self, level: int, column: int, row: int) -> bytes:
        """See Texture."""
        period = PERIOD_TILES >> (2 * level)
        return self._tiles[level, column % period, row % period]

    def pixels(self, column: int, row: int) -> Rgb:
        """See Texture."""
        return decode_jpeg(self._tiles[0, column % PERIOD_TILES, row % PERIOD_TILES])

    def reduced(self, column: int, row: int) -> Rgb:
        """See Texture."""
        part = TILE_PX // 4
        x, y = column % PERIOD_TILES * part, row % PERIOD_TILES * part
        return self._reduced[y : y + part, x : x + part]

    def ids(self, column: int, row: int) -> NDArray[np.uint16] | None:
        """See Texture."""
        if not self._ids:
            return None
        data = zlib.decompress(self._ids[column % PERIOD_TILES, row % PERIOD_TILES])
        return np.frombuffer(data, np.uint16).reshape(TILE_PX, TILE_PX)
