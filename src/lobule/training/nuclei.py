"""Nuclei for the tower: the U-Nets of Kasturi et al. 2022 and the small one that ships."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from lobule.errors import ConfigurationError
from lobule.evaluation.instances import aji
from lobule.evaluation.interval import LEAST_UNITS, Interval, bootstrap
from lobule.evaluation.nuclei import ImageScores, object_intervals, pixel_intervals, score_image
from lobule.evaluation.pixels import MaskCounts, count_mask
from lobule.families.instances import Way, split
from lobule.families.nuclei import from_all_sides
from lobule.models.card import Card, Score
from lobule.strict import changed
from lobule.training.cards import nuclei_card, segment_graph
from lobule.training.export import SegmentGraph, export_graph
from lobule.training.leakage import check_leakage
from lobule.training.loop import Draw, seeded
from lobule.training.networks import SegmentUNet
from lobule.training.nuclei_images import AlgorithmOneSource, CropSource, whole_field
from lobule.training.nuclei_sets import NucleiField, counted, read_set
from lobule.training.recipe import AlgorithmOneSettings, LoopSettings, NucleiNetwork, NucleiRecipe
from lobule.training.robustness import Moved, measure_robustness
from lobule.training.score import pixel_statistics, score_of
from lobule.training.splits import split_fields
from lobule.training.task import Evaluation, Part
from lobule.training.unets import EncoderUNet, PlainUNet, size_multiple

__all__ = ["LOSS_SCORE", "NucleiTask", "Predict", "build_nuclei", "nuclei_loss", "run_fields"]

Predict = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""An image (H, W, 3) uint8, sides as the network needs them → maps (M, H, W) in [0, 1]."""

LOSS_SCORE = "loss (BCE + Dice), mean of images"
"""The score that Kasturi et al. call validation loss (Table II)."""
MPP_TOLERANCE = 0.05
"""How far a field may lie from the network: a tenth in area. MoNuSeg's lie between 0.2456 and 0.2527 µm/px."""
_LITE_DECODER = (96, 64, 32)
_SPLIT_UM = (0.25, 0.5, 0.75, 1.0, 1.5)
"""Heights of markers above the saddle that are tried for the watershed."""
_DEPTHS = (0.05, 0.1, 0.15, 0.2, 0.25)
_AREAS_UM2 = (3.0, 6.0, 10.0)
_MIDDLE = {"mask": 0.5, "split_um": 0.5, "depth": 0.15, "min_area_um2": 6.0}
"""Where nothing was chosen."""
_KEYS: dict[Way, tuple[str, tuple[float, ...]]] = {
    "components": ("", ()),
    "watershed": ("split_um", _SPLIT_UM),
    "learned": ("depth", _DEPTHS),
}
"""The threshold that a way of telling nuclei apart has, and what is tried for it."""


def build_nuclei(settings: NucleiNetwork, beside: Path) -> nn.Module:
    """Returns the untrained network of that name. Raises WeightsNotFoundError, MissingDependencyError."""
    if settings.name == "lite0":
        return SegmentUNet(settings.maps, _LITE_DECODER, settings.weights == "imagenet")
    if settings.name in ("basic-unet", "modified-unet"):
        return PlainUNet(settings.maps, batch_norm=settings.name == "modified-unet")
    return EncoderUNet(settings.name, settings.weights, settings.maps, beside)


def nuclei_loss(logits: torch.Tensor, targets: torch.Tensor, distance_weight: float) -> torch.Tensor:
    """Returns BCE + Dice with smoothing 1 on the nucleus map, plus weighted L1 on a second, the distance map.

    Both (N, maps, H, W). The Dice loss is 1 - (2 Σ y ŷ + 1) / (Σ y + Σ ŷ + 1) over the whole batch.
    """
    logits = logits.float()
    mask = targets[:, 0]
    cross = functional.binary_cross_entropy_with_logits(logits[:, 0], mask)
    probability = torch.sigmoid(logits[:, 0])
    overlap = 2 * (probability * mask).sum() + 1
    loss = cross + 1 - overlap / (probability.sum() + mask.sum() + 1)
    if distance_weight > 0:
        loss = loss + distance_weight * (torch.sigmoid(logits[:, 1]) - targets[:, 1]).abs().mean()
    return loss


