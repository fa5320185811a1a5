"""SAM 1, 2.1 and 3 for real, only small: untrained models, through the real loaders and generators."""

import hashlib
import pickle
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from segment_anything import sam_model_registry

from data_scripts.scenes import draw_scene
from rose_kit import Sam, load_sam
from rose_kit.encoder import WeightsUnavailable
from rose_kit.regions import Sam2, sam
from rose_kit.regions.sam import flatten
from tests.tiny_sam import tiny_sam

LENIENT = {"points_per_side": 4, "pred_iou_thresh": -1e9, "stability_score_thresh": 0.0}
IMAGE = draw_scene(3, 96).image
MASKS = st.tuples(st.integers(0, 6), st.integers(1, 7), st.integers(1, 7)).flatmap(
    lambda shape: hnp.arrays(bool, shape)
)


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """The weights of a tiny SAM in a file, known as the architecture "tiny" with its true hash."""
    path = tmp_path / "sam_tiny.pth"
    torch.save(tiny_sam().state_dict(), path)
    monkeypatch.setitem(sam_model_registry, "tiny", partial(tiny_sam, 0))  # built with other random weights
    monkeypatch.setitem(sam.CHECKPOINTS, "tiny", (path.name, hashlib.sha256(path.read_bytes()).hexdigest()))
    monkeypatch.setattr(sam, "SOURCE", "http://127.0.0.1:9/")  # where nothing answers
    monkeypatch.setenv("ROSE_KIT_CACHE", str(tmp_path / "cache"))
    return path


@given(masks=MASKS, largest=st.booleans())
def test_the_mask_on_top_is_decided_pixel_by_pixel(masks, largest):
    areas, pick = masks.sum((1, 2)), max if largest else min
    ids = flatten(list(masks), masks.shape[1:], largest)
    for y, x in np.ndindex(ids.shape):
        here = [i for i in range(len(masks)) if masks[i, y, x]]
        assert ids[y, x] == (pick(here, key=lambda i: areas[i]) if here else -1)


@pytest.mark.parametrize("largest", [False, True])
def test_real_masks_become_regions(largest):
    maker = Sam(tiny_sam(), largest, **LENIENT)
    masks = maker.masks(IMAGE)
    cover = np.sum(masks, axis=0)  # (H, W) how many masks lie on a pixel
    assert cover.max() >= 2 and cover.min() == 0, "overlaps and gaps, else nothing is tested"
    ids = maker(IMAGE)
    np.testing.assert_array_equal(ids, maker(IMAGE / np.float32(255)))
    np.testing.assert_array_equal(ids == 0, cover == 0)  # what no mask covers is one region, the first
    on_top = flatten(masks, (96, 96), largest)
    assert np.array_equal(np.unique(ids), np.arange(len(np.unique(on_top))))
    for region in range(1, ids.max() + 1):
        inside = ids == region
        assert np.array_equal(inside, on_top == on_top[inside][0]), "a mask in sight is one region"
    none = Sam(tiny_sam(), points_per_side=2, pred_iou_thresh=1e9)
    assert none(IMAGE[:30, :77]).shape == (30, 77) and none(IMAGE[:30, :77]).max() == 0


def test_a_checkpoint_is_saved_loaded_and_gives_the_same_regions(saved):
    np.testing.assert_array_equal(Sam(saved, **LENIENT)(IMAGE), Sam(tiny_sam(), **LENIENT)(IMAGE))
    own = saved.rename(saved.with_name("own.pth"))
    with pytest.raises(ValueError, match="own.pth"):
        load_sam(own)
    weights, own = tiny_sam().state_dict(), own.rename(own.with_name("own_tiny.pth"))
    assert all(torch.equal(value, weights[key]) for key, value in load_sam(own).state_dict().items())


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


@pytest.mark.parametrize("content", [pickle.dumps(Evil(), 2), b"", b"<html>not found</html>"], ids=len)
def test_what_holds_no_tensors_is_refused(saved, content):
    saved.write_bytes(content)
    with pytest.raises(ValueError, match="sam_tiny.pth"):
        load_sam(saved)


def test_weights_are_fetched_once_and_checked(saved, tmp_path, monkeypatch):
    with pytest.raises(WeightsUnavailable, match="http://127.0.0.1:9/sam_tiny.pth"):
        load_sam("tiny")
    requests = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            requests.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(sam, "SOURCE", f"http://127.0.0.1:{server.server_port}/")
        for _ in range(2):
            load_sam("tiny")
        cached = tmp_path / "cache" / "sam" / "sam_tiny.pth"
        assert len(requests) == 1 and cached.is_file()
        for file in (cached, saved):  # a damaged copy is fetched again; what is damaged there is refused
            file.write_bytes(file.read_bytes()[:-1] + b"?")
        with pytest.raises(WeightsUnavailable, match="tiny"):
            load_sam("tiny")
        server.shutdown()
    assert len(requests) == 2


# --- SAM 2.1 and 3 ----------------------------------------------------------------------------------------

GRIDS = [[32, 32], [16, 16], [8, 8]]


