"""Visual prompt enhancer: does a mask show what the reference pictures show, and if not, what does?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from skimage.measure import label

from rose_kit.encoder import Encoder
from rose_kit.pooling import distinct
from rose_kit.regions import foreground as look
from rose_kit.segmenter import upsample_scores
from rose_kit.types import FeatureMap
from rose_kit.web.types import Mask, Picture


@dataclass(frozen=True)
class Thresholds:
    """Cosine distance within which references agree; similarity to `keep` and to `correct` a mask."""

    same: float
    keep: float
    correct: float


# Made by `rose-kit bench verification`, on scenes that serve nothing else and classes the encoder has seen.
CALIBRATED = {"bundled": Thresholds(same=0.4, keep=0.35, correct=0.35)}


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
        if thresholds is None and encoder.name not in CALIBRATED:
            raise ValueError(f"no thresholds for {encoder.name!r}: see rose_kit.bench.verification.calibrate")
        self.encoder, self.regions, self.thresholds = encoder, regions, thresholds or CALIBRATED[encoder.name]
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
        if before >= self.thresholds.keep:
            return Verified(mask, "kept", "the mask looks like the references", used, rejected, before)
        found, after = self.propose(image, fm, rule)
        if not after >= self.thresholds.correct:
            return Verified(mask, "kept", "no proposal is good enough", used, rejected, before, after)
        new = Mask(found, float(np.clip(after, 0, 1)))
        return Verified(new, "corrected", "this looks like the references", used, rejected, before, after)

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

    def propose(self, image: np.ndarray, fm: FeatureMap, rule) -> tuple[np.ndarray, float]:
        """(H, W) bool, every instance at the scale that shows most of them; similarity of the best."""
        scores = upsample_scores(((fm.flat() - rule[0]) @ rule[1]).reshape(1, *fm.grid), fm)[0]  # (H, W)
        found, most, best = np.zeros(scores.shape, bool), -np.inf, np.nan
        maps = self.regions(image)
        for ids in maps if isinstance(maps, list) else [maps]:
            ids = distinct(ids)[1]
            means = np.bincount(ids.ravel(), scores.ravel()) / np.bincount(ids.ravel())  # (R,)
            parts = label(means[ids] > self.thresholds.keep)  # neighbouring regions that look right merge
            if (each := look.similarity(fm, parts, rule)).size:  # (K,)
                taken = np.append(False, each >= min(self.thresholds.correct, each.max()))[parts]
                if (gain := (scores[taken] - self.thresholds.keep).sum()) > most:
                    found, most, best = taken, gain, float(each.max())
        return found, best
