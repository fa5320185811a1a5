"""Standard datasets: small archives in the real layout -> folder format -> loader, pixel for pixel."""

import io
import shutil
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from data_scripts import archives as reading
from data_scripts import convert as conversion
from data_scripts.__main__ import status
from data_scripts.benchmark import labels, prompts
from data_scripts.convert import convert
from data_scripts.table import BENCHMARKS, find
from rose_kit.data import DataError, FolderDataset, default_splits, read_classes

GOLDEN = Path(__file__).parent / "golden"
PASSWORD = "only for tests"  # of golden/foodseg103_encrypted.zip, written by Info-ZIP 3.0


@dataclass
class Made:
    """What a small archive holds: expected class ids by image id, image files, ids by split."""

    masks: dict
    images: dict
    splits: dict
    password: str | None = None


def grid(*values, dtype=np.uint8):
    """(8, 12): four blocks of 4 x 6 px with the given values."""
    return np.array(values, dtype=dtype).reshape(2, 2).repeat(4, 0).repeat(6, 1)


def encoded(array, kind="PNG", mode=None):
    image = Image.fromarray(array)
    if mode == "P":  # as VOC stores indices: a palette image
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes())
    elif mode:
        image = image.convert(mode)
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def photo(seed, kind="JPEG"):
    return encoded(np.random.default_rng(seed).integers(0, 256, (8, 12, 3), dtype=np.uint8), kind)


def write_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)


def write_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def voc2012(folder):
    values = {"2007_000032": (0, 1, 15, 255), "2007_000039": (20, 20, 0, 0), "2007_000033": (5, 255, 5, 0)}
    root, files = "VOCdevkit/VOC2012", {}
    files[f"{root}/Annotations/2007_000032.xml"] = b"<annotation/>"
    files[f"{root}/ImageSets/Segmentation/train.txt"] = b"2007_000032\n2007_000039\n"
    files[f"{root}/ImageSets/Segmentation/val.txt"] = b"2007_000033\n"
    files[f"{root}/ImageSets/Main/train.txt"] = b"2007_000027\n"
    images = {i: photo(n) for n, i in enumerate(values)}
    for i in [*values, "2007_000027"]:  # the last has boxes only
        files[f"{root}/JPEGImages/{i}.jpg"] = images.get(i, photo(9))
    for i, v in values.items():
        files[f"{root}/SegmentationClass/{i}.png"] = encoded(grid(*v), mode="P")
        files[f"{root}/SegmentationObject/{i}.png"] = encoded(grid(7, 7, 7, 7), mode="P")
    write_tar(folder / "VOCtrainval_11-May-2012.tar", files)
    masks = {i: grid(*v) for i, v in values.items()}
    return Made(masks, images, {"train": ["2007_000032", "2007_000039"], "val": ["2007_000033"]})


def context(expected):
    def make(folder):
        root = "VOCdevkit/VOC2010"
        source = {"2008_000002": (2, 458, 440, 1), "2008_000003": (44, 0, 459, 189)}
        images = {i: photo(n) for n, i in enumerate(source)}
        files = {f"{root}/JPEGImages/{i}.jpg": images[i] for i in source}
        files[f"{root}/JPEGImages/2009_000001.jpg"] = photo(5)
        files[f"{root}/ImageSets/Main/train.txt"] = b"2008_000002\n"
        files[f"{root}/ImageSets/Main/val.txt"] = b"2008_000003\n"
        files[f"{root}/ImageSets/Main/aeroplane_train.txt"] = b"2008_000002  1\n"
        files[f"{root}/ImageSets/Segmentation/train.txt"] = b"2009_000001\n"
        write_tar(folder / "VOCtrainval_03-May-2010.tar", files)
        mats = {"labels.txt": b"1: accordion\n2: aeroplane\n"}
        for i, v in source.items():
            stream = io.BytesIO()
            savemat(stream, {"LabelMap": grid(*v, dtype=np.uint16)}, do_compression=True)
            mats[f"trainval/{i}.mat"] = stream.getvalue()
        write_tar(folder / "pascal_context_trainval.tar.gz", mats, "w:gz")
        masks = {i: grid(*v) for i, v in zip(source, expected, strict=True)}
        return Made(masks, images, {"train": ["2008_000002"], "val": ["2008_000003"]})

    return make


