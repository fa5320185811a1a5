"""Masks leave the kit and come back: the folder format, and COCO JSON held against pycocotools' reader."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_api
from pycocotools.coco import COCO
from scipy import ndimage
from skimage.measure import regionprops

from rose_kit.data import DataError, FolderDataset, Sample, read_image
from rose_kit.viz.export import read_coco, run_lengths, save_labels, write_coco, write_folder
from rose_kit.viz.overlay import palette

CLASSES = {0: "sky", 3: "grass", 7: "bus"}


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
        ([sample(classes=CLASSES | {-1: "a"})], "-1"),
        ([sample(classes=CLASSES | {70000: "a"})], "70000"),
        ([sample(classes={0: "sea", 3: "sea", 7: "bus"})], "sea"),
        ([sample("e\u0301"), sample("\u00e9")], "\u00e9"),
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


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_a_folder_holds_the_pixels_of_its_samples_whatever_their_source(tmp_path, suffix):
    source = tmp_path / f"a{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 6, 3), np.uint8)).save(source)
    read = Sample("same", read_image(source), np.zeros((8, 6), int), {0: "sky"}, source=str(source))
    changed = replace(read, image_id="changed", image=255 - read.image)
    lost = replace(read, image_id="lost", source=str(tmp_path / f"gone{suffix}"))
    path = write_folder(tmp_path / "new", [changed, lost, read])
    for before, after in zip([changed, lost, read], FolderDataset(path), strict=True):
        assert after.image_id == before.image_id and np.array_equal(after.image, before.image)
    copied = path / "images" / f"same{suffix}"
    assert copied.read_bytes() == source.read_bytes() if suffix in (".jpg", ".png") else not copied.exists()


@pytest.mark.parametrize("components", [False, True])
def test_pycocotools_reads_the_masks_and_scores_that_were_written_and_so_do_we(masks, tmp_path, components):
    rng = np.random.default_rng(1)
    triples = [(name, mask, rng.random(mask.shape)) for name, mask in masks.items()]
    path = write_coco(tmp_path / "coco.json", triples, CLASSES, components=components)
    coco = COCO(path)
    assert {c - 1: category["name"] for c, category in coco.cats.items()} == CLASSES
    for (image, about), (name, mask, probability) in zip(coco.imgs.items(), triples, strict=True):
        assert about["file_name"] == name
        for c in CLASSES:
            own = [(coco.annToMask(a) > 0, a) for a in coco.imgToAnns[image] if a["category_id"] == c + 1]
            parts, count = ndimage.label(mask == c, np.ones((3, 3)))
            assert len(own) == (count if components else 1)
            assert np.array_equal(sum(region.astype(int) for region, _ in own), mask == c)
            for region, a in own:
                [props] = regionprops(region.astype(int))
                top, left, bottom, right = props.bbox
                assert a["area"] == props.area and a["bbox"] == [left, top, right - left, bottom - top]
                assert a["score"] == pytest.approx(probability[region].mean()) and a["iscrowd"] == 0
                assert not components or len(np.unique(parts[region])) == 1
    read, classes = read_coco(path)
    again, _ = read_coco(write_coco(path, read, CLASSES))  # a mapping
    assert classes == CLASSES and list(read) == list(masks)
    assert all(np.array_equal(m, masks[name]) for own in (read, again) for name, m in own.items())


def test_what_coco_cannot_hold_is_refused_and_leaves_nothing(tmp_path):
    mask = np.zeros((2, 3), int)
    for wrong in ((mask, mask * np.nan), (mask, np.ones((2, 2))), ([1],)):
        with pytest.raises(DataError, match="'b'.*(finite|must be .H, W)"):
            write_coco(tmp_path / "w.json", [("b", *wrong)], CLASSES)
    for c in (-1, 2**16, 255):
        with pytest.raises(DataError, match=f"'x' has the id {c}"):
            write_coco(tmp_path / "w.json", [], {c: "x"})
    with pytest.raises(DataError, match="'b'.*9"):
        write_coco(tmp_path / "w.json", [("b", mask + 9)], CLASSES)
    assert not list(tmp_path.iterdir())


def test_polygons_and_plain_run_lengths_are_read_and_the_smaller_lies_on_top(tmp_path):
    large, corner = [[0.0, 0, 4, 0, 4, 4, 0, 4]], {"size": [4, 4], "counts": [0, 2, 2, 2, 10]}
    content = {"images": [{"id": 5, "file_name": "a", "width": 4, "height": 4}]}
    content["categories"] = [{"id": 0, "name": "cup"}, {"id": 1, "name": "table"}]  # ids may start at 0
    for order in (1, -1):
        pairs = [(0, corner, 1e9), (1, large, -1)][::order]  # areas may lie
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
    assert expected.sum() > 500 and np.array_equal(mask_api.decode(run_lengths(slanted, (50, 60))), expected)


SQUARE = [[2, 3, 12, 3, 12, 13, 2, 13]]


@pytest.fixture
def content():
    """Two images of one name in two folders, with a square of a class in each."""
    images = [{"id": i, "file_name": f"{i}/x.jpg", "width": 30, "height": 20} for i in (1, 2)]
    squares = [{"id": 9 + i, "image_id": i, "category_id": i, "segmentation": SQUARE} for i in (1, 2)]
    categories = [{"id": i, "name": name} for i, name in enumerate(("cat", "dog", "unused"), start=1)]
    return {"images": images, "annotations": squares, "categories": categories}


def changed(content, where, value):
    """The content with another value at a place; None: without it."""
    content = part = json.loads(json.dumps({"": content}))
    *parents, last = ("", *where)
    for key in parents:
        part = part[key]
    part[last] = value
    if value is None:
        del part[last]
    return content[""]


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ((), ...),
        (("annotations", 1, "id"), None),
        (("annotations", 1, "category_id"), "2"),
        (("annotations", 1, "category_id"), 2.0),
        (("annotations", 1, "segmentation"), [[[2, 3], [12, 3], [12, 13], [2, 13]]]),
        (("annotations", 1, "segmentation"), [list(map(str, SQUARE[0]))]),
        (("annotations", 1, "iscrowd"), 1),
        (("annotations", 1, "area"), "large"),
        (("categories", 1, "id"), "2"),
        (("images", 1, "id"), "02"),
        (("images", 1, "width"), "30"),
        (("images", 1, "height"), 20.0),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_same_in_other_words_is_the_same(content, tmp_path, where, value, encoding):
    told = content if value is ... else changed(content, where, value)
    (tmp_path / "a.json").write_text(json.dumps(told), encoding=encoding)
    masks, classes = read_coco(tmp_path / "a.json")
    assert classes == {0: "cat", 1: "dog", 2: "unused"} and list(masks) == ["1/x.jpg", "2/x.jpg"]
    for c, mask in enumerate(masks.values()):
        assert mask.shape == (20, 30) and (mask[3:13, 2:12] == c).all() and (mask != 255).sum() == 100


RUNS = {"size": [20, 30], "counts": [0, 600]}
COUNTS = [
    [3, 4],  # pycocotools leaves the rest
    [-1, 601],
    "abc",  # ... and reads past this
    "0`f0",  # too many
    "0X1",  # too few
]
UNFIT = [RUNS | {"counts": counts} for counts in COUNTS] + [RUNS | {"size": [30, 20]}, {"size": [20, 30]}]
UNFIT += [[[0, 0, far, 0, 4, 4]] for far in (1e12, 10**400, float("nan"))] + [[[0, 0, 4, 4]], SQUARE[0], 7]


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        *((("annotations", 1, "segmentation"), value, "fit") for value in UNFIT),
        (("annotations", 1, "segmentation"), [], "box is not enough"),
        (("annotations", 1, "segmentation"), [[]], "box is not enough"),
        (("annotations", 1, "segmentation"), None, "box is not enough"),
        (("annotations", 1, "image_id"), 99, "99"),
        (("annotations", 1, "image_id"), None, "None"),
        (("annotations", 1, "category_id"), -1, "-1"),
        (("annotations", 1, "id"), 10, "10.*2 of 2"),
        (("annotations", 1), 3, "position 1"),
        (("images", 1, "id"), 1, "'2/x.jpg'"),
        (("images", 1, "id"), None, "'2/x.jpg'"),
        (("images", 1, "file_name"), "1/x.jpg", "id 2 .*'1/x.jpg'"),
        (("images", 1, "file_name"), None, "id 2 "),
        (("images", 1, "width"), 10**9, "1000000000"),
        (("images", 1, "width"), 0, "'2/x.jpg'.* 0"),
        (("images", 1, "height"), None, "'2/x.jpg'"),
        (("categories", 1, "id"), 1, "'dog'"),
        (("categories", 1, "id"), -2, "-2, 'dog'"),
        (("categories", 1, "id"), 256, "255|256, 'dog'"),
        (("categories", 1, "id"), 70_000, "70000, 'dog'"),
        (("categories", 1, "id"), "dog", "dog, 'dog'"),
        (("categories", 1, "name"), "cat", "id 2 .*'cat'"),
        (("categories", 1, "name"), "a|b", "'a|b'"),
        (("categories", 1, "name"), None, "id 2 "),
        (("annotations",), None, "'annotations'"),
        ((), [], "as COCO JSON.*results alone"),
    ],
)
def test_what_is_no_coco_is_refused_by_its_id(content, tmp_path, where, value, message):
    (tmp_path / "coco.json").write_text(json.dumps(changed(content, where, value)))
    if where[-1:] in (("segmentation",), ("image_id",), ("category_id",)):
        message = f"annotation 11: .*{message}.*1 of 2"
    with pytest.raises(DataError, match=f"(?s)coco.json.*{message}"):
        read_coco(tmp_path / "coco.json")


def test_every_wrong_annotation_counts_and_one_without_a_pixel_is_told(content, tmp_path):
    wrong = {"category_id": 1, "segmentation": []}
    content["annotations"] += [wrong | {"id": i, "image_id": 1 + i % 2} for i in range(50, 60)]
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="annotation 50: .*10 of 12 "):
        read_coco(tmp_path / "a.json")
    thin = {"id": 7, "image_id": 1, "category_id": 2, "segmentation": [[0.1, 0.1, 0.2, 0.1, 0.2, 0.2]]}
    (tmp_path / "a.json").write_text(json.dumps(content | {"annotations": [thin]}))
    with pytest.warns(UserWarning, match="annotation 7 .*1 of 1"):
        read_coco(tmp_path / "a.json")
