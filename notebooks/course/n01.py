"""The exercises of 01_dense_features."""

import numpy as np
import torch
import torch.nn.functional as F

from course import OVERFLOW, agrees, checks, close, exercise, expect, shaped


@exercise(
    level=1,
    minutes=10,
    hints=(
        "exp of the scaled cosines, divided by its sum over the names of each patch",
        "take the largest of each row away first, `s = scale * (cosines - cosines.max(1, keepdims=True))`, "
        "so that `np.exp(s)` cannot overflow; then divide by `.sum(1, keepdims=True)`",
    ),
    right="The next figure paints the nearest names with it.",
)
def name_probabilities(cosines, scale):
    """(N, C) cosines of patches and names -> (N, C) probabilities: softmax of scale * cosine over names."""
    e = np.exp(scale * (cosines - cosines.max(1, keepdims=True)))  # minus the largest: no overflow
    return e / e.sum(1, keepdims=True)


@checks(name_probabilities)
def _(answer):
    cosines = np.random.default_rng(0).uniform(-0.5, 0.9, (7, 4))
    found = shaped(answer(cosines.copy(), 5.0), (7, 4), "(N, C)")
    wrong = [
        (np.exp(5 * cosines), "returns rows that do not add up to 1: divide by the sum over the names"),
        (name_probabilities(cosines.T, 5.0).T, "takes the softmax over patches: it goes over names"),
        (name_probabilities(cosines, 1.0), "leaves out the scale"),
        (name_probabilities(cosines, 100.0), "uses a scale of 100 whatever is given"),
        (5 * cosines / (5 * cosines).sum(1, keepdims=True), "leaves out the exponential"),
        (
            np.exp(5 * cosines) / np.exp(5 * cosines).sum(),
            "divides by the sum over everything: over the names of each patch",
        ),
        (name_probabilities(cosines, 1 / 5), "divides by the scale: the cosines are multiplied by it"),
    ]
    for other, says in wrong:
        expect(not close(found, other), says)
    expect(close(found, name_probabilities(cosines, 5.0)), "returns other values than the formula")
    says = "is right at a scale of 5 alone"
    agrees(answer, name_probabilities, says, (cosines[:2], 0.5), (cosines, 50.0), (cosines, 300.0))
    agrees(answer, name_probabilities, OVERFLOW, (cosines, 5000.0))


@exercise(
    level=3,
    minutes=25,
    hints=(
        "mix the values of each head by softmax(k k^T / sqrt(d)), then go on as attend_to_self does",
        "`F.linear(block.ln_1(x), weight, bias).unflatten(-1, (3, heads, -1)).permute(2, 0, "
        "3, 1, 4)` holds q, k, v of shape (1, heads, L, d); `block.attn.out_proj` joins the "
        "heads; x is added, then `block.mlp(block.ln_2(y))`",
    ),
    right="Now hold it against the table of the five endings.",
)
def keys_attend(block, x):
    """(1, 1 + h * w, width) -> the same: patches gather from patches with similar keys."""
    qkv = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias)
    heads = qkv.unflatten(-1, (3, block.attn.num_heads, -1))  # (1, L, 3, heads, d)
    _, k, v = heads.permute(2, 0, 3, 1, 4)  # (1, heads, L, d) each
    share = (k @ k.mT / k.shape[-1] ** 0.5).softmax(-1)  # (1, heads, L, L)
    mixed = (share @ v).transpose(1, 2).flatten(2)  # (1, L, width)
    y = x + block.attn.out_proj(mixed)
    return y + block.mlp(block.ln_2(y))


def _variants(block, x):
    """What typical mistakes make of it."""
    d, heads = x.shape[-1], block.attn.num_heads
    weight, bias = block.attn.in_proj_weight, block.attn.in_proj_bias
    q, k, v = F.linear(block.ln_1(x), weight, bias).chunk(3, -1)

    def split(z):
        return z.unflatten(-1, (heads, -1)).transpose(1, 2)  # (1, heads, L, d)

    def gathered(a, b, values, scale, parts=split, axis=-1):
        share = (parts(a) @ parts(b).mT / scale).softmax(axis) @ parts(values)
        return share.transpose(1, 2).flatten(2)

    def mix(a, b, scale, values=v, **options):
        return block.attn.out_proj(gathered(a, b, values, scale, **options))

    def end(mixed):
        y = x + mixed
        return y + block.mlp(block.ln_2(y))

    root = (d // heads) ** 0.5
    yield mix(k, k, root), "stops after the attention: x and the MLP have to be added, as in attend_to_self"
    yield x + mix(k, k, root), "leaves out the MLP"
    yield mix(k, k, root) + block.mlp(block.ln_2(mix(k, k, root))), "leaves out x itself (the residual)"
    yield end(mix(q, q, root)), "uses the queries: the stacked projection holds q, k, v in this order"
    yield end(mix(q, k, root)), "is the block as it was trained (q with k): hold the keys against the keys"
    yield end(mix(k, k, 1)), "forgets to divide by the square root of d"
    yield end(mix(k, k, d**0.5)), "divides by the root of the width: d is the width of one head"
    yield end(mix(k, k, root, axis=-2)), "softmaxes over the wrong axis: the shares of each row add up to 1"
    whole = mix(k, k, d**0.5, parts=lambda z: z[:, None])
    yield end(whole), "mixes all heads as one: each head compares its own part of the keys"
    yield end(mix(k, k, root, values=k)), "mixes the keys: the values are what is gathered"
    yield end(gathered(k, k, v, root)), "leaves out out_proj, which joins the heads"
    for given, b, says in ((block.ln_1(x), None, "in_proj_bias"), (x, bias, "ln_1, which comes first")):
        _, other, values = F.linear(given, weight, b).chunk(3, -1)
        yield end(mix(other, other, root, values=values)), f"leaves out {says}"
    yield end(block.attn.out_proj(v)), "lets each patch attend to itself alone: that is MaskCLIP"


@checks(keys_attend)
def _(answer):
    from open_clip.transformer import ResidualAttentionBlock

    torch.manual_seed(0)
    block = ResidualAttentionBlock(16, 4).eval()
    with torch.inference_mode():
        block.attn.in_proj_weight.mul_(4)  # or all shares would be alike
        block.attn.in_proj_bias.normal_()  # which is 0 at first
        x = torch.randn(1, 10, 16)
        found = answer(block, x)
        expect(found is not None, "returns None: is the `return` missing?")
        expect(isinstance(found, torch.Tensor), f"returns a {type(found).__name__}, not a tensor")
        expect(found.shape == x.shape, f"returns shape {tuple(found.shape)} for an input {tuple(x.shape)}")
        for other, says in _variants(block, x):
            expect(not torch.allclose(found, other, atol=1e-4), says)
        right = torch.allclose(found, keys_attend(block, x), atol=1e-4)
        expect(right, "returns other values: follow one token through q, k, v, shares and mixture")
        other = ResidualAttentionBlock(16, 2).eval()  # two heads of width 8, where the first has four of 4
        other.attn.in_proj_weight.mul_(4)
        right = torch.allclose(answer(other, x), keys_attend(other, x), atol=1e-4)
        expect(right, "mistakes the number of heads for their width")
