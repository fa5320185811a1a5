"""Byte-pair merges learned from our captions, in the file that open_clip's `SimpleTokenizer` reads."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from open_clip.tokenizer import SimpleTokenizer

Merge = tuple[str, str]  # two symbols to join; a symbol that ends a word carries `</w>`


def learn_merges(texts: Iterable[str], count: int) -> list[Merge]:
    """Join the most frequent adjacent pair, again and again (Sennrich et al., 2016).

    Args:
        texts: a sample of captions.
        count: how many pairs to join; fewer if every word becomes whole before that.

    Returns:
        The pairs, in the order in which they were joined.

    >>> learn_merges(["car", "car", "cat"], 2)
    [('c', 'a'), ('ca', 'r</w>')]
    """
    clip = SimpleTokenizer()  # for its way of splitting text into words and words into bytes
    counts = Counter(word for text in texts for word in clip.pat.findall(clip.clean_fn(text)))
    words = {}
    for word, times in counts.items():
        symbols = [clip.byte_encoder[byte] for byte in word.encode()]
        words[(*symbols[:-1], symbols[-1] + "</w>")] = times
    learned: list[Merge] = []
    while len(learned) < count:
        pairs = Counter()
        for word, times in words.items():
            for pair in pairwise(word):
                pairs[pair] += times
        if not pairs:
            break
        learned.append(min(pairs, key=lambda pair: (-pairs[pair], pair)))
        words = {_join(word, learned[-1]): times for word, times in words.items()}
    return learned


def write_merges(merges: Iterable[Merge], path: Path) -> None:
    """Write what `SimpleTokenizer(path)` reads: a first line that it skips, then a pair in each line."""
    lines = ["#version: rose_kit", *(" ".join(pair) for pair in merges)]
    path.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))


def _join(word: tuple[str, ...], pair: Merge) -> tuple[str, ...]:
    """Replace each occurrence of a pair by the joined symbol."""
    out: list[str] = []
    i = 0
    while i < len(word):
        if word[i : i + 2] == pair:
            out.append(pair[0] + pair[1])
            i += 2
        else:
            out.append(word[i])
            i += 1
    return tuple(out)
