"""Verification and correction by reference images, on drawn scenes, with the bundled encoder."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from data_scripts.scenes import CLASSES, draw_scene
from experiments import verification
from experiments.verification import Episode, calibrate, draw_episode, episodes
from rose_kit.encoder import load_encoder
from rose_kit.metrics import giou
from rose_kit.regions.foreground import discriminant, foreground
from rose_kit.types import FeatureMap, unit
from rose_kit.web.types import Mask, ReferenceImage, Source
from rose_kit.web.vpe import VisualPromptEnhancer

FIRST = 7_900_000  # apart from the scenes of the benchmark


@pytest.fixture(scope="module")
def vpe():
    return VisualPromptEnhancer(load_encoder("bundled"))


@pytest.fixture(scope="module")
def episode():
    """A bus among other things, and references of which one shows something else."""
    return draw_episode("bus", FIRST, np.random.default_rng(4))


def test_a_right_mask_is_kept_and_a_wrong_one_corrected(vpe, episode):
    right = vpe(episode.image, Mask(episode.target, 0.7), episode.pictures)
    assert right.action == "kept" and right.similarity >= vpe.thresholds.keep
    assert right.mask.mask is episode.target
    wrong = vpe(episode.image, Mask(episode.others[0], 0.7), episode.pictures)
    assert wrong.action == "corrected" and wrong.similarity < vpe.thresholds.keep <= wrong.proposed
    assert giou([wrong.mask.mask], [episode.target]) > 0.5 and 0 <= wrong.mask.confidence <= 1
    out = [id(image) for image, _ in wrong.rejected]
    assert sorted(out + [id(image) for image in wrong.used]) == sorted(map(id, episode.pictures))
    assert {id(episode.pictures[i]) for i in episode.wrong} & set(out)


def test_a_small_part_of_what_is_meant_is_completed_and_an_empty_mask_replaced(vpe, episode):
    columns = np.nonzero(episode.target)[1]
    part = episode.target & (np.arange(128) < np.quantile(columns, 0.1))
    for mask in (part, np.zeros_like(part)):
        found = vpe(episode.image, Mask(mask, 0.7), episode.pictures)
        assert found.action == "corrected" and giou([found.mask.mask], [episode.target]) > 0.5
    assert found.similarity == -1
    assert vpe.best_similarity(episode.image, episode.pictures) == pytest.approx(found.proposed)


def test_without_a_usable_reference_or_a_good_proposal_the_mask_is_kept(vpe, episode):
    blank = ReferenceImage(Source("file:blank", "blank"), np.full((64, 64, 3), 128, np.uint8))
    wrong = Mask(episode.others[0], 0.7)
    for images in ([], [blank]):
        found = vpe(episode.image, wrong, images)
        assert found.action == "kept" and found.mask is wrong and not found.used
        assert [image for image, _ in found.rejected] == images and np.isnan(found.similarity)
        assert vpe.best_similarity(episode.image, images) == 0
    strict = VisualPromptEnhancer(vpe.encoder, replace(vpe.thresholds, correct=99.0))
    found = strict(episode.image, wrong, episode.pictures)
    assert found.action == "kept" and found.mask is wrong and found.proposed < 99


def test_all_instances_are_found(vpe):
    cast = [("balloon", 3), ("balloon", 4)]
    scene = draw_scene(FIRST + 903, cast=cast, things=(2, 2), layout="meadow", scale=(0.4, 0.45))
    shown = [draw_scene(FIRST + i, cast=[("balloon", i)], things=(1, 1), scale=(0.6, 0.9)) for i in range(3)]
    pictures = [ReferenceImage(Source("file:balloon", "balloon"), s.image) for s in shown]
    target = scene.mask == CLASSES.index("balloon")
    found = vpe(scene.image, Mask(np.zeros_like(target), 0.0), pictures).mask.mask
    for i in (1, 2):
        assert (found & (scene.instances == i)).sum() > 0.5 * (scene.instances == i).sum()


def test_an_encoder_without_thresholds_is_refused_until_they_are_calibrated():
    encoder = load_encoder("handcrafted")
    with pytest.raises(ValueError, match="'handcrafted'"):
        VisualPromptEnhancer(encoder)
    shown = list(episodes(["bus", "car"], 2, FIRST + 2000))
    absent = list(episodes(["bus"], 1, FIRST + 3000, shown=False))
    thresholds, rows = calibrate(encoder, shown, absent)
    assert thresholds.same > 0 and thresholds.correct >= thresholds.part and 0 <= thresholds.whole <= 1
    assert {row["what"] for row in rows} == {"same", "keep", "whole"}
    assert VisualPromptEnhancer(encoder, thresholds).thresholds is thresholds
    bare = [Episode(e.name, e.image, e.target, (), e.pictures) for e in shown]
    for episodes_shown, episodes_absent in ((shown, []), (bare, absent)):
        with pytest.raises(ValueError, match="does not show|'same'"):
            calibrate(encoder, episodes_shown, episodes_absent)


@given(
    arrays(np.float64, (6, 3), elements=st.floats(-1, 1)),
    arrays(np.float64, (12, 3), elements=st.floats(-1, 1)),
)
def test_the_discriminant_is_0_on_the_background_and_1_at_the_prototype(target, background):
    background = background + np.eye(12, 3)
    if np.linalg.norm(target.mean(0) - background.mean(0)) < 0.05:
        return
    mean, w = discriminant(target, background)
    assert ((background - mean) @ w).mean() == pytest.approx(0, abs=1e-3)
    assert (target.mean(0) - mean) @ w == pytest.approx(1, abs=1e-3)


def test_the_foreground_is_what_the_border_is_not():
    values = np.tile(unit([1.0, 0.1, 0.0]), (8, 8, 1))
    values[3:5, 2:6] = unit([0.0, 1.0, 0.0])
    found = foreground(FeatureMap(values, 4, (32, 32), (32, 32))).reshape(8, 8)
    assert found.sum() == 8 and found[3:5, 2:6].all()
    assert not foreground(FeatureMap(np.tile(values[:1, :1], (8, 8, 1)), 4, (32, 32), (32, 32))).any()


def test_the_thresholds_in_use_are_those_that_were_recorded():
    table = pd.read_csv(Path(verification.__file__).with_name("results") / "verification.csv")
    row, own = table[table.row == "thresholds"].iloc[0], load_encoder("bundled").thresholds
    assert row.encoder == "bundled" and own == {key: row[key] for key in own}
