"""Partial support in the course: that every method copes, pseudo-labels, their reliability, and curves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from test_evaluation import Blocks, ColourEncoder, run
from test_fusion import NAMES, ROWS, world

from course.partial_curves import part_miou, partial_curves
from course.pseudo_labels import pseudo_labels
from course.reliability import auroc, pseudo_label_auroc
from rose_kit import RNS, KnnClip, ZeroShot, unit
from rose_kit.contract import NAMES as CLASSES
from rose_kit.contract import ToyProblem
from rose_kit.evaluation import MissingSupport, without_classes
from rose_kit.model import methods

pytestmark = pytest.mark.filterwarnings("ignore:no image to draw holds")
MISSING = [MissingSupport(v, t, b) for v in (0, 0.5) for t in (0, 0.5) for b in (0, 0.25)]
MISSING += [MissingSupport(v, t) for v, t in ((1, 0), (0, 1), (0.5, 1), (1, 0.75))]


@pytest.mark.parametrize("name", sorted(methods))
def test_every_method_gives_probabilities_whatever_is_missing(name):
    problem = ToyProblem(getattr(methods.make(name), "dim", 32), noise=0.3)
    for missing in MISSING:
        no_visual, no_text = missing.draw(CLASSES, seed=1)
        memory = without_classes(problem.memory, no_visual)
        vocabulary = problem.vocabulary.without_text(no_text)
        if vocabulary.has_text.any() or not getattr(methods[name], "needs_text", False):
            problem.answer(methods[name], memory, vocabulary)


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


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=2, max_size=30))
def test_auroc_is_scikit_learns(pairs):
    right, score = (np.array(column) for column in zip(*pairs, strict=True))
    if right.all() or not right.any():
        assert np.isnan(auroc(right, score))
    else:
        assert auroc(right, score) == pytest.approx(roc_auc_score(right, score))


class Colourblind(ColourEncoder):
    """Reads "sky" and "bus" right; kite's text is grass's colour, so its pseudo-label is wrong."""

    def encode_text(self, names):
        colours = {"grass": (255, 60, 0), "kite": (10, 210, 10), "sky": (0, 0, 255), "bus": (255, 0, 0)}
        return unit([colours[name] for name in names])


def test_detection_counts_and_separates():
    options = {"shots": 1, "seeds": [1], "missing": MissingSupport(visual=1), "method": RNS(solver="lbfgs")}
    rows = pseudo_label_auroc(Blocks(8), Blocks(6, first=100), Colourblind(), **options, progress=False)
    assert len(rows) == 6 and {row["labels"] for row in rows} == {rows[0]["labels"]}
    assert 0 < rows[0]["right"] < 1 and max(row["auroc"] for row in rows) > 0.6


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
