"""Fetching archives from a real HTTP server on loopback; the table against other people's tables."""

import hashlib
import io
import re
import zipfile

import numpy as np
import pytest
from torchvision.datasets import Cityscapes
from torchvision.datasets.voc import DATASET_YEAR_DICT
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights
from torchvision.models.segmentation import FCN_ResNet50_Weights

from data_scripts import fetch as fetching
from data_scripts.benchmark import Archive, labels
from data_scripts.convert import lookup
from data_scripts.fetch import fetch, verify
from data_scripts.table import BENCHMARKS, find


def archive_bytes(seed=0, size=300_000):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("noise", np.random.default_rng(seed).bytes(size))
    return stream.getvalue()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(fetching, "PAUSE", 0)
    monkeypatch.setattr(fetching, "CHUNK", 10_000)  # transfers break off at whole pieces


class File:
    """A route of the server: a file with ranges; `cuts` ends transfers after so many bytes, one by one."""

    def __init__(self):
        self.body, self.ranges, self.cuts = archive_bytes(), [], []

    def __call__(self, handler):
        self.ranges.append(handler.headers.get("Range"))
        first = re.fullmatch(r"bytes=(\d+)-", self.ranges[-1] or "")
        start = int(first[1]) if first else 0
        if start >= len(self.body):
            return 416, {"Content-Range": f"bytes */{len(self.body)}"}, b""
        part = self.body[start:]
        sent = part[: self.cuts.pop(0)] if self.cuts else part
        return (206 if first else 200), {"Content-Length": str(len(part)), "ETag": '"one"'}, sent


@pytest.fixture
def file(server):
    server.routes["/a.zip"] = file = File()
    file.url = f"{server.url}/a.zip"
    return file


@pytest.fixture
def archive(file):
    return Archive("a.zip", "300 kB", file.url, hashlib.md5(file.body).hexdigest())


def unsigned(archive):
    return Archive("a.zip", "300 kB", archive.url)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_download_is_resumed(file, archive, tmp_path):
    """The server breaks off twice, then answers nothing more: what came is kept for the next call."""
    file.cuts = [100_000, 50_000, 0]
    with pytest.raises(ValueError, match=file.url):
        fetch(archive, tmp_path, progress=False)
    assert (tmp_path / "a.zip.part").read_bytes() == file.body[:150_000]
    fetch(archive, tmp_path, progress=False)
    assert file.ranges == [None, "bytes=100000-", "bytes=150000-", "bytes=150000-"]
    assert (tmp_path / "a.zip").read_bytes() == file.body and names(tmp_path) == ["a.zip"]
    assert fetch(archive, tmp_path) and len(file.ranges) == 4  # what is there is only checked


def test_a_wrong_checksum_is_refused(file, archive, tmp_path):
    file.body = archive_bytes(seed=1)
    with pytest.raises(ValueError, match=f"{file.url} .*{archive.md5}"):
        fetch(archive, tmp_path, progress=False)
    assert names(tmp_path) == []
    (tmp_path / "a.zip").write_bytes(file.body)  # by hand: refused too, but the user's own file stays
    with pytest.raises(ValueError, match=archive.md5):
        fetch(archive, tmp_path, progress=False)
    assert names(tmp_path) == ["a.zip"] and len(file.ranges) == 1


def test_trust_on_first_use(file, archive, tmp_path):
    found = hashlib.sha256(file.body).hexdigest()
    assert found in fetch(unsigned(archive), tmp_path, progress=False)
    assert (tmp_path / "a.zip.sha256").read_text() == f"{found}  a.zip\n"  # as sha256sum -c reads it
    (tmp_path / "a.zip").write_bytes(archive_bytes(seed=1))
    with pytest.raises(ValueError, match=found):
        verify(unsigned(archive), tmp_path)
    (tmp_path / "a.zip.sha256").unlink()
    (tmp_path / "a.zip").write_bytes(b"<html>please sign in</html>")
    with pytest.raises(ValueError, match="a.zip"):
        verify(unsigned(archive), tmp_path)
    assert names(tmp_path) == ["a.zip"]


# --- the table ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_row_holds_together(name):
    classes = labels(find(name))
    assert [label.id for label in classes] == list(range(len(classes)))
    texts = [text for label in classes for text in label.texts]
    assert len(set(texts)) == len(texts) and not any("," in text or text != text.strip() for text in texts)
    values = [value for label in classes for value in label.values]
    assert len(set(values)) == len(values)
    assert set(lookup(find(name))[values].tolist()) == set(range(len(classes)))
    assert all(archive.url or archive.page for archive in find(name).archives)


def test_the_table_agrees_with_torchvision():
    for name, year in (("voc2012", "2012"), ("context60", "2010")):
        archive, theirs = find(name).archives[0], DATASET_YEAR_DICT[year]
        assert (archive.url, archive.file, archive.md5) == (theirs["url"], theirs["filename"], theirs["md5"])
    city = {c.train_id: (c.name, c.id) for c in Cityscapes.classes if 0 <= c.train_id < 255}
    assert {label.id: (label.name, *label.values) for label in labels(find("cityscapes"))} == city
    voc = FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1.meta["categories"]
    same = {"__background__": "background", "diningtable": "dining table", "pottedplant": "potted plant"}
    assert [label.name for label in labels(find("voc2012"))] == [same.get(name, name) for name in voc]


def test_coco_values_are_category_ids_less_one():
    theirs = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]  # by category id; gaps are N/A
    theirs = {i - 1: category for i, category in enumerate(theirs) if i and category != "N/A"}
    for name, own in (("coco_stuff", {}), ("coco_object", {4: "aeroplane"})):  # as in GroupViT and RNS
        ours = {label.values[0]: label.name for label in labels(find(name)) if label.values[0] < 91}
        assert ours == theirs | own
    coarse = sorted(value for label in labels(find("coco_stuff27")) for value in label.values)
    assert coarse == [label.values[0] for label in labels(find("coco_stuff"))]
