"""Grounding DINO and SAM, tiny and untrained: every step is the real one, the masks mean nothing."""

import numpy as np
import pytest
import torch

from plugins.grounded_sam import GroundedSam

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
    (reader, finder), prompts = model.find, []

    def spy(images, text, **options):
        prompts.append(text)
        return reader(images=images, text=text, **options)

    spy.post_process_grounded_object_detection = reader.post_process_grounded_object_detection
    monkeypatch.setattr(model, "find", (spy, finder))
    found = model.segment(image, "Segment the red boat on the water, please. It is a drone.")
    assert prompts == ["red boat . drone ."]
    assert 0 <= found.confidence <= 1
    assert found.mask.shape == (48, 64) and found.mask.dtype == bool
    model.threshold = 0.0  # all boxes
    every = model.segment(image, "Segment the red boat on the water, please. It is a drone.").mask
    assert (every | found.mask == every).all()
