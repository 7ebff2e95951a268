"""Generated bad files: cut, flipped, looping, huge, empty. Each is a typed line or a readable slide, soon.

All are tried in one child process, so that a crash in a library fails a test instead of ending the tests.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import PIL.Image
import pytest
from slides.painted import paint, raw_tiff, write_dicom, write_leica_with_bounds, write_pyramid

TRY = """
import json, resource, sys, time
from pathlib import Path
from lobule.errors import LobuleError
from lobule.geometry import Mpp, WorkingFrame
from lobule.slides import open_slide, read_overview
# 6 GB of addresses, libraries included: a header that lies must not be believed
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
for path in sorted(Path(sys.argv[1]).rglob("bad-*")):
    start, outcome, text = time.perf_counter(), "slide", ""
    try:
        with open_slide(path) as slide:
            scale = max(1.0, max(slide.size) / 100)
            read_overview(slide, WorkingFrame(slide.size, Mpp(1, 1), Mpp(scale, scale)))
            slide.read_level(0, (0, 0), (min(300, slide.size[0]), min(300, slide.size[1])))
            for name in slide.associated_images():
                slide.read_associated(name)
    except LobuleError as error:
        outcome, text = type(error).__name__, str(error)
    print(json.dumps([path.name, outcome, text, time.perf_counter() - start]), flush=True)
