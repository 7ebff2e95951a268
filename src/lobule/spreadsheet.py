"""Tables that people write: CSV as spreadsheets save it, wherever they are."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Sheet", "read_sheet"]


@dataclass(frozen=True)
class Sheet:
    """A table's columns, in small letters, and its rows: line in the file and cells by column, without the empty."""

    columns: tuple[str, ...]
    rows: tuple[tuple[int, dict[str, str]], ...]


def read_sheet(path: Path) -> Sheet:
    """Reads a CSV in UTF-8 whose first line names the columns; cells that a row lacks at its end are empty.

    Comma, semicolon or tab separated, with or without BOM; spaces around cells are dropped. Raises ValueError that
    says, without the file's name, what is wrong.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"the file cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ValueError("the file is not UTF-8 text; save it as CSV in UTF-8") from error
    first = text.partition("\n")[0]
    separator = next((mark for mark in (";", "\t") if mark in first), ",")
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True
    )
    try:
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise ValueError(f"the file is not a CSV: {error}") from error
    columns = tuple(cell.lower() for cell in lines[0][1]) if lines else ()
    doubled = [name for name, count in Counter(columns).items() if name and count > 1]
    if doubled:
        raise ValueError(f"the first line names the column {doubled[0]!r} twice; leave the one that counts")
    rows = []
    for line, cells in lines[1:]:
        if not any(cells):
            continue
        if separator == "," and len(cells) == len(columns) + 1 and columns[-1] == "mpp":
            # an unquoted decimal comma, "a.svs,0,25", splits the last cell in two
            cells[-2:] = [",".join(cells[-2:])]
        if any(cells[len(columns) :]):
            raise ValueError(f"line {line}: {len(columns)} cells are needed, {len(cells)} are there")
        cells += [""] * (len(columns) - len(cells))
        rows.append((line, dict(zip(columns, cells, strict=False))))
    return Sheet(columns, tuple(rows))
