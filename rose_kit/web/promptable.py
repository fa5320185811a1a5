"""Our own open-vocabulary segmenter behind the protocol `Promptable`: plain words -> mask."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rose_kit.encoder import Encoder, preferred_windows
from rose_kit.fusion import ZeroShot
from rose_kit.memory import SupportMemory
from rose_kit.registry import register_segmenter
from rose_kit.segmenter import Segmenter, upsample_scores
from rose_kit.types import class_texts
from rose_kit.web.language import noun_phrases, word_pattern
from rose_kit.web.types import Mask


@register_segmenter("zero-shot")
class SegmenterAsPromptable:
    """A `Segmenter`, or an encoder with text alone, that is asked in words.

    The first noun phrase of a prompt that ends in the name of a class asks for that class (more words made
    masks worse); if none does, the most similar one of the noun phrases counts.

    Args:
        encoder: one that reads text, or a `Segmenter` with a memory of its own.
        known: the classes, "dog|puppy" being one with two names; None: those that the encoder was trained to
            name, its `words`. A pixel is of what is asked for if no other class is more similar.
    """

    def __init__(self, encoder: Encoder | Segmenter, known: Sequence[str] | None = None) -> None:
        if not isinstance(segmenter := encoder, Segmenter):
            windows = preferred_windows(encoder)
            segmenter = Segmenter(encoder, SupportMemory(encoder.dim), ZeroShot(), windows=windows)
        self.segmenter = segmenter
        self.known = tuple(getattr(segmenter.encoder, "words", ()) if known is None else known)
        self.patterns = {class_texts(names)[0]: word_pattern([names]) for names in self.known}

    def segment(self, image: NDArray[np.uint8], prompt: str) -> Mask:
        """(H, W, 3) -> (H, W) mask, and its mean probability.

        Where no pixel is most similar to the prompt, the mask is where it reaches half of its maximum.
        """
        phrases = noun_phrases("".join(c if c.isprintable() and c != "|" else " " for c in prompt))
        classes = [c for phrase in phrases for c, p in self.patterns.items() if re.search(f"{p}$", phrase)]
        names = ["|".join(classes[:1] or phrases), *(c for c in self.patterns if c not in classes[:1])]
        encoded = self.segmenter.encode(image)
        segmentation = self.segmenter.segment(encoded, names)
        p = segmentation.scores[:1]  # (1, h, w), or (1, H, W) of regions
        p = (p if self.segmenter.regions else upsample_scores(p, encoded.feature_map))[0]  # (H, W)
        wins = segmentation.labels == 0
        mask = wins if wins.any() else p >= p.max() / 2
        return Mask(mask, float(np.clip(p[mask].mean(), 0, 1)))
