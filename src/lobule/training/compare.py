"""Recipes side by side: trained, scored on the test part and set beside what their paper published."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch

from lobule.errors import ConfigurationError, LobuleError
from lobule.strict import changed
from lobule.training.loop import AUTO, CurvePoint, Devices, read_curve
from lobule.training.networks import count_parameters
from lobule.training.nuclei import LOSS_SCORE, NucleiTask, build_nuclei
from lobule.training.recipe import NucleiRecipe, read_recipe
from lobule.training.tower import Run, evaluate, has_begun, open_run, recipe_seed, train_run
from lobule.whole_file import whole_file

__all__ = ["KASTURI_2022", "compare_recipes"]

Say = Callable[[str], None]
_Digests = tuple[dict[str, dict[str, str]], dict[str, dict[str, str]]]


@dataclass(frozen=True)
class Published:
    """A row of Kasturi et al. 2022: losses (Table II), Jaccard, F1, recall, precision, accuracy and frames/s (III)."""

    train_loss: float
    valid_loss: float
    measures: tuple[float, float, float, float, float]
    frames_per_second: float


KASTURI_2022: dict[tuple[str, str], Published] = {
    ("modified-unet", "none"): Published(0.448, 0.486, (0.662, 0.795, 0.821, 0.788, 0.936), 129.5),
    ("resnet50", "none"): Published(0.465, 0.604, (0.588, 0.737, 0.743, 0.757, 0.922), 71.6),
    ("resnet101", "none"): Published(0.493, 0.622, (0.574, 0.725, 0.756, 0.732, 0.916), 40.6),
    ("resnext50_32x4d", "none"): Published(0.480, 0.604, (0.581, 0.731, 0.793, 0.708, 0.914), 75.9),
    ("resnext101_32x8d", "none"): Published(0.472, 0.629, (0.571, 0.722, 0.818, 0.676, 0.907), 36.5),
    ("densenet121", "none"): Published(0.450, 0.537, (0.594, 0.742, 0.812, 0.707, 0.912), 30.9),
    ("densenet201", "none"): Published(0.453, 0.590, (0.610, 0.756, 0.791, 0.747, 0.921), 19.5),
    ("resnet50", "imagenet"): Published(0.322, 0.436, (0.647, 0.783, 0.750, 0.833, 0.938), 72.8),
    ("resnet101", "imagenet"): Published(0.337, 0.455, (0.648, 0.784, 0.815, 0.773, 0.932), 42.6),
    ("resnext50_32x4d", "imagenet"): Published(0.338, 0.436, (0.649, 0.782, 0.799, 0.795, 0.932), 77.0),
    ("resnext101_32x8d", "imagenet"): Published(0.317, 0.441, (0.660, 0.792, 0.793, 0.810, 0.938), 36.1),
    ("densenet121", "imagenet"): Published(0.359, 0.431, (0.669, 0.800, 0.806, 0.806, 0.939), 32.2),
    ("densenet201", "imagenet"): Published(0.349, 0.433, (0.662, 0.794, 0.785, 0.819, 0.938), 19.6),
}
"""By encoder and weights."""

_MEASURES = ("Jaccard", "F1", "recall", "precision", "accuracy")


@dataclass(frozen=True)
class _Row:
    """A recipe's runs: its figures by measure, one of each run; why it has none."""

    recipe: NucleiRecipe
    parameters: int | None
    scores: dict[str, list[float]]
    objects: dict[str, list[float]]
    train_losses: list[float]
    valid_losses: list[float]
    runs: int
    steps: int
    frames_per_second: float | None
    missing: str = ""


