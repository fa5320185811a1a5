"""Plug in another segmenter: Grounding DINO finds boxes for a prompt, SAM fills them (extra `transformers`).

    rose-kit ask photo.jpg "Segment the reigning champion." --provider wikimedia --plugin grounded_sam.py \\
        --segmenter grounded-sam --known "person,car,boat" --encoder ViT-B-16/laion2b_s34b_b88k \\
        --calibrate photos --thresholds vit_b_16.json

Copy this file (and `sam_boxes.py`, for boxes) and change `segment` for a segmenter of your own:
`segment(image, prompt) -> Mask` is all that is needed. With `objects` as well, masks that look wrong are
replaced by what a detector found.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from rose_kit import register_segmenter
from rose_kit.web.language import noun_phrases
from rose_kit.web.types import Mask

sys.path.append(str(Path(__file__).parent))
from sam_boxes import SAM, BoxFiller, load_pretrained

DETECTOR = "IDEA-Research/grounding-dino-tiny"
MOST_OBJECTS = 30


@register_segmenter("grounded-sam")
class GroundedSam:
    """A `Promptable` of two models of `transformers`, by name on a hub or as local folders.

    Args:
        detector, filler: a Grounding DINO and a SAM; `device` is where they run.
        threshold: least confidence of a box, 0 to 1; where none has it, the best box counts alone.

    Raises:
        ValueError: `transformers` is missing (the message names the extra).
        WeightsUnavailable: (a ValueError) a model is neither a folder nor could it be fetched.
    """

    def __init__(self, detector=DETECTOR, filler=SAM, threshold=0.35, device="cpu") -> None:
        self.threshold, self.device = threshold, device
        kinds = "GroundingDinoProcessor", "GroundingDinoForObjectDetection"
        self.finder, self.fill_boxes = load_pretrained(detector, *kinds, device), BoxFiller(filler, device)

    def segment(self, image: np.ndarray, prompt: str) -> Mask:
        """(H, W, 3) uint8 -> the union of all boxes' masks, (H, W); confidence: the best box's."""
        scores, boxes = self.find_boxes(image, " . ".join(noun_phrases(prompt)).lower() + " .")
        chosen = scores >= min(self.threshold, float(scores.max()))
        return Mask(self.fill_boxes(image, boxes[chosen].tolist()).any(0), float(scores.max()))

    def objects(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 -> (K, H, W) bool: masks of whatever is in it."""
        scores, boxes = self.find_boxes(image, "object .")
        best = scores.argsort(descending=True)[:MOST_OBJECTS]
        return self.fill_boxes(image, boxes[best].tolist())

    @torch.inference_mode()
    def find_boxes(self, image: np.ndarray, text: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Confidence (K,), and boxes (K, 4) as x0, y0, x1, y1 in pixels."""
        reader, finder = self.finder
        inputs = reader(images=image, text=text, return_tensors="pt").to(self.device)
        read = reader.post_process_grounded_object_detection
        found = read(finder(**inputs), inputs.input_ids, threshold=0.0, target_sizes=[image.shape[:2]])[0]
        return found["scores"], found["boxes"]
