"""Retrieve and Segment: a linear head trained per image, at test time, on frozen features.

The training set is made anew for each image, of three kinds of sample: retrieved prototypes; class prototypes
fused with text; pseudo-labelled features of classes that have text but no visual support.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rose_kit.adapter.effects import ScoresWithout
from rose_kit.adapter.solvers import LEAST_SHARE, Head, RegularisedObjective, adamw, lbfgs
from rose_kit.fusion.evidence import LeaveOneOut, top_evidence
from rose_kit.fusion.method import AnyQuery, InitialWeight, Memory, Method, no_support_error
from rose_kit.fusion.retrieval import Retrieval, Retrieved, restrict, retrieve, supported_classes
from rose_kit.fusion.zero_shot import class_cosines, complete_text, softmax, zero_shot
from rose_kit.memory.index import Where
from rose_kit.registry import register_method
from rose_kit.types import Prediction, Query, Vocabulary, check_positive, check_share, unit, unknown_name

LAMBDAS = (0.9, 0.8, 0.6, 0.4, 0.2, 0.0)
SPREADS = 4  # temperature of the relevance, in standard deviations of the cosines: flat, as published
LEAST_VARIANCE = 1e-4  # between the classes of unit-norm samples; below it they are taken to have this much
# Called as solver(features, target, weight, start, **settings) with all settings of `RNS`.
SOLVERS: dict[str, Callable[..., Head]] = {"adamw": adamw, "lbfgs": lbfgs}


@dataclass(frozen=True)
class Samples:
    """S training samples of one image.

    Args:
        features: (S, D) float32 unit norm.
        target: (S, C) float32 class distribution; one-hot where the label is hard.
        strength: (S,) float32 beta of the sample's kind.
        visual_share: (S,) float32, how much of its class's prototype v_c a fused feature contains: feature =
            visual_share * v_c + (a multiple of the text); 0 for samples of the other kinds.
    """

    features: NDArray[np.float32]
    target: NDArray[np.float32]
    strength: NDArray[np.float32]
    visual_share: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.features)

    @property
    def label(self) -> NDArray[np.int64]:
        """(S,) the class a sample stands for."""
        return self.target.argmax(1)

    @property
    def variances(self) -> tuple[float, float]:
        """Between and within the classes: mean squared distances of the classes' means from the mean of all
        samples, and of the samples from the mean of their class. Every sample counts once."""
        _, inverse, counts = np.unique(self.label, return_inverse=True, return_counts=True)
        order, starts = np.argsort(inverse, kind="stable"), np.cumsum(counts) - counts
        sums = np.add.reduceat(self.features[order], starts)  # (K, D)
        mean = sums.sum(0) / len(self)
        between = counts @ np.square(sums / counts[:, None] - mean).sum(1) / len(self)
        total = np.square(self.features).sum() / len(self) - mean @ mean
        return float(between), float(total - between)

    def weight(self, relevance: NDArray) -> NDArray[np.float32]:
        """(S,) a_s * beta_s: relevance of the sample's class, adding up to 1, times its strength."""
        a = relevance[self.label]
        return (a / a.sum() * self.strength).astype(np.float32)

    @classmethod
    def join(cls, parts: Sequence[Samples]) -> Samples:
        """The samples of all parts, one part after the other."""
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return cls(*map(np.concatenate, columns))


def class_relevance(
    image_feature: NDArray, vocabulary: Vocabulary, tau: float | None, spreads: float = SPREADS
) -> NDArray[np.float32]:
    """w = softmax_c(cos(image, t_c) / tau): which classes this image is likely to hold.

    Uniform as soon as any class lacks text, since a mean text would make it too relevant.

    Args:
        image_feature: (D,) mean of the query's patches or regions, of any norm.
        vocabulary: several texts of a class reduce by their maximum.
        tau: temperature; None takes `spreads` times the cosines' own standard deviation. The published
            0.1 is flat for CLIP, whose cosines to all names differ by hundredths; for an encoder whose
            cosines differ by tenths it would give most classes hardly any weight.
        spreads: see `tau`.

    Returns:
        (C,) adding up to 1.
    """
    if not vocabulary.has_text.all():
        return np.full(len(vocabulary), 1 / len(vocabulary), dtype=np.float32)
    cosines = class_cosines(unit(image_feature)[None], vocabulary)[0]  # (C,)
    return softmax(cosines / (tau or max(spreads * float(cosines.std()), 1e-6)))


