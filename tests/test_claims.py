"""Claims as experiments: the rule, the measures, interrupted runs and their table, settings."""

import math
from types import SimpleNamespace

import pandas as pd
import pytest

from experiments.claims import (
    CLAIMS,
    SceneBenchmark,
    choose,
    measure,
    paired,
    verdict,
    write,
)
from experiments.claims.claim import Claim
from experiments.claims.verdict import EQUAL, FAILS, HOLDS, LESS, MORE, UNCLEAR

NO_SCENES = SimpleNamespace(settings=lambda: "a")


def test_the_verdict_is_about_the_whole_interval():
    assert verdict(5.0, math.nan, MORE) == verdict(math.nan, 1.0, MORE) == UNCLEAR
    assert paired([3.0], MORE)[2] == UNCLEAR  # one seed has no interval
    assert verdict(0.0, 0.0, MORE) == verdict(0.0, 0.0, LESS) == FAILS
    assert verdict(0.0, 0.0, EQUAL) == HOLDS
    assert verdict(0.0, 1.5, EQUAL) == verdict(0.5, 1.0, MORE) == verdict(1.5, 1.0, EQUAL) == UNCLEAR
    assert verdict(1.0, 0.9, MORE) == verdict(-1.0, 0.9, LESS) == HOLDS
    assert verdict(-1.0, 1.0, MORE) == verdict(2.0, 0.5, EQUAL) == FAILS


def test_an_interrupted_run_goes_on_where_it_stopped_and_its_table_is_written(tmp_path):
    store, calls = tmp_path / "partial.csv", []

    def interrupted(bench, seed):
        calls.append(seed)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return 10.0 + seed

    claims = [Claim("c", "x", MORE, interrupted)]
    with pytest.raises(KeyboardInterrupt):
        measure(claims, [1, 2, 3, 4], NO_SCENES, store, progress=False)
    with store.open("a") as file:
        file.write("a,x,")  # a line that was cut short
    table = measure(claims, [1, 2, 3, 4], NO_SCENES, store, progress=False)
    assert calls == [1, 2, 3, 3, 4] and not store.exists()
    csv, markdown = write(table, tmp_path / "out")
    [line] = pd.read_csv(csv).itertuples()
    mean, half, outcome = paired([11, 12, 13, 14], MORE)
    assert (line.effect, line.half_width) == pytest.approx((mean, half), abs=1e-3)
    assert (line.verdict, line.effects) == (outcome, "11.000 12.000 13.000 14.000")
    assert f"| c | x | {MORE} | {mean:+.2f} ± {half:.2f}" in markdown.read_text()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: choose(CLAIMS, ["one-shot", "shot"]), "'shot'"),
        (lambda: measure(CLAIMS, [1000], NO_SCENES), "1000"),
        (lambda: measure(CLAIMS, [1, 1], NO_SCENES), r"\[1, 1\]"),
        (lambda: SceneBenchmark(size=48, queries=0), "queries 0"),
    ],
)
def test_what_makes_no_sense_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()
