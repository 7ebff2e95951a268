"""The pixels of one TIFF directory: finding, decoding and keeping the tiles or strips that a region needs."""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lobule.errors import SlideReadError
from lobule.slides.jpeg_frames import DecodeError
from lobule.slides.reused_memory import borrow, fill
from lobule.slides.slide import RgbImage
from lobule.slides.tiff_codec import decode_segment
from lobule.slides.tiff_pixels import LARGEST_SEGMENT_BYTES, PixelPlan, to_rgb
from lobule.slides.tiff_structure import ByteFile, Directory
from lobule.slides.tile_assembly import Use, means_of_tiles, pixels_of_tiles

__all__ = ["SegmentCache", "StoredLevel"]

CACHE_BYTES = 24 * 1024 * 1024
"""Holds two rows of tiles across 16,000 px: what neighboring regions share where they cut tiles."""
MOST_CACHE_BYTES = 64 * 1024 * 1024
"""Once there are strips, which run across the whole picture: those that a row of 256 px tiles at 1 µm/px shares,
across 19,000 px at 0.23 µm/px."""
RAW_STRIP_BYTES = 1024 * 1024
LARGE_SEGMENT_BYTES = 8 * 1024 * 1024
STRIP_LOCKS = 64

Background = tuple[int, int, int]


