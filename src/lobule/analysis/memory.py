"""Memory: what the run may use, what it used."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from lobule.analysis.options import Options
from lobule.errors import ConfigurationError
from lobule.models.zoo import Model

__all__ = ["estimate_bytes", "fit_workers", "peak_memory_bytes", "read_bytes", "share_one_heap"]

_M_ARENA_MAX = -8
"""glibc's name for the number of heaps (malloc.h)."""
BASE_BYTES = 320_000_000
"""Interpreter, libraries and report, measured with one worker less its tile; ONNX Runtime needs most."""
BYTES_PER_OVERVIEW_PIXEL = 50
"""Finding tissue, measured on an overview of 20 million pixels."""
DECODED_TIMES = 3
"""A picture that is held whole takes so many times its pixels while it is decoded."""
BYTES_PER_TILE_PIXEL = 380
"""A worker's activations and window of tiles per pixel of its tile, measured on the shipped networks."""


def estimate_bytes(models: Iterable[Model], workers: int, overview_px: int, held_bytes: int = 0) -> int:
    """Memory that a run needs: a base, and the larger of finding tissue and of every worker's tiles.

    ``held_bytes``: what the open slide keeps in memory (`Slide.held_bytes`), beside that or while it is decoded.
    """
    tiles = [graph.tile_px for model in models for graph in model.card.graphs if graph.role != "refine"]
    at_work = workers * BYTES_PER_TILE_PIXEL * max(tiles, default=0) ** 2
    beside = held_bytes + max(BYTES_PER_OVERVIEW_PIXEL * overview_px, at_work)
    return BASE_BYTES + max(beside, DECODED_TIMES * held_bytes)


def fit_workers(options: Options, models: Mapping[str, Model], overview_px: int, held_bytes: int = 0) -> int:
    """As many of the asked workers as ``max_ram_bytes`` admits; ``overview_px`` is 0 for no slide in particular.

    ``models`` by family; those of families that are not asked for need nothing. Raises ConfigurationError if not
    even one worker fits.
    """
    workers = options.worker_count
    asked = [model for family, model in models.items() if family in options.only]
    if options.max_ram_bytes is None:
        return workers
    while workers > 1 and estimate_bytes(asked, workers, overview_px, held_bytes) > options.max_ram_bytes:
        workers -= 1
    needed = estimate_bytes(asked, workers, overview_px, held_bytes)
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
