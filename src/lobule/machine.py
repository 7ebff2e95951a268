"""What this process may use of the machine it runs on."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["granted_cores", "granted_memory_bytes"]


def granted_cores() -> int:
    """Cores that this process may really use: affinity and container quota, not what the machine was built with."""
    # macOS and Windows have no affinity to ask for
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def granted_memory_bytes() -> int | None:
    """Memory that this process may use: the container's limit or the machine's memory; None if unknown."""
    limits = []
    with suppress(AttributeError, ValueError, OSError):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(OSError, ValueError):
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(limits, default=None)
