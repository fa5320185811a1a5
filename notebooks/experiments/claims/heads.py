"""Claims about the head: regions, hyper-parameters, its budget, and the encoder it stands on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiments.claims.few_shots import README, WORDS, rns
from experiments.claims.lab import Case, Lab
from experiments.claims.row import Measure, Row, gain
from experiments.claims.verdict import EQUAL, MORE, SMALL
from experiments.claims.weak import WEAK
from rose_kit.adapter import RNS, OfflineLinear
from rose_kit.fusion import ZeroShot

SHOTS = 5
DECADES = (10.0, 1.0, 0.1, 0.01)  # regularisation, as a multiple of a middling one
FEW = 8  # query scenes for what is slow: the reference solver
WORSE = {"noisy": "the same with noise on its weights", "untrained": "an untrained one"}
STEPS = (20, 100, 200, 700)  # of AdamW; the last are the paper's


def adamw(steps: int, shots: int = SHOTS) -> Case:
    """RNS with the reference solver and so many steps, on a few query scenes."""
    return Case(RNS.published(steps=steps), shots, images=FEW)


def in_regions(shots: int) -> Case:
    """RNS that answers for superpixels instead of patches."""
    return Case(RNS(), shots, regions=True)


def _sweep(shots: int) -> tuple[list[Case], list[Case]]:
    """The offline classifier and RNS without text, each under four strengths of regularisation."""
    offline = [Case(OfflineLinear(strength=10 / times), shots) for times in DECADES]
    return offline, [rns(shots, 1.0, mu=RNS().mu * times) for times in DECADES]


def spread(shots: int) -> Measure:
    """Best less worst mIoU over three decades of regularisation: the offline classifier's less RNS's."""

    def measure(lab: Lab, seed: int) -> float:
        one, other = (np.ptp([lab.miou(case, seed) for case in cases]) for cases in _sweep(shots))
        return float(one - other)

    return measure


def regret(lab: Lab, seed: int) -> float:
    """What the regularisation that is best at 1 shot loses at 20: the offline classifier's less RNS's."""

    def lost(few: Sequence[Case], many: Sequence[Case]) -> float:
        best = np.argmax([lab.miou(case, seed) for case in few])
        scores = [lab.miou(case, seed) for case in many]
        return max(scores) - scores[best]

    (offline, ours), (offline_many, ours_many) = _sweep(1), _sweep(20)
    return lost(offline, offline_many) - lost(ours, ours_many)


def gain_with(encoder: str) -> Measure:
    """RNS at five shots over zero-shot, on the features of an encoder."""
    return gain(Case(RNS(), SHOTS, encoder=encoder), Case(ZeroShot(), encoder=encoder))


def weaker(weak: str) -> Measure:
    """The gain with the bundled encoder, less that with a weak one."""
    return lambda lab, seed: gain_with("own")(lab, seed) - gain_with(weak)(lab, seed)


def _offline(shots: int, expected, paper: str) -> Row:
    says = f"RNS without text over the offline classifier, tuned on left-out support images, shots {shots}"
    effect = gain(rns(shots, 1.0), Case(OfflineLinear(), shots, tuned=True))
    return Row("robustness", says, expected, effect, paper, f"Figure 6, {WORDS}")


def _steps(steps: int, expected, paper: str) -> Row:
    says = f"700 AdamW steps over {steps}, shots {SHOTS}, {FEW} query scenes"
    return Row("steps", says, expected, gain(adamw(700), adamw(steps)), paper, f"Figure 13, {WORDS}")


def _regions(shots: int, paper: str) -> Row:
    says = f"RNS on regions over patches, shots {shots} (ours: SLIC; the paper's: SAM)"
    return Row("regions", says, MORE, gain(in_regions(shots), rns(shots)), paper, README)


ROWS = (
    _regions(1, "+6.1 (DINOv3.txt)"),
    _regions(20, "+6.4 (DINOv3.txt)"),
    _offline(1, EQUAL, "equal at 1 to 3"),
    _offline(20, MORE, "falls behind"),
    Row(
        "robustness",
        f"best less worst over three decades of regularisation, shots {SHOTS}: offline classifier over RNS",
        MORE,
        spread(SHOTS),
        "needs tuning for each number of shots",
        f"Figure 12, {WORDS}",
    ),
    Row(
        "robustness",
        "loss at 20 shots with the regularisation that is best at 1: offline classifier over RNS",
        MORE,
        regret,
        "needs tuning for each number of shots",
        f"Figure 12, {WORDS}",
    ),
    _steps(200, SMALL, "quality falls only at very low budgets"),
    _steps(20, MORE, "quality falls only at very low budgets"),
    Row(
        "steps",
        f"the default solver over 700 AdamW steps, shots {SHOTS}, {FEW} query scenes",
        EQUAL,
        gain(Case(RNS(), SHOTS, images=FEW), adamw(700)),
    ),
    *(
        Row(
            "weak-encoder",
            f"gain of RNS over zero-shot, shots {SHOTS}: bundled encoder over {WORSE[name]}",
            MORE,
            weaker(name),
            "+18.4 (DINOv3.txt) against +7.3 (OpenCLIP), one shot",
            "text of the paper",
        )
        for name in WEAK
    ),
)
