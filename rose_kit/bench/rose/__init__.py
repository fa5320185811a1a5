"""The article's claims about a trained ROSE, as experiments on scenes that no choice about it was made on.

Of trials, support and queries, no other experiment draws the scenes, but that the verification bench
calibrates on a few of the support's seeds. Pictures that a memory teaches itself from (`growth.stream`)
are those of every lab: the notebook on growing memories uses them too.
"""

from rose_kit.bench.rose.claims import rows
from rose_kit.bench.rose.lab import RoseLab
from rose_kit.bench.rose.run import report, teach, trained
from rose_kit.bench.rose.storing import storing
from rose_kit.bench.rose.trial import Trial, check_seeds, summary
from rose_kit.bench.rose.world import HELD_OUT, RARE, TRAINED, ThinnedScenes, training_scenes

__all__ = [
    "HELD_OUT",
    "RARE",
    "TRAINED",
    "RoseLab",
    "ThinnedScenes",
    "Trial",
    "check_seeds",
    "report",
    "rows",
    "storing",
    "summary",
    "teach",
    "trained",
    "training_scenes",
]
