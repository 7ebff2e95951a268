"""What every row works with: the slide, the network with its card, the folder they lie in, and how often to repeat.

Everything is made on first use under ``$LOBULE_BENCH`` (default ~/.cache/lobule-bench). Options of every command,
each with the environment variable of the same name: --slide, --model, --peers, --rounds, --seconds.
"""

from __future__ import annotations

import argparse
import compileall
import hashlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import machine
from pairs import CommandFailed
from report import Row, row_text, write_report

TILE_PX = 256
MPP = 1.0
PEERS = ("fast", "wsinfer", "tiatoolbox", "monai")


@dataclass(frozen=True)
class Kit:
    """One benchmark run's settings. ``seconds``: how long a throughput is measured each time."""

    folder: Path
    slide_path: Path | None
    model_path: Path | None
    peers: tuple[str, ...]
    rounds: int
    seconds: float
    timeout_seconds: float
    cores: int

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def work(self) -> Path:
        """For results of the runs themselves; overwritten by every run."""
        path = self.folder / "work"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def slide(self) -> Path:
        """The slide; made (a minute) where none is given."""
        if self.slide_path is not None:
            return self.slide_path.resolve()
        path = self.folder / "bench.svs"
        if not path.is_file():
            from slide_maker import make_bench_slide

            say(f"making {path}, about a minute")
            path.parent.mkdir(parents=True, exist_ok=True)
            make_bench_slide(path)
        return path

    def gap_slide(self) -> Path:
        """The slide without its 1/4 level."""
        source = self.slide()
        path = (
            source.with_name(f"{source.stem}-1-16.svs") if self.slide_path is None else self.work / "1-16.svs"
        )
        if not path.is_file() or path.stat().st_mtime < source.stat().st_mtime:
            from slide_maker import make_gap_slide

            say(f"making {path}")
            make_gap_slide(source, path)
        return path

    def model(self) -> Path:
        """The network, patch.onnx; beside it patch_b1.onnx, patch.npz and patch.xml where this harness made it."""
        if self.model_path is not None:
            return self.model_path.resolve()
        folder = self.folder / "network"
        if not (folder / "patch.xml").is_file():
            from network import write_network

            say(f"making {folder}")
            write_network(folder)
            write_openvino(folder / "patch_b1.onnx", folder / "patch.xml")
        return folder / "patch.onnx"

    def rival_network(self) -> Path:
        """The folder of the network in the forms that rivals read; torch's (patch.npz) only where it is our own."""
        path = self.model()
        if self.model_path is None:
            return path.parent
        import onnx

        folder = self.folder / "networks" / hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        if not (folder / "patch.xml").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            network = onnx.load(str(path))
            network.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
            onnx.save(network, str(folder / "patch_b1.onnx"))
            write_openvino(folder / "patch_b1.onnx", folder / "patch.xml")
        return folder

    def models_folder(self, *, int8: bool = False) -> Path:
        """The network as a model of lobule's: its ONNX file with a card. Raises MissingDependencyError for int8."""
        if not int8:
            folder = self.folder / "models" / "bench-patch"
            write_model_folder(self.model(), folder)
            return folder
        from roofline import network_inputs, quantized, tissue_pixels

        inputs = network_inputs(self.model(), tissue_pixels(self.slide(), 1, 16), TILE_PX)
        folder = self.folder / "models" / "bench-patch-int8"
        write_model_folder(self.model(), folder, quantized(self.model(), inputs, self.folder / "int8"))
        return folder

    def lobule(self) -> list[str]:
        """The command of the lobule that runs this harness."""
        own = Path(sys.executable).with_name("lobule")
        return [str(own)] if own.is_file() else [sys.executable, "-c", "from lobule.cli import main; main()"]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def write_openvino(onnx_path: Path, xml_path: Path) -> None:
    """OpenVINO's own form, float32 weights, for the rival that reads it."""
    import openvino

    openvino.save_model(openvino.convert_model(str(onnx_path)), str(xml_path), compress_to_fp16=False)


