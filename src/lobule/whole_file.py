"""A file appears under its name whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lobule.errors import LobuleError, ResultWriteError

__all__ = ["whole_file"]


def _part_path(path: Path) -> Path:
    """A hidden file beside ``path``, another at each call.

    Two writers of one path must not share it. Processes in containers that share a folder often have the same
    number, so chance names it. A long name is cut: the part's is longer, and 255 bytes are the most.
    """
    return path.with_name(f".{path.name[:40]}.{os.urandom(6).hex()}.part")


def _remove(part: Path) -> None:
    # what is left is hidden; the error that led here matters more
    with contextlib.suppress(OSError):
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Gives a binary stream (readable, seekable) whose content becomes ``path`` when the block ends well.

    The content lies in a hidden part file of the same folder (``.*.part``), is forced to storage and then renamed
    over ``path``. When the block raises, the part is removed and an earlier ``path`` stays as it was. Of several
    that write one path at once, the last to end has it, whole. A killed process leaves at most the part, which
    no later writer looks at; a folder that is lobule's own is swept of them by the run that owns it.

    Raises ResultWriteError for any OSError of writing (full disk, no permission, not a folder); lobule's
    own errors that the block raises pass through.
    """
    part = _part_path(path)
    try:
        with part.open("w+b") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except LobuleError:
        _remove(part)
        raise
    except OSError as error:
        _remove(part)
        why = error.strerror or str(error)
        raise ResultWriteError(
            path, f"cannot be written: {why}; check that its folder exists, is writable and has room"
        ) from error
    except BaseException:
        _remove(part)
        raise
