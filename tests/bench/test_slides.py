"""The harness's slides: made small, read by lobule and by OpenSlide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from jpeg_tiles import decode, decode_all, load_tiles, tile_levels, timed_threads, whole_stream
from nuclei import dense_square
from readers import largest_difference, tissue_places
from slide_maker import (
    WrittenLevel,
    add_grain,
    cut_tiles,
    encode,
    make_gap_slide,
    quarter,
    split_tables,
    write_slide,
)

SIZE = (8_192, 4_096)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    picture = np.full((*SIZE[::-1], 3), (243, 243, 244), np.uint8)
    y, x = np.ogrid[: SIZE[1], : SIZE[0]]
    picture[np.hypot(x - 5000, y - 2000) < 1800] = (205, 140, 185)
    tables = split_tables(encode(picture[:256, :256]))[1]
    write_slide(folder / "drawn.svs", [WrittenLevel(SIZE, cut_tiles(picture))], tables, 0.25)
    add_grain(folder / "drawn.svs", folder / "bench.svs", 0.25)
    return folder / "bench.svs"


def test_the_slide_is_what_every_reader_takes_for_an_aperio_one(slide: Path) -> None:
    import openslide

    with openslide.OpenSlide(slide) as opened:
        assert opened.detect_format(slide) == "aperio"
        assert opened.level_downsamples == pytest.approx((1, 4, 16, 64))
        assert float(opened.properties["openslide.mpp-x"]) == 0.25
        assert opened.properties["openslide.objective-power"] == "40"
    assert [level.size for level in tile_levels(slide)] == [SIZE, (2_048, 1_024), (512, 256), (128, 64)]
    assert not list(slide.parent.glob(".*")), "nothing is left beside it"


def test_tissue_tiles_take_as_many_bytes_as_a_sharp_scans(slide: Path) -> None:
    level = tile_levels(slide)[0]
    places = tissue_places(slide, "readers", 50)
    chosen = [y // 256 * level.columns + x // 256 for x, y in places]
    assert 0.2 < level.lengths[chosen].mean() / 256**2 < 0.45
    assert len(set(places)) == len(places), "each tile once"


@pytest.mark.parametrize(("case", "most"), [("readers", 0), ("half", 1)])
def test_its_pixels_are_the_same_for_lobule_and_openslide(slide: Path, case: str, most: int) -> None:
    assert largest_difference(slide, tissue_places(slide, case, 6), case) <= most


def test_levels_are_averages_of_level_0(slide: Path) -> None:
    levels = tile_levels(slide)
    x, y = tissue_places(slide, "half", 1)[0]
    column, row = x // 1024, y // 1024
    fine = [(row * 4 + j) * levels[0].columns + column * 4 + i for j in range(4) for i in range(4)]
    tiles = [decode(data) for data in load_tiles(slide, levels[0], fine)]
    whole = np.concatenate([np.concatenate(tiles[4 * j : 4 * j + 4], 1) for j in range(4)])
    coarse = decode(load_tiles(slide, levels[1], [row * levels[1].columns + column])[0])
    assert np.abs(quarter(whole).astype(int) - coarse).mean() < 4


def test_the_gap_slide_has_two_levels_of_the_same_pixels(slide: Path, tmp_path: Path) -> None:
    out = tmp_path / "gap.svs"
    make_gap_slide(slide, out)
    levels, source = tile_levels(out), tile_levels(slide)
    assert [level.size for level in levels] == [SIZE, (512, 256)]
    for kept, of in zip(levels, (source[0], source[2]), strict=True):
        every = range(0, len(of.offsets), 17)
        assert load_tiles(out, kept, every) == load_tiles(slide, of, every)


def test_tables_go_and_come_back_without_changing_a_pixel() -> None:
    rgb = np.random.default_rng(1).integers(0, 255, (256, 256, 3)).astype(np.uint8)
    data = encode(rgb)
    tile, tables = split_tables(data)
    assert b"\xff\xdb" not in tile[:200]
    np.testing.assert_array_equal(decode(whole_stream(tile, tables)), decode(data))


def test_decoding_all_tiles_takes_time_on_every_thread() -> None:
    data = encode(np.zeros((256, 256, 3), np.uint8))
    seconds = decode_all([data] * 20, 2)
    assert 0 < seconds.wall < 10
    assert seconds.cpu > 0


def test_an_error_in_a_thread_is_raised_where_it_is_waited_for() -> None:
    def broken() -> None:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        timed_threads([broken, lambda: None])


def test_the_densest_square_is_where_most_bytes_are(slide: Path) -> None:
    level = tile_levels(slide)[0]
    weights = level.lengths.reshape(level.rows, level.columns)
    corners = [(x, y) for y in range(level.rows - 3) for x in range(level.columns - 3)]
    most = max(int(weights[y : y + 4, x : x + 4].sum()) for x, y in corners)
    x, y = dense_square(slide, 1024)
    assert weights[y // 256 : y // 256 + 4, x // 256 : x // 256 + 4].sum() == most
