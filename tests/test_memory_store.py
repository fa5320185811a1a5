"""Saving and loading: nothing lost by a crash, nothing accepted that is damaged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_memory import DIM, NAMES, features, filled, mask_of, ready, same_content

from rose_kit.memory import MemoryFormatError, Prototypes, SupportMemory, storage
from rose_kit.types import unit


def illustrated(images: int = 3) -> SupportMemory:
    """A memory that uses every column, with a gap in its ids and rows at the end removed."""
    memory = filled(images + 1, fingerprint="encoder/weights/maskclip")
    fmap = features(50)
    image = np.random.default_rng(0).integers(0, 255, (*fmap.image_size, 3), dtype=np.uint8)
    more = {"metadata": {"year": 2020, "ok": True, "x": 0.1, "none": None, "é": "ü"}, "source": "ph ö/b.png"}
    memory.add("shown", fmap, mask_of(fmap), NAMES, thumbnail=image, **more)
    memory.add("gone", fmap, mask_of(fmap), NAMES, thumbnail=image)
    memory.remove("img1")
    memory.remove("gone")
    return memory


@pytest.mark.parametrize("mapped", [None, False, True])
def test_round_trip_is_identical(tmp_path, mapped):
    memory, folder, fmap = illustrated(), tmp_path / "deep" / "memory", features(60)
    memory.encoder = "maskclip"
    memory.save(folder)
    loaded = SupportMemory.load(folder, fingerprint="encoder/weights/maskclip", mapped=mapped)
    same_content(loaded, memory)
    assert isinstance(loaded.vectors, np.memmap) == bool(mapped)
    assert (loaded.dim, loaded.fingerprint, loaded.encoder) == (DIM, memory.fingerprint, "maskclip")
    assert [type(v) for v in loaded.rows.metadata[-1].values()] == [int, bool, float, type(None), str]
    shared = loaded.rows.thumbnails[-3:]
    assert shared[0][0] is shared[1][0] is shared[2][0]
    filled(1).save(folder)  # what lies on disk may be replaced while it is in use
    assert np.array_equal(*(m.add("next", fmap, mask_of(fmap), NAMES) for m in (loaded, memory)))
    same_content(loaded, memory)


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=6)
ODD = TEXT | st.sampled_from(["../x", "a\nb", " ", "x ", '"', "\\", "nan", "None", "🚌", "e\u0301", "\ufeff"])
FACT = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | ODD


@settings(max_examples=40)
@given(st.lists(st.tuples(ODD, ODD, st.none() | ODD), unique_by=lambda row: row[:2]), st.data())
def test_odd_names_and_metadata_survive(rows, data):
    vectors = unit(np.random.default_rng(1).standard_normal((len(rows), DIM)))
    facts = [data.draw(st.dictionaries(ODD, FACT, max_size=2)) for _ in rows]
    names, images, sources = zip(*rows, strict=True) if rows else ((), (), ())
    memory = SupportMemory(DIM)
    memory.extend(Prototypes.make(range(len(rows)), vectors, names, images, sources, facts))
    with tempfile.TemporaryDirectory() as folder:
        memory.save(folder)
        loaded = SupportMemory.load(folder)
    same_content(loaded, memory)
    assert loaded.class_names.tolist() == list(names) and loaded.image_ids.tolist() == list(images)
    assert repr(loaded.rows.metadata.tolist()) == repr(facts)


# --- crashes


STEPS = [
    (storage, "save_file", 0),
    (storage.pq, "write_table", 0),
    (Path, "write_text", 0),
    (os, "replace", 0),
]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt("stop")])
@pytest.mark.parametrize("late", [False, True])  # the step is done and its caller does not hear of it
@pytest.mark.parametrize(("holder", "name", "step"), [*STEPS, *((os, "fsync", n) for n in range(5))])
def test_a_save_that_fails_at_any_step_harms_nothing(tmp_path, monkeypatch, holder, name, step, late, error):
    old, new = filled(2), illustrated()
    old.save(tmp_path)
    (tmp_path / "notes-mine.parquet").write_text("the user's own")
    real, calls = getattr(holder, name), []

    def fail(*arguments, **options):
        calls.append(arguments)
        if len(calls) - 1 != step:
            return real(*arguments, **options)
        if late:
            real(*arguments, **options)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(holder, name, fail)
        with pytest.raises(type(error), match=str(error.args[-1])):
            new.save(tmp_path)
    committed = (name, late) == ("replace", True) or step == 4  # the rename, and what comes after it
    same_content(SupportMemory.load(tmp_path), new if committed else old)
    assert len(list(tmp_path.iterdir())) == (6 if committed else 4)  # the old files wait for the next save
    new.save(tmp_path)
    same_content(SupportMemory.load(tmp_path), new)
    assert len(list(tmp_path.iterdir())) == 4 and (tmp_path / "notes-mine.parquet").exists()


WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
from test_memory import SupportMemory, ready
from rose_kit.memory.storage import writing
print("ready", flush=True)
for n in range(int(sys.argv[3]), int(sys.argv[4])):
    with writing(sys.argv[1]):
        memory = SupportMemory.load(sys.argv[1])
        memory.extend(ready([(f"w{n}", "sky"), (f"w{n}", "bus")], n))
        memory.save(sys.argv[1])
    print(n, flush=True)
"""
posix = pytest.mark.skipif(os.name == "nt", reason="POSIX signals and locks")


