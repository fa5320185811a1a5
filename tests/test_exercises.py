"""The exercises: solutions pass, gaps are told kindly, typical mistakes are named."""

import importlib
import inspect
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest

import course
from course import build
from course.pseudo_labels import pseudo_labels
from rose_kit import Vocabulary
from rose_kit.pooling import patch_counts

FOLDER = Path(__file__).parents[1] / "notebooks"
STEMS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
for file in ("template", *(path.stem for path in course.HERE.glob("n[0-9]*.py"))):
    importlib.import_module(f"course.{file}")
NAMES = sorted(course.EXERCISES)


def named(name):
    """Call a function by the name of the exercise that it answers."""

    def rename(function):
        function.__name__ = name
        return function

    return rename


def solved(name):
    return course.EXERCISES[name].solution


# --- where they stand ----------------------------------------------------------------------------------


@pytest.mark.parametrize("stem", STEMS)
def test_every_notebook_has_an_exercise_and_no_gap_without_a_source(stem):
    found = build.of(stem)
    assert found and all(one.check and one.hint and one.minutes > 0 for one in found)
    nb = nbformat.read(FOLDER / f"{stem}.ipynb", as_version=4)
    gaps = [c.source for c in nb.cells if c.cell_type == "code" and "raise NotImplementedError(" in c.source]
    assert len(gaps) == len(found)
    for one in found:
        assert f"`{one.solution.__name__}`" in nb.cells[-1].source, "the footer sets the exercise"


def test_solutions_stand_alone():
    for stem in STEMS:
        scope = {}
        exec(compile(build.solution_page(stem), stem, "exec"), scope)
        for one in build.of(stem):
            name = one.solution.__name__
            assert course.verdict(scope[name]).startswith(f"right: {name}")


# --- what a check says ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_gap_is_reported_kindly_and_in_one_line(name, capsys):
    module = sys.modules[solved(name).__module__]
    scope = dict(vars(module))
    exec(build.stub(course.EXERCISES[name]), scope)
    course.check(scope[name])
    assert capsys.readouterr().out == f"not done yet: {name}\n"
    with pytest.raises(NotImplementedError, match="."):
        scope[name](*[None] * len(inspect.signature(scope[name]).parameters))


@pytest.mark.parametrize("name", NAMES)
def test_answers_that_return_nothing_or_nonsense_or_break_are_told_so(name):
    for answer, said in (
        (lambda *a, **k: None, ("not right yet", "")),
        (lambda *a, **k: "nonsense", ("not right yet", "")),
        (lambda *a, **k: np.zeros((3, 1, 4)), ("not right yet", "")),
        (lambda *a, **k: {}["x"], ("not right yet", "KeyError")),
        (lambda: None, ("not right yet", "TypeError")),
    ):
        told = course.verdict(named(name)(answer))
        assert told.startswith(said[0]) and said[1] in told and "\n" not in told


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="no exercise 'mutal'; there are: .*mutual"):
        course.check(named("mutal")(lambda: None))


def test_a_mistake_in_the_answer_is_placed():
    scope = {}
    exec("def mutual(x, v, k):\n    s = x @ v.T\n    return s / missing\n", scope)
    told = course.verdict(scope["mutual"])
    assert (
        told
        == "not right yet: mutual stopped in line 3 of its cell: NameError: name 'missing' is not defined"
    )


def pool_soft(features, mask):
    from rose_kit import pool_masks

    return pool_masks(features, mask, [1])[0][0]


def pool_unscaled(features, mask):
    return features.flat()[patch_counts(features, mask, [1])[:, 0] == 64].mean(0)


def accuracy(answers, truths, count):
    return np.mean(np.stack(answers) == np.stack(truths))


def iou_with_absent(answers, truths, count):
    a, t = np.stack(answers), np.stack(truths)
    ious = [((a == c) & (t == c)).sum() / max(((a == c) | (t == c)).sum(), 1) for c in range(count)]
    return np.mean(ious)


def mean_of_pictures(answers, truths, count):
    one = solved("miou_by_hand")
    return np.mean([one([a], [t], count) for a, t in zip(answers, truths, strict=True)])


def attend(change):
    """keys_attend with one line of its source changed."""
    scope = dict(vars(sys.modules["course.n01"]))
    source = inspect.getsource(solved("keys_attend")).split("\n", 5)[-1]
    old, new = change
    assert old in source
    exec(source.replace(old, new), scope)
    return scope["keys_attend"]


