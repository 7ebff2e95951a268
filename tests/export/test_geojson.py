from __future__ import annotations

import gzip
import json
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from lobule.errors import ResultWriteError
from lobule.export import geojson
from lobule.export.geojson import nucleus_id, write_nuclei, write_regions
from lobule.findings.maps import TumorRegion
from lobule.findings.nuclei import MEASURES, Nuclei
from lobule.findings.schema import Frame
from lobule.strict import from_values


def make_frame(
    size: tuple[int, int] = (10_000, 8_000), bounds: tuple[int, int, int, int] | None = None
) -> Frame:
    return Frame(
        size_px=size,
        mpp_um_per_px=(0.25, 0.25),
        bounds_px=bounds,
        geojson_offset_px=(0, 0) if bounds is None else bounds[:2],
    )


def make_region(polygon: shapely.Polygon, id_: str = "region-1") -> TumorRegion:
    return TumorRegion(id_, polygon, 1.5, 5.25, 2.0, 0.75, None)


def make_nuclei(outlines: list[Any], measures: np.ndarray | None = None) -> Nuclei:
    arrays = [np.asarray(outline, np.float32).reshape(-1, 2) for outline in outlines]
    return Nuclei(
        np.array(
            [np.nan_to_num(a, nan=5, posinf=5).mean(0) if len(a) else (5.0, 5.0) for a in arrays]
        ).reshape(-1, 2),
        np.concatenate([[0], np.cumsum([len(array) for array in arrays])]).astype(np.int64),
        np.concatenate([*arrays, np.zeros((0, 2), np.float32)]),
        np.tile(np.arange(1, len(MEASURES) + 1, dtype=np.float32), (len(arrays), 1))
        if measures is None
        else measures,
    )


def read(path: Path) -> dict[str, Any]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    content: dict[str, Any] = json.loads(data)
    return content


def shapes(content: dict[str, Any]) -> list[shapely.Geometry]:
    """The geometries as any reader sees them; each checked to be valid, closed and rightly turned."""
    found = []
    for feature in content["features"]:
        shape = shapely.from_geojson(json.dumps(feature["geometry"]))
        assert shape.is_valid, shapely.is_valid_reason(shape)
        assert shape.area > 0
        for polygon in shapely.get_parts(shape):
            assert polygon.exterior.is_ccw
            assert not any(hole.is_ccw for hole in polygon.interiors)
        found.append(shape)
    return found


DONUT = shapely.Polygon(
    [(100, 100), (900, 100), (900, 700), (100, 700)],
    [[(200, 200), (200, 300), (300, 300), (300, 200)], [(500, 500), (600, 500), (600, 600), (500, 600)]],
)


def test_a_region_keeps_its_holes_measures_class_and_id(tmp_path: Path) -> None:
    frame = make_frame()
    write_regions(tmp_path / "r.geojson", [make_region(DONUT)], frame, "case <12>")
    content = read(tmp_path / "r.geojson")
    assert content["type"] == "FeatureCollection"
    assert content["lobule"]["notice"] == "For research use only. Not for diagnosis."
    assert content["lobule"]["slide"] == "case <12>"
    assert from_values(content["lobule"]["frame"], Frame) == frame
    (feature,) = content["features"]
    assert (feature["type"], feature["id"]) == ("Feature", "region-1")
    properties = feature["properties"]
    assert properties["objectType"] == "annotation"
    assert properties["classification"] == {"name": "Tumor", "color": [200, 0, 0]}
    assert properties["isLocked"] is True
    assert properties["name"] == "Tumor region 1"
    assert properties["measurements"] == {
        "Area mm²": 1.5,
        "Perimeter mm": 5.25,
        "Longest diameter mm": 2.0,
        "Mean probability": 0.75,
    }
    (shape,) = shapes(content)
    assert shape.equals(DONUT)
    assert len(shape.interiors) == 2


