"""Fetching archives from a real HTTP server on loopback; the table against other people's tables."""

import gzip
import hashlib
import http.server
import importlib
import importlib.metadata
import io
import re
import socket
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import Cityscapes
from torchvision.datasets.voc import DATASET_YEAR_DICT
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights
from torchvision.models.segmentation import FCN_ResNet50_Weights

from data_scripts import __main__ as commands
from data_scripts import fetch as fetching
from data_scripts.benchmark import Archive, Benchmark, labels
from data_scripts.convert import lookup
from data_scripts.fetch import fetch, verify
from data_scripts.table import BENCHMARKS, find


def archive_bytes(seed=0, size=300_000):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("noise", np.random.default_rng(seed).bytes(size))
    return stream.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    """One file at /a.zip, with ranges; `server.cuts` ends transfers after so many bytes, one by one."""

    def do_GET(self):
        s = self.server
        s.asked.append(self.headers.get("Range"))
        if self.path != "/a.zip":
            return self.send_error(404)
        first = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")) if s.ranges else None
        if first and self.headers["If-Range"] not in (s.tag, s.date):
            first = None  # the file has changed: all of it again
        start = int(first[1]) if first else 0
        if start >= len(s.body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(s.body)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(s.body) - start))
        for key, value in (("ETag", s.tag), ("Last-Modified", s.date), ("Content-Encoding", s.encoding)):
            if value:
                self.send_header(key, value)
        self.end_headers()
        part = s.body[start:]
        self.wfile.write(part[: s.cuts.pop(0)] if s.cuts else part)
        self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(fetching, "PAUSE", 0)
    monkeypatch.setattr(fetching, "CHUNK", 10_000)  # transfers break off at whole pieces
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.body, server.tag, server.date = archive_bytes(), '"one"', None
    server.asked, server.cuts, server.ranges, server.encoding = [], [], True, None
    server.url = f"http://127.0.0.1:{server.server_port}/a.zip"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def archive(server):
    return Archive("a.zip", "300 kB", server.url, hashlib.md5(server.body).hexdigest())


def unsigned(archive):
    return Archive("a.zip", "300 kB", archive.url)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_fetched_once_and_checked_ever_after(server, archive, tmp_path):
    folder = tmp_path / "new"
    assert fetch(archive, folder, progress=False) == f"a.zip: md5 {archive.md5} as published"
    assert (folder / "a.zip").read_bytes() == server.body and names(folder) == ["a.zip"]
    assert "as published" in fetch(archive, folder) and len(server.asked) == 1


def test_a_transfer_that_breaks_off_is_resumed(server, archive, tmp_path):
    server.cuts = [100_000, 50_000]
    fetch(archive, tmp_path, progress=False)
    assert (tmp_path / "a.zip").read_bytes() == server.body
    assert server.asked == [None, "bytes=100000-", "bytes=150000-"]


def test_a_download_continues_where_an_earlier_one_stopped(server, archive, tmp_path):
    """The server breaks off, then answers nothing more: what came is kept for the next call."""
    server.cuts = [100_000, 0]
    said = rf"could not fetch {server.url} \(\w+\); .*resumes.* put it at .*a\.zip"
    with pytest.raises(ValueError, match=said):
        fetch(archive, tmp_path, progress=False)
    assert names(tmp_path) == ["a.zip.part", "a.zip.part.tag"]
    assert (tmp_path / "a.zip.part").read_bytes() == server.body[:100_000]
    fetch(archive, tmp_path, progress=False)
    assert server.asked[-1] == "bytes=100000-" and names(tmp_path) == ["a.zip"]
    assert (tmp_path / "a.zip").read_bytes() == server.body


def test_attempts_end(server, archive, tmp_path):
    server.cuts = [10_000] * 50
    with pytest.raises(ValueError, match="could not fetch"):
        fetch(archive, tmp_path, progress=False)
    assert len(server.asked) == fetching.ATTEMPTS


@pytest.mark.parametrize(("tag", "date"), [('"one"', None), ('W/"one"', "Sat, 01 Jan 2022 00:00:00 GMT")])
def test_a_file_that_changed_in_between_is_fetched_anew(server, archive, tmp_path, tag, date):
    server.tag, server.date, server.cuts = tag, date, [100_000, 0]
    with pytest.raises(ValueError):
        fetch(unsigned(archive), tmp_path, progress=False)
    server.body, server.tag, server.date = archive_bytes(seed=1), '"two"', "Sun, 02 Jan 2022 00:00:00 GMT"
    fetch(unsigned(archive), tmp_path, progress=False)
    assert server.asked[-1] == "bytes=100000-" and (tmp_path / "a.zip").read_bytes() == server.body


