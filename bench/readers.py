"""Readers against libjpeg-turbo on tiles in memory: 256 px tiles of level 0, or 256 px at 0.5 um/px made from it.

    python bench/readers.py [--case readers|half] [--peers fastslide,cucim,tiffslide] [--reader-python VENV/bin/python]

The yardstick decodes every level-0 tile that the reads need (four for each read of `half`, without averaging them),
whole JPEG streams in memory, into one buffer it keeps. Reader after reader takes its turn in every round, each
opened anew, each tile of tissue read once, so no cache helps; files are warm in the system's cache.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from jpeg_tiles import TILE_PX, Seconds, decode_all, load_tiles, tile_levels, timed_threads
from kit import Kit, command, kit_from, parser, say
from pairs import ratios, spread
from peers.readers import READERS, halve
from report import Bar, Row

TILES = {"readers": 1200, "half": 300}
LIMITS = {"readers": 0.85, "half": 0.80}
Places = list[tuple[int, int]]


def tissue_places(slide: Path, case: str, count: int) -> Places:
    """(x, y) of level-0 px of ``count`` reads wholly in tissue, spread over the slide, row by row."""
    level = tile_levels(slide)[0]
    lengths = level.lengths.reshape(level.rows, level.columns).astype(float)
    lengths = lengths[: level.size[1] // TILE_PX, : level.size[0] // TILE_PX]
    step = 1 if case == "readers" else 2
    if step == 2:
        even = lengths[: lengths.shape[0] // 2 * 2, : lengths.shape[1] // 2 * 2]
        lengths = even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2).min((1, 3))
    rich = np.argwhere(lengths > 0.6 * np.percentile(lengths, 90))
    chosen = rich[np.linspace(0, len(rich) - 1, min(count, len(rich))).astype(int)]
    return [(int(x) * step * TILE_PX, int(y) * step * TILE_PX) for y, x in chosen]


def tiles_of(slide: Path, places: Places, case: str) -> list[bytes]:
    """The JPEG streams that those reads need, in the same order."""
    level = tile_levels(slide)[0]
    step = 1 if case == "readers" else 2
    indices = [
        (y // TILE_PX + dy) * level.columns + x // TILE_PX + dx
        for x, y in places
        for dy in range(step)
        for dx in range(step)
    ]
    return load_tiles(slide, level, indices)


def _split(places: Places, threads: int) -> list[Places]:
    """Contiguous parts, one a thread."""
    edges = np.linspace(0, len(places), threads + 1).astype(int)
    return [places[a:b] for a, b in pairwise(edges)]


def lobule_time(slide: Path, places: Places, threads: int, case: str) -> Seconds:
    """lobule's public reading: open_slide, working_frame, read_region. Opening is not counted."""
    from lobule.geometry import Box
    from lobule.slides import open_slide, read_region, require_mpp, working_frame

    with ExitStack() as opened:
        first = opened.enter_context(open_slide(slide))
        slides = [first] * threads
        if not first.thread_safe:
            slides[1:] = [opened.enter_context(open_slide(slide)) for _ in slides[1:]]
        frame = working_frame(first, require_mpp(first).mean * (1 if case == "readers" else 2))
        scale = round(frame.scale[0])

        def work(own: Any, part: Places) -> None:
            for x, y in part:
                left, top = x // scale, y // scale
                read_region(own, frame, Box(left, top, left + TILE_PX, top + TILE_PX))

        # the first read of a handle sets up what it keeps
        work(first, places[:1])
        jobs = [
            lambda s=s, part=part: work(s, part)
            for s, part in zip(slides, _split(places, threads), strict=True)
        ]
        return timed_threads(jobs)


def other_time(name: str, slide: Path, places: Places, threads: int, case: str) -> Seconds:
    """Another library in this process, a handle for each thread."""
    handles = [READERS[name](str(slide)) for _ in range(threads)]
    side = TILE_PX if case == "readers" else 2 * TILE_PX

    def work(read: Callable[[int, int, int], Any], part: Places) -> None:
        for x, y in part:
            pixels = read(x, y, side)
            if case == "half":
                halve(pixels)

    work(handles[0], places[:1])
    parts = _split(places, threads)
    return timed_threads(
        [lambda h=h, part=part: work(h, part) for h, part in zip(handles, parts, strict=True)]
    )


