"""Slide to heatmap with the same ONNX network, from process start to exit, against the roofline and rivals.

    python bench/pipeline.py [--row pipeline|shipped|gap] [--peers fast,wsinfer,tiatoolbox,monai] [--rounds 3]

In every round decoding alone and inference alone are measured before and after a run of lobule, then each rival with
a run of lobule right after it: a ratio to a rival is of two neighboring runs.
One uncounted run of each goes before. Files are warm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lobule.errors import LobuleError

import machine
from analyses import Analysis, analyze, engine_of, has_option, offered_precisions, precision_of
from jpeg_tiles import decode_all
from kit import MPP, Kit, command, kit_from, parser, say
from pairs import CommandFailed, Spread, spread
from peers.rivals import Rival, rivals
from report import Bar, Row
from roofline import Roofline, Throughput, needed_tiles, network_inputs, quantized, tissue_pixels

MEMORY_LIMIT_MIB = 250
START_UP_LIMIT_SECONDS = 0.5


@dataclass(frozen=True)
class Variant:
    """One way to call lobule, and the network that it looks with (for its roofline), in int8 too where it has one."""

    name: str
    arguments: tuple[str, ...]
    network: Path
    int8: Path | None = None


def variants(kit: Kit, wanted: Sequence[str] = ("f32",)) -> list[Variant]:
    """lobule with the benchmark's network as it comes and, where it can be told, at each wanted precision."""

    def arguments(precision: str) -> tuple[str, ...]:
        return "--models", str(kit.models_folder(int8=precision == "int8")), "--only", "tumor"

    named = []
    for word in offered_precisions(kit):
        if word != "auto" and precision_of(word) in wanted:
            try:
                called = (*arguments(precision_of(word)), "--precision", word)
            except LobuleError as error:
                say(f"{word}: not run ({error})")
                continue
            named.append(Variant(f"lobule, {precision_of(word)}", called, kit.model()))
    return named or [Variant("lobule", arguments("f32"), kit.model())]


class Limit:
    """The roofline of one slide and network, measured again whenever asked."""

    def __init__(
        self, kit: Kit, slide: Path, network: Path, int8: Path | None, done: Analysis, level: int
    ) -> None:
        """``int8``: the network in it, where there is one; else it is made for its speed alone.

        Every tile is taken to be judged by that network: screens and refinement are left out.
        """
        self._kit, self._network, self._int8 = kit, network, int8
        self._tiles = needed_tiles(slide, done.heatmap, MPP)
        self._patches = int(done.stage("tumor")["tiles"])
        self._inputs = network_inputs(network, tissue_pixels(slide, level, 16), 256)
        self._ready: dict[tuple[str, str], Throughput] = {}

    @property
    def tiles(self) -> int:
        return len(self._tiles)

    def measure(self, description: str) -> Roofline:
        """Both parts alone, for the engine and precision of a runtime's description."""
        engine, precision = engine_of(description), precision_of(description)
        if (engine, precision) not in self._ready:
            path = self._network
            if precision == "int8":
                path = self._int8 or quantized(path, self._inputs, self._kit.folder / "int8")
            self._ready[engine, precision] = Throughput(
                path, self._inputs, self._kit.cores, engine, precision
            )
        rate = self._ready[engine, precision].measure(self._kit.seconds)
        return Roofline(decode_all(self._tiles, self._kit.cores).wall, self._patches / rate)


