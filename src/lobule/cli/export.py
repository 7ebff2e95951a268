"""``lobule export``."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["export"]


@click.command()
@click.argument("run", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Model folder to write; its name becomes the model's.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder of the data sets, to score the exported graph; by default where the run was trained.",
)
def export(run: Path, out: Path, data: Path | None) -> None:
    """Write RUN as a model: ONNX graph and card, torch, ONNX Runtime and OpenVINO proven to agree."""
    from lobule.runtimes.torch_builds import import_torch

    import_torch()
    from lobule.training.tower import export_run

    export_run(run, data, out, say=click.echo)
