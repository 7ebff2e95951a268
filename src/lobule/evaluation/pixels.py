"""How well two masks agree.

Where a ratio is 0 / 0 because there is nothing to find and nothing was found, it is 1: perfect agreement.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["MaskCounts", "count_mask", "dice", "jaccard"]


@dataclass(frozen=True)
class MaskCounts:
    """Pixels by truth and prediction. Counts of several images add up, for pooled figures."""

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int

    def __add__(self, other: MaskCounts) -> MaskCounts:
        return MaskCounts(
            self.true_positive + other.true_positive,
            self.false_positive + other.false_positive,
            self.false_negative + other.false_negative,
            self.true_negative + other.true_negative,
        )

    @property
    def precision(self) -> float:
        """Share of what was found that is there; 1 where nothing was found."""
        return _ratio(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> float:
        """Share of what is there that was found; 1 where nothing is there."""
        return _ratio(self.true_positive, self.true_positive + self.false_negative)

    @property
    def dice(self) -> float:
        """Twice the overlap over the sum of both areas (also called F1 or DSC)."""
        wrong = self.false_positive + self.false_negative
        return _ratio(2 * self.true_positive, 2 * self.true_positive + wrong)

    @property
    def jaccard(self) -> float:
        """Overlap over union (IoU)."""
        return _ratio(self.true_positive, self.true_positive + self.false_positive + self.false_negative)

    @property
    def accuracy(self) -> float:
        """Share of pixels that are right; 1 for an image without pixels."""
        total = self.true_positive + self.false_positive + self.false_negative + self.true_negative
        return _ratio(self.true_positive + self.true_negative, total)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def count_mask(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> MaskCounts:
    """Returns the counts of two boolean masks of one shape. Raises ValueError where the shapes differ."""
    if truth.shape != predicted.shape:
        raise ValueError(f"the masks differ in shape: {truth.shape} and {predicted.shape}")
    both = int(np.count_nonzero(truth & predicted))
    there, found = int(np.count_nonzero(truth)), int(np.count_nonzero(predicted))
    return MaskCounts(both, found - both, there - both, truth.size - there - found + both)


def dice(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> float:
    """Returns the Dice coefficient of two boolean masks; 1 where both are empty."""
    return count_mask(truth, predicted).dice


def jaccard(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> float:
    """Returns the Jaccard index of two boolean masks; 1 where both are empty."""
    return count_mask(truth, predicted).jaccard
