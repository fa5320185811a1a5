"""Claims as experiments: the rule, the measures, interrupted runs and their table, settings; tuning."""

import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from data_scripts.scenes import SEEN
from experiments.claims import (
    CLAIMS,
    SceneBenchmark,
    Setting,
    choose,
    measure,
    paired,
    scores,
    verdict,
    write,
)
from experiments.claims.claim import Claim
from experiments.claims.table import gains_table, methods_table
from experiments.claims.tuned import PUBLISHED, tuned_method
from experiments.claims.verdict import EQUAL, FAILS, HOLDS, LESS, MORE, UNCLEAR
from experiments.tuning import SPACES, add_to_table, draw_trials, tune
from rose_kit.adapter import RNS
from rose_kit.metrics import mean_interval
from rose_kit.model import methods

NO_SCENES = SimpleNamespace(settings=lambda: "a", apart=False)


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

    claims = [Claim("c", "x", MORE, interrupted, language="vague")]
    with pytest.raises(KeyboardInterrupt):
        measure(claims, [1, 2, 3, 4], NO_SCENES, store, progress=False)
    with store.open("a") as file:
        file.write('a,"x, vague",')  # a line that was cut short
    table = measure(claims, [1, 2, 3, 4], NO_SCENES, store, progress=False)
    assert calls == [1, 2, 3, 3, 4] and not store.exists()
    csv, markdown = write(table, tmp_path / "out")
    [line] = pd.read_csv(csv).itertuples()
    mean, half, outcome = paired([11, 12, 13, 14], MORE)
    assert (line.effect, line.half_width) == pytest.approx((mean, half), abs=1e-3)
    assert (line.verdict, line.effects) == (outcome, "11.000 12.000 13.000 14.000")
    assert f"| c | x | {MORE} | {mean:+.2f} ± {half:.2f}, **{outcome}** | - |" in markdown.read_text()


@pytest.mark.filterwarnings("ignore:no image to draw holds")
def test_seeds_kept_apart_share_no_scene_and_statements_are_differences_of_the_scores(tmp_path):
    bench = SceneBenchmark("bundled", size=48, pool=5, queries=2, names=SEEN, apart=True)
    plain, night = (Setting(RNS(), 1, support=domain) for domain in ("day", "night"))
    drawn = {seed: bench.examples(plain, seed) for seed in (601, 602)}
    assert not set(drawn[601].dataset.ids) & set(drawn[602].dataset.ids)
    dark = bench.examples(night, 601)  # the same scenes in another light
    assert dark.positions == drawn[601].positions and dark.dataset.ids[0] == "scene-1601000-night"
    vague, clear = (bench.encoder(f"bundled/{name}") for name in ("vague", "clear"))
    assert vague._maps is clear._maps is bench.encoder()._maps
    assert not np.allclose(vague.encode_text(["bus"]), clear.encode_text(["bus"]))
    asked = [*scores([1]), *(c for c in CLAIMS if c.statement == "RNS over zero-shot, shots 1")]
    table = measure(asked, [601, 602], bench, tmp_path / "partial.csv", progress=False)
    assert not [key for key in bench._cache if 601 in key]  # forgotten, once the next seed begins
    by_seed = {(r.language, r.statement): np.array(r.effects.split(), float) for r in table.itertuples()}
    for language in ("vague", "clear"):
        own = by_seed[language, "rns, shots 1"] - by_seed[language, "zero-shot, shots 0"]
        assert by_seed[language, "RNS over zero-shot, shots 1"] == pytest.approx(own, abs=2e-3)
        mean, half = mean_interval(own)
        cell = gains_table(table[table.claim == "scores"]).loc[(language, "zero-shot"), "1"]
        assert [float(part) for part in cell.split(" ± ")] == pytest.approx([mean, half], abs=0.06)
    shown = methods_table(table[table.claim == "scores"])
    assert shown.loc[("clear", "zero-shot"), "1"] == "" != shown.loc[("clear", "zero-shot"), "any"]
    written = {path.name: path for path in write(table, tmp_path / "out")}
    assert len(pd.read_csv(written["rns_methods.csv"])) == len(asked) - 2
    assert "1 statements" in written["rns_claims.md"].read_text()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: choose(CLAIMS, ["shots", "shot"]), "'shot'"),
        (lambda: measure(CLAIMS, [1000], NO_SCENES), "1000"),
        (lambda: measure(CLAIMS, [1, 1], NO_SCENES), r"\[1, 1\]"),
        (lambda: SceneBenchmark(size=48, queries=0), "queries 0"),
        (lambda: SceneBenchmark(size=48, pool=1001, apart=True), "pool 1001"),
        (lambda: draw_trials(["freda"], 2), "'freda'.*freeda"),
        (lambda: draw_trials(["zero-shot"], 10**6), "'zero-shot'.*1000000"),
        (lambda: tune(NO_SCENES, ["rns"], 2, [1], [1, 2], [2, 3]), r"\[2\]"),
    ],
)
def test_what_makes_no_sense_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_every_method_gets_as_many_trials_all_different_with_its_defaults_first():
    drawn = draw_trials([*SPACES, *PUBLISHED], 12)
    assert all(len(drawn[name]) == 12 for name in SPACES) and all(drawn[name] == [{}] for name in PUBLISHED)
    for name, space in SPACES.items():
        first, *others = drawn[name]
        assert methods.make(name, **first) == methods.make(name)
        assert len({repr(sorted(options.items())) for options in drawn[name]}) == 12
        assert all(options[key] in space[key] for options in others for key in space)


