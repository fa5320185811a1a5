"""The whole pipeline on a toy encoder whose features are known: colours."""

import numpy as np
import pytest
from PIL import Image
from skimage.transform import resize

from rose_kit import RNS, FeatureMap, Freeda, Query, Segmenter, SupportMemory, Vocabulary, ZeroShot, unit
from rose_kit.encoder import NoTextTower
from rose_kit.segmenter import (
    EncodedImage,
    name_vocabulary,
    paint,
    pixel_probability,
    region_query,
    soften,
    upsample_scores,
)
from rose_kit.types import Segmentation
from tests.imagefiles import turned

COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "wall": (1, 1, 0)}
COLOURS |= {"sky": (0, 0, 1), "grass": (0, 1, 0), "bus": (1, 0, 0), "kite": (1, 0, 1)}
NAMES = ["red", "green", "blue"]
P = 4  # pixels to a patch


class ColourEncoder:
    """A patch's feature is its mean colour; a text's is the colour it names."""

    name, fingerprint, dim, patch_size = "colour", "colour", 3, P

    def __init__(self, text=True):
        self.text, self.encoded = text, []

    def encode_image(self, image, windows=None):
        image = np.asarray(image, dtype=np.float32) / 255 + 1e-5
        self.encoded.append((image.tobytes(), windows))
        height, width = image.shape[:2]
        padded = np.pad(image, ((0, -height % P), (0, -width % P), (0, 0)))
        h, w = padded.shape[0] // P, padded.shape[1] // P
        values = padded.reshape(h, P, w, P, 3).mean((1, 3))
        return FeatureMap(unit(values), P, (height, width), (height, width))

    def encode_text(self, names):
        if not self.text:
            raise NoTextTower(f"no text tower for {list(names)}")
        return unit([COLOURS.get(name, (1, 1, 1)) for name in names])


def scene():
    """26 x 34: red at the left, green at the right, a blue square in the middle."""
    mask = np.zeros((26, 34), dtype=np.int64)
    mask[:, 16:] = 1
    mask[8:16, 12:20] = 2
    return (255 * np.array([COLOURS[name] for name in NAMES]))[mask].astype(np.uint8), mask


def memory_of(image, mask, encoder):
    memory = SupportMemory(3, fingerprint="colour")
    memory.add("support", encoder.encode_image(image), mask, {0: "red", 1: "green", 2: "blue"})
    return memory


@pytest.fixture
def world():
    encoder = ColourEncoder()
    image, mask = scene()
    return encoder, memory_of(image, mask, encoder), image, mask


def bilinear(scores, size):
    """Bilinear resizing of (C, h, w) scores with pixel centres at half, by scikit-image."""
    return resize(scores, (len(scores), *size), order=1, mode="edge", anti_aliasing=False)


def test_upsampling_is_that_of_scikit_image():
    scores = np.random.default_rng(0).random((5, 3, 4)).astype(np.float32)
    for image_size in ((10, 14), (7, 23)):
        feature_map = FeatureMap(np.zeros((3, 4, 2), np.float32), P, (10, 14), image_size)
        expected = bilinear(bilinear(scores, (12, 16))[:, :10, :14], image_size)
        np.testing.assert_allclose(upsample_scores(scores, feature_map), expected, atol=1e-5)
    with pytest.raises(ValueError, match=r"\(4, 3\).*\(3, 4\)"):
        upsample_scores(np.zeros((5, 4, 3)), feature_map)


