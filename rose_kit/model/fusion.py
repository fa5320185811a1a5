"""Retrieval and fusion, f = F(z, R): each patch is enriched by the rows that are retrieved for it.

A fusion decides how much each row counts; what it adds is the row as it is, not a learned projection of
it. So a class that is added after training takes part: its rows and its prototype reach the decoder
unchanged. One of your own is a class with `@register_fusion("its name")`, and is trained by that name.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rose_kit.fusion.retrieval import retrieve
from rose_kit.memory import SupportMemory
from rose_kit.registry import register_fusion
from rose_kit.types import Vocabulary, to_tensor


@dataclass(frozen=True)
class Neighbours:
    """The K nearest rows of each of N queries, the nearest first; zeros where the memory has fewer rows.

    Args:
        values: (N, K, D) float32 the rows.
        class_values: (N, K, D) float32 the prototype of each row's class.
        scores: (N, K) float32 the cosine of query and row.
        valid: (N, K) bool whether there is such a row.
    """

    values: Tensor
    class_values: Tensor
    scores: Tensor
    valid: Tensor


def nearest_rows(z: Tensor, memory: SupportMemory, vocabulary: Vocabulary, k: int) -> Neighbours:
    """Search the memory for each query, among the rows of the vocabulary's classes.

    Args:
        z: (N, D) float32 queries, unit norm.
        memory: it may be empty.
        vocabulary: C classes.
        k: rows per query.

    Raises:
        ValueError: the queries are not as wide as the memory.
    """
    nearest = retrieve(z.detach(), memory, vocabulary, k)  # R different rows
    prototypes = to_tensor(memory.class_prototypes(vocabulary.names), z.device)  # (C, D)

    def gather(vectors: Tensor) -> Tensor:
        """(R, D) -> (N, K, D)."""
        return nn.functional.pad(vectors, (0, 0, 0, 1))[nearest.positions]  # position -1 is this last row

    valid = nearest.positions >= 0  # (N, K)
    scores = nearest.scores.where(valid, 0.0)
    return Neighbours(gather(nearest.vectors), gather(prototypes[nearest.classes]), scores, valid)


@register_fusion("none")
class NoFusion(nn.Identity):
    """The patches as they are: the parametric baseline, with the same decoder and training.

    Args:
        dim: D, the width of the features; not used.
    """

    def forward(self, z: Tensor, retrieved: Neighbours) -> Tensor:
        """(N, D) -> the same."""
        return z


class Fusion(nn.Module):
    """Base of the fusions: query + gate * sum of weight * (row + the prototype of its class).

    The gate depends on how near the rows are and how even their weights, never on their classes. What the
    weights are is up to each fusion, by `relevance`.

    Args:
        dim: D, the width of the features.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.log_inv_temperature = nn.Parameter(torch.tensor(3.0))
        self.gate = nn.Sequential(nn.Linear(3, 16), nn.GELU(), nn.Linear(16, 1))

    def relevance(self, z: Tensor, retrieved: Neighbours) -> Tensor:
        """(N, K) logits of the rows; higher counts more."""
        return retrieved.scores * self.log_inv_temperature.exp()

    def weights(self, z: Tensor, retrieved: Neighbours) -> Tensor:
        """(N, K) weights of the rows: they sum to 1, or to 0 where nothing was retrieved."""
        logits = self.relevance(z, retrieved).masked_fill(~retrieved.valid, -1e4)
        return logits.softmax(-1) * retrieved.valid

    def forward(self, z: Tensor, retrieved: Neighbours) -> Tensor:
        """Enrich each query.

        Args:
            z: (N, D) queries, unit norm.
            retrieved: their neighbours.

        Returns:
            (N, D), not of unit norm; `z` itself where nothing was retrieved.
        """
        w = self.weights(z, retrieved)  # (N, K)
        context = torch.einsum("nk,nkd->nd", w, retrieved.values + retrieved.class_values)
        nearest, mean = retrieved.scores[:, 0], (w * retrieved.scores).sum(-1)  # (N,) each
        statistics = torch.stack([nearest, mean, (w * w).sum(-1)], -1)  # (N, 3)
        return z + 2 * self.gate(statistics).sigmoid() * context


@register_fusion("similarity")
class SimilarityAggregation(Fusion):
    """Weighted similarity aggregation: weight = softmax(cosine / temperature).

    Only the temperature and the gate are learned.
    """


@register_fusion("cross-attention")
class CrossAttention(Fusion):
    """Cross-attention: relevance = cosine / temperature + query . key, both projected by learned matrices.

    A key is made of the row and the prototype of its class.

    Args:
        dim: D, the width of the features.
        width: of queries and keys.
    """

    def __init__(self, dim: int, width: int = 64) -> None:
        super().__init__(dim)
        self.query, self.key = nn.Linear(dim, width), nn.Linear(2 * dim, width)

    def relevance(self, z: Tensor, retrieved: Neighbours) -> Tensor:
        """(N, K) logits of the rows."""
        keys = self.key(torch.cat([retrieved.values, retrieved.class_values], -1))  # (N, K, width)
        learned = torch.einsum("nw,nkw->nk", self.query(z), keys) / keys.shape[-1] ** 0.5
        return super().relevance(z, retrieved) + learned


@register_fusion("transformer")
class TransformerConditioning(Fusion):
    """A transformer over [query, rows]: the relevance of a row depends on what else was retrieved.

    Args:
        dim: D, the width of the features.
        width: of the tokens.
        heads, layers: of the transformer.
    """

    def __init__(self, dim: int, width: int = 48, heads: int = 4, layers: int = 1) -> None:
        super().__init__(dim)
        self.query, self.row = nn.Linear(dim, width), nn.Linear(2 * dim + 1, width)
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, 0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.score = nn.Linear(width, 1)

    def relevance(self, z: Tensor, retrieved: Neighbours) -> Tensor:
        """(N, K) logits of the rows."""
        rows = torch.cat([retrieved.values, retrieved.class_values, retrieved.scores[..., None]], -1)
        tokens = torch.cat([self.query(z)[:, None], self.row(rows)], 1)  # (N, 1 + K, width)
        absent = nn.functional.pad(~retrieved.valid, (1, 0))  # (N, 1 + K); the query is always there
        context = self.layers(tokens, src_key_padding_mask=absent)[:, 1:]  # (N, K, width)
        return super().relevance(z, retrieved) + self.score(context).squeeze(-1)
