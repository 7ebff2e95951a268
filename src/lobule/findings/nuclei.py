"""Nuclei by the column: a million of them fit in memory, a tile's worth travels as one blob."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["MEASURES", "Nuclei"]

_MAGIC = b"NUC1"

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
    "chromatin_contrast": ("Chromatin contrast", ""),
    "chromatin_entropy_bits": ("Chromatin entropy", "bit"),
    "nearest_distance_um": ("Nearest nucleus", "µm"),
    "touches_border": ("Touches border", ""),
    "probability": ("Probability", ""),
}
"""Column → (label, unit); the order of columns in every export.

``nearest_distance_um``: from center to center; NaN while only a part of the slide is known, and where a nucleus that
was not looked for may be nearer. ``touches_border``: 1 for a nucleus that reaches over the edge of the region that was
looked at, of the slide, or of what the network saw of it at once; else 0.
"""


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
        """A portable blob: `_MAGIC`, N, M and number of measures (uint32), then centroids, each outline's number
        of vertices (uint32), vertices and measures by column, all little-endian."""
        head = np.array([len(self), len(self.vertices_px), self.measures.shape[1]], "<u4")
        columns = (
            head,
            self.centroid_px.astype("<f8", copy=False),
            np.diff(self.starts).astype("<u4"),
            self.vertices_px.T.astype("<f4", copy=False),
            self.measures.T.astype("<f4", copy=False),
        )
        return b"".join([_MAGIC, *(column.tobytes() for column in columns)])

    @staticmethod
    def from_bytes(blob: bytes) -> Nuclei:
        """The inverse of `to_bytes`; ValueError for what is no such blob."""
        if blob[:4] != _MAGIC:
            raise ValueError("these bytes are not nuclei as lobule writes them")
        count, vertices, width = np.frombuffer(blob, "<u4", 3, 4).tolist()
        lengths_at = 16 + 16 * count
        vertices_at = lengths_at + 4 * count
        measures_at = vertices_at + 8 * vertices
        if len(blob) != measures_at + 4 * width * count:
            raise ValueError("these bytes are a part of some nuclei only")
        starts = np.zeros(count + 1, np.int64)
        np.cumsum(np.frombuffer(blob, "<u4", count, lengths_at), out=starts[1:])
        points = np.frombuffer(blob, "<f4", 2 * vertices, vertices_at).reshape(2, vertices)
        measures = np.frombuffer(blob, "<f4", width * count, measures_at).reshape(width, count)
        return Nuclei(
            np.frombuffer(blob, "<f8", 2 * count, 16).reshape(count, 2).astype(np.float64),
            starts,
            np.ascontiguousarray(points.T, np.float32),
            np.ascontiguousarray(measures.T, np.float32),
        )
