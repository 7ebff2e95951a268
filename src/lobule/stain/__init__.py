"""Stain as numbers: optical density, separation of stains, normalization. NumPy alone."""

from lobule.stain.density import haematoxylin, optical_density, separate
from lobule.stain.normalize import macenko, reinhard, reinhard_statistics

__all__ = ["haematoxylin", "macenko", "optical_density", "reinhard", "reinhard_statistics", "separate"]
