"""The claims of Retrieve and Segment as experiments: `ROWS`, measured by `measure`, written by `write`."""

from experiments.claims import additions, few_shots, heads, lookup, missing
from experiments.claims.lab import Case, Lab
from experiments.claims.run import choose, measure
from experiments.claims.table import markdown, write
from experiments.claims.verdict import Expected, paired, verdict

ROWS = (*few_shots.ROWS, *missing.ROWS, *lookup.ROWS, *heads.ROWS, *additions.ROWS)

__all__ = ["ROWS", "Case", "Expected", "Lab", "choose", "markdown", "measure", "paired", "verdict", "write"]
