"""Our own segmenter, asked in plain words."""

import numpy as np

from data_scripts.scenes import CLASSES, draw_scene
from rose_kit.encoder import load_encoder
from rose_kit.web.promptable import SegmenterAsPromptable
from rose_kit.web.types import Promptable

SCENE = draw_scene(5_300_000, cast=[("boat", 1)], layout="lake", things=(2, 2))
BOAT = SCENE.mask == CLASSES.index("boat")


def test_the_mask_is_where_the_object_is_however_the_prompt_is_phrased():
    model = SegmenterAsPromptable(load_encoder("bundled"))
    plain = model.segment(SCENE.image, "boat")
    assert isinstance(model, Promptable) and plain.mask.dtype == bool and 0 < plain.confidence <= 1
    assert (plain.mask & BOAT).sum() > 0.4 * (plain.mask | BOAT).sum()
    for prompt in ("Segment the boat, please", "boats", "The champion. It is a boat."):
        other = model.segment(SCENE.image, prompt)
        np.testing.assert_array_equal(plain.mask, other.mask)
        assert plain.confidence == other.confidence
    absent = model.segment(SCENE.image, "Segment the television")
    assert absent.mask.any() and absent.confidence < plain.confidence
