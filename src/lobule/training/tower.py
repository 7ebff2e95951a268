"""Train, evaluate, export: what is the same for every family. A family brings a `Task`.

A run is a folder: ``recipe.toml`` as it was, ``run.json`` (seed, data, thresholds, what it ran on), ``curve.csv``,
``checkpoint.pt`` to go on from, ``weights.pt`` once it is done, and an ``evaluation-<part>`` for each part scored.
"""

from __future__ import annotations

import csv
import io
import json
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lobule import __version__
from lobule.errors import (
    ConfigurationError,
    LeakageError,
    ResultError,
    ResultLockedError,
    ResultWriteError,
)
from lobule.file_lock import held_alone
from lobule.models.card import Card, check_bounds
from lobule.models.zoo import load_model, shipped_models
from lobule.strict import changed, values_of
from lobule.training.cards import write_card
from lobule.training.loop import (
    AUTO,
    Devices,
    check_settings,
    fit,
    is_first_process,
    read_state,
    save_state,
)
from lobule.training.nuclei import NucleiTask
from lobule.training.recipe import NucleiRecipe, Recipe, read_recipe
from lobule.training.robustness import Moved
from lobule.training.score import bounds_of
from lobule.training.task import Evaluation, Part, Task
from lobule.whole_file import whole_file

__all__ = [
    "Run",
    "check_unseen",
    "evaluate",
    "export_run",
    "has_begun",
    "knows_what_trained",
    "open_run",
    "recipe_seed",
    "train_run",
]

Say = Callable[[str], None]


def _task(recipe: Recipe, beside: Path, data: Path, seed: int) -> Task:
    if isinstance(recipe, NucleiRecipe):
        return NucleiTask(recipe, beside, data, seed)
    raise ConfigurationError("recipe", recipe.family, "runs are folders for the nuclei family only so far")


@dataclass(frozen=True)
class Run:
    """A run's folder, read."""

    folder: Path
    recipe: Recipe
    beside: Path
    """Where files that the recipe names lie."""
    seed: int
    steps: int
    thresholds: dict[str, float] | None
    """None until it is done."""
    made_by: str
    data: Path
    """Where the data lay."""
    fields: dict[str, dict[str, str]] | None = None
    """Name and digest of the pixels of what was in each part; None in runs of before these were kept."""
    labels: dict[str, dict[str, str]] | None = None
    """The same of what was drawn on them."""

    def check_fields(self, task: Task) -> None:
        """Raises LeakageError where what is to choose or to test now trained this run."""
        if self.fields is None:
            return
        trained, chose = (set(self.fields[part].values()) for part in ("training", "selection"))
        found = [
            f"{name}: it {'trained' if digest in trained else 'chose the thresholds of'} {self.folder} and is in "
            f"its {part} part now"
            for part, fields in task.fields().items()
            if part != "training"
            for name, digest in fields.items()
            if digest in trained or (part == "test" and digest in chose)
        ]
        _refuse(found, "score it on the data that it was trained with")

    def check_trained_on(self, task: Task, data: Path) -> None:
        """Raises ConfigurationError where these data have others than what trained this run or chose for it."""
        for what, held, found in (
            ("fields", self.fields, task.fields()),
            ("outlines", self.labels, task.labels()),
        ):
            if held is not None and any(found[part] != held[part] for part in ("training", "selection")):
                raise ConfigurationError(
                    "--data",
                    str(data),
                    f"other {what} trained {self.folder} than train by it now: a card would name these",
                )

    def knows_what_trained(self, task: Task) -> bool:
        """Whether what trained this run lies in these data, so that the split keeps the test part apart from it."""
        held = self.fields
        return held is not None and _lies_in(task, held["training"].values(), held["selection"].values())

    def task(self, data: Path) -> Task:
        """The family's task on these data."""
        return _task(self.recipe, self.beside, data, self.seed)

    def trained(self, task: Task) -> nn.Module:
        """The network with its final weights. Raises ConfigurationError where the run is not done."""
        weights = self.folder / "weights.pt"
        if self.thresholds is None or not weights.is_file():
            raise ConfigurationError(
                "run", str(self.folder), "it is not done; the same lobule train command goes on"
            )
        held = read_state(weights)
        network = task.network(started=False)
        try:
            network.load_state_dict(held)
        except (RuntimeError, TypeError) as error:
            raise ResultError(
                weights, "it belongs to another network than that of the run's recipe.toml"
            ) from error
        return network.eval()


