"""Each dense variant against a slow implementation: loops over images, heads and patches."""

import numpy as np
import pytest
import torch
from open_clip.transformer import ResidualAttentionBlock

from rose_kit.encoder.dense import DENSE

GRID = (3, 4)
WIDTH, HEADS = 32, 4


@pytest.fixture(scope="module", params=[None, 0.3], ids=["plain", "layerscale"])
def block(request):
    torch.manual_seed(0)
    block = ResidualAttentionBlock(WIDTH, HEADS, ls_init_value=request.param).eval().double()
    for p in block.parameters():
        p.data += 0.3 * torch.randn(p.shape, dtype=p.dtype)
    return block


def softmax(row):
    e = np.exp(row - row.max())
    return e / e.sum()


def layer_norm(norm, row):
    z = (row - row.mean()) / np.sqrt(row.var() + norm.eps)
    return z * norm.weight.detach().numpy() + norm.bias.detach().numpy()


def weights_of(variant, q, k, i):
    """Attention of token i over all L tokens in one head; q, k are (L, d)."""
    length, scale = len(q), q.shape[1] ** -0.5
    qq = np.array([q[i] @ q[j] for j in range(length)]) * scale
    kk = np.array([k[i] @ k[j] for j in range(length)]) * scale
    qk = np.array([q[i] @ k[j] for j in range(length)]) * scale
    if variant == "maskclip":
        return np.eye(length)[i]
    if variant == "plain":
        return softmax(qk)
    if variant == "sclip":
        return softmax(qq) + softmax(kk)
    if variant == "clearclip":
        return softmax(qq)
    near = np.zeros(length)
    if i > 0:  # the class token has no neighbours
        r, c = divmod(i - 1, GRID[1])
        for j in range(1, length):
            y, x = divmod(j - 1, GRID[1])
            near[j] = np.exp(-((r - y) ** 2 + (c - x) ** 2) / (2 * 5.0**2))
    return softmax(kk + near)


def slow(variant, block, x):
    """(L, D) tokens of one image through the changed block."""
    attn = block.attn
    w, b = attn.in_proj_weight.detach().numpy(), attn.in_proj_bias.detach().numpy()
    out_w, out_b = attn.out_proj.weight.detach().numpy(), attn.out_proj.bias.detach().numpy()
    ls = [getattr(layer, "gamma", torch.ones(1)).detach().numpy() for layer in (block.ls_1, block.ls_2)]
    qkv = np.stack([w @ layer_norm(block.ln_1, row) + b for row in x])  # (L, 3 D)
    d = WIDTH // HEADS
    mixed = np.zeros((len(x), WIDTH))
    for head in range(HEADS):
        q, k, v = (qkv[:, part * WIDTH + head * d : part * WIDTH + (head + 1) * d] for part in range(3))
        for i in range(len(x)):
            for j, a in enumerate(weights_of(variant, q, k, i)):
                mixed[i, head * d : (head + 1) * d] += a * v[j]
    attended = ls[0] * (mixed @ out_w.T + out_b)
    if variant in ("clearclip", "naclip"):
        return attended
    y = x + attended
    mlp = [block.mlp(torch.from_numpy(layer_norm(block.ln_2, row))).detach().numpy() for row in y]
    return y + ls[1] * np.stack(mlp)


@pytest.mark.parametrize("variant", list(DENSE))
def test_variant_against_loops(variant, block):
    x = torch.randn(2, 1 + GRID[0] * GRID[1], WIDTH, generator=torch.Generator().manual_seed(1)).double()
    with torch.inference_mode():
        got = DENSE[variant](block, x, GRID).numpy()
    for image, expected_input in zip(got, x.numpy(), strict=True):
        np.testing.assert_allclose(image, slow(variant, block, expected_input), atol=1e-6)
