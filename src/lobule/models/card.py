"""The model card: what a model is, what it takes and gives, what it saw, how good it is, under which terms.

A card is strict: an unknown field, a missing one or a value out of bounds is an error that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta

from lobule.errors import CardError
from lobule.strict import InvalidError, Strict, from_json

__all__ = [
    "CARD_VERSION",
    "Card",
    "Data",
    "Graph",
    "LowerPrecision",
    "Score",
    "Tensor",
    "check_bounds",
    "read_card",
]

CARD_VERSION = 1
PRECISION_TOLERANCE = 0.002
"""A score (AUC, Dice) may lie this far from float32's for a lower precision to count as proven."""

Family = Literal["tumor", "nuclei", "field", "grading", "metastasis"]
Text = Annotated[str, Meta(min_length=1)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
OnnxFile = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]+\.onnx\Z")]
Positive = Annotated[float, Meta(gt=0)]


class Tensor(Strict, frozen=True, kw_only=True):
    """One input or output of a graph. ``shape`` uses -1 where any size is accepted."""

    name: Text
    dtype: Literal["uint8", "float32"]
    layout: Literal["NHWC", "NCHW", "NHW", "NC"]
    shape: tuple[int, ...]
    meaning: Text

    def __post_init__(self) -> None:
        if len(self.shape) != len(self.layout):
            raise ValueError(f"shape {self.shape} does not fit layout {self.layout}")
        if any(n != -1 and n < 1 for n in self.shape):
            raise ValueError(f"shape {self.shape}: sizes are -1 (any) or at least 1")


class LowerPrecision(Strict, frozen=True, kw_only=True):
    """The proof that a graph does as well in a faster number format: a score in both, on the model's test part.

    bfloat16 is a way to compute the graph's own file; int8 is a file of its own, calibrated on training data.
    """

    precision: Literal["bfloat16", "int8"]
    file: OnnxFile | None = None
    """int8 only: the graph with 8-bit weights and activations; same inputs and outputs."""
    sha256: Sha256 | None = None
    score: Text
    float32: float
    value: float
    on: Text
    how: Text
    speedup: Positive
    """Tiles a second over float32's, measured when it was proven; ``auto`` takes the format of the largest."""
    measured_on: Text
    """The processor and the runtime of ``speedup``."""

    def __post_init__(self) -> None:
        if abs(self.value - self.float32) > PRECISION_TOLERANCE:
            raise ValueError(
                f"{self.precision} is not proven: {self.score} {self.value:g} is more than {PRECISION_TOLERANCE} "
                f"from float32's {self.float32:g}"
            )
        if {self.file is not None, self.sha256 is not None} != {self.precision == "int8"}:
            raise ValueError(
                "int8 states its own file and sha256, bfloat16 neither: it computes the graph's file"
            )