def _lies_in(task: Task, trained: Iterable[str], chose: Iterable[str]) -> bool:
    """Whether a task's training part holds all that trained, by digests, and its selection part the rest that chose."""
    found = {part: set(fields.values()) for part, fields in task.fields().items()}
    return found["training"].issuperset(trained) and (found["training"] | found["selection"]).issuperset(
        chose
    )


def knows_what_trained(task: Task, card: Card) -> bool:
    """Whether what trained a model, as its card says, lies in these data: see `Run.knows_what_trained`."""
    used = [data for data in card.data if data.used_for in ("training", "selection")]
    trained, chose = (
        [digest for data in used if data.used_for == part for digest in data.digests]
        for part in ("training", "selection")
    )
    return bool(used) and all(data.digests for data in used) and _lies_in(task, trained, chose)


def _refuse(found: Sequence[str], advice: str) -> None:
    """Raises LeakageError where there is anything in ``found``."""
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise LeakageError(f"{found[0]}{more}; {advice}", list(found))


def open_run(folder: Path) -> Run:
    """Reads a run's folder. Raises ConfigurationError where it is none."""
    try:
        held = json.loads((folder / "run.json").read_text("utf-8"))
        recipe = read_recipe(folder / "recipe.toml")
        return Run(
            folder,
            recipe,
            Path(held["beside"]),
            int(held["seed"]),
            int(held["steps"]),
            _thresholds_of(held["thresholds"], recipe),
            held["made_by"],
            Path(held["data"]),
            _by_part(held.get("fields")),
            _by_part(held.get("labels")),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            "run", str(folder), f"it is no folder that lobule train wrote ({error})"
        ) from error


def _thresholds_of(held: Any, recipe: Recipe) -> dict[str, float] | None:
    """What a run chose, as its network needs it. Raises ValueError, TypeError, AttributeError."""
    if held is None:
        return None
    thresholds = {str(name): float(value) for name, value in held.items()}
    if isinstance(recipe, NucleiRecipe):
        needed = recipe.network.threshold_names
        if set(thresholds) != set(needed):
            raise ValueError(f"thresholds of this network are {', '.join(needed)}")
        check_bounds("nuclei", thresholds)
    return thresholds


def _by_part(held: Any) -> dict[str, dict[str, str]] | None:
    return None if held is None else {part: dict(held[part]) for part in ("training", "selection", "test")}


