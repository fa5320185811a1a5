"""The article's claims about a trained ROSE, as experiments on scenes that no choice was made on."""

from rose_kit.bench.rose.claims import rows
from rose_kit.bench.rose.lab import RoseLab
from rose_kit.bench.rose.run import report, teach, trained
from rose_kit.bench.rose.storing import storing
from rose_kit.bench.rose.trial import Trial, summary
from rose_kit.bench.rose.world import HELD_OUT, RARE, TRAINED, ThinnedScenes, training_scenes

__all__ = [
    "HELD_OUT",
    "RARE",
    "TRAINED",
    "RoseLab",
    "ThinnedScenes",
    "Trial",
    "report",
    "rows",
    "storing",
    "summary",
    "teach",
    "trained",
    "training_scenes",
]
