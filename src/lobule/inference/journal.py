"""An append-only file of tile results: what was written before a kill is found again after it.

A journal belongs to one plan (a digest of slide, model and options). Its records are framed by length and
checksum, so a record cut off by a kill is seen and dropped. Nothing in it depends on the order of tiles.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

from lobule.errors import ResultWriteError

__all__ = ["Journal"]

_MAGIC = b"lobule journal 1\n"
_HEADER = struct.Struct("<qII")  # tile index, payload bytes, checksum of index and payload


def _checksum(index: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(struct.pack("<q", index)))


class Journal:
    """Results by tile index. ``plan`` is 64 hexadecimal digits; a journal of another plan is started afresh."""

    def __init__(self, path: Path, plan: str) -> None:
        self._path = path
        self._head = _MAGIC + plan.encode("ascii") + b"\n"
        self._places: dict[int, tuple[int, int]] = {}
        self._position = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
            end = self._scan()
            os.ftruncate(self._file, end)
        except OSError as error:
            raise ResultWriteError(path, f"cannot be written: {error.strerror or error}") from error
        self._end = end

    def _scan(self) -> int:
        with self._path.open("rb") as stream:
            if stream.read(len(self._head)) != self._head:
                os.ftruncate(self._file, 0)
                self._write_at(self._head, 0)
                return len(self._head)
            place = len(self._head)
            while len(header := stream.read(_HEADER.size)) == _HEADER.size:
                index, length, checksum = _HEADER.unpack(header)
                payload = stream.read(length)
                if len(payload) != length or _checksum(index, payload) != checksum:
                    break
                self._places[index] = (place + _HEADER.size, length)
                place += _HEADER.size + length
            return place

    def _write_at(self, content: bytes, place: int) -> int:
        """How many bytes were written. Windows has one position a file and no call that goes without it."""
        if hasattr(os, "pwrite"):
            return os.pwrite(self._file, content, place)
        with self._position:
            os.lseek(self._file, place, os.SEEK_SET)
            return os.write(self._file, content)

    def __contains__(self, index: int) -> bool:
        return index in self._places

    def __len__(self) -> int:
        return len(self._places)

    def append(self, index: int, payload: bytes) -> None:
        """Adds a tile's result; it survives the process from here on. Of two results of a tile the later one counts."""
        record = _HEADER.pack(index, len(payload), _checksum(index, payload)) + payload
        try:
            written = self._write_at(record, self._end)
        except OSError as error:
            raise ResultWriteError(self._path, f"cannot be written: {error.strerror or error}") from error
        if written != len(record):
            raise ResultWriteError(self._path, "cannot be written: the disk is full")
        self._places[index] = (self._end + _HEADER.size, len(payload))
        self._end += len(record)

    def read(self, index: int) -> bytes:
        """A tile's result. Raises KeyError if there is none."""
        place, length = self._places[index]
        if hasattr(os, "pread"):
            return os.pread(self._file, length, place)
        with self._position:
            os.lseek(self._file, place, os.SEEK_SET)
            return os.read(self._file, length)

    def in_order(self) -> Iterator[tuple[int, bytes]]:
        """All results by rising tile index, one at a time."""
        for index in sorted(self._places):
            yield index, self.read(index)

    def close(self) -> None:
        """Closes the file; the records stay."""
        os.close(self._file)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
