"""The nuclei stage on painted slides: neighbors, borders, other tissue, and images of odd content."""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from drawn_models import darkness_model
from painted_slides import MPP, paint
from PIL import Image
from scipy.spatial import cKDTree

from lobule import analyze, open_slide
from lobule.analysis import Options
from lobule.analysis.measurements import _density, _sizes, nuclei_notices
from lobule.analysis.nuclei_stage import NucleiOutcome
from lobule.analysis.work import FolderWork
from lobule.findings.nuclei import Nuclei
from lobule.geometry import Mpp
from lobule.models.zoo import load_model, select_models
from lobule.slides import ArraySlide


def measured(image: np.ndarray, model: Path, folder: Path) -> tuple[NucleiOutcome | None, dict[str, float]]:
    """The outcome on an image that is tissue all over."""
    mask = folder / "all.png"
    Image.fromarray(np.full(image.shape[:2], 255, np.uint8)).save(mask)
    options = Options(only=("nuclei",), models=(str(model),), nuclei_tiles=None, tissue=mask)
    result = analyze(ArraySlide(image, Mpp(0.5, 0.5)), options=options)
    numbers = {m.name: m.value for m in result.measurements if m.value is not None}
    return result.nuclei, numbers


@pytest.fixture(scope="module")
def darkness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return darkness_model(tmp_path_factory.mktemp("models") / "darkness")


@pytest.fixture(scope="module")
def outcome(painted: Path, models: Path) -> NucleiOutcome:
    with open_slide(painted) as slide:
        result = analyze(slide, options=Options(models=(str(models),), nuclei_tiles=None))
    assert result.nuclei is not None
    return result.nuclei


def test_distances_to_the_nearest_are_those_of_the_painted_dots(
    outcome: NucleiOutcome, dots: np.ndarray
) -> None:
    nuclei = Nuclei.joined(outcome.batches())
    apart = cKDTree(dots).query(dots, k=2)[0][:, 1] * MPP
    _, which = cKDTree(dots + 0.5).query(nuclei.centroid_px)
    found = nuclei.measure("nearest_distance_um")
    known = np.isfinite(found)
    assert known.mean() > 0.9
    np.testing.assert_allclose(found[known], apart[which][known], atol=0.05)


def test_a_tile_read_alone_is_the_tile_of_the_whole_reading(outcome: NucleiOutcome) -> None:
    for number, batch in enumerate(outcome.batches()):
        alone = outcome.batch(number)
        assert len(batch) == outcome.tile_counts[number]
        np.testing.assert_array_equal(alone.centroid_px, batch.centroid_px)
        np.testing.assert_array_equal(alone.measures, batch.measures)


def test_the_tissue_outside_the_tumor_region_is_looked_at_to_compare_with(outcome: NucleiOutcome) -> None:
    assert outcome.elsewhere is not None
    assert outcome.elsewhere.name == "tissue outside the tumor region"
    # all dots lie in the tumor
    assert outcome.elsewhere.tiles > 0 and len(outcome.elsewhere.area_um2) == 0


@pytest.mark.parametrize("first", [("tumor", "nuclei"), ("nuclei",)])
def test_what_was_kept_of_one_place_is_not_taken_for_another(
    painted: Path, models: Path, tmp_path: Path, first: tuple[str, ...]
) -> None:
    """In the tumor region and in all tissue a tile keeps other nuclei: whichever came before, as in a fresh run."""
    found = []
    for folder, orders in (("one", [first]), ("two", [("nuclei",), ("tumor", "nuclei")]), ("three", [])):
        work = tmp_path / folder
        for only in orders or [("tumor", "nuclei"), first]:
            with open_slide(painted) as slide:
                options = Options(only=only, models=(str(models),), nuclei_tiles=None)
                with contextlib.closing(FolderWork(work)) as held:
                    result = analyze(slide, options=options, work=held)
                    assert result.nuclei is not None
                    last = only, len(Nuclei.joined(result.nuclei.batches())), result.nuclei.resumed
        found.append(last)
    fresh = found[0]
    assert all(one[1] == fresh[1] for one in found if one[0] == fresh[0])
    assert found[2][0] == first