def test_coordinates_are_level_0_minus_the_bounds_corner_and_come_back(tmp_path: Path) -> None:
    frame = make_frame(bounds=(50, 75, 5000, 5000))
    outline = [(400.25, 500), (420, 500), (420, 530.5)]
    write_regions(tmp_path / "r.geojson", [make_region(DONUT)], frame, "s")
    write_nuclei(tmp_path / "n.geojson.gz", [make_nuclei([outline])], frame, "s")
    for path, level_0 in (("r.geojson", DONUT), ("n.geojson.gz", shapely.Polygon(outline))):
        content = read(tmp_path / path)
        offset = content["lobule"]["frame"]["geojson_offset_px"]
        assert offset == [50, 75]
        (shape,) = shapes(content)
        assert shape.bounds[0] == level_0.bounds[0] - 50
        assert shape.bounds[1] == level_0.bounds[1] - 75
        assert shapely.transform(shape, lambda points, by=offset: points + by).equals(level_0)


def test_no_regions_and_no_nuclei_are_empty_collections(tmp_path: Path) -> None:
    write_regions(tmp_path / "r.geojson", [], make_frame(), "s")
    assert read(tmp_path / "r.geojson")["features"] == []
    for batches in ([], [Nuclei.none(), Nuclei.none()]):
        assert write_nuclei(tmp_path / "n.geojson.gz", batches, make_frame(), "s") == 0
        assert read(tmp_path / "n.geojson.gz")["features"] == []


def test_a_region_that_crosses_itself_keeps_all_its_parts(tmp_path: Path) -> None:
    bow_tie = shapely.Polygon([(0, 0), (100, 100), (100, 0), (0, 100)])
    write_regions(tmp_path / "r.geojson", [make_region(bow_tie)], make_frame(), "s")
    (shape,) = shapes(read(tmp_path / "r.geojson"))
    assert shape.geom_type == "MultiPolygon"
    assert shape.area == 5000


def test_a_region_is_cut_at_the_slide_and_one_outside_is_left_out(tmp_path: Path) -> None:
    frame = make_frame((500, 400))
    inside, outside = shapely.box(-10, 100, 200, 500), shapely.box(600, 0, 700, 100)
    write_regions(tmp_path / "r.geojson", [make_region(inside), make_region(outside, "b")], frame, "s")
    content = read(tmp_path / "r.geojson")
    assert [feature["id"] for feature in content["features"]] == ["region-1"]
    assert shapes(content)[0].equals(shapely.box(0, 100, 200, 400))


def test_a_nucleus_is_a_detection_with_named_measures(tmp_path: Path) -> None:
    square = [(10, 10), (20, 10), (20, 20), (10, 20)]
    nuclei = make_nuclei([square, square[::-1]])
    assert write_nuclei(tmp_path / "n.geojson.gz", [nuclei], make_frame(), "s") == 2
    content = read(tmp_path / "n.geojson.gz")
    first, second = content["features"]
    assert first["id"] == nucleus_id("s", 0) != second["id"] == nucleus_id("s", 1)
    assert first["properties"]["objectType"] == "detection"
    assert first["properties"]["classification"]["name"] == "Nucleus"
    measurements = list(first["properties"]["measurements"].items())
    assert (measurements[0], measurements[-1]) == (("Area µm²", 1.0), ("Probability", float(len(MEASURES))))
    for feature in content["features"]:
        ring = feature["geometry"]["coordinates"][0]
        assert ring[0] == ring[-1]
        assert len(ring) == 5
    assert all(shape.equals(shapely.box(10, 10, 20, 20)) for shape in shapes(content))


def test_a_measure_that_is_not_finite_is_left_out(tmp_path: Path) -> None:
    measures = np.ones((1, len(MEASURES)), np.float32)
    measures[0, 1] = np.nan
    measures[0, 2] = np.inf
    nuclei = make_nuclei([[(1, 1), (9, 1), (9, 9)]], measures)
    write_nuclei(tmp_path / "n.geojson.gz", [nuclei], make_frame(), "s")
    (feature,) = read(tmp_path / "n.geojson.gz")["features"]
    assert set(feature["properties"]["measurements"]) == {
        f"{label} {unit}".strip() for k, (label, unit) in enumerate(MEASURES.values()) if k not in (1, 2)
    }


