"""A fuzzer: files and parameters, changed at random, go through the doors that users' files go through.

Whatever comes in, what comes out is a right answer, or one of the kit's errors, which names the file; nothing
hangs, and a change that changes nothing in what the file says gives the same answer. ROSE_FUZZ is the number
of cases (300).
"""

import json
import os
import signal
from functools import partial

import numpy as np
import pytest
import yaml
from PIL import Image

from conftest import write_folder
from rose_kit import FolderDataset, cli, read_coco, write_coco
from rose_kit.data import open_dataset, read_image
from rose_kit.evaluation import expand_grid

CASES, SECONDS = int(os.environ.get("ROSE_FUZZ", "300")), 20
ODD = (None, True, -1, 0, 255, 256, 65536, 2**70, 1e308, 0.5, float("nan"), [], {}, [[]], [None], {"a": 1})
ODD += ("", " ", "1", "sky", "a|b", "é\x00", "x" * 300, "../../x")
ODD += ([1, 2, 3], ["knn-clip"], {"knn-clip": {"k": 0}})


def pick(rng, items):
    """One of some items, as it is."""
    return items[rng.integers(len(items))]


def change_bytes(rng, content):
    """Some bytes flipped, cut off, put in, doubled, or set to zero."""
    content = bytearray(content)
    for _ in range(1 + rng.integers(3)):
        at, length = rng.integers(len(content) + 1), int(2 ** rng.uniform(0, 6))
        part = content[at : at + length]
        turned = bytes(b ^ 1 << 4 for b in part)
        content[at : at + length] = pick(rng, [b"", part * 2, bytes(len(part)), rng.bytes(length), turned])
        if rng.random() < 0.1:
            del content[at:]
    return bytes(content)


def places(tree):
    """Every container of a JSON tree with each of its keys or positions."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from places(tree[key])


def change_tree(rng, tree):
    """A value of a JSON tree replaced by an odd one or by another of the tree, taken out, or doubled."""
    tree = json.loads(json.dumps(tree))
    for _ in range(1 + rng.integers(2)):
        if not (spots := list(places(tree))):
            break
        holder, key = pick(rng, spots)
        other, name = pick(rng, spots)
        kind = rng.integers(4)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, list):
            holder.insert(key, json.loads(json.dumps(holder[key])))
        else:
            holder[key] = json.loads(json.dumps(pick(rng, ODD) if kind < 3 else other[name]))
    return tree


def unless_refused(call, *names):
    """What a call returns; None if it refuses in a message that holds one of the names."""
    try:
        return call()
    except (ValueError, OSError) as error:
        assert any(str(name) in str(error) for name in names), f"no file is named: {error!r}"


# --- doors: a world that nothing has changed, and what a case of each does --------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder of annotated images, and COCO JSON of it."""
    here = tmp_path_factory.mktemp("world")
    write_folder(here / "photos", count=4)
    samples = list(FolderDataset(here / "photos"))
    write_coco(here / "coco.json", ((s.image_id, s.mask) for s in samples), samples[0].classes)
    polygon = {"id": 99, "image_id": 1, "category_id": 4, "area": 50, "iscrowd": 0, "bbox": [2, 2, 9, 9]}
    tree = json.loads((here / "coco.json").read_text())
    tree["annotations"].append(polygon | {"segmentation": [[2, 2, 12, 2, 12, 12]]})
    (here / "coco.json").write_text(json.dumps(tree))
    return here


def shown(path):
    """What Pillow makes of a file by itself, as far as it says how the image looks; None if it is broken."""
    try:
        with Image.open(path) as file:
            about = [file.info.get("transparency"), file.info.get("exif"), file.getexif().get(274)]
            return file.mode, file.getpalette(), repr(about), np.asarray(file).tobytes(), file.size
    except Exception:
        return None


FILES = [(mode, suffix) for mode in ("RGB", "L", "P", "1") for suffix in (".png", ".tif", ".bmp", ".gif")]
FILES += 3 * [("RGB", ".jpg"), ("RGBA", ".png"), ("I;16", ".png"), ("F", ".tif"), ("RGBA", ".webp")]


def an_image(rng, world, here):
    mode, suffix = pick(rng, FILES)
    values = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    deep = {"I;16": np.uint16, "F": np.float32}.get(mode)
    image = Image.fromarray(values[..., 0].astype(deep)) if deep else Image.fromarray(values).convert(mode)
    path = here / f"image{suffix}"
    image.save(path)
    before, answer = shown(path), read_image(path)
    content = path.read_bytes()
    path.write_bytes(content + rng.bytes(9) if rng.random() < 0.1 else change_bytes(rng, content))
    after, array = shown(path), unless_refused(lambda: read_image(path), path)
    if array is not None:
        assert array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8 and array.size
        assert after is not None, "Pillow refuses what the kit reads"
    assert after != before or (array is not None and np.array_equal(array, answer)), "it shows the same"


