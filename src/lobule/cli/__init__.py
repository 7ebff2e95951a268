"""The command line: parse, call, print. One module a command, imported when it is called."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import suppress
from importlib import import_module
from typing import NoReturn

import click

from lobule import __version__
from lobule.errors import LobuleError

__all__ = ["main", "run"]

_COMMANDS = {
    "analyze": "Analyze slides: tissue, tumor region, nuclei, report.",
    "check": "Look at slides before a night's run: what is wrong, what it will take.",
    "info": "Show what a slide is and what is wrong with it.",
    "doctor": "Show what this machine has and what each gap costs.",
    "phantom": "Write a composed slide with its truth.",
    "train": "Train what a recipe describes.",
    "evaluate": "Score a run or a model on a part of its data.",
    "compare": "Train and score recipes side by side; the paper's table.",
    "export": "Write a run as a model: graph, card, proven parity.",
    "prove": "Measure a model in a faster number format; its card gets the proof.",
}
_RESUMING = ("analyze", "train", "compare")
"""What these have done lies on disk, and is not done again."""


class _Commands(click.Group):
    """Knows its commands' names and one-line helps without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"lobule.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="lobule")
def _lobule() -> None:
    """Breast-cancer histopathology: a slide goes in, a report comes out. For research use only."""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs the command line and exits: 0 done, 1 something failed, 2 wrong use, 130 interrupted."""
    try:
        status = _lobule.main(args=arguments, prog_name="lobule", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        given = sys.argv[1:] if arguments is None else arguments
        resumes = next((word for word in given if word in _COMMANDS), "") in _RESUMING
        click.echo(f"interrupted{'; the same command goes on from here' if resumes else ''}", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)
    except LobuleError as error:
        from lobule.errors import ConfigurationError, MissingDependencyError, ModelError

        click.echo(f"lobule: {error}", err=True)
        sys.exit(2 if isinstance(error, (ConfigurationError, MissingDependencyError, ModelError)) else 1)
    sys.exit(status if isinstance(status, int) else 0)


def run() -> NoReturn:
    """The ``lobule`` command: `main`, then out at once.

    By then every file is written and closed. Taking down the interpreter and the runtimes' threads in good order
    would take another tenth of a second, of which nobody has anything.
    """
    # imports make a hundred thousand objects that stay: looking through them every 700 takes a twentieth of a second
    gc.set_threshold(10_000, 10, 10)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may be no UTF-8
    status = 1
    try:
        main()
    except SystemExit as leaving:
        if isinstance(leaving.code, int):
            status = leaving.code
    with suppress(OSError):  # a pipe that was closed at its other end
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)
