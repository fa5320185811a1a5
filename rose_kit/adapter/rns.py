"""Retrieve and Segment: a linear head trained per image, at test time, on frozen features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rose_kit.adapter.samples import (
    LAMBDAS,
    Samples,
    class_relevance,
    fused_samples,
    pseudo_samples,
    retrieved_samples,
)
from rose_kit.adapter.solvers import SOLVERS, Head
from rose_kit.fusion.evidence import top_evidence
from rose_kit.fusion.method import StatelessMethod, no_support_error
from rose_kit.fusion.retrieval import RETRIEVALS, Retrieval, Retrieved, restrict, supported_classes
from rose_kit.fusion.text import softmax
from rose_kit.memory.index import Where
from rose_kit.registry import register_method
from rose_kit.types import Evidence, Prediction, Query, Vocabulary


@register_method("rns")
@dataclass
class RNS(StatelessMethod):
    """Retrieve prototypes, fuse them with text, train a head on both, answer with it.

    As the authors' release does it, without its slips. Missing parts: a class without visual support
    is taught by pseudo-labels; a class without text by the mean of the other texts; without any text
    the retrieved prototypes train the head alone; with an empty memory the pseudo-labels do.
    `RNS.published` has the release's own settings.

    Args:
        k: neighbours per patch.
        lambdas: share of vision in the fused samples.
        tau: temperature of the class relevance, 0.1 in the release. None takes a multiple of the cosines'
            own spread (see `class_relevance`).
        beta_fused, beta_pseudo: strength of fused and pseudo-labelled samples (retrieved ones: 1). The
            release has 0.2 for pseudo-labels: its AdamW divides a gradient by its size, so weak samples
            still count there, while against a regulariser they are lost, and classes without visual
            support with them.
        solver: a key of `rose_kit.adapter.SOLVERS`. "lbfgs", the default, minimises a regularised
            objective; the samples being the same, it takes a fiftieth of the time of "adamw", which
            is as published, and its head lies in the span of the samples, so that its evidence is
            complete. `notebooks/experiments/solvers.ipynb` compares them.
        steps, lr, weight_decay, seed: settings of "adamw".
        mu: regularisation of "lbfgs", per class: the objective holds mu / K / 2 * |W|^2 where the
            samples are of K classes, since each class has about 1 / K of the samples' weight.
        tolerance: "lbfgs" stops when a step lowers its objective by less than this share.
        retrieve: which prototypes to train on: "nearest", or for comparison "random" or "furthest" (RNS,
            figure 5), or a function that is called as `rose_kit.fusion.retrieve` is.
        where: metadata that a prototype must have, as for `SupportMemory.search`; None: all are used.

    Raises:
        ValueError: an unknown solver or retrieval, or a number outside its range.
    """

    k: int = 4
    lambdas: Sequence[float] = LAMBDAS
    tau: float | None = None
    beta_fused: float = 1.5
    beta_pseudo: float = 1.0
    solver: str = "lbfgs"
    steps: int = 700
    lr: float = 2e-3
    weight_decay: float = 5e-4
    seed: int = 0
    mu: float = 0.01
    tolerance: float = 5e-3
    retrieve: str | Retrieval = "nearest"
    where: Where | None = None

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            raise ValueError(f"unknown solver {self.solver!r}. Known: {', '.join(sorted(SOLVERS))}")
        if not (callable(self.retrieve) or self.retrieve in list(RETRIEVALS)):
            raise ValueError(f"unknown retrieval {self.retrieve!r}. Known: {', '.join(RETRIEVALS)}")
        for name in ("k", "steps", "tau", "lr", "mu"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance must be in [0, 1), got {self.tolerance}")

    @classmethod
    def published(cls, k: int = 4, steps: int = 700, **options: Any) -> Self:
        """RNS with the release's solver, temperature and strengths; `options` as for the class."""
        return cls(k=k, steps=steps, **({"solver": "adamw", "tau": 0.1, "beta_pseudo": 0.2} | options))

    def predict(self, query, memory, vocabulary, *, initial_weight=None) -> Prediction:
        """See `Method.predict`; `initial_weight` is where the solver starts."""
        query, memory = Query.of(query), restrict(memory, self.where)
        retrieve = self.retrieve if callable(self.retrieve) else RETRIEVALS[self.retrieve]
        retrieved = retrieve(query.features, memory, vocabulary, self.k)
        samples = self.samples(query, retrieved, memory, vocabulary)
        relevance = class_relevance(query.image_feature, vocabulary, self.tau)
        start = _checked_start(initial_weight, (len(vocabulary), query.features.shape[1]))
        head = self.solve(samples, samples.weight(relevance), start)
        logits = head.logits(query.features)  # (N, C)
        evidence = self.explain(head, logits, query.features, samples, retrieved, memory, vocabulary)
        return Prediction(softmax(logits), evidence)

    def samples(self, query: Query, retrieved: Retrieved, memory, vocabulary: Vocabulary) -> Samples:
        """The training set of one image: retrieved, fused and pseudo-labelled samples.

        Raises:
            ValueError: there is neither text nor a prototype to learn from.
        """
        parts = [retrieved_samples(retrieved, len(vocabulary))]
        if vocabulary.has_text.any():
            if len(retrieved):
                classes, prototypes = np.unique(retrieved.classes), memory.class_prototypes(vocabulary.names)
                parts.append(fused_samples(prototypes, classes, vocabulary, self.lambdas, self.beta_fused))
            known = supported_classes(memory, vocabulary)
            parts.append(pseudo_samples(query.features, known, vocabulary, self.lambdas, self.beta_pseudo))
        if not sum(map(len, parts)):
            raise no_support_error(vocabulary)
        return Samples.join(parts)

    def solve(self, samples: Samples, weight: NDArray, start: NDArray | None = None) -> Head:
        """Train a head by the chosen solver.

        Args:
            samples: S samples of width D.
            weight: (S,) float32, from `Samples.weight`.
            start: (C, D) float32 initial weight; None leaves it to the solver.
        """
        settings = vars(self) | {"mu": self.mu / len(np.unique(samples.label))}
        return SOLVERS[self.solver](samples.features, samples.target, weight, start, **settings)

    def explain(self, head: Head, logits: NDArray, features: NDArray, samples: Samples, retrieved: Retrieved,
                memory, vocabulary: Vocabulary) -> Evidence | None:  # fmt: skip
        """Split each winning logit over the retrieved prototypes; None where nothing was retrieved.

        With W = A X, the logit W_c . x + b is the sum over samples of A_cs <X_s, x>. A retrieved sample
        is a prototype; a fused one contains v_c = sum_i v_ic / |sum_i v_ic|, hence every prototype of its
        class. What comes from text, pseudo-labels, bias, prototypes of the class that were not retrieved,
        and the part of W outside the span, is in the remainder row.
        """
        if not len(retrieved):
            return None
        winner, names = logits.argmax(1), np.array(vocabulary.names)
        factors = prototype_factors(head, samples, retrieved, memory, vocabulary)  # (C, R)
        contributions = factors[winner] * (features @ retrieved.vectors.T)  # (N, R)
        owners = names[retrieved.classes]
        return top_evidence(contributions, retrieved.ids, owners, logits.max(1), names[winner])


