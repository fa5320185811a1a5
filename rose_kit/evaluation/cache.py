"""What experiments ask for again and again, kept: drawn or read samples, and the features of images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rose_kit.data import Dataset, Sample
from rose_kit.encoder import Encoder, Windows
from rose_kit.types import IGNORE, FeatureMap


class CachedDataset:
    """A dataset whose samples are drawn or read once, for sets that fit in memory.

    Args:
        dataset: any; each of its samples is kept when it is first asked for.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.class_names, self.ids = dataset.class_names, dataset.ids
        self._samples: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> Sample:
        if i not in self._samples:
            self._samples[i] = self.dataset[i]
        return self._samples[i]

    def classes_of(self, i: int) -> frozenset[str]:
        """Names of the classes in mask `i`."""
        sample = self[i]
        return frozenset(sample.classes[v] for v in np.unique(sample.mask).tolist() if v != IGNORE)


class CachedEncoder:
    """An encoder that encodes each image once per windows, and each name once; all else is its own.

    Args:
        encoder: any.
        most: images whose features are kept, the latest; None: all, for sets that fit in memory.
    """

    def __init__(self, encoder: Encoder, most: int | None = None) -> None:
        self.encoder, self.most = encoder, most
        self._maps: dict[tuple, FeatureMap] = {}
        self._text: dict[str, NDArray[np.float32]] = {}

    def __getattr__(self, name: str) -> Any:
        if name == "encoder":  # of a copy that is being made
            raise AttributeError(name)
        return getattr(self.encoder, name)

    def encode_image(self, image: Any, windows: Windows | None = None) -> FeatureMap:
        """See `Encoder.encode_image`."""
        pixels = np.ascontiguousarray(image)
        key = (hashlib.sha256(pixels).digest(), pixels.shape, str(pixels.dtype), windows)
        if key not in self._maps:
            while self.most is not None and len(self._maps) >= self.most:
                self._maps.pop(next(iter(self._maps)))
            self._maps[key] = self.encoder.encode_image(image, windows)
        return self._maps[key]

    def encode_text(self, names: Sequence[str]) -> NDArray[np.float32]:
        """See `Encoder.encode_text`."""
        if not names:
            return self.encoder.encode_text(names)  # its own error
        new = [name for name in dict.fromkeys(names) if name not in self._text]
        if new:
            self._text |= zip(new, self.encoder.encode_text(new), strict=True)
        return np.stack([self._text[name] for name in names])
