"""Size of a fresh light install: site-packages of a new environment with this checkout and what it needs.

Downloads some 250 MB, so it runs only when asked for.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from kit import Kit, command
from pairs import run_command
from report import Bar, Row

LIMIT_MIB = 750
ROOT = Path(__file__).resolve().parents[1]


def folder_bytes(folder: Path) -> int:
    """Bytes on disk, a file with several names once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            status = (Path(path) / name).lstat()
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                total += status.st_blocks * 512
    return total


def measure(kit: Kit) -> Row:
    """Installs into a new environment and weighs it."""
    venv = kit.work / "venv-light"
    shutil.rmtree(venv, ignore_errors=True)
    log = kit.logs / "install.log"
    run_command([sys.executable, "-m", "venv", str(venv)], log, kit.timeout_seconds)
    pip = [str(venv / "bin" / "python"), "-m", "pip"]
    quiet = ["--quiet", "--disable-pip-version-check", "--no-cache-dir"]
    cost = run_command([*pip, "install", *quiet, str(ROOT)], log, 1800)
    # pip itself came with the environment, not with lobule
    run_command(
        [*pip, "uninstall", "--quiet", "--yes", "--disable-pip-version-check", "pip", "setuptools"], log, 300
    )
    packages = next((venv / "lib").glob("python*")) / "site-packages"
    sizes = {path.name: folder_bytes(path) for path in packages.iterdir() if path.is_dir()}
    total = folder_bytes(packages)
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:8]
    cells = [
        ("site-packages", f"{total / 2**20:.0f}"),
        *((name, f"{size / 2**20:.0f}") for name, size in largest),
    ]
    bars = (Bar("light install", total / 2**20, LIMIT_MIB, "lower", " MiB"),)
    notes = (f"installed in {cost.wall_seconds:.0f} s, download included",)
    shutil.rmtree(venv)
    return Row("install", "Light install", ("folder", "MiB"), tuple(cells), notes, bars, {"bytes": sizes})


if __name__ == "__main__":
    command(measure, __doc__)
