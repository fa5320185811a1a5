"""Ways to find the nearest rows: one variant, one file, one interface (`Index`)."""

from __future__ import annotations

from rose_kit.memory.indexes.base import Index, exact_search
from rose_kit.registry import Registry

indexes = Registry("index")


def _add(name: str, module: str, cls: str) -> None:
    @indexes.register(name)
    def make(dim: int) -> Index:
        from importlib import import_module  # an index brings its library along when it is asked for

        return getattr(import_module(f"rose_kit.memory.indexes.{module}"), cls)(dim)


_add("flat", "flat", "FlatIndex")
_add("hnsw", "hnsw", "HNSWIndex")
_add("ivfpq", "ivfpq", "IVFPQIndex")
_add("auto", "auto", "AutoIndex")
_add("milvus", "milvus", "MilvusIndex")

__all__ = ["Index", "exact_search", "indexes", "make_index"]


def make_index(index: str | Index, dim: int) -> Index:
    """An index by name, or one made beforehand.

    Raises:
        ValueError: the name is unknown, or the index is for vectors of another width.
    """
    made = index if isinstance(index, Index) else indexes.make(index, dim=dim)
    if made.dim != dim:
        raise ValueError(f"the index is for {made.dim} dimensions, the memory has {dim}")
    return made
