"""Where tissue is, and what is wrong with it: masks, pen, folds, unscanned parts.

Everything here takes arrays and their mpp, never slides. scipy is imported on use.
"""

from lobule.tissue.artifacts import find_folds, find_pen, find_unscanned
from lobule.tissue.mask import Tissue, TissueMethod, find_tissue

__all__ = [
    "Tissue",
    "TissueMethod",
    "find_folds",
    "find_pen",
    "find_tissue",
    "find_unscanned",
]