def coco(expected):
    def make(folder):
        source = {("train", "000000000009"): (0, 12, 91, 255), ("val", "000000000139"): (89, 181, 71, 0)}
        images = {i: photo(n) for n, (_, i) in enumerate(source)}
        for split in ("train", "val"):
            of = {f"{split}2017/{i}.jpg": images[i] for s, i in source if s == split}
            write_zip(folder / f"{split}2017.zip", {f"{split}2017/": b"", **of})
        maps = {f"{s}2017/{i}.png": encoded(grid(*v)) for (s, i), v in source.items()}
        write_zip(folder / "stuffthingmaps_trainval2017.zip", maps)
        masks = {i: grid(*v) for (_, i), v in zip(source, expected, strict=True)}
        return Made(masks, images, {"train": ["000000000009"], "val": ["000000000139"]})

    return make


def cityscapes(folder):
    source = {
        ("train", "aachen_000000_000019"): (7, 33, 0, 26),
        ("val", "frankfurt_000000_000294"): (11, 1, 29, 31),
        ("test", "berlin_000000_000019"): (3, 3, 3, 3),  # its ground truth is withheld
    }
    images = {i: photo(n, "PNG") for n, (_, i) in enumerate(source)}
    left, fine = {"README": b"", "license.txt": b""}, {"README": b"", "license.txt": b""}
    for (split, i), v in source.items():
        stem = f"{split}/{i.split('_')[0]}/{i}"
        left[f"leftImg8bit/{stem}_leftImg8bit.png"] = images[i]
        fine[f"gtFine/{stem}_gtFine_labelIds.png"] = encoded(grid(*v))
        fine[f"gtFine/{stem}_gtFine_instanceIds.png"] = encoded(grid(26001, 7, 7, 7, dtype=np.uint16))
        fine[f"gtFine/{stem}_gtFine_color.png"] = encoded(grid(1, 2, 3, 4), mode="RGBA")
        fine[f"gtFine/{stem}_gtFine_polygons.json"] = b"{}"
    write_zip(folder / "leftImg8bit_trainvaltest.zip", left)
    write_zip(folder / "gtFine_trainvaltest.zip", fine)
    train, val, test = (i for _, i in source)
    images.pop(test)
    masks = {train: grid(0, 18, 255, 13), val: grid(2, 255, 255, 16)}
    return Made(masks, images, {"train": [train], "val": [val]})


def ade20k(folder):
    source = {
        ("training", "ADE_train_00000001"): (0, 1, 150, 13),
        ("validation", "ADE_val_00000001"): (1, 2, 3, 0),
    }
    images = {i: photo(n) for n, (_, i) in enumerate(source)}
    root = "ADEChallengeData2016"
    files = {f"{root}/": b"", f"{root}/objectInfo150.txt": b"Idx\tRatio\tTrain\tVal\tStuff\tName\n"}
    for (split, i), v in source.items():
        files[f"{root}/annotations/{split}/{i}.png"] = encoded(grid(*v))
        files[f"{root}/images/{split}/{i}.jpg"] = images[i]
    write_zip(folder / "ADEChallengeData2016.zip", files)
    masks = {"ADE_train_00000001": grid(255, 0, 149, 12), "ADE_val_00000001": grid(0, 1, 2, 255)}
    return Made(masks, images, {"train": ["ADE_train_00000001"], "val": ["ADE_val_00000001"]})


