"""Draws breast-like tissue: stroma, fat, ducts and lobules, lymphocytes, invasive and in situ carcinoma."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lobule.phantom.noise import enlarge_wrapped, periodic_noise
from lobule.phantom.stain import BLOCKED, NucleusKind, NucleusShape, Sheet, make_shapes
from lobule.phantom.texture import Canvas

__all__ = ["LAYERS", "draw_canvas"]

_FIBROBLAST = NucleusKind(6.5, 1.5, 0.18, 82, 12, 0.16, 10, 0.10)
_LYMPHOCYTE = NucleusKind(3.5, 3.2, 0.07, 112, 10, 0.14, 12, 0.05)
_LUMINAL = NucleusKind(3.7, 2.7, 0.08, 84, 9, 0.16, 16, 0.05, 0.3)
_MYOEPITHELIAL = NucleusKind(3.9, 1.25, 0.10, 92, 9, 0.14, 10, 0.08)
_ADIPOCYTE = NucleusKind(4.2, 1.2, 0.12, 95, 10, 0.12, 8, 0.08)
_INVASIVE = NucleusKind(5.6, 4.4, 0.20, 82, 15, 0.22, 22, 0.12, 0.8)
_IN_SITU = NucleusKind(4.8, 4.1, 0.12, 84, 11, 0.19, 20, 0.08, 0.5)

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


class _Collagen:
    """Wavy bundles of collagen on a sheet, and the direction in which they run."""

    def __init__(self, sheet: Sheet, *, dense: float = 1.0) -> None:
        rng, mpp = sheet.rng, sheet.mpp
        side = sheet.side // 2
        um = 1 / (2 * mpp)  # half-resolution px per µm
        coarse = 256
        per = coarse / (sheet.side * mpp)  # coarse px per µm

        def bend() -> Floats:
            return (
                periodic_noise(rng, coarse, max(520 * per, 4)) * 38 * um
                + periodic_noise(rng, coarse, max(110 * per, 3)) * 5.0 * um
            )

        down, right = bend(), bend()
        mix = 1 / (1 + np.exp(-12 * periodic_noise(rng, coarse, max(700 * per, 4))))
        texture = _fibers(round(um, 4), side)

        rows = np.arange(side, dtype=np.int32)[:, None]
        columns = np.arange(side, dtype=np.int32)[None, :]
        big_down, big_right = (enlarge_wrapped(part, side) for part in (down, right))
        y = np.mod(np.rint(big_down).astype(np.int32) + rows, side)
        x = np.mod(np.rint(big_right).astype(np.int32) + columns, side)
        weight = enlarge_wrapped(mix.astype(np.float32), side)
        blend = texture[y, x] * weight + texture[x, y] * (1 - weight)
        # clefts: the gaps between bundles
        cleft = 1 / (1 + np.exp(-(blend - 92) / 3.5))
        amount = (14 + (blend - 80) * 0.42 * dense + 6 * dense) * cleft + 3
        sheet.e[...] = enlarge_wrapped(np.clip(amount, 0, 255).astype(np.uint8), sheet.side)

        step = sheet.side / coarse / 2  # half-resolution px per coarse px
        dy, dx = (np.gradient(np.pad(down, 1, mode="wrap"))[k][1:-1, 1:-1] / step for k in (0, 1))
        flat = np.arctan2(-dx, 1 + dy)
        dy, dx = (np.gradient(np.pad(right, 1, mode="wrap"))[k][1:-1, 1:-1] / step for k in (0, 1))
        steep = np.arctan2(1 + dx, -dy)
        self._angle = np.where(mix > 0.5, flat, steep)
        self._scale = coarse / sheet.side

    def direction(self, x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
        """Direction of the fibers at points in px, radians."""
        return np.asarray(
            self._angle[(y * self._scale).astype(int) % 256, (x * self._scale).astype(int) % 256]
        )


@lru_cache(maxsize=2)
def _fibers(px_per_um: float, side: int) -> NDArray[np.uint8]:
    """Straight fibers and bundles, (side, side), periodic; every canvas bends them in its own way."""
    rng = np.random.default_rng(11)
    fine = periodic_noise(rng, side, 3.4 * px_per_um, along=46 * px_per_um)
    bundles = periodic_noise(rng, side, 15 * px_per_um, along=170 * px_per_um)
    return np.asarray(np.clip(128 + 26 * (0.62 * fine + 0.8 * bundles), 0, 255), np.uint8)


def draw_canvas(layer: str, mpp: float, seed: int) -> Canvas:
    """The canvas of a layer of the layout at ``mpp``: 4096 px square, seamless, with its nuclei."""
    number = list(LAYERS).index(layer)
    sheet = Sheet(mpp, [seed, 2, number])
    LAYERS[layer](sheet)
    return sheet.finish()


def _draw_stroma(sheet: Sheet) -> None:
    collagen = _Collagen(sheet)
    _draw_capillaries(sheet, int(14 * sheet.area_mm2) + 1)
    spindles = make_shapes(sheet.rng, _FIBROBLAST, sheet.mpp, 72)
    sheet.scatter(spindles, int(900 * sheet.area_mm2), direction=collagen.direction)
    sheet.scatter(make_shapes(sheet.rng, _LYMPHOCYTE, sheet.mpp, 16), int(60 * sheet.area_mm2))


def _draw_lymphocytes(sheet: Sheet) -> None:
    collagen = _Collagen(sheet, dense=0.7)
    crowd = _smooth(sheet, 130, 0.62)
    sheet.e[...] = np.where(crowd, sheet.e // 2 + 6, sheet.e)
    sheet.h[crowd] = 10
    cells = make_shapes(sheet.rng, _LYMPHOCYTE, sheet.mpp, 40)
    sheet.scatter(cells, int(11000 * sheet.area_mm2), allowed=_inside(sheet, crowd))
    sheet.scatter(cells, int(500 * sheet.area_mm2))
    spindles = make_shapes(sheet.rng, _FIBROBLAST, sheet.mpp, 48)
    sheet.scatter(spindles, int(600 * sheet.area_mm2), direction=collagen.direction)


def _draw_fat(sheet: Sheet) -> None:
    from scipy.spatial import cKDTree

    rng, mpp = sheet.rng, sheet.mpp
    quarter = sheet.side // 4
    extent_um = sheet.side * mpp
    spacing = 62.0
    steps = max(2, round(extent_um / spacing))
    grid = (np.stack(np.meshgrid(np.arange(steps), np.arange(steps)), axis=-1).reshape(-1, 2) + 0.5) / steps
    seeds = np.mod((grid + rng.uniform(-0.42, 0.42, grid.shape) / steps) * quarter, quarter)
    tree = cKDTree(seeds, boxsize=quarter)
    wave = periodic_noise(rng, 256, 24) * (3.0 / (4 * mpp))
    sway = enlarge_wrapped(wave, quarter)
    columns = np.arange(quarter, dtype=np.float32)[None, :]
    # a wall lies where two cells are equally near; three meet in a thicker corner
    wall, corner = np.empty((2, quarter, quarter), np.float32)
    for top in range(0, quarter, 128):
        rows = slice(top, top + 128)
        x = np.mod(columns + sway[rows], quarter)
        y = np.mod(np.arange(top, top + 128, dtype=np.float32)[:, None] + sway.T[rows], quarter)
        near, _ = tree.query(np.stack([x, y], axis=-1), k=3, workers=1)
        wall[rows] = (near[..., 1] - near[..., 0]) * (4 * mpp / 2)
        corner[rows] = (near[..., 2] - near[..., 0]) * (4 * mpp / 2)
    depth = np.minimum(wall, np.maximum(corner - 1.5, 0) * 0.8 + wall * 0.2).astype(np.float32)
    scaled = enlarge_wrapped(np.clip(depth * 40, 0, 255).astype(np.uint8), sheet.side)
    # eosin by depth: full within 0.75 µm, gone some 0.6 µm farther
    amount = np.clip(46 - np.maximum(np.arange(256) - 0.75 * 40, 0) * 1.9, 2, 255).astype(np.uint8)
    np.take(amount, scaled, out=sheet.e)
    on_wall = scaled < 0.5 * 40
    gy, gx = np.gradient(wall)
    along = np.arctan2(gx, -gy)

    def direction(px: NDArray[Any], py: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(along[(py / 4).astype(int) % quarter, (px / 4).astype(int) % quarter])

    shapes = make_shapes(rng, _ADIPOCYTE, mpp, 48)
    sheet.scatter(shapes, int(4200 * sheet.area_mm2), allowed=_inside(sheet, on_wall), direction=direction)


def _draw_gland(sheet: Sheet) -> None:
    collagen = _Collagen(sheet)
    rng = sheet.rng
    luminal = make_shapes(rng, _LUMINAL, sheet.mpp, 64)
    basal = make_shapes(rng, _MYOEPITHELIAL, sheet.mpp, 64)
    extent = sheet.side * sheet.mpp
    taken: list[tuple[float, float, float]] = []

    def room(radius: float) -> tuple[float, float] | None:
        for _ in range(30):
            x, y = rng.uniform(0, extent, 2)
            if all(_apart(x - a, y - b, extent) > radius + r + 18 for a, b, r in taken):
                taken.append((float(x), float(y), radius))
                return float(x), float(y)
        return None

    for _ in range(max(1, int(3 * sheet.area_mm2))):
        radius = float(rng.uniform(60, 120))
        if place := room(radius * 1.15):
            _draw_duct(sheet, *place, radius, 13.0, luminal, basal)
    for _ in range(max(1, int(9 * sheet.area_mm2))):
        radius = float(rng.uniform(95, 165))
        if place := room(radius):
            _draw_lobule(sheet, *place, radius, luminal, basal)
    lymphocytes = make_shapes(rng, _LYMPHOCYTE, sheet.mpp, 16)
    sheet.scatter(
        make_shapes(rng, _FIBROBLAST, sheet.mpp, 72), int(1000 * sheet.area_mm2), direction=collagen.direction
    )
    sheet.scatter(lymphocytes, int(150 * sheet.area_mm2))


def _draw_lobule(
    sheet: Sheet, x: float, y: float, radius: float, luminal: list[NucleusShape], basal: list[NucleusShape]
) -> None:
    """Acini in a loose, pale, slightly blue stroma."""
    rng = sheet.rng
    field = _Around(sheet, x, y, radius, 0.12)
    soft = np.clip(field.depth / 14, 0, 1)
    field.blend_e(17 + 3 * field.grain, soft * 0.85)
    field.blend_h(6 + 2 * field.grain, soft)
    acini: list[tuple[float, float, float]] = []
    for _ in range(400):
        r = float(rng.uniform(15, 27))
        angle, away = rng.uniform(0, 2 * np.pi), (radius - r - 4) * np.sqrt(rng.uniform())
        ax, ay = away * np.cos(angle), away * np.sin(angle)
        if all(np.hypot(ax - bx, ay - by) > (r + br) * 1.0 + 3.5 for bx, by, br in acini):
            acini.append((ax, ay, r))
    for ax, ay, r in acini:
        _draw_duct(sheet, x + ax, y + ay, r, min(11.5, r * 0.72), luminal, basal)


def _draw_duct(
    sheet: Sheet,
    x: float,
    y: float,
    radius: float,
    thickness: float,
    luminal: list[NucleusShape],
    basal: list[NucleusShape],
) -> None:
    """A two-layered epithelium around a lumen; everything in µm."""
    rng, mpp = sheet.rng, sheet.mpp
    field = _Around(sheet, x, y, radius, 0.10)
    depth = field.depth
    sheet_e = np.clip((depth + 3.0) / 1.5, 0, 1) * (depth < 0.5)
    field.blend_e(np.full(depth.shape, 40.0), sheet_e * 0.8)
    inside = np.clip(depth / 0.6, 0, 1)
    field.blend_e(30 + 3 * field.grain, inside)
    field.blend_h(17 + 2 * field.grain, inside)
    lumen = np.clip((depth - thickness) / 0.8, 0, 1)
    filled = rng.uniform() < 0.35
    field.blend_e((20 + 3 * field.grain) if filled else np.full(depth.shape, 2.0), lumen)
    field.blend_h(np.zeros(depth.shape), lumen)
    field.block(depth > thickness + 0.4)
    # the inner row first: it is what one sees of a duct
    for row_depth, spacing, shapes, turn in (
        (thickness * 0.62, 6.1, luminal, np.pi / 2),
        (1.3, 10.0, basal, 0.0),
    ):
        length = 2 * np.pi * max(radius - row_depth, 2.0)
        count = max(4, int(length / spacing))
        theta = (np.arange(count) + rng.uniform(-0.18, 0.18, count)) * 2 * np.pi / count + rng.uniform(0, 6)
        away = field.radius_at(theta) - row_depth + rng.normal(0, 0.3, count)
        px, py = (x + away * np.cos(theta)) / mpp, (y + away * np.sin(theta)) / mpp
        facing = theta + np.pi / 2 - turn + rng.normal(0, 0.15, count)
        for k, a, b in zip(sheet.pick(shapes, facing), px, py, strict=True):
            sheet.stamp(shapes[k], a, b)
    field.block(depth > -1.0)


def _draw_invasive(sheet: Sheet) -> None:
    rng, mpp = sheet.rng, sheet.mpp
    collagen = _Collagen(sheet, dense=0.9)
    nests = _smooth_field(sheet, 85)
    cords = _smooth_field(sheet, 34)
    field = nests + 0.55 * cords
    level = float(np.quantile(field, 0.44))
    scaled = enlarge_wrapped(np.clip(128 + (field - level) * 70, 0, 255).astype(np.uint8), sheet.side)
    inside = scaled > 128
    gap = (scaled > 108) & ~inside & _smooth(sheet, 60, 0.14)
    sheet.e[gap] = 4
    grain = np.tile(_grain(sheet), (1, 4)).astype(np.float32)
    for y in range(0, sheet.side, len(grain)):
        # epithelium ends softly: a few gray levels of the field are a µm
        share = np.clip((scaled[y : y + len(grain)].astype(np.float32) - 122) / 12, 0, 1)
        e = sheet.e[y : y + len(grain)]
        e[...] = e + (34 + grain / 16 - e) * share
        sheet.h[y : y + len(grain)] = (17 + grain / 24) * share
    for _ in range(int(45 * sheet.area_mm2)):
        x, y = rng.uniform(0, sheet.side * mpp, 2)
        hole = _Around(sheet, float(x), float(y), float(rng.uniform(6, 15)), 0.15)
        if bool(inside[int(y / mpp) % sheet.side, int(x / mpp) % sheet.side]):
            hole.blend_e(np.full(hole.depth.shape, 3.0), np.clip(hole.depth, 0, 1))
            hole.blend_h(np.zeros(hole.depth.shape), np.clip(hole.depth, 0, 1))
            hole.block(hole.depth > -0.5)
    shapes = make_shapes(rng, _INVASIVE, mpp, 110)
    sheet.scatter(shapes, int(30000 * sheet.area_mm2), allowed=_inside(sheet, scaled > 144))
    spindles = make_shapes(rng, _FIBROBLAST, mpp, 48)
    sheet.scatter(
        spindles, int(1500 * sheet.area_mm2), allowed=_inside(sheet, ~inside), direction=collagen.direction
    )
    lymphocytes = make_shapes(rng, _LYMPHOCYTE, mpp, 24)
    sheet.scatter(lymphocytes, int(500 * sheet.area_mm2), allowed=_inside(sheet, ~inside))


def _draw_in_situ(sheet: Sheet) -> None:
    """Ducts filled and widened by uniform cells: cribriform holes in some, necrosis in others."""
    rng, mpp = sheet.rng, sheet.mpp
    collagen = _Collagen(sheet)
    extent = sheet.side * mpp
    cells = make_shapes(rng, _IN_SITU, mpp, 80)
    basal = make_shapes(rng, _MYOEPITHELIAL, mpp, 64)
    taken: list[tuple[float, float, float]] = []
    for _ in range(int(260 * sheet.area_mm2)):
        radius = float(rng.uniform(70, 150))
        x, y = (float(value) for value in rng.uniform(0, extent, 2))
        if any(_apart(x - a, y - b, extent) < radius + r + 14 for a, b, r in taken):
            continue
        taken.append((x, y, radius))
        field = _Around(sheet, x, y, radius, 0.09)
        depth = field.depth
        field.blend_e(np.full(depth.shape, 46.0), np.clip((depth + 6) / 3, 0, 1) * (depth < 0.5) * 0.7)
        inside = np.clip(depth / 0.6, 0, 1)
        field.blend_e(31 + 3 * field.grain, inside)
        field.blend_h(16 + 2 * field.grain, inside)
        if rng.uniform() < 0.4:
            core = np.clip((depth - radius * 0.52 + 3 * field.grain) / 3, 0, 1)
            field.blend_e(56 + 10 * field.grain, core)
            field.blend_h(6 + 6 * np.maximum(field.grain, 0), core)
            field.block(depth > radius * 0.5)
        else:
            for _ in range(int(radius / 9)):
                r, t = radius * 0.72 * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
                hole = _Around(sheet, x + r * np.cos(t), y + r * np.sin(t), float(rng.uniform(8, 19)), 0.1)
                share = np.clip(hole.depth, 0, 1)
                hole.blend_e(np.full(share.shape, 3.0), share)
                hole.blend_h(np.zeros(share.shape), share)
                hole.block(hole.depth > -0.5)
        count = int(2 * np.pi * radius / 13)
        theta = (np.arange(count) + rng.uniform(-0.3, 0.3, count)) * 2 * np.pi / count
        away = field.radius_at(theta) - 1.9
        for k, a, b in zip(
            sheet.pick(basal, theta + np.pi / 2),
            (x + away * np.cos(theta)) / mpp,
            (y + away * np.sin(theta)) / mpp,
            strict=True,
        ):
            sheet.stamp(basal[k], a, b)
        tries = int(np.pi * radius**2 / 18)
        theta = rng.uniform(0, 2 * np.pi, tries)
        away = np.maximum(field.radius_at(theta) - 4.5, 0) * np.sqrt(rng.uniform(0, 1, tries))
        which = rng.integers(0, len(cells), tries)
        for k, a, b in zip(
            which, (x + away * np.cos(theta)) / mpp, (y + away * np.sin(theta)) / mpp, strict=True
        ):
            sheet.stamp(cells[k], a, b)
        field.block(depth > -1.0)
    spindles = make_shapes(rng, _FIBROBLAST, mpp, 48)
    sheet.scatter(spindles, int(1100 * sheet.area_mm2), direction=collagen.direction)
    sheet.scatter(make_shapes(rng, _LYMPHOCYTE, mpp, 24), int(350 * sheet.area_mm2))


LAYERS: dict[str, Callable[[Sheet], None]] = {
    "stroma": _draw_stroma,
    "fat": _draw_fat,
    "gland": _draw_gland,
    "lymphocytes": _draw_lymphocytes,
    "invasive": _draw_invasive,
    "in situ": _draw_in_situ,
}


class _Around:
    """A window of the sheet around a blob: ``depth`` in µm below its outline (negative outside)."""

    def __init__(self, sheet: Sheet, x_um: float, y_um: float, radius_um: float, bumps: float) -> None:
        rng, mpp = sheet.rng, sheet.mpp
        self._sheet = sheet
        orders = np.arange(2, 7)
        self._orders = orders
        self._amplitude = rng.normal(0, bumps, orders.size) / orders * 1.5
        self._phase = rng.uniform(0, 2 * np.pi, orders.size)
        self._radius = radius_um
        reach = min(int((radius_um * (1 + 3 * bumps) + 8) / mpp) + 1, sheet.side // 2 - 1)
        px, py = round(x_um / mpp), round(y_um / mpp)
        self._where = sheet.index(px, py, reach)
        span = (np.arange(-reach, reach + 1) * mpp).astype(np.float32)
        y, x = span[:, None], span[None, :]
        turn = np.linspace(-np.pi, np.pi, 721)
        radius = np.interp(np.arctan2(y, x), turn, self.radius_at(turn)).astype(np.float32)
        self.depth: Floats = radius - np.hypot(x, y)
        turns = np.arange(-reach, reach + 1)
        grain = _grain(sheet)
        window = grain[np.ix_((turns + py) % len(grain), (turns + px) % len(grain))]
        self.grain: Floats = window.astype(np.float32) / np.float32(40)

    def radius_at(self, theta: NDArray[Any]) -> NDArray[Any]:
        """Distance of the outline from the center at angles, µm."""
        waves = self._amplitude * np.cos(self._orders * np.asarray(theta)[..., None] + self._phase)
        return np.asarray(self._radius * np.clip(1 + waves.sum(axis=-1), 0.7, 1.3))

    def _blend(self, layer: NDArray[np.uint8], amount: NDArray[Any], share: NDArray[Any]) -> None:
        old = layer[self._where].astype(np.float32)
        layer[self._where] = np.clip(old + (amount - old) * share, 0, 255).astype(np.uint8)

    def blend_e(self, amount: NDArray[Any], share: NDArray[Any]) -> None:
        """Replaces ``share`` of the eosin by ``amount``."""
        self._blend(self._sheet.e, amount, share)

    def blend_h(self, amount: NDArray[Any], share: NDArray[Any]) -> None:
        """Replaces ``share`` of the haematoxylin by ``amount``."""
        self._blend(self._sheet.h, amount, share)

    def block(self, mask: Mask) -> None:
        """Lets no further nucleus be put where ``mask`` (of the window)."""
        ids = self._sheet.ids[self._where]
        ids[mask & (ids == 0)] = BLOCKED
        self._sheet.ids[self._where] = ids


def _draw_capillaries(sheet: Sheet, count: int) -> None:
    """Small vessels, some holding red cells."""
    rng, mpp = sheet.rng, sheet.mpp
    lining = make_shapes(rng, _MYOEPITHELIAL, mpp, 32)
    for _ in range(count):
        x, y = (float(value) for value in rng.uniform(0, sheet.side * mpp, 2))
        radius = float(rng.uniform(5, 14))
        field = _Around(sheet, x, y, radius, 0.15)
        rim = np.clip(1 - np.abs(field.depth) / 1.6, 0, 1)
        inside = np.clip(field.depth, 0, 1)
        field.blend_e(np.full(rim.shape, 3.0), inside)
        field.blend_e(np.full(rim.shape, 44.0), rim)
        theta = rng.uniform(0, 2 * np.pi, 3)
        for k, t in zip(sheet.pick(lining, theta + np.pi / 2), theta, strict=True):
            away = float(field.radius_at(np.array(t)))
            sheet.stamp(lining[k], (x + away * np.cos(t)) / mpp, (y + away * np.sin(t)) / mpp)
        for _ in range(int(rng.integers(0, max(2, int(radius / 1.5))))):
            t, r = rng.uniform(0, 2 * np.pi), max(radius - 4, 0) * np.sqrt(rng.uniform())
            cell = _Around(sheet, x + r * np.cos(t), y + r * np.sin(t), 3.1, 0.03)
            cell.blend_e(np.full(cell.depth.shape, 78.0), np.clip(cell.depth, 0, 1) * 0.9)
        field.block(field.depth > 0)


def _apart(dx: float, dy: float, extent: float) -> float:
    """Distance on a square that wraps around."""
    dx, dy = abs(dx), abs(dy)
    return float(np.hypot(min(dx, extent - dx), min(dy, extent - dy)))


def _smooth_field(sheet: Sheet, wavelength_um: float) -> Floats:
    coarse = 512
    return periodic_noise(sheet.rng, coarse, max(wavelength_um * coarse / (sheet.side * sheet.mpp), 2.5))


def _smooth(sheet: Sheet, wavelength_um: float, share: float) -> Mask:
    """Smooth blobs that cover about ``share`` of the sheet."""
    field = _smooth_field(sheet, wavelength_um)
    level = float(np.quantile(field, 1 - share))
    scaled = enlarge_wrapped(np.clip(128 + (field - level) * 60, 0, 255).astype(np.uint8), sheet.side)
    return np.asarray(scaled > 128)


def _grain(sheet: Sheet) -> NDArray[np.int8]:
    """Fine noise of cytoplasm, periodic, of spread 40; one for all of a sheet."""
    return _grain_of(round(max(2.6 / sheet.mpp, 2.0), 3))


@lru_cache(maxsize=4)
def _grain_of(wavelength_px: float) -> NDArray[np.int8]:
    noise = periodic_noise(np.random.default_rng(5), 1024, wavelength_px)
    return np.clip(noise * 40, -127, 127).astype(np.int8)


def _inside(sheet: Sheet, mask: Mask) -> Callable[[NDArray[Any], NDArray[Any]], Mask]:
    return lambda x, y: np.asarray(mask[y.astype(int), x.astype(int)])
