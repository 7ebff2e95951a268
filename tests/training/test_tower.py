"""Train, evaluate, compare, export on a small drawn set: a killed run ends as an unbroken one; leaks are refused."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'lobule[train]')")

from lobule import __version__  # noqa: E402
from lobule.cli.compare import compare  # noqa: E402
from lobule.errors import (  # noqa: E402
    ConfigurationError,
    LeakageError,
    ModelOutputError,
    ResultError,
    ResultLockedError,
    WeightsNotFoundError,
)
from lobule.models.zoo import load_model  # noqa: E402
from lobule.runtimes import open_runtime  # noqa: E402
from lobule.training import export  # noqa: E402
from lobule.training.compare import compare_recipes  # noqa: E402
from lobule.training.loop import Devices, read_curve  # noqa: E402
from lobule.training.nuclei import NucleiTask  # noqa: E402
from lobule.training.precision import _Nuclei, prove_precisions  # noqa: E402
from lobule.training.recipe import NucleiRecipe, read_recipe  # noqa: E402
from lobule.training.robustness import DISTURBANCES  # noqa: E402
from lobule.training.tower import evaluate, export_run, open_run, train_run  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")

RECIPE = (Path(__file__).resolve().parents[2] / "recipes" / "nuclei-breast-lite0.toml").read_text("utf-8")


def write_set(folder: Path, parts: dict[str, int]) -> None:
    """Fields of 128 px with drawn nuclei, a patient each, by part in the manifest."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    rows, columns = np.mgrid[:128, :128]
    lines = []
    for part, count in parts.items():
        for k in range(count):
            pixels = np.clip(rng.normal((225, 185, 215), 12, (128, 128, 3)), 0, 255).astype(np.uint8)
            labels = np.zeros((128, 128), np.uint16)
            for label in range(1, 9):
                row, column, radius = rng.integers(10, 118), rng.integers(10, 118), rng.integers(6, 11)
                labels[np.hypot(rows - row, columns - column) < radius] = label
            pixels[labels > 0] = np.clip(rng.normal((95, 60, 140), 12, ((labels > 0).sum(), 3)), 0, 255)
            Image.fromarray(pixels).save(folder / "images" / f"{part}{k}.png")
            Image.fromarray(labels).save(folder / "labels" / f"{part}{k}.png")
            lines.append((f"{part}{k}.png", f"{part}-{k}", "breast", part))
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle).writerows([("file", "patient", "organ", "split"), *lines])


def write_recipe(path: Path, **changes: str) -> Path:
    text = RECIPE
    for old, new in {
        'sets = ["monuseg", "tnbc"]': 'sets = ["drawn"]',
        'by = "patient"': 'by = "column"',
        "thresholds = { mask = 0.55, depth = 0.2, min_area_um2 = 3.0 }": "",
        'weights = "imagenet"': 'weights = "none"',
        "crop_px = 256": "crop_px = 64",
        "steps = 4500": "steps = 6",
        "batch = 12": "batch = 2",
        'precision = "bfloat16"': 'precision = "float32"',
        'name = "nuclei-breast-lite0"': f'name = "{path.stem}"',
        **changes,
    }.items():
        assert old in text, old
        text = text.replace(old, new)
    path.write_text(text, "utf-8")
    return path


@pytest.fixture(name="data", scope="module")
def _data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("data")
    write_set(data / "drawn", {"training": 3, "selection": 1, "test": 2})
    return data


@pytest.fixture(name="recipe", scope="module")
def _recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("recipes") / "nuclei-drawn.toml")


@pytest.fixture(name="run", scope="module")
def _run(tmp_path_factory: pytest.TempPathFactory, data: Path, recipe: Path) -> Path:
    out = tmp_path_factory.mktemp("runs") / "a"
    train_run(recipe, data, out, say=lambda _: None)
    return out


class _Killed(Exception):
    pass


