"""Our own segmenter asked in plain words."""

import numpy as np
import pytest

from data_scripts.scenes import CLASSES, draw_scene
from rose_kit.encoder import load_encoder
from rose_kit.segmenter import Segmenter
from rose_kit.web.language import noun_phrases
from rose_kit.web.promptable import SegmenterAsPromptable
from rose_kit.web.types import Promptable


@pytest.fixture(scope="module")
def model():
    return SegmenterAsPromptable(load_encoder("bundled"))


@pytest.fixture(scope="module")
def scene():
    return draw_scene(5_300_000, cast=[("boat", 1)], layout="lake", things=(2, 2))


@pytest.mark.parametrize(
    ("prompt", "phrases"),
    [
        ("Can you show me all boats?", ["boats"]),
        ("Segment the old boat on the water, please. It is a drone.", ["old boat", "drone"]),
        ("Where is the hot-air balloon?", ["hot-air balloon"]),
        ("Marigold is a boat with an orange sail. Marigold is fast", ["Marigold", "boat", "fast"]),
        ("", [""]),
    ],
)
def test_a_prompt_is_reduced_to_what_it_names(prompt, phrases):
    assert noun_phrases(prompt) == phrases


@pytest.mark.parametrize("prompt", ["Segment the boat, please", "boats", "The champion. It is a boat."])
def test_however_it_is_put_the_same_class_gives_the_same_mask(model, scene, prompt):
    assert isinstance(model, Promptable)
    plain, other = model.segment(scene.image, "boat"), model.segment(scene.image, prompt)
    np.testing.assert_array_equal(plain.mask, other.mask)
    assert plain.confidence == other.confidence and 0 < plain.confidence <= 1


def test_the_mask_is_where_the_thing_is(model, scene):
    target, found = scene.mask == CLASSES.index("boat"), model.segment(scene.image, "boat")
    assert found.mask.dtype == bool and (found.mask & target).sum() > 0.4 * (found.mask | target).sum()


def test_what_is_not_there_is_answered_with_less_confidence_and_other_classes_compete(model, scene):
    absent = model.segment(scene.image, "Segment the television")
    assert absent.mask.any() and absent.confidence < model.segment(scene.image, "boat").confidence
    alone, against = (
        SegmenterAsPromptable(model.segmenter.encoder, others).segment(scene.image, "boat|sky")
        for others in ((), ("sky", "water"))
    )
    assert alone.mask.all() and alone.confidence == pytest.approx(1) and not against.mask.all()


def test_a_segmenter_with_regions_does_as_well(model, scene):
    old = model.segmenter
    segmenter = Segmenter(old.encoder, old.memory, old.method, regions="slic", windows=old.windows)
    found = SegmenterAsPromptable(segmenter).segment(scene.image, "boat")
    assert found.mask.shape == scene.mask.shape and found.mask.any() and 0 < found.confidence <= 1