def foodseg103(folder):
    shutil.copy(GOLDEN / "foodseg103_encrypted.zip", folder / "FoodSeg103.zip")
    masks = {
        "00000000": grid(0, 1, 48, 103),
        "00000002": grid(0, 66, 66, 85),
        "00000048": grid(48, 85, 0, 102),
    }
    with zipfile.ZipFile(folder / "FoodSeg103.zip") as archive:
        archive.setpassword(PASSWORD.encode())
        names = {Path(n).stem: n for n in archive.namelist() if n.endswith(".jpg")}
        images = {i: archive.read(n) for i, n in names.items()}
    return Made(masks, images, {"train": ["00000000", "00000002"], "test": ["00000048"]}, PASSWORD)


def cub200(folder):
    species = {1: "001.Black_footed_Albatross", 200: "200.Common_Yellowthroat"}
    birds = {  # name -> species, grey levels (51 for each annotator who says bird), stored as, in train
        "Black_Footed_Albatross_0046_18": (1, (0, 102, 153, 255), "L", 0),
        "Common_Yellowthroat_0055_190967": (200, (255, 0, 51, 204), "LA", 1),
    }
    images = {i: photo(n) for n, i in enumerate(birds)}
    root, files, grey = "CUB_200_2011", {"attributes.txt": b"1 has_bill_shape::curved\n"}, {}
    for i, (number, levels, mode, _) in birds.items():
        files[f"{root}/images/{species[number]}/{i}.jpg"] = images[i]
        grey[f"segmentations/{species[number]}/{i}.png"] = encoded(grid(*levels), mode=mode)
    files[f"{root}/images/{species[1]}/Black_Footed_Albatross_0046_18_rgb.jpg"] = photo(7)  # a stray copy
    names = [f"{n} {species[number]}/{i}.jpg" for n, (i, (number, *_)) in enumerate(birds.items(), 1)]
    files[f"{root}/images.txt"] = "\n".join(names).encode()
    files[f"{root}/train_test_split.txt"] = b"1 0\n2 1\n"
    write_tar(folder / "CUB_200_2011.tgz", files, "w:gz")
    write_tar(folder / "segmentations.tgz", grey, "w:gz")
    test, train = birds
    masks = {test: grid(0, 0, 1, 1), train: grid(200, 0, 0, 200)}
    return Made(masks, images, {"train": [train], "test": [test]})


def acdc(folder):
    rgb, gt, images, masks, splits = {}, {}, {}, {}, {}
    for n, weather in enumerate(("fog", "night", "rain", "snow")):
        for split in ("train", "val"):
            values = (7, 0, 23, 33) if split == "train" else (8, 8, 255, 24)
            expected = (0, 255, 10, 18) if split == "train" else (1, 1, 255, 11)
            drive, frame = f"GOPR0{n}{len(split)}", f"GOPR0{n}{len(split)}_frame_000159"
            stem, key = f"{weather}/{split}/{drive}/{frame}", f"{weather}_{frame}"
            images[key], masks[key] = photo(len(images), "PNG"), grid(*expected)
            rgb[f"rgb_anon/{stem}_rgb_anon.png"] = images[key]
            rgb[f"rgb_anon/{weather}/{split}_ref/{drive}/{frame}_rgb_ref_anon.png"] = photo(8, "PNG")
            gt[f"gt/{stem}_gt_labelIds.png"] = encoded(grid(*values))
            gt[f"gt/{stem}_gt_labelTrainIds.png"] = encoded(grid(9, 9, 9, 9))
            gt[f"gt/{stem}_gt_invIds.png"] = encoded(grid(0, 0, 0, 1))
            for name in (split, f"{weather}_{split}"):
                splits.setdefault(name, []).append(key)
        rgb[f"rgb_anon/{weather}/test/GOPR0122/GOPR0122_frame_000161_rgb_anon.png"] = photo(6, "PNG")
    write_zip(folder / "rgb_anon_trainvaltest.zip", rgb)
    write_zip(folder / "gt_trainval.zip", gt)
    order = ("train", "val", *sorted(set(splits) - {"train", "val"}))
    return Made(masks, images, {split: splits[split] for split in order})


