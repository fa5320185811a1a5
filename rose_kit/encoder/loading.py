"""From a name to an encoder: a registered one, a folder, or any model of open_clip."""

import json
import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import huggingface_hub.constants as hub
import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from rose_kit.encoder.base import Encoder, WeightsUnavailable, Windows, content_hash, find_device
from rose_kit.encoder.clip import OpenClipEncoder
from rose_kit.registry import encoders, errors_as, register_encoder
from rose_kit.types import unknown_name

WEIGHTS = Path(__file__).parent / "weights"
TOWERS = {"clear": WEIGHTS, "vague": WEIGHTS / "vague"}  # two text towers over one vision tower
BUNDLED = "vague"  # the tower that the plain name "bundled" means
TEXT = "text.safetensors"  # what a folder with a text tower alone holds


def load_encoder(name: str, device: str | torch.device = "auto", **options: Any) -> Encoder:
    """Build an encoder by name.

    Args:
        name: one of
            a registered name: "bundled/clear", "bundled/vague", "bundled" (one of the two, `BUNDLED`),
            "photos", "handcrafted", or your own `@register_encoder`; it wins over a folder of that name;
            "FOLDER": a local folder, see `load_bundled`;
            "ARCHITECTURE/TAG": open_clip weights, fetched once, such as "ViT-B-16/laion2b_s34b_b88k"; those
                of SigLIP and of multilingual models need the extra `transformers` for their tokenizers;
            "ARCHITECTURE/PATH": a local checkpoint (.safetensors, or .pt holding tensors only).
        device: where it runs, see `find_device`: "auto", "cpu", "cuda", "cuda:1", "mps".
        **options: passed on; for CLIP models `dense`, `templates`, ... of `OpenClipEncoder`.

    Raises:
        ValueError: the name is none of these; lists some that are known, and the nearest. Or this machine has
            no such device, or the encoder cannot be moved to it.
        WeightsUnavailable: (a ValueError) the weights are missing, cannot be read, or could not be fetched.

    >>> load_encoder("handcrafted").dim
    512
    """
    target, encoder = find_device(device), _load(name, options)
    if hasattr(encoder, "to"):
        return encoder.to(target)
    if device != "auto":
        raise ValueError(f"encoder {name!r} has no method `to`, so it cannot be moved to {str(device)!r}")
    return encoder


def _load(name: str, options: Mapping[str, Any]) -> Encoder:
    if name in encoders.names():
        return encoders.make(name, **options)
    if name and Path(name).is_dir():
        return load_bundled(name, **options)
    architecture, _, weights = name.partition("/")
    architectures, tags = open_clip.list_models(), open_clip.list_pretrained_tags_by_model(architecture)
    if architecture in architectures and (weights in tags or Path(weights).is_file()):
        return _load_open_clip(architecture, weights, **options)
    published = [f"{architecture}/{tag}" for tag in tags]
    raise unknown_name("encoder", name, [*encoders.names(), *(published or architectures)])


def _load_open_clip(architecture: str, weights: str, **options: Any) -> OpenClipEncoder:
    """Load a model of open_clip; the weights are one of its tags, or the path of a checkpoint."""
    name = f"{architecture}/{Path(weights).name}"
    quick = open_clip.get_pretrained_cfg(architecture, weights).get("quick_gelu", False)
    offline = hub_if_it_answers()
    quiet = mock.patch.object(logging, "error")  # open_clip logs at length what the error below says
    once = "" if Path(weights).is_file() else " (fetched once; 'photos' and 'bundled' work offline)"
    with errors_as(WeightsUnavailable, f"cannot load the weights of {name!r}{once}"), offline, quiet:
        # weights_only: tensors are read from a checkpoint, never other objects
        model = open_clip.create_model(architecture, weights, force_quick_gelu=quick, weights_only=True)
        tokenizer = open_clip.get_tokenizer(architecture)  # some are fetched or need a further package
    return OpenClipEncoder(model, tokenizer, **{"name": name, **options})


