from __future__ import annotations

import csv
from pathlib import Path

import pytest

from lobule.export.tables import SUMMARY_COLUMNS, write_summary


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


def test_an_unknown_column_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'speed'"):
        write_summary(tmp_path / "s.csv", [{"speed": 1}])
    assert list(tmp_path.iterdir()) == []
