"""Saving and loading: nothing lost by a crash, nothing accepted that is damaged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_memory import DIM, NAMES, features, filled, mask_of, same_content

from rose_kit.memory import MemoryFormatError, SupportMemory, store


def pictured(images: int = 3) -> SupportMemory:
    """A memory that uses every column, with a gap in its ids and rows at the end removed."""
    memory = filled(images + 1, fingerprint="encoder/weights/maskclip")
    fmap = features(50)
    picture = np.random.default_rng(0).integers(0, 255, (*fmap.image_size, 3), dtype=np.uint8)
    more = {"metadata": {"year": 2020, "ok": True, "x": 0.1, "none": None, "é": "ü"}, "source": "ph ö/b.png"}
    memory.add("shown", fmap, mask_of(fmap), NAMES, thumbnail=picture, **more)
    memory.add("gone", fmap, mask_of(fmap), NAMES, thumbnail=picture)
    memory.remove("img1")
    memory.remove("gone")
    return memory


def test_round_trip_is_identical(tmp_path):
    memory = pictured()
    memory.save(tmp_path / "deep" / "memory")
    loaded = SupportMemory.load(tmp_path / "deep" / "memory", fingerprint="encoder/weights/maskclip")
    same_content(loaded, memory)
    assert (loaded.dim, loaded.fingerprint) == (memory.dim, memory.fingerprint)
    assert [type(v) for v in loaded.rows.metadata[-1].values()] == [int, bool, float, type(None), str]
    for a, b in zip(loaded.thumbnail(loaded.ids[-1]), memory.thumbnail(memory.ids[-1]), strict=True):
        assert np.array_equal(a, b)
    fmap = features(60)
    assert np.array_equal(*(m.add("next", fmap, mask_of(fmap), NAMES) for m in (loaded, memory)))
    same_content(loaded, memory)
    hits = [m.search(fmap.flat(), 3) for m in (loaded, memory)]
    assert np.array_equal(hits[0].rows, hits[1].rows)


def test_an_empty_memory_and_its_next_id_survive(tmp_path):
    memory = filled(1)
    memory.remove("img0")
    memory.save(tmp_path)
    loaded = SupportMemory.load(tmp_path)
    fmap = features()
    assert len(loaded) == 0 and loaded.add("a", fmap, mask_of(fmap), NAMES).tolist() == [3, 4, 5]


def test_saving_again_leaves_no_stale_files_and_no_pickle(tmp_path):
    (tmp_path / "notes-mine.parquet").write_text("the user's own")
    for images in (1, 2, 3):
        filled(images).save(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 4 and {name.split("-")[0].split(".")[0] for name in names} == {
        "arrays",
        "columns",
        "manifest",
        "notes",
    }
    assert not any(b"pickle" in path.read_bytes() for path in tmp_path.iterdir())


# --- crashes


@pytest.mark.parametrize("name", ["replace", "fsync", "open"])
@pytest.mark.parametrize("step", range(4))
def test_a_save_that_fails_at_any_step_harms_nothing(tmp_path, monkeypatch, name, step):
    old, new = filled(2), filled(4)
    old.save(tmp_path)
    real, calls = getattr(os, name), []

    def fail(*arguments, **options):
        calls.append(arguments)
        if len(calls) > step:
            raise OSError(28, "No space left on device")
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(store.os, name, fail)
        if name == "replace" and step == 3:
            new.save(tmp_path)  # a save takes three renames
        else:
            with pytest.raises(OSError, match="No space"):
                new.save(tmp_path)
    # The manifest's rename is the third: before it the old memory must be there, whole.
    same_content(SupportMemory.load(tmp_path), new if name == "replace" and step == 3 else old)
    new.save(tmp_path)
    same_content(SupportMemory.load(tmp_path), new)
    assert len(list(tmp_path.iterdir())) == 3


KILLED = """
import sys
sys.path.insert(0, sys.argv[2])
from test_memory import filled
memories = [filled(n) for n in (2, 5)]
print("ready", flush=True)
while True:
    for memory in memories:
        memory.save(sys.argv[1])
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_killing_the_writer_loses_nothing(tmp_path):
    filled(2).save(tmp_path)
    rng = np.random.default_rng(0)
    outcomes = []
    for _ in range(10):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path), os.path.dirname(__file__)],
            stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        ) as process:
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
        loaded = SupportMemory.load(tmp_path)
        outcomes.append(len(loaded))
        same_content(loaded, filled(len(loaded.images)))
    assert set(outcomes) <= {6, 15}


# --- damage


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    pictured().save(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def written(folder, files):
    for path in folder.iterdir():
        path.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damaged_file_is_named(tmp_path, saved, data):
    name = data.draw(st.sampled_from(sorted(saved)))
    content = saved[name]
    where = data.draw(st.integers(0, len(content) - 1))
    flipped = bytes([content[where] ^ data.draw(st.integers(1, 255))])
    damaged = data.draw(
        st.sampled_from([content[:where], content[:where] + flipped + content[where + 1 :], None])
    )
    files = {k: v for k, v in (saved | {name: damaged}).items() if v is not None}
    folder = written(tmp_path, files)
    try:
        loaded = SupportMemory.load(folder)
    except MemoryFormatError as error:
        assert name in str(error)
    else:  # a blank or a bracket of the manifest's layout may change without changing what it says
        assert name == "manifest.json" and json.loads(damaged) == json.loads(content)
        same_content(loaded, pictured())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "is not the manifest of a memory"),
        ("{}", "is not the manifest"),
        ("{" * 9, "is not the manifest"),
        ("[" * 100_000, "is not the manifest"),
        ('{"format": 1, "sha256": "0", "files": {}}', "checksum differs"),
        ('{"format": 3, "sha256": "0"}', "has format 3; this kit reads formats 1 and 2"),
    ],
)
def test_a_bad_manifest_is_refused(tmp_path, saved, text, message):
    folder = written(tmp_path, saved | {"manifest.json": text.encode()})
    with pytest.raises(MemoryFormatError, match=message):
        SupportMemory.load(folder)


def test_a_manifest_that_does_not_fit_its_data_is_refused(tmp_path, saved):
    manifest = json.loads(saved["manifest.json"])
    del manifest["sha256"]
    manifest["count"] += 1
    manifest["sha256"] = store.json_digest(manifest)
    folder = written(tmp_path, saved | {"manifest.json": json.dumps(manifest).encode()})
    with pytest.raises(MemoryFormatError, match="does not fit vectors of shape"):
        SupportMemory.load(folder)


def test_wrong_places_and_wrong_encoders_are_refused(tmp_path):
    with pytest.raises(MemoryFormatError, match=r"no memory at .*nowhere"):
        SupportMemory.load(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is a file, not a folder"):
        SupportMemory(DIM).save(tmp_path / "file")
    filled(1, fingerprint="A").save(tmp_path)
    assert SupportMemory.load(tmp_path).fingerprint == "A"
    with pytest.raises(ValueError, match="made with 'A'; you gave 'B'"):
        SupportMemory.load(tmp_path, fingerprint="B")
