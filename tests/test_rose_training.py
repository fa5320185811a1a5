"""Training ROSE: what an episode hides, no leakage, seeds, progress, and the command that compares."""

import numpy as np
import pandas as pd
import pytest
import torch

from rose_kit import FeatureMap, Sample, SupportMemory, Vocabulary, load_encoder, unit
from rose_kit.bench import rose as bench
from rose_kit.fusion import ZeroShot
from rose_kit.model import FUSIONS, ROSE, RoseMethod
from rose_kit.model import training as school
from rose_kit.model.training import Training, at_most, episode, prepare, train

NAMES = ("sky", "bus", "dog", "cat")
DIM, SIDE = 16, 6


class Flat:
    """An encoder whose pictures are features already."""

    dim, fingerprint, patch_size = DIM, "flat", 1

    def encode_image(self, image, windows=None):
        return FeatureMap(unit(image), 1, image.shape[:2], image.shape[:2])


class Blobs:
    """Pictures of features: a random rectangle of a class on sky, each class around its own direction."""

    class_names = NAMES

    def __init__(self, count, seed=0):
        rng = np.random.default_rng(seed)
        self.centres = np.random.default_rng(99).normal(size=(4, DIM))
        self.ids = [f"blob-{seed}-{i}" for i in range(count)]
        self.samples = []
        for image_id in self.ids:
            mask = np.zeros((SIDE, SIDE), np.uint8)
            y, x = rng.integers(0, 3, 2)
            mask[y : y + 3, x : x + 3] = rng.integers(1, 4)
            image = self.centres[mask] + rng.normal(0, 2.0, (SIDE, SIDE, DIM))
            self.samples.append(Sample(image_id, image, mask, dict(enumerate(NAMES))))

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, i):
        return self.samples[i]


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary(NAMES, unit(Blobs(1).centres + np.random.default_rng(5).normal(0, 1, (4, DIM))))


@pytest.fixture(scope="module")
def lessons(vocabulary):
    return prepare(Blobs(16), Flat(), vocabulary, progress=False)


def accuracy(method, memory, vocabulary, seed=1):
    right = []
    for sample in Blobs(12, seed).samples:
        answer = np.asarray(method.predict(Flat().encode_image(sample.image), memory, vocabulary))
        right.append(answer.argmax(1) == sample.mask.ravel())
    return np.mean(right)


def test_lessons_hold_shares_and_rows(lessons):
    assert lessons.targets.shape == (16, SIDE, SIDE, 4)
    np.testing.assert_array_equal(lessons.targets[3].argmax(-1), Blobs(16)[3].mask)
    assert (lessons.targets.sum(-1) == 1).all()
    assert len(lessons.memory) == 32  # sky and one more class in each picture


@pytest.mark.parametrize("fusion", FUSIONS)
def test_training_teaches_and_a_seed_decides(fusion, lessons, vocabulary):
    settings = Training(steps=25, seed=1)
    state = torch.random.get_rng_state()
    model, losses = train(lessons, Flat(), fusion, settings, progress=False)
    torch.random.set_rng_state(state)
    again, _ = train(lessons, Flat(), fusion, settings, progress=False)
    assert losses[-1] < 0.7 * losses[0]
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    memory = None if fusion == "none" else model.retriever.memory
    assert accuracy(RoseMethod(model), memory, vocabulary) > accuracy(ZeroShot(), None, vocabulary) + 0.05


@pytest.mark.parametrize("fusion", FUSIONS)
def test_training_never_sees_a_pictures_own_rows(fusion, lessons):
    """The loss of a picture stays the same to the last digits whatever its own rows in memory are."""
    model, _ = train(lessons, Flat(), fusion, Training(steps=1), progress=False)
    memory, text = lessons.memory, np.array(lessons.vocabulary.text)
    spoiled = np.array(memory.vectors)
    own = memory.image_ids == lessons.image_ids[5]
    spoiled[own] = unit(np.random.default_rng(0).normal(size=(own.sum(), DIM)))
    other = SupportMemory.from_prototypes(spoiled, memory.class_names, memory.image_ids)
    losses = []
    for model.retriever.memory in (memory, other):
        losses += [school.loss(model, lessons, [i], text).item() for i in (5, 6)]
    assert losses[0] == pytest.approx(losses[2], abs=1e-5)
    assert losses[1] != pytest.approx(losses[3], abs=1e-5)  # the guard can fire: another picture sees them


