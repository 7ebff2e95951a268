"""The table of a batch: one row a slide."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from lobule.whole_file import whole_file

__all__ = ["SUMMARY_COLUMNS", "write_summary"]

SUMMARY_COLUMNS = (
    "slide",
    "file",
    "status",
    "stage",
    "reason",
    "seconds",
    "mpp_um_per_px",
    "tissue_mm2",
    "tumor_mm2",
    "tumor_share",
    "regions",
    "nuclei_counted",
    "nuclei_per_mm2",
    "median_nuclear_area_um2",
    "warnings",
    "results",
)
"""The columns of summary.csv, in order; units end the names."""


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return format(value, ".6g") if value == value else ""
    if isinstance(value, (list, tuple)):
        return _cell(" ".join(f"{item:.6g}" if isinstance(item, float) else str(item) for item in value))
    text = " ".join(str(value).split())
    # a spreadsheet would run such text as a formula
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def write_summary(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Writes ``rows`` as UTF-8 CSV (RFC 4180) with the fixed `SUMMARY_COLUMNS`, one row a slide.

    A missing column, None or NaN is an empty cell; numbers have six significant digits; text is put on one
    line, and text that a spreadsheet would take for a formula (``= + - @`` in front) gets a leading ``'``.
    A tuple is written with spaces between. Raises ValueError for a column that is not in the table and
    ResultWriteError.
    """
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\r\n")
    table.writerow(SUMMARY_COLUMNS)
    for row in rows:
        unknown = set(row) - set(SUMMARY_COLUMNS)
        if unknown:
            raise ValueError(f"summary.csv has no column {sorted(unknown)[0]!r}")
        table.writerow([_cell(row.get(column)) for column in SUMMARY_COLUMNS])
    with whole_file(path) as stream:
        # a file name that is not valid UTF-8 must not lose the night's table
        stream.write(text.getvalue().encode("utf-8", "backslashreplace"))
