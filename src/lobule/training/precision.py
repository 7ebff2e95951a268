"""Whether a model does as well in a faster number format: both measured on its own test part, the proof in its card."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lobule.errors import ConfigurationError
from lobule.evaluation.classes import auc
from lobule.evaluation.pixels import MaskCounts, count_mask
from lobule.models.card import PRECISION_TOLERANCE, Card, Graph, LowerPrecision
from lobule.models.zoo import Model, load_model
from lobule.runtimes import Precision, Runtime, choose_precision, open_runtime
from lobule.training.bach import read_fields
from lobule.training.cards import write_card
from lobule.training.composed import compose_frames
from lobule.training.nuclei_fields import read_nuclei_fields, split_patients
from lobule.training.recipe import NucleiRecipe, TumorRecipe, read_recipe
from lobule.training.score import score_fields

__all__ = ["prove_bfloat16"]

Say = Callable[[str], None]
_Measured = tuple[str, float, str, str]
"""(score, value, on what, how)"""


def prove_bfloat16(folder: Path, recipe_path: Path, data: Path, work: Path, *, say: Say) -> Card:
    """Measures every graph of the model in float32 and in bfloat16 and writes what is proven into its card.

    A graph counts as proven where its score (AUC of tiles, Dice of pixels) on the recipe's test part lies within
    0.002 of float32's. ``work`` keeps composed slides for a next time. Raises ConfigurationError where this
    processor does not compute in bfloat16 or the recipe is of another family.
    """
    model, recipe = load_model(folder), read_recipe(recipe_path)
    family = {TumorRecipe: "tumor", NucleiRecipe: "nuclei"}.get(type(recipe))
    if family != model.card.family:
        raise ConfigurationError(
            "--recipe",
            str(recipe_path),
            f"it is not of the {model.card.family} family, which the model is of",
        )
    choose_precision(
        "openvino", "bfloat16", model.card.graphs[0]
    )  # says what is missing before anything is read
    scores: dict[str, dict[str, _Measured]] = {"float32": {}, "bfloat16": {}}
    for precision, measured in scores.items():
        say(f"{model.name}: {precision}")
        chosen: Precision = "bfloat16" if precision == "bfloat16" else "float32"
        if isinstance(recipe, TumorRecipe):
            measured.update(_tumor(model, recipe, data, work, chosen))
        elif isinstance(recipe, NucleiRecipe):
            measured.update(_nuclei(model, recipe, data, chosen))
    graphs = []
    for graph in model.card.graphs:
        name, full, on, how = scores["float32"][graph.role]
        lower = scores["bfloat16"][graph.role][1]
        proven = abs(full - lower) <= PRECISION_TOLERANCE
        say(
            f"{graph.role}: {name} {full:.4f} in float32, {lower:.4f} in bfloat16: {'' if proven else 'not '}proven"
        )
        proofs = []
        if proven:
            proof = LowerPrecision(
                precision="bfloat16",
                score=name,
                float32=round(full, 5),
                value=round(lower, 5),
                on=on,
                how=how,
            )
            proofs.append(proof)
        graphs.append(graph.model_copy(update={"lower_precisions": tuple(proofs)}))
    card = model.card.model_copy(update={"graphs": tuple(graphs)})
    write_card(card, folder)
    return card


def _opened(model: Model, graph: Graph, precision: Precision) -> Runtime:
    return open_runtime("openvino", model.name, model.file(graph), graph, workers=1, precision=precision)


def _numbers(output: NDArray[np.generic]) -> NDArray[np.float32]:
    return np.asarray(output, np.float32)


def _classifier(runtime: Runtime, graph: Graph) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    name, output = graph.inputs[0].name, graph.outputs[0].name

    def classify(tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.concatenate([_numbers(runtime.run({name: tile[None]})[output]) for tile in tiles])[:, 1]

    return classify


def _tumor(
    model: Model, recipe: TumorRecipe, data: Path, work: Path, precision: Precision
) -> dict[str, _Measured]:
    fields = read_fields(data / recipe.fields, recipe.split)["test"]
    out: dict[str, _Measured] = {}
    for role in ("screen", "patch"):
        graph = model.card.graph(role)
        if graph is None:
            continue
        classify = _classifier(_opened(model, graph, precision), graph)
        found = score_fields(classify, fields, recipe.field_mpp, recipe.patch)
        out[role] = (
            "tile AUC",
            auc(found.truth[found.field], found.probability),
            f"BACH test block, {len(found.field)} tiles of {len(fields)} fields",
            "carcinoma (in situ, invasive) against normal and benign",
        )
    refine = model.card.graph("refine")
    if refine is None:
        return out
    count = recipe.refine.compose.test_slides
    # the same heatmaps for both: each graph is judged by itself
    patch = model.card.graph("patch")
    assert patch is not None
    classify = _classifier(_opened(model, patch, "float32"), patch)
    frames = compose_frames(recipe, fields, classify, count, recipe.seed + 3, work / "composed-test")
    runtime = _opened(model, refine, precision)
    counts = MaskCounts(0, 0, 0, 0)
    for frame in frames:
        height, width = frame.truth.shape
        output = _numbers(runtime.run(frame.inputs(recipe.refine.size_px))[refine.outputs[0].name])
        counts += count_mask(frame.truth, output[0, :height, :width] >= model.card.thresholds["refine"])
    out["refine"] = (
        "pixel Dice, pooled",
        counts.dice,
        f"{count} slides composed of the BACH test block",
        f"refined map at threshold {model.card.thresholds['refine']:g}, heatmaps in float32",
    )
    return out


def _nuclei(model: Model, recipe: NucleiRecipe, data: Path, precision: Precision) -> dict[str, _Measured]:
    fields = split_patients(read_nuclei_fields(data, recipe.sets), recipe)["test"]
    graph = model.card.graph("segment")
    assert graph is not None
    runtime = _opened(model, graph, precision)
    counts = MaskCounts(0, 0, 0, 0)
    for field in fields:
        height, width = field.pixels.shape[:2]
        # the network is loaded for tiles of one size
        after = ((0, graph.tile_px - height), (0, graph.tile_px - width), (0, 0))
        grown = np.pad(field.pixels, after, mode="reflect")
        maps = _numbers(runtime.run({graph.inputs[0].name: grown[None]})[graph.outputs[0].name])
        mask = maps[0, 0, :height, :width] > model.card.thresholds["mask"]
        counts += count_mask(field.instances > 0, mask)
    patients = len({field.patient for field in fields})
    return {
        "segment": (
            "pixel Dice, pooled",
            counts.dice,
            f"TNBC, {len(fields)} fields of {patients} patients kept out of training",
            f"mask > {model.card.thresholds['mask']:g}, each field whole",
        )
    }
