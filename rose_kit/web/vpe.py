"""Visual prompt enhancer: does a mask show what the reference images show, and if not, what does?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from skimage.measure import label

from rose_kit.encoder import Encoder
from rose_kit.regions import foreground as look
from rose_kit.segmenter import upsample_scores
from rose_kit.types import FeatureMap
from rose_kit.web.types import Mask, ReferenceImage

Rule = tuple[np.ndarray, np.ndarray]  # of `discriminant` in `rose_kit.regions.foreground`


@dataclass(frozen=True)
class Thresholds:
    """What the enhancer decides by; made for an encoder on annotated images of classes it knows."""

    same: float  # cosine distance up to which references agree
    keep: float  # similarity from which a mask looks like them
    part: float  # similarity from which a region does
    correct: float  # similarity from which a proposal may replace it
    whole: float  # share of a proposal's evidence that a mask in it must hold


@dataclass(frozen=True)
class Verification:
    """What became of a mask. Similarity: 0 like backgrounds, 1 like the references."""

    mask: Mask
    action: str  # "kept" or "corrected"
    reason: str
    used: tuple[ReferenceImage, ...] = ()
    rejected: tuple[tuple[ReferenceImage, str], ...] = ()  # and why
    similarity: float = np.nan  # of the mask as given
    proposed: float = np.nan  # of the best proposal


class VisualPromptEnhancer:
    """Verifies and corrects masks by images of one object.

    Args:
        encoder: compares the images.
        thresholds: None: those that come with the encoder.

    Raises:
        ValueError: the encoder comes without thresholds, and none are given.
    """

    def __init__(self, encoder: Encoder, thresholds: Thresholds | None = None) -> None:
        own = getattr(encoder, "thresholds", None)
        if thresholds is None and own is None:
            raise ValueError(f"no thresholds for {encoder.name!r}: pass Thresholds(...)")
        self.encoder, self.thresholds = encoder, thresholds or Thresholds(**own)
        self.far = far = getattr(encoder, "preferred_windows", None)
        self.near = far and replace(far, short_side=(far.short_side or 224) * 3 // 4)  # things are larger

    def __call__(self, image: np.ndarray, mask: Mask, images: Sequence[ReferenceImage]) -> Verification:
        """Keep the (H, W) mask of an (H, W, 3) uint8 image, or take all that looks like the references."""
        used, rejected, front, back = self.references(images)
        if not used:
            return Verification(mask, "kept", "there is no reference image to go by", (), rejected)
        fm, rule = self.discriminant(image, front, back)
        before = float(np.append(look.similarity(fm, mask.mask, rule), -1)[0])  # -1: it is empty
        proposal, after, scores = self.propose(image, fm, rule)
        right = before >= self.thresholds.keep
        parts = label(proposal)
        if right and (touched := np.isin(parts, parts[mask.mask & proposal])).any():
            proposal = touched  # for only what it is a part of can be better
        whole, own = ((scores[m] - self.thresholds.part).sum() for m in (proposal, mask.mask))
        evidence = used, rejected, before, after
        if right and own >= self.thresholds.whole * whole:
            return Verification(mask, "kept", "the mask looks like the references", *evidence)
        if not (proposal.any() and after >= self.thresholds.correct):
            return Verification(mask, "kept", "no proposal is good enough", *evidence)
        corrected = Mask(proposal, float(np.clip(after, 0, 1)))
        reason = "the mask is a small part of this" if right else "this looks like the references"
        return Verification(corrected, "corrected", reason, *evidence)

    def best_similarity(self, image: np.ndarray, images: Sequence[ReferenceImage]) -> float:
        """Similarity of what looks most like the references in an (H, W, 3) uint8 image; 0: nothing does."""
        used, _, front, back = self.references(images)
        if not used:
            return 0.0
        return float(np.nan_to_num(self.propose(image, *self.discriminant(image, front, back))[1]))

    def references(self, images: Sequence[ReferenceImage]) -> tuple[tuple, tuple, list, list]:
        """Those of the largest cluster; the others, and why; of the former (P, D) objects and backgrounds."""
        views = [self.encoder.encode_image(i.image, windows=self.near) for i in images]
        fronts = [look.foreground(view) for view in views]
        clear = [i for i, front in enumerate(fronts) if front.any()]
        means = [views[i].flat()[fronts[i]].mean(0) for i in clear]
        used = [clear[k] for k in look.largest_cluster(means, self.thresholds.same)]
        reasons = {
            i: "unlike most references" if i in clear else "shows no object" for i in range(len(views))
        }
        rejected = tuple((images[i], why) for i, why in reasons.items() if i not in used)
        front, back = ([views[i].flat()[fronts[i] == side] for i in used] for side in (True, False))
        return tuple(images[i] for i in used), rejected, front, back

    def discriminant(
        self, image: np.ndarray, front: Sequence[np.ndarray], back: Sequence[np.ndarray]
    ) -> tuple[FeatureMap, Rule]:
        """The features of an image, and what tells the object from it and from other backgrounds."""
        fm = self.encoder.encode_image(image, windows=self.far)
        return fm, look.discriminant(np.concatenate(front), np.concatenate([fm.flat(), *back]))

    def propose(self, image: np.ndarray, fm: FeatureMap, rule: Rule) -> tuple[np.ndarray, float, np.ndarray]:
        """(H, W) bool, all instances; the similarity of the best; (H, W) that of each pixel."""
        pixels = upsample_scores(((fm.flat() - rule[0]) @ rule[1]).reshape(1, *fm.grid), fm)[0]  # (H, W)
        regions = look.colour_regions(image)
        return *look.most_similar_region(
            regions, pixels, fm, rule, self.thresholds.part, self.thresholds.correct
        ), pixels
