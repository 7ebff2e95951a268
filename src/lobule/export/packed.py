"""Text packed while it is being made."""

from __future__ import annotations

import gzip
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO

__all__ = ["Packed"]

_BLOCK_BYTES = 1 << 20
_LEVEL = 1
"""Of gzip: packs in little more than half of level 4's time, into an eighth more bytes."""


class Packed:
    """Writes text gzip-compressed; one thread packs while the caller makes the next text.

    The bytes depend on the text alone, not on how it comes: neither time nor name is in the header, and text
    is packed in blocks of one size, because some deflate libraries give other bytes for other portions.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._packed = gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=stream, mtime=0)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lobule-gzip")
        self._waiting = bytearray()
        self._under_way: Future[None] | None = None

    def __enter__(self) -> Packed:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._hand_over(len(self._waiting))
                self._wait()
        finally:
            self._thread.shutdown()
            self._packed.close()

    def write(self, text: str) -> None:
        """Adds ASCII text."""
        self._waiting += text.encode("ascii")
        self._hand_over(len(self._waiting) // _BLOCK_BYTES * _BLOCK_BYTES)

    def _hand_over(self, size: int) -> None:
        if size:
            blocks = bytes(self._waiting[:size])
            del self._waiting[:size]
            self._wait()
            self._under_way = self._thread.submit(self._pack, blocks)

    def _wait(self) -> None:
        if self._under_way is not None:
            self._under_way.result()

    def _pack(self, blocks: bytes) -> None:
        for start in range(0, len(blocks), _BLOCK_BYTES):
            self._packed.write(blocks[start : start + _BLOCK_BYTES])
