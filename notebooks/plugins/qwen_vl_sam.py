"""Plug in a segmenter that reasons: Qwen-VL reads the prompt and answers with boxes, SAM fills them.

    rose-kit ask photo.jpg "Segment the reigning champion." --provider wikimedia --plugin qwen_vl_sam.py \\
        --segmenter qwen-vl-sam:device=cuda --known "person,car,boat" --encoder ViT-B-16/laion2b_s34b_b88k \\
        --calibrate photos --thresholds vit_b_16.json

A detector takes noun phrases. This model takes all that the framework says, the question and the background
of the answer ("Please segment Ada. Ada wears a red helmet."). It needs the extra `transformers`, and
`sam_boxes.py` beside it.
"""

import re
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from rose_kit import register_segmenter
from rose_kit.web.types import Mask

sys.path.append(str(Path(__file__).parent))
from sam_boxes import SAM, BoxFiller, load_pretrained

READER = "Qwen/Qwen2.5-VL-3B-Instruct"
UNITS = {"qwen2_5_vl": None, "qwen3_vl": 1000, "qwen3_vl_moe": 1000}  # parts of a side; None: resized pixels
FORMAT = (
    "Answer with the bounding box of each object that this asks for, as JSON alone: "
    '[{"bbox_2d": [x1, y1, x2, y2], "label": "its name"}]. If the image shows none, answer [].'
)
BOX = r"\[" + ",".join([r"\s*(-?[0-9]+(?:\.[0-9]+)?)\s*"] * 4) + r"\]"


@register_segmenter("qwen-vl-sam")
class QwenVlSam:
    """A `Promptable` of two models of `transformers`, by name on a hub or as local folders.

    Args:
        reader, filler: a Qwen2.5-VL or Qwen3-VL, and a SAM; `device` is where they run.
        max_side: to which a larger image is shrunk for the reader, whose time and memory grow with it.
        max_tokens: of an answer; where it is cut short, the boxes before count.

    Raises:
        ValueError: `transformers` is missing (the message names the extra), or the reader is of another kind.
        WeightsUnavailable: (a ValueError) a model is neither a folder nor could it be fetched.
    """

    def __init__(self, reader=READER, filler=SAM, max_side=1280, max_tokens=512, device="cpu") -> None:
        self.max_side, self.max_tokens = max_side, max_tokens
        kinds = "AutoProcessor", "AutoModelForImageTextToText"
        self.processor, self.model = load_pretrained(reader, *kinds, device)
        if (kind := self.model.config.model_type) not in UNITS:
            raise ValueError(f"{str(reader)!r} is of the kind {kind!r}; expected one of {', '.join(UNITS)}")
        self.units, self.fill_boxes = UNITS[kind], BoxFiller(filler, device)

    def segment(self, image: np.ndarray, prompt: str) -> Mask:
        """(H, W, 3) uint8 -> the union of all boxes' masks, (H, W); empty, with a warning, if there is none.

        Confidence: the geometric mean of the probabilities of the answer's tokens.
        """
        boxes, answer, confidence = self.find_boxes(image, prompt)
        if not boxes:
            why = f"the answer {answer[:200]!r} has no box in the image"
            warnings.warn(f"the mask is empty: {why}", stacklevel=2)
        return Mask(self.fill_boxes(image, boxes).any(0), confidence if boxes else 0.0)

    def objects(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 -> (K, H, W) bool: masks of whatever is in it."""
        return self.fill_boxes(image, self.find_boxes(image, "Find every object in the image.")[0])

    @torch.inference_mode()
    def find_boxes(self, image: np.ndarray, prompt: str) -> tuple[list[list[float]], str, float]:
        """Boxes as `read_boxes` finds them, the answer they are from, and its confidence."""
        # A prompt may quote a page, which must not write the marks of images and of turns.
        text = {"type": "text", "text": f"{prompt.replace('<|', '< |')}\n{FORMAT}"}
        shown = Image.fromarray(image)
        shown.thumbnail((self.max_side, self.max_side))  # if it is larger
        chat = [{"role": "user", "content": [{"type": "image", "image": shown}, text]}]
        how = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
        inputs = self.processor.apply_chat_template(chat, **how).to(self.model.device)
        how = {"do_sample": False, "return_dict_in_generate": True, "output_logits": True}
        out = self.model.generate(**inputs, max_new_tokens=self.max_tokens, **how)
        scores = self.model.compute_transition_scores(out.sequences, out.logits, normalize_logits=True)[0]
        answer = self.processor.decode(out.sequences[0, -len(scores) :], skip_special_tokens=True)
        rows, columns = (inputs["image_grid_thw"][0, 1:] * self.processor.image_processor.patch_size).tolist()
        extent = (self.units, self.units) if self.units else (columns, rows)
        return read_boxes(answer, extent, image.shape[1::-1]), answer, float(scores.mean().exp())


def read_boxes(answer: str, extent: tuple[int, int], size: tuple[int, int]) -> list[list[float]]:
    """Every list of four numbers in a text, be it JSON, cut short, or prose, as a box of the image.

    Args:
        answer: of a model; two opposite corners of each box, in its own units.
        extent: width and height of the image in these units.
        size: width and height of the image in pixels.

    Returns:
        x0, y0, x1, y1 in pixels each, within the image; none that lies outside or has no area.

    >>> read_boxes('```json\\n[{"bbox_2d": [50, 20, 10, 40]}]', (100, 50), (200, 100))
    [[20.0, 40.0, 100.0, 80.0]]
    """
    corners = np.array([[*map(float, box)] for box in re.findall(BOX, answer)]).reshape(-1, 2, 2)
    corners = (np.sort(corners, axis=1) * (np.array(size) / extent)).clip(0, size)  # (K, corner, x and y)
    has_area = (corners[:, 0] < corners[:, 1]).all(1)
    return corners[has_area].reshape(-1, 4).tolist()