def test_a_killed_run_resumes_to_the_same_curve_and_weights(
    tmp_path: Path, data: Path, recipe: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lobule.training.loop._CHECKPOINT_SECONDS", 0.0)

    def say(line: str) -> None:
        if line.startswith("step 3"):
            raise _Killed

    with pytest.raises(_Killed):
        train_run(recipe, data, tmp_path / "b", say=say)
    assert open_run(tmp_path / "b").thresholds is None
    with pytest.raises(ConfigurationError, match="not done"):
        evaluate(tmp_path / "b", data, "test", say=lambda _: None)
    told: list[str] = []
    train_run(recipe, data, tmp_path / "b", say=told.append)
    assert any(line.startswith("resuming at step 2 of 6") for line in told)
    assert read_curve(tmp_path / "b") == read_curve(run)
    weights = [torch.load(folder / "weights.pt", weights_only=True) for folder in (run, tmp_path / "b")]
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    assert open_run(tmp_path / "b").thresholds == open_run(run).thresholds


def test_two_trainings_do_not_share_a_folder(data: Path, recipe: Path, tmp_path: Path) -> None:
    def again(line: str) -> None:
        with pytest.raises(ResultLockedError, match="another lobule train writes here"):
            train_run(recipe, data, tmp_path / "a", say=lambda _: None, steps=1)
        raise _Killed

    with pytest.raises(_Killed):
        train_run(recipe, data, tmp_path / "a", say=again, steps=1)
    assert train_run(recipe, data, tmp_path / "a", say=lambda _: None, steps=1).thresholds is not None


def test_a_run_of_another_recipe_or_seed_is_left_alone(
    data: Path, recipe: Path, run: Path, tmp_path: Path
) -> None:
    before = (run / "run.json").read_bytes()
    with pytest.raises(ConfigurationError, match="another seed"):
        train_run(recipe, data, run, say=lambda _: None, seed=99)
    other = write_recipe(tmp_path / "nuclei-other.toml")
    with pytest.raises(ConfigurationError, match="another recipe"):
        train_run(other, data, run, say=lambda _: None)
    assert (run / "run.json").read_bytes() == before


def test_a_run_that_goes_on_loses_what_is_of_fewer_steps(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed longer run has no weights and no scores that could be taken for its own."""
    monkeypatch.setattr("lobule.training.loop._CHECKPOINT_SECONDS", 0.0)
    recipe, out, table = write_recipe(tmp_path / "nuclei-on.toml"), tmp_path / "runs", tmp_path / "table.md"
    compare_recipes([recipe], data, out, table, seeds=1, say=lambda _: None, steps=2)
    folder = out / "nuclei-on" / "seed-20"
    assert (folder / "evaluation-test").is_dir()

    def kill(line: str) -> None:
        if line.startswith("resuming"):
            raise _Killed

    with pytest.raises(_Killed):
        compare_recipes([recipe], data, out, table, seeds=1, say=kill, steps=4)
    assert not (folder / "weights.pt").exists() and not (folder / "evaluation-test").exists()
    compare_recipes([recipe], None, out, table, seeds=1, say=lambda _: None, steps=4)
    assert "not run" in table.read_text("utf-8")
    with pytest.raises(ConfigurationError, match="holds a run of 2 steps"):
        train_run(recipe, data, folder, say=lambda _: None, steps=1)


def test_a_run_that_is_refused_leaves_the_finished_one_as_it_was(
    data: Path, recipe: Path, run: Path, tmp_path: Path
) -> None:
    finished = tmp_path / "a"
    shutil.copytree(run, finished)
    (finished / "evaluation-test").mkdir(exist_ok=True)
    before = {path.relative_to(finished): path.stat().st_size for path in finished.rglob("*")}
    refused: list[dict[str, object]] = [{"steps": 3}, {"devices": Devices("cpu", 3)}]
    if not torch.cuda.is_available():
        refused.append({"devices": Devices("cuda")})
    for options in refused:
        with pytest.raises(ConfigurationError):
            train_run(recipe, data, finished, say=lambda _: None, **options)  # type: ignore[arg-type]
        assert {path.relative_to(finished): path.stat().st_size for path in finished.rglob("*")} == before
    stops = write_recipe(
        tmp_path / "nuclei-stops.toml",
        **{"batch = 12": "batch = 2\n[loop.early_stop]\nevery = 1\npatience = 1\n[loop]"},
    )
    text = stops.read_text("utf-8").replace("\n[loop]\nlearning_rate", "\nlearning_rate")
    head, _, rest = text.partition("[loop.early_stop]\nevery = 1\npatience = 1\n")
    stops.write_text(f"{head}{rest}\n[loop.early_stop]\nevery = 1\npatience = 1\n", "utf-8")
    unchecked = tmp_path / "unchecked"
    shutil.copytree(data, unchecked)
    manifest = unchecked / "drawn" / "manifest.csv"
    manifest.write_text(manifest.read_text("utf-8").replace(",selection", ",training"), "utf-8")
    with pytest.raises(ConfigurationError, match="it needs a selection part"):
        train_run(stops, unchecked, tmp_path / "stops", say=lambda _: None)
    assert not (tmp_path / "stops").exists()


def test_fields_that_chose_a_runs_thresholds_do_not_test_it(
    data: Path, recipe: Path, run: Path, tmp_path: Path
) -> None:
    swapped = tmp_path / "swapped"
    shutil.copytree(data, swapped)
    manifest = swapped / "drawn" / "manifest.csv"
    parts = {"selection0": "test", "test0": "selection"}
    lines = [
        line.rpartition(",")[0] + f",{parts[line.split('.')[0]]}" if line.split(".")[0] in parts else line
        for line in manifest.read_text("utf-8").splitlines()
    ]
    manifest.write_text("\n".join(lines) + "\n", "utf-8")
    with pytest.raises(LeakageError, match=r"selection0.*chose the thresholds"):
        evaluate(run, swapped, "test", say=lambda _: None)
    with pytest.raises(ConfigurationError, match="a run of other fields"):
        train_run(recipe, swapped, run, say=lambda _: None)


def test_fields_that_trained_a_run_are_not_scored_as_kept_out(
    data: Path, run: Path, recipe: Path, tmp_path: Path
) -> None:
    shutil.copytree(data, tmp_path / "moved")
    manifest = tmp_path / "moved" / "drawn" / "manifest.csv"
    lines = manifest.read_text("utf-8").splitlines()
    moved = [
        line.removesuffix("training") + "test" if line.startswith("training0") else line for line in lines
    ]
    manifest.write_text("\n".join(moved) + "\n", "utf-8")
    with pytest.raises(LeakageError, match=r"training0.*trained .*/a and is"):
        evaluate(run, tmp_path / "moved", "test", say=lambda _: None)
    with pytest.raises(LeakageError, match=r"training0.*trained .*/a and is"):
        export_run(run, tmp_path / "moved", tmp_path / "nuclei-mine", say=lambda _: None)
    with pytest.raises(ConfigurationError, match="a run of other fields"):
        train_run(recipe, tmp_path / "moved", run, say=lambda _: None)


def test_a_run_does_not_go_on_under_other_outlines(
    data: Path, recipe: Path, run: Path, tmp_path: Path
) -> None:
    corrected = tmp_path / "corrected"
    shutil.copytree(data, corrected)
    labels = corrected / "drawn" / "labels" / "training1.png"
    Image.fromarray(np.asarray(Image.open(labels)) * np.uint16(2)).save(labels)
    shutil.copytree(run, tmp_path / "a")
    with pytest.raises(
        ConfigurationError, match=r"outlines of drawn/training1 are not those that .*/a learned"
    ):
        train_run(recipe, corrected, tmp_path / "a", say=lambda _: None)
    assert open_run(tmp_path / "a") == replace(open_run(run), folder=tmp_path / "a")


def test_a_card_is_not_made_of_other_outlines_than_trained(data: Path, run: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    redraw(tmp_path / "data", "selection0")
    with pytest.raises(ConfigurationError, match=r"/data.*other outlines trained"):
        export_run(run, tmp_path / "data", tmp_path / "nuclei-mine", say=lambda _: None)
    assert not (tmp_path / "nuclei-mine").exists()


def without(data: Path, field: str, folder: Path) -> Path:
    """A copy of the data that lacks a field."""
    shutil.copytree(data, folder)
    manifest = folder / "drawn" / "manifest.csv"
    lines = [line for line in manifest.read_text("utf-8").splitlines() if not line.startswith(field)]
    manifest.write_text("\n".join(lines) + "\n", "utf-8")
    for kind in ("images", "labels"):
        (folder / "drawn" / kind / f"{field}.png").unlink()
    return folder


UNKNOWN = "drawn, 2 fields of 2 patients of a test part; what trained could not be compared"
"""Another field of a patient that trained, or a near-copy of one, could be in the test part then."""


@pytest.mark.parametrize("field", ["training0", "selection0"])
def test_scores_claim_nothing_where_what_trained_is_not_in_the_data(
    data: Path, run: Path, tmp_path: Path, field: str
) -> None:
    fewer = without(data, field, tmp_path / "data")
    found = evaluate(_copied(run, tmp_path / "run"), fewer, "test", say=lambda _: None)
    assert {score.on for score in found.scores} == {UNKNOWN}


def test_a_run_that_never_began_binds_nobody(data: Path, tmp_path: Path) -> None:
    wrong = write_recipe(
        tmp_path / "nuclei-own.toml",
        **{'name = "lite0"': 'name = "resnet50"', 'weights = "none"': 'weights = "nowhere.pth"'},
    )
    out = tmp_path / "run"
    with pytest.raises(WeightsNotFoundError):
        train_run(wrong, data, out, say=lambda _: None)
    assert not out.exists()

    def kill(line: str) -> None:
        raise _Killed

    with pytest.raises(_Killed):
        train_run(write_recipe(wrong), data, out, say=kill)
    right = write_recipe(wrong, **{"steps = 4500": "steps = 1"})
    assert train_run(right, data, out, say=lambda _: None, seed=7).thresholds is not None
    # a recipe that lies in no run's folder is somebody's
    (tmp_path / "mine").mkdir()
    mine = write_recipe(tmp_path / "mine" / "recipe.toml")
    before = mine.read_bytes()
    with pytest.raises(ConfigurationError, match="another recipe"):
        train_run(right, data, mine.parent, say=lambda _: None)
    assert mine.read_bytes() == before


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ('selection = ["training-0", "training-1", "training-2"]', "split.selection: .*no field to train on"),
        ('test = ["training-0", "training-1", "training-2"]', "split.test: .*no field to train on"),
    ],
)
def test_what_leaves_nothing_to_train_on_is_named(
    data: Path, tmp_path: Path, names: str, message: str
) -> None:
    recipe = write_recipe(tmp_path / "nuclei-none.toml", **{'by = "patient"': f'by = "column"\n{names}'})
    with pytest.raises(ConfigurationError, match=message):
        train_run(recipe, data, tmp_path / "run", say=lambda _: None)
    assert not (tmp_path / "run").exists()


def test_training_fields_without_a_nucleus_teach_nothing(data: Path, recipe: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    for path in (tmp_path / "data" / "drawn" / "labels").glob("training*.png"):
        Image.fromarray(np.zeros((128, 128), np.uint16)).save(path)
    with pytest.raises(ConfigurationError, match=r"/data.*no training field has a nucleus"):
        train_run(recipe, tmp_path / "data", tmp_path / "run", say=lambda _: None)


def test_a_split_without_a_test_part_is_told_at_the_start_and_when_exported(
    data: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path / "nuclei-all.toml", **{"steps = 4500": "steps = 1"})
    own = without(without(data, "test0", tmp_path / "fewer"), "test1", tmp_path / "data")
    told: list[str] = []
    train_run(recipe, own, tmp_path / "run", say=told.append)
    assert any("neither scored nor exported; see [split]" in line for line in told)
    with pytest.raises(ConfigurationError, match=r"\[split\].*no field to test on"):
        export_run(tmp_path / "run", None, tmp_path / "nuclei-mine", say=lambda _: None)


def test_thresholds_that_nobody_chose_are_told(data: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "nuclei-blind.toml", **{"steps = 4500": "steps = 1"})
    told: list[str] = []
    train_run(recipe, without(data, "selection0", tmp_path / "data"), tmp_path / "run", say=told.append)
    assert told[-1] == (
        "thresholds: mask 0.5, depth 0.15, min_area_um2 6; there is no selection part to choose them on"
    )


@pytest.mark.parametrize(
    "thresholds", [{"mask": 0.5}, {"mask": "high", "depth": 0.2, "min_area_um2": 3}, [0.5], "mask"]
)
def test_damaged_thresholds_of_a_run_are_one_line(
    run: Path, data: Path, tmp_path: Path, thresholds: object
) -> None:
    held = _copied(run, tmp_path / "run") / "run.json"
    held.write_text(json.dumps(json.loads(held.read_text("utf-8")) | {"thresholds": thresholds}), "utf-8")
    with pytest.raises(ConfigurationError, match="it is no folder that lobule train wrote"):
        evaluate(held.parent, data, "test", say=lambda _: None)


def test_a_card_names_the_fields_that_trained_and_no_others(data: Path, run: Path, tmp_path: Path) -> None:
    fewer = without(data, "training2", tmp_path / "fewer")
    with pytest.raises(ConfigurationError, match="other fields trained"):
        export_run(run, fewer, tmp_path / "nuclei-mine", say=lambda _: None)
    assert not (tmp_path / "nuclei-mine").exists()


def test_evaluation_writes_scores_without_intervals_of_two_and_a_row_a_field(run: Path, data: Path) -> None:
    told: list[str] = []
    found = evaluate(run, data, "test", say=told.append, robustness=True)
    assert told[0].endswith("(no interval: fewer than 5 images)")
    folder = run / "evaluation-test"
    stored = {one["name"]: one for one in json.loads((folder / "scores.json").read_text("utf-8"))}
    assert len(stored) == len(found.scores)
    for one in stored.values():
        most = 2**4 if "loss" in one["name"] else 2**10 if "area" in one["name"] else 1
        assert 0 <= one["value"] <= most
        assert one["low"] is one["high"] is None and one["how"].endswith("no interval: fewer than 5 fields")
        assert one["on"] == "drawn, 2 fields of 2 patients kept out of training"
    for way in ("", ", components", ", watershed"):
        assert f"AJI, mean of images{way}" in stored
    with (folder / "images.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["field"] for row in rows] == ["drawn/test0", "drawn/test1"]
    mean = np.mean([float(row["pixel_jaccard"]) for row in rows])
    assert stored["pixel Jaccard, mean of images"]["value"] == pytest.approx(mean, abs=1e-4)
    assert "| blur, σ 1 px |" in (folder / "robustness.md").read_text("utf-8")


def test_an_exported_run_is_a_model_scored_as_the_run(
    run: Path, data: Path, recipe: Path, tmp_path: Path
) -> None:
    card = export_run(run, None, tmp_path / "nuclei-mine", say=lambda _: None)
    model = load_model(tmp_path / "nuclei-mine")
    assert model.card == card and card.name == "nuclei-mine"
    assert card.made_by.startswith(
        f"lobule {__version__}: lobule train nuclei-drawn.toml --data DATA; seed 20;"
    )
    assert {entry.count.split(",")[0] for entry in card.data} == {
        "3 fields of 3 patients",
        "1 field of 1 patient",
        "2 fields of 2 patients",
    }
    assert "largest difference torch against ONNX Runtime and OpenVINO" in card.made_by
    assert {entry.used_for for entry in card.data} == {"training", "selection", "test"}
    found = evaluate(run, data, "test", say=lambda _: None)
    again = evaluate(tmp_path / "nuclei-mine", data, "test", say=lambda _: None, recipe=recipe)
    for one, other, shipped in zip(found.scores, again.scores, card.scores, strict=False):
        assert one.name == other.name and abs(one.value - other.value) < 2e-3
        assert shipped == other
    with pytest.raises(ConfigurationError, match="--recipe is needed; a model's parts"):
        evaluate(tmp_path / "nuclei-mine", data, "test", say=lambda _: None)
    # behind them how it bears disturbance
    beyond = [score.name for score in card.scores[len(found.scores) :]]
    assert beyond[7:] == [f"Dice with the undisturbed, {one.name}" for one in DISTURBANCES]
    fewer = without(data, "training0", tmp_path / "fewer")
    again = evaluate(tmp_path / "nuclei-mine", fewer, "test", say=lambda _: None, recipe=recipe)
    assert {score.on for score in again.scores} == {UNKNOWN}
    settings = read_recipe(recipe)
    assert isinstance(settings, NucleiRecipe)
    proof = _Nuclei(model, NucleiTask(settings, recipe.parent, fewer, 20), settings)
    measured = proof.score(
        card.graphs[0],
        open_runtime("onnxruntime", "nuclei-mine", model.file(card.graphs[0]), card.graphs[0], workers=1),
    )
    assert measured.on == UNKNOWN
    # what trained the model cannot test it, whichever recipe says so
    moved = tmp_path / "moved"
    shutil.copytree(data, moved)
    manifest = moved / "drawn" / "manifest.csv"
    manifest.write_text(
        manifest.read_text("utf-8").replace("training-0,breast,training", "training-0,breast,test"), "utf-8"
    )
    with pytest.raises(LeakageError, match=r"training0.*training of nuclei-mine"):
        evaluate(tmp_path / "nuclei-mine", moved, "test", say=lambda _: None, recipe=recipe)
    with pytest.raises(LeakageError, match=r"training0.*training of nuclei-mine"):
        prove_precisions(tmp_path / "nuclei-mine", recipe, moved, tmp_path / "work", say=lambda _: None)
    plain = write_recipe(
        tmp_path / "nuclei-plain.toml",
        **{'split = "learned"\ndistance_weight = 2.0': 'split = "watershed"'},
    )
    with pytest.raises(ConfigurationError, match="gives 1 maps, nuclei-mine 2"):
        evaluate(tmp_path / "nuclei-mine", data, "test", say=lambda _: None, recipe=plain)
    # before that how good a thorough look is, which is a score of its own
    careful = evaluate(run, data, "test", say=lambda _: None, thorough=True)
    assert (run / "evaluation-test-thorough" / "scores.json").is_file()
    values = {f"{score.name}, thorough": score.value for score in careful.scores}
    for score in card.scores[len(found.scores) : len(found.scores) + 7]:
        assert abs(score.value - values[score.name]) < 2e-3 and "eight" in score.how
    assert all(score.how.startswith("--thorough; ") for score in careful.scores)
    with pytest.raises(ConfigurationError, match="already"):
        export_run(run, None, tmp_path / "nuclei-mine", say=lambda _: None)


def test_a_graph_that_differs_leaves_no_model(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "largest_difference", lambda *_: 0.01)
    with pytest.raises(ModelOutputError, match="is refused"):
        export_run(run, None, tmp_path / "nuclei-mine", say=lambda _: None)
    assert not list(tmp_path.iterdir())


def test_a_patient_on_both_sides_is_refused_before_anything_is_trained(
    tmp_path: Path, data: Path, recipe: Path
) -> None:
    shutil.copytree(data, tmp_path / "data")
    manifest = tmp_path / "data" / "drawn" / "manifest.csv"
    manifest.write_text(manifest.read_text("utf-8").replace("test-0", "training-0"), "utf-8")
    with pytest.raises(LeakageError, match="training-0"):
        train_run(recipe, tmp_path / "data", tmp_path / "run", say=lambda _: None)
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_comparing_trains_what_is_missing_and_says_what_was_not_run(tmp_path: Path, data: Path) -> None:
    lite = write_recipe(tmp_path / "nuclei-small.toml", **{"steps = 4500": "steps = 2"})
    absent = write_recipe(
        tmp_path / "nuclei-absent.toml",
        **{'name = "lite0"': 'name = "resnet50"', 'weights = "none"': 'weights = "nowhere.pth"'},
    )
    table = tmp_path / "table.md"
    told: list[str] = []
    failed = compare_recipes([absent, lite], data, tmp_path / "runs", table, seeds=2, say=told.append)
    assert failed == 1
    rows = {line.split("|")[1].strip(): line for line in table.read_text("utf-8").splitlines() if "|" in line}
    assert "2 of 2" in rows["nuclei-small"]
    assert "not run" in rows["nuclei-absent"] and "nowhere.pth" in rows["nuclei-absent"]
    assert told.index("nuclei-small, seed 20") < told.index("nuclei-small, seed 21")
    told.clear()
    compare_recipes([lite], data, tmp_path / "runs", table, seeds=2, say=told.append)
    assert not told  # done runs are not done again
    shutil.copytree(data, tmp_path / "copied")
    compare_recipes([lite], tmp_path / "copied", tmp_path / "runs", table, seeds=1, say=told.append)
    assert not told  # nor where the data lie elsewhere
    with pytest.raises(ConfigurationError, match="there is no folder drawn"):
        compare_recipes([lite], tmp_path, tmp_path / "runs", table, seeds=2, say=told.append)
    scores = tmp_path / "runs" / "nuclei-small" / "seed-21" / "evaluation-test" / "scores.json"
    scores.write_text(scores.read_text("utf-8")[:100], "utf-8")
    compare_recipes([lite], None, tmp_path / "runs", table, seeds=2, say=told.append)
    assert "1 of 2" in table.read_text("utf-8")
    compare_recipes([lite], None, tmp_path / "elsewhere", table, seeds=1, say=told.append)
    assert "not run" in table.read_text("utf-8")
    # a run of fewer steps than are asked for is none, and one of another recipe is nobody's to overwrite
    compare_recipes([lite], None, tmp_path / "runs", table, seeds=2, say=told.append, steps=3)
    assert "not run" in table.read_text("utf-8")
    write_recipe(lite, **{"steps = 4500": "steps = 2", "batch = 12": "batch = 3"})
    with pytest.raises(ConfigurationError, match="another recipe"):
        compare_recipes([lite], None, tmp_path / "runs", table, seeds=2, say=told.append)


@pytest.mark.parametrize("failed", [0, 1])
def test_a_comparison_in_which_a_recipe_failed_exits_1(
    failed: int, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lobule.training.compare.compare_recipes", lambda *_, **__: failed)
    call = [str(recipe), "--table", str(tmp_path / "table.md")]
    assert CliRunner().invoke(compare, call, standalone_mode=False).return_value == failed


def redraw(data: Path, name: str) -> None:
    """Removes the first nucleus of a drawn field."""
    path = data / "drawn" / "labels" / f"{name}.png"
    labels = np.array(Image.open(path))
    labels[labels == 1] = 0
    Image.fromarray(labels).save(path)


def test_comparing_scores_anew_what_tests_and_leaves_out_what_trained_on_other_data(
    tmp_path: Path, data: Path
) -> None:
    recipe = write_recipe(tmp_path / "nuclei-small.toml", **{"steps = 4500": "steps = 1"})
    own, table, told = tmp_path / "data", tmp_path / "table.md", list[str]()
    shutil.copytree(data, own)

    def failed(given: Path | None) -> int:
        told.clear()
        return compare_recipes([recipe], given, tmp_path / "runs", table, seeds=1, say=told.append)

    scores = tmp_path / "runs" / "nuclei-small" / "seed-20" / "evaluation-test" / "scores.json"
    assert failed(own) == 0
    before = scores.read_bytes()
    redraw(own, "test0")
    assert failed(own) == 0
    assert any(line.startswith("on drawn") for line in told) and scores.read_bytes() != before
    assert "1 of 1" in table.read_text("utf-8")
    # scores that somebody took on other data meanwhile are not tabulated for these
    out, now = scores.parents[1], scores.read_bytes()
    evaluate(out, data, "test", say=lambda _: None)
    assert scores.read_bytes() == before
    assert failed(own) == 0 and scores.read_bytes() == now
    redraw(own, "training0")
    assert failed(own) == 1
    [row] = [line for line in table.read_text("utf-8").splitlines() if "nuclei-small" in line]
    assert "not run: " in row and "outlines of drawn/training0" in row and "| 1 of 1" not in row
    assert failed(None) == 0  # without data what lies there is tabulated
    assert "1 of 1" in table.read_text("utf-8")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("recipe.toml", None, "seed-21.* holds a run of another recipe than"),
        ("recipe.toml", "name = 'other'", "seed-21.* holds a run of another recipe than"),
        ("run.json", "{", "seed-21.* no folder that lobule train wrote"),
    ],
)
def test_a_foreign_run_is_found_before_anything_is_trained(
    file: str,
    content: str | None,
    message: str,
    tmp_path: Path,
    data: Path,
    run: Path,
    recipe: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("something was trained")

    monkeypatch.setattr("lobule.training.compare.train_run", never)
    first = write_recipe(tmp_path / "nuclei-first.toml")
    folder = tmp_path / "runs" / "nuclei-drawn" / "seed-21"
    shutil.copytree(run, folder)
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content, "utf-8")
    with pytest.raises(ConfigurationError, match=message):
        compare_recipes([first, recipe], data, tmp_path / "runs", tmp_path / "table.md", seeds=2, say=print)
    assert not (tmp_path / "runs" / "nuclei-first").exists()


def test_two_devices_share_a_batch(tmp_path: Path, data: Path, recipe: Path) -> None:
    lobule = Path(sys.executable).with_name("lobule")
    call = [str(lobule), "train", str(recipe), "--data", str(data), "--out", str(tmp_path / "two")]
    result = subprocess.run(
        [*call, "--device", "cpu", "--devices", "2", "--steps", "2"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("step 2 of 2") == 1
    assert open_run(tmp_path / "two").thresholds is not None


def test_scores_that_are_no_numbers_are_not_written(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = _copied(run, tmp_path / "run")
    shutil.rmtree(out / "evaluation-test", ignore_errors=True)
    monkeypatch.setattr("lobule.training.nuclei._field_loss", lambda *_: float("nan"))
    with pytest.raises(ResultError, match="scores that are no numbers"):
        evaluate(out, data, "test", say=lambda _: None)
    assert not (out / "evaluation-test").exists()


def _copied(run: Path, folder: Path) -> Path:
    shutil.copytree(run, folder)
    return folder


@pytest.mark.parametrize("kept", [0, 4000])
def test_weights_cut_short_are_named(run: Path, data: Path, tmp_path: Path, kept: int) -> None:
    broken = _copied(run, tmp_path / "run")
    weights = broken / "weights.pt"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(ResultError, match=r"weights\.pt.*damaged"):
        evaluate(broken, data, "test", say=lambda _: None)


def test_weights_of_another_network_are_named(run: Path, data: Path, tmp_path: Path) -> None:
    foreign = _copied(run, tmp_path / "run")
    write_recipe(foreign / "recipe.toml", **{'name = "lite0"': 'name = "densenet121"'})
    with pytest.raises(ResultError, match=r"weights\.pt.*another network"):
        evaluate(foreign, data, "test", say=lambda _: None)


def test_a_checkpoint_cut_short_is_named_and_stays(
    tmp_path: Path, data: Path, recipe: Path, run: Path
) -> None:
    broken = _copied(run, tmp_path / "run")
    (broken / "weights.pt").unlink()
    checkpoint = broken / "checkpoint.pt"
    checkpoint.write_bytes(b"not a checkpoint")
    with pytest.raises(ResultError, match=r"checkpoint\.pt.*damaged"):
        train_run(recipe, data, broken, say=lambda _: None)
    assert checkpoint.read_bytes() == b"not a checkpoint"


def test_loaders_are_refused_where_processes_do_not_begin_as_copies(
    tmp_path: Path, data: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    with pytest.raises(ConfigurationError, match="--loaders"):
        train_run(recipe, data, tmp_path / "a", say=lambda _: None, devices=Devices("cpu", 1, 2))
    assert not (tmp_path / "a").exists()


def test_a_recipe_with_line_ends_of_windows_is_compared(tmp_path: Path, data: Path) -> None:
    recipe = write_recipe(tmp_path / "nuclei-crlf.toml", **{"steps = 4500": "steps = 1"})
    recipe.write_bytes(recipe.read_bytes().replace(b"\n", b"\r\n"))
    table = tmp_path / "table.md"
    compare_recipes([recipe], data, tmp_path / "runs", table, seeds=1, say=lambda _: None)
    assert "1 of 1" in table.read_text("utf-8")


def test_a_table_without_a_folder_and_recipes_of_one_name_are_refused_before_training(
    tmp_path: Path, data: Path
) -> None:
    one = write_recipe(tmp_path / "one.toml")
    with pytest.raises(ConfigurationError, match="there is no folder"):
        compare_recipes([one], data, tmp_path / "work", tmp_path / "absent" / "table.md", seeds=1, say=print)
    (tmp_path / "again").mkdir()
    again = shutil.copy(one, tmp_path / "again" / "one.toml")
    with pytest.raises(ConfigurationError, match="two recipes are named one"):
        compare_recipes(
            [one, Path(again)], data, tmp_path / "work", tmp_path / "table.md", seeds=1, say=print
        )
    assert not (tmp_path / "work").exists()
