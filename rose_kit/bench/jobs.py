"""The runs of a grid, each with a folder named after all that its numbers depend on."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from rose_kit.bench.grid import Cell, named
from rose_kit.bench.records import write_rows
from rose_kit.encoder import load_encoder

PACKAGE = Path(__file__).parents[1]
NOTEBOOK = PACKAGE.parent / "notebooks" / "experiments" / "evaluate.ipynb"
# Sources that no number of a run depends on: these stages, and all of bench but these files.
UNRELATED, DECISIVE = {"web", "ui", "cli"}, {"evaluate.py", "partial.py", "records.py", "runs.py"}
ROWS, RECORD, EXECUTED = "rows.parquet", "run.json", "evaluate.ipynb"


@dataclass(frozen=True)
class Job:
    """A run to do, or to find done.

    Args:
        cell: its parameters.
        folder: where it goes; its name ends in the digest.
        digest: of parameters, versions, data and plugin; the same digest, the same numbers.
        versions: what was used, for the record.
        notebook: what is executed.
    """

    cell: Cell
    folder: Path
    digest: str
    versions: dict[str, Any]
    notebook: Path = NOTEBOOK

    @property
    def finished(self) -> bool:
        """Whether its record is there, which is written last."""
        try:
            record = json.loads((self.folder / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return record.get("digest") == self.digest and (self.folder / ROWS).is_file()


def plan(cells: Sequence[Cell], out: str | Path, notebook: Path = NOTEBOOK) -> list[Job]:
    """Give each run its folder.

    Args:
        cells: from `read_grid`.
        out: the folder of the sweep.
        notebook: what each executes: it takes the fields of `Cell`, and writes `out`/rows.parquet.

    Raises:
        ValueError: an encoder cannot be loaded.
    """
    return [_job(cell, Path(out), notebook) for cell in cells]


def _job(cell: Cell, out: Path, notebook: Path) -> Job:
    versions = {**_versions(), "encoder": load_fingerprint(cell.encoder)}
    inputs = {"plugin": _content(cell.plugin), "data": _stamp(cell.data), "notebook": _content(str(notebook))}
    decisive = {k: v for k, v in versions.items() if k not in ("commit", "python")}
    told = json.dumps([cell.parameters, decisive, inputs], sort_keys=True, default=str)
    digest = hashlib.sha256(told.encode()).hexdigest()[:12]
    name = re.sub(r"[^\w.=-]+", "-", f"{cell.label}-{Path(cell.data).name}-{cell.shots}-{cell.seed}")
    return Job(cell, out / f"{name[:80]}-{digest}", digest, versions | inputs, notebook)


@cache
def load_fingerprint(encoder: str) -> str:
    """What names an encoder's weights; loading it here fetches them once, before many ask for them."""
    return load_encoder(encoder).fingerprint


@cache
def _versions() -> dict[str, Any]:
    files = [path for path in sorted(PACKAGE.rglob("*.py")) if _decides(path.relative_to(PACKAGE))]
    code = hashlib.sha256(b"".join(p.read_bytes() for p in files)).hexdigest()[:12]
    packages = {name: version(name) for name in ("rose_kit", "torch", "numpy", "open_clip_torch")}
    return {**packages, "code": code, "commit": _commit(), "python": platform.python_version()}


def _decides(path: Path) -> bool:
    return path.name in DECISIVE if path.parts[0] == "bench" else path.parts[0] not in UNRELATED


def _commit() -> str | None:
    """The commit of the checkout, with a plus sign where files differ from it; None where there is none."""
    try:
        ask = partial(subprocess.run, capture_output=True, text=True, check=True, cwd=PACKAGE)
        head = ask(["git", "rev-parse", "HEAD"]).stdout.strip()
        return head + ("+" if ask(["git", "status", "--porcelain", "-uno"]).stdout else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _content(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12] if path else ""


def _stamp(data: str) -> str:
    """Names, sizes and times of a folder's files: changed data makes new runs."""
    files = sorted(p for p in Path(data).rglob("*") if p.is_file()) if data != "scenes" else []
    told = [(p.relative_to(data).as_posix(), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:12] if told else ""


def finish(job: Job, rows: pd.DataFrame, began: float) -> None:
    """Name the run in its rows, and write the record last: it says that the rest is there.

    Args:
        job: what was run.
        rows: one per image, as `image_rows` makes them.
        began: when, in seconds since 1970.
    """
    cell = job.cell
    names = {"method": cell.label, "encoder": cell.encoder, "dataset": named(cell.data, cell.data_options)}
    columns = {**names, "shots": cell.shots, "seed": cell.seed, "finished": time.time()}
    write_rows(rows.assign(**columns), job.folder / ROWS)
    record = {"digest": job.digest, "parameters": cell.parameters, "versions": job.versions,
              "images": len(rows), "seconds": round(time.time() - began, 1)}  # fmt: skip
    beside = job.folder / f".{RECORD}.{os.getpid()}.tmp"
    beside.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(beside, job.folder / RECORD)
