"""What is asked of a composed slide."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from lobule.errors import ConfigurationError
from lobule.spreadsheet import read_sheet

__all__ = ["FieldImages", "PhantomSpec", "read_field_labels"]

MAX_SIDE_PX = 1_000_000
MIN_SIDE_PX = 256

_CARCINOMA = frozenset(
    {"insitu", "in situ", "in_situ", "in-situ", "invasive", "tumor", "tumour", "carcinoma", "malignant"}
)
_NOT_CARCINOMA = frozenset({"normal", "benign", "stroma", "not tumor"})


@dataclass(frozen=True, slots=True)
class FieldImages:
    """Real fields to compose a slide of: image files by whether they show carcinoma, all of ``mpp``."""

    carcinoma: tuple[Path, ...]
    other: tuple[Path, ...]
    mpp: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mpp) and 0.05 <= self.mpp <= 20):
            raise ConfigurationError("--fields-mpp", self.mpp, "µm per pixel of the fields, from 0.05 to 20")
        if not self.carcinoma:
            raise ConfigurationError("--labels", "no carcinoma field", "list at least one carcinoma field")
        if not self.other:
            raise ConfigurationError("--labels", "carcinoma only", "list at least one normal or benign field")


@dataclass(frozen=True, slots=True)
class PhantomSpec:
    """A composed slide: its size in level-0 px (width, height), its mpp and what lies on it.

    ``tissue_share`` of the slide is tissue and ``tumor_share`` of the tissue is tumor (both before
    artifacts). ``fields`` None draws the tissue; otherwise it is a patchwork of real fields.
    ``compact`` writes every repeated tile once and lets the tile index point at it again: a much smaller
    file with the same pixels, though reading it then costs less disk than a real slide would.
    """

    size: tuple[int, int]
    mpp: float = 0.25
    seed: int = 0
    tissue_share: float = 0.28
    tumor_share: float = 0.2
    artifacts: bool = True
    nuclei: bool = False
    compact: bool = False
    fields: FieldImages | None = None

    def __post_init__(self) -> None:
        for side in self.size:
            if not (MIN_SIDE_PX <= side <= MAX_SIDE_PX):
                raise ConfigurationError(
                    "--size",
                    f"{self.size[0]}x{self.size[1]}",
                    f"sides from {MIN_SIDE_PX} to {MAX_SIDE_PX} px",
                )
        if not (math.isfinite(self.mpp) and 0.1 <= self.mpp <= 2.0):
            raise ConfigurationError("--mpp", self.mpp, "µm per pixel from 0.1 to 2")
        if not 0 <= self.seed < 2**63:
            raise ConfigurationError("--seed", self.seed, "a whole number from 0")
        for option, share in (("--tissue", self.tissue_share), ("--tumor", self.tumor_share)):
            if not (math.isfinite(share) and 0 <= share <= 0.9):
                raise ConfigurationError(option, share, "a share from 0 to 0.9")
        if self.nuclei and self.fields is not None:
            raise ConfigurationError(
                "--nuclei", "with --fields", "nuclei are only known where tissue is drawn"
            )


def read_field_labels(folder: Path, labels: Path, mpp: float) -> FieldImages:
    """The fields that the CSV ``labels`` (columns file, label) names, files relative to ``folder``.

    Labels: normal and benign against insitu and invasive (and usual synonyms). The CSV decides which fields
    are used, so a subset keeps fields out. Raises ConfigurationError.
    """
    carcinoma: list[Path] = []
    other: list[Path] = []
    try:
        sheet = read_sheet(labels)
    except ValueError as error:
        raise ConfigurationError("--labels", str(labels), str(error)) from error
    if not {"file", "label"} <= set(sheet.columns):
        raise ConfigurationError("--labels", str(labels), "a CSV with the columns file and label")
    for line, row in sheet.rows:
        file, label = row["file"], row["label"].lower()
        path = folder / file
        if not path.is_file():
            raise ConfigurationError("--labels", file, f"line {line}: no such file in {folder}")
        if label in _CARCINOMA:
            carcinoma.append(path)
        elif label in _NOT_CARCINOMA:
            other.append(path)
        else:
            raise ConfigurationError(
                "--labels", label, f"line {line}: use normal, benign, insitu or invasive"
            )
    return FieldImages(tuple(carcinoma), tuple(other), mpp)
