"""Grounding DINO and SAM, tiny and untrained: every step is the real one, the masks mean nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import plugins.grounded_sam
from plugins.grounded_sam import GroundedSam
from rose_kit.encoder import load_encoder
from rose_kit.web.framework import RoseFramework
from rose_kit.web.vpe import Thresholds

transformers = pytest.importorskip("transformers")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "boat", "drone", "red", "a"]
TINY = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def tiny_detector(path):
    (path / "vocab.txt").parent.mkdir(parents=True, exist_ok=True)
    (path / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = transformers.BertTokenizer(str(path / "vocab.txt"))
    images = transformers.GroundingDinoImageProcessor(size={"shortest_edge": 128, "longest_edge": 128})
    transformers.GroundingDinoProcessor(images, tokenizer).save_pretrained(path)
    text = transformers.BertConfig(vocab_size=len(WORDS), intermediate_size=32, **TINY)
    stages = ["stage2", "stage3", "stage4"]
    backbone = transformers.SwinConfig(embed_dim=8, depths=[1] * 4, num_heads=[1] * 4, out_features=stages)
    size = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "num_queries": 6}
    config = transformers.GroundingDinoConfig(backbone_config=backbone, text_config=text, **size)
    transformers.GroundingDinoForObjectDetection(config).save_pretrained(path)


def tiny_filler(path):
    images = transformers.SamImageProcessor(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})
    transformers.SamProcessor(images).save_pretrained(path)
    image = {"image_size": 64, "output_channels": 32, "num_pos_feats": 16, "global_attn_indexes": [0]}
    vision = transformers.SamVisionConfig(**TINY, **image)
    prompt = transformers.SamPromptEncoderConfig(hidden_size=32, image_size=64, image_embedding_size=4)
    decoder = transformers.SamMaskDecoderConfig(**TINY, mlp_dim=16, iou_head_hidden_dim=16)
    parts = {"vision_config": vision, "prompt_encoder_config": prompt, "mask_decoder_config": decoder}
    config = transformers.SamConfig(**{name: part.to_dict() for name, part in parts.items()})
    transformers.SamModel(config).save_pretrained(path)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tiny_detector(path / "dino")
        tiny_filler(path / "sam")
    return path / "dino", path / "sam"


def test_a_prompt_without_its_command_becomes_a_mask_of_the_images_size(folders, monkeypatch):
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    model = GroundedSam(*folders, threshold=1.0)  # the best box alone
    (reader, finder), prompts = model.finder, []

    def spy(images, text, **options):
        prompts.append(text)
        return reader(images=images, text=text, **options)

    spy.post_process_grounded_object_detection = reader.post_process_grounded_object_detection
    monkeypatch.setattr(model, "finder", (spy, finder))
    found = model.segment(image, "Segment the red boat on the water, please. It is a drone.")
    assert prompts == ["red boat . drone ."]
    assert 0 <= found.confidence <= 1
    assert found.mask.shape == (48, 64) and found.mask.dtype == bool
    model.threshold = 0.0  # all boxes
    every = model.segment(image, "Segment the red boat on the water, please. It is a drone.").mask
    assert (every | found.mask == every).all()


PAGES = {
    "news.txt": "Tamsin is the new champion of the cup. The champion since May is Tamsin.",
    "Tamsin.txt": "Everybody knows Tamsin, a red boat.",
}


def test_the_command_takes_another_segmenter_another_encoder_words_thresholds_and_pages(
    folders, run, tmp_path
):
    """Thresholds are calibrated on a folder and written; the detector's masks are among the proposals."""
    pages, photos = tmp_path / "pages", tmp_path / "photos"
    pages.mkdir()
    for name, text in PAGES.items():
        (pages / name).write_text(text)
    write_objects(photos)
    for i in range(3):
        Image.open(photos / "images" / f"o{i}.png").crop((20, 20, 90, 90)).save(pages / f"Tamsin {i}.png")
    model = f"grounded-sam:detector={folders[0]},filler={folders[1]},threshold=1.0"
    plugin = Path(plugins.grounded_sam.__file__)
    question = (photos / "images" / "o4.png", "Segment the current champion.", "--provider", pages)
    given = ("--segmenter", model, "--plugin", plugin, "--known", "boat,drone", "--encoder", "handcrafted")
    limits, out = tmp_path / "limits.json", tmp_path / "m.png"
    made = ("--calibrate", photos, "--thresholds", limits, "--out", out)
    first = run("ask", *question, *given, *made)
    assert "answer     Tamsin" in first and "a red boat" in first and "\nverified " in first
    assert np.asarray(Image.open(out)).shape == (120, 120)
    again = run("ask", *question, *given, "--thresholds", limits, "--out", tmp_path / "n.png")
    assert again == first.replace("m.png", "n.png").replace("m.overlay", "n.overlay")
    assert Thresholds.load(limits).fingerprint == load_encoder("handcrafted").fingerprint
    with pytest.raises(ValueError, match="another encoder, 'handcrafted"):
        RoseFramework(None, None, load_encoder("bundled"), thresholds=Thresholds.load(limits))


def write_objects(path):
    """A folder of red squares or blue discs on grey noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:120, :120]
    (path / "images").mkdir(parents=True)
    (path / "masks").mkdir()
    (path / "classes.txt").write_text("0,ground\n1,square\n2,disc\n")
    for i in range(8):
        square, (cy, cx) = i % 2 == 0, rng.integers(45, 75, 2)
        inside = (abs(y - cy) < 24) & (abs(x - cx) < 24) if square else (y - cy) ** 2 + (x - cx) ** 2 < 700
        image = rng.integers(110, 140, (120, 120, 3), dtype=np.uint8)
        image[inside] = rng.integers(0, 25, 3) + ([200, 20, 20] if square else [20, 40, 210])
        Image.fromarray(image).save(path / "images" / f"o{i}.png")
        Image.fromarray((inside * (1 if square else 2)).astype(np.uint8)).save(path / "masks" / f"o{i}.png")
