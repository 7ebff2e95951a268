"""``lobule train``."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["train"]


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder that holds the data sets, each in the folder of its name (bach, monuseg, tnbc).",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the run: checkpoints, and the model in OUT/model. The same command goes on from it.",
)
@click.option("--steps", type=click.IntRange(min=1), help="Steps of every stage, instead of the recipe's.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="CPU threads.")
def train(recipe: Path, data: Path, out: Path, steps: int | None, threads: int) -> None:
    """Train the model that RECIPE describes and write it as a folder of ONNX graphs and their card."""
    from lobule.runtimes.torch_builds import import_timm

    import_timm()  # says what to install before anything is read
    from lobule.training.run import train_recipe

    def say(line: str) -> None:
        click.echo(line)

    folder = train_recipe(recipe, data, out, say=say, steps=steps, threads=threads)
    click.echo(f"model: {folder}")
