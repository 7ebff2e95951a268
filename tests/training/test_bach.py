"""Blocks never mix, tiles cover a field, batches repeat exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lobule.errors import ConfigurationError
from lobule.training.bach import (
    FieldImage,
    TileSource,
    read_fields,
    split_blocks,
    tile_field,
    tissue_share,
)
from lobule.training.recipe import AugmentSettings, BlockSplit

SPLIT = BlockSplit(training=0.6, selection=0.2, search=4, natural_gap=4, dropped=2)
AUGMENT = AugmentSettings(
    share=0.8,
    scale=(0.8, 1.25),
    hue_degrees=14,
    saturation=0.3,
    brightness=0.15,
    contrast=0.25,
    white=0.06,
    stain=0.1,
    blur_px=1.8,
    jpeg_quality=(50, 95),
)


def draw_field(label: str, order: int) -> FieldImage:
    rng = np.random.default_rng(order)
    pixels = rng.integers(60, 200, (300, 400, 3)).astype(np.uint8)
    pixels[..., 1] //= 2
    return FieldImage(f"{label}{order}.jpg", label, order, pixels)


@given(st.lists(st.integers(1, 300), min_size=30, max_size=120, unique=True))
def test_blocks_are_contiguous_in_order_and_apart(orders: list[int]) -> None:
    blocks = split_blocks(orders, SPLIT)
    training, selection, test = blocks["training"], blocks["selection"], blocks["test"]
    joined = training + selection + test
    assert joined == sorted(joined) and set(joined) <= set(orders)
    assert training and selection and test
    series = sorted(orders)
    for before, after in ((training, selection), (selection, test)):
        between = series.index(after[0]) - series.index(before[-1]) - 1
        assert between >= SPLIT.dropped or after[0] - before[-1] >= SPLIT.natural_gap


def test_a_wide_gap_near_the_nominal_cut_is_taken() -> None:
    orders = [*range(1, 46), *range(69, 101)]
    assert split_blocks(orders, SPLIT)["training"] == list(range(1, 46))


def test_without_a_gap_fields_are_left_out_between_blocks() -> None:
    blocks = split_blocks(list(range(100)), SPLIT)
    assert blocks["training"] == list(range(60))
    assert blocks["selection"] == list(range(62, 80))
    assert blocks["test"] == list(range(82, 100))


def test_tissue_is_what_is_colored() -> None:
    tile = np.full((10, 10, 3), 240, np.uint8)
    assert tissue_share(tile) == 0
    tile[:5] = (200, 120, 180)
    assert tissue_share(tile) == 0.5


def test_tiles_cover_the_whole_field_at_the_working_resolution() -> None:
    field = draw_field("normal", 1)
    spots, tiles = tile_field(field.pixels, 0.84, 1.0, 64, 0.25)
    height, width = round(300 * 0.84), round(400 * 0.84)
    covered = np.zeros((height, width), bool)
    for x, y in spots:
        covered[y : y + 64, x : x + 64] = True
    assert covered.all() and tiles.shape == (len(spots), 64, 64, 3)


def test_batches_repeat_for_a_seed_and_hold_both_classes() -> None:
    fields = [draw_field(label, k) for k, label in enumerate(["normal", "benign", "insitu", "invasive"])]
    source = TileSource(fields, 0.84, 1.0, 64, 0.25, 0.1, AUGMENT)
    first = source.draw(np.random.default_rng(7), 16)
    second = source.draw(np.random.default_rng(7), 16)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert first[0].shape == (16, 64, 64, 3) and set(first[1]) == {0, 1}


def test_fields_of_one_class_only_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="carcinoma and other"):
        TileSource([draw_field("normal", 1)], 0.84, 1.0, 64, 0.25, 0.1, AUGMENT)


def test_the_real_fields_fall_into_three_blocks_of_all_classes(data_dir: Path) -> None:
    blocks = read_fields(data_dir / "bach", SPLIT)
    assert {name: len(fields) for name, fields in blocks.items()} == {
        "training": 155,
        "selection": 58,
        "test": 47,
    }
    for fields in blocks.values():
        assert {field.label for field in fields} == {"benign", "insitu", "invasive", "normal"}
    with pytest.raises(ConfigurationError, match=r"labels\.csv"):
        read_fields(data_dir, SPLIT)
