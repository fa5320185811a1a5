"""What RNS would answer without one prototype: the state behind `Evidence.effect`, made when it is asked for.

Without it the training set is another: the next neighbours take its place, the prototype of its class moves
and the samples fused from it too, weights are shared out anew, and a class may lose its last sample. The
minimum of the new set's objective J' lies near W, the minimum of J, and one Newton step leads there:

    W' = W - (Hessian of J' at W)^-1 (gradient of J' at W)

The Hessian is that of J'. Influence functions (Koh and Liang, ICML 2017) take that of J, in which the sample
that is left out still has its curvature, and so misjudge the step where few samples hold a direction.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rose_kit.adapter.solvers import Head
from rose_kit.fusion.retrieval import Retrieved, retrieve
from rose_kit.memory import SupportMemory
from rose_kit.types import Query, Vocabulary, to_array, unit

if TYPE_CHECKING:
    from rose_kit.adapter.rns import RNS, Samples

RESIDUAL_SHARE = 0.05  # of the gradient, which the Newton step may leave over
MAX_PASSES = 50  # over the samples, in a Newton step


@dataclass
class ScoresWithout:
    """The logits of RNS without one prototype; called with its id, or with None for those with all of them.

    With "lbfgs" they are those at the minimum, so that effects do not depend on where the solver stops. The
    head without a prototype is one Newton step away from the head with all of them; where a class comes in
    that had no sample, it is trained anew, as it always is with another solver, from the same initial weight.

    Args:
        method, query, memory, vocabulary, start: what was predicted with; nobody changes them later.
        relevance: (C,) of the classes to the image, from `class_relevance`.
    """

    method: RNS
    query: Query
    memory: SupportMemory
    vocabulary: Vocabulary
    relevance: Tensor
    start: NDArray[np.float32] | None

    @torch.no_grad()
    def __call__(self, prototype_id: int | None) -> NDArray[np.float32] | None:
        """(N, C) logits, -inf for a class without a sample; None where there is nothing to train on."""
        if prototype_id is None:
            return self.logits(self.head, self.trained)
        samples = self.samples(prototype_id)
        if samples is None:
            return None
        weight = samples.weight(self.relevance)
        trained = self.method.trained(samples, weight)  # (C,)
        if self.method.solver != "lbfgs" or (trained & ~self.trained).any():
            return self.logits(self.train(samples, weight), trained)
        return self.logits(self.newton(self.head, samples, weight), trained)

    def logits(self, head: Head, trained: Tensor) -> NDArray[np.float32]:
        """(N, C), -inf for a class that the head was not trained for."""
        return to_array(head.logits(self.query.tensor).where(trained, -torch.inf))

    def train(self, samples: Samples, weight: Tensor) -> Head:
        """Train a head as the method does, but with "lbfgs" to the minimum."""
        method = copy.copy(self.method)
        method.tolerance = 0.0
        head = method.solve(samples, weight, self.start)
        # In float32 J stops falling a little before its gradient is 0.
        return self.newton(head, samples, weight) if method.solver == "lbfgs" else head

    def newton(self, head: Head, samples: Samples, weight: Tensor) -> Head:
        """The head after one step on the objective of some samples."""
        objective = self.method.objective(samples, weight)
        objective.go_to(head)
        objective.add(objective.newton_step(objective.gradient(), RESIDUAL_SHARE, MAX_PASSES))
        return objective.head()

    @cached_property
    def whole(self) -> tuple[Samples, Tensor]:
        """The training set with all prototypes, and the weights of its samples."""
        samples = self.samples(None)
        return samples, samples.weight(self.relevance)

    @cached_property
    def head(self) -> Head:
        """Trained with all prototypes."""
        return self.train(*self.whole)

    @cached_property
    def trained(self) -> Tensor:
        """(C,) the classes that the head with all prototypes can answer."""
        return self.method.trained(*self.whole)

    def samples(self, prototype_id: int | None) -> Samples | None:
        """The training set without a prototype; None if there is nothing to train on."""
        retrieved = self.retrieved(prototype_id)
        if not (len(retrieved) or self.vocabulary.has_text.any()):
            return None
        prototypes = self.class_prototypes(prototype_id)
        return self.method.samples(self.query, retrieved, prototypes, self.vocabulary)

    def retrieved(self, prototype_id: int | None) -> Retrieved:
        """What is retrieved from the memory without a prototype."""
        if self.method.retrieve is None:
            return self.neighbours.nearest(self.method.k, prototype_id)
        rest = self.memory.subset(self.memory.ids[self.memory.ids != prototype_id])
        return self.method.retrieved([self.query.tensor], rest, self.vocabulary)[0]

    @cached_property
    def neighbours(self) -> Retrieved:
        """The neighbours of each patch and the next one, which takes the place of another."""
        return retrieve(self.query.tensor, self.memory, self.vocabulary, self.method.k + 1)

    def class_prototypes(self, prototype_id: int | None) -> NDArray[np.float32]:
        """(C, D) the class prototypes of the memory without a prototype, NaN where a class has none."""
        sums, counts = self.class_totals
        if prototype_id is not None:
            row = self.memory.lookup(prototype_id)
            without = np.array(self.vocabulary.names) == row.class_names[0]  # (C,)
            sums, counts = sums - without[:, None] * row.vectors, counts - without
        return np.where(counts[:, None] > 0, unit(sums), np.float32(np.nan))

    @cached_property
    def class_totals(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """(C, D) the sum of each class's prototypes, and (C,) how many there are."""
        counts = self.memory.summary()
        sums = np.nan_to_num(self.memory.class_sums(self.vocabulary.names))
        return sums, np.array([counts.get(name, 0) for name in self.vocabulary.names])
