"""Weighted similarity aggregation: the nearer a row, the more it counts."""

from rose_kit.model.fusion import FUSIONS, Fusion


@FUSIONS.register("similarity")
class SimilarityAggregation(Fusion):
    """Weight = softmax(cosine / temperature); all that is learned is the temperature and the gate.

    Args:
        dim: D, the width of the features.
    """
