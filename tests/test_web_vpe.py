"""Verification and correction by reference images, on drawn scenes, with the bundled encoder."""

from dataclasses import replace

import numpy as np
import pytest

from data_scripts.news import THRESHOLDS
from data_scripts.scenes import support_and_query
from experiments.verification import draw_episode
from rose_kit.encoder import load_encoder
from rose_kit.metrics import giou
from rose_kit.web.calibration import calibrate
from rose_kit.web.types import Mask, ReferenceImage, Source
from rose_kit.web.vpe import Thresholds, VisualPromptEnhancer

FIRST = 7_900_000  # apart from the scenes of the benchmark


@pytest.fixture(scope="module")
def vpe():
    return VisualPromptEnhancer(load_encoder("bundled"), Thresholds.load(THRESHOLDS))


@pytest.fixture(scope="module")
def episode():
    """A bus among other things, and references of which one shows something else."""
    return draw_episode("bus", FIRST, np.random.default_rng(4))


def test_a_right_mask_is_kept_and_a_wrong_one_corrected(vpe, episode):
    right = vpe(episode.image, Mask(episode.target, 0.7), episode.references)
    assert right.action == "kept" and right.similarity >= vpe.thresholds.keep
    assert right.mask.mask is episode.target
    wrong = vpe(episode.image, Mask(episode.others[0], 0.7), episode.references)
    assert wrong.action == "corrected" and wrong.similarity < vpe.thresholds.keep <= wrong.proposed
    assert giou([wrong.mask.mask], [episode.target]) > 0.5 and 0 <= wrong.mask.confidence <= 1
    used = {id(image) for image in wrong.used}
    assert used and used <= {id(image) for image in episode.references}
    assert not used & {id(episode.references[i]) for i in episode.wrong}


def test_a_small_part_of_what_is_meant_is_completed_and_an_empty_mask_replaced(vpe, episode):
    columns = np.nonzero(episode.target)[1]
    part = episode.target & (np.arange(128) < np.quantile(columns, 0.1))
    for mask in (part, np.zeros_like(part)):
        found = vpe(episode.image, Mask(mask, 0.7), episode.references)
        assert found.action == "corrected" and giou([found.mask.mask], [episode.target]) > 0.5
    assert found.similarity == -1
    match = vpe.match(episode.image, {"bus": episode.references, "nothing": []})
    assert match["bus"].similarity == pytest.approx(found.proposed) and match["nothing"].similarity == 0


def test_without_a_usable_reference_or_a_good_proposal_the_mask_is_kept(vpe, episode):
    blank = ReferenceImage(Source("file:blank", "blank"), np.full((64, 64, 3), 128, np.uint8))
    wrong = Mask(episode.others[0], 0.7)
    for images in ([], [blank]):
        found = vpe(episode.image, wrong, images)
        assert found.action == "kept" and found.mask is wrong and not found.used
        assert np.isnan(found.similarity)
    strict = VisualPromptEnhancer(vpe.encoder, replace(vpe.thresholds, correct=99.0))
    found = strict(episode.image, wrong, episode.references)
    assert found.action == "kept" and found.mask is wrong and found.proposed < 99


def test_what_a_detector_found_replaces_a_wrong_mask_as_it_is(vpe, episode):
    def objects(image):
        return np.stack([*episode.others, episode.target, np.zeros_like(episode.target)])

    boxed = VisualPromptEnhancer(vpe.encoder, vpe.thresholds, objects)
    found = boxed(episode.image, Mask(episode.others[0], 0.7), episode.references)
    assert found.action == "corrected" and np.array_equal(found.mask.mask, episode.target)


def test_an_image_is_encoded_once_for_all_candidates_and_for_the_verification(vpe, episode, monkeypatch):
    encoded, encode = [], vpe.encoder.encode_image
    spy = lambda image, windows=None: encoded.append(image) or encode(image, windows)  # noqa: E731
    monkeypatch.setattr(vpe.encoder, "encode_image", spy)
    matches = vpe.match(episode.image, {str(i): [r] for i, r in enumerate(episode.references)})
    vpe.verify(Mask(episode.others[0], 0.7), matches["0"])
    assert len(encoded) == 1 + len(episode.references)


def test_calibration_needs_a_class_in_several_images_and_its_thresholds_are_for_one_encoder(vpe, tmp_path):
    samples = support_and_query(pool=2)[0]
    with pytest.raises(ValueError, match="0 episodes"):
        calibrate(vpe.encoder, samples)
    limits = replace(vpe.thresholds, fingerprint="of another")
    limits.save(tmp_path / "t.json")
    with pytest.raises(ValueError, match="'of another'"):
        VisualPromptEnhancer(vpe.encoder, Thresholds.load(tmp_path / "t.json"))
    (tmp_path / "t.json").write_text('{"same": 1}')
    with pytest.raises(ValueError, match="t.json"):
        Thresholds.load(tmp_path / "t.json")
