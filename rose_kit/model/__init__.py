"""The trainable ROSE: encoder, retriever, fusion, decoder as one `nn.Module`."""

# The first imports register their fusions.
from rose_kit.adapter import methods
from rose_kit.model.cross_attention import CrossAttention
from rose_kit.model.decoder import Decoder
from rose_kit.model.fusion import FUSIONS
from rose_kit.model.none import NoFusion
from rose_kit.model.pyramid import FrozenEncoder, MultiScale
from rose_kit.model.retriever import MemoryRetriever, Retrieved
from rose_kit.model.rose import ROSE, RoseMethod
from rose_kit.model.similarity import SimilarityAggregation
from rose_kit.model.transformer import TransformerConditioning

__all__ = [
    "FUSIONS",
    "ROSE",
    "CrossAttention",
    "Decoder",
    "FrozenEncoder",
    "MemoryRetriever",
    "MultiScale",
    "NoFusion",
    "Retrieved",
    "RoseMethod",
    "SimilarityAggregation",
    "TransformerConditioning",
    "methods",
]
