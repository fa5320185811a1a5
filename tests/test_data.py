"""The folder format and the draw of a support set: right calls, and every guard seen to fire."""

import shutil
import unicodedata
import warnings
from collections import Counter
from datetime import date

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
    read_image,
    sample_support,
)
from rose_kit.encoder.base import image_tensor
from rose_kit.regions import Slic
from rose_kit.viz.overlay import overlay
from rose_kit.web.net import IMAGE_FORMATS, WebError, decode_image
from rose_kit.web.providers import Folder
from tests.imagefiles import ALPHA, GREY, IMAGES, LEVEL, NO_IMAGES, WHITE, grey, of, over_white, tiff, turned


@pytest.fixture
def folder(tmp_path):
    """Four images of 6 x 8 pixels: ids with a gap (0, 7), an ignored pixel in every mask."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    (tmp_path / "classes.txt").write_text('0,sky\n7,"traffic light, red"\n255,ignore\n')
    for name, suffix in (("a", ".jpg"), ("b", ".PNG"), ("c", ".JPEG"), ("d", ".png")):
        image = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / "images" / (name + suffix))
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


# --- images are what a viewer shows ----------------------------------------------------------------------


def in_folder(path):
    """The image of a folder that holds it alone, with a mask of its size."""
    for name in ("images", "masks"):
        (path.parent / "data" / name).mkdir(parents=True)
    with Image.open(path) as file:
        size = file.size[:: -1 if file.getexif().get(0x0112, 1) >= 5 and file.format != "TIFF" else 1]
    shutil.copy(path, path.parent / "data" / "images")
    Image.new("L", size).save(path.parent / "data" / "masks" / "photo.png")
    (path.parent / "data" / "classes.txt").write_text("0,sky\n")
    return FolderDataset(path.parent / "data")[0].image


def on_the_web(path):
    """By the web's decoder, which refuses the formats that are not of the web."""
    if Image.open(path).format in IMAGE_FORMATS:
        return decode_image(path.read_bytes(), "address")
    with pytest.raises(WebError, match="address: .*cannot identify image file"):
        decode_image(path.read_bytes(), "address")
    return read_image(path)


def of_tensor(image):
    return (255 * image_tensor(image)).round().permute(1, 2, 0).numpy()


DOORS = {
    "read_image": read_image,
    "folder": in_folder,
    "encoder, path": of_tensor,
    "encoder, PIL": lambda path: of_tensor(Image.open(path)),
    "overlay, PIL": lambda path: overlay(Image.open(path), np.full(read_image(path).shape[:2], 255), []),
    "web": on_the_web,
    "web folder": lambda path: Folder(path.parent).images("photo", 1, date.max)[0].image,
}


@pytest.mark.filterwarnings("ignore:.* frames")
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("kind", IMAGES)
def test_every_door_shows_an_image_as_a_viewer_does(tmp_path, kind, door):
    suffix, save, expected = IMAGES[kind]
    save(tmp_path / f"photo{suffix}")
    image = DOORS[door](tmp_path / f"photo{suffix}")
    assert image.shape == expected.shape and np.abs(image - expected.astype(float)).max() <= 1


def test_an_image_in_memory_may_have_any_mode(tmp_path):
    image = Image.fromarray(np.dstack([LEVEL, ALPHA]))
    for same in (image.convert("La"), image.convert("RGBA").convert("RGBa")):
        assert np.abs(read_image(same) - over_white(GREY, ALPHA)).max() <= 2  # of rounding
    for mode in ("RGBX", "YCbCr", "CMYK", "LAB"):
        assert np.abs(read_image(Image.fromarray(GREY).convert(mode)).astype(int) - GREY).max() <= 2
    for mode in ("I", "F", "1", "PA"):
        assert np.array_equal(read_image(Image.fromarray(WHITE).convert(mode)), grey(WHITE))
    image.save(tmp_path / "a.png", exif=turned(6))
    assert Slic(segments=4)(str(tmp_path / "a.png")).shape == LEVEL.shape[::-1]


