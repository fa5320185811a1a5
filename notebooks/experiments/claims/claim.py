"""What a claim is: a sentence of the paper, what it predicts, and how it is measured here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from experiments.claims.benchmark import SceneBenchmark, Setting
from experiments.claims.verdict import Expected

Measure = Callable[[SceneBenchmark, int], float]  # the effect in one seed


@dataclass(frozen=True)
class Claim:
    """One measurable statement; several may share a name.

    Args:
        name: short, shared by the statements of a claim; what `rns_claims.ipynb` selects by.
        statement: what is compared, in words.
        expected: effects that agree with the claim.
        measure: (benchmark, seed) -> effect, in mIoU points unless `unit` says otherwise.
        paper: the effect that the paper or its authors' release reports, "" if it only says so in words.
        source: where that stands.
        unit: of the effect.
        language: of the names, "vague" or "clear", where a statement is measured with both.
    """

    name: str
    statement: str
    expected: Expected
    measure: Measure
    paper: str = ""
    source: str = ""
    unit: str = "mIoU"
    language: str = ""

    @property
    def key(self) -> str:
        """What tells it from all others in a store."""
        return f"{self.statement}, {self.language}" if self.language else self.statement


def miou_difference(one: Setting, other: Setting) -> Measure:
    """mIoU of one setting less that of another, in one seed."""
    return lambda bench, seed: bench.miou(one, seed) - bench.miou(other, seed)
