"""The trainable ROSE: encoder, retriever, fusion, decoder as one `nn.Module`."""

from rose_kit.adapter import methods
from rose_kit.model import cross_attention, none, similarity, transformer  # noqa: F401 (each registers itself)
from rose_kit.model.fusion import FUSIONS
from rose_kit.model.pyramid import FrozenEncoder
from rose_kit.model.retriever import MemoryRetriever
from rose_kit.model.rose import ROSE, RoseMethod

__all__ = ["FUSIONS", "ROSE", "FrozenEncoder", "MemoryRetriever", "RoseMethod", "methods"]
