"""NEST in miniature: samples true on their day, checks that fire, scores that agree with their definition."""

from collections import Counter
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from data_scripts.news import NewsWorld, Rumour, nest
from data_scripts.news.__main__ import app
from data_scripts.news.nest import NEST_SHARE, Result, build_nest, load_nest, run_nest, save_nest
from data_scripts.news.nest import engine as engine_module
from data_scripts.news.nest.checks import CHECKS, fault
from data_scripts.news.nest.propose import propose
from data_scripts.scenes import Placed
from rose_kit.data import DataError
from rose_kit.metrics import ciou, giou

WORLD = NewsWorld(5, date(2026, 1, 1), date(2026, 4, 30), "dev")
COUNT = 24


@pytest.fixture(scope="module")
def built():
    return build_nest(WORLD, COUNT, nest_share=NEST_SHARE, size=96, progress=False)


def test_the_same_window_gives_the_same_benchmark_and_another_a_fresh_one(built):
    again = build_nest(WORLD, COUNT, nest_share=NEST_SHARE, size=96, progress=False)
    for a, b in zip(built, again, strict=True):
        assert np.array_equal(a.image, b.image) and np.array_equal(a.mask, b.mask)
        assert (a.question, a.day, a.answer) == (b.question, b.day, b.answer)
    later = NewsWorld(5, date(2027, 1, 1), date(2027, 3, 30), "dev")
    for world in (replace(WORLD, seed=6), later, replace(WORLD, split="eval")):
        fresh = build_nest(world, 6, nest_share=NEST_SHARE, size=96, progress=False)
        assert not {(s.question, s.day) for s in fresh} & {(s.question, s.day) for s in built}
        assert not {s.image.tobytes() for s in fresh} & {s.image.tobytes() for s in built}


def test_every_answer_is_the_truth_of_its_day(built):
    for s in built:
        assert s.seed == WORLD.seed and WORLD.start <= s.day <= WORLD.end
        who = {e.name: e for e in WORLD.entities}.get(s.answer)
        if s.kind == "emerging":
            roles = [r for r in WORLD.roles if r.title in s.question.casefold() or r.event in s.question]
            assert len(roles) == 1 and roles[0].holder(s.day) is who and roles[0].settled(s.day)
        elif s.kind == "novel":
            assert timedelta(0) < s.day - who.since <= timedelta(28)
            assert s.answer in s.question or WORLD.newest(who.maker, s.day) is who
        else:
            assert who is None and s.answer in s.question
        assert s.thing == (who.thing if who else s.answer)


def test_the_mix_is_what_was_asked_for(built):
    assert Counter(s.kind for s in built) == {"novel": 7, "emerging": 10, "static": 7}
    assert len({s.id for s in built}) == len({s.image.tobytes() for s in built}) == len(built) == COUNT
    for count, share, size in ((0, 1.0, 64), (5, 0.0, 64), (5, 1.5, 64), (5, 1.0, 20)):
        with pytest.raises(ValueError, match=f"got ({count} and {share}|{size})"):
            build_nest(WORLD, count, nest_share=share, size=size)


def drawn(kind, wanted=lambda p: True):
    """The first sound proposal of a kind that is as wanted."""
    for i in range(200):
        proposal = propose(WORLD, kind, np.random.default_rng(i), 96)
        if fault(proposal, WORLD) is None and wanted(proposal):
            return proposal
    raise AssertionError(f"no sound {kind}")


def fires(name, proposal, **change):
    """Whether a change makes a sound proposal fail the check of that name."""
    changed = replace(proposal, **change)
    return not CHECKS[name](proposal, WORLD) and CHECKS[name](changed, WORLD) and fault(changed, WORLD)


def test_targets_that_are_small_covered_or_alone_are_discarded():
    p = drawn("emerging")
    covered = p.mask.copy()
    covered.ravel()[np.flatnonzero(p.mask)[: int(0.6 * p.mask.sum())]] = False
    assert covered.mean() > 0.015 and fires("hidden", p, mask=covered)
    assert fires("hidden", p, mask=p.mask & (p.mask.cumsum() <= 20).reshape(p.mask.shape))
    assert fires("alone", p, scene=replace(p.scene, things=(p.target,)))


