"""The contract of a slide: level pixels and typed properties, nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from lobule.errors import SlideReadError
from lobule.geometry import Box, Mpp

__all__ = ["Level", "MppSource", "RgbImage", "Slide", "SlideProperties", "listed"]

RgbImage = NDArray[np.uint8]
"""(height, width, 3) uint8 RGB."""

MppSource = Literal["file", "resolution-tag", "option", "csv"]


def listed(folder: Path) -> list[Path]:
    """What lies in the folder, by name. Raises SlideReadError."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise SlideReadError(folder, f"this folder cannot be read: {error.strerror or error}") from error


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution of a slide. ``downsample`` is level-0 pixels per pixel of this level, (x, y).

    Pixel (i, j) of the level covers level-0 ``[i·dx, (i+1)·dx) × [j·dy, (j+1)·dy)``.
    """

    size: tuple[int, int]
    downsample: tuple[float, float]
    tile_size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class SlideProperties:
    """What a slide says of itself. ``mpp`` None: nothing believable (``mpp_problem`` says why).

    ``bounds``: the scanned part in level-0 pixels, where the format states one (OpenSlide's bounds).
    ``background``: RGB that fills what was not scanned and what lies outside.
    ``warnings``: what the reader noticed and a user can act on, one line each.
    """

    format: str
    reader: str
    mpp: Mpp | None
    mpp_source: MppSource | None
    mpp_problem: str | None = None
    objective_power: float | None = None
    bounds: Box | None = None
    background: tuple[int, int, int] = (255, 255, 255)
    icc_profile: bytes | None = None
    warnings: tuple[str, ...] = ()
    raw: Mapping[str, str] = field(default_factory=dict)


class Slide(ABC):
    """A pyramid of RGB levels. Readers deliver level pixels only; `lobule.slides.region` does the scale.

    A slide is a context manager. It is not pickled: workers reopen it.
    """

    path: Path | None
    properties: SlideProperties
    levels: tuple[Level, ...]
    thread_safe: bool
    """Whether `read_level` may run in several threads at once on this object."""

    @property
    def size(self) -> tuple[int, int]:
        """Level-0 (width, height)."""
        return self.levels[0].size

    @property
    def seconds_in_file(self) -> float:
        """Seconds spent in reading the file so far, over all threads; 0 where a library does not tell."""
        return 0.0

    @property
    def held_bytes(self) -> int:
        """Pixels that the open slide keeps in memory, in bytes; 0 where they are read when they are asked for."""
        return 0

    @abstractmethod
    def read_level(self, level: int, origin: tuple[int, int], size: tuple[int, int]) -> RgbImage:
        """The pixels of ``level`` from ``origin`` (x, y) **in its own pixels**, ``size`` (width, height).

        Any rectangle may be asked: what lies outside the level is filled with the background color.
        Returns a new (height, width, 3) uint8 array. Raises SlideReadError.
        """

    def read_means(
        self, level: int, first: tuple[int, int], size: tuple[int, int], factor: tuple[int, int]
    ) -> RgbImage | None:
        """Means of blocks of ``factor`` (x, y) pixels of ``level``, rounded half up, or None.

        Block (i, j) begins at the level's pixel (i·fx, j·fy); blocks ``first`` to ``first + size`` are
        returned as a new (height, width, 3) uint8 array, anywhere as in `read_level`. None: this reader does
        not do it faster than whoever averages what `read_level` gives. Raises SlideReadError.
        """
        return None

    def associated_images(self) -> tuple[str, ...]:
        """Names of the label, macro, thumbnail … images."""
        return ()

    def read_associated(self, name: str) -> RgbImage:
        """One associated image, (height, width, 3) uint8. Raises KeyError for an unknown name."""
        raise KeyError(name)

    def files(self) -> tuple[Path, ...]:
        """Every file that the slide consists of, the named one first."""
        return () if self.path is None else (self.path,)

    @abstractmethod
    def close(self) -> None:
        """Frees the file; reading afterwards raises SlideReadError."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
