"""The CLIP that comes with the kit, and any other stored in the same layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
from safetensors.torch import load_file

from rose_kit.encoder.base import WeightsUnavailable
from rose_kit.encoder.clip import OpenClipEncoder
from rose_kit.encoder.windows import Windows
from rose_kit.registry import register_encoder

WEIGHTS = Path(__file__).parent / "weights"
FILES = ("config.json", "model.safetensors", "tokenizer.json")


@register_encoder("bundled")
def load_bundled(folder: str | Path = WEIGHTS, **options: Any) -> OpenClipEncoder:
    """Load a CLIP from a folder as `rose-kit train-encoder` writes it.

    `config.json` holds what `open_clip.model.CLIP` takes (`embed_dim`, `vision_cfg`, `text_cfg`,
    `quick_gelu`) and, optionally, `image_mean`, `image_std`, `dense`, `templates` and `windows` (the
    fields of `Windows`); `model.safetensors` the weights, in any precision; `tokenizer.json` the merges.

    Args:
        folder: where the three files are; by default the weights that come with the kit.
        **options: of `OpenClipEncoder`; they win over `config.json`.

    Raises:
        WeightsUnavailable: a file is missing; names it and how to make it.
    """
    from rose_kit.encoder.tokenizer import BPETokenizer

    folder = Path(folder)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise WeightsUnavailable(
            f"the encoder in {str(folder)!r} lacks {', '.join(missing)}; `rose-kit train-encoder` makes them"
        )
    config = json.loads((folder / "config.json").read_text())
    keys = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu")
    model = open_clip.CLIP(**{key: config[key] for key in keys if key in config})
    weights = {key: value.float() for key, value in load_file(folder / "model.safetensors").items()}
    model.load_state_dict(weights)
    model.visual.image_mean = config.get("image_mean")
    model.visual.image_std = config.get("image_std")
    settings = {key: config[key] for key in ("dense", "templates") if key in config}
    if "windows" in config:
        settings["preferred_windows"] = Windows(**config["windows"])
    tokenizer = BPETokenizer.load(folder / "tokenizer.json")
    return OpenClipEncoder(model, tokenizer, **{"name": "bundled", **settings, **options})
