"""The stored prototypes behind an answer, for some patches or class by class."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from rose_kit.fusion.evidence import pooled_evidence
from rose_kit.types import Evidence, Segmentation

if TYPE_CHECKING:
    from rose_kit.memory import SupportMemory


def strongest_prototypes(
    evidence: Evidence, memory: SupportMemory, queries: Iterable[int], top: int
) -> dict[str, Any]:
    """Pool the evidence of some patches or regions and look its prototypes up.

    Args:
        evidence: of one image, from `memory`.
        memory: holds the prototypes.
        queries: which patches or regions; of those that the evidence lacks, nothing is known.
        top: prototypes to list, by absolute weight.

    Returns:
        {"score": mean winning score, "prototypes": [{"prototype_id", "class", "image_id", "source",
        "weight"}, ...] strongest first, "rest": text and all that is not listed}. The weights are means over
        the queries: they and "rest" add up to "score".
    """
    queries = list(queries)
    if not np.isin(evidence.query, queries).any():
        return {"score": 0.0, "prototypes": [], "rest": 0.0}
    pooled = pooled_evidence(evidence, queries)
    listed = np.flatnonzero(pooled.prototype_id >= 0)[:top]
    held = memory.lookup(pooled.prototype_id[listed])
    columns = (held.ids, held.class_names, held.image_ids, held.sources, pooled.weight[listed])
    keys = ("prototype_id", "class", "image_id", "source", "weight")
    rows = zip(*(column.tolist() for column in columns), strict=True)
    score = float(pooled.weight.sum())
    return {
        "score": score,
        "prototypes": [dict(zip(keys, row, strict=True)) for row in rows],
        "rest": score - float(pooled.weight[listed].sum()),
    }


def evidence_by_class(segmentation: Segmentation, memory: SupportMemory, top: int = 10) -> dict[str, Any]:
    """Pool the evidence of all patches (or regions) that a class won, for each class.

    Args:
        segmentation: with evidence from `memory`.
        memory: holds the prototypes.
        top: prototypes to list per class, by absolute weight.

    Returns:
        class name -> {"pixels": share of the image, "patches": how many it won, and "score", "prototypes",
        "rest" as `strongest_prototypes` gives them for these patches}. The last four are None where the
        method gives no evidence. Classes without a pixel are left out; the largest comes first.
    """
    pixels = np.bincount(segmentation.labels.ravel(), minlength=len(segmentation.names))
    evidence, by_class = segmentation.evidence, {}
    for c in np.argsort(-pixels, kind="stable")[: np.count_nonzero(pixels)]:
        name = segmentation.names[c]
        entry = {"pixels": float(pixels[c] / segmentation.labels.size)}
        if evidence is None:
            entry |= dict.fromkeys(("patches", "score", "prototypes", "rest"))
        else:
            # Every query has one row without a prototype, and that row names the class that won.
            won = evidence.query[(evidence.prototype_id < 0) & (evidence.class_name == name)]
            entry |= {"patches": len(won), **strongest_prototypes(evidence, memory, won, top)}
        by_class[name] = entry
    return by_class