def compare_recipes(
    recipes: Sequence[Path],
    data: Path | None,
    work: Path,
    table: Path,
    *,
    seeds: int,
    say: Say,
    steps: int | None = None,
    minutes: float | None = None,
    devices: Devices = AUTO,
) -> int:
    """Trains each recipe ``seeds`` times below ``work``, the smallest first, and writes the Markdown ``table``.

    Figures are medians over the runs that are done; the table says of each recipe how many, or why there is none.
    Without ``data`` nothing is trained and what lies in ``work`` is tabulated; with them, what was trained and scored
    on these fields and outlines. No run begins after ``minutes``. Returns how many recipes failed.
    """
    if not table.parent.is_dir():
        raise ConfigurationError("--table", str(table), f"there is no folder {table.parent}")
    began = time.monotonic()
    read: list[tuple[Path, NucleiRecipe]] = []
    for path in recipes:
        recipe = read_recipe(path)
        if not isinstance(recipe, NucleiRecipe):
            raise ConfigurationError("recipes", str(path), "nuclei recipes can be compared so far")
        if any(recipe.name == other.name for _, other in read):
            raise ConfigurationError("recipes", str(path), f"two recipes are named {recipe.name}")
        read.append((path, recipe))
    for _, recipe in read if data is not None else ():
        for name in recipe.sets:
            if data is not None and not (data / name).is_dir():
                raise ConfigurationError(
                    "--data", str(data), f"there is no folder {name} in it, which {recipe.name} names"
                )
    for path, recipe in read:
        for k in range(seeds):
            # now, not after hours of training: what lies there may be nobody's to overwrite
            _scored(work / recipe.name / f"seed-{recipe_seed(recipe) + k}", path, recipe, steps)
    sizes = {path: _parameters(path, recipe) for path, recipe in read}
    rows, failed = [], 0
    known: dict[object, _Digests] = {}
    for path, recipe in sorted(read, key=lambda pair: (sizes[pair[0]] or 2**60, pair[0].name)):
        missing = "" if sizes[path] is not None else "its weights cannot be had here"
        done: list[Path] = []
        for k in range(seeds):
            out = work / recipe.name / f"seed-{recipe_seed(recipe) + k}"
            late = minutes is not None and time.monotonic() - began > minutes * 60
            try:
                if _scored(out, path, recipe, steps) and (
                    data is None or _is_of(open_run(out), _digests(recipe, data, known))
                ):
                    done.append(out)
                    continue
                if missing or data is None or late:
                    continue
                say(f"{recipe.name}, seed {recipe_seed(recipe) + k}")
                # of a run on other data this refuses what trained otherwise, and the rest is scored anew
                train_run(
                    path, data, out, say=say, steps=steps, seed=recipe_seed(recipe) + k, devices=devices
                )
                evaluate(out, data, "test", say=say)
                done.append(out)
            except LobuleError as error:
                failed += not missing
                missing = str(error)
                say(f"{recipe.name}: {error}")
        rows.append(_row(recipe, done, steps, sizes[path], missing))
    with whole_file(table) as stream:
        stream.write(_markdown(rows, seeds).encode())
    return failed


def _digests(recipe: NucleiRecipe, data: Path, known: dict[object, _Digests]) -> _Digests:
    """Of fields and labels by part as the recipe splits them, read once for all recipes that do it alike."""
    key = (recipe.sets, recipe.split, recipe.network.mpp, recipe.thresholds is None)
    if key not in known:
        task = NucleiTask(recipe, Path(), data, recipe_seed(recipe))
        known[key] = task.fields(), task.labels()
    return known[key]


def _is_of(run: Run, found: _Digests) -> bool:
    """Whether a run was trained and scored on these fields and outlines."""
    return (run.fields, run.labels) == found


def _parameters(path: Path, recipe: NucleiRecipe) -> int | None:
    """How many numbers the network has; of one whose weights cannot be had, None."""
    try:
        # what it starts from does not change its size
        bare = changed(recipe.network, weights="none")
        return count_parameters(build_nuclei(bare, path.parent))
    except LobuleError:
        return None


def _scored(out: Path, path: Path, recipe: NucleiRecipe, steps: int | None) -> bool:
    """Whether a run of this recipe and of as many steps is done and scored.

    Raises ConfigurationError where the folder holds another recipe's, or one that cannot be read.
    """
    if not (out / "run.json").is_file() or not has_begun(out):
        return False
    copy = out / "recipe.toml"
    if not copy.is_file() or copy.read_bytes() != path.read_bytes():
        raise ConfigurationError(
            "--work",
            str(out),
            f"it holds a run of another recipe than {path}; remove it or name another folder",
        )
    done = LOSS_SCORE in _scores(out) and (out / "weights.pt").is_file()
    run = open_run(out)
    wanted = recipe.loop.steps if steps is None else steps
    return done and run.thresholds is not None and run.steps == wanted