def train_run(
    path: Path,
    data: Path,
    out: Path,
    *,
    say: Say,
    steps: int | None = None,
    seed: int | None = None,
    devices: Devices = AUTO,
) -> Run:
    """Trains what the recipe at ``path`` says and returns the finished run; a killed one goes on where it was.

    ``steps`` and ``seed`` override the recipe's. Raises ConfigurationError where ``out`` holds another run,
    LeakageError where training and test share a patient or pixels, ResultLockedError where another process trains in
    ``out``, ResultWriteError.
    """
    recipe = read_recipe(path)
    chosen = recipe_seed(recipe) if seed is None else seed
    task = _task(recipe, path.parent, data, chosen)
    total = task.loop.steps if steps is None else steps
    made_by = (
        f"lobule {__version__}: lobule train {path.name} --data DATA"
        f"{'' if steps is None else f' --steps {steps}'}; seed {chosen}; torch {torch.__version__}"
    )
    notes = task.notes()  # reads and checks the data before anything is written
    check = task.check()
    fields, labels = task.fields(), task.labels()
    check_settings(task.loop, devices, selects=check is not None)
    held = Run(
        out, recipe, path.parent.resolve(), chosen, total, None, made_by, data.resolve(), fields, labels
    )
    # whatever cannot be had, weights to start from or fields to train on, is missed before anything is written
    torch.manual_seed(chosen)
    network, source = task.network(), task.source()
    with ExitStack() as alone:
        if is_first_process():
            alone.enter_context(_alone(out))
            before = _claim(path, held)
            _drop_what_is_of_another(before, held)
            if before is None or before.thresholds is None or before.steps != total:
                _write_run(held, notes)
            for line in notes:
                say(line)
        began = time.monotonic()
        network = fit(
            network,
            source,
            task.loss,
            task.loop,
            folder=out,
            seed=chosen,
            say=say,
            steps=total,
            check=check,
            devices=devices,
        )
        save_state(out / "weights.pt", network.state_dict())
        choosing = "; choosing thresholds on the selection part" if check else ""
        say(f"trained in {(time.monotonic() - began) / 60:.1f} min{choosing}")
        thresholds = task.decide(task.predictor(network))
        named = ", ".join(f"{name} {value:g}" for name, value in thresholds.items())
        say(f"thresholds: {named}{'' if check else '; there is no selection part to choose them on'}")
        done = Run(out, recipe, held.beside, chosen, total, thresholds, made_by, held.data, fields, labels)
        _write_run(done, notes)
        return done


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Makes a run's folder, in which one process at a time trains. Raises ResultLockedError, ResultWriteError."""
    with ExitStack() as stack:
        try:
            out.mkdir(parents=True, exist_ok=True)
            first = stack.enter_context(held_alone(out / ".lock"))
        except OSError as error:
            raise ResultWriteError(out, f"the run's folder cannot be made: {error}") from error
        if not first:
            raise ResultLockedError(out, "another lobule train writes here; wait for it or end it")
        yield


def recipe_seed(recipe: Recipe) -> int:
    """The seed that a recipe states."""
    seed = getattr(recipe, "seed", None)
    if not isinstance(seed, int):
        raise ConfigurationError("recipe", recipe.name, "it states no seed")
    return seed


def _drop_what_is_of_another(before: Run | None, run: Run) -> None:
    """Removes weights and scores that would be taken for the run's: of fewer steps, of other fields or outlines."""
    if not (run.folder / "run.json").is_file():
        return
    done = before is not None and before.steps == run.steps and before.thresholds is not None
    if not done:
        (run.folder / "weights.pt").unlink(missing_ok=True)
    if before is None or not done or (before.fields, before.labels) != (run.fields, run.labels):
        for folder in run.folder.glob("evaluation-*"):
            shutil.rmtree(folder)


def _claim(path: Path, run: Run) -> Run | None:
    """Copies the recipe into the run's folder, or finds it the same there; returns the run of before.

    What cannot go on is refused before anything is changed. A run that was stopped before it learned anything binds
    nobody.
    """
    out = run.folder
    recipe = path.read_bytes()
    copy = out / "recipe.toml"
    begun = has_begun(out)
    if copy.is_file() and copy.read_bytes() != recipe and (begun or not (out / "run.json").is_file()):
        raise ConfigurationError(
            "--out", str(out), "it holds a run of another recipe; name another folder or remove this one"
        )
    before = open_run(out) if begun and (out / "run.json").is_file() else None
    if before is not None and before.seed != run.seed:
        raise ConfigurationError("--out", str(out), "it holds a run with another seed; name another folder")
    if before is not None and (out / "checkpoint.pt").is_file():
        _check_that_it_goes_on(before, run)
    _write(copy, recipe)
    return before


def has_begun(out: Path) -> bool:
    """Whether a run's folder holds anything that was learned."""
    return any((out / name).is_file() for name in ("checkpoint.pt", "weights.pt"))


