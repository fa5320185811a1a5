"""Devices: names, where tensors are made, images together, and how many threads a product gets."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fusion import NAMES
from test_fusion import world as random_world
from torch.utils._python_dispatch import TorchDispatchMode

from rose_kit import (
    RNS,
    FeatureMap,
    Query,
    Segmenter,
    SupportMemory,
    Vocabulary,
    ZeroShot,
    load_encoder,
)
from rose_kit.adapter import rns as rns_module
from rose_kit.adapter.solvers import few_threads
from rose_kit.encoder import OpenClipEncoder
from rose_kit.fusion.method import predict_all
from rose_kit.registry import encoders

MISSING = pytest.mark.skipif(torch.cuda.is_available(), reason="cuda is there")


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta", "", pytest.param("cuda", marks=MISSING)])
def test_a_device_that_is_not_there_is_one_readable_line(name):
    with pytest.raises(ValueError, match=rf"no device {name!r}; it has: auto, .*cpu") as error:
        load_encoder("bundled", device=name)
    assert "\n" not in str(error.value)


def test_from_model_leaves_a_model_where_it_is_and_an_encoder_without_to_says_so():
    model = load_encoder("bundled", device="cpu").model.to("meta")
    assert OpenClipEncoder.from_model(model).device == torch.device("meta") == model.visual.proj.device

    class Bare:
        """An encoder that is no subclass."""

    encoders.register("bare")(Bare)
    try:
        assert isinstance(load_encoder("bare"), Bare)
        with pytest.raises(ValueError, match="'bare' has no method `to`"):
            load_encoder("bare", device="cpu")
    finally:
        del encoders["bare"]


class Elsewhere(TorchDispatchMode):
    """Fails where an operation copies features to another device, or makes a tensor away from theirs."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._to_copy.default and (kwargs or {}).get("device") is not None:
            assert args[0].numel() < 1000, f"a tensor of {tuple(args[0].shape)} is copied"
        return function(*args, **(kwargs or {}))


def test_between_the_stages_nothing_becomes_an_array(monkeypatch):
    """Encoder, search, samples, solver, painting: arrays are made by whoever reads them."""
    encoder, read = load_encoder("bundled", device="cpu"), []
    image = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    feature_map = encoder.encode_image(image)
    memory = SupportMemory.from_prototypes(feature_map.flat()[:6], list("abcabc"), list("uuuvvv"))
    vocabulary = Vocabulary.encode(["a", "b", "c", "sky"], encoder)
    segmenters = [Segmenter(encoder, memory, method) for method in (RNS(), ZeroShot())]
    for field in (FeatureMap, "values"), (Query, "features"):
        own = vars(field[0])[field[1]]
        monkeypatch.setattr(type(own), "__get__", lambda self, instance, owner=None: read.append(self.name))
    with Elsewhere():
        answers = [segmenter.segment(image, vocabulary) for segmenter in segmenters]
    assert read == []
    monkeypatch.undo()
    assert all(answer.labels.shape == (64, 96) for answer in answers)


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=5),
    missing=st.sampled_from([[], ["tree"], ["sky", "tree"], NAMES]),
    solver=st.sampled_from(["lbfgs", "adamw"]),
)
def test_images_together_have_the_answers_of_one_by_one(seed, sizes, missing, solver):
    """Ragged numbers of samples, classes that some images lack, and images whose nearest class is another."""
    rng = np.random.default_rng(seed)
    features, memory, vocabulary = random_world(seed, sum(sizes))
    queries = [Query(part) for part in np.split(features, np.cumsum(sizes)[:-1])]
    vocabulary = vocabulary.without_text(missing)
    method = RNS(k=int(rng.integers(1, 4)), solver=solver, steps=20, tolerance=float(rng.choice([0, 5e-3])))
    expected = [method.predict(query, memory, vocabulary) for query in queries]
    alone, rns_module.ONE_BY_ONE = rns_module.ONE_BY_ONE, ()
    try:
        answers = predict_all(method, queries, memory, vocabulary)
    finally:
        rns_module.ONE_BY_ONE = alone
    for answer, other in zip(
        [*answers, *predict_all(method, queries, memory, vocabulary)], 2 * expected, strict=True
    ):
        np.testing.assert_allclose(np.asarray(answer), np.asarray(other), atol=2e-3)
        np.testing.assert_array_equal(np.isfinite(answer.scores), np.isfinite(other.scores))
        assert (answer.evidence is None) == (other.evidence is None)


def test_segmenting_together_is_segmenting_one_by_one():
    encoder = load_encoder("bundled", device="cpu")
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, size, dtype=np.uint8) for size in ((40, 56, 3), (64, 48, 3), (40, 56, 3))]
    features = encoder.encode_image(images[0]).flat()
    memory = SupportMemory.from_prototypes(features[:4], list("abab"), list("uuvv"))
    segmenter = Segmenter(encoder, memory)
    mixed = [images[0], segmenter.encode(images[1]), images[2]]
    for answer, image in zip(segmenter.segment_batch(mixed, ["a", "b", "sky"]), images, strict=True):
        alone = segmenter.segment(image, ["a", "b", "sky"]).labels
        assert np.mean(answer.labels == alone) > 0.999  # a border may move by the rounding of a product
        assert answer.evidence is not None


def test_the_number_of_threads_follows_the_work_and_is_the_users_again():
    before, cpu = torch.get_num_threads(), torch.device("cpu")
    try:
        torch.set_num_threads(3)
        seen, inside, leave = [], threading.Event(), threading.Event()

        def other():
            with few_threads(1, cpu):
                inside.set()
                leave.wait(20)

        with pytest.raises(KeyError), few_threads(2.5e9, cpu):
            seen.append(torch.get_num_threads())
            raise KeyError
        thread = threading.Thread(target=other)
        with few_threads(1, cpu):
            thread.start()
            assert inside.wait(20)
            seen.append(torch.get_num_threads())
        leave.set()
        thread.join()
        fresh = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        fresh.start()
        fresh.join()
        assert [*seen, torch.get_num_threads()] == [2, 1, 3, 3]
    finally:
        torch.set_num_threads(before)
