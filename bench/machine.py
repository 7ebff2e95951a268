"""The machine that a benchmark ran on."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

FLAGS = (
    "avx2",
    "avx512f",
    "avx_vnni",
    "avx512_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "bf16",
    "i8mm",
)
PACKAGES = ("lobule", "numpy", "openvino", "onnxruntime", "imagecodecs", "tifffile", "openslide-bin")


def cores() -> int:
    """Cores granted to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_info() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    first = text.split("\n\n")[0]
    return {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())
    }


def flags() -> tuple[str, ...]:
    """The instruction sets that decide how fast a network runs."""
    info = _cpu_info()
    have = set((info.get("flags") or info.get("Features") or "").split())
    return tuple(flag for flag in FLAGS if flag in have)


def has_bf16() -> bool:
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags()))


def load_average() -> str:
    """1, 5 and 15 minutes; other work on the cores is what spoils a benchmark."""
    return " ".join(f"{value:.2f}" for value in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def gpu_providers() -> tuple[str, ...]:
    """ONNX Runtime's providers that need a GPU, where it has them."""
    import onnxruntime

    wanted = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "ROCMExecutionProvider")
    have = onnxruntime.get_available_providers()
    return tuple(provider for provider in wanted if provider in have)


def describe() -> dict[str, Any]:
    """Everything that belongs beside a figure."""
    info = _cpu_info()
    family = f" (family {info['cpu family']}, model {info['model']})" if "cpu family" in info else ""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": info.get("model name", platform.processor() or platform.machine()) + family,
        "cores": cores(),
        "instruction sets": " ".join(flags()) or "unknown",
        "memory": f"{memory:.0f} GiB",
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
        "load average before": load_average(),
        "gpu": ", ".join(gpu_providers()) or "no GPU: not run",
    }


def short_name() -> str:
    """For a folder: the processor in a few letters."""
    info = _cpu_info()
    words = re.sub(
        r"\(.*?\)|@.*|\b(CPU|Processor|\d+-Core)\b", " ", info.get("model name", platform.machine())
    )
    family = f"-{info['cpu family']}-{info['model']}" if "cpu family" in info else ""
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-") + family