def test_the_temperature_of_a_method_moves_no_border():
    """Softness against a loop, and labels at three temperatures; a probability may be 0."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(12, 5))
    sharp, warm, flat = (np.exp(s * scores) / np.exp(s * scores).sum(1, keepdims=True) for s in (30, 3, 0.1))
    gaps = [np.diff(np.sort(row))[-1] for row in scores]
    expected = np.exp(scores / np.mean(gaps))
    for p in (sharp, warm, flat):
        np.testing.assert_allclose(soften(p), expected / expected.sum(1, keepdims=True), atol=1e-4)
    fm, query = FeatureMap(np.zeros((3, 4, 2), np.float32), P, (12, 16), (50, 60)), Query(np.eye(12), (3, 4))
    answers = [Segmentation(*paint(p, query, fm), tuple("abcde")) for p in (sharp, warm, flat)]
    labels, sure = [answer.labels for answer in answers], []
    assert (labels[0] == labels[1]).mean() > 0.999 and (labels[1] == labels[2]).mean() > 0.999
    for answer in answers:  # how sure each is of what is shown: at its own temperature
        own = bilinear(bilinear(answer.scores, (12, 16)), (50, 60))
        sure.append(pixel_probability(answer, EncodedImage(fm, query)))
        np.testing.assert_allclose(sure[-1], np.take_along_axis(own, answer.labels[None], 0)[0], atol=1e-5)
    assert sure[0].mean() > sure[1].mean() + 0.1 > sure[2].mean() + 0.2
    zeros = np.where(np.arange(5) < 3, sharp, 0)
    assert np.isfinite(soften(zeros)).all() and (soften(zeros).argmax(1) == zeros.argmax(1)).all()
    assert soften(np.full((2, 3), 1 / 3)) == pytest.approx(1 / 3) and (soften(np.ones((2, 1))) == 1).all()


@pytest.mark.parametrize("method", [None, ZeroShot(), Freeda(), RNS(solver="lbfgs")], ids=repr)
def test_a_scene_is_labelled_at_its_own_size_with_evidence_from_the_memory(world, method):
    encoder, memory, image, mask = world
    result = Segmenter(encoder, memory, method).segment(image, NAMES)
    assert result.labels.dtype == np.int64 and (result.labels == mask).mean() > 0.9
    assert result.scores.shape == (3, 7, 9) and result.names == tuple(NAMES)
    np.testing.assert_allclose(result.scores.sum(0), 1, atol=1e-5)
    for regions in (None, lambda image: mask):
        segmenter = Segmenter(encoder, memory, method, regions)
        answer = segmenter.segment(encoded := segmenter.encode(image), NAMES)
        scores = answer.scores if regions else bilinear(answer.scores, (28, 36))[:, :26, :34]
        expected = np.take_along_axis(scores, answer.labels[None], 0)[0]
        np.testing.assert_allclose(pixel_probability(answer, encoded), expected, atol=1e-5)
    if result.evidence is not None:  # of a corner, which is red
        corner = result.evidence.top(0)
        strongest = corner.prototype_id[corner.prototype_id >= 0][:1]
        assert memory.lookup(strongest).class_names.tolist() == ["red"]


def test_an_image_is_encoded_once_and_asked_often(world):
    encoder, memory, image, _ = world
    before, segmenter = len(encoder.encoded), Segmenter(encoder, memory, ZeroShot())
    encoded = segmenter.encode(Image.fromarray(image))
    first = segmenter.segment(encoded, NAMES)
    second = segmenter.segment(encoded, Vocabulary.encode(["green", "red|blue"], encoder))
    assert len(encoder.encoded) == before + 1
    assert ((first.labels == 1) == (second.labels == 0)).mean() > 0.99  # but for ties between patches
    np.testing.assert_array_equal(first.labels, segmenter.segment(image, NAMES).labels)


def test_a_file_and_a_pil_image_are_answered_as_what_a_viewer_shows(world, tmp_path):
    encoder, memory, image, _ = world
    Image.fromarray(np.rot90(image)).save(tmp_path / "turned.png", exif=turned(6))
    for regions in (None, lambda image: np.zeros(image.shape[:2], int)):
        segmenter = Segmenter(encoder, memory, Freeda(), regions)
        expected = segmenter.segment(image, NAMES).labels
        for same in (tmp_path / "turned.png", f"{tmp_path}/turned.png", Image.open(tmp_path / "turned.png")):
            assert np.array_equal(segmenter.segment(same, NAMES).labels, expected)


def test_a_call_reads_one_state_of_the_memory(world):
    encoder, memory, image, _ = world

    class Forgetful(ZeroShot):
        def predict(self, query, seen, vocabulary, **options):
            memory.remove(class_name="red")  # as another thread would
            assert "red" in seen.classes
            return super().predict(query, seen, vocabulary, **options)

    Segmenter(encoder, memory, Forgetful()).segment(image, NAMES)
    assert "red" not in memory.classes


def test_a_region_lost_in_resizing_takes_the_patch_it_lies_in():
    values = unit(np.random.default_rng(0).normal(size=(2, 2, 3)))
    feature_map = FeatureMap(values, P, (8, 8), (80, 80))
    regions = np.zeros((80, 80), dtype=int)
    regions[79, 1] = 5  # one pixel in a hundred is encoded, and not this one
    np.testing.assert_array_equal(region_query(feature_map, regions).features[1], values[1, 0])
    with pytest.raises(ValueError, match="40"):
        region_query(feature_map, regions[:40])


def test_without_text_the_memory_answers_and_without_prototypes_the_text(world):
    encoder, memory, image, mask = world
    segmenter = Segmenter(ColourEncoder(text=False), memory)
    for ask in (segmenter, segmenter.segment, lambda image, names: segmenter.segment_batch([image], names)):
        with pytest.warns(UserWarning, match="no pixel can get them: tram$") as caught:
            ask(image, ["red", "tram"])
        assert caught[0].filename == __file__  # who asked, wherever the warning is made
    result = Segmenter(ColourEncoder(text=False), memory).segment(image, ["blue|sea", "red", "green"])
    assert result.names == ("blue", "red", "green")
    assert (np.array([1, 2, 0])[mask] == result.labels).mean() > 0.9
    with pytest.raises(ValueError, match="tram"):
        Segmenter(ColourEncoder(text=False), memory).segment(image, ["tram"])
    yellow = image.copy()
    yellow[:, 24:] = (255, 255, 0)
    result = Segmenter(encoder, memory, RNS(solver="lbfgs")).segment(yellow, ["red", "wall", "green", "blue"])
    assert (result.labels[:, 26:] == 1).all()


def test_wrong_names_and_the_memory_of_another_encoder_are_refused(world):
    for names in ("red", [], ("red", "red"), None, {7: "red"}):
        for encoder in (ColourEncoder(), ColourEncoder(text=False)):
            with pytest.raises(ValueError, match=r"red|\[\]|None|^7 "):
                name_vocabulary(names, encoder)
    encoder.fingerprint = "other"
    with pytest.raises(ValueError, match="'colour'.*'other'"):
        Segmenter(encoder, world[1])
