"""What lies where on a composed slide: smooth layers on a coarse grid, and artifacts laid over them.

Each layer is a scalar field on square cells of 64 px (more on very large slides, so that the grid never has
more than 8 million cells): about the signed distance to the layer's border, in units of 4 px, positive
inside, kept as int8. Between cell centers it is interpolated bilinearly. Layers are painted in order:
a pixel belongs to the last layer that is positive there, else to the glass. Ragged layers have up to
20 px of periodic noise added, so that borders follow no straight line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lobule.phantom.noise import open_noise, periodic_noise
from lobule.phantom.pyramid import TILE_PX
from lobule.phantom.spec import PhantomSpec

__all__ = ["GLASS", "Layer", "Layout", "Mark", "lay_out"]

UNIT_PX = 4
RAGGED_UNITS = 5
MARGIN_CELLS = 2
MAX_CELLS = 8_000_000
GLASS = 0

_NOISE_SIDE = 1024

Cells = NDArray[np.int8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: its name, whether it is tumor and whether its border is ragged."""

    name: str
    tumor: bool = False
    ragged: bool = True


@dataclass(frozen=True, slots=True)
class Mark:
    """An artifact over the slide: ``kind`` is fold, blur, dust or pen.

    ``cells`` is its field (int8, as a layer's) whose first cell is the layout's ``origin`` (column, row);
    ``shade`` is the color that remains of white light (pen, dust).
    """

    kind: str
    origin: tuple[int, int]
    cells: Cells
    shade: tuple[int, int, int] = (255, 255, 255)