def forget_pictures(memory, domain):
    gone = {
        i for i, f in zip(memory.image_ids, memory.rows.metadata, strict=True) if f.get("domain") == domain
    }
    for image_id in gone:
        memory.remove(image_id=image_id)
    return len(gone)


def forget_the_other(memory, domain):
    gone = {
        i for i, f in zip(memory.image_ids, memory.rows.metadata, strict=True) if f.get("domain") != domain
    }
    return sum(memory.remove(image_id=image_id) for image_id in gone)


def same_thrice(memory, name, n):
    return memory.ids[memory.class_names == name][[0] * n]


def positions(memory, name, n):
    return np.searchsorted(memory.ids[memory.class_names == name], solved("diverse")(memory, name, n))


def first_few(memory, name, n):
    return memory.ids[memory.class_names == name][:n]


def soft_regions(features, regions):
    from rose_kit import pool_masks

    return pool_masks(features, regions, range(regions.max() + 1))[0]


def zero_regions(features, regions):
    return np.nan_to_num(solved("hard_pooling")(features, regions))


def merge_anywhere(regions, query, threshold):
    from scipy.sparse.csgraph import connected_components

    alike = query.features @ query.features.T > threshold
    return connected_components(alike, directed=False)[1][regions]


def distrust_known(query, memory, vocabulary, least=0.05):
    share = np.bincount((query.features @ vocabulary.text[:5].T).argmax(1), minlength=5) / len(query.features)
    keep = [c for c in range(5) if share[c] >= least]
    return Vocabulary([vocabulary.names[c] for c in keep], vocabulary.text[keep])


def without_text(query, memory, vocabulary, least=0.05):
    return Vocabulary(solved("trusted")(query, memory, vocabulary, least).names)


def shifted_owner(query, memory, vocabulary, least=0.05):
    found = pseudo_labels(query, memory, vocabulary)
    doubtful = found.classes[found.scores["size"] < least]
    names = [n for c, n in enumerate(vocabulary.names) if c not in doubtful]
    return Vocabulary(names, vocabulary.text[: len(names)])


def all_neighbours(memory, rows, k=4):
    hits = memory.search(rows.vectors, k)
    names = memory.lookup(hits.rows).class_names.reshape(hits.rows.shape)
    return (names == rows.class_names[:, None]).all(1)


def best_accuracy(odds, mine):
    return max(odds, key=lambda t: ((odds >= t) == mine).mean())


def forget_in_place(memory, name):
    memory.remove(class_name=name)
    return memory


def first_above(wanted, recall_of, most):
    for n in range(1, most + 1):
        if recall_of(n) > wanted:
            return n


def never_none(wanted, recall_of, most):
    return next((n for n in range(1, most + 1) if recall_of(n) >= wanted), most)


def entropy_with_log0(seen, read):
    sure = [np.exp((p * np.log(p)).sum(1, keepdims=True)) for p in (seen, read)]
    return (sure[0] * seen + sure[1] * read) / (sure[0] + sure[1])


def top(s, k, axis):
    return np.argsort(np.argsort(-s, axis=axis), axis=axis) < k


