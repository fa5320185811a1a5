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

from rose_kit.encoder.base import Encoder, WeightsUnavailable
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
    raise ValueError(_unknown(name, architecture, tag))


def _random(architecture: str, seed: int = 0, **options: Any) -> OpenClipEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with _quiet():  # of the warning that the weights are random
            model = open_clip.create_model(architecture, pretrained=None, pretrained_text=False)
    return _wrap(model, architecture, f"{architecture}/random", options)


def _pretrained(architecture: str, tag: str, **options: Any) -> OpenClipEncoder:
    quick_gelu = open_clip.get_pretrained_cfg(architecture, tag).get("quick_gelu", False)
    try:
        with _quick_when_offline():
            model = open_clip.create_model(architecture, pretrained=tag, force_quick_gelu=quick_gelu)
    except (RuntimeError, OSError) as error:
        raise WeightsUnavailable(
            f"could not fetch the weights of {architecture + '/' + tag!r}: this needs the network once "
            "(the encoders 'bundled' and 'handcrafted' work offline)"
        ) from error
    return _wrap(model, architecture, f"{architecture}/{tag}", options)


def _checkpoint(architecture: str, path: Path, **options: Any) -> OpenClipEncoder:
    try:  # open_clip reads .pt with weights_only: tensors, never other objects
        model = open_clip.create_model(architecture, pretrained=str(path), weights_only=True)
    except Exception as error:  # whatever a corrupt file makes the readers raise
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(f"{str(path)!r} is no checkpoint of {architecture}: {reason}") from error
    return _wrap(model, architecture, f"{architecture}/{path.name}", options)


def _wrap(model: torch.nn.Module, architecture: str, name: str, options: dict[str, Any]) -> OpenClipEncoder:
    encoder = OpenClipEncoder(model, **{"name": name, **options})  # first, as it may refuse the model
    try:
        encoder.tokenizer = open_clip.get_tokenizer(architecture)
    except (ImportError, RuntimeError, OSError) as error:  # some are fetched or need a further package
        raise WeightsUnavailable(f"no tokenizer for {name!r}: {error}") from error
    return encoder


def _unknown(name: str, architecture: str, tag: str) -> str:
    known = ", ".join(encoders.names())
    message = f"unknown encoder {name!r}. Known: {known}, or ARCHITECTURE/TAG of open_clip"
    if architecture in open_clip.list_models():
        tags = ", ".join(["random", *open_clip.list_pretrained_tags_by_model(architecture)])
        return f"{message}; {architecture} has {tags}, or the path of a {'/'.join(CHECKPOINTS)} file"
    if Path(name).suffix in CHECKPOINTS:
        return f"{message}; a checkpoint needs its architecture before it, such as 'ViT-B-16/{name}'"
    close = difflib.get_close_matches(architecture, open_clip.list_models(), n=3)
    return f"{message}; open_clip has {', '.join(close)}" if close else message


@contextmanager
def _quick_when_offline() -> Iterator[None]:
    """Without a network the hub's client retries for a minute, loudly: let it look in its cache only."""
    offline = hub.HF_HUB_OFFLINE or not (getproxies() or _reachable(urlsplit(hub.ENDPOINT).hostname))
    with _quiet(), mock.patch.object(hub, "HF_HUB_OFFLINE", offline):
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def _reachable(host: str, timeout: float = 3.0) -> bool:
    try:
        socket.create_connection((host, 443), timeout=timeout).close()
    except OSError:
        return False
    return True
