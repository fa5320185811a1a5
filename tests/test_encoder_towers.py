"""Dense features of every kind of vision tower that open_clip has published weights for."""

from contextlib import nullcontext
from functools import partial
from unittest import mock

import numpy as np
import open_clip
import pytest
import timm
import torch
import torch.nn.functional as F
from open_clip.model import CLIPVisionCfg, _build_vision_tower
from test_encoder_clip import byte_tokenizer
from torch import nn

from rose_kit.contract import run_checks
from rose_kit.encoder import OpenClipEncoder

PUBLISHED = sorted({architecture for architecture, _ in open_clip.list_pretrained()})
SMALL, STEM = {"embed_dim": 24, "depth": 2, "num_heads": 3, "img_size": 64}, {"depth": 2, "img_size": 64}
CONVNEXT = ("convnext_base", {"depths": [1, 1, 2, 1], "dims": [8, 16, 32, 64]})
TEXT = {"context_length": 16, "vocab_size": 300, "width": 16, "heads": 2, "layers": 1}
KINDS = {  # kind -> its architecture in timm, what makes it small, and how open_clip completes it
    "eva": ("eva02_base_patch16_clip_224", SMALL, {"timm_pool": "token", "timm_proj": None}),
    "eva-mean": ("eva02_base_patch16_clip_224", SMALL, {"timm_pool": "avg", "timm_proj": None}),
    "eva-14": (
        "eva02_enormous_patch14_clip_224",
        SMALL | {"img_size": 56},
        {"timm_pool": "token", "timm_proj": None},
    ),
    "siglip": ("vit_base_patch16_siglip_224", SMALL, {"timm_pool": "map", "timm_proj": "none"}),
    "pe": ("vit_pe_core_base_patch16_224", SMALL, {"timm_pool": "map", "timm_proj": None}),
    "mobileclip-b": ("vit_base_mci_224", STEM, {"timm_pool": "token", "timm_proj": None}),
    "vitamin": ("vitamin_small_224", STEM, {"timm_pool": "", "timm_proj": "linear"}),
    "mobileclip-s": ("fastvit_mci0", {}, {"timm_pool": "avg", "timm_proj": None}),
    "convnext": (*CONVNEXT, {"timm_pool": "", "timm_proj": "linear"}),
    "convnext-mlp": (*CONVNEXT, {"timm_pool": "", "timm_proj": "mlp"}),
    "resnet": (None, {}, {"layers": (1, 1, 1, 1), "width": 8, "head_width": 32, "patch_size": None}),
    "coca": (None, {}, {"layers": 2, "width": 32, "head_width": 8, "attentional_pool": True}),
}
CONVOLUTIONS = ("mobileclip-b", "vitamin", "mobileclip-s", "convnext", "convnext-mlp", "resnet")


def tiny(kind, size=64):
    """A CLIP with a small tower of that kind and random weights, in evaluation mode."""
    name, smaller, config = KINDS[kind]
    vision = {"timm_model_name": name, "image_size": size, **config}
    create = partial(timm.create_model, **smaller)
    with torch.random.fork_rng(), mock.patch("open_clip.timm_model.timm.create_model", create):
        torch.manual_seed(0)
        if kind == "coca":
            text, decoder = {"embed_cls": True, "output_tokens": True}, {"context_length": 16, "layers": 1}
            model = open_clip.CoCa(
                24, {**TEXT, **decoder}, {**TEXT, **text}, {**vision, "output_tokens": True}
            )
        else:
            model = open_clip.CLIP(24, vision, TEXT)
        for parameter in model.visual.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape)
    return model.eval()


def normalised(images):
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    return (images - mean) / std


def without_positions(visual, image):
    """Forget where a patch lies, and let the class token be what the first patch of an image is."""
    for module in visual.modules():
        for name in ("pos_embed", "positional_embedding"):
            if isinstance(getattr(module, name, None), nn.Parameter):
                getattr(module, name).data.zero_()
    if hasattr(visual, "trunk") and getattr(visual.trunk, "cls_token", None) is not None:
        embedded = visual.trunk.patch_embed(normalised(image))  # (1, h, w, C)
        visual.trunk.cls_token.data = embedded[:, 0, :1].clone()
    elif hasattr(visual, "class_embedding"):
        visual.class_embedding.data = visual.conv1(normalised(image))[0, :, 0, 0].clone()


