"""Training ROSE: it learns, without leakage, what an episode hides; and the trials that compare."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from test_rose import DIM, Flat

from data_scripts.scenes import NOVEL
from experiments import rose
from rose_kit import Sample, SupportMemory, Vocabulary, load_encoder, unit
from rose_kit.fusion import ZeroShot
from rose_kit.model import ROSE, RoseMethod
from rose_kit.model.training import TrainConfig, at_most, episode, loss, prepare, train
from rose_kit.registry import fusions

NAMES = ("sky", "bus", "dog", "cat")
SIDE = 6


class Blobs(list):
    """Images of features: a random rectangle of a class on sky, each class around its own direction."""

    class_names = NAMES
    centres = np.random.default_rng(99).normal(size=(len(NAMES), DIM))

    def __init__(self, count, seed=0):
        rng = np.random.default_rng(seed)
        self.ids = [f"blob-{seed}-{i}" for i in range(count)]
        for image_id in self.ids:
            mask = np.zeros((SIDE, SIDE), np.uint8)
            y, x = rng.integers(0, 3, 2)
            mask[y : y + 3, x : x + 3] = rng.integers(1, 4)
            image = self.centres[mask] + rng.normal(0, 2.0, (SIDE, SIDE, DIM))
            self.append(Sample(image_id, image, mask, dict(enumerate(NAMES))))


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary(NAMES, unit(Blobs.centres + np.random.default_rng(5).normal(0, 1, (4, DIM))))


@pytest.fixture(scope="module")
def dataset(vocabulary):
    return prepare(Blobs(16), Flat(), vocabulary, progress=False)


def accuracy(method, memory, vocabulary, seed=1):
    right = []
    for sample in Blobs(12, seed):
        answer = np.asarray(method.predict(Flat().encode_image(sample.image), memory, vocabulary))
        right.append(answer.argmax(1) == sample.mask.ravel())
    return np.mean(right)


@pytest.mark.parametrize("fusion", fusions)
def test_training_teaches_and_a_seed_decides(fusion, dataset, vocabulary):
    np.testing.assert_array_equal(dataset.targets[3].argmax(-1), Blobs(16)[3].mask)
    config = TrainConfig(steps=25, seed=1)
    model, losses = train(dataset, fusion, config, progress=False)
    again, _ = train(dataset, fusion, config, progress=False)
    assert losses[-1] < 0.7 * losses[0]
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    memory = at_most(dataset.memory, 10)
    assert memory.summary()["sky"] == 10 < 16 and set(memory.classes) == set(NAMES)
    memory = None if fusion == "none" else memory
    assert accuracy(RoseMethod(model), memory, vocabulary) > accuracy(ZeroShot(), None, vocabulary) + 0.05


@pytest.mark.parametrize("fusion", fusions)
def test_training_never_sees_an_images_own_rows(fusion, dataset):
    """The loss of an image stays the same to the last digits whatever its own rows in memory are."""
    memory = dataset.memory
    changed = np.array(memory.vectors)
    own = memory.image_ids == dataset.image_ids[5]
    changed[own] = unit(np.random.default_rng(0).normal(size=(own.sum(), DIM)))
    other = SupportMemory.from_prototypes(changed, memory.class_names, memory.image_ids)
    model, losses = ROSE(DIM, fusion=fusion), []
    for rows in (memory, other):
        losses += [loss(model, replace(dataset, memory=rows), [i]).item() for i in (5, 6)]
    assert losses[0] == pytest.approx(losses[2], abs=1e-5)
    assert losses[1] != pytest.approx(losses[3], abs=1e-5)  # the guard can fire: another image sees them


def test_an_episode_hides_rows_and_texts_and_leaves_every_class_an_anchor(dataset, vocabulary):
    rng, blind, fewer, textless = np.random.default_rng(0), 0, 0, 0
    for _ in range(60):
        drawn = episode(dataset, TrainConfig(rows_per_class=4), rng)
        memory, missing = drawn.memory, ~drawn.vocabulary.has_text
        textless += missing.any()
        if not len(memory):
            blind += 1
            assert not missing.any()
            continue
        assert max(memory.summary().values()) <= 4
        fewer += len(memory.classes) < 4
        for c in np.flatnonzero(missing):  # an image apart from any image's own still holds it
            assert len(set(memory.image_ids[memory.class_names == NAMES[c]])) >= 2
    assert min(blind, fewer, textless) > 0 and vocabulary.has_text.all()


def test_images_of_several_sizes_train_together():
    blobs = Blobs(2)
    blobs[1] = Sample("small", blobs[1].image[:4], blobs[1].mask[:4], blobs[1].classes)
    dataset = prepare(blobs, Flat(), Vocabulary(NAMES, unit(blobs.centres)), progress=False)
    assert [target.shape for target in dataset.targets] == [(6, 6, 4), (4, 6, 4)]
    assert np.isfinite(train(dataset, config=TrainConfig(steps=2), progress=False)[1]).all()


REFUSED = [
    (lambda: TrainConfig(steps=0), "steps.*0"),
    (lambda: TrainConfig(blind=1.5), "blind.*1.5"),
    (lambda: TrainConfig(hide_text=float("nan")), "hide_text.*nan"),
    (lambda: prepare(Blobs(0), Flat(), Vocabulary(NAMES)), "none"),
    (lambda: rose.check_seeds([2, 1]), "1"),
]


@pytest.mark.parametrize(("call", "value"), REFUSED)
def test_what_makes_no_sense_is_refused(call, value):
    with pytest.raises(ValueError, match=value):
        call()


# --- the experiment -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench():
    """Untrained models on few small scenes, of which no rare class has more than one."""
    encoder, scenes = load_encoder("bundled"), rose.ThinnedScenes(6, quota=1, size=64)
    shown = [scenes.classes_of(i) for i in range(len(scenes))]
    assert all(sum(name in classes for classes in shown) <= 1 for name in rose.RARE)
    assert not set().union(*shown) & {*rose.HELD_OUT, *NOVEL}
    dataset = prepare(scenes, encoder, Vocabulary.encode(scenes.class_names, encoder), progress=False)
    torch.manual_seed(0)
    models = {name: ROSE(encoder.dim, encoder.fingerprint, name, k=4) for name in ("none", "similarity")}
    sizes = {"queries": 1, "per_class": 1, "shots": 1, "many": 2}
    return rose.RoseBenchmark(encoder, models, dataset, sizes, size=64, queries=1, pool=8)


def test_what_fusion_adds_and_what_storing_costs_is_measured_and_reported(bench, tmp_path):
    claims = rose.claims_of(bench)
    assert len({claim.statement for claim in claims}) == len(claims)
    rose.report_claims(bench, [3], tmp_path, progress=False)
    table = pd.read_csv(tmp_path / "rose_claims.csv")
    assert table.statement.tolist() == [claim.statement for claim in claims] and table.effect.notna().all()
    assert set(table.language) == {"vague"}  # what the bundled encoder reads
    answers, novel = bench.answers(3), table[table.statement.str.contains("novel classes, 1 rows")]
    rows = answers[(answers.group == "novel") & (answers.shots == 1)].groupby("method").after.mean()
    assert novel.effect.item() == pytest.approx(rows["similarity"] - rows["none"], abs=2e-3)
    rose.report_storing(bench, [3], tmp_path, progress=False)
    stored = pd.read_csv(tmp_path / "rose_storing.csv").set_index("store")
    raw, rows = stored.loc["raw images"], stored.loc["prototypes"]
    assert raw["rose"] == rows["rose"] and raw["rows"] == rows["rows"]  # the same, made anew
    assert stored.loc["patch embeddings", "rows"] > rows["rows"] > stored.loc["class means", "rows"]