def test_tuning_chooses_on_development_seeds_and_measures_that_on_others(tmp_path):
    asked = Counter()

    class Bench:
        apart = False

        def settings(self):
            return "a"

        def miou(self, setting, seed):
            method = setting.method
            asked[type(method).__name__, getattr(method, "solver", ""), seed < 10] += 1
            fresh = seed * method.k / 100 if seed >= 10 else 0.0
            return 20 + method.k / 8 * (1 if setting.shots == 1 else -0.5) - fresh

    names = ["knn-clip", "rns", "rns-published"]
    table = tune(
        Bench(), names, 5, [1, 4], [1, 2], [10, 20, 40], store=tmp_path / "partial.csv", progress=False
    )
    tried = {"knn-clip": 5, "rns": 5, "rns-published": 1}
    assert table.groupby("method").size().to_dict() == tried
    assert asked["KnnClip", "", True] == asked["RNS", "lbfgs", True] == 5 * 2 * 2  # trials, shots, seeds
    assert asked["RNS", "adamw", True] == 2 * 2 and asked["RNS", "lbfgs", False] <= 2 * 2 * 3
    for _, own in table.groupby("method"):
        ks = own.settings.str.extract(r"k=(\d+)")[0].astype(float).fillna(4)
        assert own.miou.to_numpy() == pytest.approx((20 + ks / 32).to_numpy(), abs=1e-3)
        [chosen] = own[own.chosen].itertuples()
        assert ks[chosen.Index] == ks.max() and "1" in chosen.best_at
        assert "4" in own.best_at[ks.idxmin()]
        default = ks.iloc[0]
        gains = [(ks.max() - default) * (1 / 32 - seed / 100) for seed in (10, 20, 40)]
        assert (chosen.gain, chosen.half_width) == pytest.approx(mean_interval(gains), abs=5e-3)
        assert own.fresh.notna().sum() == len({chosen.Index, own.index[0]})
    path = tmp_path / "tuning.csv"
    for encoder in ("a", "b", "a"):
        add_to_table(path, table.assign(encoder=encoder, answered="patches"))
    assert pd.read_csv(path).groupby("encoder").size().to_dict() == {"a": 11, "b": 11}
    best = table[table.chosen & (table.method == "knn-clip")].settings.item()
    assert f"k={tuned_method(path, 'knn-clip', 'b').k} " in best + " "
    assert tuned_method(path, "rns-published", "a") == methods.make("rns-published")
    with pytest.raises(ValueError, match="'freeda'"):
        tuned_method(path, "freeda", "a")