@torch.inference_mode()
def own_feature(model, image):
    feature = model.visual(normalised(image))
    return feature[0] if isinstance(feature, tuple) else feature


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_if_all_patches_are_equal_each_is_the_image_feature_of_the_model(kind):
    model = tiny(kind, size=32 if kind == "resnet" else (32, 48) if kind == "coca" else 64)
    encoder = OpenClipEncoder(model)
    side = encoder.patch_size
    # Convolutions see the border, so with them one patch is the whole image, of any content.
    image = (
        torch.rand(1, 3, side, side) if kind in CONVOLUTIONS else torch.full((1, 3, 2 * side, 3 * side), 0.3)
    )
    without_positions(model.visual, image)
    expected = own_feature(model, image)[0]
    assert expected.shape == (24,) and expected.std() > 1e-3
    for variant in encoder.tower.variants:
        features = OpenClipEncoder(model, dense=variant).dense(image)[0]  # (h, w, D)
        assert features.shape[:2] == (image.shape[2] // side, image.shape[3] // side)
        torch.testing.assert_close(features, expected.expand_as(features), atol=1e-4, rtol=1e-4)


def attention_is_the_identity(call, real=F.scaled_dot_product_attention):
    """Attention that returns its values in its last call, the `call`-th."""
    calls = []

    def attend(q, k, v, **options):
        calls.append(q)
        return v if len(calls) == call else real(q, k, v, **options)

    return mock.patch("torch.nn.functional.scaled_dot_product_attention", attend)


@pytest.mark.parametrize("kind", ["eva", "eva-mean", "eva-14", "mobileclip-b", "vitamin"])
@torch.no_grad()
def test_maskclip_of_a_last_block_is_attention_that_returns_its_values(kind):
    model = tiny(kind)
    encoder, trunk = OpenClipEncoder(model), model.visual.trunk
    image = torch.rand(1, 3, 3 * encoder.patch_size, 5 * encoder.patch_size)  # another size than its own
    plain = OpenClipEncoder(model, dense="plain")
    for own, attention in ((encoder, attention_is_the_identity(call=2)), (plain, nullcontext())):
        with attention:
            tokens = trunk.forward_features(normalised(image))[0, trunk.num_prefix_tokens :]
        expected = model.visual.head(trunk.head(trunk.fc_norm(tokens))).reshape(3, 5, 24)
        torch.testing.assert_close(own.dense(image)[0], expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def by_hand(kind, visual, image):
    """(h, w, D) from the arrays of the tower, without its modules for pooling."""
    if kind == "coca":  # image: its own size
        x = visual.transformer(visual._embeds(image))[:, 1:]
        pooling, width = visual.attn_pool, visual.output_dim
        x = pooling.ln_k(x)
        weight = pooling.attn.v_proj_weight
        values = x @ weight.T + pooling.attn.in_proj_bias[2 * width :]
        pooled = visual.ln_post(values @ pooling.attn.out_proj.weight.T + pooling.attn.out_proj.bias)
        return (pooled @ visual.proj)[0].reshape(*visual.grid_size, -1)
    if kind == "resnet":
        pool = visual.attnpool
        x = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(image)))))[0]
        values = torch.einsum("chw,dc->hwd", x, pool.v_proj.weight) + pool.v_proj.bias
        return torch.einsum("hwd,ed->hwe", values, pool.c_proj.weight) + pool.c_proj.bias
    trunk = visual.trunk
    if kind in ("siglip", "pe"):
        grid = [side // 16 for side in image.shape[2:]]
        x = trunk.forward_features(image)[0, trunk.num_prefix_tokens :].reshape(*grid, -1)
        pool = trunk.attn_pool
        weight, bias = pool.kv.weight.chunk(2)[1], pool.kv.bias.chunk(2)[1]
        x = (x @ weight.T + bias) @ pool.proj.weight.T + pool.proj.bias
        x = x + pool.mlp(pool.norm(x))
        return visual.head(trunk.head(trunk.fc_norm(x)))
    x = trunk.forward_features(image)[0].permute(1, 2, 0)  # (h, w, C)
    if kind.startswith("convnext"):
        norm = trunk.head.norm
        x = F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)
        return visual.head(x)
    return x @ trunk.head.fc.weight.T + trunk.head.fc.bias


