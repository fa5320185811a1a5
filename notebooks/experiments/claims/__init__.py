"""The claims of Retrieve and Segment as experiments: `CLAIMS`, measured by `measure`, written by `write`."""

from experiments.claims import additions, few_shots, heads, lookup, missing
from experiments.claims.benchmark import SceneBenchmark, Setting
from experiments.claims.run import choose, measure
from experiments.claims.table import markdown, write
from experiments.claims.verdict import Expected, paired, verdict

CLAIMS = (*few_shots.CLAIMS, *missing.CLAIMS, *lookup.CLAIMS, *heads.CLAIMS, *additions.CLAIMS)

__all__ = [
    "CLAIMS",
    "Expected",
    "SceneBenchmark",
    "Setting",
    "choose",
    "markdown",
    "measure",
    "paired",
    "verdict",
    "write",
]
