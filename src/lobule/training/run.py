"""Training of the tumor models: a recipe and data in, a model folder out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lobule import __version__
from lobule.errors import ConfigurationError, LobuleError, ResultWriteError
from lobule.models.card import Card, Score
from lobule.models.zoo import load_model, shipped_models
from lobule.training.bach import read_fields, tile_side_px
from lobule.training.cards import (
    Outcome,
    patch_graph,
    refine_graph,
    screen_graph,
    screened_card,
    tumor_card,
    write_card,
)
from lobule.training.composed import (
    Frame,
    compose_frames,
    region_scores,
    threshold_of_regions,
)
from lobule.training.export import PatchGraph, RefineGraph, ScreenGraph, export_graph
from lobule.training.recipe import ScreenRecipe, StudentRecipe, TumorRecipe, read_recipe
from lobule.training.score import (
    best_threshold,
    bounds_of,
    pixel_statistics,
    score_fields,
    tumor_scores,
)
from lobule.training.screen import calibrate, fit_screen
from lobule.training.screen_agreement import (
    Agreement,
    ScreenedSlide,
    agreement_scores,
    choose_thresholds,
    compare,
    compose_screened,
    recalibrated,
)
from lobule.training.screen_tiles import (
    ScreenTiles,
    Teacher,
    feature_basis,
    halve,
    make_tiles,
    part_fields,
    read_unlabeled,
)
from lobule.training.student import make_student
from lobule.training.tumor import fit_patch, fit_refine
from lobule.whole_file import whole_file

__all__ = ["train_recipe"]

Say = Callable[[str], None]


@dataclass(frozen=True)
class _OnnxModel:
    """An exported graph, run by ONNX Runtime: what is scored is what is shipped."""

    path: Path

    def session(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        return onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])


def train_recipe(path: Path, data: Path, out: Path, *, say: Say, steps: int | None = None) -> Path:
    """Trains what the recipe at ``path`` says on ``data`` and writes ``out``/model; returns that folder.

    ``out`` also holds the checkpoints: a killed run goes on from them. ``steps`` overrides the number of
    steps of every stage, for a trial. Raises ConfigurationError, ModelOutputError, ResultWriteError.
    """
    recipe = read_recipe(path)
    made_by = f"lobule {__version__}: lobule train {path.name} --data DATA"
    if not isinstance(recipe, StudentRecipe):
        made_by += f"{'' if steps is None else f' --steps {steps}'}; seed {recipe.seed}; torch {torch.__version__}, CPU"
    folder = _claimed(path, out) / "model"
    if isinstance(recipe, TumorRecipe):
        card = _train_tumor(recipe, data, out, folder, say, steps, made_by)
    elif isinstance(recipe, StudentRecipe):
        parent = read_recipe(path.parent / recipe.of_recipe)
        if not isinstance(parent, TumorRecipe):
            raise ConfigurationError("of_recipe", recipe.of_recipe, "it must be a recipe of a tumor model")
        card = make_student(recipe, parent, data, out, folder, say, made_by)
    elif isinstance(recipe, ScreenRecipe):
        card = _train_screen(recipe, data, out, folder, say, steps, made_by)
    else:
        raise ConfigurationError("recipe", recipe.name, "it is trained as a run of its own")
    write_card(card, folder)
    for score in card.scores:
        say(f"{score.name}: {score.value:g} ({bounds_of(score, 'g')}) on {score.on}")
    return folder


def _claimed(path: Path, out: Path) -> Path:
    """The folder of a training, with the recipe in it. Raises ConfigurationError where it holds another recipe's."""
    copy = out / "recipe.toml"
    text = path.read_bytes()
    if copy.is_file() and copy.read_bytes() != text:
        # its checkpoints would be taken for this recipe's
        raise ConfigurationError(
            "--out", str(out), "it holds a training of another recipe; name another folder or remove this one"
        )
    try:
        (out / "model").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultWriteError(out, f"the folder cannot be made: {error}") from error
    with whole_file(copy) as stream:
        stream.write(text)
    return out


def _random_pixels(rng: np.random.Generator, *shape: int) -> dict[str, NDArray]:
    return {"pixels": rng.integers(0, 256, shape, dtype=np.uint8)}