@pytest.mark.parametrize("kind", NO_IMAGES)
def test_values_that_no_viewer_shows_are_refused_with_their_range(tmp_path, kind):
    values, named = NO_IMAGES[kind]
    tiff(np.array([values], np.float32))(tmp_path / "a.tif")
    with pytest.raises(DataError, match=rf"a\.tif: .*{named}.* in \[0, 1\]"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("kind", IMAGES)
def test_a_second_frame_is_told_once(tmp_path, kind):
    suffix, save, _ = IMAGES[kind]
    save(tmp_path / f"a{suffix}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(2):
            read_image(tmp_path / f"a{suffix}")
    assert len([w for w in caught if "holds 2 frames" in str(w.message)]) == ("frames" in kind)


# --- masks mean what they say -----------------------------------------------------------------------------


IDS = np.where(np.arange(48).reshape(6, 8) % 3, 7, 0).astype(np.uint8)
WIDE = IDS.astype(np.uint16)


def palette_of(array):
    image = Image.fromarray(array, mode="P")
    image.putpalette(np.random.default_rng(1).integers(0, 256, 768, dtype=np.uint8).tobytes())
    return image


MASKS = {
    "grey": (".png", of(IDS)),
    "capitals": (".PNG", of(IDS)),
    "palette": (".png", palette_of(IDS).save),
    "palette, transparent": (".png", lambda path: palette_of(IDS).save(path, transparency=0)),
    "palette, tiff": (".tif", palette_of(IDS).save),
    "bmp": (".bmp", of(IDS)),
    "gif": (".gif", lambda path: palette_of(IDS).save(path, optimize=False)),
    "16 bits": (".png", of(WIDE)),
    "16 bits, big-endian": (".tif", tiff(WIDE, byteorder=">")),
    "32 bits": (".tif", tiff(IDS.astype(np.int32))),
    "turned by EXIF": (".png", of(np.rot90(IDS), exif=turned(6))),
}


@pytest.mark.parametrize("kind", MASKS)
def test_a_mask_of_any_lossless_kind_gives_its_ids(folder, kind):
    suffix, save = MASKS[kind]
    (folder / "masks" / "a.png").unlink()
    save(folder / "masks" / f"a{suffix}")
    mask = FolderDataset(folder)[0].mask
    assert np.array_equal(mask, IDS) and mask.dtype.isnative and mask.dtype.kind in "iu"


def test_a_mask_of_one_bit_holds_0_and_1(folder):
    (folder / "classes.txt").write_text("0,sky\n1,sea\n")
    Image.fromarray(IDS == 7).save(folder / "masks" / "a.png")
    assert np.array_equal(FolderDataset(folder, ["a"])[0].mask, IDS == 7)


SMOOTH = np.where(IDS == 7, 255, 0).astype(np.uint8)
SMOOTH[2, 2:5] = 90, 128, 160
REFUSED_MASKS = {
    "colours": (".png", of(np.dstack([IDS] * 3)), "3 channels .*RGB.* id of the class for each colour"),
    "alpha": (".png", of(np.dstack([IDS, IDS])), "2 channels .*LA.* without transparency"),
    "colours, alpha": (".png", of(np.dstack([IDS] * 4)), "4 channels .*RGBA"),
    "jpeg": (".jpg", of(IDS), "JPEG, which changes values; save it as PNG"),
    "jpeg in tiff": (".tif", of(IDS, compression="jpeg"), "JPEG"),
    "jpeg 2000": (".jp2", of(IDS), "JPEG"),
    "jpeg called png": (".png", of(IDS, format="JPEG"), "JPEG"),
    "floats": (".tif", tiff(IDS.astype(np.float32)), "floats; .* whole numbers"),
    "antialiased": (".png", of(SMOOTH), "holds 90, .*0, 7.*antialiased"),
    "scaled to 16 bits": (".png", of(WIDE * 8000), "holds 56000"),
    "an id too many": (".png", of(IDS + 1), r"holds 1, .*\[0, 7\]"),
    "another size": (".png", of(IDS[:5]), r"\(5, 8\) \(rows, columns\), its image \(6, 8\)$"),
    "on its side": (".png", of(np.rot90(IDS)), r"\(8, 6\).*\(6, 8\).*on its side.*EXIF"),
    "turned by its EXIF": (".png", of(IDS, exif=turned(6)), r"\(8, 6\).*\(6, 8\).*on its side.*EXIF"),
    "cut short": (".png", lambda path: (of(IDS)(path), cut_short(path)), "truncated"),
}


@pytest.mark.parametrize("kind", REFUSED_MASKS)
def test_a_mask_that_cannot_be_meant_is_refused_with_the_way_out(folder, kind):
    suffix, save, message = REFUSED_MASKS[kind]
    (folder / "masks" / "a.png").unlink()
    save(folder / "masks" / f"a{suffix}")
    with pytest.raises(DataError, match=rf"masks/a\{suffix}:? .*{message}"):
        FolderDataset(folder)[0]


def test_names_belong_together_in_any_form_of_unicode(folder):
    forms = [unicodedata.normalize(form, "Björk é") for form in ("NFC", "NFD")]
    for image, mask in (forms, forms[::-1]):
        for kind, name in (("images", image), ("masks", mask)):
            next((folder / kind).glob("[dB]*.png")).rename(folder / kind / f"{name}.png")
        (folder / "classes.txt").write_text(f"0,{mask}\n7,b\n")
        split(folder, "val", image)
        assert FolderDataset(folder).ids[0] == forms[0] and FolderDataset(folder, [mask]).ids == [forms[0]]
        assert FolderDataset(folder, "val")[0].image_id == forms[0]
        assert FolderDataset(folder).class_names[0] == forms[0]
    shutil.copy(folder / "images" / f"{forms[1]}.png", folder / "images" / f"{forms[0]}.png")
    with pytest.raises(DataError, match="two files of one image id"):
        FolderDataset(folder)


def test_what_a_folder_leaves_out_is_named_once_with_a_count(folder):
    for name in (".DS_Store", "images/._a.jpg", "images/Thumbs.db", "images/notes.txt", "masks/d.json"):
        (folder / name).write_text("x")
    (folder / "images" / "more").mkdir()
    (folder / "masks" / "a.png").unlink()
    for i in range(5):
        shutil.copy(folder / "masks" / "b.png", folder / "masks" / f"z{i}.png")
    split(folder, "train", "c", "d")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        data = [FolderDataset(folder, name) for name in (None, "train", None)]
    assert [d.ids for d in data] == [["b", "c", "d"], ["c", "d"], ["b", "c", "d"]]
    [message] = [str(w.message).partition(": left out: ")[2] for w in caught]
    assert set(message.split("; ")) == {
        "hidden files: 1 (images/._a.jpg)",
        "subfolders: 1 (images/more)",
        "files of other kinds: 3 (images/Thumbs.db, images/notes.txt, masks/d.json)",
        "masks without an image: 5 (z0, z1, z2, ...)",
        "images without a mask: 1 (a)",
    }
    for path in (folder / "masks").glob("[bcd].png"):
        path.unlink()
    with pytest.raises(DataError, match="'a', 'z0'"):
        FolderDataset(folder)


# --- folders and splits -----------------------------------------------------------------------------------


def test_splits_keep_their_order_and_default_pairs_are_preferred_in_order(folder):
    halves = [[half.ids for half in open_dataset(str(folder))] for _ in range(2)]
    assert halves[0] == halves[1] and sorted([*halves[0][0], *halves[0][1]]) == [*"abcd"]
    assert open_support(str(folder)).ids == [*"abcd"]
    split(folder, "train", "c", "a")
    assert FolderDataset(folder, "train").ids == open_support(str(folder)).ids == ["c", "a"]
    split(folder, "val", "d")
    assert [d.split for d in open_dataset(str(folder))] == ["train", "val"]
    split(folder, "support", "a")
    split(folder, "query", "d")
    assert [d.split for d in open_dataset(str(folder))] == ["support", "query"]
    assert [d.ids for d in open_dataset(str(folder), support="val", query="train")] == [["d"], ["c", "a"]]
    for options, value in (({"support": "val"}, "None"), ({"size": 8}, "'size'")):
        with pytest.raises(ValueError, match=value):
            open_dataset(str(folder), **options)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-40])


