"""A disk that refuses, a process that is stopped: one line with the path, and what was there is there."""

import os
import resource
import subprocess
import sys

import pytest
import yaml

import rose_kit
from conftest import write_folder
from rose_kit import ROSE, SupportMemory, cli, write_coco
from rose_kit.data import atomic_write
from rose_kit.evaluation import write_json
from tests.test_cli import notebook

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX modes, limits and signals")
EVALUATE = "evaluate photos --encoder handcrafted --methods knn-clip --shots 1 --seeds 1"
WRITERS = {
    "build": "memory build photos --encoder handcrafted --out new",
    "add": "memory add memory photos --split val",
    "remove": "memory remove memory --class bus",
    "evaluate": f"{EVALUATE},2,3 --json deep/rows.json",
    "segment": "segment photos/images/p4.jpg --memory memory --out out",
    "coco": "segment photos/images/p4.jpg --memory memory --out out --coco all.json",
    "sweep": "sweep grid.yaml --out tables",
    "run": "run small.ipynb --out ran",
}


def files(folder):
    """Path -> content of all that a user sees."""
    paths = [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")]
    return {p.relative_to(folder): p.read_bytes() for p in paths}


@pytest.fixture
def here(tmp_path, monkeypatch, memory, folder):
    """A folder of images, a memory, a grid and a notebook, where commands are given."""
    monkeypatch.chdir(tmp_path)
    grid = {"methods": ["knn-clip"], "dataset": "photos", "encoder": "handcrafted", "seeds": [1]}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    notebook(tmp_path / "small.ipynb", "print(k)")
    return tmp_path


@posix
@pytest.mark.parametrize("command", WRITERS)
def test_a_disk_that_takes_no_more_is_told_in_one_line_and_costs_nothing_stored(here, capsys, command):
    before, (soft, hard) = files(here), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (800, hard))  # a larger file fails as it does on a full disk
    try:
        status = cli.status(WRITERS[command].split())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    err = capsys.readouterr().err
    assert status == 2 and err.startswith("error: ") and err.count("\n") == 1, err
    assert ("File too large" in err and str(here) in err) or "ran/small.ipynb" in err, err
    after = files(here)
    assert before.items() <= after.items()
    assert command == "run" or set(after) == set(before)  # of a notebook, what was executed stays
    hidden = {p.name for p in here.rglob(".*")}
    assert hidden <= {".lock", ".rose_kit"}, hidden
    assert cli.status(WRITERS[command].split()) == 0  # once there is room


@posix
@pytest.mark.parametrize("umask", [0o000, 0o027, 0o077])
def test_files_are_as_readable_as_the_users_others_and_a_replaced_one_keeps_its_mode(tmp_path, umask):
    writers = {
        "rows.json": lambda path: write_json(path, []),
        "coco.json": lambda path: write_coco(path, [], {}),
        "memory": SupportMemory(3).save,
        "model": ROSE(4).save,
    }
    before = os.umask(umask)
    try:
        (tmp_path / "mine").touch()
        for name, write in writers.items():
            write(tmp_path / name)
        modes = {p.stat().st_mode for p in tmp_path.rglob("[!.]*") if p.is_file()}
        assert modes == {(tmp_path / "mine").stat().st_mode}
        (tmp_path / "rows.json").chmod(0o640)
        (tmp_path / "link.json").symlink_to("rows.json")
        write_json(tmp_path / "link.json", [{"a": 1}])
    finally:
        os.umask(before)
    assert (tmp_path / "link.json").is_symlink() and '"a": 1' in (tmp_path / "rows.json").read_text()
    assert (tmp_path / "rows.json").stat().st_mode & 0o777 == 0o640


@posix
def test_a_device_is_written_to_and_never_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with atomic_write(tmp_path / "pipe") as path:
        path.write_text("rows")
    assert os.read(reader, 9) == b"rows" and (tmp_path / "pipe").is_fifo()
    os.close(reader)
    with pytest.raises(OSError, match="No space left.*'/dev/full'"), atomic_write("/dev/full") as path:
        path.write_text("rows")


HALFWAY = """
import os, signal
from PIL import Image
from rose_kit.memory import storage
real = {"save_file": storage.save_file, "save": Image.Image.save}
def stop(what, path, *arguments):
    real[what](*arguments)
    os.truncate(path, 9)
    os.kill(os.getpid(), signal.SIGNAL)
storage.save_file = lambda tensors, path, about: stop("save_file", path, tensors, path, about)
Image.Image.save = lambda self, path, *a, **k: stop("save", path, self, path)
"""


@posix
@pytest.mark.parametrize(("name", "code", "command"), [("SIGINT", 130, "segment"), ("SIGTERM", 143, "add")])
def test_a_process_that_is_stopped_halfway_through_a_file_leaves_no_part_of_it(here, name, code, command):
    (here / "stop.py").write_text(HALFWAY.replace("SIGNAL", name))
    before = files(here)
    program = [sys.executable, "-m", "rose_kit", *WRITERS[command].split(), "--plugin", "stop.py"]
    env = os.environ | {"PYTHONPATH": os.path.dirname(os.path.dirname(rose_kit.__file__))}
    done = subprocess.run(program, capture_output=True, text=True, env=env)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    assert files(here) == before and {p.name for p in here.rglob(".*")} <= {".lock", ".rose_kit"}


def test_a_sweep_reports_what_fails_and_keeps_the_rest(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "torn"):
        write_folder(tmp_path / name)
    (tmp_path / "torn/images/p4.jpg").write_bytes(b"torn")
    grid = {"method": ["freeda"], "datasets": ["torn", "photos"], "encoder": "handcrafted", "seed": [1]}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    assert cli.status(["sweep", "grid.yaml", "--out", "out"]) == 1
    out, err = capsys.readouterr()
    assert "photos, handcrafted, shots 1" in out and "torn, handcrafted" not in out
    assert "torn/images/p4.jpg" in err and "'method' is read as 'methods'" in err
    assert len(list((tmp_path / "out").glob("*.parquet"))) == 1
    write_folder(tmp_path / "fresh")
    (tmp_path / "torn/images/p4.jpg").write_bytes((tmp_path / "fresh/images/p4.jpg").read_bytes())
    assert cli.status(["sweep", "grid.yaml", "--out", "out"]) == 0
    assert "1 of 2 tables" in capsys.readouterr().out
    next((tmp_path / "out").glob("torn*.parquet")).write_bytes(b"torn")
    assert cli.status(["sweep", "grid.yaml", "--out", "out"]) == 2
    assert "remove it" in capsys.readouterr().err