def test_a_resumed_run_of_the_same_place_keeps_its_records(
    painted: Path, models: Path, tmp_path: Path
) -> None:
    resumed = []
    for _ in range(2):
        with open_slide(painted) as slide, contextlib.closing(FolderWork(tmp_path / "work")) as work:
            result = analyze(slide, options=Options(models=(str(models),), nuclei_tiles=None), work=work)
            assert result.nuclei is not None
            resumed.append(result.nuclei.resumed)
    assert resumed[0] == 0 and resumed[1] > 0


def test_a_strip_narrower_than_any_cell_is_looked_at(darkness: Path, tmp_path: Path) -> None:
    """29 µm wide, between the centers of the mask that tiles are chosen by."""
    dots = np.array([[300 + 0, y] for y in range(40, 1000, 60)])
    image = paint((1024, 1024), [], dots, margin=0)
    strip = tmp_path / "strip.geojson"
    ring = [[290, 0], [312, 0], [312, 1024], [290, 1024], [290, 0]]
    strip.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    mpp = Mpp(0.5, 0.5)
    for limit in (None, 64):
        options = Options(only=("nuclei",), models=(str(darkness),), nuclei_tiles=limit, tissue=strip)
        nuclei = analyze(ArraySlide(image, mpp), options=options).nuclei
        assert nuclei is not None
        assert len(Nuclei.joined(nuclei.batches())) == len(dots)
        assert nuclei.candidates == len(nuclei.indices)


def test_a_limit_takes_full_tiles_first_and_says_of_how_many(darkness: Path, tmp_path: Path) -> None:
    image = paint((1024, 1024), [], np.zeros((0, 2)), margin=0)
    graph = load_model(darkness).card.graph("segment")
    assert graph is not None
    stride = (graph.tile_px - 2 * graph.halo_px) / 2  # level-0 px: the model works at the same mpp
    half = tmp_path / "some.geojson"
    # one and a quarter tiles wide, four high
    ring = [[0, 0], [2.5 * stride, 0], [2.5 * stride, 8 * stride], [0, 8 * stride], [0, 0]]
    half.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    found = {}
    for limit in (2, 6, None):
        options = Options(only=("nuclei",), models=(str(darkness),), nuclei_tiles=limit, tissue=half)
        nuclei = analyze(ArraySlide(image, Mpp(0.5, 0.5)), options=options).nuclei
        assert nuclei is not None
        found[limit] = nuclei
    assert [len(one.indices) for one in found.values()] == [2, 6, 8]
    assert {one.candidates for one in found.values()} == {8}
    columns = found[None].grid.columns
    assert (found[2].indices % columns == 0).all(), "of the full tiles"
    assert np.count_nonzero(found[6].indices % columns == 0) == 4, "the fullest"


def test_tissue_that_was_given_bounds_what_is_counted(painted: Path, models: Path, tmp_path: Path) -> None:
    """Nuclei are counted on the area that divides them, in the tumor region too."""
    with open_slide(painted) as slide:
        height = slide.size[1]
        plain = analyze(slide, options=Options(models=(str(models),), nuclei_tiles=None))
        assert plain.tumor is not None and plain.nuclei is not None
        left, _, right, _ = plain.tumor.regions[0].polygon.bounds
        middle = (left + right) / 2
        ring = [[0, 0], [middle, 0], [middle, height], [0, height], [0, 0]]
        mask = tmp_path / "left.geojson"
        mask.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
        result = analyze(slide, options=Options(models=(str(models),), nuclei_tiles=None, tissue=mask))
    assert result.tumor is not None and result.nuclei is not None
    nuclei = Nuclei.joined(result.nuclei.batches())
    assert len(nuclei) > 0
    assert nuclei.centroid_px[:, 0].max() <= middle + 1e-6
    assert result.nuclei.tile_area_mm2.sum() <= middle * height * MPP**2 / 1e6 * 1.001