@pytest.mark.parametrize("lacking", ["ranges", "tags"])
def test_without_ranges_or_tags_it_starts_again(server, archive, tmp_path, lacking):
    server.ranges, server.tag = lacking != "ranges", '"one"' if lacking == "ranges" else None
    server.cuts = [100_000]
    fetch(archive, tmp_path, progress=False)
    assert (tmp_path / "a.zip").read_bytes() == server.body and len(server.asked) == 2


def test_a_part_that_is_whole_or_too_long(server, archive, tmp_path):
    for part in (server.body, server.body + b"more"):
        (tmp_path / "a.zip.part").write_bytes(part)
        (tmp_path / "a.zip.part.tag").write_text('"one"')
        fetch(archive, tmp_path, progress=False)
        assert (tmp_path / "a.zip").read_bytes() == server.body and names(tmp_path) == ["a.zip"]
        (tmp_path / "a.zip").unlink()
    assert server.asked == [f"bytes={len(server.body)}-", f"bytes={len(server.body) + 4}-", None]


def test_a_gzipped_archive_stays_gzipped(server, tmp_path):
    """Apache's AddEncoding calls a .tgz the encoding of a tar, which clients would take off."""
    server.body, server.encoding = gzip.compress(archive_bytes()), "x-gzip"
    tgz = Archive("a.tgz", "", server.url, hashlib.md5(server.body).hexdigest())
    fetch(tgz, tmp_path, progress=False)
    assert (tmp_path / "a.tgz").read_bytes() == server.body


def test_a_wrong_checksum_is_refused(server, archive, tmp_path):
    server.body = archive_bytes(seed=1)
    with pytest.raises(ValueError, match=f"{server.url} did not give the published file: .*{archive.md5}"):
        fetch(archive, tmp_path, progress=False)
    assert names(tmp_path) == []
    (tmp_path / "a.zip").write_bytes(server.body)  # by hand: refused too, but the user's own file stays
    with pytest.raises(ValueError, match=rf"a\.zip has md5 .*, but should have {archive.md5}"):
        fetch(archive, tmp_path, progress=False)
    assert names(tmp_path) == ["a.zip"] and len(server.asked) == 1


def test_trust_on_first_use(server, archive, tmp_path):
    found = hashlib.sha256(server.body).hexdigest()
    said = fetch(unsigned(archive), tmp_path, progress=False)
    assert said == f"a.zip: no checksum is known; recorded its SHA-256 {found}"
    assert (tmp_path / "a.zip.sha256").read_text() == f"{found}  a.zip\n"  # as sha256sum -c reads it
    assert verify(unsigned(archive), tmp_path) == f"a.zip: sha256 {found} as recorded"
    (tmp_path / "a.zip").write_bytes(archive_bytes(seed=1))
    with pytest.raises(ValueError, match=f"but should have {found}"):
        verify(unsigned(archive), tmp_path)


def test_a_web_page_is_no_archive_and_not_recorded(server, archive, tmp_path):
    server.body = b"<html>please sign in</html>"
    with pytest.raises(ValueError, match=r"a\.zip is no archive: remove it"):
        fetch(unsigned(archive), tmp_path, progress=False)
    assert not (tmp_path / "a.zip.sha256").exists()


def test_what_the_server_says_is_passed_on(server, tmp_path):
    url = server.url.replace("a.zip", "b.zip")
    with pytest.raises(ValueError, match=rf"could not fetch {url} \(HTTP 404 Not Found\)"):
        fetch(Archive("b.zip", "", url), tmp_path, progress=False)


