"""Claims as experiments: the rule, the statistics against SciPy, the lab against `evaluate`, the table."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from course.curve_figures import claims_figure, curves
from data_scripts.scenes import THINGS, SceneDataset
from experiments.claims import (
    ROWS,
    Case,
    Expected,
    Lab,
    additions,
    choose,
    heads,
    measure,
    missing,
    paired,
    verdict,
    write,
)
from experiments.claims.frames import frame, missing_frame, over_seeds, shots_frame
from experiments.claims.lab import APART, QUERY, SUPPORT
from experiments.claims.personal import Personal, tell_apart
from experiments.claims.row import Row
from experiments.claims.verdict import EQUAL, FAILS, HOLDS, LESS, MORE, UNCLEAR
from experiments.claims.weak import WEAK, spoil
from rose_kit.adapter import RNS, OfflineLinear
from rose_kit.evaluation import MissingSupport, evaluate
from rose_kit.fusion import KnnClip, ZeroShot
from rose_kit.types import FeatureMap, Prediction, Query, Vocabulary

TINY = {"size": 48, "pool": 24, "queries": 3}
NUMBERS = st.floats(-100, 100)
BOUNDS = st.tuples(NUMBERS, NUMBERS).filter(lambda b: b[0] < b[1]).map(lambda b: Expected(*b))
EXPECTED = st.one_of(BOUNDS, NUMBERS.map(lambda x: Expected(low=x)), NUMBERS.map(lambda x: Expected(high=x)))


@pytest.fixture(scope="module")
def lab():
    return Lab(**TINY)


# --- the rule ---------------------------------------------------------------------------------------------


@given(NUMBERS, st.floats(0, 50), EXPECTED, st.floats(0, 1))
def test_the_verdict_is_about_every_point_of_the_interval(mean, half, expected, share):
    point = mean - half + share * 2 * half  # somewhere in the interval
    inside = expected.low < point < expected.high
    said = verdict(mean, half, expected)
    slack = 1e-9 * (1 + abs(point))  # rounding of `point` itself
    near = min(abs(point - expected.low), abs(point - expected.high)) <= slack
    assert near or not (said == HOLDS and not inside)
    assert near or not (said == FAILS and inside)
    ends = [expected.low < end < expected.high for end in (mean - half, mean + half)]
    assert (said == HOLDS) == all(ends)


@given(NUMBERS, st.floats(0, 50), EXPECTED)
def test_the_verdict_has_no_favourite_sign(mean, half, expected):
    mirrored = Expected(-expected.high, -expected.low)
    assert verdict(mean, half, expected) == verdict(-mean, half, mirrored)


@given(NUMBERS, st.floats(0, 50), st.floats(0, 50), EXPECTED)
def test_a_wider_interval_never_decides_more(mean, half, more, expected):
    wide = verdict(mean, half + more, expected)
    assert wide in (verdict(mean, half, expected), UNCLEAR)


def test_what_is_not_known_is_unclear_and_nothing_at_all_does_not_hold():
    assert verdict(5.0, math.nan, MORE) == verdict(math.nan, 1.0, MORE) == UNCLEAR
    assert paired([3.0], MORE)[2] == UNCLEAR  # one seed has no interval
    assert verdict(0.0, 0.0, MORE) == verdict(0.0, 0.0, LESS) == FAILS
    assert verdict(0.0, 0.0, EQUAL) == HOLDS


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=8))
def test_paired_differences_agree_with_scipy(pairs):
    one, other = np.array(pairs).T
    effects = one - other
    mean, half, said = paired(effects, MORE)
    if np.ptp(effects) < 1e-6:
        return  # SciPy gives NaN where nothing varies
    reference = stats.ttest_rel(one, other).confidence_interval(0.95)
    assert np.allclose((mean - half, mean + half), reference, rtol=1e-9, atol=1e-9)
    p = stats.ttest_rel(one, other).pvalue
    if abs(p - 0.05) > 1e-6:
        assert (said == UNCLEAR) == (p > 0.05)


# --- the statements -----------------------------------------------------------------------------------------


def test_every_claim_has_rows_and_every_row_says_something_of_its_own():
    claims = {row.claim for row in ROWS}
    asked = "one-shot shots knn-clip text lambdas relevance pseudo-labels missing retrieval k domain regions"
    asked += " robustness personalised growth steps weak-encoder detection"
    assert set(asked.split()) <= claims
    assert len({row.says for row in ROWS}) == len(ROWS)  # the key under which effects are kept
    assert all(row.expected.low < row.expected.high for row in ROWS)
    assert not any("|" in text for row in ROWS for text in (row.says, row.paper, row.source))


def test_an_unknown_claim_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown claim 'shot'; known: one-shot, shots"):
        choose(ROWS, ["one-shot", "shot"])
    with pytest.raises(ValueError, match=r"between 0 and 999, got \[1000\]"):
        measure(ROWS, [1000], Fake())
    with pytest.raises(ValueError, match="queries"):
        Lab(size=48, queries=0)


# --- the lab ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gaps", [MissingSupport(), MissingSupport(visual=0.5, text=0.25)])
def test_the_lab_measures_what_evaluate_does(lab, gaps):
    seed, methods = 3, {"rns": RNS(), "knn": KnnClip(), "zero": ZeroShot()}
    things = [thing.name for thing in THINGS]
    support = SceneDataset(TINY["pool"], first=SUPPORT, size=48, classes=things)
    query = SceneDataset(TINY["queries"], first=QUERY + seed * APART, size=48, classes=things)
    windows = {"support_windows": lab.windows, "query_windows": lab.windows}
    options = {"shots": 2, "seeds": [seed], "missing": gaps, "progress": False, **windows}
    rows = evaluate(support, query, lab.encoder(), methods, **options)
    expected = {row["method"]: row["miou"] for row in rows}
    for name in ("rns", "zero"):
        case = Case(methods[name], shots=2, gaps=gaps)
        assert lab.miou(case, seed) == pytest.approx(expected[name], abs=1e-9)
    tuned = Case(methods["knn"], shots=2, gaps=gaps, tuned=True)
    assert lab.miou(tuned, seed) == pytest.approx(expected["knn"], abs=1e-9)


def test_zero_shot_is_measured_once_whatever_the_memory(lab):
    cases = [Case(ZeroShot(), shots, support, gaps=gaps) for shots, support, gaps in
             ((1, "day", MissingSupport()), (20, "night", MissingSupport(visual=0.5)))]  # fmt: skip
    assert cases[0] == cases[1]
    assert Case(ZeroShot(), gaps=MissingSupport(text=0.5)) != cases[0]


def test_two_domains_are_the_union_of_both(lab):
    day, night, both = (lab.memory(Case(RNS(), support=s), 1) for s in ("day", "night", "day+night"))
    assert len(both) == len(day) + len(night)
    assert set(both.image_ids) == set(day.image_ids) | set(night.image_ids)
    none = lab.memory(Case(RNS(), gaps=MissingSupport(visual=1.0)), 1)
    assert len(none) == 0
    kept = set(lab.names) - set(MissingSupport(visual=0.5).draw(lab.names, 1)[0])
    assert set(lab.memory(Case(RNS(), gaps=MissingSupport(visual=0.5)), 1).class_names) == kept & set(
        day.class_names
    )


def test_a_weak_encoder_keeps_its_shape_and_loses_what_it_knew(lab):
    noisy, again, strong = spoil(0.5), spoil(0.5), lab.encoder()
    assert noisy.fingerprint == again.fingerprint != strong.fingerprint
    assert spoil(0.0).fingerprint == strong.fingerprint
    weights = (dict(encoder.model.named_parameters()) for encoder in (spoil(None), strong))
    key = "visual.transformer.resblocks.0.attn.in_proj_weight"
    drawn, learned = (w[key].detach().numpy().ravel() for w in weights)
    assert drawn.std() == pytest.approx(learned.std(), rel=0.05)
    assert abs(np.corrcoef(drawn, learned)[0, 1]) < 0.05
    assert set(WEAK) == {"noisy", "untrained"}


class Table:
    """A lab whose scores are looked up."""

    def __init__(self, score):
        self.score, self.names = score, Lab.names

    def miou(self, case, seed, over=None):
        return self.score(case)


def test_how_far_a_decline_sags_and_how_low_it_gets():
    even = Table(lambda case: 40 - 8 * case.gaps.visual)
    assert missing.sag("visual")(even, 1) == pytest.approx(0)
    curve = dict(zip(missing.SHARES, (40, 31, 36, 34, 32), strict=True))
    dip = Table(lambda case: 33 if isinstance(case.method, ZeroShot) else curve[case.gaps.visual])
    assert missing.sag("visual")(dip, 1) == pytest.approx(38 - 31)
    assert missing.least_over_zero_shot("visual")(dip, 1) == 31 - 33
    assert missing.unseen_over_zero_shot()(dip, 1) == 36 - 33


def test_spread_and_regret_of_a_regulariser():
    tuned = {1: (50, 40, 30, 20), 20: (50, 60, 70, 65)}  # best at 1 shot is the worst at 20

    def score(case):
        if isinstance(case.method, OfflineLinear):
            return tuned[case.shots][[1.0, 10.0, 100.0, 1000.0].index(round(case.method.strength))]
        return 70.0 + (case.method.mu == RNS().mu)

    assert heads.regret(Table(score), 1) == (70 - 50) - 0
    assert heads.spread(20)(Table(score), 1) == (70 - 50) - 1


def test_adding_classes_nobody_asks_for_changes_no_answer(lab):
    assert additions.changed_answers(lab, 1) == 0
    before, after, known = additions._halves(lab, 1)
    assert len(lab.memory(before, 1)) < len(lab.memory(after, 1)) and len(known) == len(lab.names) / 2


# --- the run ------------------------------------------------------------------------------------------------


class Fake:
    """A lab without scenes."""

    def __init__(self, settings="a"):
        self.settings = lambda: settings


def rows_that_fail_at(stop):
    """Three rows that count their calls; the call number `stop` is interrupted."""
    calls = []

    def effect(name, value):
        def run(lab, seed):
            calls.append((name, seed))
            if len(calls) == stop:
                raise KeyboardInterrupt
            return value + seed

        return run

    return [Row("c", name, MORE, effect(name, i)) for i, name in enumerate("xyz")], calls


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path):
    store = tmp_path / "partial.csv"
    rows, calls = rows_that_fail_at(5)
    with pytest.raises(KeyboardInterrupt):
        measure(rows, [1, 2], Fake(), store, progress=False)
    with store.open("a") as file:
        file.write("a,z,")  # a line that was cut short
    rows, calls = rows_that_fail_at(None)
    table = measure(rows, [1, 2], Fake(), store, progress=False)
    assert calls == [("y", 2), ("z", 2)]  # four of six were kept
    assert not store.exists()
    assert table["effects"].tolist() == ["1.000 2.000", "2.000 3.000", "3.000 4.000"]


def test_what_was_measured_under_other_settings_is_not_used(tmp_path):
    store = tmp_path / "partial.csv"
    rows, _ = rows_that_fail_at(4)
    with pytest.raises(KeyboardInterrupt):
        measure(rows, [1, 2], Fake("old weights"), store, progress=False)
    rows, calls = rows_that_fail_at(None)
    measure(rows, [1, 2], Fake("new weights"), store, progress=False)
    assert len(calls) == 6


@pytest.mark.parametrize("seeds", [[], [1, 1]])
def test_seeds_must_be_different_and_some(seeds):
    with pytest.raises(ValueError, match="seeds that are all different"):
        measure(ROWS, seeds, Fake())


def test_a_table_that_is_written_follows_from_its_effects(tmp_path):
    rows = choose(ROWS, ["one-shot", "k", "regions"])
    write(measure(rows, [1, 2], Lab(**TINY | {"queries": 2}), progress=False), tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "rns_claims.csv", keep_default_na=False)
    assert table["statement"].tolist() == [row.says for row in rows]
    for line, row in zip(table.to_dict("records"), rows, strict=True):
        mean, half, said = paired([float(x) for x in line["effects"].split()], row.expected)
        assert (line["effect"], line["half_width"]) == pytest.approx((mean, half), abs=2e-2)
        assert line["verdict"] == said and line["expected"] == str(row.expected)
    text = (tmp_path / "out" / "rns_claims.md").read_text()
    assert text.count("\n| ") == len(rows) + 1 and "48 px, 2 query scenes a seed" in text


# --- the figures --------------------------------------------------------------------------------------------


def test_frames_hold_the_labs_own_numbers_and_become_lines(lab):
    methods = {"zero-shot": ZeroShot(), "kNN-CLIP": KnnClip()}
    shots = shots_frame(lab, [1, 2], (1, 2), methods, progress=False)
    assert len(shots) == 2 * 2 * 2
    line = shots.set_index(["label", "x", "seed"]).loc[("kNN-CLIP", 2, 1)]
    assert line["miou"] == lab.miou(Case(KnnClip(), 2), 1)
    floor = missing_frame(lab, "text", [1], (0.0, 1.0), methods, progress=False)
    assert floor[floor["label"] == "zero-shot"]["miou"].nunique() == 1
    (ax,) = curves(over_seeds(shots), "shots").axes
    assert len(ax.containers) == 2 and [t.get_text() for t in ax.get_xticklabels()] == ["1", "2"]
    with pytest.raises(ValueError, match="no points"):
        curves(over_seeds(frame(lab, {}, [1], progress=False)), "shots")


def test_the_figure_of_claims_shows_each_with_its_verdict():
    rows, _ = rows_that_fail_at(None)
    table = measure(rows, [1, 2], Fake(), progress=False)
    (ax,) = claims_figure(table).axes
    assert ax.get_yticklabels()[0].get_text() == "c: x (expected > 0)"
    assert len(ax.containers) == len(rows)


# --- individuals --------------------------------------------------------------------------------------------


def test_a_personal_scene_marks_one_individual_and_leaves_the_others_in_their_class():
    who = Personal("tent", 7)
    sample = who.sample(5, others=[11, 12], size=96)
    names = {sample.classes[v] for v in np.unique(sample.mask)}
    assert {"my tent", "tent"} <= names
    alone = who.sample(5, size=96)
    assert "tent" not in {alone.classes[v] for v in np.unique(alone.mask)}
    first, second = who.scenes(2, 50, size=48)
    assert first.image_id != second.image_id


@pytest.mark.parametrize(("knows", "auc", "found"), [(1.0, 100, 100), (0.0, 50, None), (-1.0, 0, 0)])
def test_telling_apart_is_100_for_who_knows_and_50_for_who_guesses(knows, auc, found):
    target = np.array([[0, 1], [2, 2]])  # sky, tent, my tent, my tent; one patch a pixel
    features = FeatureMap(np.eye(4, dtype=np.float32).reshape(2, 2, 4), 1, (2, 2), (2, 2))
    log_odds = knows * np.array([0, -1, 1, 1])
    scores = np.stack([np.array([9, 0, 0, 0]), -log_odds, log_odds], axis=1)  # (4, 3): sky, tent, my tent
    scores = np.exp(scores + np.array([0, 0.1, 0]))

    class Oracle:
        def predict(self, query, memory, vocabulary, *, initial_weight=None):
            return Prediction(scores / scores.sum(1, keepdims=True))

    vocabulary = Vocabulary(["sky", "tent", "my tent"])
    result = tell_apart(Oracle(), [(features, Query.of(features), target)], None, vocabulary, "tent")
    assert result["auc"] == pytest.approx(auc) and result["share"] == pytest.approx(200 / 3)
    if found is not None:
        assert result["iou"] == pytest.approx(found)
