"""What the article says of retrieval, fusion and memory, in the form of the RNS claims."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.claims.row import Measure, Row
from experiments.claims.verdict import MORE, NO_WORSE, Expected
from experiments.rose import care, shift
from experiments.rose.lab import ARTICLE, KNN, TEXT_ONLY, RoseLab, difference

TWENTY = Expected(low=20.0)  # points by which adding a class must raise its IoU


def of(*asked) -> Measure:
    """`RoseLab.score` of what is asked."""
    return lambda lab, seed: lab.score(seed, *asked)


def _long_tail(fusion: str, few: int) -> list[Row]:
    blind, seen = f"{fusion} without memory", of(fusion, "rare", "before")
    more = {
        "common classes, with the training's rows over the same weights without memory": difference(
            of(fusion, "common"), of(blind, "common")
        ),
        "rare classes, with the training's rows over the same weights without memory": difference(
            seen, of(blind, "rare")
        ),
        f"rare classes, {few} rows added over the training's rows": difference(of(fusion, "rare"), seen),
    }
    return [
        Row("long tail", f"{fusion}: {says}", MORE, m, source=ARTICLE, unit="IoU") for says, m in more.items()
    ]


def _new_class(fusion: str, group: str, shots: int, many: bool = False) -> list[Row]:
    what = f"{fusion}: {group} classes, {shots} rows added"
    after = of(fusion, group, "after", many)
    rivals = {
        "before": (of(fusion, group, "before", many), TWENTY),
        "text only": (of(TEXT_ONLY, group, "after", many), MORE),
        "kNN-CLIP with the same rows": (of(KNN, group, "after", many), MORE),
        "the same weights without memory": (of(f"{fusion} without memory", group, "after", many), MORE),
    }
    return [
        Row("new class", f"{what}: over {rival}", expected, difference(after, m), source=ARTICLE, unit="IoU")
        for rival, (m, expected) in rivals.items()
    ]


def _others(fusion: str) -> Row:
    says = f"{fusion}: the other classes' mIoU when a class is added, at worst"
    return Row("other classes", says, NO_WORSE, lambda lab, seed: lab.others(seed, fusion))


def _fusion(fusion: str) -> list[Row]:
    groups = ("common", "rare", "held-out", "novel")
    return [
        Row("fusion", f"{fusion} over none, same memory: {group} classes", MORE,
            difference(of(fusion, group), of("none", group)), source=ARTICLE, unit="IoU")
        for group in groups
    ]  # fmt: skip


def rows(lab: RoseLab, lead: str | None = None) -> list[Row]:
    """Every statement, for the models of a lab.

    Args:
        lab: has at least one model.
        lead: the one by which poor and self-taught memories are tested; by default the last.
    """
    fusions: Sequence[str] = list(lab.models)
    lead, (few, many), found = lead or fusions[-1], lab.shots, []
    for fusion in fusions:
        found += _long_tail(fusion, few)
        found += _new_class(fusion, "held-out", few) + _new_class(fusion, "novel", few)
        found += _new_class(fusion, "novel", many, many=True)
        found.append(_others(fusion))
        if fusion != "none" and "none" in fusions:
            found += _fusion(fusion)
        found += shift.rows(fusion)
    return found + care.rows(lead)
