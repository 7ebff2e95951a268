"""Lets a torchvision that was built for CUDA import beside a torch without it.

Its compiled part does not load then, and the import stops at describing operators that were never defined. Declaring
these is enough: what the rivals use of torchvision is plain Python. Put this folder on PYTHONPATH.
"""

import importlib.abc
import sys


class _DeclareOperators(importlib.abc.MetaPathFinder):
    """Acts once, just before torchvision is looked for; finds nothing itself."""

    def find_spec(self, fullname, path, target=None):
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            import torch

            self.library = torch.library.Library("torchvision", "DEF")
            for name in ("nms", "qnms"):
                self.library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            sys.modules["torch"]._declared_for_torchvision = self.library  # lives as long as torch does
        return


sys.meta_path.insert(0, _DeclareOperators())
