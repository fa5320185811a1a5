"""What Retrieve and Segment says, as statements: methods as tuned, with vague names and with clear ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import product
from pathlib import Path

import numpy as np

from experiments.claims.benchmark import SceneBenchmark, Setting
from experiments.claims.claim import Claim, Measure, miou_difference
from experiments.claims.lookup import RETRIEVALS
from experiments.claims.personal import THINGS, personal_metrics
from experiments.claims.tuned import NO_TEXT, tuned_method
from experiments.claims.verdict import EQUAL, LESS, MORE, NO_WORSE, Expected
from rose_kit.adapter import RNS
from rose_kit.adapter.offline import OfflinePixels
from rose_kit.evaluation import MissingSupport
from rose_kit.fusion import Method

TUNED = Path(__file__).parents[1] / "results/tuning.csv"
LANGUAGES = {"vague": "bundled/vague", "clear": "bundled/clear"}
SHOTS = (1, 2, 5, 10, 20)
FEW = 5  # shots where a statement names none
SHIFTED = 2  # shots of the statements about domains
UNIFORM = 1e6  # a temperature at which every class is equally relevant
HALF = MissingSupport(visual=0.5)
SHARES = (0.25, 0.5, 0.75, 1.0)  # of the classes that lack something
STEPWISE = 8  # query scenes for what is slow: the published solver
STRENGTH = 3.0  # of the linear head on patches: of 0.1 to 10 the best on seeds 601 and 602
SAME = "rns, scenes of rns-published"
LINEAR, PROBE = "linear head on patches", "linear probe, all support scenes annotated"
RIVALS = {"knn-clip": "kNN-CLIP", "freeda": "FREEDA", "fssdino": "FSSDINO"}
METHODS = ("zero-shot", *RIVALS, LINEAR, "rns", "rns at defaults", "rns without text", "rns-published", PROBE)
README, ABLATION, WORDS = "README of the release", "Table 1", "in words"
OTHERS = ("night", "fog", "snow")
FINETUNED = "fine-tuned"  # where its folder is, `finetuned` is told


@cache
def tuned(name: str, language: str) -> Method:
    """A method with the settings that tuning.csv has for a language."""
    return tuned_method(TUNED, name, LANGUAGES[language])


def setting(name: str, language: str, shots: int = FEW, **more) -> Setting:
    """One of `METHODS` with the names of a language; `more` as for `Setting`."""
    if name in (LINEAR, PROBE, "fssdino") or name.endswith(NO_TEXT):
        language = "vague"  # they read no names: one measurement serves both
    more = {"encoder": LANGUAGES[language]} | more
    if name in (LINEAR, PROBE):
        head = OfflinePixels(strength=STRENGTH, at_most=20_000)
        return Setting(head, 1000 if name == PROBE else shots, tuned=True, **more)  # 1000: every scene
    if name == "rns at defaults":
        return Setting(RNS(), shots, **more)
    if name in ("rns-published", SAME):
        more = {"images": STEPWISE} | more
    if name.endswith(NO_TEXT):
        more = {"missing": MissingSupport(text=1.0)} | more
    return Setting(tuned("rns" if name == SAME else name, language), shots, **more)


def changed(language: str, shots: int = FEW, more: dict | None = None, **options) -> Setting:
    """The tuned RNS with other options; `more` as for `Setting`."""
    return replace(
        setting("rns", language, shots, **(more or {})), method=replace(tuned("rns", language), **options)
    )


def statement(
    name: str,
    text: str,
    expected: Expected,
    measure: Callable[[str], Measure],
    paper: str = "",
    source: str = "",
    unit: str = "mIoU",
    languages: Sequence[str] = tuple(LANGUAGES),
) -> list[Claim]:
    """One statement, measured with the names of each language: `measure` makes the measure for one."""
    return [
        Claim(name, text, expected, measure(language), paper, source, unit, language)
        for language in languages
    ]


def over(one: Callable[[str], Setting], other: Callable[[str], Setting]) -> Callable[[str], Measure]:
    """mIoU of one setting less that of another, both made for a language."""
    return lambda language: miou_difference(one(language), other(language))


def mean_over(measures: Callable[[str], Sequence[Measure]]) -> Callable[[str], Measure]:
    """The mean of several effects of a seed."""
    return lambda language: lambda bench, seed: float(np.mean([m(bench, seed) for m in measures(language)]))


def made(name: str, shots: int = FEW, **more) -> Callable[[str], Setting]:
    """`setting` for a language that is not said yet."""
    return lambda language: setting(name, language, shots, **more)


ZERO_SHOT = made("zero-shot")


def worst_over_zero_shot(what: str, name: str) -> Callable[[str], Measure]:
    """A method's mIoU at the worst share of classes without `what`, less zero-shot's with all texts."""

    def measure(language: str) -> Measure:
        lacking = [setting(name, language, missing=MissingSupport(**{what: share})) for share in SHARES]
        floor = setting("zero-shot", language)
        return lambda bench, seed: min(bench.miou(s, seed) for s in lacking) - bench.miou(floor, seed)

    return measure


def individuals(metric: str, rns: Callable[[str], Method]) -> Callable[[str], Measure]:
    """How well individuals are found with one image of them in memory, less by their names alone."""

    def measure(language: str) -> Measure:
        def score(bench: SceneBenchmark, seed: int, method: Method) -> float:
            options = {"images": 1, "encoder": LANGUAGES[language]}
            found = [personal_metrics(bench, thing, seed, method, **options)[metric] for thing in THINGS]
            return float(np.mean(found))

        names = tuned("zero-shot", language)
        return lambda bench, seed: score(bench, seed, rns(language)) - score(bench, seed, names)

    return measure


def _shifted(support: str, query: str) -> Callable[[str], Setting]:
    return made("rns", SHIFTED, support=support, query=query)


def _domains(one: Callable, other: Callable) -> Callable[[str], Measure]:
    """The mean over the other domains of a difference between two settings, each made for a domain."""
    return mean_over(lambda language: [over(one(d), other(d))(language) for d in OTHERS])


def _zero_shot(query: str) -> Callable[[str], Setting]:
    return made("zero-shot", query=query)


def _rivals() -> list[Claim]:
    claims = []
    for name, title in RIVALS.items():
        effects = mean_over(lambda lang, n=name: [over(made("rns", b), made(n, b))(lang) for b in SHOTS])
        text = f"RNS over {title}, mean of 1 to 20 shots"
        claims += statement("rivals", text, MORE, effects, "above at every number of shots", WORDS)
    for shots, paper in ((1, "equal at 1 to 3 (a head on prototypes)"), (20, "the head falls behind")):
        text = f"RNS over a linear head on every patch of the same annotations, shots {shots}"
        effect = over(made("rns", shots), made(LINEAR, shots))
        claims += statement("rivals", text, MORE, effect, paper, f"Figure 6, {WORDS}")
    return claims


def _retrievals() -> list[Claim]:
    claims = []
    for one, other, paper in (("nearest", "random", "better"), ("random", "furthest", "furthest is worst")):
        first, second = (lambda lang, how=h: changed(lang, retrieve=RETRIEVALS[how]) for h in (one, other))
        text = f"{one} prototypes over {other} ones"
        claims += statement("retrieval", text, MORE, over(first, second), paper, f"Figure 5, {WORDS}")
    return claims


def _domain_shift() -> list[Claim]:
    day = _shifted("day", "day")
    rows = (
        ("by night, in fog and snow: a day memory over zero-shot", "still improves",
         lambda d: _shifted("day", d), _zero_shot),
        ("by night, in fog and snow: a memory of the same light over a day memory", "in-domain is best",
         lambda d: _shifted(d, d), lambda d: _shifted("day", d)),
        ("by day: a memory of night, fog or snow over zero-shot", "still improves",
         lambda d: _shifted(d, "day"), lambda d: _zero_shot("day")),
        ("by day: a day memory over one of night, fog or snow", "in-domain is best",
         lambda d: day, lambda d: _shifted(d, "day")),
    )  # fmt: skip
    source = f"Figure 9, {WORDS}"
    return [
        c
        for text, paper, *pair in rows
        for c in statement("domain", text, MORE, _domains(*pair), paper, source)
    ]


def _solver() -> list[Claim]:
    """Of the published settings; what they do does not depend on the names."""
    full = made("rns-published", 1)
    quick = lambda lang: replace(full(lang), method=RNS.published(steps=200, lr=7e-3))  # noqa: E731
    text = f"200 AdamW steps at a rate of 7e-3 over 700 at 2e-3, shots 1, {STEPWISE} query scenes"
    more = ("quality falls only at very low budgets", f"Figure 13, {WORDS}")
    return statement("steps", text, NO_WORSE, over(quick, full), *more, languages=["vague"])


def _missing() -> list[Claim]:
    """With the default settings, which are meant for this; one row says what the tuned ones do."""
    plain, half = "rns at defaults", "half the classes without visual support"
    over_zero_shot = "visual support, over zero-shot"
    without_kl = lambda lang: replace(setting(plain, lang, missing=HALF), method=RNS(beta_pseudo=0.0))  # noqa: E731
    worst, knn = (
        "the worst of 25 to 100 % of classes without",
        over(made("knn-clip", missing=HALF), ZERO_SHOT),
    )
    no_visual, no_text = worst_over_zero_shot("visual", plain), worst_over_zero_shot("text", plain)
    no_visual_tuned = worst_over_zero_shot("visual", "rns")
    rows = (
        (
            f"RNS with pseudo-labels over without, {half}",
            MORE,
            over(made(plain, missing=HALF), without_kl),
            "a sharp drop without",
        ),
        (f"RNS, {worst} {over_zero_shot}", NO_WORSE, no_visual, "never below"),
        (
            f"RNS as tuned (nothing lacked), {worst} {over_zero_shot}",
            NO_WORSE,
            no_visual_tuned,
            "never below",
        ),
        (
            f"RNS, {worst} text, over zero-shot with all texts",
            NO_WORSE,
            no_text,
            "above even without any text",
        ),
        (f"kNN-CLIP over zero-shot, {half}", LESS, knn, "falls below quickly"),
    )
    return [c for row in rows for c in statement("missing", *row, f"Figure 4, {WORDS}")]


def _finetuned() -> list[Claim]:
    """The clear names alone: their tower is what the fine-tuning starts from."""
    rns, alone = made("rns", 1, encoder=FINETUNED), made("zero-shot", encoder=FINETUNED)
    texts = {
        "fine-tuned encoder, shots 1: RNS over zero-shot": (rns, alone, "", ""),
        "RNS on the fine-tuned encoder over RNS on the bundled one, shots 1": (
            rns, made("rns"), "more with a better encoder", "text of the paper"),
    }  # fmt: skip
    return [
        c
        for text, (one, other, *paper) in texts.items()
        for c in statement("fine-tuned", text, MORE, over(one, other), *paper, languages=["clear"])
    ]


def _text(shots: int, expected: Expected, paper: str) -> list[Claim]:
    effect = over(made("rns", shots), made("rns" + NO_TEXT, shots))
    return statement(
        "text", f"RNS with text over without, each tuned, shots {shots}", expected, effect, paper, ABLATION
    )


def _ablations() -> list[Claim]:
    one = lambda lang: changed(lang, 1, lambdas=(0.8,), beta_fused=6 * tuned("rns", lang).beta_fused)  # noqa: E731
    flat = lambda lang: changed(lang, 1, tau=UNIFORM)  # noqa: E731
    nearest = lambda k: lambda lang: changed(lang, 20, {"regions": "slic"}, k=k)  # noqa: E731
    return [
        *_text(1, MORE, "+7.5"),
        *_text(20, EQUAL, "+1.0 (at 10)"),
        *statement("lambdas", "six mixing weights over 0.8 alone, as strong together, shots 1", MORE,
                   over(made("rns", 1), one), "+4.8", ABLATION),
        *statement("relevance", "classes weighted by relevance over all alike, shots 1", MORE,
                   over(made("rns", 1), flat), "+0.4", ABLATION),
        *statement("k", "k = 4 over k = 1, on SLIC regions, shots 20", MORE,
                   over(nearest(4), nearest(1)), "clearly", f"Table 5, {WORDS}"),
        *statement("regions", "RNS on regions over patches (ours: SLIC; the paper's: SAM)", MORE,
                   over(made("rns", regions="slic"), made("rns")), "+6.1 to +6.4 (DINOv3.txt)", README),
    ]  # fmt: skip


INDIVIDUALS = {  # metric -> what it is, and its unit
    "auc": ("AUC of telling an individual from others of its class", "points of AUC"),
    "iou": ("IoU of an individual among others of its class", "IoU"),
}


def _individuals() -> list[Claim]:
    claims = []
    for metric, (text, unit) in INDIVIDUALS.items():
        effect = individuals(metric, partial(tuned, "rns"))
        more = ("a few masks suffice", WORDS, unit)
        claims += statement("personalised", f"{text}: one image over its name", MORE, effect, *more)
    return claims


CLAIMS = (
    *statement("shots", "RNS over zero-shot, shots 1", MORE, over(made("rns", 1), made("zero-shot")),
               "+8.4 (OpenCLIP), +19.1 (DINOv3.txt)", README),
    *statement("shots", "RNS: 5 shots over 1", MORE, over(made("rns", 5), made("rns", 1)), "+6.3", ABLATION),
    *statement("shots", "RNS: 20 shots over 5", MORE, over(made("rns", 20), made("rns", 5)), "more", README),
    *_rivals(),
    *_ablations(),
    *_missing(),
    *_retrievals(),
    *_domain_shift(),
    *_solver(),
    *_finetuned(),
    *_individuals(),
)  # fmt: skip


def scores(shots: Sequence[int] = SHOTS) -> list[Claim]:
    """The mIoU of every method at every number of shots, as claims: what the headline table shows.

    Zero-shot and the linear probe stand at 0 shots; the published settings at 1 and 20 only, and on the
    first `STEPWISE` query scenes, as `SAME` is.
    """
    lines = []
    for language in LANGUAGES:
        for name in (*METHODS, SAME):
            counts = (0,) if name in ("zero-shot", PROBE) else shots
            for b in [b for b in counts if name not in ("rns-published", SAME) or b in (1, 20)]:
                own = setting(name, language, b or 1)
                effect = lambda bench, seed, s=own: bench.miou(s, seed)  # noqa: E731
                lines.append(Claim("scores", f"{name}, shots {b}", MORE, effect, language=language))
    return lines


def further_scores() -> list[Claim]:
    """Beside the statements: each domain asked with each memory; individuals with the default settings."""
    lines = []
    for metric, (text, unit) in INDIVIDUALS.items():
        effect = individuals(metric, lambda language: RNS())
        text = f"rns at defaults, {text}: one image over its name"
        lines += statement("further", text, MORE, effect, unit=unit)
    for language, query in product(LANGUAGES, ("day", *OTHERS)):
        named = {f"zero-shot, {query} queries": setting("zero-shot", language, query=query)}
        for support in dict.fromkeys(("day", query)) if query != "day" else ("day", *OTHERS):
            name = f"rns, {query} queries, {support} memory"
            named[name] = setting("rns", language, SHIFTED, support=support, query=query)
        for text, own in named.items():
            effect = lambda bench, seed, s=own: bench.miou(s, seed)  # noqa: E731
            lines.append(Claim("further", f"{text}, shots {SHIFTED}", MORE, effect, language=language))
    return lines
