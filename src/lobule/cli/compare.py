"""``lobule compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from lobule.cli.training_options import device_option, threads_option

__all__ = ["compare"]


@click.command()
@click.argument(
    "recipes", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False, exists=True)
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder that holds the data sets; without it nothing is trained, runs that lie in WORK are tabulated.",
)
@click.option(
    "--work",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    show_default=True,
    help="Folder of the runs, WORK/<recipe>/seed-<n>. Runs found there are gone on with and not done twice.",
)
@click.option(
    "--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="Runs of each recipe."
)
@click.option("--steps", type=click.IntRange(min=1), help="Steps, instead of the recipes'.")
@click.option("--minutes", type=click.FloatRange(min=0), help="Begin no further run after so long.")
@click.option(
    "--table", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Markdown to write."
)
@threads_option
@device_option
def compare(
    recipes: tuple[Path, ...],
    data: Path | None,
    work: Path,
    seeds: int,
    steps: int | None,
    minutes: float | None,
    table: Path,
    threads: int,
    device: Literal["auto", "cpu", "cuda"],
) -> int:
    """Train and score RECIPES, smallest first, and write the paper's table with its figures alongside.

    Exit status: 0 done, 1 some recipe failed, 2 wrong use.
    """
    from lobule.runtimes.torch_builds import import_timm

    import_timm()
    import torch

    from lobule.training.compare import compare_recipes
    from lobule.training.loop import Devices

    torch.set_num_threads(threads)
    failed = compare_recipes(
        recipes,
        data,
        work,
        table,
        seeds=seeds,
        say=click.echo,
        steps=steps,
        minutes=minutes,
        devices=Devices(device),
    )
    click.echo(f"table: {table}")
    return 1 if failed else 0
