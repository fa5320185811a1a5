"""Claims as experiments: the rule, the statistics against SciPy, the bench against `evaluate`, the table."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from experiments.claims import (
    CLAIMS,
    Expected,
    SceneBenchmark,
    Setting,
    additions,
    choose,
    heads,
    measure,
    missing,
    paired,
    verdict,
    write,
)
from experiments.claims.claim import Claim
from experiments.claims.personal import instance_metrics
from experiments.claims.verdict import EQUAL, FAILS, HOLDS, LESS, MORE, UNCLEAR
from experiments.claims.weak import perturb_weights
from rose_kit.adapter import RNS, OfflineLinear
from rose_kit.evaluation import MissingSupport
from rose_kit.fusion import ZeroShot
from rose_kit.segmenter import EncodedImage
from rose_kit.types import FeatureMap, Prediction, Query, Vocabulary

TINY = {"size": 48, "pool": 24, "queries": 3}
NUMBERS = st.floats(-100, 100)
BOUNDS = st.tuples(NUMBERS, NUMBERS).filter(lambda b: b[0] < b[1]).map(lambda b: Expected(*b))
EXPECTED = st.one_of(BOUNDS, NUMBERS.map(lambda x: Expected(low=x)), NUMBERS.map(lambda x: Expected(high=x)))


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


# --- measures ---------------------------------------------------------------------------------------------


class Table:
    """A bench whose scores are looked up."""

    def __init__(self, score):
        self.score, self.names = score, SceneBenchmark.names

    def miou(self, case, seed, over=None):
        return self.score(case)


def test_the_largest_drop_and_the_lowest_point_of_a_curve():
    even = Table(lambda case: 40 - 8 * case.missing.visual)
    assert missing.max_drop_below_linear("visual")(even, 1) == pytest.approx(0)
    curve = dict(zip(missing.SHARES, (40, 31, 36, 34, 32), strict=True))
    dip = Table(lambda case: 33 if isinstance(case.method, ZeroShot) else curve[case.missing.visual])
    assert missing.max_drop_below_linear("visual")(dip, 1) == pytest.approx(38 - 31)
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


# --- the run ------------------------------------------------------------------------------------------------


class Fake:
    """A bench without scenes."""

    def __init__(self, settings="a"):
        self.settings = lambda: settings


def rows_that_fail_at(stop):
    """Three rows that count their calls; the call number `stop` is interrupted."""
    calls = []

    def effect(name, value):
        def run(bench, seed):
            calls.append((name, seed))
            if len(calls) == stop:
                raise KeyboardInterrupt
            return value + seed

        return run

    return [Claim("c", name, MORE, effect(name, i)) for i, name in enumerate("xyz")], calls


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


def test_a_table_that_is_written_follows_from_its_effects(tmp_path):
    rows = choose(CLAIMS, ["one-shot", "k", "regions"])
    write(measure(rows, [1, 2], SceneBenchmark(**TINY | {"queries": 2}), progress=False), tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "rns_claims.csv", keep_default_na=False)
    assert table["statement"].tolist() == [row.statement for row in rows]
    for line, row in zip(table.to_dict("records"), rows, strict=True):
        mean, half, said = paired([float(x) for x in line["effects"].split()], row.expected)
        assert (line["effect"], line["half_width"]) == pytest.approx((mean, half), abs=2e-2)
        assert line["verdict"] == said and line["expected"] == str(row.expected)
    text = (tmp_path / "out" / "rns_claims.md").read_text()
    assert text.count("\n| ") == len(rows) + 1 and "48 px, 2 query scenes a seed" in text


# --- individuals --------------------------------------------------------------------------------------------


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
    result = instance_metrics(
        Oracle(), [(EncodedImage(features, Query.of(features)), target)], None, vocabulary, "tent"
    )
    assert result["auc"] == pytest.approx(auc) and result["share"] == pytest.approx(200 / 3)
    if found is not None:
        assert result["iou"] == pytest.approx(found)


# --- refusals, once each ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: choose(CLAIMS, ["one-shot", "shot"]), "'shot'"),
        (lambda: measure(CLAIMS, [1000], Fake()), "1000"),
        (lambda: measure(CLAIMS, [1, 1], Fake()), r"\[1, 1\]"),
        (lambda: SceneBenchmark(size=48, queries=0), "queries 0"),
    ],
)
def test_what_makes_no_sense_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_settings_leave_out_what_they_say_and_zero_shot_is_measured_once():
    bench, half = SceneBenchmark(**TINY), MissingSupport(visual=0.5)
    day, night, both = (bench.memory(Setting(RNS(), support=s), 1) for s in ("day", "night", "day+night"))
    assert both.rows.keys() == day.rows.keys() + night.rows.keys()
    kept = set(bench.names) - set(half.draw(bench.names, 1)[0])
    assert set(bench.memory(Setting(RNS(), missing=half), 1).classes) == kept & set(day.classes)
    assert len(bench.memory(Setting(RNS(), missing=MissingSupport(visual=1.0)), 1)) == 0
    assert Setting(ZeroShot(), 20, "night", missing=half) == Setting(ZeroShot(), query="day")
    assert additions.changed_answers(bench, 1) == 0  # adding classes that nobody asks for
    assert perturb_weights(0.5).fingerprint == perturb_weights(0.5).fingerprint != bench.encoder().fingerprint
