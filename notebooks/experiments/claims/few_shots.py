"""Claims about how much support there is, and what each part of the objective is worth."""

from __future__ import annotations

from experiments.claims.benchmark import Setting
from experiments.claims.claim import Claim, miou_difference
from experiments.claims.verdict import EQUAL, LESS, MORE
from rose_kit.adapter import RNS
from rose_kit.evaluation import MissingSupport
from rose_kit.fusion import Freeda, FssDino, KnnClip, ZeroShot

SHOTS = (1, 2, 5, 10, 20)
UNIFORM = 1e6  # a temperature at which every class is equally relevant
README, ABLATION, WORDS = "README of the release", "Table 1", "in words"

RIVALS = {"kNN-CLIP": KnnClip(), "FREEDA": Freeda(), "FSSDINO": FssDino()}


def rns(shots: int, no_text: float = 0.0, **settings) -> Setting:
    """RNS at so many shots, perhaps without text, perhaps with other settings."""
    return Setting(RNS(**settings), shots, missing=MissingSupport(text=no_text))


def _growth(fewer: int, more: int, paper: str = "", source: str = "") -> Claim:
    return Claim(
        "shots",
        f"RNS: {more} shots over {fewer}",
        MORE,
        miou_difference(rns(more), rns(fewer)),
        paper,
        source,
    )


def _knn(shots: int, expected) -> Claim:
    statement = f"kNN-CLIP, shots {shots}: half text, half vote, over the vote alone"
    mixed, vote = (Setting(KnnClip(weight=weight), shots) for weight in (0.5, 1.0))
    return Claim(
        "knn-clip", statement, expected, miou_difference(mixed, vote), "helps at 1, hurts from about 5", WORDS
    )


def _rival(name: str, method, shots: int) -> Claim:
    statement = f"RNS over {name}, shots {shots}, the rival as tuned on development scenes"
    effect = miou_difference(rns(shots), Setting(method, shots, tuned=True))
    return Claim("rivals", statement, MORE, effect, "above at every number of shots", WORDS)


def _text(shots: int, expected, paper: str) -> Claim:
    statement = f"RNS with text over without, shots {shots}"
    return Claim(
        "text", statement, expected, miou_difference(rns(shots), rns(shots, no_text=1.0)), paper, ABLATION
    )


def _lambdas(shots: int, expected, paper: str) -> Claim:
    statement = f"six mixing weights over 0.8 alone, shots {shots}, all classes equally relevant"
    effect = miou_difference(rns(shots, tau=UNIFORM), rns(shots, tau=UNIFORM, lambdas=(0.8,)))
    return Claim("lambdas", statement, expected, effect, paper, ABLATION)


def _relevance(shots: int, paper: str) -> Claim:
    statement = f"classes weighted by relevance over all alike, shots {shots}"
    return Claim(
        "relevance", statement, MORE, miou_difference(rns(shots), rns(shots, tau=UNIFORM)), paper, ABLATION
    )


CLAIMS = (
    Claim(
        "one-shot",
        "RNS, shots 1, over zero-shot",
        MORE,
        miou_difference(rns(1), Setting(ZeroShot())),
        "+8.4 (OpenCLIP), +19.1 (DINOv3.txt)",
        README,
    ),
    _growth(1, 2),
    _growth(2, 5, "+6.3 (from 1 to 5)", ABLATION),
    _growth(5, 10, "+1.2", ABLATION),
    _growth(10, 20, "+7.9 (from 1 to 20)", README),
    _knn(1, MORE),
    _knn(5, LESS),
    _knn(20, LESS),
    *(_rival(name, method, shots) for name, method in RIVALS.items() for shots in (1, 20)),
    _text(1, MORE, "+7.5"),
    _text(20, EQUAL, "+1.0 (at 10)"),
    _lambdas(1, MORE, "+4.8"),
    _lambdas(10, EQUAL, "+0.2"),
    _relevance(1, "+0.4"),
    _relevance(10, "+0.5"),
)