def venv_time(python: str, name: str, slide: Path, places: Places, threads: int, case: str) -> Seconds:
    """The same in another environment's interpreter."""
    job = json.dumps(
        {"reader": name, "slide": str(slide), "places": _split(places, threads), "half": case == "half"}
    )
    script = Path(__file__).with_name("peers") / "readers.py"
    done = subprocess.run(
        [python, str(script)], input=job, capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
    wall, cpu = done.stdout.split()[-2:]
    return Seconds(float(wall), float(cpu))


def largest_difference(slide: Path, places: Places) -> int:
    """Largest difference of any color value between lobule's and OpenSlide's pixels, on the tile grid and off it."""
    from lobule.slides import open_slide

    reference = READERS["OpenSlide"](str(slide))
    worst = 0
    with open_slide(slide) as own:
        for number, (x, y) in enumerate(places):
            dx, dy = (0, 0) if number % 2 else (97, 41)
            pixels = own.read_level(0, (x + dx, y + dy), (TILE_PX, TILE_PX))
            other = reference(x + dx, y + dy, TILE_PX)
            worst = max(worst, int(np.abs(pixels.astype(int) - other.astype(int)).max()))
    return worst


def measure(kit: Kit, case: str = "readers", venv_readers: Sequence[tuple[str, str]] = ()) -> Row:
    """The row `readers` or `half`; ``venv_readers`` are (name, python) of libraries that live elsewhere."""
    slide = kit.slide()
    places = tissue_places(slide, case, TILES[case])
    mixed = [places[k] for k in np.random.default_rng(0).permutation(len(places))]
    pixels = len(places) * TILE_PX**2 * (1 if case == "readers" else 4)
    length = sum(len(data) for data in tiles_of(slide, places, case))
    subjects: dict[str, Callable[[Path, Places, int, str], Seconds]] = {"lobule": lobule_time}
    for name in ("OpenSlide", "tifffile"):
        subjects[name] = lambda *a, name=name: other_time(name, *a)
    for name, python in venv_readers:
        subjects[name] = lambda *a, name=name, python=python: venv_time(python, name, *a)

    rounds = max(kit.rounds, 5)
    columns = ["reader"]
    cells: dict[str, list[str]] = {"libjpeg-turbo, tiles in memory": [], **{name: [] for name in subjects}}
    numbers: dict[str, Any] = {"tiles": len(places), "rounds": rounds}
    bars, notes, by_cpu = [], [], []
    for order, ordered in (("row order", places), ("random order", mixed)):
        tiles = tiles_of(slide, ordered, case)
        for threads in (1, 2):
            columns.append(f"{order}, {threads} thread{'s' * (threads > 1)}")
            say(f"{case}: {columns[-1]}")
            seconds: dict[str, list[float]] = {name: [] for name in cells}
            cpu: dict[str, list[float]] = {name: [] for name in cells}
            for _ in range(rounds):
                for name in list(cells):
                    if name in subjects:
                        try:
                            taken = subjects[name](slide, ordered, threads, case)
                        except (RuntimeError, OSError, ImportError, subprocess.TimeoutExpired) as error:
                            notes.append(f"{name}: not measured ({error})")
                            for table_ in (cells, seconds, cpu):
                                table_.pop(name)
                            continue
                    else:
                        taken = decode_all(tiles, threads)
                    seconds[name].append(taken.wall)
                    cpu[name].append(taken.cpu)
            yardstick = "libjpeg-turbo, tiles in memory"
            for name, values in seconds.items():
                speed = spread([pixels / 1e6 / value for value in values])
                share = spread([1 / value for value in ratios(values, seconds[yardstick])])
                numbers[f"{name}, {columns[-1]}"] = {"seconds": values, "cpu_seconds": cpu[name]}
                cells[name].append(
                    f"{speed.median:.0f}" if name == yardstick else f"{speed.median:.0f}: {share.text()}"
                )
                if name == "lobule":
                    by_cpu.append(spread([1 / v for v in ratios(cpu[name], cpu[yardstick])]).text())
                    what = "256 px tiles" if case == "readers" else "0.5 µm/px from level 0"
                    bars.append(Bar(f"{what}, {columns[-1]}", share.median, LIMITS[case], "higher"))
    what = "256 px tiles of level 0" if case == "readers" else "256 px at 0.5 µm/px, averaged from level 0"
    difference = largest_difference(slide, mixed[:64])
    notes = [
        "Mpx/s of level 0: share of libjpeg-turbo in the same round, median (min-max) of "
        f"{rounds} rounds; {len(places)} reads in tissue, {length / pixels:.2f} bytes/px, each read once",
        "pixels identical to OpenSlide's (64 reads, on and off the tile grid)"
        if difference == 0
        else f"**pixels differ from OpenSlide's by up to {difference}**",
        *dict.fromkeys(notes),
    ]
    if case == "readers":
        bars.append(Bar("largest difference from OpenSlide's pixels", difference, 0, "lower"))
    rows = [(name, *row) for name, row in cells.items()]
    rows.insert(2, ("lobule, by CPU seconds", *by_cpu))
    return Row(case, f"Reading: {what}", tuple(columns), tuple(rows), tuple(notes), tuple(bars), numbers)


if __name__ == "__main__":
    options = parser(__doc__ or "")
    options.add_argument("--case", choices=list(TILES), default="readers")
    options.add_argument("--reader-python", help="interpreter that has the readers named by --peers")
    given = options.parse_args()
    named = [name for name in given.peers.split(",") if name]
    if named and not given.reader_python:
        options.error("--peers needs --reader-python here")
    given.peers = ""
    chosen = kit_from(given)
    command(
        lambda kit: measure(kit, given.case, [(name, given.reader_python) for name in named]), None, chosen
    )
