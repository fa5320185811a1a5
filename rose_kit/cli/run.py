"""`rose-kit run NOTEBOOK -p name=value`: execute a notebook with checked parameters, by papermill."""

from __future__ import annotations

import ast
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from nbformat import NotebookNode


def find_notebook(name: str) -> Path:
    """Find a notebook by its number ("00"), its name ("00_quickstart") or its path.

    Raises:
        ValueError: there is no such notebook; lists those there are.
    """
    if name.endswith(".ipynb") and Path(name).is_file():
        return Path(name)
    here, beside_package = Path("notebooks"), Path(__file__).parents[2] / "notebooks"
    folder = here if here.is_dir() else beside_package
    known = sorted(folder.glob("[0-9]*.ipynb"))
    for path in known:
        if name in (path.stem, path.name, path.stem.split("_")[0]):
            return path
    raise ValueError(f"no notebook {name!r}; there are: {', '.join(p.stem for p in known) or 'none'}")


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


def declared_parameters(notebook: NotebookNode) -> dict[str, Any]:
    """Names and default values in the cell tagged `parameters`; empty without such a cell.

    Raises:
        ValueError: the cell holds something else than names with literal values.
    """
    tagged = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    try:
        body = ast.parse(tagged[0].source).body if tagged else []
    except SyntaxError as error:
        raise ValueError(f"the parameters cell is not Python: {error}") from None
    found = {}
    for node in body:
        target = node.target if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [None])[0]
        if not isinstance(target, ast.Name):
            raise ValueError(f"the parameters cell holds more than names and values: {ast.unparse(node)}")
        try:
            found[target.id] = ast.literal_eval(node.value)
        except ValueError:
            raise ValueError(f"parameter {ast.unparse(node)} is not a literal") from None
    return found


def parse_value(text: str, default: Any) -> Any:
    """Read `text` as a value of the same type as `default`.

    An int is taken where a float is wanted, `1,2,3` where a list or tuple is, anything where the
    default is None.

    Raises:
        ValueError: it is not of that type.

    >>> parse_value("5", 4), parse_value("1", 0.5), parse_value("1,2", [7]), parse_value("5", "rns")
    (5, 1.0, [1, 2], '5')
    >>> parse_value("five", 4)
    Traceback (most recent call last):
    ...
    ValueError: 'five' is not of type int
    """
    if isinstance(default, str):
        return text
    wrong = ValueError(f"{text!r} is not of type {type(default).__name__}")
    try:
        value = ast.literal_eval(text.capitalize() if text.lower() in ("true", "false", "none") else text)
    except (ValueError, SyntaxError):
        if default is None:
            return text
        raise wrong from None
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if isinstance(default, list | tuple):
        value = type(default)(value if isinstance(value, list | tuple) else [value])
        if {type(v) for v in value} - {type(d) for d in default or value}:
            raise wrong
    if default is not None and type(value) is not type(default):
        raise wrong
    return value


def parse_parameters(texts: Iterable[str], declared: Mapping[str, Any]) -> dict[str, Any]:
    """Check `name=value` texts against the declared parameters.

    Raises:
        ValueError: a name is unknown or a value has the wrong type; lists the valid ones.

    >>> parse_parameters(["k=8"], {"k": 4, "seed": 0})
    {'k': 8}
    """
    valid = ", ".join(f"{name}={default!r}" for name, default in declared.items()) or "none"
    parsed = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in declared:
            what = f"unknown parameter {name!r}" if equals else f"{text!r} is not name=value"
            raise ValueError(f"{what}; parameters and their defaults: {valid}")
        try:
            parsed[name] = parse_value(value, declared[name])
        except ValueError as error:
            raise ValueError(f"parameter {name}: {error}; parameters and their defaults: {valid}") from None
    return parsed


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
    notebook: Annotated[str, typer.Argument(help="Its number (00), its name (00_quickstart) or its path.")],
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="May be repeated.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for what it writes [default: runs/NAME].")] = None,
) -> None:
    """Execute a notebook with other parameters; the executed copy and its files go to runs/NAME."""
    path = find_notebook(notebook)
    declared = declared_parameters(read_notebook(path))
    parameters = parse_parameters(parameter or (), declared)
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
