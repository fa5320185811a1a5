"""Masks leave the kit and come back: the folder format, and COCO JSON held against pycocotools' reader."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from skimage.measure import regionprops

from rose_kit.data import DataError, FolderDataset, Sample
from rose_kit.viz.export import decode_segmentation, read_coco, save_labels, write_coco, write_folder
from rose_kit.viz.overlay import palette

CLASSES = {0: "sky", 3: "grass", 7: "bus"}
ONES = {"size": [20, 31], "counts": [0, 620]}


@pytest.fixture
def masks():
    rng = np.random.default_rng(0)
    return {f"p{i}.jpg": rng.choice(np.array([0, 3, 7, 255], np.uint8), (20 + i, 31)) for i in range(3)}


def sample(name="a", mask=None, classes=CLASSES, **more):
    mask = np.array([[0, 3, 255], [7, 7, 0]]) if mask is None else mask
    return Sample(name, np.full((*mask.shape, 3), 90, np.uint8), mask, classes, **more)


def test_a_folder_is_read_back_by_our_loader_and_never_written_over(folder, tmp_path):
    before = FolderDataset(folder)
    drawn = sample("drawn", classes=before.classes)
    path = write_folder(tmp_path / "deep" / "copy", [*before, drawn])
    after = FolderDataset(path)
    assert after.classes == before.classes and after.ids == ["drawn", *before.ids]
    for old, new in zip([drawn, *before], after, strict=True):
        assert np.array_equal(old.image, new.image) and np.array_equal(old.mask, new.mask)
    assert (folder / "images/p1.jpg").read_bytes() == (path / "images/p1.jpg").read_bytes()
    times = {p: p.stat().st_mtime_ns for p in path.rglob("*")}
    with pytest.raises(DataError, match="copy"):
        write_folder(path, [sample()])
    assert times == {p: p.stat().st_mtime_ns for p in path.rglob("*")}


@pytest.mark.parametrize(
    ("samples", "value"),
    [
        ([], "no samples"),
        ([sample(), sample()], "'a'"),
        ([sample("../a")], "'../a'"),
        ([sample(mask=np.array([[0, 9]]))], "9"),
        ([sample(), sample("b", classes={0: "sea", 3: "grass", 7: "bus"})], "'sea'"),
        ([sample(classes=CLASSES | {255: "a"})], "255"),
        ([sample(".a")], "'.a'"),
        ([replace(sample(), image=np.zeros((4, 3, 3), np.uint8))], "(2, 3, 3)"),
        ([replace(sample(), image=np.zeros((2, 3, 3)))], "float64"),
    ],
)
def test_what_a_folder_cannot_hold_is_refused_and_leaves_nothing(tmp_path, samples, value):
    with pytest.raises(DataError) as error:
        write_folder(tmp_path / "new", samples)
    assert value in str(error.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("ids", "mode"), [((0, 7, 255), "P"), ((0, 256, 65535, 255), "I;16")])
def test_labels_keep_their_ids_and_show_their_colours(tmp_path, ids, mode):
    labels = np.array([ids, ids[::-1]])
    save_labels(tmp_path / "a.png", labels)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == mode and np.array_equal(np.asarray(image), labels)
        if mode == "P":
            colours = np.asarray(image.convert("RGB"))[0]
            assert np.array_equal(colours, [palette(8)[0], palette(8)[7], [0, 0, 0]])


def test_pycocotools_reads_the_masks_that_were_written_and_so_do_we(masks, tmp_path):
    path = write_coco(tmp_path / "coco.json", masks.items(), CLASSES)
    coco = COCO(path)
    assert {c - 1: category["name"] for c, category in coco.cats.items()} == CLASSES
    assert len(coco.anns) == 9  # 3 classes in each of 3 images
    for a in coco.anns.values():
        mask = masks[coco.imgs[a["image_id"]]["file_name"]]
        region = mask == a["category_id"] - 1
        assert np.array_equal(coco.annToMask(a), region) and a["iscrowd"] == 0
        (props,) = regionprops(region.astype(int))
        top, left, bottom, right = props.bbox
        assert a["area"] == props.area and a["bbox"] == [left, top, right - left, bottom - top]
    read, classes = read_coco(path)
    assert classes == CLASSES and list(read) == list(masks)
    assert all(np.array_equal(read[name], masks[name]) for name in masks)
    with pytest.raises(DataError, match="'b'"):
        write_coco(tmp_path / "c.json", [("b", np.array([[0, 9]]))], CLASSES)
    assert list(tmp_path.iterdir()) == [path]


def test_polygons_and_plain_run_lengths_are_read_and_the_smaller_lies_on_top(tmp_path):
    large, corner = [[0.0, 0, 4, 0, 4, 4, 0, 4]], {"size": [4, 4], "counts": [0, 2, 2, 2, 10]}
    content = {"images": [{"id": 5, "file_name": "a", "width": 4, "height": 4}]}
    content["categories"] = [{"id": 0, "name": "cup"}, {"id": 1, "name": "table"}]  # ids may start at 0
    for order in (1, -1):
        pairs = [(0, corner, 4), (1, large, 16)][::order]
        content["annotations"] = [
            {"id": c + 1, "image_id": 5, "category_id": c, "segmentation": s, "area": n} for c, s, n in pairs
        ]
        (tmp_path / "a.json").write_text(json.dumps(content))
        masks, classes = read_coco(tmp_path / "a.json")
        assert classes == {0: "cup", 1: "table"} and masks["a"][:2, :2].max() == 0 and masks["a"].sum() == 12
    content["annotations"][0]["segmentation"] = slanted = [[5, 5, 50, 10.5, 20, 45], [0, 0, 3, 0, 3, 2]]
    content["images"][0] |= {"width": 60, "height": 50}
    (tmp_path / "a.json").write_text(json.dumps(content))
    expected = COCO(tmp_path / "a.json").annToMask(content["annotations"][0])
    assert expected.sum() > 500 and np.array_equal(decode_segmentation(slanted, (50, 60)), expected)


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("annotations", 0, "segmentation"), ONES | {"counts": [3, 4]}, "fit"),  # pycocotools leaves the rest
        (("annotations", 0, "segmentation"), ONES | {"counts": [-1, 621]}, "fit"),
        (("annotations", 0, "segmentation"), ONES | {"counts": "abc"}, "fit"),  # ... and reads past this
        (("annotations", 0, "segmentation"), ONES | {"counts": "0`f0"}, "fit"),  # too many
        (("annotations", 0, "segmentation"), ONES | {"counts": "0X1"}, "fit"),  # too few
        (("annotations", 0, "segmentation"), ONES | {"size": [31, 20]}, "fit"),
        (("annotations", 0, "segmentation"), [[0, 0, 1e12, 0, 4, 4]], "fit"),
        (("annotations", 0, "image_id"), 99, "99"),
        (("images", 0, "width"), 10**9, "1000000000"),
        (("categories", 0, "id"), 256, "255"),
        ((), [], "as COCO JSON"),
    ],
)
def test_what_is_no_coco_is_refused(masks, tmp_path, where, value, message):
    path = write_coco(tmp_path / "coco.json", masks.items(), CLASSES)
    content = {"": json.loads(path.read_text())}
    *parents, last = ("", *where)
    part = content
    for key in parents:
        part = part[key]
    part[last] = value
    path.write_text(json.dumps(content[""]))
    with pytest.raises(DataError, match=f"(?s)coco.json.*{message}"):
        read_coco(path)
