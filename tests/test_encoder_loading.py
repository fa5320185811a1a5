"""From a name to an encoder, and what a wrong name, file or network is told."""

import json
import pickle
import types
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file

import rose_kit.encoder.loading as loading
from data_scripts.bundled.merges import write_merges
from rose_kit.encoder import OpenClipEncoder, WeightsUnavailable, Windows, load_encoder
from rose_kit.registry import encoders, load_plugin
from rose_kit.types import unit

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


def test_random_weights_follow_the_seed_and_have_text():
    state = torch.random.get_rng_state()
    first = load_encoder(f"{ARCHITECTURE}/random", templates=["a {}."])
    assert torch.equal(state, torch.random.get_rng_state())
    np.testing.assert_array_equal(features(first), features(load_encoder(f"{ARCHITECTURE}/random", seed=0)))
    other = load_encoder(f"{ARCHITECTURE}/random", seed=1, dense="naclip")
    assert first.fingerprint != other.fingerprint and other.variant == "naclip"
    bus, tram, again = first.encode_text(["bus", "tram", "bus"])
    np.testing.assert_allclose(bus, again, atol=1e-6)
    assert np.abs(bus - tram).max() > 1e-3


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_local_checkpoint(tmp_path, suffix):
    model = open_clip.CLIP(**CONFIG)
    path = tmp_path / f"mine{suffix}"
    torch.save(model.state_dict(), path) if suffix == ".pt" else save_file(model.state_dict(), path)
    encoder = load_encoder(f"{ARCHITECTURE}/{path}")
    assert encoder.name == f"{ARCHITECTURE}/mine{suffix}"  # no folder of this machine
    assert encoder.fingerprint == OpenClipEncoder(model).fingerprint


class Trap:
    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle ran')",)


@pytest.mark.parametrize(
    "content", [pickle.dumps(Trap(), protocol=2), b"", b"\x00" * 64, b"PK\x03\x04broken"]
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_hostile_or_broken_checkpoints_are_refused(tmp_path, content, suffix):
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"bad{suffix}'"):
        load_encoder(f"{ARCHITECTURE}/{path}")


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("bundeld", "bundled"),
        ("ViT-B-61/random", "ViT-B-16"),
        ("ViT-B-16/laion3b", "laion2b_s34b_b88k"),
        ("ViT-B-16", "random"),
        ("ViT-B-16/no/such/file.pt", ".safetensors"),
        ("", "handcrafted"),
    ],
)
def test_unknown_names_list_what_is_known(name, listed):
    with pytest.raises(ValueError, match=f"'{name}'.*{listed}"):
        load_encoder(name)


@pytest.mark.parametrize("reachable", [False, True])
def test_without_a_network_only_the_cache_is_asked(monkeypatch, reachable):
    def connect(address, timeout):
        if not reachable:
            raise OSError("no route to host")
        return types.SimpleNamespace(close=lambda: None)

    def create(architecture, pretrained, force_quick_gelu):
        assert loading.hub.HF_HUB_OFFLINE is not reachable and force_quick_gelu  # the weights' own activation
        raise OSError("not in the cache")

    monkeypatch.setattr(loading.socket, "create_connection", connect)
    monkeypatch.setattr(loading, "getproxies", dict)
    monkeypatch.setattr(loading.hub, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(open_clip, "create_model", create)
    with pytest.raises(WeightsUnavailable, match="'ViT-B-16/openai'"):
        load_encoder("ViT-B-16/openai")
    assert loading.hub.HF_HUB_OFFLINE is False


@pytest.fixture
def bundle(tmp_path):
    """A folder in the layout of the bundled weights, and the model in it."""
    model = open_clip.CLIP(**CONFIG)
    config = {**CONFIG, "image_mean": [0.4, 0.4, 0.4], "image_std": [0.2, 0.2, 0.2], "dense": "plain"}
    config |= {"templates": ["a {}."], "windows": {"short_side": 64, "crops": [32], "stride": 16}}
    (tmp_path / "config.json").write_text(json.dumps(config | {"words": ["bus|coach"]}))
    save_file({k: v.half() for k, v in model.state_dict().items()}, tmp_path / "model.safetensors")
    write_merges([("b", "u"), ("bu", "s</w>")], tmp_path / "merges.txt.gz")
    return tmp_path, model


def test_bundled_layout(bundle):
    folder, model = bundle
    encoder = load_encoder(str(folder))
    assert encoder.variant == "plain" and encoder.templates == ["a {}."] and encoder.words == ("bus|coach",)
    assert encoder.preferred_windows == Windows(64, (32,), 16)
    model.visual.image_mean, model.visual.image_std = [0.4] * 3, [0.2] * 3
    np.testing.assert_allclose(features(encoder), features(OpenClipEncoder(model, dense="plain")), atol=5e-3)
    assert encoder.tokenizer.decode(encoder.tokenizer.encode("bus")) == "bus "
    assert load_encoder("bundled", folder=folder, dense="sclip").variant == "sclip"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b'{"embed_dim": 24}'),
        ("config.json", json.dumps({**CONFIG, "embed_dim": 25}).encode()),
        ("config.json", json.dumps({**CONFIG, "windows": {"crops": [0]}}).encode()),
        ("model.safetensors", b"\x08half a header"),
        ("merges.txt.gz", b"no gzip"),
    ],
)
def test_missing_and_corrupt_bundled_files_are_refused(bundle, name, content):
    folder, _ = bundle
    (folder / name).unlink()
    with pytest.raises(WeightsUnavailable, match=name):
        load_encoder("bundled", folder=folder)
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=str(folder)):
        load_encoder(str(folder))


class DinoTxt(torch.nn.Module):
    """Two layers with the calls of DINOv3.txt: patches before and after a head, text of two halves."""

    def __init__(self):
        super().__init__()
        self.patch, self.head = torch.nn.Conv2d(3, 12, 16, 16), torch.nn.Linear(12, 12)
        self.text = torch.nn.Embedding(300, 24)

    def encode_image_with_patch_tokens(self, x):
        tokens = self.patch(x).flatten(2).mT
        return self.head(tokens).mean(1), self.head(tokens), tokens

    def encode_text(self, tokens):
        return self.text(tokens).mean(1)

    def tokenize(self, texts):
        return torch.tensor([list(text.encode().ljust(60)[:60]) for text in texts])


@pytest.mark.parametrize(("patches", "half", "text"), [("backbone", "patch", 12), ("head", "class", 0)])
def test_the_plugin_for_dinov3txt(patches, half, text):
    load_plugin(Path("notebooks/plugins/dinov3txt.py"))
    with pytest.raises(WeightsUnavailable, match="'dinov3'"):
        load_encoder("dinov3txt")
    make, model = encoders.pop("dinov3txt").__globals__["DinoTxtEncoder"], DinoTxt()
    encoder = make(model, model, patches=patches, text_half=half, templates=["a {}."])
    constants = open_clip.constants
    with torch.no_grad():
        x = (IMAGE - constants.IMAGENET_MEAN) / constants.IMAGENET_STD  # (H, W, 3)
        tokens = model.encode_image_with_patch_tokens(torch.from_numpy(x).float().permute(2, 0, 1)[None])
        expected = tokens[1 if patches == "head" else 2][0].numpy()
        name = model.encode_text(model.tokenize(["a bus."]))[0].numpy()
    np.testing.assert_allclose(encoder.encode_image(IMAGE).flat(), unit(expected), atol=1e-5)
    np.testing.assert_allclose(encoder.encode_text(["bus"])[0], unit(name[text : text + 12]), atol=1e-5)
