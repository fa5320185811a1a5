"""Our own open-vocabulary segmenter behind the protocol `Promptable`: plain words -> mask."""

import re
from collections.abc import Sequence

import numpy as np

from rose_kit.encoder import Encoder
from rose_kit.fusion import ZeroShot
from rose_kit.memory import SupportMemory
from rose_kit.segmenter import Segmenter, upsample_scores
from rose_kit.web.language import noun_phrases
from rose_kit.web.types import Mask


class SegmenterAsPromptable:
    """A `Segmenter`, or an encoder by text alone, asked in words.

    `others`: classes an image may hold, "dog|pup"; None: those that the encoder was trained to name. The
    first phrase that ends in such a word stands for all (more words made masks worse), or the likeliest.
    """

    def __init__(self, segmenter: Segmenter | Encoder, others: Sequence[str] | None = None) -> None:
        if not isinstance(segmenter, Segmenter):
            windows = getattr(segmenter, "preferred_windows", None)
            segmenter = Segmenter(segmenter, SupportMemory(segmenter.dim), ZeroShot(), windows=windows)
        self.segmenter = segmenter
        others = getattr(segmenter.encoder, "words", ()) if others is None else others
        self.others = {o.split("|")[0]: "|".join(map(re.escape, o.split("|"))) for o in others}

    def segment(self, image: np.ndarray, prompt: str) -> Mask:
        """(H, W, 3) -> (H, W) mask (if it wins no pixel: half of its best), and mean probability there."""
        phrases = noun_phrases(prompt.replace("|", " "))
        named = [n for p in phrases for n, o in self.others.items() if re.search(rf"\b({o})(e?s)?$", p, re.I)]
        names = ["|".join(named[:1] or phrases), *(n for n in self.others if n not in named[:1])]
        encoded = self.segmenter.encode(image)
        found = self.segmenter.segment(encoded, names)
        p = found.scores[:1]  # (1, h, w), or (1, H, W) of regions
        p = (p if self.segmenter.regions else upsample_scores(p, encoded.feature_map))[0]  # (H, W)
        mask = found.labels == 0 if (found.labels == 0).any() else p >= p.max() / 2
        return Mask(mask, float(np.clip(p[mask].mean(), 0, 1)))
