"""The two files of a segment: arrays as safetensors, everything else as Parquet."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from rose_kit.memory.mapped import map_tensor
from rose_kit.memory.rows import Rows

PIECE = 16_384  # rows read at a time: Python's objects of a million rows at once would leave holes in memory


def _pictures(rows: Rows) -> dict[int, NDArray[np.uint8]]:
    """The different thumbnails, keyed by `id()`: rows of one picture share one array."""
    return {id(pair[0]): pair[0] for pair in rows.thumbnails if pair is not None}


def _write_arrays(rows: Rows, path: Path) -> None:
    pictures = {f"picture/{n}": picture for n, picture in enumerate(_pictures(rows).values())}
    save_file({"ids": rows.ids, "vectors": np.ascontiguousarray(rows.vectors), **pictures}, path)


def _write_columns(rows: Rows, path: Path) -> None:
    number = {key: n for n, key in enumerate(_pictures(rows))}
    columns = {
        "class_name": pa.array(rows.class_names.tolist(), pa.string()),
        "image_id": pa.array(rows.image_ids.tolist(), pa.string()),
        "source": pa.array(rows.sources.tolist(), pa.string()),
        "metadata": pa.array([json.dumps(facts) for facts in rows.metadata], pa.string()),
        "picture": pa.array([pair and number[id(pair[0])] for pair in rows.thumbnails], pa.int64()),
        "mask": pa.array([pair and pair[1] for pair in rows.thumbnails], pa.binary()),
        "origins": pa.array([own and json.dumps(own) for own in rows.origins], pa.string()),
    }
    pq.write_table(pa.table(columns), path, compression="zstd")


WRITERS = {"arrays.safetensors": _write_arrays, "columns.parquet": _write_columns}


def read_rows(arrays: Path, columns: Path, mapped: bool) -> Rows:
    """The rows that the two writers wrote; the vectors stay on disk if they are to be mapped."""
    with safe_open(arrays, "np") as file:
        vectors = map_tensor(arrays, "vectors") if mapped else file.get_tensor("vectors")
        ids, names = file.get_tensor("ids"), [name for name in file.keys() if "/" in name]  # noqa: SIM118
        pictures = {name: file.get_tensor(name) for name in names}
    facts: dict[str, dict] = {}  # shared, as most are alike
    parts, start = [], 0
    for batch in pq.ParquetFile(columns).iter_batches(PIECE):
        parts.append(_columns(batch.to_pydict(), ids[start : start + len(batch)], facts, pictures))
        start += len(batch)
    return replace(Rows.concatenate(parts), vectors=vectors) if parts else Rows.make(ids, vectors, [], [])


def _columns(table: dict[str, list], ids: NDArray, facts: dict[str, dict], pictures: dict) -> Rows:
    """Rows that lack their vectors."""
    facts |= {text: json.loads(text) for text in set(table["metadata"]) - facts.keys()}
    shown = zip(table["picture"], table["mask"], strict=True)
    origins = table.get("origins", [None] * len(ids))  # format 1 had none
    return Rows.make(
        ids,
        np.zeros((len(ids), 0), np.float32),
        table["class_name"],
        table["image_id"],
        table["source"],
        [facts[text] for text in table["metadata"]],
        [None if mask is None else (pictures[f"picture/{n}"], mask) for n, mask in shown],
        [text and tuple(map(tuple, json.loads(text))) for text in origins],
    )
