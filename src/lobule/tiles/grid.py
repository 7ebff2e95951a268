"""The grid of tiles over a working frame."""

from __future__ import annotations

from dataclasses import dataclass

from lobule.geometry import Box

__all__ = ["TileGrid"]

_ORIGIN_STEP = 32
"""Networks halve five times at most as a rule."""


@dataclass(frozen=True, slots=True)
class TileGrid:
    """Square tiles whose kept centers cover a working frame exactly once.

    A tile is *read* ``tile_px`` wide and *kept* ``tile_px - 2·halo_px`` wide: the halo gives the model
    context and is thrown away. Kept boxes start at multiples of the stride from 0; the first read box
    therefore starts at ``-halo_px``. Tiles are numbered row by row.

    size_px: (width, height) of the working frame. Everything is in working pixels and integer.
    Raises ValueError for sizes that are not positive or a halo that leaves nothing to keep.
    """

    size_px: tuple[int, int]
    tile_px: int
    halo_px: int = 0

    def __post_init__(self) -> None:
        if min(self.size_px) < 1:
            raise ValueError(f"a grid needs a frame of at least 1 × 1 px, not {self.size_px}")
        if self.halo_px < 0 or self.tile_px - 2 * self.halo_px < 1:
            raise ValueError(f"a halo of {self.halo_px} px leaves nothing of a tile of {self.tile_px} px")

    @property
    def stride_px(self) -> int:
        """Distance between neighboring tiles, which is the side of the kept center."""
        return self.tile_px - 2 * self.halo_px

    @property
    def columns(self) -> int:
        return -(-self.size_px[0] // self.stride_px)

    @property
    def rows(self) -> int:
        return -(-self.size_px[1] // self.stride_px)

    def __len__(self) -> int:
        return self.rows * self.columns

    def index(self, row: int, column: int) -> int:
        """The number of the tile at (row, column). Raises IndexError outside the grid."""
        if not (0 <= row < self.rows and 0 <= column < self.columns):
            raise IndexError(f"no tile at row {row}, column {column} of {self.rows} × {self.columns}")
        return row * self.columns + column

    def position(self, index: int) -> tuple[int, int]:
        """(row, column) of a tile. Raises IndexError outside the grid."""
        if not 0 <= index < len(self):
            raise IndexError(f"no tile {index} among {len(self)}")
        return divmod(index, self.columns)

    def kept(self, index: int) -> Box:
        """The part of the frame that this tile answers for, clipped to the frame; never empty."""
        return self._kept_unclipped(index).clipped(*self.size_px)

    def read(self, index: int) -> Box:
        """What the model sees: always ``tile_px`` square, may reach outside the frame."""
        return self._kept_unclipped(index).grown(self.halo_px)

    def read_inside(self, index: int, side_step: int) -> Box:
        """The read box moved onto the frame, and smaller where the frame is; it holds the kept box and its halo.

        It ends less than 32 px beyond the frame, so that a network's strides meet the same pixels in every tile;
        where the frame is smaller than a tile, less than ``side_step``, of which its side is a multiple then.
        """
        read = self.read(index)
        x0, x1 = _onto(read.x0, self.tile_px, self.size_px[0], side_step)
        y0, y1 = _onto(read.y0, self.tile_px, self.size_px[1], side_step)
        return Box(x0, y0, x1, y1)

    def _kept_unclipped(self, index: int) -> Box:
        row, column = self.position(int(index))
        x0, y0 = column * self.stride_px, row * self.stride_px
        return Box(x0, y0, x0 + self.stride_px, y0 + self.stride_px)


def _onto(start: int, tile_px: int, size: int, side_step: int) -> tuple[int, int]:
    if size < tile_px:
        return 0, min(tile_px, -(-size // side_step) * side_step)
    start = max(min(start, -(-size // _ORIGIN_STEP) * _ORIGIN_STEP - tile_px), 0)
    return start, start + tile_px
