"""The networks of a run: opened once, ahead of need, and kept for the slides to come."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from lobule.analysis.memory import fit_workers
from lobule.analysis.options import Options
from lobule.errors import ConfigurationError, LobuleError
from lobule.models.zoo import Model, select_models
from lobule.runtimes import (
    Precision,
    PrecisionChoice,
    Runtime,
    choose_precision,
    choose_runtime,
    open_runtime,
)

__all__ = ["Equipment", "Networks", "equip", "precision_of", "precisions_of", "start_tumor_networks"]


def precision_of(runtime: str, asked: PrecisionChoice, model: Model, role: str) -> Precision:
    """What a model's graph runs in here. Raises ConfigurationError where it is asked for and cannot be had.

    Asked for int8, a graph without it runs as ``auto`` says, as long as another graph of the model has it.
    """
    graph = model.card.graph(role)
    if graph is None:
        return "float32"
    if asked == "int8" and graph.lower("int8") is None and runtime != "torch":
        if all(other.lower("int8") is None for other in model.card.graphs):
            raise ConfigurationError(
                "--precision",
                "int8",
                f"model {model.name} has no int8 graph; choose auto, or make one with lobule prove",
            )
        asked = "auto"
    return choose_precision(runtime, asked, graph)[0]


def precisions_of(runtime: str, asked: PrecisionChoice, model: Model) -> dict[str, Precision]:
    """Role → what that graph of the model runs in. Raises as `precision_of` does."""
    return {graph.role: precision_of(runtime, asked, model, graph.role) for graph in model.card.graphs}


class Networks:
    """Loads graphs in a thread of its own: compiling one takes a tenth of a second, outside Python's lock.

    ``runtime`` as decided for the run, ``precision`` as asked for. A context manager.
    """

    def __init__(self, runtime: str, precision: PrecisionChoice) -> None:
        self._runtime, self._precision = runtime, precision
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="lobule-networks")
        self._open: dict[tuple[str, str, int], Future[Runtime]] = {}

    def start(self, model: Model, role: str, workers: int) -> None:
        """Begins to load the model's graph of that role for so many threads, if that was not done before.

        Raises what `failure` knows of: a run that lacks one of its networks need not begin to wait for others.
        """
        if (failure := self.failure()) is not None:
            raise failure
        key = (model.card_sha256, role, workers)
        if key not in self._open:
            self._open[key] = self._pool.submit(self._load, model, role, workers)

    def get(self, model: Model, role: str, workers: int) -> Runtime:
        """The loaded graph. Raises ModelOutputError, ConfigurationError."""
        self.start(model, role, workers)
        return self._open[model.card_sha256, role, workers].result()

    def failure(self) -> LobuleError | None:
        """Why a graph could not be loaded, where that has shown by now. It is the same for every slide."""
        for loading in self._open.values():
            if loading.done() and not loading.cancelled():
                error = loading.exception()
                if isinstance(error, LobuleError):
                    return error
        return None

    def release(self, model: Model, role: str, workers: int) -> None:
        """Frees one graph; asked for again, it is loaded anew."""
        loading = self._open.pop((model.card_sha256, role, workers), None)
        if loading is not None:
            loading.result().close()

    def close(self) -> None:
        """Frees all of them."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        for loading in self._open.values():
            if not loading.cancelled() and loading.exception() is None:
                loading.result().close()
        self._open.clear()

    def _load(self, model: Model, role: str, workers: int) -> Runtime:
        graph = model.card.graph(role)
        if graph is None:
            raise LobuleError(f"model {model.name} has no graph of role {role}")
        precision = precision_of(self._runtime, self._precision, model, role)
        path = model.file(graph, precision)
        return open_runtime(self._runtime, model.name, path, graph, workers=workers, precision=precision)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def start_tumor_networks(networks: Networks, model: Model, workers: int, *, thorough: bool) -> None:
    """Begins to load what a tumor model's tiles go through."""
    networks.start(model, "patch", workers)
    if model.card.graph("screen") is not None and not thorough:
        networks.start(model, "screen", workers)


@dataclass(frozen=True, eq=False)
class Equipment:
    """What all slides of a run share: the model of each family, and their networks."""

    models: Mapping[str, Model]
    networks: Networks


def equip(options: Options) -> Equipment:
    """Chooses and checks the models and begins to load what the first slide's tiles will go through.

    The nuclei network follows the tumor networks in the thread that loads them: one that cannot be loaded shows
    while tissue is looked for, not after the first slide's tumor stage.

    Raises ModelError, ConfigurationError, MissingDependencyError.
    """
    models = select_models(options.models, thorough=options.thorough)
    runtime = choose_runtime(options.runtime)[0]
    for family in options.only:
        if family in models:
            precisions_of(
                runtime, options.precision, models[family]
            )  # says what cannot be had, before any slide
    # a slide for which memory does not suffice is refused; the others all get as many workers
    workers = fit_workers(options, models, 0)
    networks = Networks(runtime, options.precision)
    wanted = "tumor" in options.only and "tumor" in models and options.specimen == "breast"
    if wanted:
        start_tumor_networks(networks, models["tumor"], workers, thorough=options.thorough)
    if "nuclei" in options.only and "nuclei" in models:
        networks.start(models["nuclei"], "segment", workers)
    return Equipment(models, networks)
