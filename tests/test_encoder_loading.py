"""From a name to an encoder, and what a wrong name, file or network is told."""

import json
import pickle

import httpx
import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file

import rose_kit.encoder.loading as loading
from data_scripts.bundled.merges import write_merges
from rose_kit.encoder import OpenClipEncoder, WeightsUnavailable, load_encoder

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


def test_without_a_network_only_the_cache_is_asked(monkeypatch):
    def head(address, timeout):
        raise httpx.ConnectError("no route to host")

    calls = []

    def create(architecture, weights, force_quick_gelu, **options):
        calls.append((loading.hub.HF_HUB_OFFLINE, force_quick_gelu))  # the weights' own activation
        raise OSError("not in the cache")

    monkeypatch.setattr(httpx, "head", head)
    monkeypatch.setattr(loading.hub, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(open_clip, "create_model", create)
    with pytest.raises(WeightsUnavailable, match="'ViT-B-16/openai'"):
        load_encoder("ViT-B-16/openai")
    assert calls == [(True, True)] and loading.hub.HF_HUB_OFFLINE is False


@pytest.fixture
def bundle(tmp_path):
    """A folder in the layout of the bundled weights, and the model in it."""
    model = open_clip.CLIP(**CONFIG)
    config = {**CONFIG, "image_mean": [0.4, 0.4, 0.4], "image_std": [0.2, 0.2, 0.2], "dense": "plain"}
    config |= {"templates": ["a {}."], "windows": {"short_side": 64, "crops": [32], "stride": 16}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({k: v.half() for k, v in model.state_dict().items()}, tmp_path / "model.safetensors")
    write_merges([("b", "u"), ("bu", "s</w>")], tmp_path / "merges.txt.gz")
    return tmp_path, model


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b'{"embed_dim": 24}'),
        ("config.json", json.dumps({**CONFIG, "embed_dim": 25}).encode()),
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
