"""Random changes to training tiles: geometry by the dihedral group, color, stain, sharpness, compression.

All randomness comes from the generator handed in, so the same seed gives the same tiles.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lobule.training.recipe import AugmentSettings

__all__ = ["augment_color", "pale_tile", "resize_area", "turn"]

Pixels = NDArray[np.uint8]
Rng = np.random.Generator

# Optical density of hematoxylin, eosin and DAB (rows), Ruifrok and Johnston 2001, rows of unit length.
_HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], np.float32)
_HED /= np.linalg.norm(_HED, axis=1, keepdims=True)
_HED_INVERSE = np.linalg.inv(_HED).astype(np.float32)


def _area_weights(source: int, target: int) -> NDArray[np.float32]:
    edges = np.linspace(0.0, source, target + 1)
    cells = np.arange(source)
    overlap = np.minimum(edges[1:, None], cells + 1.0) - np.maximum(edges[:-1, None], cells)
    weights = np.clip(overlap, 0.0, None)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def resize_area(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Returns ``pixels`` (H, W, 3) at ``size`` (width, height), each pixel the mean of the area it covers."""
    width, height = size
    rows = np.tensordot(_area_weights(pixels.shape[0], height), pixels.astype(np.float32), axes=(1, 0))
    out = np.tensordot(_area_weights(pixels.shape[1], width), rows, axes=(1, 1))
    return np.clip(np.rint(out.transpose(1, 0, 2)), 0, 255).astype(np.uint8)


def turn(arrays: Sequence[NDArray], rng: Rng) -> list[NDArray]:
    """Returns the arrays (rows and columns first) under one of the eight symmetries of a square."""
    quarter, flip = int(rng.integers(4)), bool(rng.integers(2))
    turned = [np.rot90(a, quarter) for a in arrays]
    return [np.ascontiguousarray(a[:, ::-1] if flip else a) for a in turned]


def augment_color(pixels: Pixels, settings: AugmentSettings, rng: Rng) -> Pixels:
    """Returns a tile (H, W, 3) uint8 with its stain, color, sharpness and compression changed at random.

    Each kind of change happens with ``settings.share`` probability; its strength is the setting of its name.
    """
    from PIL import Image, ImageFilter

    out = pixels
    if settings.stain and rng.random() < settings.share:
        out = _stain(out, settings.stain, rng)
    if rng.random() < settings.share:
        out = _hue_saturation(out, settings.hue_degrees, settings.saturation, rng)
    if rng.random() < settings.share:
        gain = rng.uniform(1 - settings.brightness, 1 + settings.brightness)
        gamma = np.exp(rng.uniform(-settings.contrast, settings.contrast))
        table = 255.0 * (np.arange(256) / 255.0) ** gamma * gain
        out = np.clip(table, 0, 255).astype(np.uint8)[out]
    if settings.white and rng.random() < settings.share:
        gains = 1 + rng.uniform(-settings.white, settings.white, 3)
        out = np.clip(out * gains.astype(np.float32), 0, 255).astype(np.uint8)
    if rng.random() < settings.share * 0.5:
        image = Image.fromarray(out)
        if rng.random() < 0.7:
            image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.2, settings.blur_px))))
        else:
            image = image.filter(ImageFilter.UnsharpMask(1.0, int(rng.integers(40, 150)), 2))
        out = np.asarray(image)
    if rng.random() < settings.share:
        held = io.BytesIO()
        quality = int(rng.integers(settings.jpeg_quality[0], settings.jpeg_quality[1] + 1))
        Image.fromarray(out).save(held, "JPEG", quality=quality)
        out = np.asarray(Image.open(held).convert("RGB"))
    if rng.random() < settings.share * 0.3:
        noise = rng.normal(0, rng.uniform(1, 6), out.shape).astype(np.float32)
        out = np.clip(out + noise, 0, 255).astype(np.uint8)
    return out


