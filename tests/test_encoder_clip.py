"""OpenClipEncoder: exact to the released RNS encoder, and careful about what it is given."""

import json
import pickle
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.hf_model import HFTextEncoder
from PIL import Image

from rose_kit.encoder import OpenClipEncoder, Windows
from rose_kit.encoder.base import image_tensor
from rose_kit.pooling import pool_masks
from rose_kit.types import FeatureMap, unit

GOLDEN = Path(__file__).parent / "golden"
TINY = {
    "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 32, "layers": 2, "head_width": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 300, "width": 16, "heads": 2, "layers": 1},
}


def tiny_model(seed=0, **vision):
    """A CLIP of 64 px images, 16 px patches, 2 layers, with weights far from symmetric."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        cfg = {**TINY["vision_cfg"], **vision}
        model = open_clip.CLIP(embed_dim=24, vision_cfg=cfg, text_cfg=TINY["text_cfg"])
        for name, p in model.named_parameters():
            p.data += 0.1 * torch.randn(p.shape) * ("logit" not in name)
    return model


def byte_tokenizer(texts, context_length):
    out = torch.zeros(len(texts), context_length, dtype=torch.long)
    for i, text in enumerate(texts):
        codes = [*text.encode()[: context_length - 1], 299]
        out[i, : len(codes)] = torch.tensor(codes)
    return out


@pytest.fixture(scope="module", params=["gelu", "quickgelu"])
def golden(request):
    z = np.load(GOLDEN / f"maskclip_{request.param}.npz")
    model = open_clip.CLIP(**json.loads(str(z["config"])))
    model.load_state_dict({k[6:]: torch.from_numpy(z[k]) for k in z.files if k.startswith("state/")})
    return z, OpenClipEncoder.from_model(model)


def padded(z):
    image = torch.from_numpy(z["image"])  # (3, H, W)
    return torch.nn.functional.pad(image, (0, -image.shape[2] % 16, 0, -image.shape[1] % 16))[None]


def test_golden_whole(golden):
    z, encoder = golden
    expected = z["features_whole"].transpose(1, 2, 0)  # (h, w, D), not normalised
    with torch.inference_mode():
        raw = encoder.dense(padded(z))[0]
    np.testing.assert_allclose(raw.numpy(), expected, atol=1e-4)
    got = encoder.encode_image(z["image"].transpose(1, 2, 0))
    np.testing.assert_allclose(got.values, unit(expected), atol=1e-4)


def test_golden_sliding_and_prototypes(golden):
    z, encoder = golden
    means = {}
    for crop, stride in ((64, 32), (48, 16)):
        expected = z[f"features_slide{crop}"].transpose(1, 2, 0)  # (h, w, D), not normalised
        with torch.inference_mode():
            means[crop] = encoder.window_mean(padded(z), crop, stride)[0].numpy()
        np.testing.assert_allclose(means[crop], expected, atol=1e-4)
        got = encoder.encode_image(z["image"].transpose(1, 2, 0), Windows(None, (crop,), stride))
        np.testing.assert_allclose(got.values, unit(expected), atol=1e-4)
    size = z["annotation"].shape
    both = FeatureMap(unit(means[64] + means[48]), 16, size, size)
    got, pixels = pool_masks(both, z["annotation"], range(6))
    assert (pixels > 0).all()
    np.testing.assert_allclose(got, z["prototypes"], atol=1e-4)


def test_image_forms_agree():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    encoder = OpenClipEncoder(tiny_model())
    whole = encoder.encode_image(pixels)
    for same in (pixels / 255, Image.fromarray(pixels), Image.fromarray(pixels).convert("RGBA")):
        np.testing.assert_allclose(encoder.encode_image(same).values, whole.values, atol=1e-5)
    fine = np.full((2, 2, 3), 0.5 + 1 / 1024)  # floats are not quantised
    np.testing.assert_allclose(image_tensor(fine).numpy(), fine.transpose(2, 0, 1), atol=1e-7)


@pytest.mark.parametrize("norm", [{}, {"final_ln_after_pool": True, "no_ln_pre": True}])
def test_an_image_of_equal_patches_is_any_one_of_them(norm):
    """With average pooling and no positions, the model's own image embedding is that of each patch."""
    model = tiny_model(pool_type="avg", **norm).eval()
    model.visual.positional_embedding.data.zero_()
    mean, std = (0.2, 0.3, 0.4), (0.5, 0.6, 0.7)  # the model's own, not OpenAI's
    model.visual.image_mean, model.visual.image_std = mean, std
    encoder = OpenClipEncoder(model, dense="plain")
    image = torch.full((1, 3, 64, 64), 0.3)
    with torch.inference_mode():
        patches = encoder.dense(image)[0]
        mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (mean, std))
        pooled = model.encode_image((image - mean) / std)[0]
    torch.testing.assert_close(patches[1, 2], pooled, atol=1e-4, rtol=1e-4)


def test_text_features_by_hand():
    model = tiny_model()
    templates = ("a photo of a {}.", lambda name: f"the {name} itself")
    got = OpenClipEncoder(model, byte_tokenizer, templates=templates).encode_text(["bus", "tram"])
    for row, name in zip(got, ["bus", "tram"], strict=True):
        prompts = [f"a photo of a {name}.", f"the {name} itself"]
        with torch.no_grad():
            each = [model.encode_text(byte_tokenizer([prompt], 16))[0] for prompt in prompts]
        total = sum(e / e.norm() for e in each)
        np.testing.assert_allclose(row, (total / total.norm()).numpy(), atol=1e-5)


