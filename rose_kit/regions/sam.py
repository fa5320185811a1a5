"""SAM regions: the masks of Segment Anything (Kirillov et al. 2023), laid flat (RNS, section 3)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pooch
import torch
from numpy.typing import NDArray
from segment_anything import SamAutomaticMaskGenerator, sam_model_registry
from segment_anything.modeling import Sam as SamModel
from skimage.measure import label

from rose_kit.encoder.base import WeightsUnavailable, image_tensor
from rose_kit.pooling import unique_inverse
from rose_kit.regions.base import Regions
from rose_kit.regions.slic import Slic
from rose_kit.registry import register_regions

ORDERS = ("smallest", "largest")
SOURCE = "https://dl.fbaipublicfiles.com/segment_anything/"
# Architecture -> file and its SHA-256 (0.4, 1.2, 2.6 GB); the digits in the file names are of the MD5.
CHECKPOINTS = {
    "vit_b": ("sam_vit_b_01ec64.pth", "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912"),
    "vit_l": ("sam_vit_l_0b3195.pth", "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622"),
    "vit_h": ("sam_vit_h_4b8939.pth", "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e"),
}


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
        architecture: of a file that is not one of the published ones.
        device: where SAM runs.
        rest: what cuts the pixels that no mask covers; by default `Slic()`.

    Raises:
        ValueError: the order is unknown, or the checkpoint as for `load_sam`.
    """

    def __init__(
        self,
        checkpoint: str | Path | SamModel = "vit_b",
        order: str = "smallest",
        points_per_side: int = 32,
        pred_iou_thresh: float = 0.88,
        stability_score_thresh: float = 0.95,
        architecture: str = "",
        device: str = "cpu",
        rest: Regions | None = None,
    ) -> None:
        if order not in ORDERS:
            raise ValueError(f"unknown order {order!r} of masks. Known: {', '.join(ORDERS)}")
        if points_per_side < 1:
            raise ValueError(f"points_per_side must be at least 1, got {points_per_side}")
        if not isinstance(checkpoint, SamModel):
            checkpoint = load_sam(checkpoint, architecture)
        self.order, self.rest = order, Slic() if rest is None else rest
        self.generator = SamAutomaticMaskGenerator(
            checkpoint.to(device).eval(),
            points_per_side=points_per_side,
            pred_iou_thresh=pred_iou_thresh,
            stability_score_thresh=stability_score_thresh,
        )

    def masks(self, image: Any) -> list[NDArray[np.bool_]]:
        """SAM's own masks of an image, which may overlap and leave gaps.

        Args:
            image: (H, W, 3) uint8, float in [0, 1], or a PIL image.

        Returns:
            (H, W) each.
        """
        pixels = (255 * image_tensor(image)).round().byte().permute(1, 2, 0).numpy()  # (H, W, 3)
        return [mask["segmentation"] for mask in self.generator.generate(pixels)]

    def __call__(self, image: Any) -> NDArray[np.int64]:
        """(H, W) ids 0 ... R - 1 of one image: a region for each mask in sight, then the rest."""
        size = tuple(image_tensor(image).shape[1:])
        return fill(flatten(self.masks(image), size, self.order), self.rest(image))


def load_sam(checkpoint: str | Path = "vit_b", architecture: str = "") -> SamModel:
    """A SAM with weights; only tensors are read from the file, never other objects.

    Args:
        checkpoint: "vit_b", "vit_l" or "vit_h" (fetched once, into the folder `ROSE_KIT_CACHE` or the
            system's cache, and checked by its hash each time), or the path of a file.
        architecture: of the file; by default read off the published file names.

    Returns:
        The model on the CPU, ready to predict.

    Raises:
        ValueError: there is no such checkpoint or architecture, or the file holds no weights of it.
        WeightsUnavailable: (a ValueError) the weights could not be fetched.
    """
    files = {file: name for name, (file, _) in CHECKPOINTS.items()}
    name = architecture or files.get(Path(checkpoint).name, str(checkpoint))
    if name not in CHECKPOINTS:
        raise ValueError(
            f"unknown SAM architecture {name!r}. Known: {', '.join(CHECKPOINTS)}; a file with another name "
            f"than {', '.join(files)} needs one"
        )
    path = _fetch(name) if str(checkpoint) in CHECKPOINTS else Path(checkpoint)
    model = sam_model_registry[name]()
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # whatever a file that is no checkpoint makes the reader raise
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(f"{str(path)!r} is no checkpoint of SAM {name}: {reason}") from error
    return model.eval()


def _fetch(name: str) -> Path:
    """The published file, from the cache if it is there and whole."""
    file, sha256 = CHECKPOINTS[name]
    folder = Path(os.environ.get("ROSE_KIT_CACHE") or pooch.os_cache("rose_kit")) / "sam"
    pooch.get_logger().setLevel("WARNING")  # the progress bar says enough
    download = pooch.HTTPDownloader(progressbar=True, timeout=30)
    try:
        return Path(pooch.retrieve(SOURCE + file, f"sha256:{sha256}", file, folder, downloader=download))
    except (OSError, ValueError) as error:  # no network; another hash
        raise WeightsUnavailable(
            f"could not fetch the weights of SAM {name!r} from {SOURCE + file} ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}): this needs the network once, or the file at "
            f"{str(folder / file)!r}. Regions 'slic' need no weights"
        ) from error


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
    return unique_inverse(np.where(ids < 0, ids.max() + pieces, ids))[1]