MAKERS = {
    "voc2012": voc2012,
    "context60": context([(1, 59, 56, 0), (11, 0, 0, 30)]),
    "context59": context([(0, 58, 55, 255), (10, 255, 255, 29)]),
    "coco_object": coco([(1, 12, 0, 0), (80, 0, 63, 1)]),
    "coco_stuff": coco([(0, 11, 80, 255), (79, 170, 62, 0)]),
    "coco_stuff27": coco([(9, 8, 17, 255), (4, 24, 0, 9)]),
    "cityscapes": cityscapes,
    "ade20k": ade20k,
    "foodseg103": foodseg103,
    "cub200": cub200,
    "acdc": acdc,
}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_from_the_archive_to_the_loader(name, tmp_path):
    made = MAKERS[name](tmp_path)
    out = convert(name, tmp_path, tmp_path / "out", password=made.password, progress=False)
    assert {p.stem: p.read_bytes() for p in (out / "images").iterdir()} == made.images
    assert {p.stem for p in (out / "splits").iterdir()} == set(made.splits)
    for split, ids in made.splits.items():
        data = FolderDataset(out, split)
        assert data.ids == ids
        for sample in data:
            np.testing.assert_array_equal(sample.mask, made.masks[sample.image_id])
    assert read_classes(out / "classes.txt") == {label.id: label.name for label in labels(find(name))}
    assert (out / "prompts.txt").read_text() == prompts(find(name)) + "\n"
    assert [set(half.ids) for half in default_splits(out)] == [
        set(ids) for ids in list(made.splits.values())[:2]
    ]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [name]


