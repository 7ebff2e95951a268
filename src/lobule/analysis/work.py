"""Where a run keeps what it has done so far: a hidden folder beside the results, or memory."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from lobule.errors import ResultLockedError, ResultWriteError
from lobule.file_lock import take_lock
from lobule.inference.journal import Journal

__all__ = ["WORK", "FolderWork", "MemoryWork", "Records", "Work", "alone", "digest"]


def digest(plan: Mapping[str, Any]) -> str:
    """sha256 of a plan's canonical JSON, 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(plan, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class Records(Protocol):
    """Tile results by index."""

    def __contains__(self, index: int) -> bool: ...

    def append(self, index: int, payload: bytes) -> None:
        """Adds a tile's result."""
        ...

    def read(self, index: int) -> bytes:
        """A tile's result."""
        ...

    def in_order(self) -> Iterator[tuple[int, bytes]]:
        """All results by rising index."""
        ...

    def close(self) -> None:
        """Frees what is held."""
        ...


class Work(Protocol):
    """Gives each stage its records."""

    def records(self, stage: str, plan: str) -> Records:
        """The stage's records under this plan; those of another plan are dropped."""
        ...

    def close(self) -> None:
        """Frees everything."""
        ...


class _MemoryRecords(dict[int, bytes]):
    def append(self, index: int, payload: bytes) -> None:
        self[index] = payload

    def read(self, index: int) -> bytes:
        return self[index]

    def in_order(self) -> Iterator[tuple[int, bytes]]:
        return iter(sorted(self.items()))

    def close(self) -> None:
        """Nothing is held outside memory."""


class MemoryWork:
    """Keeps records in memory; a killed run starts again."""

    def records(self, stage: str, plan: str) -> Records:
        """See Work."""
        return _MemoryRecords()

    def close(self) -> None:
        """See Work."""


WORK = ".lobule"
"""The hidden folder beside a slide's results that holds what an interrupted run has done."""
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


class FolderWork:
    """Keeps records in ``folder``, which one process at a time may hold (the lock dies with the process)."""

    locked = True
    """False where the file system knows no locks, as some of clusters do."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: list[Journal] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise ResultWriteError(folder.parent, f"cannot be written: {error.strerror or error}") from error
        try:
            taken = take_lock(self._lock)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(self._lock)
                raise ResultWriteError(folder.parent, f"cannot be locked: {error.strerror}") from error
            taken, self.locked = True, False
        if not taken:
            os.close(self._lock)
            raise ResultLockedError(
                folder.parent, "another run is writing these results; wait for it or end it"
            )

    def of(self, folder: Path) -> bool:
        """Whether it lies in ``folder``, which is then this process's alone."""
        return self._folder.parent.resolve() == folder.resolve()

    def records(self, stage: str, plan: str) -> Records:
        """See Work."""
        journal = Journal(self._folder / f"{stage}.journal", plan)
        self._open.append(journal)
        return journal

    def close(self) -> None:
        """See Work."""
        for journal in self._open:
            journal.close()
        self._open.clear()
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Lets one process at a time into the block, the others wait; ``path`` is the file they agree by.

    It stays: whoever waits holds it open. Where the file system cannot lock, nobody waits. Raises OSError where the
    file cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with suppress(OSError):
            while not take_lock(descriptor):
                time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)
