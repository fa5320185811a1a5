"""The trainable ROSE: retrieval, fusions and anchors against slow twins, threads, folders, refusals."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rose_kit import FeatureMap, SupportMemory, Vocabulary, unit
from rose_kit.memory import Prototypes
from rose_kit.model import ROSE, RoseMethod, methods
from rose_kit.model.decoder import Anchors, MultiScale, pyramid
from rose_kit.model.fusion import Neighbours, nearest_rows
from rose_kit.registry import fusions

DIM, K = 16, 3
KNOWN = Vocabulary(["sky", "bus", "dog"])


class Flat:
    """An encoder whose images are features already."""

    dim, fingerprint, patch_size = DIM, "flat", 1

    def encode_image(self, image, windows=None):
        return FeatureMap(unit(image), 1, image.shape[:2], image.shape[:2])


def vectors(count, seed=0, dim=DIM):
    return unit(np.random.default_rng(seed).normal(size=(count, dim)))


def make_memory(count=12, seed=0, dim=DIM):
    names = [KNOWN.names[i % 3] for i in range(count)]
    images = [f"im{i // 3}" for i in range(count)]
    return SupportMemory.from_prototypes(vectors(count, seed, dim), names, images)


def make_model(fusion="similarity", seed=0):
    torch.manual_seed(seed)
    return ROSE(DIM, "flat", fusion, K).eval()


def image(seed=1, grid=(5, 4)):
    return np.random.default_rng(seed).normal(size=(*grid, DIM)).astype(np.float32)


def answer(model, memory, vocabulary, seed=1, **options):
    x = Flat().encode_image(image(seed))
    return np.asarray(RoseMethod(model, **options).predict(x, memory, vocabulary))


Z = torch.from_numpy(vectors(10, 1))  # queries


# --- retrieval and fusions ----------------------------------------------------------------------------------


def test_the_nearest_rows_are_those_that_a_sort_finds_among_the_classes():
    memory, names = make_memory(), ("dog", "ufo", "sky")
    rows = np.flatnonzero(np.isin(memory.class_names, names))
    cosines = Z.numpy() @ memory.vectors[rows].T  # (10, R)
    order = np.argsort(-cosines, axis=-1)[:, :K]
    nearest = nearest_rows(Z, memory, Vocabulary(names), K)
    np.testing.assert_allclose(nearest.values, memory.vectors[rows[order]], atol=1e-6)
    np.testing.assert_allclose(nearest.scores, np.take_along_axis(cosines, order, -1), atol=1e-5)
    expected = [memory.class_prototypes(classes) for classes in memory.class_names[rows[order]]]
    np.testing.assert_allclose(nearest.class_values, expected, atol=1e-6)
    assert nearest.valid.all()


@pytest.mark.parametrize("fusion", fusions)
@pytest.mark.parametrize("rows", [0, 2])
def test_rows_that_a_memory_lacks_are_zeros_and_without_any_a_fusion_is_the_query(fusion, rows):
    nearest = nearest_rows(Z, make_memory(rows) if rows else SupportMemory(DIM), KNOWN, K)
    assert (nearest.valid == torch.arange(K).lt(rows)).all()
    assert not any(getattr(nearest, one.name)[:, rows:].any() for one in fields(nearest))
    enriched = make_model(fusion).fusion(Z, nearest)
    assert enriched.isfinite().all() and torch.equal(enriched, Z) == (not rows or fusion == "none")


@pytest.mark.parametrize("fusion", [name for name in fusions if name != "none"])
def test_fusions_weigh_rows_alike_in_any_order_and_learn(fusion):
    """Rows are a set: neither their order nor rows that are not valid matter; every parameter learns."""
    nearest, module = nearest_rows(Z, make_memory(), KNOWN, K), make_model(fusion).fusion
    flipped = Neighbours(*(getattr(nearest, one.name).flip(1) for one in fields(nearest)))
    torch.testing.assert_close(module.weights(Z, nearest), module.weights(Z, flipped).flip(1))
    nearest.valid[:, -1] = False
    before = module(Z, nearest)
    nearest.values[:, -1] = 7.0
    torch.testing.assert_close(module.weights(Z, nearest)[:, -1], torch.zeros(len(Z)))
    torch.testing.assert_close(module(Z, nearest), before)
    before.square().sum().backward()
    gradients = {name: p.grad for name, p in module.named_parameters()}
    assert all(g is not None and g.isfinite().all() for g in gradients.values())
    assert gradients["log_inv_temperature"] != 0 and gradients["gate.0.weight"].any()


def test_similarity_aggregation_is_the_sum_it_says():
    nearest, module = nearest_rows(Z, make_memory(), KNOWN, K), make_model("similarity").fusion
    for n, query in enumerate(Z.numpy()):
        cosines = [float(row @ query) for row in nearest.values[n].numpy()]
        w = np.exp(np.exp(3.0) * np.array(cosines))
        w /= w.sum()
        blend = sum(w[i] * (nearest.values[n, i] + nearest.class_values[n, i]) for i in range(K))
        statistics = torch.tensor([max(cosines), w @ cosines, w @ w], dtype=torch.float32)
        expected = Z[n] + 2 * module.gate(statistics).sigmoid() * blend
        torch.testing.assert_close(module(Z, nearest)[n], expected, atol=1e-4, rtol=0, check_dtype=False)


# --- scales and anchors -------------------------------------------------------------------------------------


def test_the_coarse_scale_is_a_mean_and_is_added_by_its_share():
    values = torch.from_numpy(unit(np.random.default_rng(0).normal(size=(2, 3, DIM))))
    z = pyramid(values)  # (6 + 2, D): the last square stands over the edge
    means = [values[:, :2].mean((0, 1)), values[:, 2:].mean((0, 1))]
    torch.testing.assert_close(z[6:], F.normalize(torch.stack(means), dim=-1))
    z[7] = z[6]  # two squares that are alike stay so when they are enlarged
    fused = MultiScale()(z, (2, 3))  # a fresh share is one half
    torch.testing.assert_close(fused, z[:6] + 0.5 * z[6])


def test_logits_are_cosines_to_the_nearest_anchor_over_the_temperature():
    """Skies have two texts and rows, dogs rows alone, cats a text alone, and nothing is known of ufos."""
    memory, text = make_memory(), vectors(4, 3)
    text[2] = np.nan
    v = Vocabulary(["sky", "dog", "cat", "ufo"], text, [0, 0, 1, 2])
    y = torch.from_numpy(vectors(6, 4))
    cosines = make_model().logits(y, v, memory).detach().numpy() / np.exp(3.0)
    share = np.exp([-1.0, 0, 0]) / np.exp([-1.0, 0, 0]).sum()  # of text, prototype and row, in a fresh model
    rows = {name: memory.vectors[memory.class_names == name] for name in v.names}
    prototypes = memory.class_prototypes(v.names)
    mixed = [share[0] * one + share[1] * prototypes[0] + share[2] * rows["sky"] for one in text[:2]]
    for c, anchors in enumerate((np.concatenate(mixed), prototypes[1] + rows["dog"], text[3:])):
        np.testing.assert_allclose(cosines[:, c], (y.numpy() @ unit(anchors).T).max(-1), atol=1e-5)
    assert np.isneginf(cosines[:, 3]).all()


# --- trained heads ------------------------------------------------------------------------------------------


def test_where_and_use_memory_decide_which_rows_are_used():
    """With `where`, an answer is that of a memory of these rows alone: as neighbours and as anchors."""
    model, memory, both = make_model(), make_memory(), SupportMemory(DIM)
    columns = memory.ids, memory.vectors, memory.class_names, memory.image_ids
    both.extend(Prototypes.make(*columns, metadata=[{"source": ("web", "user")[i % 2]} for i in range(12)]))
    user = both.subset(both.ids[1::2])
    expected = answer(model, user, KNOWN)
    np.testing.assert_array_equal(answer(model, both, KNOWN, where={"source": "user"}), expected)
    assert np.abs(answer(model, both, KNOWN) - expected).max() > 0.01
    texts = Vocabulary(KNOWN.names, vectors(3, 3))
    blind = answer(model, memory, texts, use_memory=False)
    np.testing.assert_array_equal(blind, answer(model, None, texts))
    np.testing.assert_array_equal(blind, answer(model, memory, texts, where={"source": "nowhere"}))
    assert methods.make("rose", where={"source": "user"}).where == {"source": "user"}


def test_a_class_added_to_memory_changes_answers_and_no_weight():
    model, memory, x = make_model(), make_memory(), image()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    v = Vocabulary([*KNOWN.names, "ufo"])  # no text at all: memory must do
    first = answer(model, memory, v)
    memory.add("new", FeatureMap(unit(x), 1, (5, 4), (5, 4)), np.ones((5, 4), int), {1: "ufo"})
    assert not first[:, 3].any() and answer(model, memory, v)[:, 3].mean() > 0.25
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_threads_share_a_model_and_each_asks_its_own_memory():
    model = make_model()
    memories = [make_memory(seed=s) for s in range(4)]
    vocabularies = [Vocabulary(names) for names in (("sky", "bus"), ("bus", "dog"), ("sky", "dog"), ("dog",))]
    one_by_one = [answer(model, m, v) for m, v in zip(memories, vocabularies, strict=True)]
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(answer, model, memories[i % 4], vocabularies[i % 4]) for i in range(40)]
    for i, job in enumerate(jobs):
        np.testing.assert_array_equal(job.result(), one_by_one[i % 4])


RECORDED = {  # probabilities of the first patch
    "none": (0.457, 0.409, 0.134),
    "similarity": (0.590, 0.376, 0.034),
    "cross-attention": (0.627, 0.342, 0.031),
    "transformer": (0.947, 0.050, 0.003),
}


@pytest.mark.parametrize(("fusion", "recorded"), RECORDED.items())
def test_bundled_heads_give_what_was_recorded_and_come_back_from_a_folder(fusion, recorded, tmp_path):
    head = ROSE.load(fusion)
    dim = head.dim
    x = FeatureMap(vectors(20, 1, dim).reshape(5, 4, dim), 1, (5, 4), (5, 4))
    asked = x, make_memory(dim=dim), Vocabulary(KNOWN.names, vectors(3, 3, dim))
    p = np.asarray(RoseMethod(head).predict(*asked))
    np.testing.assert_allclose(p[0], recorded, atol=1e-3)
    head.save(tmp_path / "m", seed=3)
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["rose.json", "rose.safetensors"]
    np.testing.assert_array_equal(np.asarray(RoseMethod(ROSE.load(tmp_path / "m")).predict(*asked)), p)


def damaged(tmp_path, name, content):
    make_model().save(tmp_path)
    (tmp_path / name).write_bytes(content)
    return tmp_path


OTHER = SupportMemory.from_prototypes(vectors(2), ["a", "b"], ["x", "y"], fingerprint="other")
REFUSED = [
    (lambda p: ROSE.load(p / "gone"), "gone.*similarity"),
    (lambda p: methods.make("rose", fusion="similarty"), "did you mean 'similarity'"),
    (lambda p: ROSE.load(damaged(p, "rose.safetensors", b"half")), "SafetensorError"),
    (lambda p: ROSE.load(damaged(p, "rose.json", b"[1")), "JSONDecodeError"),
    (lambda p: ROSE.load(damaged(p, "rose.json", b'{"fusion": "none"}')), "KeyError"),
    (lambda p: ROSE(DIM, fusion="similarty"), "did you mean 'similarity'"),
    (lambda p: ROSE(DIM, k=0), "got 0"),
    (lambda p: answer(make_model(), OTHER, Vocabulary(["a"])), "'other'.*'flat'"),
    (lambda p: RoseMethod(make_model()).predict(vectors(4), None, KNOWN), "grid"),
    (lambda p: RoseMethod(ROSE(DIM + 1)).predict(Flat().encode_image(image()), None, KNOWN), "17 wide.* 16"),
    (lambda p: Anchors()(Vocabulary(["cat"]), make_memory()), "cat"),
    (lambda p: Anchors()(Vocabulary(["bus"], unit(np.ones((1, 3)))), make_memory()), "3 wide.* 16"),
]


@pytest.mark.parametrize(("call", "said"), REFUSED)
def test_what_does_not_fit_is_refused(call, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        call(tmp_path)