def hub_if_it_answers() -> AbstractContextManager:
    """Inside it, the Hugging Face hub is offline unless it answers: its client would retry for a minute."""
    return mock.patch.object(hub, "HF_HUB_OFFLINE", not _hub_answers())


def _hub_answers() -> bool:
    """Whether the Hugging Face hub may and can be reached."""
    if hub.HF_HUB_OFFLINE:
        return False
    try:
        httpx.head(hub.ENDPOINT, timeout=3)
    except httpx.HTTPError:
        return False
    return True


@register_encoder("bundled")
def load_bundled(folder: str | Path | None = None, **options: Any) -> OpenClipEncoder:
    """Load a CLIP from a folder as `python -m data_scripts.bundled` writes it.

    `model.safetensors` holds the weights, in any precision; `merges.txt.gz` the merges of the byte-pair
    tokenizer, as open_clip's `SimpleTokenizer` reads them; `config.json` what `open_clip.model.CLIP` takes
    (`embed_dim`, `vision_cfg`, `text_cfg`, `quick_gelu`) and, optionally, `image_mean` and `image_std`, the
    options `dense` and `templates` of `OpenClipEncoder`, and `windows`, the fields of the encoder's
    `preferred_windows`.

    `text.safetensors`, if it is there, holds the text tower in place of that of the model; a folder may hold
    it alone, and the rest is then that of "bundled/clear".

    Args:
        folder: where the files are; None: those that `BUNDLED` names.
        **options: of `OpenClipEncoder`; they win over `config.json`.

    Raises:
        WeightsUnavailable: (a ValueError) a file is missing or corrupt, or the files do not belong together.
    """
    folder = Path(folder or TOWERS[BUNDLED])
    text_alone = (folder / TEXT).exists() and not (folder / "model.safetensors").exists()
    base = WEIGHTS if text_alone else folder
    how = "`python -m data_scripts.bundled` makes such a folder"
    with errors_as(WeightsUnavailable, f"cannot load {str(folder)!r} ({how})"):
        config = json.loads((base / "config.json").read_text())
        architecture = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"} & config.keys()
        model = open_clip.CLIP(**{key: config[key] for key in architecture})
        weights = load_file(base / "model.safetensors")
        if (folder / TEXT).exists():
            weights |= _load_text(folder / TEXT, weights)
        model.load_state_dict({key: value.float() for key, value in weights.items()})
        model.visual.image_mean, model.visual.image_std = config.get("image_mean"), config.get("image_std")
        tokenizer = SimpleTokenizer(str(base / "merges.txt.gz"), context_length=model.context_length)
        windows = Windows(**config["windows"]) if "windows" in config else None
    settings = {key: config[key] for key in ("dense", "templates") if key in config}
    encoder = OpenClipEncoder(model, tokenizer, **{"name": "bundled", **settings, **options})
    encoder.preferred_windows = windows
    encoder.batch_size = 64  # its windows are small
    return encoder


def _load_text(path: Path, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A text tower, once it is sure that it belongs to the vision tower among `weights`.

    Raises:
        ValueError: it was trained over another one, or is not whole.
    """
    vision = {key: value.float() for key, value in weights.items() if key.startswith("visual.")}
    with safe_open(path, "pt") as file:
        theirs = (file.metadata() or {}).get("vision")
    text = load_file(path)
    if theirs != (ours := content_hash(vision)):
        raise ValueError(f"{path.name} was trained over the vision tower {theirs}, not over {ours}")
    if text.keys() != weights.keys() - vision.keys():
        raise ValueError(
            f"{path.name} holds {len(text)} tensors of the {len(weights) - len(vision)} of a text tower"
        )
    return text


for _tower, _folder in TOWERS.items():
    register_encoder(f"bundled/{_tower}")(partial(load_bundled, _folder, name=f"bundled/{_tower}"))
