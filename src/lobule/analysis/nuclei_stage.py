"""The nuclei stage: tiles spread over a region, each nucleus owned by one of them."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lobule.analysis.clock import Clock
from lobule.analysis.measurements import TILES_FOR_INTERVAL
from lobule.analysis.networks import Networks
from lobule.analysis.stages import StageTiles
from lobule.analysis.work import Records
from lobule.errors import LobuleError
from lobule.families.neighbors import nearest_um, seen_around_um
from lobule.families.nuclei import decode_tile, from_all_sides, inside
from lobule.families.ownership import REACH_UM, SPARE_UM, settled, within_others
from lobule.findings.nuclei import MEASURES, Nuclei
from lobule.geometry import Box, Mpp, WorkingFrame
from lobule.inference.stream import in_order
from lobule.models.zoo import Model
from lobule.progress import Reporter
from lobule.slides import Slide, working_frame
from lobule.tiles import TileGrid, tile_shares

if TYPE_CHECKING:
    from shapely import Geometry, Polygon

__all__ = ["Elsewhere", "NucleiColumns", "NucleiOutcome", "Place", "measure_nuclei"]

ELSEWHERE_SHARE = 8
"""For every so many tiles of the region one in the tissue outside it, to compare with."""
ELSEWHERE_TILES = 64
"""At most so many."""
SAMPLED_SHARE = 0.5
"""A sample is taken from tiles of which more than this lies in the region, as long as there are enough."""
_BLOCK = 1 << 16


@dataclass(frozen=True, eq=False)
class Place:
    """Where nuclei are measured: ``polygons`` (level-0 px), called ``name``; ``tissue`` is where it holds tissue.

    ``elsewhere`` are polygons of other tissue to compare with, called ``elsewhere_name``; may be empty.
    """

    polygons: tuple[Polygon, ...]
    name: str
    tissue: tuple[Polygon, ...]
    elsewhere: tuple[Polygon, ...] = ()
    elsewhere_name: str = ""

    @property
    def sha256(self) -> str:
        """The digest of where nuclei are kept and compared."""
        import shapely

        parts = (b"\0".join(shapely.to_wkb(list(some))) for some in (self.polygons, self.elsewhere))
        return hashlib.sha256(b"\0\0".join(parts)).hexdigest()


@dataclass(frozen=True, eq=False)
class NucleiColumns:
    """What the measurements need of every nucleus, in order, (N,) float32 each.

    ``nearest_um`` is NaN where an unseen nucleus may be nearer; ``seen_um``: how far around each all nuclei are known.
    """

    area_um2: NDArray[np.float32]
    circularity: NDArray[np.float32]
    haematoxylin_od: NDArray[np.float32]
    touches_border: NDArray[np.float32]
    nearest_um: NDArray[np.float32]
    seen_um: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Elsewhere:
    """Nuclei of other tissue: the areas of those seen whole, from ``tiles`` tiles of ``name``."""

    name: str
    tiles: int
    area_um2: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class NucleiOutcome:
    """The nuclei, tile by tile; ``tile_counts`` and ``tile_area_mm2`` (of tissue) are per looked-at tile."""

    indices: NDArray[np.int64]
    candidates: int
    tile_counts: NDArray[np.int64]
    tile_area_mm2: NDArray[np.float64]
    columns: NucleiColumns
    elsewhere: Elsewhere | None
    grid: TileGrid
    frame: WorkingFrame
    resumed: int
    runtime: str
    where: str
    records: Records
    stays: NDArray[np.bool_]
    """Of every recorded nucleus of these tiles, in order: whether it is its tile's."""
    recorded: NDArray[np.int64]
    """How many were recorded, per tile."""

    def batch(self, number: int) -> Nuclei:
        """The nuclei of the ``number``-th looked-at tile, every measure known."""
        first = int(self.recorded[:number].sum())
        start = int(self.tile_counts[:number].sum())
        return self._batch(number, first, start)

    def batches(self) -> Iterator[Nuclei]:
        """The nuclei tile by tile, read anew each time; only one tile's are in memory."""
        first = start = 0
        for number in range(len(self.indices)):
            yield self._batch(number, first, start)
            first += int(self.recorded[number])
            start += int(self.tile_counts[number])

    def _batch(self, number: int, first: int, start: int) -> Nuclei:
        found = _read(self.records, int(self.indices[number]))
        found = inside(found, self.stays[first : first + len(found)])
        column = list(MEASURES).index("nearest_distance_um")
        found.measures[:, column] = self.columns.nearest_um[start : start + len(found)]
        return found


def _read(records: Records, index: int) -> Nuclei:
    return Nuclei.from_bytes(zlib.decompress(records.read(index)))


