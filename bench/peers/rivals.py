"""The rivals' own pipelines as commands, each in an environment of its own under ``$LOBULE_BENCH``/venv-NAME.

An environment is made on first use from exact pins (requirements-NAME.txt). FAST also needs Debian packages, which
are named where they are missing and only installed with LOBULE_BENCH_APT=1.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kit import Kit, say
from pairs import CommandFailed, Cost, run_command

HERE = Path(__file__).resolve().parent
DEBIAN = ("libusb-1.0-0", "libopengl0", "libgl1", "ocl-icd-libopencl1", "pocl-opencl-icd")

KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": "268435456",
}
"""glibc keeps freed memory: eager torch is 1.4 to 1.9 times as fast with it here, so it gets it."""


@dataclass(frozen=True)
class RivalRun:
    """What a rival's run cost, and how many patches it says it did."""

    cost: Cost
    patches: int


@dataclass(frozen=True)
class Rival:
    """A command that reads a slide and writes its heatmap. ``{slide}`` and ``{out}`` stand for themselves."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]
    work: Path
    log: Path
    timeout_seconds: float

    def run(self, slide: Path) -> RivalRun:
        """From process start to exit. Raises CommandFailed, naming the log."""
        out = self.work / self.log.stem
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        self.log.unlink(missing_ok=True)
        filled = [part.replace("{slide}", str(slide)).replace("{out}", str(out)) for part in self.command]
        cost = run_command(filled, self.log, self.timeout_seconds, self.environment)
        return RivalRun(cost, _patches(self.log, out, filled[0]))


def _patches(log: Path, out: Path, python: str) -> int:
    """Counted from what the rival wrote, in its own interpreter and outside the clock."""
    command = [python, str(HERE / "count_patches.py"), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise CommandFailed(f"wrote no heatmap that can be read ({last}): see {log}")
    return int(json.loads(done.stdout.splitlines()[-1]))


def missing_debian() -> list[str]:
    """FAST's Debian packages that are not installed; empty where dpkg is absent (another system: try)."""
    if shutil.which("dpkg") is None:
        return []
    return [
        name
        for name in DEBIAN
        if "installed"
        not in subprocess.run(
            ["dpkg-query", "-W", "-f", "${Status}", name], capture_output=True, text=True, check=False
        ).stdout
    ]


def environment(kit: Kit, name: str) -> Path:
    """The interpreter of a rival's environment; made on first use. Raises CommandFailed, naming the log."""
    venv = kit.folder / f"venv-{name}"
    python, whole = venv / "bin" / "python", venv / ".whole"
    if whole.exists() or (venv.is_symlink() and python.exists()):
        return python
    log = kit.logs / f"install-{name}.log"
    say(f"installing {name} into {venv} (log: {log})")
    if not python.exists():
        _logged([sys.executable, "-m", "venv", str(venv)], log)
    # the files are complete, and some rivals pin what does not exist for every machine
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    for requirements in sorted(HERE.glob(f"requirements-{name}*.txt")):
        _logged([*pip, "--requirement", str(requirements)], log)
    whole.touch()
    return python


def _logged(command: Sequence[str], log: Path, timeout_seconds: float = 3600) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stream:
        try:
            done = subprocess.run(
                command, stdout=stream, stderr=subprocess.STDOUT, timeout=timeout_seconds, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CommandFailed(f"cannot be installed ({error}): see {log}") from error
    if done.returncode:
        raise CommandFailed(f"cannot be installed here (exit {done.returncode}): see {log}")


def _debian() -> None:
    missing = missing_debian()
    if missing and os.environ.get("LOBULE_BENCH_APT") == "1":
        subprocess.run(["apt-get", "update", "-q"], check=True)
        subprocess.run(["apt-get", "install", "-y", "-q", "--no-install-recommends", *missing], check=True)
    elif missing:
        raise CommandFailed(
            f"needs the Debian packages {' '.join(missing)}: install them, or say LOBULE_BENCH_APT=1"
        )


def rivals(kit: Kit) -> list[Rival]:
    """Those asked for that can be had here; for every other one a line that says why not."""
    found: list[Rival] = []
    for name in kit.peers:
        try:
            found += _rival(kit, name)
        except (CommandFailed, subprocess.CalledProcessError) as error:
            say(f"{name}: {error}")
    return found


def _rival(kit: Kit, name: str) -> list[Rival]:
    network = kit.rival_network()
    if name != "fast" and not (network / "patch.npz").is_file():
        raise CommandFailed("runs the benchmark's own network only, not another MODEL")

    def made(title: str, script: str, arguments: Sequence[str], extra: dict[str, str], log: str) -> Rival:
        command = (
            str(environment(kit, name)),
            str(HERE / script),
            "{slide}",
            str(network),
            "{out}",
            *arguments,
        )
        return Rival(title, command, extra, kit.work, kit.logs / f"{log}.log", kit.timeout_seconds)

    cores = str(kit.cores)
    if name == "fast":
        _debian()
        return [
            made("FAST (OpenVINO)", "run_fast.py", ["openvino"], {}, "fast-openvino"),
            made("FAST (ONNX Runtime)", "run_fast.py", ["onnxruntime"], {}, "fast-onnxruntime"),
        ]
    shim = {"PYTHONPATH": str(HERE / "shim"), "HF_HUB_OFFLINE": "1", **KEEP_MEMORY}
    if name == "tiatoolbox":
        return [made("TIAToolbox", "run_tiatoolbox.py", [cores], shim, name)]
    if name == "monai":
        return [made("MONAI", "run_monai.py", [cores], shim, name)]
    if name == "wsinfer":
        return [made("WSInfer", "run_wsinfer.py", [cores], {**shim, "WSINFER_FORCE_CPU": "1"}, name)]
    raise CommandFailed("is no rival that the harness knows: choose among fast, wsinfer, tiatoolbox, monai")