def test_a_text_tower_of_transformers_reads_as_many_tokens_as_its_tokenizer_says():
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.RobertaConfig(vocab_size=300, max_position_embeddings=514, **sizes)
    model = open_clip.CustomTextCLIP(24, **TINY).eval()
    model.text = HFTextEncoder("", 24, config, "mean_pooler", "mlp").eval()
    model.context_length = model.text.context_length  # 514, which is more than RoBERTa can read
    tokenizer = partial(byte_tokenizer)
    tokenizer.context_length = 16
    encoder = OpenClipEncoder(model, tokenizer, templates=["{}"])
    with torch.no_grad():
        expected = model.encode_text(byte_tokenizer(["bus"], 16)).numpy()
    np.testing.assert_allclose(encoder.encode_text(["bus"]), unit(expected), atol=1e-5)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty folder for text features."""
    monkeypatch.setenv("ROSE_KIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "text"


def no_text_tower(monkeypatch, model):
    monkeypatch.setattr(model, "encode_text", lambda tokens: pytest.fail("a name was embedded again"))


class Trap:
    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle ran')",)


def broken_files(feature):
    """What may lie where a feature was kept."""
    for array in (np.array([Trap()]), feature[:, None], 2 * feature, feature + np.nan, feature.astype(float)):
        np.save(file := BytesIO(), array, allow_pickle=True)
        yield file.getvalue()
    np.save(file := BytesIO(), feature)
    yield from (file.getvalue()[:-3], b"", b"\x00" * 99, pickle.dumps(Trap()))


def test_a_name_is_embedded_once_whatever_happens_to_the_file(cache, monkeypatch):
    new = partial(OpenClipEncoder, tokenizer=byte_tokenizer, templates=["a {}.", "the {}."])
    expected = new(tiny_model()).encode_text(["bus", "sky", "tram"])
    files = sorted(cache.rglob("*"))
    assert len([path for path in files if path.suffix == ".npy"]) == 3
    model = tiny_model()
    no_text_tower(monkeypatch, model)
    np.testing.assert_array_equal(new(model).encode_text(["tram", "bus"]), expected[[2, 0]])
    [path] = [p for p in files if p.is_file() and np.array_equal(np.load(p), expected[1])]
    for content in broken_files(expected[1]):
        path.write_bytes(content)
        np.testing.assert_array_equal(new(tiny_model()).encode_text(["sky"]), expected[1:2])
        np.testing.assert_array_equal(np.load(path), expected[1])
    assert sorted(cache.rglob("*")) == files


def test_what_changes_a_text_feature_is_part_of_its_key(cache):
    model = tiny_model()
    quick = open_clip.CLIP(24, **TINY, quick_gelu=True)
    quick.load_state_dict(model.state_dict())
    makes = [  # each asks for the same name
        lambda: OpenClipEncoder(model, byte_tokenizer, templates=["a {}."]),
        lambda: OpenClipEncoder(model, byte_tokenizer, templates=["a {}!"]),
        lambda: OpenClipEncoder(model, byte_tokenizer, templates=["a {}.", "the {}."]),
        lambda: OpenClipEncoder(model, byte_tokenizer, templates=["the {}.", "a {}."]),
        lambda: OpenClipEncoder(tiny_model(seed=1), byte_tokenizer, templates=["a {}."]),
        lambda: OpenClipEncoder(quick, byte_tokenizer, templates=["a {}."]),
        lambda: OpenClipEncoder(model, lambda t, n: byte_tokenizer(t, n).flip(1), templates=["a {}."]),
    ]
    cold = [make().encode_text(["omnibus"]) for make in makes]
    warm = [make().encode_text(["omnibus"]) for make in makes]
    np.testing.assert_array_equal(cold, warm)
    assert len([*cache.rglob("*.npy")]) == len(makes)
    encoder = makes[0]()  # trained in place: what was kept of it before no longer counts
    model.text_projection.data.neg_()
    assert np.abs(encoder.encode_text(["omnibus"]) - cold[0]).max() > 0.1


@pytest.mark.parametrize("obstacle", ["a file", "closed"])
def test_where_nothing_can_be_kept_names_are_still_embedded(cache, obstacle):
    cache.parent.mkdir()
    cache.touch() if obstacle == "a file" else cache.parent.chmod(0o500)
    encoder = OpenClipEncoder(tiny_model(), byte_tokenizer, templates=["a {}."])
    assert encoder.encode_text(["bus"]).shape == (1, 24)
    cache.parent.chmod(0o700)


def test_fingerprint_names_weights_and_variant():
    model = tiny_model()
    first = OpenClipEncoder(model).fingerprint
    assert first == OpenClipEncoder(tiny_model(), byte_tokenizer, name="x").fingerprint
    others = [OpenClipEncoder(tiny_model(seed=1)), OpenClipEncoder(model, dense="plain")]
    assert len({first, *(o.fingerprint for o in others)}) == 3


@pytest.mark.parametrize(
    ("call", "value"),
    [
        (lambda: OpenClipEncoder(tiny_model(), dense="maskclp"), "'maskclp'"),
        (lambda: image_tensor(np.zeros((4, 4), np.uint8)), "image"),
        (lambda: image_tensor(np.zeros((4, 4, 3), np.int64)), "image"),
        (lambda: image_tensor(np.full((4, 4, 3), 255.0)), "image"),
        (lambda: image_tensor(np.full((4, 4, 3), np.nan)), "image"),
        (lambda: OpenClipEncoder(tiny_model()).encode_text(["bus"]), "a bus"),  # without a tokenizer
        (lambda: OpenClipEncoder(tiny_model(), byte_tokenizer).encode_text("bus"), "'bus'"),
    ],
)
def test_what_cannot_be_encoded_is_refused(call, value):
    with pytest.raises(ValueError, match=value):
        call()
