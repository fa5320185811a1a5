"""What RNS is compared with: offline and supervised heads, other retrievals, an encoder tuned with masks."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from test_evaluation import Blocks, ColourEncoder, Nearest
from test_evaluation import run as evaluate
from test_fusion import NAMES, ROWS, world

from data_scripts.scenes import SceneDataset
from experiments import finetune as tuning
from experiments.finetune import FineTuning, dense_loss, finetune
from rose_kit import RNS, KnnClip, SupportMemory, Vocabulary, ZeroShot, load_encoder, unit
from rose_kit.adapter import OfflineLinear, OfflinePixels, Supervised
from rose_kit.fusion import RETRIEVALS, retrieve, select

pytestmark = pytest.mark.filterwarnings("ignore:no image to draw holds. kite")


def clouds(seed: int = 0, images: int = 6, each: int = 30):
    """Three overlapping classes: labelled patches per image, and a memory of their class means."""
    rng = np.random.default_rng(seed)
    centres, support, vectors, names, ids = np.eye(3, 8), [], [], [], []
    for i in range(images):
        labels = rng.integers(0, 3, each)
        features = unit(centres[labels] + rng.normal(0, 0.5, (each, 8)))
        labels[:2] = (-1, 255)  # neither is a class here
        support.append((features, labels, f"image {i}"))
        for c in range(3):
            vectors.append(unit(features[labels == c].mean(0)))
            names.append("abc"[c])
            ids.append(f"image {i}")
    return support, SupportMemory.from_prototypes(vectors, names, ids), Vocabulary(list("abc"))


# --- offline heads ------------------------------------------------------------------------------------


def test_offline_linear_is_scikit_learns_logistic_regression_on_the_prototypes():
    support, memory, vocabulary = clouds()
    features = support[0][0]
    got = np.asarray(
        OfflineLinear(strength=10.0).fit(memory, vocabulary).predict(features, memory, vocabulary)
    )
    twin = LogisticRegression(C=10.0, max_iter=5000, tol=1e-8).fit(memory.vectors, memory.class_names)
    np.testing.assert_allclose(got, twin.predict_proba(features), atol=5e-3)


def test_offline_pixels_is_at_the_minimum_of_its_objective():
    """The gradient of C * sum of cross-entropy + |W|^2 / 2, by autograd, on every labelled patch."""
    support, memory, vocabulary = clouds()
    head = OfflinePixels(strength=2.0, steps=2000).fit(memory, vocabulary, support)
    model = head._model.__self__  # scikit-learn's own
    keep = [np.isin(labels, (0, 1, 2)) for _, labels, _ in support]
    x = torch.from_numpy(np.concatenate([f[k] for (f, _, _), k in zip(support, keep, strict=True)])).double()
    y = torch.from_numpy(np.concatenate([n[k] for (_, n, _), k in zip(support, keep, strict=True)]))
    w, b = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (model.coef_, model.intercept_))
    (2.0 * F.cross_entropy(x @ w.T + b, y, reduction="sum") + w.square().sum() / 2).backward()
    assert max(w.grad.abs().max(), b.grad.abs().max()) < 0.05  # of 168 samples


def test_patches_are_capped_per_image_and_in_all_and_ignored_ones_are_left_out():
    support, _, _ = clouds()
    x, y, images = OfflinePixels(per_image=10).patches(support)
    assert len(x) == 60 and set(y) == {0, 1, 2} and set(np.unique(images, return_counts=True)[1]) == {10}
    assert len(OfflinePixels(per_image=10, at_most=25).patches(support)[0]) == 25
    assert len(OfflinePixels().patches(support)[0]) == 6 * 28


@pytest.mark.parametrize("on", ["prototypes", "pixels"])
def test_the_strength_is_the_one_that_left_out_images_ask_for(on, monkeypatch):
    """One strength answers rightly, the others always with the first class; no image is on both sides."""
    support, memory, vocabulary = clouds(images=8)
    right = {x.tobytes(): y for f, labels, _ in support for x, y in zip(f, labels, strict=True)}
    trained = []

    def train(self, samples, strength):
        trained.append(set(samples[2]))
        wanted = 10.0 if on == "prototypes" else 100.0
        return lambda x: np.eye(3)[[right[row.tobytes()] if strength == wanted else 0 for row in x]]

    monkeypatch.setattr(OfflineLinear, "train", train)
    head = OfflineLinear(on=on).fit(memory, vocabulary, support)
    assert head.fitted_strength == (10.0 if on == "prototypes" else 100.0)
    assert [len(images) for images in trained] == [4] * 4 + [8]  # each strength on half, the best on all
    assert OfflineLinear(on=on, strength=0.5).fit(memory, vocabulary, support).fitted_strength == 0.5


def test_an_offline_head_knows_its_classes_by_name():
    support, memory, vocabulary = clouds()
    features = support[1][0]
    head = OfflineLinear(strength=10.0).fit(memory, vocabulary)
    p = np.asarray(head.predict(features, memory, vocabulary))
    q = np.asarray(head.predict(features, memory, Vocabulary(["zebra", "c", "a", "b"])))
    np.testing.assert_allclose(q, np.c_[np.zeros(len(p)), p[:, [2, 0, 1]]], atol=1e-6)
    some = np.asarray(head.predict(features, memory, Vocabulary(["c", "a"])))
    np.testing.assert_allclose(some, unit_sum(p[:, [2, 0]]), atol=1e-6)


def unit_sum(x):
    return x / x.sum(1, keepdims=True)


def test_an_offline_head_with_too_little_to_learn_from():
    features, memory, vocabulary = world()
    one = OfflineLinear().fit(memory, Vocabulary(["bus"]))
    np.testing.assert_array_equal(
        np.asarray(one.predict(features, memory, Vocabulary(["sky", "bus"]))).argmax(1), 1
    )
    empty = SupportMemory(12)
    with pytest.raises(ValueError, match="no text and the memory holds no prototype of its classes: bus"):
        OfflineLinear().predict(features, empty, Vocabulary(["bus"]))
    np.testing.assert_allclose(
        np.asarray(OfflineLinear().predict(features, empty, vocabulary)),
        np.asarray(ZeroShot().predict(features, None, vocabulary)),
    )
    with pytest.raises(ValueError, match=r"on pixels is trained on support images"):
        OfflinePixels().predict(features, memory, vocabulary)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"on": "pixel"}, "'prototypes' or 'pixels', got 'pixel'"),
        ({"strength": 0.0}, "strength must be positive, got 0.0"),
        ({"steps": -1}, "steps must be positive, got -1"),
        ({"at_most": 0}, "at_most must be positive, got 0"),
    ],
)
def test_wrong_settings_of_an_offline_head_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        OfflineLinear(**settings)


def test_full_supervision_sees_every_image_once_for_all_draws():
    encoder, data = ColourEncoder(), Blocks(12)
    rows = evaluate(
        {"supervised": Supervised(), "offline": OfflinePixels(), "nearest": Nearest()},
        data, encoder=encoder, shots=1, seeds=[1, 2],
    )  # fmt: skip
    drawn = {i for row in rows for i in row["support_ids"]}
    assert len(drawn) < len(data) and len(encoder.encoded) == len(data) + 6
    score = {(row["method"], row["seed"]): row["miou"] for row in rows}
    assert score["supervised", 1] == score["supervised", 2] > 90
    fitted = Supervised().fit(None, Vocabulary(list("abc")), clouds()[0])
    assert fitted.fit(None, Vocabulary(["x"]), clouds(1)[0]).names == ("a", "b", "c")


def test_full_supervision_is_asked_for_by_name_only(run, folder):
    args = ("evaluate", folder, "--encoder", "handcrafted", "--shots", 1, "--seeds", 1)
    text = run(*args, "--methods", "supervised,offline-linear")
    assert [line.split()[0] for line in text.splitlines()[1:]] == ["supervised", "offline-linear"]
    usual = [line.split()[0] for line in run(*args).splitlines()[1:]]
    assert {"rns", "offline-linear", "offline-pixels"} <= set(usual) and "supervised" not in usual


# --- which prototypes ----------------------------------------------------------------------------------


def slow_choice(how, features, memory, names, k):
    """The ids that a choice must hold (or how many of which pool), patch by patch."""
    allowed = [i for i in range(len(memory)) if memory.class_names[i] in names]
    near, far = set(), set()
    for x in features:
        order = sorted(allowed, key=lambda i: -float(memory.vectors[i] @ x))
        near |= set(order[:k])
        far |= set(order[-k:])
    found = {memory.class_names[i] for i in near}
    inside = {i for i in allowed if memory.class_names[i] in found}
    pools = {
        "nearest": near,
        "classes": inside,
        "random-in-classes": inside,
        "random": set(allowed),
        "furthest": far,
    }
    return pools[how], len(near) if how.startswith("random") else len(pools[how])


@settings(max_examples=15)
@given(seed=st.integers(0, 500), how=st.sampled_from(sorted(RETRIEVALS)), k=st.integers(1, 3))
def test_choices_of_prototypes_against_a_loop(seed, how, k):
    rng = np.random.default_rng(seed)
    names = rng.choice(["sky", "bus", "tree", "car"], 20)
    memory = SupportMemory.from_prototypes(
        unit(rng.normal(size=(20, 6))), names, [f"i{i}" for i in range(20)]
    )
    features, vocabulary = unit(rng.normal(size=(3, 6))), Vocabulary(["tree", "bus", "sky"])
    found = select(how, features, memory, vocabulary, k)
    pool, size = slow_choice(how, features, memory, vocabulary.names, k)
    assert set(found.ids) <= pool and len(found) == len(set(found.ids)) == size
    np.testing.assert_array_equal(found.vectors, memory.vectors[found.ids])
    assert [vocabulary.names[c] for c in found.classes] == memory.class_names[found.ids].tolist()
    for row, scores, x in zip(found.rows, found.scores, features, strict=True):
        best = np.sort(found.vectors @ x)[::-1][:k]
        np.testing.assert_allclose(scores[scores > -np.inf], best, atol=1e-6)
        np.testing.assert_allclose(found.vectors[row[row >= 0]] @ x, best, atol=1e-6)


def test_random_choices_differ_by_seed_and_image_and_are_always_the_same():
    features, memory, vocabulary = world(n=3)
    picks = [tuple(select("random", features, memory, vocabulary, 1, seed=s).ids) for s in range(20)]
    assert len(set(picks)) > 2
    assert picks[4] == tuple(select("random", features, memory, vocabulary, 1, seed=4).ids)
    rolled = [tuple(select("random", np.roll(features, i, 1), memory, vocabulary, 1).ids) for i in range(12)]
    assert len(set(rolled)) > 2


def test_excluded_images_are_in_no_choice():
    features, memory, vocabulary = world()
    for how in RETRIEVALS:
        found = select(how, features, memory, vocabulary, 4, exclude_images=("a",))
        assert set(memory.lookup(found.ids).image_ids) == {"b"}, how


def test_methods_take_any_choice_and_refuse_an_unknown_one():
    features, memory, vocabulary = world()
    assert select("nearest", features, memory, vocabulary, 2).ids.tolist() == (
        retrieve(features, memory, vocabulary, 2).ids.tolist()
    )
    near = np.asarray(KnnClip(k=2).predict(features, memory, vocabulary))
    whole = np.asarray(KnnClip(k=2, retrieval="classes").predict(features, memory, vocabulary))
    np.testing.assert_allclose(whole, near, atol=1e-5)  # the nearest are in whole classes too
    answers = [
        np.asarray(RNS(k=1, retrieval=how, solver="lbfgs").predict(features, memory, vocabulary))
        for how in RETRIEVALS
    ]
    assert not np.allclose(answers[0], answers[-1], atol=1e-3)
    for answer in answers:
        np.testing.assert_allclose(answer.sum(1), 1, atol=1e-5)
    for method in (RNS, KnnClip):
        with pytest.raises(
            ValueError, match=r"unknown retrieval 'closest'. Known: nearest, classes, random-in"
        ):
            method(retrieval="closest")
    assert not len(select("random", features, SupportMemory(12), vocabulary, 3))
    assert len(ROWS) > 5 and len(NAMES) == 4


# --- an encoder tuned with masks ------------------------------------------------------------------------


def test_dense_loss_is_cross_entropy_where_patches_are_pure_and_ignores_what_is_unlabelled():
    torch.manual_seed(0)
    patches, text = F.normalize(torch.randn(2, 3, 8), dim=-1), F.normalize(torch.randn(4, 8), dim=-1)
    labels = torch.tensor([[0, 3, -1], [2, -1, 1]])
    target = (labels[..., None] == torch.arange(4)).float()
    expected = F.cross_entropy((20 * patches @ text.T).flatten(0, 1), labels.flatten(), ignore_index=-1)
    torch.testing.assert_close(dense_loss(patches, text, target, 20.0), expected, atol=1e-5, rtol=0)
    halves = torch.full((1, 1, 4), 0.25)
    each = [F.cross_entropy(20 * patches[0, :1] @ text.T, torch.tensor([c])) for c in range(4)]
    torch.testing.assert_close(
        dense_loss(patches[:1, :1], text, halves, 20.0), sum(each) / 4, atol=1e-5, rtol=0
    )


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """The bundled encoder after 12 steps on eight small scenes."""
    out = tmp_path_factory.mktemp("tuned") / "encoder"
    scenes = SceneDataset(8, first=tuning.FIRST_SEED, size=48)
    finetune(out, dataset=scenes, settings=FineTuning(steps=12, batch=4, warmup=2), progress=False)
    return out, scenes


def test_fine_tuning_makes_an_encoder_that_segments_its_scenes_better(tuned):
    out, scenes = tuned
    before, after = load_encoder("bundled"), load_encoder(str(out))
    assert after.fingerprint != before.fingerprint and after.dim == before.dim
    np.testing.assert_allclose(after.encode_text(["car"]), before.encode_text(["car"]), atol=2e-3)
    share = [accuracy(encoder, scenes) for encoder in (before, after)]
    assert share[1] > share[0] + 0.05, share
    losses = json.loads((out / "finetuning.json").read_text())["losses"]
    assert losses[-1] < losses[0] and not list(out.parent.glob(".encoder*"))


def accuracy(encoder, scenes):
    """Share of patch centres that zero-shot gets right."""
    vocabulary, right = Vocabulary.encode(scenes.class_names, encoder), []
    for sample in scenes:
        answer = np.asarray(ZeroShot().predict(encoder.encode_image(sample.image), None, vocabulary)).argmax(
            1
        )
        truth = sample.mask[4::8, 4::8].ravel()
        right += [sample.classes[t] == scenes.class_names[a] for t, a in zip(truth, answer, strict=True)]
    return np.mean(right)


def test_fine_tuning_gives_the_same_weights_again(tuned, tmp_path):
    out, scenes = tuned
    again = finetune(
        tmp_path / "b", dataset=scenes, settings=FineTuning(steps=12, batch=4, warmup=2), progress=False
    )
    assert again.fingerprint == load_encoder(str(out)).fingerprint
    other = FineTuning(steps=12, batch=4, warmup=2, seed=1)
    assert (
        finetune(tmp_path / "c", dataset=scenes, settings=other, progress=False).fingerprint
        != again.fingerprint
    )


def test_an_interrupted_fine_tuning_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "save_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        finetune(
            tmp_path / "x", dataset=SceneDataset(2, size=32), settings=FineTuning(steps=1), progress=False
        )
    assert not list(tmp_path.iterdir())


def test_fine_tuning_refuses_what_it_cannot_do(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("all of it")
    with pytest.raises(ValueError, match=r"full' exists already: name a new folder"):
        finetune(tmp_path / "full", progress=False)
    with pytest.raises(ValueError, match=r"is \(36, 36\); all must have one size, in whole 8 px"):
        finetune(tmp_path / "odd", dataset=SceneDataset(1, size=36), progress=False)
    with pytest.raises(ValueError, match="steps must be positive, got 0"):
        FineTuning(steps=0)
    assert (tmp_path / "full" / "thesis.txt").read_text() == "all of it"
