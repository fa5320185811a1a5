"""The protocol every method follows, from zero-shot to a trained head."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Protocol, Self

from numpy.typing import NDArray

from rose_kit.memory import SupportMemory
from rose_kit.types import FeatureMap, Prediction, Query, Vocabulary

AnyQuery = Query | FeatureMap | NDArray
Memory = SupportMemory | None  # None where nothing is known
InitialWeight = NDArray | None  # (C, D) where a trained head starts; None: where it always does
# A labelled image whose prototypes are in the memory: its query, the (N,) class indices of its
# patches (-1 or 255: ignored), and its id in the memory, so that tuning can leave it out.
SupportExample = tuple[AnyQuery, NDArray, Hashable]
Support = Iterable[SupportExample] | None


class Method(Protocol):
    """What `fit` may learn once per memory, and what `predict` answers per image.

    Anything with these two will do; a subclass with nothing to fit inherits `fit`. A method that cannot
    answer without text has a class attribute `needs_text = True`; one that reads the text only where no class
    has support, `uses_text = False`: an evaluation then encodes no name for it.
    """

    def fit(self, memory: Memory, vocabulary: Vocabulary, support: Support = None) -> Self:
        """Learn or tune what does not depend on the query image, and return the method itself.

        Args:
            memory: the prototypes that `predict` will search.
            vocabulary: the classes that `predict` will answer.
            support: labelled images to tune on, each left out of the memory while it is segmented.
        """
        return self

    def predict(
        self, query: AnyQuery, memory: Memory, vocabulary: Vocabulary, *, initial_weight: InitialWeight = None
    ) -> Prediction:
        """Answer for each patch or region of one image.

        Args:
            query: the image's patches or regions; a FeatureMap or a bare (N, D) array will do.
            memory: searched for the vocabulary's classes only.
            vocabulary: the C classes to choose from; text may be missing in part or whole.
            initial_weight: (C, D) where a trained head starts; other methods ignore it.

        Returns:
            (N, C) probabilities, with the evidence for each row's winning class, and the scores it explains.

        Raises:
            ValueError: the vocabulary has no text and the memory none of its classes.
        """
        ...

    def predict_batch(
        self, queries: Sequence[AnyQuery], memory: Memory, vocabulary: Vocabulary
    ) -> list[Prediction]:
        """The answers for several images, the same as one by one; arguments as for `predict`."""
        return [self.predict(query, memory, vocabulary) for query in queries]

    def __sklearn_clone__(self) -> Self:
        """For `clone` of scikit-learn: the same options, and nothing of what was fitted."""
        return replace(self)


def predict_all(
    method: Method, queries: Sequence[AnyQuery], memory: Memory, vocabulary: Vocabulary
) -> list[Prediction]:
    """What a method answers for each image, together if it can."""
    together = getattr(type(method), "predict_batch", Method.predict_batch) if len(queries) > 1 else None
    return (together or Method.predict_batch)(method, queries, memory, vocabulary)


def no_support_error(vocabulary: Vocabulary) -> ValueError:
    """The error for a vocabulary with neither text nor visual support."""
    names = ", ".join(vocabulary.names)
    return ValueError(f"the vocabulary has no text and the memory holds no prototype of its classes: {names}")
