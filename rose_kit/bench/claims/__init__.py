"""The claims of Retrieve and Segment as experiments: `ROWS`, measured by `measure`, written by `write`."""

from rose_kit.bench.claims import additions, few_shots, heads, lookup, missing
from rose_kit.bench.claims.lab import Case, Lab
from rose_kit.bench.claims.run import choose, measure
from rose_kit.bench.claims.table import markdown, write
from rose_kit.bench.claims.verdict import Expected, paired, verdict

ROWS = (*few_shots.ROWS, *missing.ROWS, *lookup.ROWS, *heads.ROWS, *additions.ROWS)

__all__ = ["ROWS", "Case", "Expected", "Lab", "choose", "markdown", "measure", "paired", "verdict", "write"]
