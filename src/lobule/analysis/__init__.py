"""One slide from pixels to files, and many slides with resume and locks.

The public names are fetched when first used, so that networks can begin to load before the rest is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lobule.analysis.options import Options
    from lobule.analysis.single import Result, analyze

_HOME = {
    "Options": "lobule.analysis.options",
    "Result": "lobule.analysis.single",
    "analyze": "lobule.analysis.single",
}

__all__ = ["Options", "Result", "analyze"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lobule.analysis' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
