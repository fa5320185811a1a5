"""FSSDINO: class prototypes and Gram matrices of the support patches; no text, nothing is trained."""

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from rose_kit.fusion.method import AnyQuery, InitialWeight, Memory, Method, Support, no_support_error
from rose_kit.fusion.retrieval import restrict, support_patches, supported_classes
from rose_kit.fusion.zero_shot import ZeroShot, softmax
from rose_kit.memory.index import Where
from rose_kit.registry import register_method
from rose_kit.types import Prediction, Query, Vocabulary, check_positive


class ClassModel(NamedTuple):
    """What FSSDINO keeps of a class: (K, D) prototypes of unit norm, and the (D, D) Gram matrix."""

    prototypes: NDArray[np.float32]
    gram: NDArray[np.float32]


@register_method("fssdino")
@dataclass
class FssDino(Method):
    """Score of a class = maximum * mean of its similarity maps (FSSDINO, arXiv 2602.07550, and its release).

    The maps of a class are the cosine with each of its prototypes, the centres of a spherical k-means of its
    support patches, and the energy x' G x under their Gram matrix G = mean of v v', scaled to [0, 1] over
    the image. `fit` takes the patches from the support images; without them the prototypes of the
    memory stand in for patches. The text is not used: a class without support is never answered, and
    where no class has any it answers as zero-shot does.

    As in the release, but that features are of unit norm in the energy too, that a patch belongs to the class
    of most of its pixels, and that scores are enlarged to pixels where FSSDINO enlarges the single maps.

    Args:
        clusters: prototypes per class (32 is the best of 40 numbers on drawn scenes, see
            `notebooks/experiments/tuning`); a class with no more patches than that keeps them as they are.
        scale: probabilities are softmax(scale * score).
        seed: of k-means.
        where: metadata that a prototype must have, as for `SupportMemory.search`, and a support image one
            prototype with it; None: all are used.
    """

    uses_text: ClassVar[bool] = False
    clusters: int = 32
    scale: float = 10.0
    seed: int = 0
    where: Where | None = field(default=None, kw_only=True)
    fitted: dict[str, ClassModel] | None = field(default=None, init=False, repr=False)  # by class name

    def __post_init__(self) -> None:
        check_positive(clusters=self.clusters, scale=self.scale)

    def fit(self, memory: Memory, vocabulary: Vocabulary, support: Support = None) -> Self:
        """See `Method.fit`; without support images the method follows the memory, whatever is added to it."""
        self.fitted = None
        if support is not None:
            parts = [own[:2] for own in support_patches(support, memory, self.where)]
            features, labels = map(np.concatenate, zip(*parts, strict=True)) if parts else np.empty((2, 0))
            own = {name: features[labels == c] for c, name in enumerate(vocabulary.names)}
            self.fitted = {name: self.describe(patches) for name, patches in own.items() if len(patches)}
        return self

    def predict(
        self, query: AnyQuery, memory: Memory, vocabulary: Vocabulary, *, initial_weight: InitialWeight = None
    ) -> Prediction:
        """See `Method.predict`. Without evidence: k-means mixes the images."""
        x, models = Query.of(query).features, self.fitted
        if models is None:
            memory = restrict(memory, self.where)
            names = np.array(vocabulary.names)[supported_classes(memory, vocabulary)]
            models = {name: self.describe(memory.vectors[memory.rows.of_classes([name])]) for name in names}
        scores = np.full((len(x), len(vocabulary)), -np.inf, np.float32)
        for c, name in enumerate(vocabulary.names):
            if name in models:
                maps = np.c_[x @ models[name].prototypes.T, energy_map(x, models[name].gram)]  # (N, K + 1)
                scores[:, c] = maps.max(1) * maps.mean(1)
        if np.isfinite(scores).any():
            return Prediction(softmax(self.scale * scores), scores=scores)
        if not vocabulary.has_text.any():
            raise no_support_error(vocabulary)
        return ZeroShot().predict(query, memory, vocabulary)

    def describe(self, support: NDArray) -> ClassModel:
        """(R, D) support features of a class, of unit norm -> its prototypes and its Gram matrix."""
        gram = support.T @ support / len(support)  # (D, R) @ (R, D) -> (D, D)
        if len(support) <= self.clusters:
            return ClassModel(support, gram)
        options = {"niter": 20, "spherical": True, "seed": self.seed, "min_points_per_centroid": 1}
        kmeans = faiss.Kmeans(support.shape[1], self.clusters, **options)
        kmeans.train(np.ascontiguousarray(support))
        return ClassModel(kmeans.centroids, gram)


def energy_map(x: NDArray, gram: NDArray) -> NDArray[np.float32]:
    """(N, D) patches of one image, (D, D) Gram matrix -> (N,) energies x' G x, scaled to [0, 1]."""
    energy = ((x @ gram) * x).sum(1)  # (N, D) @ (D, D) -> (N, D) -> (N,)
    return (energy - energy.min()) / (np.ptp(energy) + 1e-8)
