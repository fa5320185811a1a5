"""SAM regions: the masks of Segment Anything (Kirillov et al. 2023), laid flat (RNS, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import Sam as SamModel
from skimage.measure import label

from rose_kit.encoder.base import content_hash, image_tensor
from rose_kit.pooling import distinct
from rose_kit.regions.base import Regions
from rose_kit.regions.checkpoint import load_sam
from rose_kit.regions.slic import Slic
from rose_kit.registry import register_regions

ORDERS = ("smallest", "largest")
# The RNS release: lenient thresholds (it runs SAM 2.1), larger masks over smaller ones.
AUTHORS = {"order": "largest", "pred_iou_thresh": 0.4, "stability_score_thresh": 0.4}


@register_regions("sam")
class Sam:
    """Cuts an image along SAM's automatic masks, and along superpixels where it finds none.

    Args:
        checkpoint: "vit_b", "vit_l", "vit_h", the path of a file (see `load_sam`), or a model.
        order: which mask is on top where several overlap: "smallest", so that parts and small things
            are seen, or "largest", as in the RNS release.
        points_per_side: SAM is asked about a grid of this many points squared; the time goes with it.
        pred_iou_thresh: masks that SAM itself rates lower are dropped, 0 to 1.
        stability_score_thresh: and those that change more than this with their cut-off, 0 to 1.
        architecture, sha256: of a file that is not one of the published ones.
        device: where SAM runs.
        rest: what cuts the pixels that no mask covers; by default `Slic()`.

    Raises:
        ValueError: the order is unknown, or the checkpoint as for `load_sam`.
    """

    costly = True

    def __init__(
        self,
        checkpoint: str | Path | SamModel = "vit_b",
        order: str = "smallest",
        points_per_side: int = 32,
        pred_iou_thresh: float = 0.88,
        stability_score_thresh: float = 0.95,
        architecture: str = "",
        sha256: str = "",
        device: str = "cpu",
        rest: Regions | None = None,
    ) -> None:
        if order not in ORDERS:
            raise ValueError(f"unknown order {order!r} of masks. Known: {', '.join(ORDERS)}")
        if points_per_side < 1:
            raise ValueError(f"points_per_side must be at least 1, got {points_per_side}")
        if not isinstance(checkpoint, SamModel):
            checkpoint = load_sam(checkpoint, architecture, sha256)
        self.order, self.rest = order, Slic() if rest is None else rest
        settings = {
            "points_per_side": points_per_side,
            "pred_iou_thresh": pred_iou_thresh,
            "stability_score_thresh": stability_score_thresh,
        }
        weights = content_hash(checkpoint.state_dict())
        self.fingerprint = f"sam {weights} {settings} {order} over {self.rest.fingerprint}"
        self.generator = SamAutomaticMaskGenerator(checkpoint.to(device).eval(), **settings)

    def masks(self, image: Any) -> list[NDArray[np.bool_]]:
        """SAM's own masks of an image, which may overlap and leave gaps.

        Args:
            image: (H, W, 3) uint8, float in [0, 1], or a PIL image.

        Returns:
            (H, W) each.
        """
        pixels = (255 * image_tensor(image)).round().byte().permute(1, 2, 0).numpy()  # (H, W, 3)
        return [found["segmentation"] for found in self.generator.generate(pixels)]

    def __call__(self, image: Any) -> NDArray[np.int64]:
        """(H, W) ids 0 ... R - 1 of one image: a region for each mask in sight, then the rest."""
        size = tuple(image_tensor(image).shape[1:])
        return fill(flatten(self.masks(image), size, self.order), self.rest(image))


def flatten(masks: Sequence[NDArray[np.bool_]], size: tuple[int, int], order: str) -> NDArray[np.int64]:
    """Overlapping masks -> one id per pixel, the position of the mask on top.

    Args:
        masks: (H, W) bool each; of equal areas, the earlier is on top.
        size: (H, W), for when there are no masks.
        order: "smallest" or "largest" is on top.

    Returns:
        (H, W) int64, -1 where there is no mask.

    >>> small, large = np.array([[True, False, False]]), np.array([[True, True, False]])
    >>> flatten([small, large], (1, 3), "smallest").tolist()
    [[0, 1, -1]]
    >>> flatten([small, large], (1, 3), "largest").tolist()
    [[1, 1, -1]]
    """
    ids = np.full(size, -1, dtype=np.int64)
    sign = 1 if order == "smallest" else -1
    on_top = sorted(range(len(masks)), key=lambda i: sign * int(masks[i].sum()))
    for i in reversed(on_top):  # painted from the bottom up
        ids[masks[i]] = i
    return ids


def fill(ids: NDArray[np.int64], rest: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give the pixels without a region one of a second map; where masks cut a region in two, two.

    Args:
        ids: (H, W), -1 where there is no region.
        rest: (H, W) regions of the whole image.

    Returns:
        (H, W) int64, 0 ... R - 1.

    >>> fill(np.array([[-1, 5, -1, -1]]), np.array([[0, 0, 0, 1]])).tolist()
    [[1, 0, 2, 3]]
    """
    pieces = label(np.where(ids < 0, rest, -1), connectivity=1, background=-1)  # (H, W) from 1
    return distinct(np.where(ids < 0, ids.max() + pieces, ids))[1]
