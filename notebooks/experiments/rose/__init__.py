"""The article's claims about a trained ROSE, as experiments on scenes that no choice about it was made on.

Of trials, support and queries, no other experiment draws the scenes, but that the verification bench
calibrates on a few of the support's seeds.
"""

from experiments.rose.benchmark import RoseBenchmark
from experiments.rose.claims import claims_of
from experiments.rose.run import load_trained, report_claims, report_storing, train_fusions, weight_hash
from experiments.rose.trial import Trial, check_seeds, summary
from experiments.rose.world import HELD_OUT, RARE, TRAINED, ThinnedScenes, training_scenes

__all__ = [
    "HELD_OUT",
    "RARE",
    "TRAINED",
    "RoseBenchmark",
    "ThinnedScenes",
    "Trial",
    "check_seeds",
    "claims_of",
    "load_trained",
    "report_claims",
    "report_storing",
    "summary",
    "train_fusions",
    "training_scenes",
    "weight_hash",
]
