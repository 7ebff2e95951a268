"""The training loop of every family: one network, one source of batches, a folder that a killed run resumes from."""

from __future__ import annotations

import csv
import io
import logging
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from lobule.errors import ConfigurationError, MissingDependencyError, ResultError, ResultWriteError
from lobule.training.recipe import LoopSettings
from lobule.whole_file import whole_file

__all__ = [
    "AUTO",
    "UNREADABLE",
    "CurvePoint",
    "Devices",
    "Draw",
    "check_settings",
    "fit",
    "is_first_process",
    "read_curve",
    "read_state",
    "save_state",
    "seeded",
]

Batch = tuple[torch.Tensor, ...]
Draw = Callable[[int, int], Batch]
"""The ``index``-th batch of ``count`` samples, the same whenever it is asked for."""

UNREADABLE = (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError)
"""What torch raises on files that are damaged or not its own."""

_CHECKPOINT_SECONDS = 60.0
_NOTE_STEPS = 25
_FOREIGN = "it belongs to another network than the recipe's; train into a new folder"
_FABRIC_PRECISION = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}


@dataclass(frozen=True)
class Devices:
    """What to train on: ``count`` devices of a kind, and how many processes prepare batches beside them (0: none)."""

    kind: Literal["auto", "cpu", "cuda"] = "auto"
    count: int = 1
    loaders: int = 0


AUTO = Devices()
"""One CUDA device where there is one, else the CPU."""


@dataclass(frozen=True)
class CurvePoint:
    """``step`` steps done: mean loss since the point before, and the selection part's where it was looked at."""

    step: int
    loss: float
    checked: float | None


def is_first_process() -> bool:
    """Whether this is the process that writes and speaks; of several devices each has one of its own."""
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"


def seeded(draw: Callable[[np.random.Generator, int], Batch], seed: int) -> Draw:
    """Returns a source whose ``index``-th batch is drawn with a generator seeded with (seed, index)."""
    return lambda index, count: draw(np.random.default_rng([seed, index]), count)


