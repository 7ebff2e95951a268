from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lobule.errors import ConfigurationError, MissingDependencyError
from lobule.export.geojson import nucleus_id
from lobule.export.tables import (
    NUCLEI_COLUMNS,
    SUMMARY_COLUMNS,
    earlier_failures,
    require_parquet,
    write_nuclei_csv,
    write_nuclei_parquet,
    write_summary,
)
from lobule.families.nuclei import inside
from lobule.findings.nuclei import MEASURES, Nuclei


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_every_column_stands_in_the_head_even_without_rows(tmp_path: Path) -> None:
    write_summary(tmp_path / "summary.csv", [])
    assert (tmp_path / "summary.csv").read_text("utf-8").rstrip() == ",".join(SUMMARY_COLUMNS)


def test_values_come_back(tmp_path: Path) -> None:
    row = {
        "slide": 'a, "b"',
        "seconds": 12.345678901,
        "regions": 3,
        "tumor_mm2": None,
        "tumor_share": float("nan"),
        "mpp_um_per_px": (0.25, 0.5),
        "reason": "first\nsecond",
        "nuclei_per_mm2": -1.5,
    }
    write_summary(tmp_path / "s.csv", [row])
    (got,) = read(tmp_path / "s.csv")
    assert got["slide"] == 'a, "b"'
    assert got["seconds"] == "12.3457"
    assert got["regions"] == "3"
    assert got["tumor_mm2"] == got["tumor_share"] == got["file"] == ""
    assert got["mpp_um_per_px"] == "0.25 0.5"
    assert got["reason"] == "first second"
    assert got["nuclei_per_mm2"] == "-1.5"


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@SUM(A1)", "\t=1+1", "\r\n@x"])
def test_text_that_a_spreadsheet_would_run_is_defused(tmp_path: Path, text: str) -> None:
    write_summary(tmp_path / "s.csv", [{"slide": text}])
    assert read(tmp_path / "s.csv")[0]["slide"] == "'" + text.strip()


def test_a_file_name_that_is_not_utf8_does_not_lose_the_table(tmp_path: Path) -> None:
    write_summary(tmp_path / "s.csv", [{"file": "sl\udce9.svs"}, {"file": "😀 µ.svs"}])
    assert [row["file"] for row in read(tmp_path / "s.csv")] == ["sl\\udce9.svs", "😀 µ.svs"]


def test_failures_are_found_again_in_a_table_that_a_spreadsheet_or_another_version_wrote(
    tmp_path: Path,
) -> None:
    path, row = tmp_path / "s.csv", {"slide": "a", "file": "a.svs", "status": "failed", "stage": "open"}
    write_summary(path, [row, {"slide": "b", "file": "b.svs", "status": "done"}])
    text = path.read_text("utf-8")
    for written in ("\ufeff" + text, text.replace("seconds", "minutes")):
        path.write_text(written, "utf-8")
        found = earlier_failures(path, set())
        assert found is not None and [one["slide"] for one in found] == ["a"]
        write_summary(path, found)
    path.write_text("case;notes\n", "utf-8")
    assert earlier_failures(path, set()) is None
    path.write_text("", "utf-8")
    assert earlier_failures(path, set()) == []


def test_an_unknown_column_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'speed'"):
        write_summary(tmp_path / "s.csv", [{"speed": 1}])
    assert list(tmp_path.iterdir()) == []


def some_nuclei(count: int, seed: int = 4) -> Nuclei:
    random = np.random.default_rng(seed)
    measures = random.uniform(0, 200, (count, len(MEASURES))).astype(np.float32)
    measures[:, BORDER] = random.integers(0, 2, count)
    measures[::3, list(MEASURES).index("nearest_distance_um")] = np.nan
    starts = np.arange(0, 4 * count + 1, 4, dtype=np.int64)
    centers = random.uniform(0, 90_000, (count, 2))
    return Nuclei(centers, starts, random.uniform(0, 9, (4 * count, 2)).astype(np.float32), measures)


BORDER = list(MEASURES).index("touches_border")


