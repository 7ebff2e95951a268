"""Slides are what was asked, readable, the same every time, and written whole or not at all."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from lobule.errors import ConfigurationError, ResultWriteError
from lobule.geometry import Mpp, WorkingFrame
from lobule.phantom import PhantomSpec, PhantomTruth, read_field_labels, read_truth, truth_mask, write_phantom
from lobule.phantom.compose import Composer
from lobule.phantom.histology import draw_canvas
from lobule.phantom.patchwork import Patchwork
from lobule.phantom.pyramid import pyramid_sizes

from .conftest import DRAWN


def read(slide: openslide.OpenSlide, level: int) -> np.ndarray:
    return np.asarray(slide.read_region((0, 0), level, slide.level_dimensions[level]).convert("RGB"))


def frame_of(truth: PhantomTruth, mpp: float) -> WorkingFrame:
    return WorkingFrame(truth.size, Mpp(truth.mpp, truth.mpp), Mpp(mpp, mpp))


def test_levels_go_as_far_as_the_first_within_512_px_four_at_most() -> None:
    """1.6 × 1.2 mm at 0.5 µm/px, the example of the page on phantoms, has three."""
    assert pyramid_sizes((3200, 2400)) == ((3200, 2400), (800, 600), (200, 150))
    assert [size[0] for size in pyramid_sizes((80_000, 40_000))] == [80_000, 20_000, 5_000, 1_250]
    assert pyramid_sizes((512, 300)) == ((512, 300),)


def test_openslide_reads_an_svs_as_aperio_with_its_mpp_and_levels(drawn: PhantomTruth) -> None:
    with openslide.OpenSlide(drawn.slide) as slide:
        assert slide.properties["openslide.vendor"] == "aperio"
        assert float(slide.properties["openslide.mpp-x"]) == 0.25
        assert float(slide.properties["openslide.mpp-y"]) == 0.25
        assert float(slide.properties["openslide.objective-power"]) == 40
        assert slide.level_dimensions == ((6000, 4500), (1500, 1125), (375, 281))
        assert slide.properties["openslide.level[0].tile-width"] == "256"


def test_openslide_reads_a_tif_as_generic_with_its_mpp(patched: PhantomTruth) -> None:
    with openslide.OpenSlide(patched.slide) as slide:
        assert slide.properties["openslide.vendor"] == "generic-tiff"
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5, rel=1e-6)
        assert slide.level_dimensions == pyramid_sizes((5000, 4100))


def test_tifffile_reads_the_same_pixels_as_openslide(patched: PhantomTruth) -> None:
    with tifffile.TiffFile(patched.slide) as file, openslide.OpenSlide(patched.slide) as slide:
        assert file.is_bigtiff
        assert [page.shape for page in file.pages] == [(h, w, 3) for w, h in slide.level_dimensions]
        pixels = file.pages[1].asarray().astype(int)
        assert np.abs(pixels - read(slide, 1)).max() <= 3  # two JPEG decoders


@pytest.mark.parametrize("which", ["drawn", "patched"])
def test_each_level_is_level_0_averaged(which: str, request: pytest.FixtureRequest) -> None:
    truth: PhantomTruth = request.getfixturevalue(which)
    with openslide.OpenSlide(truth.slide) as slide:
        whole = Image.fromarray(read(slide, 0))
        for level in range(1, slide.level_count):
            width, height = slide.level_dimensions[level]
            factor = 4**level
            mean = whole.crop((0, 0, width * factor, height * factor)).reduce(factor)
            off = np.abs(np.asarray(mean, int) - read(slide, level))
            assert off.mean() < 3, level
            assert np.quantile(off, 0.99) < 45, level


def test_bytes_do_not_depend_on_workers(drawn: PhantomTruth, drawn_once: None, tmp_path: Path) -> None:
    again = write_phantom(tmp_path / "drawn.svs", DRAWN, workers=1)
    for first, second in (
        (drawn.slide, again.slide),
        (drawn.regions, again.regions),
        (drawn.nuclei, again.nuclei),
    ):
        assert first is not None
        assert second is not None
        assert first.read_bytes() == second.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "drawn.nuclei.geojson.gz",
        "drawn.svs",
        "drawn.truth.geojson",
    ]


def test_a_canvas_is_drawn_the_same_twice_and_other_seeds_draw_others() -> None:
    first, second, other = (draw_canvas("stroma", 0.25, seed) for seed in (1, 1, 2))
    assert first.encoded(0, 3, 5) == second.encoded(0, 3, 5)
    assert first.encoded(0, 3, 5) != other.encoded(0, 3, 5)
    assert first.encoded(0, 3, 5) == first.encoded(0, 19, 21)
    assert first.encoded(1, 1, 2) == first.encoded(1, 5, 6)


def test_a_canvas_has_no_seam_where_it_repeats() -> None:
    canvas = draw_canvas("stroma", 0.25, 1)
    pixels = np.concatenate([canvas.pixels(15, 2), canvas.pixels(16, 2)], axis=1).astype(int)
    step = np.abs(np.diff(pixels, axis=1)).mean(axis=(0, 2))
    assert step[255] < 2 * np.median(step)


def test_compact_slides_have_the_same_pixels_in_fewer_bytes(
    drawn: PhantomTruth, drawn_once: None, tmp_path: Path
) -> None:
    compact = write_phantom(tmp_path / "compact.svs", replace(DRAWN, compact=True, nuclei=False), workers=2)
    assert compact.slide.stat().st_size < drawn.slide.stat().st_size
    with openslide.OpenSlide(compact.slide) as a, openslide.OpenSlide(drawn.slide) as b:
        assert (read(a, 1) == read(b, 1)).all()


def test_carcinoma_fields_lie_where_the_truth_says_tumor(patched: PhantomTruth) -> None:
    with openslide.OpenSlide(patched.slide) as slide:
        pixels = read(slide, 1).astype(int)
    frame = frame_of(patched, 2.0)
    height, width = pixels.shape[:2]
    red = pixels[..., 0] > pixels[..., 1] + 60
    green = pixels[..., 1] > pixels[..., 0] + 60
    tumor = truth_mask(patched.regions, "tumor", frame)[:height, :width]
    tissue = truth_mask(patched.regions, "tissue", frame)[:height, :width]
    assert tumor.sum() > 5000
    assert 2 * (red & tumor).sum() / (red.sum() + tumor.sum()) > 0.97
    shown = red | green
    assert 2 * (shown & tissue).sum() / (shown.sum() + tissue.sum()) > 0.98


def test_drawn_tissue_and_tumor_lie_where_the_truth_says(drawn: PhantomTruth) -> None:
    with openslide.OpenSlide(drawn.slide) as slide:
        pixels = read(slide, 1).astype(int)
    frame = frame_of(drawn, 1.0)
    height, width = pixels.shape[:2]
    masks = {
        name: truth_mask(drawn.regions, name, frame)[:height, :width] for name in ("tumor", "tissue", "pen")
    }
    blue = pixels[..., 0] < 150  # haematoxylin takes red light
    outside = ~masks["tissue"] & ~masks["pen"]
    elsewhere = masks["tissue"] & ~masks["tumor"] & ~masks["pen"]
    assert blue[outside].mean() < 0.01
    assert blue[masks["tumor"] & ~masks["pen"]].mean() > 2 * blue[elsewhere].mean()
    assert pixels[outside].mean() > 235


def test_a_sharp_and_a_blurred_part_differ(drawn: PhantomTruth) -> None:
    names = [name for name, _ in read_truth(drawn.regions)]
    assert {"tumor", "tissue", "pen", "blur", "fold", "dust", "unscanned"} <= set(names)
    with openslide.OpenSlide(drawn.slide) as slide:
        gray = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("L"), np.int16)
    edges = np.abs(np.diff(gray, axis=1))[::2, ::2]
    frame = frame_of(drawn, 0.5)
    tissue, blur = (
        truth_mask(drawn.regions, name, frame)[:, : edges.shape[1]] for name in ("tissue", "blur")
    )
    assert edges[tissue & blur].mean() < 0.6 * edges[tissue & ~blur].mean()


def test_unscanned_glass_is_pure_white_and_glass_is_not(drawn: PhantomTruth) -> None:
    white = next(polygon for name, polygon in read_truth(drawn.regions) if name == "unscanned")
    x, y = (int(value) for value in white.representative_point().coords[0])
    with openslide.OpenSlide(drawn.slide) as slide:
        assert np.asarray(slide.read_region((x, y), 0, (8, 8)))[..., :3].min() == 255
        corner = np.asarray(slide.read_region((10, drawn.size[1] - 20), 0, (8, 8)))[..., :3]
    assert 240 <= corner.min() <= corner.max() <= 246


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
def test_memory_does_not_grow_with_the_slide(field_folder: Path, tmp_path: Path) -> None:
    code = (
        "import re, sys\n"
        "from pathlib import Path\n"
        "from lobule.phantom import PhantomSpec, read_field_labels, write_phantom\n"
        "side, folder, out = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]\n"
        "fields = read_field_labels(folder, folder / 'labels.csv', 0.84)\n"
        "spec = PhantomSpec((side, side), mpp=0.5, tissue_share=0.06, fields=fields, compact=True)\n"
        "write_phantom(out, spec, workers=2)\n"
        "status = Path('/proc/self/status').read_text()\n"
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', status)[1]) / 1024)\n"
    )
    peaks_mb = []
    for side in (6_000, 30_000):
        command = [sys.executable, "-c", code, str(side), str(field_folder), str(tmp_path / f"{side}.tif")]
        peaks_mb.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    # 25 times the area, 2.6 GB more of level-0 pixels
    assert peaks_mb[1] - peaks_mb[0] < 100
    assert peaks_mb[1] < 500


@pytest.mark.parametrize("name", ["slide.png", "slide", "slide.ome.zarr"])
def test_only_tiff_and_svs_names_are_taken(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"\.svs"):
        write_phantom(tmp_path / name, PhantomSpec((1000, 1000)))


def test_no_workers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--workers"):
        write_phantom(tmp_path / "a.tif", PhantomSpec((1000, 1000)), workers=0)


def test_a_system_that_knows_no_affinity_writes_slides_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # as on macOS and Windows
    truth = write_phantom(tmp_path / "a.tif", PhantomSpec((600, 500), tissue_share=0, artifacts=False))
    assert truth.slide.is_file()


def test_a_missing_folder_is_a_result_error(tmp_path: Path) -> None:
    with pytest.raises(ResultWriteError, match="No such file"):
        write_phantom(tmp_path / "absent" / "a.tif", PhantomSpec((1000, 1000), tissue_share=0))


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.tif"
    target.write_bytes(b"before")

    def fail(self: Composer, column: int, row: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Composer, "block", fail)
    with pytest.raises(ResultWriteError, match="No space left"):
        write_phantom(target, PhantomSpec((1000, 1000), tissue_share=0), workers=2)
    assert target.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


def test_a_slide_of_glass_alone_has_an_empty_truth(tmp_path: Path) -> None:
    spec = PhantomSpec((1000, 700), tissue_share=0, artifacts=False)
    truth = write_phantom(tmp_path / "glass.tif", spec, workers=1)
    assert read_truth(truth.regions) == []
    with openslide.OpenSlide(truth.slide) as slide:
        assert read(slide, 0).min() >= 240


def test_patches_show_whole_fields_at_the_asked_scale(field_folder: Path) -> None:
    files = sorted(field_folder.glob("*.png"))
    plane = Patchwork(files, 0.84, 0.42, (1, 0))
    assert plane.patch_size == (256, 192)
    file, mirrored, upside_down = plane.choice(0, 0)
    field = Image.open(file).resize((256, 192), Image.Resampling.BICUBIC)
    expected = np.asarray(field)[:: -1 if upside_down else 1, :: -1 if mirrored else 1]
    assert (plane.pixels(0, 0)[:192] == expected).all()
    assert len({plane.choice(i, j)[0] for i in range(6) for j in range(6)}) == 4


def test_fields_of_other_sizes_keep_their_micrometers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sizes = {"first": (80, 60), "larger": (130, 91), "smaller": (30, 7), "wide": (101, 40)}
    shown = {}
    for name, (width, height) in sizes.items():
        field = Image.fromarray(rng.integers(0, 256, (height, width, 3)).astype(np.uint8))
        field.save(tmp_path / f"{name}.png")
        scaled = field.resize((round(width / 2), round(height / 2)), Image.Resampling.BICUBIC)
        shown[tmp_path / f"{name}.png"] = np.asarray(scaled)
    plane = Patchwork(list(shown), 0.25, 0.5, (1, 0))
    assert plane.patch_size == (40, 30)
    expected = {}
    for file, field in shown.items():
        around = np.pad(field, ((40, 40), (40, 40), (0, 0)), mode="symmetric")
        top, left = 40 + (field.shape[0] - 30) // 2, 40 + (field.shape[1] - 40) // 2
        expected[file] = around[top : top + 30, left : left + 40]
    seen = set()
    for j in range(8):
        for i in range(6):
            file, mirrored, upside_down = plane.choice(i, j)
            patch = expected[file][:: -1 if upside_down else 1, :: -1 if mirrored else 1]
            assert (plane.pixels(0, 0)[30 * j : 30 * j + 30, 40 * i : 40 * i + 40] == patch).all()
            seen.add(file)
    assert len(seen) == 4


def test_labels_name_the_fields_to_use(field_folder: Path, tmp_path: Path) -> None:
    fields = read_field_labels(field_folder, field_folder / "labels.csv", 0.84)
    assert [path.name for path in fields.carcinoma] == ["f0.png", "f1.png"]
    assert [path.name for path in fields.other] == ["f2.png", "f3.png"]
    for text, message in (
        ("file,label\nf0.png,invasive\n", "normal or benign"),
        ("file,label\nf2.png,normal\n", "carcinoma field"),
        ("file,label\nf0.png,maybe\n", "maybe"),
        ("file,label\nabsent.png,normal\n", "no such file"),
        ("name,class\nf0.png,normal\n", "columns"),
    ):
        labels = tmp_path / "labels.csv"
        labels.write_text(text)
        with pytest.raises(ConfigurationError, match=message):
            read_field_labels(field_folder, labels, 0.84)


def test_labels_are_read_as_spreadsheets_write_them(field_folder: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("\ufeffFile; Label\nf0.png; Invasive\nf2.png;normal\n", "utf-8")
    fields = read_field_labels(field_folder, labels, 0.84)
    assert [path.name for path in (*fields.carcinoma, *fields.other)] == ["f0.png", "f2.png"]


def test_a_field_that_is_no_image_is_named(field_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    (tmp_path / "labels.csv").write_text("file,label\na.png,normal\na.png,invasive\n")
    fields = read_field_labels(tmp_path, tmp_path / "labels.csv", 0.84)
    with pytest.raises(ConfigurationError, match=r"a\.png"):
        write_phantom(tmp_path / "out.tif", PhantomSpec((2000, 2000), fields=fields))


@pytest.mark.parametrize("damage", ["a chunk of no kind", "a header cut short", "a size beyond all bounds"])
@pytest.mark.parametrize("place", [0, 1])
def test_a_damaged_field_is_named_whatever_pillow_raises(
    damage: str, place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8)
    for file in files:
        Image.fromarray(noise).save(file)
    data = files[place].read_bytes()
    if damage == "a chunk of no kind":
        second = data.index(b"IDAT", data.index(b"IDAT") + 4)
        data = data[:second] + b"\x00\x8e\xc7\x00" + data[second + 4 :]
    elif damage == "a header cut short":
        data = data[:8] + struct.pack(">I4s5sI", 5, b"IHDR", data[16:21], zlib.crc32(b"IHDR" + data[16:21]))
    else:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50_000)
        data = data[:16] + struct.pack(">II", 1000, 1000) + data[24:]
        data = data[:29] + struct.pack(">I", zlib.crc32(data[12:29])) + data[33:]
    files[place].write_bytes(data)
    with pytest.raises(ConfigurationError, match=rf"{files[place].name}.*a readable image"):
        Patchwork(files, 0.5, 0.5, (0, 0))._load(files[place])


def test_what_lies_beside_a_slide_is_its_own_truth(tmp_path: Path) -> None:
    spec = PhantomSpec((1024, 1024), mpp=0.5, seed=1, nuclei=True)
    first = write_phantom(tmp_path / "y.svs", spec)
    assert first.nuclei is not None and first.nuclei.exists()
    second = write_phantom(tmp_path / "y.svs", PhantomSpec((1024, 1024), mpp=0.5, seed=2))
    assert second.nuclei is None and not first.nuclei.exists()
    with pytest.raises(
        ConfigurationError, match=r"y\.truth\.geojson is the truth of y\.svs: choose another name"
    ):
        write_phantom(tmp_path / "y.tif", spec)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["y.svs", "y.truth.geojson"]
