"""The data engine: a news window in, a checked benchmark out; another window gives a fresh one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from tqdm.auto import tqdm

from data_scripts.news.articles import ArticleWorld
from data_scripts.news.nest.checks import fault
from data_scripts.news.nest.propose import Proposal, propose
from data_scripts.news.nest.sample import KINDS, NestSample
from data_scripts.news.world import NewsWorld

NOVEL_SHARE = 0.43  # of NEST; the rest is emerging, as the paper's table implies
NEST_SHARE = 0.7  # of NEST+; the rest needs no web
_MOST_TRIES = 60  # proposals for one sample before the engine gives up


@dataclass(frozen=True)
class Nest:
    """A benchmark.

    Args:
        world: the news it is about, in which its answers can be found.
        samples: in random order.
        discards: kind -> check -> how many proposals failed it first.
        nest_share: share of samples that need a look-up; 1 for NEST.
    """

    world: NewsWorld | ArticleWorld
    samples: tuple[NestSample, ...]
    discards: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    nest_share: float = 1.0

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[NestSample]:
        return iter(self.samples)


def plan(count: int, nest_share: float = 1.0) -> dict[str, int]:
    """How many samples of each kind.

    Raises:
        ValueError: fewer than one sample, or a share outside (0, 1].

    >>> plan(100), plan(100, NEST_SHARE)
    ({'novel': 43, 'emerging': 57}, {'novel': 30, 'emerging': 40, 'static': 30})
    """
    if count < 1 or not 0 < nest_share <= 1:
        raise ValueError(f"a benchmark has samples and a NEST share in (0, 1], got {count} and {nest_share}")
    nest = round(count * nest_share)
    novel = round(nest * NOVEL_SHARE)
    numbers = {"novel": novel, "emerging": nest - novel, "static": count - nest}
    return {kind: n for kind, n in numbers.items() if n}


def build_nest(
    world: NewsWorld, count: int = 100, *, nest_share: float = 1.0, size: int = 144, progress: bool = True
) -> Nest:
    """Turn a news window into samples; the same arguments give the same bytes.

    Proposals are drawn until enough have passed every check of `data_scripts.news.nest.checks`; no image or
    pair of question and day occurs twice.

    Args:
        world: the news.
        count: samples in all.
        nest_share: share of those that need a look-up: 1 for NEST, `NEST_SHARE` for NEST+.
        size: side of the images in pixels, 64 to 1024.
        progress: show a progress bar.

    Raises:
        ValueError: a number out of range.
        RuntimeError: hardly any proposal passes the checks.
    """
    if not 64 <= size <= 1024:
        raise ValueError(f"images are 64 to 1024 pixels a side, got {size}")
    kinds = [kind for kind, n in plan(count, nest_share).items() for _ in range(n)]
    order = world.rng("order").permutation(len(kinds))
    samples: list[NestSample] = []
    discards: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS if kind in kinds}
    seen: set[object] = set()
    for i, kind in enumerate(tqdm([kinds[j] for j in order], "NEST samples", disable=not progress)):
        proposal = _sound(world, kind, i, size, discards[kind], seen)
        samples.append(_sample(proposal, i, world.seed))
    return Nest(world, tuple(samples), {k: dict(sorted(c.items())) for k, c in discards.items()}, nest_share)


def _sound(world: NewsWorld, kind: str, i: int, size: int, discards: Counter[str], seen: set) -> Proposal:
    """The first proposal for the i-th sample that passes; what fails is counted."""
    for attempt in range(_MOST_TRIES):
        rng = world.rng(f"sample {kind} {i} {attempt}")
        proposal = propose(world, kind, rng, size)
        why = fault(proposal, world)
        if why is None:
            keys = {sha256(proposal.scene.image.tobytes()).hexdigest(), (proposal.question, proposal.day)}
            if not keys & seen:
                seen |= keys
                return proposal
            why = "duplicate"
        discards[why] += 1
    raise RuntimeError(f"{_MOST_TRIES} proposals of kind {kind!r} in a row failed: {dict(discards)}")


def _sample(p: Proposal, i: int, seed: int) -> NestSample:
    thing, name = p.answer if p.target is None else p.target.name, f"{seed}-{i:04d}"
    return NestSample(name, p.scene.image, p.question, p.day, p.answer, p.mask, p.kind, p.hint, thing, seed)
