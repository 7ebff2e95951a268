"""The row of a million nuclei, at two thousand."""

from __future__ import annotations

import csv
import gzip
import json
import math
from pathlib import Path

import pytest
from million import row_of
from million_nuclei import DRAWN, PERIOD_PX, measure

from lobule.models.zoo import select_models


def test_a_small_run_counts_and_writes_every_nucleus(tmp_path: Path) -> None:
    found = measure(2 * 2 * DRAWN, tmp_path)
    features = json.loads(gzip.decompress((tmp_path / "nuclei.geojson.gz").read_bytes()))["features"]
    with gzip.open(tmp_path / "nuclei.csv.gz", "rt", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert found["nuclei"] == len(features) == len(rows)
    # touching ones may be told apart one more or less; those on the rim are cut or not
    assert found["nuclei"] == pytest.approx(found["asked"], rel=0.05)
    graph = select_models()["nuclei"].card.graph("segment")
    assert graph is not None
    assert found["tiles"] == math.ceil(2 * PERIOD_PX / (graph.tile_px - 2 * graph.halo_px)) ** 2
    assert set(found["cpu_seconds"]) == {"stage", "measurements", "geojson", "csv"}


def test_bars_compare_sizes_a_nucleus() -> None:
    sizes = [
        {
            "asked": asked,
            "nuclei": asked,
            "cpu_seconds": {"stage": asked * 1e-4, "measurements": 0.0, "geojson": asked * 2e-5, "csv": 0.0},
            "geojson_bytes": asked * 300,
            "csv_bytes": asked * 90,
            "peak_bytes": peak,
        }
        for asked, peak in ((100_000, 2e8), (250_000, 2e8), (1_000_000, 2.5e8))
    ]
    row = row_of(sizes)
    assert [cell[0] for cell in row.cells] == ["100,000", "250,000", "1,000,000"]
    assert [round(bar.value, 6) for bar in row.bars] == [0.25, 20.0, 0.25, 1.0]
    assert all(bar.reached for bar in row.bars)
