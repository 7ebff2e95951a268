"""Runtimes alone, patches/s, of the nuclei networks fields of 512²/s.

Batch 1, as many streams of one thread as there are cores, pixels already in memory.

The benchmark's network and the shipped ones; ONNX Runtime and OpenVINO, float32, bfloat16 where the processor has it,
int8. A shipped graph whose card proves int8 runs as it is shipped; the others are made int8 here for their speed alone:
nothing is said of what they then find.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lobule.errors import LobuleError

import machine
from kit import Kit, command, say
from pairs import ratios, spread
from report import Row
from roofline import Engine, Throughput, network_inputs, quantized, tissue_pixels

FIELD_PX = 512
"""The side of the fields that nuclei networks are timed by (Kasturi et al. 2022, Table III)."""


@dataclass(frozen=True)
class Network:
    """An ONNX file and the side of its tiles; ``level``: of the benchmark's slide, about the network's mpp."""

    name: str
    path: Path
    tile_px: int
    level: int
    int8: Path | None = None
    """The graph in int8 where its card proves it."""
    kept_px: int | None = None
    """Of a graph whose tiles overlap: the side of what each answers for."""

    @property
    def unit(self) -> str:
        """What is counted."""
        return (
            f"{self.tile_px} px"
            if self.kept_px is None
            else f"fields of {FIELD_PX}², tiles of {self.tile_px} px"
        )

    @property
    def units_a_tile(self) -> float:
        """How many of them a tile is."""
        return 1.0 if self.kept_px is None else (self.kept_px / FIELD_PX) ** 2


def networks(kit: Kit) -> list[Network]:
    """The benchmark's network, and the shipped patch, screen and segment graphs."""
    from lobule.models.zoo import load_model, shipped_models

    found = [Network("benchmark", kit.model(), 256, 1)]
    for name, folder in shipped_models().items():
        model = load_model(folder)
        for graph in model.card.graphs:
            if graph.role in ("patch", "screen", "segment") and graph.mpp is not None:
                level = 1 if graph.mpp > 0.6 else 0
                int8 = model.file(graph, "int8") if graph.lower("int8") else None
                kept_px = graph.tile_px - 2 * graph.halo_px if graph.role == "segment" else None
                found.append(
                    Network(f"{name}, {graph.role}", model.file(graph), graph.tile_px, level, int8, kept_px)
                )
    return found


def measure(kit: Kit) -> Row:
    """Patches/s of every runtime and precision."""
    slide, columns = kit.slide(), ["runtime"]
    variants: list[tuple[str, Engine, str]] = [
        ("ONNX Runtime, float32", "onnxruntime", "f32"),
        ("OpenVINO, float32", "openvino", "f32"),
    ]
    notes = [
        "patches/s, or fields/s as the column says: share of ONNX Runtime's float32 in the same round, "
        f"median (min-max) of {kit.rounds} rounds; "
        f"batch 1, {kit.cores} streams of one thread, {kit.seconds:g} s each time after a warm-up"
    ]
    if machine.has_bf16():
        variants.append(("OpenVINO, bfloat16", "openvino", "bf16"))
    else:
        notes.append("bfloat16: not run, this processor has none")
    variants += [("ONNX Runtime, int8", "onnxruntime", "int8"), ("OpenVINO, int8", "openvino", "int8")]
    cells: dict[str, list[str]] = {name: [] for name, _, _ in variants}
    numbers: dict[str, Any] = {}
    for network in networks(kit):
        columns.append(f"{network.name} ({network.unit})")
        say(f"runtimes: {network.name}")
        inputs = network_inputs(network.path, tissue_pixels(slide, network.level, 16), network.tile_px)
        ready: dict[str, Throughput] = {}
        for name, engine, precision in variants:
            path = network.path
            if precision == "int8":
                try:
                    path = network.int8 or quantized(path, inputs, kit.folder / "int8")
                except LobuleError as error:
                    notes.append(f"int8 of {network.name}: not run ({error})")
                    continue
                if network.int8 is None:
                    notes.append(f"int8 of {network.name}: for its speed alone, no card proves it")
            ready[name] = Throughput(path, inputs, kit.cores, engine, precision)
        speeds: dict[str, list[float]] = {name: [] for name in ready}
        for _ in range(kit.rounds):
            for name, throughput in ready.items():
                speeds[name].append(throughput.measure(kit.seconds) * network.units_a_tile)
        for name in cells:
            if name not in speeds:
                cells[name].append("not run")
                continue
            share = spread(ratios(speeds[name], speeds["ONNX Runtime, float32"]))
            cells[name].append(f"{spread(speeds[name]).median:.1f}: {share.text()}")
        numbers[network.name] = speeds
    providers = machine.gpu_providers()
    notes.append(f"GPU: {', '.join(providers)}" if providers else "no GPU: not run")
    rows = tuple((name, *row) for name, row in cells.items())
    return Row("runtimes", "Runtimes alone", tuple(columns), rows, tuple(dict.fromkeys(notes)), (), numbers)


if __name__ == "__main__":
    command(measure, __doc__)
