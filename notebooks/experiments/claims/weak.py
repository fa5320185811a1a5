"""Weak encoders: the bundled one with its weights perturbed, in part or in whole."""

from __future__ import annotations

import torch

from rose_kit.encoder import OpenClipEncoder, load_encoder

WEAK = {"noisy": 0.6, "untrained": None}  # name -> noise, as a share of each tensor's own deviation


def perturb_weights(noise: float | None, seed: int = 0) -> OpenClipEncoder:
    """The bundled encoder with noise on its weights.

    Args:
        noise: deviation of the noise, as a share of each weight tensor's own; None: nothing is left of
            what was learned, each tensor is drawn anew with its mean and deviation.
        seed: of the noise.
    """
    encoder = load_encoder("bundled")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in encoder.model.parameters():
            if weight.ndim < 2:
                continue  # gains and biases
            drawn = torch.randn(weight.shape, generator=generator) * weight.std()
            if noise is None:
                weight.copy_(weight.mean() + drawn)
            else:
                weight.add_(drawn * noise)
    return encoder
