"""A small byte-level BPE tokenizer: open_clip's own, with merges learned from our captions."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from open_clip.tokenizer import SimpleTokenizer


class BPETokenizer(SimpleTokenizer):
    """Any string encodes: what no merge covers falls apart into bytes.

    Args:
        merges: pairs of symbols, most frequent first; a symbol that ends a word carries `</w>`.
        context_length: tokens per text, start and end included; longer texts are cut.

    >>> BPETokenizer([("c", "a"), ("ca", "r</w>")], 6)(["car"]).tolist()
    [[514, 513, 515, 0, 0, 0]]
    """

    def __init__(self, merges: Iterable[tuple[str, str]], context_length: int = 24) -> None:
        self.merges = [tuple(pair) for pair in merges]
        lines = "\n".join(["#version: rose_kit", *(" ".join(pair) for pair in self.merges)])
        with tempfile.TemporaryDirectory() as folder:  # the parent reads its merges from a gzip file
            path = Path(folder) / "merges.gz"
            path.write_bytes(gzip.compress(lines.encode(), mtime=0))
            super().__init__(str(path), context_length=context_length)

    @classmethod
    def train(cls, texts: Iterable[str], merges: int, context_length: int = 24) -> BPETokenizer:
        """Learn merges: join the most frequent adjacent pair, again and again (Sennrich et al., 2016).

        Args:
            texts: a sample of captions.
            merges: how many pairs to join; fewer if every word becomes whole before that.
            context_length: as for the class.
        """
        blank = cls([], context_length)
        counts = Counter(w for text in texts for w in blank.pat.findall(blank.clean_fn(text)))
        words = {}
        for word, count in counts.items():
            symbols = [blank.byte_encoder[b] for b in word.encode()]
            words[(*symbols[:-1], symbols[-1] + "</w>")] = count
        learned: list[tuple[str, str]] = []
        while len(learned) < merges:
            pairs = Counter()
            for word, count in words.items():
                for pair in pairwise(word):
                    pairs[pair] += count
            if not pairs:
                break
            learned.append(min(pairs, key=lambda pair: (-pairs[pair], pair)))
            words = {_join(word, learned[-1]): count for word, count in words.items()}
        return cls(learned, context_length)

    def save(self, path: str | Path) -> None:
        """Write merges and context length as JSON."""
        content = {"context_length": self.context_length, "merges": [" ".join(pair) for pair in self.merges]}
        Path(path).write_text(json.dumps(content, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> BPETokenizer:
        """Read what `save` wrote."""
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return cls([tuple(pair.split(" ")) for pair in content["merges"]], content["context_length"])


def _join(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
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
