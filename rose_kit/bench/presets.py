"""Settings of `rose-kit evaluate` under one name: the kit's own protocol, and the paper's two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rose_kit.encoder import Windows
from rose_kit.regions.sam import AUTHORS


@dataclass(frozen=True)
class Preset:
    """What an evaluation does where nobody says otherwise; the defaults are those without a preset.

    Args:
        methods: names, compared side by side; None means all that see no more than their support.
        options: method -> its options, where they differ from its defaults.
        support_windows, query_windows: how images are scaled and cut before they are encoded; None: as the
            encoder prefers, or else whole.
        seeds: one draw of support images each.
        encoder: what `load_encoder` takes.
        size: side of drawn scenes in pixels.
        regions: maker of regions -> its options, for those who ask for regions at all.
    """

    methods: tuple[str, ...] | None = None
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    support_windows: Windows | None = None
    query_windows: Windows | None = None
    seeds: tuple[int, ...] = (1, 2, 3)
    encoder: str = "bundled"
    size: int = 160
    regions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


# Method by method as in the RNS release: both of its configurations say the same.
_METHODS = ("zero-shot", "knn-clip", "freeda", "rns")
_RELEASED = {
    "k": 4,
    "lambdas": (0.9, 0.8, 0.6, 0.4, 0.2, 0.0),
    "tau": 0.1,
    "beta_fused": 1.5,
    "beta_pseudo": 0.2,
    "solver": "adamw",
    "steps": 700,
    "lr": 2e-3,
    "weight_decay": 5e-4,
}
_OPENCLIP = Preset(
    _METHODS,
    {"rns": _RELEASED},
    support_windows=Windows(short_side=448, crops=(448, 224), stride=112),
    query_windows=Windows(short_side=448, crops=(448,), stride=224),
    seeds=(100, 18, 42, 84),  # of its README; VOC and Cityscapes ran on 92, 256, 512, 1024 too
    encoder="ViT-B-16/laion2b_s34b_b88k",
    regions={"sam": AUTHORS},  # larger masks on top
)

PRESETS: dict[str, Preset] = {
    "rns": Preset(_METHODS, size=128),  # as `make bench`
    "rns-openclip": _OPENCLIP,
    "rns-dinov3txt": replace(  # DINOv3.txt ViT-L/16; its support images keep their own size
        _OPENCLIP,
        support_windows=Windows(crops=(384,), stride=112),
        query_windows=Windows(short_side=384, crops=(384,), stride=192),
        encoder="dinov3txt",
    ),
}
