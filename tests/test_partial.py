"""Partial support in the course: pseudo-labels against a loop, and curves against single evaluations."""

import numpy as np
import pytest
from test_evaluation import Blocks, ColourEncoder, run
from test_fusion import NAMES, ROWS, world

from course.partial_curves import part_miou, partial_curves
from course.pseudo_labels import pseudo_labels
from rose_kit import RNS, KnnClip, ZeroShot, unit
from rose_kit.evaluation import MissingSupport

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


def test_curves_hold_one_evaluation_per_point():
    chosen = {"zero-shot": ZeroShot(), "knn": KnnClip()}
    points = {"shares": (0, 0.5, 1), "kinds": ("text", "both"), "shots": 2, "seeds": [1], "progress": False}
    rows = partial_curves(Blocks(12), Blocks(6, first=100), ColourEncoder(), chosen, **points)
    got = [(row["kind"], row["share"], row["method"]) for row in rows]
    expected = [(kind, share, name) for kind in ("text", "both") for share in (0, 0.5) for name in chosen]
    assert sorted(got) == sorted([*expected, ("text", 1, "knn")])
    alone = run(chosen, missing=MissingSupport(both=0.5))
    assert [{**row, "kind": "both", "share": 0.5} for row in alone] == rows[-2:]
    assert np.isnan(part_miou(alone[0], [])) and 0 <= part_miou(alone[0], alone[0]["without_text"]) <= 100
    with pytest.raises(ValueError, match="'names'"):
        partial_curves(Blocks(12), Blocks(6, first=100), ColourEncoder(), chosen, kinds=("names",))