def run_fields(predict: Predict, fields: Sequence[NucleiField], multiple: int) -> list[NDArray[np.float32]]:
    """Returns the maps (M, H, W) of each field, run whole, mirrored out to sides of a ``multiple``."""
    return [_run_whole(predict, field.pixels, multiple) for field in fields]


def _run_whole(predict: Predict, pixels: NDArray[np.uint8], multiple: int) -> NDArray[np.float32]:
    height, width = pixels.shape[:2]
    # an image smaller than what is mirrored is mirrored again and again
    grown = np.pad(pixels, ((0, -height % multiple), (0, -width % multiple), (0, 0)), mode="symmetric")
    return predict(grown)[:, :height, :width]


def _field_loss(probability: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
    """`nuclei_loss` of one field's nucleus map, from probabilities (H, W)."""
    # a float32 that is 1 or 0 to the last place is not infinitely sure
    logits = torch.logit(torch.from_numpy(np.ascontiguousarray(probability)), eps=1e-7)
    targets = torch.from_numpy(truth.astype(np.float32))
    return float(nuclei_loss(logits[None, None], targets[None, None], 0.0))


class NucleiTask:
    """A nuclei recipe on its data (`lobule.training.task.Task`). Raises LeakageError where parts overlap."""

    def __init__(self, recipe: NucleiRecipe, beside: Path, data: Path, seed: int) -> None:
        self._recipe, self._beside, self._data, self._seed = recipe, beside, data, seed

    @property
    def loop(self) -> LoopSettings:
        return self._recipe.loop

    @cached_property
    def parts(self) -> dict[str, list[NucleiField]]:
        """The fields by part: 'training', 'selection', 'test'."""
        fields: list[NucleiField] = []
        for name in self._recipe.sets:
            found, report = read_set(self._data / name)
            _check_mpp(found, self._recipe.network.mpp)
            fields.extend(found)
            self._set_notes.extend(f"{name}: {note}" for note in report.notes)
            silent = sum(field.mpp is None for field in found)
            if silent and report.kind == "folder":
                self._set_notes.append(
                    f"{name}: {silent} of {counted(len(found), 'field')} without a stated resolution, taken to be at "
                    f"{self._recipe.network.mpp:g} µm/px"
                )
        parts = split_fields(fields, self._recipe.split)
        if parts["selection"] and self._recipe.thresholds is not None:
            raise ConfigurationError(
                "thresholds",
                self._recipe.name,
                f"{counted(len(parts['selection']), 'field')} in the selection part: remove one of both",
            )
        check_leakage(parts, patients_apart=self._recipe.split.by != "image")
        return parts

    @cached_property
    def _set_notes(self) -> list[str]:
        return []

    @property
    def network_maps(self) -> int:
        """How many maps the network gives."""
        return self._recipe.network.maps

    def notes(self) -> list[str]:
        lines = []
        for part, counts in self.counts().items():
            told = ", ".join(
                f"{fields} of {name} ({counted(patients, 'patient')}, {counted(nuclei, 'nucleus', 'nuclei')})"
                for name, (fields, patients, nuclei) in counts.items()
            )
            lines.append(f"{part}: {told or 'no field'}")
        if not self.parts["test"]:
            lines.append(
                "no field tests: the run can be neither scored nor exported; see [split] of the recipe"
            )
        return lines + self._set_notes

    def fields(self) -> dict[str, dict[str, str]]:
        return {
            part: {field.name: _digest(field.pixels) for field in fields}
            for part, fields in self.parts.items()
        }

    def labels(self) -> dict[str, dict[str, str]]:
        return {
            part: {field.name: _digest(field.instances) for field in fields}
            for part, fields in self.parts.items()
        }

    def told(self, part: Part, *, known: bool = True) -> str:
        """What the part is, for those who read a score on it; ``known``: what trained is the training part."""
        fields = self.parts[part]
        patients = len({field.patient for field in fields})
        names = " and ".join(sorted({_SETS.get(field.source_set, field.source_set) for field in fields}))
        apart = "kept out of training" if part == "test" else f"of the {part} part"
        if part == "test" and self._recipe.split.by == "image":
            apart = "of which other fields were trained on"
        if part == "test" and not known:
            apart = "of a test part; what trained could not be compared"
        return f"{names}, {counted(len(fields), 'field')} of {counted(patients, 'patient')} {apart}"

    def counts(self) -> dict[str, dict[str, tuple[int, int, int]]]:
        """Fields, patients and nuclei by part and set."""
        out: dict[str, dict[str, tuple[int, int, int]]] = {}
        for part, fields in self.parts.items():
            out[part] = {}
            for name in sorted({field.source_set for field in fields}):
                own = [field for field in fields if field.source_set == name]
                nuclei = sum(_nuclei_in(field) for field in own)
                out[part][name] = (len(own), len({field.patient for field in own}), nuclei)
        return out

    def network(self, *, started: bool = True) -> nn.Module:
        settings = self._recipe.network
        return build_nuclei(settings if started else changed(settings, weights="none"), self._beside)

    def source(self) -> Draw:
        images, maps, fields = self._recipe.images, self._recipe.network.maps, self.parts["training"]
        self._check_training()
        if isinstance(images, AlgorithmOneSettings):
            whole = AlgorithmOneSource(fields, maps, self._seed)
            return lambda index, count: _tensors(whole.draw(index, count))
        crops = CropSource(fields, images, maps)
        return seeded(lambda rng, count: _tensors(crops.draw(rng, count)), self._seed)

    def _check_training(self) -> None:
        """Raises ConfigurationError where there is nothing to learn."""
        fields, apart = self.parts["training"], self._recipe.split
        if not fields:
            option, named = (
                ("split.selection", apart.selection)
                if apart.selection
                else ("split.test", apart.test)
                if apart.test
                else ("split.by", apart.by)
            )
            raise ConfigurationError(option, named, "it leaves no field to train on")
        if not any(field.instances.any() for field in fields):
            raise ConfigurationError(
                "--data",
                str(self._data),
                "no training field has a nucleus; are the annotations the right files?",
            )

    def loss(self, network: nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return nuclei_loss(network(batch[0]), batch[1], self._recipe.network.distance_weight)

    def check(self) -> Callable[[nn.Module], float] | None:
        fields = self.parts["selection"]
        if not fields:
            return None
        # whole fields, as they are scored: what the loss is on crops depends on how they are drawn
        network = self._recipe.network
        batches = [
            _tensors(whole_field(field, network.maps, size_multiple(network.name))) for field in fields
        ]

        def loss(network: nn.Module) -> float:
            device = next(network.parameters()).device
            each = [self.loss(network, tuple(t.to(device) for t in batch)) for batch in batches]
            return float(torch.stack(each).mean())

        return loss

    def predictor(self, network: nn.Module) -> Predict:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network = network.to(device).eval()

        def predict(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
            with torch.no_grad():
                logits = network(torch.from_numpy(pixels[None]).to(device))
            return np.asarray(torch.sigmoid(logits)[0].float().cpu().numpy(), np.float32)

        return predict

    def graph_predictor(self, folder: Path, card: Card) -> Predict:
        import onnxruntime

        graph = card.graph("segment")
        if graph is None:
            raise ConfigurationError("model", card.name, "it is no nuclei model")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(
            str(folder / graph.file), options, providers=["CPUExecutionProvider"]
        )
        name = graph.inputs[0].name
        maps = graph.outputs[0].shape[graph.outputs[0].layout.index("C")]
        if maps != self.network_maps:
            raise ConfigurationError(
                "--recipe",
                self._recipe.name,
                f"its network gives {self.network_maps} maps, {card.name} {maps}",
            )
        return lambda pixels: np.asarray(session.run(None, {name: pixels[None]})[0][0], np.float32)

    def thorough(self, predict: Predict) -> Predict:
        return partial(from_all_sides, predict)

    def decide(self, predict: Predict) -> dict[str, float]:
        """The mask threshold of highest pooled Jaccard, then those of the splitting of highest AJI.

        Sets weigh alike, however many and large their selection fields are: they differ in how generously nuclei
        are outlined. Without a selection part as the recipe says, else the middle of what would be tried.
        """
        network, fields = self._recipe.network, self.parts["selection"]
        key, tried = _KEYS[network.split]
        if not fields:
            return dict(self._recipe.thresholds or {name: _MIDDLE[name] for name in network.threshold_names})
        maps = run_fields(predict, fields, size_multiple(network.name))
        sets = sorted({field.source_set for field in fields})
        of_set = [[k for k, field in enumerate(fields) if field.source_set == name] for name in sets]

        def pooled(threshold: float) -> float:
            counts = [
                count_mask(field.instances > 0, one[0] > threshold)
                for one, field in zip(maps, fields, strict=True)
            ]
            nothing = MaskCounts(0, 0, 0, 0)
            return float(np.mean([sum((counts[k] for k in own), nothing).jaccard for own in of_set]))

        def aggregated(values: Mapping[str, float]) -> float:
            each = [
                aji(field.instances, self._labels(one, values, network.split))
                for one, field in zip(maps, fields, strict=True)
            ]
            return float(np.mean([np.mean([each[k] for k in own]) for own in of_set]))

        mask = max(np.arange(0.3, 0.71, 0.05).round(2).tolist(), key=pooled)
        # one after the other: they hardly depend on each other
        values = {"mask": mask, **({key: _MIDDLE[key]} if key else {})}
        area = max(_AREAS_UM2, key=lambda least: aggregated(values | {"min_area_um2": least}))
        values["min_area_um2"] = area
        if key:
            values[key] = max(tried, key=lambda value: aggregated(values | {key: value}))
        return values

    def _labels(self, maps: NDArray[np.float32], values: Mapping[str, float], way: Way) -> NDArray[np.int32]:
        mpp = self._recipe.network.mpp
        return split(
            maps[: 2 if way == "learned" else 1],
            way,
            mask_threshold=values["mask"],
            depth=values.get("depth", _MIDDLE["depth"]) if way == "learned" else None,
            split_px=values.get("split_um", _MIDDLE["split_um"]) / mpp if way == "watershed" else None,
            min_area_px=values["min_area_um2"] / mpp**2,
        )

    def score(
        self, predict: Predict, thresholds: Mapping[str, float], part: Part, *, known: bool = True
    ) -> Evaluation:
        fields = self.parts[part]
        if not fields:
            raise ConfigurationError("--split", part, "the recipe's split leaves no field in it")
        maps = run_fields(predict, fields, size_multiple(self._recipe.network.name))
        ways: list[Way] = ["components", "watershed"]
        if self._recipe.network.maps > 1:
            ways.append("learned")
        images = [
            score_image(
                field.instances,
                one[0] > 0.5,
                {way: self._labels(one, thresholds, way) for way in ways},
            )
            for one, field in zip(maps, fields, strict=True)
        ]
        where = self.told(part, known=known)
        scores = [
            _score(name, value, where, "probability above 0.5")
            for name, value in pixel_intervals(images).items()
        ]
        losses = np.array(
            [_field_loss(one[0], field.instances > 0) for one, field in zip(maps, fields, strict=True)]
        )
        mean = bootstrap(lambda at: float(losses[at].mean()), len(losses))
        scores.append(_score(LOSS_SCORE, mean, where, "of each field whole"))
        own = self._recipe.network.split
        for way in (own, *(way for way in ways if way != own)):
            suffix = "" if way == own else f", {way}"
            how = f"{_told(thresholds)}; nuclei told apart by {_WAYS[way]}"
            scores += [
                _score(name + suffix, value, where, how)
                for name, value in object_intervals(images, way).items()
            ]
        if area := self._areas(fields, maps, thresholds, where):
            scores.append(area)
        scores += self._by_organ(fields, images, where, own)
        return Evaluation(
            tuple(scores), tuple(_row(field, one) for field, one in zip(fields, images, strict=True))
        )

    def _areas(
        self,
        fields: Sequence[NucleiField],
        maps: Sequence[NDArray[np.float32]],
        thresholds: Mapping[str, float],
        where: str,
    ) -> Score | None:
        """How large nuclei are measured: their median area over that of the outlined ones."""
        ratios = []
        for field, one in zip(fields, maps, strict=True):
            outlined = np.unique(field.instances[field.instances > 0], return_counts=True)[1]
            labels = self._labels(one, thresholds, self._recipe.network.split)
            found = np.unique(labels[labels > 0], return_counts=True)[1]
            if len(outlined) and len(found):
                ratios.append(float(np.median(found) / np.median(outlined)))
        if not ratios:
            return None
        each = np.array(ratios)
        mean = bootstrap(lambda at: float(each[at].mean()), len(each))
        how = f"from {each.min():.2f} to {each.max():.2f} in single fields"
        return _score("median nuclear area over the outlined, mean of images", mean, where, how)

    def _by_organ(
        self, fields: Sequence[NucleiField], images: Sequence[ImageScores], where: str, way: Way
    ) -> list[Score]:
        """Of each organ with enough fields for an interval, where there are several: pixel F1, AJI and PQ."""
        organs = [field.organ or "unknown organ" for field in fields]
        if len(set(organs)) < 2:
            return []
        out = []
        for organ in sorted(set(organs)):
            own = [one for one, of in zip(images, organs, strict=True) if of == organ]
            if len(own) < LEAST_UNITS:
                continue
            found = pixel_intervals(own) | object_intervals(own, way)
            for name in ("pixel F1, pooled", "AJI, mean of images", "PQ, mean of images"):
                how = f"{len(own)} fields"
                out.append(_score(f"{name}, {organ.lower()}", found[name], where, how))
        return out

    def disturb(self, predict: Predict, thresholds: Mapping[str, float], part: Part) -> list[Moved]:
        network = self._recipe.network

        def find(pixels: NDArray[np.uint8]) -> NDArray[np.int32]:
            maps = _run_whole(predict, pixels, size_multiple(network.name))
            return self._labels(maps, thresholds, network.split)

        return measure_robustness(find, [field.pixels for field in self.parts[part]])

    def export(
        self, network: nn.Module, thresholds: Mapping[str, float], folder: Path, name: str, made_by: str
    ) -> Card:
        file = folder / "model.onnx"
        multiple = size_multiple(self._recipe.network.name)
        rng = np.random.default_rng(self._seed)
        real = [_corner(field.pixels, 512, multiple) for field in self.parts["test"][:1]]
        apart = export_graph(
            SegmentGraph(network),
            file,
            [
                {"pixels": rng.integers(0, 256, (2, 256, 320, 3), dtype=np.uint8)},
                *({"pixels": pixels[None]} for pixels in real if pixels.size),
                {"pixels": rng.integers(0, 256, (3, 64, 96, 3), dtype=np.uint8)},
            ],
            output="maps",
            dynamic={"pixels": {0: "n", 1: "h", 2: "w"}},
        )
        graph = segment_graph(file, self._recipe.network, multiple)
        # what is scored is what is shipped
        card = nuclei_card(
            self._recipe,
            name,
            graph,
            self.counts(),
            fields=self.fields(),
            thresholds=dict(thresholds),
            pixels=pixel_statistics([field.pixels for field in self.parts["training"]]),
            made_by=f"{made_by}; largest difference torch against ONNX Runtime and OpenVINO (float32): {apart:.1e}",
        )
        predict = self.graph_predictor(folder, card)
        found = self.score(predict, thresholds, "test")
        careful = self.score(self.thorough(predict), thresholds, "test")
        moved = self.disturb(predict, thresholds, "test")
        scores = (*found.scores, *_thorough(careful.scores), *_disturbed(moved, found.scores[0].on))
        return changed(card, scores=scores)


def _check_mpp(fields: Sequence[NucleiField], wanted: float) -> None:
    """Raises ConfigurationError where a field states another resolution than the network's."""
    for field in fields:
        if field.mpp is None or all(
            abs(axis / wanted - 1) <= MPP_TOLERANCE for axis in (field.mpp.x, field.mpp.y)
        ):
            continue
        x, y = field.mpp.x, field.mpp.y
        stated = f"{x:.4g}" if x == y else f"{x:.4g} × {y:.4g}"
        raise ConfigurationError(
            "--data", field.name,
            f"it is stated to be at {stated} µm/px, the recipe's [network] mpp is {wanted:g}; resample the image and "
            "its annotation, or correct the column mpp of manifest.csv",
        )  # fmt: skip


def _digest(array: NDArray[np.generic]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def _corner(pixels: NDArray[np.uint8], most: int, multiple: int) -> NDArray[np.uint8]:
    """The upper left part, its sides multiples and at most so many pixels; empty where the image is smaller."""
    height, width = (min(most, side) // multiple * multiple for side in pixels.shape[:2])
    return pixels[:height, :width]


_SETS = {"tnbc": "TNBC", "monuseg": "MoNuSeg"}
_WAYS = {
    "components": "connected components of the mask",
    "watershed": "watershed on the mask's distance transform",
    "learned": "watershed on the network's distance map",
}


def _told(thresholds: Mapping[str, float]) -> str:
    names = {"mask": "mask > {:g}", "depth": "split by {:g}", "split_um": "split by {:g} µm"}
    told = [text.format(thresholds[key]) for key, text in names.items() if key in thresholds]
    return ", ".join([*told, f"at least {thresholds['min_area_um2']:g} µm²"])


def _tensors(batch: tuple[NDArray[np.uint8], NDArray[np.float32]]) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(array) for array in batch)


def _score(name: str, value: Interval, where: str, how: str) -> Score:
    return score_of(name, value, where, how, "fields")


_THOROUGH = (
    "pixel Jaccard, pooled",
    "pixel Jaccard, mean of images",
    "pixel F1, pooled",
    "pixel F1, mean of images",
    "AJI, mean of images",
    "PQ, mean of images",
    "PQ, pooled",
)
"""What the card says of a thorough look."""


def _thorough(scores: Sequence[Score]) -> list[Score]:
    return [
        changed(
            score,
            name=f"{score.name}, thorough",
            how=f"--thorough, mean of eight turned and mirrored copies; {score.how}",
        )
        for score in scores
        if score.name in _THOROUGH
    ]


def _disturbed(moved: Sequence[Moved], where: str) -> list[Score]:
    how = "overlap of the mask with that of the same field undisturbed"
    return [_score(f"Dice with the undisturbed, {one.name}", one.dice, where, how) for one in moved]


def _nuclei_in(field: NucleiField) -> int:
    return int(np.unique(field.instances[field.instances > 0]).size)


def _row(field: NucleiField, scores: ImageScores) -> dict[str, str | float]:
    row: dict[str, str | float] = {
        "field": field.name,
        "patient": field.patient,
        "organ": field.organ or "",
        "nuclei": _nuclei_in(field),
        "pixel_jaccard": scores.pixels.jaccard,
        "pixel_f1": scores.pixels.dice,
        "pixel_precision": scores.pixels.precision,
        "pixel_recall": scores.pixels.recall,
        "pixel_accuracy": scores.pixels.accuracy,
    }
    for way, one in scores.objects.items():
        row[f"aji_{way}"] = one.aji
        row[f"aji_plus_{way}"] = one.aji_plus
        row[f"pq_{way}"] = one.panoptic.panoptic_quality
        row[f"found_{way}"] = one.panoptic.matched + one.panoptic.spare
    return row
