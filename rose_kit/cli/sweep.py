"""`rose-kit sweep GRID.yaml`: runs from a small grid and their leaderboard; and `rose-kit check FILE`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rose_kit.cli.inputs import PluginOption, writable_folder
from rose_kit.cli.leaderboard import BaselineOption, show
from rose_kit.registry import methods

if TYPE_CHECKING:
    from rose_kit.evaluation.jobs import Job
    from rose_kit.evaluation.sweep import Report

EXAMPLE = """\b
A grid, whose lists are crossed:
  method: [zero-shot, knn-clip, {rns: {k: 8}}, rose]
  fusion: [similarity, transformer]   # of methods that have one: rose
  dataset: {scenes: {size: 96, pool: 120, queries: 16}}   # or a folder
  encoder: bundled
  shots: [1, 5]
  seeds: [1, 2, 3]
  exclude: [{method: zero-shot, shots: 5}]
Further keys: limit (images to answer), include (further grids, which
take from this one what they do not say). With a method of your own:
  rose-kit sweep notebooks/experiments/fusions.yaml --plugin notebooks/plugins/my_fusion.py
"""


def sweep(
    grid: Annotated[Path, typer.Argument(help="YAML file; see below.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the runs [default: runs/ and the grid's name].")
    ] = None,
    plugin: PluginOption = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Runs at a time on this machine [default: one per core, at most 4]; not with Dask."
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="Spread the runs over Dask: local, local:N, or a scheduler's address, such as "
            "tcp://host:8786 [default: this machine]; needs the extra 'dask'."
        ),
    ] = None,
    baseline: BaselineOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs and do nothing.")] = False,
) -> None:
    """Run every combination of a grid by papermill, and compare the methods.

    Each run leaves its executed notebook, parameters, versions and a row per image. A run is done once: it
    is found again by all that its numbers depend on, so a sweep that was cut short goes on where it was,
    and a changed grid does what is new. A run that fails does not stop the others. The methods of a plugin
    are checked (`rose-kit check`), then join those of the grid.
    """
    if jobs is not None and jobs < 1:
        raise ValueError(f"--jobs must be at least 1, got {jobs}")
    if jobs is not None and scheduler is not None:
        raise ValueError(
            f"--jobs {jobs} is for this machine, and --scheduler {scheduler} takes the runs to Dask: give one"
        )
    from rose_kit.evaluation.grid import read_grid
    from rose_kit.evaluation.jobs import plan
    from rose_kit.evaluation.sweep import cores
    from rose_kit.evaluation.sweep import sweep as run_all

    own = _checked(plugin) if plugin is not None else []
    folder = out or Path("runs") / grid.stem
    planned = plan(read_grid(grid, own, plugin), folder)
    labels = list(dict.fromkeys(job.cell.label for job in planned))
    if baseline is not None and baseline not in labels:
        raise ValueError(f"--baseline {baseline!r} is not among the methods: {', '.join(labels)}")
    if dry_run:
        for job in planned:
            typer.echo(f"{'finished' if job.finished else 'to do':<8}  {job.cell}")
        typer.echo(f"{len(planned)} runs, {sum(job.finished for job in planned)} of them finished")
        return
    writable_folder(folder)
    workers = jobs or min(4, cores())
    report = run_all(planned, workers=workers, scheduler=scheduler, progress=sys.stderr.isatty())
    _tell(report, folder, baseline)


def _tell(report: Report, folder: Path, baseline: str | None) -> None:
    done: list[Job] = [*report.kept, *report.done]
    typer.echo(
        f"{len(report.done)} runs done, {len(report.kept)} were finished, {len(report.failed)} failed\n"
    )
    for job, error in report.failed:
        typer.echo(f"failed: {job.cell}: {error} (see {job.folder / 'evaluate.ipynb'})", err=True)
    if done:
        from rose_kit.evaluation.leaderboard import leaderboard, read_runs

        if baseline is not None and baseline not in {job.cell.label for job in done}:
            typer.echo(f"no run of the baseline {baseline!r} finished: the usual one is taken", err=True)
            baseline = None
        show(leaderboard(read_runs(*(job.folder for job in done)), baseline), folder)
    if report.failed:
        raise typer.Exit(1)


def _checked(plugin: Path) -> list[str]:
    """Load a plugin and check its methods; returns their names.

    Raises:
        ValueError: the file cannot be loaded, or a method does not do what every method must.
    """
    from rose_kit.contract import check_plugin

    for name, outcomes in (checked := check_plugin(plugin)).items():
        wrong = [o for o in outcomes if not o.passed]
        if wrong:
            more = f" ({len(wrong)} checks failed: rose-kit check {plugin})" if wrong[1:] else ""
            raise ValueError(f"{name!r} of {plugin}: {wrong[0].name}: {wrong[0].said}{more}")
    return [name for name in checked if name in methods]


def check(
    plugin: Annotated[Path, typer.Argument(metavar="FILE", help="Python file with methods or encoders.")],
) -> None:
    """Try the methods and encoders of a plugin on all that an evaluation may ask of them.

    Methods: shapes, probabilities, determinism from image to image, classes without support or text, an empty
    memory, other vocabularies, evidence; their speed is reported. Encoders: grid, width, unit length, text.
    What fails is told with how to mend it, and the exit status is 1.
    """
    from rose_kit.contract import check_plugin

    checked = check_plugin(plugin)
    for name, outcomes in checked.items():
        typer.echo(name)
        for outcome in outcomes:
            typer.echo(
                f"  {'ok' if outcome.passed else 'FAIL':<4}  {outcome.name:<26} {outcome.said}".rstrip()
            )
    if not checked:
        raise ValueError(
            f"plugin {str(plugin)!r} registers no method and no encoder; write @register_method('a-name')"
        )
    if not all(o.passed for outcomes in checked.values() for o in outcomes):
        raise typer.Exit(1)
