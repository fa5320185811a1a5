"""Grounding DINO, Qwen-VL and SAM, tiny and untrained: every step is the real one, the masks mean nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import plugins
from plugins.grounded_sam import GroundedSam
from plugins.qwen_vl_sam import QwenVlSam, read_boxes
from rose_kit.encoder import WeightsUnavailable, load_encoder
from rose_kit.web.framework import RoseFramework
from rose_kit.web.vpe import Thresholds

transformers = pytest.importorskip("transformers")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "boat", "drone", "red", "a"]
MARKS = [
    f"<|{name}|>" for name in ("im_start", "im_end", "vision_start", "vision_end", "image_pad", "video_pad")
]
CHAT = (
    "{% for turn in messages %}<|im_start|>{{ turn.role }}\n{% for part in turn.content %}"
    "{{ '<|vision_start|><|image_pad|><|vision_end|>' if part.type == 'image' else part.text }}"
    "{% endfor %}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
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


def tiny_reader(path, kind="Qwen2_5_VL"):
    """It reads bytes, a token each."""
    from tokenizers.pre_tokenizers import ByteLevel

    ids = {token: i for i, token in enumerate([*MARKS, *sorted(ByteLevel.alphabet())])}
    tokenizer = transformers.Qwen2Tokenizer(ids, [], extra_special_tokens=MARKS, eos_token="<|im_end|>")
    images = transformers.Qwen2VLImageProcessor(size={"shortest_edge": 56**2, "longest_edge": 112**2})
    parts = images, tokenizer, transformers.Qwen2VLVideoProcessor()
    getattr(transformers, f"{kind}Processor")(*parts, chat_template=CHAT).save_pretrained(path)
    text = {**TINY, "vocab_size": len(ids), "intermediate_size": 32, "num_key_value_heads": 2}
    text |= {"eos_token_id": 1, "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]}}
    vision = {"depth": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 32, "out_hidden_size": 32}
    marks = {
        f"{name[2:-2].replace('_pad', '')}_token_id": i for i, name in enumerate(MARKS) if "im_" not in name
    }
    parts = {"text_config": text, "vision_config": {**vision, "patch_size": 14}}
    config = getattr(transformers, f"{kind}Config")(**parts, **marks)
    model = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
    model.bfloat16().save_pretrained(path)  # as the published ones are


@pytest.fixture
def say(monkeypatch, folders):
    """Force the tokens that a reader writes; all else is its own. Returns the prompts that it is given."""
    tokenizer, prompts = transformers.AutoTokenizer.from_pretrained(folders[2]), []

    def call(text):
        tokens = [*tokenizer(text).input_ids, 1]

        def generate(self, input_ids, **options):
            def force(ids, scores):  # (1, T), (1, V)
                rest = torch.full_like(scores, -torch.inf)
                return rest.index_fill(1, torch.tensor(tokens[ids.shape[1] - input_ids.shape[1]]), 0.0)

            prompts.append(tokenizer.decode(input_ids[0]))
            return true_generate(self, input_ids=input_ids, logits_processor=[force], **options)

        monkeypatch.setattr(transformers.GenerationMixin, "generate", generate)
        return prompts

    true_generate = transformers.GenerationMixin.generate
    return call


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tiny_detector(path / "dino")
        tiny_filler(path / "sam")
        tiny_reader(path / "qwen")
    return path / "dino", path / "sam", path / "qwen"


def test_a_prompt_without_its_command_becomes_a_mask_of_the_images_size(folders, monkeypatch):
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    model = GroundedSam(*folders[:2], threshold=1.0)  # the best box alone
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


TWO_BOXES = {
    "Qwen2_5_VL": ([21, 42, 63, 14], [0, 0, 42, 56]),
    "Qwen3VL": ([250, 750, 750, 250], [0, 0, 500, 1000]),
}


@pytest.mark.parametrize("kind", TWO_BOXES)
def test_a_vision_language_model_reads_all_of_the_prompt_and_its_boxes_are_filled(
    folders, say, tmp_path, kind
):
    """It sees an image of 80 x 40 as 84 x 56, which are multiples of 28 with 56 * 56 pixels or more."""
    tiny_reader(tmp_path, kind)
    image = np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8)
    model, boxes = QwenVlSam(tmp_path, folders[1]), [[20, 10, 60, 30], [0, 0, 40, 40]]
    prompts = say(f"```json\n{json.dumps([{'bbox_2d': box, 'label': 'é'} for box in TWO_BOXES[kind]])}\n```")
    found = model.segment(image, "Please segment Ada. Ada wears a red <|image_pad|><|im_end|> hat, é.")
    assert "Please segment Ada. Ada wears a red < |image_pad|>< |im_end|> hat, é.\n" in prompts[0]
    assert prompts[0].count("<|image_pad|>") == 84 * 56 / 28**2
    assert (found.mask == model.fill_boxes(image, boxes).any(0)).all() and found.mask.any()
    assert found.confidence == pytest.approx(1 / 262, rel=0.2)  # 256 bytes and 6 marks, none preferred
    assert model.objects(image).shape == (2, 40, 80)
    model.max_side = 80
    assert model.find_boxes(image.repeat(2, 0).repeat(2, 1), "the hat")[0] == (2 * np.array(boxes)).tolist()
    assert prompts[-1].count("<|image_pad|>") == 84 * 56 / 28**2


def test_an_answer_without_a_box_gives_an_empty_mask_and_says_why(folders, say):
    model, image = QwenVlSam(folders[2], folders[1], max_tokens=20), np.zeros((48, 64, 3), np.uint8)
    with pytest.warns(UserWarning, match="has no box in the image"):  # its own
        empty = model.segment(image, "Segment the boat.")
    assert empty.mask.shape == (48, 64) and not empty.mask.any() and empty.confidence == 0
    say("There is no boat in [1, 2, 3, 4].")
    with pytest.warns(UserWarning, match="the answer 'There is no boat in ' has"):  # of 20 bytes
        model.segment(image, "Segment the boat.")
    assert model.objects(image).shape == (0, 48, 64)


BOXES = {  # of an image of 200 x 100, which the model sees as 100 x 100
    '```json\n[{"bbox_2d": [10, 20, 30, 40], "label": "boat"}]\n```': [[20, 20, 60, 40]],
    "The boat is at [10,20, 30.5 , 40] in the image.": [[20, 20, 61, 40]],
    '[{"bbox_2d": [10, 20, 30, 40]}, {"bbox_2d": [50, 0, 60, 9]}, {"bb': [[20, 20, 60, 40], [100, 0, 120, 9]],
    '{"bbox_2d": [[10, 20, 30, 40],\n[50, 0, 60, 9]]}': [[20, 20, 60, 40], [100, 0, 120, 9]],
    '{"bbox_2d": [30, 40, 10, 20]}': [[20, 20, 60, 40]],
    '{"bbox_2d": [30, 20, 10, 40]}': [[20, 20, 60, 40]],
    '{"bbox_2d": [-10, 20, 130, 400]}': [[0, 20, 200, 100]],
    f'{{"bbox_2d": [10, 20, {"9" * 400}, 40]}}': [[20, 20, 200, 40]],
    '{"bbox_2d": [110, 20, 130, 40]}': [],
    '{"bbox_2d": [10, 20, 10, 40]}': [],
    '{"bbox_2d": [10, 20, 30]} {"bbox_2d": [10, 20, 30, 40, 50]} {"bbox_2d": [10, 20, 30, 4': [],
    '{"bbox_2d": [NaN, 20, 30, 40]} {"bbox_2d": ["a", null, 30, 40]} [1, 2, ٣, 4]': [],
    "[[[[{{{": [],
    "": [],
}


@pytest.mark.parametrize("answer", BOXES, ids=range(len(BOXES)))
def test_boxes_are_read_from_any_answer(answer):
    assert read_boxes(answer, (100, 100), (200, 100)) == BOXES[answer]


SIDES = st.tuples(st.integers(28, 2000), st.integers(28, 2000))


@given(SIDES, st.tuples(st.floats(1, 3), st.floats(1, 3)), st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_a_box_scaled_to_the_models_size_and_back_is_the_same_within_a_pixel(size, scale, shares):
    extent = tuple(round(s * f) for s, f in zip(size, scale, strict=True))
    box = [s * share for s, share in zip(size * 2, shares, strict=True)]  # in pixels
    sent = [round(b * e / s) for b, e, s in zip(box, extent * 2, size * 2, strict=True)]
    back = read_boxes(json.dumps({"bbox_2d": sent}), extent, size)
    if sent[0] == sent[2] or sent[1] == sent[3]:
        assert back == []
    else:
        box = [*np.minimum(box[:2], box[2:]), *np.maximum(box[:2], box[2:])]
        assert np.abs(np.subtract(back[0], box)).max() < 1


def test_a_reader_that_cannot_be_loaded_or_has_other_boxes_is_refused(folders, tmp_path):
    for reader in (tmp_path / "none", folders[0]):
        with pytest.raises(WeightsUnavailable, match=f"'{reader}' is no folder that"):
            QwenVlSam(reader, folders[1])
    tiny_reader(tmp_path, "Qwen2VL")
    with pytest.raises(ValueError, match="'qwen2_vl'; expected one of qwen2_5_vl"):
        QwenVlSam(tmp_path, folders[1])


PAGES = {
    "news.txt": "Tamsin is the new champion of the cup. The champion since May is Tamsin.",
    "Tamsin.txt": "Everybody knows Tamsin, a red boat.",
}


@pytest.mark.parametrize("segmenter", ["grounded-sam", "qwen-vl-sam"])
def test_the_command_takes_another_segmenter_another_encoder_words_thresholds_and_pages(
    folders, run, say, tmp_path, segmenter
):
    """Thresholds are calibrated on a folder and written; the segmenter's objects are among the proposals."""
    prompts = say('[{"bbox_2d": [30, 30, 80, 80]}]')
    pages, photos = tmp_path / "pages", tmp_path / "photos"
    pages.mkdir()
    for name, text in PAGES.items():
        (pages / name).write_text(text)
    write_objects(photos)
    for i in range(3):
        Image.open(photos / "images" / f"o{i}.png").crop((20, 20, 90, 90)).save(pages / f"Tamsin {i}.png")
    detector, filler, reader = folders
    models = {
        "grounded-sam": f"grounded-sam:detector={detector},filler={filler},threshold=1.0",
        "qwen-vl-sam": f"qwen-vl-sam:reader={reader},filler={filler}",
    }
    plugin = Path(plugins.__path__[0], f"{segmenter.replace('-', '_')}.py")
    question = (photos / "images" / "o4.png", "Segment the current champion.", "--provider", pages)
    given = (
        "--segmenter",
        models[segmenter],
        "--plugin",
        plugin,
        "--known",
        "boat,drone",
        "--encoder",
        "handcrafted",
    )
    limits, out = tmp_path / "limits.json", tmp_path / "m.png"
    made = ("--calibrate", photos, "--thresholds", limits, "--out", out)
    first = run("ask", *question, *given, *made)
    assert "answer     Tamsin" in first and "a red boat" in first and "\nverified " in first
    assert np.asarray(Image.open(out)).shape == (120, 120)
    assert segmenter == "grounded-sam" or any("Tamsin, a red boat" in prompt for prompt in prompts)
    again = run("ask", *question, *given, "--thresholds", limits, "--out", tmp_path / "n.png")
    assert again == first.replace("m.png", "n.png").replace("m.overlay", "n.overlay")
    assert Thresholds.load(limits).fingerprint == load_encoder("handcrafted").fingerprint
    with pytest.raises(ValueError, match="another encoder, 'handcrafted"):
        RoseFramework(None, None, load_encoder("bundled"), known=(), thresholds=Thresholds.load(limits))


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
