"""What a nuclei network is trained on: crops fit their targets, epochs hold every image once, distances are right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lobule.errors import ConfigurationError
from lobule.strict import changed
from lobule.training.nuclei_images import AlgorithmOneSource, CropSource, distance_within, whole_field
from lobule.training.nuclei_sets import NucleiField
from lobule.training.recipe import CropSettings, NucleiRecipe, read_recipe

RECIPE = read_recipe(Path(__file__).resolve().parents[2] / "recipes" / "nuclei-breast-lite0.toml")
assert isinstance(RECIPE, NucleiRecipe) and isinstance(RECIPE.images, CropSettings)
CROPS = changed(RECIPE.images, crop_px=96, empty_share=0.0)


def draw_field(name: str = "tnbc/01_1", shade: int = 230) -> NucleiField:
    rows, columns = np.mgrid[:300, :300]
    instances = np.zeros((300, 300), np.int32)
    for label, (row, column) in enumerate([(80, 80), (80, 110), (200, 150), (150, 240)], start=1):
        instances[np.hypot(rows - row, columns - column) < 14] = label
    pixels = np.full((300, 300, 3), (shade, 190, 220), np.uint8)
    pixels[instances > 0] = (90, 60, 140)
    return NucleiField(name, "TNBC-01", pixels, instances, "Breast", name.split("/")[0])


def test_distances_equal_the_slow_ones_and_peak_at_one_in_every_nucleus() -> None:
    instances = np.zeros((14, 17), np.int32)
    instances[2:7, 3:10] = 1
    instances[2:7, 10:13] = 4
    instances[9:14, 0:6] = 2
    out = distance_within(instances)
    padded = np.pad(instances, 1)
    for label in (1, 2, 4):
        inside = np.argwhere(padded == label)
        outside = np.argwhere(padded != label)
        slow = np.array([np.hypot(*(outside - p).T).min() for p in inside])
        got = out[tuple((inside - 1).T)]
        np.testing.assert_allclose(got, slow / slow.max(), rtol=1e-6)
    assert (out[instances == 0] == 0).all()


@pytest.mark.parametrize("maps", [1, 2])
@pytest.mark.parametrize("stronger", [{}, {"elastic_px": 4.0, "macenko": 0.2}], ids=["plain", "stronger"])
def test_crops_and_targets_lie_on_each_other_and_repeat(maps: int, stronger: dict[str, float]) -> None:
    source = CropSource([draw_field()], changed(CROPS, **stronger), maps)
    crops, targets = source.draw(np.random.default_rng(2), 8)
    assert crops.shape == (8, 96, 96, 3) and targets.shape == (8, maps, 96, 96)
    assert targets.dtype == np.float32 and targets.min() >= 0 and targets.max() <= 1
    dark = crops[..., 0].astype(float)
    inside, outside = dark[targets[:, 0] > 0.9].mean(), dark[targets[:, 0] < 0.1].mean()
    assert inside < outside - 40
    np.testing.assert_array_equal(crops, source.draw(np.random.default_rng(2), 8)[0])


def test_an_epoch_holds_each_of_three_images_a_field_once() -> None:
    fields = [draw_field(f"tnbc/01_{k}", 200 + 10 * k) for k in range(4)]
    source = AlgorithmOneSource(fields, 2, seed=5)
    assert len(source) == 12
    epochs = []
    for epoch in range(2):
        drawn = [source.draw(4 * epoch + k, 3) for k in range(4)]
        assert all(targets.shape == (3, 2, 512, 512) for _, targets in drawn)
        epochs.append([image.tobytes() for pixels, _ in drawn for image in pixels])
    assert sorted(epochs[0]) == sorted(epochs[1]) and len(set(epochs[0])) == 12
    assert epochs[0] != epochs[1]
    pixels, targets = source.draw(7, 3)
    inside = pixels[..., 0][targets[:, 0] > 0]
    assert inside.mean() < 110 and ((targets[:, 1] > 0) <= (targets[:, 0] > 0)).all()


def test_without_fields_the_error_says_so() -> None:
    for make in (lambda: CropSource([], CROPS, 1), lambda: AlgorithmOneSource([], 1, 0)):
        with pytest.raises(ConfigurationError, match="at least one"):
            make()


def test_a_whole_field_is_mirrored_out_and_its_targets_with_it() -> None:
    field = draw_field()
    pixels, targets = whole_field(field, 2, 64)
    assert pixels.shape == (1, 320, 320, 3) and targets.shape == (1, 2, 320, 320)
    np.testing.assert_array_equal(targets[0, 0, :300, :300], field.instances > 0)
    np.testing.assert_array_equal(targets[0, 1, :300, :300], distance_within(field.instances))
    np.testing.assert_array_equal(pixels[0, 300:], pixels[0, 299:279:-1])
    np.testing.assert_array_equal(targets[0, :, 300:], targets[0, :, 299:279:-1])


@pytest.mark.parametrize("side", [60, 300])
def test_nuclei_keep_their_size_whatever_the_size_of_the_field(side: int) -> None:
    """Within the recipe's scales: a nucleus of 24 px is between 24 / 1.4 and 24 / 0.7 px wide in a crop of 96."""
    instances = np.zeros((side, side), np.int32)
    rows, columns = np.mgrid[:side, :side]
    instances[np.hypot(rows - side / 2, columns - side / 2) < 12] = 1
    field = NucleiField("mine/1", "1", np.full((side, side, 3), 200, np.uint8), instances, None, "mine")
    source = CropSource([field], CROPS, 1)
    low, high = CROPS.augment.scale
    from scipy import ndimage

    areas = []
    for seed in range(40):
        _, targets = source.draw(np.random.default_rng(seed), 1)
        labels, _ = ndimage.label(targets[0, 0] > 0.5)
        for box, number in zip(ndimage.find_objects(labels), range(1, labels.max() + 1), strict=True):
            whole = all(one.start > 0 and one.stop < 96 for one in box)
            if whole:
                areas.append((labels == number).sum())
    assert len(areas) >= 5
    widths = 2 * np.sqrt(np.array(areas) / np.pi)
    # at the mirror a nucleus may meet its image, never be stretched
    assert widths.min() > 0.9 * 24 / high
    assert np.median(widths) < 24 / low
