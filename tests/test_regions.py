"""Regions: superpixels, soft pooling under them, the cache, and every method through the segmenter."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import label
from test_segmenter import ColourEncoder, memory_of, scene

from data_scripts.scenes import SceneDataset, draw_scene
from rose_kit import CachedRegions, FeatureMap, Segmenter, Slic, SupportMemory, Vocabulary, make_regions, unit
from rose_kit.evaluation import evaluate
from rose_kit.pooling import patch_counts
from rose_kit.registry import methods, region_makers
from rose_kit.segmenter import region_query

NAMES = ["red", "green", "blue"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ROSE_KIT_CACHE", str(tmp_path / "cache"))


def check_map(ids, size):
    assert ids.shape == size and ids.dtype == np.int64
    assert np.array_equal(np.unique(ids), np.arange(ids.max() + 1)), "ids are 0 ... R - 1, without gaps"


# --- SLIC -----------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    segments=st.integers(1, 60),
    side=st.integers(1, 50),
    seed=st.integers(0, 99),
)
def test_superpixels_cover_everything_and_are_connected(size, segments, side, seed):
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    ids = Slic(segments=segments, side=side)(image)
    check_map(ids, size)
    for r in range(ids.max() + 1):
        assert label(ids == r)[1] == 1, f"region {r} lies in several places"


def test_superpixels_follow_edges_and_their_number():
    image, mask = scene()
    ids = Slic(segments=30)(image)
    assert all(len(np.unique(mask[ids == r])) == 1 for r in range(ids.max() + 1))
    picture = draw_scene(0, 128).image
    few, many = (Slic(segments=n)(picture).max() + 1 for n in (20, 300))
    assert 10 <= few <= 40 and 150 <= many <= 450


def test_all_kinds_of_images_are_cut_alike_and_large_ones_are_reduced():
    picture = draw_scene(0, 96).image
    ids = Slic()(picture)
    np.testing.assert_array_equal(ids, Slic()(Image.fromarray(picture)))
    np.testing.assert_array_equal(ids, Slic()(picture.astype(np.float32) / 255))
    blocks = Slic(side=48)(picture).reshape(48, 2, 48, 2)  # every 2 x 2 pixels are of one region
    assert (blocks == blocks[:, :1, :, :1]).all()


@pytest.mark.parametrize("wrong", [{"segments": 0}, {"compactness": -1.0}, {"side": 0}, {"iterations": 0}])
def test_wrong_settings_are_refused(wrong):
    (name, value), *_ = wrong.items()
    with pytest.raises(ValueError, match=f"{name} of Slic must be positive, got {value}"):
        Slic(**wrong)


def test_wrong_images_are_refused():
    with pytest.raises(ValueError, match=r"got shape \(8, 8\)"):
        Slic()(np.zeros((8, 8), np.uint8))


def test_makers_go_by_name_and_may_be_registered():
    assert make_regions("slic", segments=7) == Slic(segments=7)
    with pytest.raises(ValueError, match="unknown regions 'slick', did you mean 'slic'. Known: sam, slic"):
        make_regions("slick")
    assert set(region_makers) >= {"slic", "sam"}


# --- pooling --------------------------------------------------------------------------------------


def pooled_slowly(feature_map, regions, r):
    """Pixel by pixel of the encoded image: each adds its patch's feature to its region's."""
    total = np.zeros(feature_map.dim)
    height, width = feature_map.encoded_size
    for i in range(height):
        for j in range(width):
            y = i * regions.shape[0] // height
            x = j * regions.shape[1] // width
            if regions[y, x] == r:
                p = feature_map.patch_size
                total += feature_map.values[i // p, j // p]
    return total / np.linalg.norm(total)


@pytest.mark.parametrize(
    ("encoded", "size"), [((12, 16), (12, 16)), ((10, 13), (10, 13)), ((12, 16), (30, 41))]
)
def test_regions_pool_softly_by_pixels(encoded, size):
    rng = np.random.default_rng(0)
    h, w = -(-encoded[0] // 4), -(-encoded[1] // 4)
    feature_map = FeatureMap(unit(rng.normal(size=(h, w, 5))), 4, encoded, size)
    seeds = rng.random((6, 2)) * size  # a region is what lies nearest to one of six points
    places = np.moveaxis(np.indices(size), 0, -1)[..., None, :]  # (H, W, 1, 2)
    regions = ((places - seeds) ** 2).sum(-1).argmin(-1)  # (H, W)
    query = region_query(feature_map, regions)
    assert len(query) == 6
    np.testing.assert_array_equal(query.layout, regions)  # ids that are contiguous stay as they are
    for r in range(len(query)):
        np.testing.assert_allclose(query.features[r], pooled_slowly(feature_map, regions, r), atol=1e-5)
    shares = patch_counts(feature_map, regions, range(len(query)))
    assert ((shares > 0).sum(1) > 1).any(), "no patch is shared: nothing soft was tested"
    assert shares.sum() == encoded[0] * encoded[1]


# --- the cache ------------------------------------------------------------------------------------


class Counting:
    """Halves of an image; says how often it was asked."""

    def __init__(self, fingerprint="halves"):
        self.fingerprint, self.calls = fingerprint, 0

    def __call__(self, image):
        self.calls += 1
        ids = np.zeros(np.shape(image)[:2], dtype=np.int64)
        ids[:, ids.shape[1] // 2 :] = 1
        return ids


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (10, 14, 3), dtype=np.uint8)


def test_the_cache_goes_by_content_and_settings(picture, tmp_path):
    maker = Counting()
    cached = CachedRegions(maker, tmp_path / "deep" / "folder")
    first = cached(picture)
    np.testing.assert_array_equal(cached(picture.copy()), first)
    np.testing.assert_array_equal(cached(Image.fromarray(picture)), first)
    assert maker.calls == 1 and first.dtype == np.int64
    for other in (255 - picture, picture[:, ::-1], picture.reshape(14, 10, 3)):
        assert cached.path(other) != cached.path(picture)
    assert CachedRegions(Counting("thirds"), tmp_path).path(picture).name != cached.path(picture).name
    again = Counting()
    np.testing.assert_array_equal(CachedRegions(again, tmp_path / "deep" / "folder")(picture), first)
    assert again.calls == 0


def damage(kind, path):
    whole = path.read_bytes()
    if kind == "cut short":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "one bit":
        at = whole.index(b"ids.npy") + 60
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_bytes(b"halves")
    else:
        content = {
            "another size": {"ids": np.zeros((3, 3), np.int32)},
            "floats": {"ids": np.zeros((10, 14))},
            "another name": {"labels": np.zeros((10, 14), np.int32)},
            "pickle": {"ids": np.array([[{}] * 14] * 10, dtype=object)},
        }[kind]
        np.savez(path, **content)


@pytest.mark.parametrize(
    "kind",
    ["cut short", "one bit", "empty", "text", "another size", "floats", "another name", "pickle"],
)
def test_a_damaged_entry_is_made_again(picture, tmp_path, kind):
    maker = Counting()
    cached = CachedRegions(maker, tmp_path)
    first = cached(picture)
    damage(kind, cached.path(picture))
    np.testing.assert_array_equal(cached(picture), first)
    assert maker.calls == 2
    np.testing.assert_array_equal(cached(picture), first)
    assert maker.calls == 2, "the entry was mended"


def test_a_write_that_fails_leaves_nothing(picture, tmp_path, monkeypatch):
    cached = CachedRegions(Counting(), tmp_path)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        cached(picture)
    assert list(tmp_path.iterdir()) == []


def test_what_has_no_fingerprint_is_not_cached(tmp_path):
    with pytest.raises(ValueError, match="has no fingerprint"):
        CachedRegions(lambda image: image, tmp_path)


# --- every method, end to end ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["zero-shot", "knn-clip", "freeda", "rns"])
@pytest.mark.parametrize("regions", ["slic", lambda _: scene()[1] * 7 - 3], ids=["slic", "function"])
def test_every_method_answers_regions(name, regions):
    encoder = ColourEncoder()
    image, mask = scene()
    memory = memory_of(image, mask, encoder)
    segmenter = Segmenter(encoder, memory, methods.make(name), regions=regions)
    vocabulary = Vocabulary.encode(NAMES, encoder)
    encoded = segmenter.encode(image)
    result = segmenter.segment(encoded, vocabulary)
    ids = encoded.query.layout
    assert (result.labels == mask).mean() > 0.9
    assert result.scores.shape == (3, *mask.shape)
    np.testing.assert_allclose(result.scores.sum(0), 1, atol=1e-5)
    for r in range(len(encoded.query)):  # painting: one answer and one row of scores to a region
        inside = ids == r
        assert len(np.unique(result.labels[inside])) == 1
        assert np.ptp(result.scores[:, inside], axis=1).max() == 0
    if name == "zero-shot":
        assert result.evidence is None  # it rests on no prototype
        return
    assert set(result.evidence.query) == set(range(len(encoded.query))), "evidence for each region"
    top = result.evidence.top(int(ids[0, 0]))  # the corner is red, and rests on what was stored as red
    stored = [i for i in top.prototype_id if i >= 0]
    assert memory.lookup(stored[:1]).class_names.tolist() == ["red"]


@pytest.mark.parametrize("name", ["zero-shot", "knn-clip", "freeda", "rns"])
def test_methods_fit_and_answer_regions_on_scenes(name, encoder_on_scenes):
    encoder, memory, samples, vocabulary = encoder_on_scenes
    maker = Slic(segments=30)
    support = []
    for s in samples[:2]:
        query = region_query(encoder.encode_image(s.image), maker(s.image))
        labels = [np.bincount(s.mask[query.layout == r]).argmax() for r in range(len(query))]
        support.append((query, np.array(labels), s.image_id))
    method = methods.make(name).fit(memory, vocabulary, support)
    result = Segmenter(encoder, memory, method, maker).segment(samples[2].image, vocabulary)
    assert result.labels.shape == samples[2].mask.shape
    assert name == "zero-shot" or len(result.evidence)
    np.testing.assert_allclose(result.scores.sum(0), 1, atol=1e-4)


@pytest.fixture(scope="module")
def encoder_on_scenes():
    from rose_kit import load_encoder

    encoder, samples = load_encoder("bundled"), list(SceneDataset(3, first=5_000_000, size=64))
    memory = SupportMemory(encoder.dim, fingerprint=encoder.fingerprint)
    for s in samples[:2]:
        memory.add(s.image_id, encoder.encode_image(s.image), s.mask, s.classes)
    names = [samples[0].classes[c] for c in sorted(samples[0].classes)]
    return encoder, memory, samples, Vocabulary.encode(names, encoder)


@pytest.mark.filterwarnings("ignore:no image to draw holds")
def test_evaluation_takes_regions():
    from rose_kit import HandcraftedEncoder

    data = SceneDataset(4, first=5_000_000, size=48), SceneDataset(2, first=6_000_000, size=48)
    chosen, asked = {"knn-clip": methods.make("knn-clip")}, []

    def regions(image):
        asked.append(image)
        return Slic(segments=20)(image)

    common = {"shots": 1, "seeds": [1, 2], "progress": False}
    evaluate(*data, HandcraftedEncoder(), chosen, regions=regions, **common)
    assert len(asked) == 2, "each query image is cut once, whatever the number of seeds"


# --- the command line -----------------------------------------------------------------------------


def test_commands_take_regions(run, refused, folder, memory, tmp_path):
    common = ("evaluate", folder, "--encoder", "handcrafted", "--methods", "knn-clip", "--shots", 1)
    assert "knn-clip" in run(*common, "--seeds", 1, "--regions", "slic:segments=20,side=32")
    photo = folder / "images" / "p4.jpg"
    run("segment", photo, "--memory", memory, "--out", tmp_path / "o", "--regions", "slic:segments=9")
    labels = np.asarray(Image.open(tmp_path / "o" / "p4.png"))
    ids = Slic(segments=9)(np.asarray(Image.open(photo)))
    assert all(len(np.unique(labels[ids == r])) == 1 for r in range(ids.max() + 1))
    for wrong, said in [
        ("slick", ["'slick'", "slic"]),
        ("slic:segment=3", ["segment", "segments"]),
        ("slic:segments=few", ["few", "segments"]),
        ("slic:segments=0", ["segments", "0"]),
        ("sam:checkpoint=nowhere.pth", ["'nowhere.pth'", "vit_b, vit_l, vit_h"]),
        ("sam:order=sideways", ["'sideways'", "smallest, largest"]),
    ]:
        refused(*common, "--regions", wrong, said=said)
        refused("segment", photo, "--memory", memory, "--out", tmp_path / "p", "--regions", wrong, said=said)
        assert not (tmp_path / "p").exists()


def test_a_plugin_may_register_regions(run, folder, tmp_path, monkeypatch):
    monkeypatch.delitem(region_makers, "halves", raising=False)
    plugin = tmp_path / "halves.py"
    plugin.write_text(
        "from rose_kit import Slic, register_regions\nregister_regions('halves')(lambda: Slic(segments=2))\n"
    )
    common = ("evaluate", folder, "--encoder", "handcrafted", "--methods", "knn-clip", "--shots", 1)
    assert "knn-clip" in run(*common, "--seeds", 1, "--plugin", plugin, "--regions", "halves")
    region_makers.pop("halves")
