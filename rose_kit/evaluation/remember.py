"""Encode a support set into a memory, on one machine or many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rose_kit.data import Dataset
from rose_kit.encoder import Encoder, Windows
from rose_kit.evaluation.parallel import parallel_map
from rose_kit.memory import Rows, SupportMemory
from rose_kit.memory.pictures import picture_rows


@dataclass(frozen=True)
class Pooling:
    """What is done for one support image: encode it, pool its classes; the rows alone travel back.

    Args:
        dataset: the images.
        encoder: makes the features.
        windows: how an image is scaled and cut; None: whole.
    """

    dataset: Dataset
    encoder: Encoder
    windows: Windows | None = None

    def __call__(self, i: int) -> Rows:
        """Position of an image -> one row per class in it, with its thumbnail."""
        sample = self.dataset[i]
        feature_map = self.encoder.encode_image(sample.image, self.windows)
        about = (sample.source, sample.image, None)  # source, thumbnail, metadata
        return picture_rows(0, sample.image_id, feature_map, sample.mask, sample.classes, *about)


def remember(
    memory: SupportMemory,
    dataset: Dataset,
    encoder: Encoder,
    windows: Windows | None = None,
    *,
    positions: Sequence[int] | None = None,
    scheduler: Any = None,
    progress: bool | None = True,
) -> NDArray[np.int64]:
    """Add annotated images to a memory, all in one step at the end.

    Args:
        memory: gains one row per class and image.
        dataset: the images.
        encoder: makes the features.
        windows: how an image is scaled and cut; None: whole.
        positions: of the images; None: all.
        scheduler: where they are encoded, as for `parallel_map`; None: here.
        progress: show a progress bar; None: on terminals only.

    Returns:
        (R,) int64 ids of the new rows.

    Raises:
        ValueError: the memory was made with another encoder, has one of these classes for an image
            already, or an image cannot be read; nothing is added then.
        OSError: the scheduler does not answer.
    """
    memory.check_encoder(encoder)
    chosen = range(len(dataset)) if positions is None else positions
    pooling, spread = Pooling(dataset, encoder, windows), {"scheduler": scheduler, "desc": "encoding"}
    parts = list(parallel_map(pooling, chosen, progress=progress, **spread))
    return memory.extend(Rows.concatenate(parts)) if parts else np.zeros(0, dtype=np.int64)
