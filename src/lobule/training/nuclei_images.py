"""What a nuclei network is trained on: Algorithm 1's images, or crops of the fields drawn anew each step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lobule.errors import ConfigurationError
from lobule.training.algorithm_one import algorithm_one
from lobule.training.augment import augment_color, pale_tile, turn
from lobule.training.nuclei_sets import NucleiField
from lobule.training.recipe import CropSettings

__all__ = ["AlgorithmOneSource", "CropSource", "distance_within", "whole_field"]

Pixels = NDArray[np.uint8]
Targets = NDArray[np.float32]


def distance_within(instances: NDArray[np.int32]) -> NDArray[np.float32]:
    """Returns (H, W) float32: each nucleus's distance to its own border over its largest, 0 outside."""
    from scipy import ndimage

    out = np.zeros(instances.shape, np.float32)
    for label, box in enumerate(ndimage.find_objects(instances), start=1):
        if box is None:
            continue
        own = instances[box] == label
        distance = ndimage.distance_transform_edt(np.pad(own, 1))[1:-1, 1:-1]
        out[box][own] = (distance / distance.max())[own]
    return out


def whole_field(field: NucleiField, maps: int, multiple: int) -> tuple[Pixels, Targets]:
    """One field as a batch, mirrored out to sides of a ``multiple``: (1, H, W, 3) uint8, (1, maps, H, W) float32."""
    height, width = field.pixels.shape[:2]
    beyond = ((0, -height % multiple), (0, -width % multiple))
    own = [(field.instances > 0).astype(np.float32)]
    if maps > 1:
        own.append(distance_within(field.instances))
    pixels = np.pad(field.pixels, (*beyond, (0, 0)), mode="symmetric")
    targets = np.pad(np.stack(own), ((0, 0), *beyond), mode="symmetric")
    return pixels[None], targets[None]


class AlgorithmOneSource:
    """Algorithm 1's images in epochs, each in an order of its own.

    ``draw(index, count)`` returns images (count, 512, 512, 3) uint8 and targets (count, maps, 512, 512) float32:
    nucleus, and with two maps the distance within each.
    """

    def __init__(self, fields: Sequence[NucleiField], maps: int, seed: int) -> None:
        if not fields:
            raise ConfigurationError("--data", "training fields", "there must be at least one")
        images = [one for field in fields for one in algorithm_one(field.pixels, field.instances)]
        self._pixels = np.stack([pixels for pixels, _ in images])
        self._instances = np.stack([instances for _, instances in images])
        self._maps, self._seed = maps, seed
        self._distances: dict[int, NDArray[np.float32]] = {}

    def __len__(self) -> int:
        return len(self._pixels)

    def draw(self, index: int, count: int) -> tuple[Pixels, Targets]:
        chosen = [self._at(index * count + k) for k in range(count)]
        targets = np.zeros((count, self._maps, *self._instances.shape[1:]), np.float32)
        for place, at in enumerate(chosen):
            targets[place, 0] = self._instances[at] > 0
            if self._maps > 1:
                targets[place, 1] = self._distance(at)
        return self._pixels[chosen], targets

    def _at(self, drawn: int) -> int:
        """The image that the ``drawn``-th sample is."""
        epoch, place = divmod(drawn, len(self))
        return int(np.random.default_rng([self._seed, epoch]).permutation(len(self))[place])

    def _distance(self, at: int) -> NDArray[np.float32]:
        if at not in self._distances:
            self._distances[at] = distance_within(self._instances[at])
        return self._distances[at]


class CropSource:
    """Draws batches of augmented crops, sets balanced, fields uniform within a set.

    ``draw(rng, count)`` returns crops (count, side, side, 3) uint8 and targets (count, maps, side, side)
    float32: nucleus (soft at borders) and, with two maps, normalized distance, both in [0, 1].
    """

    def __init__(self, fields: Sequence[NucleiField], settings: CropSettings, maps: int) -> None:
        self._sets: dict[str, list[list[NDArray[np.uint8]]]] = {}
        for field in fields:
            images = [field.pixels, ((field.instances > 0) * 255).astype(np.uint8)]
            if maps > 1:
                images.append(np.rint(distance_within(field.instances) * 255).astype(np.uint8))
            images = _at_least(images, math.ceil(settings.crop_px * settings.augment.scale[1]))
            self._sets.setdefault(field.source_set, []).append(images)
        if not self._sets:
            raise ConfigurationError("--data", "training fields", "there must be at least one")
        self._settings, self._maps = settings, maps

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Pixels, Targets]:
        side, settings = self._settings.crop_px, self._settings
        crops = np.empty((count, side, side, 3), np.uint8)
        targets = np.zeros((count, self._maps, side, side), np.float32)
        for i in range(count):
            if rng.random() < settings.empty_share:
                crops[i] = augment_color(pale_tile(side, rng), settings.augment, rng)
                continue
            pixels, *maps = turn(self._bent(self._crop(rng), rng), rng)
            crops[i] = augment_color(self._restained(self._soften(pixels, rng), rng), settings.augment, rng)
            targets[i] = np.stack(maps) / np.float32(255)
        return crops, targets

    def _crop(self, rng: np.random.Generator) -> list[NDArray[np.uint8]]:
        from PIL import Image

        names = sorted(self._sets)
        fields = self._sets[names[int(rng.integers(len(names)))]]
        images = fields[int(rng.integers(len(fields)))]
        low, high = self._settings.augment.scale
        height, width = images[0].shape[:2]
        scale = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        side = self._settings.crop_px * scale
        x, y = rng.uniform(0, width - side), rng.uniform(0, height - side)
        target = (self._settings.crop_px, self._settings.crop_px)
        return [
            np.asarray(
                Image.fromarray(image).resize(
                    target, Image.Resampling.BILINEAR, box=(x, y, x + side, y + side)
                )
            )
            for image in images
        ]

    def _bent(self, images: list[NDArray[np.uint8]], rng: np.random.Generator) -> list[NDArray[np.uint8]]:
        if self._settings.elastic_px == 0 or rng.random() < 0.5:
            return images
        from lobule.training.warp import elastic

        return elastic(images, self._settings.elastic_px, rng)

    def _restained(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        if self._settings.macenko == 0 or rng.random() < 0.5:
            return pixels
        from lobule.training.stain_jitter import jitter_stains

        return jitter_stains(pixels, self._settings.macenko, rng)

    def _soften(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        from PIL import Image

        if self._settings.soften == 1 or rng.random() < 0.5:
            return pixels
        side = pixels.shape[0]
        small = round(side / rng.uniform(1.0, self._settings.soften))
        down = Image.fromarray(pixels).resize((small, small), Image.Resampling.BOX)
        return np.asarray(down.resize((side, side), Image.Resampling.BILINEAR))


def _at_least(images: list[NDArray[np.uint8]], side: int) -> list[NDArray[np.uint8]]:
    """The images mirrored out to ``side`` px where they are smaller: a crop stretched to its size has another scale."""
    height, width = images[0].shape[:2]
    beyond = ((0, max(0, side - height)), (0, max(0, side - width)))
    return [np.pad(image, (*beyond, (0, 0))[: image.ndim], mode="symmetric") for image in images]
