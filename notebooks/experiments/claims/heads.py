"""Claims about the head: regions, hyper-parameters, its budget, and the encoder it stands on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiments.claims.benchmark import SceneBenchmark, Setting
from experiments.claims.claim import Claim, Measure, miou_difference
from experiments.claims.few_shots import README, WORDS, rns
from experiments.claims.verdict import EQUAL, MORE, SMALL
from experiments.claims.weak import WEAK
from rose_kit.adapter import RNS, OfflineLinear
from rose_kit.fusion import ZeroShot

SHOTS = 5
DECADES = (10.0, 1.0, 0.1, 0.01)  # regularisation, as a multiple of a middling one
FEW = 8  # query scenes for what is slow: the reference solver
WORSE = {"noisy": "the same with noise on its weights", "untrained": "an untrained one"}
STEPS = (20, 100, 200, 700)  # of AdamW; the last are the paper's


def adamw(steps: int, shots: int = SHOTS) -> Setting:
    """RNS with the reference solver and so many steps, on a few query scenes."""
    return Setting(RNS.published(steps=steps), shots, images=FEW)


def in_regions(shots: int) -> Setting:
    """RNS that answers for superpixels instead of patches."""
    return Setting(RNS(), shots, regions="slic")


def _sweep(shots: int) -> tuple[list[Setting], list[Setting]]:
    """The offline classifier and RNS without text, each under four strengths of regularisation."""
    offline = [Setting(OfflineLinear(strength=10 / times), shots) for times in DECADES]
    return offline, [rns(shots, 1.0, mu=RNS().mu * times) for times in DECADES]


def spread(shots: int) -> Measure:
    """Best less worst mIoU over three decades of regularisation: the offline classifier's less RNS's."""

    def measure(bench: SceneBenchmark, seed: int) -> float:
        one, other = (
            np.ptp([bench.miou(setting, seed) for setting in settings]) for settings in _sweep(shots)
        )
        return float(one - other)

    return measure


def regret(bench: SceneBenchmark, seed: int) -> float:
    """What the regularisation that is best at 1 shot loses at 20: the offline classifier's less RNS's."""

    def lost(few: Sequence[Setting], many: Sequence[Setting]) -> float:
        best = np.argmax([bench.miou(setting, seed) for setting in few])
        scores = [bench.miou(setting, seed) for setting in many]
        return max(scores) - scores[best]

    (offline, ours), (offline_many, ours_many) = _sweep(1), _sweep(20)
    return lost(offline, offline_many) - lost(ours, ours_many)


def gain_with(encoder: str) -> Measure:
    """RNS at five shots over zero-shot, on the features of an encoder."""
    return miou_difference(Setting(RNS(), SHOTS, encoder=encoder), Setting(ZeroShot(), encoder=encoder))


def weaker(weak: str) -> Measure:
    """The gain with the bundled encoder, less that with a weak one."""
    return lambda bench, seed: gain_with("own")(bench, seed) - gain_with(weak)(bench, seed)


def _offline(shots: int, expected, paper: str) -> Claim:
    statement = (
        f"RNS without text over the offline classifier, tuned on left-out support images, shots {shots}"
    )
    effect = miou_difference(rns(shots, 1.0), Setting(OfflineLinear(), shots, tuned=True))
    return Claim("robustness", statement, expected, effect, paper, f"Figure 6, {WORDS}")


def _steps(steps: int, expected, paper: str) -> Claim:
    statement = f"700 AdamW steps over {steps}, shots {SHOTS}, {FEW} query scenes"
    return Claim(
        "steps", statement, expected, miou_difference(adamw(700), adamw(steps)), paper, f"Figure 13, {WORDS}"
    )


def _regions(shots: int, paper: str) -> Claim:
    statement = f"RNS on regions over patches, shots {shots} (ours: SLIC; the paper's: SAM)"
    return Claim("regions", statement, MORE, miou_difference(in_regions(shots), rns(shots)), paper, README)


CLAIMS = (
    _regions(1, "+6.1 (DINOv3.txt)"),
    _regions(20, "+6.4 (DINOv3.txt)"),
    _offline(1, EQUAL, "equal at 1 to 3"),
    _offline(20, MORE, "falls behind"),
    Claim(
        "robustness",
        f"best less worst over three decades of regularisation, shots {SHOTS}: offline classifier over RNS",
        MORE,
        spread(SHOTS),
        "needs tuning for each number of shots",
        f"Figure 12, {WORDS}",
    ),
    Claim(
        "robustness",
        "loss at 20 shots with the regularisation that is best at 1: offline classifier over RNS",
        MORE,
        regret,
        "needs tuning for each number of shots",
        f"Figure 12, {WORDS}",
    ),
    _steps(200, SMALL, "quality falls only at very low budgets"),
    _steps(20, MORE, "quality falls only at very low budgets"),
    Claim(
        "steps",
        f"the default solver over 700 AdamW steps, shots {SHOTS}, {FEW} query scenes",
        EQUAL,
        miou_difference(Setting(RNS(), SHOTS, images=FEW), adamw(700)),
    ),
    *(
        Claim(
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
