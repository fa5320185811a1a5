"""The exercises: solutions pass, nonsense is told so, typical mistakes are named."""

import importlib
import inspect
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nbformat import v4
from scipy.sparse.csgraph import connected_components
from scipy.stats import entropy
from sklearn.metrics import f1_score, matthews_corrcoef

import course
from course import build
from course.pseudo_labels import pseudo_labels
from rose_kit import SupportMemory, Vocabulary, unit
from rose_kit.fusion.zero_shot import softmax
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
    course.check(named("keys_attend", lambda *given: None))  # which is wrong
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


def test_a_lesson_goes_on_with_what_is_right_and_with_the_solution_until_then(capsys):
    right = named("late_fusion", lambda *given: solved("late_fusion")(*given))
    assert course.yours(right) is right and not capsys.readouterr().out
    for wrong in (lambda *given: None, lambda cosine, vote, scale, weight: vote):
        assert course.yours(named("late_fusion", wrong)) is solved("late_fusion")
        assert capsys.readouterr().out.startswith("late_fusion is not solved yet")


def test_hints_come_one_by_one_and_the_second_is_repeated(capsys):
    for number in (0, 1, 1):
        course.hint("late_fusion")
        assert capsys.readouterr().out.endswith(course.find("late_fusion").hints[number] + "\n")
    with pytest.raises(ValueError, match="'late'"):
        course.hint("late")
    for one in course.EXERCISES.values():
        assert one.level in (1, 2, 3) and len(set(one.hints)) == 2 and all(one.hints)


CELLS = {
    "no gap": (["check({name})"], "tagged `exercise` are []"),
    "two gaps": (["def {name}(): 0", "def {name}(): 0", "check({name})"], "'late_fusion', 'late_fusion'"),
    "a check before its gap": (["check({name})", "def {name}(): 0"], "no cell below says check(late_fusion)"),
    "another name": (["def other(): 0", "check(other)"], "other is not in n04.py"),
}


@pytest.mark.parametrize(("sources", "said"), CELLS.values(), ids=CELLS)
def test_a_gap_is_written_where_the_lesson_has_it_and_misplaced_cells_are_refused(sources, said):
    def lesson(*sources):
        cells = [v4.new_code_cell(source.replace("{name}", "late_fusion")) for source in sources]
        for cell in cells:
            cell.metadata.tags = ["exercise"] if "def " in cell.source else []
        return v4.new_notebook(cells=cells)

    good = lesson("x = 1", "def {name}(): 0", "y = 2", "check({name})", "z = 3")
    build.stamp(good, "04_fusion")
    gap = build.gap(course.find("late_fusion"))
    assert [c.source for c in good.cells] == ["x = 1", gap, "y = 2", "check(late_fusion)", "z = 3"]
    with pytest.raises(ValueError, match=re.escape(said)):
        build.stamp(lesson(*sources), "04_fusion")


def changed(name, old, new):
    """The solution of an exercise with a part of its source changed."""
    one = solved(name)
    source = inspect.getsource(one)
    source = source[source.index("def ") :]
    assert old in source
    exec(source.replace(old, new), scope := dict(vars(sys.modules[one.__module__])))
    return scope[name]


