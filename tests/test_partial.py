"""Partial support: which classes lose what, that every method copes, and whom to believe."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from test_bench import Blocks, ColourEncoder, run
from test_fusion import NAMES, ROWS, world

from course.partial_curves import part_miou, partial_curves
from course.pseudo_labels import pseudo_labels
from course.reliability import auroc, detect
from rose_kit import (
    RNS,
    FeatureMap,
    KnnClip,
    Query,
    Segmenter,
    SupportMemory,
    Vocabulary,
    ZeroShot,
    methods,
    unit,
)
from rose_kit.adapter import OfflineLinear
from rose_kit.evaluation import CachedDataset, CachedEncoder, Gaps, evaluate
from rose_kit.evaluation.partial import without_classes
from rose_kit.evaluation.runs import SupportExamples, SupportFeatures

pytestmark = pytest.mark.filterwarnings("ignore:no image to draw holds. kite")
LABELS = [f"class {c}" for c in range(12)]
shares = st.floats(0, 1)


# --- who loses what ---------------------------------------------------------------------------------


@given(visual=shares, text=shares, both=shares, seed=st.integers(0, 99))
def test_gaps_take_the_share_they_are_asked_for(visual, text, both, seed):
    both = min(both, 1 - max(visual, text))
    no_visual, no_text = Gaps(visual, text, both).draw(LABELS, seed)
    assert len(set(no_visual)) == len(no_visual) and set(no_visual) | set(no_text) <= set(LABELS)
    assert abs(len(no_visual) - 12 * (visual + both)) <= 0.5 + 1e-6
    assert abs(len(no_text) - 12 * (text + both)) <= 0.5 + 1e-6
    if visual + text + both <= 1:
        lacking = set(no_visual) & set(no_text)
        assert abs(len(lacking) - 12 * both) <= 1.5  # rounding moves one class at most
    assert set(no_text) == set(Gaps(text=min(text + both, 1)).draw(LABELS, seed)[1])


@given(small=shares, large=shares, seed=st.integers(0, 99), kind=st.sampled_from(["visual", "text", "both"]))
def test_a_smaller_gap_is_part_of_a_larger_one(small, large, seed, kind):
    small, large = sorted((small, large))
    less, more = (Gaps(**{kind: share}).draw(LABELS, seed) for share in (small, large))
    assert set(less[0]) <= set(more[0]) and set(less[1]) <= set(more[1])


def test_gaps_depend_on_the_seed_and_on_nothing_else():
    draws = {Gaps(0.5, 0.25).draw(LABELS, seed) for seed in range(8)}
    assert len(draws) == 8 and Gaps(0.5, 0.25).draw(LABELS, 3) in draws


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ({"visual": -0.1}, r"without visual must be in \[0, 1\], got -0.1"),
        ({"text": 1.5}, r"without text must be in \[0, 1\], got 1.5"),
        ({"both": float("nan")}, r"without both must be in \[0, 1\], got nan"),
        ({"visual": 0.75, "both": 0.5}, "0.75 of the classes without visual and 0.5 more"),
    ],
)
def test_impossible_shares_are_refused(shares, said):
    with pytest.raises(ValueError, match=said):
        Gaps(**shares)


def test_a_memory_without_classes_answers_as_one_that_never_had_them():
    features, memory, _ = world()
    part = without_classes(memory, ["bus", "zebra"])
    keep = [i for i, name in enumerate(ROWS) if name != "bus"]
    never = SupportMemory.from_prototypes(
        memory.vectors[keep], [ROWS[i] for i in keep], memory.image_ids[keep]
    )
    assert part.classes == never.classes == ("sky", "background", "car") and len(memory) == len(ROWS)
    np.testing.assert_array_equal(part.search(features, 2).rows, never.search(features, 2).rows)
    assert len(without_classes(memory, ROWS)) == 0


# --- every method copes -----------------------------------------------------------------------------

GAPS = [Gaps(v, t, b) for v in (0, 0.5) for t in (0, 0.5) for b in (0, 0.25)]
GAPS += [Gaps(visual=1), Gaps(text=1), Gaps(visual=0.5, text=1), Gaps(visual=1, text=0.75)]


@pytest.mark.parametrize("gaps", GAPS, ids=repr)
def test_every_method_gives_probabilities_whatever_is_missing(gaps):
    features, memory, vocabulary = world()
    no_visual, no_text = gaps.draw(NAMES, seed=1)
    memory, vocabulary = without_classes(memory, no_visual), vocabulary.without_text(no_text)
    support = [
        (features, np.arange(len(features)) % 4, "a"),
        (features[::-1], np.arange(len(features)) % 4, "b"),
    ]
    for name in sorted(methods):
        method = methods.make(name, **({"solver": "lbfgs"} if name == "rns" else {}))
        if getattr(method, "needs_text", False) and not vocabulary.has_text.any():
            continue
        if hasattr(method, "fit"):
            method = method.fit(memory, vocabulary, support)
        answer = np.asarray(method.predict(features, memory, vocabulary))
        assert answer.shape == (len(features), 4), name
        np.testing.assert_allclose(answer.sum(1), 1, atol=1e-4, err_msg=name)


def test_no_gaps_change_nothing_and_rows_say_what_is_missing():
    chosen = {"knn": KnnClip(), "zero-shot": ZeroShot()}
    plain = run(chosen)
    assert run(chosen, gaps=Gaps()) == plain
    assert all(row["without_visual"] == ["kite"] and row["without_text"] == [] for row in plain)
    row = run(chosen, gaps=Gaps(0.25, 0.5), seeds=[3])[0]
    no_visual, no_text = Gaps(0.25, 0.5).draw(list(row["per_class_iou"]), 3)
    assert set(row["without_visual"]) == {*no_visual, "kite"} and set(row["without_text"]) == set(no_text)


def test_without_any_visual_support_the_text_answers_alone():
    zero_shot, knn, linear = run(
        {"zero-shot": ZeroShot(), "knn": KnnClip(), "linear": OfflineLinear()}, gaps=Gaps(visual=1)
    )
    assert knn["per_class_iou"] == linear["per_class_iou"] == zero_shot["per_class_iou"]
    assert zero_shot["miou"] == 100


def test_without_any_text_zero_shot_is_left_out_and_with_nothing_at_all_there_is_an_error():
    with pytest.warns(UserWarning, match="left out: no class has text, which zero-shot cannot do without"):
        rows = run({"zero-shot": ZeroShot(), "knn": KnnClip()}, gaps=Gaps(text=1))
    assert [row["method"] for row in rows] == ["knn"] and rows[0]["miou"] > 90
    encoder = ColourEncoder()
    with pytest.raises(ValueError, match=r"both=1.*leaves no class with visual support or text"):
        run(encoder=encoder, gaps=Gaps(both=1))
    assert not encoder.encoded


def test_a_class_without_visual_support_or_text_lowers_whoever_needs_it():
    """Offline heads cannot answer an unseen class; RNS, which has its name, can."""
    rows = run({"rns": RNS(), "linear": OfflineLinear()}, gaps=Gaps(visual=0.25), seeds=[1])
    (gone,) = [n for n in rows[0]["without_visual"] if n != "kite"]
    iou = {row["method"]: row["per_class_iou"][gone] for row in rows}
    assert iou["linear"] == 0 and iou["rns"] > 90


def test_hidden_classes_have_no_labels_to_tune_or_train_on():
    vocabulary = Vocabulary(["bus", "sky", "grass"])
    features = SupportFeatures(Blocks(3), ColourEncoder(), None)
    plain, hiding = (SupportExamples([0, 1], features, vocabulary, hidden) for hidden in ((), ("sky",)))
    for (_, all_labels, _), (_, labels, _) in zip(plain, hiding, strict=True):
        np.testing.assert_array_equal(labels, np.where(all_labels == 1, -1, all_labels))


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


def test_the_command_line_takes_shares(run, refused, folder, tmp_path):
    args = (
        "evaluate",
        folder,
        "--encoder",
        "handcrafted",
        "--methods",
        "knn-clip",
        "--shots",
        1,
        "--seeds",
        1,
    )
    run(*args, "--without-visual", 0.34, "--json", tmp_path / "out.json")
    (row,) = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert len(row["without_visual"]) == 1 and len(row["without_text"]) == 3
    refused(*args, "--without-text", 1.5, said=["text", "1.5", "[0, 1]"])
    refused(*args, "--without-visual", "half", said=["half"])


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
    rows = detect(
        Blocks(8), Blocks(6, first=100), Colourblind(), shots=1, seeds=[1], gaps=Gaps(visual=1),
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


# --- what a sweep keeps --------------------------------------------------------------------------------


def test_kept_samples_and_features_change_nothing_but_the_work():
    encoder, data = ColourEncoder(), Blocks(12)
    kept_encoder, kept = CachedEncoder(encoder), CachedDataset(data)
    expected = run({"knn": KnnClip()}, data, encoder=ColourEncoder())
    for _ in range(2):
        got = evaluate(
            kept, Blocks(6, first=100), kept_encoder, {"knn": KnnClip()}, shots=2, seeds=[1], progress=False
        )
        assert got == expected
    assert len(encoder.encoded) == len(set(encoder.encoded))
    assert kept[3] is kept[3] and kept.classes_of(3) == data.classes_of(3)
    a, b = (kept_encoder.encode_image(kept[0].image, windows) for windows in (None, "fine"))
    assert isinstance(a, FeatureMap) and a is not b
    assert Query.of(a).features.shape == (20, 3)
    latest = CachedEncoder(slow := ColourEncoder(), most=1)
    for i in (0, 0, 1, 1, 0):
        latest.encode_image(kept[i].image)
    assert len(slow.encoded) == 3


def test_curves_hold_one_evaluation_per_point():
    methods = {"zero-shot": ZeroShot(), "knn": KnnClip()}
    points = {"shares": (0, 0.5, 1), "kinds": ("text", "both"), "shots": 2, "seeds": [1], "progress": False}
    rows = partial_curves(Blocks(12), Blocks(6, first=100), ColourEncoder(), methods, **points)
    got = [(row["kind"], row["share"], row["method"]) for row in rows]
    expected = [(kind, share, name) for kind in ("text", "both") for share in (0, 0.5) for name in methods]
    assert sorted(got) == sorted([*expected, ("text", 1, "knn")])
    alone = run(methods, gaps=Gaps(both=0.5))
    assert [{**row, "kind": "both", "share": 0.5} for row in alone] == rows[-2:]
    assert np.isnan(part_miou(alone[0], [])) and 0 <= part_miou(alone[0], alone[0]["without_text"]) <= 100
    with pytest.raises(ValueError, match="unknown kind 'names' of gap. Known: visual, text, both"):
        partial_curves(Blocks(12), Blocks(6, first=100), ColourEncoder(), methods, kinds=("names",))
