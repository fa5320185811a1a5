"""Masks leave the kit and come back: the folder format, and COCO JSON held against others' decoders."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from segment_anything.utils import amg
from skimage.draw import polygon2mask
from skimage.measure import regionprops

from rose_kit.cli import write_classes
from rose_kit.data import DataError, FolderDataset, Sample
from rose_kit.viz.coco import decode_segmentation, encode_rle, read_coco, write_coco
from rose_kit.viz.export import save_labels, write_folder
from rose_kit.viz.overlay import palette

CLASSES = {0: "sky", 3: "grass", 7: "bus"}


@pytest.fixture
def masks():
    rng = np.random.default_rng(0)
    values = np.array([0, 3, 7, 255], np.uint8)
    return {f"p{i}.jpg": values[rng.integers(0, 4, (20 + i, 31))] for i in range(3)}


@pytest.fixture
def coco(masks, tmp_path):
    """The path of the masks as COCO, and what the JSON says."""
    path = write_coco(tmp_path / "coco.json", masks.items(), CLASSES)
    return path, json.loads(path.read_text())


def sample(name="a", mask=None, classes=CLASSES, **more):
    mask = np.array([[0, 3, 255], [7, 7, 0]]) if mask is None else mask
    return Sample(name, np.full((*mask.shape, 3), 90, np.uint8), mask, classes, **more)


# --- the folder format -----------------------------------------------------------------------------


def test_a_folder_is_read_back_by_our_loader(folder, tmp_path):
    before = FolderDataset(folder)
    drawn = sample("drawn", classes=before.classes)
    after = FolderDataset(write_folder(tmp_path / "deep" / "copy", [*before, drawn]))
    assert after.classes == before.classes and after.ids == ["drawn", *before.ids]
    for old, new in zip([drawn, *before], after, strict=True):
        assert np.array_equal(old.image, new.image) and np.array_equal(old.mask, new.mask)
    assert (folder / "images/p1.jpg").read_bytes() == (tmp_path / "deep/copy/images/p1.jpg").read_bytes()


@pytest.mark.parametrize(("ids", "mode"), [((0, 7, 255), "P"), ((0, 256, 65535, 255), "I;16")])
def test_labels_keep_their_ids_and_show_their_colours(tmp_path, ids, mode):
    labels = np.array([ids, ids[::-1]])
    save_labels(tmp_path / "a.png", labels)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.mode == mode and np.array_equal(np.asarray(picture), labels)
        if mode == "P":
            shown = np.asarray(picture.convert("RGB"))
            assert np.array_equal(shown[0], [palette(8)[0], palette(8)[7], [0, 0, 0]])


def test_more_classes_than_a_png_with_ignore_can_number_are_refused(tmp_path):
    save_labels(tmp_path / "a.png", np.array([[0, 254]]), 255)
    with pytest.raises(ValueError, match="256 classes do not fit a PNG in which 255 is ignore"):
        save_labels(tmp_path / "b.png", np.array([[0, 255]]), 256)
    with pytest.raises(ValueError, match="256 classes do not fit"):
        write_classes(tmp_path / "classes.txt", [f"c{i}" for i in range(256)])
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ([], "no samples"),
        ([sample(), sample()], "'a' occurs twice"),
        ([sample("../a")], "'../a'"),
        ([sample(mask=np.array([[0, 9]]))], "holds 9"),
        ([sample(), sample("b", classes={0: "sea", 3: "grass", 7: "bus"})], "class 0 is 'sky', but 'sea'"),
        ([sample(classes=CLASSES | {255: "void"})], "255 is ignore"),
        ([sample(classes=CLASSES | {9: "a|b"})], "'a|b'"),
        ([sample(classes=CLASSES | {9: "a\nb"})], "classes.txt"),
    ],
)
def test_what_a_folder_cannot_hold_is_refused_and_leaves_nothing(tmp_path, samples, said):
    with pytest.raises(DataError, match=said.replace("|", r"\|").replace("..", r"\.\.")):
        write_folder(tmp_path / "new", samples)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_is_left_alone(folder):
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    with pytest.raises(DataError, match="is there already"):
        write_folder(folder, [sample()])
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*")}


# --- COCO ------------------------------------------------------------------------------------------


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_run_lengths_are_those_of_segment_anything(mask):
    rle = encode_rle(mask)
    (expected,) = amg.mask_to_rle_pytorch(torch.from_numpy(mask.copy())[None])
    assert rle == expected
    assert np.array_equal(amg.rle_to_mask(rle), mask)
    assert np.array_equal(decode_segmentation(rle, mask.shape), mask)


def test_every_part_of_the_json_is_what_coco_wants(coco, masks):
    told = coco[1]
    assert told["categories"] == [
        {"id": c + 1, "name": name, "supercategory": ""} for c, name in CLASSES.items()
    ]
    assert [i["file_name"] for i in told["images"]] == list(masks)
    sizes = {i["id"]: (i["height"], i["width"]) for i in told["images"]}
    assert sizes == {i: m.shape for i, m in enumerate(masks.values(), start=1)}
    ids = [a["id"] for a in told["annotations"]]
    assert ids == list(range(1, len(ids) + 1)) and len(ids) == 9  # 3 classes in each of 3 images
    for a in told["annotations"]:
        region = amg.rle_to_mask(a["segmentation"])
        (props,) = regionprops(region.astype(int))
        top, left, bottom, right = props.bbox
        assert a["area"] == props.area and a["bbox"] == [left, top, right - left, bottom - top]
        mask = list(masks.values())[a["image_id"] - 1]
        assert np.array_equal(region, mask == a["category_id"] - 1) and a["iscrowd"] == 0


def test_coco_comes_back_as_it_was_and_so_as_a_folder(coco, masks, tmp_path):
    read, classes = read_coco(coco[0])
    assert classes == CLASSES and list(read) == list(masks)
    assert all(np.array_equal(read[name], masks[name]) for name in masks)
    samples = [sample(name.removesuffix(".jpg"), mask) for name, mask in read.items()]
    for written, mask in zip(
        FolderDataset(write_folder(tmp_path / "f", samples)), masks.values(), strict=True
    ):
        assert np.array_equal(written.mask, mask)


@given(st.dictionaries(st.integers(0, 65535).filter(lambda c: c != 255), st.text(max_size=3), min_size=1))
def test_any_ids_come_back(tmp_path_factory, classes):
    mask = np.array([[*classes, 255]])
    path = write_coco(tmp_path_factory.mktemp("any") / "a.json", [("a", mask)], classes)
    masks, read = read_coco(path)
    assert read == classes and np.array_equal(masks["a"], mask)


def test_polygons_of_annotation_tools_are_read():
    square = [[10.0, 20.0, 30.0, 20.0, 30.0, 40.0, 10.0, 40.0]]  # x from 10 to 30, y from 20 to 40
    mask = decode_segmentation([*square, [0, 0, 2, 0, 2, 1, 0, 1]], (50, 60))
    expected = np.zeros((50, 60), bool)
    expected[20:40, 10:30] = expected[0, :2] = True
    assert np.array_equal(mask, expected)
    slanted = decode_segmentation([[5, 5, 50, 10, 20, 45]], (50, 60))
    corners = np.array([[5, 5], [10, 50], [45, 20]])
    area = 0.5 * abs(np.linalg.det(corners[1:] - corners[0]))
    assert abs(slanted.sum() - area) < 0.02 * area
    assert (slanted & polygon2mask((50, 60), corners)).sum() > 0.95 * slanted.sum()


def test_the_smaller_lies_on_top_and_ids_may_start_at_0(coco, tmp_path):
    told = coco[1] | {"images": [{"id": 5, "file_name": "a", "width": 4, "height": 4}]}
    told["categories"] = [{"id": 0, "name": "cup"}, {"id": 1, "name": "table"}]
    whole, corner = [[0, 0, 4, 0, 4, 4, 0, 4]], [[0, 0, 2, 0, 2, 2, 0, 2]]
    for order in (1, -1):
        pairs = [(0, corner, 4), (1, whole, 16)][::order]
        told["annotations"] = [
            {"image_id": 5, "category_id": c, "segmentation": s, "area": n} for c, s, n in pairs
        ]
        (tmp_path / "a.json").write_text(json.dumps(told))
        masks, classes = read_coco(tmp_path / "a.json")
        assert classes == {0: "cup", 1: "table"}
        assert masks["a"][:2, :2].max() == 0 and masks["a"].sum() == 12


def test_masks_that_coco_cannot_name_are_refused(tmp_path):
    with pytest.raises(DataError, match="'b' holds 9"):
        write_coco(tmp_path / "c.json", [("b", np.array([[0, 9]]))], CLASSES)
    with pytest.raises(DataError, match="two masks are of 'b'"):
        write_coco(tmp_path / "c.json", [("b", np.array([[0]]))] * 2, CLASSES)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        (("annotations", 0, "segmentation", "counts"), [3, 4], "do not fit"),
        (("annotations", 0, "segmentation", "counts"), [-1, 621], "do not fit"),
        (("annotations", 0, "segmentation", "counts"), "abc", "compressed"),
        (("annotations", 0, "segmentation", "size"), [31, 20], "do not fit"),
        (("annotations", 0, "segmentation"), None, "no COCO JSON"),
        (("annotations", 0, "segmentation"), [[1, 2, 3]], "no COCO JSON"),
        (("annotations", 0, "category_id"), 99, "99"),
        (("annotations", 0, "image_id"), 99, "99"),
        (("images", 0, "width"), 10**9, "too large"),
        (("images", 0, "width"), -4, "no COCO JSON"),
        (("categories", 0, "id"), "one", "no COCO JSON"),
        (("categories", 0, "id"), 256, "ignore"),
        (("categories",), {}, "annotation of category"),
    ],
)
def test_what_is_no_coco_is_refused(coco, where, value, said):
    path, told = coco
    part = told
    for key in where[:-1]:
        part = part[key]
    part[where[-1]] = value
    path.write_text(json.dumps(told))
    with pytest.raises(DataError, match=f"(?s)coco.json.*{said}"):
        read_coco(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", "3", "\0"])
def test_files_that_hold_something_else_are_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match="a.json is no COCO JSON"):
        read_coco(tmp_path / "a.json")
    with pytest.raises(DataError, match="nowhere.json"):
        read_coco(tmp_path / "nowhere.json")
