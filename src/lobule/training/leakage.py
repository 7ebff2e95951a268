"""Whether what tests a model also trains it: the same patient, or the same pixels, in two parts.

The same pixels are found also under the eight symmetries of a square, compressed anew, or as crops that overlap: in
every image, points are marked that the image's content alone decides (extremes of its smoothed brightness). Around
each, the means of 9 × 9 cells of 5 × 5 px are a descriptor; its values sorted within each orbit of the square's
symmetries are the same however the image was turned, and differ no more between two images than the descriptors do.
Points of two parts whose sorted descriptors lie close (k-d tree) suggest how one image would lie on the other, and
the correlation of all pixels that they would share decides. So the work grows with the number of points, not with
that of pairs of images; a shared area of 128 × 128 px holds about ten points, of which one must be found again.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from lobule.errors import LeakageError
from lobule.training.nuclei_sets import NucleiField

__all__ = ["LEAST_SHARED_PX", "SharedPixels", "check_leakage", "shared_patients", "shared_pixels"]

LEAST_SHARED_PX = 128
"""Side of the smallest common area that is looked for."""

_CELL_PX = 5
_CELLS = 9
_REACH_PX = _CELL_PX * (_CELLS // 2)
_MARGIN_PX = _REACH_PX + _CELL_PX // 2 + 1
_SMOOTH_PX = 7
_APART_PX = 17
"""A point is the extreme of a window of this side."""
_LEAST_CONTRAST = 3.0
"""Standard deviation of a descriptor, in gray levels, below which it says nothing."""
_NEAREST = 3
_AXES = 6
"""Principal axes of the sorted descriptors that the tree is built on."""
_RADIUS = 0.2
"""Largest distance, on those axes, of descriptors of unit length that may be the same place."""
_LEAST_DESCRIPTOR = 0.96
_COARSE_PX, _FINE_PX = 31, 7
"""Brightness less its mean over windows of these sides: the coarse finds a placement, the fine decides."""
_WORTH_A_LOOK = 0.25
_LEAST_CORRELATION = 0.8
"""Of what is finer than 7 px. JPEG at quality 60 keeps 0.85 of it; a straight border laid along itself has 0.78."""
_LEAST_REPORTED_PX = 64
_JITTER_PX = 2
_MOST_LOOKED_AT = 48
_MOST_TRIED = 4
"""Placements of one image on another: how many are looked at, and how many of these moved to and fro."""
_SURE = 0.9
_LISTED = 5

Gray = NDArray[np.float32]
_Placement = tuple[int, int, int]
"""One image on another: its symmetry, then the row and column of its origin."""


@dataclass(frozen=True)
class SharedPixels:
    """Two images that hold the same pixels: their names, the common area's size and how well it correlates."""

    first: str
    second: str
    width_px: int
    height_px: int
    correlation: float


@dataclass(frozen=True, eq=False)
class _Points:
    """Marked points of one image: ``at`` (P, 2) row and column, descriptors (P, 81) of unit length, sorted ones."""

    at: NDArray[np.int64]
    cells: Gray
    orbits: Gray


def check_leakage(blocks: Mapping[str, Sequence[NucleiField]], *, patients_apart: bool = True) -> None:
    """Raises LeakageError where a patient (unless not ``patients_apart``) or the same pixels lie in two blocks.

    The same pixels: an image again, turned or flipped, compressed anew, or a common area of 128 × 128 px or more at
    the same scale. Images of one color alone are no one's and not looked at.
    """
    found = []
    if patients_apart:
        found += [
            f"patient {patient} is in {' and '.join(names)}"
            for patient, names in shared_patients(blocks).items()
        ]
    found += [
        f"{one.first} ({first}) and {one.second} ({second}) share {one.width_px} × {one.height_px} px"
        for first, second, one in shared_pixels(blocks)
    ]
    if found:
        rest = len(found) - _LISTED
        more = f"; and {rest} more" if rest > 0 else ""
        raise LeakageError(
            f"the parts are not apart: {'; '.join(found[:_LISTED])}{more}; put what belongs together into one part",
            found,
        )


def shared_patients(blocks: Mapping[str, Sequence[NucleiField]]) -> dict[str, list[str]]:
    """Patients that lie in more than one block, sorted, and the blocks' names."""
    owners: defaultdict[str, list[str]] = defaultdict(list)
    spelled: dict[str, str] = {}
    for name, fields in blocks.items():
        # sets may spell a patient's name in other letters, large or small
        own = {field.patient.casefold(): field.patient for field in fields}
        for patient in own:
            owners[patient].append(name)
        spelled |= own
    return {
        spelled[patient]: owners[patient]
        for patient in sorted(owners, key=spelled.__getitem__)
        if len(owners[patient]) > 1
    }


