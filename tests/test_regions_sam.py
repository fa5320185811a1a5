"""SAM for real, only small: an untrained model of the same parts, through the loader and the generator."""

import hashlib
import pickle
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from segment_anything import sam_model_registry

from course.tiny_sam import tiny_sam
from data_scripts.scenes import draw_scene
from rose_kit import Sam, load_sam
from rose_kit.encoder import WeightsUnavailable
from rose_kit.regions import sam
from rose_kit.regions.sam import flatten

LENIENT = {"points_per_side": 4, "pred_iou_thresh": -1e9, "stability_score_thresh": 0.0}
IMAGE = draw_scene(3, 96).image
MASKS = st.tuples(st.integers(0, 6), st.integers(1, 7), st.integers(1, 7)).flatmap(
    lambda shape: hnp.arrays(bool, shape)
)


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """The weights of a tiny SAM in a file, known as the architecture "tiny" with its true hash."""
    path = tmp_path / "sam_tiny.pth"
    torch.save(tiny_sam().state_dict(), path)
    monkeypatch.setitem(sam_model_registry, "tiny", partial(tiny_sam, 0))  # built with other random weights
    monkeypatch.setitem(sam.CHECKPOINTS, "tiny", (path.name, hashlib.sha256(path.read_bytes()).hexdigest()))
    monkeypatch.setattr(sam, "SOURCE", "http://127.0.0.1:9/")  # where nothing answers
    monkeypatch.setenv("ROSE_KIT_CACHE", str(tmp_path / "cache"))
    return path


@given(masks=MASKS, largest=st.booleans())
def test_the_mask_on_top_is_decided_pixel_by_pixel(masks, largest):
    areas, pick = masks.sum((1, 2)), max if largest else min
    ids = flatten(list(masks), masks.shape[1:], largest)
    for y, x in np.ndindex(ids.shape):
        here = [i for i in range(len(masks)) if masks[i, y, x]]
        assert ids[y, x] == (pick(here, key=lambda i: areas[i]) if here else -1)


@pytest.mark.parametrize("largest", [False, True])
def test_real_masks_become_regions(largest):
    maker = Sam(tiny_sam(), largest, **LENIENT)
    masks = maker.masks(IMAGE)
    cover = np.sum(masks, axis=0)  # (H, W) how many masks lie on a pixel
    assert cover.max() >= 2 and cover.min() == 0, "overlaps and gaps, else nothing is tested"
    ids = maker(IMAGE)
    np.testing.assert_array_equal(ids, maker(IMAGE / np.float32(255)))
    np.testing.assert_array_equal(ids == 0, cover == 0)  # what no mask covers is one region, the first
    on_top = flatten(masks, (96, 96), largest)
    assert np.array_equal(np.unique(ids), np.arange(len(np.unique(on_top))))
    for region in range(1, ids.max() + 1):
        inside = ids == region
        assert np.array_equal(inside, on_top == on_top[inside][0]), "a mask in sight is one region"
    none = Sam(tiny_sam(), points_per_side=2, pred_iou_thresh=1e9)
    assert none(IMAGE[:30, :77]).shape == (30, 77) and none(IMAGE[:30, :77]).max() == 0


def test_a_checkpoint_is_saved_loaded_and_gives_the_same_regions(saved):
    np.testing.assert_array_equal(Sam(saved, **LENIENT)(IMAGE), Sam(tiny_sam(), **LENIENT)(IMAGE))
    own = saved.rename(saved.with_name("own.pth"))
    with pytest.raises(ValueError, match="own.pth"):
        load_sam(own)
    weights, own = tiny_sam().state_dict(), own.rename(own.with_name("own_tiny.pth"))
    assert all(torch.equal(value, weights[key]) for key, value in load_sam(own).state_dict().items())


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


@pytest.mark.parametrize("content", [pickle.dumps(Evil(), 2), b"", b"<html>not found</html>"], ids=len)
def test_what_holds_no_tensors_is_refused(saved, content):
    saved.write_bytes(content)
    with pytest.raises(ValueError, match="sam_tiny.pth"):
        load_sam(saved)


def test_weights_are_fetched_once_and_checked(saved, tmp_path, monkeypatch):
    with pytest.raises(WeightsUnavailable, match="http://127.0.0.1:9/sam_tiny.pth"):
        load_sam("tiny")
    requests = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            requests.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(sam, "SOURCE", f"http://127.0.0.1:{server.server_port}/")
        for _ in range(2):
            load_sam("tiny")
        cached = tmp_path / "cache" / "sam" / "sam_tiny.pth"
        assert len(requests) == 1 and cached.is_file()
        for file in (cached, saved):  # a damaged copy is fetched again; what is damaged there is refused
            file.write_bytes(file.read_bytes()[:-1] + b"?")
        with pytest.raises(WeightsUnavailable, match="tiny"):
            load_sam("tiny")
        server.shutdown()
    assert len(requests) == 2
