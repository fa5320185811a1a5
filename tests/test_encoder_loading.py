"""From a name to an encoder, and what a wrong name, file or network is told."""

import json
import pickle
import sys
import types

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from test_encoder_clip import byte_tokenizer, tiny_model

import rose_kit.encoder.loading as loading
from rose_kit.encoder import HandcraftedEncoder, OpenClipEncoder, WeightsUnavailable, Windows, load_encoder
from rose_kit.registry import encoders, register_encoder

ARCHITECTURE = "tiny-for-tests"
CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 32, "layers": 2, "head_width": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
IMAGE = np.random.default_rng(0).random((64, 64, 3))


@pytest.fixture(scope="module", autouse=True)
def tiny_architecture(tmp_path_factory):
    """Teach open_clip a small architecture, so that names can be tested quickly."""
    path = tmp_path_factory.mktemp("configs") / f"{ARCHITECTURE}.json"
    path.write_text(json.dumps(CONFIG))
    open_clip.add_model_config(path)
    yield
    path.unlink()
    open_clip.factory._rescan_model_configs()


def features(encoder):
    return encoder.encode_image(IMAGE).values


def test_random_weights_follow_the_seed():
    state = torch.random.get_rng_state()
    first = load_encoder(f"{ARCHITECTURE}/random")
    assert torch.equal(state, torch.random.get_rng_state())
    assert first.name == f"{ARCHITECTURE}/random" and first.dim == 24 and first.patch_size == 16
    np.testing.assert_array_equal(features(first), features(load_encoder(f"{ARCHITECTURE}/random", seed=0)))
    assert first.fingerprint != load_encoder(f"{ARCHITECTURE}/random", seed=1).fingerprint
    assert load_encoder(f"{ARCHITECTURE}/random", dense="naclip").variant == "naclip"


def test_random_encoder_has_text():
    encoder = load_encoder(f"{ARCHITECTURE}/random", templates=["a {}."])
    got = encoder.encode_text(["bus", "tram", "bus"])
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(got[0], got[2], atol=1e-6)
    assert np.abs(got[0] - got[1]).max() > 1e-3


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_local_checkpoint(tmp_path, suffix):
    model = open_clip.CLIP(**CONFIG)
    path = tmp_path / f"mine{suffix}"
    torch.save(model.state_dict(), path) if suffix == ".pt" else save_file(model.state_dict(), path)
    encoder = load_encoder(f"{ARCHITECTURE}/{path}")
    assert encoder.name == f"{ARCHITECTURE}/mine{suffix}"  # no folder of this machine
    assert encoder.fingerprint == OpenClipEncoder(model).fingerprint
    with pytest.raises(ValueError, match="needs its architecture"):
        load_encoder(str(path))


class Trap:
    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle ran')",)


@pytest.mark.parametrize(
    "content",
    [pickle.dumps(Trap(), protocol=2), b"", b"\x00" * 64, b"PK\x03\x04broken"],
    ids=["pickle", "empty", "zeros", "zip"],
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_hostile_or_broken_checkpoints_are_refused(tmp_path, content, suffix):
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"bad{suffix}' is no checkpoint of {ARCHITECTURE}"):
        load_encoder(f"{ARCHITECTURE}/{path}")


def test_checkpoint_of_another_architecture_is_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="is no checkpoint of"):
        load_encoder(f"{ARCHITECTURE}/{path}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bundeld", "unknown encoder 'bundeld'. Known: bundled.*handcrafted"),
        ("ViT-B-61/random", "open_clip has .*ViT-B-16"),
        ("ViT-B-16/laion3b", "ViT-B-16 has random, openai.*laion2b_s34b_b88k"),
        ("ViT-B-16", "ViT-B-16 has random"),
        ("ViT-B-16/no/such/file.pt", "or the path of a"),
        ("", "unknown encoder ''"),
    ],
)
def test_unknown_names_list_what_is_known(name, message):
    with pytest.raises(ValueError, match=message):
        load_encoder(name)


