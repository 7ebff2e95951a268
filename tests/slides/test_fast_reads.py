"""The fast ways of reading against the obvious ones: tile by tile means, weighted sums, reused memory, threads."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from slides.painted import Picture, reduce, write_dicom, write_pyramid

from lobule.errors import SlideReadError
from lobule.geometry import Box, Mpp, WorkingFrame
from lobule.slides import ArraySlide, Slide, open_slide, read_overview, read_region, tiff_levels
from lobule.slides.jpeg_frames import DecodeError, decode_jpeg, read_jpeg_header
from lobule.slides.resample import block_means, resample
from lobule.slides.reused_memory import borrow, empty_pixels
from lobule.slides.tiff_levels import SegmentCache


def plain_means(image: np.ndarray, rx: int, ry: int) -> np.ndarray:
    """The slow oracle: every pixel of a block laid beside the others, whole numbers, rounded half up."""
    height, width = image.shape[0] // ry, image.shape[1] // rx
    blocks = image[: height * ry, : width * rx].reshape(height, ry, width, rx, 3).astype(np.int64)
    means: np.ndarray = ((2 * blocks.sum((1, 3)) + rx * ry) // (2 * rx * ry)).astype(np.uint8)
    return means


def plain_region(
    level: np.ndarray, box: Box, factor: tuple[int, int], background: tuple[int, int, int] = (255, 255, 255)
) -> np.ndarray:
    """The slow oracle: the box's pixels laid out with the background around them, then averaged."""
    rx, ry = factor
    x, y = np.arange(box.x0 * rx, box.x1 * rx), np.arange(box.y0 * ry, box.y1 * ry)
    laid = level[y.clip(0, level.shape[0] - 1)][:, x.clip(0, level.shape[1] - 1)]
    outside = ((y < 0) | (y >= level.shape[0]))[:, None] | ((x < 0) | (x >= level.shape[1]))[None]
    laid[outside] = background
    return plain_means(laid, rx, ry)


def texture(width: int, height: int, seed: int = 0) -> Picture:
    """Stains and noise, so that every pixel matters and JPEG has work to do."""
    random = np.random.default_rng(seed)
    coarse = random.integers(60, 256, (height // 8 + 2, width // 8 + 2, 3)).repeat(8, 0).repeat(8, 1)
    noise = random.integers(-20, 21, (height, width, 3))
    return (coarse[:height, :width] + noise).clip(0, 255).astype(np.uint8)


@settings(max_examples=80)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 30)),
    factor=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    seed=st.integers(0, 9),
    aligned=st.booleans(),
)
def test_means_of_blocks_are_rounded_half_up(
    size: tuple[int, int], factor: tuple[int, int], seed: int, aligned: bool
) -> None:
    random = np.random.default_rng(seed)
    low = int(random.choice([0, 250]))  # full pixels are what overflows
    image = random.integers(low, 256, (size[1] * factor[1], size[0] * factor[0] + 5, 3), np.uint8)
    piece = image[:, : size[0] * factor[0]] if aligned else image[:, 5:]
    frame = np.full((size[1] + 2, size[0] + 2, 3), 7, np.uint8)
    block_means(piece, *factor, frame[1:-1, 1:-1])
    assert np.array_equal(frame[1:-1, 1:-1], plain_means(piece, *factor))
    frame[1:-1, 1:-1] = 7
    assert (frame == 7).all()


