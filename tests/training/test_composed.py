"""Composed slides: tumor where carcinoma fields lie, frames as the refining graph takes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from lobule.strict import changed
from lobule.training.bach import FieldImage
from lobule.training.composed import (
    Frame,
    FrameSource,
    compose_frames,
    compose_slide,
    frame_of,
    region_scores,
    threshold_of_regions,
)
from lobule.training.recipe import TumorRecipe, read_recipe

RECIPE = read_recipe(Path(__file__).resolve().parents[2] / "recipes" / "tumor-breast-lite0.toml")
assert isinstance(RECIPE, TumorRecipe)
SMALL = changed(RECIPE.refine.compose, side_mm=(0.6, 1.5), field_share=0.0, no_tumor_share=0.1)


def draw_fields() -> list[FieldImage]:
    """Carcinoma is speckled and everything else smooth, so that a slide shows where its tumor is."""
    rng = np.random.default_rng(0)
    fields = []
    for label, spread in (("normal", 2), ("benign", 3), ("invasive", 30)):
        for order in range(2):
            pixels = np.clip(rng.normal((200, 120, 170), spread, (240, 320, 3)), 0, 255).astype(np.uint8)
            fields.append(FieldImage(f"{label}{order}", label, order, pixels))
    return fields


def roughness(pixels: np.ndarray) -> np.ndarray:
    """How far each pixel is from its left neighbor, (..., H, W - 1)."""
    return np.abs(np.diff(pixels[..., 1].astype(float), axis=-1))


def classify(tiles: np.ndarray) -> np.ndarray:
    return (roughness(tiles).mean(axis=(1, 2)) > 10).astype(np.float32)


def test_tumor_is_where_the_mask_says() -> None:
    seen = set()
    for seed in range(6):
        slide, tumor = compose_slide(draw_fields(), SMALL, np.random.default_rng(seed))
        assert slide.shape[:2] == (tumor.shape[0] * 16, tumor.shape[1] * 16)
        fine = tumor.repeat(16, axis=0).repeat(16, axis=1)
        rough = roughness(slide)
        seen.add(bool(tumor.any()))
        if tumor.any() and not tumor.all():
            assert rough[fine[:, 1:]].mean() > 15 > 5 > np.median(rough[~fine[:, 1:]])
    assert True in seen


def test_a_single_field_is_a_slide_too() -> None:
    settings = changed(SMALL, field_share=1.0)
    slide, tumor = compose_slide(draw_fields(), settings, np.random.default_rng(1))
    assert tumor.all() or not tumor.any()
    assert slide.shape[0] <= 320 and slide.shape[1] <= 320


def test_a_frame_keeps_the_aspect_and_zero_where_no_tile_was_looked_at() -> None:
    slide = np.full((512, 1024, 3), 245, np.uint8)
    slide[:256, :256] = draw_fields()[-1].pixels[:1].repeat(256, axis=0)[:, :256]
    tumor = np.zeros((32, 64), bool)
    tumor[:16, :16] = True
    frame = frame_of(slide, tumor, classify, 256, 0.25, 512)
    assert frame.truth.shape == frame.heatmap.shape == (256, 512)
    assert frame.truth.sum() == 128 * 128
    assert frame.cells[:128, :128].min() == 1 and frame.cells[:, 128:].max() == 0
    assert frame.heatmap[60, 60] == 1 and frame.heatmap[200, 400] == 0
    inputs = frame.inputs(512)
    assert inputs["pixels"].shape == (1, 512, 512, 3) and (inputs["pixels"][0, 256:] == 255).all()
    assert inputs["heatmap"].shape == (1, 512, 512, 1) and (inputs["heatmap"][0, 256:] == 0).all()


def test_frames_are_kept_and_a_cut_off_one_is_made_again(tmp_path: Path) -> None:
    refine = changed(RECIPE.refine, compose=SMALL)
    recipe = changed(RECIPE, refine=refine)
    made = compose_frames(recipe, draw_fields(), classify, 2, 5, tmp_path)
    (tmp_path / "001.npz").write_bytes((tmp_path / "001.npz").read_bytes()[:100])
    again = compose_frames(recipe, draw_fields(), classify, 2, 5, tmp_path)
    for one, two in zip(made, again, strict=True):
        np.testing.assert_array_equal(one.pixels, two.pixels)
        np.testing.assert_array_equal(one.heatmap, two.heatmap)
    settings = changed(refine, crop_px=128)
    source = FrameSource(made, settings)
    pixels, heat, truth = source.draw(np.random.default_rng(0), 12)
    assert pixels.shape == (12, 128, 128, 3) and heat.shape == (12, 128, 128, 1)
    assert truth.shape == (12, 1, 128, 128) and truth.min() >= 0 and truth.max() <= 1
    np.testing.assert_array_equal(pixels, source.draw(np.random.default_rng(0), 12)[0])


def test_frames_of_another_classifier_seed_or_field_are_made_anew(tmp_path: Path) -> None:
    refine = changed(RECIPE.refine, compose=SMALL)
    recipe = changed(RECIPE, refine=refine)

    def never(tiles: np.ndarray) -> np.ndarray:
        return np.zeros(len(tiles), np.float32)

    first = compose_frames(recipe, draw_fields(), classify, 1, 5, tmp_path)
    assert first[0].heatmap.max() > 0
    assert compose_frames(recipe, draw_fields(), never, 1, 5, tmp_path)[0].heatmap.max() == 0
    other = compose_frames(recipe, draw_fields(), classify, 1, 6, tmp_path)
    assert not np.array_equal(other[0].pixels, first[0].pixels)
    back = compose_frames(recipe, draw_fields(), classify, 1, 5, tmp_path)
    np.testing.assert_array_equal(back[0].heatmap, first[0].heatmap)
    paler = [replace(field, pixels=255 - (255 - field.pixels) // 2) for field in draw_fields()]
    assert (
        compose_frames(recipe, paler, classify, 1, 5, tmp_path)[0].pixels.mean() > first[0].pixels.mean() + 10
    )


def test_region_scores_tell_both_stages_apart() -> None:
    truth = np.zeros((8, 8), bool)
    truth[:4] = True
    pixels = np.zeros((8, 8, 3), np.uint8)
    poor = np.where(np.arange(8)[None] < 4, 0.9, 0.1) * np.ones((8, 1))
    ill = Frame(pixels, poor.astype(np.float32), poor.astype(np.float32), truth)
    well = Frame(pixels, poor.astype(np.float32), poor.astype(np.float32), np.zeros_like(truth))
    good = truth * np.float32(0.6)
    assert 0.1 <= threshold_of_regions([ill], [good]) < 0.6
    spot = np.zeros((8, 8), np.float32)
    spot[0, 0] = 0.7
    # One pixel on a slide without tumor does not outweigh the region of another.
    assert threshold_of_regions([ill, well], [good, spot]) < 0.6
    scores = {
        score.name: score.value
        for score in region_scores([ill, well], [truth, np.zeros_like(truth)], 0.5, 0.05, 0.5)
    }
    assert scores == {
        "region DSC, stage 1 alone": 0.5,
        "region DSC, stage 1 alone, threshold by region": 0.6667,
        "region DSC, with refinement": 1.0,
        "area wrongly called tumor, stage 1 alone": 0.5,
        "area wrongly called tumor, stage 1 alone, threshold by region": 1.0,
        "area wrongly called tumor, with refinement": 0.0,
    }