def test_an_episode_hides_rows_and_texts_and_leaves_every_class_an_anchor(lessons, vocabulary):
    rng, seen = np.random.default_rng(0), {"blind": 0, "no text": 0, "fewer": 0}
    for _ in range(60):
        memory, text = episode(lessons.memory, vocabulary, Training(rows_per_class=4), rng)
        missing = np.isnan(text).any(1)
        if memory is None:
            seen["blind"] += 1
            assert not missing.any()
            continue
        rows = memory.summary()
        assert max(rows.values()) <= 4
        seen["no text"] += missing.any()
        seen["fewer"] += len(rows) < 4
        for c in np.flatnonzero(missing):  # an image apart from any picture's own still holds it
            assert len(set(memory.image_ids[memory.class_names == NAMES[c]])) >= 2
    assert min(seen.values()) > 0 and not np.isnan(vocabulary.text).any()


def test_at_most_keeps_rare_classes_whole(lessons):
    few = at_most(lessons.memory, 3)
    assert few.summary()["sky"] == 3 and set(few.classes) == set(lessons.memory.classes)
    rows = {(i, n): v for i, n, v in zip(few.image_ids, few.class_names, few.vectors, strict=True)}
    whole = lessons.memory
    for i, n, v in zip(whole.image_ids, whole.class_names, whole.vectors, strict=True):
        if (i, n) in rows:
            np.testing.assert_array_equal(rows.pop((i, n)), v)
    assert not rows


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"k": -1}, {"blind": 1.5}, {"hide_text": -0.1}])
def test_settings_that_make_no_sense_are_refused(wrong):
    [(name, value)] = wrong.items()
    with pytest.raises(ValueError, match=f"{name} must be .*{value}"):
        Training(**wrong)


def test_pictures_of_two_sizes_are_refused(vocabulary):
    blobs = Blobs(2)
    sample = blobs.samples[1]
    blobs.samples[1] = Sample(sample.image_id, sample.image[:4], sample.mask[:4], sample.classes)
    with pytest.raises(ValueError, match="one size"):
        prepare(blobs, Flat(), vocabulary, progress=False)


def test_the_long_tail_is_one():
    scenes = bench.ThinnedScenes(10, quota=1, size=64)
    shown = [scenes.classes_of(i) for i in range(len(scenes))]
    assert len(scenes) == len(set(scenes.ids)) == 10
    for name in bench.RARE:
        assert sum(name in classes for classes in shown) <= 1
    assert not set().union(*shown) & {*bench.HELD_OUT, *bench.NOVEL}


def test_the_command_trains_saves_and_compares(run, refused, tmp_path):
    out = tmp_path / "rose"
    small = ("--pictures", 6, "--steps", 2, "--queries", 1, "--shots", 1, "--per-class", 1)
    said = run("train-rose", "--out", out, "--fusions", "none,similarity", *small)
    table = pd.read_csv(out / "rose.csv")
    assert {"text only", "knn-clip", "none", "similarity", "similarity without memory"} <= set(table.method)
    assert set(table.group) == {"seen", "rare", "held-out", "novel"} and "novel after" in said
    encoder = load_encoder("bundled")
    model = ROSE.load(out / "similarity", encoder)
    assert model.encoder.encoder.fingerprint == encoder.fingerprint
    refused("train-rose", "--out", out, "--fusions", "none,magic", said=("magic", "cross-attention"))
    refused("train-rose", "--out", out, "--pictures", "0", said=("pictures", "0"))
