"""A screening network as a tumor model of its own, with the refining network of the model that it learned from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from lobule.errors import LobuleError
from lobule.models.card import Card, Graph
from lobule.models.zoo import Model, load_model, shipped_models
from lobule.runtimes import open_runtime
from lobule.training.bach import read_fields, tile_side_px
from lobule.training.cards import student_card
from lobule.training.composed import Frame, compose_frames, region_scores, threshold_of_regions
from lobule.training.recipe import StudentRecipe, TumorRecipe
from lobule.training.score import best_threshold, score_fields, tumor_scores

__all__ = ["make_student", "with_scaled_odds"]

Say = Callable[[str], None]


def with_scaled_odds(source: Path, target: Path, scale: float, shift: float) -> None:
    """Copies a classifier's graph (softmax of two logits at its end), log odds times ``scale`` plus ``shift``."""
    model = onnx.load(str(source))
    softmax = model.graph.node[-1]
    if softmax.op_type != "Softmax":
        raise LobuleError(f"{source} does not end in a softmax but in {softmax.op_type}")
    for name, value in (("odds_scale", scale), ("odds_shift", [0.0, shift])):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    scaled = helper.make_node("Mul", [softmax.input[0], "odds_scale"], ["scaled_logits"])
    shifted = helper.make_node("Add", ["scaled_logits", "odds_shift"], ["shifted_logits"])
    softmax.input[0] = "shifted_logits"
    model.graph.node.insert(len(model.graph.node) - 1, scaled)
    model.graph.node.insert(len(model.graph.node) - 1, shifted)
    onnx.checker.check_model(model)
    onnx.save(model, str(target))


def make_student(
    recipe: StudentRecipe, parent: TumorRecipe, data: Path, out: Path, folder: Path, say: Say, made_by: str
) -> Card:
    """Writes the student's graphs into ``folder``, chooses its thresholds and scores it as its parent was scored.

    ``parent``: the recipe of the model that it learned from. Raises LobuleError where that model has no screen.
    """
    model = load_model(shipped_models()[recipe.of])
    screen, refine = model.card.graph("screen"), model.card.graph("refine")
    if screen is None or refine is None:
        raise LobuleError(f"model {recipe.of} has no screen and refine graphs")
    with_scaled_odds(model.file(screen), folder / "model.onnx", recipe.scale, recipe.shift)

    classify = _run(folder / "model.onnx", screen)
    least_px = tile_side_px(parent.patch.tile_px, parent.patch.mpp, parent.field_mpp)
    blocks = read_fields(data / parent.fields, parent.split, least_px)
    chosen = score_fields(classify, blocks["selection"], parent.field_mpp, parent.patch)
    threshold = best_threshold(chosen.truth[chosen.field], chosen.probability)
    tested = score_fields(classify, blocks["test"], parent.field_mpp, parent.patch)
    say("composing slides and running the student on them")
    count = parent.refine.compose.test_slides
    selection, test = (
        compose_frames(parent, blocks[block], classify, count, parent.seed + offset, out / f"student-{block}")
        for block, offset in (("selection", 2), ("test", 3))
    )
    refined = {
        name: _refined(model, refine, frames) for name, frames in (("selection", selection), ("test", test))
    }
    by_region = threshold_of_regions(selection, refined["selection"])
    scores = [
        *tumor_scores(tested, threshold, "BACH test block"),
        *region_scores(
            test,
            [found > by_region for found in refined["test"]],
            threshold,
            threshold_of_regions(selection, [frame.cells for frame in selection]),
            by_region,
        ),
    ]
    return student_card(
        recipe, model.card, folder, {"patch": threshold, "refine": by_region}, scores, made_by
    )


def _run(path: Path, graph: Graph) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = graph.inputs[0].name

    def classify(tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.concatenate([session.run(None, {name: tile[None]})[0] for tile in tiles])[:, 1]

    return classify


def _refined(model: Model, graph: Graph, frames: list[Frame]) -> list[NDArray[np.float32]]:
    runtime = open_runtime("onnxruntime", model.name, model.file(graph), graph, workers=1)
    out = []
    for frame in frames:
        height, width = frame.truth.shape
        output = np.asarray(runtime.run(frame.inputs(graph.tile_px))[graph.outputs[0].name], np.float32)
        out.append(output[0, :height, :width])
    return out
