"""The CLIP that comes with the kit, and any other stored in the same layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file

from rose_kit.encoder.base import WeightsUnavailable, one_line
from rose_kit.encoder.clip import OpenClipEncoder
from rose_kit.encoder.windows import Windows
from rose_kit.registry import register_encoder

WEIGHTS = Path(__file__).parent / "weights"
FILES = ("config.json", "model.safetensors", "merges.txt.gz")
OPTIONS = ("dense", "templates", "words", "thresholds")  # of `OpenClipEncoder`, from `config.json`


@register_encoder("bundled")
def load_bundled(folder: str | Path = WEIGHTS, **options: Any) -> OpenClipEncoder:
    """Load a CLIP from a folder as `python -m data_scripts.bundled` writes it.

    `config.json` holds what `open_clip.model.CLIP` takes (`embed_dim`, `vision_cfg`, `text_cfg`,
    `quick_gelu`) and, optionally, `image_mean`, `image_std`, `windows` (the fields of `Windows`) and the
    `OPTIONS` of the encoder; `model.safetensors` holds the weights, in any precision; `merges.txt.gz` the
    merges of the byte-pair tokenizer, as open_clip's `SimpleTokenizer` reads them.

    Args:
        folder: where the three files are; by default the weights that come with the kit.
        **options: of `OpenClipEncoder`; they win over `config.json`.

    Raises:
        WeightsUnavailable: a file is missing; names it and how to make it.
        ValueError: a file is corrupt, or the files do not belong together.
    """
    folder = Path(folder)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise WeightsUnavailable(
            f"the encoder in {str(folder)!r} lacks {', '.join(missing)}; "
            "`python -m data_scripts.bundled` makes them"
        )
    try:
        config = json.loads((folder / "config.json").read_text())
        model = _build(config, folder / "model.safetensors")
        tokenizer = SimpleTokenizer(str(folder / "merges.txt.gz"), context_length=model.context_length)
        settings = {key: config[key] for key in OPTIONS if key in config}
        if "windows" in config:
            settings["preferred_windows"] = Windows(**config["windows"])
    except Exception as error:  # whatever a corrupt file makes the readers raise
        raise ValueError(f"cannot read the encoder in {str(folder)!r}: {one_line(error)}") from error
    return OpenClipEncoder(model, tokenizer, **{"name": "bundled", **settings, **options})


def _build(config: dict[str, Any], weights: Path) -> open_clip.CLIP:
    keys = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu")
    model = open_clip.CLIP(**{key: config[key] for key in keys if key in config})
    model.load_state_dict({key: value.float() for key, value in load_file(weights).items()})
    model.visual.image_mean = config.get("image_mean")
    model.visual.image_std = config.get("image_std")
    return model
