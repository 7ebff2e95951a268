"""Telling how far a long job is: a bar on a terminal, plain lines in a log, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO

__all__ = ["BarReporter", "LineReporter", "QuietReporter", "Reporter", "Step", "reporter_for"]


class Step(Protocol):
    """One running step; `advance` is told how many of its units were done."""

    def advance(self, units: int = 1) -> None:
        """``units`` more are done."""
        ...


class Reporter(Protocol):
    """Where a job's words and progress go."""

    def say(self, text: str) -> None:
        """One line of text."""
        ...

    def step(self, label: str, total: int) -> AbstractContextManager[Step]:
        """A step of ``total`` units, as a context manager."""
        ...


class _Silent:
    def advance(self, units: int = 1) -> None:
        """Nothing is shown."""


class QuietReporter:
    """Says nothing."""

    def say(self, text: str) -> None:
        """See Reporter."""

    @contextmanager
    def step(self, label: str, total: int) -> Iterator[Step]:
        """See Reporter."""
        yield _Silent()


class LineReporter:
    """Plain lines; a step speaks when it starts and every ``every_seconds``, with the time left."""

    def __init__(self, stream: TextIO, every_seconds: float = 15.0) -> None:
        self._stream = stream
        self._every_seconds = every_seconds

    def say(self, text: str) -> None:
        """See Reporter."""
        print(text, file=self._stream, flush=True)

    @contextmanager
    def step(self, label: str, total: int) -> Iterator[Step]:
        """See Reporter."""
        yield _Lines(self, label, total, self._every_seconds)


class _Lines:
    def __init__(self, reporter: LineReporter, label: str, total: int, every_seconds: float) -> None:
        self._reporter, self._label, self._total, self._every = reporter, label, total, every_seconds
        self._done = 0
        self._started = self._spoke = time.monotonic()

    def advance(self, units: int = 1) -> None:
        """See Step."""
        self._done += units
        now = time.monotonic()
        if now - self._spoke >= self._every and self._done:
            self._spoke = now
            left = (now - self._started) / self._done * (self._total - self._done)
            self._reporter.say(f"  {self._label}: {self._done} of {self._total}, about {left:.0f} s left")


class BarReporter:
    """Bars on a terminal (rich)."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console

        self._console = Console(file=stream, highlight=False)

    def say(self, text: str) -> None:
        """See Reporter."""
        self._console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def step(self, label: str, total: int) -> Iterator[Step]:
        """See Reporter."""
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(label, total=total)

            class Bar:
                def advance(self, units: int = 1) -> None:
                    progress.advance(task, units)

            yield Bar()


def reporter_for(*, quiet: bool, stream: TextIO | None = None) -> Reporter:
    """The reporter that fits where the words go (standard error by default)."""
    stream = sys.stderr if stream is None else stream
    if quiet:
        return QuietReporter()
    return BarReporter(stream) if stream.isatty() else LineReporter(stream)
