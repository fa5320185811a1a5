"""Our own open-vocabulary segmenter behind the protocol `Promptable`: plain words -> mask."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rose_kit.encoder import Encoder, preferred_windows
from rose_kit.fusion import ZeroShot
from rose_kit.memory import SupportMemory
from rose_kit.registry import register_segmenter
from rose_kit.segmenter import Segmenter, upsample_scores
from rose_kit.types import class_texts
from rose_kit.web.language import known_noun, noun_phrases
from rose_kit.web.types import Mask


@register_segmenter("zero-shot")
class SegmenterAsPromptable:
    """A `Segmenter`, or an encoder with text alone, that is asked in words.

    The first noun phrase of a prompt that ends in the name of a class asks for that class (more words made
    masks worse); if none does, the most similar one of the noun phrases counts.

    Args:
        encoder: one that reads text, or a `Segmenter` with a memory of its own.
        known: the classes, "dog|puppy" being one with two names. A pixel is of what is asked for if no other
            class is more similar.

    Raises:
        ValueError: no classes are given.
    """

    def __init__(self, encoder: Encoder | Segmenter, known: Sequence[str]) -> None:
        if not isinstance(segmenter := encoder, Segmenter):
            windows = preferred_windows(encoder)
            segmenter = Segmenter(encoder, SupportMemory(encoder.dim), ZeroShot(), windows=windows)
        if not known:
            raise ValueError(f"known={known!r}: give the names that it chooses among, as by --known dog,cat")
        self.segmenter, self.classes = segmenter, {class_texts(names)[0]: names for names in known}

    def segment(self, image: NDArray[np.uint8], prompt: str) -> Mask:
        """(H, W, 3) -> (H, W) mask, and its mean probability.

        Where no pixel is most similar to the prompt, the mask is where it reaches half of its maximum.
        """
        phrases = noun_phrases("".join(c if c.isprintable() and c != "|" else " " for c in prompt))
        asked = [c for phrase in phrases for c, names in self.classes.items() if known_noun(phrase, [names])]
        names = ["|".join(asked[:1] or phrases), *(c for c in self.classes if c not in asked[:1])]
        encoded = self.segmenter.encode(image)
        segmentation = self.segmenter.segment(encoded, names)
        p = segmentation.scores[:1]  # (1, h, w), or (1, H, W) of regions
        p = (p if self.segmenter.regions else upsample_scores(p, encoded.feature_map))[0]  # (H, W)
        wins = segmentation.labels == 0
        mask = wins if wins.any() else p >= p.max() / 2
        return Mask(mask, float(np.clip(p[mask].mean(), 0, 1)))
