"""What starting costs over bare Python: `lobule --help` and `import lobule`, each beside a `python -c pass`."""

from __future__ import annotations

import sys

from kit import Kit, command
from pairs import run_command, spread
from report import Bar, Row

ROUNDS = 10
LIMIT_SECONDS = 0.35


def measure(kit: Kit) -> Row:
    """Medians of 10 rounds after one uncounted."""
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import lobule": [sys.executable, "-c", "import lobule"],
        "lobule --help": [*kit.lobule(), "--help"],
    }
    walls: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(ROUNDS + 1):
        for name, words in commands.items():
            cost = run_command(words, kit.logs / "startup.log", 60)
            if number:
                walls[name].append(cost.wall_seconds)
    bare = walls["python -c pass"]
    cells, bars = [], []
    for name, values in walls.items():
        over = spread([value - base for value, base in zip(values, bare, strict=True)])
        cells.append((name, spread(values).text(3), over.text(3) if values is not bare else ""))
        if values is not bare:
            bars.append(Bar(f"{name}, over bare Python", over.median, LIMIT_SECONDS, "lower", " s"))
    columns = ("what", "wall s", "over bare Python s")
    notes = (f"median (min-max) of {ROUNDS} rounds, files warm",)
    return Row("startup", "Starting", columns, tuple(cells), notes, tuple(bars), dict(walls))


if __name__ == "__main__":
    command(measure, __doc__)
