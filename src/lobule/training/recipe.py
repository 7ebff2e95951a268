"""Recipes: everything that decides what a training run makes, in one strict file.

A recipe is TOML; an unknown key, a missing one or a value out of bounds is an error that names it.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from lobule.errors import ConfigurationError
from lobule.models.card import check_bounds
from lobule.strict import InvalidError, Strict, from_values

__all__ = [
    "MOST_SEED",
    "AlgorithmOneSettings",
    "AugmentSettings",
    "BlockSplit",
    "ComposeSettings",
    "CropSettings",
    "EarlyStop",
    "LoopSettings",
    "NucleiNetwork",
    "NucleiRecipe",
    "NucleiSplit",
    "PatchSettings",
    "Recipe",
    "RefineSettings",
    "ScreenNetwork",
    "ScreenRecipe",
    "StudentRecipe",
    "TileMix",
    "TumorRecipe",
    "read_recipe",
]

MOST_SEED = 2**31 - 1
"""Times a million, plus the step, a seed must fit torch's 64 bits."""

Share = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[float, Meta(gt=0)]
Scale = Annotated[float, Meta(ge=0.25, le=4)]
Count = Annotated[int, Meta(ge=1)]
Seed = Annotated[int, Meta(ge=0, le=MOST_SEED)]


class EarlyStop(Strict, frozen=True, kw_only=True):
    """When to stop before the last step: after ``patience`` looks at the selection part without a lower loss."""

    every: Count
    """Steps between two looks."""
    patience: Count


class LoopSettings(Strict, frozen=True, kw_only=True):
    """How a network is fitted: Adam or AdamW, linear warm-up, decay, a moving average of the weights."""

    steps: Count
    batch: Count
    """Samples of a forward pass, over all devices."""
    accumulate: Count = 1
    """Forward passes whose gradients make one step."""
    optimizer: Literal["adam", "adamw"] = "adamw"
    learning_rate: Positive
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: Annotated[float, Meta(ge=0)]
    warmup_steps: Annotated[int, Meta(ge=0)]
    average_decay: Annotated[float, Meta(ge=0, lt=1)]
    """Decay of the exponential moving average of all weights and statistics; its end is what is exported."""
    precision: Literal["float32", "bfloat16", "float16"]
    """Arithmetic of the convolutions while training; weights and exported graphs are float32."""
    early_stop: EarlyStop | None = None
    """None: the last step's weights are kept; else those of the lowest loss on the selection part."""


class AugmentSettings(Strict, frozen=True, kw_only=True):
    """Strengths of the random changes; each happens with probability ``share``."""

    share: Share
    scale: tuple[Scale, Scale]
    """Sides of what is cut out over those of what is learned from."""
    hue_degrees: Annotated[float, Meta(ge=0, le=90)]
    saturation: Share
    brightness: Share
    contrast: Share
    white: Share
    stain: Annotated[float, Meta(ge=0, le=0.3)]
    blur_px: Annotated[float, Meta(ge=0.2, le=5)]
    jpeg_quality: tuple[Annotated[int, Meta(ge=1, le=100)], Annotated[int, Meta(ge=1, le=100)]]

    def __post_init__(self) -> None:
        for name, (low, high) in (("scale", self.scale), ("jpeg_quality", self.jpeg_quality)):
            if low > high:
                raise ValueError(f"{name} goes from low to high, not from {low:g} to {high:g}")


class BlockSplit(Strict, frozen=True, kw_only=True):
    """Contiguous blocks of a numbered series, in order: training, selection, test.

    Both cuts go to the widest gap in numbering near their nominal place; where there is none wider than
    ``natural_gap``, ``dropped`` fields are left out between the blocks.
    """

    training: Share
    selection: Share
    search: Annotated[int, Meta(ge=0)]
    natural_gap: Count
    dropped: Annotated[int, Meta(ge=0)]


class PatchSettings(Strict, frozen=True, kw_only=True):
    """Stage 1: the tile classifier."""

    encoder: Literal["efficientnet-lite0"]
    pretrained: bool
    hidden: Count
    dropout: Share
    tile_px: Literal[256]
    mpp: Positive
    min_tissue: Share
    pale_share: Share
    """Share of a batch that is glass, fat, pen, smear: always normal."""
    label_smoothing: Annotated[float, Meta(ge=0, lt=0.5)]
    loop: LoopSettings
    augment: AugmentSettings


class ComposeSettings(Strict, frozen=True, kw_only=True):
    """Slides composed of fields, for the refining stage."""

    slides: Count
    test_slides: Count
    side_mm: tuple[Positive, Positive]
    tumor_mm: tuple[Positive, Positive]
    no_tumor_share: Share
    all_tumor_share: Share
    field_share: Share
    """Share of slides that are one field and nothing else."""


