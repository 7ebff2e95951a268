"""Whether a model does as well in a faster number format: measured on its own test part, the proof in its card."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lobule.errors import ConfigurationError
from lobule.evaluation.classes import auc
from lobule.evaluation.pixels import MaskCounts, count_mask
from lobule.models.card import PRECISION_TOLERANCE, Card, Graph, LowerPrecision
from lobule.models.zoo import Model, load_model
from lobule.runtimes import Precision, Runtime, computes_in, open_runtime
from lobule.runtimes.pixels import prepared
from lobule.strict import changed
from lobule.training.bach import FieldImage, read_fields, tile_field, tile_side_px
from lobule.training.cards import write_card
from lobule.training.composed import Frame, compose_frames
from lobule.training.nuclei import NucleiTask
from lobule.training.quantize import quantize_graph
from lobule.training.recipe import NucleiRecipe, StudentRecipe, TumorRecipe, read_recipe
from lobule.training.score import score_fields
from lobule.training.tower import check_unseen, knows_what_trained
from lobule.whole_file import whole_file

__all__ = ["prove_precisions"]

Say = Callable[[str], None]
Pixels = NDArray[np.uint8]

INT8_GAIN = 1.2
"""An int8 file is kept where it is so many times as fast as the best of float32 and bfloat16: it takes 0.1 to 0.2 s
longer to compile, and room."""
QUANTIZED_ROLES = ("patch", "screen", "segment")
"""A refining graph runs once a slide: there is nothing to gain."""
CALIBRATION_PX = 1 << 24
"""Pixels of the training part that ranges are taken from: 256 tiles of 256 px, 64 crops of 512 px."""
CROP_PX = 512
ROUNDS = 5


@dataclass(frozen=True)
class _Measured:
    score: str
    value: float
    on: str
    how: str


class _Trial(Protocol):
    """A family's data and its score."""

    def score(self, graph: Graph, runtime: Runtime) -> _Measured:
        """The graph's score on the test part."""

    def sample(self, graph: Graph) -> dict[str, NDArray[np.generic]]:
        """The inputs of one run on the test part."""

    def calibration(self, graph: Graph) -> Sequence[Pixels]:
        """Pixels (h, w, 3) of the training part, for a graph of QUANTIZED_ROLES."""


def prove_precisions(folder: Path, recipe_path: Path, data: Path, work: Path, *, say: Say) -> Card:
    """Measures every graph of the model in float32, bfloat16 and int8 and writes what is proven into its card.

    A precision counts as proven where the graph's score (AUC of tiles, Dice of pixels) on the recipe's test part lies
    within 0.002 of float32's. int8 is a file beside the graph, calibrated on the recipe's training part; it is scored
    with each runtime, the one further off counts, and it is kept where it is proven and gains INT8_GAIN. Where this
    processor has no bfloat16, an earlier proof of it stays. ``work`` keeps composed slides for a next time.

    Raises ConfigurationError where the recipe is of another family, MissingDependencyError without onnx.
    """
    model, recipe = load_model(folder), read_recipe(recipe_path)
    if isinstance(recipe, StudentRecipe):
        # its data are those of the recipe that it was made of
        recipe = read_recipe(recipe_path.parent / recipe.of_recipe)
    family = {TumorRecipe: "tumor", NucleiRecipe: "nuclei"}.get(type(recipe))
    if family != model.card.family:
        raise ConfigurationError(
            "--recipe",
            str(recipe_path),
            f"it is not of the {model.card.family} family, which the model is of",
        )
    trial: _Trial
    if isinstance(recipe, TumorRecipe):
        trial = _Tumor(model, recipe, data, work)
    else:
        assert isinstance(recipe, NucleiRecipe)
        trial = _Nuclei(model, NucleiTask(recipe, recipe_path.parent, data, recipe.seed), recipe)
    graphs = []
    with TemporaryDirectory() as scratch:
        for graph in model.card.graphs:
            proofs = _prove(model, graph, trial, Path(scratch), say)
            graphs.append(changed(graph, lower_precisions=proofs))
        card = changed(model.card, graphs=tuple(graphs))
        # beside what the card names until it is replaced: whatever fails on the way leaves a whole model
        for graph in graphs:
            lower = graph.lower("int8")
            if lower is not None and lower.file is not None:
                with whole_file(folder / lower.file) as stream:
                    stream.write((Path(scratch) / lower.file).read_bytes())
        write_card(card, folder)
    # what an earlier proof left and this one did not confirm
    named = {entry.file for entry in card.files()}
    for entry in model.card.files():
        if entry.file not in named:
            (folder / entry.file).unlink(missing_ok=True)
    return card