def start_writer(folder, first, last):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), os.path.dirname(__file__), str(first), str(last)],
        stdout=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True,
    )


@posix
def test_kills_at_random_moments_lose_no_saved_row(tmp_path):
    """A writer is killed ROSE_KILLS times (6); whatever it reported as saved must be there."""
    kills, rng = int(os.environ.get("ROSE_KILLS", "6")), np.random.default_rng(0)
    saved, last = set(), 0
    SupportMemory(DIM).save(tmp_path)
    for _ in range(kills):
        with start_writer(tmp_path, last, last + 10_000) as process:
            process.stdout.readline()
            said = [int(process.stdout.readline()) for _ in range(rng.integers(3))]
            time.sleep(rng.uniform(0, 0.05))  # into the next load, change or save
            process.send_signal(signal.SIGKILL)
            said += [int(line) for line in process.stdout if line.endswith("\n")]
        saved |= {f"w{n}" for n in said}
        loaded = SupportMemory.load(tmp_path)
        assert saved <= set(loaded.images)
        last = len(loaded.images)
        whole = SupportMemory(DIM)
        for n in range(last):  # never half an image, never one left out
            whole.extend(ready([(f"w{n}", "sky"), (f"w{n}", "bus")], n))
        same_content(loaded, whole)
    loaded.save(tmp_path)
    assert len(saved) >= kills // 3  # kills came after saves, too
    assert len(list(tmp_path.iterdir())) == 3


@posix
def test_two_processes_write_in_turn_and_a_third_reads(tmp_path):
    SupportMemory(DIM).save(tmp_path)
    writers = [start_writer(tmp_path, n, n + 30) for n in (0, 100)]
    sizes = []
    while any(process.poll() is None for process in writers):
        held = SupportMemory.load(tmp_path, mapped=True)  # files are swept meanwhile
        assert len(held) % 2 == 0 and np.allclose(np.linalg.norm(held.vectors, axis=1), 1)
        sizes.append(len(held))
    for process in writers:
        process.stdout.close()
    assert sizes == sorted(sizes) and len(SupportMemory.load(tmp_path)) == 120


@pytest.mark.parametrize("call", [1, 2])
def test_a_memory_replaced_while_it_is_read_is_read_anew(tmp_path, monkeypatch, call):
    old, new, real, calls = filled(2), filled(4), storage._digest, []
    old.save(tmp_path)

    def slow(path, sync=False):
        calls.append(path)
        if len(calls) == call:
            new.save(tmp_path)
        return real(path, sync)

    monkeypatch.setattr(storage, "_digest", slow)
    same_content(SupportMemory.load(tmp_path), new)


# --- damage


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder's files: manifest, arrays, columns."""
    folder = tmp_path_factory.mktemp("saved")
    illustrated().save(folder)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def load(files):
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        return SupportMemory.load(folder)


@settings(max_examples=150)
@given(st.data())
def test_any_damaged_file_is_named(saved, data):
    name = data.draw(st.sampled_from(sorted(saved)))
    content = saved[name]
    where = data.draw(st.integers(0, len(content) - 1))
    flipped = bytes([content[where] ^ data.draw(st.integers(1, 255))])
    damaged = data.draw(
        st.sampled_from([content[:where], content[:where] + flipped + content[where + 1 :], b"", None])
    )
    files = {k: v for k, v in (saved | {name: damaged}).items() if v is not None}
    try:
        loaded = load(files)
    except MemoryFormatError as error:
        assert name in str(error) or (name == "manifest.json" and "this kit reads format 4" in str(error))
    else:  # a blank of the manifest's layout may change without changing what it says
        assert name == "manifest.json" and json.loads(damaged) == json.loads(content)
        same_content(loaded, illustrated())


@pytest.mark.parametrize("text", ["[]", "[" * 100_000, '{"format": 4}', '{"format": 2, "segments": []}'])
def test_a_bad_manifest_is_refused(saved, text):
    with pytest.raises(MemoryFormatError, match="manifest.json is damaged|is of format 2"):
        load(saved | {"manifest.json": text.encode()})


def test_wrong_places_and_wrong_encoders_are_refused(tmp_path):
    for place in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(MemoryFormatError, match=f"{place.name}'.*manifest.json"):
            SupportMemory.load(place)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="file'"):
        SupportMemory(DIM).save(tmp_path / "file")
    filled(1, fingerprint="A").save(tmp_path)
    with pytest.raises(ValueError, match="'A'.*'B'"):
        SupportMemory.load(tmp_path, fingerprint="B")