TYPICAL = [
    ("pool_inside", pool_soft, "patches on the border"),
    ("pool_inside", pool_unscaled, "length is not 1"),
    ("miou_by_hand", accuracy, "share of right pixels"),
    ("miou_by_hand", iou_with_absent, "counts a class that is nowhere as 0"),
    ("miou_by_hand", mean_of_pictures, "averages over pictures"),
    ("keys_attend", ("_, k, v = ", "k, _, v = "), "uses the queries"),
    ("keys_attend", (" / k.shape[-1] ** 0.5", ""), "forgets to divide"),
    ("keys_attend", ("y = x + ", "y = "), "the residual"),
    ("keys_attend", ("return y + ", "return y  # "), "leaves out the MLP"),
    ("keys_attend", (".softmax(-1)", ".softmax(-2)"), "wrong axis"),
    ("forget_domain", forget_pictures, "how many pictures went"),
    ("forget_domain", forget_the_other, "removes the other domain"),
    ("forget_domain", lambda memory, domain: 0, "removes nothing"),
    ("diverse", same_thrice, "more than once"),
    ("diverse", positions, "ids are asked for"),
    ("diverse", first_few, "most alike"),
    ("mutual", lambda x, v, k: top(x @ v.T, k, 1) | top(x @ v.T, k, 0), "both have to be"),
    ("mutual", lambda x, v, k: top(x @ v.T, k, 1), "asks the patches only"),
    ("mutual", lambda x, v, k: top(-x @ v.T, k, 1) & top(-x @ v.T, k, 0), "takes the furthest"),
    ("by_confidence", lambda n, v: (n + v) / 2, "weighs all patches alike"),
    ("by_confidence", lambda n, v: np.where(n.max(1) > v.max(1), n.T, v.T).T, "picks the surer one"),
    ("by_confidence", lambda n, v: n.max(1)[:, None] * n + v.max(1)[:, None] * v, "do not add up to 1"),
    ("equal_weights", lambda w: np.ones(len(w), np.float32), "returns ones"),
    ("equal_weights", lambda w: np.full(len(w), 1 / len(w)), "add up to 1"),
    ("equal_weights", lambda w: np.full(len(w), w.mean(), np.float64), "float64"),
    ("hard_pooling", soft_regions, "is soft pooling"),
    ("hard_pooling", zero_regions, "make it NaN"),
    ("merged", lambda regions, query, threshold: regions, "merges nothing"),
    ("merged", merge_anywhere, "do not touch"),
    ("merged", lambda r, q, t: solved("merged")(r, q, -1), "not alike"),
    ("merged", lambda r, q, t: 2 * solved("merged")(r, q, t), "gaps"),
    ("trusted", distrust_known, "drops 'grass'"),
    ("trusted", without_text, "drops the texts"),
    ("trusted", shifted_owner, "mixes up the texts"),
    ("trusted", lambda q, m, v, least=0.05: v, "drops nothing"),
    ("vetted", all_neighbours, "at least half is enough"),
    ("vetted", lambda m, rows, k=4: np.ones(len(rows.ids), bool), "lies among cats"),
    ("vetted", lambda m, rows, k=4: ~solved("vetted")(m, rows, k), "contradict"),
    ("best_cut", best_accuracy, "mine are few"),
    ("best_cut", lambda odds, mine: 0.0, "cuts at 0"),
    ("forget", forget_in_place, "work on a copy"),
    ("forget", lambda memory, name: memory.copy().remove(class_name=name), "returns a count"),
    ("effort_for", first_above, "exactly that is enough"),
    ("effort_for", never_none, "does not return None"),
    ("known_by", lambda pages, day: sorted(pages, reverse=True), "its own future"),
    ("known_by", lambda pages, day: sorted((p for p in pages if p[0] < day), reverse=True), "the day itself"),
    ("known_by", lambda pages, day: sorted(p for p in pages if p[0] <= day), "begins with the oldest"),
    ("both_ious", lambda a, t: solved("both_ious")(a, t)[::-1], "the other way round"),
    ("both_ious", lambda a, t: [np.nanmean(solved("both_ious")(a, t)[:1])] * 2, "averages ratios for cIoU"),
    ("both_ious", lambda a, t: [solved("both_ious")(a, t)[1]] * 2, "sums before it divides"),
    ("box_of", lambda m: [solved("box_of")(m)[i] for i in (1, 0, 3, 2)], "gives y before x"),
    ("box_of", lambda m: [11, 4, 11, 4], "one pixel short"),
    ("box_of", lambda m: [11, 4, 22, 8], "last column and row"),
    ("by_entropy", entropy_with_log0, "logarithm of 0"),
    ("by_entropy", lambda s, r: (s + r) / 2, "weighs all patches alike"),
]


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
@pytest.mark.parametrize(("name", "answer", "said"), TYPICAL, ids=[f"{n}-{s}" for n, _, s in TYPICAL])
def test_a_typical_mistake_is_named(name, answer, said):
    answer = attend(answer) if isinstance(answer, tuple) else answer
    told = course.verdict(named(name)(lambda *a, **k: answer(*a, **k)))
    assert told.startswith(f"not right yet: {name} ") and said in told


def test_every_exercise_has_a_typical_mistake_among_the_tests():
    assert {name for name, _, _ in TYPICAL} == set(NAMES)