def _prove(model: Model, graph: Graph, trial: _Trial, scratch: Path, say: Say) -> tuple[LowerPrecision, ...]:
    """What is proven of one graph; its int8 file lies in ``scratch``."""
    engines = ["openvino", "onnxruntime"] if find_spec("openvino") else ["onnxruntime"]
    first = engines[0]

    def opened(engine: str, precision: Precision, path: Path) -> Runtime:
        return open_runtime(engine, model.name, path, graph, workers=1, precision=precision)

    path = model.file(graph)
    full = opened(first, "float32", path)
    exact = trial.score(graph, full)
    say(f"{graph.role}: {exact.score} {exact.value:.5f} in float32")
    found: dict[Precision, tuple[Runtime, float, str]] = {}
    if computes_in(first, "bfloat16"):
        half = opened(first, "bfloat16", path)
        found["bfloat16"] = (half, trial.score(graph, half).value, "")
    else:
        say(f"{graph.role}: bfloat16 not measured, this processor does not compute in it")
    file = ""
    if graph.role in QUANTIZED_ROLES:
        name = graph.inputs[0].name
        samples = [prepared({name: pixels[None]}, graph) for pixels in trial.calibration(graph)]
        file = _quantized(path, graph, samples, scratch)
        small = {engine: opened(engine, "int8", scratch / file) for engine in engines}
        values = [trial.score(graph, runtime).value for runtime in small.values()]
        furthest = max(values, key=lambda value: abs(value - exact.value))
        with_what = " and ".join(runtime.description.split(",")[0] for runtime in small.values())
        found["int8"] = (small[first], furthest, f"; {with_what}, the one further off")
    speedups = _speedups(
        {"float32": full, **{precision: one for precision, (one, _, _) in found.items()}}, trial.sample(graph)
    )
    proofs = {lower.precision: lower for lower in graph.lower_precisions if lower.precision not in found}
    proofs.pop("int8", None)
    for precision, (_, value, with_what) in found.items():
        assert precision != "float32"
        proven = abs(round(value, 5) - round(exact.value, 5)) <= PRECISION_TOLERANCE
        best = max([1.0, *(lower.speedup for lower in proofs.values())])
        gains = precision != "int8" or speedups[precision] >= INT8_GAIN * best
        verdict = "proven" if proven and gains else "proven, too small a gain" if proven else "not proven"
        say(f"{graph.role}: {value:.5f} in {precision}, {speedups[precision]:.2f} × as fast: {verdict}")
        if not (proven and gains):
            continue
        own = {}
        if precision == "int8":
            own = {"file": file, "sha256": _digest(scratch / file)}
        proofs[precision] = LowerPrecision(
            precision=precision,
            score=exact.score,
            float32=round(exact.value, 5),
            value=round(value, 5),
            on=exact.on,
            how=exact.how + with_what,
            speedup=round(speedups[precision], 2),
            measured_on=f"{_processor()}, one core, {full.description.split(',')[0]}",
            **own,
        )
    return tuple(proofs.values())


def _quantized(path: Path, graph: Graph, samples: Sequence[dict[str, NDArray[Any]]], scratch: Path) -> str:
    """Makes the int8 file in ``scratch`` and returns its name, another one where its bytes are others."""
    made = scratch / f"{path.stem}-int8.onnx"
    quantize_graph(path, made, samples)
    digest, held = _digest(made), graph.lower("int8")
    if held is not None and held.file is not None and held.sha256 == digest:
        name = held.file
    else:
        name = f"{path.stem}-int8-{digest[:8]}.onnx"
    made.rename(scratch / name)
    return name