def measure_nuclei(
    slide: Slide,
    slide_id: str,
    place: Place,
    model: Model,
    networks: Networks,
    workers: int,
    *,
    limit: int | None,
    thorough: bool,
    records: Records,
    clock: Clock,
    reporter: Reporter,
) -> NucleiOutcome:
    """Nuclei whose centroid lies in ``place``, on at most ``limit`` tiles spread evenly over it.

    ``thorough``: the network sees each tile in all eight positions.
    """
    import shapely

    graph = model.card.graph("segment")
    if graph is None or graph.mpp is None:
        raise LobuleError(f"model {model.name} has no segment graph with a working mpp")
    with clock.stage("nuclei"):
        frame = working_frame(slide, graph.mpp)
        tiles = StageTiles(slide, model, "segment", frame, clock, "nuclei")
        grid = tiles.grid
        region, rest = shapely.union_all(place.polygons), shapely.union_all(place.elsewhere)
        touched, shares = _tiles_of(region, grid, frame)
        chosen = touched if limit is None else _sample(touched, shares, limit)
        beside, shares = _tiles_of(rest, grid, frame)
        compared = np.setdiff1d(beside[shares > SAMPLED_SHARE], touched)
        fewer = ELSEWHERE_TILES if limit is None else min(ELSEWHERE_TILES, -(-limit // ELSEWHERE_SHARE))
        compared = _spread(compared, min(fewer, len(chosen)))
        elsewhere = {int(index) for index in compared}
        runtime = networks.get(model, "segment", workers)
        shapely.prepare(region)
        shapely.prepare(rest)
        # a prepared geometry builds its indexes when first asked, and works in them: one thread at a time
        asking = Lock()
        spare_px = round(SPARE_UM / frame.mpp.mean)

        def look(index: int) -> bytes:
            box, pixels = tiles.read_inside(index)
            infer = partial(tiles.infer, runtime, "segment", index)
            output = from_all_sides(infer, pixels) if thorough else infer(pixels)
            with clock.part("nuclei", "decode_maps"):
                kept = grid.kept(index).grown(min(spare_px, grid.halo_px)).clipped(*frame.size)
                nuclei = decode_tile(model.card, output, pixels, read=box, kept=kept, frame=frame)
                with asking:
                    nuclei = _within(nuclei, rest if index in elsewhere else region)
                return zlib.compress(nuclei.to_bytes(), 1)

        todo = [int(index) for index in (*chosen, *compared) if int(index) not in records]
        with (
            ThreadPoolExecutor(1, thread_name_prefix="lobule-ahead") as ahead,
            clock.reading("nuclei", slide),
            reporter.step(f"{slide_id}: nuclei", len(todo)) as step,
        ):
            if len(chosen) >= TILES_FOR_INTERVAL:
                # the interval's quantile comes from SciPy, which takes longer to import than a tile to look at
                ahead.submit(import_module, "scipy.special")
            for index, payload in in_order(todo, look, workers=workers):
                records.append(index, payload)
                step.advance()

        recorded, stays, found = _settle(records, chosen, grid, frame)
        tissue = (
            region
            if place.tissue == place.polygons
            else shapely.intersection(region, shapely.union_all(place.tissue))
        )
        boxes = shapely.box(*_on_slide([grid.kept(int(index)) for index in chosen], frame).T)
        area_mm2 = shapely.area(shapely.intersection(tissue, boxes)) * frame.slide_mpp.pixel_area_um2 / 1e6
        nearest, seen = _neighbors(found, chosen, grid, frame, region)
    area, circularity, density, touching = found.measures.T
    return NucleiOutcome(
        indices=chosen,
        candidates=len(touched),
        tile_counts=np.bincount(found.tile, minlength=len(chosen)).astype(np.int64),
        tile_area_mm2=np.asarray(area_mm2, np.float64),
        columns=NucleiColumns(area, circularity, density, touching, nearest, seen),
        elsewhere=_elsewhere(records, compared, grid, frame, place.elsewhere_name),
        grid=grid,
        frame=frame,
        resumed=len(chosen) + len(compared) - len(todo),
        runtime=runtime.description,
        where=place.name,
        records=records,
        stays=stays,
        recorded=recorded,
    )


def _tiles_of(
    region: Geometry, grid: TileGrid, frame: WorkingFrame
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The tiles that share area with the region, in order, and about what share of each lies in it."""
    import shapely

    from lobule.annotations import rasterize

    parts = [part for part in shapely.get_parts(region) if part.geom_type == "Polygon" and part.area > 0]
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0)
    coarse = WorkingFrame(
        frame.slide_size,
        frame.slide_mpp,
        Mpp(frame.mpp.x * grid.stride_px / 8, frame.mpp.y * grid.stride_px / 8),
    )
    shares = tile_shares(grid, rasterize(parts, coarse), coarse, frame).ravel()
    # what is narrower than a cell of that mask may pass between the cells' centers
    x0, y0, x1, y1 = region.bounds
    stride_x, stride_y = (grid.stride_px * scale for scale in frame.scale)
    columns = np.arange(max(0, int(x0 / stride_x)), min(grid.columns, int(x1 / stride_x) + 1))
    rows = np.arange(max(0, int(y0 / stride_y)), min(grid.rows, int(y1 / stride_y) + 1))
    row, column = (each.ravel() for each in np.meshgrid(rows, columns, indexing="ij"))
    missed = shares[row * grid.columns + column] == 0
    row, column = row[missed], column[missed]
    boxes = shapely.box(column * stride_x, row * stride_y, (column + 1) * stride_x, (row + 1) * stride_y)
    shapely.prepare(region)
    met = shapely.intersects(region, boxes)
    found = shapely.area(shapely.intersection(region, boxes[met])) / (stride_x * stride_y)
    shares[(row * grid.columns + column)[met]] = found
    touched = np.flatnonzero(shares > 0)
    return touched.astype(np.int64), shares[touched]


def _sample(touched: NDArray[np.int64], shares: NDArray[np.float64], limit: int) -> NDArray[np.int64]:
    """At most ``limit`` of the tiles: spread over those mostly in the region, else the fullest there are."""
    if len(touched) <= limit:
        return touched
    full = touched[shares > SAMPLED_SHARE]
    if len(full) >= limit:
        return _spread(full, limit)
    fullest: NDArray[np.int64] = np.sort(touched[np.argsort(-shares, kind="stable")[:limit]])
    return fullest


def _within(nuclei: Nuclei, region: Geometry) -> Nuclei:
    """The nuclei whose centroid lies in the region; those that reach over its edge are marked."""
    import shapely

    kept = inside(nuclei, shapely.contains_xy(region, *nuclei.centroid_px.T))
    if not len(kept):
        return kept
    low, high = kept.vertices_px.min(axis=0), kept.vertices_px.max(axis=0)
    if not shapely.contains(region, shapely.box(*low, *high)):
        outside = ~shapely.contains_xy(region, *kept.vertices_px.T.astype(np.float64))
        over = np.logical_or.reduceat(outside, kept.starts[:-1])
        kept.measures[over, list(MEASURES).index("touches_border")] = 1
    return kept


def _on_slide(boxes: Sequence[Box], frame: WorkingFrame) -> NDArray[np.float64]:
    """Boxes of the working frame in level-0 px, (n, 4) x0, y0, x1, y1, as far as they lie on the slide."""
    sx, sy = frame.scale
    width, height = frame.slide_size
    corners = np.array([[b.x0 * sx, b.y0 * sy, b.x1 * sx, b.y1 * sy] for b in boxes]).reshape(-1, 4)
    clipped: NDArray[np.float64] = np.minimum(corners, [width, height, width, height])
    return clipped


@dataclass(frozen=True, eq=False)
class _Found:
    """Nuclei that stay: centers (N, 2), tile's place in the list (N,), and `_COLUMNS` of their measures (N, 4)."""

    centers_um: NDArray[np.float64]
    tile: NDArray[np.int32]
    measures: NDArray[np.float32]


_COLUMNS = [
    list(MEASURES).index(name)
    for name in ("area_um2", "circularity", "haematoxylin_od_mean", "touches_border")
]


def _settle(
    records: Records, chosen: NDArray[np.int64], grid: TileGrid, frame: WorkingFrame
) -> tuple[NDArray[np.int64], NDArray[np.bool_], _Found]:
    """How many nuclei each tile recorded, which of them are its own, and these, one pass over the records."""
    mpp = (frame.slide_mpp.x, frame.slide_mpp.y)
    looked = np.zeros(len(grid), bool)
    looked[chosen] = True
    recorded = np.zeros(len(chosen), np.int64)
    # grown in place: a million nuclei twice in memory would be the run's largest moment
    centers, measures = np.zeros((0, 2)), np.zeros((0, len(_COLUMNS)), np.float32)
    spare, edge_um = np.zeros(0, np.int8), np.zeros(0, np.float16)
    for number, index in enumerate(chosen.tolist()):
        nuclei = _read(records, index)
        recorded[number] = len(nuclei)
        kept = grid.kept(index)
        x, y = frame.from_slide(nuclei.centroid_px).T
        low = np.minimum(x - kept.x0, y - kept.y0)
        high = np.minimum(kept.x1 - x, kept.y1 - y)
        # a center on the far edge is the next tile's
        beyond = (low < 0) | (high <= 0)
        owner = (np.floor(y).astype(np.int64) // grid.stride_px) * grid.columns
        owner += np.floor(x).astype(np.int64) // grid.stride_px
        seen_there = looked[np.minimum(owner, len(grid) - 1)]
        _append(centers, nuclei.centroid_px * mpp)
        _append(measures, nuclei.measures[:, _COLUMNS])
        _append(spare, np.where(beyond, np.where(seen_there, 1, 2), 0))
        _append(edge_um, np.minimum(low, high) * frame.mpp.mean)
    tile = np.repeat(np.arange(len(chosen), dtype=np.int32), recorded)
    stays = spare == 0
    # what lies on a tile that is not looked at is nobody's
    near = np.flatnonzero((edge_um <= SPARE_UM) & (spare < 2))
    stays[near] = settled(centers[near], _radius_um(measures[near]), tile[near], spare[near] == 1)
    near = np.flatnonzero((edge_um <= REACH_UM) & stays)
    starts = np.cumsum(recorded) - recorded

    def shared(pairs: NDArray[np.intp]) -> NDArray[np.float64]:
        which, places = np.unique(near[pairs], return_inverse=True)
        parts = [
            _polygons(_read(records, int(chosen[number])), which[tile[which] == number] - starts[number])
            for number in np.unique(tile[which])
        ]
        return _common_share(np.concatenate(parts)[places.reshape(-1, 2)])

    stays[near[within_others(centers[near], _radius_um(measures[near]), tile[near], shared)]] = False
    for values in (centers, measures, tile):
        _keep(values, stays)
    return recorded, stays, _Found(centers, tile, measures)


def _radius_um(measures: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of the disk of a nucleus's area, from `_COLUMNS`."""
    radius: NDArray[np.float64] = np.sqrt(measures[:, 0].astype(np.float64) / np.pi)
    return radius


def _polygons(nuclei: Nuclei, which: NDArray[np.integer]) -> NDArray[np.object_]:
    """The outlines of these nuclei as valid geometries, (n,)."""
    import shapely

    outlines = [nuclei.outline_px(int(number)) for number in which]
    owner = np.repeat(np.arange(len(outlines)), [len(outline) for outline in outlines])
    rings = shapely.linearrings(np.concatenate(outlines).astype(np.float64), indices=owner)
    valid: NDArray[np.object_] = shapely.make_valid(shapely.polygons(rings))
    return valid


def _common_share(pairs: NDArray[np.object_]) -> NDArray[np.float64]:
    """The area that two geometries share over the smaller one's, (m,) of (m, 2)."""
    import shapely

    least = np.maximum(shapely.area(pairs).min(axis=1), 1e-9)
    share: NDArray[np.float64] = shapely.area(shapely.intersection(pairs[:, 0], pairs[:, 1])) / least
    return share


def _append(values: NDArray[Any], more: NDArray[Any]) -> None:
    """Adds rows to ``values``, of which no view may exist, in place."""
    size = len(values)
    values.resize((size + len(more), *values.shape[1:]), refcheck=False)
    values[size:] = more


def _keep(values: NDArray[Any], which: NDArray[np.bool_]) -> None:
    """Leaves the rows ``which`` in ``values``, of which no view may exist, in place."""
    size = 0
    for start in range(0, len(values), _BLOCK):
        part = values[start : start + _BLOCK][which[start : start + _BLOCK]]
        values[size : size + len(part)] = part
        size += len(part)
    values.resize((size, *values.shape[1:]), refcheck=False)


def _neighbors(
    found: _Found, chosen: NDArray[np.int64], grid: TileGrid, frame: WorkingFrame, region: Geometry
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The distance from each nucleus to its nearest, NaN where an unseen one may be nearer, and how far all is seen."""
    mpp = np.array([frame.slide_mpp.x, frame.slide_mpp.y])
    distance = nearest_um(found.centers_um)
    boxes = _on_slide([grid.kept(int(index)) for index in chosen], frame) * np.tile(mpp, 2)
    seen = seen_around_um(found.centers_um, found.tile, chosen, grid.columns, boxes, region, mpp)
    # a center that a tile took over may lie that much beyond its box
    np.minimum(seen, grid.stride_px * frame.mpp.mean - SPARE_UM, out=seen)
    distance[distance > seen] = np.nan
    return distance, seen


def _elsewhere(
    records: Records, compared: NDArray[np.int64], grid: TileGrid, frame: WorkingFrame, name: str
) -> Elsewhere | None:
    """The nuclei of the tiles to compare with, None without such tiles."""
    if not len(compared):
        return None
    _, _, found = _settle(records, compared, grid, frame)
    whole = found.measures[:, 3] == 0
    return Elsewhere(name, len(compared), found.measures[whole, 0])


def _spread(candidates: NDArray[np.int64], limit: int | None) -> NDArray[np.int64]:
    """At most ``limit`` of the candidates, at even steps through their order."""
    if limit is None or len(candidates) <= limit:
        return candidates
    chosen: NDArray[np.int64] = candidates[
        ((np.arange(limit) + 0.5) * len(candidates) / limit).astype(np.int64)
    ]
    return chosen
