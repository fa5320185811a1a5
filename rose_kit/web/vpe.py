"""Visual prompt enhancer: does a mask show what the reference images show, and if not, what does?

Reference images show one object each, whose features are compared with those of the image by a linear
discriminant. What replaces a mask is an object that a detector found, or regions by colour, merged.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from skimage.filters import threshold_otsu
from skimage.measure import label
from skimage.segmentation import felzenszwalb
from sklearn.covariance import shrunk_covariance

from rose_kit.data import DataError, atomic_write
from rose_kit.encoder import Encoder, preferred_windows
from rose_kit.pooling import pool_masks
from rose_kit.registry import errors_as
from rose_kit.segmenter import upsample_scores
from rose_kit.types import FeatureMap
from rose_kit.web.types import Mask, ReferenceImage, Step

REGION_SCALES = (50, 150)  # of Felzenszwalb and Huttenlocher's regions (2004): fine and coarse
LEAST_DISTANCE = 0.02  # cosine distance of an object to its image's border; noise stays well below
Detector = Callable[[NDArray[np.uint8]], NDArray[np.bool_]]  # image (H, W, 3) -> masks (K, H, W)


@dataclass(frozen=True)
class Thresholds:
    """What the enhancer decides by; `rose_kit.web.calibration.calibrate` makes them for an encoder."""

    same: float  # maximum mean cosine distance at which reference images agree
    keep: float  # minimum similarity of a mask to be kept
    part: float  # minimum similarity of a region to be part of a proposal
    correct: float  # minimum similarity of a proposal to replace a mask
    whole: float  # minimum share of the proposal's evidence (similarity over `part`) in a mask to be kept
    fingerprint: str = ""  # of the encoder they are for; empty: for any

    def save(self, path: str | Path) -> None:
        """Write them to a JSON file, in one step."""
        with atomic_write(path) as beside:
            beside.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "Thresholds":
        """Read them from a JSON file; raises DataError (a ValueError) if it does not hold thresholds."""
        with errors_as(DataError, f"{str(path)!r} holds no thresholds as `calibrate` makes them"):
            limits = cls(**json.loads(Path(path).read_text(encoding="utf-8")))
            if not all(np.isfinite(value) for name, value in asdict(limits).items() if name != "fingerprint"):
                raise ValueError(f"not every threshold is a number: {limits}")
            return limits


class Discriminant:
    """A linear rating of the features of an image: 0 on average of backgrounds, 1 for the mean of an object.

    It is Fisher's linear discriminant with the covariance of the backgrounds, which have most examples, half
    of it replaced by a multiple of the identity (shrinkage).

    Args:
        feature_map: of the image, (h, w, D); all of it counts as background.
        objects: (P, D) features of the object.
        backgrounds: (B, D) features of other backgrounds.
    """

    def __init__(self, feature_map: FeatureMap, objects: NDArray, backgrounds: NDArray) -> None:
        backgrounds = np.concatenate([feature_map.flat(), backgrounds])
        self.feature_map, self.mean = feature_map, backgrounds.mean(0)  # (D,)
        difference = objects.mean(0) - self.mean
        weight = np.linalg.solve(shrunk_covariance(np.cov(backgrounds.T), 0.5), difference)
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
class ImageView:
    """What is needed of an image to compare it with any number of objects; made in one pass."""

    feature_map: FeatureMap
    regions: Sequence[NDArray]  # (H, W) ids from 0 each, fine and coarse regions by colour
    objects: Sequence[NDArray]  # (H, W) bool each, what a detector found, if there is one


@dataclass(frozen=True)
class Match:
    """What in an image looks like the object of some reference images."""

    used: tuple[ReferenceImage, ...] = ()  # those that show an object, the same as most
    discriminant: Discriminant | None = None  # None: no image can be used
    proposal: NDArray[np.bool_] | None = None  # (H, W): all that looks like it
    similarity: float = 0.0  # of what looks most like it: 0 like backgrounds, 1 like the references


@dataclass(frozen=True)
class Verification:
    """What became of a mask. Similarity: 0 like backgrounds, 1 like the references."""

    mask: Mask
    action: str  # "kept" or "corrected"
    reason: str
    used: tuple[ReferenceImage, ...] = ()  # those that show an object, the same as most
    similarity: float = np.nan  # of the mask as given; -1 if it is empty
    proposed: float = np.nan  # of the best proposal

    @property
    def steps(self) -> list[Step]:
        """What each step made."""
        compared = f"the mask {self.similarity:.2f}, the best proposal {self.proposed:.2f}"
        why = "0 is like backgrounds, 1 like the references"
        used = Step("references", f"{len(self.used)} images agree")
        return [used, Step("similarity", compared, why), Step("verified", self.action, self.reason)]


class VisualPromptEnhancer:
    """Verifies and corrects masks by reference images of one object (ROSE, section 2.4).

    Args:
        encoder: compares the images.
        thresholds: what it decides by.
        objects: gives masks of whatever is in an image, such as the boxes of a detector, each filled by a
            segmenter that takes boxes; None: regions by colour alone.

    Raises:
        ValueError: no thresholds are given, or they are for another encoder.
    """

    def __init__(
        self, encoder: Encoder, thresholds: Thresholds | None, objects: Detector | None = None
    ) -> None:
        how = "rose_kit.web.calibration.calibrate makes them, as does the option --calibrate"
        if not thresholds:
            raise ValueError(f"no thresholds for {encoder.name!r}: {how}")
        if thresholds.fingerprint not in ("", encoder.fingerprint):
            theirs = f"{thresholds.fingerprint!r}, not {encoder.fingerprint!r}"
            raise ValueError(f"these thresholds are for another encoder, {theirs}: {how}")
        self.encoder, self.thresholds, self.objects = encoder, thresholds, objects
        self.windows = windows = preferred_windows(encoder)
        # a reference image shows its object larger, so it is encoded at a smaller size
        self.reference_windows = windows and replace(windows, short_side=(windows.short_side or 224) * 3 // 4)

    def __call__(self, image: NDArray, mask: Mask, references: Sequence[ReferenceImage]) -> Verification:
        """Keep the (H, W) mask of an (H, W, 3) uint8 image, or replace it by what matches."""
        return self.verify(mask, self.match(image, {"": references})[""])

    def match(self, image: NDArray, references: Mapping[str, Sequence[ReferenceImage]]) -> dict[str, Match]:
        """What in an (H, W, 3) uint8 image looks like each of several objects; the image is encoded once.

        Args:
            image: (H, W, 3) uint8.
            references: name -> images of what has that name.
        """
        matches = dict.fromkeys(references, Match())
        view = self.look(image) if any(references.values()) else None
        for name, images in references.items():
            used, discriminant = self.fit(view, images)
            if discriminant:
                matches[name] = Match(used, discriminant, *self.propose(view, discriminant))
        return matches

    def verify(self, mask: Mask, match: Match) -> Verification:
        """Keep a mask, or replace it by what matches.

        A mask is replaced if it does not look like the object, or holds only a small part of it.
        """
        if match.discriminant is None:
            return Verification(mask, "kept", "there is no reference image to go by")
        limits, pixels, proposal = self.thresholds, match.discriminant.pixels(), match.proposal
        similarity = float(next(iter(match.discriminant.similarity(mask.mask)), -1))
        instances, is_similar = label(proposal), similarity >= limits.keep
        if is_similar and (touched := np.isin(instances, instances[mask.mask & proposal])).any():
            proposal = touched  # the mask is no part of the other instances
        evidence, of_mask = ((pixels[m] - limits.part).sum() for m in (proposal, mask.mask))
        action, reason = "kept", "no proposal is good enough"
        if is_similar and of_mask >= limits.whole * evidence:
            reason = "the mask looks like the references"
        elif proposal.any() and match.similarity >= limits.correct:
            mask, action = Mask(proposal, float(np.clip(match.similarity, 0, 1))), "corrected"
            reason = "the mask is a small part of this" if is_similar else "this looks like the references"
        return Verification(mask, action, reason, match.used, similarity, match.similarity)

    def look(self, image: NDArray[np.uint8]) -> ImageView:
        """Encode an (H, W, 3) uint8 image, and part it."""
        regions = [felzenszwalb(image, scale, sigma=0.5, min_size=20) for scale in REGION_SCALES]
        objects = self.objects(image) if self.objects else ()
        return ImageView(self.encoder.encode_image(image, windows=self.windows), regions, objects)

    def fit(
        self, view: ImageView, references: Sequence[ReferenceImage]
    ) -> tuple[tuple[ReferenceImage, ...], Discriminant | None]:
        """Choose the reference images that agree, and fit a discriminant of their object to an image.

        Returns:
            The images that are used; the discriminant, None if no image can be used.
        """
        shown = self.encode_references(references)
        means = [objects.mean(0) for _, objects, _ in shown]  # (D,) each
        used = [shown[k] for k in largest_cluster(means, self.thresholds.same)]
        if not used:
            return (), None
        objects = np.concatenate([of_object for _, of_object, _ in used])
        backgrounds = np.concatenate([rest for _, _, rest in used])
        return tuple(references[i] for i, _, _ in used), Discriminant(view.feature_map, objects, backgrounds)

    def encode_references(
        self, references: Sequence[ReferenceImage]
    ) -> list[tuple[int, NDArray[np.float32], NDArray[np.float32]]]:
        """(position, (P, D) features of the object, (B, D) of the rest) of those that show an object."""
        maps = [self.encoder.encode_image(r.image, windows=self.reference_windows) for r in references]
        parted = [(i, own.flat(), foreground(own)) for i, own in enumerate(maps)]
        return [(i, v[is_object], v[~is_object]) for i, v, is_object in parted if is_object.any()]

    def propose(self, view: ImageView, discriminant: Discriminant) -> tuple[NDArray[np.bool_], float]:
        """What looks like the object: what a detector found, if that is similar enough to replace a mask, or
        else merged regions, at the scale with most evidence.

        Returns:
            (H, W) bool: the most similar of the parts, and all that are similar enough to replace a mask; the
            similarity of the most similar one, 0 if nothing looks like the object.
        """
        pixels, limits = discriminant.pixels(), self.thresholds
        layers = [label(_mean_by_region(pixels, regions) > limits.part)[None] for regions in view.regions]
        layers.append(np.asarray(view.objects).reshape(-1, *pixels.shape).astype(int))  # they may overlap
        proposal, most, best = np.zeros(pixels.shape, bool), -np.inf, 0.0
        for layer in layers:  # (1 or K, H, W) numbers of parts from 1, on 0
            similarity = [discriminant.similarity(parts) for parts in layer]  # (number of parts,) each
            if not any(map(len, similarity)):
                continue
            top = float(np.concatenate(similarity).max())
            chosen = [np.append(False, s >= min(limits.correct, top)) for s in similarity]
            instances = np.any([of[parts] for of, parts in zip(chosen, layer, strict=True)], axis=0)
            evidence = (pixels[instances] - limits.part).sum()
            if evidence > most or (layer is layers[-1] and top >= limits.correct):
                proposal, most, best = instances, evidence, top
        return proposal, best


def _mean_by_region(pixels: NDArray, regions: NDArray) -> NDArray:
    """(H, W) values, (H, W) ids from 0 -> (H, W): the mean of each region at its pixels."""
    return (np.bincount(regions.ravel(), pixels.ravel()) / np.bincount(regions.ravel()))[regions]


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
