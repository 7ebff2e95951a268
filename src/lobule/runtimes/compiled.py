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
import time
from collections.abc import Mapping
from pathlib import Path

from lobule.errors import ResultWriteError
from lobule.whole_file import whole_file

__all__ = ["compiled_folder", "keep_compiled", "kept_compiled", "key_of"]

_MOST_FILES = 48
"""About 200 MB of the largest networks that ship; of more, those go that were not used for longest."""
_STALE_SECONDS = 3600
"""No network takes as long to write: a part file of that age is one that a killed process left."""
_DIGEST_BYTES = hashlib.sha256().digest_size


def compiled_folder() -> Path | None:
    """``$LOBULE_CACHE``, else ``lobule`` in the user's cache folder; None for a user without a home folder.

    Containers often run as a user that has none; nothing is kept then.
    """
    if own := os.environ.get("LOBULE_CACHE"):
        return Path(own)
    if platform.system() == "Windows" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "lobule" / "cache"
    if platform.system() != "Darwin" and (caches := os.environ.get("XDG_CACHE_HOME")):
        return Path(caches) / "lobule"
    try:
        home = Path.home()
    except RuntimeError:
        return None
    caches_at_home = Path("Library", "Caches") if platform.system() == "Darwin" else Path(".cache")
    return home / caches_at_home / "lobule"


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
    if path is None:
        return None
    try:
        content = path.read_bytes()
    except OSError:
        return None
    # a folder that was filled for others to read alone is of use all the same
    with contextlib.suppress(OSError):
        os.utime(path)
    digest, blob = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return blob if hashlib.sha256(blob).digest() == digest else None


def keep_compiled(key: str, blob: bytes) -> None:
    """Keeps it for the next run, where the folder can be written."""
    path = _path(key)
    if path is None:
        return
    with contextlib.suppress(OSError, ResultWriteError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as stream:
            stream.write(hashlib.sha256(blob).digest() + blob)
        files = sorted(path.parent.glob("*.network"), key=lambda file: file.stat().st_mtime)
        for old in files[:-_MOST_FILES]:
            old.unlink(missing_ok=True)
        for part in path.parent.glob(".*.part"):
            if time.time() - part.stat().st_mtime > _STALE_SECONDS:
                part.unlink(missing_ok=True)


def _path(key: str) -> Path | None:
    folder = compiled_folder()
    return None if folder is None else folder / f"{key}.network"
