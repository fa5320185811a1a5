"""Training ROSE: what an episode hides, no leakage, seeds, and the trials that compare."""

import numpy as np
import pandas as pd
import pytest
import torch

from data_scripts.bundled.corpus import FIRST_SEED
from data_scripts.scenes import NOVEL
from experiments import rose
from experiments.rose import trial
from experiments.rose.world import confusable_pairs
from rose_kit import FeatureMap, Sample, SupportMemory, Vocabulary, load_encoder, unit
from rose_kit.fusion import ZeroShot
from rose_kit.model import FUSIONS, ROSE, FrozenEncoder, MemoryRetriever, RoseMethod
from rose_kit.model.training import EncodedDataset, TrainConfig, episode, loss, prepare, train

NAMES = ("sky", "bus", "dog", "cat")
DIM, SIDE = 16, 6


class Flat:
    """An encoder whose images are features already."""

    dim, fingerprint, patch_size = DIM, "flat", 1

    def encode_image(self, image, windows=None):
        return FeatureMap(unit(image), 1, image.shape[:2], image.shape[:2])


class Blobs:
    """Images of features: a random rectangle of a class on sky, each class around its own direction."""

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
def dataset(vocabulary):
    return prepare(Blobs(16), Flat(), vocabulary, progress=False)


def accuracy(method, memory, vocabulary, seed=1):
    right = []
    for sample in Blobs(12, seed).samples:
        answer = np.asarray(method.predict(Flat().encode_image(sample.image), memory, vocabulary))
        right.append(answer.argmax(1) == sample.mask.ravel())
    return np.mean(right)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_training_teaches_and_a_seed_decides(fusion, dataset, vocabulary):
    np.testing.assert_array_equal(dataset.targets[3].argmax(-1), Blobs(16)[3].mask)
    config = TrainConfig(steps=25, seed=1)
    model, losses = train(dataset, Flat(), fusion, config, progress=False)
    again, _ = train(dataset, Flat(), fusion, config, progress=False)
    assert losses[-1] < 0.7 * losses[0]
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    memory = model.retriever.memory
    assert memory.summary()["sky"] == 10 < 16 and set(memory.classes) == set(NAMES)
    memory = None if fusion == "none" else memory
    assert accuracy(RoseMethod(model), memory, vocabulary) > accuracy(ZeroShot(), None, vocabulary) + 0.05


@pytest.mark.parametrize("fusion", FUSIONS)
def test_training_never_sees_an_images_own_rows(fusion, dataset):
    """The loss of an image stays the same to the last digits whatever its own rows in memory are."""
    memory, text = dataset.memory, np.array(dataset.vocabulary.text)
    changed = np.array(memory.vectors)
    own = memory.image_ids == dataset.image_ids[5]
    changed[own] = unit(np.random.default_rng(0).normal(size=(own.sum(), DIM)))
    other = SupportMemory.from_prototypes(changed, memory.class_names, memory.image_ids)
    model, losses = ROSE(FrozenEncoder(Flat()), MemoryRetriever(None, 8), fusion), []
    for model.retriever.memory in (memory, other):
        losses += [loss(model, dataset, [i], text).item() for i in (5, 6)]
    assert losses[0] == pytest.approx(losses[2], abs=1e-5)
    assert losses[1] != pytest.approx(losses[3], abs=1e-5)  # the guard can fire: another image sees them


def test_an_episode_hides_rows_and_texts_and_leaves_every_class_an_anchor(dataset, vocabulary):
    rng, seen = np.random.default_rng(0), {"blind": 0, "no text": 0, "fewer": 0}
    for _ in range(60):
        memory, text = episode(dataset.memory, vocabulary, TrainConfig(rows_per_class=4), rng)
        missing = np.isnan(text).any(1)
        if memory is None:
            seen["blind"] += 1
            assert not missing.any()
            continue
        rows = memory.summary()
        assert max(rows.values()) <= 4
        seen["no text"] += missing.any()
        seen["fewer"] += len(rows) < 4
        for c in np.flatnonzero(missing):  # an image apart from any image's own still holds it
            assert len(set(memory.image_ids[memory.class_names == NAMES[c]])) >= 2
    assert min(seen.values()) > 0 and not np.isnan(vocabulary.text).any()


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"k": -1}, {"blind": 1.5}, {"hide_text": float("nan")}])
def test_settings_that_make_no_sense_are_refused(wrong):
    [(name, value)] = wrong.items()
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        TrainConfig(**wrong)


def test_images_of_two_sizes_are_refused(vocabulary):
    blobs = Blobs(2)
    sample = blobs.samples[1]
    blobs.samples[1] = Sample(sample.image_id, sample.image[:4], sample.mask[:4], sample.classes)
    with pytest.raises(ValueError, match=r"\(4, 6\)"):
        prepare(blobs, Flat(), vocabulary, progress=False)


# --- the experiment -----------------------------------------------------------------------------------------


