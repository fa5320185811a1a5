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
from scipy.ndimage import label
from test_segmenter import ColourEncoder, memory_of, scene

from course.tiny_sam import tiny_sam
from data_scripts.scenes import draw_scene
from rose_kit import CachedRegions, Sam, Segmenter, Slic, load_sam, make_regions
from rose_kit.cli import read_preset
from rose_kit.encoder import WeightsUnavailable
from rose_kit.regions.checkpoint import CHECKPOINTS, Checkpoint
from rose_kit.regions.sam import fill, flatten

LENIENT = {"points_per_side": 6, "pred_iou_thresh": -1e9, "stability_score_thresh": 0.0}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ROSE_KIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def picture():
    return draw_scene(3, 128).image


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """The weights of a tiny SAM in a file, known as the architecture "tiny" with its true hash."""
    path = tmp_path / "sam_tiny.pth"
    torch.save(tiny_sam().state_dict(), path)
    true = hashlib.sha256(path.read_bytes()).hexdigest()
    known = Checkpoint(partial(tiny_sam, 0), path.name, true, source="http://127.0.0.1:9/")
    monkeypatch.setitem(CHECKPOINTS, "tiny", known)
    return path


# --- flattening and filling -----------------------------------------------------------------------

MASKS = st.tuples(st.integers(0, 6), st.integers(1, 7), st.integers(1, 7)).flatmap(
    lambda shape: hnp.arrays(bool, shape)
)


@given(masks=MASKS, order=st.sampled_from(["smallest", "largest"]))
def test_the_mask_on_top_is_decided_pixel_by_pixel(masks, order):
    size, areas = masks.shape[1:], masks.sum((1, 2))
    pick = min if order == "smallest" else max
    ids = flatten(list(masks), size, order)
    for y, x in np.ndindex(size):
        here = [i for i in range(len(masks)) if masks[i, y, x]]
        assert ids[y, x] == (pick(here, key=lambda i: areas[i]) if here else -1)


@given(masks=MASKS, seed=st.integers(0, 99))
def test_gaps_are_filled_with_connected_pieces_of_superpixels(masks, seed):
    ids = flatten(list(masks), masks.shape[1:], "smallest")
    rest = np.random.default_rng(seed).integers(0, 3, ids.shape)
    full = fill(ids, rest)
    assert np.array_equal(np.unique(full), np.arange(full.max() + 1))
    for r in range(full.max() + 1):
        inside = full == r
        assert len(np.unique(ids[inside])) == 1, "masks and gaps never share a region"
        if ids[inside][0] < 0:
            assert label(inside)[1] == 1 and len(np.unique(rest[inside])) == 1
        else:
            assert np.array_equal(inside, ids == ids[inside][0]), "a mask in sight is one region"


# --- the whole path -------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["smallest", "largest"])
def test_real_masks_become_regions(picture, order):
    maker = Sam(tiny_sam(), order, **LENIENT)
    masks = maker.masks(picture)
    cover = np.sum(masks, axis=0)  # (H, W) how many masks lie on a pixel
    assert len(masks) >= 3 and cover.max() >= 2 and cover.min() == 0, (
        "overlaps and gaps, else nothing is tested"
    )
    ids = maker(picture)
    np.testing.assert_array_equal(ids, maker(picture))
    np.testing.assert_array_equal(ids, fill(flatten(masks, (128, 128), order), Slic()(picture)))
    inside = sorted(masks, key=np.sum)[0 if order == "smallest" else -1]
    assert len(np.unique(ids[inside])) == 1, "the mask on top is whole"
    assert not np.isin(ids[cover == 0], ids[cover > 0]).any()


def test_without_any_mask_superpixels_remain(picture):
    maker = Sam(tiny_sam(), points_per_side=2, pred_iou_thresh=1e9)
    assert maker.masks(picture) == []
    np.testing.assert_array_equal(maker(picture), Slic()(picture))


