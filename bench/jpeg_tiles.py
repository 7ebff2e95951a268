"""JPEG tiles of a TIFF slide as bytes in memory, and libjpeg-turbo decoding them: the yardstick of every reader."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

TILE_PX = 256


@dataclass(frozen=True)
class TileLevel:
    """One level: (width, height), where its tiles lie in the file, and the JPEG tables they share (or none)."""

    size: tuple[int, int]
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    tables: bytes

    @property
    def columns(self) -> int:
        return -(-self.size[0] // TILE_PX)

    @property
    def rows(self) -> int:
        return -(-self.size[1] // TILE_PX)


def tile_levels(path: Path) -> tuple[TileLevel, ...]:
    """The pyramid of a slide whose levels are 256 px JPEG tiles. Raises SystemExit for any other slide."""
    import tifffile

    levels = []
    with tifffile.TiffFile(path) as tiff:
        for page in tiff.pages:
            if not page.is_tiled:
                continue
            if page.compression != 7 or (page.tilewidth, page.tilelength) != (TILE_PX, TILE_PX):
                raise SystemExit(f"{path}: the harness needs a TIFF of {TILE_PX} px JPEG tiles")
            levels.append(
                TileLevel(
                    (page.imagewidth, page.imagelength),
                    np.asarray(page.dataoffsets, np.int64),
                    np.asarray(page.databytecounts, np.int64),
                    bytes(page.jpegtables or b""),
                )
            )
    return tuple(levels)


def whole_stream(tile: bytes, tables: bytes) -> bytes:
    """An abbreviated JPEG tile with its tables put back in front."""
    return tables[:-2] + tile[2:] if tables else tile


def load_tiles(path: Path, level: TileLevel, indices: Iterable[int]) -> list[bytes]:
    """Those tiles as whole JPEG streams."""
    found = []
    with path.open("rb") as stream:
        for index in indices:
            stream.seek(int(level.offsets[index]))
            found.append(whole_stream(stream.read(int(level.lengths[index])), level.tables))
    return found


def decode(data: bytes, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """One tile, exactly as libjpeg-turbo decodes it (slow integer DCT, smooth chroma)."""
    import imagecodecs

    return np.asarray(imagecodecs.jpeg8_decode(data, colorspace="ycbcr", outcolorspace="rgb", out=out))


class Seconds(NamedTuple):
    """By the clock, and of all this process's threads together."""

    wall: float
    cpu: float


def decode_all(tiles: Sequence[bytes], threads: int) -> Seconds:
    """How long it takes to decode all tiles on ``threads`` threads, each into one buffer that it keeps."""

    def part(mine: Sequence[bytes]) -> None:
        buffer = np.empty((TILE_PX, TILE_PX, 3), np.uint8)
        for data in mine:
            decode(data, buffer)

    return timed_threads([lambda mine=tiles[k::threads]: part(mine) for k in range(threads)])


def timed_threads(jobs: Sequence[Callable[[], object]]) -> Seconds:
    """From the start of the first job to the end of the last, each on a thread of its own.

    An exception in a job is raised here.
    """
    failed: list[BaseException] = []

    def run(job: Callable[[], object]) -> None:
        try:
            job()
        except BaseException as error:
            failed.append(error)

    started, cpu = time.perf_counter(), time.process_time()
    if len(jobs) == 1:
        run(jobs[0])
    else:
        threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    seconds = Seconds(time.perf_counter() - started, time.process_time() - cpu)
    if failed:
        raise failed[0]
    return seconds
