"""Visual prompt enhancer: does a mask show what the reference images show, and if not, what does?

Reference images show one object each, whose features are compared with those of the image by a linear
discriminant. Regions by colour that the discriminant rates highly are merged into a proposal.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from skimage.filters import threshold_otsu
from skimage.measure import label
from skimage.segmentation import felzenszwalb

from rose_kit.encoder import Encoder, preferred_windows
from rose_kit.pooling import pool_masks
from rose_kit.segmenter import upsample_scores
from rose_kit.types import FeatureMap
from rose_kit.web.types import Mask, ReferenceImage

REGION_SCALES = (50, 150)  # of Felzenszwalb and Huttenlocher's regions (2004): fine and coarse
LEAST_DISTANCE = 0.02  # cosine distance of an object to its image's border; noise stays well below


@dataclass(frozen=True)
class Thresholds:
    """What the enhancer decides by, calibrated for an encoder on annotated images of classes it knows."""

    same: float  # maximum mean cosine distance at which reference images agree
    keep: float  # minimum similarity of a mask to be kept
    part: float  # minimum similarity of a region to be part of a proposal
    correct: float  # minimum similarity of a proposal to replace a mask
    whole: float  # minimum share of the proposal's evidence (similarity over `part`) in a mask to be kept


class ObjectDetector:
    """A linear rating of the features of an image: 0 on average of backgrounds, 1 for the mean of an object.

    It is Fisher's linear discriminant with the covariance of the backgrounds, which have most examples.

    Args:
        feature_map: of the image, (h, w, D); all of it counts as background.
        objects: (P, D) features of the object.
        backgrounds: (B, D) features of other backgrounds.
    """

    def __init__(self, feature_map: FeatureMap, objects: NDArray, backgrounds: NDArray) -> None:
        backgrounds = np.concatenate([feature_map.flat(), backgrounds])
        self.feature_map, self.mean = feature_map, backgrounds.mean(0)  # (D,)
        covariance = np.cov(backgrounds.T)  # (D, D)
        ridge = np.trace(covariance) / len(covariance) * np.eye(len(covariance))
        difference = objects.mean(0) - self.mean
        weight = np.linalg.solve(covariance + ridge, difference)
        self.weight = (weight / (weight @ difference)).astype(np.float32)  # (D,)

    def pixels(self) -> NDArray[np.float32]:
        """(H, W) similarity of each pixel to the object."""
        scores = (self.feature_map.flat() - self.mean) @ self.weight  # (h * w,)
        return upsample_scores(scores.reshape(1, *self.feature_map.grid), self.feature_map)[0]

    def similarity(self, parts: NDArray) -> NDArray[np.float32]:
        """(H, W) bool, or parts 1 ... K on 0 -> (K,) similarity; -1 where a part is too small to encode."""
        numbers = range(1, int(parts.max()) + 1)
        features = pool_masks(self.feature_map, parts.astype(int), numbers)[0]  # (K, D)
        return np.nan_to_num((features - self.mean) @ self.weight, nan=-1)


@dataclass(frozen=True)
class Verification:
    """What became of a mask. Similarity: 0 like backgrounds, 1 like the references."""

    mask: Mask
    action: str  # "kept" or "corrected"
    reason: str
    used: tuple[ReferenceImage, ...] = ()  # those that show an object, the same as most
    similarity: float = np.nan  # of the mask as given; -1 if it is empty
    proposed: float = np.nan  # of the best proposal


class VisualPromptEnhancer:
    """Verifies and corrects masks by reference images of one object.

    Args:
        encoder: compares the images.
        thresholds: what it decides by; None: those that come with the encoder.

    Raises:
        ValueError: the encoder comes without thresholds, and none are given.
    """

    def __init__(self, encoder: Encoder, thresholds: Thresholds | None = None) -> None:
        own = getattr(encoder, "thresholds", None)
        if thresholds is None and own is None:
            raise ValueError(f"no thresholds for {encoder.name!r}: pass Thresholds(...)")
        self.encoder, self.thresholds = encoder, thresholds or Thresholds(**own)
        self.windows = windows = preferred_windows(encoder)
        # a reference image shows its object larger, so it is encoded at a smaller size
        self.reference_windows = windows and replace(windows, short_side=(windows.short_side or 224) * 3 // 4)

    def __call__(self, image: NDArray, mask: Mask, references: Sequence[ReferenceImage]) -> Verification:
        """Keep the (H, W) mask of an (H, W, 3) uint8 image, or replace it by all that looks like the object.

        A mask is replaced if it does not look like the object, or holds only a small part of it.
        """
        used, detector = self.fit(image, references)
        if detector is None:
            return Verification(mask, "kept", "there is no reference image to go by")
        limits, pixels = self.thresholds, detector.pixels()
        similarity = float(np.append(detector.similarity(mask.mask), -1)[0])
        proposal, proposed = self.propose(image, detector)
        instances, is_similar = label(proposal), similarity >= limits.keep
        if is_similar and (touched := np.isin(instances, instances[mask.mask & proposal])).any():
            proposal = touched  # the mask is no part of the other instances
        evidence, of_mask = ((pixels[m] - limits.part).sum() for m in (proposal, mask.mask))
        action, reason = "kept", "no proposal is good enough"
        if is_similar and of_mask >= limits.whole * evidence:
            reason = "the mask looks like the references"
        elif proposal.any() and proposed >= limits.correct:
            mask, action = Mask(proposal, float(np.clip(proposed, 0, 1))), "corrected"
            reason = "the mask is a small part of this" if is_similar else "this looks like the references"
        return Verification(mask, action, reason, used, similarity, proposed)

    def best_similarity(self, image: NDArray, references: Sequence[ReferenceImage]) -> float:
        """Similarity of what looks most like the object in an (H, W, 3) uint8 image; 0 if nothing does."""
        detector = self.fit(image, references)[1]
        return float(np.nan_to_num(self.propose(image, detector)[1])) if detector else 0.0

    def fit(
        self, image: NDArray, references: Sequence[ReferenceImage]
    ) -> tuple[tuple[ReferenceImage, ...], ObjectDetector | None]:
        """Choose the reference images that agree, and fit a detector of their object to an image.

        Returns:
            The images that are used; the detector, None if no image can be used.
        """
        views = [self.encoder.encode_image(r.image, windows=self.reference_windows) for r in references]
        objects = [foreground(view) for view in views]  # (h * w,) bool each
        clear = [i for i, patches in enumerate(objects) if patches.any()]
        means = [views[i].flat()[objects[i]].mean(0) for i in clear]  # (D,) each
        used = [clear[k] for k in largest_cluster(means, self.thresholds.same)]
        if not used:
            return (), None
        features = np.concatenate([views[i].flat() for i in used])
        is_object = np.concatenate([objects[i] for i in used])
        feature_map = self.encoder.encode_image(image, windows=self.windows)
        detector = ObjectDetector(feature_map, features[is_object], features[~is_object])
        return tuple(references[i] for i in used), detector

    def propose(self, image: NDArray, detector: ObjectDetector) -> tuple[NDArray[np.bool_], float]:
        """Merge neighbouring regions that look like the object, at the scale with most evidence for it.

        Returns:
            (H, W) bool: the most similar of the merged regions, and all that are similar enough to replace a
            mask; the similarity of the most similar one, NaN if no region looks like the object.
        """
        pixels, limits = detector.pixels(), self.thresholds
        proposal, most, best = np.zeros(pixels.shape, bool), -np.inf, float("nan")
        for scale in REGION_SCALES:
            regions = felzenszwalb(image, scale, sigma=0.5, min_size=20)  # (H, W) ids from 0
            means = np.bincount(regions.ravel(), pixels.ravel()) / np.bincount(regions.ravel())  # (R,)
            merged = label(means[regions] > limits.part)  # (H, W) numbers from 1, on 0
            if not merged.any():
                continue
            similarity = detector.similarity(merged)  # (K,)
            is_instance = similarity >= min(limits.correct, similarity.max())
            instances = np.append(False, is_instance)[merged]  # (H, W)
            if (evidence := (pixels[instances] - limits.part).sum()) > most:
                proposal, most, best = instances, evidence, float(similarity.max())
        return proposal, best


def foreground(feature_map: FeatureMap) -> NDArray[np.bool_]:
    """Patches unlike those along the border of an image: its object, if it shows one.

    Args:
        feature_map: (h, w, D) of the image.

    Returns:
        (h * w,) bool: the cosine distance to the three most similar border patches is above Otsu's
        threshold. All False where no patch differs much from the border.
    """
    v = feature_map.values
    border = np.concatenate([v[0], v[-1], v[:, 0], v[:, -1]])  # (E, D)
    distance = 1 - np.sort(feature_map.flat() @ border.T, axis=1)[:, -3:].mean(1)  # (h * w,)
    return distance > max(threshold_otsu(distance), LEAST_DISTANCE)


def largest_cluster(features: Sequence[NDArray], distance: float) -> list[int]:
    """Positions of the largest cluster; of equally large ones, that of the earliest feature.

    Args:
        features: (D,) each.
        distance: clusters with a mean cosine distance up to this are joined.

    >>> largest_cluster([np.array([1.0, 0]), np.array([0, 1.0]), np.array([0.1, 1])], 0.5)
    [1, 2]
    """
    if len(features) < 2:
        return list(range(len(features)))
    groups = fcluster(linkage(features, "average", "cosine"), distance, "distance")
    return np.flatnonzero(groups == groups[np.bincount(groups)[groups].argmax()]).tolist()
