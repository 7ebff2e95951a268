"""Where tissue is, and what is wrong with it: masks, artifacts, kind of stain, focus.

Everything here takes arrays and their mpp, never slides, and needs no SciPy.
"""

from lobule.tissue.artifacts import find_folds, find_pen, find_unscanned
from lobule.tissue.color import saturation_value
from lobule.tissue.focus import SHARP_FROM, sharpness
from lobule.tissue.mask import Tissue, TissueMethod, TissueWarning, find_tissue
from lobule.tissue.stain_kind import StainJudgement, StainKind, judge_stain

__all__ = [
    "SHARP_FROM",
    "StainJudgement",
    "StainKind",
    "Tissue",
    "TissueMethod",
    "TissueWarning",
    "find_folds",
    "find_pen",
    "find_tissue",
    "find_unscanned",
    "judge_stain",
    "saturation_value",
    "sharpness",
]
