"""The runs of a grid, each with a folder named after all that its numbers depend on."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import open_clip
import pandas as pd

from rose_kit.encoder import load_encoder
from rose_kit.encoder.bundled import FILES
from rose_kit.evaluation.grid import Cell, named
from rose_kit.evaluation.records import write_rows
from rose_kit.registry import datasets, encoders, from_plugin

PACKAGE = Path(__file__).parents[1]
NOTEBOOK = PACKAGE.parent / "notebooks" / "experiments" / "evaluate.ipynb"
# What no number of a run depends on: these stages, and these files of this one.
UNRELATED = {"web", "viz", "cli", "contract.py"}
UNRELATED_FILES = {
    "grid.py",
    "jobs.py",
    "leaderboard.py",
    "sweep.py",
}
PACKAGES = ("rose_kit", "torch", "numpy", "open_clip_torch", "faiss-cpu", "scikit-learn", "scikit-image")
ROWS, RECORD, EXECUTED = "rows.parquet", "run.json", "evaluate.ipynb"


@dataclass(frozen=True)
class Job:
    """A run to do, or to find done.

    Args:
        cell: its parameters.
        folder: where it goes; its name ends in the digest.
        digest: of parameters, versions, weights, data and plugin; the same digest, the same numbers.
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
    """Give each run its folder. Nothing is fetched: weights of open_clip go by their name.

    Args:
        cells: from `read_grid`.
        out: the folder of the sweep.
        notebook: what each executes: it takes the fields of `Cell`, and writes `out`/rows.parquet.

    Raises:
        ValueError: there is no such encoder.
    """
    stamps = {name: _stamp_encoder(name) for name in dict.fromkeys(cell.encoder for cell in cells)}
    return [_job(cell, stamps[cell.encoder], Path(out), notebook) for cell in cells]


def _job(cell: Cell, encoder: str, out: Path, notebook: Path) -> Job:
    versions = {**_versions(), "encoder": encoder}
    inputs = {"plugin": _content(cell.plugin), "data": _stamp(cell.data), "notebook": _content(str(notebook))}
    decisive = {k: v for k, v in versions.items() if k not in ("commit", "python")}
    told = json.dumps([cell.parameters, decisive, inputs], sort_keys=True, default=str)
    digest = hashlib.sha256(told.encode()).hexdigest()[:12]
    name = re.sub(r"[^\w.=-]+", "-", f"{cell.label}-{Path(cell.data).name}-{cell.shots}-{cell.seed}")
    return Job(cell, out / f"{name[:80]}-{digest}", digest, versions | inputs, notebook)


def _stamp_encoder(name: str) -> str:
    """What an encoder's numbers depend on; the kit's own on code and weights that count anyway."""
    if name in encoders and not from_plugin(encoders, name):
        return name
    if name and name not in encoders and Path(name).is_dir():
        return " ".join(_content(str(path)) for file in FILES if (path := Path(name, file)).is_file())
    architecture, _, tag = name.partition("/")
    if tag and architecture in open_clip.list_models():
        if tag == "random" or tag in open_clip.list_pretrained_tags_by_model(architecture):
            return name
        if Path(tag).is_file():
            return f"{architecture} {_content(tag)}"
    return load_encoder(name).fingerprint  # a plugin's, whose weights only it knows; else raises


def fetched(jobs: Sequence[Job]) -> list[Job]:
    """The jobs with the fingerprints of their encoders for the record.

    Loading these here fetches their weights once, before many ask for them.

    Raises:
        ValueError: an encoder cannot be loaded.
    """
    names = dict.fromkeys(job.cell.encoder for job in jobs)
    loaded = {name: load_encoder(name).fingerprint for name in names}
    return [replace(job, versions=job.versions | {"encoder": loaded[job.cell.encoder]}) for job in jobs]


@cache
def _versions() -> dict[str, Any]:
    files = [path for path in sorted(PACKAGE.rglob("*")) if _decides(path.relative_to(PACKAGE))]

    def digest(*suffixes: str) -> str:
        content = b"".join(path.read_bytes() for path in files if path.suffix in suffixes)
        return hashlib.sha256(content).hexdigest()[:12]

    packages = {name: version(name) for name in PACKAGES}
    told = {"code": digest(".py"), "weights": digest(".safetensors", ".json")}  # of the encoder and of ROSE
    return {**packages, **told, "commit": _commit(), "python": platform.python_version()}


def _decides(path: Path) -> bool:
    if path.parts[0] == Path(__file__).parent.name:
        return path.name not in UNRELATED_FILES
    return path.parts[0] not in UNRELATED


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
    """What makes the data of a dataset by name, its code; names, sizes and times of a folder's files."""
    if data in datasets.names():
        made = datasets.find(data)
        while isinstance(made, partial):
            made = made.func
        code = Path(inspect.getfile(inspect.unwrap(made))).parent.glob("*.py")
        return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(code))).hexdigest()[:12]
    files = sorted(p for p in Path(data).rglob("*") if p.is_file())
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
