"""Training ROSE: what an episode hides, no leakage, seeds, and the trials that compare."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from data_scripts.bundled.corpus import FIRST_SEED
from data_scripts.scenes import NOVEL
from experiments import rose as bench
from experiments.rose import trial
from experiments.rose.world import alike
from rose_kit import FeatureMap, Sample, SupportMemory, Vocabulary, load_encoder, unit
from rose_kit.fusion import ZeroShot
from rose_kit.model import FUSIONS, ROSE, FrozenEncoder, MemoryRetriever, RoseMethod
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
    assert not set().union(*shown) & {*bench.HELD_OUT, *NOVEL}


def test_things_that_text_confuses_are_found():
    """Two things whose texts changed places come first."""
    rng, names = np.random.default_rng(0), ("sky", "car", "cat", "dog", "tree")
    text = unit(rng.normal(size=(5, DIM)))
    held = rng.integers(1, 5, (4, SIDE, SIDE))  # which class each patch is of
    maps = [
        FeatureMap(unit(text[h] + rng.normal(0, 0.1, (SIDE, SIDE, DIM))), 1, h.shape, h.shape) for h in held
    ]
    targets = torch.nn.functional.one_hot(torch.from_numpy(held), 5).float()
    vocabulary = Vocabulary(names, text[[0, 3, 2, 1, 4]])  # "car" bears the text of dogs
    found = alike(school.Lessons(maps, targets, ["a", "b", "c", "d"], None, vocabulary), pairs=2)
    assert set(found[0]) == {"car", "dog"} and set(found[1]) == {"cat", "tree"}


@pytest.fixture(scope="module")
def lab():
    """Untrained models on few small scenes: what is tested is how they are asked."""
    encoder = load_encoder("bundled")
    vocabulary = Vocabulary.encode(bench.ThinnedScenes.class_names, encoder)
    lessons = prepare(bench.ThinnedScenes(6, size=64), encoder, vocabulary, progress=False)
    torch.manual_seed(0)
    models = {
        name: ROSE(FrozenEncoder(encoder), MemoryRetriever(None, 4), name) for name in ("none", "similarity")
    }
    sizes = {"queries": 1, "per_class": 1, "shots": 1, "many": 2}
    return bench.RoseLab(models, lessons, sizes, size=64, queries=1, pool=20)


def test_a_trial_adds_one_class_and_nothing_else(lab):
    trial, memory = lab.trial(3), lab.trained_memory(3)
    grown = trial.added(memory, "drone", 2)
    assert grown.summary() == memory.summary() | {"drone": 2} and "drone" not in memory.classes
    np.testing.assert_array_equal(grown.vectors[: len(memory)], memory.vectors)
    assert trial.individual(0) != lab.trial(4).individual(0)


def test_trials_keep_clear_of_the_encoders_training():
    trained = range(FIRST_SEED, FIRST_SEED + 32_000)
    for seed in (0, 1):
        assert trial.FIRST_TRIAL + trial.APART * seed in trained
        with pytest.raises(ValueError, match=f"begin at 2, got {seed}"):
            bench.Trial(None, seed)
    assert trial.FIRST_TRIAL + trial.APART * trial.FIRST_SEED not in trained
    recorded = pd.read_csv(Path(trial.__file__).parents[1] / "results" / "rose_fusions.csv")
    bench.check_seeds(recorded.seed.unique().tolist())


def test_answers_are_ious_and_no_weight_changes(lab):
    table = lab.answers(3)
    assert set(table.method) == {
        "text only",
        "knn-clip",
        *(n + m for n in lab.models for m in ("", " without memory")),
    }
    assert table.before.dropna().between(0, 100).all() and table.after.dropna().between(0, 100).all()
    blind = table[table.method.isin(["text only", "none without memory"])]
    assert (blind.before == blind.after).all()  # nothing to add rows to
    assert (table[table.method == "similarity"].groupby("class").size()[list(NOVEL)] == 2).all()
    line = {row["method"]: row for row in bench.summary(table.to_dict("records"))}["similarity"]
    assert line["novel after"] == pytest.approx(lab.score(3, "similarity", "novel"))
    assert line["others, worst"] == lab.others(3, "similarity")


def test_a_changed_weight_is_noticed(lab):
    spoiled = bench.RoseLab(lab.models, lab.lessons, lab.sizes, size=64)
    spoiled._kept = dict(lab._kept)
    spoiled.hashes["none"] = "another"
    del spoiled._kept["answers", 3]
    with pytest.raises(RuntimeError, match="weights of none changed"):
        spoiled.answers(3)


def test_every_statement_of_the_article_is_measured(lab):
    rows = bench.rows(lab)
    assert len({row.says for row in rows}) == len(rows)
    assert {row.claim for row in rows} == {
        "long tail", "new class", "other classes", "fusion", "ambiguity", "domain shift", "poor memory",
        "self-taught memory",
    }  # fmt: skip
    asked = [row for row in rows if "off-domain" in row.says or row.claim == "self-taught memory"]
    assert all(np.isfinite(row.measure(lab, 3)) or "wrong among" in row.says for row in asked)


def test_what_is_stored_comes_back_from_disk(lab):
    table = bench.storing(lab, "similarity", [3], progress=False).set_index("store")
    raw, rows = table.loc["raw images"], table.loc["prototypes"]
    assert raw["rose"] == pytest.approx(rows["rose"]) and raw["rows"] == rows["rows"]  # the same, made anew
    assert table.loc["patch embeddings", "rows"] > rows["rows"] > table.loc["class means", "rows"]
    assert table["bytes"].min() > 0 and raw["ready_ms"] > rows["ready_ms"]


def test_trained_heads_are_saved_and_come_back(lab, tmp_path):
    encoder, settings = load_encoder("bundled"), Training(steps=2)
    made = bench.teach(lab.lessons, encoder, ["similarity"], settings, tmp_path, progress=False)
    back = bench.trained(encoder, ["similarity"], str(tmp_path))
    assert bench.weight_hash(back["similarity"]) == bench.weight_hash(made["similarity"])
    assert bench.trained(encoder, ["none"], "bundled")["none"].encoder.encoder is encoder
    with pytest.raises(ValueError, match="gone"):
        bench.trained(encoder, ["none"], str(tmp_path / "gone"))


def test_claims_are_reported_with_what_to_store(lab, tmp_path, capsys, monkeypatch):
    few = bench.rows(lab)[:1]
    monkeypatch.setattr("experiments.rose.run.rows", lambda lab: few)
    bench.report_claims(lab, [3], tmp_path, progress=False)
    said = capsys.readouterr().out
    assert few[0].says in said and "raw images" in said
    assert pd.read_csv(tmp_path / "rose_claims.csv").statement.tolist() == [few[0].says]
    assert set(pd.read_csv(tmp_path / "rose_storing.csv").store) >= {"raw images", "prototypes"}
