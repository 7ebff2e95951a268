"""Costs of commands, and the statistics of pairs: yardstick and subject in turn, a ratio for each round."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LAUNCH = Path(__file__).with_name("launch.py")


class CommandFailed(Exception):
    """A command did not exit with 0; the message names its log."""


@dataclass(frozen=True)
class Cost:
    """What one run of a command took. ``peak_bytes``: the largest single process."""

    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Spread:
    """Median and range of a few numbers."""

    median: float
    low: float
    high: float

    def text(self, digits: int = 2) -> str:
        """``median (low-high)``."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}-{self.high:.{digits}f})"


def spread(values: Sequence[float]) -> Spread:
    """Raises ValueError for no numbers."""
    if not values:
        raise ValueError("no numbers to summarize")
    return Spread(statistics.median(values), min(values), max(values))


def ratios(subject: Sequence[float], yardstick: Sequence[float]) -> list[float]:
    """Round by round, never of medians: each subject run is held against the yardstick's run beside it."""
    return [s / y for s, y in zip(subject, yardstick, strict=True)]


def run_command(
    command: Sequence[str], log: Path, timeout_seconds: float, environment: Mapping[str, str] | None = None
) -> Cost:
    """Runs to the end, output appended to ``log``. Raises CommandFailed (also after the timeout)."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "cost.json"
        launch = [sys.executable, "-S", "-E", str(LAUNCH), str(result), str(timeout_seconds), str(log)]
        whole = {**os.environ, **(environment or {})}
        with subprocess.Popen([*launch, *command], env=whole, stdin=subprocess.PIPE) as launcher:
            launcher.wait()  # the pipe stays open until then
        if not result.is_file():
            raise CommandFailed(f"{command[0]} could not be started: see {log}")
        cost = json.loads(result.read_text())
    if cost["timed_out"]:
        raise CommandFailed(f"stopped after {timeout_seconds:.0f} s: see {log}")
    if cost["status"]:
        raise CommandFailed(f"exit {cost['status']} after {cost['wall_seconds']:.1f} s: see {log}")
    return Cost(cost["wall_seconds"], cost["cpu_seconds"], cost["peak_bytes"])


def in_turn(
    tasks: Mapping[str, Callable[[], float | Cost]], rounds: int
) -> tuple[dict[str, list[float | Cost]], dict[str, str]]:
    """Runs every task once per round, in the order given; a task that fails is dropped from then on.

    Returns (results of the tasks that never failed, why the others did).
    """
    results: dict[str, list[float | Cost]] = {name: [] for name in tasks}
    failed: dict[str, str] = {}
    for _ in range(rounds):
        for name, task in tasks.items():
            if name in failed:
                continue
            try:
                results[name].append(task())
            except CommandFailed as error:
                failed[name] = str(error)
                del results[name]
    return results, failed
