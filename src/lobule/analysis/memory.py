"""Memory: what the run may use, what it used."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from lobule.analysis.options import Options
from lobule.errors import ConfigurationError
from lobule.models.zoo import Model

__all__ = ["estimate_bytes", "fit_workers", "peak_memory_bytes", "read_bytes", "share_one_heap"]

_M_ARENA_MAX = -8
"""glibc's name for the number of heaps (malloc.h)."""
BASE_BYTES = 260_000_000
"""Interpreter, libraries and report, measured with one worker less its tile."""
BYTES_PER_OVERVIEW_PIXEL = 50
"""Finding tissue, measured on an overview of 20 million pixels."""
BYTES_PER_TILE_PIXEL = 380
"""A worker's activations and window of tiles per pixel of its tile, measured on the shipped networks."""


def estimate_bytes(models: Iterable[Model], workers: int, overview_px: int) -> int:
    """Memory that a run needs: a base, and the larger of finding tissue and of every worker's tiles."""
    tiles = [graph.tile_px for model in models for graph in model.card.graphs if graph.role != "refine"]
    at_work = workers * BYTES_PER_TILE_PIXEL * max(tiles, default=0) ** 2
    return BASE_BYTES + max(BYTES_PER_OVERVIEW_PIXEL * overview_px, at_work)


def fit_workers(options: Options, models: Iterable[Model], overview_px: int) -> int:
    """As many of the asked workers as ``max_ram_bytes`` admits; ``overview_px`` is 0 for no slide in particular.

    Raises ConfigurationError if not even one fits.
    """
    workers, models = options.worker_count, list(models)
    if options.max_ram_bytes is None:
        return workers
    while workers > 1 and estimate_bytes(models, workers, overview_px) > options.max_ram_bytes:
        workers -= 1
    needed = estimate_bytes(models, workers, overview_px)
    if needed > options.max_ram_bytes:
        who = "this slide and one worker of these models need" if overview_px else "one worker needs"
        raise ConfigurationError(
            "--max-ram", f"{options.max_ram_bytes // 1_000_000}M", f"{who} about {needed // 1_000_000}M"
        )
    return workers


def share_one_heap() -> None:
    """Keeps glibc from giving every thread a heap of its own, before there are threads; elsewhere nothing.

    Each of those heaps keeps what its thread once needed: a fifth of the peak of a run whose threads take turns.
    """
    import ctypes

    with suppress(AttributeError, OSError, TypeError):  # no glibc
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def peak_memory_bytes() -> int | None:
    """This process's peak resident memory by the operating system's accounting."""
    # getrusage would count the peak of the process that started this one, too
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def read_bytes() -> int | None:
    """Bytes that this process has asked to read from files, caches included."""
    try:
        for line in Path("/proc/self/io").read_text().splitlines():
            if line.startswith("rchar:"):
                return int(line.split()[1])
    except OSError:
        return None
    return None