def tiny_sam2(hub):
    """An untrained SAM 2 of 128 px, and its image processor."""
    stages = {"blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [8, 16, 32, 64], "hidden_size": 8}
    stages |= {"num_attention_heads_per_stage": [1, 1, 2, 2], "window_size_per_stage": [4, 4, 4, 2]}
    stages |= {"global_attention_blocks": [3], "window_positional_embedding_background_size": [4, 4]}
    vision = hub.Sam2VisionConfig(
        backbone_config=hub.Sam2HieraDetConfig(image_size=[128, 128], **stages),
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=GRIDS,
        fpn_hidden_size=32,
    )
    config = hub.Sam2Config(vision_config=vision, **prompts_and_decoder(128))
    return hub.Sam2Model(config), hub.Sam2ImageProcessor(**sizes(128))


def tiny_sam3(hub):
    """An untrained SAM 3 of 112 px, the part that is prompted with points, and its image processor."""
    widths = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    sides = {"image_size": 112, "pretrain_image_size": 112, "window_size": 4, "global_attn_indexes": [1]}
    backbone = hub.Sam3ViTConfig(**widths, **sides)
    vision = hub.Sam3VisionConfig(backbone_config=backbone, fpn_hidden_size=32, backbone_feature_sizes=GRIDS)
    config = hub.Sam3TrackerConfig(vision_config=vision, **prompts_and_decoder(112))
    return hub.Sam3TrackerModel(config), hub.Sam3ImageProcessor(**sizes(112))


def prompts_and_decoder(side):
    prompts = {"hidden_size": 32, "image_size": side, "patch_size": side // 8, "mask_input_channels": 4}
    decoder = {"hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 32}
    decoder |= {"dynamic_multimask_via_stability": False}  # else one of three masks may stand in for the one
    return {"prompt_encoder_config": prompts, "mask_decoder_config": decoder}


def sizes(side):
    return {"size": {"height": side, "width": side}, "mask_size": {"height": 32, "width": 32}}


@pytest.fixture(params=[tiny_sam2, tiny_sam3])
def later(request, tmp_path):
    """A folder with a later SAM as `save_pretrained` writes it, the model, and its processor."""
    hub = pytest.importorskip("transformers")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model, processor = request.param(hub)
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.data *= 4 if "mask_decoder" in name else 1
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    return tmp_path, model.eval(), processor


@torch.inference_mode()
def masks_of_points(model, processor, points, **options):
    """(K, H, W) bool: the model asked about one point at a time."""
    inputs, masks = processor(images=IMAGE, return_tensors="pt"), []
    for x, y in points:
        at = torch.tensor([[[[x, y]]]]) * inputs["pixel_values"].shape[-1]
        out = model(pixel_values=inputs["pixel_values"], input_points=at, **options)
        masks += processor.post_process_masks(out.pred_masks, inputs["original_sizes"])[0][0]
    return torch.stack(masks).numpy()


def test_later_models_are_asked_for_one_mask_a_point_and_become_regions(later):
    folder, model, processor = later
    maker = Sam2(folder, **LENIENT)
    masks = np.stack(maker.masks(IMAGE))  # (M, 96, 96)
    points = [((x + 0.5) / 4, (y + 0.5) / 4) for y in range(4) for x in range(4)]
    one, three = (masks_of_points(model, processor, points, multimask_output=many) for many in (False, True))
    agree = [(masks[:, None] == by_hand).mean((2, 3)).max(1) for by_hand in (one, three)]  # (M,) each
    assert agree[0].min() > 0.999 > agree[1].min() and len(three) == 3 * len(one)
    np.testing.assert_array_equal(maker(IMAGE), maker(IMAGE / np.float32(255)))
    assert (Sam2(folder, pred_iou_thresh=1e9, points_per_side=2)(IMAGE[:30, :77]) == np.zeros((30, 77))).all()
    small, large = torch.zeros(2, 96, 96, dtype=torch.bool)
    small[10:20, 10:20] = large[5:50, 5:50] = True
    maker.generator = lambda image: {"masks": [small, large]}
    # As in the release, the larger mask covers the smaller, and what none covers is one region, the first.
    np.testing.assert_array_equal(maker(IMAGE), large)
    maker.largest_on_top = False
    assert maker(IMAGE)[15, 15] != maker(IMAGE)[40, 40]


@torch.inference_mode()
def test_what_is_no_later_model_is_refused(later, tmp_path, monkeypatch):
    folder, model, _ = later
    monkeypatch.setattr(
        "huggingface_hub.constants.HF_HUB_OFFLINE", True
    )  # nothing is fetched, wherever it runs
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")  # a pickle is not read, whatever it holds
    for checkpoint in (folder, tmp_path / "nowhere", "facebook/sam2.1-hiera-tiny"):
        with pytest.raises(WeightsUnavailable, match=str(checkpoint)) as caught:
            Sam2(checkpoint)
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "transformers", None)  # not installed
    with pytest.raises(ValueError, match=r"rose_kit\[transformers\]"):
        Sam2(folder)
