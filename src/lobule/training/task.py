"""What a family brings to be trained, scored and exported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import nn

from lobule.models.card import Card, Score
from lobule.training.loop import Draw
from lobule.training.recipe import LoopSettings
from lobule.training.robustness import Moved

__all__ = ["Evaluation", "Part", "Task"]

Part = Literal["training", "selection", "test"]


@dataclass(frozen=True)
class Evaluation:
    """Scores of one part, with intervals, and a row of figures for each of its images."""

    scores: tuple[Score, ...]
    rows: tuple[Mapping[str, str | float], ...]


class Task(Protocol):
    """What a family brings: data by parts, a network, its batches and loss, decisions, scores, a graph and a card."""

    @property
    def loop(self) -> LoopSettings: ...

    def notes(self) -> list[str]:
        """Lines on the data: what there is in each part."""

    def fields(self) -> dict[str, dict[str, str]]:
        """What lies in each part: name and digest of the pixels."""

    def labels(self) -> dict[str, dict[str, str]]:
        """The same, with the digest of what is drawn on each."""

    def network(self, *, started: bool = True) -> nn.Module:
        """The network before the first step; torch's generator was seeded. Not ``started``: without weights to
        start from, which need not be there for a network whose own weights are loaded.
        """

    def source(self) -> Draw: ...

    def loss(self, network: nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor: ...

    def check(self) -> Callable[[nn.Module], float] | None:
        """The loss on the selection part, where there is one."""

    def predictor(self, network: nn.Module) -> Any:
        """What `decide` and `score` ask for answers, from a network."""

    def graph_predictor(self, folder: Path, card: Card) -> Any:
        """The same, from an exported model."""

    def thorough(self, predict: Any) -> Any:
        """The same, as ``lobule analyze --thorough`` asks it."""

    def decide(self, predict: Any) -> dict[str, float]:
        """The thresholds, chosen on the selection part."""

    def score(
        self, predict: Any, thresholds: Mapping[str, float], part: Part, *, known: bool = True
    ) -> Evaluation:
        """How good the answers are on a part; ``known``: that what trained lies in these data's training part."""

    def disturb(self, predict: Any, thresholds: Mapping[str, float], part: Part) -> list[Moved]:
        """How far the answers move when the part's images are disturbed."""

    def export(
        self, network: nn.Module, thresholds: Mapping[str, float], folder: Path, name: str, made_by: str
    ) -> Card:
        """Writes the graph, proven to compute the same, and returns the card with the test part's scores."""
