"""Fields with outlined nuclei (MoNuSeg, TNBC): how they are read, split by patient and cut into crops."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lobule.errors import ConfigurationError
from lobule.training.augment import augment_color, pale_tile, turn
from lobule.training.recipe import NucleiRecipe, SegmentSettings

__all__ = ["CropSource", "NucleiField", "distance_within", "read_nuclei_fields", "split_patients"]


@dataclass(frozen=True)
class NucleiField:
    """One field: set and file name, patient, pixels (H, W, 3) uint8, instances (H, W) int32 (0 = none)."""

    name: str
    patient: str
    pixels: NDArray[np.uint8]
    instances: NDArray[np.int32]


def read_nuclei_fields(data: Path, sets: Sequence[str]) -> list[NucleiField]:
    """Reads the fields of the named sets below ``data``. Raises ConfigurationError where a set is absent."""
    readers = {"monuseg": _read_monuseg, "tnbc": _read_tnbc}
    fields: list[NucleiField] = []
    for name in sets:
        if not (data / name / "manifest.csv").is_file():
            raise ConfigurationError("--data", str(data), f"it must hold {name}/manifest.csv")
        fields.extend(readers[name](data / name))
    return fields


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def _read_monuseg(folder: Path) -> Iterator[NucleiField]:
    from PIL import Image

    for row in _rows(folder):
        with Image.open(folder / "images" / f"{row['name']}.jpg") as image:
            pixels = np.asarray(image.convert("RGB"))
        with Image.open(folder / "labels" / f"{row['name']}.png") as image:
            stored = np.asarray(image).astype(np.int32)
        # The stored masks lie one pixel up and left of the outlines they were drawn from.
        instances = np.zeros_like(stored)
        instances[1:, 1:] = stored[:-1, :-1]
        yield NucleiField(f"monuseg/{row['name']}", row["patient"], pixels, instances)


def _read_tnbc(folder: Path) -> Iterator[NucleiField]:
    from PIL import Image
    from scipy import ndimage

    for row in _rows(folder):
        name = row["name"]
        slide = name.split("_")[0]
        with Image.open(folder / f"Slide_{slide}" / f"{name}.png") as image:
            pixels = np.asarray(image.convert("RGB"))
        with Image.open(folder / f"GT_{slide}" / f"{name}.png") as image:
            mask = np.asarray(image.convert("L")) > 0
        instances, _ = ndimage.label(mask, np.ones((3, 3)))
        yield NucleiField(f"tnbc/{name}", row["patient"], pixels, instances.astype(np.int32))


def split_patients(fields: Sequence[NucleiField], recipe: NucleiRecipe) -> dict[str, list[NucleiField]]:
    """Splits fields into 'training', 'selection' and 'test' so that no patient lies in two of them.

    Test: the even-numbered TNBC patients. Selection: the patients that the recipe names.
    """
    known = {field.patient for field in fields}
    missing = [patient for patient in recipe.selection_patients if patient not in known]
    if missing:
        raise ConfigurationError("selection_patients", missing, "each must be a patient of the sets")
    blocks: dict[str, list[NucleiField]] = {"training": [], "selection": [], "test": []}
    for field in fields:
        if field.patient.startswith("TNBC-") and int(field.patient.removeprefix("TNBC-")) % 2 == 0:
            blocks["test"].append(field)
        elif field.patient in recipe.selection_patients:
            blocks["selection"].append(field)
        else:
            blocks["training"].append(field)
    return blocks


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


class CropSource:
    """Draws batches of augmented crops, sets balanced, fields uniform within a set.

    ``draw(rng, count)`` returns crops (count, side, side, 3) uint8 and targets (count, 2, side, side)
    float32: nucleus (soft at borders) and normalized distance, both in [0, 1].
    """

    def __init__(self, fields: Sequence[NucleiField], settings: SegmentSettings) -> None:
        self._sets: dict[str, list[tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]]] = {}
        for field in fields:
            mask = ((field.instances > 0) * 255).astype(np.uint8)
            distance = np.rint(distance_within(field.instances) * 255).astype(np.uint8)
            self._sets.setdefault(field.name.split("/")[0], []).append((field.pixels, mask, distance))
        if not self._sets:
            raise ConfigurationError("--data", "training fields", "there must be at least one")
        self._settings = settings

    def draw(self, rng: np.random.Generator, count: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        side, settings = self._settings.crop_px, self._settings
        crops = np.empty((count, side, side, 3), np.uint8)
        targets = np.zeros((count, 2, side, side), np.float32)
        for i in range(count):
            if rng.random() < settings.empty_share:
                crops[i] = augment_color(pale_tile(side, rng), settings.augment, rng)
                continue
            pixels, mask, distance = turn(self._crop(rng), rng)
            crops[i] = augment_color(self._soften(pixels, rng), settings.augment, rng)
            targets[i] = np.stack([mask, distance]) / np.float32(255)
        return crops, targets

    def _crop(self, rng: np.random.Generator) -> list[NDArray[np.uint8]]:
        from PIL import Image

        names = sorted(self._sets)
        fields = self._sets[names[int(rng.integers(len(names)))]]
        images = fields[int(rng.integers(len(fields)))]
        low, high = self._settings.augment.scale
        height, width = images[0].shape[:2]
        scale = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        side = min(self._settings.crop_px * scale, height, width)
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

    def _soften(self, pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        from PIL import Image

        if self._settings.soften == 1 or rng.random() < 0.5:
            return pixels
        side = pixels.shape[0]
        small = round(side / rng.uniform(1.0, self._settings.soften))
        down = Image.fromarray(pixels).resize((small, small), Image.Resampling.BOX)
        return np.asarray(down.resize((side, side), Image.Resampling.BILINEAR))
