"""Retrieve and Segment: a linear head trained per image, at test time, on frozen features.

The training set is made anew for each image, of three kinds of sample: retrieved prototypes; class prototypes
fused with text; pseudo-labelled features of classes that have text but no visual support.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rose_kit.adapter.solvers import LEAST_SHARE, Head, adamw, few_threads, lbfgs
from rose_kit.fusion.evidence import LeaveOneOut, top_evidence
from rose_kit.fusion.method import AnyQuery, InitialWeight, Memory, Method, no_support_error
from rose_kit.fusion.retrieval import Retrieval, Retrieved, restrict, retrieve_batch
from rose_kit.fusion.zero_shot import class_cosines, softmax, zero_shot
from rose_kit.memory import SupportMemory
from rose_kit.memory.index import Where
from rose_kit.registry import register_method
from rose_kit.types import (
    Columns,
    Evidence,
    Prediction,
    Query,
    Vocabulary,
    check_positive,
    check_share,
    numpy_door,
    to_array,
    to_tensor,
    unknown_name,
)

LAMBDAS = (0.9, 0.8, 0.6, 0.4, 0.2, 0.0)
SPREADS = 4  # temperature of the relevance, in standard deviations of the cosines: flat, as published
LEAST_VARIANCE = 1e-4  # between the classes of unit-norm samples; below it they are taken to have this much
ONE_BY_ONE = ("cpu",)  # devices on which lbfgs trains the heads of several images one after the other
# Called as solver(features, target, weight, start, **settings) with all settings of `RNS`.
SOLVERS: dict[str, Callable[..., Head]] = {"adamw": adamw, "lbfgs": lbfgs}


@dataclass(frozen=True)
class Samples(Columns):
    """S training samples of one image: tensors, or arrays at the door.

    Args:
        features: (S, D) float32 unit norm.
        target: (S, C) float32 class distribution; one-hot where the label is hard.
        strength: (S,) float32 beta of the sample's kind.
        visual_share: (S,) float32, how much of its class's prototype v_c a fused feature contains: feature =
            visual_share * v_c + (a multiple of the text); 0 for samples of the other kinds.
    """

    features: Tensor
    target: Tensor
    strength: Tensor
    visual_share: Tensor

    def __len__(self) -> int:
        return len(self.features)

    @property
    def label(self) -> Tensor:
        """(S,) the class a sample stands for."""
        return self.target.argmax(1)

    @property
    @numpy_door
    def variances(self) -> tuple[Tensor, Tensor]:
        """Between and within the classes, () each: mean squared distances of the classes' means from the mean
        of all samples, and of the samples from the mean of their class. Every sample counts once."""
        members = F.one_hot(self.label, self.target.shape[1]).to(self.features)  # (S, C)
        counts, mean = members.sum(0), self.features.mean(0)  # (C,), (D,)
        means = members.T @ self.features / counts.clamp(min=1)[:, None]  # (C, S) @ (S, D) -> (C, D)
        between = counts @ (means - mean).square().sum(1) / len(self)
        return between, self.features.square().sum() / len(self) - mean @ mean - between

    @numpy_door
    def weight(self, relevance: Tensor) -> Tensor:
        """(S,) a_s * beta_s: relevance of the sample's class, adding up to 1, times its strength."""
        a = relevance[self.label]
        return a / a.sum() * self.strength

    @classmethod
    @numpy_door
    def join(cls, parts: Sequence[Samples]) -> Samples:
        """The samples of all parts, one part after the other."""
        return cls(*map(torch.cat, zip(*(vars(part).values() for part in parts), strict=True)))


@numpy_door
def class_relevance(
    image_feature: Tensor, vocabulary: Vocabulary, tau: float | None, spreads: float = SPREADS
) -> Tensor:
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
        return image_feature.new_full((len(vocabulary),), 1 / len(vocabulary))
    cosines = class_cosines(F.normalize(image_feature, dim=0)[None], vocabulary)[0]  # (C,)
    return softmax(cosines / (tau or (spreads * cosines.std(correction=0)).clamp(min=1e-6)))


@numpy_door
def retrieved_samples(retrieved: Retrieved, size: int) -> Samples:
    """Each retrieved prototype once, labelled with its class among `size` classes (RNS, section 3)."""
    ones = retrieved.vectors.new_ones(len(retrieved))
    target = F.one_hot(retrieved.classes, size).to(ones)
    return Samples(retrieved.vectors, target, ones, torch.zeros_like(ones))


