"""From a name to an encoder."""

from __future__ import annotations

import difflib
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlsplit
from urllib.request import getproxies

import huggingface_hub.constants as hub
import open_clip
import torch

from rose_kit.encoder.base import Encoder, WeightsUnavailable, one_line
from rose_kit.encoder.bundled import load_bundled
from rose_kit.encoder.clip import OpenClipEncoder
from rose_kit.registry import encoders

CHECKPOINTS = (".safetensors", ".pt", ".pth", ".bin")


def load_encoder(name: str, **options: Any) -> Encoder:
    """Build an encoder by name.

    Args:
        name: one of
            a registered name: "bundled", "handcrafted", or your own `@register_encoder`;
            "ARCHITECTURE/TAG": open_clip weights, fetched once, such as "ViT-B-16/laion2b_s34b_b88k";
            "ARCHITECTURE/random": untrained weights, by `seed`, for tests and timings;
            "ARCHITECTURE/PATH": a local checkpoint (.safetensors, or .pt holding tensors only);
            "FOLDER": a local folder as `python -m data_scripts.bundled` writes it.
        **options: passed on; for CLIP models `dense`, `device`, `templates`, ... of `OpenClipEncoder`.

    Raises:
        ValueError: the name is none of these; lists known encoders and close open_clip models.
        WeightsUnavailable: (a ValueError) the weights are not here and could not be fetched.

    >>> load_encoder("handcrafted").dim
    512
    """
    if name in encoders.names():
        return encoders.make(name, **options)
    if name and Path(name).is_dir():
        return load_bundled(name, **options)
    architecture, _, tag = name.partition("/")
    if tag and architecture in open_clip.list_models():
        if tag == "random":
            return _random(architecture, **options)
        if tag in open_clip.list_pretrained_tags_by_model(architecture):
            return _pretrained(architecture, tag, **options)
        if Path(tag).is_file() and Path(tag).suffix in CHECKPOINTS:
            return _checkpoint(architecture, Path(tag), **options)
    raise ValueError(_unknown(name, architecture))


def _random(architecture: str, seed: int = 0, **options: Any) -> OpenClipEncoder:
    with torch.random.fork_rng(devices=[]), _quietly():  # it would warn that the weights are random
        torch.manual_seed(seed)
        model = open_clip.create_model(architecture, pretrained=None, pretrained_text=False)
    return _with_tokenizer(model, architecture, "random", options)


def _pretrained(architecture: str, tag: str, **options: Any) -> OpenClipEncoder:
    quick_gelu = open_clip.get_pretrained_cfg(architecture, tag).get("quick_gelu", False)
    try:
        with _quietly(offline=_offline()):
            model = open_clip.create_model(architecture, pretrained=tag, force_quick_gelu=quick_gelu)
    except (RuntimeError, OSError) as error:
        raise WeightsUnavailable(
            f"could not fetch the weights of {architecture + '/' + tag!r}: this needs the network once "
            "(the encoders 'bundled' and 'handcrafted' work offline)"
        ) from error
    return _with_tokenizer(model, architecture, tag, options)


def _checkpoint(architecture: str, path: Path, **options: Any) -> OpenClipEncoder:
    try:  # open_clip reads .pt with weights_only: tensors, never other objects
        model = open_clip.create_model(architecture, pretrained=str(path), weights_only=True)
    except Exception as error:  # whatever a corrupt file makes the readers raise
        raise ValueError(f"{str(path)!r} is no checkpoint of {architecture}: {one_line(error)}") from error
    return _with_tokenizer(model, architecture, path.name, options)


def _with_tokenizer(
    model: torch.nn.Module, architecture: str, tag: str, options: dict[str, Any]
) -> OpenClipEncoder:
    encoder = OpenClipEncoder(model, **{"name": f"{architecture}/{tag}", **options})  # may refuse the model
    try:
        encoder.tokenizer = open_clip.get_tokenizer(architecture)
    except (ImportError, RuntimeError, OSError) as error:  # some are fetched or need a further package
        raise WeightsUnavailable(f"no tokenizer for {encoder.name!r}: {error}") from error
    return encoder


def _unknown(name: str, architecture: str) -> str:
    message = (
        f"unknown encoder {name!r}. Known: {', '.join(encoders.names())}, or ARCHITECTURE/TAG of open_clip"
    )
    if architecture in open_clip.list_models():
        tags = ", ".join(["random", *open_clip.list_pretrained_tags_by_model(architecture)])
        return f"{message}; {architecture} has {tags}, or the path of a {'/'.join(CHECKPOINTS)} file"
    close = difflib.get_close_matches(architecture, [*encoders.names(), *open_clip.list_models()], n=3)
    return f"{message}; did you mean {' or '.join(close)}?" if close else message


@contextmanager
def _quietly(offline: bool = False) -> Iterator[None]:
    """Without warnings; offline, the hub's client looks in its cache only (it would retry for a minute)."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with mock.patch.object(hub, "HF_HUB_OFFLINE", offline or hub.HF_HUB_OFFLINE):
            yield
    finally:
        logging.disable(before)


def _offline() -> bool:
    """Whether the hub may not or cannot be reached; a proxy is taken to reach it."""
    if hub.HF_HUB_OFFLINE:
        return True
    if getproxies():
        return False
    try:
        socket.create_connection((urlsplit(hub.ENDPOINT).hostname, 443), timeout=3).close()
    except OSError:
        return True
    return False