@pytest.mark.parametrize(
    ("outline", "area"),
    [
        ([(0, 0), (10, 10), (10, 0), (0, 10)], 25),  # crosses itself: the largest part
        ([(0, 0), (10, 0), (10, 10), (5, 0), (0, 10)], 25),  # touches its own edge
        ([(10, 10), (20, 10)], 11),  # a line
        ([(10, 10), (20, 10), (15, 10)], 10.5),  # a line there and back
        ([(10, 10)], 1),
        ([(10, 10), (10, 10), (10, 10)], 1),
        ([(10, 10), (10.001, 10), (10.001, 10.001), (10, 10.001)], 1),  # nothing on the 0.01 px grid
        ([], 1),
        ([(-5, 10), (5, 10), (5, 20), (-5, 20)], 50),  # past the slide's edge
        ([(0, 0), (10, 0), (10, float("nan")), (10, 10)], 50),
        ([(float("nan"), 0), (1, float("inf")), (float("nan"), 10)], 0.5),  # at the edge below
        ([(-50, -50), (-40, -50), (-40, -40)], 0.25),  # outside: its corner of the slide
    ],
)
def test_a_degenerate_outline_is_repaired_and_its_neighbors_are_kept(
    tmp_path: Path, outline: list[tuple[float, float]], area: float
) -> None:
    square = [(100, 100), (120, 100), (120, 120), (100, 120)]
    nuclei = make_nuclei([square, outline, square])
    frame = make_frame((1000, 1000))
    assert write_nuclei(tmp_path / "n.geojson.gz", [nuclei], frame, "s") == 3
    before, repaired, after = shapes(read(tmp_path / "n.geojson.gz"))
    assert before.equals(after)
    assert before.equals(shapely.box(100, 100, 120, 120))
    assert repaired.geom_type == "Polygon"
    assert repaired.area == pytest.approx(area, abs=0.06)
    assert shapely.box(0, 0, 1000, 1000).covers(repaired)


points = st.tuples(st.floats(-20, 120, width=32), st.floats(-20, 120, width=32))


@settings(max_examples=60)
@given(
    outlines=st.lists(st.lists(points, max_size=9), max_size=6),
    offset=st.tuples(st.integers(0, 60), st.integers(0, 60)),
)
def test_whatever_the_outlines_every_geometry_is_valid_inside_and_nothing_is_lost(
    tmp_path_factory: pytest.TempPathFactory,
    outlines: list[list[tuple[float, float]]],
    offset: tuple[int, int],
) -> None:
    folder = tmp_path_factory.mktemp("any")
    frame = make_frame((100, 90), (*offset, 30, 30))
    count = write_nuclei(folder / "n.geojson.gz", [make_nuclei(outlines)], frame, "s")
    found = shapes(read(folder / "n.geojson.gz"))
    assert count == len(outlines) == len(found)
    slide = shapely.box(-offset[0], -offset[1], 100 - offset[0], 90 - offset[1])
    for shape, outline in zip(found, outlines, strict=True):
        assert shape.geom_type == "Polygon"
        assert slide.covers(shape)
        plain = shapely.Polygon(outline) if len(outline) > 2 else shapely.Polygon()
        if plain.is_valid and plain.area > 1 and shapely.box(0, 0, 100, 90).covers(plain):
            moved = shapely.transform(plain, lambda xy: xy - offset)
            assert shape.symmetric_difference(moved).area <= 0.02 * moved.length + 0.01


def circles(count: int, seed: int = 0) -> Nuclei:
    random = np.random.default_rng(seed)
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    unit = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    measures = random.uniform(0, 100, (count, len(MEASURES))).astype(np.float32)
    return make_nuclei([random.uniform(50, 5000, 2) + 12 * unit for _ in range(count)], measures)