def test_every_sum_of_four_bytes_is_rounded_right() -> None:
    sums = np.arange(1021)
    parts = np.stack([sums // 4, (sums + 1) // 4, (sums + 2) // 4, (sums + 3) // 4]).astype(np.uint8)
    piece = np.repeat(parts.reshape(2, 2, -1).transpose(0, 2, 1).reshape(2, -1)[:, :, None], 3, axis=2)
    means = np.empty((1, 1021, 3), np.uint8)
    block_means(piece, 2, 2, means)
    assert (means[0] == ((sums + 2) // 4)[:, None]).all()


@pytest.mark.parametrize("factor", [(16, 16), (17, 16), (64, 64), (300, 1), (1, 300)])
def test_full_pixels_stay_full(factor: tuple[int, int]) -> None:
    rx, ry = factor
    means = np.empty((3, 5, 3), np.uint8)
    block_means(np.full((3 * ry, 5 * rx, 3), 255, np.uint8), rx, ry, means)
    assert (means == 255).all()


def plain_resample(
    image: np.ndarray, first: tuple[int, int], size: tuple[int, int], step: tuple[float, float]
) -> np.ndarray:
    """The slow oracle for a source that reaches from (0, 0): dense matrices of shares, in double precision."""

    def shares(first: int, count: int, step: float, length: int) -> np.ndarray:
        start = ((first + np.arange(count)) * step)[:, None]
        pixels = np.arange(length)[None]
        return (np.minimum(start + step, pixels + 1) - np.maximum(start, pixels)).clip(0, None) / step

    down = shares(first[1], size[1], step[1], image.shape[0])
    along = shares(first[0], size[0], step[0], image.shape[1])
    rows = np.tensordot(down, image.astype(float), 1)
    exact: np.ndarray = np.tensordot(along, rows, (1, 1)).transpose(1, 0, 2)
    return exact


@settings(max_examples=80)
@given(
    step=st.tuples(st.floats(1.0, 9.0), st.floats(1.0, 9.0)),
    first=st.tuples(st.integers(0, 30), st.integers(0, 30)),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    seed=st.integers(0, 9),
)
def test_parts_of_pixels_count_as_parts(
    step: tuple[float, float], first: tuple[int, int], size: tuple[int, int], seed: int
) -> None:
    ends = [int(np.ceil((first[axis] + size[axis]) * step[axis])) + 1 for axis in (0, 1)]
    image = np.random.default_rng(seed).integers(0, 256, (ends[1], ends[0], 3), np.uint8)
    result = resample(image, (0, 0), first, size, step, (ends[0], ends[1]))
    assert np.abs(result - plain_resample(image, first, size, step)).max() <= 0.501


JPEG_KINDS: dict[str, dict[str, Any]] = {
    "4:2:0": {"subsampling": "420"},
    "4:2:2": {"subsampling": "422"},
    "4:4:4": {"subsampling": "444"},
    "rgb": {"outcolorspace": "RGB"},
    "optimized tables": {"optimize": True},
}


def write_jpeg_tiles(path: Path, picture: Picture, tile: int, **options: Any) -> None:
    """A TIFF of one level whose tiles are coded one by one, each with its own tables."""
    height, width = picture.shape[:2]
    padded = np.pad(picture, ((0, -height % tile), (0, -width % tile), (0, 0)), mode="edge")
    tiles = [
        imagecodecs.jpeg8_encode(
            np.ascontiguousarray(padded[y : y + tile, x : x + tile]), level=90, colorspace="RGB", **options
        )
        for y in range(0, height, tile)
        for x in range(0, width, tile)
    ]
    with tifffile.TiffWriter(path) as writer:
        writer.write(
            iter(tiles), shape=picture.shape, dtype=np.uint8, tile=(tile, tile), compression="jpeg",
            photometric="rgb" if options.get("outcolorspace") == "RGB" else "ycbcr", metadata=None,
            resolution=(40_000, 40_000), resolutionunit="CENTIMETER",
            subsampling=(2, 2) if options.get("subsampling") == "420" else None,
        )  # fmt: skip


@pytest.fixture(scope="module", params=list(JPEG_KINDS))
def jpeg_slide(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slide]:
    path = tmp_path_factory.mktemp("jpeg") / "a.tif"
    write_jpeg_tiles(path, texture(300, 210), 64, **JPEG_KINDS[request.param])
    with open_slide(path) as slide:
        yield slide


def whole_jpeg_level(slide: Slide) -> np.ndarray:
    """The slow oracle: every tile decoded by itself into memory of its own."""
    width, height = slide.size
    with tifffile.TiffFile(slide.path) as tiff:
        page = tiff.pages.first
        rows = [
            np.concatenate(
                [
                    imagecodecs.jpeg8_decode(_bytes_of(slide, page, row * -(-width // 64) + column))
                    for column in range(-(-width // 64))
                ],
                axis=1,
            )
            for row in range(-(-height // 64))
        ]
    return np.concatenate(rows)[:height, :width]


def _first_tile(slide: Slide) -> bytes:
    with tifffile.TiffFile(slide.path) as tiff:
        return _bytes_of(slide, tiff.pages.first, 0)


def _bytes_of(slide: Slide, page: Any, index: int) -> bytes:
    assert slide.path is not None
    start = page.dataoffsets[index]
    return slide.path.read_bytes()[start : start + page.databytecounts[index]]


def test_jpeg_tiles_are_decoded_exactly_wherever_they_go(jpeg_slide: Slide) -> None:
    level = whole_jpeg_level(jpeg_slide)
    assert np.array_equal(jpeg_slide.read_level(0, (0, 0), jpeg_slide.size), level)
    for x, y, width, height in ((64, 64, 64, 64), (0, 0, 64, 64), (192, 64, 108, 146), (3, 70, 90, 17)):
        pixels = jpeg_slide.read_level(0, (x, y), (width, height))
        assert np.array_equal(pixels, level[y : y + height, x : x + width])
        assert pixels.flags.writeable and pixels.flags.c_contiguous


def test_openslide_sees_the_same_pixels(jpeg_slide: Slide) -> None:
    assert jpeg_slide.path is not None
    if read_jpeg_header(_first_tile(jpeg_slide)).color_space("YCBCR") == "RGB":
        pytest.skip("OpenSlide takes RGB in JPEG for YCbCr where the tags say so")
    with openslide.OpenSlide(jpeg_slide.path) as theirs:
        expected = np.asarray(theirs.read_region((0, 0), 0, jpeg_slide.size))[..., :3]
    assert np.array_equal(jpeg_slide.read_level(0, (0, 0), jpeg_slide.size), expected)


BOXES = st.builds(
    lambda x, y, width, height: Box(x, y, x + width, y + height),
    st.one_of(st.sampled_from([0, 16, 32, 64]), st.integers(-20, 160)),
    st.one_of(st.sampled_from([0, 16, 32, 64]), st.integers(-20, 120)),
    st.one_of(st.sampled_from([16, 32, 64]), st.integers(1, 90)),
    st.one_of(st.sampled_from([16, 32, 64]), st.integers(1, 90)),
)


@settings(max_examples=60)
@given(box=BOXES, factor=st.tuples(*[st.sampled_from([1, 2, 2, 3, 4, 8])] * 2))
def test_means_taken_tile_by_tile_equal_means_of_the_region(
    jpeg_slide: Slide, box: Box, factor: tuple[int, int]
) -> None:
    frame = WorkingFrame(jpeg_slide.size, Mpp(0.25, 0.25), Mpp(0.25 * factor[0], 0.25 * factor[1]))
    pixels = read_region(jpeg_slide, frame, box)
    level = jpeg_slide.read_level(0, (0, 0), jpeg_slide.size)
    assert np.array_equal(pixels, plain_region(level, box, factor))
    assert pixels.flags.writeable and pixels.flags.c_contiguous


def _write(kind: str, picture: Picture, folder: Path) -> Path:
    path = folder / ("a.svs" if kind == "aperio" else "a.dcm" if kind == "dicom" else "a.tif")
    options: dict[str, Any] = {"photometric": "rgb", "metadata": None}
    if kind in ("aperio", "ome"):
        write_pyramid(path, picture, levels=(), kind=kind, compression="jpeg")
    elif kind == "dicom":
        write_dicom(path, picture, photometric="RGB")
    elif kind == "strips":
        tifffile.imwrite(path, picture, compression="lzw", rowsperstrip=48, **options)
    elif kind == "bare":
        tifffile.imwrite(path, picture, rowsperstrip=199, **options)
    elif kind == "turned":
        tifffile.imwrite(path, picture, tile=(64, 64), extratags=[(274, 3, 1, 6, True)], **options)
    elif kind == "planes":
        planes = np.ascontiguousarray(picture.transpose(2, 0, 1))
        tifffile.imwrite(path, planes, planarconfig="separate", tile=(64, 64), **options)
    else:
        assert kind == "sixteen"
        tifffile.imwrite(path, picture.astype(np.uint16) * 257, tile=(64, 48), **options)
    return path


@pytest.mark.parametrize("kind", ["aperio", "ome", "dicom", "strips", "bare", "turned", "planes", "sixteen"])
def test_every_way_of_storing_is_averaged_alike(kind: str, tmp_path: Path) -> None:
    with open_slide(_write(kind, texture(251, 199), tmp_path), mpp=0.25) as slide:
        level = slide.read_level(0, (0, 0), slide.size)
        random = np.random.default_rng(1)
        for factor in ((2, 2), (4, 2), (3, 3), (16, 16), (64, 32)):
            frame = WorkingFrame(slide.size, Mpp(0.25, 0.25), Mpp(0.25 * factor[0], 0.25 * factor[1]))
            for _ in range(5):
                x, y = (int(v) for v in random.integers(-3, 200 // max(factor) + 1, 2))
                box = Box(x, y, x + int(random.integers(1, 30)), y + int(random.integers(1, 30)))
                if box.x1 * factor[0] > 600 or box.y1 * factor[1] > 550:
                    continue
                assert np.array_equal(read_region(slide, frame, box), plain_region(level, box, factor))


@pytest.mark.parametrize("tile", [None, (64, 64)])
def test_tiles_left_out_are_background_in_means_too(tile: tuple[int, int] | None, tmp_path: Path) -> None:
    picture = texture(256, 256)
    tifffile.imwrite(
        tmp_path / "a.tif", picture, tile=tile, rowsperstrip=None if tile else 64, photometric="rgb",
        compression="lzw", metadata=None,
    )  # fmt: skip
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tiff:
        counts = list(tiff.pages.first.databytecounts)
        counts[0] = counts[2] = 0
        tiff.pages.first.tags[325 if tile else 279].overwrite(counts)
    if tile:
        picture[:64, :64] = picture[:64, 128:192] = 255
    else:
        picture[:64] = picture[128:192] = 255
    with open_slide(tmp_path / "a.tif", mpp=0.25) as slide:
        frame = WorkingFrame(slide.size, Mpp(0.25, 0.25), Mpp(0.5, 0.5))
        assert np.array_equal(read_overview(slide, frame), plain_means(picture, 2, 2))


@pytest.mark.parametrize("scale", [1.0, 2.0, 2.004, 3.957, 7.0, 33.3, 64.0])
def test_an_overview_is_the_same_by_any_number_of_workers(
    scale: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lobule.slides import region

    monkeypatch.setattr(region, "LARGEST_READ_PX", 40_000)
    write_pyramid(tmp_path / "a.tif", texture(900, 500), 0.25, levels=(), compression="jpeg")
    with open_slide(tmp_path / "a.tif") as slide:
        frame = WorkingFrame(slide.size, Mpp(0.25, 0.25), Mpp(0.25 * scale, 0.25 * scale))
        alone = read_overview(slide, frame)
        for workers in (2, 5):
            assert np.array_equal(read_overview(slide, frame, workers), alone)
        level = slide.read_level(0, (0, 0), slide.size)
        in_memory = ArraySlide(level, 0.25)
        monkeypatch.setattr(region, "LARGEST_READ_PX", 10_000_000)
        one_read = read_overview(in_memory, frame)
        limit = 0 if scale == int(scale) else 1
        assert np.abs(alone.astype(int) - one_read).max() <= limit


def test_threads_that_average_do_not_share_their_memory(jpeg_slide: Slide) -> None:
    frame = WorkingFrame(jpeg_slide.size, Mpp(0.25, 0.25), Mpp(0.5, 0.5))
    finer = WorkingFrame(jpeg_slide.size, Mpp(0.25, 0.25), Mpp(0.51, 0.47))
    boxes = [
        (f, Box(x, y, x + 32, y + 32)) for f in (frame, finer) for x in range(0, 150, 16) for y in (0, 32)
    ]
    alone = [read_region(jpeg_slide, *each) for each in boxes]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda each: read_region(jpeg_slide, *each), boxes * 5))
    assert all(np.array_equal(a, b) for a, b in zip(alone * 5, together, strict=True))


def test_what_was_read_before_stays_as_it_was(jpeg_slide: Slide) -> None:
    """Memory is reused, but never memory that was handed out."""
    frames = [
        WorkingFrame(jpeg_slide.size, Mpp(0.25, 0.25), Mpp(0.25 * step, 0.25 * step)) for step in (1, 2, 2.3)
    ]
    for frame in frames:
        regions = [read_region(jpeg_slide, frame, Box(x, x, x + 64, x + 64)) for x in (0, 64, 0, 30)]
        copies = [region.copy() for region in regions]
        for region in regions[:2]:
            region[...] = 3
        assert np.array_equal(read_region(jpeg_slide, frame, Box(0, 0, 64, 64)), copies[0])
        assert np.array_equal(regions[2], copies[2]) and np.array_equal(regions[3], copies[3])


def test_a_damaged_tile_is_named_in_means_too(tmp_path: Path) -> None:
    write_jpeg_tiles(tmp_path / "a.tif", texture(300, 210), 64)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        start = tiff.pages.first.dataoffsets[7]
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[start : start + 2] = b"no"
    (tmp_path / "a.tif").write_bytes(data)
    with open_slide(tmp_path / "a.tif") as slide:
        frame = WorkingFrame(slide.size, Mpp(0.25, 0.25), Mpp(0.5, 0.5))
        with pytest.raises(SlideReadError, match=r"tile \(2, 1\) of the 300 x 210 px level"):
            read_overview(slide, frame)
        assert read_region(slide, frame, Box(0, 0, 32, 32)).shape == (32, 32, 3)
        slide.close()
        with pytest.raises(SlideReadError, match="closed"):
            read_region(slide, frame, Box(0, 0, 32, 32))


def test_only_tiles_used_in_part_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_jpeg_tiles(tmp_path / "a.tif", texture(256, 192), 64)
    kept: list[tuple[int, int]] = []
    keep = SegmentCache.keep

    def note(self: SegmentCache, key: tuple[int, int], segment: np.ndarray) -> None:
        kept.append(key)
        keep(self, key, segment)

    with open_slide(tmp_path / "a.tif") as slide:
        monkeypatch.setattr(SegmentCache, "keep", note)
        half = WorkingFrame(slide.size, Mpp(0.25, 0.25), Mpp(0.5, 0.5))
        read_overview(slide, half)
        slide.read_level(0, (64, 64), (128, 64))
        slide.read_level(0, (64, 64), (64, 64))
        assert not kept
        slide.read_level(0, (70, 70), (64, 20))
        assert len(kept) == 2


def test_the_cache_keeps_within_its_limit() -> None:
    cache = SegmentCache(1000)
    for index in range(10):
        cache.keep((0, index), np.zeros((10, 10, 3), np.uint8))
    assert [cache.find((0, index)) is not None for index in range(10)] == [False] * 7 + [True] * 3
    cache.keep((1, 0), np.zeros((100, 100, 3), np.uint8))
    assert cache.find((1, 0)) is not None and cache.find((0, 9)) is None


@pytest.fixture
def strips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Slide, list[int]]]:
    """A slide of 50 strips of 1200 x 8 px, of which the cache holds 20, 5 if they were tiles; and what was decoded."""
    tifffile.imwrite(
        tmp_path / "a.tif", texture(1200, 400), rowsperstrip=8, photometric="rgb", compression="zlib"
    )
    decoded: list[int] = []
    decode = tiff_levels.decode_segment

    def note(data: bytes, *rest: Any) -> np.ndarray:
        decoded.append(len(data))
        time.sleep(0.001)  # threads that do not wait for each other are seen to do the same work
        return decode(data, *rest)

    with open_slide(tmp_path / "a.tif", mpp=0.25) as slide:
        monkeypatch.setattr(tiff_levels, "decode_segment", note)
        monkeypatch.setattr(tiff_levels, "MOST_CACHE_BYTES", 20 * 1200 * 8 * 3)
        monkeypatch.setattr(slide, "_cache", SegmentCache(5 * 1200 * 8 * 3))
        yield slide, decoded


@pytest.mark.parametrize("largest_px", [5_000, 20_000, 100_000])
@pytest.mark.parametrize("step", [12.0, 8.7])
def test_an_overview_decodes_a_strip_once(
    step: float, largest_px: int, strips: tuple[Slide, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    slide, decoded = strips
    frame = WorkingFrame(slide.size, Mpp(0.25, 0.25), Mpp(0.25 * step, 0.25 * step))
    at_once = read_overview(slide, frame)
    decoded.clear()
    monkeypatch.setattr(slide, "_cache", SegmentCache(5 * 1200 * 8 * 3))
    monkeypatch.setattr("lobule.slides.region.LARGEST_READ_PX", largest_px)
    assert np.array_equal(read_overview(slide, frame), at_once)
    # where a working pixel ends within the last row of a strip, the next band of rows needs that strip again
    assert 50 <= len(decoded) <= (50 if step == 12.0 else 56)


@pytest.mark.parametrize("threads", [1, 4])
def test_a_row_of_tiles_decodes_a_strip_once(threads: int, strips: tuple[Slide, list[int]]) -> None:
    slide, decoded = strips
    frame = WorkingFrame(slide.size, Mpp(0.25, 0.25), Mpp(0.5, 0.5))
    boxes = [Box(x, 0, x + 32, 64) for x in range(0, 600, 32)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda box: read_region(slide, frame, box), boxes))
    assert len(decoded) == 16
    read_region(slide, frame, Box(0, 0, 32, 200))
    assert len(decoded) == 50
    kept = cast(Any, slide)._cache._kept
    assert sum(strip.nbytes for strip in kept.values()) == 20 * 1200 * 8 * 3


def test_heads_that_repeat_are_read_as_if_they_were_new() -> None:
    flat = np.full((16, 24, 3), (200, 90, 160), np.uint8)
    first = imagecodecs.jpeg8_encode(flat, level=90)
    second = imagecodecs.jpeg8_encode(np.zeros((24, 16, 3), np.uint8), level=90)
    for data in (first, second, first, second):
        header = read_jpeg_header(data)
        out = np.empty((header.height, header.width, 3), np.uint8)
        pixels = decode_jpeg(data, declared="YCBCR", largest=(24, 24), out=out)
        assert pixels is out or np.shares_memory(pixels, out)
        assert np.array_equal(pixels, imagecodecs.jpeg8_decode(data))
        with pytest.raises(DecodeError, match="claims"):
            decode_jpeg(data, declared="YCBCR", largest=(16, 16))
    # a comment that looks like the start of a scan
    odd = first[:2] + b"\xff\xfe\x00\x06\xff\xda\x00\x00" + first[2:]
    assert np.array_equal(
        decode_jpeg(odd, declared="YCBCR", largest=(24, 24)), imagecodecs.jpeg8_decode(first)
    )
    cut = first[: first.find(b"\xff\xc0") + 6]
    with pytest.raises(DecodeError, match=r"cut short|no frame header"):
        decode_jpeg(cut, declared="YCBCR", largest=(24, 24))
    wrong = np.empty((5, 5, 3), np.uint8)
    assert decode_jpeg(first, declared="YCBCR", largest=(24, 24), out=wrong).shape == (16, 24, 3)
    gray = imagecodecs.jpeg8_encode(np.zeros((16, 24), np.uint8))
    assert decode_jpeg(gray, declared="YCBCR", largest=(24, 24), out=out).shape == (16, 24, 1)


def test_borrowed_memory_is_a_threads_own() -> None:
    mine = borrow("test", (40,))
    mine[...] = 1
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(lambda: borrow("test", (40,))).result()
    assert not np.shares_memory(mine, other)
    again = borrow("test", (5, 2), np.uint32)
    assert np.shares_memory(mine, again) and again.flags.c_contiguous and again.dtype == np.uint32
    huge = borrow("test", (5_000_000,))
    assert not np.shares_memory(huge, borrow("test", (5_000_000,)))
    assert empty_pixels(3, 4).shape == (3, 4, 3)


def test_an_uneven_level_of_a_pyramid_is_read_as_stored(tmp_path: Path) -> None:
    picture = texture(301, 443)
    write_pyramid(tmp_path / "a.tif", [picture, reduce(picture, 2)], 0.25)
    with open_slide(tmp_path / "a.tif") as slide:
        frame = WorkingFrame(slide.size, Mpp(0.25, 0.25), Mpp(1.0, 1.0))
        assert np.array_equal(
            read_region(slide, frame, Box(0, 0, 75, 110)), plain_means(reduce(picture, 2), 2, 2)[:110]
        )


def test_pixels_from_openslide_are_laid_over_the_background_as_before(tmp_path: Path) -> None:
    """Where all are opaque a shorter way is taken; the edge of the scanned part meets both."""
    from slides.painted import write_leica_with_bounds

    picture = texture(248, 196)
    write_leica_with_bounds(tmp_path / "a.scn", picture, offset_px=(36, 20))
    with open_slide(tmp_path / "a.scn") as slide, openslide.OpenSlide(tmp_path / "a.scn") as theirs:
        for x, y in ((0, 0), (40, 30), (20, 10), (250, 190)):
            rgba = np.asarray(theirs.read_region((x, y), 0, (60, 50))).astype(float)
            alpha = rgba[..., 3:] / 255
            expected = np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha))
            pixels = slide.read_level(0, (x, y), (60, 50))
            assert np.array_equal(pixels, expected) and pixels.flags.writeable and pixels.flags.c_contiguous