def test_masks_whose_255_may_be_a_class_and_images_without_any_are_told(folder):
    save = lambda name, mask: Image.fromarray(np.uint8(mask)).save(folder / "masks" / f"{name}.png")  # noqa: E731
    binary = np.where(IDS, 255, 0)
    for name, mask in {"a": IDS, "b": IDS, "c": binary, "d": binary * 0 + 255}.items():
        save(name, mask)
    with pytest.warns(UserWarning, match="1 of 4 .*: d"), pytest.warns(UserWarning, match=r"1 mask\(s\)"):
        sample_support(FolderDataset(folder), 1, seed=0)
    save("a", np.maximum(IDS, binary * (np.arange(8) > 5)))  # 7 and 255 in one mask: the border of a thing
    save("d", IDS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample_support(FolderDataset(folder), 1, seed=0)


@pytest.mark.parametrize("name", ["training.txt", "Train.TXT", "val.txt"])
def test_splits_that_are_not_used_are_named(folder, name):
    split(folder, "any", "a")
    (folder / "splits" / "any.txt").rename(folder / "splits" / name)
    for door in (open_dataset, open_support):
        with pytest.warns(UserWarning, match=f"splits are not used.*: {name[:-4]}"):
            door(str(folder))


def clear(folder):
    return [path.unlink() for path in folder.glob("*.*")]


def says(text):
    return lambda folder: (folder / "classes.txt").write_text(text)


@pytest.mark.parametrize(
    ("damage", "value"),
    [
        (lambda f: cut_short(f / "images" / "a.jpg"), r"a\.jpg"),
        (shutil.rmtree, "is no folder with"),
        (lambda f: shutil.rmtree(f / "images"), r"images .*\.jpg"),
        (lambda f: [split(f, "train", "b"), (f / "masks" / "b.png").unlink()], "no mask for 'b'"),
        (lambda f: [(f / "images" / "more").mkdir(), *clear(f / "images")], "subfolders: 1 .*images/more"),
        (lambda f: shutil.copy(f / "images" / "a.jpg", f / "images" / "a.png"), r"a\.jpg"),
        (lambda f: split(f, "val", "a"), "'train'.* val"),
        (lambda f: split(f, "train", "a", "zebra"), "'zebra'"),
        (lambda f: split(f, "train", "a", "a"), r"train\.txt"),
        (lambda f: split(f, "train", "a.jpg"), r"'a\.jpg' .*without folder and suffix"),
        (says("0,sky\nsea\n"), "line 2: .*'sea'"),
        (says("-1,sky\n"), "'-1,sky'"),
        (says("0,sky\n\n0,sea\n"), "line 3: .*'sea'"),
        (says("0,sky\n1,sky\n"), "line 2: .*'sky'"),
        (says("0,sky\n7,b\n255,cat\n"), "255 is 'cat', .* ignore"),
        (lambda f: (f / "classes.txt").write_bytes(b"0,\xff"), r"classes\.txt.*utf-8"),
    ],
)
def test_what_is_wrong_with_a_folder_is_named(folder, damage, value):
    damage(folder)
    with pytest.raises(ValueError, match=value):
        list(FolderDataset(folder, "train" if (folder / "splits").exists() else None))


def test_ids_name_an_image_once(folder):
    with pytest.raises(DataError, match="twice: 'b'"):
        FolderDataset(folder, ["a", "b", "b"])


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
@pytest.mark.filterwarnings("ignore:no image to draw", "ignore:.* images to draw have no class")
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
