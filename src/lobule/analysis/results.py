"""A slide's folder of results, as far as it can be judged without what writes it: that takes longer to import."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lobule.errors import ResultWriteError
from lobule.findings.schema import Findings, OutputFile
from lobule.strict import from_json

__all__ = ["FINDINGS", "are_whole", "name_of", "output_file", "results_in", "writing"]

FINDINGS = "findings.json"


def name_of(path: Path) -> str:
    """What a slide's results are called: the file's name without its ending, unless that would be ``.`` or ``..``."""
    for ending in (".ome.tiff", ".ome.tif"):
        if path.name.lower().endswith(ending) and len(path.name) > len(ending):
            return path.name[: -len(ending)]
    return path.stem if path.stem.strip(".") else path.name


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


def are_whole(folder: Path, findings: Findings) -> bool:
    """Whether every file is there as the findings say, byte for byte, and the report is not empty."""
    try:
        there = (folder / "report.html").stat().st_size > 0
        return there and all(output_file(folder / file.name) == file for file in findings.files)
    except OSError:
        return False
