"""SAM regions: the masks of Segment Anything (Kirillov et al. 2023), stacked (RNS, section 3)."""

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
from rose_kit.regions.slic import Slic
from rose_kit.registry import describe_error, register_regions
from rose_kit.types import unknown_name

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
    """Cuts an image along SAM's automatic masks, and along `Slic()` superpixels where there are none.

    Args:
        checkpoint: "vit_b", "vit_l", "vit_h", the path of a file (see `load_sam`), or a model.
        order: which mask is on top where several overlap: "smallest", so that parts and small things
            are seen, or "largest", as in the RNS release.
        device: where SAM runs.
        **settings: of `SamAutomaticMaskGenerator`, such as `points_per_side` (SAM is prompted with a grid of
            so many points squared, by default 32; the time goes with it), and `pred_iou_thresh` and
            `stability_score_thresh`, below which masks are dropped, 0 to 1.

    Raises:
        ValueError: the order is unknown, or the checkpoint as for `load_sam`.
    """

    def __init__(
        self,
        checkpoint: str | Path | SamModel = "vit_b",
        order: str = "smallest",
        device: str = "cpu",
        **settings: Any,
    ) -> None:
        if order not in ORDERS:
            raise unknown_name("order of masks", order, ORDERS)
        self.order = order
        model = checkpoint if isinstance(checkpoint, SamModel) else load_sam(checkpoint)
        self.generator = SamAutomaticMaskGenerator(model.to(device).eval(), **settings)

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
        """(H, W) ids 0 ... R - 1 of one image: a region for each mask that shows, then the superpixels."""
        superpixels = Slic()(image)
        return fill(flatten(self.masks(image), superpixels.shape, self.order), superpixels)


def load_sam(checkpoint: str | Path = "vit_b") -> SamModel:
    """A SAM with weights; only tensors are read from the file, never other objects.

    Args:
        checkpoint: "vit_b", "vit_l" or "vit_h" (fetched once, into the folder `ROSE_KIT_CACHE` or the
            system's cache, and checked by its hash each time), or the path of a file whose name holds one
            of these, as the published ones do.

    Returns:
        The model on the CPU, ready to predict.

    Raises:
        ValueError: the name holds no known architecture.
        WeightsUnavailable: (a ValueError) the weights could not be fetched, or the file holds none.
    """
    name = next((name for name in CHECKPOINTS if name in Path(checkpoint).name), None)
    if name is None:
        raise unknown_name("SAM architecture in the file name", str(checkpoint), CHECKPOINTS)
    file, sha256 = CHECKPOINTS[name]
    folder = Path(os.environ.get("ROSE_KIT_CACHE") or pooch.os_cache("rose_kit")) / "sam"
    pooch.get_logger().setLevel("WARNING")  # the progress bar says enough
    model = sam_model_registry[name]()
    try:
        if str(checkpoint) == name:
            checkpoint = pooch.retrieve(SOURCE + file, f"sha256:{sha256}", file, folder, progressbar=True)
        model.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))
    except Exception as error:  # of the network, or of a file that is no checkpoint
        hint = f"{SOURCE + file} is fetched once, into {str(folder)!r}; regions 'slic' need no weights"
        message = f"could not load SAM {name!r} from {str(checkpoint)!r}: {describe_error(error)}. {hint}"
        raise WeightsUnavailable(message) from error
    return model.eval()


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
    from_the_top = sorted(range(len(masks)), key=lambda i: masks[i].sum(), reverse=order == "largest")
    for i in reversed(from_the_top):
        ids[masks[i]] = i
    return ids


def fill(ids: NDArray[np.int64], superpixels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give pixels without a region their superpixel; a superpixel that masks cut in two becomes two regions.

    Args:
        ids: (H, W), -1 where there is no region.
        superpixels: (H, W) regions of the whole image.

    Returns:
        (H, W) int64, 0 ... R - 1.

    >>> fill(np.array([[-1, 5, -1, -1]]), np.array([[0, 0, 0, 1]])).tolist()
    [[1, 0, 2, 3]]
    """
    pieces = label(np.where(ids < 0, superpixels, -1), connectivity=1, background=-1)  # (H, W) from 1
    return unique_inverse(np.where(ids < 0, ids.max() + pieces, ids))[1]
