"""No fusion: the parametric baseline, which looks nothing up."""

from torch import Tensor, nn

from rose_kit.model.fusion import FUSIONS
from rose_kit.model.retriever import RetrievedBatch


@FUSIONS.register("none")
class NoFusion(nn.Module):
    """The query as it is; same decoder, same training.

    Args:
        dim: D, the width of the features; unused.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, z: Tensor, retrieved: RetrievedBatch | None) -> Tensor:
        """(B, N, D) -> the same."""
        return z