def test_tissue_that_was_given_bounds_the_tumor_region(models: Path, tmp_path: Path) -> None:
    """In a field of one tile, which is tumor as a whole or not at all."""
    field = ArraySlide(paint((120, 120), [(0, 0, 120, 120)], np.array([[40, 40]]), margin=0), Mpp(0.5, 0.5))
    mask = tmp_path / "left.geojson"
    ring = [[0, 0], [60, 0], [60, 120], [0, 120], [0, 0]]
    mask.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    areas = []
    for tissue in (mask, None):
        result = analyze(field, options=Options(models=(str(models),), tissue=tissue))
        assert result.tumor is not None and len(result.tumor.regions) == 1
        numbers = {measurement.name: measurement for measurement in result.measurements}
        areas.append(numbers["tumor_area"])
        assert numbers["tumor_share"].value == pytest.approx(1, rel=0.02)
    assert areas[0].value == pytest.approx(areas[1].value / 2, rel=0.02)
    assert areas[0].low is not None and areas[0].high == pytest.approx(areas[0].value, rel=0.02)


def test_sizes_are_of_nuclei_that_are_seen_whole(darkness: Path, tmp_path: Path) -> None:
    image = paint((150, 120), [], np.array([[40, 40], [90, 70]]), margin=0)
    _, alone = measured(image, darkness, tmp_path)
    image[60:70, :4] = (80, 60, 120)
    nuclei, numbers = measured(image, darkness, tmp_path)
    assert nuclei is not None and numbers["nuclei_counted"] == alone["nuclei_counted"] + 1
    for name in (
        "nuclear_area_mean",
        "nuclear_area_median",
        "nuclear_circularity_mean",
        "large_nuclei_share",
    ):
        assert numbers[name] == pytest.approx(alone[name])


def test_spread_is_the_samples_and_one_nucleus_has_none() -> None:
    def of(*areas: float) -> dict[str, float | None]:
        columns = SimpleNamespace(
            area_um2=np.array(areas, np.float32),
            circularity=np.array(areas, np.float32) / 100,
            touches_border=np.zeros(len(areas), np.float32),
        )
        return {row.name: row.value for row in _sizes(cast(NucleiOutcome, SimpleNamespace(columns=columns)))}

    two = of(10, 14)
    assert two["nuclear_area_sd"] == pytest.approx(8**0.5, rel=1e-5)
    assert two["nuclear_circularity_sd"] == pytest.approx(8**0.5 / 100, rel=1e-5)
    assert two["nuclear_area_cv"] == pytest.approx(8**0.5 / 12, rel=1e-5)
    one = of(10)
    assert one["nuclear_area_mean"] == 10
    assert [one[name] for name in ("nuclear_area_sd", "nuclear_area_cv", "nuclear_circularity_sd")] == [
        None
    ] * 3


def test_large_is_more_than_twice_the_median_of_the_smaller_half() -> None:
    """Of seven nuclei the three smallest, whose median is 10, also where others equal the median of all."""
    areas = np.array([9, 10, 12, 12, 12, 21, 25], np.float32)
    columns = SimpleNamespace(area_um2=areas, circularity=areas / 100, touches_border=np.zeros(7, np.float32))
    rows = {row.name: row for row in _sizes(cast(NucleiOutcome, SimpleNamespace(columns=columns)))}
    assert rows["large_nuclei_share"].value == pytest.approx(2 / 7, rel=1e-5)
    assert "20.0 µm²" in (rows["large_nuclei_share"].how or "")


@pytest.mark.parametrize(
    ("source", "advice"),
    [
        ("file", "may be wrong: check it and give --mpp."),
        ("option", "may be wrong: check the --mpp given."),
        ("csv", "may be wrong: check the table given with --mpp."),
    ],
)
@pytest.mark.parametrize("own", [False, True])
def test_sizes_that_cannot_be_blame_what_may_be_wrong(
    source: str, advice: str, own: bool, darkness: Path
) -> None:
    nuclei = SimpleNamespace(
        columns=SimpleNamespace(area_um2=np.full(60, 3.0), touches_border=np.zeros(60)),
        frame=SimpleNamespace(scale=(1.0, 1.0)),
        where="tumor region",
    )
    prepared = SimpleNamespace(
        mpp=Mpp(0.1, 0.1),
        slide=SimpleNamespace(properties=SimpleNamespace(mpp_source=source)),
        models={"nuclei": load_model(darkness) if own else select_models()["nuclei"]},
        options=Options(),
    )
    (notice,) = nuclei_notices(cast(NucleiOutcome, nuclei), cast(Any, prepared))
    assert notice.code == "mpp-implausible"
    doubt = " Or the model, which is none of lobule's own, finds other things than nuclei."
    assert notice.message.endswith(advice + (doubt if own else ""))


