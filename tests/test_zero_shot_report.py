"""The report card of an encoder: perfect features score perfectly, and the vocabulary decides what counts."""

import numpy as np

from data_scripts.bundled.zero_shot import EVALUATION, report, report_card, zero_shot_iou
from data_scripts.scenes import SEEN, STUFF, SceneDataset
from rose_kit.types import FeatureMap


class Oracle:
    """Knows the answer: one patch per pixel, one direction per class, wrong about one class on purpose."""

    def __init__(self, scenes, wrong=None):
        self.answers = {sample.image.tobytes(): sample.mask for sample in scenes}
        self.wrong = wrong

    def encode_text(self, names):
        return np.eye(len(SEEN), dtype=np.float32)[[SEEN.index(n) for n in names]]

    def encode_image(self, image, windows=None):
        mask = self.answers[image.tobytes()].copy()
        if self.wrong is not None:
            mask[mask == SEEN.index(self.wrong[0])] = SEEN.index(self.wrong[1])
        return FeatureMap(np.eye(len(SEEN), dtype=np.float32)[mask], 1, mask.shape, mask.shape)


def test_an_oracle_scores_100_and_its_mistake_is_counted():
    scenes = SceneDataset(6, first=1, size=48, layout="beach")
    assert report(Oracle(scenes), sets=[scenes]) == {"miou": 100.0, "stuff": 100.0, "things": 100.0}
    card = report_card(Oracle(scenes), sets=[scenes])
    assert card["per_class_iou"]["sand"] == 100.0
    assert "floor" not in card["per_class_iou"], "what never occurs has no IoU"
    assert card["scenes"] == ["scene-1-day to scene-6-day, 48 px"]
    values = zero_shot_iou(Oracle(scenes, wrong=("sand", "road")), sets=[scenes])
    assert values[SEEN.index("sand")] == 0
    assert values[SEEN.index("road")] == 0
    assert values[SEEN.index("sky")] == 1
    assert np.isnan(values[SEEN.index("floor")])


def test_classes_outside_the_vocabulary_count_for_nothing():
    scenes = SceneDataset(4, first=5, size=48, layout="beach")
    values = zero_shot_iou(Oracle(scenes), names=STUFF, sets=[scenes])
    assert values.shape == (len(STUFF),)
    assert set(values[~np.isnan(values)]) == {1.0}


def test_the_evaluation_set_is_fixed_and_apart_from_training():
    ids = [i for scenes in EVALUATION.values() for i in scenes.ids]
    assert len(ids) == len(set(ids)) == 120
    assert max(scenes.first + len(scenes) for scenes in EVALUATION.values()) < 10_000_000
