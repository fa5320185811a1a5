"""What the article says of retrieval, fusion and memory, in the form of the RNS claims."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.claims.claim import Claim, Measure
from experiments.claims.verdict import MORE, NO_WORSE, Expected
from experiments.rose import memory_noise_claims, shift
from experiments.rose.benchmark import ARTICLE, KNN, TEXT_ONLY, RoseBenchmark, difference

TWENTY = Expected(low=20.0)  # points by which adding a class must raise its IoU


def score(*options) -> Measure:
    """`RoseBenchmark.score` with these options."""
    return lambda bench, seed: bench.score(seed, *options)


def _long_tail(fusion: str, few: int) -> list[Claim]:
    blind, before = f"{fusion} without memory", score(fusion, "rare", "before")
    more = {
        "common classes, with the training's rows over the same weights without memory": difference(
            score(fusion, "common"), score(blind, "common")
        ),
        "rare classes, with the training's rows over the same weights without memory": difference(
            before, score(blind, "rare")
        ),
        f"rare classes, {few} rows added over the training's rows": difference(score(fusion, "rare"), before),
    }
    return [
        Claim("long tail", f"{fusion}: {statement}", MORE, m, source=ARTICLE, unit="IoU")
        for statement, m in more.items()
    ]


def _new_class(fusion: str, group: str, shots: int, many: bool = False) -> list[Claim]:
    what = f"{fusion}: {group} classes, {shots} rows added"
    after = score(fusion, group, "after", many)
    rivals = {
        "before": (score(fusion, group, "before", many), TWENTY),
        "text only": (score(TEXT_ONLY, group, "after", many), MORE),
        "kNN-CLIP with the same rows": (score(KNN, group, "after", many), MORE),
        "the same weights without memory": (score(f"{fusion} without memory", group, "after", many), MORE),
    }
    return [
        Claim(
            "new class", f"{what}: over {rival}", expected, difference(after, m), source=ARTICLE, unit="IoU"
        )
        for rival, (m, expected) in rivals.items()
    ]


def _others(fusion: str) -> Claim:
    statement = f"{fusion}: the other classes' mIoU when a class is added, at worst"
    return Claim("other classes", statement, NO_WORSE, lambda bench, seed: bench.others(seed, fusion))


def _fusion(fusion: str) -> list[Claim]:
    groups = ("common", "rare", "held-out", "novel")
    return [
        Claim("fusion", f"{fusion} over none, same memory: {group} classes", MORE,
            difference(score(fusion, group), score("none", group)), source=ARTICLE, unit="IoU")
        for group in groups
    ]  # fmt: skip


def claims_of(bench: RoseBenchmark, lead: str | None = None) -> list[Claim]:
    """Every statement, for the models of a benchmark.

    Args:
        bench: has at least one model.
        lead: the one by which noisy and self-training memories are tested; by default the last.
    """
    fusions: Sequence[str] = list(bench.models)
    lead, (few, many), claims = lead or fusions[-1], bench.shots, []
    for fusion in fusions:
        claims += _long_tail(fusion, few)
        claims += _new_class(fusion, "held-out", few) + _new_class(fusion, "novel", few)
        claims += _new_class(fusion, "novel", many, many=True)
        claims.append(_others(fusion))
        if fusion != "none" and "none" in fusions:
            claims += _fusion(fusion)
        claims += shift.claims(fusion)
    return claims + memory_noise_claims.claims(lead)
