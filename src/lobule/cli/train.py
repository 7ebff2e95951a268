"""``lobule train``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from lobule.cli.training_options import data_option, device_option, threads_option
from lobule.errors import ConfigurationError

__all__ = ["train"]


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@data_option
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the run. The same command goes on from it.",
)
@click.option("--steps", type=click.IntRange(min=1), help="Steps of every stage, instead of the recipe's.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Seed, instead of the recipe's.")
@threads_option
@device_option
@click.option(
    "--devices",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many: each takes a share of a batch.",
)
@click.option(
    "--loaders",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Processes that prepare batches.",
)
def train(
    recipe: Path,
    data: Path,
    out: Path,
    steps: int | None,
    seed: int | None,
    threads: int,
    device: Literal["auto", "cpu", "cuda"],
    devices: int,
    loaders: int,
) -> None:
    """Train what RECIPE describes.

    A nuclei recipe makes a run, to be scored with `lobule evaluate` and made a model with `lobule export`; a tumor
    recipe makes OUT/model, scored.
    """
    from lobule.runtimes.torch_builds import import_timm

    import_timm()  # says what to install before anything is read
    import torch

    from lobule.training.loop import Devices
    from lobule.training.recipe import NucleiRecipe, read_recipe

    torch.set_num_threads(threads)
    if isinstance(read_recipe(recipe), NucleiRecipe):
        from lobule.training.tower import train_run

        run = train_run(
            recipe,
            data,
            out,
            say=click.echo,
            steps=steps,
            seed=seed,
            devices=Devices(device, devices, loaders),
        )
        click.echo(f"run: {run.folder}; next: lobule evaluate {run.folder} --data {data}")
        return
    from lobule.training.run import train_recipe

    for option, given in (
        ("--seed", seed is not None),
        ("--devices", devices > 1),
        ("--loaders", loaders > 0),
    ):
        if given:
            raise ConfigurationError(option, "given", "only nuclei recipes take it so far; leave it out")
    if device == "cuda":
        raise ConfigurationError("--device", device, "only nuclei recipes train on it so far; leave it out")
    folder = train_recipe(recipe, data, out, say=click.echo, steps=steps)
    click.echo(f"model: {folder}")
