"""SAM regions: the masks of Segment Anything, 1 (Kirillov et al. 2023) to 3, stacked (RNS, section 3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pooch
import torch
from numpy.typing import NDArray
from PIL import Image
from segment_anything import SamAutomaticMaskGenerator, sam_model_registry
from segment_anything.modeling import Sam as SamModel

from rose_kit.data import cache_folder, eight_bits
from rose_kit.encoder.base import WeightsUnavailable, image_tensor
from rose_kit.encoder.loading import hub_if_it_answers
from rose_kit.pooling import unique_inverse
from rose_kit.registry import errors_as, register_regions
from rose_kit.types import unknown_name

SOURCE = "https://dl.fbaipublicfiles.com/segment_anything/"
# Architecture -> file and its SHA-256 (0.4, 1.2, 2.6 GB); the digits in the file names are of the MD5.
CHECKPOINTS = {
    "vit_b": ("sam_vit_b_01ec64.pth", "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912"),
    "vit_l": ("sam_vit_l_0b3195.pth", "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622"),
    "vit_h": ("sam_vit_h_4b8939.pth", "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e"),
}


@register_regions("sam")
@dataclass(eq=False, repr=False)
class Sam:
    """Cuts an image along SAM's automatic masks. What they do not cover is one region, as in the RNS release.

    Args:
        checkpoint: "vit_b", "vit_l", "vit_h", the path of a file (see `load_sam`), or a model.
        largest_on_top: which mask shows where several overlap: the smallest, so that parts and small things
            are seen, or the largest, as in the RNS release.
        device: where SAM runs.
        points_per_side: SAM is prompted with a grid of so many points squared; the time goes with it.
        pred_iou_thresh, stability_score_thresh: masks below these are dropped, 0 to 1.

    Raises:
        ValueError: as `load_sam`.
    """

    checkpoint: str | Path | SamModel = "vit_b"
    largest_on_top: bool = False
    device: str = "cpu"
    points_per_side: int = 32
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95

    def __post_init__(self) -> None:
        model = self.checkpoint if isinstance(self.checkpoint, SamModel) else load_sam(self.checkpoint)
        model = model.to(self.device).eval()
        self.generator = SamAutomaticMaskGenerator(model, self.points_per_side, **self.thresholds)

    @property
    def thresholds(self) -> dict[str, float]:
        """What a mask must reach, by the name that SAM has for it."""
        return {name: value for name, value in vars(self).items() if name.endswith("_thresh")}

    def masks(self, image: Any) -> list[NDArray[np.bool_]]:
        """SAM's own masks of an image, which may overlap and leave gaps.

        Args:
            image: (H, W, 3) uint8, float in [0, 1], or a PIL image.

        Returns:
            (H, W) each.
        """
        return [mask["segmentation"] for mask in self.generator.generate(eight_bits(image))]

    def __call__(self, image: Any) -> NDArray[np.int64]:
        """(H, W) ids 0 ... R - 1 of one image: the uncovered pixels, if any, then a region for each mask."""
        size = tuple(image_tensor(image).shape[1:])
        return unique_inverse(flatten(self.masks(image), size, self.largest_on_top))[1]


@register_regions("sam2")
@dataclass(eq=False, repr=False)
class Sam2(Sam):
    """The same with SAM 2.1 (Ravi et al. 2024) or SAM 3, through `transformers`.

    The defaults are the settings of the RNS release, which takes one mask per point.

    Args:
        checkpoint: a name on the Hugging Face hub, such as "facebook/sam2.1-hiera-tiny" or "facebook/sam3",
            fetched once; or a folder as `save_pretrained` writes it, of the model and its image processor.
        largest_on_top, device, points_per_side, pred_iou_thresh, stability_score_thresh: as for `Sam`.

    Raises:
        ValueError: `transformers` is missing (the message names the extra).
        WeightsUnavailable: (a ValueError) there are no such weights, or they could not be fetched.
    """

    checkpoint: str | Path = "facebook/sam2.1-hiera-large"
    largest_on_top: bool = True
    pred_iou_thresh: float = 0.4
    stability_score_thresh: float = 0.4

    def __post_init__(self) -> None:
        try:
            from transformers import pipeline
        except ImportError as error:
            raise ValueError("SAM 2 needs an extra: pip install 'rose_kit[transformers]'") from error
        source, hint = str(self.checkpoint), "a folder, or fetched once; regions 'slic' need no weights"
        settings = self.thresholds | {"points_per_crop": self.points_per_side, "device": self.device}
        safe = {"use_safetensors": True}  # no pickle
        with errors_as(WeightsUnavailable, f"cannot load SAM from {source!r} ({hint})"), hub_if_it_answers():
            self.generator = pipeline("mask-generation", source, model_kwargs=safe, **settings)
        one = {"multimask_output": False}  # for which the pipeline has no option
        self.generator.model.register_forward_pre_hook(lambda _, x, given: (x, given | one), with_kwargs=True)

    def masks(self, image: Any) -> list[NDArray[np.bool_]]:
        """See `Sam.masks`."""
        pixels = Image.fromarray(eight_bits(image))
        return [mask.numpy(force=True) for mask in self.generator(pixels)["masks"]]


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
    folder = cache_folder() / "sam"
    pooch.get_logger().setLevel("WARNING")  # the progress bar says enough
    model = sam_model_registry[name]()
    hint = f"{SOURCE + file} is fetched once, into {str(folder)!r}; regions 'slic' need no weights"
    with errors_as(WeightsUnavailable, f"cannot load SAM {name!r} from {str(checkpoint)!r} ({hint})"):
        if str(checkpoint) == name:
            checkpoint = pooch.retrieve(SOURCE + file, f"sha256:{sha256}", file, folder, progressbar=True)
        model.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))
    return model.eval()


def flatten(
    masks: Sequence[NDArray[np.bool_]], size: tuple[int, int], largest_on_top: bool = False
) -> NDArray[np.int64]:
    """Overlapping masks -> one id per pixel, the position of the mask on top.

    Args:
        masks: (H, W) bool each; of equal areas, the earlier is on top.
        size: (H, W), for when there are no masks.
        largest_on_top: whether the largest mask shows where several overlap, or the smallest.

    Returns:
        (H, W) int64, -1 where there is no mask.

    >>> small, large = np.array([[True, False, False]]), np.array([[True, True, False]])
    >>> flatten([small, large], (1, 3)).tolist()
    [[0, 1, -1]]
    >>> flatten([small, large], (1, 3), largest_on_top=True).tolist()
    [[1, 1, -1]]
    """
    ids = np.full(size, -1, dtype=np.int64)
    from_the_top = sorted(range(len(masks)), key=lambda i: masks[i].sum(), reverse=largest_on_top)
    for i in reversed(from_the_top):
        ids[masks[i]] = i
    return ids
