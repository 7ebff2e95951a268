"""``lobule evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from lobule.cli.training_options import data_option, threads_option

__all__ = ["evaluate"]


@click.command()
@click.argument("run", type=click.Path(path_type=Path, file_okay=False, exists=True))
@data_option
@click.option(
    "--split",
    "part",
    type=click.Choice(["test", "selection", "training"]),
    default="test",
    show_default=True,
    help="Part of the data, as the recipe's split says.",
)
@click.option(
    "--recipe",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="For a model folder: the recipe whose split it is scored by.",
)
@click.option("--robustness", is_flag=True, help="Also disturb the images and say how far the answers move.")
@click.option("--thorough", is_flag=True, help="Ask the network as lobule analyze --thorough does.")
@threads_option
def evaluate(
    run: Path,
    data: Path,
    part: Literal["test", "selection", "training"],
    recipe: Path | None,
    robustness: bool,
    thorough: bool,
    threads: int,
) -> None:
    """Score RUN (or a model folder) on a part of its data: 95 % intervals, pooled and per image."""
    from lobule.runtimes.torch_builds import import_torch

    import_torch().set_num_threads(threads)
    from lobule.training.tower import evaluate as evaluate_run

    evaluate_run(run, data, part, say=click.echo, recipe=recipe, robustness=robustness, thorough=thorough)
