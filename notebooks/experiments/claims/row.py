"""What a claim is: a sentence of the paper, what it predicts, and how it is measured here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from experiments.claims.lab import Case, Lab
from experiments.claims.verdict import Expected

Measure = Callable[[Lab, int], float]  # the effect in one seed


@dataclass(frozen=True)
class Row:
    """One measurable statement; a claim has one or several.

    Args:
        claim: short name, shared by the rows of a claim; what `rns_claims.ipynb` selects by.
        says: what is compared, in words.
        expected: effects that agree with the claim.
        measure: (lab, seed) -> effect, in mIoU points unless `unit` says otherwise.
        paper: the effect that the paper or its authors' release reports, "" if it only says so in words.
        source: where that stands.
        unit: of the effect.
    """

    claim: str
    says: str
    expected: Expected
    measure: Measure
    paper: str = ""
    source: str = ""
    unit: str = "mIoU"


def gain(one: Case, other: Case) -> Measure:
    """mIoU of one case less that of another, in one seed."""
    return lambda lab, seed: lab.miou(one, seed) - lab.miou(other, seed)
