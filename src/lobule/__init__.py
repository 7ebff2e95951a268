"""lobule: breast-cancer histopathology. A slide goes in, a report comes out.

Importing this package loads nothing heavy: the public names below are fetched when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from lobule.analysis import analyze
    from lobule.slides import open_slide

_HOME = {"analyze": "lobule.analysis", "open_slide": "lobule.slides"}

__all__ = ["__version__", "analyze", "open_slide"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lobule' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
