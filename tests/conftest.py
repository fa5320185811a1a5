"""For tests of the command line: a folder of annotated images, a memory of it, two ways to call."""

import importlib
import re
from functools import partial

import numpy as np
import pytest
from PIL import Image

from data_scripts.scenes import support_and_query
from rose_kit import cli
from rose_kit.registry import REGISTRIES, datasets

COLOURS = {0: (90, 150, 220), 3: (60, 140, 50), 7: (200, 60, 40)}  # sky, grass, bus; ids have gaps


def write_folder(path, count=6, prefix="p"):
    """Images of 40 x 48 px: sky above grass, with a bus in all but the first."""
    for name in ("images", "masks", "splits"):
        (path / name).mkdir(parents=True)
    (path / "classes.txt").write_text("0,sky\n3,grass\n7,bus\n255,ignore\n")
    rng = np.random.default_rng(0)
    for i in range(count):
        mask = np.where(np.arange(40)[:, None] < 20, 0, 3).repeat(48, axis=1)  # (40, 48)
        if i:
            mask[16:32, 4 * i : 4 * i + 20] = 7
        table = np.zeros((8, 3))
        table[list(COLOURS)] = list(COLOURS.values())
        image = (table[mask] + rng.normal(0, 8, (40, 48, 3))).clip(0, 255).astype(np.uint8)
        Image.fromarray(image).save(path / "images" / f"{prefix}{i}.jpg", quality=95)
        Image.fromarray(mask.astype(np.uint8)).save(path / "masks" / f"{prefix}{i}.png")
    half = count // 2
    (path / "splits" / "train.txt").write_text("".join(f"{prefix}{i}\n" for i in range(half)))
    (path / "splits" / "val.txt").write_text("".join(f"{prefix}{i}\n" for i in range(half, count)))
    return path


@pytest.fixture(autouse=True)
def registries():
    """No test leaves what its plugins brought in a registry; the kit's own names are there before."""
    for stage in ("encoder", "model", "regions", "web.providers", "web.promptable"):
        importlib.import_module(f"rose_kit.{stage}")
    before = [dict(registry) for registry in REGISTRIES]
    yield
    for registry, own in zip(REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(own)


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "photos")


@pytest.fixture
def run(capsys):
    """Run a command line that must succeed, of rose-kit or another app; returns what it printed."""

    def call(*args, app=cli.app):
        status = cli.status([str(a) for a in args], app)
        out, err = capsys.readouterr()
        assert status == 0, err
        return out

    return call


@pytest.fixture
def refused(capsys):
    """Run a command line that must be refused in one line, which holds every one of `said`."""

    def call(*args, said, app=cli.app):
        assert cli.status([str(a) for a in args], app) == 2
        out, err = capsys.readouterr()
        assert out == "" and re.fullmatch(r"error: [^\n]+\n", err), err
        for text in said:
            assert str(text) in err, f"{text!r} not in {err!r}"
        return err

    return call


@pytest.fixture
def memory(run, folder, tmp_path):
    """The folder of a memory of `folder`'s support split."""
    run("memory", "build", folder, "--encoder", "handcrafted", "--out", tmp_path / "memory")
    return tmp_path / "memory"


@pytest.fixture
def few(monkeypatch):
    """A dataset like "scenes", registered under this name while a test runs: few of them, and small."""
    monkeypatch.setitem(datasets, "few", partial(support_and_query, pool=12, queries=4, size=64))
    return "few"
