"""Smooth random fields that repeat seamlessly, and ones that do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["enlarge", "enlarge_wrapped", "open_noise", "periodic_noise"]


def periodic_noise(
    rng: np.random.Generator, side: int, wavelength: float, *, along: float | None = None
) -> NDArray[np.float32]:
    """(side, side) float32 noise of mean 0 and spread 1 that wraps around at its edges.

    Gaussian-filtered white noise; features are about ``wavelength`` px high and ``along`` (default the
    same) px wide.
    """
    from scipy import fft

    white = rng.standard_normal((side, side), dtype=np.float32)
    spectrum = fft.rfft2(white)
    fy = np.fft.fftfreq(side)[:, None].astype(np.float32)
    fx = np.fft.rfftfreq(side)[None, :].astype(np.float32)
    # a Gaussian of sigma = wavelength / 4 leaves features of about that size
    sy, sx = wavelength / 4, (wavelength if along is None else along) / 4
    spectrum *= np.exp(-2 * np.pi**2 * (sy * sy * fy * fy + sx * sx * fx * fx))
    spectrum[0, 0] = 0
    noise: NDArray[np.float32] = fft.irfft2(spectrum, s=(side, side)).astype(np.float32)
    return noise / max(float(noise.std()), 1e-9)


def enlarge_wrapped(field: NDArray[Any], side: int) -> NDArray[Any]:
    """A periodic square (uint8 or float32) enlarged bicubically to (side, side), still periodic."""
    from PIL import Image

    small = field.shape[0]
    margin = 4
    padded = np.pad(field, margin, mode="wrap")
    image = Image.fromarray(padded)
    big = image.resize(
        (side, side), Image.Resampling.BICUBIC, box=(margin, margin, margin + small, margin + small)
    )
    return np.asarray(big)


def enlarge(field: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """A float32 field enlarged by bicubic interpolation to ``size`` (width, height)."""
    from PIL import Image

    return np.asarray(Image.fromarray(field).resize(size, Image.Resampling.BICUBIC), np.float32)


def open_noise(
    rng: np.random.Generator, size: tuple[int, int], wavelengths: Sequence[tuple[float, float]]
) -> NDArray[np.float32]:
    """(height, width) float32: a sum of random fields, one per (wavelength in px, weight), not periodic."""
    width, height = size
    total = np.zeros((height, width), np.float32)
    for wavelength, weight in wavelengths:
        step = max(wavelength / 2, 1.0)
        nodes = (int(np.ceil(width / step)) + 4, int(np.ceil(height / step)) + 4)
        coarse = rng.standard_normal((nodes[1], nodes[0]), dtype=np.float32)
        big = enlarge(coarse, (round(nodes[0] * step), round(nodes[1] * step)))
        top, left = round(step), round(step)
        total += weight * big[top : top + height, left : left + width]
    return total