def _check_that_it_goes_on(before: Run, run: Run) -> None:
    """Raises ConfigurationError where a run that has begun cannot be gone on with as is asked."""
    assert run.fields is not None
    if before.fields is not None:
        chose = set(before.fields["selection"].values())
        if before.fields["training"] != run.fields["training"] or chose & set(run.fields["test"].values()):
            raise ConfigurationError(
                "--data", str(run.data), f"{run.folder} holds a run of other fields; name another folder"
            )
    if before.labels is not None and run.labels is not None:
        drawn = [
            name
            for part in ("training", "selection")
            for name, digest in run.labels[part].items()
            if before.labels[part].get(name, digest) != digest
        ]
        if drawn:
            more = f" and {len(drawn) - 1} more" if len(drawn) > 1 else ""
            raise ConfigurationError(
                "--data",
                str(run.data),
                f"the outlines of {drawn[0]}{more} are not those that {run.folder} learned from; name another folder",
            )
    if before.steps == run.steps:
        return
    done = int(read_state(run.folder / "checkpoint.pt").get("step", 0))
    if done > run.steps:
        raise ConfigurationError(
            "--steps", run.steps, f"{run.folder} holds a run of {done} steps; name another folder"
        )


def _write_run(run: Run, notes: Sequence[str]) -> None:
    held = {
        "made_by": run.made_by,
        "seed": run.seed,
        "steps": run.steps,
        "beside": str(run.beside),
        "machine": f"{platform.machine()}, torch {torch.__version__}",
        "data": str(run.data),
        "notes": list(notes),
        "thresholds": run.thresholds,
        "fields": run.fields,
        "labels": run.labels,
    }
    _write(run.folder / "run.json", (json.dumps(held, indent=1, ensure_ascii=False) + "\n").encode())


def _write(path: Path, content: bytes) -> None:
    with whole_file(path) as stream:
        stream.write(content)


def evaluate(
    folder: Path,
    data: Path,
    part: Part,
    *,
    say: Say,
    recipe: Path | None = None,
    robustness: bool = False,
    thorough: bool = False,
) -> Evaluation:
    """Scores a run, or a model folder with the ``recipe`` that says which its parts are, on one part of the data.

    Writes ``evaluation-<part>/scores.json`` and ``images.csv`` into the run, or beside the model's folder, and says
    the scores; with ``robustness`` also ``robustness.md``, how far the answers move when the images are disturbed.
    ``thorough``: as ``lobule analyze --thorough`` asks the network, into ``evaluation-<part>-thorough``. Where what
    trained lies in other data than these, scores do not claim that the test part was kept apart from it.
    """
    beside, run = folder, None
    if (folder / "card.json").is_file():
        if recipe is None:
            raise ConfigurationError(
                "--recipe", None, "a model's parts of the data are those of its recipe: name it"
            )
        asked = read_recipe(recipe)
        task = _task(asked, recipe.parent, data, recipe_seed(asked))
        card = load_model(folder).card
        check_unseen(card, task, part)
        # a model's folder holds what its card names and nothing else; among those that are shipped nothing is written
        whole = folder.resolve()
        shipped = whole in (path.resolve() for path in shipped_models().values())
        beside = (Path() if shipped else whole.parent) / f"{whole.name}-scores"
        known = knows_what_trained(task, card)
        predict, thresholds = task.graph_predictor(folder, card), dict(card.thresholds)
    else:
        run = open_run(folder)
        task = run.task(data)
        run.check_fields(task)
        known = run.knows_what_trained(task)
        predict = task.predictor(run.trained(task))
        assert run.thresholds is not None
        thresholds = run.thresholds
    if thorough:
        predict = task.thorough(predict)
    found = task.score(predict, thresholds, part, known=known)
    if thorough:
        marked = (changed(score, how=f"--thorough; {score.how}") for score in found.scores)
        found = Evaluation(tuple(marked), found.rows)
    table = beside / f"evaluation-{part}{'-thorough' if thorough else ''}"
    if run is not None and part == "test" and not thorough:
        _note_what_is_scored(run, task, table)
    _write_evaluation(table, found)
    for score in found.scores:
        say(f"{score.name}: {score.value:.4f} ({bounds_of(score, '.4f')})")
    if robustness:
        moved = _markdown(task.disturb(predict, thresholds, part))
        say(moved)
        _write(table / "robustness.md", moved.encode())
    say(f"on {found.scores[0].on}{', --thorough' if thorough else ''}; table: {table}")
    return found


