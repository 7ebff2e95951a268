"""The stream: in order, bounded, and an error comes at its own turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from lobule.inference.stream import in_order, window_tiles


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_order_whatever_finishes_first(workers: int) -> None:
    def work(item: int) -> int:
        time.sleep(0.003 * (item % 3))
        return item * item

    assert list(in_order(range(40), work, workers=workers)) == [(n, n * n) for n in range(40)]


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_tiles_are_alive_than_the_window(workers: int) -> None:
    lock, started, delivered, most = threading.Lock(), [0], [0], [0]

    def items() -> Iterator[int]:
        for number in range(60):
            with lock:
                started[0] += 1
                most[0] = max(most[0], started[0] - delivered[0])
            yield number

    for _ in in_order(items(), lambda item: item, workers=workers):
        with lock:
            delivered[0] += 1
    assert most[0] <= window_tiles(workers) + 1


def test_an_error_is_raised_at_its_turn_and_stops_the_rest() -> None:
    begun = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 5:
            raise ValueError("tile 5")
        return item

    seen = []
    with pytest.raises(ValueError, match="tile 5"):
        for item, _ in in_order(range(1000), work, workers=2):
            seen.append(item)
    assert seen == [0, 1, 2, 3, 4]
    assert len(begun) < 20
