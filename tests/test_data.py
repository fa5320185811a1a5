"""The folder format and the draw of a support set: right calls, and every guard seen to fire."""

import shutil
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rose_kit.data import (
    DataError,
    FolderDataset,
    atomic_write,
    default_splits,
    open_dataset,
    open_support,
    read_classes,
    sample_support,
)
from rose_kit.registry import datasets


@pytest.fixture
def folder(tmp_path):
    """Four images of 6 x 8 pixels: ids with a gap (0, 7), an ignored pixel in every mask."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    (tmp_path / "classes.txt").write_text("0,sky\n7,traffic light, red\n255,ignore\n")
    for name, suffix in (("a", ".jpg"), ("b", ".PNG"), ("c", ".JPEG"), ("d", ".png")):
        Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).save(
            tmp_path / "images" / (name + suffix)
        )
        mask = np.full((6, 8), 7 if name in "ab" else 0, dtype=np.uint8)
        mask[0, 0] = 255
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
    return tmp_path


def split(folder, name, *ids):
    (folder / "splits").mkdir(exist_ok=True)
    (folder / "splits" / f"{name}.txt").write_text("\n".join(ids))


def test_samples_have_images_masks_and_class_names(folder):
    data = FolderDataset(folder)
    sample = data[1]
    assert data.ids == [s.image_id for s in data] == ["a", "b", "c", "d"]
    assert data.class_names == ("sky", "traffic light, red")
    assert sample.image.shape == (6, 8, 3) and sample.image.dtype == np.uint8
    assert np.unique(sample.mask).tolist() == [7, 255] and sample.mask.shape == (6, 8)
    assert sample.classes == {0: "sky", 7: "traffic light, red"}
    assert [data.classes_of(i) for i in (0, 2)] == [{"traffic light, red"}, {"sky"}]


def test_palette_and_one_bit_masks_give_indices(folder):
    indexed = Image.fromarray(np.full((6, 8), 7, dtype=np.uint8), mode="P")
    indexed.putpalette([200] * 768)
    indexed.save(folder / "masks" / "a.png")
    Image.fromarray(np.zeros((6, 8), dtype=bool)).save(folder / "masks" / "b.png")
    data = FolderDataset(folder)
    assert np.unique(data[0].mask).tolist() == [7] and data[1].mask.dtype == np.uint8
    (folder / "masks" / "a.png").unlink()
    assert data.classes_of(0) == {"traffic light, red"}  # kept since the mask was read


def test_exif_turn_applies_to_the_image(folder):
    image = Image.fromarray(np.arange(144, dtype=np.uint8).reshape(8, 6, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    image.save(folder / "images" / "d.png", exif=exif)
    np.testing.assert_array_equal(FolderDataset(folder)[3].image, np.rot90(np.asarray(image), -1))


def test_splits_keep_their_order_and_default_pairs_are_preferred_in_order(folder):
    halves = [[d.ids for d in default_splits(folder, seed)] for seed in (0, 0, 1, 2, 3)]
    assert all(sorted(support + query) == ["a", "b", "c", "d"] for support, query in halves)
    assert halves[0] == halves[1] and any(halves[0] != other for other in halves[2:])
    split(folder, "train", "c", "a")
    split(folder, "test", "b")
    assert FolderDataset(folder, "train").ids == ["c", "a"]
    assert [d.split for d in default_splits(folder)] == ["train", "test"]
    split(folder, "val", "d")
    assert [d.split for d in default_splits(folder)] == ["train", "val"]
    split(folder, "support", "a")
    split(folder, "query", "d")
    assert [d.split for d in default_splits(folder)] == ["support", "query"]


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-40])


def image_of(shape, value=0):
    return lambda path: Image.fromarray(np.full(shape, value, dtype=np.uint8)).save(path)


@pytest.mark.parametrize(
    ("damage", "value"),
    [
        (lambda f: cut_short(f / "images" / "a.jpg"), r"a\.jpg"),
        (lambda f: cut_short(f / "masks" / "a.png"), r"a\.png"),
        (lambda f: image_of((6, 8, 3))(f / "masks" / "c.png"), r"c\.png .*3"),
        (lambda f: image_of((6, 9))(f / "masks" / "c.png"), r"c\.png .*\(6, 9\).*\(6, 8\)"),
        (lambda f: image_of((6, 8), 3)(f / "masks" / "c.png"), r"c\.png .*3.* 0, 7"),
        (shutil.rmtree, "does not exist"),
        (lambda f: (f / "classes.txt").unlink(), r"classes\.txt"),
        (lambda f: shutil.rmtree(f / "images"), r"images .*\.jpg"),
        (lambda f: (f / "masks" / "b.png").unlink(), r"b\.PNG"),
        (lambda f: shutil.copy(f / "images" / "a.jpg", f / "images" / "a.png"), r"a\.jpg"),
    ],
)
def test_what_is_wrong_with_a_folder_is_named(folder, damage, value):
    damage(folder)
    with pytest.raises(DataError, match=value):
        list(FolderDataset(folder))


def test_wrong_splits_are_named(folder):
    split(folder, "train", "a", "zebra")
    split(folder, "twice", "a", "a")
    for name, value in (("val", "train, twice"), ("train", "'zebra'"), ("twice", r"twice\.txt")):
        with pytest.raises(DataError, match=value):
            FolderDataset(folder, name)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0,sky\nsea\n", "line 2: .*'sea'"),
        ("x,sky\n", "'x,sky'"),
        ("-1,sky\n", "'-1,sky'"),
        ("0,\n", "'0,'"),
        ("9" * 5000 + ",sky\n", "line 1"),
        ("0,sky\n\n0,sea\n", "line 3: .*'sea'"),
        ("0,sky\n1,sky\n", "line 2: .*'sky'"),
        ("0,sky|sea\n", r"'sky\|sea'"),
        ("255,ignore\n", "no class"),
        ("0,\udcff", "as text"),
    ],
)
def test_malformed_classes_are_named_with_their_line(tmp_path, text, value):
    (tmp_path / "classes.txt").write_text(text, errors="surrogateescape")
    with pytest.raises(DataError, match=value):
        read_classes(tmp_path / "classes.txt")


@pytest.mark.parametrize("inside", ["", "file"])
def test_an_atomic_write_is_whole_or_leaves_no_trace(tmp_path, inside):
    path = tmp_path / "new.txt"  # a file, or a folder with a file inside

    def write(text):
        with atomic_write(path) as beside:
            assert beside.parent == tmp_path and beside.suffix == ".txt"
            (beside / inside).parent.mkdir(exist_ok=True)
            (beside / inside).write_text(text)
            if text == "half a ":
                raise KeyboardInterrupt

    write("whole")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(KeyboardInterrupt):
        write("half a ")
    assert sorted(tmp_path.rglob("*")) == before and (path / inside).read_text() == "whole"
    if not inside:
        write("another")
        assert path.read_text() == "another"


def test_datasets_open_by_name_or_path(folder, monkeypatch):
    monkeypatch.setitem(datasets, "pair", lambda size=3: (size, size + 1))
    assert open_dataset("pair") == (3, 4) and open_dataset("pair", {"size": 5}) == (5, 6)
    assert open_support("pair") == 3 and open_support(str(folder)).ids == ["a", "b", "c", "d"]
    split(folder, "train", "a")
    split(folder, "val", "b")
    assert open_support(str(folder)).split == "train" and open_support(str(folder), split="val").ids == ["b"]
    assert [d.split for d in open_dataset(str(folder), support="val", query="train")] == ["val", "train"]
    for data, options, value in (
        ("pair", {"options": {"sise": 5}}, "sise"),
        ("pair", {"options": {"size": "big"}}, "'big'"),
        ("pair", {"support": "train"}, "train"),
        (str(folder), {"options": {"size": 5}}, "size"),
        (str(folder), {"support": "train"}, "train"),
    ):
        with pytest.raises(ValueError, match=value):
            open_dataset(data, **options)


class Presence:
    """A dataset reduced to which classes each image holds."""

    def __init__(self, present, class_names="abcde"):
        self.present, self.class_names = present, list(class_names)
        self.ids = [str(i) for i in range(len(present))]

    def __len__(self):
        return len(self.present)

    def classes_of(self, i):
        return frozenset(self.present[i])


presences = st.lists(st.frozensets(st.sampled_from("abcde")), min_size=1, max_size=30)


@given(presences, st.integers(1, 5), st.integers(0, 3))
@settings(max_examples=80, deadline=None)
@pytest.mark.filterwarnings("ignore:no image to draw")
def test_every_class_reaches_its_shots_where_it_can(present, shots, seed):
    chosen = sample_support(Presence(present), shots, seed)
    assert chosen == sorted(set(chosen))
    held = Counter(name for i in chosen for name in present[i])
    available = Counter(name for classes in present for name in classes)
    assert all(held[name] >= min(shots, available[name]) for name in "abcde")
    assert len(chosen) <= 5 * shots
    assert chosen == sample_support(Presence(present), shots, seed)


def test_draws_differ_by_seed_and_serve_only_the_classes_asked_for():
    full = Presence([frozenset("abcde")] * 50)
    assert len(sample_support(full, 3, seed=0)) == 3  # an image counts for every class it holds
    assert len({tuple(sample_support(full, 2, seed)) for seed in range(8)}) > 1
    data = Presence([frozenset("a"), frozenset("b"), frozenset("b")])
    assert sample_support(data, 1, 0, classes=["a"]) == [0]
    with pytest.warns(UserWarning, match="c, d, e"):
        assert len(sample_support(data, 1, 0)) == 2
    for shots, classes, value in ((0, None, "0"), (1, ["zebra"], "'zebra'.* a, b")):
        with pytest.raises(ValueError, match=value):
            sample_support(data, shots, 0, classes=classes)