def _train_tumor(
    recipe: TumorRecipe, data: Path, out: Path, folder: Path, say: Say, steps: int | None, made_by: str
) -> Card:
    least_px = tile_side_px(recipe.patch.tile_px, recipe.patch.mpp, recipe.field_mpp)
    blocks = read_fields(data / recipe.fields, recipe.split, least_px)
    say("stage 1: " + ", ".join(f"{len(fields)} fields for {name}" for name, fields in blocks.items()))
    network = fit_patch(recipe, blocks["training"], out / "patch", say, steps)
    rng = np.random.default_rng(recipe.seed)
    size = recipe.patch.tile_px
    real = np.stack([field.pixels[:size, :size] for field in blocks["test"][:4]])
    patch_file = folder / "model.onnx"
    patch_apart = export_graph(
        PatchGraph(network),
        patch_file,
        [_random_pixels(rng, 2, size, size, 3), {"pixels": real}, _random_pixels(rng, 1, size, size, 3)],
        output="probabilities",
        dynamic={"pixels": {0: "n"}},
    )
    session = _OnnxModel(patch_file).session()

    def classify(tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        parts = [session.run(None, {"pixels": tiles[at : at + 16]})[0] for at in range(0, len(tiles), 16)]
        return np.concatenate(parts)[:, 1]

    chosen = score_fields(classify, blocks["selection"], recipe.field_mpp, recipe.patch)
    threshold = best_threshold(chosen.truth[chosen.field], chosen.probability)
    tested = score_fields(classify, blocks["test"], recipe.field_mpp, recipe.patch)
    scores = tumor_scores(tested, threshold, "BACH test block")

    say("stage 2: composing slides and running stage 1 on them")
    sets = {
        name: compose_frames(recipe, blocks[block], classify, count, recipe.seed + offset, out / name)
        for name, block, count, offset in (
            ("composed-training", "selection", recipe.refine.compose.slides, 1),
            ("composed-selection", "selection", recipe.refine.compose.test_slides, 2),
            ("composed-test", "test", recipe.refine.compose.test_slides, 3),
        )
    }
    refiner = fit_refine(recipe, sets["composed-training"], out / "refine", say, steps)
    refine_file = folder / "refine.onnx"
    refine_apart = export_graph(
        RefineGraph(refiner),
        refine_file,
        [sets["composed-test"][0].inputs(recipe.refine.size_px)],
        output="probabilities",
        dynamic={},
    )
    refine_threshold, refine_scores = _score_refinement(
        recipe, sets["composed-selection"], sets["composed-test"], refine_file, threshold
    )
    tiles = [field.pixels for field in blocks["training"]]
    mean, std = pixel_statistics(tiles)
    return tumor_card(
        recipe,
        [patch_graph(patch_file, recipe), refine_graph(refine_file, recipe)],
        {name: [field.name for field in fields] for name, fields in blocks.items()},
        Outcome(
            {"patch": threshold, "refine": refine_threshold},
            tuple(scores + refine_scores),
            (mean[0], mean[1], mean[2]),
            (std[0], std[1], std[2]),
            f"{made_by}; largest difference torch against ONNX Runtime and OpenVINO (float32):"
            f" patch {patch_apart:.1e}, refine {refine_apart:.1e}",
        ),
    )


def _score_refinement(
    recipe: TumorRecipe, selection: Sequence[Frame], test: Sequence[Frame], file: Path, patch_threshold: float
) -> tuple[float, list[Score]]:
    session = _OnnxModel(file).session()
    size = recipe.refine.size_px

    def refine(frame: Frame) -> NDArray[np.float32]:
        height, width = frame.truth.shape
        return session.run(None, frame.inputs(size))[0][0, :height, :width]

    chosen = threshold_of_regions(selection, [refine(frame) for frame in selection])
    refined = [refine(frame) > chosen for frame in test]
    region_threshold = threshold_of_regions(selection, [frame.cells for frame in selection])
    return chosen, region_scores(test, refined, patch_threshold, region_threshold, chosen)


def _train_screen(
    recipe: ScreenRecipe, data: Path, out: Path, folder: Path, say: Say, steps: int | None, made_by: str
) -> Card:
    model = load_model(shipped_models()[recipe.model])
    card = model.card
    patch, refine = card.graph("patch"), card.graph("refine")
    if patch is None or refine is None:
        raise LobuleError(f"model {model.name} has no patch and refine graphs to screen for")
    for graph in (patch, refine):
        (folder / graph.file).write_bytes(model.file(graph).read_bytes())
    least_px = tile_side_px(recipe.tile_px, recipe.mpp, recipe.field_mpp)
    blocks = read_fields(data / recipe.fields, recipe.split, least_px)
    say("screen: " + ", ".join(f"{len(fields)} fields for {name}" for name, fields in blocks.items()))
    teacher = Teacher(model.file(patch), recipe.tile_px)
    learned, held = part_fields(blocks["selection"])
    others = learned + read_unlabeled(data, recipe.field_mpp)
    basis = feature_basis(blocks["training"], teacher, recipe)
    parts = [
        make_tiles(fields, teacher, basis, recipe, mix, out / "tiles", say, first)
        for fields, mix, first in (
            (blocks["training"], recipe.mix, 0),
            (others, recipe.other_mix, recipe.mix.shards),
        )
    ]
    tiles = ScreenTiles(
        *(
            np.concatenate([getattr(part, field.name) for part in parts])
            for field in dataclasses.fields(parts[0])
        )
    )
    drawn = [len(part.probability) for part in parts]
    weights = np.repeat([1.0, recipe.other_weight], drawn)
    network = fit_screen(recipe, tiles, weights, model.file(patch), out / "screen", say, steps)

    def student(whole: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.no_grad():
            logits = [
                network(torch.from_numpy(halve(whole[at : at + 64])))[0] for at in range(0, len(whole), 64)
            ]
        return torch.softmax(torch.cat(logits), 1)[:, 1].numpy()

    say("screen: thresholds on slides composed of the selection block's other half")
    size = refine.tile_px
    chosen_on = compose_screened(recipe, held, teacher.classify, student, size, recipe.seed + 1)
    scale, shift = calibrate(
        network,
        np.concatenate([slide.screen for slide in chosen_on]),
        np.concatenate([slide.patch for slide in chosen_on]),
    )
    chosen_on = [
        dataclasses.replace(slide, screen=recalibrated(slide.screen, scale, shift)) for slide in chosen_on
    ]
    file = folder / "screen.onnx"
    rng = np.random.default_rng(recipe.seed)
    whole = recipe.tile_px
    real = [field.pixels[None, :whole, :whole] for field in blocks["test"][:4]]
    apart = export_graph(
        ScreenGraph(network),
        file,
        [_random_pixels(rng, 1, whole, whole, 3), *({"pixels": one} for one in real)],
        output="probabilities",
        dynamic={},
    )
    refiner, screener = _OnnxModel(folder / refine.file).session(), _OnnxModel(file).session()

    def refined(frame: Frame) -> NDArray[np.float32]:
        height, width = frame.truth.shape
        return refiner.run(None, frame.inputs(size))[0][0, :height, :width]

    def classify(found: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.array([screener.run(None, {"pixels": one[None]})[0][0, 1] for one in found], np.float32)

    def against_plain(slides: Sequence[ScreenedSlide]) -> Callable[[float, float], Agreement]:
        plain = [slide.regions(slide.patch, refined, card.thresholds, size) for slide in slides]
        return partial(compare, slides, plain, refined, card.thresholds, size)

    *tried, chosen = choose_thresholds(against_plain(chosen_on), recipe.agreement, card.thresholds["patch"])
    for one in tried:
        say(
            f"screen at {one.low:g} and {one.high:g}: {one.share(one.all):.3f} settled,"
            f" DSC {one.pooled(one.all):.4f} pooled, {one.mean(one.all):.4f} mean"
        )
    tested = compose_screened(recipe, blocks["test"], teacher.classify, classify, size, recipe.seed + 2)
    measured = against_plain(tested)(chosen.low, chosen.high)
    where = f"{len(tested)} slides composed of BACH test block fields, {measured.tiles.sum()} tiles"
    return screened_card(
        card,
        recipe,
        screen_graph(file, patch),
        chosen.low,
        chosen.high,
        agreement_scores(measured, where),
        f"{made_by}; largest difference torch against ONNX Runtime and OpenVINO (float32): {apart:.1e}",
    )