def retrieved_samples(retrieved: Retrieved, size: int) -> Samples:
    """Each retrieved prototype once, labelled with its class among `size` classes (RNS, section 3)."""
    target = np.eye(size, dtype=np.float32)[retrieved.classes]
    ones = np.ones(len(retrieved), np.float32)
    return Samples(retrieved.vectors, target, ones, np.zeros_like(ones))


def fused_samples(
    prototypes: NDArray, classes: NDArray, vocabulary: Vocabulary, lambdas: Sequence[float], beta: float
) -> Samples:
    """f_cl = unit(l * v_c + (1 - l) * t_c) for each retrieved class, each of its texts, each l.

    The weight of l is that of the authors' code (l on vision, which includes pure text and never
    pure vision), not of the paper's equation. A class without text uses the mean of the other texts.

    Args:
        prototypes: (C, D) class prototypes v_c; read for `classes` only.
        classes: class indices that were retrieved; they have R texts in all.
        vocabulary: with text.
        lambdas: the L mixing weights.
        beta: strength of these samples.
    """
    complete = complete_text(vocabulary)
    rows = np.isin(complete.owner, classes)
    text, owner = complete.text[rows], complete.owner[rows]  # (R, D), (R,)
    lam = np.array(lambdas, dtype=np.float32)[:, None]  # (L, 1)
    mixed = lam * prototypes[owner][:, None] + (1 - lam) * text[:, None]  # (R, L, D)
    norm = np.linalg.norm(mixed, axis=2, keepdims=True)  # (R, L, 1)
    norm[norm == 0] = 1
    target = np.eye(len(vocabulary), dtype=np.float32)[np.repeat(owner, len(lam))]  # (R * L, C)
    strength = np.full(len(target), beta, np.float32)
    return Samples((mixed / norm).reshape(-1, text.shape[1]), target, strength, (lam / norm).ravel())


def pseudo_samples(
    features: NDArray, supported: NDArray, vocabulary: Vocabulary, lambdas: Sequence[float], beta: float
) -> Samples:
    """For classes that zero-shot finds in this image and that have no prototype in the memory.

    They are fused samples, where u_c = unit(mean of the patches that zero-shot labels c) takes the place of
    v_c. The target is soft: the zero-shot distribution of the fused feature.

    Args:
        features: (N, D) patches of the image.
        supported: (C,) whether the memory holds a prototype of the class.
        vocabulary: with text.
        lambdas: the L mixing weights.
        beta: strength of these samples.
    """
    guess = class_cosines(features, vocabulary).argmax(1)  # (N,)
    mean = np.zeros((len(vocabulary), features.shape[1]), dtype=np.float32)
    unseen = np.setdiff1d(guess, np.flatnonzero(supported))
    for c in unseen:
        mean[c] = unit(features[guess == c].mean(0))
    fused = fused_samples(mean, unseen, vocabulary, lambdas, beta)
    soft, nothing = zero_shot(fused.features, vocabulary), np.zeros_like(fused.visual_share)
    return replace(fused, target=soft, visual_share=nothing)


