"""A poor memory and its cure, and a memory that teaches itself, both asked through ROSE."""

from __future__ import annotations

from collections.abc import Callable

from course import memory_noise
from course.growth import ask, percent, self_taught
from experiments.claims.row import Measure, Row
from experiments.claims.verdict import LESS, MORE, NO_WORSE
from experiments.rose.lab import ARTICLE, RoseLab, difference
from rose_kit.memory import SupportMemory

SPOILT, PICTURES, SURE = 0.3, 20, 0.9  # share of bad rows; pictures a memory teaches itself from, and when
CURES: dict[str, Callable[[RoseLab, SupportMemory], SupportMemory]] = {
    "none": lambda lab, m: m,
    "the 30% that neighbours contradict most left out": lambda lab, m: memory_noise.best(
        m, memory_noise.agreement(m), SPOILT
    ),
    "the 30% furthest from their class left out": lambda lab, m: memory_noise.best(
        m, memory_noise.nearness(m), SPOILT
    ),
    "rows weighted by confidence": lambda lab, m: memory_noise.weighted(
        m, memory_noise.confidence(m, lab.text())
    ),
}


def spoilt(lab: RoseLab, lead: str, seed: int, kind: str) -> SupportMemory:
    """A memory of day rows: "good", or with 30% of its rows under wrong names or of the night."""
    good = lab.memory(lab.case(lead), seed)
    if kind == "wrong names":
        return memory_noise.mislabelled(good, SPOILT, seed)[0]
    if kind == "off-domain rows":
        return memory_noise.off_domain(good, lab.memory(lab.case(lead, "night"), seed), SPOILT, seed)[0]
    return good


def cured(lead: str, kind: str, cure: str = "none") -> Measure:
    """mIoU of the day's queries with a spoilt memory, after a cure."""

    def miou(lab: RoseLab, seed: int) -> float:
        memory = CURES[cure](lab, spoilt(lab, lead, seed, kind))
        return lab.once(
            ("cured", lead, kind, cure, seed), lambda: percent(ask(lab, lab.rose(lead), memory, seed))
        )

    return miou


def _poor(lead: str) -> list[Row]:
    found = []
    for kind in ("wrong names", "off-domain rows"):
        harm = difference(cured(lead, kind), cured(lead, "good"))
        found.append(
            Row("poor memory", f"{lead}: {SPOILT:.0%} {kind} over a good memory", LESS, harm, source=ARTICLE)
        )
        for cure in list(CURES)[1:]:
            effect = difference(cured(lead, kind, cure), cured(lead, kind))
            found.append(
                Row("poor memory", f"{lead}: {kind}, {cure}, over no cure", MORE, effect, source=ARTICLE)
            )
    for cure in list(CURES)[1:]:
        effect = difference(cured(lead, "good", cure), cured(lead, "good"))
        found.append(Row("poor memory", f"{lead}: a good memory, {cure}, over no cure", NO_WORSE, effect))
    return found


def taught(lead: str, kind: str, what: str, threshold: float | None = SURE) -> Measure:
    """What a memory becomes that adds its own answers: `what` is miou (its change), wrong, or drift."""

    def effect(lab: RoseLab, seed: int) -> float:
        def run():
            memory = spoilt(lab, lead, seed, kind)
            return self_taught(lab, memory, seed, (0, PICTURES), lab.rose(lead), threshold=threshold)

        table = lab.once(("taught", lead, kind, threshold, seed), run)
        return float(table[what].iloc[-1] - (table[what].iloc[0] if what == "miou" else 0))

    return effect


def _itself(lead: str) -> list[Row]:
    says, name = f"{lead}: {PICTURES} pictures of its own answers added", "self-taught memory"
    clean, poisoned = (
        {w: taught(lead, kind, w) for w in ("miou", "wrong", "drift")} for kind in ("good", "wrong names")
    )
    by_hand, blindly = (taught(lead, "good", "miou", threshold) for threshold in (None, 0.0))
    return [
        Row(name, f"{says}, sure ones only, over before", NO_WORSE, clean["miou"], source=ARTICLE),
        Row(name, f"{says}, all of them, over before", NO_WORSE, blindly, source=ARTICLE),
        Row(name, f"{lead}: the same pictures annotated by hand, over before", MORE, by_hand),
        Row(name, f"{says} to a poisoned memory, over before", NO_WORSE, poisoned["miou"], source=ARTICLE),
        Row(name, f"{lead}: wrong among the rows a poisoned memory adds, over those a clean one adds", MORE,
            difference(poisoned["wrong"], clean["wrong"]), source=ARTICLE, unit="% of rows"),
        Row(name, f"{lead}: drift of the class prototypes, poisoned over clean", MORE,
            difference(poisoned["drift"], clean["drift"]), unit="1 - cosine"),
    ]  # fmt: skip


def rows(lead: str) -> list[Row]:
    """Statements about poor and self-taught memories, asked through one model."""
    return _poor(lead) + _itself(lead)