def _rounds(
    kit: Kit,
    slide: Path,
    subjects: Sequence[Variant],
    others: Sequence[Rival],
    level: int,
) -> dict[str, Any]:
    """Everything that the rounds of one slide give, by name."""
    failed: dict[str, str] = {}

    def attempt(name: str, task: Callable[[], Any]) -> Any:
        if name in failed:
            return None
        try:
            return task()
        except CommandFailed as error:
            failed[name] = str(error)
            say(f"{name}: {error}")
            return None

    def subject(variant: Variant) -> Analysis | None:
        found: Analysis | None = attempt(
            variant.name, lambda: analyze(kit, slide, variant.name.replace(", ", "-"), variant.arguments)
        )
        return found

    first = {variant.name: subject(variant) for variant in subjects}  # the warm-up
    main = subjects[0].name
    if first[main] is None:
        raise CommandFailed(failed[main])
    limits: dict[Path, Limit] = {}
    for variant in subjects:
        warm = first[variant.name]
        if warm is not None and variant.network not in limits:
            limits[variant.network] = Limit(kit, slide, variant.network, variant.int8, warm, level)
    for rival in others:
        say(f"warm-up of {rival.name}")
        attempt(rival.name, lambda rival=rival: rival.run(slide))
    runs: dict[str, list[Analysis]] = {variant.name: [] for variant in subjects}
    lined: dict[str, list[tuple[Roofline, Analysis]]] = {variant.name: [] for variant in subjects}
    rival_costs: dict[str, list[Any]] = {rival.name: [] for rival in others}
    beside: dict[tuple[str, str], list[float]] = {}
    for number in range(kit.rounds):
        say(f"round {number + 1} of {kit.rounds}")
        for variant in subjects:
            warm = first[variant.name]
            if warm is None or variant.name in failed:
                continue
            # on both sides of the run: a shared machine is seldom the same for ten seconds
            limit = limits[variant.network]
            before = limit.measure(warm.stage("tumor")["runtime"])
            done = subject(variant)
            if done is not None:
                runs[variant.name].append(done)
                line = before.mean(limit.measure(done.stage("tumor")["runtime"]))
                lined[variant.name].append((line, done))
        for rival in others:
            cost = attempt(rival.name, lambda rival=rival: rival.run(slide))
            if cost is None:
                continue
            rival_costs[rival.name].append(cost)
            for variant in subjects:
                if (done := subject(variant)) is not None:
                    runs[variant.name].append(done)
                    pair = beside.setdefault((variant.name, rival.name), [])
                    pair.append(done.cost.wall_seconds / cost.cost.wall_seconds)
    return {
        "runs": runs,
        "lined": lined,
        "rivals": rival_costs,
        "beside": beside,
        "failed": failed,
        "tiles": limits[subjects[0].network].tiles,
    }


def _fast_limit(name: str, row: str) -> float:
    """The bar against FAST: by row, precision and processor."""
    wide = "avx512f" in machine.flags()
    if row == "shipped":
        return 0.35
    if precision_of(name) != "f32" and wide:
        return 0.45
    return 0.65 if wide else 0.88


def _row(kit: Kit, name: str, title: str, got: dict[str, Any], limit_ratio: float) -> Row:
    columns = ("what", "patches", "wall s", "CPU s", "peak MiB", "wall / roofline", "outside the run s")
    cells: list[tuple[str, ...]] = []
    bars: list[Bar] = []
    notes: list[str] = []
    numbers: dict[str, Any] = {"failed": got["failed"]}
    for variant, runs in got["runs"].items():
        # only the first run of each round has a roofline around it, those beside rivals have none
        lined: list[tuple[Roofline, Analysis]] = got["lined"][variant]
        if not lined or variant in got["failed"]:
            continue
        lines = [line for line, _ in lined]
        stage = runs[-1].stage("tumor")
        against = [line.ratio(run.cost.wall_seconds) for line, run in lined]
        left = [line.start_up_seconds(run.cost.wall_seconds, limit_ratio) for line, run in lined]
        decode, infer = (
            spread([getattr(line, f"{part}_seconds") for line in lines]) for part in ("decode", "infer")
        )
        cells.append(("decoding alone", f"{got['tiles']} tiles", decode.text(), "", "", "", ""))
        cells.append(
            (f"inference alone, {stage['runtime']}", str(stage["tiles"]), infer.text(), "", "", "", "")
        )
        cells.append(
            (
                variant,
                str(stage["tiles"]),
                *_cost_cells([run.cost for run in runs]),
                spread(against).text(),
                spread([run.outside_seconds for run in runs]).text(),
            )
        )
        notes.append(
            f"{variant}: {stage['runtime']}; left beyond {limit_ratio:.2f} × roofline: {spread(left).text()} s; "
            f"stages: {_stages(runs[-1])}"
        )
        if name == "gap":
            bars.append(
                Bar(f"no fitting level: {variant} / roofline", spread(against).median, limit_ratio, "lower")
            )
        elif name == "pipeline":
            over = [
                run.cost.wall_seconds / (limit_ratio * line.seconds + START_UP_LIMIT_SECONDS)
                for line, run in lined
            ]
            what = f"slide → heatmap: {variant} / ({limit_ratio:.2f} × roofline + {START_UP_LIMIT_SECONDS} s)"
            bars.append(Bar(what, spread(over).median, 1.0, "lower"))
            peak = spread([run.cost.peak_bytes / 2**20 for run in runs]).median
            bars.append(
                Bar(f"slide → heatmap: peak memory, {variant}", peak, MEMORY_LIMIT_MIB, "lower", " MiB")
            )
        numbers[variant] = {
            "runtime": stage["runtime"],
            "patches": stage["tiles"],
            "wall_seconds": [run.cost.wall_seconds for run in runs],
            "cpu_seconds": [run.cost.cpu_seconds for run in runs],
            "peak_bytes": [run.cost.peak_bytes for run in runs],
            "decode_seconds": [line.decode_seconds for line in lines],
            "infer_seconds": [line.infer_seconds for line in lines],
            "stages": runs[-1].findings["run"]["seconds"],
        }
    for rival, costs in got["rivals"].items():
        if not costs:
            continue
        patches = {str(cost.patches) for cost in costs}
        cells.append((rival, ", ".join(sorted(patches)), *_cost_cells([cost.cost for cost in costs]), "", ""))
        numbers[rival] = {
            "patches": costs[-1].patches,
            "wall_seconds": [cost.cost.wall_seconds for cost in costs],
            "cpu_seconds": [cost.cost.cpu_seconds for cost in costs],
            "peak_bytes": [cost.cost.peak_bytes for cost in costs],
        }
    for (variant, rival), pairs in got["beside"].items():
        if rival in got["failed"] or variant in got["failed"]:
            continue
        ratio = spread(pairs)
        notes.append(f"{variant} / {rival}, run beside it: {ratio.text()} in {len(pairs)} pairs")
        numbers[f"{variant} / {rival}"] = pairs
        if rival == "FAST (OpenVINO)" and name != "gap" and "--thorough" not in variant:
            what = "shipped model" if name == "shipped" else "slide → heatmap"
            bars.append(Bar(f"{what}: {variant} / FAST", ratio.median, _fast_limit(variant, name), "lower"))
    notes += [f"{who}: failed ({why})" for who, why in got["failed"].items()]
    return Row(name, title, columns, tuple(cells), tuple(notes), tuple(bars), numbers)