def test_answers_that_are_disputed_or_no_longer_true_are_discarded():
    p, newest = drawn("emerging"), drawn("novel", lambda p: p.form == "newest")
    rumour = Rumour(p.day - timedelta(1), p.day + timedelta(1), p.role.members[0])
    assert fires("contested", p, day=p.role.reigns[1][0])
    assert fires("contested", p, role=replace(p.role, rumours=(rumour,)))
    assert fires("contested", newest, day=newest.who.since)
    assert fires("outdated", p, who=p.role.holder(p.day, back=1))
    older = next(e for e in WORLD.products if e.maker == newest.who.maker)
    assert older is not newest.who and fires("outdated", newest, who=older)
    assert fires("ambiguous", newest, others=(older,))


@pytest.mark.parametrize(("kind", "form"), [("novel", "newest"), ("static", "thing"), ("static", "left")])
def test_an_image_with_a_second_answer_is_discarded(kind, form):
    p = drawn(kind, lambda p: p.form == form)
    twin = Placed(p.target.name, 1, (0, 0, 9, 9), visible=99)
    assert fires("ambiguous", p, scene=replace(p.scene, things=(*p.scene.things, twin)))


def test_questions_that_give_the_answer_away_and_answers_without_support_are_discarded():
    p, static = drawn("novel"), drawn("static")
    for question in (f"Segment the {p.who.thing}.", f"Which of the {p.who.thing}s is new?"):
        assert fires("given away", p, question=question)
    for name in (WORLD.roles[0].title, WORLD.roles[0].event, WORLD.products[0].maker, WORLD.entities[0].name):
        assert fires("given away", static, question=f"Segment the {name}.")
    assert fires("unsupported", p, who=replace(p.who, name="Nobody Knows 7"))
    assert fires("unsupported", drawn("emerging"), day=WORLD.start - timedelta(900))


@pytest.mark.parametrize(("again", "said"), [(True, "'duplicate': 60"), (False, "'not drawn': 60")])
def test_the_engine_gives_up_on_duplicates_and_failures_in_the_end(monkeypatch, again, said):
    proposal = drawn("emerging") if again else None
    monkeypatch.setattr(engine_module, "propose", lambda *args: proposal)
    with pytest.raises(RuntimeError, match=said):
        build_nest(WORLD, 2, nest_share=1.0, size=96, progress=False)


def systems_of(samples):
    """One that knows all, one that never searches and answers the left half, one that always searches."""
    known = {(s.image.tobytes(), s.question, s.day): s for s in samples}

    def oracle(image, question, day):
        sample = known[image.tobytes(), question, day]
        return Result(sample.mask, f"the {sample.answer}", sample.needs_web, "knows all")

    def half(image, question, day):
        image[:] = 0  # what a system does to the image must not reach the next one
        return Result(HALF)

    def eager(image, question, day):
        return Result(np.zeros(image.shape[:2], bool), "nobody", True)

    return {"half": half, "oracle": oracle, "eager": eager}


HALF = np.arange(96)[None].repeat(96, 0) < 48


def test_scores_agree_with_the_metrics_and_gate_figures_with_counting(built):
    rows = run_nest(built, systems_of(built), progress=False)
    table = nest.summarise_nest(rows).set_index(["system", "part"])
    for part, kinds in nest.table.PARTS.items():
        targets = [s.mask for s in built if s.kind in kinds]
        line = table.loc["half", part]
        assert line.giou == pytest.approx(100 * giou([HALF] * len(targets), targets))
        assert line.ciou == pytest.approx(100 * ciou([HALF] * len(targets), targets))
    needless = 100 * 7 / 24
    columns = ["accuracy", "gate_accuracy", "false_skips", "skipped_of_needless", "calls_saved"]
    overall = table.xs("overall", level="part")[columns]
    assert overall.loc["oracle"].tolist() == pytest.approx([100, 100, 0, 100, needless])
    assert overall.loc["half"].tolist() == pytest.approx([0, needless, 100, 100, 100])
    assert overall.loc["eager"].tolist() == pytest.approx([0, 100 - needless, 0, 0, 0])
    assert table.loc["oracle", "overall"].giou == 100 and table.loc["eager", "overall"].giou == 0