class RefineSettings(Strict, frozen=True, kw_only=True):
    """Stage 2: the refining U-Net."""

    filters: Annotated[tuple[Count, ...], Meta(min_length=2, max_length=9)]
    size_px: Literal[1024]
    crop_px: Count
    compose: ComposeSettings
    loop: LoopSettings
    augment: AugmentSettings

    def __post_init__(self) -> None:
        step = 2 ** (len(self.filters) - 1)
        if self.crop_px % step or self.size_px % step:
            raise ValueError(f"sizes must be multiples of {step} with {len(self.filters)} levels")


class NucleiNetwork(Strict, frozen=True, kw_only=True):
    """A nuclei network by name: the fourteen of Kasturi et al. 2022, and the small one that ships.

    ``weights``: where the encoder starts: "none", "imagenet", or a file of its weights beside the recipe.
    """

    name: Literal[
        "basic-unet",
        "modified-unet",
        "resnet50",
        "resnet101",
        "resnext50_32x4d",
        "resnext101_32x8d",
        "densenet121",
        "densenet201",
        "lite0",
    ]
    weights: Annotated[str, Meta(min_length=1)]
    split: Literal["components", "watershed", "learned"]
    """How nuclei are told apart: connected parts, watershed of the mask's distance, or a learned distance map."""
    distance_weight: Annotated[float, Meta(ge=0)] = 0.0
    """Of the learned distance in the loss."""
    mpp: Positive
    tile_px: Annotated[int, Meta(ge=32, multiple_of=32)]
    halo_px: Annotated[int, Meta(ge=0, multiple_of=32)]

    def __post_init__(self) -> None:
        if 2 * self.halo_px >= self.tile_px:
            raise ValueError(f"halo_px {self.halo_px} leaves nothing of a tile of {self.tile_px} px")
        if (self.split == "learned") != (self.distance_weight > 0):
            raise ValueError("split 'learned' needs a distance_weight above 0, the others have none")
        if self.weights != "none" and self.name in ("basic-unet", "modified-unet"):
            raise ValueError(f'there are no weights for {self.name} to start from: weights = "none"')
        if self.weights not in ("none", "imagenet") and self.name == "lite0":
            raise ValueError('lite0 starts from weights = "none" or "imagenet", not from a file')

    @property
    def maps(self) -> int:
        """How many maps the network gives: nucleus, and the learned distance where there is one."""
        return 2 if self.split == "learned" else 1

    @property
    def threshold_names(self) -> tuple[str, ...]:
        """What is chosen for its way of telling nuclei apart."""
        own = {"components": (), "watershed": ("split_um",), "learned": ("depth",)}[self.split]
        return ("mask", *own, "min_area_um2")


class AlgorithmOneSettings(Strict, frozen=True, kw_only=True, tag_field="kind", tag="algorithm-1"):
    """Training on Algorithm 1's images, whole (Kasturi et al. 2022): three of each field, 512 × 512 px."""


class CropSettings(Strict, frozen=True, kw_only=True, tag_field="kind", tag="crops"):
    """Training on crops drawn anew each step."""

    crop_px: Annotated[int, Meta(ge=32, multiple_of=32)]
    soften: Annotated[float, Meta(ge=1, le=4)]
    """Largest factor of a random down- and up-sampling, so that slides scanned at 0.5 µm/px are known."""
    empty_share: Share
    """Share of crops that are glass, pen or smear without a nucleus."""
    elastic_px: Annotated[float, Meta(ge=0, le=20)] = 0.0
    """Largest displacement of an elastic deformation of half of the crops."""
    macenko: Annotated[float, Meta(ge=0, le=0.5)] = 0.0
    """Strength of the jitter of a crop's own two stains (Macenko et al. 2009)."""
    augment: AugmentSettings


class NucleiSplit(Strict, frozen=True, kw_only=True):
    """Which fields train, choose (thresholds, early stopping) and test.

    ``by``: "patient": the even-numbered TNBC patients test; "image": 25 of the TNBC fields at random test, their
    patients train too (the paper's count, and leaky); "column": the manifest's ``split``; "folds": of a user's own
    sets, ``test_share`` of the patients at random. ``selection`` names patients that neither train nor test,
    ``test`` patients that test besides.
    """

    by: Literal["patient", "image", "column", "folds"]
    selection: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    selection_share: Share = 0.0
    test_share: Share = 0.2
    seed: Seed = 0


class TumorRecipe(Strict, frozen=True, kw_only=True):
    """A two-stage tumor model on fields of BACH."""

    family: Literal["tumor"]
    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]*\Z")]
    version: Annotated[str, Meta(pattern=r"^\d+\.\d+\.\d+\Z")]
    seed: Seed
    fields: Literal["bach"]
    field_mpp: Positive
    split: BlockSplit
    patch: PatchSettings
    refine: RefineSettings


