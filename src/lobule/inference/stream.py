"""Work over tiles on all cores, delivered in order, with bounded memory.

Each worker takes one tile through reading, preparing, inference and decoding. Workers run side by side, so
one tile's reading overlaps another's inference; every heavy step (decompression, resampling, the network)
runs outside Python's lock.

Memory bound
------------
At most ``window = 2 · workers`` tiles exist between being started and being handed to the caller, finished
ones that wait for their turn included: ``memory ≤ window · (pixels + outputs of one tile)``, whatever the
number of tiles. The caller must not keep what it is handed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["in_order", "window_tiles"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def window_tiles(workers: int) -> int:
    """How many tiles may be alive at once."""
    return 2 * workers


def in_order(
    items: Iterable[Item], work: Callable[[Item], Result], *, workers: int
) -> Iterator[tuple[Item, Result]]:
    """(item, work(item)) in the order of ``items``, whatever finishes first.

    An exception of ``work`` is raised at its item's turn; tiles not yet started are then dropped.
    """
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    window = window_tiles(workers)
    with ThreadPoolExecutor(workers, thread_name_prefix="lobule-tile") as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(work, item)))
                if len(waiting) >= window:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
