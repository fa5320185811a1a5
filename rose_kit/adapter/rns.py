"""Retrieve and Segment: a linear head trained per image, at test time, on frozen features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rose_kit.adapter.explain import head_evidence
from rose_kit.adapter.samples import (
    LAMBDAS,
    Samples,
    class_relevance,
    fused_samples,
    pseudo_samples,
    retrieved_samples,
)
from rose_kit.adapter.solvers import SOLVERS, Head
from rose_kit.adapter.tuning import best_mu
from rose_kit.fusion.method import nothing_to_go_on
from rose_kit.fusion.retrieval import Retrieved, supported_classes
from rose_kit.fusion.selection import check_retrieval, select
from rose_kit.fusion.text import softmax
from rose_kit.registry import register_method
from rose_kit.types import Evidence, Prediction, Query, Vocabulary


@register_method("rns")
@dataclass
class RNS:
    """Retrieve prototypes, fuse them with text, train a head on both, answer with it.

    As the authors' release does it, without its slips. Missing parts: a class without visual support
    is taught by pseudo-labels; a class without text by the mean of the other texts; without any text
    the retrieved prototypes train the head alone; with an empty memory the pseudo-labels do.

    Args:
        k: neighbours per patch.
        retrieval: which prototypes to train on, a key of `rose_kit.fusion.RETRIEVALS`.
        lambdas: share of vision in the fused samples.
        tau: temperature of the class relevance. None means 0.1 with "adamw", as published, and a multiple
            of the cosines' own spread with others (see `class_relevance`).
        beta_fused, beta_pseudo: strength of fused and pseudo-labelled samples (retrieved ones: 1). For
            pseudo-labels None means 0.2 with "adamw", as published, and 1 with others: AdamW divides
            a gradient by its size, so weak samples still count there, while against a regulariser
            they are lost, and classes without visual support with them.
        solver: a key of `rose_kit.adapter.SOLVERS`. "lbfgs", the default, minimises a regularised
            objective; the samples being the same, it takes a fiftieth of the time of "adamw", which
            is as published, and its head lies in the span of the samples, so that its evidence is
            complete. `notebooks/experiments/solvers.ipynb` compares them.
        steps, lr, weight_decay, seed: settings of "adamw"; the seed is also that of random retrieval.
        mu: regularisation of "lbfgs", per class: the objective holds mu / K / 2 * |W|^2 where the
            samples are of K classes, since each class has about 1 / K of the samples' weight.
        tune: let `fit` choose `mu`, leaving out one support image at a time, into `fitted_mu`. Off by
            default: a left-out image takes classes with it, so that at few shots a weaker regulariser
            looks better than it is.
        tolerance: "lbfgs" stops when a step lowers its objective by less than this share.
    """

    k: int = 4
    retrieval: str = "nearest"
    lambdas: Sequence[float] = LAMBDAS
    tau: float | None = None
    beta_fused: float = 1.5
    beta_pseudo: float | None = None
    solver: str = "lbfgs"
    steps: int = 700
    lr: float = 2e-3
    weight_decay: float = 5e-4
    seed: int = 0
    mu: float = 0.01
    tune: bool = False
    tolerance: float = 5e-3
    fitted_mu: float | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_retrieval(self.retrieval)
        if self.solver not in SOLVERS:
            raise ValueError(f"unknown solver {self.solver!r}. Known: {', '.join(sorted(SOLVERS))}")
        if self.solver == "adamw":
            self.tau = 0.1 if self.tau is None else self.tau
        if self.beta_pseudo is None:
            self.beta_pseudo = 0.2 if self.solver == "adamw" else 1.0
        for name in ("k", "steps", "tau", "lr", "mu"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance must be in [0, 1), got {self.tolerance}")

    def fit(self, memory, vocabulary, support=None) -> RNS:
        """See `Method.fit`: with `tune` and support images, choose `mu`; else nothing is learnt."""
        tuned = self.tune and support is not None and self.solver != "adamw"
        self.fitted_mu = best_mu(self, memory, vocabulary, support) if tuned else None
        return self

    def predict(self, query, memory, vocabulary, *, initial_weight=None) -> Prediction:
        """See `Method.predict`; `initial_weight` is where the solver starts."""
        query = Query.of(query)
        found = self.retrieve(query, memory, vocabulary)
        samples = self.samples(query, found, memory, vocabulary)
        relevance = class_relevance(query.image_feature, vocabulary, self.tau)
        start = _checked_start(initial_weight, (len(vocabulary), query.features.shape[1]))
        head = self.solve(samples, samples.weight(relevance), start)
        logits = head.logits(query.features)  # (N, C)
        evidence = self.explain(head, logits, query.features, samples, found, memory, vocabulary)
        return Prediction(softmax(logits), evidence)

    def retrieve(self, query: Query, memory, vocabulary: Vocabulary) -> Retrieved:
        """The prototypes to learn from, by the chosen retrieval."""
        return select(self.retrieval, query.features, memory, vocabulary, self.k, seed=self.seed)

    def solve(
        self, samples: Samples, weight: NDArray, start: NDArray | None = None, mu: float | None = None
    ) -> Head:
        """Train a head by the chosen solver.

        Args:
            samples: S samples of width D.
            weight: (S,) float32, from `Samples.weight`.
            start: (C, D) float32 initial weight; None leaves it to the solver.
            mu: per class; None takes what `fit` chose, or else the method's own.
        """
        mu = mu or self.fitted_mu or self.mu
        settings = vars(self) | {"mu": mu / len(np.unique(samples.label))}
        return SOLVERS[self.solver](samples.features, samples.target, weight, start, **settings)

    def samples(self, query: Query, found: Retrieved, memory, vocabulary: Vocabulary) -> Samples:
        """The training set of one image: retrieved, fused and pseudo-labelled samples.

        Raises:
            ValueError: there is neither text nor a prototype to learn from.
        """
        parts = [retrieved_samples(found, len(vocabulary))]
        if vocabulary.has_text.any():
            classes = np.unique(found.classes)
            supported = supported_classes(memory, vocabulary)
            if len(found):
                prototypes = memory.class_prototypes(vocabulary.names)
                parts.append(fused_samples(prototypes, classes, vocabulary, self.lambdas, self.beta_fused))
            parts.append(
                pseudo_samples(query.features, supported, vocabulary, self.lambdas, self.beta_pseudo)
            )
        if not sum(map(len, parts)):
            raise nothing_to_go_on(vocabulary)
        return Samples.join(parts)

    def explain(self, head: Head, logits: NDArray, features: NDArray, samples: Samples, found: Retrieved,
                memory, vocabulary: Vocabulary) -> Evidence | None:  # fmt: skip
        """Which prototypes each answer rests on; see `head_evidence`."""
        return head_evidence(head, logits, features, samples, found, memory, vocabulary)


def _checked_start(weight: NDArray | None, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    if weight is not None and np.shape(weight) != shape:
        raise ValueError(f"initial_weight has shape {np.shape(weight)}, but the head is {shape}")
    return None if weight is None else np.asarray(weight, dtype=np.float32)