def test_things_that_text_confuses_are_found():
    """Two things whose texts changed places come first."""
    rng, names = np.random.default_rng(0), ("sky", "car", "cat", "dog", "tree")
    text = unit(rng.normal(size=(5, DIM)))
    held = rng.integers(1, 5, (4, SIDE, SIDE))  # which class each patch is of
    noisy = [unit(text[h] + rng.normal(0, 0.1, (SIDE, SIDE, DIM))) for h in held]
    maps = [FeatureMap(values, 1, (SIDE, SIDE), (SIDE, SIDE)) for values in noisy]
    targets = torch.nn.functional.one_hot(torch.from_numpy(held), 5).float()
    vocabulary = Vocabulary(names, text[[0, 3, 2, 1, 4]])  # "car" bears the text of dogs
    found = confusable_pairs(EncodedDataset(maps, targets, list("abcd"), None, vocabulary), pairs=2)
    assert set(found[0]) == {"car", "dog"} and set(found[1]) == {"cat", "tree"}


@pytest.fixture(scope="module")
def bench():
    """Untrained models on few small scenes, of which no rare class has more than one."""
    encoder, scenes = load_encoder("bundled"), rose.ThinnedScenes(6, quota=1, size=64)
    shown = [scenes.classes_of(i) for i in range(len(scenes))]
    assert all(sum(name in classes for classes in shown) <= 1 for name in rose.RARE)
    assert not set().union(*shown) & {*rose.HELD_OUT, *NOVEL}
    dataset = prepare(scenes, encoder, Vocabulary.encode(scenes.class_names, encoder), progress=False)
    torch.manual_seed(0)
    frozen = FrozenEncoder(encoder)
    models = {name: ROSE(frozen, MemoryRetriever(None, 4), name) for name in ("none", "similarity")}
    sizes = {"queries": 1, "per_class": 1, "shots": 1, "many": 2}
    return rose.RoseBenchmark(models, dataset, sizes, size=64, queries=1, pool=20)


def test_trials_add_one_class_and_keep_clear_of_the_encoders_training(bench):
    memory, own = bench.trained_memory(3), bench.trial(3)
    grown = own.added(memory, "drone", 2)
    assert grown.summary() == memory.summary() | {"drone": 2} and "drone" not in memory.classes
    assert own.individual(0) != bench.trial(4).individual(0)
    trained = range(FIRST_SEED, FIRST_SEED + 32_000)
    assert [trial.FIRST_TRIAL + trial.STRIDE * seed in trained for seed in (0, 1, 2)] == [True, True, False]
    with pytest.raises(ValueError, match="got 1"):
        rose.check_seeds([2, 1])


def test_answers_are_ious_and_a_changed_weight_is_noticed(bench):
    table = bench.answers(3)
    assert table.before.dropna().between(0, 100).all() and table.after.dropna().between(0, 100).all()
    blind = table[table.method.isin(["text only", "none without memory"])]
    assert (blind.before == blind.after).all()  # nothing to add rows to
    assert (table[table.method == "similarity"].groupby("class").size()[list(NOVEL)] == 2).all()
    line = {row["method"]: row for row in rose.summary(table.to_dict("records"))}["similarity"]
    assert line["novel after"] == pytest.approx(bench.score(3, "similarity", "novel"))
    changed = rose.RoseBenchmark(bench.models, bench.dataset, bench.sizes, size=64)
    changed._cache |= {key: made for key, made in bench._cache.items() if key[0] != "answers"}
    changed.hashes["none"] = "another"
    with pytest.raises(RuntimeError, match="none"):
        changed.answers(3)


def test_every_statement_of_the_article_is_measured_and_reported(bench, tmp_path, capsys, monkeypatch):
    claims = rose.claims_of(bench)
    assert len({claim.statement for claim in claims}) == len(claims)
    few = [next(c for c in claims if c.name == name) for name in dict.fromkeys(c.name for c in claims)]
    monkeypatch.setattr("experiments.rose.run.claims_of", lambda bench: few)
    rose.report_claims(bench, [3], tmp_path, progress=False)
    assert few[0].statement in capsys.readouterr().out
    found = pd.read_csv(tmp_path / "rose_claims.csv")
    assert found.statement.tolist() == [claim.statement for claim in few] and found.effect.notna().all()
    stored = pd.read_csv(tmp_path / "rose_storing.csv").set_index("store")
    raw, rows = stored.loc["raw images"], stored.loc["prototypes"]
    assert raw["rose"] == rows["rose"] and raw["rows"] == rows["rows"]  # the same, made anew
    assert stored.loc["patch embeddings", "rows"] > rows["rows"] > stored.loc["class means", "rows"]
    assert raw["ready_ms"] > rows["ready_ms"]


def test_trained_heads_are_saved_and_come_back(bench, tmp_path):
    encoder, config = load_encoder("bundled"), TrainConfig(steps=2)
    made = rose.train_fusions(bench.dataset, encoder, ["similarity"], config, tmp_path, progress=False)
    back = rose.load_trained(encoder, ["similarity"], str(tmp_path))
    assert rose.weight_hash(back["similarity"]) == rose.weight_hash(made["similarity"])
