"""The runs of a grid: each an executed notebook in a folder of its own, done once and found again."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from rose_kit.evaluation.jobs import EXECUTED, RECORD, ROWS, Job, fetched, finish
from rose_kit.evaluation.parallel import parallel_map


@dataclass
class Report:
    """How a sweep went.

    Args:
        done, kept: jobs that ran, and that were found finished.
        failed: job -> the error in one line; its notebook is in its folder.
    """

    done: list[Job] = field(default_factory=list)
    kept: list[Job] = field(default_factory=list)
    failed: list[tuple[Job, str]] = field(default_factory=list)


def sweep(
    jobs: Sequence[Job], *, workers: int = 1, scheduler: Any = None, progress: bool | None = True
) -> Report:
    """Do the runs that are not finished. One that fails leaves its notebook, and the others go on.

    Args:
        jobs: from `plan`.
        workers: kernels at a time on this machine; each answers several runs in turn, from a clean start.
        scheduler: do them on Dask instead, a fresh kernel each (see `parallel_map`); the folders must lie
            under the same path everywhere.
        progress: show a bar; None: on terminals only.

    Raises:
        ValueError: the scheduler is none, or an encoder cannot be loaded.
        OSError: the scheduler does not answer.
    """
    report = Report(kept=[job for job in jobs if job.finished])
    todo = fetched([job for job in jobs if not job.finished])
    bar = tqdm(total=len(jobs), initial=len(report.kept), desc="runs", unit="run",
               disable=None if progress is None else not progress)  # fmt: skip
    with bar:
        for job, error in _on_dask(todo, scheduler) if scheduler is not None else _here(todo, workers):
            bar.update()
            report.failed.append((job, error)) if error else report.done.append(job)
            bar.set_postfix_str(f"{len(report.failed)} failed" if report.failed else "")
    return report


def cores() -> int:
    """How many this process may use: a container or a scheduler may have left it a few of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


Outcome = tuple[Job, str | None]


def _on_dask(jobs: Sequence[Job], scheduler: Any) -> Iterator[Outcome]:
    if jobs:
        where = os.getcwd()
        outcomes = parallel_map(partial(_alone, where), jobs, scheduler=scheduler, progress=False)
        yield from zip(jobs, outcomes, strict=True)


def _alone(where: str, job: Job) -> str | None:
    """In a thread of its own: those of Dask have an event loop already, which Jupyter cannot use."""

    def run_alone() -> str | None:
        with _kernels(1, where) as run:
            return run(job)

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run_alone).result()


def _here(jobs: Sequence[Job], workers: int) -> Iterator[Outcome]:
    workers = max(1, min(workers, len(jobs)))
    with _kernels(workers, os.getcwd()) as run, ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(run, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:  # also when the caller gives up
            pool.shutdown(wait=False, cancel_futures=True)
            run.stop()


class _Runner:
    """Executes jobs, with one kernel to a thread that is kept from run to run; a failure makes a new one.

    Args:
        threads: how many call it, who share the cores.
        where: the folder that paths are relative to.
    """

    def __init__(self, threads: int, where: str) -> None:
        self.where, self.kernels, self.mine = where, [], threading.local()
        share = str(max(1, cores() // threads))
        self.environment = {"OMP_NUM_THREADS": share, **os.environ}

    def __call__(self, job: Job) -> str | None:
        """Returns the error in one line, or None."""
        began = time.time()
        try:
            job.folder.mkdir(parents=True, exist_ok=True)
            for name in (RECORD, ROWS):  # of an attempt that was cut short
                (job.folder / name).unlink(missing_ok=True)
            self._execute(job)
            finish(job, pd.read_parquet(job.folder / ROWS), began)
        except Exception as error:  # of a cell, of the kernel, of the disk: the other runs go on
            self._drop()
            where = f"cell [{error.exec_count}]: " if hasattr(error, "exec_count") else ""
            name, said = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", error)
            return f"{where}{name}: {' '.join(str(said).split())}"
        return None

    def _execute(self, job: Job) -> None:
        import papermill

        logging.getLogger("papermill").setLevel(logging.ERROR)
        kernel = self._kernel()
        given = job.cell.parameters | {"out": str(job.folder)}
        options = {"kernel_name": "python3", "progress_bar": False, "km": kernel}
        papermill.execute_notebook(job.notebook, job.folder / EXECUTED, given, **options)

    def _kernel(self) -> Any:
        from jupyter_client import KernelManager

        kernel = getattr(self.mine, "kernel", None)
        if kernel is None:
            kernel = self.mine.kernel = KernelManager(kernel_name="python3")
            kernel.start_kernel(extra_arguments=["--log-level=ERROR"], cwd=self.where, env=self.environment)
            self.kernels.append(kernel)
        else:
            client = kernel.blocking_client()
            client.start_channels()
            client.wait_for_ready(60)
            client.execute_interactive("get_ipython().reset()", store_history=False, timeout=60)
            client.stop_channels()
        return kernel

    def _drop(self) -> None:
        kernel, self.mine.kernel = getattr(self.mine, "kernel", None), None
        if kernel is not None:
            kernel.shutdown_kernel(now=True)

    def stop(self) -> None:
        """End every kernel."""
        for kernel in self.kernels:
            if kernel.has_kernel:
                kernel.shutdown_kernel(now=True)


@contextmanager
def _kernels(threads: int, where: str) -> Iterator[_Runner]:
    runner = _Runner(threads, where)
    try:
        yield runner
    finally:
        runner.stop()