def test_intervals_are_over_seeds(built):
    rows = run_nest(built, {"oracle": systems_of(built)["oracle"]}, progress=False)
    worse = [row | {"seed": 6, "iou": 0.5, "intersection": 1, "union": 2} for row in rows]
    line = nest.summarise_nest(rows + worse).set_index("part").loc["overall"]
    assert line.giou == 75 and line.seeds == 2 and line.samples == COUNT and line.accuracy_pm == 0
    assert line.giou_pm == pytest.approx(
        12.706 * 50 / 2, rel=1e-3
    )  # t(0.975, 1) s / sqrt(2), s = 50 / sqrt(2)


def test_each_benchmark_is_measured_on_its_own_web_and_the_tables_are_written(tmp_path):
    def make_systems(archive):
        def first_hit(image, question, day):
            title = archive.search(question, 1)[0].source.title
            return Result(np.ones(image.shape[:2], bool), title, True, str(archive.world.seed))

        return {"first hit": first_hit}

    nests = [SMALL, build_nest(replace(WORLD, seed=6), 2, size=64, progress=False)]
    rows = nest.measure(nests, make_systems, progress=False)
    assert [row["reason"] for row in rows] == [str(row["seed"]) for row in rows] == ["5", "5", "6", "6"]
    summary = nest.write_tables(rows, tmp_path)
    assert pd.read_csv(tmp_path / "nest.csv")["giou"].tolist() == pytest.approx(summary["giou"])
    assert {f.name for f in tmp_path.iterdir()} == {"nest.csv", "nest.md", "nest_samples.csv"}
    with pytest.raises(ValueError, match=r"\[5, 5\]"):
        nest.measure([SMALL, SMALL], make_systems)


def test_a_wrong_mask_names_the_system_and_the_sample(built):
    for mask, said in ((np.zeros((3, 3), bool), r"bool \(3, 3\)"), (np.zeros((96, 96)), "float64")):
        with pytest.raises(ValueError, match=rf"mine, sample 5-0000: the mask is {said}"):
            run_nest(built, {"mine": lambda *a, mask=mask: Result(mask)}, progress=False)
    with pytest.raises(ValueError, match="0 systems"):
        run_nest(built, {}, progress=False)


def test_a_benchmark_survives_its_folder(built, tmp_path):
    back = load_nest(save_nest(built, tmp_path / "nest"))
    assert back.world == WORLD and back.nest_share == NEST_SHARE and back.discards == built.discards
    for a, b in zip(built, back, strict=True):
        assert np.array_equal(a.image, b.image) and np.array_equal(a.mask, b.mask)
        assert replace(a, image=b.image, mask=b.mask).__dict__ == b.__dict__
    with pytest.raises(ValueError, match="holds something already"):
        save_nest(built, tmp_path / "nest")


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("nest.json", '"format": 1', '"format": 9', "9"),
        ("nest.json", "}", "", "JSON"),
        ("samples.jsonl", '"id": "5-0000"', '"id": "../x"', "'../x'"),
        ("samples.jsonl", '"id": "5-0001"', '"id": "5-0000"', "'5-0000' occurs twice"),
        ("samples.jsonl", '"id": "5-0001"', '"id": "5-9999"', "5-9999.png"),
        ("samples.jsonl", '"kind": "', '"kind": "very ', "'very "),
        ("samples.jsonl", '"day": "2026', '"day": "20x6', "line 1: .*20x6"),
    ],
)
def test_a_broken_folder_is_named(tmp_path, name, old, new, said):
    folder = save_nest(SMALL, tmp_path / "nest")
    load_nest(folder)
    path = folder / name
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=said):
        load_nest(folder)


SMALL = build_nest(WORLD, 2, size=64, progress=False)


def test_the_command_builds_a_benchmark(run, tmp_path):
    window = ("--seed", 7, "--start", "2026-01-01", "--end", "2026-03-01", "--size", 64)
    run("--out", tmp_path / "made", *window, "--count", 5, "--plus", "--nest-share", 0.6, app=app)
    made = load_nest(tmp_path / "made")
    assert Counter(s.kind == "static" for s in made) == {True: 2, False: 3}
    assert made.world == NewsWorld(7, date(2026, 1, 1), date(2026, 3, 1), "eval")
