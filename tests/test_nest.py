"""NEST in miniature: samples true on their day, checks that fire, scores that agree with their definition."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest

from data_scripts.news import NewsWorld, Rumour, nest
from data_scripts.news.__main__ import app
from data_scripts.news.nest import NEST_SHARE, Result, ablation, build_nest, load_nest, run_nest, save_nest
from data_scripts.news.nest.checks import CHECKS, LEAST_DIFFERENCE, fault
from data_scripts.news.nest.propose import propose
from data_scripts.news.truth import difference
from rose_kit.data import DataError
from rose_kit.metrics import ciou, giou
from rose_kit.web.irag import RetrievalResult
from rose_kit.web.types import Candidate, Mask

WORLD = NewsWorld(5, date(2026, 1, 1), date(2026, 4, 30), "dev")
COUNT = 24


@pytest.fixture(scope="module")
def built():
    return build_nest(WORLD, COUNT, nest_share=NEST_SHARE, size=96, progress=False)


def test_the_same_seed_gives_the_same_benchmark_and_another_a_fresh_one(built):
    again = build_nest(WORLD, COUNT, nest_share=NEST_SHARE, size=96, progress=False)
    for a, b in zip(built, again, strict=True):
        assert np.array_equal(a.image, b.image) and np.array_equal(a.mask, b.mask)
        assert (a.question, a.day, a.answer) == (b.question, b.day, b.answer)
    for world in (replace(WORLD, seed=6), replace(WORLD, split="eval")):
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
            assert (who is None or who.is_class) and s.answer in s.question
        assert s.thing == (who.thing if who else s.answer)
    assert {s.answer == s.thing for s in built if s.kind == "emerging"} == {False, True}


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


def test_what_is_disputed_outdated_ambiguous_given_away_or_unsupported_is_discarded():
    p, newest = drawn("emerging"), drawn("novel", lambda p: p.form == "newest")

    def most_different(p):  # of its class
        return max(range(30), key=lambda n: difference(p.who.thing, n, p.target.individual))

    def differs(p):
        return difference(p.who.thing, most_different(p), p.target.individual) > LEAST_DIFFERENCE

    by_class = drawn("emerging", lambda p: p.who.is_class and differs(p))
    second = [*by_class.scene.things, replace(by_class.target, individual=most_different(by_class))]
    assert fires("ambiguous", by_class, scene=replace(by_class.scene, things=second))
    rumour = Rumour(p.day - timedelta(1), p.day + timedelta(1), p.role.members[0])
    assert fires("contested", p, day=p.role.reigns[1][0])
    assert fires("contested", p, role=replace(p.role, rumours=(rumour,)))
    assert fires("contested", newest, day=newest.who.since)
    assert fires("outdated", p, who=p.role.holder(p.day, back=1))
    older = next(e for e in WORLD.products if e.maker == newest.who.maker)
    assert older is not newest.who and fires("outdated", newest, who=older)
    assert fires("ambiguous", newest, others=(older,))


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
    everything = {"novel", "emerging", "static"}
    parts = {kind: {kind} for kind in everything} | {"nest": everything - {"static"}, "overall": everything}
    by_name = {"emerging: class": {True}, "emerging: individual": {False}}
    assert set(table.loc["half"].index) == {*parts, *by_name}
    for part in table.loc["half"].index:
        kinds, named = parts.get(part, {"emerging"}), by_name.get(part, {True, False})
        targets = [s.mask for s in built if s.kind in kinds and s.known_by_name in named]
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


def test_a_benchmark_survives_its_folder_and_nothing_outside_it_is_read(built, tmp_path):
    back = load_nest(save_nest(built, tmp_path / "nest"))
    assert back.world == WORLD and back.nest_share == NEST_SHARE and back.discards == built.discards
    for a, b in zip(built, back, strict=True):
        assert np.array_equal(a.image, b.image) and np.array_equal(a.mask, b.mask)
        assert replace(a, image=b.image, mask=b.mask).__dict__ == b.__dict__
    with pytest.raises(ValueError, match="holds something already"):
        save_nest(built, tmp_path / "nest")
    path = tmp_path / "nest" / "samples.jsonl"
    path.write_text(path.read_text().replace('"id": "5-0000"', '"id": "../x"'))
    with pytest.raises(DataError, match="'../x'"):
        load_nest(path.parent)


def test_the_command_builds_a_benchmark(run, tmp_path):
    window = ("--seed", 7, "--start", "2026-01-01", "--end", "2026-03-01")
    run("--out", tmp_path / "made", *window, "--size", 64, "--count", 2, app=app)
    made = load_nest(tmp_path / "made")
    assert len(made) == 2 and made.world == NewsWorld(7, date(2026, 1, 1), date(2026, 3, 1), "test")


PROMPTS = {  # question, first candidate -> what the text-only baseline asks the segmenter
    ("Segment the mascot.", "sheep"): "Please segment sheep",
    ("Segment the mascot.", "Marigold"): "Segment the mascot.",
    ("Segment the mascot.", ""): "Segment the mascot.",
    ("Segment the puppies.", "sheep"): "Segment the puppies.",
}


@pytest.mark.parametrize("question, found", PROMPTS)
def test_text_only_search_never_does_worse_than_ask_the_question_where_the_answer_means_nothing(
    question, found
):
    prompts = []

    class Recorder:
        def segment(self, image, prompt):
            prompts.append(prompt)
            return Mask(HALF, 1.0)

    def irag(image, question, day):
        candidates = (Candidate(found, 1.0), Candidate("dog", 0.1)) if found else ()
        return RetrievalResult("", candidates=candidates)

    system = ablation.text_only_search(irag, Recorder(), ["sheep", "dog|puppie"])
    result = system(np.zeros((96, 96, 3), np.uint8), question, date(2026, 3, 1))
    assert prompts == [PROMPTS[question, found]] and result.answer == found and result.searched


def test_goals_are_judged_by_the_interval_over_worlds():
    scores = {ablation.BASE: 0.1, ablation.TEXT: 0.1, ablation.TPE: 0.3, ablation.VPE: 0.4}
    scores |= {ablation.ALL: 0.5, ablation.GATED: 0.45}
    about = {"needs_web": True, "known_by_name": False, "searched": True}
    rows = [
        about
        | {"system": name, "seed": seed, "kind": kind, "iou": iou + 0.2 * (seed % 2) * (name == ablation.TPE)}
        for name, iou in scores.items()
        for seed in range(4)
        for kind in ("emerging", "novel")
    ]
    gate = [
        {"system": ablation.RULES, "seed": seed, "needs_web": needed, "searched": needed or i < 2, "kind": ""}
        for seed in range(4)
        for needed in (True, False)
        for i in range(10)
    ]
    gate += [row | {"system": ablation.SCRIPTED, "searched": True} for row in gate]
    table = ablation.goals(rows, gate)
    assert table["verdict"].tolist() == ["met", "met", "met", "unclear", "unclear", "met", "met", "missed"]
    assert table["effect"].tolist() == pytest.approx([0, 40, 35, 0, 0, 80, 0, 5])
    assert set(ablation.goals(rows[::8] + rows[1::8], gate[:20])["verdict"]) == {"unclear"}
