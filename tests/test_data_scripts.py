"""Standard datasets: small archives in the real layout -> folder format -> loader, pixel for pixel."""

import io
import shutil
import sys
import tarfile
import zipfile
from collections import defaultdict
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.io import savemat

from data_scripts import archives as reading
from data_scripts import convert as conversion
from data_scripts.benchmark import labels, prompts
from data_scripts.convert import convert
from data_scripts.table import find
from rose_kit import cli
from rose_kit.data import DataError, FolderDataset, read_classes

EXPERIMENTS = Path(__file__).parents[1] / "notebooks" / "experiments"
ENCRYPTED = Path(__file__).parent / "golden" / "foodseg103_encrypted.zip"  # written by Info-ZIP 3.0
PASSWORD = "only for tests"


def grid(*values, dtype=np.uint8):
    """(8, 12): four blocks of 4 x 6 px with the given values."""
    return np.array(values, dtype=dtype).reshape(2, 2).repeat(4, 0).repeat(6, 1)


def encoded(array, kind="PNG", mode=None, **options):
    image = Image.fromarray(array)
    if mode == "P":  # as VOC stores indices: a palette image
        image.putpalette(list(range(255, -1, -1)) * 3)
    elif mode:
        image = image.convert(mode)
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def matlab(values):
    stream = io.BytesIO()
    savemat(stream, {"LabelMap": grid(*values, dtype=np.uint16)}, do_compression=True)
    return stream.getvalue()


# Per dataset: "archive:path" of an image and of its mask, how a mask is written, lists of names, paths that
# must be passed over, and (splits, place in the paths, image id, values in the mask, class ids expected).
VOC, VOC_TAR = "VOCdevkit/VOC2012", "VOCtrainval_11-May-2012.tar"
CONTEXT, CONTEXT_TAR = "VOCdevkit/VOC2010", "VOCtrainval_03-May-2010.tar"
BIRDS = ("001.Black_footed_Albatross/Black_Footed_Albatross_0046_18", "200.Common_Yellowthroat/Yellow_0055")
ACDC = [(w, s) for w in ("fog", "night", "rain", "snow") for s in ("train", "val")]


