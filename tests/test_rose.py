"""The trainable ROSE: its forward pass, its retrieval, what it must not know, how it is stored."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from rose_kit import SupportMemory, Vocabulary, load_encoder, unit
from rose_kit.model import FUSIONS, ROSE, FrozenEncoder, MemoryRetriever, MultiScale, RoseMethod
from rose_kit.model.anchors import MOST, Anchors, best_of, ingredients
from rose_kit.model.decoder import Decoder
from rose_kit.model.pyramid import level_grids, pyramid
from rose_kit.model.retriever import class_prototypes
from rose_kit.model.rose import WEIGHTS
from rose_kit.types import FeatureMap

DIM, K = 16, 3
RETRIEVING = [name for name in FUSIONS if name != "none"]


class Flat:
    """An encoder whose pictures are features already."""

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


def picture(seed=1, grid=(5, 4)):
    return np.random.default_rng(seed).normal(size=(*grid, DIM)).astype(np.float32)


def test_the_retriever_finds_what_a_sort_finds():
    memory, z = make_memory(), torch.from_numpy(vectors(10, 1)).reshape(2, 5, DIM)
    found = MemoryRetriever(memory, K)(z)
    cosines = z.numpy() @ memory.vectors.T  # (2, 5, 12)
    order = np.argsort(-cosines, axis=-1)[..., :K]
    np.testing.assert_array_equal(found.ids, memory.ids[order])
    np.testing.assert_allclose(found.values, memory.vectors[order], atol=1e-6)
    np.testing.assert_allclose(found.scores, np.take_along_axis(cosines, order, -1), atol=1e-5)
    assert (found.class_names == memory.class_names[order]).all() and found.valid.all()
    expected = [[memory.class_prototypes(row) for row in names] for names in found.class_names.tolist()]
    np.testing.assert_allclose(found.class_values, expected, atol=1e-6)


def test_each_picture_excludes_its_own_image():
    memory = make_memory()
    z = torch.from_numpy(memory.vectors[:2][:, None].copy())  # each query is a row of im0
    plain, apart = MemoryRetriever(memory, 1)(z), MemoryRetriever(memory, 1)(z, ["im0", None])
    assert plain.ids.ravel().tolist() == [0, 1]  # without exclusion a row finds itself
    assert apart.ids[1, 0, 0] == 1 and memory.lookup(apart.ids[0, 0]).image_ids[0] != "im0"
    with pytest.raises(ValueError, match="1 images for a batch of 2"):
        MemoryRetriever(memory, 1)(z, ["im0"])


@pytest.mark.parametrize("fusion", RETRIEVING)
def test_an_excluded_image_leaves_no_trace_in_the_output(fusion):
    """Whatever the rows of the excluded image are, the output is the same; without exclusion it is not."""
    one, x = make_memory(), picture()
    changed = one.vectors.copy()
    changed[one.image_ids == "im0"] = unit(x[0, :3])  # rows made of the query's own patches
    other = SupportMemory.from_prototypes(changed, one.class_names, one.image_ids)
    with torch.no_grad():
        apart = [make_model(fusion, memory)([x], ["im0"]) for memory in (one, other)]
        leaking = [make_model(fusion, memory)([x]) for memory in (one, other)]
    torch.testing.assert_close(*apart, atol=1e-5, rtol=0)
    assert (leaking[0] - leaking[1]).abs().max() > 1e-2


def test_prototypes_without_an_image_are_those_of_a_memory_without_it():
    memory = make_memory()
    rest = make_memory()
    rest.remove(image_id="im1")
    names = ["dog", "sky", "cat"]
    np.testing.assert_allclose(
        class_prototypes(memory, names, "im1"), rest.class_prototypes(names), atol=1e-6
    )
    alone = SupportMemory.from_prototypes(vectors(1), ["sky"], ["only"])
    assert np.isnan(class_prototypes(alone, ["sky"], "only")).all()


def test_rows_that_run_out_are_marked():
    found = MemoryRetriever(make_memory(2), K)(torch.from_numpy(vectors(4))[None])
    assert found.valid.tolist() == [[[True, True, False]] * 4]
    assert not found.values[..., 2, :].any() and (found.class_names[..., 2] == "").all()
    nothing = MemoryRetriever(None, K)(torch.from_numpy(vectors(4))[None])
    assert not nothing.valid.any() and not nothing.class_values.any()
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        MemoryRetriever(None, 0)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_forward_pass_is_the_articles_and_batches(fusion):
    model, batch = make_model(fusion, make_memory()), [picture(1), picture(2)]
    with torch.no_grad():
        y = model(batch)
        z, grid = model.encoder(batch)
        steps = model.decoder(model.fusion(z, model.retriever(z)), grid)
        single = torch.cat([model([x]) for x in batch])
    assert y.shape == (2, 5, 4, DIM)
    torch.testing.assert_close(y.norm(dim=-1), torch.ones(2, 5, 4))
    torch.testing.assert_close(y, steps)
    torch.testing.assert_close(y, single, atol=1e-5, rtol=0)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_without_memory_every_fusion_is_the_query_itself(fusion):
    model = make_model(fusion, None)
    z, _ = model.encoder([picture()])
    torch.testing.assert_close(model.fusion(z, model.retriever(z)), z)


@pytest.mark.parametrize("fusion", RETRIEVING)
def test_fusions_weigh_rows_alike_in_any_order(fusion):
    """Rows are a set: their order must not matter, and rows that are not valid must not either."""
    model = make_model(fusion, make_memory())
    z, _ = model.encoder([picture()])
    found = model.retriever(z)
    turned = {name: getattr(found, name).flip(2) for name in ("values", "scores", "valid", "class_values")}
    flipped = replace(found, **turned)
    torch.testing.assert_close(model.fusion.weights(z, found), model.fusion.weights(z, flipped).flip(2))
    found.valid[..., -1] = False
    kept = model.fusion(z, found)
    found.values[..., -1, :] = 7.0
    torch.testing.assert_close(model.fusion.weights(z, found)[..., -1], torch.zeros(z.shape[:2]))
    torch.testing.assert_close(model.fusion(z, found), kept)


def test_similarity_aggregation_is_the_sum_it_says():
    model = make_model("similarity", make_memory())
    z, _ = model.encoder([picture()])
    found = model.retriever(z)
    w = np.exp(np.exp(3.0) * found.scores.numpy())
    w /= w.sum(-1, keepdims=True)
    np.testing.assert_allclose(model.fusion.weights(z, found).detach(), w, atol=1e-5)


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


def test_scales_and_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"begin with 1, got \(2, 4\)"):
        FrozenEncoder(Flat(), (2, 4))
    with pytest.raises(ValueError, match="one size"):
        FrozenEncoder(Flat())([picture(grid=(3, 3)), picture(grid=(4, 4))])


@pytest.mark.parametrize("fusion", FUSIONS)
def test_no_parameter_knows_how_many_classes_there_are(fusion):
    """One model answers any vocabulary; its answers follow the classes when they change places."""
    model, memory = make_model(fusion, make_memory()), make_memory()
    shapes = {name: p.shape for name, p in model.named_parameters()}
    names = ("sky", "bus", "dog", "cat", "cup")
    v = Vocabulary(names, vectors(5, 3))
    order = [3, 1, 4, 0, 2]
    p = np.asarray(RoseMethod(model).predict(Flat().encode_image(picture()), memory, v))
    q = np.asarray(RoseMethod(model).predict(
        Flat().encode_image(picture()), memory, Vocabulary([names[i] for i in order], v.text[order])
    ))  # fmt: skip
    assert p.shape == (20, 5)
    np.testing.assert_allclose(p[:, order], q, atol=1e-5)
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-5)
    assert shapes == {name: p.shape for name, p in model.named_parameters()}


def test_scores_are_cosines_to_the_nearest_anchor():
    memory = make_memory()
    model, v = make_model(memory=memory), Vocabulary(["sky", "dog", "cat"], vectors(3, 3))
    with torch.no_grad():
        y = model([picture()])
        scores = model.scores(y, v)
    share = np.exp([-1.0, 0, 0]) / np.exp([-1.0, 0, 0]).sum()  # of text, prototype and row, in a fresh model
    for c, name in enumerate(v.names[:2]):
        rows = memory.vectors[memory.class_names == name]
        anchors = unit(share[0] * v.text[c] + share[1] * memory.class_prototypes([name]) + share[2] * rows)
        np.testing.assert_allclose(scores[0, ..., c], (y[0].numpy() @ anchors.T).max(-1), atol=1e-5)
    np.testing.assert_allclose(scores[0, ..., 2], y[0].numpy() @ v.text[2], atol=1e-5)  # no row: text alone


def best(vocabulary, memory, **more):
    """(C, D) cosines of the unit vectors with the best anchor of each class."""
    anchors, owner = Anchors().of(vocabulary, memory, **more)
    return best_of(torch.eye(DIM) @ anchors.detach().T, owner, len(vocabulary)).T.numpy()


def test_anchors_cope_with_what_is_missing():
    text, memory = vectors(3, 3), make_memory(3)  # one row of each class
    text[1] = np.nan
    cosines = best(Vocabulary(["cat", "bus", "cup"], text), memory)
    np.testing.assert_allclose(cosines[0], text[0], atol=1e-6)  # text alone: no row of it
    np.testing.assert_allclose(cosines[1], memory.class_prototypes(["bus"])[0], atol=1e-6)  # rows alone
    plural = Vocabulary(["bus", "ufo"], vectors(2, 4), [0, 0])
    assert Anchors().of(plural, make_memory())[1].tolist() == [0] * 8  # two texts with each of four rows
    assert np.isneginf(best(plural, memory)[1]).all()  # nothing is known of it
    with pytest.raises(ValueError, match="neither|no prototype"):
        Anchors().of(Vocabulary(["cat"]), memory)
    with pytest.raises(ValueError, match="text is 3 wide, the memory 16"):
        Anchors().of(Vocabulary(["bus"], unit(np.ones((1, 3)))), memory)


def test_anchors_without_an_image_are_those_of_a_memory_without_it():
    rest, v = make_memory(), Vocabulary(["sky", "dog", "cat"], vectors(3, 3))
    rest.remove(image_id="im1")
    np.testing.assert_allclose(
        best(v, make_memory(), exclude_image="im1"), best(v, rest), atol=1e-6
    )  # and it would show:
    assert np.abs(best(v, make_memory()) - best(v, rest)).max() > 1e-3


def test_of_many_rows_only_some_become_anchors():
    memory = SupportMemory.from_prototypes(vectors(100), ["sky"] * 100, [f"im{i}" for i in range(100)])
    parts, owner = ingredients(Vocabulary(["sky"]), memory)
    assert len(owner) == MOST and len({row.tobytes() for row in parts[:, 2]}) == MOST
    np.testing.assert_array_equal(parts[[0, -1], 2], memory.vectors[[0, -1]])


def test_a_class_added_to_memory_changes_answers_and_no_weight():
    model, memory = make_model(memory=None), make_memory()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    v = Vocabulary(["sky", "bus", "dog", "ufo"])  # no text at all: memory must do
    x = picture()
    first = np.asarray(RoseMethod(model).predict(Flat().encode_image(x), memory, v))
    memory.add("new", FeatureMap(unit(x), 1, (5, 4), (5, 4)), np.ones((5, 4), int), {1: "ufo"})
    second = np.asarray(RoseMethod(model).predict(Flat().encode_image(x), memory, v))
    assert not first[:, 3].any() and second[:, 3].mean() > 0.25
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_model_comes_back_from_its_folder(fusion, tmp_path):
    memory = make_memory()
    model = make_model(fusion, memory, seed=3)
    model.save(tmp_path / "m", seed=3)
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["rose.json", "rose.safetensors"]
    back = ROSE.load(tmp_path / "m", Flat(), memory)
    with torch.no_grad():
        torch.testing.assert_close(back([picture()]), model([picture()]))


def test_damaged_and_foreign_models_are_refused(tmp_path):
    make_model().save(tmp_path)
    foreign = Flat()
    foreign.fingerprint = "other"
    with pytest.raises(ValueError, match="trained on 'flat', the encoder is 'other'"):
        ROSE.load(tmp_path, foreign)
    whole = (tmp_path / "rose.safetensors").read_bytes()
    (tmp_path / "rose.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cannot read the model"):
        ROSE.load(tmp_path, Flat())
    (tmp_path / "rose.safetensors").write_bytes(whole)
    (tmp_path / "rose.json").write_text("[1")
    with pytest.raises(ValueError, match="cannot read the model"):
        ROSE.load(tmp_path, Flat())
    with pytest.raises(ValueError, match="Identity is not in FUSIONS"):
        make_model(torch.nn.Identity()).save(tmp_path / "own")


def test_a_foreign_memory_and_an_unknown_fusion_are_refused():
    memory = SupportMemory.from_prototypes(vectors(2), ["a", "b"], ["x", "y"], fingerprint="other")
    with pytest.raises(ValueError, match="'other'.*'flat'"):
        make_model(memory=memory)
    with pytest.raises(ValueError, match="unknown fusion 'similarty', did you mean 'similarity'"):
        make_model("similarty")


def test_regions_are_refused():
    with pytest.raises(ValueError, match="patches of a picture in their grid"):
        RoseMethod(make_model()).predict(vectors(4), make_memory(), Vocabulary(["sky"]))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_heads_that_come_with_the_kit_belong_to_its_encoder(fusion):
    encoder = load_encoder("bundled")
    model = ROSE.load(fusion, encoder)
    fresh = ROSE(model.encoder, model.retriever, fusion).state_dict()
    assert any(not torch.equal(value, fresh[name]) for name, value in model.state_dict().items())
    features = encoder.encode_image(np.full((32, 32, 3), 128, np.uint8))
    probabilities = model.probabilities([features], Vocabulary.encode(["sky", "drone"], encoder))
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
    assert sum(p.stat().st_size for p in WEIGHTS.rglob("*")) < 1_000_000