def shared_pixels(blocks: Mapping[str, Sequence[NucleiField]]) -> list[tuple[str, str, SharedPixels]]:
    """Pairs of images of different blocks that hold the same pixels: (block, block, what they share)."""
    names: list[str] = []
    fields: list[NucleiField] = []
    for name, own in blocks.items():
        names += [name] * len(own)
        fields += own
    found: dict[tuple[int, int], SharedPixels] = {}
    for one, other in _identical(names, fields):
        height, width = fields[one].instances.shape
        found[one, other] = SharedPixels(fields[one].name, fields[other].name, width, height, 1.0)
    grays = [_gray(field.pixels) for field in fields]
    points = [_points(gray) for gray in grays]
    structure: dict[int, tuple[Gray, Gray]] = {}
    for (one, other), suggested in _suggestions(names, [gray.shape for gray in grays], points).items():
        if (one, other) in found:
            continue
        for k in (one, other):
            if k not in structure:
                structure[k] = _less_mean(grays[k], _COARSE_PX), _less_mean(grays[k], _FINE_PX)
        best = _best_placement(structure[one], structure[other], suggested)
        if best is not None:
            found[one, other] = SharedPixels(fields[one].name, fields[other].name, *best)
    return [(names[one], names[other], found[one, other]) for one, other in sorted(found)]


def _gray(pixels: NDArray[np.uint8]) -> Gray:
    from PIL import Image

    gray: Gray = np.asarray(Image.fromarray(pixels).convert("L")).astype(np.float32)
    return gray


def _orbits() -> list[NDArray[np.int64]]:
    """Groups of the 9 × 9 cells that the symmetries of a square carry into each other."""
    half = _CELLS // 2
    groups: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for row in range(_CELLS):
        for column in range(_CELLS):
            near, far = sorted((abs(row - half), abs(column - half)))
            groups[near, far].append(row * _CELLS + column)
    return [np.array(group) for group in groups.values()]


_ORBITS = _orbits()
_GRID = np.arange(_CELLS * _CELLS).reshape(_CELLS, _CELLS)


def _turned(array: NDArray, symmetry: int) -> NDArray:
    """An array under one of the eight symmetries: ``symmetry`` % 4 quarter turns, then a flip from 4 on."""
    turned = np.rot90(array, symmetry % 4)
    return turned[:, ::-1] if symmetry >= 4 else turned


_TURNED_CELLS = np.stack([_turned(_GRID, symmetry).ravel() for symmetry in range(8)])


def _points(gray: Gray) -> _Points:
    from scipy import ndimage

    height, width = gray.shape
    empty = np.zeros((0, _CELLS * _CELLS), np.float32)
    if min(height, width) <= 2 * _MARGIN_PX:
        return _Points(np.zeros((0, 2), np.int64), empty, empty)
    means = ndimage.uniform_filter(gray, _CELL_PX)
    smooth = ndimage.uniform_filter(means, _SMOOTH_PX)
    high = ndimage.maximum_filter(smooth, _APART_PX) == smooth
    low = ndimage.minimum_filter(smooth, _APART_PX) == smooth
    inner = (slice(_MARGIN_PX, height - _MARGIN_PX), slice(_MARGIN_PX, width - _MARGIN_PX))
    at = np.argwhere((high != low)[inner]) + _MARGIN_PX
    step = np.arange(-_REACH_PX, _REACH_PX + 1, _CELL_PX)
    rows = at[:, 0, None, None] + step[:, None]
    columns = at[:, 1, None, None] + step[None, :]
    cells = means[rows, columns].reshape(len(at), _CELLS * _CELLS)
    cells -= cells.mean(axis=1, keepdims=True)
    spread = np.sqrt((cells**2).mean(axis=1))
    telling = spread >= _LEAST_CONTRAST
    cells = cells[telling] / (spread[telling, None] * np.float32(_CELLS))
    orbits = np.concatenate([np.sort(cells[:, group], axis=1) for group in _ORBITS], axis=1)
    return _Points(at[telling], cells, orbits)


def _suggestions(
    names: Sequence[str], shapes: Sequence[tuple[int, int]], points: Sequence[_Points]
) -> dict[tuple[int, int], Counter[_Placement]]:
    """For pairs of images of different blocks: placements of the second on the first, by how many points say so."""
    from scipy.spatial import cKDTree

    out: defaultdict[tuple[int, int], Counter[_Placement]] = defaultdict(Counter)
    if not any(len(one.at) for one in points):
        return out
    owner = np.repeat(np.arange(len(points)), [len(one.at) for one in points])
    orbits = np.concatenate([one.orbits for one in points])
    cells = np.concatenate([one.cells for one in points])
    at = np.concatenate([one.at for one in points])
    orbits -= orbits.mean(axis=0)
    _, axes = np.linalg.eigh(orbits.T @ orbits)
    low = np.ascontiguousarray(orbits @ axes[:, -_AXES:])
    blocks = np.array([sorted(set(names)).index(name) for name in names])[owner]
    for first, second in combinations(range(int(blocks.max()) + 1), 2):
        # the block with fewer points asks
        mine, theirs = sorted((np.flatnonzero(blocks == first), np.flatnonzero(blocks == second)), key=len)
        if not len(mine):
            continue
        _, near = cKDTree(low[theirs]).query(low[mine], _NEAREST, distance_upper_bound=_RADIUS)
        who, rank = np.nonzero(near < len(theirs))
        asking, asked = mine[who], theirs[near[who, rank]]
        # the image that comes first stays, the other is turned onto it
        swap = owner[asking] > owner[asked]
        stays, turns = np.where(swap, asked, asking), np.where(swap, asking, asked)
        for symmetry, turned in enumerate(_TURNED_CELLS):
            alike = np.einsum("ij,ij->i", cells[stays], cells[turns][:, turned]) >= _LEAST_DESCRIPTOR
            for p, q in zip(stays[alike].tolist(), turns[alike].tolist(), strict=True):
                row, column = _carried((int(at[q, 0]), int(at[q, 1])), shapes[owner[q]], symmetry)
                placement = (symmetry, int(at[p, 0]) - row, int(at[p, 1]) - column)
                out[int(owner[p]), int(owner[q])][placement] += 1
    return out


