"""The folder format and the draw of a support set: right calls, and every guard seen to fire."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rose_kit.data import DataError, FolderDataset, default_splits, read_classes, sample_support

SHARED = Path(__file__).parents[2] / "shared" / "data"


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
    assert data.ids == ["a", "b", "c", "d"]
    assert data.class_names == ("sky", "traffic light, red")
    assert sample.image_id == "b"
    assert sample.image.shape == (6, 8, 3)
    assert sample.image.dtype == np.uint8
    assert sample.mask.shape == (6, 8)
    assert np.unique(sample.mask).tolist() == [7, 255]
    assert sample.classes == {0: "sky", 7: "traffic light, red"}
    assert [s.image_id for s in data] == data.ids
    assert [data.classes_of(i) for i in (0, 2)] == [{"traffic light, red"}, {"sky"}]


def test_presence_is_read_once(folder):
    data = FolderDataset(folder)
    assert data.classes_of(0) == {"traffic light, red"}
    (folder / "masks" / "a.png").unlink()
    assert data.classes_of(0) == {"traffic light, red"}


def test_palette_and_one_bit_masks_give_indices(folder):
    indexed = Image.fromarray(np.full((6, 8), 7, dtype=np.uint8), mode="P")
    indexed.putpalette([200] * 768)
    indexed.save(folder / "masks" / "a.png")
    Image.fromarray(np.zeros((6, 8), dtype=bool)).save(folder / "masks" / "b.png")
    assert np.unique(FolderDataset(folder)[0].mask).tolist() == [7]
    assert FolderDataset(folder)[1].mask.dtype == np.uint8


def test_exif_turn_applies_to_the_image(folder):
    image = Image.fromarray(np.arange(144, dtype=np.uint8).reshape(8, 6, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    image.save(folder / "images" / "d.png", exif=exif)
    turned = FolderDataset(folder)[3].image
    np.testing.assert_array_equal(turned, np.rot90(np.asarray(image), -1))


def test_splits_keep_their_order_and_default_pairs_are_preferred_in_order(folder):
    split(folder, "train", "c", "a")
    split(folder, "test", "b")
    assert FolderDataset(folder, "train").ids == ["c", "a"]
    assert [d.split for d in default_splits(folder)] == ["train", "test"]
    split(folder, "val", "d")
    assert [d.split for d in default_splits(folder)] == ["train", "val"]
    split(folder, "support", "a")
    split(folder, "query", "d")
    assert [d.split for d in default_splits(folder)] == ["support", "query"]


def test_without_splits_the_halves_are_seeded_and_disjoint(folder):
    pairs = [[d.ids for d in default_splits(folder, seed)] for seed in range(10)]
    assert all(sorted(support + query) == ["a", "b", "c", "d"] for support, query in pairs)
    assert pairs[0] == [d.ids for d in default_splits(folder, 0)]
    assert len({tuple(support) for support, _ in pairs}) > 1
    assert default_splits(folder)[1][0].image.shape == (6, 8, 3)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-40])


def rgb_mask(path):
    Image.fromarray(np.zeros((6, 8, 3), dtype=np.uint8)).save(path)


def mask_of(shape, value):
    return lambda path: Image.fromarray(np.full(shape, value, dtype=np.uint8)).save(path)


@pytest.mark.parametrize(
    ("file", "spoil", "message"),
    [
        ("images/a.jpg", truncate, r"cannot read image .*a\.jpg: .*truncated"),
        ("images/b.PNG", truncate, r"cannot read image .*b\.PNG"),
        ("masks/a.png", truncate, r"cannot read image .*a\.png"),
        ("images/a.jpg", lambda p: p.write_text("not an image"), "cannot identify image"),
        ("masks/c.png", rgb_mask, r"c\.png has 3 channels"),
        ("masks/c.png", mask_of((6, 9), 0), r"c\.png is \(6, 9\).*c\.JPEG is \(6, 8\)"),
        ("masks/c.png", mask_of((6, 8), 3), r"c\.png holds 3, .*it has 0, 7"),
    ],
)
def test_a_broken_sample_is_named_when_read(folder, file, spoil, message):
    spoil(folder / file)
    with pytest.raises(DataError, match=message):
        list(FolderDataset(folder))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, r"data folder '.*' does not exist"),
        (lambda f: (f / "classes.txt").unlink(), r"has no classes\.txt"),
        (lambda f: shutil.rmtree(f / "images"), r"images holds no \.jpg"),
        (lambda f: shutil.rmtree(f / "masks"), r"masks holds no \.png"),
        (lambda f: (f / "masks" / "b.png").unlink(), r"image without a mask: .*b\.PNG \(1 in all\)"),
        (lambda f: shutil.copy(f / "images" / "a.jpg", f / "images" / "a.png"), "two files of one image id"),
    ],
)
def test_a_broken_folder_is_named_when_opened(folder, spoil, message):
    spoil(folder)
    with pytest.raises(DataError, match=message):
        FolderDataset(folder)


def test_splits_that_are_wrong(folder):
    with pytest.raises(DataError, match=r"unknown split 'val' of .*it has: none"):
        FolderDataset(folder, "val")
    split(folder, "train", "a", "zebra")
    split(folder, "twice", "a", "a")
    with pytest.raises(DataError, match=r"unknown split 'val' of .*it has: train, twice"):
        FolderDataset(folder, "val")
    with pytest.raises(DataError, match=r"train\.txt names 'zebra'"):
        FolderDataset(folder, "train")
    with pytest.raises(DataError, match="empty or names an image twice"):
        FolderDataset(folder, "twice")


def test_one_image_cannot_be_split(folder):
    for name in ("b.PNG", "c.JPEG", "d.png"):
        (folder / "images" / name).unlink()
    with pytest.raises(DataError, match="holds 1 image"):
        default_splits(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0,sky\nsea\n", r"line 2: expected 'id,name', got 'sea'"),
        ("x,sky\n", "line 1: expected"),
        ("-1,sky\n", "line 1: expected"),
        ("0,\n", "line 1: expected"),
        ("9" * 5000 + ",sky\n", "line 1: expected"),
        ("0,sky\n\n0,sea\n", "line 3: id 0 or name 'sea' occurs twice"),
        ("0,sky\n1,sky\n", "line 2: id 1 or name 'sky' occurs twice"),
        ("0,sky|sea\n", r"line 1: .*cannot hold '\|'"),
        ("255,ignore\n", "names no class"),
    ],
)
def test_malformed_classes_are_named_with_their_line(tmp_path, text, message):
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_classes(tmp_path / "classes.txt")


def test_classes_that_are_not_text(tmp_path):
    (tmp_path / "classes.txt").write_bytes(b"0,\xff\xfe")
    with pytest.raises(DataError, match="as text"):
        read_classes(tmp_path / "classes.txt")


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


def test_an_image_counts_for_every_class_it_holds():
    """All classes in all images: once B images are drawn for one class, every class has B."""
    assert len(sample_support(Presence([frozenset("abcde")] * 20), 3, seed=0)) == 3


def test_draws_differ_by_seed_and_stay_in_the_pool():
    data = Presence([frozenset("abcde")] * 50)
    assert len({tuple(sample_support(data, 2, seed)) for seed in range(8)}) > 1


def test_only_the_classes_asked_for_are_served():
    data = Presence([frozenset("a"), frozenset("b"), frozenset("b")])
    assert sample_support(data, 1, 0, classes=["a"]) == [0]


def test_classes_that_nothing_holds_are_reported():
    with pytest.warns(UserWarning, match="no image to draw holds: c, d, e"):
        assert sample_support(Presence([frozenset("ab")]), 1, 0) == [0]


def test_wrong_draws_are_refused():
    data = Presence([frozenset("abcde")] * 3)
    with pytest.raises(ValueError, match="shots must be at least 1, got 0"):
        sample_support(data, 0, 0)
    with pytest.raises(ValueError, match="class 'zebra' is not in the data: a, b, c, d, e"):
        sample_support(data, 1, 0, classes=["zebra"])


@pytest.mark.parametrize(
    ("name", "images", "classes"), [("camvid", (367, 101), 11), ("coco_panoptic200", (100, 100), 129)]
)
def test_real_photographs(name, images, classes):
    if not (SHARED / name).is_dir():
        pytest.skip(f"the photographs of {name} are not beside the project")
    support, query = default_splits(SHARED / name)
    assert (len(support), len(query)) == images
    assert not set(support.ids) & set(query.ids)
    assert len(query.class_names) == classes
    sample = query[0]
    assert sample.mask.shape == sample.image.shape[:2]
    assert query.classes_of(0) <= set(query.class_names)
