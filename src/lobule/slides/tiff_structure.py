"""What a TIFF says of itself, read strictly: directories and tags, no pixels.

Written for files that lie: nothing is believed that does not lie inside the file, chains that loop are found,
and no memory is taken for a number that a header merely claims. (TIFF 6.0 and BigTIFF.)
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lobule.errors import SlideReadError

__all__ = ["ByteFile", "Directory", "TiffStructure", "is_tiff", "read_tiff_structure"]

MAGIC = (b"II\x2a\0", b"MM\0\x2a", b"II\x2b\0", b"MM\0\x2b")
MOST_DIRECTORIES = 4096
MOST_TAGS = 4096
MOST_TIMES_READ = 2

_TYPES: Mapping[int, tuple[str, int]] = {
    1: ("u1", 1), 2: ("S1", 1), 3: ("u2", 2), 4: ("u4", 4), 5: ("u4", 8), 6: ("i1", 1), 7: ("u1", 1),
    8: ("i2", 2), 9: ("i4", 4), 10: ("i4", 8), 11: ("f4", 4), 12: ("f8", 8), 13: ("u4", 4), 16: ("u8", 8),
    17: ("i8", 8), 18: ("u8", 8),
}  # fmt: skip
"""TIFF field type → NumPy type and bytes of one value; rationals are two numbers."""


def is_tiff(head: bytes) -> bool:
    """Whether the first four bytes are those of a TIFF or BigTIFF."""
    return head[:4] in MAGIC


class ByteFile:
    """A file that several threads may read at once. ``seconds`` counts what reading took, over all threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("rb")
            self.size_bytes = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise SlideReadError(path, f"the file cannot be read: {error.strerror or error}") from error
        self._lock = threading.Lock()
        self.seconds = 0.0

    def read(self, offset: int, count: int) -> bytes:
        """``count`` bytes from ``offset``; raises SlideReadError where the file does not hold them."""
        if offset < 0 or count < 0 or offset + count > self.size_bytes:
            raise SlideReadError(
                self.path,
                f"{count} bytes at {offset} lie beyond the end of the file ({self.size_bytes} bytes): "
                "it is cut short or damaged",
            )
        started = time.perf_counter()
        try:
            if hasattr(os, "pread"):
                data = os.pread(self._file.fileno(), count, offset)
                while len(data) < count:  # Linux hands over at most 2 GiB at a time
                    more = os.pread(self._file.fileno(), count - len(data), offset + len(data))
                    if not more:
                        break
                    data += more
            else:
                with self._lock:
                    self._file.seek(offset)
                    data = self._file.read(count)
        except (OSError, ValueError) as error:
            raise SlideReadError(self.path, f"the file cannot be read: {error}") from error
        if len(data) != count:
            raise SlideReadError(self.path, "the file shrank while it was read")
        with self._lock:
            self.seconds += time.perf_counter() - started
        return data

    def close(self) -> None:
        """Frees the file."""
        self._file.close()


Value = NDArray[np.generic] | bytes


@dataclass(frozen=True, slots=True)
class Directory:
    """One image file directory. ``tags``: number → array, or bytes for text and undefined data.

    ``lost``: tags whose values lie beyond the end of the file.
    """

    offset: int
    tags: Mapping[int, Value]
    lost: frozenset[int]

    def numbers(self, tag: int) -> NDArray[np.generic] | None:
        """The numbers of a tag, 1-D, or None."""
        value = self.tags.get(tag)
        if isinstance(value, bytes):
            return np.frombuffer(value, np.uint8) if value else None
        return value if value is not None and value.size else None

    def integer(self, tag: int, default: int) -> int:
        """The first number of a tag; ``default`` where it is absent or no whole number."""
        value = self.numbers(tag)
        return default if value is None or value.dtype.kind not in "ui" else int(value[0])

    def rational(self, tag: int) -> float | None:
        """A rational (or plain) number; 0/0 is None, n/0 infinite."""
        value = self.numbers(tag)
        if value is None:
            return None
        if value.dtype.kind == "f" or value.size == 1:
            return float(value[0])
        upper, lower = int(value[0]), int(value[1])
        if lower == 0:
            return None if upper == 0 else float("inf")
        return upper / lower

    def data(self, tag: int) -> bytes | None:
        """The raw bytes of a tag."""
        value = self.tags.get(tag)
        if value is None:
            return None
        return value if isinstance(value, bytes) else value.tobytes()

    def text(self, tag: int) -> str:
        """A text tag, whatever its encoding; empty where absent."""
        data = self.data(tag)
        if data is None:
            return ""
        data = data.rstrip(b"\0")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return data.decode("latin-1")

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) as declared."""
        return self.integer(256, 0), self.integer(257, 0)

    @property
    def is_tiled(self) -> bool:
        return 322 in self.tags or 324 in self.tags

    @property
    def description(self) -> str:
        return self.text(270)


@dataclass(slots=True)
class _Progress:
    """What was read of a file so far: places of directories, and bytes of them and of their tags' values."""

    seen: set[int] = field(default_factory=set)
    taken_bytes: int = 0

    def take(self, file: ByteFile, count: int) -> None:
        """Counts bytes; raises SlideReadError where all are more than twice what the file holds.

        Tags and directories that share their bytes could otherwise each claim the whole file.
        """
        self.taken_bytes += count
        if self.taken_bytes > MOST_TIMES_READ * file.size_bytes:
            raise SlideReadError(
                file.path,
                f"the TIFF's tags claim more than {MOST_TIMES_READ} times the {file.size_bytes} bytes of the "
                "file: damaged",
            )