def _carried(at: tuple[int, int], shape: tuple[int, int], symmetry: int) -> tuple[int, int]:
    """Where `_turned` puts the pixel (row, column) of an array of that shape."""
    (row, column), (height, width) = at, shape
    for _ in range(symmetry % 4):
        row, column, height, width = width - 1 - column, row, width, height
    return (row, width - 1 - column) if symmetry >= 4 else (row, column)


def _less_mean(gray: Gray, side_px: int) -> Gray:
    from scipy import ndimage

    less: Gray = gray - ndimage.uniform_filter(gray, side_px)
    return less


def _best_placement(
    first: tuple[Gray, Gray], second: tuple[Gray, Gray], suggested: Counter[_Placement]
) -> tuple[int, int, float] | None:
    """Width, height and correlation of what two images share, each given as its coarse and its fine structure.

    The placements that most points suggest are looked at; None where none correlates enough.
    """
    looks = []
    for symmetry, row, column in sorted(suggested, key=lambda one: (-suggested[one], one))[:_MOST_LOOKED_AT]:
        alike = _correlation(first[0], _turned(second[0], symmetry), row, column, stride=2)
        if alike >= _WORTH_A_LOOK:
            looks.append((alike, symmetry, row, column))
    near = range(-_JITTER_PX, _JITTER_PX + 1)
    best, place = -1.0, (0, 0, 0)
    for _, symmetry, row, column in sorted(looks, reverse=True)[:_MOST_TRIED]:
        turned = _turned(second[1], symmetry)
        for moved in ((symmetry, row + dy, column + dx) for dy in near for dx in near):
            alike = _correlation(first[1], turned, moved[1], moved[2], stride=1)
            if alike > best:
                best, place = alike, moved
        if best >= _SURE:
            break
    if best < _LEAST_CORRELATION:
        return None
    symmetry, row, column = place
    rows, columns = _overlap(first[0].shape, _turned(second[0], symmetry).shape, row, column)
    return columns.stop - columns.start, rows.stop - rows.start, best


def _overlap(first: tuple[int, ...], second: tuple[int, ...], row: int, column: int) -> tuple[slice, slice]:
    """The rows and columns of the first image that the second covers, its origin at (row, column)."""
    top, left = max(0, row), max(0, column)
    bottom, right = min(first[0], row + second[0]), min(first[1], column + second[1])
    return slice(top, max(top, bottom)), slice(left, max(left, right))


def _correlation(first: Gray, second: Gray, row: int, column: int, *, stride: int) -> float:
    """Correlation over the area that both cover, of every ``stride``-th pixel; -1 where it is too small."""
    rows, columns = _overlap(first.shape, second.shape, row, column)
    if min(rows.stop - rows.start, columns.stop - columns.start) < _LEAST_REPORTED_PX:
        return -1.0
    a = first[rows.start : rows.stop : stride, columns.start : columns.stop : stride].ravel()
    b = second[
        rows.start - row : rows.stop - row : stride, columns.start - column : columns.stop - column : stride
    ].ravel()
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else -1.0


def _identical(names: Sequence[str], fields: Sequence[NucleiField]) -> list[tuple[int, int]]:
    """Pairs of images of different blocks that are equal, turned or not; whatever they show, save one color alone."""
    alike: defaultdict[bytes, list[int]] = defaultdict(list)
    for k, field in enumerate(fields):
        counts = [np.bincount(field.pixels[..., band].ravel(), minlength=256) for band in range(3)]
        if all(np.count_nonzero(count) == 1 for count in counts):
            continue
        # a histogram does not change with a symmetry
        alike[np.concatenate([*counts, sorted(field.instances.shape)]).tobytes()].append(k)
    pairs = [pair for group in alike.values() for pair in combinations(group, 2)]
    return [
        (one, other)
        for one, other in pairs
        if names[one] != names[other]
        and any(
            np.array_equal(fields[one].pixels, _turned(fields[other].pixels, symmetry))
            for symmetry in range(8)
        )
    ]
