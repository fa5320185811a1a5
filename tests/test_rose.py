"""The trainable ROSE: retrieval, fusions and anchors against slow twins, threads, folders, refusals."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rose_kit import FeatureMap, SupportMemory, Vocabulary, unit
from rose_kit.model import FUSIONS, ROSE, FrozenEncoder, MemoryRetriever, RoseMethod
from rose_kit.model.anchors import anchor_inputs
from rose_kit.model.pyramid import MultiScale, pyramid

DIM, K = 16, 3


class Flat:
    """An encoder whose images are features already."""

    dim, fingerprint, patch_size = DIM, "flat", 1

    def encode_image(self, image, windows=None):
        return FeatureMap(unit(image), 1, image.shape[:2], image.shape[:2])


def vectors(count, seed=0, dim=DIM):
    return unit(np.random.default_rng(seed).normal(size=(count, dim)))


def make_memory(count=12, seed=0, dim=DIM):
    names = [("sky", "bus", "dog")[i % 3] for i in range(count)]
    images = [f"im{i // 3}" for i in range(count)]
    return SupportMemory.from_prototypes(vectors(count, seed, dim), names, images)


def make_model(fusion="similarity", memory=None, seed=0):
    torch.manual_seed(seed)
    return ROSE(FrozenEncoder(Flat()), MemoryRetriever(memory, K), fusion).eval()


def image(seed=1, grid=(5, 4)):
    return np.random.default_rng(seed).normal(size=(*grid, DIM)).astype(np.float32)


def answer(model, memory, vocabulary, seed=1):
    return np.asarray(RoseMethod(model).predict(Flat().encode_image(image(seed)), memory, vocabulary))


# --- retrieval and fusions ----------------------------------------------------------------------------------


def test_the_retriever_finds_what_a_sort_finds():
    memory, z = make_memory(), torch.from_numpy(vectors(10, 1)).reshape(2, 5, DIM)
    found = MemoryRetriever(memory, K)(z)
    cosines = z.numpy() @ memory.vectors.T  # (2, 5, 12)
    order = np.argsort(-cosines, axis=-1)[..., :K]
    np.testing.assert_array_equal(found.ids, memory.ids[order])
    np.testing.assert_allclose(found.values, memory.vectors[order], atol=1e-6)
    np.testing.assert_allclose(found.scores, np.take_along_axis(cosines, order, -1), atol=1e-5)
    expected = [[memory.class_prototypes(row) for row in rows] for rows in memory.class_names[order]]
    np.testing.assert_allclose(found.class_values, expected, atol=1e-6)
    assert found.valid.all()
    few = MemoryRetriever(make_memory(2), K)(z)
    assert (few.valid == torch.tensor([True, True, False])).all() and (few.ids[..., 2] == -1).all()
    assert not few.values[..., 2, :].any()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_batch_is_answered_as_its_images_are_and_without_memory_a_fusion_is_the_query(fusion):
    model, batch = make_model(fusion, make_memory()), [image(1), image(2)]
    with torch.no_grad():
        single = torch.cat([model([x]) for x in batch])
        torch.testing.assert_close(model(batch), single, atol=1e-5, rtol=0)
        z, _ = model.encoder(batch)
        torch.testing.assert_close(model.fusion(z, MemoryRetriever(None, K)(z)), z)


@pytest.mark.parametrize("fusion", [name for name in FUSIONS if name != "none"])
def test_fusions_weigh_rows_alike_in_any_order_and_learn(fusion):
    """Rows are a set: neither their order nor rows that are not valid matter; every parameter learns."""
    model = make_model(fusion, make_memory())
    z, _ = model.encoder([image()])
    found = model.retriever(z)
    turned = {name: getattr(found, name).flip(2) for name in ("values", "scores", "valid", "class_values")}
    flipped = replace(found, **turned)
    torch.testing.assert_close(model.fusion.weights(z, found), model.fusion.weights(z, flipped).flip(2))
    found.valid[..., -1] = False
    before = model.fusion(z, found)
    found.values[..., -1, :] = 7.0
    torch.testing.assert_close(model.fusion.weights(z, found)[..., -1], torch.zeros(z.shape[:2]))
    torch.testing.assert_close(model.fusion(z, found), before)
    before.square().sum().backward()
    gradients = {name: p.grad for name, p in model.fusion.named_parameters()}
    assert all(g is not None and g.isfinite().all() for g in gradients.values())
    assert gradients["log_inv_temperature"] != 0 and gradients["gate.0.weight"].any()


def test_similarity_aggregation_is_the_sum_it_says():
    model = make_model("similarity", make_memory())
    z, _ = model.encoder([image()])
    found = model.retriever(z)
    for n, query in enumerate(z[0].numpy()):
        cosines = [float(row @ query) for row in found.values[0, n].numpy()]
        w = np.exp(np.exp(3.0) * np.array(cosines))
        w /= w.sum()
        blend = sum(w[i] * (found.values[0, n, i] + found.class_values[0, n, i]) for i in range(K))
        statistics = torch.tensor([max(cosines), w @ cosines, w @ w], dtype=torch.float32)
        expected = z[0, n] + 2 * model.fusion.gate(statistics).sigmoid() * blend
        torch.testing.assert_close(
            model.fusion(z, found)[0, n], expected, atol=1e-4, rtol=0, check_dtype=False
        )


# --- scales and anchors -------------------------------------------------------------------------------------


def test_the_coarse_scale_is_a_mean_and_is_added_by_its_share():
    values = torch.from_numpy(unit(np.random.default_rng(0).normal(size=(1, 2, 3, DIM))))
    z = pyramid(values, (1, 2))  # (1, 6 + 2, D): the last square stands over the edge
    means = [values[0, :, :2].mean((0, 1)), values[0, :, 2:].mean((0, 1))]
    torch.testing.assert_close(z[0, 6:], F.normalize(torch.stack(means), dim=-1))
    z[:, 7] = z[:, 6]  # two squares that are alike stay so when they are enlarged
    fused = MultiScale((1, 2))(z, (2, 3))  # a fresh share is one half
    torch.testing.assert_close(fused, z[:, :6] + 0.5 * z[:, 6:7])


def test_scores_are_cosines_to_the_nearest_anchor():
    """Skies have two texts and rows, dogs rows alone, cats a text alone, and nothing is known of ufos."""
    memory, text = make_memory(), vectors(4, 3)
    text[2] = np.nan
    model, v = make_model(memory=memory), Vocabulary(["sky", "dog", "cat", "ufo"], text, [0, 0, 1, 2])
    y = torch.from_numpy(vectors(6, 4))
    scores = model.scores(y, v, memory).detach().numpy()
    share = np.exp([-1.0, 0, 0]) / np.exp([-1.0, 0, 0]).sum()  # of text, prototype and row, in a fresh model
    rows = {name: memory.vectors[memory.class_names == name] for name in v.names}
    prototypes = memory.class_prototypes(v.names)
    mixed = [share[0] * one + share[1] * prototypes[0] + share[2] * rows["sky"] for one in text[:2]]
    for c, anchors in enumerate((np.concatenate(mixed), prototypes[1] + rows["dog"], text[3:])):
        np.testing.assert_allclose(scores[:, c], (y.numpy() @ unit(anchors).T).max(-1), atol=1e-5)
    assert np.isneginf(scores[:, 3]).all()


# --- trained heads ------------------------------------------------------------------------------------------


def test_a_class_added_to_memory_changes_answers_and_no_weight():
    model, memory, x = make_model(), make_memory(), image()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    v = Vocabulary(["sky", "bus", "dog", "ufo"])  # no text at all: memory must do
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
    "none": (0.481, 0.390, 0.129),
    "similarity": (0.645, 0.332, 0.023),
    "cross-attention": (0.567, 0.404, 0.029),
    "transformer": (0.013, 0.023, 0.964),
}


@pytest.mark.parametrize(("fusion", "recorded"), RECORDED.items())
def test_bundled_heads_give_what_was_recorded_and_come_back_from_a_folder(fusion, recorded, tmp_path):
    head = ROSE.load(fusion)
    dim = head.encoder.encoder.dim
    x = FeatureMap(vectors(20, 1, dim).reshape(5, 4, dim), 1, (5, 4), (5, 4))
    asked = x, make_memory(dim=dim), Vocabulary(["sky", "bus", "dog"], vectors(3, 3, dim))
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
    (lambda p: ROSE.load(p / "gone", Flat()), "gone"),
    (lambda p: ROSE.load(damaged(p, "rose.safetensors", b"half"), Flat()), "SafetensorError"),
    (lambda p: ROSE.load(damaged(p, "rose.json", b"[1"), Flat()), "JSONDecodeError"),
    (lambda p: ROSE.load("similarity", Flat()), "'flat'"),
    (lambda p: make_model(memory=OTHER), "'other'.*'flat'"),
    (lambda p: answer(make_model(), OTHER, Vocabulary(["a"])), "other"),
    (lambda p: MemoryRetriever(None, 0), "got 0"),
    (lambda p: MemoryRetriever(None)(torch.zeros(2, 1, DIM), ["im0"]), "1 images for a batch of 2"),
    (lambda p: FrozenEncoder(Flat(), (2, 4)), r"\(2, 4\)"),
    (lambda p: FrozenEncoder(Flat())([image(grid=(3, 3)), image(grid=(4, 4))]), r"\(4, 4\)"),
    (lambda p: RoseMethod(make_model()).predict(vectors(4), None, Vocabulary(["sky"])), "grid"),
    (lambda p: anchor_inputs(Vocabulary(["cat"]), make_memory()), "cat"),
    (lambda p: anchor_inputs(Vocabulary(["bus"], unit(np.ones((1, 3)))), make_memory()), "3 wide.* 16"),
]


@pytest.mark.parametrize(("call", "said"), REFUSED)
def test_what_does_not_fit_is_refused(call, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        call(tmp_path)
