"""Tables: of a batch, one row a slide; of a slide, one row a nucleus, as CSV and Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lobule.errors import MissingDependencyError
from lobule.export.geojson import nucleus_ids
from lobule.export.packed import Packed
from lobule.findings.nuclei import MEASURES, Nuclei
from lobule.whole_file import whole_file

__all__ = [
    "NUCLEI_COLUMNS",
    "SUMMARY_COLUMNS",
    "earlier_failures",
    "require_parquet",
    "write_nuclei_csv",
    "write_nuclei_parquet",
    "write_summary",
]

NUCLEI_COLUMNS = ("id", "x_px", "y_px", *MEASURES)
"""The columns of nuclei.csv.gz and nuclei.parquet, in order; units end the names.

``id`` is the feature's id in nuclei.geojson.gz, ``x_px`` and ``y_px`` its centroid in level-0 px of the slide (not
shifted by ``geojson_offset_px``).
"""
_ROWS = 1 << 14
"""Nuclei made into text, or into a row group, at once."""

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
    "nuclei_where",
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


def earlier_failures(path: Path, known: Collection[tuple[str, str]]) -> list[dict[str, str]] | None:
    """The failed rows of a table of `write_summary` that are of none of the ``known`` slides (slide, file).

    A row is of a known slide where either name is the same. Another version's table may have other columns: those
    that are known now are taken. None where the file is some other table. Raises OSError.
    """
    try:
        # spreadsheets begin UTF-8 with a mark
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except FileNotFoundError:
        return []
    rows = csv.DictReader(io.StringIO(text, newline=""))
    if not {"slide", "file", "status", "stage", "reason"} <= set(rows.fieldnames or ()):
        return None if text.strip() else []
    slides, files = {_written(slide) for slide, _ in known}, {_written(file) for _, file in known}
    return [
        {name: row[name] or "" for name in SUMMARY_COLUMNS if name in row}
        for row in rows
        if row["status"] == "failed" and row["slide"] not in slides and row["file"] not in files
    ]


def _written(text: str) -> str:
    """A cell as it is read back."""
    return _cell(text).encode("utf-8", "backslashreplace").decode()


def _portions(
    batches: Iterable[Nuclei], slide_id: str
) -> Iterator[tuple[list[str], NDArray[np.float64], NDArray[np.float32]]]:
    """Ids, centroids (n, 2) and measures of at most `_ROWS` nuclei at a time, in order."""
    waiting: list[tuple[NDArray[np.float64], NDArray[np.float32]]] = []
    count = first = 0

    def portion() -> tuple[list[str], NDArray[np.float64], NDArray[np.float32]]:
        centers, measures = zip(*waiting, strict=True)
        return nucleus_ids(slide_id, first, count), np.concatenate(centers), np.concatenate(measures)

    for batch in batches:
        for start in range(0, len(batch), _ROWS):
            part = slice(start, start + _ROWS)
            size = len(batch.centroid_px[part])
            if count + size > _ROWS:
                yield portion()
                waiting, first, count = [], first + count, 0
            waiting.append((batch.centroid_px[part], batch.measures[part]))
            count += size
    if waiting:
        yield portion()


def write_nuclei_csv(path: Path, batches: Iterable[Nuclei], slide_id: str) -> int:
    """Writes nuclei as gzip-compressed CSV (RFC 4180, ASCII) with `NUCLEI_COLUMNS`; returns their number.

    Numbers have six significant digits, coordinates two decimals; what is not finite is an empty cell. Equal nuclei
    in equal order give equal bytes however they are batched. Raises ResultWriteError.

    Memory bound: one batch, and the text of some 16,000 nuclei.
    """
    row = "%s,%.2f,%.2f" + ",%.6g" * len(MEASURES) + "\r\n"
    count = 0
    with whole_file(path) as stream, Packed(stream) as packed:
        packed.write(",".join(NUCLEI_COLUMNS) + "\r\n")
        for ids, centers, measures in _portions(batches, slide_id):
            cells = np.empty((len(ids), len(NUCLEI_COLUMNS)), object)
            cells[:, 0], cells[:, 1:3], cells[:, 3:] = ids, centers, measures
            text = (row * len(ids)) % tuple(cells.reshape(-1).tolist())
            # ids are hexadecimal: these letters stand for numbers that are not known
            packed.write(text.replace("nan", "").replace("-inf", "").replace("inf", ""))
            count += len(ids)
    return count


def require_parquet() -> None:
    """Raises MissingDependencyError where Parquet cannot be written."""
    if find_spec("pyarrow") is None:
        raise MissingDependencyError("pyarrow", "tables", "writing nuclei.parquet")


def write_nuclei_parquet(path: Path, batches: Iterable[Nuclei], slide_id: str) -> int:
    """Writes nuclei as Parquet with `NUCLEI_COLUMNS`; returns their number.

    ``id`` text, coordinates float64, measures float32 (not known: null), ``touches_border`` bool. The metadata hold
    ``lobule.slide`` and the research-use notice. Raises MissingDependencyError without pyarrow, ResultWriteError.

    Memory bound: one batch, and one row group of some 16,000 nuclei.
    """
    require_parquet()
    import pyarrow
    from pyarrow import parquet

    kinds: dict[str, Any] = {"id": pyarrow.string(), "x_px": pyarrow.float64(), "y_px": pyarrow.float64()}
    kinds |= {name: pyarrow.float32() for name in MEASURES} | {"touches_border": pyarrow.bool_()}
    about = {
        "lobule.slide": slide_id.encode("utf-8", "backslashreplace"),
        "lobule.notice": "For research use only. Not for diagnosis.",
    }
    schema = pyarrow.schema([(name, kinds[name]) for name in NUCLEI_COLUMNS], metadata=about)
    count = 0
    with whole_file(path) as stream, parquet.ParquetWriter(stream, schema) as writer:
        for ids, centers, measures in _portions(batches, slide_id):
            columns = [pyarrow.array(ids, pyarrow.string()), *map(pyarrow.array, centers.T.copy())]
            for name, values in zip(MEASURES, measures.T.copy(), strict=True):
                if name == "touches_border":
                    columns.append(pyarrow.array(values > 0))
                else:
                    columns.append(pyarrow.array(values, mask=~np.isfinite(values)))
            writer.write_table(pyarrow.Table.from_arrays(columns, schema=schema))
            count += len(ids)
    return count
