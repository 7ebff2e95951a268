"""Nuclei by the column: a million of them fit in memory, a tile's worth travels as one blob."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

__all__ = ["MEASURES", "Nuclei"]

MEASURES: dict[str, tuple[str, str]] = {
    "area_um2": ("Area", "µm²"),
    "perimeter_um": ("Perimeter", "µm"),
    "equivalent_diameter_um": ("Equivalent diameter", "µm"),
    "major_axis_um": ("Major axis", "µm"),
    "minor_axis_um": ("Minor axis", "µm"),
    "eccentricity": ("Eccentricity", ""),
    "solidity": ("Solidity", ""),
    "circularity": ("Circularity", ""),
    "orientation_deg": ("Orientation", "°"),
    "haematoxylin_od_mean": ("Haematoxylin OD mean", ""),
    "haematoxylin_od_sd": ("Haematoxylin OD SD", ""),
    "probability": ("Probability", ""),
}
"""Column → (label, unit); the order of columns in every export."""


@dataclass(frozen=True, eq=False)
class Nuclei:
    """N nuclei with M outline vertices in all, in level-0 px.

    ``centroid_px`` (N, 2) float64 (x, y); ``vertices_px`` (M, 2) float32 (x, y), nucleus k's closed outline
    being ``vertices_px[starts[k]:starts[k + 1]]`` (first point not repeated); ``starts`` (N + 1,) int64;
    ``measures`` (N, len(MEASURES)) float32.
    """

    centroid_px: NDArray[np.float64]
    starts: NDArray[np.int64]
    vertices_px: NDArray[np.float32]
    measures: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.centroid_px)

    def outline_px(self, index: int) -> NDArray[np.float32]:
        """The outline of one nucleus, (n, 2) (x, y), not closed."""
        return self.vertices_px[self.starts[index] : self.starts[index + 1]]

    def measure(self, name: str) -> NDArray[np.float32]:
        """One column, (N,)."""
        column: NDArray[np.float32] = self.measures[:, list(MEASURES).index(name)]
        return column

    @staticmethod
    def none() -> Nuclei:
        """No nuclei."""
        return Nuclei(
            np.zeros((0, 2)),
            np.zeros(1, np.int64),
            np.zeros((0, 2), np.float32),
            np.zeros((0, len(MEASURES)), np.float32),
        )

    @staticmethod
    def joined(parts: Iterable[Nuclei]) -> Nuclei:
        """All nuclei of the parts, in order."""
        kept = [part for part in parts if len(part)]
        if not kept:
            return Nuclei.none()
        lengths = np.concatenate([np.diff(part.starts) for part in kept])
        return Nuclei(
            np.concatenate([part.centroid_px for part in kept]),
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            np.concatenate([part.vertices_px for part in kept]),
            np.concatenate([part.measures for part in kept]),
        )

    def to_bytes(self) -> bytes:
        """A portable blob (NumPy's npy records; no pickle)."""
        blob = io.BytesIO()
        for column in fields(self):
            np.save(blob, getattr(self, column.name), allow_pickle=False)
        return blob.getvalue()

    @staticmethod
    def from_bytes(blob: bytes) -> Nuclei:
        """The inverse of `to_bytes`."""
        stream = io.BytesIO(blob)
        return Nuclei(*(np.load(stream, allow_pickle=False) for _ in fields(Nuclei)))