def test_a_thorough_look_sees_the_same_nuclei_wherever_up_is(data_dir: Path) -> None:
    with Image.open(data_dir / "tnbc" / "Slide_02" / "02_1.png") as picture:
        field = np.asarray(picture.convert("RGB"))[:384, :512]

    def look(pixels: np.ndarray, *, thorough: bool) -> np.ndarray:
        options = Options(only=("nuclei",), precision="float32", thorough=thorough)
        result = analyze(ArraySlide(pixels, Mpp(0.25, 0.25)), options=options)
        assert result.nuclei is not None
        stage = next(stage for stage in result.stages if stage.name == "nuclei")
        assert ("in all eight ways" in (stage.reason or "")) == thorough
        return Nuclei.joined(result.nuclei.batches()).centroid_px

    def turned_back(centers: np.ndarray) -> np.ndarray:
        return np.stack([field.shape[1] - centers[:, 1], centers[:, 0]], 1)

    turned = np.ascontiguousarray(np.rot90(field))
    once, thorough = (
        cKDTree(look(field, thorough=way)).query(turned_back(look(turned, thorough=way)))[0]
        for way in (False, True)
    )
    # what is left are sums in another order
    assert (thorough < 0.5).mean() > 0.99 > (once < 0.5).mean()


def test_measurements_name_their_units(painted: Path, models: Path) -> None:
    with open_slide(painted) as slide:
        result = analyze(slide, options=Options(models=(str(models),), nuclei_tiles=None))
    units = {m.name: m.unit for m in result.measurements if m.stage == "nuclei"}
    assert units == {
        "nuclei_counted": "",
        "looked_at_area": "mm²",
        "nuclear_density": "1/mm²",
        "nuclear_area_median": "µm²",
        "nuclear_area_mean": "µm²",
        "nuclear_area_sd": "µm²",
        "nuclear_area_cv": "",
        "nuclear_circularity_mean": "",
        "nuclear_circularity_sd": "",
        "nuclear_circularity_cv": "",
        "large_nuclei_share": "",
        "nearest_nucleus_mean": "µm",
    }


def test_an_image_smaller_than_a_tile_keeps_its_nuclei(darkness: Path, tmp_path: Path) -> None:
    image = paint((150, 120), [], np.array([[40, 40], [90, 70]]), margin=0)
    image[60:70, :8] = (80, 60, 120)
    nuclei, numbers = measured(image, darkness, tmp_path)
    assert nuclei is not None and numbers["nuclei_counted"] == 3
    found = Nuclei.joined(nuclei.batches())
    # the one at the image's edge is cut
    order = np.argsort(found.centroid_px[:, 0])
    assert found.measure("touches_border")[order].tolist() == [1, 0, 0]


def test_a_field_smaller_than_a_tile_is_looked_at_as_it_is(data_dir: Path) -> None:
    """By the shipped model: the nuclei that its maps of the field by itself hold."""
    import onnxruntime

    from lobule.families.instances import split

    with Image.open(data_dir / "tnbc" / "Slide_02" / "02_1.png") as picture:
        field = np.asarray(picture.convert("RGB"))[:400, :500]
    result = analyze(
        ArraySlide(field, Mpp(0.25, 0.25)), options=Options(only=("nuclei",), precision="float32")
    )
    assert result.nuclei is not None
    nuclei = Nuclei.joined(result.nuclei.batches())

    model = select_models()["nuclei"]
    graph = model.card.graph("segment")
    assert graph is not None
    session = onnxruntime.InferenceSession(str(model.file(graph)), providers=["CPUExecutionProvider"])
    grown = np.pad(field, ((0, 16), (0, 12), (0, 0)), mode="symmetric")
    maps = session.run(None, {"pixels": grown[None]})[0][0, :, :400, :500]
    thresholds = model.card.thresholds
    labels = split(
        maps,
        "learned",
        mask_threshold=thresholds["mask"],
        depth=thresholds["depth"],
        min_area_px=thresholds["min_area_um2"] / 0.25**2,
    )
    areas = np.bincount(labels.ravel())[1:] * 0.25**2
    assert result.tissue.tissue.share > 0.999
    np.testing.assert_allclose(np.sort(nuclei.measure("area_um2")), np.sort(areas), atol=0.3)


