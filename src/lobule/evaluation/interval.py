"""How far a figure may move with other cases: percentile bootstrap over independent units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEAST_UNITS", "Interval", "bootstrap"]

LEAST_UNITS = 5
"""Of fewer units an interval by bootstrap says nothing: one gives it no width, two are its bounds."""


@dataclass(frozen=True)
class Interval:
    """A value with the bounds of its interval, None where there are too few units for one."""

    value: float
    low: float | None
    high: float | None


def bootstrap(
    statistic: Callable[[NDArray[np.intp]], float],
    units: int,
    *,
    strata: NDArray[np.integer] | None = None,
    repeats: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Returns ``statistic`` of all units with its percentile interval over resampled units.

    ``statistic`` takes the indices of the units drawn. Units must be independent of each other (patients or
    fields rather than tiles). ``strata`` (units,) keeps the number of units of each stratum. No interval where
    there are fewer than LEAST_UNITS, in any stratum. Reproducible for a ``seed``. Raises ValueError without units.
    """
    if units < 1:
        raise ValueError("a bootstrap needs at least one unit")
    value = float(statistic(np.arange(units)))
    groups = (
        [np.arange(units)]
        if strata is None
        else [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    )
    if min(group.size for group in groups) < LEAST_UNITS:
        return Interval(value, None, None)
    rng = np.random.default_rng(seed)
    drawn = [
        statistic(np.concatenate([group[rng.integers(group.size, size=group.size)] for group in groups]))
        for _ in range(repeats)
    ]
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Interval(value, float(low), float(high))