def _stain(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    density = -np.log((pixels.astype(np.float32) + 1.0) / 256.0)
    amounts = density @ _HED_INVERSE
    scale = rng.uniform(1 - 3 * strength, 1 + 3 * strength, 3).astype(np.float32)
    shift = rng.uniform(-strength, strength, 3).astype(np.float32) * 0.3
    shifted = (amounts * scale + shift) @ _HED
    return np.clip(256.0 * np.exp(-shifted) - 1.0, 0, 255).astype(np.uint8)


def _hue_saturation(pixels: Pixels, hue_degrees: float, saturation: float, rng: Rng) -> Pixels:
    # A turn about the gray axis in RGB stands for the hue, a stretch from it for the saturation.
    angle = np.deg2rad(rng.uniform(-hue_degrees, hue_degrees))
    cos, sin = np.cos(angle), np.sin(angle)
    third, root = 1 / 3, np.sqrt(1 / 3)
    a, b, c = cos + (1 - cos) * third, (1 - cos) * third - root * sin, (1 - cos) * third + root * sin
    turn_ = np.array([[a, b, c], [c, a, b], [b, c, a]])
    stretch = rng.uniform(1 - saturation, 1 + saturation)
    gray = np.full((3, 3), third)
    matrix = (gray + stretch * (np.eye(3) - gray)) @ turn_
    return np.clip(pixels.astype(np.float32) @ matrix.T.astype(np.float32), 0, 255).astype(np.uint8)


def pale_tile(size_px: int, rng: Rng, tissue: Pixels | None = None) -> Pixels:
    """Returns a tile (size, size, 3) uint8 without tumor: glass, haze, dirt, pen, bubbles or smeared tissue.

    ``tissue`` is a tile of normal tissue, of which the smeared and the faded kinds are made.
    """
    from PIL import Image, ImageFilter

    kind = int(rng.integers(6))
    base = rng.integers(205, 256) + rng.normal(0, 4, 3)
    if kind == 0 or (tissue is None and kind >= 4):
        flat = np.full((size_px, size_px, 3), 1.0) * base
    elif kind == 1:  # slowly varying haze, as out-of-focus glass
        coarse = rng.normal(0, 12, (4, 4, 1)) + rng.normal(0, 3, (4, 4, 3)) + base
        image = Image.fromarray(np.clip(coarse, 0, 255).astype(np.uint8))
        flat = np.asarray(image.resize((size_px, size_px), Image.Resampling.BICUBIC)).astype(np.float64)
    elif kind == 2:  # one dark or strongly colored surface: pen, edge of the slide, unscanned black
        flat = np.full((size_px, size_px, 3), 1.0) * rng.integers(0, 256, 3)
    elif kind == 3:  # bubbles and fat: bright round cells with thin walls
        rows, columns = np.mgrid[:size_px, :size_px]
        centers = rng.uniform(0, size_px, (int(rng.integers(6, 40)), 2))
        distance = np.sqrt(
            ((rows[..., None] - centers[:, 0]) ** 2) + (columns[..., None] - centers[:, 1]) ** 2
        )
        two = np.partition(distance, 1, axis=-1)
        wall = np.exp(-(((two[..., 1] - two[..., 0]) / rng.uniform(3, 9)) ** 2))[..., None]
        color = np.array([200.0, 140.0, 190.0]) + rng.normal(0, 20, 3)
        flat = base * (1 - wall) + color * wall
    else:
        assert tissue is not None
        smeared = Image.fromarray(tissue).filter(ImageFilter.GaussianBlur(float(rng.uniform(8, 30))))
        fade = rng.uniform(0.2, 1.0) if kind == 4 else rng.uniform(0.05, 0.4)
        flat = np.asarray(smeared if kind == 4 else Image.fromarray(tissue)).astype(np.float64)
        flat = base + fade * (flat - base)
    noisy = flat + rng.normal(0, rng.uniform(0, 4), flat.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)
