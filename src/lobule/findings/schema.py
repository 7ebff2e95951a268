"""``findings.json``: its schema, versioned and published.

Everything outside ``run`` is a function of slide, models and options alone: the same inputs give the same
bytes whatever the number of workers, the order of slides or the interruptions. What depends on the machine
and the moment (seconds, memory, host, workers) lies in ``run``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from lobule.strict import Strict

__all__ = [
    "SCHEMA_VERSION",
    "Bounds",
    "Findings",
    "Frame",
    "Measurement",
    "ModelUse",
    "Notice",
    "OutputFile",
    "RegionFinding",
    "Run",
    "SlideFinding",
    "Stage",
    "StageSeconds",
    "json_schema",
]

SCHEMA_VERSION = 1


class Frame(Strict, frozen=True, kw_only=True):
    """Where coordinates lie. Level-0 pixels, x to the right, y down, pixel areas half open.

    ``geojson_offset_px`` was *subtracted* from level-0 coordinates in the GeoJSON files: QuPath crops a slide
    to its OpenSlide bounds, so its origin is the bounds' corner; (0, 0) for slides without bounds.
    """

    unit: Literal["level-0 px"] = "level-0 px"
    origin: Literal["top left corner of level-0 pixel (0, 0)"] = "top left corner of level-0 pixel (0, 0)"
    size_px: tuple[int, int]
    mpp_um_per_px: tuple[float, float]
    bounds_px: tuple[int, int, int, int] | None
    """x, y, width, height of OpenSlide's bounds."""
    geojson_offset_px: tuple[int, int]


class SlideFinding(Strict, frozen=True, kw_only=True):
    """The slide as it was read."""

    id: str
    file: str
    format: str
    reader: str
    identity: str
    """sha256 of the content; survives renaming."""
    identity_method: Literal["sha256", "sha256-sampled"]
    size_bytes: int
    size_px: tuple[int, int]
    level_sizes_px: tuple[tuple[int, int], ...]
    mpp_source: str
    objective_power: float | None
    stain: str
    has_icc_profile: bool


class ModelUse(Strict, frozen=True, kw_only=True):
    """One model that was used."""

    name: str
    version: str
    family: str
    files_sha256: dict[str, str]
    card_sha256: str
    terms: str
    intended_use: str


class Stage(Strict, frozen=True, kw_only=True):
    """What became of one stage. A stage without a model is ``skipped`` with its reason, never made up."""

    name: Literal["tissue", "tumor", "nuclei", "metastasis", "field", "grading"]
    status: Literal["done", "skipped"]
    reason: str | None = None
    model: str | None = None
    runtime: str | None = None
    working_mpp: tuple[float, float] | None = None
    tiles: int | None = None
    """Tiles that the stage looked at; of nuclei those of the region, not those beside it to compare with."""


Bounds = Literal["95 % interval", "quartiles", "other thresholds"]


class Measurement(Strict, frozen=True, kw_only=True):
    """One number. ``low``/``high`` bound it; ``how`` says what the bounds mean and how it was got."""

    stage: str
    name: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]*$")]
    label: str
    value: float | int | None
    unit: str
    low: float | None = None
    high: float | None = None
    bounds: Bounds | None = None
    """What ``low`` and ``high`` are; null where there are none."""
    how: str | None = None


class RegionFinding(Strict, frozen=True, kw_only=True):
    """One tumor region; ``id`` is the feature's id in regions.geojson."""

    id: str
    area_mm2: float
    perimeter_mm: float
    longest_diameter_mm: float
    mean_probability: float | None
    blurred_share: float | None
    """Share of the region's judged tiles that are out of focus; null where none could be judged."""
    box_px: tuple[int, int, int, int]
    """x, y, width, height, level-0."""


class Notice(Strict, frozen=True, kw_only=True):
    """A warning that a user can act on."""

    code: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]*$")]
    message: str


class OutputFile(Strict, frozen=True, kw_only=True):
    """A file written beside findings.json."""

    name: str
    size_bytes: int
    sha256: str


class StageSeconds(Strict, frozen=True, kw_only=True):
    """Where the time of a stage went; sub-stages are summed over threads, so they may exceed the total."""

    stage: str
    total: float
    read: float = 0.0
    """Getting the slide's bytes; readers that do this and decoding in one call count it under decode."""
    decode: float = 0.0
    """Bytes to pixels of the working resolution."""
    prepare: float = 0.0
    infer: float = 0.0
    decode_maps: float = 0.0
    write: float = 0.0


class Run(Strict, frozen=True, kw_only=True):
    """What depends on the machine and the moment; nothing in it changes a result."""

    lobule_version: str
    started: str
    host: str
    platform: str
    python: str
    packages: dict[str, str]
    workers: int
    seconds: tuple[StageSeconds, ...]
    seconds_total: float
    tiles_resumed: int
    """Tiles whose results an earlier run had left."""
    read_bytes: int | None
    """Bytes read from storage by this process; null where the system does not tell."""
    peak_memory_bytes: int | None


class Findings(Strict, frozen=True, kw_only=True):
    """All that lobule found on one slide."""

    schema_version: Literal[1] = 1
    notice: Literal["For research use only. Not for diagnosis."] = "For research use only. Not for diagnosis."
    lobule_version: str
    plan_sha256: str
    """Digest of slide, models and options: equal plan, equal findings."""
    slide: SlideFinding
    frame: Frame
    options: dict[str, Any]
    stages: tuple[Stage, ...]
    models: tuple[ModelUse, ...]
    measurements: tuple[Measurement, ...]
    regions: tuple[RegionFinding, ...]
    warnings: tuple[Notice, ...]
    files: tuple[OutputFile, ...]
    run: Run


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of findings.json."""
    # through JSON: what is a tuple in Python is a list there
    schema: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(msgspec.json.schema(Findings)))
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = f"lobule findings, schema version {SCHEMA_VERSION}"
    return schema
