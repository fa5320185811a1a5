"""Vision towers of open_clip that are no plain vision transformer: their patches in the text space.

One rule for all of them: from the step at which a tower mixes its patches into one image feature, each patch
goes on alone, as if the image held nothing else. Attention over one patch gives its value, so for a plain
vision transformer this is MaskCLIP. It is the dense variant "maskclip" of every tower:

| tower | each patch alone through | source |
|---|---|---|
| vision transformer of open_clip | the last block, norm, projection: `dense.maskclip` | MaskCLIP (Zhou et al. 2022), section 3.2 |
| the same of timm: EVA01, EVA02, MobileCLIP-B and -L, ViTamin | the last block, norm, head | the same |
| timm with attention pooling: SigLIP, SigLIP2, PE-Core | norm, value, output and MLP of the pooling, head | TextRegion (Xiao et al. 2025), whose regions are single patches here, and which leaves out the MLP |
| CoCa: open_clip with attention pooling | value and output of the pooling, norm, projection | the same |
| convolutions of timm: ConvNeXt, MobileCLIP-S | norm, projection or MLP of the head | FC-CLIP (Yu et al. 2023), which pools masks first |
| ResNet of CLIP: RN50, ... | value and output of the attention pooling, without its positions | MaskCLIP, section 3.2, and its release |

The other variants change the attention of a last block. A vision transformer of timm also has "plain", the
block as it was trained; where attention pools or nothing attends, there is no other.
"""  # noqa: E501 (a table)

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import torch
from open_clip.model import ModifiedResNet, TimmModel, VisionTransformer
from open_clip.transformer import AttentionalPooler, ResidualAttentionBlock
from timm import models
from timm.layers.format import Format
from torch import Tensor, nn

from rose_kit.encoder.dense import DENSE

TRANSFORMER, CONVOLUTIONS = models.VisionTransformer | models.Eva, models.ConvNeXt | models.FastVit  # of timm


@dataclass(frozen=True)
class Tower:
    """What an encoder needs to know of a vision tower.

    Attributes:
        name: its architecture, side of a patch and width, in words.
        patch_size: side of a patch in pixels.
        dim: D, the width of the text space.
        variants: dense variants that it has.
        dense: `visual`, normalised images (B, 3, H, W), H and W whole patches, and a variant -> (B, h, w, D);
            None for the vision transformer of open_clip, whose tokens the encoder takes itself.
    """

    name: str
    patch_size: int
    dim: int
    variants: Collection[str]
    dense: Callable[[nn.Module, Tensor, str], Tensor] | None = None


def find_tower(model: nn.Module) -> Tower:
    """The vision tower of an open_clip model.

    A vision transformer of timm is changed to take images of any size, by timm's own interpolation of its
    positions; what it answers at its own size stays the same.

    Raises:
        ValueError: it has no dense form here.
    """
    visual = getattr(model, "visual", None)
    trunk = getattr(visual, "trunk", visual)
    if isinstance(visual, VisionTransformer) and _is_standard(visual):
        side, dim, block = visual.patch_size[0], visual.output_dim, visual.transformer.resblocks[-1]
        variants = DENSE if visual.attn_pool is None else ["maskclip"]
        return Tower(f"ViT/{side} {dim}-d {type(block.mlp.gelu).__name__}", side, dim, variants)
    if isinstance(visual, ModifiedResNet):
        return Tower(f"ResNet/32 {visual.output_dim}-d", 32, visual.output_dim, ["maskclip"], _dense_resnet)
    if isinstance(trunk, TRANSFORMER | CONVOLUTIONS) and not hasattr(visual.head, "pool"):
        return _timm_tower(visual)
    raise ValueError(
        f"{type(model).__name__}.visual, a {type(trunk).__name__}, has no patches to compare with texts; "
        "needed is a tower listed in rose_kit.encoder.towers, with standard blocks and a projection"
    )


def value_of_pooling(pooling: AttentionalPooler, x: Tensor) -> Tensor:
    """(B, L, width) tokens -> (B, L, D): the attention pooling of CoCa over each token alone."""
    tokens = pooling.ln_k(x).flatten(0, 1)[:, None]  # (B * L, 1, width)
    query = tokens.new_zeros(len(tokens), 1, pooling.attn.embed_dim)  # any: there is one token to attend to
    return pooling.attn(query, tokens, tokens, need_weights=False)[0].reshape(*x.shape[:2], -1)


def _timm_tower(visual: TimmModel) -> Tower:
    trunk, variants = visual.trunk, ["maskclip"]
    if isinstance(trunk, TRANSFORMER):
        trunk.dynamic_img_size = True  # and what else timm sets when it builds a trunk with this
        trunk.patch_embed.strict_img_size = trunk.patch_embed.flatten = False
        trunk.patch_embed.output_fmt = Format.NHWC
        if getattr(trunk, "rope", None) is not None:
            trunk.rope._use_cached_embed = False  # of the trained size
        variants += ["plain"] if trunk.attn_pool is None else []
    with torch.no_grad():
        dim = _alone(visual, next(trunk.parameters()).new_zeros(1, trunk.num_features)).shape[1]
    side = trunk.feature_info[-1]["reduction"]
    return Tower(f"{trunk.default_cfg['architecture']}/{side} {dim}-d", side, dim, variants, _dense_timm)


def _is_standard(visual: VisionTransformer) -> bool:
    """Whether blocks, patches and pooling are those that `OpenClipEncoder.dense` expects."""
    block, square = visual.transformer.resblocks[-1], len(set(visual.patch_size)) == 1
    two_poolings = getattr(visual, "attn_pool_contrastive", None) is not None
    return (
        isinstance(block, ResidualAttentionBlock) and square and visual.proj is not None and not two_poolings
    )


def _dense_resnet(visual: ModifiedResNet, images: Tensor, variant: str) -> Tensor:
    [x] = visual.forward_intermediates(images, 1, intermediates_only=True)["image_intermediates"]
    return visual.attnpool.c_proj(visual.attnpool.v_proj(x.permute(0, 2, 3, 1)))  # (B, h, w, C) -> D


def _dense_timm(visual: TimmModel, images: Tensor, variant: str) -> Tensor:
    trunk, blocks = visual.trunk, ()
    if isinstance(trunk, TRANSFORMER):
        if variant == "maskclip" and trunk.attn_pool is None:  # else the pooling is what attends last
            blocks = trunk.blocks[-1:]
        last = len(trunk.blocks) - 1 - len(blocks)
        [x] = trunk.forward_intermediates(images, [last], stop_early=True, intermediates_only=True)
    else:
        x = trunk.forward_features(images)
    x = x.permute(0, 2, 3, 1)  # (B, C, h, w) -> (B, h, w, C)
    return _alone(visual, x.flatten(0, 2), blocks).unflatten(0, x.shape[:3])


def _alone(visual: TimmModel, x: Tensor, blocks: Iterable[nn.Module] = ()) -> Tensor:
    """(N, C) positions -> (N, D), each as an image that holds nothing else."""
    trunk = visual.trunk
    if not isinstance(trunk, TRANSFORMER):
        return visual.head(trunk.forward_head(x[:, :, None, None]))
    x = x[:, None].expand(-1, 1 + trunk.num_prefix_tokens, -1)  # the class token is this patch too
    for block in blocks:
        x = block(x)
    return visual.head(trunk.forward_head(trunk.norm(x)))
