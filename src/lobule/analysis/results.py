"""A slide's folder of results, as far as it can be judged without what writes it: that takes longer to import."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lobule.errors import ResultWriteError
from lobule.findings.schema import Findings, OutputFile
from lobule.strict import from_json

if TYPE_CHECKING:
    from lobule.slides import Slide

__all__ = [
    "FINDINGS",
    "SUMMARY",
    "are_whole",
    "holds_files_of",
    "name_of",
    "output_file",
    "results_in",
    "writing",
]

FINDINGS = "findings.json"
SUMMARY = "summary.csv"


def name_of(path: Path) -> str:
    """What a slide's results are called: the file's name without its ending.

    With it where the name would be ``.``, ``..`` or that of the table that lies beside the results.
    """
    for ending in (".ome.tiff", ".ome.tif"):
        if path.name.lower().endswith(ending) and len(path.name) > len(ending):
            return path.name[: -len(ending)]
    return path.stem if path.stem.strip(".") and path.stem.casefold() != SUMMARY else path.name


def output_file(path: Path) -> OutputFile:
    """The file as findings.json names it: its size and digest."""
    with path.open("rb") as stream:
        return OutputFile(
            name=path.name,
            size_bytes=path.stat().st_size,
            sha256=hashlib.file_digest(stream, "sha256").hexdigest(),
        )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what the system says against writing ``path`` into ResultWriteError."""
    try:
        yield
    except OSError as error:
        if isinstance(error, ResultWriteError):
            raise
        raise ResultWriteError(path, f"cannot be written: {error.strerror or error}") from error


def results_in(folder: Path) -> Findings | None:
    """The findings of the results in ``folder``; None where there are none that can be read."""
    try:
        return from_json((folder / FINDINGS).read_bytes(), Findings)
    except (OSError, ValueError):
        return None


def holds_files_of(slide: Slide, folder: Path) -> bool:
    """Whether files lie in ``folder`` that the slide is made of beside the one that names it: no place for results.

    A MIRAX slide is all that lies in its folder: with results in it, it would be another slide.
    """
    if slide.path is None:
        return False
    place = folder.resolve()
    return any(file.resolve().parent == place for file in slide.files() if file != slide.path)


def are_whole(folder: Path, findings: Findings) -> bool:
    """Whether every file is there as the findings say, byte for byte, and the report is not empty."""
    try:
        there = (folder / "report.html").stat().st_size > 0
        return there and all(output_file(folder / file.name) == file for file in findings.files)
    except OSError:
        return False