@register_method("rns")
@dataclass
class RNS(Method):
    """Retrieve prototypes, fuse them with text, train a head on both, answer with it.

    As the authors' release does it, without its slips. Missing parts: a class without visual support
    is trained on pseudo-labels; a class without text takes the mean of the other texts; without any text
    the retrieved prototypes train the head alone; with an empty memory the pseudo-labels do.
    `RNS.published` has the release's own settings.

    Args:
        k: neighbours per patch.
        lambdas: share of vision in the fused samples.
        tau: temperature of the class relevance, 0.1 in the release; None: `spreads` times the standard
            deviation of the cosines (see `class_relevance`).
        beta_fused, beta_pseudo: strength of fused and pseudo-labelled samples (retrieved ones: 1). The
            release has 1.5 and 0.2: its AdamW divides a gradient by its size, so weak samples still count
            there, while against a regulariser they are lost, and classes without visual support with them;
            and fused samples, six for each text, would outweigh what was retrieved.
        solver: a key of `rose_kit.adapter.SOLVERS`. "lbfgs", the default, minimises a regularised
            objective; on the same samples it takes a fiftieth of the time of "adamw", which is as
            published. `notebooks/experiments/solvers.ipynb` compares them.
        steps, lr, weight_decay, seed: settings of "adamw".
        mu: regularisation of "lbfgs", a number without a unit, see `ridge`.
        tolerance: "lbfgs" stops when a step lowers its objective by less than this share.
        retrieve: chooses the prototypes to train on, called as `rose_kit.fusion.retrieve` is; None: the
            nearest. `notebooks/experiments/claims/lookup.py` has others, to compare with (RNS, figure 5).
        where: metadata that a prototype must have, as for `SupportMemory.search`; None: all are used.

    Raises:
        ValueError: an unknown solver, a retrieval that is not a function, or a number outside its range.
    """

    k: int = 4
    lambdas: Sequence[float] = LAMBDAS
    tau: float | None = None
    spreads: float = SPREADS
    beta_fused: float = 0.5
    beta_pseudo: float = 1.0
    solver: str = "lbfgs"
    steps: int = 700
    lr: float = 2e-3
    weight_decay: float = 5e-4
    seed: int = 0
    mu: float = 0.12
    tolerance: float = 5e-3
    retrieve: Retrieval | None = None
    where: Where | None = None

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            raise unknown_name("solver", self.solver, SOLVERS)
        if not (self.retrieve is None or callable(self.retrieve)):
            raise ValueError(f"retrieve must be a function, got {self.retrieve!r}")
        check_positive(k=self.k, steps=self.steps, tau=self.tau, spreads=self.spreads, lr=self.lr, mu=self.mu)
        check_share(tolerance=self.tolerance)

    @classmethod
    def published(cls, k: int = 4, steps: int = 700, **options: Any) -> Self:
        """RNS with the release's solver, temperature and strengths; `options` as for the class."""
        settings = {"solver": "adamw", "tau": 0.1, "beta_fused": 1.5, "beta_pseudo": 0.2}
        return cls(k=k, steps=steps, **(settings | options))

    def predict(
        self, query: AnyQuery, memory: Memory, vocabulary: Vocabulary, *, initial_weight: InitialWeight = None
    ) -> Prediction:
        """See `Method.predict`; `initial_weight` is where the solver starts.

        The evidence splits each winning logit over the retrieved prototypes; None where there are none. With
        W = A X, the logit W_c . x + b is the sum over samples of A_cs <X_s, x>. A retrieved sample is a
        prototype; a fused one contains v_c = sum_i v_ic / |sum_i v_ic|, hence every prototype of its class.
        The remainder row holds what comes from text, pseudo-labels, the bias, prototypes of the class that
        were not retrieved, and the part of W that A X leaves over. Effects come from `ScoresWithout`.
        """
        query, memory = Query.of(query), restrict(memory, self.where)
        size = (len(vocabulary), query.features.shape[1])
        if initial_weight is not None and np.shape(initial_weight) != size:
            raise ValueError(f"initial_weight has shape {np.shape(initial_weight)}, but the head is {size}")
        retrieved = (self.retrieve or retrieve)(query.features, memory, vocabulary, self.k)
        samples = self.samples(query, retrieved, memory, vocabulary)
        relevance = class_relevance(query.image_feature, vocabulary, self.tau, self.spreads)  # (C,)
        weight = samples.weight(relevance)
        head = self.solve(samples, weight, initial_weight)
        logits = head.logits(query.features)  # (N, C)
        scores = np.where(self.trained(samples, weight), logits, -np.inf)
        if not len(retrieved):
            return Prediction(softmax(logits), scores=scores)
        winner, names = logits.argmax(1), np.array(vocabulary.names)
        a = sample_coefficients(head, samples, weight)  # (C, S), those of the retrieved samples first
        norms = np.linalg.norm(memory.class_sums(vocabulary.names), axis=1)  # (C,), NaN without a prototype
        in_fused = (a * samples.visual_share) @ samples.target / norms  # (C, S) @ (S, C) -> (C, C)
        factors = a[:, : len(retrieved)] + in_fused[:, retrieved.classes]  # (C, R)
        contributions = factors[winner] * (query.features @ retrieved.vectors.T)  # (N, R)
        owners = names[retrieved.classes]
        without = ScoresWithout(copy.copy(self), query, memory, vocabulary, relevance, initial_weight)
        options = {"leave_out": LeaveOneOut(without, winner)}
        evidence = top_evidence(contributions, retrieved.ids, owners, logits.max(1), names[winner], **options)
        return Prediction(softmax(logits), evidence, scores)

    def samples(self, query: Query, retrieved: Retrieved, memory: Memory, vocabulary: Vocabulary) -> Samples:
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
            weight: (S,), from `Samples.weight`.
            start: (C, D) initial weight; None leaves it to the solver.
        """
        settings = vars(self) | {"mu": self.ridge(samples)}
        return SOLVERS[self.solver](samples.features, samples.target, weight, start, **settings)

    def ridge(self, samples: Samples) -> float:
        """The factor of |W|^2 / 2 in the objective of "lbfgs": mu * B / S * B / V for S samples.

        B is the variance between their K classes, V that within them plus B * K / S, since of few samples
        of a class one does not know how they scatter. The objective is the mean of S losses,
        so this is Bayes' rule with a normal prior of variance V / (mu * B^2) for the entries of W: under it,
        the logits of the classes' means differ from their mean by about sqrt(V / (mu * B)) before any sample
        is seen. Where the samples of a class lie close together, the head hardly does more than compare with
        the classes' means; where they scatter, or classes lie close together in a narrow cone, W may grow
        until it finds the directions that tell classes apart. The more samples, the less the prior counts.
        Features turned, or widened by dimensions in which nothing varies, keep their answers; features
        scaled by s would have W / s and the same logits.
        """
        between, within = samples.variances
        between = max(between, LEAST_VARIANCE)
        within += between * len(np.unique(samples.label)) / len(samples)
        return self.mu * between / len(samples) * between / within

    def trained(self, samples: Samples, weight: NDArray) -> NDArray[np.bool_]:
        """(C,) the classes that the head can answer: "lbfgs" leaves out those that no sample stands for."""
        mass = weight @ samples.target  # (C,)
        return (mass > LEAST_SHARE * mass.sum()) | (self.solver != "lbfgs")

    def objective(self, samples: Samples, weight: NDArray) -> RegularisedObjective:
        """What "lbfgs" minimises; arguments as for `solve`."""
        return RegularisedObjective(samples.features, samples.target, weight, None, self.ridge(samples))


register_method("rns-published")(RNS.published)


def sample_coefficients(head: Head, samples: Samples, weight: NDArray) -> NDArray[np.float32]:
    """(C, S) coefficients A with W = A X nearly: the share that each sample has in the head's weight.

    At the minimum of sum_s weight_s * loss_s + mu / 2 * |W|^2 the gradient vanishes, hence
    W = sum_s weight_s (q_s - p_s) x_s / mu: a coefficient is the error that is left on a sample (representer
    theorem; Yeh et al., NeurIPS 2018). The factor 1 / mu is fitted by least squares, so that it also serves a
    solver that stopped early, or that has no such objective, as AdamW.

    Args:
        head: trained on the samples, by any solver.
        samples: S samples.
        weight: (S,), from `Samples.weight`.
    """
    error = (weight[:, None] * (samples.target - softmax(head.logits(samples.features)))).T  # (C, S)
    combined = error @ samples.features  # (C, S) @ (S, D) -> (C, D)
    square = np.vdot(combined, combined)
    return error * (np.vdot(head.weight, combined) / square if square else np.float32(0))
