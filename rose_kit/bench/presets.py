"""Published settings, as keyword arguments of `evaluate`."""

from __future__ import annotations

from typing import Any

from rose_kit.encoder import Windows

# The RNS release: the seeds of its README, windows as in its two configurations. VOC and Cityscapes
# were run on four seeds more: 92, 256, 512, 1024.
_SEEDS = (100, 18, 42, 84)

PRESETS: dict[str, dict[str, Any]] = {
    "rns-openclip": {  # for ViT-B-16/laion2b_s34b_b88k
        "support_windows": Windows(short_side=448, crops=(448, 224), stride=112),
        "query_windows": Windows(short_side=448, crops=(448,), stride=224),
        "seeds": _SEEDS,
    },
    "rns-dinov3txt": {  # for DINOv3.txt ViT-L/16; its support images keep their own size
        "support_windows": Windows(crops=(384,), stride=112),
        "query_windows": Windows(short_side=384, crops=(384,), stride=192),
        "seeds": _SEEDS,
    },
}
