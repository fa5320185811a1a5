"""The article's claims about a trained ROSE, as experiments on scenes that no choice about it was made on.

Of trials, support and queries, no other experiment draws the scenes, but that the verification bench
calibrates on a few of the support's seeds. Pictures that a memory teaches itself from (`growth.stream`)
are those of every lab: the notebook on growing memories uses them too.
"""

from experiments.rose.claims import rows
from experiments.rose.lab import RoseLab
from experiments.rose.run import report_claims, teach, trained, weight_hash
from experiments.rose.storing import storing
from experiments.rose.trial import Trial, check_seeds, summary
from experiments.rose.world import HELD_OUT, RARE, TRAINED, ThinnedScenes, training_scenes

__all__ = [
    "HELD_OUT",
    "RARE",
    "TRAINED",
    "RoseLab",
    "ThinnedScenes",
    "Trial",
    "check_seeds",
    "report_claims",
    "rows",
    "storing",
    "summary",
    "teach",
    "trained",
    "training_scenes",
    "weight_hash",
]
