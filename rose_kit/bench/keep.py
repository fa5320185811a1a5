"""What a sweep asks for again and again, kept: drawn or read samples, and the features of images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rose_kit.data import Dataset, Sample
from rose_kit.encoder import Encoder, Windows
from rose_kit.types import IGNORE, FeatureMap


class KeptSamples:
    """A dataset whose samples are drawn or read once, for sets that fit in memory.

    Args:
        dataset: any; each of its samples is kept when it is first asked for.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.class_names, self.ids = dataset.class_names, dataset.ids
        self._kept: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> Sample:
        if i not in self._kept:
            self._kept[i] = self.dataset[i]
        return self._kept[i]

    def classes_of(self, i: int) -> frozenset[str]:
        """Names of the classes in mask `i`."""
        sample = self[i]
        return frozenset(sample.classes[v] for v in np.unique(sample.mask).tolist() if v != IGNORE)


class KeptFeatures:
    """An encoder that encodes each image once per windows, for sets whose features fit in memory.

    Args:
        encoder: any; name, width, patches, fingerprint and text are its own.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.name, self.dim = encoder.name, encoder.dim
        self.patch_size, self.fingerprint = encoder.patch_size, encoder.fingerprint
        self._kept: dict[tuple, FeatureMap] = {}

    def encode_image(self, image: Any, windows: Windows | None = None) -> FeatureMap:
        """See `Encoder.encode_image`."""
        pixels = np.ascontiguousarray(image)
        key = (hashlib.sha256(pixels).digest(), pixels.shape, str(pixels.dtype), repr(windows))
        if key not in self._kept:
            self._kept[key] = self.encoder.encode_image(image, windows)
        return self._kept[key]

    def encode_text(self, names: Sequence[str]) -> NDArray[np.float32]:
        """See `Encoder.encode_text`."""
        return self.encoder.encode_text(names)
