"""Partial support: some classes without visual support, some without text, some without either.

Which classes lose what depends on the names' number, the fractions and a seed alone, so every method
faces the same gaps. With one seed, the classes that a smaller fraction takes are among those that a
larger one takes: a curve over fractions never swaps one class for another.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import floor

import numpy as np

from rose_kit.memory import SupportMemory


@dataclass(frozen=True)
class Gaps:
    """The shares of classes that lack something, each in [0, 1].

    Args:
        visual: without visual support.
        text: without text.
        both: without either, in addition to the other two.

    Raises:
        ValueError: a share is outside [0, 1], or adds up with `both` to more than all classes.

    >>> Gaps(visual=0.5).draw(["sky", "bus", "tree", "car"], seed=0)
    (('tree', 'sky'), ())
    """

    visual: float = 0.0
    text: float = 0.0
    both: float = 0.0

    def __post_init__(self) -> None:
        for name in ("visual", "text", "both"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"the share of classes without {name} must be in [0, 1], got {getattr(self, name)}"
                )
        for name in ("visual", "text"):
            if getattr(self, name) + self.both > 1 + 1e-9:
                raise ValueError(
                    f"{getattr(self, name)} of the classes without {name} and {self.both} more without both "
                    "are more than there are"
                )

    def draw(self, names: Sequence[str], seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The classes without visual support, and those without text.

        The two overlap in `both`, and beyond it only if the shares add up to more than 1. The texts that
        `Gaps(text=t, both=b)` and `Gaps(text=t + b)` leave out are the same.

        Args:
            names: (C,) the classes.
            seed: of the draw.
        """
        order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
        shares = (self.both, self.both + self.visual, self.both + self.text)
        neither, unseen, untold = (floor(share * len(order) + 0.5) for share in shares)
        rest, end = order[: len(order) - neither], order[::-1]
        return tuple(end[:neither] + rest[: unseen - neither]), tuple(end[:untold])


def without_classes(memory: SupportMemory, names: Collection[str]) -> SupportMemory:
    """A copy of a memory that lacks the prototypes of some classes.

    Its index is exact and its ids are its own; pictures and metadata stay behind.

    Args:
        memory: stays as it is.
        names: classes to leave out; one it does not hold makes no difference.
    """
    keep = ~np.isin(memory.class_names, list(names))
    columns = (memory.vectors[keep], memory.class_names[keep].tolist(), memory.image_ids[keep].tolist())
    part = SupportMemory.from_prototypes(*columns, fingerprint=memory.fingerprint)
    part.encoder = memory.encoder
    return part
