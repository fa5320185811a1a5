"""Claims about how much support there is, and what each part of the objective is worth."""

from __future__ import annotations

from experiments.claims.lab import Case
from experiments.claims.row import Row, gain
from experiments.claims.verdict import EQUAL, LESS, MORE
from rose_kit.adapter import RNS
from rose_kit.evaluation import MissingSupport
from rose_kit.fusion import Freeda, KnnClip, ZeroShot

SHOTS = (1, 2, 5, 10, 20)
UNIFORM = 1e6  # a temperature at which every class is equally relevant
README, ABLATION, WORDS = "README of the release", "Table 1", "in words"


def rns(shots: int, no_text: float = 0.0, **settings) -> Case:
    """RNS at so many shots, perhaps without text, perhaps with other settings."""
    return Case(RNS(**settings), shots, gaps=MissingSupport(text=no_text))


def _growth(fewer: int, more: int, paper: str = "", source: str = "") -> Row:
    return Row("shots", f"RNS: {more} shots over {fewer}", MORE, gain(rns(more), rns(fewer)), paper, source)


def _knn(shots: int, expected) -> Row:
    says = f"kNN-CLIP, shots {shots}: half text, half vote, over the vote alone"
    mixed, vote = (Case(KnnClip(weight=weight), shots) for weight in (0.5, 1.0))
    return Row("knn-clip", says, expected, gain(mixed, vote), "helps at 1, hurts from about 5", WORDS)


def _rival(name: str, method, shots: int) -> Row:
    says = f"RNS over {name}, shots {shots}, its weight tuned on the support images"
    effect = gain(rns(shots), Case(method, shots, tuned=True))
    return Row("rivals", says, MORE, effect, "above at every number of shots", WORDS)


def _text(shots: int, expected, paper: str) -> Row:
    says = f"RNS with text over without, shots {shots}"
    return Row("text", says, expected, gain(rns(shots), rns(shots, no_text=1.0)), paper, ABLATION)


def _lambdas(shots: int, expected, paper: str) -> Row:
    says = f"six mixing weights over 0.8 alone, shots {shots}, all classes equally relevant"
    effect = gain(rns(shots, tau=UNIFORM), rns(shots, tau=UNIFORM, lambdas=(0.8,)))
    return Row("lambdas", says, expected, effect, paper, ABLATION)


def _relevance(shots: int, paper: str) -> Row:
    says = f"classes weighted by relevance over all alike, shots {shots}"
    return Row("relevance", says, MORE, gain(rns(shots), rns(shots, tau=UNIFORM)), paper, ABLATION)


ROWS = (
    Row(
        "one-shot",
        "RNS, shots 1, over zero-shot",
        MORE,
        gain(rns(1), Case(ZeroShot())),
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
    _rival("kNN-CLIP", KnnClip(), 1),
    _rival("kNN-CLIP", KnnClip(), 20),
    _rival("FREEDA", Freeda(), 1),
    _rival("FREEDA", Freeda(), 20),
    _text(1, MORE, "+7.5"),
    _text(20, EQUAL, "+1.0 (at 10)"),
    _lambdas(1, MORE, "+4.8"),
    _lambdas(10, EQUAL, "+0.2"),
    _relevance(1, "+0.4"),
    _relevance(10, "+0.5"),
)
