"""Partial support in the course: that every method copes, pseudo-labels, whom to believe, and curves."""

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
from rose_kit import RNS, KnnClip, Segmenter, SupportMemory, Vocabulary, ZeroShot, unit
from rose_kit.adapter import OfflineLinear
from rose_kit.contract import World
from rose_kit.evaluation import MissingSupport, without_classes
from rose_kit.model import methods

pytestmark = pytest.mark.filterwarnings("ignore:no image to draw holds")

MISSING = [MissingSupport(v, t, b) for v in (0, 0.5) for t in (0, 0.5) for b in (0, 0.25)]
MISSING += [MissingSupport(v, t) for v, t in ((1, 0), (0, 1), (0.5, 1), (1, 0.75))]


@pytest.mark.parametrize("missing", MISSING, ids=repr)
def test_every_method_gives_probabilities_whatever_is_missing(missing):
    for name in sorted(methods):
        method = methods.make(name)
        world = World(dim=getattr(method, "dim", 32), noise=0.3)
        no_visual, no_text = missing.draw(world.classes, seed=1)
        memory = without_classes(world.memory, no_visual)
        vocabulary = world.vocabulary.without_text(no_text)
        if getattr(method, "needs_text", False) and not vocabulary.has_text.any():
            continue
        if hasattr(method, "fit"):
            method = method.fit(memory, vocabulary, world.support())
        answer = np.asarray(method.predict(world.grid(), memory, vocabulary))
        assert answer.shape == (12, 4), name
        np.testing.assert_allclose(answer.sum(1), 1, atol=1e-4, err_msg=name)


def test_a_name_given_only_at_test_time():
    """The memory has never heard of buses; the vocabulary of the question has."""
    encoder, data = ColourEncoder(), Blocks(6, names=("sky", "grass"))
    memory = SupportMemory(3, fingerprint="colour")
    for i in range(3):
        s = data[i]
        memory.add(s.image_id, encoder.encode_image(s.image), s.mask, s.classes)
    sample = Blocks(1, first=50)[0]
    for method, wanted in ((RNS(), {"sky", "grass", "bus"}), (OfflineLinear(), {"sky", "grass"})):
        answer = Segmenter(encoder, memory, method).segment(sample.image, [*memory.classes, "bus"])
        assert {answer.names[c] for c in np.unique(answer.labels)} == wanted


# --- pseudo-labels, and whom to believe --------------------------------------------------------------


def test_pseudo_labels_against_a_loop():
    features, memory, vocabulary = world(n=40)
    answer = RNS(solver="lbfgs")
    found = pseudo_labels(features, memory, vocabulary, answer)
    cosines = features @ vocabulary.text.T
    p = np.exp(100 * (cosines - cosines.max(1, keepdims=True)).astype(np.float64))
    p /= p.sum(1, keepdims=True)
    assert found.classes.tolist() == [3]  # the tree: the only class without a prototype
    mine = np.flatnonzero(cosines.argmax(1) == 3)
    np.testing.assert_array_equal(np.flatnonzero(found.patches(3)), mine)
    top = np.sort(p[mine], 1)
    head = np.asarray(answer.predict(features, memory, vocabulary)).argmax(1)
    centre = unit(features[mine].mean(0))
    known = [i for i, name in enumerate(ROWS) if name in NAMES]
    expected = {
        "confidence": top[:, -1].mean(),
        "margin": (top[:, -1] - top[:, -2]).mean(),
        "entropy": np.mean([sum(q * np.log(q) for q in row if q > 0) for row in p[mine]]),
        "agreement": np.mean(head[mine] == 3),
        "size": len(mine) / 40,
        "unknown": centre @ vocabulary.text[3] - max(memory.vectors[known] @ centre),
    }
    assert set(found.scores) == set(expected)
    for sign, value in expected.items():
        np.testing.assert_allclose(found.scores[sign], [value], atol=1e-4, err_msg=sign)


def test_where_all_classes_are_known_there_are_no_pseudo_labels():
    features, memory, _ = world()
    vocabulary = Vocabulary(["bus", "sky"], np.eye(12)[:2])
    found = pseudo_labels(features, memory, vocabulary)
    assert not len(found.classes) and all(not len(score) for score in found.scores.values())
    everything = pseudo_labels(features, None, vocabulary)
    assert set(everything.classes) == set(everything.guess) and "agreement" not in everything.scores


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=2, max_size=30))
def test_auroc_is_scikit_learns(pairs):
    right, score = (np.array(column) for column in zip(*pairs, strict=True))
    if right.all() or not right.any():
        assert np.isnan(auroc(right, score))
    else:
        assert auroc(right, score) == pytest.approx(roc_auc_score(right, score))


class Colourblind(ColourEncoder):
    """Reads "sky" right and takes every other name for a bus's colour mixed with its own."""

    def encode_text(self, names):
        shift = {"grass": (255, 60, 0), "kite": (10, 210, 10)}
        return unit([shift.get(n, {"sky": (0, 0, 255), "bus": (255, 0, 0)}.get(n, (1, 1, 1))) for n in names])


def test_detection_counts_and_separates():
    """Kite's text is grass's colour: its pseudo-label is always wrong. Sky's is always right."""
    rows = pseudo_label_auroc(
        Blocks(8), Blocks(6, first=100), Colourblind(), shots=1, seeds=[1], missing=MissingSupport(visual=1),
        method=RNS(solver="lbfgs"), progress=False,
    )  # fmt: skip
    assert {row["sign"] for row in rows} == {
        "confidence",
        "margin",
        "entropy",
        "agreement",
        "size",
        "unknown",
    }
    assert {row["labels"] for row in rows} == {rows[0]["labels"]} and 0 < rows[0]["right"] < 1
    assert max(row["auroc"] for row in rows) > 0.6


def test_curves_hold_one_evaluation_per_point():
    methods = {"zero-shot": ZeroShot(), "knn": KnnClip()}
    points = {"shares": (0, 0.5, 1), "kinds": ("text", "both"), "shots": 2, "seeds": [1], "progress": False}
    rows = partial_curves(Blocks(12), Blocks(6, first=100), ColourEncoder(), methods, **points)
    got = [(row["kind"], row["share"], row["method"]) for row in rows]
    expected = [(kind, share, name) for kind in ("text", "both") for share in (0, 0.5) for name in methods]
    assert sorted(got) == sorted([*expected, ("text", 1, "knn")])
    alone = run(methods, missing=MissingSupport(both=0.5))
    assert [{**row, "kind": "both", "share": 0.5} for row in alone] == rows[-2:]
    assert np.isnan(part_miou(alone[0], [])) and 0 <= part_miou(alone[0], alone[0]["without_text"]) <= 100
    with pytest.raises(ValueError, match="unknown kind 'names' of gap. Known: visual, text, both"):
        partial_curves(Blocks(12), Blocks(6, first=100), ColourEncoder(), methods, kinds=("names",))
