"""Solutions of 07_partial_support, written by course/build.py from course/n07.py."""

import numpy as np

from course.pseudo_labels import pseudo_labels
from rose_kit import Vocabulary


def trusted(query, memory, vocabulary, least=0.05):
    """The vocabulary less the unseen classes whose pseudo-label claims under `least` of the image.

    Classes that have prototypes, and classes without a pseudo-label, stay; so do the texts of all that stay.
    """
    found = pseudo_labels(query, memory, vocabulary)
    doubtful = set(found.classes[found.scores["size"] < least].tolist())
    keep = [c for c in range(len(vocabulary)) if c not in doubtful]
    rows = np.isin(vocabulary.owner, keep)
    owner = np.searchsorted(keep, vocabulary.owner[rows])
    return Vocabulary([vocabulary.names[c] for c in keep], vocabulary.text[rows], owner)