def fit(
    network: nn.Module,
    draw: Draw,
    loss_of: Callable[[nn.Module, Batch], torch.Tensor],
    settings: LoopSettings,
    *,
    folder: Path,
    seed: int,
    say: Callable[[str], None],
    steps: int | None = None,
    check: Callable[[nn.Module], float] | None = None,
    devices: Devices = Devices("cpu"),
) -> nn.Module:
    """Trains ``network`` in place and returns it on the CPU, carrying the averaged weights, in eval mode.

    Batches are a function of their index and torch is seeded by the step, so a resumed run sees what an unbroken
    one would have seen. ``folder`` holds ``checkpoint.pt``, written whole every minute and at the end, and
    ``curve.csv``; asked for another number of steps than before, the run goes on with the learning rate of the
    new one. ``check`` gives the loss on the selection part, for the curve and for early stopping. With several
    devices the command is started once for each, and only the first one returns. Raises ResultWriteError,
    ConfigurationError, MissingDependencyError.
    """
    total = settings.steps if steps is None else steps
    fabric = _launch(settings, devices, selects=check is not None)
    average = {key: value.detach().clone() for key, value in network.state_dict().items()}
    network.to(memory_format=torch.channels_last)
    make = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimizer]
    plain = make(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    model, optimizer = fabric.setup(network, plain)
    average = {key: value.to(fabric.device) for key, value in average.items()}

    state = _Progress(folder, seed, total, fabric.strategy.precision)
    start = state.resume(network, plain, average, fabric.device)
    if settings.early_stop is not None and state.without_gain >= settings.early_stop.patience:
        start = total  # it had stopped
    if start and fabric.is_global_zero:
        say(state.resumed)
    batches = _batches(draw, settings, start, total, fabric, devices.loaders)
    began = saved = time.monotonic()
    running = state.running
    looks = _looks(settings, total, check is not None)
    network.train()
    for step in range(start, total):
        for group in optimizer.param_groups:
            group["lr"] = _rate(step, total, settings)
        torch.manual_seed(seed * 1_000_003 + step)
        losses = []
        for part in range(settings.accumulate):
            batch = tuple(tensor.to(fabric.device) for tensor in next(batches))
            with fabric.no_backward_sync(model, enabled=part + 1 < settings.accumulate):
                loss = loss_of(model, batch) / settings.accumulate
                fabric.backward(loss)
            losses.append(float(loss.detach()))
        _clip(fabric, model, optimizer, losses, step + 1, settings)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _follow(average, network.state_dict(), min(settings.average_decay, (1 + step) / (10 + step)))
        running.append(sum(losses))
        done = step + 1
        looked = None
        if done in looks:
            assert check is not None
            # devices that judged by themselves could stop at different steps
            looked = fabric.broadcast(_look(network, average, check, fabric.device))
            if not np.isfinite(looked):
                raise _diverged(done, settings)
            state.judge(looked, average)
        if done % _NOTE_STEPS == 0 or done == total or looked is not None:
            state.note(CurvePoint(done, float(np.mean(running)), looked))
            if fabric.is_global_zero:
                say(_line(state.curve[-1], total, (time.monotonic() - began) / (done - start)))
            running.clear()
        stop = settings.early_stop is not None and state.without_gain >= settings.early_stop.patience
        if fabric.is_global_zero and (
            time.monotonic() - saved > _CHECKPOINT_SECONDS or done == total or stop
        ):
            saved = time.monotonic()
            state.save(done, network, plain, average)
        if stop:
            if fabric.is_global_zero:
                say(
                    f"stopped at step {done}: no lower loss on the selection part in {state.without_gain} looks"
                )
            break
    if not fabric.is_global_zero:
        sys.exit(0)
    network.to("cpu")
    kept = state.best if settings.early_stop is not None and state.best is not None else average
    # the last step's loss is of the weights before it
    if not all(bool(torch.isfinite(value).all()) for value in kept.values()):
        raise _diverged(total, settings)
    network.load_state_dict({key: value.cpu() for key, value in kept.items()})
    return network.eval()


def _clip(
    fabric: Any,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    losses: Sequence[float],
    step: int,
    settings: LoopSettings,
) -> None:
    """Shortens the gradients to a norm of 5. Raises ConfigurationError where the training has diverged."""
    diverged = not np.isfinite(losses).all()
    if not diverged:
        norm = fabric.clip_gradients(model, optimizer, max_norm=5.0, error_if_nonfinite=False)
        # in float16 a gradient overflows now and then: that step is left out and the next scaled less
        diverged = settings.precision != "float16" and not bool(torch.isfinite(norm))
    if diverged:
        raise _diverged(step, settings)


def _diverged(step: int, settings: LoopSettings) -> ConfigurationError:
    return ConfigurationError(
        "learning_rate",
        settings.learning_rate,
        f"the training has diverged at step {step}: lower loop.learning_rate, or take precision float32",
    )


def check_settings(settings: LoopSettings, devices: Devices, *, selects: bool) -> Literal["cpu", "cuda"]:
    """Returns on what kind of device is trained; ``selects``: whether there is a selection part.

    Raises ConfigurationError where the settings cannot be trained with.
    """
    if settings.early_stop is not None and not selects:
        raise ConfigurationError(
            "early_stop", "on", "it needs a selection part: set split.selection or split.selection_share"
        )
    cuda = torch.cuda.is_available()
    if devices.kind == "cuda" and not cuda:
        raise ConfigurationError(
            "--device", "cuda", "torch finds no CUDA device here; leave it out or say cpu"
        )
    kind: Literal["cpu", "cuda"] = "cuda" if cuda and devices.kind != "cpu" else "cpu"
    if devices.loaders and "fork" not in torch.multiprocessing.get_all_start_methods():
        raise ConfigurationError("--loaders", devices.loaders, "this system cannot start them; leave it out")
    if settings.precision == "float16" and kind == "cpu":
        raise ConfigurationError("precision", "float16", "processors train in float32 or bfloat16")
    if kind == "cuda" and devices.count > torch.cuda.device_count():
        raise ConfigurationError("--devices", devices.count, f"there are {torch.cuda.device_count()}")
    if settings.batch % devices.count:
        raise ConfigurationError("--devices", devices.count, f"it must divide the batch of {settings.batch}")
    return kind


def _launch(settings: LoopSettings, devices: Devices, *, selects: bool) -> Any:
    kind = check_settings(settings, devices, selects=selects)
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise MissingDependencyError("lightning-fabric", "train", "training a model") from error
    # it says in which precision it computes, which the recipe says too
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    fabric = Fabric(
        accelerator=kind,
        devices=devices.count,
        strategy="ddp" if devices.count > 1 else "auto",
        precision=_FABRIC_PRECISION[settings.precision],
    )
    fabric.launch()
    return fabric


class _Drawn(torch.utils.data.Dataset[Batch]):
    """Batches by their index: a device's share of the batch is a batch of its own."""

    def __init__(self, draw: Draw, count: int) -> None:
        self._draw, self._count = draw, count

    def __getitem__(self, index: int) -> Batch:
        return self._draw(index, self._count)


def _batches(
    draw: Draw, settings: LoopSettings, start: int, total: int, fabric: Any, loaders: int
) -> Iterator[Batch]:
    world = fabric.world_size
    drawn = _Drawn(draw, settings.batch // world)
    first, last = start * settings.accumulate, total * settings.accumulate
    indices = [k * world + fabric.global_rank for k in range(first, last)]
    loader: torch.utils.data.DataLoader[Batch] = torch.utils.data.DataLoader(
        drawn,
        batch_size=None,
        sampler=indices,
        num_workers=loaders,
        # sources hold what cannot be sent to a process that does not begin as a copy of this one
        multiprocessing_context="fork" if loaders else None,
        pin_memory=fabric.device.type == "cuda",
    )
    return iter(loader)


def _looks(settings: LoopSettings, total: int, possible: bool) -> set[int]:
    """After which steps the selection part is looked at: as the recipe says, else ten times."""
    if not possible:
        return set()
    every = settings.early_stop.every if settings.early_stop is not None else max(1, -(-total // 10))
    return {*range(every, total, every), total}


def _look(
    network: nn.Module,
    average: Mapping[str, torch.Tensor],
    check: Callable[[nn.Module], float],
    device: torch.device,
) -> float:
    """The loss of the averaged weights; the network goes on with its own."""
    own = {key: value.detach().clone() for key, value in network.state_dict().items()}
    network.load_state_dict(average)
    network.eval()
    with torch.no_grad():
        loss = check(network)
    network.load_state_dict(own)
    network.train()
    return loss


def _line(point: CurvePoint, total: int, seconds: float) -> str:
    looked = "" if point.checked is None else f", {point.checked:.4f} on the selection part"
    left = seconds * (total - point.step)
    return (
        f"step {point.step} of {total}: loss {point.loss:.4f}{looked}, {seconds:.2f} s a step,"
        f" {left / 60:.0f} min left"
    )


def _rate(step: int, total: int, settings: LoopSettings) -> float:
    warm = min(1.0, (step + 1) / max(1, min(settings.warmup_steps, total // 5 + 1)))
    decay = 1.0 if settings.schedule == "constant" else 0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * step / total))
    return float(settings.learning_rate * warm * decay)


def _follow(average: dict[str, torch.Tensor], now: Mapping[str, torch.Tensor], decay: float) -> None:
    for key, value in now.items():
        if value.dtype.is_floating_point:
            average[key].lerp_(value.detach(), 1 - decay)
        else:
            average[key].copy_(value)


class _Progress:
    """What a run has reached: its curve, its best weights, its checkpoint."""

    def __init__(self, folder: Path, seed: int, total: int, precision: Any) -> None:
        self._folder, self._seed, self._total = folder, seed, total
        self._precision = precision
        """In float16 it holds the factor that keeps small gradients, which changes as the training goes."""
        self.curve: list[CurvePoint] = []
        self.best: dict[str, torch.Tensor] | None = None
        self.lowest = float("inf")
        self.without_gain = 0
        self.running: list[float] = []
        """Losses of the steps since the curve's last point."""
        self.resumed = ""

    def resume(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: dict[str, torch.Tensor],
        device: torch.device,
    ) -> int:
        """Loads the checkpoint if it is this run's; returns the number of steps done."""
        checkpoint = self._folder / "checkpoint.pt"
        if not checkpoint.is_file():
            return 0
        held = read_state(checkpoint, device)
        try:
            if held["seed"] != self._seed:
                return 0
            if held["step"] > self._total:
                raise ConfigurationError(
                    "--steps",
                    self._total,
                    f"{self._folder} holds a run of {held['step']} steps; name another folder",
                )
            network.load_state_dict(held["network"])
            optimizer.load_state_dict(held["optimizer"])
            for key, value in held["average"].items():
                average[key].copy_(value)
            self._precision.load_state_dict(held.get("precision", {}))
            self.best, self.lowest = held["best"], held["lowest"]
            self.without_gain = held["without_gain"]
            self.running.extend(held["running"])
        except ConfigurationError:
            raise
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise ResultError(checkpoint, _FOREIGN) from error
        done = int(held["step"])
        self.curve = [point for point in read_curve(self._folder) if point.step <= done]
        before = "" if held["total"] == self._total else f", begun for {held['total']}"
        self.resumed = f"resuming at step {done} of {self._total}{before}"
        return done

    def judge(self, loss: float, average: Mapping[str, torch.Tensor]) -> None:
        """Keeps the weights of the lowest loss and counts the looks since."""
        if loss < self.lowest:
            self.lowest, self.without_gain = loss, 0
            self.best = {key: value.detach().clone() for key, value in average.items()}
        else:
            self.without_gain += 1

    def note(self, point: CurvePoint) -> None:
        self.curve.append(point)

    def save(
        self,
        done: int,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: Mapping[str, torch.Tensor],
    ) -> None:
        """Writes the checkpoint and the curve, each whole. Raises ResultWriteError."""
        state = {
            "seed": self._seed,
            "total": self._total,
            "step": done,
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "average": dict(average),
            "precision": self._precision.state_dict(),
            "best": self.best,
            "lowest": self.lowest,
            "without_gain": self.without_gain,
            "running": list(self.running),
        }
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResultWriteError(self._folder, f"the run's folder cannot be made: {error}") from error
        # before the checkpoint: of a curve that goes on beyond it, the rest is dropped when the run resumes
        _write_curve(self._folder, self.curve)
        save_state(self._folder / "checkpoint.pt", state)


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Writes what `read_state` reads, whole. Raises ResultWriteError."""
    # torch's own writer answers a full disk with an internal error
    stream = io.BytesIO()
    torch.save(state, stream)
    with whole_file(path) as file:
        file.write(stream.getbuffer())


def read_state(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Returns what a run saved in ``path``. Raises ResultError where it is absent, damaged or holds other things."""
    try:
        held = torch.load(path, map_location=device, weights_only=True)
    except UNREADABLE as error:
        raise ResultError(
            path, "it is absent or damaged; remove it, and lobule train makes it anew"
        ) from error
    if not isinstance(held, dict):
        raise ResultError(path, _FOREIGN)
    return held


def _write_curve(folder: Path, curve: Sequence[CurvePoint]) -> None:
    """Writes a run's curve, whole. Raises ResultWriteError."""
    table = io.StringIO(newline="")
    rows = csv.writer(table)
    rows.writerow(["step", "loss", "selection_loss"])
    rows.writerows([p.step, repr(p.loss), "" if p.checked is None else repr(p.checked)] for p in curve)
    with whole_file(folder / "curve.csv") as file:
        file.write(table.getvalue().encode())


def read_curve(folder: Path) -> list[CurvePoint]:
    """Returns the curve that a run's folder holds, empty where there is none yet. Raises ResultError if damaged."""
    path = folder / "curve.csv"
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as handle:
            return [
                CurvePoint(
                    int(row["step"]),
                    float(row["loss"]),
                    float(row["selection_loss"]) if row["selection_loss"] else None,
                )
                for row in csv.DictReader(handle, strict=True)
            ]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise ResultError(
            path, "it is damaged; remove the run's folder, and lobule train makes it anew"
        ) from error