class SegmentCache:
    """Decoded tiles and strips of which only a part was used, those used last, for all levels of a slide.

    ``limit_bytes`` of them, or a single one. What a region took whole is not kept: its neighbors do not need it.
    Memory bound: CACHE_BYTES, where there are strips MOST_CACHE_BYTES, or one tile or strip of up to 128 MB.
    """

    def __init__(self, limit_bytes: int = CACHE_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self._kept: OrderedDict[tuple[int, int], RgbImage] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def find(self, key: tuple[int, int]) -> RgbImage | None:
        """The segment, or None; read-only."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def keep(self, key: tuple[int, int], segment: RgbImage) -> None:
        """Keeps the segment and drops those not used for longest."""
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = segment
            self._bytes += segment.nbytes
            # the newest stays even if it alone is too large: a picture in one strip is not decoded again and again
            while self._bytes > self.limit_bytes and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0


class StoredLevel:
    """One directory's picture as stored, before its orientation is heeded.

    Raises SlideReadError where the file does not hold all the tiles or strips that the directory lists.
    """

    def __init__(self, file: ByteFile, directory: Directory, plan: PixelPlan) -> None:
        self._file = file
        self.directory = directory
        self.plan = plan
        self.tables = directory.data(347)
        self.palette = directory.numbers(320)
        offsets = self._places(324 if plan.tiled else 273, "places")
        counts = self._places(325 if plan.tiled else 279, "lengths")
        beyond = offsets + counts > np.uint64(file.size_bytes)
        if beyond.any():
            kind = "tiles" if plan.tiled else "strips"
            raise SlideReadError(
                file.path,
                f"the file is cut short or damaged: {int(beyond.sum())} of {beyond.size} {kind} of the "
                f"{plan.width} x {plan.height} px picture lie beyond its end",
            )
        if plan.compression == 1 and not plan.tiled:
            offsets, counts = self._split_raw_strips(offsets, counts)
        self._offsets, self._counts = offsets, counts
        plan = self.plan
        decoded_bytes = plan.segment_width * plan.segment_height * plan.samples * plan.dtype.itemsize
        # large strips are decoded by one thread alone, so that memory does not grow with the threads; a strip
        # that several threads need at once, as neighbors in a row of tiles do, is decoded by the first
        locks = 1 if decoded_bytes > LARGE_SEGMENT_BYTES else 0 if plan.tiled else STRIP_LOCKS
        self._turns: tuple[AbstractContextManager[object], ...] = (
            tuple(threading.Lock() for _ in range(locks)) if locks else (nullcontext(),)
        )

    @property
    def is_sparse(self) -> bool:
        """Whether some tiles or strips are left out."""
        return bool((self._counts == 0).any())

    def _places(self, tag: int, meaning: str) -> NDArray[np.uint64]:
        values = self.directory.numbers(tag)
        if values is None or values.dtype.kind != "u" or values.size < self.plan.segments:
            found = 0 if values is None else values.size
            raise SlideReadError(
                self._file.path,
                f"the file is damaged: it lists the {meaning} of {found} tiles or strips where "
                f"{self.plan.segments} make up {self.plan.width} x {self.plan.height} px",
            )
        return values[: self.plan.segments].astype(np.uint64)

    def _split_raw_strips(
        self, offsets: NDArray[np.uint64], counts: NDArray[np.uint64]
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Cuts strips of bare pixels into lower ones, so that a region reads few rows but its own."""
        plan = self.plan
        row_bytes = plan.width * plan.segment_samples * plan.dtype.itemsize
        rows = max(1, RAW_STRIP_BYTES // row_bytes)
        if row_bytes > LARGEST_SEGMENT_BYTES:
            raise SlideReadError(self._file.path, f"a row of pixels claims {row_bytes} bytes")
        if rows >= plan.segment_height:
            return offsets, counts
        starts: list[NDArray[np.uint64]] = []
        for index in range(plan.planes * plan.down):
            height = min(plan.segment_height, plan.height - index % plan.down * plan.segment_height)
            if int(counts[index]) < height * row_bytes:
                raise SlideReadError(self._file.path, "the file is damaged: a strip is shorter than its rows")
            starts.append(offsets[index] + np.arange(height, dtype=np.uint64) * np.uint64(row_bytes))
        # where every row is, joined again into equal strips where the rows follow each other
        lines = np.concatenate(starts).reshape(plan.planes, plan.height)
        joined = lines[:, ::rows]
        heights = np.minimum(rows, plan.height - np.arange(joined.shape[1]) * rows)
        ends = lines[:, np.minimum(np.arange(joined.shape[1]) * rows + rows, plan.height) - 1]
        contiguous = (ends - joined == ((heights - 1) * row_bytes).astype(np.uint64)).all()
        if not contiguous:
            joined, heights, rows = lines, np.ones(plan.height, np.int64), 1
        self.plan = replace(plan, segment_height=rows, down=joined.shape[1])
        lengths = np.broadcast_to((heights * row_bytes).astype(np.uint64), joined.shape)
        return joined.reshape(-1), lengths.reshape(-1)

    def read(
        self, origin: tuple[int, int], size: tuple[int, int], cache: SegmentCache, background: Background
    ) -> RgbImage:
        """A region that lies inside the stored picture, (H, W, 3) uint8. Decodes only what it touches."""
        plan = self.plan

        def fetch(row: int, column: int, use: Use) -> RgbImage:
            return self._segment(row, column, use, cache, background)

        return pixels_of_tiles(
            fetch, (plan.width, plan.height), (plan.segment_width, plan.segment_height), origin, size
        )

    def read_means(
        self,
        first: tuple[int, int],
        size: tuple[int, int],
        factor: tuple[int, int],
        cache: SegmentCache,
        background: Background,
    ) -> RgbImage | None:
        """`Slide.read_means` of the stored picture."""
        plan = self.plan

        def fetch(row: int, column: int, use: Use) -> RgbImage:
            return self._segment(row, column, use, cache, background)

        return means_of_tiles(
            fetch,
            (plan.width, plan.height),
            (plan.segment_width, plan.segment_height),
            first,
            size,
            factor,
            background,
        )

    def _segment(
        self, row: int, column: int, use: Use, cache: SegmentCache, background: Background
    ) -> RgbImage:
        plan = self.plan
        index = row * plan.across + column
        key = (self.directory.offset, index)
        found = cache.find(key)
        if found is None:
            with self._turns[index % len(self._turns)]:
                found = cache.find(key)  # another thread may have been first
                if found is None:
                    found = self._decode(row, index, use, background)
                    if use == "part":
                        found.flags.writeable = False
                        if not plan.tiled:
                            cache.limit_bytes = max(cache.limit_bytes, MOST_CACHE_BYTES)
                        cache.keep(key, found)
                    return found
        return found.copy() if use == "result" else found

    def _decode(self, row: int, index: int, use: Use, background: Background) -> RgbImage:
        plan = self.plan
        rows = plan.segment_height
        if not plan.tiled:
            rows = min(rows, plan.height - row * rows)
        out: RgbImage | None = None
        if plan.compression == 7 and use == "whole":
            out = borrow("tile", (rows, plan.segment_width, 3))
        planes: list[NDArray[np.generic]] = []
        for plane in range(plan.planes):
            place = plane * plan.across * plan.down + index
            offset, count = int(self._offsets[place]), int(self._counts[place])
            if count == 0:  # a sparse file leaves out what was never scanned; in a gray one that is zero
                empty = np.empty((rows, plan.segment_width, 3), np.uint8)
                fill(empty, background if plan.samples > 1 or plan.photometric == 0 else (0, 0, 0))
                return empty
            data = self._file.read(offset, count)
            try:
                planes.append(decode_segment(data, plan, rows, self.tables, out))
            except DecodeError as error:
                raise SlideReadError(
                    self._file.path,
                    f"tile ({index % plan.across}, {row}) of the {plan.width} x {plan.height} px level: {error}",
                ) from error
        samples = planes[0] if plan.planes == 1 else np.concatenate(planes, axis=2)
        return to_rgb(samples, plan, self.palette)