class Graph(Strict, frozen=True, kw_only=True):
    """One ONNX file with what it computes.

    ``mean`` and ``std`` (per channel in the order that ``color_order`` names, on the 0-255 scale) are applied
    outside where the graph does not prepare its input itself, which is float32 then; both null: "in graph".
    """

    file: OnnxFile
    sha256: Sha256
    of: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]*\Z")] | None = None
    """The shipped model that the file is borrowed from; null: it lies beside this card."""
    role: Literal["patch", "screen", "refine", "segment"]
    """``screen`` (tumor): a small network on the patch graph's own tiles that settles the easy ones."""
    mpp: Positive | None
    """Working µm/px of the pixels input; null where the whole slide is fitted into the input (refine)."""
    tile_px: Annotated[int, Meta(ge=16, le=8192)]
    halo_px: Annotated[int, Meta(ge=0, le=2048)] = 0
    side_step: Annotated[int, Meta(ge=1)] | None = None
    """What height and width may be multiples of where the input's size is free (segment only); null: of the
    largest power of two in ``tile_px``. A field smaller than a tile is looked at in its own size, rounded up to it."""
    color_order: Literal["RGB", "BGR"] = "RGB"
    mean: tuple[float, float, float] | None = None
    std: tuple[Positive, Positive, Positive] | None = None
    fit: Literal["pad", "squash"] | None = None
    """How a slide that is not square fills the square input (refine only)."""
    inputs: Annotated[tuple[Tensor, ...], Meta(min_length=1)]
    outputs: Annotated[tuple[Tensor, ...], Meta(min_length=1)]
    precision: Literal["float32"] = "float32"
    """Of the weights."""
    lower_precisions: tuple[LowerPrecision, ...] = ()
    """Formats in which the graph may run where the processor is faster in them; each with its proof."""

    def __post_init__(self) -> None:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std come together or are both null (in graph)")
        if self.mean is not None and self.inputs[0].dtype != "float32":
            # bytes would lose what scaling makes of them, in each runtime differently
            raise ValueError(
                f"mean and std need a float32 input, {self.inputs[0].name!r} is {self.inputs[0].dtype}"
            )
        if 2 * self.halo_px >= self.tile_px:
            raise ValueError(f"halo_px {self.halo_px} leaves nothing of a tile of {self.tile_px} px")
        if self.side_step is not None and (self.role != "segment" or self.tile_px % self.side_step):
            raise ValueError("side_step divides tile_px and is stated by a segment graph alone")
        if (self.mpp is None) != (self.role == "refine"):
            raise ValueError("mpp is null for a refine graph and a number for any other")
        if (self.fit is None) == (self.role == "refine"):
            raise ValueError("fit is stated by a refine graph and by no other")
        if self.role == "refine" and (len(self.inputs) != 2 or self.outputs[0].layout != "NHW"):
            raise ValueError("a refine graph takes the slide and the heatmap and gives one map, NHW")
        formats = [lower.precision for lower in self.lower_precisions]
        if len(set(formats)) != len(formats):
            raise ValueError(f"two proofs of one precision: {formats}")

    @property
    def side_multiple_px(self) -> int:
        """What a side of the input must be a multiple of; the tile itself where its size is fixed."""
        pixels = self.inputs[0]
        if any(size != -1 for axis, size in zip(pixels.layout, pixels.shape, strict=True) if axis in "HW"):
            return self.tile_px
        return self.side_step or self.tile_px & -self.tile_px

    def lower(self, precision: str) -> LowerPrecision | None:
        """The proof of that precision, or None."""
        return next((lower for lower in self.lower_precisions if lower.precision == precision), None)

    def file_in(self, precision: str) -> tuple[str, str]:
        """(file, sha256) of what is computed in that precision: the graph's own, for int8 the one made for it."""
        lower = self.lower(precision)
        if lower is None or lower.file is None or lower.sha256 is None:
            return self.file, self.sha256
        return lower.file, lower.sha256


