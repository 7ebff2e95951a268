"""A file by which processes agree who works in its folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["held_alone", "take_lock"]


@contextmanager
def held_alone(path: Path) -> Iterator[bool]:
    """Gives whether this process alone holds ``path`` while the block runs; nobody waits.

    The lock dies with the process, the file stays. Where the file system knows no locks everybody holds it. Raises
    OSError where the file cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            taken = take_lock(descriptor)
        except OSError:
            taken = True
        yield taken
    finally:
        os.close(descriptor)


def take_lock(descriptor: int) -> bool:
    """Takes the whole-file lock without waiting; False if another process has it. Raises OSError: no locks here."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
