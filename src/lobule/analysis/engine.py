"""How a run's networks are run: runtime, precision, threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lobule.models.zoo import Model
from lobule.runtimes import Precision, Runtime, choose_precision, open_runtime

__all__ = ["Engine", "TumorNetworks"]


@dataclass(frozen=True)
class Engine:
    """``runtime`` and ``workers`` as decided for the run; ``precision`` as asked for."""

    runtime: str
    precision: Literal["auto", "float32", "bfloat16"]
    workers: int

    def precision_of(self, model: Model, role: str) -> Precision:
        """What a graph runs in here. Raises ConfigurationError where it is asked for and cannot be had."""
        graph = model.card.graph(role)
        return "float32" if graph is None else choose_precision(self.runtime, self.precision, graph)[0]

    def open(self, model: Model, role: str, *, workers: int | None = None) -> Runtime | None:
        """The model's graph of that role, loaded; None where it has none. Raises ModelOutputError."""
        graph = model.card.graph(role)
        if graph is None:
            return None
        return open_runtime(
            self.runtime,
            model.name,
            model.file(graph),
            graph,
            workers=self.workers if workers is None else workers,
            precision=self.precision_of(model, role),
        )


@dataclass(frozen=True, eq=False)
class TumorNetworks:
    """The networks that see a tumor model's tiles: the classifier, and what settles the easy ones before it."""

    patch: Runtime | None
    screen: Runtime | None

    @staticmethod
    def open(engine: Engine, model: Model, *, thorough: bool) -> TumorNetworks:
        """Loads both; ``thorough`` leaves the screening out."""
        return TumorNetworks(engine.open(model, "patch"), None if thorough else engine.open(model, "screen"))

    def close(self) -> None:
        """Frees both."""
        for network in (self.patch, self.screen):
            if network is not None:
                network.close()
