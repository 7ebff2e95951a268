"""The whole benchmark: chosen rows, one report.

    python bench/run.py [--rows readers,half,...] [--peers fast,tiatoolbox] [--rounds 3]

Writes bench/results/<date>-<time>-<processor>/report.md, .json and .png after every row, so that a run that is stopped
keeps what it has. A row that cannot be measured is named with the reason; the others go on.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

import machine
from kit import Kit, kit_from, parser, result_folder, say
from pairs import CommandFailed
from report import Row, report_text, write_report

DEFAULT = ("readers", "half", "runtimes", "pipeline", "startup")
"""Those of a few minutes."""


def _rows() -> dict[str, Callable[[Kit], Row]]:
    import install
    import large
    import million
    import nuclei
    import pipeline
    import readers
    import runtimes
    import scaling
    import startup

    return {
        "readers": readers.measure,
        "half": lambda kit: readers.measure(kit, "half"),
        "runtimes": runtimes.measure,
        "pipeline": pipeline.measure,
        "shipped": lambda kit: pipeline.measure(kit, "shipped"),
        "gap": lambda kit: pipeline.measure(kit, "gap"),
        "nuclei": nuclei.measure,
        "million": million.measure,
        "large": large.measure,
        "scaling": scaling.measure,
        "install": install.measure,
        "startup": startup.measure,
    }


def chosen_rows(words: str) -> list[str]:
    """The rows asked for, each once, in the order given; ``memory`` is part of ``pipeline``."""
    names = [word.strip() for word in words.split(",") if word.strip()] or list(DEFAULT)
    return list(dict.fromkeys("pipeline" if name == "memory" else name for name in names))


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument(
        "--rows", default=os.environ.get("ROWS") or "", help="rows, or none for the quick ones"
    )
    given = options.parse_args()
    kit, rows = kit_from(given), _rows()
    names = chosen_rows(given.rows)
    if unknown := [name for name in names if name not in rows]:
        options.error(f"no row {', '.join(unknown)}: choose among {', '.join(rows)}, memory")
    kit.slide()
    kit.model()
    about = machine.describe()
    folder, done = result_folder(), []
    for name in names:
        started = time.monotonic()
        say(f"--- {name} (load average {machine.load_average()})")
        try:
            row = rows[name](kit)
        except (
            CommandFailed,
            SystemExit,
            OSError,
            subprocess.SubprocessError,
            RuntimeError,
            ValueError,
        ) as error:
            row = Row(name, name, (), (), (f"**not measured**: {error}",))
        minutes = (time.monotonic() - started) / 60
        load = f"measured in {minutes:.1f} min; load average after: {machine.load_average()}"
        done.append(Row(**{**row.__dict__, "notes": (*row.notes, load)}))
        write_report(folder, done, about)
    print(report_text(done, about))
    print(f"in {folder}")
    sys.exit(1 if any(not row.cells for row in done) else 0)


if __name__ == "__main__":
    main()
