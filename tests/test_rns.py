"""RNS: the golden vectors, each piece against a slow legible twin, and what must not change the answer."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from rose_kit import RNS, Query, SupportMemory, Vocabulary, ZeroShot, unit
from rose_kit.adapter.explain import span_coefficients
from rose_kit.adapter.samples import LAMBDAS, class_relevance, fused_samples, pseudo_samples
from rose_kit.adapter.solvers import SOLVERS, kaiming_uniform
from rose_kit.fusion import retrieve
from rose_kit.fusion.retrieval import supported_classes

GOLDEN = sorted((Path(__file__).parent / "golden").glob("rns_*.npz"))
NAMES = ("bus", "background", "sky", "tree")
ROWS = ("bus", "bus", "sky", "background", "background", "car")
D = 12


def world(seed: int = 0, n: int = 9):
    """Query, memory, vocabulary: random, small; tree has no visual support, nobody asks for a car."""
    rng = np.random.default_rng(seed)
    bank = unit(rng.normal(size=(len(ROWS), D)))
    memory = SupportMemory.from_prototypes(bank, ROWS, ["a", "b", "a", "a", "b", "b"])
    text = rng.normal(size=D) + 0.1 * rng.normal(size=(len(NAMES), D))  # alike, so that nothing is certain
    return Query(unit(rng.normal(size=(n, D)))), memory, Vocabulary(NAMES, unit(text))


def golden(path: Path):
    z = np.load(path, allow_pickle=False)
    names = [f"class {c}" for c in range(len(z["text"]))]
    memory = SupportMemory.from_prototypes(
        z["bank"], [names[c] for c in z["bank_class"]], [f"image {i}" for i in z["bank_image"]]
    )
    vocabulary = Vocabulary(names, z["text"] if z["use_text"] else None)
    vocabulary = vocabulary.without_text([names[c] for c in z["text_missing"]])
    return z, Query(z["query"], tuple(z["grid"].tolist())), memory, vocabulary


def training_set(query, memory, vocabulary, method):
    found = retrieve(query.features, memory, vocabulary, method.k)
    samples = method.samples(query, found, memory, vocabulary)
    return found, samples, samples.weight(class_relevance(query.image_feature, vocabulary, method.tau))


def test_there_are_five_golden_cases():
    assert [path.stem for path in GOLDEN] == [
        f"rns_{case}" for case in ("both_partial", "full", "no_text", "partial_text", "partial_visual")
    ]


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_adamw_agrees_with_the_authors_code(path):
    z, query, memory, vocabulary = golden(path)
    method = RNS(k=int(z["k"]), solver="adamw", steps=int(z["steps"]))
    answer = np.asarray(method.predict(query, memory, vocabulary, initial_weight=z["W0"]))
    np.testing.assert_allclose(answer, z["rns_prob"], atol=1e-4)  # stated agreement: 2e-3
    np.testing.assert_array_equal(answer.argmax(1), z["rns_prob"].argmax(1))


@pytest.mark.parametrize("path", [p for p in GOLDEN if "no_text" not in p.stem], ids=lambda p: p.stem)
def test_zero_shot_agrees_with_the_authors_code(path):
    z, query, _, vocabulary = golden(path)
    answer = np.asarray(ZeroShot().predict(query, None, vocabulary))
    np.testing.assert_allclose(answer, z["zero_shot"], atol=1e-5)
    np.testing.assert_array_equal(answer.argmax(1), z["zero_shot"].argmax(1))


def reference_adamw(features, target, weight, start, steps, lr, weight_decay):
    """The training loop as one would write it in a lecture: autograd, cross-entropy, KL."""
    x, q, a = map(torch.from_numpy, (features, target, weight))
    layer = torch.nn.Linear(x.shape[1], q.shape[1])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(start))
        layer.bias.zero_()
    optimizer = torch.optim.AdamW(layer.parameters(), lr=lr, weight_decay=weight_decay)
    hard = q.max(1).values == 1
    for _ in range(steps):
        logits = layer(x)
        ce = F.cross_entropy(logits, q.argmax(1), reduction="none")
        kl = F.kl_div(F.log_softmax(logits, 1), q, reduction="none").sum(1)
        optimizer.zero_grad()
        (a * torch.where(hard, ce, kl)).mean().backward()
        optimizer.step()
    return layer.weight.detach().numpy(), layer.bias.detach().numpy()


def test_adamw_against_autograd():
    query, memory, vocabulary = world()
    method = RNS(steps=60)
    _, samples, weight = training_set(query, memory, vocabulary, method)
    assert (samples.target.max(1) < 1).any(), "the twin should see a soft target"
    start = kaiming_uniform(4, D, seed=5)
    head = SOLVERS["adamw"](samples.features, samples.target, weight, None, **vars(RNS(steps=60, seed=5)))
    w, b = reference_adamw(samples.features, samples.target, weight, start, 60, 2e-3, 5e-4)
    np.testing.assert_allclose(head.weight, w, atol=1e-4)
    np.testing.assert_allclose(head.bias, b, atol=1e-4)


def test_class_relevance_against_its_formula():
    query, _, vocabulary = world()
    mean = query.features.mean(0)
    e = np.exp((vocabulary.text @ mean / np.linalg.norm(mean)) / 0.1)
    np.testing.assert_allclose(class_relevance(mean, vocabulary, 0.1), e / e.sum(), atol=1e-5)
    for v in (vocabulary.without_text(["sky"]), Vocabulary(NAMES)):
        assert class_relevance(mean, v, 0.1).tolist() == [0.25] * 4


def test_class_relevance_fits_its_temperature_to_how_far_the_cosines_spread():
    query, _, vocabulary = world()
    cosines = vocabulary.text @ unit(query.image_feature)
    e = np.exp(cosines / (4 * cosines.std()))
    np.testing.assert_allclose(class_relevance(query.image_feature, vocabulary, None), e / e.sum(), atol=1e-5)
    same = Vocabulary(NAMES, np.tile(vocabulary.text[:1], (4, 1)))  # nothing to choose by
    np.testing.assert_allclose(class_relevance(query.image_feature, same, None), 0.25, atol=1e-3)
    assert RNS(solver="adamw").tau == 0.1 and RNS(solver="adamw", tau=0.3).tau == 0.3 and RNS().tau is None


def test_fused_samples_against_a_loop():
    _, memory, v = world()
    several = Vocabulary(NAMES[:3], v.text, [2, 1, 0, 1])  # background, in the middle, has two texts
    prototypes = memory.class_prototypes(NAMES[:3])
    got = fused_samples(prototypes, np.array([1, 2]), several, LAMBDAS, 1.5)
    expected = [
        (unit(lam * prototypes[c] + (1 - lam) * v.text[t]), c)
        for t, c in ((0, 2), (1, 1), (3, 1))
        for lam in LAMBDAS
    ]
    np.testing.assert_allclose(got.features, [f for f, _ in expected], atol=1e-6)
    assert got.label.tolist() == [c for _, c in expected] and set(got.strength) == {1.5}


def test_pseudo_samples_only_for_classes_seen_by_zero_shot_and_unknown_to_the_memory():
    query, memory, vocabulary = world(n=40)
    supported = supported_classes(memory, vocabulary)
    assert supported.tolist() == [True, True, True, False]
    got = pseudo_samples(query.features, supported, vocabulary, LAMBDAS, 0.2)
    seen = query.features[(query.features @ vocabulary.text.T).argmax(1) == 3]
    u = unit(seen.mean(0))
    features = np.stack([unit(lam * u + (1 - lam) * vocabulary.text[3]) for lam in LAMBDAS])
    np.testing.assert_allclose(got.features, features, atol=1e-6)
    e = np.exp(100 * (features @ vocabulary.text.T).astype(np.float64))
    np.testing.assert_allclose(got.target, e / e.sum(1, keepdims=True), atol=1e-4)
    unseen = Query(vocabulary.text[:3])  # nobody looks like a tree: nothing is taught about it
    assert len(pseudo_samples(unseen.features, supported, vocabulary, LAMBDAS, 0.2)) == 0


def test_relevance_weights_add_up_to_one_before_beta():
    query, memory, vocabulary = world()
    _, samples, weight = training_set(query, memory, vocabulary, RNS())
    assert (weight / samples.strength).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("text", ["text", "no text"])
def test_evidence_of_a_head_in_the_span_is_complete(text):
    """Each row against the sum over samples, and the remainder against text and bias alone."""
    query, memory, vocabulary = world(seed=2)
    vocabulary = vocabulary if text == "text" else Vocabulary(NAMES)
    method = RNS(k=6)  # k=6: everything of the three classes is retrieved
    found, samples, weight = training_set(query, memory, vocabulary, method)
    head = method.solve(samples, weight)
    logits = head.logits(query.features)
    evidence = method.predict(query, memory, vocabulary).evidence
    sums = {name: memory.vectors[memory.class_names == name].sum(0) for name in set(ROWS)}
    for n, x in enumerate(query.features):
        c = logits[n].argmax()
        gain = dict.fromkeys([-1, *found.ids.tolist()], 0.0)
        gain[-1] = head.bias[c]
        retrieved = len(found)
        a_s = span_coefficients(head, samples)[c]
        fused = np.repeat([0, 1, 2], len(LAMBDAS)) if text == "text" else []
        for s, (feature, a) in enumerate(zip(samples.features, a_s, strict=True)):
            if s < retrieved:
                gain[found.ids[s]] += a * feature @ x
            elif s < retrieved + len(fused):
                k, lam = fused[s - retrieved], LAMBDAS[(s - retrieved) % len(LAMBDAS)]
                v = unit(sums[NAMES[k]])
                norm = np.linalg.norm(lam * v + (1 - lam) * vocabulary.text[k])
                gain[-1] += a * (1 - lam) * vocabulary.text[k] @ x / norm
                for i in np.flatnonzero(memory.class_names == NAMES[k]):
                    gain[i] += a * lam * memory.vectors[i] @ x / np.linalg.norm(sums[NAMES[k]]) / norm
            else:
                gain[-1] += a * feature @ x
        rows = evidence.top(n, 99)
        assert rows.weight.sum() == pytest.approx(logits[n].max(), abs=1e-4)
        for i, name, got in zip(rows.prototype_id, rows.class_name, rows.weight, strict=True):
            assert got == pytest.approx(gain[i], abs=1e-3)
            assert name == (NAMES[c] if i == -1 else memory.class_names[i])


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_evidence_adds_up_to_the_winning_logit(path, solver):
    _, query, memory, vocabulary = golden(path)
    method = RNS(solver=solver, steps=50)
    _, samples, weight = training_set(query, memory, vocabulary, method)
    head = method.solve(samples, weight)
    evidence = method.predict(query, memory, vocabulary).evidence
    total = np.bincount(evidence.query, weights=evidence.weight, minlength=len(query))
    np.testing.assert_allclose(total, head.logits(query.features).max(1), atol=1e-3)
    assert np.bincount(evidence.query).max() <= 9 and (evidence.prototype_id >= 0).sum() >= len(query)


@pytest.mark.parametrize("size", [5, 40])
def test_span_coefficients_find_a_head_that_lies_in_the_span(size):
    rng = np.random.default_rng(0)
    query, memory, vocabulary = world()
    _, samples, weight = training_set(query, memory, vocabulary, RNS(solver="lbfgs"))
    keep = rng.integers(len(samples), size=size)
    part = type(samples)(*(column[keep] for column in vars(samples).values()))
    a = rng.normal(size=(4, size)).astype(np.float32)
    head = SOLVERS["adamw"](samples.features, samples.target, weight, None, **vars(RNS(steps=1)))
    inside = type(head)(a @ part.features, head.bias)
    found = span_coefficients(inside, part, ridge=1e-6)
    np.testing.assert_allclose(found @ part.features, inside.weight, atol=1e-3)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), solver=st.sampled_from(sorted(SOLVERS)))
def test_the_order_of_rows_and_classes_does_not_matter(seed, solver):
    query, memory, vocabulary = world(seed)
    rng = np.random.default_rng(seed)
    rows, order = rng.permutation(len(ROWS)), rng.permutation(4)
    shuffled = SupportMemory.from_prototypes(
        memory.vectors[rows], memory.class_names[rows], memory.image_ids[rows]
    )
    moved = Vocabulary([NAMES[c] for c in order], vocabulary.text, np.argsort(order))
    start = kaiming_uniform(4, D, seed=1)
    method = RNS(solver=solver, steps=50, mu=4e-2)
    before = np.asarray(method.predict(query, memory, vocabulary, initial_weight=start))
    after = np.asarray(method.predict(query, shuffled, moved, initial_weight=start[order]))
    np.testing.assert_allclose(after, before[:, order], atol=5e-3)
    np.testing.assert_allclose(before.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_two_classes_with_several_names_background_not_first(solver):
    _, query, memory, v = golden(next(p for p in GOLDEN if p.stem == "rns_full"))
    method = RNS(solver=solver)
    once = np.asarray(method.predict(query, memory, v)).argmax(1)
    owner = np.concatenate([v.owner, [3, 3, 11]])  # classes 3 and 11 say the same thing again
    again = np.asarray(method.predict(query, memory, Vocabulary(v.names, v.text[owner], owner)))
    assert again.shape == (len(query), len(v))
    assert (again.argmax(1) == once).mean() > 0.95


@pytest.mark.parametrize("solver", sorted(SOLVERS))
@pytest.mark.parametrize("support", [("bus", "sky"), ("bus", "background", "sky", "tree")])
def test_each_name_of_a_class_draws_the_patches_that_look_like_it(solver, support):
    rng = np.random.default_rng(0)
    owner = np.array([3, 1, 0, 1, 2, 3])  # tree and background have two names, at right angles
    text = np.linalg.qr(rng.normal(size=(32, 6)))[0].T
    patches = unit(np.repeat(text, 5, 0) + 0.05 * rng.normal(size=(30, 32)))
    first = [int(np.flatnonzero(owner == NAMES.index(name))[0]) for name in support]
    memory = SupportMemory.from_prototypes(patches[5 * np.array(first)], support, ["a"] * len(support))
    vocabulary, start = Vocabulary(NAMES, text, owner), np.zeros((4, 32))
    answer = np.asarray(RNS(solver=solver).predict(patches, memory, vocabulary, initial_weight=start))
    assert answer.argmax(1).tolist() == np.repeat(owner, 5).tolist()


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_missing_text_or_support_never_raises(solver):
    query, memory, vocabulary = world()
    foreign = SupportMemory.from_prototypes(np.eye(D)[:1], ["car"], ["a"])
    method = RNS(k=50, solver=solver, steps=30)  # more neighbours than rows
    for v in (vocabulary, vocabulary.without_text(["sky", "tree"]), Vocabulary(NAMES)):
        np.testing.assert_allclose(np.asarray(method.predict(query, memory, v)).sum(1), 1, atol=1e-5)
    for m in (None, SupportMemory(D), foreign):
        prediction = method.predict(query, m, vocabulary)  # pseudo-labels alone
        np.testing.assert_allclose(np.asarray(prediction).sum(1), 1, atol=1e-5)
        assert prediction.evidence is None
        with pytest.raises(ValueError, match="no prototype of its classes: bus, background"):
            method.predict(query, m, Vocabulary(NAMES))


def test_pseudo_labels_alone_follow_zero_shot():
    z, query, _, vocabulary = golden(next(p for p in GOLDEN if p.stem == "rns_full"))
    answer = np.asarray(RNS(solver="lbfgs").predict(query, None, vocabulary)).argmax(1)
    assert (answer == z["zero_shot"].argmax(1)).mean() > 0.8


def test_the_seed_decides_and_nothing_else():
    query, memory, vocabulary = world()
    answers = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(answers))
        before = torch.get_rng_state()
        method = RNS(solver="adamw", steps=30, seed=seed)
        answers.append(np.asarray(method.predict(query, memory, vocabulary)))
        assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(answers[0], answers[1])
    assert np.abs(answers[0] - answers[2]).max() > 1e-3
    bound = np.sqrt(6 / D)
    start = kaiming_uniform(500, D, 0)
    assert bound * 0.99 < np.abs(start).max() <= bound


def test_bad_options_are_refused():
    query, memory, vocabulary = world()
    with pytest.raises(ValueError, match=r"unknown solver 'sgd'\. Known: adamw, lbfgs"):
        RNS(solver="sgd")
    with pytest.raises(ValueError, match=r"tolerance must be in \[0, 1\), got 1"):
        RNS(tolerance=1)
    for name in ("k", "steps", "tau", "lr", "mu"):
        with pytest.raises(ValueError, match=f"{name} must be positive, got 0"):
            RNS(**{name: 0})
    with pytest.raises(ValueError, match=r"initial_weight has shape \(3, 12\), but the head is \(4, 12\)"):
        RNS().predict(query, memory, vocabulary, initial_weight=np.zeros((3, D)))
