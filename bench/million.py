"""From maps to files at 10,000 to 1,000,000 nuclei: does the time grow in proportion, and does the memory stay?

Each size is a process of its own (bench/million_nuclei.py), one thread, CPU seconds. The network is left out: its time
is the row `nuclei`.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from kit import Kit, command, say
from pairs import run_command
from report import Bar, Row

SIZES = (10_000, 100_000, 250_000, 1_000_000)
SCRIPT = Path(__file__).with_name("million_nuclei.py")
PEAK_GB = 2.5
GROWTH = 0.30
GEOJSON_SECONDS = 300.0
LINEAR = 1.15
"""A million's seconds a nucleus over a hundred thousand's."""


def one_size(kit: Kit, nuclei: int) -> dict[str, Any]:
    """What `million_nuclei` says of one size, in a process of its own."""
    folder = kit.work / "million"
    shutil.rmtree(folder, ignore_errors=True)
    log = kit.logs / f"million-{nuclei}.log"
    log.unlink(missing_ok=True)
    say(f"million: {nuclei} nuclei")
    run_command([sys.executable, str(SCRIPT), str(nuclei), str(folder)], log, kit.timeout_seconds)
    shutil.rmtree(folder, ignore_errors=True)
    found: dict[str, Any] = json.loads(log.read_text("utf-8").strip().splitlines()[-1])
    return found


def row_of(sizes: list[dict[str, Any]]) -> Row:
    """The row of the sizes' numbers, by rising size."""
    cells = []
    for size in sizes:
        parts = size["cpu_seconds"]
        stage = parts["stage"] + parts["measurements"]
        cells.append(
            (
                f"{size['nuclei']:,}",
                f"{stage:.1f}",
                f"{stage / size['nuclei'] * 1e6:.0f}",
                f"{parts['geojson']:.1f}",
                f"{parts['csv']:.1f}",
                f"{size['geojson_bytes'] / 1e6:.0f}",
                f"{size['csv_bytes'] / 1e6:.0f}",
                f"{size['peak_bytes'] / 2**20:.0f}",
            )
        )
    by_size = {size["asked"]: size for size in sizes}
    bars: list[Bar] = []
    if (last := by_size.get(1_000_000)) is not None:
        bars.append(Bar("a million nuclei: peak memory", last["peak_bytes"] / 1e9, PEAK_GB, "lower", " GB"))
        bars.append(
            Bar("a million nuclei: GeoJSON", last["cpu_seconds"]["geojson"], GEOJSON_SECONDS, "lower", " s")
        )
        if (quarter := by_size.get(250_000)) is not None:
            growth = last["peak_bytes"] / quarter["peak_bytes"] - 1
            bars.append(Bar("peak memory, growth from 250,000 to a million", growth, GROWTH, "lower"))
        if (tenth := by_size.get(100_000)) is not None:
            each = [sum(size["cpu_seconds"].values()) / size["nuclei"] for size in (last, tenth)]
            bars.append(
                Bar("seconds a nucleus, a million / 100,000", each[0] / each[1], LINEAR, "lower", " ×")
            )
    columns = (
        "nuclei",
        "maps to measurements, CPU s",
        "µs a nucleus",
        "GeoJSON, CPU s",
        "CSV, CPU s",
        "GeoJSON MB",
        "CSV MB",
        "peak MiB",
    )
    notes = (
        "maps to measurements: instances, ownership, outlines, features, distances, statistics; imports in it",
        "the shipped model's tiles; a drawn field of 520 nuclei (7,900 a mm²) repeated without a seam",
    )
    return Row("million", "A million nuclei", columns, tuple(cells), notes, tuple(bars), {"sizes": sizes})


def measure(kit: Kit) -> Row:
    """Every size once: minutes."""
    return row_of([one_size(kit, nuclei) for nuclei in SIZES])


if __name__ == "__main__":
    command(measure, __doc__)
