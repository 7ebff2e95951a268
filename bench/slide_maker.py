"""Makes the benchmark's slides.

    python bench/slide_maker.py bench OUT.svs        60,000 x 50,000 px at 0.25 um/px, levels 1/4/16/64
    python bench/slide_maker.py gap BENCH.svs OUT.svs   the same with levels 1 and 1/16 only

`lobule phantom` draws the tissue. A drawing compresses better than a sharp 40x scan (0.11 against 0.2 to 0.4 bytes
per pixel of tissue), and decoding costs by the byte, so fine grain is added to the tissue of level 0 until a
tissue tile takes about 0.33 bytes/px; the other levels are averaged from that. Tiles are written as scanners'
files have them: without their JPEG tables, which stand once per level.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jpeg_tiles import TILE_PX, TileLevel, decode, load_tiles, tile_levels

SIZE = (60_000, 50_000)
TISSUE_SHARE = 0.34
"""Of the drawing; fat and lumina are part of it, which tissue detectors leave out: they find about 28 %."""
SEED = 7
GRAIN = 20.0
QUALITY = 80
WHITE = 243
JPEG_TABLES_TAG = 347

Rgb = NDArray[np.uint8]


def grain_field(seed: int, side: int = 2048) -> NDArray[np.float32]:
    """(side, side) periodic noise of SD 1, fine (about 1 px) but not so fine that JPEG throws it away."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft2(rng.standard_normal((side, side), np.float32))
    across, down = np.fft.rfftfreq(side)[None, :], np.fft.fftfreq(side)[:, None]
    spectrum /= (1 + 10 * (across**2 + down**2)) ** 1.2
    noise = np.fft.irfft2(spectrum, s=(side, side)).astype(np.float32)
    return (noise - noise.mean()) / noise.std()


def quarter(rgb: Rgb) -> Rgb:
    """Every 4 x 4 pixels averaged."""
    height, width = rgb.shape[0] // 4, rgb.shape[1] // 4
    blocks = rgb[: height * 4, : width * 4].reshape(height, 4, width, 4, 3)
    return ((blocks.sum((1, 3), dtype=np.uint16) + 8) >> 4).astype(np.uint8)


def encode(rgb: Rgb) -> bytes:
    import imagecodecs

    return bytes(
        imagecodecs.jpeg8_encode(
            np.ascontiguousarray(rgb),
            level=QUALITY,
            colorspace="rgb",
            outcolorspace="ycbcr",
            subsampling="420",
        )
    )


def split_tables(data: bytes) -> tuple[bytes, bytes]:
    """(abbreviated tile, tables) of a whole JPEG stream: DQT and DHT segments move to the tables."""
    tables, rest, at = b"\xff\xd8", b"\xff\xd8", 2
    while data[at + 1] != 0xDA:
        length = int.from_bytes(data[at + 2 : at + 4], "big") + 2
        segment = data[at : at + length]
        if data[at + 1] in (0xDB, 0xC4):
            tables += segment
        elif data[at + 1] != 0xE0:  # JFIF's header says nothing that the TIFF does not
            rest += segment
        at += length
    return rest + data[at:], tables + b"\xff\xd9"


@dataclass
class WrittenLevel:
    """One level to write: its size and its abbreviated tiles, row by row."""

    size: tuple[int, int]
    tiles: Iterable[bytes]


def write_slide(path: Path, levels: Iterable[WrittenLevel], tables: bytes, mpp: float) -> None:
    """A BigTIFF in Aperio's manner, so that every reader finds mpp and magnification."""
    import tifffile

    part = path.with_name(f".{path.name}.part")
    size0: tuple[int, int] | None = None
    with tifffile.TiffWriter(part, bigtiff=True) as tiff:
        for level in levels:
            size0 = size0 or level.size
            per_cm = 10_000 / mpp * level.size[0] / size0[0]
            head = "Aperio Image Library (written by lobule's bench: not a patient's tissue)\r\n"
            text = f"{size0[0]}x{size0[1]} "
            if level.size == size0:
                text += f"({TILE_PX}x{TILE_PX}) JPEG/RGB Q={QUALITY}|AppMag = {10 / mpp:g}|MPP = {mpp:g}"
            else:
                text += f"-> {level.size[0]}x{level.size[1]} JPEG/RGB Q={QUALITY}"
            tiff.write(
                iter(level.tiles),
                shape=(level.size[1], level.size[0], 3),
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                compression="jpeg",
                photometric="ycbcr",
                subsampling=(2, 2),
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                subfiletype=0 if level.size == size0 else 1,
                description=head + text,
                extratags=[(JPEG_TABLES_TAG, 7, len(tables), tables, True)],
                metadata=None,
                software="lobule bench",
            )
    part.replace(path)


