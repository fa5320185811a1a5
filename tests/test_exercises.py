"""The exercises: solutions pass, nonsense is told so, typical mistakes are named."""

import importlib
import inspect
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

import course
from course import build
from rose_kit import Vocabulary
from rose_kit.pooling import patch_counts, pool_masks

for file in ("template", *(path.stem for path in course.HERE.glob("n[0-9]*.py"))):
    importlib.import_module(f"course.{file}")
NAMES = sorted(course.EXERCISES)


def named(name, function):
    """A function by the name of the exercise that it answers."""
    function.__name__ = name
    return function


def solved(name):
    return course.EXERCISES[name].solution


def test_solutions_stand_alone():
    for stem in sorted(path.stem for path in build.FOLDER.glob("*.ipynb")):
        scope = {}
        exec(compile(build.solution_page(stem), stem, "exec"), scope)
        for one in build.of(stem):
            name = one.solution.__name__
            assert course.verdict(scope[name]).startswith(f"right: {name}")


def test_what_is_solved_is_remembered_until_it_is_reset(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("ROSE_KIT_CACHE", str(tmp_path))

    def solved_lines():
        capsys.readouterr()
        course.progress()
        told = capsys.readouterr().out.splitlines()
        return [line for line in told if "[x]" in line or "are solved" in line]

    course.check(solved("miou_by_hand"))
    course.check(named("by_confidence", lambda read, seen: read))  # which is wrong
    lines = solved_lines()
    assert lines == ["00  [x] miou_by_hand", f"1 of {len(NAMES) - len(build.of('_template'))} are solved"]
    course.reset("miou_by_hand")
    with pytest.raises(NotImplementedError):
        exec(f"{capsys.readouterr().out}\nmiou_by_hand([], [], 0)", {})
    assert len(solved_lines()) == 1
    cell = []
    shell = SimpleNamespace(set_next_input=lambda text, replace: cell.append((text, replace)))
    monkeypatch.setattr(course, "get_ipython", lambda: shell)
    course.reset("miou_by_hand")
    assert cell == [(build.gap(course.find("miou_by_hand")), True)]
    (tmp_path / course.NOTES).write_text("torn")
    with pytest.raises(ValueError, match="'mioo'"):
        course.reset("mioo")
    assert len(solved_lines()) == 1


def attend(change):
    """keys_attend with one line of its source changed."""
    scope = dict(vars(sys.modules["course.n01"]))
    source = inspect.getsource(solved("keys_attend")).split("\n", 5)[-1]
    assert change[0] in source
    exec(source.replace(*change), scope)
    return scope["keys_attend"]


def forget_if(memory, wanted):
    """Forget the images whose domain is wanted; returns how many prototypes and images went."""
    facts = zip(memory.image_ids, memory.rows.metadata, strict=True)
    gone = {image_id for image_id, told in facts if wanted(told.get("domain"))}
    return sum(memory.remove(image_id=image_id) for image_id in gone), len(gone)


def mean_of_images(answers, truths, count):
    one = solved("miou_by_hand")
    return np.mean([one([a], [t], count) for a, t in zip(answers, truths, strict=True)])


def ids_of(memory, name):
    return memory.ids[memory.class_names == name]


def merge_anywhere(regions, query, threshold):
    return connected_components(query.features @ query.features.T > threshold, directed=False)[1][regions]


def distrust_known(query, memory, vocabulary, least=0.05):
    share = np.bincount((query.features @ vocabulary.text[:5].T).argmax(1), minlength=5) / len(query.features)
    keep = [c for c in range(5) if share[c] >= least]
    return Vocabulary([vocabulary.names[c] for c in keep], vocabulary.text[keep])


def all_neighbours(memory, rows, k=4):
    ids = memory.search(rows.vectors, k).ids
    return (memory.lookup(ids).class_names.reshape(ids.shape) == rows.class_names[:, None]).all(1)


def entropy_with_log0(seen, read):
    sure = [np.exp((p * np.log(p)).sum(1, keepdims=True)) for p in (seen, read)]
    return (sure[0] * seen + sure[1] * read) / (sure[0] + sure[1])


def top(s, k, axis):
    return np.argsort(np.argsort(-s, axis=axis), axis=axis) < k


def first(counts, fits, otherwise=None):
    return next((n for n in range(1, counts + 1) if fits(n)), otherwise)


TYPICAL = [
    ("pool_inside", lambda f, m: pool_masks(f, m, [1])[0][0], "patches on the border"),
    ("pool_inside", lambda f, m: f.flat()[patch_counts(f, m, [1])[:, 0] == 64].mean(0), "length is not 1"),
    ("miou_by_hand", lambda a, t, n: np.mean(np.stack(a) == np.stack(t)), "share of right pixels"),
    ("miou_by_hand", mean_of_images, "averages over images"),
    ("keys_attend", ("_, k, v = ", "k, _, v = "), "uses the queries"),
    ("keys_attend", (" / k.shape[-1] ** 0.5", ""), "forgets to divide"),
    ("keys_attend", ("y = x + ", "y = "), "the residual"),
    ("keys_attend", ("return y + ", "return y # "), "leaves out the MLP"),
    ("keys_attend", (".softmax(-1)", ".softmax(-2)"), "wrong axis"),
    ("forget_domain", lambda m, d: forget_if(m, lambda x: x == d)[1], "how many images went"),
    ("forget_domain", lambda m, d: forget_if(m, lambda x: x != d)[0], "removes the other domain"),
    ("diverse", lambda m, name, n: ids_of(m, name)[[0] * n], "more than once"),
    ("diverse", lambda m, name, n: np.searchsorted(ids_of(m, name), solved("diverse")(m, name, n)),
     "ids are asked for"),
    ("diverse", lambda m, name, n: ids_of(m, name)[:n], "most alike"),
    ("mutual", lambda x, v, k: top(x @ v.T, k, 1) | top(x @ v.T, k, 0), "both have to be"),
    ("mutual", lambda x, v, k: top(x @ v.T, k, 1), "asks the patches only"),
    ("mutual", lambda x, v, k: top(-x @ v.T, k, 1) & top(-x @ v.T, k, 0), "takes the furthest"),
    ("by_confidence", lambda n, v: (n + v) / 2, "weighs all patches alike"),
    ("by_confidence", lambda n, v: np.where(n.max(1) > v.max(1), n.T, v.T).T, "picks the surer one"),
    ("by_confidence", lambda n, v: n.max(1)[:, None] * n + v.max(1)[:, None] * v, "do not add up to 1"),
    ("equal_weights", lambda w: np.ones(len(w), np.float32), "returns ones"),
    ("equal_weights", lambda w: np.full(len(w), 1 / len(w)), "add up to 1"),
    ("equal_weights", lambda w: np.full(len(w), w.mean(), np.float64), "float64"),
    ("hard_pooling", lambda f, regions: pool_masks(f, regions, range(regions.max() + 1))[0],
     "is soft pooling"),
    ("hard_pooling", lambda f, regions: np.nan_to_num(solved("hard_pooling")(f, regions)), "make it NaN"),
    ("merged", merge_anywhere, "do not touch"),
    ("merged", lambda r, q, t: solved("merged")(r, q, -1), "not alike"),
    ("merged", lambda r, q, t: 2 * solved("merged")(r, q, t), "gaps"),
    ("trusted", distrust_known, "drops 'grass'"),
    ("trusted", lambda q, m, v, least=0.05: Vocabulary(solved("trusted")(q, m, v, least).names),
     "drops the texts"),
    ("vetted", all_neighbours, "at least half is enough"),
    ("vetted", lambda m, rows, k=4: np.ones(len(rows.ids), bool), "lies among cats"),
    ("vetted", lambda m, rows, k=4: ~solved("vetted")(m, rows, k), "contradict"),
    ("best_cut", lambda odds, mine: max(odds, key=lambda t: ((odds >= t) == mine).mean()), "mine are few"),
    ("forget", lambda memory, name: memory.remove(class_name=name) and memory, "work on a copy"),
    ("forget", lambda memory, name: memory.copy().remove(class_name=name), "returns a count"),
    ("effort_for", lambda wanted, recall, most: first(most, lambda n: recall(n) > wanted),
     "exactly that is enough"),
    ("effort_for", lambda wanted, recall, most: first(most, lambda n: recall(n) >= wanted, most),
     "does not return None"),
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
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
@pytest.mark.parametrize(("name", "answer", "said"), TYPICAL, ids=[f"{n}-{s}" for n, _, s in TYPICAL])
def test_a_typical_mistake_is_named(name, answer, said):
    answer = attend(answer) if isinstance(answer, tuple) else answer
    told = course.verdict(named(name, lambda *a, **k: answer(*a, **k)))
    assert told.startswith(f"not right yet: {name} ") and said in told
