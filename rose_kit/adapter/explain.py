"""Which prototypes a trained head's answers rest on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rose_kit.adapter.samples import Samples
from rose_kit.adapter.solvers import Head
from rose_kit.fusion.evidence import strongest
from rose_kit.fusion.retrieval import Retrieved
from rose_kit.types import Evidence, Vocabulary


def head_evidence(
    head: Head,
    logits: NDArray,
    features: NDArray,
    samples: Samples,
    found: Retrieved,
    memory,
    vocabulary: Vocabulary,
) -> Evidence | None:
    """Split each winning logit over the retrieved prototypes; None where nothing was retrieved.

    With W = A X, the logit W_c . x + b is the sum over samples of A_cs <X_s, x>. A retrieved sample is
    a prototype; a fused one contains v_c = sum_i v_ic / |sum_i v_ic|, hence every prototype of its
    class. What comes from text, pseudo-labels, bias, prototypes of the class that were not retrieved,
    and the part of W outside the span, is in the remainder row.
    """
    if not len(found):
        return None
    winner = logits.argmax(1)  # (N,)
    effect = prototype_effects(head, samples, found, memory, vocabulary)  # (C, R)
    contributions = effect[winner] * (features @ found.vectors.T)  # (N, R)
    names = np.array(vocabulary.names)
    return strongest(contributions, found.ids, names[found.classes], logits.max(1), names[winner])


def prototype_effects(
    head: Head, samples: Samples, found: Retrieved, memory, vocabulary: Vocabulary
) -> NDArray[np.floating]:
    """(C, R): factor of each retrieved prototype in each row of the head's weight."""
    a = span_coefficients(head, samples)  # (C, S)
    effect = a[:, samples.row >= 0].copy()  # (C, R): retrieved samples come first, in order
    fused = np.flatnonzero(samples.visual_share)
    if len(fused):
        classes, inverse = np.unique(found.classes, return_inverse=True)
        norm = np.linalg.norm(memory.class_sums([vocabulary.names[c] for c in classes]), axis=1)  # (classes,)
        member = samples.label[fused][:, None] == found.classes  # (F, R)
        effect += a[:, fused] * samples.visual_share[fused] @ (member / norm[inverse]).astype(np.float32)
    return effect


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
