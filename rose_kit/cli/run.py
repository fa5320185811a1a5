"""`rose-kit run NOTEBOOK -p name=value`: execute a notebook with checked parameters, by papermill."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rose_kit.cli.parameters import declared_parameters, described_parameters, parse_parameters, parse_value

if TYPE_CHECKING:
    from nbformat import NotebookNode

__all__ = ["declared_parameters", "find_notebook", "parse_parameters", "parse_value", "run"]


def find_notebook(name: str) -> Path:
    """Find a notebook by its number ("00"), its name ("00_quickstart", "experiments/nest") or its path.

    Raises:
        ValueError: there is no such notebook; lists those there are.
    """
    if name.endswith(".ipynb") and Path(name).is_file():
        return Path(name)
    here, beside_package = Path("notebooks"), Path(__file__).parents[2] / "notebooks"
    folder = here if here.is_dir() else beside_package
    lessons, experiments = sorted(folder.glob("[0-9]*.ipynb")), sorted(folder.glob("experiments/*.ipynb"))
    known = {path.stem: path for path in lessons} | {f"experiments/{p.stem}": p for p in experiments}
    for key, path in known.items():
        if name.removesuffix(".ipynb") in (key, key.split("_")[0]):
            return path
    raise ValueError(f"no notebook {name!r}; there are: {', '.join(known) or 'none'}")


def read_notebook(path: Path) -> NotebookNode:
    """Read and validate a notebook.

    Raises:
        ValueError: the file is not a notebook.
    """
    import nbformat

    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # nbformat lets through whatever a malformed file trips over
        raise ValueError(f"{path} is not a notebook: {str(error).strip().splitlines()[0]}") from None
    return notebook


def result_text(notebook: NotebookNode) -> str:
    """What the cells tagged `result` printed."""
    lines = []
    for cell in notebook.cells:
        if "result" in cell.metadata.get("tags", []):
            for output in cell.outputs:
                shown = output.get("text") if output.get("name") == "stdout" else None
                lines.append((shown or output.get("data", {}).get("text/plain", "")).rstrip())
    return "\n".join(line for line in lines if line)


def run(
    notebook: Annotated[
        str, typer.Argument(help="Its number (00), its name (experiments/nest) or its path.")
    ],
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="May be repeated.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for what it writes [default: runs/NAME].")] = None,
    show: Annotated[bool, typer.Option("--list", help="List its parameters and do nothing.")] = False,
) -> None:
    """Execute a notebook with other parameters; the executed copy and its files go to runs/NAME."""
    path = find_notebook(notebook)
    described = described_parameters(read_notebook(path))
    declared = {name: one.default for name, one in described.items()}
    parameters = parse_parameters(parameter or (), declared, described)
    if show:
        for name, one in described.items():
            typer.echo(f"{name}={one.default!r}{one}")
        return
    folder = out or Path("runs") / path.stem
    if "out" in declared:  # kernels start in the notebook's own folder, as in JupyterLab
        parameters.setdefault("out", Path(os.path.relpath(folder, path.parent)).as_posix())
    folder.mkdir(parents=True, exist_ok=True)
    executed = execute(path, folder / path.name, parameters)
    if text := result_text(executed):
        typer.echo(text)
    typer.echo(f"written to {folder}: {', '.join(sorted(p.name for p in folder.iterdir() if p.is_file()))}")


def execute(path: Path, output: Path, parameters: Mapping[str, Any]) -> NotebookNode:
    """Execute a notebook in its own folder, with a progress bar, and save the executed copy.

    Raises:
        typer.Exit: a cell failed (status 1); which one and why is told on standard error.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    logging.getLogger("papermill").setLevel(logging.ERROR)  # parameters are checked; the rest is chatter
    try:
        return papermill.execute_notebook(
            path,
            output,
            dict(parameters),
            kernel_name="python3",
            cwd=path.parent,
            extra_arguments=["--log-level=ERROR"],  # of the kernel, whose start-up notes are for servers
        )
    except PapermillExecutionError as error:
        why = f"{error.ename}: {' '.join(str(error.evalue).split())}"
        typer.echo(f"error: cell [{error.exec_count}] of {path.name} failed: {why} (see {output})", err=True)
        raise typer.Exit(1) from None
