"""Retrieved evidence meets the query without training: zero-shot, and late fusion of text and vision."""

from rose_kit.fusion.evidence import pooled_evidence
from rose_kit.fusion.late import Freeda, KnnClip
from rose_kit.fusion.method import Method, SupportExample
from rose_kit.fusion.retrieval import retrieve
from rose_kit.fusion.zero_shot import ZeroShot

__all__ = ["Freeda", "KnnClip", "Method", "SupportExample", "ZeroShot", "pooled_evidence", "retrieve"]