def test_the_commands_tell_all_failures_in_one_line(server, archive, tmp_path, monkeypatch, capsys):
    """One archive comes, one has an address that nobody answers, one needs registration."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}/b.zip"
    by_hand = Archive("c.zip", "", page="https://example.org/register")
    mine = Benchmark("Mine", (Archive("b.zip", "", nowhere), by_hand, archive), "", "", "voc2012")
    monkeypatch.setitem(BENCHMARKS, "mine", mine)
    where = tmp_path / "archives"
    assert commands.status(["download", "mine", "--archives", str(where)]) == 2
    out, err = capsys.readouterr()
    assert out == f"a.zip: md5 {archive.md5} as published\n"
    [line] = [line for line in err.splitlines() if line.startswith("error: ")]
    assert f"could not fetch {nowhere} (ConnectionError)" in line and f"put it at {where / 'b.zip'}" in line
    assert f"c.zip needs registration: fetch it from https://example.org/register into {where}" in line
    assert commands.status(["verify", "mine", "--archives", str(where)]) == 2
    assert f"b.zip is not in {where}; c.zip is not in {where}" in capsys.readouterr().err


CARRIED = [("requests", "pooch"), ("urllib3", "requests"), ("scipy", "scikit-image")]


@pytest.mark.parametrize(("module", "carrier"), CARRIED)
def test_what_is_imported_comes_with_a_dependency(module, carrier):
    required = {re.match(r"[\w-]+", line)[0] for line in importlib.metadata.requires(carrier)}
    assert module in required


@pytest.mark.parametrize("path", sorted(Path(commands.__file__).parent.glob("*.py")), ids=lambda p: p.name)
def test_files_stay_readable(path):
    assert len(path.read_text().splitlines()) <= 300
    module = importlib.import_module(
        f"data_scripts.{path.stem}" if path.stem != "__init__" else "data_scripts"
    )
    own = [v for v in vars(module).values() if getattr(v, "__module__", None) == module.__name__]
    assert module.__doc__ and all(v.__doc__ for v in own if not getattr(v, "__name__", "_").startswith("_"))


# --- the table ------------------------------------------------------------------------------------

COUNTS = {"voc2012": 21, "context60": 60, "context59": 59, "coco_object": 81, "coco_stuff": 171}
COUNTS |= {"coco_stuff27": 27, "cityscapes": 19, "ade20k": 150, "foodseg103": 104, "cub200": 201, "acdc": 19}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_row_holds_together(name):
    benchmark = find(name)
    found = labels(benchmark)
    assert [label.id for label in found] == list(range(COUNTS[name]))
    texts = [text for label in found for text in label.texts]
    assert len(set(texts)) == len(texts) and not any("," in text or text != text.strip() for text in texts)
    values = [value for label in found for value in label.values]
    assert len(set(values)) == len(values)
    for archive in benchmark.archives:
        assert archive.url or archive.page
        assert archive.md5 is None or re.fullmatch("[0-9a-f]{32}", archive.md5)
        assert "/" not in archive.file and re.search(r"\.(zip|tar|tgz|tar\.gz)$", archive.file)
    assert set(benchmark.splits) >= {"train"}
    table = lookup(benchmark)
    assert set(table[values].tolist()) == set(range(COUNTS[name]))
    assert table[255] == (0 if name == "coco_object" else 255)


@pytest.mark.parametrize(("name", "year"), [("voc2012", "2012"), ("context60", "2010")])
def test_voc_is_where_torchvision_says(name, year):
    archive, theirs = find(name).archives[0], DATASET_YEAR_DICT[year]
    assert (archive.url, archive.file, archive.md5) == (theirs["url"], theirs["filename"], theirs["md5"])


def test_cityscapes_ids_are_those_of_torchvision():
    theirs = {c.train_id: (c.name, c.id) for c in Cityscapes.classes if 0 <= c.train_id < 255}
    ours = {label.id: (label.name, *label.values) for label in labels(find("cityscapes"))}
    assert ours == theirs


def test_voc_classes_are_those_of_torchvision():
    theirs = FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1.meta["categories"]
    same = {"__background__": "background", "diningtable": "dining table", "pottedplant": "potted plant"}
    assert [label.name for label in labels(find("voc2012"))] == [same.get(name, name) for name in theirs]


@pytest.mark.parametrize("name", ["coco_stuff", "coco_object"])
def test_coco_values_are_category_ids_less_one(name):
    theirs = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]  # by category id; gaps are N/A
    theirs = {i - 1: category for i, category in enumerate(theirs) if i and category != "N/A"}
    ours = {label.values[0]: label.name for label in labels(find(name)) if label.values[0] < 91}
    if name == "coco_object":
        assert ours.pop(4) == "aeroplane" and theirs.pop(4) == "airplane"  # as in GroupViT and RNS
    assert ours == theirs and len(ours) >= 79


def test_coarse_stuff_covers_every_fine_class_once():
    coarse = sorted(value for label in labels(find("coco_stuff27")) for value in label.values)
    assert coarse == [label.values[0] for label in labels(find("coco_stuff"))]


def test_context_without_background_is_context_with_it():
    with_it = labels(find("context60"))[1:]
    assert [(x.name, x.values) for x in with_it] == [(x.name, x.values) for x in labels(find("context59"))]
    assert [x.name for x in with_it] == sorted(x.name for x in with_it)  # so are their values
    assert [x.values for x in with_it] == sorted(x.values for x in with_it)
