"""Readers against libjpeg-turbo on tiles in memory: 256 px tiles of level 0, or 256 px at 0.5 um/px made from it.

    python bench/readers.py [--case readers|half] [--peers fastslide,cucim,tiffslide] [--reader-python VENV/bin/python]

The yardstick decodes every level-0 tile that the reads need (four for each read of `half`, without averaging them),
whole JPEG streams in memory, into one buffer it keeps. In every round each reader comes right after the yardstick,
opened anew, each tile of tissue read once, so no cache helps; files are warm in the system's cache.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from jpeg_tiles import TILE_PX, Seconds, decode_all, load_tiles, tile_levels, timed_threads
from kit import Kit, command, kit_from, parser, say
from pairs import spread
from peers.readers import READERS, halve
from report import Bar, Row

TILES = {"readers": 1200, "half": 300}
LIMITS = {"readers": 0.85, "half": 0.80}
Places = list[tuple[int, int]]
YARDSTICK = "libjpeg-turbo, tiles in memory"


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


def largest_difference(slide: Path, places: Places, case: str) -> int:
    """Largest difference of any color value between lobule's and OpenSlide's pixels, on the tile grid and off it.

    Of ``half`` both are averaged, each in its own way: a mean that ends in a half may be rounded up or down.
    """
    from lobule.geometry import Box
    from lobule.slides import open_slide, read_region, require_mpp, working_frame

    reference = READERS["OpenSlide"](str(slide))
    worst, step = 0, 1 if case == "readers" else 2
    with open_slide(slide) as own:
        frame = working_frame(own, require_mpp(own).mean * step)
        for number, (x, y) in enumerate(places):
            dx, dy = (0, 0) if number % 2 else (96, 42)
            left, top = (x + dx) // step, (y + dy) // step
            pixels = read_region(own, frame, Box(left, top, left + TILE_PX, top + TILE_PX))
            other = reference(x + dx, y + dy, TILE_PX * step)
            if case == "half":
                other = halve(other)
            worst = max(worst, int(np.abs(pixels.astype(int) - other.astype(int)).max()))
    return worst


Subject = Callable[[Path, Places, int, str], Seconds]


@dataclass(frozen=True)
class Pair:
    """One reader's pass and the yardstick's just before it, over the same tiles."""

    subject: Seconds
    yardstick: Seconds


def _paired_rounds(
    subjects: dict[str, Subject], slide: Path, places: Places, threads: int, case: str, rounds: int
) -> tuple[dict[str, list[Pair]], dict[str, str]]:
    """(pairs of every reader that works here, why the others do not)."""
    tiles = tiles_of(slide, places, case)
    pairs: dict[str, list[Pair]] = {name: [] for name in subjects}
    failed: dict[str, str] = {}
    decode_all(tiles, threads)
    for _ in range(rounds):
        for name in list(pairs):
            yardstick = decode_all(tiles, threads)
            try:
                pairs[name].append(Pair(subjects[name](slide, places, threads, case), yardstick))
            except (RuntimeError, OSError, ImportError, subprocess.TimeoutExpired) as error:
                failed[name] = f"{name}: not measured ({error})"
                del pairs[name]
    return pairs, failed


def _subjects(venv_readers: Sequence[tuple[str, str]]) -> dict[str, Subject]:
    found: dict[str, Subject] = {"lobule": lobule_time}
    for name in ("OpenSlide", "tifffile"):
        found[name] = lambda *a, name=name: other_time(name, *a)
    for name, python in venv_readers:
        found[name] = lambda *a, name=name, python=python: venv_time(python, name, *a)
    return found


def measure(kit: Kit, case: str = "readers", venv_readers: Sequence[tuple[str, str]] = ()) -> Row:
    """The row `readers` or `half`; ``venv_readers`` are (name, python) of libraries that live elsewhere."""
    slide, rounds = kit.slide(), max(kit.rounds, 5)
    places = tissue_places(slide, case, TILES[case])
    mixed = [places[k] for k in np.random.default_rng(0).permutation(len(places))]
    megapixels = len(places) * TILE_PX**2 * (1 if case == "readers" else 4) / 1e6
    density = sum(len(data) for data in tiles_of(slide, places, case)) / megapixels / 1e6
    subjects = _subjects(venv_readers)
    columns, bars, problems = ["reader"], [], {}
    cells: dict[str, list[str]] = {YARDSTICK: [], "lobule": [], "lobule, by CPU seconds": []}
    cells |= {name: [] for name in subjects if name != "lobule"}
    numbers: dict[str, Any] = {"reads": len(places), "rounds": rounds, "bytes_per_pixel": density}
    for order, ordered in (("row order", places), ("random order", mixed)):
        for threads in (1, 2):
            column = f"{order}, {threads} thread{'s' * (threads > 1)}"
            say(f"{case}: {column}")
            columns.append(column)
            pairs, failed = _paired_rounds(subjects, slide, ordered, threads, case, rounds)
            problems |= failed
            every = [pair.yardstick.wall for found in pairs.values() for pair in found]
            cells[YARDSTICK].append(f"{megapixels / spread(every).median:.0f}")
            for name in subjects:
                if name not in pairs:
                    cells[name].append("not measured")
                    continue
                speed = megapixels / spread([pair.subject.wall for pair in pairs[name]]).median
                share = spread([pair.yardstick.wall / pair.subject.wall for pair in pairs[name]])
                cells[name].append(f"{speed:.0f}: {share.text()}")
                numbers[f"{name}, {column}"] = [asdict(pair) for pair in pairs[name]]
            own = pairs["lobule"]
            by_cpu = spread([pair.yardstick.cpu / pair.subject.cpu for pair in own])
            cells["lobule, by CPU seconds"].append(by_cpu.text())
            share = spread([pair.yardstick.wall / pair.subject.wall for pair in own])
            what = "256 px tiles" if case == "readers" else "0.5 µm/px from level 0"
            bars.append(Bar(f"{what}, {column}", share.median, LIMITS[case], "higher"))
    what = "256 px tiles of level 0" if case == "readers" else "256 px at 0.5 µm/px, averaged from level 0"
    difference, allowed = largest_difference(slide, mixed[:64], case), 0 if case == "readers" else 1
    notes = [
        f"Mpx/s of level 0: share of libjpeg-turbo just before, median (min-max) of {rounds} rounds; "
        f"{len(places)} reads in tissue, {density:.2f} bytes/px, each read once; {kit.cores} cores",
        f"pixels {'within a gray level of' if allowed else 'identical to'} OpenSlide's "
        "(64 reads, on and off the tile grid)"
        if difference <= allowed
        else f"**pixels differ from OpenSlide's by up to {difference}**",
        *problems.values(),
    ]
    if case == "readers":
        bars.append(Bar("largest difference from OpenSlide's pixels", difference, 0, "lower"))
    rows = tuple((name, *row) for name, row in cells.items())
    return Row(case, f"Reading: {what}", tuple(columns), rows, tuple(notes), tuple(bars), numbers)


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