def cut_tiles(rgb: Rgb) -> Iterator[bytes]:
    """An image as abbreviated tiles, the rim filled with glass."""
    height, width = rgb.shape[:2]
    rows, columns = -(-height // TILE_PX), -(-width // TILE_PX)
    whole = np.full((rows * TILE_PX, columns * TILE_PX, 3), WHITE, np.uint8)
    whole[:height, :width] = rgb
    for y in range(rows):
        for x in range(columns):
            tile = whole[y * TILE_PX : (y + 1) * TILE_PX, x * TILE_PX : (x + 1) * TILE_PX]
            yield split_tables(encode(tile))[0]


class _Grained:
    """Level 0 of a drawn slide with grain, one row of tiles at a time, and its quarters for the level above."""

    def __init__(self, source: Path, level: TileLevel) -> None:
        self._source, self._level = source, level
        self._grain = (grain_field(SEED) * GRAIN).astype(np.float32)
        self._glass: dict[bytes, tuple[bytes, Rgb]] = {}

    def tile(self, data: bytes, column: int, row: int) -> tuple[bytes, Rgb]:
        """(abbreviated tile, its quarter)."""
        if data in self._glass:
            return self._glass[data]
        rgb = decode(data)
        lightest = rgb.min(2).astype(np.float32)
        density = np.clip((WHITE - 4 - lightest) / 50, 0, 1)
        if not density.any():
            kept = split_tables(encode(rgb))[0], quarter(rgb)
            if len(self._glass) < 64:
                self._glass[data] = kept
            return kept
        side = self._grain.shape[0]
        y, x = row * TILE_PX % side, column * TILE_PX % side
        noise = self._grain[y : y + TILE_PX, x : x + TILE_PX] * density
        rgb = np.clip(rgb + noise[..., None], 0, 255).astype(np.uint8)
        return split_tables(encode(rgb))[0], quarter(rgb)

    def rows(self) -> Iterator[tuple[list[bytes], Rgb]]:
        """(tiles of one row, the row averaged by 4)."""
        columns = self._level.columns
        with ThreadPoolExecutor(2) as pool:
            for row in range(self._level.rows):
                datas = load_tiles(self._source, self._level, range(row * columns, (row + 1) * columns))
                made = list(pool.map(self.tile, datas, range(columns), [row] * columns))
                yield [tile for tile, _ in made], np.concatenate([small for _, small in made], 1)


def add_grain(source: Path, out: Path, mpp: float) -> None:
    """The drawn slide ``source`` again with grain on its tissue, its pyramid averaged anew."""
    level0 = tile_levels(source)[0]
    width, height = level0.size
    strips: list[Rgb] = []

    def first() -> Iterator[bytes]:
        for tiles, strip in _Grained(source, level0).rows():
            strips.append(strip)
            yield from tiles

    def levels() -> Iterator[WrittenLevel]:
        yield WrittenLevel((width, height), first())
        image = np.concatenate(strips)[: height // 4, : width // 4]
        strips.clear()
        for _ in range(3):
            yield WrittenLevel((image.shape[1], image.shape[0]), cut_tiles(image))
            image = quarter(image)

    write_slide(out, levels(), split_tables(encode(np.zeros((TILE_PX, TILE_PX, 3), np.uint8)))[1], mpp)


def draw(out: Path, size: tuple[int, int], tissue: float, *, seed: int = SEED, compact: bool = False) -> None:
    """`lobule phantom` without artifacts."""
    command = [sys.executable, "-c", "from lobule.cli import main; main()", "phantom", str(out)]
    command += [
        "--size",
        f"{size[0]}x{size[1]}",
        "--mpp",
        "0.25",
        "--tissue",
        str(tissue),
        "--seed",
        str(seed),
    ]
    command += ["--no-artifacts", "--quiet", *(["--compact"] if compact else [])]
    subprocess.run(command, check=True)


def make_bench_slide(out: Path, size: tuple[int, int] = SIZE) -> None:
    """The slide of the pipeline and reader rows."""
    drawn = out.with_name(f".{out.stem}.drawn.svs")
    draw(drawn, size, TISSUE_SHARE)
    add_grain(drawn, out, 0.25)
    drawn.unlink()
    drawn.with_name(f"{drawn.stem}.truth.geojson").unlink(missing_ok=True)


def make_gap_slide(source: Path, out: Path) -> None:
    """The slide with its levels 1 and 1/16 only, each tile copied as it is."""
    levels = tile_levels(source)
    kept = [levels[0], levels[2]]

    def tiles(level: TileLevel) -> Iterator[bytes]:
        for index in range(len(level.offsets)):
            yield split_tables(load_tiles(source, level, [index])[0])[0]

    tables = split_tables(load_tiles(source, levels[0], [0])[0])[1]
    write_slide(out, [WrittenLevel(level.size, tiles(level)) for level in kept], tables, 0.25)


if __name__ == "__main__":
    if sys.argv[1] == "bench":
        make_bench_slide(Path(sys.argv[2]))
    else:
        make_gap_slide(Path(sys.argv[2]), Path(sys.argv[3]))
