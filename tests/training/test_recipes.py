"""Recipes are strict, and every one in the repository is sound."""

from __future__ import annotations

from pathlib import Path

import pytest

from lobule.errors import ConfigurationError
from lobule.training.recipe import NucleiRecipe, ScreenRecipe, StudentRecipe, TumorRecipe, read_recipe

RECIPES = sorted((Path(__file__).resolve().parents[2] / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_sound_and_named_after_its_model(path: Path) -> None:
    recipe = read_recipe(path)
    family = "tumor" if recipe.family == "student" else recipe.family
    assert recipe.name == path.stem and family in path.stem.split("-")


def test_there_is_a_recipe_of_each_family() -> None:
    assert {type(read_recipe(path)) for path in RECIPES} == {
        TumorRecipe,
        NucleiRecipe,
        ScreenRecipe,
        StudentRecipe,
    }


@pytest.mark.parametrize(
    ("recipe", "old", "new", "named"),
    [
        ("tumor-breast-lite0", "seed = 20", "seed = 20\nsead = 3", "sead"),
        ("tumor-breast-lite0", "dropout = 0.5", "dropout = 1.5", "patch.dropout"),
        ("tumor-breast-lite0", "hidden = 100\n", "", "patch.hidden"),
        ("tumor-breast-lite0", "crop_px = 512", "crop_px = 500", "multiples of 64"),
        ("tumor-breast-lite0", 'family = "tumor"', 'family = "tumour"', "recipe"),
        ("tumor-breast-lite0", "seed = 20", "seed = ", "not TOML"),
        ("nuclei-breast-lite0", "halo_px = 96", "halo_px = 512", "leaves nothing of a tile"),
        ("nuclei-breast-lite0", "scale = [0.7, 1.4]", "scale = [1.4, 0.7]", "scale goes from low to high"),
        (
            "nuclei-breast-lite0",
            "jpeg_quality = [50, 95]",
            "jpeg_quality = [95, 50]",
            "jpeg_quality goes from low to high",
        ),
        (
            "nuclei-breast-lite0",
            "scale = [0.7, 1.4]",
            "scale = [0.001, 1.4]",
            r"augment\.scale\.0: .*>= 0.25",
        ),
        ("nuclei-breast-lite0", "scale = [0.7, 1.4]", "scale = [0.7, 1000]", r"augment\.scale\.1: .*<= 4"),
        ("nuclei-breast-lite0", "mask = 0.55", "mask = 1.0", "threshold 'mask' is .*not 1"),
        ("nuclei-breast-lite0", "depth = 0.2", "depth = 0.0", "threshold 'depth' is above 0"),
        ("nuclei-breast-lite0", "min_area_um2 = 3.0", "min_area_um2 = -1.0", "'min_area_um2' is 0 or more"),
        (
            "nuclei-modified-unet",
            "seed = 1",
            "seed = 1\nthresholds = { mask = 0.5, split_um = -1.0, min_area_um2 = 3.0 }",
            "threshold 'split_um' is above 0",
        ),
        ("nuclei-breast-lite0", "seed = 20", "seed = -1", "seed"),
        ("nuclei-breast-lite0", 'sets = ["monuseg", "tnbc"]', 'sets = ["tnbc", "tnbc"]', "twice"),
        ("nuclei-breast-lite0", 'weights = "imagenet"', 'weights = "mine.pth"', "not from a file"),
        (
            "nuclei-breast-lite0",
            "scale = [0.7, 1.4]",
            "scale = [0.7, inf]",
            r"images\.augment\.scale\.1: .*finite",
        ),
        ("nuclei-tnbc-lite0", "seed = 20", "seed = 20\nthresholds = { mask = 0.5 }", "state one of both"),
        (
            "nuclei-modified-unet",
            "seed = 1",
            "seed = 1\nthresholds = { mask = 0.5, depth = 0.2, min_area_um2 = 3.0 }",
            "mask, split_um, min_area_um2",
        ),
    ],
)
def test_a_wrong_recipe_is_refused_before_training_and_the_key_is_named(
    tmp_path: Path, recipe: str, old: str, new: str, named: str
) -> None:
    text = next(path for path in RECIPES if path.stem == recipe).read_text("utf-8")
    assert old in text
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(text.replace(old, new), "utf-8")
    with pytest.raises(ConfigurationError, match=named):
        read_recipe(wrong)


def test_a_missing_recipe_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_recipe(tmp_path / "none.toml")
