"""What the report shows beside the numbers of the findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lobule.findings.maps import ScalarMap, TumorRegion
from lobule.findings.nuclei import Nuclei
from lobule.geometry import Box, WorkingFrame
from lobule.models.card import Card

__all__ = ["Areas", "Evidence", "GalleryNucleus", "GalleryRow", "NucleiSample"]


@dataclass(frozen=True, eq=False)
class NucleiSample:
    """A place on the slide with the nuclei found there.

    ``image`` (h, w, 3) uint8 RGB shows the level-0 pixels of ``box``; ``nuclei`` may reach past it.
    """

    image: NDArray[np.uint8]
    box: Box
    nuclei: Nuclei


@dataclass(frozen=True, eq=False)
class Areas:
    """Areas (N,) in µm² of the nuclei of ``place``."""

    place: str
    area_um2: NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class GalleryNucleus:
    """One nucleus: ``image`` (h, w, 3) uint8 shows the level-0 pixels of ``box``; ``outline_px`` (n, 2) lies in them.

    ``value`` is what it is shown for, with its unit.
    """

    image: NDArray[np.uint8]
    box: Box
    outline_px: NDArray[np.floating]
    value: str


@dataclass(frozen=True, eq=False)
class GalleryRow:
    """Nuclei that have one thing in common, which ``title`` says."""

    title: str
    nuclei: Sequence[GalleryNucleus]


@dataclass(frozen=True, eq=False)
class Evidence:
    """Pictures, maps and cards behind the findings of one slide.

    ``overview`` (H, W, 3) uint8 RGB is the whole slide in ``frame``; the masks ``tissue``, ``pen`` and
    ``fold`` (H, W) bool lie in the same frame. ``heatmap`` and ``refined`` are tumor probabilities (NaN where
    nothing was judged), ``blurred`` is 1 for a tile that is out of focus, 0 for a sharp one, NaN where it
    could not be told. ``cards`` are those of the models in use. ``differences`` are lines in plain words on
    how this slide differs from what the models saw. ``areas`` are those of the nuclei looked at and of others
    to compare with; all crops of ``gallery`` have one scale.
    """

    overview: NDArray[np.uint8]
    frame: WorkingFrame
    tissue: NDArray[np.bool_] | None = None
    pen: NDArray[np.bool_] | None = None
    fold: NDArray[np.bool_] | None = None
    heatmap: ScalarMap | None = None
    refined: ScalarMap | None = None
    blurred: ScalarMap | None = None
    regions: Sequence[TumorRegion] = ()
    samples: Sequence[NucleiSample] = ()
    areas: Sequence[Areas] = ()
    gallery: Sequence[GalleryRow] = ()
    cards: Sequence[Card] = ()
    differences: Sequence[str] = ()