LAYOUTS = {
    "voc2012": {
        "image": f"{VOC_TAR}:{VOC}/JPEGImages/{{}}.jpg",
        "mask": f"{VOC_TAR}:{VOC}/SegmentationClass/{{}}.png",
        "write": lambda values: encoded(grid(*values), mode="P"),
        "lists": {f"{VOC_TAR}:{VOC}/ImageSets/Segmentation/train.txt": "2007_000032\n2007_000039\n",
                  f"{VOC_TAR}:{VOC}/ImageSets/Segmentation/val.txt": "2007_000033\n",
                  f"{VOC_TAR}:{VOC}/ImageSets/Main/train.txt": "2007_000027\n"},
        "others": [f"{VOC_TAR}:{VOC}/JPEGImages/2007_000027.jpg",  # an image with boxes only
                   f"{VOC_TAR}:{VOC}/SegmentationObject/2007_000032.png"],
        "rows": [(["train"], "2007_000032", "2007_000032", (0, 1, 15, 255), (0, 1, 15, 255)),
                 (["train"], "2007_000039", "2007_000039", (20, 20, 0, 0), (20, 20, 0, 0)),
                 (["val"], "2007_000033", "2007_000033", (5, 255, 5, 0), (5, 255, 5, 0))],
    },
    "context60": {
        "image": f"{CONTEXT_TAR}:{CONTEXT}/JPEGImages/{{}}.jpg",
        "mask": "pascal_context_trainval.tar.gz:trainval/{}.mat",
        "write": matlab,
        "lists": {f"{CONTEXT_TAR}:{CONTEXT}/ImageSets/Main/train.txt": "2008_000002\n",
                  f"{CONTEXT_TAR}:{CONTEXT}/ImageSets/Main/val.txt": "2008_000003\n",
                  f"{CONTEXT_TAR}:{CONTEXT}/ImageSets/Segmentation/train.txt": "2009_000001\n"},
        "rows": [(["train"], "2008_000002", "2008_000002", (2, 458, 440, 1), (1, 59, 56, 0)),
                 (["val"], "2008_000003", "2008_000003", (44, 0, 459, 189), (11, 0, 0, 30))],
    },
    "coco_stuff": {
        "image": "{0[0]}2017.zip:{0[0]}2017/{0[1]}.jpg",
        "mask": "stuffthingmaps_trainval2017.zip:{0[0]}2017/{0[1]}.png",
        "rows": [(["train"], ("train", "000000000009"), "000000000009", (0, 12, 91, 255), (0, 11, 80, 255)),
                 (["val"], ("val", "000000000139"), "000000000139", (89, 181, 71, 0), (79, 170, 62, 0))],
    },
    "cub200": {
        "image": "CUB_200_2011.tgz:CUB_200_2011/images/{}.jpg",
        "mask": "segmentations.tgz:segmentations/{}.png",
        "write": lambda levels: encoded(grid(*levels), mode="LA"),  # 51 for each annotator who says bird
        "lists": {"CUB_200_2011.tgz:CUB_200_2011/images.txt": f"1 {BIRDS[0]}.jpg\n2 {BIRDS[1]}.jpg\n",
                  "CUB_200_2011.tgz:CUB_200_2011/train_test_split.txt": "1 0\n2 1\n"},
        "others": [f"CUB_200_2011.tgz:CUB_200_2011/images/{BIRDS[0]}_rgb.jpg"],
        "rows": [(["train"], BIRDS[1], "Yellow_0055", (255, 0, 51, 204), (200, 0, 0, 200)),
                 (["test"], BIRDS[0], "Black_Footed_Albatross_0046_18", (0, 102, 153, 255), (0, 0, 1, 1))],
    },
    "cityscapes": {
        "image": "leftImg8bit_trainvaltest.zip:leftImg8bit/{0}/ulm/ulm_{0}_leftImg8bit.png",
        "mask": "gtFine_trainvaltest.zip:gtFine/{0}/ulm/ulm_{0}_gtFine_labelIds.png",
        "others": ["gtFine_trainvaltest.zip:gtFine/train/ulm/ulm_train_gtFine_instanceIds.png"],
        "rows": [(["train"], "train", "ulm_train", (7, 11, 6, 33), (0, 2, 255, 18)),
                 (["val"], "val", "ulm_val", (7, 7, 23, 24), (0, 0, 10, 11))],
    },
    "acdc": {
        "image": "rgb_anon_trainvaltest.zip:rgb_anon/{0[0]}/{0[1]}/GOPR/G_{0[1]}_rgb_anon.png",
        "mask": "gt_trainval.zip:gt/{0[0]}/{0[1]}/GOPR/G_{0[1]}_gt_labelIds.png",
        "others": ["rgb_anon_trainvaltest.zip:rgb_anon/fog/train_ref/GOPR/G_train_rgb_ref_anon.png",
                   "gt_trainval.zip:gt/fog/train/GOPR/G_train_gt_labelTrainIds.png"],
        "rows": [([s, f"{w}_{s}"], (w, s), f"{w}_G_{s}", (7, 0, 23, 33), (0, 255, 10, 18)) for w, s in ACDC],
    },
}  # fmt: skip


def files_of(name):
    """archive -> path -> bytes, as the layout says."""
    layout, files = LAYOUTS[name], defaultdict(dict)

    def put(place, data):
        archive, path = place.split(":")
        files[archive][path] = data

    for seed, (_, place, _, values, _) in enumerate(layout["rows"]):
        noise = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), dtype=np.uint8)
        put(layout["image"].format(place), encoded(noise, "PNG" if "png" in layout["image"] else "JPEG"))
        put(layout["mask"].format(place), layout.get("write", lambda v: encoded(grid(*v)))(values))
    for place, text in layout.get("lists", {}).items():
        put(place, text.encode())
    for place in layout.get("others", []):
        put(place, encoded(grid(9, 9, 9, 9)))
    return files


