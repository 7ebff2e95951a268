"""``lobule doctor``."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lobule import __version__

if TYPE_CHECKING:
    from lobule.models.zoo import Model

__all__ = ["doctor"]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_flags() -> str:
    try:
        line = next(
            line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")
        )
    except (OSError, StopIteration):
        return "unknown instruction sets"
    flags = set(line.split())
    shown = [
        name
        for flag, name in (
            ("avx2", "AVX2"),
            ("avx512f", "AVX-512"),
            ("avx512_bf16", "AVX-512 bf16"),
            ("avx512_vnni", "AVX-512 VNNI"),
            ("amx_bf16", "AMX bf16"),
        )
        if flag in flags
    ]
    return ", ".join(shown) or "no AVX2: inference will be slow"


def _can_be_written(folder: Path) -> bool:
    """Whether files can be made in ``folder``, which itself may have to be made."""
    try:
        there = next((place for place in (folder, *folder.parents) if place.exists()), None)
        return there is not None and there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    except OSError:
        # a folder on the way that may not be searched
        return False


def _compiled(row: Callable[[str, str, str | None], None], folder: Path | None) -> None:
    """The row on where compiled networks are kept."""
    cost = "each start compiles anew, 0.1 to 0.4 s; set LOBULE_CACHE"
    if folder is None:
        row("compiled", "networks are not kept: this user has no home folder", cost)
    elif _can_be_written(folder):
        row("compiled", f"networks are kept in {folder}", None)
    else:
        row("compiled", f"networks would be kept in {folder}", f"cannot be written: {cost}")


@click.command()
@click.option("--measure", is_flag=True, help="Time every shipped model on each runtime (seconds).")
def doctor(measure: bool) -> int:
    """Show what this machine has: readers, runtimes, cores, GPU, memory, models, and what each gap costs."""
    from lobule.machine import granted_cores, granted_memory_bytes

    def row(name: str, text: str, gap: str | None = None) -> None:
        click.echo(f"{'ok ' if gap is None else '-- '} {name:14} {text}")
        if gap:
            click.echo(f"   {'':14} {gap}")

    row("lobule", f"{__version__}, Python {sys.version.split()[0]}, {platform.platform()}")
    built, granted = os.cpu_count() or 1, granted_cores()
    row("cores", f"{granted} granted of {built} built; {_cpu_flags()}")
    memory = granted_memory_bytes()
    if memory is None:
        row("memory", "unknown", "the limit is not told here: watch the first large slide, or give --max-ram")
    else:
        tight = memory < 2_000_000_000
        row("memory", f"{memory / 1e9:.1f} GB granted", "tight: use --workers 1" if tight else None)
    free = shutil.disk_usage(Path.cwd()).free
    row("disk", f"{free / 1e9:.0f} GB free here", None if free > 1e9 else "results may not fit")

    for reader, package, cost in (
        ("OpenSlide", "openslide-bin", "SVS, NDPI, MRXS, SCN, BIF and DICOM slides cannot be read"),
        ("tifffile", "tifffile", "heatmaps and composed slides cannot be written"),
        ("imagecodecs", "imagecodecs", "JPEG, JPEG 2000, WebP and ZSTD tiles in TIFF cannot be read"),
        ("pydicom", "pydicom", "mislabeled DICOM slides cannot be read rightly"),
        ("Pillow", "pillow", "PNG and JPEG fields cannot be read"),
    ):
        found = _version(package)
        row(reader, found or "absent", None if found else cost)

    from lobule.runtimes import choose_runtime
    from lobule.runtimes.compiled import compiled_folder

    for runtime, package, cost in (
        ("ONNX Runtime", "onnxruntime", "no models outside x86-64"),
        (
            "OpenVINO",
            "openvino",
            "inference on x86-64 runs on ONNX Runtime: no bfloat16, and int8 takes up to 1.8 times as long",
        ),
        (
            "PyTorch",
            "torch",
            "nothing for analyzing; training needs pip install '.[train]' in lobule's folder",
        ),
    ):
        found = _version(package)
        row(runtime, found or "absent", None if found else f"costs: {cost}")
    chosen, why = choose_runtime("auto")
    row("chosen", f"{chosen}: {why}")
    if chosen == "openvino":
        _compiled(row, compiled_folder())
    gpu = shutil.which("nvidia-smi") is not None
    row(
        "GPU",
        "an NVIDIA driver is here; lobule's runtimes use the CPU" if gpu else "none seen; the CPU is used",
    )

    return _models(measure)


def _models(measure: bool) -> int:
    from lobule.errors import ModelError
    from lobule.models.zoo import load_model, shipped_models

    status = 0
    families = set()
    for name, folder in shipped_models().items():
        try:
            model = load_model(folder)
        except ModelError as error:
            click.echo(f"--  {name:14} {error}")
            status = 1
            continue
        families.add(model.card.family)
        click.echo(f"ok  {'model':14} {name} {model.card.version}: {model.card.task}")
        click.echo(f"    {'':14} runs in: {_precisions(model)}")
        click.echo(f"    {'':14} terms: {model.card.terms}")
    for family in ("tumor", "nuclei", "metastasis", "field", "grading"):
        if family not in families:
            click.echo(
                f"--  {'model':14} none of the {family} family: that stage is skipped; give one with --models"
            )
    if measure:
        _measure()
    return status


def _precisions(model: Model) -> str:
    """What `analyze` computes each graph in here, and why."""
    from lobule.runtimes import choose_precision, choose_runtime

    runtime, _ = choose_runtime("auto")
    by_choice: dict[str, list[str]] = {}
    for graph in model.card.graphs:
        precision, why = choose_precision(runtime, "auto", graph)
        by_choice.setdefault(f"{precision} ({why})", []).append(graph.role)
    return "; ".join(f"{', '.join(roles)} {choice}" for choice, roles in by_choice.items())


def _measure() -> None:
    from importlib.util import find_spec

    from lobule.analysis.checking import measure_costs
    from lobule.analysis.networks import precisions_of
    from lobule.models.zoo import select_models

    models = select_models()
    for runtime in ("openvino", "onnxruntime"):
        if find_spec(runtime) is None:
            continue
        for family, seconds in measure_costs(models, runtime).seconds.items():
            precisions = precisions_of(runtime, "auto", models[family])
            precision = precisions.get("patch") or precisions["segment"]
            click.echo(f"    {runtime:14} {family}, {precision}: {1000 * seconds:.1f} ms a tile on one core")
