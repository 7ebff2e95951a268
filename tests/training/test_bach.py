"""Blocks never mix, tiles cover a field, batches repeat exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lobule.errors import ConfigurationError
from lobule.training.bach import (
    FieldImage,
    TileSource,
    read_fields,
    split_blocks,
    tile_field,
    tile_side_px,
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


def write_fields(folder: Path, table: str | None = None, *, side: int = 40, count: int = 12) -> Path:
    folder.mkdir(exist_ok=True)
    lines = ["\ufefffile;label;order"]
    for label in ("normal", "invasive"):
        for order in range(1, count + 1):
            save_image(folder / f"{label}{order}.png", side, order)
            lines.append(f"{label}{order}.png;{label};{order}")
    (folder / "labels.csv").write_text("\n".join(lines) if table is None else table, "utf-8")
    return folder


def save_image(path: Path, side: int, value: int) -> None:
    Image.fromarray(np.full((side, side + 8, 3), value, np.uint8)).save(path)


def test_a_table_as_spreadsheets_write_it_is_read(tmp_path: Path) -> None:
    split = BlockSplit(training=0.5, selection=0.25, search=0, natural_gap=9, dropped=0)
    blocks = read_fields(write_fields(tmp_path / "bach"), split, 40)
    assert {name: len(fields) for name, fields in blocks.items()} == {
        "training": 12, "selection": 6, "test": 6
    }  # fmt: skip
    first = blocks["selection"][0]
    assert (first.name, first.label, first.order, first.pixels[0, 0, 0]) == (
        "invasive7.png",
        "invasive",
        7,
        7,
    )


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,label\nnormal1.png,normal\n", r"labels.csv' .*columns file, label and order, not file, label"),
        ("", "columns file, label and order, not none"),
        ("file,label,order\nnormal1.png,normal,1\nnormal2.png,normal,x\n", "line 3.* not 'x'"),
        ("file,label,order\nnormal1.png,,1\n", "line 2.* must be named"),
        ("file,label,order\nnormal1.png,Invasive,1\n", r"line 2.* the label 'Invasive' is none of normal, "),
        ("file,label,order\nabsent.png,normal,1\n", r"line 2.* there is no file .*absent\.png"),
        ("file,label,order\nlabels.csv,normal,1\n", r"line 2.* is no image that can be decoded"),
        (
            "file,label,order\nnormal1.png,normal,1\ninvasive1.png,invasive,1\nnormal2.png,normal,1\n",
            r"line 4.* order 1 of normal is that of normal1\.png, too",
        ),
        ("file,label,order\nsmall.png,normal,1\n", r"line 2.* small\.png is 38 × 30 px, smaller than a tile"),
        (
            "file,label,order\nnormal1.png,normal,1\n",
            r"of its fields \(1\) none is left for the selection block",
        ),
    ],
)
def test_what_is_wrong_with_fields_is_one_line_that_names_the_row(
    table: str, message: str, tmp_path: Path
) -> None:
    folder = write_fields(tmp_path / "bach", table, count=2)
    save_image(folder / "small.png", 30, 9)
    with pytest.raises(ConfigurationError, match=message) as caught:
        read_fields(folder, SPLIT, 31)
    assert "\n" not in str(caught.value)


def test_the_least_side_of_a_field_holds_a_tile() -> None:
    side = tile_side_px(256, 1.0, 0.84)
    assert side == 305 and tile_side_px(256, 1.0, 0.5) == 512
    pixels = np.full((side, side, 3), 90, np.uint8)
    pixels[..., 1] = 40
    spots, tiles = tile_field(pixels, 0.84, 1.0, 256, 0.25)
    assert spots == [(0, 0)] and tiles.shape == (1, 256, 256, 3)


def test_the_real_fields_fall_into_three_blocks_of_all_classes(data_dir: Path) -> None:
    blocks = read_fields(data_dir / "bach", SPLIT, 305)
    assert {name: len(fields) for name, fields in blocks.items()} == {
        "training": 155,
        "selection": 58,
        "test": 47,
    }
    for fields in blocks.values():
        assert {field.label for field in fields} == {"benign", "insitu", "invasive", "normal"}
    with pytest.raises(ConfigurationError, match=r"labels\.csv"):
        read_fields(data_dir, SPLIT, 305)