def pack(folder, files):
    for archive, members in files.items():
        if archive.endswith(".zip"):
            with zipfile.ZipFile(folder / archive, "w", zipfile.ZIP_DEFLATED) as file:
                for name, data in members.items():
                    file.writestr(name, data)
            continue
        with tarfile.open(folder / archive, "w:gz" if archive.endswith("gz") else "w") as file:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))


def converted(name, folder, **options):
    return convert(name, folder, folder / "out", progress=False, **options)


@pytest.mark.parametrize("name", LAYOUTS)
def test_from_the_archive_to_the_loader(name, tmp_path):
    rows, files = LAYOUTS[name]["rows"], files_of(name)
    pack(tmp_path, files)
    out = converted(name, tmp_path)
    every = {path: data for members in files.values() for path, data in members.items()}
    image = LAYOUTS[name]["image"]
    images = {key: every[image.format(place).split(":")[1]] for _, place, key, *_ in rows}
    assert {p.stem: p.read_bytes() for p in (out / "images").iterdir()} == images
    splits = {split for row in rows for split in row[0]}
    assert {p.stem for p in (out / "splits").iterdir()} == splits == set(find(name).splits)
    for split in splits:
        own = {key: grid(*expected) for names, _, key, _, expected in rows if split in names}
        data = FolderDataset(out, split)
        assert set(data.ids) == set(own)
        for sample in data:
            np.testing.assert_array_equal(sample.mask, own[sample.image_id])
    assert read_classes(out / "classes.txt") == {label.id: label.name for label in labels(find(name))}
    assert (out / "prompts.txt").read_text() == prompts(find(name)) + "\n"
    assert [p.name for p in (tmp_path / "out").iterdir()] == [name]


