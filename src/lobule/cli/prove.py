"""``lobule prove``."""

from __future__ import annotations

from pathlib import Path

import click

from lobule.cli.training_options import data_option

__all__ = ["prove"]


@click.command()
@click.argument("model", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option(
    "--recipe",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="The recipe that made the model: it says which data are its test part.",
)
@data_option
@click.option(
    "--work",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for composed slides, kept for a next time.",
)
def prove(model: Path, recipe: Path, data: Path, work: Path) -> None:
    """Measure MODEL in bfloat16 and int8 on its test part; its card gets the proof of what does as well as float32.

    The int8 graph is made here, calibrated on the training part, and stays beside the float32 one where it does as
    well and gains. `analyze` then computes in the fastest of them that a processor knows.
    """
    from lobule.training.precision import prove_precisions

    prove_precisions(model, recipe, data, work, say=click.echo)
    click.echo(f"card: {model / 'card.json'}")