def test_pictures_of_any_shape_and_kind(picture):
    maker = Sam(tiny_sam(), points_per_side=2, pred_iou_thresh=-1e9, stability_score_thresh=0.0)
    wide = picture[:30, :77]
    assert maker(wide).shape == (30, 77)
    np.testing.assert_array_equal(maker(wide), maker(wide / np.float32(255)))


def test_the_segmenter_runs_on_sam_regions():
    encoder = ColourEncoder()
    image, mask = scene()
    maker = Sam(tiny_sam(), **LENIENT, rest=Slic(segments=40))
    result = Segmenter(encoder, memory_of(image, mask, encoder), regions=maker).segment(
        image, ["red", "green"]
    )
    ids = maker(image)
    assert all(len(np.unique(result.labels[ids == r])) == 1 for r in range(ids.max() + 1))
    assert set(result.evidence.query) == set(range(ids.max() + 1))


def test_the_cache_tells_weights_and_settings_apart(picture, tmp_path, monkeypatch):
    makers = [
        Sam(tiny_sam(), **LENIENT),
        Sam(tiny_sam(5), **LENIENT),
        Sam(tiny_sam(), "largest", **LENIENT),
        Sam(tiny_sam(), **LENIENT | {"points_per_side": 4}),
        Sam(tiny_sam(), **LENIENT, rest=Slic(segments=40)),
    ]
    assert len({CachedRegions(m, tmp_path).path(picture) for m in makers}) == len(makers)
    ids = CachedRegions(makers[0], tmp_path)(picture)
    same = CachedRegions(Sam(tiny_sam(), **LENIENT), tmp_path)
    monkeypatch.setattr(Sam, "masks", lambda *_: pytest.fail("SAM was asked again"))
    np.testing.assert_array_equal(same(picture), ids)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"order": "sideways"}, "'sideways' of masks. Known: smallest, largest"),
        ({"points_per_side": 0}, "got 0"),
    ],
)
def test_wrong_settings_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        Sam(tiny_sam(), **wrong)


def test_presets_of_the_paper_put_large_masks_on_top(saved):
    options = read_preset("rns-openclip")["regions"]["sam"] | {"checkpoint": saved, "points_per_side": 2}
    maker = make_regions("sam", **options)
    assert isinstance(maker, CachedRegions) and maker.regions.order == "largest"
    assert maker.regions.generator.pred_iou_thresh == maker.regions.generator.stability_score_thresh == 0.4


# --- checkpoints ----------------------------------------------------------------------------------


def test_published_hashes_are_whole_and_differ():
    names = {name: known.file for name, known in CHECKPOINTS.items()}
    assert set(names) == {"vit_b", "vit_l", "vit_h"} and all(n in file for n, file in names.items())
    hashes = {known.sha256 for known in CHECKPOINTS.values()}
    assert len(hashes) == 3 and all(len(h) == 64 and int(h, 16) for h in hashes)


def test_a_checkpoint_is_saved_loaded_and_gives_the_same_regions(saved, picture):
    loaded = load_sam(saved)  # built with other random weights, so the file must have supplied these
    for key, value in tiny_sam().state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    assert not torch.equal(*(m.mask_decoder.iou_token.weight for m in (loaded, tiny_sam(0))))
    np.testing.assert_array_equal(Sam(saved, **LENIENT)(picture), Sam(tiny_sam(), **LENIENT)(picture))


def test_another_hash_is_refused_and_ones_own_is_said_aloud(saved):
    expected = CHECKPOINTS["tiny"].sha256
    torch.save(tiny_sam(5).state_dict(), saved)
    found = hashlib.sha256(saved.read_bytes()).hexdigest()
    with pytest.raises(ValueError, match=f"has SHA-256 {found}, but tiny should have {expected}"):
        load_sam(saved)
    own = saved.rename(saved.with_name("tuned.pth"))
    with pytest.raises(ValueError, match=r"none of the published files .*one of vit_b.*sha256"):
        load_sam(own)
    with pytest.raises(ValueError, match=found):
        load_sam(own, "tiny", "0" * 64)
    assert torch.equal(
        load_sam(own, "tiny", found).mask_decoder.iou_token.weight, tiny_sam(5).mask_decoder.iou_token.weight
    )


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Evil()),
        b"",
        b"<html>not found</html>",
    ],
    ids=["pickle", "empty", "page"],
)
def test_what_holds_no_tensors_is_refused_even_with_the_right_hash(saved, content):
    saved.write_bytes(content)
    with pytest.raises(ValueError, match="is no checkpoint of SAM tiny"):
        load_sam(saved, "tiny", hashlib.sha256(content).hexdigest())