def test_benchmarks_stand_beside_the_published_numbers_and_are_done_once(tmp_path, monkeypatch, capsys):
    """From archives to the table, by a small preset under the name of a real one; then by support of ACDC."""
    for name in ("voc2012", "cityscapes", "acdc"):
        pack(tmp_path, files_of(name))
        convert(name, tmp_path, tmp_path / "data", progress=False)
    here = tmp_path / "experiments"
    shutil.copytree(EXPERIMENTS / "results", here / "results")
    (here / "presets").mkdir()
    preset = "{encoder: handcrafted, methods: [freeda, rns], seeds: 7}"
    (here / "presets" / "rns-openclip.yaml").write_text(preset)
    monkeypatch.setattr(cli, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.chdir(here)
    cells = nbformat.read(EXPERIMENTS / "benchmarks.ipynb", as_version=4).cells
    parameters, _, *code = [cell.source for cell in cells if cell.cell_type == "code"]

    def table(*names, **values):
        values |= {"folders": [str(tmp_path / "data" / name) for name in names], "out": str(tmp_path / "out")}
        space = {"__name__": "a notebook"}
        exec(parameters, space)
        exec("\n".join(code), space | values | {"presets": ["rns-openclip"]})
        return pd.read_csv(tmp_path / "out" / "benchmarks.csv").set_index(["dataset", "shots", "method"])

    first = table("voc2012", "nowhere", "cityscapes", shots=[1, 20])
    assert "no folder with images/" in capsys.readouterr().err
    assert len(first) == 8 and first.miou.notna().all() and first.published["voc2012", 20, "rns"] == 75.94
    assert first.source["cityscapes", 1, "rns"].startswith("R")
    assert first.published.count() == 4 and set(first.index.levels[0]) == {"voc2012", "cityscapes"}
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.json")}
    assert table("cityscapes", "voc2012", shots=[1, 20]).miou.to_dict() == first.miou.to_dict()
    assert {path: path.stat().st_mtime_ns for path in files} == files
    other = table("cityscapes", shots=[1], support=str(tmp_path / "data" / "acdc"))
    assert set(other.index.levels[0]) == {"cityscapes by acdc"} and other.published.count() == 0


def test_an_encrypted_archive_needs_its_password(tmp_path):
    shutil.copy(ENCRYPTED, tmp_path / "FoodSeg103.zip")
    for password in (None, "wrong"):
        with pytest.raises(DataError, match="FoodSeg103.zip"):
            converted("foodseg103", tmp_path, password=password)
    data = FolderDataset(converted("foodseg103", tmp_path, password=PASSWORD))
    expected = {"00000000": (0, 1, 48, 103), "00000002": (0, 66, 66, 85), "00000048": (48, 85, 0, 102)}
    assert {s.image_id: s.mask.tolist() for s in data} == {k: grid(*v).tolist() for k, v in expected.items()}


def test_an_interrupted_conversion_is_continued(tmp_path, monkeypatch):
    pack(tmp_path, files_of("voc2012"))
    real, written = conversion.write, []

    def interrupted(path, data):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        real(path, data)

    monkeypatch.setattr(conversion, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        converted("voc2012", tmp_path)
    assert not (tmp_path / "out" / "voc2012").exists()
    first = list(written)
    written[:] = [None] * 4  # past the interruption
    out = converted("voc2012", tmp_path)
    assert not set(first) & set(written)  # what was done is not done again
    assert len(list(FolderDataset(out))) == 3
    (tmp_path / VOC_TAR).unlink()
    assert converted("voc2012", tmp_path) == out  # a finished one needs nothing


@pytest.mark.parametrize("name", ["/etc/evil.jpg", "a/../../evil.jpg", "..\\evil.jpg", "C:\\evil.jpg"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_hostile_archive_is_refused(tmp_path, name, kind):
    pack(tmp_path, {f"a.{kind}": {name: b"", "b": b""}})
    (tmp_path / f"a.{kind}").rename(tmp_path / VOC_TAR)  # what it is, its bytes say
    with pytest.raises(DataError, match=r"evil\.jpg"):
        converted("voc2012", tmp_path)
    assert not (tmp_path / "out").exists() and not list(tmp_path.rglob("*evil*"))


def test_links_are_not_followed_and_bombs_not_unpacked(tmp_path, monkeypatch):
    files, mask = files_of("voc2012"), f"{VOC}/SegmentationClass/2007_000032.png"
    (tmp_path / "secret.png").write_bytes(files[VOC_TAR].pop(mask))
    pack(tmp_path, files)
    with tarfile.open(tmp_path / VOC_TAR, "a") as archive:
        link = tarfile.TarInfo(mask)
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret.png")
        archive.addfile(link)
    with pytest.raises(DataError, match="'2007_000032'"):
        converted("voc2012", tmp_path)
    monkeypatch.setattr(reading, "MAX_MEMBER", 10)
    with pytest.raises(DataError, match=r"Segmentation/train\.txt.* 24 bytes"):
        converted("voc2012", tmp_path)


@pytest.mark.parametrize(
    ("name", "file", "path", "data", "value"),
    [
        ("voc2012", VOC_TAR, "SegmentationClass/2007_000032.png", encoded(grid(1, 2, 3, 77)), "77"),
        ("voc2012", VOC_TAR, "JPEGImages/2007_000033.jpg", b"no image", r"2007_000033\.jpg"),
        ("voc2012", VOC_TAR, "Segmentation/val.txt", b"2007_000033\n2007_009999\n", "'2007_009999'"),
        ("cub200", "CUB_200_2011.tgz", "images.txt", b"7 a.jpg", r"images\.txt"),
        ("context60", "pascal_context_trainval.tar.gz", "2008_000003.mat", b"MATLAB?", "2008_000003.mat"),
    ],
)  # fmt: skip
def test_wrong_contents_are_named(tmp_path, name, file, path, data, value):
    files = files_of(name)
    [key] = [k for k in files[file] if k.endswith(path)]
    files[file][key] = data
    pack(tmp_path, files)
    with pytest.raises(DataError, match=value):
        converted(name, tmp_path)
    assert not (tmp_path / "out" / name).exists()
