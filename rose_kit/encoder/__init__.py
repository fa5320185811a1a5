"""Perception: image -> FeatureMap, class names -> text features."""

from rose_kit.encoder.base import (
    Encoder,
    NoTextTower,
    WeightsUnavailable,
    Windows,
    find_device,
    preferred_windows,
)
from rose_kit.encoder.clip import OpenClipEncoder
from rose_kit.encoder.handcrafted import HandcraftedEncoder
from rose_kit.encoder.loading import load_encoder
from rose_kit.encoder.photos import PhotosEncoder

__all__ = [
    "Encoder",
    "HandcraftedEncoder",
    "NoTextTower",
    "OpenClipEncoder",
    "PhotosEncoder",
    "WeightsUnavailable",
    "Windows",
    "find_device",
    "load_encoder",
    "preferred_windows",
]
