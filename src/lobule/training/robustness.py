"""How far an answer moves when the image is disturbed as slides are: compression, color, focus, position, scale."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lobule.evaluation.interval import Interval, bootstrap
from lobule.evaluation.pixels import dice

__all__ = ["DISTURBANCES", "Disturbance", "Moved", "measure_robustness"]

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int32]
Find = Callable[[Pixels], Labels]
"""An image (H, W, 3) uint8 → its nuclei as a label map (H, W)."""


@dataclass(frozen=True)
class Disturbance:
    """A change of an image, and what takes a label map found in the changed image back onto the original."""

    name: str
    change: Callable[[Pixels], Pixels]
    back: Callable[[Labels, tuple[int, int]], Labels] = lambda labels, _: labels


def _jpeg(quality: int) -> Callable[[Pixels], Pixels]:
    def change(pixels: Pixels) -> Pixels:
        from PIL import Image

        held = io.BytesIO()
        Image.fromarray(pixels).save(held, "JPEG", quality=quality)
        return np.asarray(Image.open(held).convert("RGB"))

    return change


def _hue(share: float) -> Callable[[Pixels], Pixels]:
    """Turns the hue by a share of the circle."""

    def change(pixels: Pixels) -> Pixels:
        from PIL import Image

        hsv = np.asarray(Image.fromarray(pixels).convert("HSV")).copy()
        hsv[..., 0] = (hsv[..., 0].astype(np.int16) + round(share * 256)) % 256
        return np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"))

    return change


def _brightness(gain: float) -> Callable[[Pixels], Pixels]:
    return lambda pixels: np.clip(np.rint(pixels * gain), 0, 255).astype(np.uint8)


def _blur(sigma_px: float) -> Callable[[Pixels], Pixels]:
    def change(pixels: Pixels) -> Pixels:
        from scipy import ndimage

        blurred = ndimage.gaussian_filter(pixels.astype(np.float32), (sigma_px, sigma_px, 0))
        return np.clip(np.rint(blurred), 0, 255).astype(np.uint8)

    return change


def _turned(quarters: int, mirrored: bool) -> Disturbance:
    def change(pixels: Pixels) -> Pixels:
        turned = np.rot90(pixels, quarters)
        return np.ascontiguousarray(turned[:, ::-1] if mirrored else turned)

    def back(labels: Labels, _: tuple[int, int]) -> Labels:
        return np.rot90(labels[:, ::-1] if mirrored else labels, -quarters)

    name = f"turned by {90 * quarters}°" + (", mirrored" if mirrored else "")
    return Disturbance(name if quarters else "mirrored", change, back)


def _scaled(factor: float) -> Disturbance:
    """As if the slide's µm/px were stated wrongly by that factor."""

    def change(pixels: Pixels) -> Pixels:
        from PIL import Image

        size = (round(pixels.shape[1] * factor), round(pixels.shape[0] * factor))
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))

    def back(labels: Labels, shape: tuple[int, int]) -> Labels:
        rows = np.minimum(
            ((np.arange(shape[0]) + 0.5) * labels.shape[0] / shape[0]).astype(int), labels.shape[0] - 1
        )
        columns = np.minimum(
            ((np.arange(shape[1]) + 0.5) * labels.shape[1] / shape[1]).astype(int), labels.shape[1] - 1
        )
        return labels[rows][:, columns]

    return Disturbance(f"µm/px off by {(factor - 1) * 100:+.0f} %", change, back)


DISTURBANCES: tuple[Disturbance, ...] = (
    *(Disturbance(f"JPEG quality {quality}", _jpeg(quality)) for quality in (95, 90, 80, 70)),
    *(
        Disturbance(f"hue {share * 100:+.0f} % of the circle", _hue(share))
        for share in (-0.1, -0.03, 0.03, 0.1)
    ),
    *(Disturbance(f"brightness {(gain - 1) * 100:+.0f} %", _brightness(gain)) for gain in (0.9, 1.1)),
    Disturbance("blur, σ 1 px", _blur(1.0)),
    *(
        _turned(quarters, mirrored)
        for mirrored in (False, True)
        for quarters in range(4)
        if quarters or mirrored
    ),
    *(_scaled(factor) for factor in (0.97, 1.03)),
)


@dataclass(frozen=True)
class Moved:
    """What a disturbance did: Dice of the masks and ratio of the counts, both against the undisturbed field."""

    name: str
    dice: Interval
    count_ratio: Interval


def measure_robustness(
    find: Find,
    images: Sequence[Pixels],
    disturbances: Sequence[Disturbance] = DISTURBANCES,
) -> list[Moved]:
    """Returns what each disturbance does to the nuclei found in ``images``.

    Dice is the mean over images, the count's ratio pooled; 95 % intervals by bootstrap over images. Images without
    a nucleus, disturbed or not, count as unmoved. Raises ValueError without images.
    """
    plain = [find(pixels) for pixels in images]
    counted = np.array([_count(labels) for labels in plain])
    out = []
    for disturbance in disturbances:
        found = [disturbance.back(find(disturbance.change(pixels)), pixels.shape[:2]) for pixels in images]
        each = np.array([dice(one > 0, other > 0) for one, other in zip(plain, found, strict=True)])
        counts = np.array([_count(labels) for labels in found])
        out.append(_moved(disturbance.name, each, counts, counted))
    return out


def _moved(
    name: str, each: NDArray[np.float64], counts: NDArray[np.int64], plain: NDArray[np.int64]
) -> Moved:
    def mean(at: NDArray[np.intp]) -> float:
        return float(each[at].mean())

    def ratio(at: NDArray[np.intp]) -> float:
        return _ratio(int(counts[at].sum()), int(plain[at].sum()))

    return Moved(name, bootstrap(mean, len(each)), bootstrap(ratio, len(each)))


def _count(labels: Labels) -> int:
    return int(np.unique(labels[labels > 0]).size)


def _ratio(found: int, plain: int) -> float:
    return float(found / plain) if plain else 1.0 if not found else float(found)
