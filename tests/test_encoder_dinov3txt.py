"""The plugin for DINOv3.txt, through a fake checkout with the same calls."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rose_kit.encoder import WeightsUnavailable, load_encoder
from rose_kit.registry import encoders, load_plugin
from rose_kit.types import unit

PLUGIN = Path(__file__).parents[1] / "notebooks" / "plugins" / "dinov3txt.py"
MODEL = "dinov3_vitl16_dinotxt_tet1280d20h24l"
HUBCONF = f"""
import torch

class Model(torch.nn.Module):
    def __init__(self, weights, backbone_weights):
        super().__init__()
        torch.manual_seed(len(open(weights).read()) + len(open(backbone_weights).read()))
        self.patch = torch.nn.Conv2d(3, 12, 16, 16)
        self.head = torch.nn.Linear(12, 12)
        self.text = torch.nn.Embedding(300, 24)

    def encode_image_with_patch_tokens(self, x):
        tokens = self.patch(x).flatten(2).mT
        head = self.head(tokens)
        return head.mean(1), head, tokens

    def encode_text(self, tokens):
        return self.text(tokens).mean(1)

class Tokenizer:
    def tokenize(self, texts):
        return torch.tensor([list(t.encode().ljust(60)[:60]) for t in texts])

def {MODEL}(weights, backbone_weights):
    return Model(weights, backbone_weights), Tokenizer()
"""
IMAGE = np.random.default_rng(0).random((40, 52, 3))


@pytest.fixture(autouse=True)
def plugin():
    assert load_plugin(PLUGIN)["encoder"] == ["dinov3txt"]
    yield
    del encoders["dinov3txt"]


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "hubconf.py").write_text(HUBCONF)
    for name in ("head.pth", "backbone.pth"):
        (tmp_path / name).write_text(name)
    return {
        "repo": tmp_path,
        "weights": tmp_path / "head.pth",
        "backbone_weights": tmp_path / "backbone.pth",
    }


def test_tokens_and_text_half_of_the_released_recipe(checkout):
    encoder = load_encoder("dinov3txt", **checkout, templates=["a {}."])
    assert encoder.dim == 12 and encoder.patch_size == 16 and encoder.name == "dinov3txt"
    got = encoder.encode_image(IMAGE)
    assert got.grid == (3, 4)
    x = torch.zeros(1, 3, 48, 64)
    x[0, :, :40, :52] = torch.from_numpy(IMAGE).permute(2, 0, 1)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.no_grad():
        _, head, backbone = encoder.model.encode_image_with_patch_tokens((x - mean) / std)
        text = encoder.model.encode_text(encoder.tokenizer.tokenize(["a bus."]))[0].numpy()
    np.testing.assert_allclose(got.flat(), unit(backbone[0].numpy()), atol=1e-5)
    np.testing.assert_allclose(encoder.encode_text(["bus"])[0], unit(text[12:]), atol=1e-5)

    other = load_encoder("dinov3txt", **checkout, patches="head", text_half="class", templates=["a {}."])
    np.testing.assert_allclose(other.encode_image(IMAGE).flat(), unit(head[0].numpy()), atol=1e-5)
    np.testing.assert_allclose(other.encode_text(["bus"])[0], unit(text[:12]), atol=1e-5)
    assert other.fingerprint != encoder.fingerprint


def test_missing_parts_are_named(checkout, tmp_path):
    with pytest.raises(WeightsUnavailable, match="no checkout of DINOv3 at 'dinov3'"):
        load_encoder("dinov3txt")
    with pytest.raises(WeightsUnavailable, match="needs weights=FILE, got weights=None"):
        load_encoder("dinov3txt", repo=checkout["repo"])
    with pytest.raises(WeightsUnavailable, match=r"needs backbone_weights=FILE, got .*nowhere.pth"):
        load_encoder("dinov3txt", **{**checkout, "backbone_weights": tmp_path / "nowhere.pth"})
    with pytest.raises(ValueError, match="unknown option 'both'; known: patch, class"):
        load_encoder("dinov3txt", **checkout, text_half="both")
