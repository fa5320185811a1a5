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
    open_dataset,
    open_support,
    sample_support,
)


@pytest.fixture
def folder(tmp_path):
    """Four images of 6 x 8 pixels: ids with a gap (0, 7), an ignored pixel in every mask."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    (tmp_path / "classes.txt").write_text('0,sky\n7,"traffic light, red"\n255,ignore\n')
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


def test_palette_masks_give_indices_and_exif_turns_the_image(folder):
    indexed = Image.fromarray(np.full((6, 8), 7, dtype=np.uint8), mode="P")
    indexed.putpalette([200] * 768)
    indexed.save(folder / "masks" / "a.png")
    image, exif = Image.fromarray(np.arange(144, dtype=np.uint8).reshape(8, 6, 3)), Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    image.save(folder / "images" / "d.png", exif=exif)
    data = FolderDataset(folder)
    assert np.unique(data[0].mask).tolist() == [7]
    np.testing.assert_array_equal(data[3].image, np.rot90(np.asarray(image), -1))


def test_splits_keep_their_order_and_default_pairs_are_preferred_in_order(folder):
    halves = [[half.ids for half in open_dataset(str(folder))] for _ in range(2)]
    assert halves[0] == halves[1] and sorted(halves[0][0] + halves[0][1]) == open_support(
        str(folder)
    ).ids == [*"abcd"]
    split(folder, "train", "c", "a")
    assert FolderDataset(folder, "train").ids == open_support(str(folder)).ids == ["c", "a"]
    split(folder, "val", "d")
    assert [d.split for d in open_dataset(str(folder))] == ["train", "val"]
    split(folder, "support", "a")
    split(folder, "query", "d")
    assert [d.split for d in open_dataset(str(folder))] == ["support", "query"]
    assert [d.ids for d in open_dataset(str(folder), support="val", query="train")] == [["d"], ["c", "a"]]
    for options, value in (({"support": "val"}, "None"), ({"options": {"size": 8}}, "'size'")):
        with pytest.raises(ValueError, match=value):
            open_dataset(str(folder), **options)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-40])


def image_of(shape, value=0):
    return lambda path: Image.fromarray(np.full(shape, value, dtype=np.uint8)).save(path)


@pytest.mark.parametrize(
    ("damage", "value"),
    [
        (lambda f: cut_short(f / "images" / "a.jpg"), r"a\.jpg"),
        (lambda f: image_of((6, 8, 3))(f / "masks" / "c.png"), r"c\.png .*3"),
        (lambda f: image_of((6, 9))(f / "masks" / "c.png"), r"c\.png .*\(6, 9\).*\(6, 8\)"),
        (lambda f: image_of((6, 8), 3)(f / "masks" / "c.png"), r"c\.png .*3.*0, 7"),
        (shutil.rmtree, "is no folder with"),
        (lambda f: shutil.rmtree(f / "images"), r"images .*\.jpg"),
        (lambda f: (f / "masks" / "b.png").unlink(), "no mask for 'b'"),
        (lambda f: shutil.copy(f / "images" / "a.jpg", f / "images" / "a.png"), r"a\.jpg"),
        (lambda f: split(f, "train", "a", "zebra"), "'zebra'"),
        (lambda f: split(f, "train", "a", "a"), r"train\.txt"),
        (lambda f: (f / "classes.txt").write_text("0,sky\nsea\n"), "line 2: .*'sea'"),
        (lambda f: (f / "classes.txt").write_text("-1,sky\n"), "'-1,sky'"),
        (lambda f: (f / "classes.txt").write_text("0,sky\n\n0,sea\n"), "line 3: .*'sea'"),
        (lambda f: (f / "classes.txt").write_text("0,sky\n1,sky\n"), "line 2: .*'sky'"),
        (lambda f: (f / "classes.txt").write_bytes(b"0,\xff"), r"classes\.txt.*utf-8"),
    ],
)
def test_what_is_wrong_with_a_folder_is_named(folder, damage, value):
    damage(folder)
    with pytest.raises(DataError, match=value):
        list(FolderDataset(folder, "train" if (folder / "splits").exists() else None))


def test_an_unknown_split_is_named_with_those_there_are(folder):
    split(folder, "train", "a")
    with pytest.raises(ValueError, match="'val'.* train"):
        FolderDataset(folder, "val")


def test_an_atomic_write_is_whole_or_leaves_no_trace(tmp_path):
    path = tmp_path / "new.txt"
    path.write_text("whole")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as beside:
        assert beside.parent == tmp_path and beside.suffix == ".txt"
        beside.write_text("half a ")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == [path] and path.read_text() == "whole"
    with atomic_write(path) as beside:
        beside.write_text("another")
    assert path.read_text() == "another"


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
    assert len({tuple(sample_support(full, 2, seed)) for seed in range(8)}) > 1
    data = Presence([frozenset("a"), frozenset("b"), frozenset("b")])
    assert sample_support(data, 1, 0, classes=["a"]) == [0]
    with pytest.raises(ValueError, match="'zebra'.* a, b"):
        sample_support(data, 1, 0, classes=["zebra"])
