"""The command line, `rose-kit COMMAND`: one module a command; every error becomes an exit status here.

A command raises ValueError or OSError for a user's mistake, and `typer.Exit(1)` for work that failed.
What it needs beyond typer it imports when it runs, so that `rose-kit --help` stays quick.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from itertools import pairwise

import typer

from rose_kit.cli import ask, doctor, evaluate, leaderboard, memory, run, segment, sweep

app = typer.Typer(
    help="Segmentation that looks things up before it decides.",
    add_completion=False,
    rich_markup_mode=None,  # "[default: ...]" is no markup, and paragraphs are paragraphs
    pretty_exceptions_enable=False,
)
app.command(short_help="Check the installation, part by part.")(doctor.doctor)
app.command(short_help="Execute a notebook with other parameters.")(run.run)
app.command(epilog=evaluate.EXAMPLE)(evaluate.evaluate)
app.add_typer(memory.app, name="memory")
app.command(epilog=sweep.EXAMPLE, short_help="Run every combination of a grid, and compare.")(sweep.sweep)
app.command(epilog=leaderboard.EXAMPLE)(leaderboard.leaderboard)
app.command(short_help="Try a plugin on all that may be asked of it.")(sweep.check)
app.command(epilog=segment.EXAMPLE)(segment.segment)
app.command(epilog=ask.EXAMPLE, short_help="Segment what a question means on a day.")(ask.ask)


def status(args: Sequence[str], app: typer.Typer = app, name: str = "rose-kit") -> int:
    """Run one command line and return its exit status.

    Args:
        args: what follows `name`; nothing means `--help`.
        app: the commands there are.
        name: what they are called by.

    Returns:
        0 for success, 1 for work that failed, 2 for a user's mistake (which is told in one line on
        standard error), 130 for an interrupt from the keyboard.
    """
    cli = typer.main.get_command(app)
    with warnings.catch_warnings():
        warnings.showwarning = _warn
        try:
            return cli.main(args=list(args) or ["--help"], prog_name=name, standalone_mode=False) or 0
        except typer.TyperException as error:  # the command line itself: unknown option, missing argument
            message = f"{error.format_message()} {_given(error, args)}{_valid(error, cli, args)}"
        except (ValueError, OSError) as error:
            message = str(error)
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    return 2


def _warn(message: Warning | str, category: type[Warning], *_) -> None:
    """Tell our own warnings in one line; those of libraries are for programmers."""
    if category is UserWarning:
        typer.echo(f"warning: {' '.join(str(message).split())}", err=True)


def _given(error: typer.TyperException, args: Sequence[str]) -> str:
    """The value that an option refused, which messages about numbers leave out."""
    options = getattr(getattr(error, "param", None), "opts", ())
    values = [value for option, value in pairwise(args) if option in options]
    return f"(got {values[-1]!r}). " if values else ""


def _valid(error: typer.TyperException, cli, args: Sequence[str]) -> str:
    """What could have been written where the command line went wrong."""
    command = cli
    for word in args:  # an error that comes before a command's own context names none
        command = (getattr(command, "commands", None) or {}).get(word, command)
    if getattr(error, "ctx", None):
        command = error.ctx.command
    names = getattr(command, "commands", None)
    if names:
        return f"Commands: {', '.join(names)}; each has --help."
    options = (name for p in command.params for name in p.opts if name.startswith("--"))
    return f"Options: {', '.join(options)}; see --help."


def main() -> None:
    """Entry point of the `rose-kit` console script."""
    sys.exit(status(sys.argv[1:]))