def _cost_cells(costs: Sequence[Any]) -> tuple[str, str, str]:
    peaks: Spread = spread([cost.peak_bytes / 2**20 for cost in costs])
    return (
        spread([cost.wall_seconds for cost in costs]).text(),
        f"{spread([cost.cpu_seconds for cost in costs]).median:.2f}",
        f"{peaks.high:.0f}",
    )


def _stages(run: Analysis) -> str:
    parts = []
    for stage in run.findings["run"]["seconds"]:
        inner = ", ".join(f"{k} {v:.2f}" for k, v in stage.items() if k not in ("stage", "total") and v)
        parts.append(f"{stage['stage']} {stage['total']:.2f} s" + (f" ({inner})" if inner else ""))
    return "; ".join(parts)


def measure(kit: Kit, row: str = "pipeline") -> Row:
    """One of the rows pipeline, shipped, gap."""
    if row == "pipeline":
        wanted = ("f32", "bf16", "int8") if machine.has_bf16() else ("f32", "int8")
        got = _rounds(kit, kit.slide(), variants(kit, wanted), rivals(kit), 1)
        return _row(kit, row, "Slide → heatmap, the same network", got, 1.10)
    if row == "gap":
        got = _rounds(kit, kit.gap_slide(), variants(kit), [], 0)
        return _row(kit, row, "Only levels 1 and 1/16: patches made from level 0", got, 1.25)
    from lobule.models.zoo import select_models

    def shipped(name: str, *arguments: str) -> Variant:
        model = select_models(thorough="--thorough" in arguments)["tumor"]
        graph = model.card.graph("patch")
        if graph is None:
            raise CommandFailed("the shipped tumor model has no patch graph")
        int8 = model.file(graph, "int8") if graph.lower("int8") else None
        return Variant(name, ("--only", "tumor", *arguments), model.file(graph), int8)

    subjects = [shipped("lobule")]
    if has_option(kit, "--thorough"):
        subjects.append(shipped("lobule --thorough", "--thorough"))
    chosen = [rival for rival in rivals(kit) if rival.name.startswith("FAST")]
    got = _rounds(kit, kit.slide(), subjects, chosen, 1)
    return _row(kit, row, "The shipped tumor model (FAST with the benchmark's network)", got, 1.10)


if __name__ == "__main__":
    options = parser(__doc__ or "")
    options.add_argument("--row", choices=["pipeline", "shipped", "gap"], default="pipeline")
    given = options.parse_args()
    command(lambda kit: measure(kit, given.row), None, kit_from(given))