@numpy_door
def fused_samples(
    prototypes: Tensor, classes: Tensor, vocabulary: Vocabulary, lambdas: Sequence[float], beta: float
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
    text, owner = vocabulary.completed.tensors(prototypes.device)  # (T, D), (T,)
    rows = torch.isin(owner, classes)
    text, owner = text[rows], owner[rows]  # (R, D), (R,)
    lam = torch.tensor(lambdas, device=text.device)[:, None]  # (L, 1)
    mixed = lam * prototypes[owner][:, None] + (1 - lam) * text[:, None]  # (R, L, D)
    norm = mixed.norm(dim=2, keepdim=True)  # (R, L, 1)
    norm = norm.where(norm != 0, 1)
    target = F.one_hot(owner.repeat_interleave(len(lam)), len(vocabulary)).to(text)  # (R * L, C)
    strength = target.new_full((len(target),), beta)
    return Samples((mixed / norm).flatten(0, 1), target, strength, (lam / norm).flatten())


@numpy_door
def pseudo_samples(
    features: Tensor, supported: Tensor, vocabulary: Vocabulary, lambdas: Sequence[float], beta: float
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
    counts = guess.bincount(minlength=len(vocabulary))  # (C,)
    unseen = torch.nonzero((counts > 0) & ~supported)[:, 0]  # (U,)
    members = (guess == unseen[:, None]).to(features)  # (U, N)
    mean = features.new_zeros(len(vocabulary), features.shape[1])
    mean[unseen] = F.normalize(members @ features, dim=1)  # (U, N) @ (N, D) -> (U, D)
    fused = fused_samples(mean, unseen, vocabulary, lambdas, beta)
    soft, nothing = zero_shot(fused.features, vocabulary), torch.zeros_like(fused.visual_share)
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
        retrieve: chooses the prototypes to train on, called as `rose_kit.fusion.retrieve` is, with arrays;
            None: the nearest. `notebooks/experiments/claims/lookup.py` has others, to compare with (RNS,
            figure 5).
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
        were not retrieved, and the part of W that A X leaves over. Effects are between heads at the minimum
        where the solver has one, so that they do not depend on where it stops.
        """
        return self.predict_batch([query], memory, vocabulary, initial_weight=initial_weight)[0]

    @torch.no_grad()
    def predict_batch(
        self,
        queries: Sequence[AnyQuery],
        memory: Memory,
        vocabulary: Vocabulary,
        *,
        initial_weight: InitialWeight = None,
    ) -> list[Prediction]:
        """See `Method.predict_batch`: one search for all images, and one solver that trains all heads."""
        queries = list(map(Query.of, queries))
        features = [query.tensor for query in queries]
        size = (len(vocabulary), features[0].shape[1])
        memory = restrict(SupportMemory(size[1]) if memory is None else memory, self.where)
        if initial_weight is not None and np.shape(initial_weight) != size:
            raise ValueError(f"initial_weight has shape {np.shape(initial_weight)}, but the head is {size}")
        work = min(len(memory), self.k * len(features[0])) * size[0] * size[1]
        exact = replace(self, tolerance=0.0, where=None)  # the memory is the part that is allowed
        with few_threads(work, features[0].device):
            retrieved = self.retrieved(features, memory, vocabulary)
            prototypes = to_tensor(memory.class_prototypes(vocabulary.names), features[0].device)
            samples, weights = [], []
            for query, own in zip(queries, retrieved, strict=True):
                samples.append(self.samples(query, own, prototypes, vocabulary))
                relevance = class_relevance(query.image_tensor, vocabulary, self.tau, self.spreads)
                weights.append(samples[-1].weight(relevance))
            heads = self.solve_batch(samples, weights, initial_weight)
            predictions = []
            for query, *trained in zip(queries, samples, weights, heads, retrieved, strict=True):
                own, weight, head, near = trained
                logits = head.logits(query.tensor)  # (N, C)
                scores = logits.where(self.trained(own, weight), -torch.inf)
                world = query, memory, vocabulary
                evidence = partial(evidence_of, exact, world, initial_weight, *trained) if len(near) else None
                predictions.append(Prediction(softmax(logits), evidence, scores))
            return predictions

    def retrieved(
        self, features: Sequence[Tensor], memory: Memory, vocabulary: Vocabulary
    ) -> list[Retrieved]:
        """The prototypes to train on, of each image; the (N, D) features are on one device."""
        if self.retrieve is None:
            return retrieve_batch(features, memory, vocabulary, self.k)
        chosen = [self.retrieve(to_array(x), memory, vocabulary, self.k) for x in features]
        return to_tensor(chosen, features[0].device)

    @numpy_door
    def samples(
        self, query: Query, retrieved: Retrieved, prototypes: Tensor, vocabulary: Vocabulary
    ) -> Samples:
        """The training set of one image: retrieved, fused and pseudo-labelled samples.

        Args:
            query: patches or regions of the image.
            retrieved: the prototypes to train on.
            prototypes: (C, D) one for each class, NaN where the memory has none.
            vocabulary: the classes.

        Raises:
            ValueError: there is neither text nor a prototype to learn from.
        """
        parts = [retrieved_samples(retrieved, len(vocabulary))]
        if vocabulary.has_text.any():
            if len(retrieved):
                options = retrieved.classes, vocabulary, self.lambdas, self.beta_fused
                parts.append(fused_samples(prototypes, *options))
            known = ~prototypes.isnan().any(1)  # (C,)
            parts.append(pseudo_samples(query.tensor, known, vocabulary, self.lambdas, self.beta_pseudo))
        if not sum(map(len, parts)):
            raise no_support_error(vocabulary)
        return Samples.join(parts)

    @numpy_door
    def solve(self, samples: Samples, weight: Tensor, start: Tensor | None = None) -> Head:
        """Train a head by the chosen solver.

        Args:
            samples: S samples of width D.
            weight: (S,), from `Samples.weight`.
            start: (C, D) initial weight; None leaves it to the solver.
        """
        settings = vars(self) | {"mu": self.ridge(samples)}
        return SOLVERS[self.solver](samples.features, samples.target, weight, start, **settings)

    def solve_batch(
        self, samples: Sequence[Samples], weights: Sequence[Tensor], start: NDArray | None = None
    ) -> list[Head]:
        """Train the heads of several images, each as `solve` does.

        A GPU trains them together, as it mostly waits for launches. A CPU does one after the other where they
        are done after different numbers of steps: it would compute for those that are done.
        """
        device = weights[0].device
        if device.type in ONE_BY_ONE and self.solver == "lbfgs":
            return [self.solve(*one, start) for one in zip(samples, weights, strict=True)]
        features, target = (
            pad_sequence([getattr(own, name) for own in samples], batch_first=True)
            for name in ("features", "target")
        )  # (B, S, D), (B, S, C)
        count = torch.tensor([float(len(own)) for own in samples], device=device)  # (B,)
        settings = vars(self) | {"mu": torch.stack([self.ridge(own) for own in samples]), "count": count}
        weight = pad_sequence(list(weights), batch_first=True)  # (B, S)
        heads = SOLVERS[self.solver](features, target, weight, start, **settings)
        return list(map(Head, heads.weight, heads.bias))

    @numpy_door
    def ridge(self, samples: Samples) -> Tensor:
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
        between = between.clamp(min=LEAST_VARIANCE)
        within = within + between * len(samples.label.unique()) / len(samples)
        return self.mu * between / len(samples) * between / within

    @numpy_door
    def trained(self, samples: Samples, weight: Tensor) -> Tensor:
        """(C,) the classes that the head can answer: "lbfgs" leaves out those that no sample stands for."""
        mass = weight @ samples.target  # (C,)
        return (mass > LEAST_SHARE * mass.sum()) | (self.solver != "lbfgs")


register_method("rns-published")(RNS.published)


def evidence_of(
    method: RNS,
    world: tuple[Query, SupportMemory, Vocabulary],
    start: InitialWeight,
    samples: Samples,
    weight: Tensor,
    head: Head,
    retrieved: Retrieved,
) -> Evidence:
    """What each retrieved prototype gives to the winning logits of an image; see `RNS.predict`.

    Args:
        method: predicts again without a prototype; nobody changes it later.
        world: what was predicted with.
        start: the initial weight. "lbfgs" starts at `head` when it trains again: that is nearer, and the
            minimum is the same.
        samples, weight, head, retrieved: of the image.
    """
    query, memory, vocabulary = world
    samples, weight, head, retrieved = to_array((samples, weight, head, retrieved))
    logits, names = head.logits(query.features), np.array(vocabulary.names)  # (N, C)
    winner = logits.argmax(1)
    a = sample_coefficients(head, samples, weight)  # (C, S), those of the retrieved samples first
    norms = np.linalg.norm(memory.class_sums(names), axis=1)  # (C,), NaN without a prototype
    in_fused = (a * samples.visual_share) @ samples.target / norms  # (C, S) @ (S, C) -> (C, C)
    factors = a[:, : len(retrieved)] + in_fused[:, retrieved.classes]  # (C, R)
    contributions = factors[winner] * (query.features @ retrieved.vectors.T)  # (N, R)
    start = head.weight if method.solver == "lbfgs" else start
    leave_out = LeaveOneOut(method, *world, winner, start)
    columns = retrieved.ids, names[retrieved.classes], logits.max(1), names[winner]
    return top_evidence(contributions, *columns, leave_out=leave_out)


@numpy_door
def sample_coefficients(head: Head, samples: Samples, weight: Tensor) -> Tensor:
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
    square = combined.square().sum()
    return error * ((head.weight * combined).sum() / square).where(square > 0, 0)