def parts(nuclei: Nuclei, size: int) -> list[Nuclei]:
    numbers = np.arange(len(nuclei))
    return [inside(nuclei, numbers // size == k) for k in range(-(-len(nuclei) // size))]


def rows_of(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", newline="", encoding="ascii") as stream:
        return list(csv.DictReader(stream))


def test_every_nucleus_is_a_row_of_numbers_with_units_in_the_names(tmp_path: Path) -> None:
    nuclei = some_nuclei(50)
    assert write_nuclei_csv(tmp_path / "n.csv.gz", [nuclei], "case 1") == 50
    rows = rows_of(tmp_path / "n.csv.gz")
    assert list(rows[0]) == list(NUCLEI_COLUMNS)
    for k, row in enumerate(rows):
        assert row["id"] == nucleus_id("case 1", k)
        assert float(row["x_px"]) == pytest.approx(nuclei.centroid_px[k, 0], abs=0.0051)
        assert float(row["y_px"]) == pytest.approx(nuclei.centroid_px[k, 1], abs=0.0051)
        for name in MEASURES:
            value = float(nuclei.measure(name)[k])
            if np.isnan(value):
                assert row[name] == ""
            else:
                assert float(row[name]) == pytest.approx(value, rel=1e-5)


def test_infinite_and_negative_values_keep_cells_and_rows_in_place(tmp_path: Path) -> None:
    nuclei = some_nuclei(3)
    nuclei.measures[1, :4] = [np.inf, -np.inf, np.nan, -2.5]
    write_nuclei_csv(tmp_path / "n.csv.gz", [nuclei], "s")
    row = rows_of(tmp_path / "n.csv.gz")[1]
    assert [row[name] for name in list(MEASURES)[:4]] == ["", "", "", "-2.5"]
    assert None not in row and None not in row.values()


def test_batches_do_not_show_in_the_bytes(tmp_path: Path) -> None:
    nuclei = some_nuclei(40_000)
    written = set()
    for size in (7000, 16_384, 40_000):
        write_nuclei_csv(tmp_path / "n.csv.gz", parts(nuclei, size), "s")
        rows = gzip.decompress((tmp_path / "n.csv.gz").read_bytes())
        written.add(rows)
    assert len(written) == 1


def test_no_nuclei_are_a_head_alone(tmp_path: Path) -> None:
    assert write_nuclei_csv(tmp_path / "n.csv.gz", [Nuclei.none()], "s") == 0
    assert gzip.decompress((tmp_path / "n.csv.gz").read_bytes()).decode() == ",".join(NUCLEI_COLUMNS) + "\r\n"


def test_a_table_that_fails_leaves_the_earlier_one(tmp_path: Path) -> None:
    write_nuclei_csv(tmp_path / "n.csv.gz", [some_nuclei(3)], "s")
    before = (tmp_path / "n.csv.gz").read_bytes()

    def broken() -> Iterator[Nuclei]:
        yield some_nuclei(20_000)
        raise RuntimeError("the tile is lost")

    with pytest.raises(RuntimeError, match="lost"):
        write_nuclei_csv(tmp_path / "n.csv.gz", broken(), "s")
    assert (tmp_path / "n.csv.gz").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["n.csv.gz"]


def test_parquet_holds_the_same_table(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra 'tables' is not installed")
    nuclei = some_nuclei(30_000)
    assert write_nuclei_parquet(tmp_path / "n.parquet", parts(nuclei, 7000), "case 1") == 30_000
    table = parquet.read_table(tmp_path / "n.parquet")
    assert table.column_names == list(NUCLEI_COLUMNS)
    assert table.schema.metadata[b"lobule.slide"] == b"case 1"
    assert table["id"][29_999].as_py() == nucleus_id("case 1", 29_999)
    np.testing.assert_array_equal(table["x_px"].to_numpy(), nuclei.centroid_px[:, 0])
    np.testing.assert_array_equal(table["area_um2"].to_numpy(), nuclei.measure("area_um2"))
    np.testing.assert_array_equal(table["touches_border"].to_numpy(), nuclei.measures[:, BORDER] > 0)
    nearest = table["nearest_distance_um"]
    assert nearest.null_count == 10_000 and nearest[0].as_py() is None
    assert write_nuclei_parquet(tmp_path / "none.parquet", [], "s") == 0
    assert parquet.read_table(tmp_path / "none.parquet").num_rows == 0


def test_parquet_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from lobule.analysis import Options

    monkeypatch.setattr("lobule.export.tables.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"'\.\[tables\]' in lobule's folder"):
        require_parquet()
    with pytest.raises(MissingDependencyError, match=r"'\.\[tables\]' in lobule's folder"):
        Options(tables=("csv", "parquet"))
    assert Options().tables == ("csv",)
    for wrong in ((), ("excel",)):
        with pytest.raises(ConfigurationError, match="csv, parquet"):
            Options(tables=wrong)
