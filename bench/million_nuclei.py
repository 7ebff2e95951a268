"""One run of the nuclei stage, from maps to files, on a slide of a given number of drawn nuclei; prints JSON.

    python bench/million_nuclei.py NUCLEI FOLDER

The slide is a square that repeats one drawn field of 1024 px without a seam: 520 nuclei, a third of them touching
another. The network is a stand-in that reads its two maps off the pixels, so everything but the network is what a user
gets: decoding, ownership, features, distances, measurements, GeoJSON, CSV. One thread; records lie on disk.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PERIOD_PX = 1024
DRAWN = 520
MPP = 0.25


def drawn_field() -> NDArray[np.uint8]:
    """Pixels (1024, 1024, 3) that repeat in both directions: red holds the mask, green the distance, blue chromatin."""
    random = np.random.default_rng(7)
    mask = np.zeros((PERIOD_PX, PERIOD_PX), np.uint8)
    distance = np.zeros((PERIOD_PX, PERIOD_PX), np.float32)
    side = PERIOD_PX / math.ceil(math.sqrt(DRAWN))
    cells = [(i, j) for i in range(math.ceil(math.sqrt(DRAWN))) for j in range(math.ceil(math.sqrt(DRAWN)))]
    for number, (i, j) in enumerate(cells[:DRAWN]):
        shift = random.uniform(-6, 6, 2)
        if number % 3 == 2:
            shift[0] -= side / 3  # toward the one before
        x, y = (j + 0.5) * side + shift[0], (i + 0.5) * side + shift[1]
        along, across, angle = random.uniform(12, 19), random.uniform(9, 13), random.uniform(0, math.pi)
        rows, columns = np.mgrid[int(y) - 24 : int(y) + 25, int(x) - 24 : int(x) + 25]
        u = (columns - x) * math.cos(angle) + (rows - y) * math.sin(angle)
        v = (rows - y) * math.cos(angle) - (columns - x) * math.sin(angle)
        here = np.clip(1 - np.hypot(u / along, v / across), 0, 1).astype(np.float32)
        at = (rows % PERIOD_PX, columns % PERIOD_PX)
        mask[at] = np.maximum(mask[at], np.where(here > 0, 230, 0))
        distance[at] = np.maximum(distance[at], here)
    pixels = np.empty((PERIOD_PX, PERIOD_PX, 3), np.uint8)
    pixels[..., 0] = mask
    pixels[..., 1] = np.rint(distance * 255)
    pixels[..., 2] = random.integers(60, 200, mask.shape)
    return pixels


def measure(nuclei: int, folder: Path) -> dict[str, Any]:
    """The stage and its files; CPU seconds of each part, counts, bytes and the process's peak."""
    import shapely
    from lobule.analysis.clock import Clock
    from lobule.analysis.measurements import nuclei_measurements
    from lobule.analysis.nuclei_stage import Place, measure_nuclei
    from lobule.analysis.work import FolderWork
    from lobule.export.geojson import write_nuclei
    from lobule.export.tables import write_nuclei_csv
    from lobule.findings.schema import Frame
    from lobule.geometry import Mpp
    from lobule.models.zoo import select_models
    from lobule.progress import QuietReporter
    from lobule.slides.slide import Level, Slide, SlideProperties

    field = np.tile(drawn_field(), (3, 3, 1))

    class Repeated(Slide):
        """The drawn field again and again."""

        path = None
        thread_safe = True

        def __init__(self, side: int) -> None:
            self.levels = (Level((side, side), (1.0, 1.0)),)
            self.properties = SlideProperties("drawn", "drawn", Mpp(MPP, MPP), "option")

        def read_level(self, level: int, origin: tuple[int, int], size: tuple[int, int]) -> NDArray[np.uint8]:
            x, y = origin[0] % PERIOD_PX, origin[1] % PERIOD_PX
            return field[y : y + size[1], x : x + size[0]].copy()

        def close(self) -> None:
            """Nothing is open."""

    class Stand:
        """Reads the maps off the pixels."""

        description = "stand-in"
        kind = "stand-in"

        def run(self, inputs: dict[str, NDArray[np.uint8]]) -> dict[str, NDArray[np.float32]]:
            (pixels,) = inputs.values()
            return {output: np.moveaxis(pixels[..., :2], 3, 1) * np.float32(1 / 255)}

    class Networks:
        def get(self, *_: object) -> Stand:
            return Stand()

    model = select_models()["nuclei"]
    graph = model.card.graph("segment")
    assert graph is not None
    output = graph.outputs[0].name
    side = round(math.sqrt(nuclei / DRAWN) * PERIOD_PX)
    slide = Repeated(side)
    square = (shapely.box(0, 0, side, side),)
    folder.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    started = time.process_time()

    def lap(name: str) -> None:
        nonlocal started
        now = time.process_time()
        seconds[name] = now - started
        started = now

    clock = Clock()
    with FolderWork(folder / "work") as work:
        outcome = measure_nuclei(
            slide,
            "drawn",
            Place(square, "tissue", square),
            model,
            Networks(),  # type: ignore[arg-type]
            1,
            limit=None,
            thorough=False,
            records=work.records("nuclei", "0" * 64),
            clock=clock,
            reporter=QuietReporter(),
        )
        lap("stage")
        nuclei_measurements(outcome)
        lap("measurements")
        frame = Frame(
            size_px=(side, side), mpp_um_per_px=(MPP, MPP), bounds_px=None, geojson_offset_px=(0, 0)
        )
        write_nuclei(folder / "nuclei.geojson.gz", outcome.batches(), frame, "drawn")
        lap("geojson")
        write_nuclei_csv(folder / "nuclei.csv.gz", outcome.batches(), "drawn")
        lap("csv")
    decode = next(row for row in clock.seconds() if row.stage == "nuclei").decode_maps
    return {
        "asked": nuclei,
        "nuclei": int(outcome.tile_counts.sum()),
        "tiles": len(outcome.indices),
        "cpu_seconds": seconds,
        "decode_wall_seconds": decode,
        "geojson_bytes": (folder / "nuclei.geojson.gz").stat().st_size,
        "csv_bytes": (folder / "nuclei.csv.gz").stat().st_size,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), Path(sys.argv[2]))))
