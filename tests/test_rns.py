"""RNS: the golden vectors, each piece against a slow legible twin, and what must not change the answer."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from test_fusion import NAMES, D, predicted
from test_fusion import world as random_world

from experiments.claims.lookup import RETRIEVALS
from rose_kit import RNS, Query, SupportMemory, Vocabulary, ZeroShot, unit
from rose_kit.adapter.rns import (
    LAMBDAS,
    Samples,
    class_relevance,
    fused_samples,
    pseudo_samples,
    sample_coefficients,
)
from rose_kit.adapter.solvers import kaiming_uniform
from rose_kit.fusion import retrieve
from rose_kit.fusion.retrieval import supported_classes

FOLDER = Path(__file__).parent / "golden"
DEVICES = ["cpu", *["cuda"] * torch.cuda.is_available(), *["mps"] * torch.backends.mps.is_available()]
CASES = ["both_partial", "full", "no_text", "partial_text", "partial_visual"]


def world(seed: int = 0, n: int = 9):
    features, memory, vocabulary = random_world(seed, n)
    return Query(features), memory, vocabulary


def golden(case: str):
    z = np.load(FOLDER / f"rns_{case}.npz", allow_pickle=False)
    names = [f"class {c}" for c in range(len(z["text"]))]
    memory = SupportMemory.from_prototypes(
        z["bank"], [names[c] for c in z["bank_class"]], [f"image {i}" for i in z["bank_image"]]
    )
    vocabulary = Vocabulary(names, z["text"] if z["use_text"] else None)
    vocabulary = vocabulary.without_text([names[c] for c in z["text_missing"]])
    return z, Query(z["query"], tuple(z["grid"].tolist())), memory, vocabulary


def training_set(query, memory, vocabulary, method):
    retrieved = retrieve(query.features, memory, vocabulary, method.k)
    prototypes = memory.class_prototypes(vocabulary.names)
    samples = method.samples(query, retrieved, prototypes, vocabulary)
    return retrieved, samples, samples.weight(class_relevance(query.image_feature, vocabulary, method.tau))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES)
def test_the_published_method_agrees_with_the_authors_code(case, device):
    z, query, memory, vocabulary = golden(case)
    query = Query(query.tensor.to(device), query.layout)
    method = RNS.published(k=int(z["k"]), steps=int(z["steps"]))
    answer = predicted(method, query, memory, vocabulary, initial_weight=z["W0"])
    np.testing.assert_allclose(answer, z["rns_prob"], atol=1e-4)  # stated agreement: 2e-3
    np.testing.assert_array_equal(answer.argmax(1), z["rns_prob"].argmax(1))
    if case != "no_text":
        answer = predicted(ZeroShot(), query, None, vocabulary)
        np.testing.assert_allclose(answer, z["zero_shot"], atol=1e-5)
        np.testing.assert_array_equal(answer.argmax(1), z["zero_shot"].argmax(1))


def test_published_sets_what_the_release_sets_and_the_solver_alone_sets_nothing():
    one, other = RNS.published(k=7, seed=3), RNS(k=7, seed=3, solver="adamw")
    assert (one.solver, one.tau, one.beta_fused, one.beta_pseudo) == ("adamw", 0.1, 1.5, 0.2)
    assert vars(one) | {"tau": None, "beta_fused": 0.5, "beta_pseudo": 1.0} == vars(other)
    assert vars(other) | {"solver": "lbfgs"} == vars(RNS(k=7, seed=3))


# --- the training set -------------------------------------------------------------------------------


def test_class_relevance_against_its_formula():
    query, _, v = world()
    mean = query.image_feature
    cosines = v.text @ mean / np.linalg.norm(mean)
    for given, temperature in (
        ((0.1,), 0.1),
        ((None,), 4 * cosines.std()),
        ((None, 1.5), 1.5 * cosines.std()),
    ):
        e = np.exp(cosines / temperature)
        np.testing.assert_allclose(class_relevance(mean, v, *given), e / e.sum(), atol=1e-5)
    same = Vocabulary(NAMES, np.tile(v.text[:1], (4, 1)))  # nothing to choose by
    for even in (v.without_text(["sky"]), same):
        np.testing.assert_allclose(class_relevance(mean, even, None), 0.25, atol=1e-3)


def test_fused_samples_against_a_loop():
    _, memory, v = world()
    several = Vocabulary(NAMES[:3], v.text, [2, 1, 0, 1])  # background, in the middle, has two texts
    prototypes = memory.class_prototypes(NAMES[:3])
    samples = fused_samples(prototypes, np.array([1, 2]), several, LAMBDAS, 1.5)
    expected = [
        (unit(lam * prototypes[c] + (1 - lam) * v.text[t]), c)
        for t, c in ((0, 2), (1, 1), (3, 1))
        for lam in LAMBDAS
    ]
    np.testing.assert_allclose(samples.features, [f for f, _ in expected], atol=1e-6)
    assert samples.label.tolist() == [c for _, c in expected] and set(samples.strength) == {1.5}


def test_pseudo_samples_only_for_classes_seen_by_zero_shot_and_unknown_to_the_memory():
    query, memory, v = world(n=40)
    supported = supported_classes(memory, v)
    assert supported.tolist() == [True, True, True, False]
    samples = pseudo_samples(query.features, supported, v, LAMBDAS, 0.2)
    u = unit(query.features[(query.features @ v.text.T).argmax(1) == 3].mean(0))
    features = np.stack([unit(lam * u + (1 - lam) * v.text[3]) for lam in LAMBDAS])
    np.testing.assert_allclose(samples.features, features, atol=1e-6)
    e = np.exp(100 * (features @ v.text.T).astype(np.float64))
    np.testing.assert_allclose(samples.target, e / e.sum(1, keepdims=True), atol=1e-4)
    assert len(pseudo_samples(v.text[:3], supported, v, LAMBDAS, 0.2)) == 0  # nobody looks like a tree


# --- the published solver ---------------------------------------------------------------------------


def test_adamw_against_autograd():
    """The training loop as one would write it in a lecture: autograd, cross-entropy, KL."""
    method = RNS.published(steps=60, seed=5)
    _, samples, weight = training_set(*world(), method)
    x, q, a = map(torch.from_numpy, (samples.features, samples.target, weight))
    layer, hard = torch.nn.Linear(D, 4), q.max(1).values == 1
    assert not hard.all(), "the twin should see a soft target"
    start = kaiming_uniform(4, D, seed=5)
    assert 0.9 < np.abs(start).max() / np.sqrt(6 / D) <= 1
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(start))
        layer.bias.zero_()
    optimizer = torch.optim.AdamW(layer.parameters(), lr=2e-3, weight_decay=5e-4)
    for _ in range(60):
        logits = layer(x)
        ce = F.cross_entropy(logits, q.argmax(1), reduction="none")
        kl = F.kl_div(F.log_softmax(logits, 1), q, reduction="none").sum(1)
        optimizer.zero_grad()
        (a * torch.where(hard, ce, kl)).mean().backward()
        optimizer.step()
    head = method.solve(samples, weight)
    np.testing.assert_allclose(head.weight, layer.weight.detach(), atol=1e-4)
    np.testing.assert_allclose(head.bias, layer.bias.detach(), atol=1e-4)


# --- the regulariser --------------------------------------------------------------------------------


def test_the_regulariser_against_its_formula():
    method = RNS(k=6, mu=0.5)
    _, samples, _ = training_set(*world(), method)
    means = {c: samples.features[samples.label == c].mean(0) for c in set(samples.label)}
    apart = [means[c] - samples.features.mean(0) for c in samples.label]
    scatter = [x - means[c] for x, c in zip(samples.features, samples.label, strict=True)]
    between, within = (np.square(rows).sum(1).mean() for rows in (apart, scatter))
    assert samples.variances == pytest.approx((between, within), rel=1e-4)
    within += between * len(means) / len(samples)
    assert method.ridge(samples) == pytest.approx(0.5 * between**2 / within / len(samples), rel=1e-4)
    one = samples.label == samples.label[0]
    alone = Samples(*(column[one] for column in vars(samples).values()))  # nothing between classes
    assert method.ridge(alone) > 0 and not np.abs(method.solve(alone, alone.strength).weight).max()


def test_settings_travel_to_other_features():
    """Turned, in more dimensions, in a narrow cone (text would lie in another): the same answers."""
    _, query, memory, _ = golden("no_text")
    names, dim = sorted(memory.classes), query.features.shape[1]
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(dim + 20, dim)))[0].T  # (D, D + 20)
    answers = []
    for move in (
        lambda x: x,
        lambda x: x @ rotation,
        lambda x: np.c_[0.2 * x, np.full(len(x), np.sqrt(0.96))],  # cosines from 0.92 to 1
    ):
        rows = move(memory.vectors), memory.class_names.tolist(), memory.image_ids.tolist()
        world = Query(move(query.features)), SupportMemory.from_prototypes(*rows), Vocabulary(names)
        answers.append(predicted(RNS(tolerance=0), *world))
    for answer in answers[1:]:
        np.testing.assert_allclose(answer, answers[0], atol=5e-3)


# --- evidence ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [True, False])
def test_evidence_of_a_head_at_the_minimum_is_complete(text):
    """Each row against the sum over samples, and the remainder against text and bias alone."""
    query, memory, v = world(seed=2)
    v = v if text else Vocabulary(NAMES)
    method = RNS(k=6, tolerance=0)  # k=6: everything of the three classes is retrieved
    retrieved, samples, weight = training_set(query, memory, v, method)
    head = method.solve(samples, weight)
    coefficients = sample_coefficients(head, samples, weight)  # (C, S)
    np.testing.assert_allclose(
        coefficients @ samples.features, head.weight, atol=0.01 * np.abs(head.weight).max()
    )
    logits = head.logits(query.features)
    evidence = method.predict(query, memory, v).evidence
    members = [np.flatnonzero(memory.class_names == name) for name in NAMES]
    fused = [(c, lam) for c in range(3) for lam in LAMBDAS] if text else []
    for n, x in enumerate(query.features):
        c = logits[n].argmax()
        gain = dict.fromkeys([-1, *retrieved.ids.tolist()], 0.0)
        gain[-1] = head.bias[c]
        for s, (feature, a) in enumerate(zip(samples.features, coefficients[c], strict=True)):
            if s < len(retrieved):
                gain[retrieved.ids[s]] += a * feature @ x
            elif s < len(retrieved) + len(fused):
                k, lam = fused[s - len(retrieved)]
                total = memory.vectors[members[k]].sum(0)
                norm = np.linalg.norm(lam * unit(total) + (1 - lam) * v.text[k])
                gain[-1] += a * (1 - lam) * v.text[k] @ x / norm
                for i in members[k]:
                    gain[i] += a * lam * memory.vectors[i] @ x / np.linalg.norm(total) / norm
            else:
                gain[-1] += a * feature @ x
        rows = evidence.top(n, 99)
        assert rows.weight.sum() == pytest.approx(logits[n].max(), abs=1e-4)
        for i, name, w in zip(rows.prototype_id, rows.class_name, rows.weight, strict=True):
            assert w == pytest.approx(gain[i], abs=1e-2 if i == -1 else 1e-3)
            assert name == (NAMES[c] if i == -1 else memory.class_names[i])


# --- effects ----------------------------------------------------------------------------------------


def without(memory, prototype_id):
    return memory.subset(memory.ids[memory.ids != prototype_id])


def change(before, after, winner):
    """Of the winning score, less the mean change over the classes that have a score both times."""
    out = []
    for old, new, c in zip(before, after, winner, strict=True):
        shared = [k for k in range(len(old)) if np.isfinite(old[k]) and np.isfinite(new[k])]
        out.append(new[c] - old[c] - np.mean([new[k] - old[k] for k in shared]))
    return np.array(out)


EFFECTS = [(case, {}) for case in CASES]
EFFECTS += [("full", {"solver": "adamw", "steps": 30}), ("full", {"retrieve": RETRIEVALS["furthest"]})]


@pytest.mark.parametrize(("case", "options"), EFFECTS)
def test_effects_are_what_leaving_one_out_changes_between_heads_at_the_minimum(case, options):
    """Another solver starts where it started before; another retrieval is asked again."""
    z, query, memory, v = golden(case)
    start = {"initial_weight": z["W0"]}
    answer, exact = RNS(**options).predict(query, memory, v, **start), RNS(tolerance=0, **options)
    winner, before = np.asarray(answer).argmax(1), exact.predict(query, memory, v, **start).scores
    ids = answer.evidence.strongest(40)[::4]
    effects = answer.evidence.leave_out(ids)  # (R, N)
    for effect, i in zip(effects, ids, strict=True):
        after = exact.predict(query, without(memory, i), v, **start).scores
        true = change(before, after, winner)
        np.testing.assert_array_equal(np.isfinite(effect), np.isfinite(true))
        np.testing.assert_allclose(effect, true, atol=0.01)  # where J stops falling in float32
    claimed = answer.evidence.with_effects(ids)
    rows = np.flatnonzero(np.isin(claimed.prototype_id, ids))
    known = effects[pd.Index(ids).get_indexer(claimed.prototype_id[rows]), claimed.query[rows]]
    np.testing.assert_array_equal(claimed.effect[rows], known)
    assert len(rows) > 100 and np.isfinite(known).mean() > 0.9
