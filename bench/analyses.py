"""lobule's own command as a subject: run, timed, and asked what it did."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kit import Kit
from pairs import Cost, run_command


@dataclass(frozen=True)
class Analysis:
    """One run's cost and what its findings.json says of it."""

    cost: Cost
    findings: dict[str, Any]
    folder: Path

    def stage(self, name: str) -> dict[str, Any]:
        """That stage as the findings have it. Raises SystemExit where it was not done."""
        for stage in self.findings["stages"]:
            if stage["name"] == name and stage["status"] == "done":
                return dict(stage)
        raise SystemExit(f"lobule skipped the stage {name}: see {self.folder / 'findings.json'}")

    def seconds(self, name: str) -> dict[str, float]:
        """Seconds of a stage: ``total`` by the clock, its parts summed over threads."""
        found = next((stage for stage in self.findings["run"]["seconds"] if stage["stage"] == name), None)
        return {key: value for key, value in (found or {"total": 0.0}).items() if key != "stage"}

    @property
    def outside_seconds(self) -> float:
        """Wall clock outside the run that the findings time: starting, imports, opening, the report, ending."""
        return self.cost.wall_seconds - float(self.findings["run"]["seconds_total"])

    @property
    def heatmap(self) -> Path:
        return self.folder / "heatmap.ome.tif"


def analyze(
    kit: Kit, slide: Path, name: str, arguments: Sequence[str], *, one_core: bool = False
) -> Analysis:
    """``lobule analyze`` into an empty folder, on the first core alone if asked. Raises CommandFailed."""
    out = kit.work / name
    shutil.rmtree(out, ignore_errors=True)
    log = kit.logs / f"{name}.log"
    granted = ["taskset", "-c", "0"] if one_core else []
    command = [*granted, *kit.lobule(), "analyze", str(slide), "--out", str(out), *arguments]
    cost = run_command(command, log, kit.timeout_seconds)
    files = list(out.glob("*/findings.json"))
    if len(files) != 1:
        raise SystemExit(f"lobule left {len(files)} findings.json under {out}: see {log}")
    return Analysis(cost, json.loads(files[0].read_text("utf-8")), files[0].parent)


@cache
def _help(command: tuple[str, ...]) -> str:
    done = subprocess.run([*command, "analyze", "--help"], capture_output=True, text=True, check=True)
    return done.stdout


def has_option(kit: Kit, option: str) -> bool:
    """Whether this lobule's analyze knows an option."""
    return re.search(rf"{option}\b", _help(tuple(kit.lobule()))) is not None


def precisions(help_text: str) -> tuple[str, ...]:
    """The choices of ``--precision`` in analyze's help, as they are written there; none where it has no such option."""
    found = re.search(r"--precision\s+\[([^\]]+)\]", help_text)
    return tuple(word.strip() for word in found[1].split("|")) if found else ()


def offered_precisions(kit: Kit) -> tuple[str, ...]:
    return precisions(_help(tuple(kit.lobule())))


def precision_of(words: str) -> str:
    """f32, bf16 or int8, of a runtime's description or an option's value."""
    lower = words.lower()
    if "int8" in lower:
        return "int8"
    return "bf16" if "bf16" in lower or "bfloat16" in lower else "f32"


def engine_of(description: str) -> str:
    return "openvino" if "openvino" in description.lower() else "onnxruntime"