def _scores(out: Path) -> dict[str, float]:
    """A run's scores by name; none where they are absent, damaged or of a version that gave fewer."""
    try:
        held = json.loads((out / "evaluation-test" / "scores.json").read_text("utf-8"))
        return {one["name"]: float(one["value"]) for one in held}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _row(
    recipe: NucleiRecipe,
    done: Sequence[Path],
    steps: int | None,
    parameters: int | None,
    missing: str,
) -> _Row:
    scores: dict[str, list[float]] = {}
    objects: dict[str, list[float]] = {}
    train_losses: list[float] = []
    valid_losses: list[float] = []
    speed = None
    for out in done:
        values = _scores(out)
        for measure in _MEASURES:
            scores.setdefault(measure, []).append(values[f"pixel {measure}, mean of images"])
        for measure in ("AJI", "PQ"):
            objects.setdefault(measure, []).append(values[f"{measure}, mean of images"])
        valid_losses.append(values[LOSS_SCORE])
        if recipe.network.distance_weight == 0:
            train_losses.append(_last_epoch(read_curve(out)))
        run = open_run(out)
        speed = _frames_per_second(run.task(run.data).network(started=False)) if speed is None else speed
    total = recipe.loop.steps if steps is None else steps
    return _Row(
        recipe, parameters, scores, objects, train_losses, valid_losses, len(done), total, speed, missing
    )


def _last_epoch(curve: Sequence[CurvePoint]) -> float:
    """The mean loss of the last twentieth of the steps, as one epoch of the paper's twenty is."""
    begun = [0, *(point.step for point in curve)]
    last = 0.95 * curve[-1].step
    spans = [max(0.0, point.step - max(last, start)) for start, point in zip(begun, curve, strict=False)]
    return float(np.average([point.loss for point in curve], weights=spans))


def _frames_per_second(network: torch.nn.Module) -> float:
    """Fields of 512² a second, one at a time, through torch in float32 on the CPU; the median of five."""
    network.eval()
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 512, 512, 3), dtype=np.uint8))
    seconds = []
    with torch.no_grad():
        for _ in range(6):
            began = time.perf_counter()
            network(pixels)
            seconds.append(time.perf_counter() - began)
    return 1 / median(seconds[1:])


def _markdown(rows: Sequence[_Row], seeds: int) -> str:
    head = [
        "Test part, mean of images, threshold 0.5; medians over runs. In brackets: Kasturi et al. 2022, Tables II",
        "(losses) and III (their frames/s on an RTX 3060; ours through torch on this machine's CPU, float32, 512² at a",
        "time). Train loss: of the last twentieth of the steps, left out where it holds a distance map's too; valid",
        "loss: of the test part's fields.",
        "",
        "| network | encoder weights | million numbers | steps | runs | train loss | valid loss | Jaccard | F1 | recall"
        " | precision | accuracy | AJI | PQ | frames/s |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    return "\n".join([*head, *(_line(row, seeds) for row in rows), ""])


def _line(row: _Row, seeds: int) -> str:
    network = row.recipe.network
    published = KASTURI_2022.get((network.name, network.weights))
    name = network.name if published or network.name == "basic-unet" else row.recipe.name
    told = [""] * 8
    if published is not None:
        figures = (published.train_loss, published.valid_loss, *published.measures)
        told = [*(f"({value:.3f})" for value in figures), f"({published.frames_per_second:g})"]
    runs, steps, own, objects = "not run", "", [""] * 8, ["", ""]
    if row.missing and not row.runs:
        runs += f": {row.missing}"
    if row.runs:
        assert row.frames_per_second is not None
        runs, steps = f"{row.runs} of {seeds}", str(row.steps)
        figures_of = [row.train_losses, row.valid_losses, *(row.scores[measure] for measure in _MEASURES)]
        own = [f"{median(values):.3f}" if values else "" for values in figures_of]
        own.append(f"{row.frames_per_second:.2f}")
        if row.runs > 1:
            jaccard = row.scores["Jaccard"]
            own[2] += f" [{min(jaccard):.3f}-{max(jaccard):.3f}]"
        objects = [f"{median(row.objects[measure]):.3f}" for measure in ("AJI", "PQ")]
    size = "" if row.parameters is None else f"{row.parameters / 1e6:.1f}"
    beside = [f"{ours} {paper}".strip() for ours, paper in zip(own, told, strict=True)]
    cells = [name, network.weights, size, steps, runs, *beside[:-1], *objects, beside[-1]]
    return "| " + " | ".join(cells) + " |"