def test_equal_nuclei_give_equal_bytes_however_batched_and_whenever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = circles(1500)
    singles = [
        make_nuclei(
            [whole.outline_px(k) for k in range(start, start + 300)], whole.measures[start : start + 300]
        )
        for start in range(0, 1500, 300)
    ]
    write_nuclei(tmp_path / "a.geojson.gz", [whole], make_frame(), "s")
    monkeypatch.setattr(time, "time", lambda: 12345.0)
    monkeypatch.setattr(geojson, "_CHUNK", 7)
    write_nuclei(tmp_path / "b.geojson.gz", [Nuclei.none(), *singles], make_frame(), "s")
    assert (tmp_path / "a.geojson.gz").read_bytes() == (tmp_path / "b.geojson.gz").read_bytes()
    assert len(read(tmp_path / "a.geojson.gz")["features"]) == 1500


coordinate = st.one_of(st.floats(-2_000, 2_000), st.floats(0, 3e6)).map(lambda value: round(value, 2))


@settings(max_examples=100)
@given(st.lists(st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=7), max_size=5))
def test_outlines_written_at_once_read_as_written_one_by_one(
    outlines: list[list[tuple[float, float]]],
) -> None:
    lengths = np.array([len(outline) for outline in outlines], np.int64)
    points = np.array([point for outline in outlines for point in outline], np.float64).reshape(-1, 2)
    texts = geojson._ring_texts(points, np.cumsum(lengths) - lengths, lengths)
    assert len(texts) == len(outlines)
    for text, outline in zip(texts, outlines, strict=True):
        whole = [(round(100 * x), round(100 * y)) for x, y in outline]
        ahead = whole[1:] + whole[:1]
        double_area = sum(
            (x - whole[0][0]) * (v - whole[0][1]) - (u - whole[0][0]) * (y - whole[0][1])
            for (x, y), (u, v) in zip(whole, ahead, strict=True)
        )
        turned = outline[::-1] if double_area < 0 else outline
        pairs = ",".join(f"[{x + 0.0:.2f},{y + 0.0:.2f}]" for x, y in [*turned, turned[0]])
        assert text == f"[[{pairs}]]"


def test_a_full_disk_while_packing_is_reported_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: gzip.GzipFile, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gzip.GzipFile, "write", full)
    with pytest.raises(ResultWriteError, match="No space left"):
        write_nuclei(tmp_path / "n.geojson.gz", [circles(10)], make_frame(), "s")
    assert list(tmp_path.iterdir()) == []


def test_no_batch_stays_in_memory_when_the_next_is_asked_for(tmp_path: Path) -> None:
    living: list[weakref.ref[np.ndarray]] = []

    def batches() -> Any:
        for number in range(6):
            assert sum(reference() is not None for reference in living) <= 1
            batch = circles(10, number)
            living.append(weakref.ref(batch.vertices_px))
            yield batch
            del batch

    assert write_nuclei(tmp_path / "n.geojson.gz", batches(), make_frame(), "s") == 60


def test_a_failing_stream_of_nuclei_leaves_no_file(tmp_path: Path) -> None:
    def batches() -> Any:
        yield circles(10)
        raise RuntimeError("model fell over")

    with pytest.raises(RuntimeError, match="fell over"):
        write_nuclei(tmp_path / "n.geojson.gz", batches(), make_frame(), "s")
    assert list(tmp_path.iterdir()) == []


def test_a_slide_name_that_is_not_utf8_is_written(tmp_path: Path) -> None:
    write_regions(tmp_path / "r.geojson", [make_region(DONUT)], make_frame(), 's\udce9 "é" 😀')
    assert read(tmp_path / "r.geojson")["lobule"]["slide"] == 's\udce9 "é" 😀'
    write_nuclei(tmp_path / "n.geojson.gz", [circles(1)], make_frame(), "s\udce9")
    assert read(tmp_path / "n.geojson.gz")["features"][0]["id"] == nucleus_id("s\udce9", 0)


def test_a_file_is_ascii_so_that_every_character_set_reads_it(tmp_path: Path) -> None:
    write_regions(tmp_path / "r.geojson", [make_region(DONUT)], make_frame(), "µ")
    write_nuclei(tmp_path / "n.geojson.gz", [circles(2)], make_frame(), "µ")
    assert (tmp_path / "r.geojson").read_bytes().isascii()
    assert gzip.decompress((tmp_path / "n.geojson.gz").read_bytes()).isascii()
    assert read(tmp_path / "r.geojson")["lobule"]["slide"] == "µ"
