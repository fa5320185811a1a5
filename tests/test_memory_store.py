"""Saving and loading: nothing lost by a crash, nothing accepted that is damaged."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_memory import DIM, NAMES, features, filled, mask_of, ready, same_content

from rose_kit.memory import MemoryFormatError, SupportMemory, storage


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


@pytest.mark.parametrize("mapped", [False, True])
def test_round_trip_is_identical(tmp_path, monkeypatch, mapped):
    monkeypatch.setattr(storage, "MAPPED_FROM", 0 if mapped else 2**28)
    memory, folder = illustrated(), tmp_path / "deep" / "memory"
    memory.encoder = "maskclip"
    memory.save(folder)
    loaded = SupportMemory.load(folder)
    (tmp_path / "mine").touch()
    assert {p.stat().st_mode for p in folder.iterdir()} == {(tmp_path / "mine").stat().st_mode}
    assert isinstance(loaded.vectors, np.memmap) == mapped
    assert (loaded.dim, loaded.fingerprint, loaded.encoder) == (DIM, memory.fingerprint, "maskclip")
    shared = loaded.rows.thumbnails[-3:]
    assert shared[0][0] is shared[1][0] is shared[2][0]
    with pytest.raises(ValueError, match="'encoder/weights/maskclip'.*'B'"):
        loaded.check_encoder(SimpleNamespace(fingerprint="B"))
    filled(1).save(folder)  # what lies on disk may be replaced while it is in use
    assert np.array_equal(*(m.extend(ready([("next", "sky")])) for m in (loaded, memory)))
    same_content(loaded, memory)


# --- crashes


STEPS = [(storage, "save_file", 0), (storage.pq, "write_table", 0), (os, "replace", 0)]
STEPS += [(os, "fsync", n) for n in range(2)]


@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt("stop")])
@pytest.mark.parametrize("late", [False, True])  # the step is done and its caller does not hear of it
@pytest.mark.parametrize(("holder", "name", "step"), STEPS)
def test_a_save_that_fails_at_any_step_harms_nothing(tmp_path, monkeypatch, holder, name, step, late, error):
    old, new = filled(2), illustrated()
    old.save(tmp_path)
    (tmp_path / "mine.safetensors").write_text("the user's own")
    real, calls = getattr(holder, name), itertools.count()

    def fail(*arguments, **options):
        fails = next(calls) == step
        if late or not fails:
            real(*arguments, **options)
        if fails:
            raise error

    with monkeypatch.context() as patch:
        patch.setattr(holder, name, fail)
        with pytest.raises(type(error)):
            new.save(tmp_path)
    committed = (name, late) == ("replace", True) or step == 1  # or later
    same_content(SupportMemory.load(tmp_path), new if committed else old)
    new.save(tmp_path)
    same_content(SupportMemory.load(tmp_path), new)
    assert {path.name for path in tmp_path.iterdir()} == {storage.FILE, "mine.safetensors"}


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
    command = [sys.executable, "-c", WRITER, folder, os.path.dirname(__file__), first, last]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)


@posix
def test_kills_at_random_moments_lose_no_saved_row(tmp_path):
    """A writer is killed ROSE_KILLS times (6); whatever it reported as saved must be there, and whole."""
    kills, rng, saved, count = int(os.environ.get("ROSE_KILLS", "6")), np.random.default_rng(0), set(), 0
    SupportMemory(DIM).save(tmp_path)
    for _ in range(kills):
        with start_writer(tmp_path, count, 10_000) as process:
            lines = [process.stdout.readline() for _ in range(1 + rng.integers(3))]
            time.sleep(rng.uniform(0, 0.05))  # into the next load, change or save
            process.kill()
            lines += [line for line in process.stdout if line.endswith("\n")]
        saved |= {f"w{int(line)}" for line in lines[1:]}
        loaded = SupportMemory.load(tmp_path)
        assert saved <= set(loaded.images)
        count = len(loaded.images)
        whole = [ready([(f"w{n}", "sky"), (f"w{n}", "bus")], n).vectors for n in range(count)]
        assert np.array_equal(loaded.vectors, np.reshape(whole, (-1, DIM)))  # no image halved or left out
    loaded.save(tmp_path)
    assert len(saved) >= kills // 3  # kills came after saves, too
    assert {path.name for path in tmp_path.iterdir()} == {storage.FILE, ".lock"}


@posix
def test_two_processes_write_in_turn_and_a_third_reads(tmp_path):
    SupportMemory(DIM).save(tmp_path)
    writers = [start_writer(tmp_path, n, n + 30) for n in (0, 100)]
    sizes = []
    while any(process.poll() is None for process in writers):
        sizes.append(len(SupportMemory.load(tmp_path)))  # files are swept meanwhile
    for process in writers:
        process.stdout.close()
    assert sizes == sorted(sizes) and not any(size % 2 for size in sizes)
    assert len(SupportMemory.load(tmp_path)) == 120


# --- damage


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder, and the content of its file."""
    folder = tmp_path_factory.mktemp("saved")
    illustrated().save(folder)
    return folder, (folder / storage.FILE).read_bytes()


@settings(max_examples=150)
@given(st.data())
def test_any_damage_is_told(saved, data):
    (folder, content), name = saved, storage.FILE
    where = data.draw(st.integers(0, len(content) - 1))
    flipped = bytes([content[where] ^ data.draw(st.integers(1, 255))])
    changed = content[:where] + flipped + content[where + 1 :]
    damaged = data.draw(st.sampled_from([content[:where], changed, b"", None]))
    (folder / name).unlink() if damaged is None else (folder / name).write_bytes(damaged)
    try:
        same_content(SupportMemory.load(folder), illustrated())  # a blank of the header may change
    except MemoryFormatError as error:
        assert name in str(error)
    finally:
        (folder / name).write_bytes(content)


def test_files_of_a_user_in_the_folder_stay_and_a_folder_without_a_memory_is_said_so(tmp_path):
    own = {".memory.mine.safetensors": "a", "my-memory.safetensors": "b", "notes.md": "c"}
    for name, text in own.items():
        (tmp_path / name).write_text(text)
    for _ in range(2):
        filled(1).save(tmp_path)
    assert all((tmp_path / name).read_text() == text for name, text in own.items())
    (tmp_path / "site").mkdir()
    with pytest.raises(MemoryFormatError, match="there is no memory in .*site"):
        SupportMemory.load(tmp_path / "site")
    (tmp_path / "site" / storage.FILE).write_text("{}")
    with pytest.raises(MemoryFormatError, match="site.*is no memory"):
        filled(1).save(tmp_path / "site")
    assert [p.read_text() for p in (tmp_path / "site").iterdir()] == ["{}"]
