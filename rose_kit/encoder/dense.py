"""Dense variants: how the last block of a CLIP vision transformer is changed for features of patches.

CLIP trains its class token (or the patches' mean), so patches of the unchanged last block mix in
whatever the whole image needs. Each variant replaces the last block's attention; `ln_post` and the
projection to the text space follow as usual. Heads are kept apart: q, k, v are (B, heads, L, d).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor

# (last block, its input (B, 1 + h * w, D) class token first, (h, w)) -> (B, 1 + h * w, D)
Variant = Callable[[ResidualAttentionBlock, Tensor, tuple[int, int]], Tensor]


def plain(block: ResidualAttentionBlock, x: Tensor, grid: tuple[int, int]) -> Tensor:
    """The block as it was trained."""
    return block(x)


def maskclip(block: ResidualAttentionBlock, x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Each patch attends to itself alone (MaskCLIP, Zhou et al. 2022, section 3.2).

    Residual and MLP are kept, as in CLIP-DINOiser (Wysoczanska et al. 2024) and RNS.
    """
    _, _, v = _qkv(block, x)
    return _with_mlp(block, x + _out(block, v))


def sclip(block: ResidualAttentionBlock, x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Query-query plus key-key attention, rows summing to 2 (SCLIP, Wang et al. 2024, equation 3)."""
    q, k, v = _qkv(block, x)
    attention = _similarity(q).softmax(-1) + _similarity(k).softmax(-1)  # (B, heads, L, L)
    return _with_mlp(block, x + _out(block, attention @ v))


def clearclip(block: ResidualAttentionBlock, x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Query-query attention, neither residual nor MLP (ClearCLIP, Lan et al. 2024, section 3.3)."""
    q, _, v = _qkv(block, x)
    return _out(block, _similarity(q).softmax(-1) @ v)


def naclip(block: ResidualAttentionBlock, x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Key-key attention drawn to neighbours, neither residual nor MLP (NACLIP, Hajimiri et al. 2025)."""
    _, k, v = _qkv(block, x)
    return _out(block, (_similarity(k) + _neighbours(grid).to(k)).softmax(-1) @ v)


DENSE: dict[str, Variant] = {f.__name__: f for f in (maskclip, plain, sclip, clearclip, naclip)}


def _qkv(block: ResidualAttentionBlock, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    attn = block.attn
    qkv = F.linear(block.ln_1(x), attn.in_proj_weight, attn.in_proj_bias)  # (B, L, 3 D)
    heads = qkv.unflatten(-1, (3, attn.num_heads, -1))  # (B, L, 3, heads, d)
    return tuple(heads.permute(2, 0, 3, 1, 4))  # 3 x (B, heads, L, d)


def _similarity(x: Tensor) -> Tensor:
    return x @ x.mT * x.shape[-1] ** -0.5  # (B, heads, L, d) -> (B, heads, L, L)


def _out(block: ResidualAttentionBlock, values: Tensor) -> Tensor:
    merged = values.transpose(1, 2).flatten(2)  # (B, heads, L, d) -> (B, L, D)
    return block.ls_1(block.attn.out_proj(merged))


def _with_mlp(block: ResidualAttentionBlock, x: Tensor) -> Tensor:
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def _neighbours(grid: tuple[int, int], sigma: float = 5.0) -> Tensor:
    """(L, L) Gaussian of the distance between patches, added to the logits; 0 for the class token."""
    places = torch.ones(grid).nonzero().float()  # (h * w, 2) row and column of each patch
    gauss = torch.exp(-((places[:, None] - places[None]) ** 2).sum(-1) / (2 * sigma**2))  # (h * w, h * w)
    return F.pad(gauss, (1, 0, 1, 0))
