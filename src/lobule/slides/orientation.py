"""How a stored picture stands upright."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["TURNS", "Turn"]

Sample = TypeVar("Sample", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Turn:
    """An Orientation tag (TIFF 6.0): how the stored picture is turned to stand upright."""

    swap: bool
    mirror_x: bool
    mirror_y: bool

    def size(self, stored: tuple[int, int]) -> tuple[int, int]:
        """The upright (width, height) of a stored one, and the other way round."""
        return (stored[1], stored[0]) if self.swap else stored

    def place(
        self, upright: tuple[int, int], origin: tuple[int, int], size: tuple[int, int]
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        """The stored origin and size of an upright region."""
        x = upright[0] - origin[0] - size[0] if self.mirror_x else origin[0]
        y = upright[1] - origin[1] - size[1] if self.mirror_y else origin[1]
        return ((y, x), (size[1], size[0])) if self.swap else ((x, y), size)

    def apply(self, stored: NDArray[Sample]) -> NDArray[Sample]:
        """The upright picture, (rows, columns, …)."""
        turned = stored.swapaxes(0, 1) if self.swap else stored
        if self.mirror_x:
            turned = turned[:, ::-1]
        return turned[::-1] if self.mirror_y else turned


TURNS = {
    1: Turn(False, False, False),
    2: Turn(False, True, False),
    3: Turn(False, True, True),
    4: Turn(False, False, True),
    5: Turn(True, False, False),
    6: Turn(True, True, False),
    7: Turn(True, True, True),
    8: Turn(True, False, True),
}
"""By the tag's number; any other stands upright."""
