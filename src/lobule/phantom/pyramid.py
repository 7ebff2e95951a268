"""A small streaming writer of tiled, pyramidal JPEG BigTIFF files.

Tiles are appended in any order as they are made; only their offsets are kept, so memory holds 16 bytes a
tile. The directories are written behind the tiles when the file is finished. Layout after the TIFF 6.0
specification, its Technical Note 2 (JPEG) and the BigTIFF extension.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from typing import BinaryIO

import numpy as np

__all__ = ["TILE_PX", "PyramidWriter", "pyramid_sizes"]

TILE_PX = 256

_ASCII, _SHORT, _LONG, _RATIONAL, _UNDEFINED, _LONG8 = 2, 3, 4, 5, 7, 16
_FRAME = (0xC0,)
_TABLES = (0xDB, 0xC4)


def pyramid_sizes(
    size: tuple[int, int], *, smallest_px: int = 512, levels: int = 4
) -> tuple[tuple[int, int], ...]:
    """(width, height) of each level: 1/4 of the one before, until both sides are within ``smallest_px``."""
    sizes = [size]
    while max(sizes[-1]) > smallest_px and len(sizes) < levels:
        width, height = sizes[-1]
        sizes.append((max(1, width // 4), max(1, height // 4)))
    return tuple(sizes)


def _segments(head: bytes, markers: tuple[int, ...]) -> bytes:
    """The segments of a JPEG head (from SOI to before SOS) that have one of the markers."""
    found, position = b"", 2
    while position < len(head):
        length = 2 + int.from_bytes(head[position + 2 : position + 4], "big")
        if head[position + 1] in markers:
            found += head[position : position + length]
        position += length
    return found


def _jpeg_tables(data: bytes) -> bytes:
    """The abbreviated table stream of a baseline JPEG: quantization and Huffman tables alone."""
    return b"\xff\xd8" + _segments(data[: data.index(b"\xff\xda")], _TABLES) + b"\xff\xd9"


class PyramidWriter:
    """Writes encoded tiles of several levels into ``stream`` (empty, seekable)."""

    def __init__(
        self,
        stream: BinaryIO,
        sizes: Sequence[tuple[int, int]],
        *,
        mpp: float,
        descriptions: Sequence[str],
        software: str,
    ) -> None:
        self._stream = stream
        self._sizes = tuple(sizes)
        self._mpp = mpp
        self._descriptions = tuple(descriptions)
        self._software = software
        self._grid = tuple((-(-w // TILE_PX), -(-h // TILE_PX)) for w, h in self._sizes)
        self._offsets = [np.zeros((rows, columns), np.uint64) for columns, rows in self._grid]
        self._counts = [np.zeros((rows, columns), np.uint64) for columns, rows in self._grid]
        self._position = stream.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
        self._repeated: dict[object, int] = {}
        self._tables = self._head = self._frame = b""

    @property
    def grid(self) -> tuple[tuple[int, int], ...]:
        """(columns, rows) of tiles of each level."""
        return self._grid

    def _abbreviated(self, data: bytes) -> bytes:
        """The tile's JPEG without its tables, which stand once in the directory (tag JPEGTables)."""
        if not self._tables:
            self._tables = _jpeg_tables(data)
            self._head = data[: data.index(b"\xff\xda")]
            self._frame = _segments(self._head, _FRAME)
        if not data.startswith(self._head):
            raise ValueError("every tile must be encoded with the same tables and size")
        return b"\xff\xd8" + self._frame + data[len(self._head) :]

    def append(self, level: int, column: int, row: int, data: bytes, repeated: object = None) -> None:
        """Adds one JPEG tile. Data of one ``repeated`` name are stored once for all their places."""
        offset = self._repeated.get(repeated) if repeated is not None else None
        data = self._abbreviated(data)
        if offset is None:
            offset = self._position
            self._position += self._stream.write(data)
            if repeated is not None:
                self._repeated[repeated] = offset
        self._offsets[level][row, column] = offset
        self._counts[level][row, column] = len(data)

    def finish(self) -> None:
        """Writes the directories; every tile must have been appended."""
        link = 8
        for level in range(len(self._sizes)):
            if not self._counts[level].all():
                raise ValueError(f"level {level} misses tiles")
            self._pad(8)
            start = self._position
            body, next_link = self._directory(level, start)
            self._position += self._stream.write(body)
            self._stream.seek(link)
            self._stream.write(struct.pack("<Q", start))
            self._stream.seek(self._position)
            link = next_link

    def _pad(self, multiple: int) -> None:
        self._position += self._stream.write(b"\0" * (-self._position % multiple))

    def _directory(self, level: int, start: int) -> tuple[bytes, int]:
        width, height = self._sizes[level]
        per_cm = Fraction(10_000 / (self._mpp * self._sizes[0][0] / width)).limit_denominator(10_000)
        resolution = struct.pack("<II", per_cm.numerator, per_cm.denominator)
        text = self._descriptions[level].encode("utf-8") + b"\0"
        software = self._software.encode("ascii") + b"\0"
        tags: list[tuple[int, int, int, bytes]] = [
            (254, _LONG, 1, struct.pack("<I", 1 if level else 0)),
            (256, _LONG, 1, struct.pack("<I", width)),
            (257, _LONG, 1, struct.pack("<I", height)),
            (258, _SHORT, 3, struct.pack("<HHH", 8, 8, 8)),
            (259, _SHORT, 1, struct.pack("<H", 7)),
            (262, _SHORT, 1, struct.pack("<H", 6)),
            (270, _ASCII, len(text), text),
            (277, _SHORT, 1, struct.pack("<H", 3)),
            (282, _RATIONAL, 1, resolution),
            (283, _RATIONAL, 1, resolution),
            (284, _SHORT, 1, struct.pack("<H", 1)),
            (296, _SHORT, 1, struct.pack("<H", 3)),
            (305, _ASCII, len(software), software),
            (322, _LONG, 1, struct.pack("<I", TILE_PX)),
            (323, _LONG, 1, struct.pack("<I", TILE_PX)),
            (324, _LONG8, self._offsets[level].size, self._offsets[level].astype("<u8").tobytes()),
            (325, _LONG8, self._counts[level].size, self._counts[level].astype("<u8").tobytes()),
            (347, _UNDEFINED, len(self._tables), self._tables),
            (530, _SHORT, 2, struct.pack("<HH", 2, 2)),
        ]
        entries = [struct.pack("<Q", len(tags))]
        extra: list[bytes] = []
        extra_start = start + 8 + 20 * len(tags) + 8
        for code, kind, count, data in tags:
            if len(data) <= 8:
                value = data.ljust(8, b"\0")
            else:
                value = struct.pack("<Q", extra_start)
                data += b"\0" * (-len(data) % 8)
                extra.append(data)
                extra_start += len(data)
            entries.append(struct.pack("<HHQ", code, kind, count) + value)
        next_link = start + 8 + 20 * len(tags)
        return b"".join([*entries, bytes(8), *extra]), next_link