class TileMix(Strict, frozen=True, kw_only=True):
    """Of what kinds the tiles are that a screening network learns from; kinds by their relative shares."""

    shards: Count
    shard: Annotated[int, Meta(ge=16)]
    """Tiles are made, judged and kept in ``shards`` parts of ``shard`` tiles."""
    field: Share
    composed: Share
    phantom: Share
    texture: Share
    pale: Share
    patchwork: Share
    """Two fields in one tile."""
    glass: Share
    """Share of tiles of every kind of which a part is glass."""
    changed: Share
    """Share of tiles that are changed in scale, and of those changed in color."""


class ScreenNetwork(Strict, frozen=True, kw_only=True):
    """A screening network: the patch network's own first stages, on halved tiles, with a small head."""

    encoder: Literal["efficientnet-lite0"]
    stages: Annotated[int, Meta(ge=1, le=7)]
    """How many of the encoder's seven stages are kept."""
    hidden: Count
    features: Count
    """How many components of the patch network's features are learned beside its answer."""
    feature_weight: Annotated[float, Meta(ge=0)]


class ScreenRecipe(Strict, frozen=True, kw_only=True):
    """A screening network for a shipped tumor model, on fields of BACH."""

    family: Literal["screen"]
    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]*\Z")]
    model: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]*\Z")]
    """The shipped model that gets the screen."""
    seed: Seed
    fields: Literal["bach"]
    field_mpp: Positive
    mpp: Positive
    tile_px: Literal[256]
    min_tissue: Share
    agreement: Share
    """DSC with the plain pass that the thresholds must keep on slides composed of the selection block."""
    slides: Count
    """Composed slides to choose thresholds on, and as many to score on."""
    split: BlockSplit
    mix: TileMix
    """Of the training block's fields."""
    other_mix: TileMix
    """Of fields that the patch network never saw: half of the selection block, and unlabeled ones."""
    other_weight: Positive
    """How much oftener than those of ``mix`` its tiles are drawn."""
    network: ScreenNetwork
    compose: ComposeSettings
    loop: LoopSettings
    augment: AugmentSettings


class NucleiRecipe(Strict, frozen=True, kw_only=True):
    """A nuclei model on fields with outlined nuclei."""

    family: Literal["nuclei"]
    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]*\Z")]
    version: Annotated[str, Meta(pattern=r"^\d+\.\d+\.\d+\Z")]
    seed: Seed
    sets: Annotated[tuple[Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]+\Z")], ...], Meta(min_length=1)]
    """Folders of the data: MoNuSeg, TNBC or a user's own images with masks."""
    split: NucleiSplit
    network: NucleiNetwork
    images: AlgorithmOneSettings | CropSettings
    loop: LoopSettings
    thresholds: dict[str, float] | None = None
    """Where every field that does not test trains: what an earlier run of the recipe chose on a selection part."""

    def __post_init__(self) -> None:
        if len(set(self.sets)) < len(self.sets):
            raise ValueError(f"sets name a set twice: {', '.join(self.sets)}")
        if self.thresholds is None:
            return
        if self.split.selection or self.split.selection_share:
            raise ValueError("thresholds are chosen on the selection part: state one of both")
        needed = self.network.threshold_names
        if set(self.thresholds) != set(needed):
            raise ValueError(f"thresholds of this network are {', '.join(needed)}")
        check_bounds("nuclei", self.thresholds)


class StudentRecipe(Strict, frozen=True, kw_only=True):
    """A shipped tumor model's screening network as a model of its own."""

    family: Literal["student"]
    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]*\Z")]
    version: Annotated[str, Meta(pattern=r"^\d+\.\d+\.\d+\Z")]
    of: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]*\Z")]
    """The shipped model that has the screen and the refining network."""
    of_recipe: str
    """That model's recipe, a file beside this one."""
    scale: Positive
    shift: float
    """What the log odds are multiplied with and what is added to them."""


Recipe = TumorRecipe | NucleiRecipe | ScreenRecipe | StudentRecipe
_FAMILIES: dict[str, type[Recipe]] = {
    "tumor": TumorRecipe,
    "nuclei": NucleiRecipe,
    "screen": ScreenRecipe,
    "student": StudentRecipe,
}


def read_recipe(path: Path) -> Recipe:
    """Reads and checks a recipe. Raises ConfigurationError that names the first offending key."""
    allowed = "a recipe is a TOML file like those in recipes/"
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError("recipe", str(path), f"it cannot be read ({error}); {allowed}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError("recipe", str(path), f"it is not TOML ({error}); {allowed}") from error
    family = values.get("family")
    kind = _FAMILIES.get(family) if isinstance(family, str) else None
    if kind is None:
        raise ConfigurationError(
            "recipe", str(path), f"family: it must be one of {', '.join(_FAMILIES)}; {allowed}"
        )
    try:
        return from_values(values, kind)
    except InvalidError as error:
        raise ConfigurationError("recipe", str(path), str(error)) from error
