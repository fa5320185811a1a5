"""The claims of Retrieve and Segment as experiments: `CLAIMS`, measured by `measure`, written by `write`."""

from experiments.claims.benchmark import SceneBenchmark, Setting
from experiments.claims.run import choose, measure
from experiments.claims.statements import CLAIMS, further_scores, scores
from experiments.claims.table import markdown, write
from experiments.claims.verdict import Expected, paired, verdict

__all__ = [
    "CLAIMS",
    "Expected",
    "SceneBenchmark",
    "Setting",
    "choose",
    "further_scores",
    "markdown",
    "measure",
    "paired",
    "scores",
    "verdict",
    "write",
]