def naive_softmax(x):
    """It overflows where the exponent is large."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.exp(x) / np.exp(x).sum(1, keepdims=True)


def forget_if(memory, wanted):
    """Forget the images whose facts are wanted; returns how many prototypes and images went."""
    facts = zip(memory.image_ids, memory.rows.metadata, strict=True)
    gone = {image_id for image_id, told in facts if wanted(told)}
    return sum(memory.remove(image_id=image_id) for image_id in gone), len(gone)


def mean_of_images(answers, truths, count):
    one = solved("miou_by_hand")
    return np.mean([one([a], [t], count) for a, t in zip(answers, truths, strict=True)])


def mean_of_classes(answers, truths, classes, joint=np.bitwise_or):
    pairs = [(np.stack(answers) == c, np.stack(truths) == c) for c in classes]
    return np.mean([(a & t).sum() / joint(a, t, dtype=int).sum() for a, t in pairs])


def ids_of(memory, name):
    return memory.ids[memory.class_names == name]


def by_middle(features, regions):
    own = regions[4::8, 4::8].ravel()
    pooled = np.full((regions.max() + 1, features.dim), np.nan, np.float32)
    for r in np.unique(own):
        pooled[r] = unit(features.flat()[own == r].mean(0))
    return pooled


def by_half(features, regions):
    counts = patch_counts(features, regions, range(regions.max() + 1))
    own = np.where(counts.max(1) > counts.sum(1) / 2, counts.argmax(1), -1)
    pooled = np.full((counts.shape[1], features.dim), np.nan, np.float32)
    for r in set(own) - {-1}:
        pooled[r] = unit(features.flat()[own == r].mean(0))
    return pooled


def merge_by_means(regions, query, threshold):
    """Join two neighbours after the other; a pair has the mean of its features from then on."""
    ids, x = np.arange(len(query.features)), query.features.copy()
    sides = (regions[:, :-1], regions[:, 1:]), (regions[:-1], regions[1:])
    for a, b in sorted(
        {tuple(pair) for one, other in sides for pair in zip(one.flat, other.flat, strict=True)}
    ):
        if ids[a] != ids[b] and x[a] @ x[b] > threshold:
            ids[ids == ids[b]] = ids[a]
            x[ids == ids[a]] = unit(query.features[ids == ids[a]].mean(0))
    return np.unique(ids, return_inverse=True)[1][regions]


def merge_once(regions, query, threshold):
    """Each pair of alike neighbours renames one region, whoever had its name already."""
    ids = np.arange(len(query.features))
    for a, b in zip(regions[:, :-1].flat, regions[:, 1:].flat, strict=True):
        ids[b] = ids[a] if query.features[a] @ query.features[b] > threshold else ids[b]
    for a, b in zip(regions[:-1].flat, regions[1:].flat, strict=True):
        ids[b] = ids[a] if query.features[a] @ query.features[b] > threshold else ids[b]
    return np.unique(ids[regions], return_inverse=True)[1].reshape(regions.shape)


def merge_anywhere(regions, query, threshold):
    return connected_components(query.features @ query.features.T > threshold, directed=False)[1][regions]


def rows_as_classes(query, memory, vocabulary, least=0.05):
    claim = np.bincount((query.features @ vocabulary.text.T).argmax(1), minlength=9) / len(query.features)
    small = [
        c for c, name in enumerate(vocabulary.names) if name not in memory.classes and 0 < claim[c] < least
    ]
    return without(vocabulary, small)


def by_how_sure(query, memory, vocabulary, least=0.05):
    found = pseudo_labels(query, memory, vocabulary)
    small = found.scores["size"] * found.scores["confidence"] < least
    return without(vocabulary, found.classes[small])


def without(vocabulary, classes):
    keep = np.setdiff1d(range(len(vocabulary)), classes)
    rows = np.isin(vocabulary.owner, keep)
    owner = np.searchsorted(keep, vocabulary.owner[rows])
    return Vocabulary([vocabulary.names[c] for c in keep], vocabulary.text[rows], owner)


def by_place(memory, rows, k=4):
    near = memory.search(rows.vectors, k).ids
    return (memory.class_names[near] == rows.class_names[:, None]).mean(1) >= 0.5


def all_neighbours(memory, rows, k=4):
    ids = memory.search(rows.vectors, k).ids
    return (memory.lookup(ids).class_names.reshape(ids.shape) == rows.class_names[:, None]).all(1)


def by_plurality(memory, rows, k=4):
    names = memory.lookup(ids := memory.search(rows.vectors, k).ids).class_names.reshape(ids.shape)
    counts = (names[:, :, None] == names[:, None]).sum(2)  # (R, k) how often each neighbour's name is there
    return counts.max(1) == (names == rows.class_names[:, None]).sum(1)


def images_of(memory, name):
    return memory.image_ids[memory.class_names == name]


def iou(a, t, joint=np.bitwise_or):
    return np.sum(a & t) / joint(1 * a, t).sum() if a.any() or t.any() else 1


def dice(a, t):
    return 2 * np.sum(a & t) / (a.sum() + t.sum()) if a.any() or t.any() else 1


def rows_of(terms):
    return terms.sum(1, keepdims=True)


def entropy_mix(seen, read, plogp):
    sure = [np.exp(plogp(p)) for p in (seen, read)]
    return (sure[0] * seen + sure[1] * read) / (sure[0] + sure[1])


def descend_without_bias(x, target, weight, mu, rate, steps):
    w = np.zeros((target.shape[1], x.shape[1]))
    for _ in range(steps):
        w = w - rate * ((weight[:, None] * (softmax(x @ w.T) - target)).T @ x + mu * w)
    return w, np.zeros(len(w))


def top(s, k, axis):
    return np.argsort(np.argsort(-s, axis=axis), axis=axis) < k


def first(counts, fits, otherwise=None):
    return next((n for n in range(1, counts + 1) if fits(n)), otherwise)


def blended(weights, rows):
    return (weights[..., None] * rows).sum(1)


def softmax_plain(scores):
    with np.errstate(all="ignore"):
        return np.exp(scores) / np.exp(scores).sum(1, keepdims=True)


def bisected(wanted, recall, most):
    low, high = 1, most + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if recall(middle) >= wanted else (middle + 1, high)
    return low if low <= most else None


def box_of_ends(rows, columns):
    return [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]


TYPICAL = [
    ("pool_inside", lambda f, m: pool_masks(f, m, [1])[0][0], "patches on the border"),
    ("pool_inside", lambda f, m: f.flat()[patch_counts(f, m, [1])[:, 0] == 64].mean(0), "length is not 1"),
    ("miou_by_hand", lambda a, t, n: np.mean(np.stack(a) == np.stack(t)), "share of right pixels"),
    ("miou_by_hand", mean_of_images, "averages over images"),
    ("name_probabilities", lambda s, scale: solved("name_probabilities")(s.T, scale).T, "over patches"),
    ("name_probabilities", lambda s, scale: naive_softmax(scale * s), "not finite"),
    ("name_probabilities", lambda s, scale: np.exp(scale * s), "add up to 1"),
    ("miou_by_hand", lambda a, t, n: mean_of_classes(a, t, np.unique(a)), "that only the truth"),
    ("miou_by_hand", lambda a, t, n: mean_of_classes(a, t, np.unique(t)), "or only an answer holds"),
    ("miou_by_hand", lambda a, t, n: mean_of_classes(a, t, range(4), np.add), "twice below the line"),
    ("name_probabilities", lambda s, scale: np.exp(scale * s) / np.exp(scale * s).sum(), "of each patch"),
    ("name_probabilities", lambda s, scale: scale * s / (scale * s).sum(1, keepdims=True), "the exponential"),
    ("keys_attend", (", block.attn.in_proj_bias)", ")"), "in_proj_bias"),
    ("keys_attend", ("block.ln_1(x)", "x"), "ln_1"),
    ("keys_attend", ("share @ v", "share @ k"), "mixes the keys"),
    ("keys_attend", ("block.attn.out_proj(mixed)", "mixed"), "joins the heads"),
    ("keys_attend", ("_, k, v = ", "k, _, v = "), "uses the queries"),
    ("keys_attend", (" / k.shape[-1] ** 0.5", ""), "forgets to divide"),
    ("keys_attend", ("y = x + ", "y = "), "the residual"),
    ("keys_attend", ("return y + ", "return y # "), "leaves out the MLP"),
    ("keys_attend", (".softmax(-1)", ".softmax(-2)"), "wrong axis"),
    ("prototypes_of", lambda n, x: (n / n.sum(0)).T @ x, "length is not 1"),
    ("prototypes_of", lambda n, x: unit((n > 0).T.astype(float) @ x), "every patch that a class touches"),
    ("prototypes_of", lambda n, x: unit((n / n.sum(1, keepdims=True)).T @ x), "of a patch, not of a class"),
    ("forget_domain", lambda m, d: forget_if(m, lambda f: f.get("domain") == d)[1], "how many images went"),
    ("forget_domain", lambda m, d: forget_if(m, lambda f: f.get("domain") != d)[0], "the other domain"),
    ("forget_domain", lambda m, d: m.remove(image_id=next(iter(
        i for i, facts in zip(m.image_ids, m.rows.metadata, strict=True) if facts.get("domain") == d))),
     "alone are by night"),
    ("forget_domain", lambda m, d: forget_if(m, lambda f: d in f.values())[0], "another key"),
    ("forget_domain", lambda m, d: forget_if(m, lambda f: d in f.get("domain", ""))[0], "'nightfall'"),
    ("forget_domain", lambda m, d: solved("forget_domain")(m, "night"), "the domain that it is given"),
    ("miou_by_hand", lambda a, t, n: solved("miou_by_hand")(a, t, np.max(t) + 1), "the last class"),
    ("annotate_next", ("a @ nearer[c][n] for", "a @ nearer[c][n] ** 2 for"), "is right"),
    ("annotate_next", lambda v, p: solved("annotate_next")(v[:1], p), "is right"),
    ("annotate_next", lambda v, p: iter(solved("annotate_next")(v, p)), "a list of names"),
    ("box_of", lambda m: box_of_ends(*(np.flatnonzero(m.any(i)[1:]) + 1 for i in (1, 0))), "in the corner"),
    ("prototypes_of", lambda n, x: unit((n > 32).T.astype(float) @ x), "another way than equation 2"),
    ("diverse", lambda m, name, n: ids_of(m, name)[[0] * n], "more than once"),
    ("diverse", lambda m, name, n: np.searchsorted(ids_of(m, name), solved("diverse")(m, name, n)),
     "ids are asked for"),
    ("diverse", lambda m, name, n: ids_of(m, name)[:n], "lie close together"),
    ("diverse", lambda m, name, n: ids_of(m, name)[np.argsort(m.vectors[m.class_names == name]
     @ m.class_prototypes([name])[0])[:n]], "lie close together"),
    ("diverse", lambda m, name, n: np.resize(solved("diverse")(m, name, n), n), "fewer than n"),
    ("mutual", lambda x, v, k: top(x @ v.T, k, 1) | top(x @ v.T, k, 0), "both have to be"),
    ("mutual", lambda x, v, k: top(x @ v.T, k, 1), "asks the patches only"),
    ("mutual", lambda x, v, k: top(-x @ v.T, k, 1) & top(-x @ v.T, k, 0), "takes the furthest"),
    ("late_fusion", lambda c, v, s, w: w * softmax(s * c) + (1 - w) * v, "gives the weight to the names"),
    ("late_fusion", lambda c, v, s, w: w * v + (1 - w) * softmax(c / s), "divides by the scale"),
    ("late_fusion", lambda c, v, s, w: w * v + (1 - w) * naive_softmax(s * c), "not finite"),
    ("descend", lambda x, t, a, mu, rate, n: solved("descend")(x, t, a, mu, -rate, n), "climbs"),
    ("descend", lambda x, t, a, mu, rate, n: solved("descend")(x, t, a, 0, rate, n), "leaves out mu"),
    ("descend", lambda x, t, a, mu, rate, n: solved("descend")(x, t, a / len(x), mu, rate, n), "the mean"),
    ("descend", lambda x, t, a, mu, rate, n: descend_without_bias(x, t, a, mu, rate, n), "leaves b at 0"),
    ("descend", lambda *given: solved("descend")(*given)[0], "two arrays"),
    ("descend", ("mu * w", "mu / 2 * w"), "mu / 2"),
    ("descend", ("* error.sum(0)", "* (weight @ (softmax(x @ w.T + b) - target))"),
     "take both gradients first"),
    ("descend", ("* error.sum(0)", "* (error / weight[:, None]).sum(0)"), "in the gradient for b"),
    ("hard_pooling", lambda f, regions: pool_masks(f, regions, range(regions.max() + 1))[0],
     "is soft pooling"),
    ("hard_pooling", lambda f, regions: np.nan_to_num(solved("hard_pooling")(f, regions)), "make it NaN"),
    ("hard_pooling", lambda f, regions: by_middle(f, regions), "one pixel of a patch"),
    ("hard_pooling", by_half, "no region has half"),
    ("merged", merge_by_means, "mean of what is joined"),
    ("merged", merge_anywhere, "do not touch"),
    ("merged", lambda r, q, t: solved("merged")(r, q, -1), "not alike"),
    ("merged", lambda r, q, t: 2 * solved("merged")(r, q, t), "gaps"),
    ("trusted", lambda q, m, v, least=0.05: solved("trusted")(q, None, v, least), "drops 'grass'"),
    ("trusted", rows_as_classes, "see owner"),
    ("trusted", by_how_sure, "exactly `least`"),
    ("trusted", lambda q, m, v, least=0.05: solved("trusted")(q, m, v, least + 1e-6), "exactly `least`"),
    ("trusted", lambda q, m, v, least=0.05: Vocabulary(solved("trusted")(q, m, v, least).names),
     "drops the texts"),
    ("vetted", by_place, "takes ids for places"),
    ("vetted", by_plurality, "four names"),
    ("late_fusion", lambda c, v, s, w: solved("late_fusion")(c, v, s, 0.8), "a weight of 0.8 alone"),
    ("name_probabilities", lambda s, scale: solved("name_probabilities")(s, min(scale, 100)), "of 5 alone"),
    ("keys_attend", ("k.shape[-1] ** 0.5", "block.attn.num_heads**0.5"), "number of heads"),
    ("descend", lambda *given: solved("descend")(*given[:5], 3), "three steps"),
    ("blend", lambda z, s, r, g, t: solved("blend")(z, s, r, g, 0.5), "a temperature of 0.5 alone"),
    ("best_cut", lambda o, mine: max(o, key=lambda t: matthews_corrcoef(mine, o >= t)), "another measure"),
    ("effort_for", ("recall_of(nprobe)", "round(recall_of(nprobe), 2)"), "0.946 is not"),
    ("merged", merge_once, "forgets who was joined"),
    ("forget", lambda m, name: SupportMemory.from_prototypes(m.vectors[::-1][: sum(m.class_names != name)],
     m.class_names[m.class_names != name], m.image_ids[m.class_names != name]), "mixes up vectors"),
    ("best_cut", lambda odds, mine: max(odds, key=lambda t: f1_score(mine, odds >= t)), "another measure"),
    ("best_cut", lambda odds, mine: odds[mine].min(), "another measure"),
    ("best_cut", lambda odds, mine: odds.sort() or solved("best_cut")(odds, mine), "is given"),
    ("late_fusion", ("softmax(scale * cosine)", "softmax(np.multiply(cosine, scale, cosine))"), "is given"),
    ("descend", lambda *given: tuple(map(torch.from_numpy, solved("descend")(*given))), "of NumPy"),
    ("blend", lambda z, s, r, g, t: solved("blend")(z, s, r, g, 1), "no notice of the temperature"),
    ("blend", lambda z, s, r, g, t: z + g * blended(s, r), "take their softmax"),
    ("blend", lambda z, s, r, g, t: z + g * blended(top(s, 1, 1), r), "the best row alone"),
    ("forget", lambda m, name: m.subset(m.ids[[name not in c for c in m.class_names]]), "dogfish"),
    ("forget", lambda m, name: m.subset(m.ids[~np.isin(m.image_ids, images_of(m, name))]), "whole images"),
    ("known_by", lambda pages, day: sorted({p for p in pages if p[0] <= day}, reverse=True), "loses pages"),
    ("known_by", lambda pages, day: sorted(solved("known_by")(pages, day), key=lambda p: p[1]), "else than"),
    ("both_ious", lambda a, t: (np.mean([iou(x, y, np.add) for x, y in zip(a, t, strict=True)]), 0), "twice"),
    ("both_ious", lambda a, t: (np.mean([not y.any() or iou(x, y) for x, y in zip(a, t, strict=True)]), 0),
     "whatever is answered"),
    ("by_entropy", lambda s, r: entropy_mix(s, r, lambda p: -np.log(entropy(p, axis=1)[:, None] + 1e-9)),
     "weighs by 1 / entropy"),
    ("by_entropy", (".sum(1, keepdims", ".mean(1, keepdims"), "weighs by the mean over classes"),
    ("vetted", all_neighbours, "at least half is enough"),
    ("vetted", (".mean(1) >= 0.5", ".sum(1) >= k // 2"), "half is 2.5"),
    ("vetted", lambda m, rows, k=4: solved("vetted")(m, rows, k).tolist(), "returns a list"),
    ("vetted", lambda m, rows, k=4: np.ones(len(rows.ids), bool), "lies among cats"),
    ("vetted", lambda m, rows, k=4: solved("vetted")(m, rows, 1), "nearest row alone"),
    ("vetted", lambda m, rows, k=4: solved("vetted")(m, rows, 4), "no notice of k"),
    ("vetted", lambda m, rows, k=4: ~solved("vetted")(m, rows, k), "contradict"),
    ("best_cut", lambda odds, mine: list(odds).index(solved("best_cut")(odds, mine)), "its place"),
    ("best_cut", lambda odds, mine: max(odds, key=lambda t: ((odds >= t) == mine).mean()), "mine are few"),
    ("blend", lambda z, s, r, g, t: solved("blend")(z, s, r, 1, t), "no notice of the gate"),
    ("blend", lambda z, s, r, g, t: solved("blend")(z, s, r, g, 1 / t), "divide by it"),
    ("blend", lambda z, s, r, g, t: z + g * blended(np.exp(s / t), r), "do not add up to 1"),
    ("blend", lambda z, s, r, g, t: z + g * blended(softmax_plain(s / t), r), "overflows"),
    ("forget", lambda m, name: m.subset(np.flatnonzero(m.class_names != name)), "no row with id 0"),
    ("blend", lambda z, s, r, g, t: g * z + solved("blend")(0, s, r, g, t), "the gate as well"),
    ("blend", lambda z, s, r, g, t: unit(solved("blend")(z, s, r, g, t)), "to length 1"),
    ("forget", lambda memory, name: memory.remove(class_name=name) and memory, "work on a copy"),
    ("forget", lambda memory, name: memory.copy().remove(class_name=name), "returns a count"),
    ("effort_for", lambda wanted, recall, most: first(most, lambda n: recall(n) > wanted),
     "exactly that is enough"),
    ("effort_for", lambda wanted, recall, most: first(most, lambda n: recall(n) >= wanted, most),
     "does not return None"),
    ("effort_for", bisected, "try them in turn"),
    ("known_by", lambda pages, day: sorted(pages, reverse=True), "its own future"),
    ("known_by", lambda pages, day: sorted((p for p in pages if p[0] < day), reverse=True), "the day itself"),
    ("known_by", lambda pages, day: sorted(p for p in pages if p[0] <= day), "begins with the oldest"),
    ("both_ious", lambda a, t: (np.mean([dice(*pair) for pair in zip(a, t, strict=True)]), 0), "is Dice"),
    ("known_by", lambda pages, day: [p[1] for p in solved("known_by")(pages, day)], "without the pairs"),
    ("effort_for", lambda wanted, recall, most: first(most - 1, lambda n: recall(n) >= wanted),
     "never tries"),
    ("both_ious", lambda a, t: solved("both_ious")(a, t)[::-1], "the other way round"),
    ("both_ious", lambda a, t: [np.nanmean(solved("both_ious")(a, t)[:1])] * 2, "averages ratios for cIoU"),
    ("both_ious", lambda a, t: [solved("both_ious")(a, t)[1]] * 2, "sums before it divides"),
    ("box_of", lambda m: [solved("box_of")(m)[i] for i in (1, 0, 3, 2)], "gives y before x"),
    ("box_of", lambda m: [11, 4, 11, 4], "one pixel short"),
    ("box_of", lambda m: box_of_ends(*np.where(m)), "wrong for a disc"),
    ("box_of", lambda m: [11, 4, m.any(0).sum(), m.any(1).sum()], "between two pieces"),
    ("annotate_next", lambda v, p: sorted(p, key=lambda n: p[n][1] @ (p[n][0] @ v.T).max(1)),
     "chosen before counts"),
    ("annotate_next", lambda v, p: solved("annotate_next")(v * 0, p), "what the memory holds"),
    ("annotate_next", ("a @ nearer[c][n] for", "(a * nearer[c][n]).mean() for"),
     "takes the mean over regions"),
    ("annotate_next", ("a @ nearer[c][n] for", "a @ (nearer[c][n] - near[n]) * (n != c) for"),
     "leaves out a photograph's own"),
    ("annotate_next", ("near = nearer[order[-1]]", "pass"), "what was chosen before"),
    ("annotate_next", (".max(1)", ".mean(1)"), "the mean cosine"),
    ("annotate_next", lambda v, p: solved("annotate_next")(v, {n: (x, 1 + 0 * a) for n, (x, a) in p.items()}),
     "a larger share"),
    ("box_of", lambda m: tuple(solved("box_of")(m)), "needs a list"),
    ("box_of", lambda m: [11, 4, 22, 8], "last column and row"),
    ("by_entropy", lambda s, r: entropy_mix(s, r, lambda p: rows_of(p * np.log(p))), "logarithm of 0"),
    ("by_entropy", lambda s, r: entropy_mix(s, r, lambda p: rows_of(p * np.log2(np.maximum(p, 1e-9)))),
     "base 2"),
    ("by_entropy", lambda s, r: entropy_mix(s, r, lambda p: np.sum(p * np.log(np.maximum(p, 1e-9)))),
     "one entropy"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
@pytest.mark.parametrize(("name", "answer", "said"), TYPICAL, ids=[f"{n}-{s}" for n, _, s in TYPICAL])
def test_a_typical_mistake_is_named(name, answer, said):
    answer = changed(name, *answer) if isinstance(answer, tuple) else answer
    told = course.verdict(named(name, lambda *a, **k: answer(*a, **k)))
    assert told.startswith(f"not right yet: {name} ") and said in told
