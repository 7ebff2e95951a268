"""Options that several commands of the training tower have."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["data_option", "device_option", "threads_option"]

data_option = click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder that holds the data sets, each in the folder of its name (bach, monuseg, tnbc, your own).",
)
threads_option = click.option(
    "--threads", type=click.IntRange(min=1), default=1, show_default=True, help="CPU threads."
)
device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="auto: a CUDA device where there is one.",
)
