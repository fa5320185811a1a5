"""The trainable ROSE: its forward pass, its retrieval, what it must not know, how it is stored."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from rose_kit import FeatureMap, SupportMemory, Vocabulary, load_encoder, unit
from rose_kit.model import FUSIONS, ROSE, FrozenEncoder, MemoryRetriever, RoseMethod
from rose_kit.model.anchors import MAX_ROWS, anchor_inputs
from rose_kit.model.decoder import Decoder
from rose_kit.model.pyramid import MultiScale, level_grids, pyramid
from rose_kit.model.retriever import without_image

DIM, K = 16, 3
RETRIEVING = [name for name in FUSIONS if name != "none"]


class Flat:
    """An encoder whose images are features already."""

    dim, fingerprint, patch_size = DIM, "flat", 1

    def encode_image(self, image, windows=None):
        return FeatureMap(unit(image), 1, image.shape[:2], image.shape[:2])


def vectors(count, seed=0):
    return unit(np.random.default_rng(seed).normal(size=(count, DIM)))


def make_memory(count=12, seed=0):
    names = [("sky", "bus", "dog")[i % 3] for i in range(count)]
    return SupportMemory.from_prototypes(vectors(count, seed), names, [f"im{i // 3}" for i in range(count)])


def make_model(fusion="similarity", memory=None, seed=0):
    torch.manual_seed(seed)
    return ROSE(FrozenEncoder(Flat()), MemoryRetriever(memory, K), fusion).eval()


def image(seed=1, grid=(5, 4)):
    return np.random.default_rng(seed).normal(size=(*grid, DIM)).astype(np.float32)


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


def test_rows_that_run_out_are_marked():
    z = torch.from_numpy(vectors(4))[None]
    found = MemoryRetriever(make_memory(2), K)(z)
    assert found.valid.tolist() == [[[True, True, False]] * 4] and (found.ids[..., 2] == -1).all()
    assert not found.values[..., 2, :].any()
    nothing = MemoryRetriever(None, K)(z)
    assert not nothing.valid.any() and not nothing.class_values.any()


@pytest.mark.parametrize("fusion", RETRIEVING)
def test_an_excluded_image_leaves_no_trace_in_the_output(fusion):
    """Whatever the rows of the excluded image are, the output is the same; without exclusion it is not."""
    one, x = make_memory(), image()
    changed = one.vectors.copy()
    changed[one.image_ids == "im0"] = unit(x[0, :3])  # rows made of the query's own patches
    other = SupportMemory.from_prototypes(changed, one.class_names, one.image_ids)
    with torch.no_grad():
        apart = [make_model(fusion, memory)([x], ["im0"]) for memory in (one, other)]
        leaking = [make_model(fusion, memory)([x]) for memory in (one, other)]
    torch.testing.assert_close(*apart, atol=1e-5, rtol=0)
    assert (leaking[0] - leaking[1]).abs().max() > 1e-2


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_forward_pass_is_the_articles_and_batches(fusion):
    model, batch = make_model(fusion, make_memory()), [image(1), image(2)]
    with torch.no_grad():
        y = model(batch)
        z, grid = model.encoder(batch)
        steps = model.decoder(model.fusion(z, model.retriever(z)), grid)
        single = torch.cat([model([x]) for x in batch])
        blind = model.fusion(z, MemoryRetriever(None, K)(z))
    torch.testing.assert_close(y.norm(dim=-1), torch.ones(2, 5, 4))
    torch.testing.assert_close(y, steps)
    torch.testing.assert_close(y, single, atol=1e-5, rtol=0)
    torch.testing.assert_close(blind, z)  # without memory every fusion is the query itself


@pytest.mark.parametrize("fusion", RETRIEVING)
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


@given(st.tuples(st.integers(1, 7), st.integers(1, 7)), st.sampled_from([(1,), (1, 2), (1, 2, 4)]))
@settings(max_examples=25, deadline=None)
def test_scales_fit_any_grid(grid, scales):
    values = torch.from_numpy(unit(np.random.default_rng(0).normal(size=(1, *grid, DIM))))
    z = pyramid(values, scales)
    assert z.shape == (1, sum(h * w for h, w in level_grids(grid, scales)), DIM)
    torch.testing.assert_close(z[:, : grid[0] * grid[1]], F.normalize(values.flatten(1, 2), dim=-1))
    assert Decoder(DIM, scales)(z, grid).shape == (1, *grid, DIM)


def test_a_coarse_level_is_the_mean_and_is_added_by_its_share():
    values = torch.from_numpy(unit(np.random.default_rng(0).normal(size=(1, 2, 2, DIM))))
    z = pyramid(values, (1, 2))
    torch.testing.assert_close(z[0, 4], F.normalize(values.mean((0, 1, 2)), dim=0))
    fused = MultiScale((1, 2))(z, (2, 2))  # a fresh share is one half
    torch.testing.assert_close(fused, z[:, :4] + 0.5 * z[:, 4:])


def answer(model, memory, vocabulary, seed=1):
    return np.asarray(RoseMethod(model).predict(Flat().encode_image(image(seed)), memory, vocabulary))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_answers_follow_the_classes_when_they_change_places(fusion):
    model, memory, order = make_model(fusion), make_memory(), [3, 1, 4, 0, 2]
    v = Vocabulary(("sky", "bus", "dog", "cat", "cup"), vectors(5, 3))
    p = answer(model, memory, v)
    q = answer(model, memory, Vocabulary([v.names[i] for i in order], v.text[order]))
    np.testing.assert_allclose(p[:, order], q, atol=1e-5)
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-5)


def test_threads_share_a_model_and_each_asks_its_own_memory():
    model = make_model()
    memories = [make_memory(seed=s) for s in range(4)]
    vocabularies = [Vocabulary(names) for names in (("sky", "bus"), ("bus", "dog"), ("sky", "dog"), ("dog",))]
    one_by_one = [answer(model, m, v) for m, v in zip(memories, vocabularies, strict=True)]
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(answer, model, memories[i % 4], vocabularies[i % 4]) for i in range(40)]
    for i, job in enumerate(jobs):
        np.testing.assert_array_equal(job.result(), one_by_one[i % 4])


def test_scores_are_cosines_to_the_nearest_anchor():
    memory, text = make_memory(), vectors(4, 3)
    text[1] = np.nan  # dogs have rows alone, cats a text alone, and nothing is known of ufos
    model, v = make_model(memory=memory), Vocabulary(["sky", "dog", "cat", "ufo"], text[:3], [0, 1, 2])
    y = torch.from_numpy(vectors(6, 4))
    scores = model.scores(y, v, memory).detach().numpy()
    share = np.exp([-1.0, 0, 0]) / np.exp([-1.0, 0, 0]).sum()  # of text, prototype and row, in a fresh model
    rows = {name: memory.vectors[memory.class_names == name] for name in v.names}
    prototypes = memory.class_prototypes(v.names)
    sky = unit(share[0] * text[0] + share[1] * prototypes[0] + share[2] * rows["sky"])
    dog = unit(prototypes[1] + rows["dog"])
    for c, anchors in enumerate((sky, dog, text[2:3])):
        np.testing.assert_allclose(scores[:, c], (y.numpy() @ anchors.T).max(-1), atol=1e-5)
    assert np.isneginf(scores[:, 3]).all()


def test_anchors_are_every_text_with_every_row_but_of_few_rows_and_of_other_images():
    memory = make_memory()
    parts, owner = anchor_inputs(Vocabulary(["bus", "ufo"], vectors(2, 4), [0, 0]), memory)
    assert owner.tolist() == [0] * 8 and parts.shape == (8, 3, DIM)  # two texts with each of four rows
    apart = anchor_inputs(Vocabulary(["sky"]), without_image(memory, "im1"))[0]
    assert not (apart[:, 2, None] == memory.vectors[memory.image_ids == "im1"]).all(-1).any()
    many = SupportMemory.from_prototypes(vectors(100), ["sky"] * 100, [f"im{i}" for i in range(100)])
    parts, owner = anchor_inputs(Vocabulary(["sky"]), many)
    assert len(owner) == MAX_ROWS and len({row.tobytes() for row in parts[:, 2]}) == MAX_ROWS


def test_a_class_added_to_memory_changes_answers_and_no_weight():
    model, memory, x = make_model(), make_memory(), image()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    v = Vocabulary(["sky", "bus", "dog", "ufo"])  # no text at all: memory must do
    first = answer(model, memory, v)
    memory.add("new", FeatureMap(unit(x), 1, (5, 4), (5, 4)), np.ones((5, 4), int), {1: "ufo"})
    assert not first[:, 3].any() and answer(model, memory, v)[:, 3].mean() > 0.25
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("fusion", FUSIONS)
def test_models_come_back_from_their_folders(fusion, tmp_path):
    memory = make_memory()
    model = make_model(fusion, memory, seed=3)
    model.save(tmp_path / "m", seed=3)
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["rose.json", "rose.safetensors"]
    with torch.no_grad():
        torch.testing.assert_close(ROSE.load(tmp_path / "m", Flat(), memory)([image()]), model([image()]))
    bundled = ROSE.load(fusion, load_encoder("bundled"))  # the head that comes with the kit
    fresh = ROSE(bundled.encoder, bundled.retriever, fusion).state_dict()
    assert any(not torch.equal(value, fresh[name]) for name, value in bundled.state_dict().items())


def damaged(tmp_path, name, content):
    make_model().save(tmp_path)
    (tmp_path / name).write_bytes(content)
    return tmp_path


OTHER = SupportMemory.from_prototypes(vectors(2), ["a", "b"], ["x", "y"], fingerprint="other")
Z = torch.zeros(2, 1, DIM)
REFUSED = [
    (lambda p: ROSE.load(p / "gone", Flat()), "gone"),
    (lambda p: ROSE.load(damaged(p, "rose.safetensors", b"half"), Flat()), "cannot read the model"),
    (lambda p: ROSE.load(damaged(p, "rose.json", b"[1"), Flat()), "cannot read the model"),
    (lambda p: ROSE.load("similarity", Flat()), "'flat'"),
    (lambda p: make_model(memory=OTHER), "'other'.*'flat'"),
    (
        lambda p: RoseMethod(make_model()).predict(Flat().encode_image(image()), OTHER, Vocabulary(["a"])),
        "other",
    ),
    (lambda p: make_model("similarty"), "'similarty', did you mean 'similarity'"),
    (lambda p: MemoryRetriever(None, 0), "got 0"),
    (lambda p: MemoryRetriever(None)(Z, ["im0"]), "1 images for a batch of 2"),
    (lambda p: FrozenEncoder(Flat(), (2, 4)), r"\(2, 4\)"),
    (lambda p: FrozenEncoder(Flat())([image(grid=(3, 3)), image(grid=(4, 4))]), r"\(4, 4\)"),
    (lambda p: RoseMethod(make_model()).predict(vectors(4), None, Vocabulary(["sky"])), "grid"),
    (lambda p: anchor_inputs(Vocabulary(["cat"]), None), "cat"),
    (lambda p: anchor_inputs(Vocabulary(["cat"]), make_memory()), "cat"),
    (lambda p: anchor_inputs(Vocabulary(["bus"], unit(np.ones((1, 3)))), make_memory()), "3 wide.* 16"),
]


@pytest.mark.parametrize(("call", "said"), REFUSED)
def test_what_does_not_fit_is_refused(call, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        call(tmp_path)