@dataclass(frozen=True, slots=True)
class TiffStructure:
    """The chain of directories, each with its sub-directories."""

    byte_order: str
    size_bytes: int
    chain: tuple[Directory, ...]
    children: tuple[tuple[Directory, ...], ...]

    def every(self) -> Iterator[Directory]:
        """All directories, sub-directories behind their parents."""
        for directory, below in zip(self.chain, self.children, strict=True):
            yield directory
            yield from below


def read_tiff_structure(file: ByteFile) -> TiffStructure:
    """Reads every directory. Raises SlideReadError where the file is damaged: a loop, a cut, nonsense."""
    try:
        return _read_structure(file)
    except struct.error as error:
        raise SlideReadError(file.path, f"the TIFF's directories are damaged: {error}") from error


def _read_structure(file: ByteFile) -> TiffStructure:
    head = file.read(0, min(16, file.size_bytes))
    if not is_tiff(head):
        raise SlideReadError(file.path, "this is no TIFF")
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in (b"\x2b\0", b"\0\x2b")
    if big:
        if struct.unpack(order + "HH", head[4:8]) != (8, 0):
            raise SlideReadError(file.path, "the BigTIFF header is damaged")
        (offset,) = struct.unpack(order + "Q", head[8:16])
    else:
        (offset,) = struct.unpack(order + "I", head[4:8])
    progress = _Progress()
    chain: list[Directory] = []
    children: list[tuple[Directory, ...]] = []
    while offset:
        directory, offset = _read_directory(file, order, big, offset, progress)
        chain.append(directory)
        below = directory.numbers(330)
        family: list[Directory] = []
        if below is not None and below.dtype.kind == "u":
            for start in below[:64].tolist():
                if start:
                    family.append(_read_directory(file, order, big, int(start), progress)[0])
        children.append(tuple(family))
    if not chain:
        raise SlideReadError(file.path, "the TIFF holds no picture")
    return TiffStructure(order, file.size_bytes, tuple(chain), tuple(children))


def _read_directory(
    file: ByteFile, order: str, big: bool, offset: int, progress: _Progress
) -> tuple[Directory, int]:
    if offset in progress.seen:
        raise SlideReadError(file.path, f"the TIFF's directories run in a loop (back to byte {offset})")
    if len(progress.seen) >= MOST_DIRECTORIES:
        raise SlideReadError(file.path, f"the TIFF has more than {MOST_DIRECTORIES} directories")
    progress.seen.add(offset)
    count_format, entry_bytes, inline = ("Q", 20, 8) if big else ("H", 12, 4)
    count_bytes = struct.calcsize(order + count_format)
    (count,) = struct.unpack(order + count_format, file.read(offset, count_bytes))
    if not 0 < count <= MOST_TAGS:
        raise SlideReadError(file.path, f"the TIFF directory at byte {offset} claims {count} tags: damaged")
    block = file.read(offset + count_bytes, count * entry_bytes)
    progress.take(file, len(block))
    tags: dict[int, Value] = {}
    lost: set[int] = set()
    for index in range(count):
        entry = block[index * entry_bytes : (index + 1) * entry_bytes]
        tag, kind = struct.unpack(order + "HH", entry[:4])
        (number,) = struct.unpack(order + ("Q" if big else "I"), entry[4 : 4 + inline])
        if kind not in _TYPES:
            continue
        numpy_type, value_bytes = _TYPES[kind]
        total = number * value_bytes
        if total <= inline:
            data = entry[4 + inline : 4 + inline + total]
        else:
            (where,) = struct.unpack(order + ("Q" if big else "I"), entry[4 + inline :])
            if where + total > file.size_bytes:
                lost.add(tag)
                continue
            progress.take(file, total)
            data = file.read(where, total)
        if kind in (1, 2, 7) or tag in (347, 34675):
            tags[tag] = data
        else:
            tags[tag] = np.frombuffer(data, np.dtype(order + numpy_type))
    after = offset + count_bytes + count * entry_bytes
    following = 0
    if after + inline <= file.size_bytes:
        (following,) = struct.unpack(order + ("Q" if big else "I"), file.read(after, inline))
    return Directory(offset, tags, frozenset(lost)), following
