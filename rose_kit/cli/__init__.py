"""The command line, `rose-kit COMMAND`: one module a command; every error becomes an exit status here.

A command raises ValueError or OSError for a user's mistake, and `typer.Exit(1)` for work that failed.
What it needs beyond typer it imports when it runs, so that `rose-kit --help` stays quick.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from rose_kit.cli import doctor, run

app = typer.Typer(
    help="Segmentation that looks things up before it decides.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (doctor.doctor, run.run):
    app.command()(command)


def status(args: Sequence[str]) -> int:
    """Run one command line and return its exit status.

    Args:
        args: what follows `rose-kit`; nothing means `--help`.

    Returns:
        0 for success, 1 for work that failed, 2 for a user's mistake (which is told in one line on
        standard error), 130 for an interrupt from the keyboard.
    """
    cli = typer.main.get_command(app)
    try:
        return cli.main(args=list(args) or ["--help"], prog_name="rose-kit", standalone_mode=False) or 0
    except typer.TyperException as error:  # the command line itself: unknown option, missing argument
        message = f"{error.format_message()} Commands: {', '.join(cli.commands)}; each has --help."
    except (ValueError, OSError) as error:
        message = str(error)
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    return 2


def main() -> None:
    """Entry point of the `rose-kit` console script."""
    sys.exit(status(sys.argv[1:]))
