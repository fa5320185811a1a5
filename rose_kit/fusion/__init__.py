"""Retrieved evidence meets the query without training: zero-shot, and late fusion of text and vision."""

from rose_kit.fusion.evidence import pooled_evidence
from rose_kit.fusion.freeda import Freeda
from rose_kit.fusion.knn_clip import KnnClip
from rose_kit.fusion.method import Method, SupportExample
from rose_kit.fusion.retrieval import RETRIEVALS, Retrieved, retrieve
from rose_kit.fusion.zero_shot import ZeroShot

__all__ = [
    "RETRIEVALS",
    "Freeda",
    "KnnClip",
    "Method",
    "Retrieved",
    "SupportExample",
    "ZeroShot",
    "pooled_evidence",
    "retrieve",
]