def prototype_factors(
    head: Head, samples: Samples, retrieved: Retrieved, memory, vocabulary: Vocabulary
) -> NDArray[np.floating]:
    """(C, R): factor of each retrieved prototype in each row of the head's weight."""
    a = span_coefficients(head, samples)  # (C, S)
    factors = a[:, : len(retrieved)].copy()  # (C, R): retrieved samples come first, in order
    fused = np.flatnonzero(samples.visual_share)
    if len(fused):
        classes, inverse = np.unique(retrieved.classes, return_inverse=True)
        norm = np.linalg.norm(memory.class_sums([vocabulary.names[c] for c in classes]), axis=1)  # (classes,)
        member = samples.label[fused][:, None] == retrieved.classes  # (F, R)
        factors += a[:, fused] * samples.visual_share[fused] @ (member / norm[inverse]).astype(np.float32)
    return factors


def span_coefficients(head: Head, samples: Samples, ridge: float = 0.1) -> NDArray[np.floating]:
    """(C, S) coefficients A with W = A X, as nearly as the span of the samples allows.

    The solver's own, if it knows them: only what an initial weight put into W is then left over. Else,
    as for "adamw", which leaves its random start in W, those of ridge regression: along directions in
    which the samples hardly differ, coefficients of least norm would be huge and cancel each other,
    and explain nothing. The ridge leaves those directions to the remainder.
    """
    if head.coefficients is not None:
        return head.coefficients
    x, w = samples.features.astype(np.float64), head.weight.astype(np.float64)  # (S, D), (C, D)
    if len(x) <= x.shape[1]:
        return np.linalg.solve(x @ x.T + ridge * np.eye(len(x)), x @ w.T).T  # W X' (X X')^-1
    return np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), w.T).T @ x.T  # W (X' X)^-1 X'


def _checked_start(weight: NDArray | None, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    if weight is not None and np.shape(weight) != shape:
        raise ValueError(f"initial_weight has shape {np.shape(weight)}, but the head is {shape}")
    return None if weight is None else np.asarray(weight, dtype=np.float32)
