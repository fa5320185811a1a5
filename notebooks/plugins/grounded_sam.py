"""Plug in another segmenter: Grounding DINO finds boxes for a prompt, SAM fills them (extra `transformers`).

    segmenter = GroundedSam()  # anything with `segment(image, prompt) -> Mask` will do
    RoseFramework(segmenter, provider, load_encoder("bundled")).ask(image, question, day)

Copy this file and change `segment` for a segmenter of your own.
"""

import numpy as np
import torch

from rose_kit.encoder import WeightsUnavailable
from rose_kit.web.language import noun_phrases
from rose_kit.web.types import Mask

DETECTOR = "IDEA-Research/grounding-dino-tiny"


class GroundedSam:
    """A `Promptable` of two models of `transformers`, by name on a hub or as local folders.

    Args:
        detector, filler: a Grounding DINO and a SAM; `device` is where they run.
        threshold: least confidence of a box, 0 to 1; where none has it, the best box counts alone.

    Raises:
        ValueError: `transformers` is missing (the message names the extra).
        WeightsUnavailable: (a ValueError) a model is neither a folder nor could it be fetched.
    """

    def __init__(
        self, detector=DETECTOR, filler="facebook/sam-vit-base", threshold=0.35, device="cpu"
    ) -> None:
        try:
            import transformers as hub
        except ImportError as error:
            raise ValueError(
                "Grounding DINO needs transformers: pip install 'rose_kit[transformers]'"
            ) from error
        self.threshold, self.device = threshold, device
        self.find = _load(detector, hub.GroundingDinoProcessor, hub.GroundingDinoForObjectDetection, device)
        self.fill = _load(filler, hub.SamProcessor, hub.SamModel, device)

    @torch.inference_mode()
    def segment(self, image: np.ndarray, prompt: str) -> Mask:
        """(H, W, 3) uint8 -> the union of all boxes' masks, (H, W); confidence: the best box's."""
        (reader, finder), (cutter, filler) = self.find, self.fill
        text = " . ".join(noun_phrases(prompt)).lower() + " ."
        inputs = reader(images=image, text=text, return_tensors="pt").to(self.device)
        read = reader.post_process_grounded_object_detection
        found = read(finder(**inputs), inputs.input_ids, threshold=0.0, target_sizes=[image.shape[:2]])[0]
        scores, boxes = found["scores"], found["boxes"]  # (K,), (K, 4) as x0, y0, x1, y1 in pixels
        chosen = scores >= min(self.threshold, float(scores.max()))
        inputs = cutter(image, input_boxes=[boxes[chosen].tolist()], return_tensors="pt").to(self.device)
        out = filler(**inputs, multimask_output=False)
        sizes = inputs["original_sizes"].cpu(), inputs["reshaped_input_sizes"].cpu()
        masks = cutter.image_processor.post_process_masks(out.pred_masks.cpu(), *sizes)[0]  # (K, 1, H, W)
        return Mask(masks.any(0)[0].numpy(), float(scores.max()))


def _load(name, processor: type, model: type, device: str) -> tuple:
    try:
        return processor.from_pretrained(name), model.from_pretrained(name).eval().to(device)
    except (OSError, ValueError) as error:
        message = f"{str(name)!r} is no folder of a {model.__name__}, nor could it be fetched"
        raise WeightsUnavailable(message) from error
