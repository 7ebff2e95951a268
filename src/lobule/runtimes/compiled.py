"""Compiled networks on disk: from its second run on, a command need not compile what it compiled before.

Compiling takes 0.1 to 0.4 s a network, loading a third to a sixth of it. A file is named by everything that made
it, holds its own digest, and is made anew wherever it is missing, damaged or another OpenVINO's. So the folder may
be emptied at any time, and where it cannot be written nothing but the time is lost.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from collections.abc import Mapping
from pathlib import Path

from lobule.errors import ResultWriteError
from lobule.whole_file import whole_file

__all__ = ["compiled_folder", "keep_compiled", "kept_compiled", "key_of"]

_MOST_FILES = 48
"""About 200 MB of the largest networks that ship; of more, those go that were not used for longest."""
_DIGEST_BYTES = hashlib.sha256().digest_size


def compiled_folder() -> Path:
    """``$LOBULE_CACHE``, else ``lobule`` in the user's cache folder."""
    if own := os.environ.get("LOBULE_CACHE"):
        return Path(own)
    if platform.system() == "Windows" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "lobule" / "cache"
    if platform.system() == "Darwin":
        return Path.home() / "Library" / "Caches" / "lobule"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lobule"


def key_of(path: Path, made_from: Mapping[str, object]) -> str:
    """The name of what is compiled from the file at ``path`` and the named circumstances. Raises OSError."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    for name, value in sorted(made_from.items()):
        digest.update(f"\0{name}={value}".encode())
    return digest.hexdigest()


def kept_compiled(key: str) -> bytes | None:
    """What was kept under that name; None where there is none or it is damaged."""
    path = _path(key)
    try:
        content = path.read_bytes()
        os.utime(path)
    except OSError:
        return None
    digest, blob = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return blob if hashlib.sha256(blob).digest() == digest else None


def keep_compiled(key: str, blob: bytes) -> None:
    """Keeps it for the next run, where the folder can be written."""
    path = _path(key)
    with contextlib.suppress(OSError, ResultWriteError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as stream:
            stream.write(hashlib.sha256(blob).digest() + blob)
        files = sorted(path.parent.glob("*.network"), key=lambda file: file.stat().st_mtime)
        for old in files[:-_MOST_FILES]:
            old.unlink(missing_ok=True)


def _path(key: str) -> Path:
    return compiled_folder() / f"{key}.network"
