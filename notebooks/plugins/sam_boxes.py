"""What `grounded_sam.py` and `qwen_vl_sam.py` share: loading from `transformers`, and SAM for boxes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from rose_kit.encoder import WeightsUnavailable

SAM = "facebook/sam-vit-base"


def load_pretrained(name: str, processor: str, model: str, device: str) -> tuple[Any, Any]:
    """A processor and a model of `transformers`.

    Args:
        name: on a hub, or a local folder.
        processor, model: names of their classes.
        device: where the model runs.

    Raises:
        ValueError: `transformers` is missing (the message names the extra).
        WeightsUnavailable: (a ValueError) it is neither such a folder nor could it be fetched.
    """
    try:
        import transformers
    except ImportError as error:
        missing = f"{name!r} needs transformers: pip install 'rose_kit[transformers]'"
        raise ValueError(missing) from error
    kinds = getattr(transformers, processor), getattr(transformers, model)
    try:
        loaded = kinds[1].from_pretrained(name, dtype="auto").eval().to(device)
        return kinds[0].from_pretrained(name), loaded
    except (OSError, ValueError) as error:
        message = f"{str(name)!r} is no folder that {model} can load, nor could it be fetched"
        raise WeightsUnavailable(message) from error


class BoxFiller:
    """A SAM that makes a mask of each box; raises what `load_pretrained` does.

    Args:
        name: on a hub, or a local folder.
        device: where it runs.
    """

    def __init__(self, name: str = SAM, device: str = "cpu") -> None:
        self.processor, self.model = load_pretrained(name, "SamProcessor", "SamModel", device)

    @torch.inference_mode()
    def __call__(self, image: np.ndarray, boxes: Sequence[Sequence[float]]) -> np.ndarray:
        """(H, W, 3) uint8, K boxes as x0, y0, x1, y1 in pixels -> (K, H, W) bool; one pass over the image."""
        if not boxes:
            return np.zeros((0, *image.shape[:2]), bool)
        inputs = self.processor(image, input_boxes=[boxes], return_tensors="pt").to(self.model.device)
        out = self.model(**inputs, multimask_output=False)
        sizes = inputs["original_sizes"].cpu(), inputs["reshaped_input_sizes"].cpu()
        make_masks = self.processor.image_processor.post_process_masks
        return make_masks(out.pred_masks.cpu(), *sizes)[0][:, 0].numpy()  # of (K, 1, H, W)
