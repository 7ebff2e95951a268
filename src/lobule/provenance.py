"""Where numbers come from: a slide's identity that survives renaming and moving."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from lobule.errors import SlideReadError

__all__ = ["SlideIdentity", "slide_identity"]

WHOLE_UP_TO_BYTES = 256 * 1024 * 1024
EDGE_BYTES = 1024 * 1024
BLOCK_BYTES = 64 * 1024
BLOCKS = 512


@dataclass(frozen=True, slots=True)
class SlideIdentity:
    """``sha256`` over the contents of a slide's files, whatever their names and folders.

    ``method`` "sha256": every byte. "sha256-sampled" (over 256 MB in all): of every file above 34 MiB the
    size, the first and last MiB and 512 evenly spaced blocks of 64 KiB; a change that misses all of these
    goes unseen, but two different scans never look alike.
    """

    sha256: str
    method: Literal["sha256", "sha256-sampled"]
    size_bytes: int


def slide_identity(files: Sequence[Path]) -> SlideIdentity:
    """The identity of the slide that consists of ``files``; their order does not matter.

    Each file is digested on its own and the sorted digests together, so a slide of several files named by any
    of them is the same slide. Raises SlideReadError.
    """
    if not files:
        raise ValueError("a slide consists of at least one file")
    sizes = {}
    for path in files:
        try:
            sizes[path] = path.stat().st_size
        except OSError as error:
            raise SlideReadError(path, f"the file cannot be read: {error.strerror or error}") from error
    total = sum(sizes.values())
    whole = total <= WHOLE_UP_TO_BYTES
    digests = sorted(_digest(path, size, whole) for path, size in sizes.items())
    sha256 = digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
    return SlideIdentity(sha256, "sha256" if whole else "sha256-sampled", total)


def _digest(path: Path, size: int, whole: bool) -> str:
    try:
        with path.open("rb") as file:
            if whole or size <= 2 * EDGE_BYTES + BLOCKS * BLOCK_BYTES:
                return hashlib.file_digest(file, "sha256").hexdigest()
            return _sampled(file, size)
    except OSError as error:
        raise SlideReadError(path, f"the file cannot be read: {error.strerror or error}") from error


def _sampled(file: BinaryIO, size: int) -> str:
    digest = hashlib.sha256(f"{size}\n".encode())
    digest.update(file.read(EDGE_BYTES))
    inner = size - 2 * EDGE_BYTES - BLOCK_BYTES
    for index in range(BLOCKS):
        file.seek(EDGE_BYTES + inner * index // (BLOCKS - 1))
        digest.update(file.read(BLOCK_BYTES))
    file.seek(size - EDGE_BYTES)
    digest.update(file.read(EDGE_BYTES))
    return digest.hexdigest()
