"""Bring your own encoder: a vision transformer of timm. Copy this file, give it a name, change `dense`.

    cp notebooks/plugins/my_encoder.py mine.py
    rose-kit check mine.py
    rose-kit evaluate photos --encoder my-encoder --methods knn-clip,rns --plugin mine.py

It knows no text. One that does also has `embed_prompts`, and then needs images and names in one space.
"""

import timm
import torch

from rose_kit import register_encoder
from rose_kit.encoder import Encoder
from rose_kit.encoder.base import content_hash

MODEL = "vit_tiny_patch16_224"  # any vision transformer of timm
PRETRAINED = False  # True fetches its weights once; without them the features are random, but always the same


@register_encoder("my-encoder")
class MyEncoder(Encoder):
    """What the last block says of each patch; images of any size, as timm interpolates the positions."""

    name, pad_mode = "my-encoder", "replicate"

    def __init__(self):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = timm.create_model(MODEL, pretrained=PRETRAINED, num_classes=0, dynamic_img_size=True)
        config = timm.data.resolve_model_data_config(model)
        self.mean, self.std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
        self.model, self.dim = model.eval(), model.num_features
        self.patch_size = model.patch_embed.patch_size[0]
        self.fingerprint = f"{MODEL}, weights {content_hash(model.state_dict())}"

    def dense(self, images):
        """(B, 3, H, W) in [0, 1], H and W whole patches -> (B, h, w, D)."""
        x = (images - self.mean) / self.std
        [x] = self.model.forward_intermediates(x, 1, norm=True, intermediates_only=True)
        return x.permute(0, 2, 3, 1)  # (B, D, h, w) -> (B, h, w, D)
