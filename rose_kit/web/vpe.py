"""Visual prompt enhancer: does a mask show what the reference pictures show, and if not, what does?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from skimage.measure import label

from rose_kit.encoder import Encoder
from rose_kit.regions import foreground as look
from rose_kit.segmenter import upsample_scores
from rose_kit.types import FeatureMap
from rose_kit.web.types import Mask, Picture


@dataclass(frozen=True)
class Thresholds:
    """What the enhancer decides by; made for an encoder on annotated images of classes it knows."""

    same: float  # cosine distance up to which references agree
    keep: float  # similarity from which a mask looks like them
    part: float  # similarity from which a region does
    correct: float  # similarity from which a proposal may replace it
    whole: float  # share of a proposal's evidence that a mask in it must hold


@dataclass(frozen=True)
class Verified:
    """What became of a mask. Similarity: 0 like backgrounds, 1 like the references."""

    mask: Mask
    action: str  # "kept" or "corrected"
    reason: str
    used: tuple[Picture, ...] = ()
    rejected: tuple[tuple[Picture, str], ...] = ()  # and why
    similarity: float = np.nan  # of the mask as given
    proposed: float = np.nan  # of the best proposal


class VisualPromptEnhancer:
    """Verifies and corrects masks by pictures of one object; `regions`: image -> (H, W) ids, or several."""

    def __init__(self, encoder: Encoder, thresholds: Thresholds | None = None, regions=look.colour_regions):
        own = getattr(encoder, "thresholds", None)
        if thresholds is None and own is None:
            raise ValueError(f"no thresholds for {encoder.name!r}: pass Thresholds(...)")
        self.encoder, self.regions, self.thresholds = encoder, regions, thresholds or Thresholds(**own)
        self.far = far = getattr(encoder, "preferred_windows", None)
        self.near = far and replace(far, short_side=(far.short_side or 224) * 3 // 4)  # things are larger

    def __call__(self, image: np.ndarray, mask: Mask, pictures: Sequence[Picture]) -> Verified:
        """Keep the (H, W) mask of an (H, W, 3) uint8 image, or take all that looks like the references."""
        used, rejected, front, back = self.references(pictures)
        if not used:
            return Verified(mask, "kept", "there is no reference picture to go by", (), rejected)
        fm = self.encoder.encode_image(image, windows=self.far)
        rule = look.discriminant(np.concatenate(front), np.concatenate([fm.flat(), *back]))
        before = float(np.append(look.similarity(fm, mask.mask, rule), -1)[0])  # -1: it is empty
        found, after, scores = self.propose(image, fm, rule)
        right = before >= self.thresholds.keep
        parts = label(found)
        if right and (touched := np.isin(parts, parts[mask.mask & found])).any():
            found = touched  # for only what it is a part of can be better
        whole, own = ((scores[m] - self.thresholds.part).sum() for m in (found, mask.mask))
        seen = used, rejected, before, after
        if right and own >= self.thresholds.whole * whole:
            return Verified(mask, "kept", "the mask looks like the references", *seen)
        if not (found.any() and after >= self.thresholds.correct):
            return Verified(mask, "kept", "no proposal is good enough", *seen)
        reason = "the mask is a small part of this" if right else "this looks like the references"
        return Verified(Mask(found, float(np.clip(after, 0, 1))), "corrected", reason, *seen)

    def references(self, pictures: Sequence[Picture]):
        """Those of the largest cluster, the others, and of those (P, D) of each object and background."""
        views = [self.encoder.encode_image(p.image, windows=self.near) for p in pictures]
        fronts = [look.foreground(view) for view in views]
        clear = [i for i, front in enumerate(fronts) if front.any()]
        means = [views[i].flat()[fronts[i]].mean(0) for i in clear]
        used = [clear[k] for k in look.largest_cluster(means, self.thresholds.same)]
        whys = {i: "unlike most references" if i in clear else "shows no object" for i in range(len(views))}
        rejected = tuple((pictures[i], why) for i, why in whys.items() if i not in used)
        front, back = ([views[i].flat()[fronts[i] == side] for i in used] for side in (True, False))
        return tuple(pictures[i] for i in used), rejected, front, back

    def propose(self, image: np.ndarray, fm: FeatureMap, rule) -> tuple[np.ndarray, float, np.ndarray]:
        """(H, W) bool, all instances; the similarity of the best; (H, W) that of each pixel."""
        pixels = upsample_scores(((fm.flat() - rule[0]) @ rule[1]).reshape(1, *fm.grid), fm)[0]  # (H, W)
        cuts = np.array(self.regions(image), ndmin=3)  # (K, H, W)
        part, correct = self.thresholds.part, self.thresholds.correct
        return *look.most_similar_region(cuts, pixels, fm, rule, part, correct), pixels
