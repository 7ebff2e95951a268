"""How well predicted classes and scores agree with the truth."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["accuracy", "auc", "balanced_accuracy"]


def accuracy(truth: NDArray[np.integer], predicted: NDArray[np.integer]) -> float:
    """Returns the share of equal labels. Raises ValueError where there is none or the lengths differ."""
    truth, predicted = _checked(truth, predicted)
    return float((truth == predicted).mean())


def balanced_accuracy(truth: NDArray[np.integer], predicted: NDArray[np.integer]) -> float:
    """Returns the mean over the classes in ``truth`` of the share of each that is predicted rightly."""
    truth, predicted = _checked(truth, predicted)
    return float(np.mean([(predicted[truth == label] == label).mean() for label in np.unique(truth)]))


def auc(truth: NDArray[np.integer], score: NDArray[np.floating]) -> float:
    """Returns the area under the ROC curve: the chance that a positive scores above a negative, ties half.

    ``truth`` is 1 for positives and 0 for negatives. By ranks (Mann-Whitney). Raises ValueError where one of
    the two is absent or a score is no number, which has no rank.
    """
    truth, score = _checked(truth, score)
    if np.isnan(score).any():
        raise ValueError("a score is no number (NaN)")
    positive = truth == 1
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        raise ValueError("the area under the curve needs positives and negatives")
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    rank = (last - (counts - 1) / 2.0)[inverse]
    above = rank[positive].sum() - n_positive * (n_positive + 1) / 2
    return float(above / (n_positive * n_negative))


def _checked(truth: NDArray[Any], other: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    truth, other = np.asarray(truth), np.asarray(other)
    if truth.ndim != 1 or truth.shape != other.shape or not truth.size:
        raise ValueError(f"two equally long lists are needed, not shapes {truth.shape} and {other.shape}")
    return truth, other
