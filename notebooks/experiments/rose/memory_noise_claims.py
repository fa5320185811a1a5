"""Noisy memories and their filters, and self-training, both measured through ROSE."""

from __future__ import annotations

from collections.abc import Callable

from course import memory_noise
from course.growth import evaluate_memory, self_training_curve
from experiments.claims.benchmark import miou_percent
from experiments.claims.claim import Claim, Measure
from experiments.claims.verdict import LESS, MORE, NO_WORSE
from experiments.rose.benchmark import ARTICLE, RoseBenchmark, difference
from rose_kit.memory import SupportMemory

NOISE, IMAGES, THRESHOLD = 0.3, 20, 0.9  # share of bad rows; images of self-training, and its threshold
FILTERS: dict[str, Callable[[RoseBenchmark, SupportMemory], SupportMemory]] = {
    "none": lambda bench, m: m,
    "the 30% that neighbours contradict most left out": lambda bench, m: memory_noise.filter_lowest(
        m, memory_noise.agreement(m), NOISE
    ),
    "the 30% furthest from their class left out": lambda bench, m: memory_noise.filter_lowest(
        m, memory_noise.leave_one_out_similarity(m), NOISE
    ),
    "rows weighted by confidence": lambda bench, m: memory_noise.weighted(
        m, memory_noise.confidence(m, bench.text())
    ),
}


def noisy(bench: RoseBenchmark, lead: str, seed: int, kind: str) -> SupportMemory:
    """A memory of day rows: "good", or with 30% of its rows under wrong names or of the night."""
    good = bench.memory(bench.setting(lead), seed)
    if kind == "wrong names":
        return memory_noise.with_label_noise(good, NOISE, seed)[0]
    if kind == "off-domain rows":
        night = bench.memory(bench.setting(lead, "night"), seed)
        return memory_noise.with_domain_noise(good, night, NOISE, seed)[0]
    return good


def miou_after_filtering(lead: str, kind: str, name: str = "none") -> Measure:
    """mIoU of the day's queries with a noisy memory, after one of `FILTERS`."""

    def miou(bench: RoseBenchmark, seed: int) -> float:
        memory = FILTERS[name](bench, noisy(bench, lead, seed, kind))
        return miou_percent(evaluate_memory(bench, bench.rose(lead), memory, seed))

    return lambda bench, seed: bench.cached(("filtered", lead, kind, name, seed), lambda: miou(bench, seed))


def _poor(lead: str) -> list[Claim]:
    claims = []
    for kind in ("wrong names", "off-domain rows"):
        harm = difference(miou_after_filtering(lead, kind), miou_after_filtering(lead, "good"))
        claims.append(
            Claim("poor memory", f"{lead}: {NOISE:.0%} {kind} over a good memory", LESS, harm, source=ARTICLE)
        )
        for name in list(FILTERS)[1:]:
            effect = difference(miou_after_filtering(lead, kind, name), miou_after_filtering(lead, kind))
            claims.append(
                Claim("poor memory", f"{lead}: {kind}, {name}, over no cure", MORE, effect, source=ARTICLE)
            )
    for name in list(FILTERS)[1:]:
        effect = difference(miou_after_filtering(lead, "good", name), miou_after_filtering(lead, "good"))
        claims.append(Claim("poor memory", f"{lead}: a good memory, {name}, over no cure", NO_WORSE, effect))
    return claims


def self_training_effect(lead: str, kind: str, what: str, threshold: float | None = THRESHOLD) -> Measure:
    """What self-training does to a memory: `what` is miou (its change), wrong, or drift."""

    def effect(bench: RoseBenchmark, seed: int) -> float:
        def run():
            memory = noisy(bench, lead, seed, kind)
            return self_training_curve(
                bench, memory, seed, (0, IMAGES), bench.rose(lead), threshold=threshold
            )

        table = bench.cached(("self-training", lead, kind, threshold, seed), run)
        return float(table[what].iloc[-1] - (table[what].iloc[0] if what == "miou" else 0))

    return effect


def _itself(lead: str) -> list[Claim]:
    statement, name = f"{lead}: {IMAGES} pictures of its own answers added", "self-taught memory"
    clean, poisoned = (
        {w: self_training_effect(lead, kind, w) for w in ("miou", "wrong", "drift")}
        for kind in ("good", "wrong names")
    )
    by_hand, blindly = (self_training_effect(lead, "good", "miou", threshold) for threshold in (None, 0.0))
    return [
        Claim(name, f"{statement}, sure ones only, over before", NO_WORSE, clean["miou"], source=ARTICLE),
        Claim(name, f"{statement}, all of them, over before", NO_WORSE, blindly, source=ARTICLE),
        Claim(name, f"{lead}: the same pictures annotated by hand, over before", MORE, by_hand),
        Claim(name, f"{statement} to a poisoned memory, over before", NO_WORSE, poisoned["miou"],
            source=ARTICLE),
        Claim(name, f"{lead}: wrong among the rows a poisoned memory adds, over those a clean one adds", MORE,
            difference(poisoned["wrong"], clean["wrong"]), source=ARTICLE, unit="% of rows"),
        Claim(name, f"{lead}: drift of the class prototypes, poisoned over clean", MORE,
            difference(poisoned["drift"], clean["drift"]), unit="1 - cosine"),
    ]  # fmt: skip


def claims(lead: str) -> list[Claim]:
    """Statements about noisy memories and self-training, measured through one model."""
    return _poor(lead) + _itself(lead)
