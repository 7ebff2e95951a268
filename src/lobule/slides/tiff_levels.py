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
from lobule.slides.slide import RgbImage
from lobule.slides.tiff_codec import decode_segment
from lobule.slides.tiff_pixels import LARGEST_SEGMENT_BYTES, PixelPlan, to_rgb
from lobule.slides.tiff_structure import ByteFile, Directory

__all__ = ["SegmentCache", "StoredLevel"]

CACHE_BYTES = 64 * 1024 * 1024
RAW_STRIP_BYTES = 1024 * 1024
LARGE_SEGMENT_BYTES = 8 * 1024 * 1024

Background = tuple[int, int, int]


class SegmentCache:
    """The decoded tiles and strips used last, for all levels of a slide: CACHE_BYTES of them, or a single one."""

    def __init__(self) -> None:
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
            while self._bytes > CACHE_BYTES and len(self._kept) > 1:
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
        # large strips are decoded by one thread alone, so that memory does not grow with the threads
        self._one_at_a_time: AbstractContextManager[object] = (
            threading.Lock() if decoded_bytes > LARGE_SEGMENT_BYTES else nullcontext()
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
        (x0, y0), (width, height) = origin, size
        x1, y1 = x0 + width, y0 + height
        result = np.empty((height, width, 3), np.uint8)
        for row in range(y0 // plan.segment_height, -(-y1 // plan.segment_height)):
            for column in range(x0 // plan.segment_width, -(-x1 // plan.segment_width)):
                left, top = column * plan.segment_width, row * plan.segment_height
                tile = self._segment(row, column, cache, background)
                ax, ay = max(x0, left), max(y0, top)
                bx, by = min(x1, left + tile.shape[1]), min(y1, top + tile.shape[0])
                result[ay - y0 : by - y0, ax - x0 : bx - x0] = tile[
                    ay - top : by - top, ax - left : bx - left
                ]
        return result

    def _segment(self, row: int, column: int, cache: SegmentCache, background: Background) -> RgbImage:
        plan = self.plan
        index = row * plan.across + column
        key = (self.directory.offset, index)
        found = cache.find(key)
        if found is not None:
            return found
        with self._one_at_a_time:
            found = cache.find(key)  # another thread may have been first
            return self._decode(row, index, key, cache, background) if found is None else found

    def _decode(
        self, row: int, index: int, key: tuple[int, int], cache: SegmentCache, background: Background
    ) -> RgbImage:
        plan = self.plan
        rows = plan.segment_height
        if not plan.tiled:
            rows = min(rows, plan.height - row * rows)
        planes: list[NDArray[np.generic]] = []
        for plane in range(plan.planes):
            place = plane * plan.across * plan.down + index
            offset, count = int(self._offsets[place]), int(self._counts[place])
            if count == 0:  # a sparse file leaves out what was never scanned; in a gray one that is zero
                empty = np.empty((rows, plan.segment_width, 3), np.uint8)
                empty[...] = background if plan.samples > 1 or plan.photometric == 0 else (0, 0, 0)
                return empty
            data = self._file.read(offset, count)
            try:
                planes.append(decode_segment(data, plan, rows, self.tables))
            except DecodeError as error:
                raise SlideReadError(
                    self._file.path,
                    f"tile ({index % plan.across}, {row}) of the {plan.width} x {plan.height} px level: {error}",
                ) from error
        samples = planes[0] if plan.planes == 1 else np.concatenate(planes, axis=2)
        segment = to_rgb(samples, plan, self.palette)
        segment.flags.writeable = False
        cache.keep(key, segment)
        return segment