def test_weights_of_another_architecture_are_refused(saved):
    torch.save({"weight": torch.zeros(3)}, saved)
    with pytest.raises(ValueError, match="is no checkpoint of SAM tiny: Error"):
        load_sam(saved, sha256=hashlib.sha256(saved.read_bytes()).hexdigest())


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["vit_x"], "unknown SAM checkpoint 'vit_x'. Known: vit_b, vit_l, vit_h, or the path"),
        (["sam_vit_b_01ec64.pth"], "cannot read SAM checkpoint 'sam_vit_b_01ec64.pth': No such file"),
        (["x.pth", "vit_g"], "unknown SAM architecture 'vit_g'. Known: vit_b, vit_l, vit_h"),
        (["x.pth", "vit_b"], "cannot read SAM checkpoint 'x.pth'"),
    ],
)
def test_unknown_checkpoints_are_refused(args, said):
    with pytest.raises(ValueError, match=said):
        load_sam(*args)


@pytest.fixture
def published(saved, tmp_path, monkeypatch):
    """The tiny checkpoint, published by a server on this machine."""
    (tmp_path / "web").mkdir()
    saved.rename(tmp_path / "web" / saved.name)
    served = []

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            served.append(self.path)

    handler = partial(Quiet, directory=str(tmp_path / "web"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        source = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setitem(
            CHECKPOINTS, "tiny", Checkpoint(tiny_sam, saved.name, CHECKPOINTS["tiny"].sha256, source)
        )
        yield tmp_path / "web" / saved.name, served
        server.shutdown()
        thread.join()


def test_weights_are_fetched_once(published, own_cache):
    _, served = published
    load_sam("tiny")
    load_sam("tiny")
    assert len(served) == 1 and (own_cache / "sam" / "sam_tiny.pth").is_file()


def test_what_arrives_is_checked(published, own_cache):
    file, _ = published
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(WeightsUnavailable, match="did not give the published file.*'slic' need no weights"):
        load_sam("tiny")
    assert not list((own_cache / "sam").glob("*.pth"))


def test_a_damaged_file_in_the_cache_is_refused(published, own_cache):
    load_sam("tiny")
    kept = own_cache / "sam" / "sam_tiny.pth"
    kept.write_bytes(kept.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match="has SHA-256 .* but tiny should have"):
        load_sam("tiny")


def test_offline_there_is_one_clear_error(saved, own_cache, refused, folder):
    with pytest.raises(WeightsUnavailable) as caught:
        load_sam("tiny")  # nothing answers at port 9
    for text in ("http://127.0.0.1:9/sam_tiny.pth", str(own_cache / "sam" / "sam_tiny.pth"), "'slic'"):
        assert text in str(caught.value)
    common = ("evaluate", folder, "--encoder", "handcrafted", "--methods", "knn-clip")
    refused(*common, "--regions", "sam:checkpoint=tiny", said=["'tiny'", "'slic' need no weights"])


def test_sam_on_the_command_line(run, folder, saved, own_cache):
    common = ("evaluate", folder, "--encoder", "handcrafted", "--methods", "knn-clip", "--shots", 1)
    options = f"sam:checkpoint={saved},points_per_side=2,order=largest"
    first = run(*common, "--seeds", 1, "--regions", options)
    assert len(list((own_cache / "regions").glob("*.npz"))) == 3, "one entry for each query picture"
    assert run(*common, "--seeds", 1, "--regions", options) == first