class Layout:
    """Layers and marks of a slide; answers which layer shows at points and in tiles (slide frame)."""

    def __init__(
        self,
        size: tuple[int, int],
        cell_px: int,
        layers: tuple[Layer, ...],
        cells: Cells,
        marks: tuple[Mark, ...],
        seed: int,
    ) -> None:
        self.size = size
        self.cell_px = cell_px
        self.layers = layers
        self.cells = cells
        self.marks = marks
        rng = np.random.default_rng([seed, 7])
        noise = periodic_noise(rng, _NOISE_SIDE, 24) + periodic_noise(rng, _NOISE_SIDE, 90)
        self._noise: Floats = np.clip(noise * np.float32(1.6), -RAGGED_UNITS, RAGGED_UNITS)
        self._per_tile = TILE_PX // cell_px
        self._window = self._per_tile + 2 * MARGIN_CELLS
        # pixel p of a tile lies between the window's cells low[p] and low[p] + 1
        position = (np.arange(TILE_PX, dtype=np.float32) + 0.5) / cell_px - 0.5 + MARGIN_CELLS
        self._low = np.floor(position).astype(np.intp)
        self._share = (position - self._low).astype(np.float32)
        self._slack = np.array([RAGGED_UNITS if layer.ragged else 0 for layer in layers])

    def _interpolated(self, window: NDArray[Any]) -> Floats:
        """One tile's field from its window of cells, (256, 256) float32."""
        # no matrix product: BLAS threads cost far more than so small a sum
        cells = window.astype(np.float32)
        rows = cells[self._low]
        rows += (cells[self._low + 1] - rows) * self._share[:, None]
        start = rows[:, self._low]
        field: Floats = start + (rows[:, self._low + 1] - start) * self._share
        return field

    def _cell_range(self, first_tile: int, tiles: int, cells: int) -> NDArray[np.intp]:
        start = first_tile * self._per_tile - MARGIN_CELLS
        return np.clip(np.arange(start, start + tiles * self._per_tile + 2 * MARGIN_CELLS), 0, cells - 1)

    def window(self, column: int, row: int, columns: int = 1, rows: int = 1) -> Cells:
        """The cells, (layers, rows, columns) int8, that decide the tiles, and two cells around."""
        ys = self._cell_range(row, rows, self.cells.shape[1])
        xs = self._cell_range(column, columns, self.cells.shape[2])
        return self.cells[:, ys[:, None], xs[None, :]]

    def sure_labels(self, column: int, row: int, columns: int, rows: int) -> NDArray[np.int16]:
        """(rows, columns): the layer that alone shows in each tile and for a cell around it, -1 where mixed.

        0 is the glass, k the k-th layer. Tiles that a mark touches are -1.
        """
        cells = self.window(column, row, columns, rows)
        views = np.lib.stride_tricks.sliding_window_view(cells, (self._window, self._window), axis=(1, 2))
        views = views[:, :: self._per_tile, :: self._per_tile]
        lowest, highest = views.min(axis=(3, 4)), views.max(axis=(3, 4))
        label = np.zeros((rows, columns), np.int16)
        for k, slack in enumerate(self._slack, start=1):
            covers = lowest[k - 1] > slack
            absent = highest[k - 1] <= -slack
            label = np.where(covers, k, np.where(absent, label, -1)).astype(np.int16)
        per = self._per_tile
        touched = np.zeros((rows * per + 2 * MARGIN_CELLS, columns * per + 2 * MARGIN_CELLS), bool)
        for mark in self.marks:
            x0, y0 = mark.origin[0] - column * per + MARGIN_CELLS, mark.origin[1] - row * per + MARGIN_CELLS
            height, width = mark.cells.shape
            target = touched[max(y0, 0) : max(y0 + height, 0), max(x0, 0) : max(x0 + width, 0)]
            target |= mark.cells[max(-y0, 0) :, max(-x0, 0) :][: target.shape[0], : target.shape[1]] > 0
        views = np.lib.stride_tricks.sliding_window_view(touched, (self._window, self._window))
        label[views[::per, ::per].any(axis=(2, 3))] = -1
        return label

    def _mark_tiles(self, mark: Mark) -> tuple[int, int, int, int]:
        left, top = mark.origin
        height, width = mark.cells.shape
        per = self._per_tile
        return (
            (left - 1) // per,
            (top - 1) // per,
            -(-(left + width + 1) // per),
            -(-(top + height + 1) // per),
        )

    def marks_in(self, column: int, row: int) -> list[tuple[Mark, Floats]]:
        """The marks on one tile with their interpolated fields in px (distance to the border), (256, 256)."""
        found: list[tuple[Mark, Floats]] = []
        start_x, start_y = column * self._per_tile - MARGIN_CELLS, row * self._per_tile - MARGIN_CELLS
        for mark in self.marks:
            left, top, right, bottom = self._mark_tiles(mark)
            if not (left <= column < right and top <= row < bottom):
                continue
            window = np.full((self._window, self._window), -127, np.float32)
            height, width = mark.cells.shape
            x0, y0 = mark.origin[0] - start_x, mark.origin[1] - start_y
            xs, ys = slice(max(x0, 0), max(x0 + width, 0)), slice(max(y0, 0), max(y0 + height, 0))
            target = window[ys, xs]
            target[...] = mark.cells[max(-y0, 0) :, max(-x0, 0) :][: target.shape[0], : target.shape[1]]
            if (target > 0).any():
                found.append((mark, self._interpolated(window) * UNIT_PX))
        return found

    def tile_labels(self, column: int, row: int) -> tuple[NDArray[np.uint8], list[int]]:
        """The layer of each pixel of a tile, (256, 256) uint8, and all layers that may show near it."""
        cells = self.window(column, row)
        lowest, highest = cells.min(axis=(1, 2)), cells.max(axis=(1, 2))
        labels = np.zeros((TILE_PX, TILE_PX), np.uint8)
        near = [GLASS]
        noise = self._tile_noise(column, row)
        for k, layer in enumerate(self.layers, start=1):
            slack = self._slack[k - 1]
            if lowest[k - 1] > slack:
                labels[...] = k
                near = [k]
            elif highest[k - 1] > -slack:
                field = self._interpolated(cells[k - 1])
                if layer.ragged:
                    field += noise
                np.copyto(labels, np.uint8(k), where=field > 0)
                near.append(k)
        return labels, near

    def _tile_noise(self, column: int, row: int) -> Floats:
        per = _NOISE_SIDE // TILE_PX
        y, x = row % per * TILE_PX, column % per * TILE_PX
        return self._noise[y : y + TILE_PX, x : x + TILE_PX]

    def labels_at(self, x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.uint8]:
        """The layer of the pixels (x, y), integer level-0 px of any shape; as `tile_labels`, by point."""
        _, height, width = self.cells.shape
        fx, fy = (x + 0.5) / self.cell_px - 0.5, (y + 0.5) / self.cell_px - 0.5
        ix, iy = np.floor(fx).astype(np.intp), np.floor(fy).astype(np.intp)
        tx, ty = (fx - ix).astype(np.float32), (fy - iy).astype(np.float32)
        x0, x1 = np.clip(ix, 0, width - 1), np.clip(ix + 1, 0, width - 1)
        y0, y1 = np.clip(iy, 0, height - 1), np.clip(iy + 1, 0, height - 1)
        noise = self._noise[np.mod(y, _NOISE_SIDE), np.mod(x, _NOISE_SIDE)]
        labels = np.zeros(np.shape(x), np.uint8)
        for k, layer in enumerate(self.layers, start=1):
            c = self.cells[k - 1]
            field = (c[y0, x0] * (1 - tx) + c[y0, x1] * tx) * (1 - ty) + (
                c[y1, x0] * (1 - tx) + c[y1, x1] * tx
            ) * ty
            if layer.ragged:
                field = field + noise
            labels = np.where(field > 0, np.uint8(k), labels)
        return labels

    def marks_at(self, x: NDArray[Any], y: NDArray[Any]) -> list[str]:
        """The kind of the mark over each of the pixels (x, y), one-dimensional, "" where none is."""
        kinds = [""] * len(x)
        fx, fy = (x + 0.5) / self.cell_px - 0.5, (y + 0.5) / self.cell_px - 0.5
        for mark in self.marks:
            height, width = mark.cells.shape
            px, py = fx - mark.origin[0], fy - mark.origin[1]
            inside = (px >= 0) & (py >= 0) & (px < width - 1) & (py < height - 1)
            for k in np.flatnonzero(inside):
                ix, iy = int(px[k]), int(py[k])
                tx, ty = px[k] - ix, py[k] - iy
                c = mark.cells[iy : iy + 2, ix : ix + 2].astype(float)
                if (c[0, 0] * (1 - tx) + c[0, 1] * tx) * (1 - ty) + (
                    c[1, 0] * (1 - tx) + c[1, 1] * tx
                ) * ty > 0:
                    kinds[k] = mark.kind
        return kinds


def _distance(field: Floats, cell_px: int) -> Floats:
    """About the signed distance to the zero line of a smooth field, in units of UNIT_PX px."""
    gy, gx = np.gradient(field)
    out: Floats = np.hypot(gx, gy).astype(np.float32, copy=False)
    del gx, gy
    np.maximum(out, np.float32(1e-6), out=out)
    np.divide(field, out, out=out)
    out *= np.float32(cell_px / UNIT_PX)
    np.clip(out, -127, 127, out=out)
    return out


def _freeze(distance: Floats) -> Cells:
    return np.clip(np.rint(distance), -127, 127).astype(np.int8)


def _drop_small(distance: Floats, smallest_cells: float) -> Floats:
    """Turns islands (and holes) of fewer cells than ``smallest_cells`` over."""
    from scipy import ndimage

    for sign in (1, -1):
        islands, count = ndimage.label(distance * sign > 0)
        if count > 1:
            sizes = np.bincount(islands.ravel(), minlength=count + 1)
            small = sizes < smallest_cells
            small[0] = False
            turn = small[islands]
            # the island's rim lies between cells of both signs, so a plain change of sign leaves no line
            distance[turn] = -sign * np.maximum(np.abs(distance[turn]), 8)
    return distance


def _above_share(field: Floats, share: float, within: NDArray[np.bool_] | None = None) -> Floats:
    """The field shifted so that ``share`` of it (of the cells ``within``) is positive."""
    values = field if within is None else field[within]
    if share <= 0 or values.size == 0:
        return np.full_like(field, -1.0)
    shifted: Floats = field - np.float32(np.quantile(values, 1 - share))
    return shifted


def _with_share(
    field: Floats, share: float, within: NDArray[np.bool_], finish: Callable[[Floats], Floats]
) -> Floats:
    """``finish`` of the field shifted so that in the end ``share`` of the cells ``within`` is positive."""
    asked = share
    for _ in range(4):
        result = finish(_above_share(field, asked, within))
        got = float((result[within] > 0).mean()) if within.any() else 0.0
        if got <= 0 or abs(got / share - 1) < 0.01:
            break
        asked = min(asked * share / got, 0.97)
    return result


def lay_out(spec: PhantomSpec) -> Layout:
    """The layers and marks of a slide, decided by the spec alone."""
    width, height = spec.size
    cell_px = 64
    while -(-width // cell_px) * -(-height // cell_px) > MAX_CELLS and cell_px < TILE_PX:
        cell_px *= 2
    grid = (-(-width // cell_px), -(-height // cell_px))
    cell_um = cell_px * spec.mpp
    side_um = min(width, height) * spec.mpp
    rng = np.random.default_rng([spec.seed, 1])

    def noise(*waves_um: tuple[float, float]) -> Floats:
        return open_noise(rng, grid, [(max(wave / cell_um, 2.0), weight) for wave, weight in waves_um])

    u = np.linspace(-1, 1, grid[0], dtype=np.float32)[None, :]
    v = np.linspace(-1, 1, grid[1], dtype=np.float32)[:, None]
    field = noise(
        (side_um * 1.1, 0.55), (side_um * 0.45, 0.35), (min(side_um * 0.2, 1500), 0.10), (250, 0.035)
    )
    # tissue keeps to the middle of the glass
    field -= 0.9 * (u * u + v * v) + 2.5 * (u**8 + v**8)
    smallest_tissue = max(4.0, 0.004 * grid[0] * grid[1] * spec.tissue_share)

    def as_tissue(raw: Floats) -> Floats:
        return _drop_small(_distance(raw, cell_px), smallest_tissue)

    tissue = _with_share(field, spec.tissue_share, np.ones(field.shape, bool), as_tissue)
    inside = tissue > 0

    tumor_um = float(np.clip(side_um * 0.3, 300, 3500))
    smallest_tumor = max(4.0, (0.2 * tumor_um / cell_um) ** 2)

    def as_tumor(raw: Floats) -> Floats:
        part = _drop_small(np.minimum(_distance(raw, cell_px), tissue - 12), smallest_tumor)
        _pierce(part, cell_px)
        return part

    field = noise((tumor_um, 1.0), (tumor_um * 0.35, 0.3), (150, 0.05))
    tumor = _with_share(field, spec.tumor_share, inside, as_tumor)
    del field

    if spec.fields is not None:
        layers: tuple[Layer, ...] = (Layer("other"), Layer("carcinoma", tumor=True))
        stack = [_freeze(tissue), _freeze(tumor)]
    else:
        part_um = float(np.clip(side_um * 0.2, 250, 1600))

        def part(raw: Floats, share: float, within: NDArray[np.bool_], limit: Floats) -> Cells:
            return _freeze(np.minimum(_distance(_above_share(raw, share, within), cell_px), limit))

        fat = part(noise((part_um, 1.0), (200, 0.08)), 0.27, inside, tissue)
        gland = part(noise((part_um * 0.8, 1.0), (150, 0.06)), 0.25, inside, tissue - 12)
        lymph = part(noise((part_um * 0.4, 1.0), (120, 0.1)), 0.04, inside, tissue - 12)
        in_situ = part(noise((tumor_um * 0.6, 1.0), (200, 0.06)), 0.33, tumor > 0, tumor)
        layers = (
            Layer("stroma"),
            Layer("fat"),
            Layer("gland"),
            Layer("lymphocytes"),
            Layer("invasive", tumor=True),
            Layer("in situ", tumor=True),
        )
        stack = [_freeze(tissue), fat, gland, lymph, _freeze(tumor), in_situ]

    marks: tuple[Mark, ...] = ()
    if spec.artifacts:
        layers = (*layers, Layer("unscanned", ragged=False))
        stack.append(_freeze(_unscanned(rng, grid, cell_px)))
        marks = _draw_marks(rng, tissue, cell_px, spec.mpp)
    return Layout(spec.size, cell_px, layers, np.stack(stack), marks, spec.seed)


def _pierce(tumor: Floats, cell_px: int) -> None:
    """Opens a round hole in the thickest tumor region, a third as wide, where there is room for one."""
    from scipy import ndimage

    # on a very large slide every few cells are enough to find the place, at a fraction of the memory
    step = max(1, min(tumor.shape) // 500)
    depth = ndimage.distance_transform_edt(tumor[::step, ::step] > 0)
    row, column = np.unravel_index(int(np.argmax(depth)), depth.shape)
    radius = float(depth[row, column]) * step / 3
    row, column = row * step, column * step
    if radius < 1.5:
        return
    y0, x0 = max(int(row - 3 * radius), 0), max(int(column - 3 * radius), 0)
    part = tumor[y0 : int(row + 3 * radius) + 1, x0 : int(column + 3 * radius) + 1]
    y, x = np.ogrid[: part.shape[0], : part.shape[1]]
    away = np.hypot(y + y0 - row, x + x0 - column).astype(np.float32) - radius
    np.minimum(part, away * (cell_px / UNIT_PX), out=part)


def _unscanned(rng: np.random.Generator, grid: tuple[int, int], cell_px: int) -> Floats:
    """A rectangle at a corner that the scanner skipped."""
    width, height = grid
    x = np.arange(width, dtype=np.float32)[None, :]
    y = np.arange(height, dtype=np.float32)[:, None]
    right = float(width - width * rng.uniform(0.05, 0.1))
    bottom = float(height * rng.uniform(0.2, 0.4))
    skipped: Floats = np.minimum(x - right, bottom - y) * np.float32(cell_px / UNIT_PX)
    return skipped


_PENS = ((30, 60, 150), (25, 120, 70), (25, 25, 30), (190, 30, 45))


def _draw_marks(rng: np.random.Generator, tissue: Floats, cell_px: int, mpp: float) -> tuple[Mark, ...]:
    """Folds, blurred patches, specks of dust and pen strokes; their number follows the slide's area."""
    height, width = tissue.shape
    cell_um = cell_px * mpp
    side_um = min(width, height) * cell_um
    more = min(3, int(width * height * cell_um * cell_um / 2e8))
    rows, columns = np.nonzero(tissue > 40)
    if rows.size == 0:
        rows, columns = np.nonzero(tissue > 0)
    edge_rows, edge_columns = np.nonzero(np.abs(tissue) < 40)
    marks: list[Mark] = []
    if rows.size and edge_rows.size:
        for _ in range(1 + more):
            k = int(rng.integers(rows.size))
            length = float(np.clip(0.15 * side_um, 200, 2500)) / cell_um
            path = _wander(rng, (columns[k], rows[k]), length, bend=0.5)
            marks.append(_stroke("fold", path, rng.uniform(22, 45) / cell_um, cell_px, (width, height)))
        for _ in range(1 + more):
            k = int(rng.integers(rows.size))
            radius = float(np.clip(0.07 * side_um, 100, 700)) / cell_um
            path = _wander(rng, (columns[k], rows[k]), radius, bend=0.8)
            marks.append(_stroke("blur", path, radius, cell_px, (width, height)))
    for _ in range(6 + 4 * more):
        place = (rng.uniform(0, width), rng.uniform(0, height))
        path = _wander(rng, place, rng.uniform(10, 60) / cell_um, bend=1.5)
        marks.append(
            _stroke("dust", path, rng.uniform(15, 32) / cell_um, cell_px, (width, height), (70, 62, 58))
        )
    if edge_rows.size:
        for k_pen in range(1 + more):
            k = int(rng.integers(edge_rows.size))
            length = float(np.clip(0.35 * side_um, 300, 9000)) / cell_um
            path = _wander(rng, (edge_columns[k], edge_rows[k]), length, bend=1.2)
            shade = _PENS[(int(rng.integers(4)) + k_pen) % 4]
            half = float(np.clip(0.02 * side_um, 30, 260)) / cell_um
            marks.append(_stroke("pen", path, half, cell_px, (width, height), shade))
    return tuple(mark for mark in marks if mark.cells.size)


def _wander(rng: np.random.Generator, start: tuple[float, float], length: float, bend: float) -> Floats:
    """A curved path of about ``length`` cells around ``start``, (n, 2) x, y."""
    steps = 12
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, bend / 3, steps))
    moves = np.stack([np.cos(heading), np.sin(heading)], axis=1) * (length / steps)
    path = np.cumsum(moves, axis=0)
    path += np.asarray(start, float) - path.mean(axis=0)
    return np.asarray(path, np.float32)


def _stroke(
    kind: str,
    path: Floats,
    half_width: float,
    cell_px: int,
    grid: tuple[int, int],
    shade: tuple[int, int, int] = (255, 255, 255),
) -> Mark:
    """The mark of all cells within ``half_width`` (in cells) of a path."""
    reach = half_width + 2
    x0, y0 = np.maximum(np.floor(path.min(axis=0) - reach), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(path.max(axis=0) + reach), np.array(grid)).astype(int)
    x = np.arange(x0, max(x1, x0), dtype=np.float32)[None, :]
    y = np.arange(y0, max(y1, y0), dtype=np.float32)[:, None]
    nearest = np.full((y.shape[0], x.shape[1]), np.inf, np.float32)
    for (ax, ay), (bx, by) in pairwise(path):
        dx, dy = bx - ax, by - ay
        t = np.clip(((x - ax) * dx + (y - ay) * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)
        np.minimum(nearest, np.hypot(x - ax - t * dx, y - ay - t * dy), out=nearest)
    cells = _freeze((half_width - nearest) * (cell_px / UNIT_PX))
    return Mark(kind, (int(x0), int(y0)), cells, shade)
