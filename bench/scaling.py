"""How cost grows: 0.1, 1, 10 and 26 gigapixels; 5, 28 and 80 % of tissue; one and two workers.

The shipped tumor model on composed slides, the tumor stage. Composing the slides takes minutes and 3 GB the first time;
BIG names the 26-gigapixel one where there is one.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from analyses import Analysis, analyze
from kit import Kit, command, say
from large import SIZE, composed, tissue_gigapixels
from pairs import spread
from report import Bar, Row

SIZES = ((11_264, 8_960), (36_096, 27_904), (112_896, 88_832), SIZE)
SHARES = (0.05, 0.28, 0.80)
ONE_GIGAPIXEL = SIZES[1]
WORKERS_LIMIT = 1.8


def fitted_exponent(amounts: Sequence[float], costs: Sequence[float]) -> float:
    """The slope of log cost over log amount by least squares: 1 is linear. Raises ValueError for fewer than two."""
    if len(amounts) < 2:
        raise ValueError("a slope needs two points")
    x, y = [math.log(value) for value in amounts], [math.log(value) for value in costs]
    middle = sum(x) / len(x)
    above = sum((a - middle) * b for a, b in zip(x, y, strict=True))
    return above / sum((a - middle) ** 2 for a in x)


def measure(kit: Kit) -> Row:
    """One table: slide, tissue, workers, seconds."""
    big = Path(os.environ["BIG"]).resolve() if os.environ.get("BIG") else None
    cells: list[tuple[str, ...]] = []
    numbers: dict[str, object] = {}

    def run(slide: Path, name: str, extra: Sequence[str] = (), *, one_core: bool = False) -> Analysis:
        say(f"scaling: {name}")
        done = analyze(kit, slide, "scaling", ["--only", "tumor", *extra], one_core=one_core)
        pixels = math.prod(done.findings["slide"]["size_px"]) / 1e9
        tissue, patches = tissue_gigapixels(done), int(done.stage("tumor")["tiles"])
        wall, inside = done.cost.wall_seconds, done.cost.wall_seconds - done.outside_seconds
        cells.append(
            (
                name,
                f"{pixels:.2f}",
                f"{tissue:.3f}",
                str(patches),
                f"{wall:.2f}",
                f"{inside:.2f}",
                f"{inside / tissue:.2f}",
                f"{done.cost.cpu_seconds:.1f}",
                f"{done.cost.peak_bytes / 2**20:.0f}",
            )
        )
        numbers[f"{name} {len(cells)}"] = {
            "wall": wall,
            "run": inside,
            "tissue": tissue,
            "patches": patches,
        }
        return done

    def run_seconds(done: Analysis) -> float:
        return done.cost.wall_seconds - done.outside_seconds

    composed_sizes = [(size, big if big and size == SIZE else composed(kit, size, 0.28)) for size in SIZES]
    by_size = [
        run(slide, f"{size[0] * size[1] / 1e9:.1f} gigapixels, 28 %") for size, slide in composed_sizes
    ]
    by_share = [run(composed(kit, ONE_GIGAPIXEL, share), f"1.0 gigapixels, {share:.0%}") for share in SHARES]
    exponent = fitted_exponent([tissue_gigapixels(d) for d in by_size], [run_seconds(d) for d in by_size])
    exponent_share = fitted_exponent(
        [tissue_gigapixels(d) for d in by_share], [run_seconds(d) for d in by_share]
    )
    # so many patches that what every slide costs once, and is no work for two, hardly counts
    size, slide = composed_sizes[2]
    name = f"{size[0] * size[1] / 1e9:.1f} gigapixels, 28 %, --thorough"
    speed_ups = []
    for _ in range(kit.rounds):
        # a worker's run would use a second core for the tissue and for what it loads ahead
        one = run(slide, f"{name}, 1 worker, 1 core", ["--thorough", "--workers", "1"], one_core=True)
        two = run(slide, f"{name}, 2 workers, 2 cores", ["--thorough", "--workers", "2"])
        speed_ups.append(run_seconds(one) / run_seconds(two))
    numbers["speed_ups"] = speed_ups
    gained = spread(speed_ups)
    notes = (
        f"seconds of the run ~ tissue^{exponent:.2f} over sizes, ~ tissue^{exponent_share:.2f} over shares "
        "(1 is linear; below 1, what every slide costs once is still seen)",
        f"two workers on two cores against one on one, in {kit.rounds} pairs: {gained.text()} × as fast "
        "(other load on the cores lowers it)",
    )
    bars = (
        Bar("cost over 0.1 to 26 gigapixels: exponent of growth", exponent, 1.05, "lower"),
        Bar("two workers on two cores against one on one", gained.median, WORKERS_LIMIT, "higher", " ×"),
    )
    columns = (
        "slide",
        "gigapixels",
        "of tissue",
        "patches",
        "wall s",
        "run s",
        "run s / gigapixel of tissue",
        "CPU s",
        "peak MiB",
    )
    return Row("scaling", "Growth", columns, tuple(cells), notes, bars, numbers)


if __name__ == "__main__":
    command(measure, __doc__)