from lobule.analysis.memory import peak_memory_bytes
print(json.dumps(["peak", "", "", peak_memory_bytes() / 1e9]))
"""

CUTS = (0.001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
FLIPS = 8
KINDS = (
    "deflate.tif",
    "strips.tif",
    "jpeg.tif",
    "ome.tif",
    "aperio.svs",
    "leica.scn",
    "d.dcm",
    "p.png",
    "j.jpg",
)

BASE = {256: (4, [64]), 257: (4, [64]), 258: (3, [8, 8, 8]), 259: (3, [1]), 262: (3, [2]), 277: (3, [3])}
STRIP = {273: (4, [200]), 278: (4, [64]), 279: (4, [64 * 64 * 3])}
BODY = bytes(64 * 64 * 3 + 400)
JPEG = bytes(imagecodecs.jpeg8_encode(paint(64, 64), level=90))
HUGE_JPEG = JPEG.replace(b"\x00\x40\x00\x40\x03", b"\xff\xff\xff\xff\x03")

LIES: dict[str, tuple[bytes, str]] = {
    "zero-width": (raw_tiff({**BASE, **STRIP, 256: (4, [0])}, body=BODY), "0 x 64 px"),
    "zero-height": (raw_tiff({**BASE, **STRIP, 257: (4, [0])}, body=BODY), "64 x 0 px"),
    "no-size": (raw_tiff({**STRIP, 262: (3, [2]), 277: (3, [3])}, body=BODY), "0 x 0 px"),
    "huge-strip": (
        raw_tiff({**BASE, **STRIP, 256: (4, [2**31]), 257: (4, [2**31]), 259: (3, [8])}, body=BODY),
        "claims",
    ),
    "huge-bare": (raw_tiff({**BASE, **STRIP, 256: (4, [2**31]), 257: (4, [2**31])}, body=BODY), "strip|row"),
    "huge-tiles": (
        raw_tiff(
            {**BASE, 256: (4, [2**30]), 257: (4, [2**30]), 322: (4, [2**29]), 323: (4, [2**29]),
             324: (4, [200] * 4), 325: (4, [100] * 4)}, body=BODY,
        ),
        "claims",
    ),
    "many-tiles": (
        raw_tiff(
            {**BASE, 256: (4, [2**31]), 257: (4, [2**31]), 322: (4, [16]), 323: (4, [16]),
             324: (4, [200]), 325: (4, [100])}, body=BODY,
        ),
        "lists",
    ),
    "zero-tile": (
        raw_tiff({**BASE, 322: (4, [0]), 323: (4, [0]), 324: (4, [200]), 325: (4, [9])}, body=BODY), "0 x 0 px"
    ),
    "no-offsets": (raw_tiff({**BASE, 278: (4, [64])}, body=BODY), "lists the places of 0"),
    "no-counts": (raw_tiff({**BASE, 273: (4, [200]), 278: (4, [64])}, body=BODY), "lists the lengths of 0"),
    "beyond": (raw_tiff({**BASE, **STRIP, 273: (4, [2**31])}, body=BODY), "beyond its end"),
    "loop-to-self": (raw_tiff({**BASE, **STRIP}, next_offset=8, body=BODY), "loop"),
    "next-beyond": (raw_tiff({**BASE, **STRIP}, next_offset=2**31, body=BODY), "beyond the end"),
    "loop-below": (raw_tiff({**BASE, **STRIP, 330: (4, [8])}, body=BODY), "loop"),
    "two-channels": (raw_tiff({**BASE, **STRIP, 277: (3, [2])}, body=BODY), "2 channels"),
    "many-channels": (raw_tiff({**BASE, **STRIP, 277: (3, [60000])}, body=BODY), "60000 channels"),
    "lab": (raw_tiff({**BASE, **STRIP, 262: (3, [8])}, body=BODY), "CIELab"),
    "mask": (raw_tiff({**BASE, **STRIP, 262: (3, [4]), 277: (3, [1])}, body=BODY), "a mask"),
    "no-kind": (raw_tiff({k: v for k, v in {**BASE, **STRIP}.items() if k != 262}, body=BODY), "unknown"),
    "bits-12": (raw_tiff({**BASE, **STRIP, 258: (3, [12, 12, 12])}, body=BODY), "12 bits"),
    "bits-mixed": (raw_tiff({**BASE, **STRIP, 258: (3, [8, 16, 8])}, body=BODY), "8/16 bits"),
    "floats": (raw_tiff({**BASE, **STRIP, 258: (3, [32]), 339: (3, [3])}, body=BODY), "floating-point"),
    "signed": (raw_tiff({**BASE, **STRIP, 339: (3, [2, 2, 2])}, body=BODY), "signed"),
    "fax": (raw_tiff({**BASE, **STRIP, 259: (3, [4])}, body=BODY), "CCITT"),
    "codec-unknown": (raw_tiff({**BASE, **STRIP, 259: (3, [4242])}, body=BODY), "compression 4242"),
    "predictor": (raw_tiff({**BASE, **STRIP, 317: (3, [7])}, body=BODY), "predictor 7"),
    "deep": (raw_tiff({**BASE, **STRIP, 32997: (4, [900])}, body=BODY), "900 slices"),
    "not-deflate": (raw_tiff({**BASE, **STRIP, 259: (3, [8])}, body=BODY), "cannot be decompressed"),
    "not-lzw": (raw_tiff({**BASE, **STRIP, 259: (3, [5])}, body=b"\xff" * 20000), "decompressed|holds"),
    "not-zstd": (raw_tiff({**BASE, **STRIP, 259: (4, [50000])}, body=BODY), "cannot be decompressed"),
    "not-jpeg": (raw_tiff({**BASE, **STRIP, 259: (3, [7])}, body=BODY), "does not begin like one"),
    "not-webp": (raw_tiff({**BASE, **STRIP, 259: (4, [50001])}, body=BODY), "does not begin like one"),
    "not-jp2": (raw_tiff({**BASE, **STRIP, 259: (4, [33005])}, body=BODY), "does not begin like one"),
    "huge-jpeg": (  # the strip begins right behind the directory, at byte 128
        raw_tiff({**BASE, **STRIP, 259: (3, [7]), 273: (4, [128]), 279: (4, [len(JPEG)])}, body=HUGE_JPEG),
        "claims 65535 x 65535 px",
    ),
    "big-endian-cut": (raw_tiff({**BASE, **STRIP}, order=">", body=BODY)[:30], "beyond the end"),
    "head-only": (b"II\x2a\0", "damaged"),
    "no-directory": (b"II\x2a\0\0\0\0\0", "no picture"),
    "no-tags": (b"II\x2a\0\x08\0\0\0\0\0\0\0\0\0", "claims 0 tags"),
    "bigtiff-cut": (b"II\x2b\0\x08\0\0\0\xff\xff\xff\xff\xff\xff\xff\x7f", "beyond the end"),
}  # fmt: skip


def _write_sources(folder: Path) -> None:
    picture = paint(251, 199)
    write_pyramid(folder / "deflate.tif", picture)
    write_pyramid(folder / "strips.tif", picture, tile=None, compression="lzw", rowsperstrip=20)
    write_pyramid(folder / "jpeg.tif", picture, compression="jpeg")
    write_pyramid(folder / "ome.tif", picture, kind="ome")
    write_pyramid(folder / "aperio.svs", picture, kind="aperio", compression="jpeg")
    write_leica_with_bounds(folder / "leica.scn", picture)
    write_dicom(folder / "d.dcm", picture, photometric="RGB")
    PIL.Image.fromarray(picture).save(folder / "p.png")
    PIL.Image.fromarray(picture).save(folder / "j.jpg")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str, float]]:
    """File name → (error's name or "slide", text, seconds); "peak" → gigabytes."""
    sources, folder = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("bad")
    _write_sources(sources)
    for kind in KINDS:
        data = (sources / kind).read_bytes()
        for cut in CUTS:
            (folder / f"bad-cut-{cut}-{kind}").write_bytes(data[: max(4, int(len(data) * cut))])
        random = np.random.default_rng(7)
        for index in range(FLIPS):
            flipped = np.frombuffer(data, np.uint8).copy()
            # half of them in the head, where it hurts
            reach = len(data) if index % 2 else min(len(data), 1500)
            places = random.integers(0, reach, 12)
            flipped[places] ^= (1 << random.integers(0, 8, 12)).astype(np.uint8)
            own = folder / f"flip-{index}"  # a DICOM file must not meet its copies
            own.mkdir(exist_ok=True)
            (own / f"bad-flip-{index}-{kind}").write_bytes(flipped.tobytes())
    for name, (data, _) in LIES.items():
        (folder / f"bad-lie-{name}.tif").write_bytes(data)
    run = subprocess.run(
        [sys.executable, "-c", TRY, str(folder)], capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, (run.returncode, run.stdout[-300:], run.stderr[-2000:])
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    return {name: (outcome, text, seconds) for name, outcome, text, seconds in lines}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cut", CUTS)
def test_a_file_cut_short_is_a_typed_line(
    cut: float, kind: str, outcomes: dict[str, tuple[str, str, float]]
) -> None:
    name = f"bad-cut-{cut}-{kind}"
    outcome, text, seconds = outcomes[name]
    assert outcome in ("SlideReadError", "UnsupportedSlideError"), (outcome, text)
    assert name in text and "\n" not in text and len(text) < 600
    assert seconds < 5
    if outcome == "SlideReadError":
        assert any(
            word in text
            for word in ("cut short", "damaged", "beyond the end", "truncated", "no picture", "no pixels")
        ), text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("index", range(FLIPS))
def test_flipped_bits_give_a_slide_or_a_typed_line(
    index: int, kind: str, outcomes: dict[str, tuple[str, str, float]]
) -> None:
    outcome, text, seconds = outcomes[f"bad-flip-{index}-{kind}"]
    assert outcome in ("slide", "SlideReadError", "UnsupportedSlideError"), (outcome, text)
    assert seconds < 5 and "\n" not in text
    assert outcome == "slide" or f"bad-flip-{index}-{kind}" in text


@pytest.mark.parametrize("name", LIES)
def test_a_tiff_that_lies_is_told_so(name: str, outcomes: dict[str, tuple[str, str, float]]) -> None:
    outcome, text, seconds = outcomes[f"bad-lie-{name}.tif"]
    assert outcome in ("SlideReadError", "UnsupportedSlideError"), (outcome, text)
    assert re.search(LIES[name][1], text), text
    assert seconds < 2


def test_no_lie_takes_a_gigabyte(outcomes: dict[str, tuple[str, str, float]]) -> None:
    assert outcomes["peak"][2] < 1.0