def test_an_interrupted_conversion_is_continued(tmp_path, monkeypatch):
    made, real, written = voc2012(tmp_path), conversion.write, []

    def interrupted(path, data):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        real(path, data)

    monkeypatch.setattr(conversion, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert("voc2012", tmp_path, tmp_path / "out", progress=False)
    assert not (tmp_path / "out" / "voc2012").exists()
    first = list(written)
    written[:] = [None] * 4  # past the interruption
    out = convert("voc2012", tmp_path, tmp_path / "out", progress=False)
    assert not set(first) & set(written)  # what was done is not done again
    for sample in FolderDataset(out):
        np.testing.assert_array_equal(sample.mask, made.masks[sample.image_id])
    before = (out / "classes.txt").stat().st_mtime_ns
    (tmp_path / "VOCtrainval_11-May-2012.tar").unlink()
    assert convert("voc2012", tmp_path, tmp_path / "out") == out  # a finished one needs nothing
    assert (out / "classes.txt").stat().st_mtime_ns == before


def tampered(path, change, rewrite):
    """Rewrite an archive with `change` applied to its files."""
    files = {name: read() for name, read in reading.members(path)}
    change(files)
    path.unlink()
    rewrite(path, files)


@pytest.mark.parametrize(
    "name", ["../evil.jpg", "/etc/evil.jpg", "a/../../evil.jpg", "..\\evil.jpg", "C:\\e.jpg"]
)
@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_a_hostile_archive_is_refused(tmp_path, name, write):
    write(tmp_path / "VOCtrainval_11-May-2012.tar", {name: b"", "b": b""})
    with pytest.raises(DataError, match="leads out of it"):
        convert("voc2012", tmp_path, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists() and not list(tmp_path.rglob("*evil*"))


def test_links_are_not_followed(tmp_path):
    voc2012(tmp_path)
    path, secret = tmp_path / "VOCtrainval_11-May-2012.tar", tmp_path / "secret.png"
    secret.write_bytes(encoded(grid(1, 1, 1, 1)))
    mask = "VOCdevkit/VOC2012/SegmentationClass/2007_000032.png"
    tampered(path, lambda files: files.pop(mask), write_tar)
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo(mask)
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        archive.addfile(link)
    with pytest.raises(DataError, match="no mask for '2007_000032'"):
        convert("voc2012", tmp_path, tmp_path / "out", progress=False)


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_MEMBER", 1000)
    ade20k(tmp_path)
    bomb = "ADEChallengeData2016/images/training/ADE_train_00000001.jpg"
    change = {bomb: bytes(1001)}
    tampered(tmp_path / "ADEChallengeData2016.zip", lambda files: files.update(change), write_zip)
    with pytest.raises(DataError, match=r"'ADE.*jpg' has 1,001 bytes"):
        convert("ade20k", tmp_path, tmp_path / "out", progress=False)


@pytest.mark.parametrize(
    ("name", "file", "path", "data", "message"),
    [
        ("ade20k", "ADEChallengeData2016.zip", "annotations/training/ADE_train_00000001.png",
         encoded(grid(1, 2, 3, 4), mode="RGB"), r"needs one channel"),
        ("voc2012", "VOCtrainval_11-May-2012.tar", "SegmentationClass/2007_000032.png",
         encoded(grid(1, 2, 3, 77)), r"2007_000032\.png holds 77, which is no class of PASCAL VOC 2012"),
        ("voc2012", "VOCtrainval_11-May-2012.tar", "SegmentationClass/2007_000032.png",
         b"no picture", r"cannot read mask .*2007_000032\.png"),
        ("voc2012", "VOCtrainval_11-May-2012.tar", "JPEGImages/2007_000033.jpg",
         b"no picture", r"cannot read image images/2007_000033\.jpg"),
        ("voc2012", "VOCtrainval_11-May-2012.tar", "Segmentation/val.txt",
         b"2007_000033\n2007_009999\n", r"split 'val': no image for '2007_009999' \(1 in all\)"),
        ("voc2012", "VOCtrainval_11-May-2012.tar", "Segmentation/val.txt", None,
         r"lack .*Segmentation/val\.txt"),
        ("cub200", "CUB_200_2011.tgz", "images.txt", b"1 a b.jpg", r"images\.txt of CUB-200-2011 do not fit"),
        ("cub200", "CUB_200_2011.tgz", "images.txt", b"7 a.jpg", r"images\.txt of CUB-200-2011 do not fit"),
        ("voc2012", "VOCtrainval_11-May-2012.tar", "Segmentation/val.txt", b"2007\xff\n",
         r"no image for '2007\ufffd'"),
        ("context60", "pascal_context_trainval.tar.gz", "trainval/2008_000003.mat", b"MATLAB?",
         "cannot read mask"),
        ("ade20k", "ADEChallengeData2016.zip", "images/validation/ADE_val_00000001.jpg", None,
         r"split 'val': no image for 'ADE_val_00000001'"),
    ],
)  # fmt: skip
def test_wrong_contents_are_named(tmp_path, name, file, path, data, message):
    MAKERS[name](tmp_path)

    def change(files):
        [key] = [k for k in files if k.endswith(path)]
        files.pop(key) if data is None else files.update({key: data})

    rewrite = write_zip if file.endswith(".zip") else write_tar
    tampered(tmp_path / file, change, rewrite)
    with pytest.raises(DataError, match=message):
        convert(name, tmp_path, tmp_path / "out", progress=False)
    assert not (tmp_path / "out" / name).exists()


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("ade20k", "ADEChallengeData2016.zip"),
        ("cub200", "segmentations.tgz"),
        ("voc2012", "VOCtrainval_11-May-2012.tar"),
    ],
)
def test_half_an_archive_is_refused(tmp_path, name, file):
    MAKERS[name](tmp_path)
    data = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(data[: len(data) // 3])
    with pytest.raises(DataError, match=f"{file}|lack|no mask|no image"):
        convert(name, tmp_path, tmp_path / "out", progress=False)


def test_a_flipped_byte_is_noticed(tmp_path):
    ade20k(tmp_path)
    path = tmp_path / "ADEChallengeData2016.zip"
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("ADEChallengeData2016/images/training/ADE_train_00000001.jpg")
    data = bytearray(path.read_bytes())
    data[info.header_offset + 30 + len(info.filename) + 40] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"cannot read 'ADE.*00001\.jpg' in archive"):
        convert("ade20k", tmp_path, tmp_path / "out", progress=False)


@pytest.mark.parametrize(("password", "said"), [(None, "password required"), ("wrong", "Bad password")])
def test_an_encrypted_archive_needs_its_password(tmp_path, password, said):
    foodseg103(tmp_path)
    with pytest.raises(DataError, match=said):
        convert("foodseg103", tmp_path, tmp_path / "out", password=password, progress=False)


def test_images_whose_mask_has_another_size_are_left_out(tmp_path):
    """A quarter turn by the EXIF tag counts, as it does for the loader."""
    made = ade20k(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(stream, "JPEG", exif=exif)
    more = {
        "ADEChallengeData2016/images/training/ADE_train_00000002.jpg": stream.getvalue(),
        "ADEChallengeData2016/annotations/training/ADE_train_00000002.png": encoded(grid(1, 1, 1, 1)),
        "ADEChallengeData2016/images/training/ADE_train_00000003.jpg": stream.getvalue(),
        "ADEChallengeData2016/annotations/training/ADE_train_00000003.png": encoded(grid(1, 1, 1, 1).T),
    }
    tampered(tmp_path / "ADEChallengeData2016.zip", lambda files: files.update(more), write_zip)
    with pytest.warns(UserWarning, match="1 images of ADE20K .* left out, .*: ADE_train_00000002"):
        out = convert("ade20k", tmp_path, tmp_path / "out", progress=False)
    data = FolderDataset(out, "train")
    assert data.ids == [*made.splits["train"], "ADE_train_00000003"]
    assert data[1].image.shape == (12, 8, 3)


def test_archives_that_are_not_there_are_named(tmp_path):
    with pytest.raises(
        DataError, match=r"needs train2017\.zip, val2017\.zip, stuffthingmaps_trainval2017\.zip"
    ):
        convert("coco_stuff", tmp_path, tmp_path / "out")


DAMAGE = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=20)


@pytest.mark.filterwarnings("ignore:.*left out", "ignore:Corrupt EXIF")
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["ade20k", "voc2012", "cub200", "context60", "foodseg103"]), st.data())
def test_damaged_archives_convert_or_say_why(tmp_path_factory, name, data):
    """Bytes changed anywhere: a whole folder comes of it, or a DataError."""
    folder = tmp_path_factory.mktemp("damaged")
    password = MAKERS[name](folder).password
    file = folder / data.draw(st.sampled_from(find(name).archives)).file
    content = bytearray(file.read_bytes())
    for where, byte in data.draw(DAMAGE):
        content[int(where * len(content))] = byte
    file.write_bytes(content)
    try:
        out = convert(name, folder, folder / "out", password=password, progress=False)
    except DataError:
        assert not (folder / "out" / name).exists()
    else:
        assert FolderDataset(out, "train").class_names


