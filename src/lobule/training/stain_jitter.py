"""Stain jitter in a crop's own stains: hematoxylin and eosin as Macenko et al. 2009 find them, changed at random.

The jitter of `augment` works along fixed stain vectors, the same for every slide; this one finds the two of the crop,
stretches how much there is of each and turns their colors a little. Glass has no density and so stays what it is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lobule.stain import macenko

__all__ = ["jitter_stains", "own_stains"]

_SAMPLED = 4096
"""About how many pixels the stains are estimated from."""
_LEAST_ANGLE = 0.12
"""Radians between two stains below which amounts of them mean little."""
_TURN = 0.15
"""Largest change of a stain vector's components, per unit of strength."""

_DENSITY = (-np.log10(np.maximum(np.arange(256), 1) / 255.0)).astype(np.float32)


def own_stains(pixels: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    """The densities of hematoxylin and eosin in R, G, B of this crop, (2, 3), rows of length 1.

    From a grid of about 4,096 of its pixels. None where it holds too little stain or a single one: glass, fat, pen.
    """
    step = max(1, int(np.sqrt(pixels.shape[0] * pixels.shape[1] / _SAMPLED)))
    try:
        stains = macenko(np.ascontiguousarray(pixels[::step, ::step]))
    except ValueError:
        return None
    angle = np.arccos(np.clip(stains[0] @ stains[1], -1, 1))
    return stains if angle >= _LEAST_ANGLE else None


def jitter_stains(pixels: NDArray[np.uint8], strength: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Returns a crop (H, W, 3) uint8 with its two stains changed: amounts by up to ``strength``, colors a little.

    The amount of each stain is multiplied by a factor from 1 - strength to 1 + strength, and each component of its
    color moves by up to 0.15 of the strength; what neither stain explains stays. A crop without two stains is
    returned as it is, and so is every crop with ``strength`` 0. Draws eight numbers whatever the crop holds.
    """
    gains = 1 + rng.uniform(-strength, strength, 2)
    turns = rng.uniform(-_TURN * strength, _TURN * strength, (2, 3))
    stains = own_stains(pixels) if strength > 0 else None
    if stains is None:
        return pixels
    changed = np.maximum(stains + turns, 0.0)
    changed /= np.linalg.norm(changed, axis=1, keepdims=True)
    residual = np.cross(stains[0], stains[1])
    residual /= np.linalg.norm(residual)
    # densities to amounts, and amounts of the changed stains to densities, in one matrix
    before = np.stack([*stains, residual])
    after = np.stack([changed[0] * gains[0], changed[1] * gains[1], residual])
    matrix = np.linalg.inv(before) @ after * -np.log(10.0)
    # what each level of R, G and B adds to the logarithms of all three; tables are quicker than a product
    of_red, of_green, of_blue = (np.outer(_DENSITY, row).astype(np.float32) for row in matrix)
    levels = of_red[pixels[..., 0]]
    levels += of_green[pixels[..., 1]]
    levels += of_blue[pixels[..., 2]]
    np.exp(levels, out=levels)
    levels *= np.float32(255.0)
    levels += np.float32(0.5)
    np.minimum(levels, np.float32(255.0), out=levels)
    return levels.astype(np.uint8)
