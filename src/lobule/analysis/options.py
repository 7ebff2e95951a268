"""What a user may choose for a run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lobule.errors import ConfigurationError
from lobule.machine import granted_cores
from lobule.runtimes import PrecisionChoice

__all__ = ["STAGES", "TABLES", "Options"]

STAGES = ("tumor", "nuclei")
"""Stages that can be asked for by name; tissue always runs."""

TABLES = ("csv", "parquet")
"""Formats of the table of nuclei; Parquet needs the extra ``tables``."""

DEFAULT_NUCLEI_TILES = 64


@dataclass(frozen=True)
class Options:
    """The choices of a run. Those in `deterministic` may change a result; the others never do."""

    only: tuple[str, ...] = STAGES
    specimen: Literal["breast", "node"] = "breast"
    models: tuple[str, ...] = ()
    runtime: Literal["auto", "onnxruntime", "openvino", "torch"] = "auto"
    precision: PrecisionChoice = "auto"
    """``auto``: the fastest that a model's card proves and this processor computes in."""
    thorough: bool = False
    """Every tile through the large network, none settled by a small one."""
    tissue: Path | None = None
    tissue_method: Literal["hsv", "otsu"] = "hsv"
    nuclei_tiles: int | None = DEFAULT_NUCLEI_TILES
    """At most so many nuclei tiles, spread evenly over the region; None: all of it."""
    tables: tuple[str, ...] = ("csv",)
    """Formats of the table of nuclei, among `TABLES`."""
    workers: int | None = None
    max_ram_bytes: int | None = None

    def __post_init__(self) -> None:
        choices = ("tissue", *STAGES)
        if isinstance(self.only, str):
            raise ConfigurationError("--only", self.only, f"give a tuple, such as ({self.only!r},)")
        if not self.only or any(stage not in choices for stage in self.only):
            raise ConfigurationError("--only", ",".join(self.only), f"choose among {', '.join(choices)}")
        if self.specimen not in ("breast", "node"):
            raise ConfigurationError("--specimen", self.specimen, "choose breast or node")
        if self.precision not in ("auto", "float32", "bfloat16", "int8"):
            raise ConfigurationError(
                "--precision", self.precision, "choose auto, float32 (f32), bfloat16 (bf16) or int8"
            )
        if self.workers is not None and not 1 <= self.workers <= 256:
            raise ConfigurationError("--workers", self.workers, "give 1 to 256")
        if self.nuclei_tiles is not None and self.nuclei_tiles < 1:
            raise ConfigurationError("--nuclei", self.nuclei_tiles, "give 1 or more tiles, or all")
        if not self.tables or any(name not in TABLES for name in self.tables):
            raise ConfigurationError("--tables", ",".join(self.tables), f"choose among {', '.join(TABLES)}")
        if "parquet" in self.tables:
            from lobule.export.tables import require_parquet

            require_parquet()
        if self.max_ram_bytes is not None and self.max_ram_bytes < 1 << 28:
            raise ConfigurationError("--max-ram", self.max_ram_bytes, "give at least 256M")

    @property
    def worker_count(self) -> int:
        """Threads to use: as asked, else one per granted core."""
        return self.workers or granted_cores()

    def deterministic(self) -> Mapping[str, Any]:
        """The choices that belong to the plan, ready for JSON."""
        tissue = None
        if self.tissue is not None:
            try:
                tissue = hashlib.sha256(self.tissue.read_bytes()).hexdigest()
            except OSError as error:
                raise ConfigurationError(
                    "--tissue", str(self.tissue), f"cannot be read: {error.strerror}"
                ) from error
        return {
            "only": sorted(set(self.only)),
            "specimen": self.specimen,
            "thorough": self.thorough,
            "tissue_method": self.tissue_method,
            "tissue_mask_sha256": tissue,
            "nuclei_tiles": "all" if self.nuclei_tiles is None else self.nuclei_tiles,
            "tables": sorted(set(self.tables)),
        }