class Data(Strict, frozen=True, kw_only=True):
    """One data set that the model was trained on or scored on."""

    name: Text
    source: Text
    terms: Text
    used_for: Literal["pretraining", "training", "selection", "test"]
    count: Text
    split: Text
    """Which part, how it was cut (by patient, by contiguous blocks) and what was kept apart."""
    digests: tuple[Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z")], ...] = ()
    """Of the pixels of each field (sha256, its first digits), where they are known: no score on these is one on
    data the model never saw."""


class Score(Strict, frozen=True, kw_only=True):
    """One measured number on data the model never saw; ``low``/``high`` bound its 95 % interval."""

    name: Text
    value: float
    low: float | None = None
    high: float | None = None
    on: Text
    how: Text


class _Bounds(NamedTuple):
    hold: Callable[[float], bool]
    said: str


_PROBABILITY = _Bounds(lambda value: 0 <= value <= 1, "from 0 to 1")
_DIVIDING = _Bounds(lambda value: 0 < value < 1, "above 0 and below 1")
_THRESHOLDS: dict[Family, dict[str, _Bounds]] = {
    "tumor": dict.fromkeys(("patch", "refine"), _DIVIDING)
    | dict.fromkeys(("screen_low", "screen_high"), _PROBABILITY),
    "nuclei": {
        "mask": _DIVIDING,
        "depth": _Bounds(lambda value: 0 < value <= 1, "above 0 and at most 1"),
        "split_um": _Bounds(lambda value: value > 0, "above 0"),
        "min_area_um2": _Bounds(lambda value: value >= 0, "0 or more"),
    },
}
"""What thresholds a family reads, and what they may be; a family that is not named here may have any."""


def check_bounds(family: Family, thresholds: Mapping[str, float]) -> None:
    """Raises ValueError where a family that is known has no such threshold, or it cannot have the value."""
    bounds = _THRESHOLDS.get(family)
    if bounds is None:
        return
    for name, value in thresholds.items():
        if name not in bounds:
            raise ValueError(f"thresholds of {family} models are {', '.join(bounds)}, not {name!r}")
        if not bounds[name].hold(value):
            raise ValueError(f"threshold {name!r} is {bounds[name].said}, not {value:g}")


class OnnxFileEntry(NamedTuple):
    """A file that a card names; ``of``: the shipped model whose folder holds it, None: the card's own."""

    file: str
    sha256: str
    what: str
    of: str | None


class Card(Strict, frozen=True, kw_only=True):
    """Everything lobule knows about a model; lies as ``card.json`` beside its graphs."""

    card_version: Literal[1]
    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]*\Z")]
    version: Annotated[str, Meta(pattern=r"^\d+\.\d+\.\d+\Z")]
    family: Family
    instead_of: str | None = None
    """The larger shipped model whose place this one takes unless thoroughness is asked for."""
    task: Text
    classes: Annotated[tuple[Text, ...], Meta(min_length=1)]
    graphs: Annotated[tuple[Graph, ...], Meta(min_length=1)]
    thresholds: dict[str, float]
    """Named decision values of the family, chosen on data used for selection, never on the test part.

    tumor: ``patch``, ``refine`` with a refine graph, ``screen_low`` and ``screen_high`` with a screen graph;
    nuclei: ``mask``, ``min_area_um2`` and at most one of ``depth`` and ``split_um``.
    """
    data: Annotated[tuple[Data, ...], Meta(min_length=1)]
    scores: tuple[Score, ...]
    calibration: Text
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[Positive, Positive, Positive]
    """Mean and SD over training tiles of their mean RGB (0-255): how far a slide's color lies from these."""
    terms: Text
    intended_use: Text
    limits: Annotated[tuple[Text, ...], Meta(min_length=1)]
    made_by: Text
    """The recipe, seed and command that made the model."""

    def __post_init__(self) -> None:
        self._check_graphs()
        self._check_thresholds()
        self._check_int8_files()

    def _check_graphs(self) -> None:
        roles = [graph.role for graph in self.graphs]
        if len(set(roles)) != len(roles):
            raise ValueError(f"two graphs of one role: {roles}")
        needed = {"tumor": "patch", "nuclei": "segment"}.get(self.family)
        if needed and needed not in roles:
            raise ValueError(f"a {self.family} model needs a graph of role {needed!r}, this has {roles}")
        if self.family == "tumor" and len(self.classes) != 2:
            raise ValueError(
                f"a tumor model tells two classes apart, normal and tumor, not {len(self.classes)}"
            )
        screen, patch = self.graph("screen"), self.graph("patch")
        if screen is not None:
            if patch is None or (screen.mpp, screen.tile_px, screen.halo_px) != (
                patch.mpp,
                patch.tile_px,
                patch.halo_px,
            ):
                raise ValueError(
                    "a screen graph sees the tiles of the card's patch graph, same mpp, size and halo"
                )
            low, high = (self.thresholds.get(name, float("nan")) for name in ("screen_low", "screen_high"))
            if not 0 <= low <= high <= 1:
                raise ValueError("a screen graph needs thresholds 0 ≤ screen_low ≤ screen_high ≤ 1")

    def _check_thresholds(self) -> None:
        """What the family would stumble over in the middle of a slide is told before anything runs."""
        check_bounds(self.family, self.thresholds)
        if self.family not in _THRESHOLDS:
            return
        if self.family == "nuclei":
            needed = ["mask", "min_area_um2"]
        else:
            needed = ["patch", "refine"] if self.graph("refine") is not None else ["patch"]
        for name in needed:
            if name not in self.thresholds:
                raise ValueError(f"thresholds of this {self.family} model need {name!r}")
        if "depth" in self.thresholds and "split_um" in self.thresholds:
            raise ValueError("thresholds hold 'depth' (learned) or 'split_um' (watershed), not both")

    def _check_int8_files(self) -> None:
        full = {graph.file for graph in self.graphs}
        small = [lower.file for graph in self.graphs for lower in graph.lower_precisions if lower.file]
        if full.intersection(small) or len(set(small)) != len(small):
            raise ValueError(f"every int8 graph has a file of its own, here {small}")

    def graph(self, role: str) -> Graph | None:
        """The graph of that role, or None."""
        return next((graph for graph in self.graphs if graph.role == role), None)

    def files(self) -> Iterator[OnnxFileEntry]:
        """Every ONNX file of the model."""
        for graph in self.graphs:
            yield OnnxFileEntry(graph.file, graph.sha256, f"the {graph.role} graph", graph.of)
            for lower in graph.lower_precisions:
                if lower.file is not None and lower.sha256 is not None:
                    what = f"the {graph.role} graph in {lower.precision}"
                    yield OnnxFileEntry(lower.file, lower.sha256, what, None)


def read_card(path: Path) -> Card:
    """Reads and checks a card. Raises CardError that names the first offending field."""
    name = path.parent.name
    try:
        content = path.read_bytes()
    except OSError as error:
        why = error.strerror or error
        raise CardError(name, f"{path} cannot be read: {why}; check who may read it") from error
    try:
        return from_json(content, Card)
    except InvalidError as error:
        raise CardError(name, f"card.json: {error}") from error
