"""What an answer rests on, class by class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rose_kit.fusion.evidence import pooled_evidence
from rose_kit.types import Segmentation

if TYPE_CHECKING:
    from rose_kit.memory import SupportMemory


def evidence_by_class(segmentation: Segmentation, memory: SupportMemory, top: int = 10) -> dict[str, Any]:
    """Add up the evidence of all patches (or regions) that a class won.

    Args:
        segmentation: with evidence from `memory`.
        memory: holds the prototypes.
        top: prototypes to list per class, by absolute weight.

    Returns:
        class name -> {"pixels": share of the image, "patches": how many it won, "score": their mean
        winning score, "prototypes": [{"prototype_id", "class", "image_id", "source", "weight"}, ...]
        strongest first, "rest": text and all that is not listed}. Weights are means over the patches won:
        they and "rest" add up to "score". The last four are None where the method gives no evidence.
        Classes that won nothing are left out; the largest comes first.
    """
    pixels = np.bincount(segmentation.labels.ravel(), minlength=len(segmentation.names))
    found = {}
    for c in np.argsort(-pixels, kind="stable"):
        if pixels[c]:
            name = segmentation.names[c]
            share = float(pixels[c] / segmentation.labels.size)
            found[name] = {"pixels": share, **_rests_on(name, segmentation, memory, top)}
    return found


def _rests_on(name: str, segmentation: Segmentation, memory: SupportMemory, top: int) -> dict[str, Any]:
    evidence = segmentation.evidence
    if evidence is None:
        return dict.fromkeys(("patches", "score", "prototypes", "rest"))
    # Every query has one row without a prototype, and that row names the class that won.
    won = evidence.query[(evidence.prototype_id < 0) & (evidence.class_name == name)]
    if not len(won):  # pixels between patches that other classes won
        return {"patches": 0, "score": 0.0, "prototypes": [], "rest": 0.0}
    pooled = pooled_evidence(evidence, won)
    rows = np.flatnonzero(pooled.prototype_id >= 0)[:top]  # strongest first
    held = memory.lookup(pooled.prototype_id[rows])
    columns = (held.ids.tolist(), held.class_names.tolist(), held.image_ids.tolist(), held.sources.tolist())
    keys = ("prototype_id", "class", "image_id", "source", "weight")
    listed = [
        dict(zip(keys, row, strict=True)) for row in zip(*columns, pooled.weight[rows].tolist(), strict=True)
    ]
    score = float(pooled.weight.sum())
    return {
        "patches": len(won),
        "score": score,
        "prototypes": listed,
        "rest": score - float(pooled.weight[rows].sum()),
    }