def check_unseen(card: Card, task: Task, part: Part) -> None:
    """Raises LeakageError where what is to choose or to test is what the model was trained on, as its card says."""
    used = {digest: data.used_for for data in card.data for digest in data.digests}
    refused = {"training": (), "selection": ("training",), "test": ("training", "selection")}[part]
    found = [
        f"{name}: it is in the {part} part and was used for the {used[digest]} of {card.name}"
        for name, digest in task.fields()[part].items()
        if used.get(digest) in refused
    ]
    _refuse(found, "name the recipe by which the model was trained")


def _note_what_is_scored(run: Run, task: Task, table: Path) -> None:
    """Writes into run.json which test part the scores are of, where it is another than when the run was trained."""
    fields, labels = task.fields()["test"], task.labels()["test"]
    if (
        run.fields is None
        or run.labels is None
        or (run.fields["test"], run.labels["test"]) == (fields, labels)
    ):
        return
    # scores of before are not these fields'
    (table / "scores.json").unlink(missing_ok=True)
    path = run.folder / "run.json"
    held = json.loads(path.read_text("utf-8"))
    held["fields"]["test"], held["labels"]["test"] = fields, labels
    _write(path, (json.dumps(held, indent=1, ensure_ascii=False) + "\n").encode())


def _markdown(moved: Sequence[Moved]) -> str:
    lines = [
        "| disturbance | Dice with the undisturbed | | nuclei, share of the undisturbed | |",
        "|---|--:|---|--:|---|",
    ]
    for one in moved:
        each = [f"{i.value:.3f} | {bounds_of(i, '.3f')}" for i in (one.dice, one.count_ratio)]
        lines.append(f"| {one.name} | {each[0]} | {each[1]} |")
    return "\n".join([*lines, ""])


def _write_evaluation(folder: Path, found: Evaluation) -> None:
    scores = [values_of(score) for score in found.scores]
    try:
        listed = json.dumps(scores, indent=1, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ResultError(
            folder,
            "there are scores that are no numbers: the network's answers are not finite; train it anew",
        ) from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultWriteError(folder, f"scores cannot be written: {error}") from error
    _write(folder / "scores.json", f"{listed}\n".encode())
    table = io.StringIO(newline="")
    rows = csv.DictWriter(table, list(found.rows[0]))
    rows.writeheader()
    rows.writerows(found.rows)
    _write(folder / "images.csv", table.getvalue().encode())


def export_run(folder: Path, data: Path | None, out: Path, *, say: Say) -> Card:
    """Writes a finished run as a model folder: graph, numeric parity proven, card with the test part's scores.

    ``out`` appears whole, and not at all where the runtimes differ from torch. Raises ConfigurationError where
    ``out`` is there already, ModelOutputError.
    """
    run = open_run(folder)
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", out.name):
        raise ConfigurationError("--out", out.name, "a model's name is of small letters, digits and hyphens")
    if out.exists():
        raise ConfigurationError("--out", str(out), "it is there already; name a new folder")
    data = run.data if data is None else data
    task = run.task(data)
    run.check_fields(task)
    run.check_trained_on(task, data)
    if not task.fields()["test"]:
        raise ConfigurationError(
            "[split]",
            run.recipe.name,
            "it leaves no field to test on, and a model's card says how good it is",
        )
    network = run.trained(task)
    assert run.thresholds is not None
    beside = out.with_name(out.name + ".part")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        card = task.export(network, run.thresholds, beside, out.name, run.made_by)
        write_card(card, beside)
        beside.replace(out)
    except OSError as error:
        raise ResultWriteError(out, f"the model cannot be written: {error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    for score in card.scores:
        say(f"{score.name}: {score.value:g} ({bounds_of(score, 'g')})")
    say(f"model: {out}")
    return card
