"""Other libraries reading RGB pixels of level 0, one handle each: ``READERS[name](path)(x, y, side)``.

Runs by itself in any environment that has the library: a job as JSON on standard input, the seconds (by the clock, of
the processor) on standard output. It imports nothing of the harness.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Read = Callable[[int, int, int], Any]


def halve(rgb: Any) -> Any:
    """2 x 2 pixels averaged, the fast way of plain NumPy."""
    rows = rgb[0::2].astype(np.uint16)
    rows += rgb[1::2]
    total = rows[:, 0::2] + rows[:, 1::2]
    total += 2
    total >>= 2
    return total.astype(np.uint8)


def _openslide(path: str) -> Read:
    import openslide

    slide = openslide.OpenSlide(path)

    def read(x: int, y: int, side: int) -> Any:
        return np.asarray(slide.read_region((x, y), 0, (side, side)).convert("RGB"))

    return read


def _tiffslide(path: str) -> Read:
    import tiffslide

    slide = tiffslide.TiffSlide(path)
    return lambda x, y, side: slide.read_region((x, y), 0, (side, side), as_array=True)


def _fastslide(path: str) -> Read:
    import fastslide

    slide = fastslide.FastSlide.from_file_path(path)
    return lambda x, y, side: np.asarray(slide.read_region((x, y), 0, (side, side)).numpy())


def _cucim(path: str) -> Read:
    from cucim import CuImage

    slide = CuImage(path)
    return lambda x, y, side: np.asarray(slide.read_region((x, y), (side, side), 0))


def _tifffile(path: str) -> Read:
    """tifffile's decoder of one segment, its tiles put together here."""
    import tifffile

    tiff = tifffile.TiffFile(path)
    page = tiff.pages[0]
    tile, columns = page.tilewidth, -(-page.imagewidth // page.tilewidth)
    # looked up once: tifffile reads them from the file when asked
    offsets, lengths, decode = page.dataoffsets, page.databytecounts, page.decode
    tables = page.jpegtables

    def read(x: int, y: int, side: int) -> Any:
        out = np.empty((side, side, 3), np.uint8)
        for row in range(y // tile, (y + side - 1) // tile + 1):
            for column in range(x // tile, (x + side - 1) // tile + 1):
                index = row * columns + column
                tiff.filehandle.seek(offsets[index])
                data = tiff.filehandle.read(lengths[index])
                pixels = decode(data, index, jpegtables=tables)[0][0]
                top, left = row * tile - y, column * tile - x
                target = out[max(top, 0) : top + tile, max(left, 0) : left + tile]
                y0, x0 = max(-top, 0), max(-left, 0)
                target[...] = pixels[y0 : y0 + target.shape[0], x0 : x0 + target.shape[1]]
        return out

    return read


READERS: dict[str, Callable[[str], Read]] = {
    "OpenSlide": _openslide,
    "tifffile": _tifffile,
    "tiffslide": _tiffslide,
    "fastslide": _fastslide,
    "cucim": _cucim,
}


def main() -> None:
    job = json.load(sys.stdin)
    parts = job["places"]
    handles = [READERS[job["reader"]](job["slide"]) for _ in parts]
    side = 512 if job["half"] else 256

    def work(read: Read, part: list[tuple[int, int]]) -> None:
        for x, y in part:
            pixels = read(x, y, side)
            if job["half"]:
                halve(pixels)

    work(handles[0], parts[0][:1])
    threads = [threading.Thread(target=work, args=pair) for pair in zip(handles, parts)]  # noqa: B905
    started, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(time.perf_counter() - started, time.process_time() - cpu)


if __name__ == "__main__":
    main()