@pytest.mark.parametrize(
    "kind", ["siglip", "pe", "coca", "convnext", "convnext-mlp", "mobileclip-s", "resnet"]
)
@torch.no_grad()
def test_pooling_and_heads_by_hand(kind):
    model = tiny(kind, size=(48, 80) if kind == "coca" else 64)
    encoder = OpenClipEncoder(model)
    image = torch.rand(1, 3, 3 * encoder.patch_size, 5 * encoder.patch_size)
    expected = by_hand(kind, model.visual, normalised(image))
    assert expected.shape == (3, 5, 24)
    torch.testing.assert_close(encoder.dense(image)[0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_keeps_the_contract_and_leaves_the_model_as_it_is(kind):
    model, image = tiny(kind), torch.rand(1, 3, *[56 if kind == "eva-14" else 64] * 2)
    before = own_feature(model, image)
    encoder = OpenClipEncoder.from_model(model, byte_tokenizer, templates=["a {}."])
    assert run_checks("encoder", lambda: encoder) == {"images": "", "text": ""}
    encoder.encode_image(np.zeros((70, 40, 3), np.uint8))
    torch.testing.assert_close(own_feature(model, image), before)
    others = [variant for variant in ("plain", "sclip") if variant not in encoder.tower.variants]
    for variant in others:
        with pytest.raises(ValueError, match=f"'{variant}'.*maskclip"):
            OpenClipEncoder(model, dense=variant)
    assert "sclip" in others


def tower_of(architecture):
    """The vision tower of an architecture, of few blocks and without weights; the width of its text space."""
    config = open_clip.get_model_config(architecture)
    vision, few = CLIPVisionCfg(**config["vision_cfg"]), {"depth": 2}
    name = vision.timm_model_name or ""
    if name.startswith("convnext"):
        few = {"depths": [1] * 4}
    elif name.startswith("fastvit"):
        few = {"layers": [1] * (5 if name[-1] in "34" else 4)}
    vision.layers = 2 if isinstance(vision.layers, int) else [1] * 4
    create = partial(timm.create_model, **few)
    with torch.device("meta"), mock.patch("open_clip.timm_model.timm.create_model", create):
        return _build_vision_tower(config["embed_dim"], vision), config["embed_dim"]


def test_published_architectures_encode_densely_or_are_refused_by_name():
    able, refused, seen = [], {}, {}
    for architecture in PUBLISHED:
        config = open_clip.get_model_config(architecture)
        twin = seen.setdefault(str((config["embed_dim"], config["vision_cfg"])), architecture)
        if twin != architecture:  # the same vision tower, beside another text tower
            able += [architecture] if twin in able else []
            refused |= {architecture: refused[twin]} if twin in refused else {}
            continue
        model = nn.Module()
        model.visual, dim = tower_of(architecture)
        try:
            encoder = OpenClipEncoder(model)
        except ValueError as error:
            refused[architecture] = str(error)
            continue
        side = encoder.patch_size
        with torch.inference_mode():
            features = encoder.dense(torch.zeros(1, 3, 2 * side, 3 * side, device="meta"))
        assert features.shape == (1, 2, 3, dim) and encoder.dim == dim, architecture
        able.append(architecture)
    assert len(able) >= 100 and len(able) + len(refused) == len(PUBLISHED), sorted(refused)
    assert all("no patches to compare" in message for message in refused.values())


@pytest.mark.parametrize(
    ("name", "vision"),
    [
        ("SwinTransformer", {"timm_model_name": "swin_tiny_patch4_window7_224", "timm_pool": "avg"}),
        ("ResNet", {"timm_model_name": "resnet18", "timm_pool": "abs_attn", "timm_proj": None}),
        ("ConvNeXt", {"timm_model_name": "convnext_atto", "timm_pool": "rot_attn", "timm_proj": None}),
        ("VisionTransformer", {"layers": 1, "width": 32, "head_width": 8, "attentional_pool": "parallel"}),
        ("VisionTransformer", {"layers": 1, "width": 32, "head_width": 8, "qk_norm": True}),
    ],
)
def test_towers_without_a_dense_form_are_refused_by_name(name, vision):
    with torch.device("meta"):
        model = open_clip.CLIP(24, {"image_size": 224, **vision}, TEXT)
    with pytest.raises(ValueError, match=f"a {name}, has no patches to compare with texts"):
        OpenClipEncoder(model, device="meta")
