"""A seamless sheet of haematoxylin and eosin, and the nuclei stamped on it.

Amounts of the two stains are kept as uint8, 100 = an optical density of 1 along the stain's vector; colors
follow from the Beer-Lambert law with the reference H&E vectors of Macenko et al. (2009).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lobule.phantom.noise import periodic_noise
from lobule.phantom.pyramid import TILE_PX
from lobule.phantom.texture import PERIOD_TILES, Canvas, Nuclei, Rgb

__all__ = ["BLOCKED", "NucleusKind", "NucleusShape", "Sheet", "make_shapes"]

BLOCKED = 65535
"""Id of places where no nucleus may be put; cleared in the end."""

_HAEMATOXYLIN = np.array([0.5626, 0.7201, 0.4062])
_EOSIN = np.array([0.2159, 0.8012, 0.5581])
_LIGHT = np.array([243.0, 243.0, 244.0])


@dataclass(frozen=True, slots=True)
class NucleusKind:
    """How nuclei of a kind look: mean semi-axes in µm, their spread, and stain in units of 0.01 OD."""

    long_um: float
    short_um: float
    spread: float
    stain: float
    stain_spread: float
    contrast: float
    rim: float
    bumps: float
    nucleoli: float = 0.0


@dataclass(frozen=True, slots=True)
class NucleusShape:
    """One nucleus to stamp: ``stain`` and ``mask`` of a window around its center pixel, and its outline.

    ``angle`` is the direction of its long axis (radians, 0 to pi); ``outline`` as in `Nuclei`.
    """

    angle: float
    stain: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    guard: NDArray[np.bool_]
    outline: NDArray[np.float64]


def make_shapes(rng: np.random.Generator, kind: NucleusKind, mpp: float, count: int) -> list[NucleusShape]:
    """``count`` nuclei of a kind, their directions spread evenly over half a turn."""
    return [_make_shape(rng, kind, mpp, np.pi * (k + rng.uniform()) / count) for k in range(count)]


def _make_shape(rng: np.random.Generator, kind: NucleusKind, mpp: float, angle: float) -> NucleusShape:
    from scipy import ndimage

    size = float(np.clip(np.exp(rng.normal(0, kind.spread)), 0.6, 1.7))
    long_px, short_px = kind.long_um * size / mpp, kind.short_um * size * np.exp(rng.normal(0, 0.07)) / mpp
    orders = np.arange(2, 6)
    amplitude = rng.normal(0, kind.bumps, orders.size) / orders
    phase = rng.uniform(0, 2 * np.pi, orders.size)

    def bump(theta: NDArray[Any]) -> NDArray[Any]:
        waves = amplitude * np.cos(orders * theta[..., None] + phase)
        return np.asarray(np.clip(1 + waves.sum(axis=-1), 0.7, 1.3))

    reach = int(np.ceil(max(long_px, short_px) * 1.3)) + 2
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(float)
    along, across = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
    theta = np.arctan2(across / short_px, along / long_px)
    rho = np.hypot(across / short_px, along / long_px) / bump(theta)
    depth_px = (1 - rho) * short_px

    grain = ndimage.gaussian_filter(rng.standard_normal(x.shape), max(0.45 / mpp, 0.6))
    grain /= max(float(grain.std()), 1e-9)
    level = max(kind.stain + rng.normal(0, kind.stain_spread), 35)
    rim_px = max(0.55 / mpp, 0.7)
    stain = level * (1 + kind.contrast * grain) + kind.rim * np.exp(
        -((np.maximum(depth_px, 0) / rim_px) ** 2)
    )
    for _ in range(int(rng.poisson(kind.nucleoli))):
        r, t = rng.uniform(0, 0.5), rng.uniform(0, 2 * np.pi)
        away = np.hypot(along - r * long_px * np.cos(t), across - r * short_px * np.sin(t))
        stain += 45 * np.exp(-((away / (rng.uniform(0.5, 1.0) / mpp)) ** 2))
    stain *= np.clip(depth_px / 1.2 + 0.5, 0, 1)

    corners = np.linspace(0, 2 * np.pi, 18, endpoint=False)
    radius = bump(corners)
    p, q = radius * np.cos(corners) * long_px, radius * np.sin(corners) * short_px
    outline = (
        np.stack([p * np.cos(angle) - q * np.sin(angle), p * np.sin(angle) + q * np.cos(angle)], axis=1) + 0.5
    )
    mask = rho <= 1
    mask[reach, reach] = True
    guard = depth_px > -max(0.35 / mpp, 1.0)
    return NucleusShape(
        angle % np.pi, np.clip(stain, 0, 255).astype(np.uint8), mask, guard | mask, np.rint(outline * 4) / 4
    )


class Sheet:
    """Stain amounts ``h`` and ``e`` (side, side) uint8 of a square that wraps around, and its nuclei."""

    def __init__(self, mpp: float, seed: Sequence[int]) -> None:
        self.side = PERIOD_TILES * TILE_PX
        self.mpp = mpp
        self.rng = np.random.default_rng(list(seed))
        self.h = np.zeros((self.side, self.side), np.uint8)
        self.e = np.zeros((self.side, self.side), np.uint8)
        self.ids = np.zeros((self.side, self.side), np.uint16)
        self._centers: list[tuple[int, int]] = []
        self._outlines: list[NDArray[np.float64]] = []

    @property
    def area_mm2(self) -> float:
        """Area of the sheet."""
        return (self.side * self.mpp / 1000) ** 2

    def index(self, x: int, y: int, reach: int) -> Any:
        """Index of the window of 2 · reach + 1 px around a pixel; wraps around at the edges."""
        n = self.side
        x, y = x % n, y % n
        if reach <= x < n - reach and reach <= y < n - reach:
            return slice(y - reach, y + reach + 1), slice(x - reach, x + reach + 1)
        span = np.arange(-reach, reach + 1)
        return np.ix_((span + y) % n, (span + x) % n)

    def stamp(self, shape: NucleusShape, x: float, y: float) -> bool:
        """Puts a nucleus with its center at the pixel (x, y) unless another lies there; True if it did."""
        if len(self._centers) >= BLOCKED - 1:
            return False
        px, py = int(x) % self.side, int(y) % self.side
        reach = shape.mask.shape[0] // 2
        where = self.index(px, py, reach)
        ids = self.ids[where]
        if ids[shape.guard].any():
            return False
        self._centers.append((px, py))
        self._outlines.append(shape.outline)
        ids[shape.mask] = len(self._centers)
        self.ids[where] = ids
        self.h[where] = np.maximum(self.h[where], shape.stain)
        e = self.e[where]
        e[shape.mask] = e[shape.mask] // 3 + 6
        self.e[where] = e
        return True

    def scatter(
        self,
        shapes: Sequence[NucleusShape],
        tries: int,
        allowed: Callable[[NDArray[Any], NDArray[Any]], NDArray[np.bool_]] | None = None,
        direction: Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]] | None = None,
    ) -> int:
        """Tries random places; ``allowed`` and ``direction`` (radians) are asked with x, y in px."""
        x, y = self.rng.uniform(0, self.side, (2, tries))
        if allowed is not None:
            keep = allowed(x, y)
            x, y = x[keep], y[keep]
        if direction is None:
            which = self.rng.integers(0, len(shapes), x.size)
        else:
            which = self.pick(shapes, direction(x, y) + self.rng.normal(0, 0.15, x.size))
        return sum(self.stamp(shapes[k], px, py) for k, px, py in zip(which, x, y, strict=True))

    def pick(self, shapes: Sequence[NucleusShape], angles: NDArray[Any]) -> NDArray[np.int64]:
        """Indices of shapes (as `make_shapes` orders them) whose direction is near the angles."""
        # shape k points to about pi (k + 1/2) / count
        near = np.floor(np.mod(angles, np.pi) / np.pi * len(shapes)) + self.rng.integers(
            -1, 2, np.shape(angles)
        )
        return np.asarray(np.mod(near, len(shapes)), np.int64)

    def block(self, mask: NDArray[np.bool_]) -> None:
        """Lets no nucleus be put where ``mask``, (side, side)."""
        self.ids[mask & (self.ids == 0)] = BLOCKED

    def finish(self) -> Canvas:
        """The sheet as a canvas: slightly blurred, with stain noise, in color."""
        self.ids[self.ids == BLOCKED] = 0
        blur_px = 0.18 / self.mpp
        h, e = _soften(self.h, blur_px), self.e
        grain = periodic_noise(self.rng, 1024, 5.0) * 1.6 + 0.7 * self.rng.standard_normal(
            (1024, 1024), np.float32
        )
        grain_h = np.tile(np.rint(grain).astype(np.int16), (1, self.side // 1024))
        grain_e = np.tile(
            np.rint(np.roll(grain, (311, 577), (0, 1)) * 1.3).astype(np.int16), (1, self.side // 1024)
        )
        image: Rgb = np.empty((self.side, self.side, 3), np.uint8)
        table = _color_table()
        for y in range(0, self.side, 1024):
            # noise grows with the amount of stain: empty places stay clean
            amount = h[y : y + 1024].astype(np.int16)
            amount += grain_h * (amount > 6)
            index = np.clip(amount, 0, 255).astype(np.uint16) << 8
            amount = e[y : y + 1024].astype(np.int16)
            amount += grain_e * (amount > 6)
            index |= np.clip(amount, 0, 255).astype(np.uint16)
            np.take(table, index, axis=0, out=image[y : y + 1024])
        nuclei = Nuclei(np.array(self._centers, np.int64).reshape(-1, 2), self._outlines)
        return Canvas(image, self.ids, nuclei)


def _soften(amount: NDArray[np.uint8], sigma_px: float) -> NDArray[np.uint8]:
    from PIL import Image, ImageFilter

    margin = 16
    padded = np.pad(amount, margin, mode="wrap")
    soft = np.asarray(Image.fromarray(padded).filter(ImageFilter.GaussianBlur(sigma_px)))
    inner: NDArray[np.uint8] = soft[margin:-margin, margin:-margin]
    return inner


def _color_table() -> Rgb:
    h, e = np.mgrid[0:256, 0:256] / 100.0
    density = h[..., None] * _HAEMATOXYLIN + e[..., None] * _EOSIN
    return np.asarray(np.rint(_LIGHT * np.exp(-density)), np.uint8).reshape(-1, 3)
