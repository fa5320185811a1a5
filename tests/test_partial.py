"""Partial support in the course: pseudo-labels against a loop, and curves against single evaluations."""

import numpy as np
import pytest
from test_fusion import NAMES, ROWS, world

from course.pseudo_labels import pseudo_labels
from rose_kit import RNS, unit

pytestmark = pytest.mark.filterwarnings("ignore:no image to draw holds")


def test_pseudo_labels_against_a_loop():
    features, memory, vocabulary = world(n=40)
    answer = RNS(solver="lbfgs")
    labels = pseudo_labels(features, memory, vocabulary, answer)
    cosines = features @ vocabulary.text.T
    p = np.exp(100 * (cosines - cosines.max(1, keepdims=True)).astype(np.float64))
    p /= p.sum(1, keepdims=True)
    assert labels.classes.tolist() == [3]  # the tree: the only class without a prototype
    mine = np.flatnonzero(cosines.argmax(1) == 3)
    np.testing.assert_array_equal(np.flatnonzero(labels.patches(3)), mine)
    top = np.sort(p[mine], 1)
    head = np.asarray(answer.predict(features, memory, vocabulary)).argmax(1)
    known = [i for i, name in enumerate(ROWS) if name in NAMES]
    centre = unit(features[mine].mean(0))
    expected = {
        "confidence": top[:, -1].mean(),
        "margin": (top[:, -1] - top[:, -2]).mean(),
        "entropy": np.mean([sum(q * np.log(q) for q in row if q > 0) for row in p[mine]]),
        "agreement": np.mean(head[mine] == 3),
        "size": len(mine) / 40,
        "unknown": centre @ vocabulary.text[3] - max(memory.vectors[known] @ centre),
    }
    assert {sign: score.item() for sign, score in labels.scores.items()} == pytest.approx(expected, abs=1e-4)