def test_tissue_without_nuclei_counts_none(darkness: Path, tmp_path: Path) -> None:
    image = paint((600, 500), [], margin=0)
    nuclei, numbers = measured(image, darkness, tmp_path)
    assert nuclei is not None and numbers["nuclei_counted"] == 0 and numbers["nuclear_density"] == 0
    assert Nuclei.joined(nuclei.batches()).centroid_px.shape == (0, 2)
    assert "nuclear_area_median" not in numbers


def test_an_image_of_nothing_but_nucleus_is_one_that_touches_the_border(
    darkness: Path, tmp_path: Path
) -> None:
    image = np.full((150, 180, 3), (90, 40, 110), np.uint8)
    nuclei, numbers = measured(image, darkness, tmp_path)
    assert nuclei is not None and numbers["nuclei_counted"] == 1
    found = Nuclei.joined(nuclei.batches())
    assert found.measure("touches_border").tolist() == [1]
    assert found.measure("area_um2") == pytest.approx([150 * 180 * 0.25])
    assert "nuclear_area_mean" not in numbers, "of none the size is known"
    assert "nearest_nucleus_mean" not in numbers


def test_the_report_shows_typical_and_extreme_nuclei(painted: Path, models: Path, tmp_path: Path) -> None:
    with open_slide(painted) as slide:
        folder = analyze(slide, options=Options(models=(str(models),), nuclei_tiles=None)).write(tmp_path)
    text = (folder / "report.html").read_text("utf-8")
    for title in ("Typical: nearest to the median area", "Largest", "Least circular", "Darkest"):
        assert title in text
    assert "Areas of nuclei" in text and "nuclei.csv.gz" in text


def test_tables_hold_the_nuclei_of_the_geojson(painted: Path, models: Path, tmp_path: Path) -> None:
    with open_slide(painted) as slide:
        folder = analyze(slide, options=Options(models=(str(models),), nuclei_tiles=None)).write(tmp_path)
    features = json.loads(gzip.decompress((folder / "nuclei.geojson.gz").read_bytes()))["features"]
    with gzip.open(folder / "nuclei.csv.gz", "rt", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["id"] for row in rows] == [feature["id"] for feature in features]
    for row, feature in zip(rows, features, strict=True):
        measures = feature["properties"]["measurements"]
        assert float(row["area_um2"]) == measures["Area µm²"]
        assert (row["nearest_distance_um"] == "") == ("Nearest nucleus µm" not in measures)


def test_the_interval_of_the_density_covers_what_it_says_also_for_few_tiles() -> None:
    """Tiles whose density varies by a quarter, 3 to 20 of them: the true density lies within 95 times of 100."""
    random = np.random.default_rng(0)
    for tiles in (3, 5, 20):
        covered = 0
        for _ in range(1500):
            area = random.uniform(0.02, 0.04, tiles)
            counts = random.poisson(area * 3000 * np.clip(random.normal(1, 0.25, tiles), 0.1, None))
            _, low, high = _density(cast(Any, SimpleNamespace(tile_area_mm2=area, tile_counts=counts)))
            assert low is not None and high is not None
            covered += low <= 3000 <= high
        assert 0.91 < covered / 1500 < 0.985, tiles


@pytest.mark.parametrize("counts", [[5, 7], [0, 0, 0, 0]])
def test_tiles_that_do_not_tell_how_tiles_differ_give_no_interval(counts: list[int]) -> None:
    tiles = SimpleNamespace(tile_area_mm2=np.full(len(counts), 0.5), tile_counts=np.array(counts))
    density, low, high = _density(cast(Any, tiles))
    assert density == pytest.approx(sum(counts) / 0.5 / len(counts)) and low is None and high is None
