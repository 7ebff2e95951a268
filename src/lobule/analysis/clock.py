"""Where the time goes: seconds per stage and sub-stage, summed over threads."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from lobule.findings.schema import StageSeconds
from lobule.slides.slide import Slide

__all__ = ["Clock"]


class Clock:
    """Collects seconds; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals: dict[str, float] = {}
        self._parts: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """The wall-clock seconds of a whole stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self._totals[name] = self._totals.get(name, 0.0) + time.perf_counter() - started

    @contextmanager
    def part(self, stage: str, part: str) -> Iterator[None]:
        """Seconds of one sub-stage (read, decode, prepare, infer, decode_maps, write)."""
        started = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self._parts[stage][part] += time.perf_counter() - started

    @contextmanager
    def reading(self, stage: str, slide: Slide) -> Iterator[None]:
        """Around all of a stage's reading: what the slide's file took is moved from ``decode`` to ``read``."""
        before = slide.seconds_in_file
        try:
            yield
        finally:
            taken = slide.seconds_in_file - before
            with self._lock:
                parts = self._parts[stage]
                taken = min(taken, parts["decode"])
                parts["decode"] -= taken
                parts["read"] += taken

    def seconds(self) -> tuple[StageSeconds, ...]:
        """All stages in the order in which they ended."""
        return tuple(
            StageSeconds(
                stage=name, total=round(total, 3), **{k: round(v, 3) for k, v in self._parts[name].items()}
            )
            for name, total in self._totals.items()
        )
