"""Makes timm and onnx2torch importable whichever torch and torchvision builds lie side by side.

Both import torchvision, and a CUDA build of torchvision beside a CPU build of torch fails on import because
its compiled operators cannot be loaded while its Python half registers shapes for them ("operator
torchvision::nms does not exist"). Declaring the two operators that it names is enough: lobule calls neither.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

from lobule.errors import MissingDependencyError

__all__ = ["import_beside_torch", "import_timm", "import_torch"]

_TOWER = "training, scoring or exporting a network"
"""What the training tower is asked for; it needs torch for each."""
_DECLARED: list[Any] = []
"""Keeps the library fragment alive: its declarations vanish with it."""


def import_torch(extra: str = "train", purpose: str = _TOWER) -> ModuleType:
    """Returns torch. Raises MissingDependencyError, for ``purpose`` and naming ``extra``, when it is not installed."""
    try:
        return import_module("torch")
    except ImportError as error:
        raise MissingDependencyError("torch", extra, purpose) from error


def import_timm() -> ModuleType:
    """Returns timm. Raises MissingDependencyError when timm, torchvision or torch is not installed."""
    return import_beside_torch("timm", "train", _TOWER)


def import_beside_torch(name: str, extra: str, purpose: str) -> ModuleType:
    """Returns a package that needs torchvision, with torchvision importable beside any torch.

    Raises MissingDependencyError, for ``purpose`` and naming ``extra``, when one of them is not installed.
    """
    torch = import_torch(extra, purpose)
    try:
        import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        _declare_operators(torch)
        try:
            import_module("torchvision")
        except (ImportError, RuntimeError) as second:
            raise MissingDependencyError("a torchvision that fits this torch", extra, purpose) from second
    except ImportError as error:
        raise MissingDependencyError("torchvision", extra, purpose) from error
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingDependencyError(name, extra, purpose) from error


def _declare_operators(torch: ModuleType) -> None:
    if _DECLARED:
        return
    fragment = torch.library.Library("torchvision", "FRAGMENT")
    fragment.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    fragment.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _DECLARED.append(fragment)
