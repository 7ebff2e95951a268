"""How far a figure may move with other cases: percentile bootstrap over independent units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Interval", "bootstrap"]


@dataclass(frozen=True)
class Interval:
    """A value with the bounds of its interval."""

    value: float
    low: float
    high: float


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
    fields rather than tiles). ``strata`` (units,) keeps the number of units of each stratum. Reproducible for
    a ``seed``. Raises ValueError without units.
    """
    if units < 1:
        raise ValueError("a bootstrap needs at least one unit")
    rng = np.random.default_rng(seed)
    groups = (
        [np.arange(units)]
        if strata is None
        else [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    )
    drawn = [
        statistic(np.concatenate([group[rng.integers(group.size, size=group.size)] for group in groups]))
        for _ in range(repeats)
    ]
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Interval(float(statistic(np.arange(units))), float(low), float(high))