def card(onnx_path: Path) -> dict[str, Any]:
    """A card for a patch classifier of 256 px at 1 um/px that takes float32 NCHW in 0..1 and gives two classes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(onnx_path), providers=["CPUExecutionProvider"])
    pixels, output = session.get_inputs()[0], session.get_outputs()[0]
    return {
        "card_version": 1,
        "name": "bench-patch",
        "version": "1.0.0",
        "family": "tumor",
        "task": "Benchmark only: an untrained network that costs what a trained one costs; its output means nothing.",
        "classes": ["normal", "tumor"],
        "graphs": [
            {
                "file": "model.onnx",
                "sha256": hashlib.sha256(onnx_path.read_bytes()).hexdigest(),
                "role": "patch",
                "mpp": MPP,
                "tile_px": TILE_PX,
                "mean": [0, 0, 0],
                "std": [255, 255, 255],
                "inputs": [
                    {
                        "name": pixels.name,
                        "dtype": "float32",
                        "layout": "NCHW",
                        "shape": [-1, 3, TILE_PX, TILE_PX],
                        "meaning": "RGB tiles, 0 to 1",
                    }
                ],
                "outputs": [
                    {
                        "name": output.name,
                        "dtype": "float32",
                        "layout": "NC",
                        "shape": [-1, 2],
                        "meaning": "two numbers without meaning that add up to 1",
                    }
                ],
            }
        ],
        "thresholds": {"patch": 0.5},
        "data": [
            {
                "name": "none",
                "source": "seeded random numbers",
                "terms": "none",
                "used_for": "training",
                "count": "0",
                "split": "none",
            }
        ],
        "scores": [],
        "calibration": "none",
        "pixel_mean": [200, 170, 190],
        "pixel_std": [60, 60, 60],
        "terms": "as lobule",
        "intended_use": "measuring speed",
        "limits": ["untrained"],
        "made_by": "bench/network.py",
    }


def write_model_folder(onnx_path: Path, folder: Path, int8_path: Path | None = None) -> None:
    """model.onnx and card.json for lobule, and model-int8.onnx, whose proof says that nothing is proven of it."""
    folder.mkdir(parents=True, exist_ok=True)

    def copied(source: Path, name: str) -> Path:
        data, target = source.read_bytes(), folder / name
        if not target.is_file() or target.read_bytes() != data:
            target.write_bytes(data)
        return target

    described = card(copied(onnx_path, "model.onnx"))
    if int8_path is not None:
        data = copied(int8_path, "model-int8.onnx").read_bytes()
        described["graphs"][0]["lower_precisions"] = [
            {
                "precision": "int8",
                "file": "model-int8.onnx",
                "sha256": hashlib.sha256(data).hexdigest(),
                "score": "none: the network is untrained",
                "float32": 0,
                "value": 0,
                "on": "nothing",
                "how": "for its speed alone",
                "speedup": 1,
                "measured_on": "nothing",
            }
        ]
    text = json.dumps(described, indent=1)
    path = folder / "card.json"
    if not path.is_file() or path.read_text("utf-8") != text:
        path.write_text(text, "utf-8")


def _above_zero(kind: Callable[[str], float]) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise ValueError(text)
        return value

    return number


def _file_or_none(text: str) -> str:
    if text and not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return text


def parser(description: str) -> argparse.ArgumentParser:
    """The options that every command takes."""
    found = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def option(name: str, default: str, about: str, kind: Callable[[str], Any] = str) -> None:
        value = os.environ.get(name.upper()) or default
        found.add_argument(
            f"--{name}", default=value, type=kind, help=f"{about} [{name.upper()}, now {value or 'none'!r}]"
        )

    option("slide", "", "another slide (TIFF of 256 px JPEG tiles, levels 1/4/16)", _file_or_none)
    option(
        "model",
        "",
        "another ONNX patch classifier, N x 3 x 256 x 256 float32 in 0..1 to N x 2",
        _file_or_none,
    )
    option("peers", "", f"rivals to run beside, of {','.join(PEERS)}")
    option("rounds", "3", "paired repeats (of reads and starts more, since they are short)", _above_zero(int))
    option("seconds", "1.5", "how long a throughput is measured each time", _above_zero(float))
    option("timeout", "600", "seconds after which a command is stopped", _above_zero(float))
    return found


def kit_from(arguments: argparse.Namespace) -> Kit:
    """The settings. Compiles lobule's modules, as pip does those of whatever it installs, the rivals among them."""
    named = tuple(name.strip() for name in arguments.peers.split(",") if name.strip())
    if unknown := [name for name in named if name not in PEERS]:
        raise SystemExit(f"--peers: no rival {', '.join(unknown)}: choose among {', '.join(PEERS)}")
    package = find_spec("lobule")
    assert package is not None and package.origin is not None
    compileall.compile_dir(str(Path(package.origin).parent), quiet=2)
    folder = Path(os.environ.get("LOBULE_BENCH") or Path.home() / ".cache" / "lobule-bench")
    return Kit(
        folder=folder,
        slide_path=Path(arguments.slide) if arguments.slide else None,
        model_path=Path(arguments.model) if arguments.model else None,
        peers=named,
        rounds=arguments.rounds,
        seconds=arguments.seconds,
        timeout_seconds=arguments.timeout,
        cores=machine.cores(),
    )


def result_folder() -> Path:
    """bench/results/<date>-<time>-<processor>: no measurement is written over."""
    import datetime

    name = f"{datetime.datetime.now():%Y-%m-%d-%H%M%S}-{machine.short_name()}"
    return Path(__file__).with_name("results") / name


def command(measure: Callable[[Kit], Row], description: str | None, kit: Kit | None = None) -> None:
    """The body of every row's own command: measures, prints, and keeps the row's files."""
    kit = kit or kit_from(parser(description or "").parse_args())
    before = machine.describe()
    try:
        row = measure(kit)
    except CommandFailed as error:
        raise SystemExit(str(error)) from error
    print(row_text(row))
    print(f"\nload average before: {before['load average before']}, after: {machine.load_average()}")
    write_report(result_folder() / row.name, [row], before)