def _digest(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def _processor() -> str:
    """The processor's name and the instruction sets that decide how fast a network runs."""
    import platform

    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    lines = dict(line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    told = {key.strip(): value.strip() for key, value in lines.items()}
    flags = told.get("flags", "").split()
    names = {
        "avx2": "AVX2",
        "avx512f": "AVX-512",
        "avx_vnni": "AVX-VNNI",
        "avx512_vnni": "AVX-512 VNNI",
        "avx512_bf16": "AVX-512 bf16",
        "amx_int8": "AMX int8",
        "amx_bf16": "AMX bf16",
    }
    sets = ", ".join(name for flag, name in names.items() if flag in flags)
    return f"{told.get('model name', platform.machine())} ({sets})"


def _speedups(
    runtimes: Mapping[Precision, Runtime], inputs: dict[str, NDArray[np.generic]]
) -> dict[Precision, float]:
    """How many times as fast as float32: processor time, medians of ROUNDS in turn; other work matters little."""
    started = time.process_time()
    for runtime in runtimes.values():
        runtime.run(inputs)
    repeats = max(2, round(0.5 * len(runtimes) / max(time.process_time() - started, 1e-3)))
    taken: dict[Precision, list[float]] = {precision: [] for precision in runtimes}
    for _ in range(ROUNDS):
        for precision, runtime in runtimes.items():
            started = time.process_time()
            for _ in range(repeats):
                runtime.run(inputs)
            taken[precision].append(time.process_time() - started)
    own = float(np.median(taken["float32"]))
    return {precision: own / float(np.median(seconds)) for precision, seconds in taken.items()}


def _numbers(output: NDArray[np.generic]) -> NDArray[np.float32]:
    return np.asarray(output, np.float32)


def _classifier(runtime: Runtime, graph: Graph) -> Callable[[Pixels], NDArray[np.float32]]:
    name, output = graph.inputs[0].name, graph.outputs[0].name

    def classify(tiles: Pixels) -> NDArray[np.float32]:
        return np.concatenate([_numbers(runtime.run({name: tile[None]})[output]) for tile in tiles])[:, 1]

    return classify


class _Tumor:
    """Fields of BACH; for a refining graph slides composed of the test block."""

    def __init__(self, model: Model, recipe: TumorRecipe, data: Path, work: Path) -> None:
        self._model, self._recipe, self._work = model, recipe, work
        least_px = tile_side_px(recipe.patch.tile_px, recipe.patch.mpp, recipe.field_mpp)
        self._fields = read_fields(data / recipe.fields, recipe.split, least_px)
        self._composed: list[Frame] = []

    def score(self, graph: Graph, runtime: Runtime) -> _Measured:
        if graph.role == "refine":
            return self._refined(graph, runtime)
        recipe, fields = self._recipe, self._fields["test"]
        found = score_fields(_classifier(runtime, graph), fields, recipe.field_mpp, recipe.patch)
        return _Measured(
            "tile AUC",
            auc(found.truth[found.field], found.probability),
            f"BACH test block, {len(found.field)} tiles of {len(found.truth)} fields",
            "carcinoma (in situ, invasive) against normal and benign",
        )

    def sample(self, graph: Graph) -> dict[str, NDArray[np.generic]]:
        if graph.role == "refine":
            return dict(self._frames()[0].inputs(self._recipe.refine.size_px))
        tiles = next(tiles for field in self._fields["test"] if len(tiles := self._tiles(field)))
        return {graph.inputs[0].name: tiles[:1]}

    def calibration(self, graph: Graph) -> Sequence[Pixels]:
        tiles = np.concatenate([self._tiles(field) for field in self._fields["training"]])
        count = min(len(tiles), CALIBRATION_PX // tiles[0, ..., 0].size)
        return list(tiles[np.linspace(0, len(tiles) - 1, count).astype(int)])

    def _tiles(self, field: FieldImage) -> Pixels:
        patch = self._recipe.patch
        return tile_field(field.pixels, self._recipe.field_mpp, patch.mpp, patch.tile_px, patch.min_tissue)[1]

    def _frames(self) -> list[Frame]:
        if not self._composed:
            # the same heatmaps for every precision: each graph is judged by itself
            patch = self._model.card.graph("patch")
            assert patch is not None
            kind = "openvino" if find_spec("openvino") else "onnxruntime"
            runtime = open_runtime(kind, self._model.name, self._model.file(patch), patch, workers=1)
            recipe = self._recipe
            count, place = recipe.refine.compose.test_slides, self._work / "composed-test"
            classify = _classifier(runtime, patch)
            self._composed = compose_frames(
                recipe, self._fields["test"], classify, count, recipe.seed + 3, place
            )
        return self._composed

    def _refined(self, graph: Graph, runtime: Runtime) -> _Measured:
        threshold, counts = self._model.card.thresholds["refine"], MaskCounts(0, 0, 0, 0)
        frames = self._frames()
        for frame in frames:
            height, width = frame.truth.shape
            output = _numbers(runtime.run(frame.inputs(self._recipe.refine.size_px))[graph.outputs[0].name])
            counts += count_mask(frame.truth, output[0, :height, :width] >= threshold)
        return _Measured(
            "pixel Dice, pooled",
            counts.dice,
            f"{len(frames)} slides composed of the BACH test block",
            f"refined map at threshold {threshold:g}, heatmaps in float32",
        )


class _Nuclei:
    """Fields with outlined nuclei."""

    def __init__(self, model: Model, task: NucleiTask, recipe: NucleiRecipe) -> None:
        self._parts = task.parts
        check_unseen(model.card, task, "test")
        self._where = task.told("test", known=knows_what_trained(task, model.card))
        for part in ("training", "test"):
            if not self._parts[part]:
                raise ConfigurationError(
                    "--recipe", recipe.name, f"its split leaves no field in the {part} part"
                )
        self._threshold, self._seed = model.card.thresholds["mask"], recipe.seed

    def score(self, graph: Graph, runtime: Runtime) -> _Measured:
        fields, counts = self._parts["test"], MaskCounts(0, 0, 0, 0)
        for field in fields:
            height, width = field.pixels.shape[:2]
            output = runtime.run({graph.inputs[0].name: _whole(field.pixels, graph)[None]})
            mask = _numbers(output[graph.outputs[0].name])[0, 0, :height, :width] > self._threshold
            counts += count_mask(field.instances > 0, mask)
        return _Measured(
            "pixel Dice, pooled",
            counts.dice,
            self._where,
            f"mask > {self._threshold:g}, each field whole",
        )

    def sample(self, graph: Graph) -> dict[str, NDArray[np.generic]]:
        return {graph.inputs[0].name: _whole(self._parts["test"][0].pixels, graph)[None]}

    def calibration(self, graph: Graph) -> Sequence[Pixels]:
        fields, random = self._parts["training"], np.random.default_rng(self._seed)
        side = CROP_PX if graph.inputs[0].shape[1] == -1 else graph.inputs[0].shape[1]
        crops = []
        for at in np.linspace(0, len(fields) - 1, max(1, CALIBRATION_PX // side**2)).astype(int):
            pixels = _grown(fields[at].pixels, side)
            y, x = (int(random.integers(0, length - side + 1)) for length in pixels.shape[:2])
            crops.append(np.ascontiguousarray(pixels[y : y + side, x : x + side]))
        return crops


def _whole(pixels: Pixels, graph: Graph) -> Pixels:
    """The field mirrored out to at least a tile, and to sides that the graph takes."""
    return _grown(pixels, graph.tile_px, graph.side_multiple_px)


def _grown(pixels: Pixels, side: int, step: int = 1) -> Pixels:
    """The pixels mirrored out to at least ``side`` each way, and to multiples of ``step``."""
    after = [(0, -(-max(side, length) // step) * step - length) for length in pixels.shape[:2]]
    return np.pad(pixels, (*after, (0, 0)), mode="symmetric")
