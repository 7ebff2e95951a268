"""The limit of a run on this machine: decoding alone and inference alone, each on all cores.

Decoding alone is libjpeg-turbo on exactly the tiles that the run needs, their bytes already in memory. Inference
alone is the runtime's own throughput, batch 1 with as many streams of one thread as there are cores, on pixels
already in memory. A run that overlaps the two perfectly and does nothing else takes the larger of them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from jpeg_tiles import TILE_PX, decode, load_tiles, tile_levels, timed_threads

Engine = Literal["openvino", "onnxruntime"]
Pixels = NDArray[np.generic]


@dataclass(frozen=True)
class Roofline:
    """Seconds of either part alone."""

    decode_seconds: float
    infer_seconds: float

    @property
    def seconds(self) -> float:
        """What perfect overlap would take."""
        return max(self.decode_seconds, self.infer_seconds)

    def mean(self, other: Roofline) -> Roofline:
        """Of two measurements of the same."""
        return Roofline(
            (self.decode_seconds + other.decode_seconds) / 2, (self.infer_seconds + other.infer_seconds) / 2
        )

    def ratio(self, wall_seconds: float) -> float:
        return wall_seconds / self.seconds

    def start_up_seconds(self, wall_seconds: float, allowed: float = 1.10) -> float:
        """What is left of the wall clock beyond ``allowed`` times the limit."""
        return wall_seconds - allowed * self.seconds


def covering_tiles(
    boxes: NDArray[np.float64], downsample: tuple[float, float], columns: int, rows: int
) -> list[int]:
    """The tiles of a level, each once, that boxes of level-0 pixels touch; ``boxes`` is (n, 4): x0, y0, x1, y1."""
    found: set[int] = set()
    for x0, y0, x1, y1 in boxes:
        # a box that ends on a tile's edge, but for rounding, does not touch the next tile
        left, right = int(x0 / downsample[0] / TILE_PX + 1e-6), int(x1 / downsample[0] / TILE_PX - 1e-6)
        top, bottom = int(y0 / downsample[1] / TILE_PX + 1e-6), int(y1 / downsample[1] / TILE_PX - 1e-6)
        for y in range(max(top, 0), min(bottom, rows - 1) + 1):
            found.update(y * columns + x for x in range(max(left, 0), min(right, columns - 1) + 1))
    return sorted(found)


def judged_boxes(heatmap: Path, slide_mpp: tuple[float, float], mpp: float) -> NDArray[np.float64]:
    """Level-0 boxes (n, 4) of the patches that a run looked at: the cells of its heatmap that are not NaN.

    The cells are patches of 256 px; ``mpp`` is the working one, the slide's own level's where it has one.
    """
    import tifffile

    with tifffile.TiffFile(heatmap) as tiff:
        values = tiff.series[0].levels[0].asarray()
    y, x = np.nonzero(np.isfinite(values.reshape(values.shape[-2:])))
    sx, sy = (TILE_PX * mpp / own for own in slide_mpp)
    return np.stack([x * sx, y * sy, (x + 1) * sx, (y + 1) * sy], 1)


def needed_tiles(slide_path: Path, heatmap: Path, mpp: float) -> list[bytes]:
    """Every JPEG tile that a tumor run needs: its overview's and its patches', each once, as streams in memory."""
    from lobule.analysis.stages import overview_frame
    from lobule.slides import choose_level, open_slide, require_mpp, working_frame

    levels = tile_levels(slide_path)
    with open_slide(slide_path) as slide:
        own = require_mpp(slide)
        overview = choose_level(slide, overview_frame(slide, own))
        frame = working_frame(slide, mpp)
        working = choose_level(slide, frame)
        downsample = slide.levels[working].downsample
    level = levels[working]
    tiles = load_tiles(slide_path, levels[overview], range(len(levels[overview].offsets)))
    boxes = judged_boxes(heatmap, (own.x, own.y), frame.mpp.mean)
    return tiles + load_tiles(slide_path, level, covering_tiles(boxes, downsample, level.columns, level.rows))


def tissue_pixels(slide_path: Path, level: int, count: int) -> list[NDArray[np.uint8]]:
    """(256, 256, 3) tiles of tissue of a level, spread over it: the richest half by bytes."""
    found = tile_levels(slide_path)[level]
    rich = np.flatnonzero(found.lengths > np.percentile(found.lengths, 90) * 0.6)
    chosen = rich[np.linspace(0, len(rich) - 1, count).astype(int)]
    return [decode(data) for data in load_tiles(slide_path, found, chosen.tolist())]


def network_inputs(
    onnx_path: Path, tiles: Sequence[NDArray[np.uint8]], tile_px: int
) -> list[dict[str, Pixels]]:
    """Those pixels as a network's inputs, batch 1: uint8 NHWC or float32 NCHW in 0..1, as the network takes them."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(onnx_path), providers=["CPUExecutionProvider"])
    port = session.get_inputs()[0]
    found = []
    for rgb in tiles:
        times = -(-tile_px // rgb.shape[0])
        pixels: Pixels = np.tile(rgb, (times, times, 1))[:tile_px, :tile_px]
        if port.shape[1] == 3:
            pixels = pixels.transpose(2, 0, 1)
        if port.type == "tensor(float)":
            pixels = pixels.astype(np.float32) / np.float32(255)
        found.append({port.name: np.ascontiguousarray(pixels[None])})
    return found


class Throughput:
    """A network on one engine at one precision, ready to be measured: patches/s on all cores."""

    def __init__(
        self,
        onnx_path: Path,
        inputs: Sequence[dict[str, Pixels]],
        streams: int,
        engine: Engine,
        precision: str,
    ) -> None:
        """``precision`` f32 or bf16 is a hint to OpenVINO; a network of int8 is one already (and the hint f32)."""
        self._inputs, self._streams = inputs, streams
        if engine == "openvino":
            import openvino

            core = openvino.Core()
            network = core.read_model(onnx_path)
            network.reshape({name: list(value.shape) for name, value in inputs[0].items()})
            compiled = core.compile_model(
                network,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
                    "NUM_STREAMS": str(streams),
                    "INFERENCE_NUM_THREADS": str(streams),
                    "ENABLE_CPU_PINNING": False,
                },
            )
            self._queue: Any = openvino.AsyncInferQueue(compiled, streams)
            self._run = self._openvino
        else:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            providers = ["CPUExecutionProvider"]
            self._session = onnxruntime.InferenceSession(str(onnx_path), options, providers=providers)
            self._run = self._onnxruntime
        self._run(2 * streams)
        # enough patches that a first guess of the speed is good to a few percent
        self._rate = 4 * streams / self._run(4 * streams)

    def _openvino(self, count: int) -> float:
        started = time.perf_counter()
        for number in range(count):
            self._queue.start_async(self._inputs[number % len(self._inputs)], share_inputs=True)
        self._queue.wait_all()
        return time.perf_counter() - started

    def _onnxruntime(self, count: int) -> float:
        def stream(first: int) -> None:
            for number in range(first, count, self._streams):
                self._session.run(None, self._inputs[number % len(self._inputs)])

        jobs = [lambda first=first: stream(first) for first in range(self._streams)]
        return timed_threads(jobs).wall

    def measure(self, seconds: float) -> float:
        """Patches/s over about that long."""
        count = max(4 * self._streams, round(self._rate * seconds))
        self._rate = count / self._run(count)
        return self._rate


def quantized(onnx_path: Path, inputs: Sequence[dict[str, Pixels]], folder: Path) -> Path:
    """The network in int8 as `lobule prove` makes it, made once: for its speed alone where no card proves it.

    Raises MissingDependencyError where the onnx package is absent.
    """
    from lobule.training.quantize import quantize_graph

    digest = hashlib.sha256(onnx_path.read_bytes()).hexdigest()[:16]
    out = folder / f"{onnx_path.parent.name}-{onnx_path.stem}-{digest}.onnx"
    if not out.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{out.name}"
        quantize_graph(onnx_path, part, inputs)
        part.replace(out)
    return out
