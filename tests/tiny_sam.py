"""A SAM as small as they come, untrained: its masks mean nothing, and every step is the real one."""

from __future__ import annotations

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, TwoWayTransformer
from segment_anything.modeling import Sam as SamModel

SIDE, PATCH, WIDTH = 64, 16, 32  # pixels SAM works on (the real one: 1024), pixels to a patch, channels


def tiny_sam(seed: int = 28) -> SamModel:
    """For tests and for trying things out: 64 px, two layers, random weights that `seed` decides."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        grid = (SIDE // PATCH, SIDE // PATCH)
        model = SamModel(
            ImageEncoderViT(
                SIDE, PATCH, embed_dim=WIDTH, depth=2, num_heads=2, out_chans=WIDTH, use_rel_pos=True
            ),
            PromptEncoder(WIDTH, grid, (SIDE, SIDE), mask_in_chans=4),
            MaskDecoder(
                transformer_dim=WIDTH,
                transformer=TwoWayTransformer(depth=2, embedding_dim=WIDTH, num_heads=2, mlp_dim=WIDTH),
                iou_head_hidden_dim=WIDTH,
            ),
        )
        for weight in model.mask_decoder.transformer.parameters():
            weight.data *= 4 if weight.ndim > 1 else 1  # else all points get the same mask
    return model.eval()
