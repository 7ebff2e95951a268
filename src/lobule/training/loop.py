"""The training loop: one network, one source of batches, a folder that a killed run resumes from."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lobule.errors import ResultWriteError
from lobule.training.recipe import LoopSettings

__all__ = ["fit"]

Batch = tuple[torch.Tensor, ...]
_CHECKPOINT_SECONDS = 60.0


def fit(
    network: nn.Module,
    draw: Callable[[np.random.Generator, int], Batch],
    loss_of: Callable[[nn.Module, Batch], torch.Tensor],
    settings: LoopSettings,
    *,
    folder: Path,
    seed: int,
    say: Callable[[str], None],
    steps: int | None = None,
) -> nn.Module:
    """Trains ``network`` in place and returns it carrying the averaged weights, in eval mode.

    ``draw(rng, batch)`` returns the tensors that ``loss_of`` takes. Step ``i`` draws from a generator seeded
    with (seed, i) and torch is seeded alike, so a resumed run sees what an unbroken one would have seen.
    ``folder`` holds ``checkpoint.pt``, written whole every minute and at the end; asked for another number of
    steps than before, the run goes on with the learning rate of the new one. Raises ResultWriteError.
    """
    total = settings.steps if steps is None else steps
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    average = {key: value.detach().clone() for key, value in network.state_dict().items()}
    checkpoint = folder / "checkpoint.pt"
    start = 0
    if checkpoint.is_file():
        held = torch.load(checkpoint, map_location="cpu", weights_only=True)
        if held["seed"] == seed and held["step"] <= total:
            network.load_state_dict(held["network"])
            optimizer.load_state_dict(held["optimizer"])
            average, start = held["average"], held["step"]
            before = "" if held["total"] == total else f", begun for {held['total']}"
            say(f"resuming at step {start} of {total}{before}")
    began = saved = time.monotonic()
    running: list[float] = []
    network.train()
    for step in range(start, total):
        for group in optimizer.param_groups:
            group["lr"] = _rate(step, total, settings)
        torch.manual_seed(seed * 1_000_003 + step)
        batch = draw(np.random.default_rng([seed, step]), settings.batch)
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bfloat16"):
            loss = loss_of(network, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        _follow(average, network.state_dict(), min(settings.average_decay, (1 + step) / (10 + step)))
        running.append(float(loss.detach()))
        if (step + 1) % 25 == 0 or step + 1 == total:
            each = (time.monotonic() - began) / (step + 1 - start)
            say(f"step {step + 1} of {total}: loss {np.mean(running):.4f}, {each:.2f} s a step")
            running.clear()
        if time.monotonic() - saved > _CHECKPOINT_SECONDS or step + 1 == total:
            saved = time.monotonic()
            _save(
                checkpoint,
                {
                    "seed": seed,
                    "total": total,
                    "step": step + 1,
                    "network": network.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "average": average,
                },
            )
    network.load_state_dict(average)
    return network.eval()


def _rate(step: int, total: int, settings: LoopSettings) -> float:
    warm = min(1.0, (step + 1) / max(1, min(settings.warmup_steps, total // 5 + 1)))
    return float(settings.learning_rate * warm * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * step / total))))


def _follow(average: dict[str, torch.Tensor], now: Mapping[str, torch.Tensor], decay: float) -> None:
    for key, value in now.items():
        if value.dtype.is_floating_point:
            average[key].lerp_(value.detach(), 1 - decay)
        else:
            average[key].copy_(value)


def _save(path: Path, state: Mapping[str, Any]) -> None:
    beside = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(dict(state), beside)
        beside.replace(path)
    except OSError as error:
        raise ResultWriteError(path, f"the checkpoint cannot be written: {error}") from error
