"""Frozen encoders, and the one of photographs: the packaged network as timm runs it, and no other weights."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from skimage import data

from rose_kit.encoder import WeightsUnavailable, load_encoder, photos


@pytest.mark.parametrize(
    ("name", "side", "fingerprint", "dim", "expected"),
    [
        (
            "photos",
            64,
            "photos 1, patch 16, weights 9656183eaeaf",
            680,
            [0.00041, 0.17548, -0.11954, 0.00835],
        ),
        ("handcrafted", 32, "handcrafted 1, 512-d, patch 8", 512, [0.05242, -0.05932, -0.05886, 0.06009]),
    ],
)
def test_constants_are_frozen(name, side, fingerprint, dim, expected):
    """A change of any constant, weight or random stream must raise the version in the fingerprint."""
    encoder = load_encoder(name)
    gradient = np.linspace(0, 1, side * side * 3).reshape(side, side, 3)
    assert (encoder.fingerprint, encoder.dim) == (fingerprint, dim)
    np.testing.assert_allclose(encoder.encode_image(gradient).values[1, 2, :4], expected, atol=1e-4)


def test_the_network_names_a_cat_and_its_stages_are_those_of_timm():
    encoder = load_encoder("photos")
    image = torch.from_numpy(data.chelsea()[:288, :448] / 255).permute(2, 0, 1)[None].float()  # whole patches
    with torch.inference_mode():
        assert encoder.model(2 * image - 1).argmax().item() == 285  # Egyptian cat
        names = {"features_only": True, "out_indices": (3, 4)}  # 120 channels at stride 16, 352 at stride 32
        stages = timm.create_model("tf_efficientnet_lite2", **names)
        stages.load_state_dict(encoder.model.state_dict(), strict=False)
        fine, coarse = stages.eval()(2 * image - 1)
        dense = encoder.dense(image).permute(0, 3, 1, 2)  # (1, 680, 18, 28)
    raw = dense * encoder._scale + encoder._mean
    torch.testing.assert_close(raw[:, :120], fine, rtol=0, atol=1e-3)
    smaller = torch.nn.functional.avg_pool2d(
        raw[:, -352:], 2
    )  # of an interpolation: near what it was made of
    assert torch.corrcoef(torch.stack([smaller.flatten(), coarse.flatten()]))[0, 1] > 0.9


def test_the_statistics_are_those_of_photographs():
    """What batch normalisation says of the training images holds for others, within the scatter of three."""
    encoder, values = load_encoder("photos"), []
    for image in (data.chelsea(), data.coffee(), data.astronaut()):
        values.append(encoder.dense(torch.from_numpy(image[:288, :448] / 255).permute(2, 0, 1)[None].float()))
    for stage in torch.cat([v.flatten(0, 2) for v in values]).split([120, 208, 352], dim=1):  # (N, C)
        deviations = stage.std(0) * stage.shape[1] ** 0.5
        assert (
            0.7 < deviations.median() < 1.1 and (stage.mean(0) * stage.shape[1] ** 0.5).abs().median() < 0.3
        )


@pytest.mark.parametrize(
    ("change", "said"), [(lambda b: b[:-1], "checksum"), (lambda b: b"", "checksum"), (None, "No")]
)
def test_other_weights_and_a_missing_package_are_refused(tmp_path, monkeypatch, change, said):
    if change is None:
        monkeypatch.setitem(sys.modules, photos.PACKAGE, None)  # as if it were not installed
    else:
        own = Path(importlib.import_module(photos.PACKAGE).__file__).parent / photos.WEIGHTS
        (tmp_path / photos.WEIGHTS).parent.mkdir()
        (tmp_path / photos.WEIGHTS).write_bytes(change(own.read_bytes()))
        other = SimpleNamespace(__file__=str(tmp_path / "__init__.py"))
        monkeypatch.setitem(sys.modules, photos.PACKAGE, other)
    with pytest.raises(WeightsUnavailable, match=f"'photos'.*{photos.PACKAGE}==0.1.0.*{said}"):
        load_encoder("photos")