def test_unreachable_network_names_the_model_and_what_works_offline(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(loading, "_reachable", lambda host: False)
    monkeypatch.setattr(open_clip, "create_model", fail)
    with pytest.raises(WeightsUnavailable, match=r"'ViT-B-16/openai'.*network.*'bundled' and 'handcrafted'"):
        load_encoder("ViT-B-16/openai")


def test_offline_only_the_cache_is_asked(monkeypatch):
    seen = {}

    def record(architecture, pretrained, force_quick_gelu):
        seen.update(offline=loading.hub.HF_HUB_OFFLINE, quick_gelu=force_quick_gelu)
        return tiny_model()

    monkeypatch.setattr(open_clip, "create_model", record)
    monkeypatch.setattr(loading, "getproxies", dict)
    monkeypatch.setattr(loading.hub, "HF_HUB_OFFLINE", False)
    for reachable in (False, True):
        monkeypatch.setattr(loading, "_reachable", lambda host, answer=reachable: answer)
        assert load_encoder("ViT-B-16/openai").name == "ViT-B-16/openai"
        assert seen == {"offline": not reachable, "quick_gelu": True}  # the weights' own activation
    assert loading.hub.HF_HUB_OFFLINE is False


def test_unobtainable_tokenizer_is_named(monkeypatch):
    def fail(architecture):
        raise ImportError("needs transformers")

    monkeypatch.setattr(open_clip, "get_tokenizer", fail)
    with pytest.raises(
        WeightsUnavailable, match="no tokenizer for 'tiny-for-tests/random': needs transformers"
    ):
        load_encoder(f"{ARCHITECTURE}/random")


def test_reachable_says_no_quickly():
    assert not loading._reachable("host.invalid")


def test_registered_encoders_load_by_name():
    @register_encoder("mine-for-tests")
    def build(width=3):
        return types.SimpleNamespace(dim=width)

    try:
        assert load_encoder("mine-for-tests", width=5).dim == 5
    finally:
        del encoders["mine-for-tests"]
    assert isinstance(load_encoder("handcrafted"), HandcraftedEncoder)


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    """A folder in the layout of the bundled weights, and a tokenizer to read it with."""
    model = open_clip.CLIP(**CONFIG)
    config = {**CONFIG, "image_mean": [0.4, 0.4, 0.4], "image_std": [0.2, 0.2, 0.2], "dense": "plain"}
    config |= {"templates": ["a {}."], "windows": {"short_side": 64, "crops": [32], "stride": 16}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({k: v.half() for k, v in model.state_dict().items()}, tmp_path / "model.safetensors")
    (tmp_path / "tokenizer.json").write_text("{}")
    fake = types.ModuleType("rose_kit.encoder.tokenizer")
    fake.BPETokenizer = types.SimpleNamespace(load=lambda path: byte_tokenizer)
    monkeypatch.setitem(sys.modules, "rose_kit.encoder.tokenizer", fake)
    return tmp_path, model


def test_bundled_layout(bundle):
    folder, model = bundle
    encoder = load_encoder(str(folder))
    assert encoder.variant == "plain" and encoder.templates == ["a {}."]
    assert encoder.preferred_windows == Windows(64, (32,), 16)
    model.visual.image_mean, model.visual.image_std = [0.4] * 3, [0.2] * 3
    np.testing.assert_allclose(features(encoder), features(OpenClipEncoder(model, dense="plain")), atol=5e-3)
    assert encoder.encode_text(["bus"]).shape == (1, 24)
    assert load_encoder("bundled", folder=folder, dense="sclip").variant == "sclip"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_missing_bundled_file_is_named(bundle, name):
    folder, _ = bundle
    (folder / name).unlink()
    with pytest.raises(WeightsUnavailable, match=f"lacks {name}; `python -m data_scripts.bundled`"):
        load_encoder("bundled", folder=folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b'{"embed_dim": 24}'),
        ("config.json", json.dumps({**CONFIG, "embed_dim": 25}).encode()),
        ("config.json", json.dumps({**CONFIG, "windows": {"crops": [0]}}).encode()),
        ("model.safetensors", b"\x08half a header"),
    ],
)
def test_corrupt_bundled_file_is_refused(bundle, name, content):
    folder, _ = bundle
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match="cannot read the encoder in"):
        load_encoder(str(folder))
