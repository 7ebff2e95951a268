"""Writes a composed slide and its truth, block by block."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import IO

import numpy as np

from lobule import __version__
from lobule.errors import ConfigurationError, ResultWriteError
from lobule.machine import granted_cores
from lobule.phantom.compose import BLOCK_TILES, Block, Composer, ShownNuclei
from lobule.phantom.layout import GLASS, Layout, lay_out
from lobule.phantom.pyramid import TILE_PX, PyramidWriter, pyramid_sizes
from lobule.phantom.spec import PhantomSpec
from lobule.phantom.texture import FlatTexture, Texture, encode_jpeg
from lobule.phantom.truth import region_features
from lobule.progress import QuietReporter, Reporter

__all__ = ["PhantomTruth", "write_phantom"]

SUFFIXES = (".tif", ".tiff", ".svs")
_GLASS_COLOR = (243, 243, 244)
_UNSCANNED_COLOR = (255, 255, 255)


@dataclass(frozen=True, slots=True)
class PhantomTruth:
    """What was written: the slide, its regions, its nuclei (drawn slides, on request)."""

    slide: Path
    regions: Path
    nuclei: Path | None
    size: tuple[int, int]
    mpp: float
    area_mm2: Mapping[str, float] = field(default_factory=dict)
    nucleus_count: int | None = None


def write_phantom(
    path: str | PathLike[str],
    spec: PhantomSpec,
    *,
    workers: int | None = None,
    progress: Reporter | None = None,
) -> PhantomTruth:
    """Writes the slide ``path`` (.tif, .tiff: generic tiled TIFF; .svs: in Aperio's manner) and its truth.

    The truth lies beside it: ``<stem>.truth.geojson`` and, with ``spec.nuclei``,
    ``<stem>.nuclei.geojson.gz``; nuclei of an earlier slide of that name are removed.
    Files appear under their names only when whole. The bytes depend on the spec alone, not on ``workers``
    (default: the cores granted).

    Memory bound: the layers (at most 8 million cells of 7 bytes, some 25 while they are laid out), the
    canvases as JPEG (some 10 MB each, 200 while two are drawn), two blocks of tiles per worker, 16 bytes
    per tile for the index, and 256 rows of the smallest level.

    Raises ConfigurationError, ResultWriteError.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ConfigurationError("OUT", path.name, "a name that ends in .tif, .tiff or .svs")
    workers = granted_cores() if workers is None else workers
    if workers < 1:
        raise ConfigurationError("--workers", workers, "at least 1")
    progress = QuietReporter() if progress is None else progress

    regions_path = path.with_name(f"{path.stem}.truth.geojson")
    nuclei_path = path.with_name(f"{path.stem}.nuclei.geojson.gz")
    for other in (path.with_suffix(ending) for ending in SUFFIXES if ending != suffix):
        if regions_path.exists() and other.exists():
            raise ConfigurationError(
                "OUT", path.name, f"{regions_path.name} is the truth of {other.name}: choose another name"
            )
    targets = [regions_path, *([nuclei_path] if spec.nuclei else []), path]
    parts = [target.with_name(f".{target.name}.{os.getpid()}.part") for target in targets]
    try:
        layout = lay_out(spec)
        with parts[0].open("w", encoding="utf-8") as stream:
            areas = _write_regions(stream, layout, spec)
        textures = _textures(layout, spec, workers, progress)
        count = _write_slide(
            parts[-1], parts[1] if spec.nuclei else None, layout, textures, spec, suffix, workers, progress
        )
        for part, target in zip(parts, targets, strict=True):
            part.replace(target)
        if not spec.nuclei:
            # of an earlier slide of that name
            nuclei_path.unlink(missing_ok=True)
    except OSError as error:
        if isinstance(error, ResultWriteError):
            raise
        raise ResultWriteError(path, f"cannot be written: {error.strerror or error}") from error
    finally:
        for part in parts:
            with contextlib.suppress(OSError):
                part.unlink()
    return PhantomTruth(
        path, regions_path, nuclei_path if spec.nuclei else None, spec.size, spec.mpp, areas, count
    )


def _write_regions(stream: IO[str], layout: Layout, spec: PhantomSpec) -> dict[str, float]:
    from shapely.geometry import shape

    areas: dict[str, float] = {}
    stream.write('{"type": "FeatureCollection", "features": [')
    for k, feature in enumerate(region_features(layout)):
        stream.write((",\n" if k else "\n") + json.dumps(feature))
        name = feature["properties"]["classification"]["name"]
        areas[name] = areas.get(name, 0.0) + shape(feature["geometry"]).area * spec.mpp**2 / 1e6
    stream.write("\n]}\n")
    return areas


def _textures(layout: Layout, spec: PhantomSpec, workers: int, progress: Reporter) -> dict[int, Texture]:
    textures: dict[int, Texture] = {GLASS: FlatTexture(_GLASS_COLOR)}
    numbers = {layer.name: k for k, layer in enumerate(layout.layers, start=1)}
    if "unscanned" in numbers:
        textures[numbers["unscanned"]] = FlatTexture(_UNSCANNED_COLOR)
    if spec.fields is not None:
        from lobule.phantom.patchwork import Patchwork

        textures[numbers["other"]] = Patchwork(spec.fields.other, spec.fields.mpp, spec.mpp, (spec.seed, 0))
        textures[numbers["carcinoma"]] = Patchwork(
            spec.fields.carcinoma, spec.fields.mpp, spec.mpp, (spec.seed, 1)
        )
        return textures

    from lobule.phantom.histology import draw_canvas

    # a layer that shows nowhere needs no canvas
    wanted = [name for name, k in numbers.items() if k not in textures and (layout.cells[k - 1] > -8).any()]
    with (
        progress.step("drawing tissue", len(wanted)) as step,
        ThreadPoolExecutor(min(workers, 2), thread_name_prefix="draw") as pool,
    ):
        for name, canvas in zip(
            wanted, pool.map(lambda n: draw_canvas(n, spec.mpp, spec.seed), wanted), strict=True
        ):
            textures[numbers[name]] = canvas
            step.advance()
    return textures


def _write_slide(
    part: Path,
    nuclei_part: Path | None,
    layout: Layout,
    textures: dict[int, Texture],
    spec: PhantomSpec,
    suffix: str,
    workers: int,
    progress: Reporter,
) -> int | None:
    sizes = pyramid_sizes(spec.size)
    count = 0
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(part.open("w+b", buffering=1 << 20))
        nuclei = stack.enter_context(_NucleiFile(nuclei_part)) if nuclei_part is not None else None
        writer = PyramidWriter(
            stream,
            sizes,
            mpp=spec.mpp,
            descriptions=_descriptions(spec, sizes, suffix),
            software=f"lobule {__version__}",
        )
        composer = Composer(layout, textures, writer.grid, mpp=spec.mpp, nuclei=nuclei is not None)
        columns, rows = (-(-cells // BLOCK_TILES) for cells in writer.grid[0])
        strip = _SmallestLevel(writer, sizes) if len(sizes) > 3 else None
        step = stack.enter_context(progress.step("writing blocks", columns * rows))
        for place, block in _in_order(composer, columns, rows, workers):
            for tile in block.tiles:
                repeated = tile.repeated if spec.compact else None
                writer.append(tile.level, tile.column, tile.row, tile.data, repeated)
            if strip is not None:
                strip.put(place, block)
            if nuclei is not None:
                count += sum(nuclei.write(shown) for shown in block.nuclei)
            step.advance()
        if strip is not None:
            strip.finish()
        writer.finish()
        stream.flush()
        os.fsync(stream.fileno())
    return count if nuclei_part is not None else None


def _in_order(
    composer: Composer, columns: int, rows: int, workers: int
) -> Iterator[tuple[tuple[int, int], Block]]:
    """Every block in row order, made by ``workers`` threads that run at most two blocks each ahead."""
    waiting: deque[tuple[tuple[int, int], Future[Block]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="compose") as pool:
        try:
            for row in range(rows):
                for column in range(columns):
                    waiting.append(((column, row), pool.submit(composer.block, column, row)))
                    if len(waiting) >= 2 * workers:
                        place, future = waiting.popleft()
                        yield place, future.result()
            while waiting:
                place, future = waiting.popleft()
                yield place, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


class _SmallestLevel:
    """Collects the blocks' pictures at 1/64 into rows of tiles of the last level."""

    def __init__(self, writer: PyramidWriter, sizes: tuple[tuple[int, int], ...]) -> None:
        self._writer = writer
        self._columns = writer.grid[3][0]
        self._rows = writer.grid[3][1]
        self._strip = np.full((TILE_PX, self._columns * TILE_PX, 3), _GLASS_COLOR, np.uint8)
        self._row = 0

    def put(self, place: tuple[int, int], block: Block) -> None:
        column, row = place
        side = block.smallest.shape[0]
        per_tile = TILE_PX // side
        if row // per_tile > self._row:
            self._flush()
        x, y = column * side, row % per_tile * side
        target = self._strip[y : y + side, x : x + side]
        target[...] = block.smallest[:, : target.shape[1]]

    def _flush(self) -> None:
        if self._row < self._rows:
            for column in range(self._columns):
                tile = self._strip[:, column * TILE_PX : (column + 1) * TILE_PX]
                self._writer.append(3, column, self._row, encode_jpeg(np.ascontiguousarray(tile)))
        self._strip[...] = _GLASS_COLOR
        self._row += 1

    def finish(self) -> None:
        """Writes the last row of tiles."""
        self._flush()


class _NucleiFile:
    """A gzipped GeoJSON FeatureCollection, one nucleus a line, written as a stream."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        # neither time nor name: the same nuclei are the same bytes
        self._stream = gzip.GzipFile(filename="", mode="wb", compresslevel=4, fileobj=self._file, mtime=0)
        self._stream.write(b'{"type": "FeatureCollection", "features": [')
        self._first = True

    def __enter__(self) -> _NucleiFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.write(b"\n]}\n")
        self._stream.close()
        self._file.close()

    def write(self, shown: ShownNuclei) -> int:
        lines: list[str] = []
        head = '{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [['
        middle = ']]}, "properties": {"objectType": "detection", "classification": {"name": "nucleus"}, '
        for outline, mark in zip(shown.outlines, shown.marks, strict=True):
            points = outline.tolist()
            points.append(points[0])
            text = ",".join(f"[{x:.2f},{y:.2f}]" for x, y in points)
            under = f', "under": "{mark}"' if mark else ""
            lines.append(f'{head}{text}{middle}"tissue": "{shown.layer}"{under}}}}}')
        if lines:
            lead = "\n" if self._first else ",\n"
            self._first = False
            self._stream.write((lead + ",\n".join(lines)).encode("ascii"))
        return len(lines)


def _descriptions(spec: PhantomSpec, sizes: tuple[tuple[int, int], ...], suffix: str) -> list[str]:
    width, height = spec.size
    made = f"lobule {__version__} composed slide, seed {spec.seed}: not a patient's tissue"
    if suffix != ".svs":
        return [made] * len(sizes)
    power = 10 / spec.mpp
    texts = []
    for level, (w, h) in enumerate(sizes):
        scaled = f" -> {w}x{h}" if level else ""
        texts.append(
            f"Aperio Image Library (written by {made})\r\n"
            f"{width}x{height} [0,0 {width}x{height}] (256x256){scaled} JPEG/RGB Q=80"
            f"|AppMag = {power:g}|MPP = {spec.mpp:.4f}"
        )
    return texts