def a_mask(rng, world, here):
    dataset = FolderDataset(write_folder(here / "photos", count=2))
    path = here / "photos/masks/p1.png"
    path.write_bytes(change_bytes(rng, path.read_bytes()))
    sample = unless_refused(lambda: dataset[1], path)
    if sample is not None:
        assert np.array_equal(sample.mask, np.asarray(Image.open(path))), "not the values of the file"
        assert {*np.unique(sample.mask).tolist()} <= {*sample.classes, 255} and sample.mask.shape == (40, 48)


def classes_and_splits(rng, world, here):
    folder = write_folder(here / "photos", count=4)
    path = folder / pick(rng, ["classes.txt", "splits/train.txt", "splits/val.txt"])
    before, content = [(d.classes, d.ids) for d in open_dataset(str(folder))], path.read_bytes()
    for same in (b"\xef\xbb\xbf" + content, content.replace(b"\n", b"\r\n"), content + b"\n\n \n"):
        path.write_bytes(same)
        assert [(d.classes, d.ids) for d in open_dataset(str(folder))] == before, "it says the same"
    path.write_bytes(change_bytes(rng, content))
    for dataset in unless_refused(lambda: open_dataset(str(folder)), path, folder) or ():
        assert len(set(dataset.class_names)) == len(dataset.classes) > 0
        assert all(map(str.strip, dataset.class_names))
        for i in range(len(dataset)):
            unless_refused(partial(dataset.__getitem__, i), folder)


def coco(rng, world, here):
    path, tree = here / "coco.json", json.loads((world / "coco.json").read_text())
    changed = json.dumps(change_tree(rng, tree)).encode()
    path.write_bytes(change_bytes(rng, json.dumps(tree).encode()) if rng.random() < 0.2 else changed)
    read = unless_refused(lambda: read_coco(path), path)
    if read is not None:
        masks, classes = read
        assert all(m.ndim == 2 and set(np.unique(m).tolist()) <= {*classes, 255} for m in masks.values())
        assert all(isinstance(name, str) and name for name in [*classes.values(), *masks]), "no names"


def a_grid(rng, world, here):
    grid = {"methods": ["knn-clip", {"rns": {"k": [4, 8]}}], "dataset": "photos", "shots": [1], "seeds": [1]}
    path = here / "grid.yaml"
    if rng.random() < 0.5:
        path.write_bytes(change_bytes(rng, yaml.safe_dump(grid).encode()))
    else:
        path.write_text(yaml.safe_dump(change_tree(rng, grid)))
    content = unless_refused(lambda: cli.read_yaml(path), path)
    for spec in unless_refused(lambda: expand_grid(content), "") or ():
        numbers = [spec["shots"], *spec["seeds"]]
        assert spec["methods"] and spec["seeds"] and all(type(n) is int for n in numbers)


TEXTS = """
1 0 -1 2,1 1,1 x nan 1e9 99999999999999999999 é sky sky|bus sky,bus a,,b
slic slic:segments=0 slic:segments=9 handcrafted knn-clip rns,knn-clip
knn-clip.k=2 knn-clip.k=0 knn-clip.k=nan knn-clip.weight=7 knn-clip.temperature=0
"""
OPTIONS = """
--shots --seeds --limit --classes --regions --set --without-visual --encoder --methods --query-split
--support-split --without-text --size --domain --preset
"""
GIVEN = {"encoder": "handcrafted", "methods": "knn-clip", "shots": "1", "seeds": "1", "limit": "1"}


def the_command_line(rng, world, here):
    texts = ["", " ", "bus, sky", *TEXTS.split()]
    given = {f"--{name}": value for name, value in GIVEN.items()}
    given |= {pick(rng, OPTIONS.split()): pick(rng, texts) for _ in range(1 + rng.integers(2))}
    if rng.random() < 0.3:
        settings = {"methods": ["knn-clip"], "encoder": "handcrafted", "set": ["knn-clip.k=2"], "seeds": [1]}
        (here / "preset.yaml").write_text(yaml.safe_dump(change_tree(rng, settings)))
        given = {"--preset": str(here / "preset.yaml"), "--limit": "1"}
    if given.get("--encoder") not in ("handcrafted", None) or "scenes" in given.values():
        given["--encoder"] += "-x"  # none that takes long to load
    words = [word for pair in given.items() for word in pair]
    assert cli.status(["evaluate", str(world / "photos"), *words]) in (0, 1, 2)


DOORS = {d.__name__: d for d in (an_image, a_mask, classes_and_splits, coco, a_grid, the_command_line)}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", range(CASES // len(DOORS)))
@pytest.mark.parametrize("door", DOORS)
def test_whatever_is_changed_the_answer_is_right_or_an_error_that_names_the_file(
    door, case, world, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"it takes longer than {SECONDS} s"))
    signal.alarm(SECONDS)
    try:
        DOORS[door](np.random.default_rng([list(DOORS).index(door), case]), world, tmp_path)
    finally:
        signal.alarm(0)