# --- the command line -----------------------------------------------------------------------------


def test_the_commands(tmp_path, capsys):
    voc2012(tmp_path)
    assert status(["convert", "voc2012", "--archives", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert f"rose-kit evaluate {tmp_path / 'out' / 'voc2012'}" in capsys.readouterr().out
    assert status(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(BENCHMARKS)
    assert status(["list", "voc2012"]) == 0
    text = capsys.readouterr().out
    assert "6cd6e144f989b92b3379bac3b3de84fd" in text and "background|sky|wall" in text
    assert status([]) == 0 and "download" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["list", "voc"], "unknown dataset 'voc'. Known: voc2012, context60"),
        (["convert", "voc"], "unknown dataset 'voc'"),
        (["download", "voc2012", "mnist"], "unknown dataset 'mnist'"),
        (["convert", "acdc", "--archives", "nowhere"], "trainvaltest.zip, gt_trainval.zip in nowhere"),
        (["download", "acdc", "--archives", "nowhere"], "acdc.vision.ee.ethz.ch/download into nowhere"),
        (["verify", "voc2012", "--archives", "nowhere"], "VOCtrainval_11-May-2012.tar is not in nowhere"),
        (["convrt"], "Commands: list, download, verify, convert"),
        (["convert"], "names"),
        (["convert", "voc2012", "--outt", "x"], "--outt"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_one_line(args, said, capsys):
    assert status(args) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and said in err
