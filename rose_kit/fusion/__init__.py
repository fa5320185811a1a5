"""Retrieved evidence meets the query without training: zero-shot, late fusion, class prototypes."""

from rose_kit.fusion.evidence import pooled_evidence
from rose_kit.fusion.freeda import Freeda
from rose_kit.fusion.fssdino import FssDino
from rose_kit.fusion.knn_clip import KnnClip
from rose_kit.fusion.method import Method, SupportExample
from rose_kit.fusion.retrieval import retrieve
from rose_kit.fusion.zero_shot import ZeroShot

__all__ = [
    "Freeda",
    "FssDino",
    "KnnClip",
    "Method",
    "SupportExample",
    "ZeroShot",
    "pooled_evidence",
    "retrieve",
]
