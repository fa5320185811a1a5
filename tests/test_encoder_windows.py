"""Windows: batched sliding against loops, sizes, padding, and refusals."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from rose_kit.encoder import Encoder, Windows
from rose_kit.encoder.base import pad, resize

PATCH = 4


class ContextEncoder(Encoder):
    """A stand-in whose patches depend on the whole window."""

    patch_size = PATCH

    def dense(self, images):  # (B, 3, H, W) -> (B, h, w, 4)
        patches = F.avg_pool2d(images, PATCH).permute(0, 2, 3, 1)  # (B, h, w, 3)
        context = images.mean((1, 2, 3))[:, None, None, None].expand(*patches.shape[:3], 1)
        return torch.cat([patches - 0.5, context], -1)


def slow_slide(dense, image, crops, stride):
    """One window at a time, one patch at a time: (3, H, W) -> (h, w, D)."""
    _, height, width = image.shape
    maps = []
    for crop in crops:
        total, count = {}, {}
        tall, wide = min(crop, height), min(crop, width)
        y = 0
        while True:
            y = min(y, height - tall)
            x = 0
            while True:
                x = min(x, width - wide)
                window = dense(image[None, :, y : y + tall, x : x + wide])[0]
                for r in range(tall // PATCH):
                    for c in range(wide // PATCH):
                        at = (y // PATCH + r, x // PATCH + c)
                        total[at] = total.get(at, 0) + window[r, c] / window[r, c].norm()
                        count[at] = count.get(at, 0) + 1
                if x + wide >= width:
                    break
                x += stride
            if y + tall >= height:
                break
            y += stride
        maps.append({at: total[at] / count[at] for at in total})
    out = torch.zeros(height // PATCH, width // PATCH, 4)
    for at in maps[0]:
        mean = sum(m[at] for m in maps) / len(maps)
        out[at] = mean / mean.norm()
    return out


@settings(max_examples=25, deadline=None)
@given(
    h=st.integers(1, 9),
    w=st.integers(1, 9),
    crops=st.lists(st.sampled_from([8, 12, 16]), min_size=1, max_size=2),
    stride=st.sampled_from([4, 8]),
    batch_size=st.integers(1, 5),
)
def test_batched_windows_equal_loops(h, w, crops, stride, batch_size):
    images = torch.rand(2, 3, h * PATCH, w * PATCH, generator=torch.Generator().manual_seed(h * 10 + w))
    encoder = ContextEncoder()
    encoder.batch_size = batch_size
    got = encoder.slide(images, Windows(None, tuple(crops), stride))
    for image, values in zip(images, got, strict=True):
        torch.testing.assert_close(values, slow_slide(encoder.dense, image, crops, stride), atol=1e-5, rtol=0)


def test_resizing_samples_pixel_centres_and_padding_adds_zeros():
    ramp = torch.arange(4.0).repeat(3, 2, 1)  # (3, 2, 4): 0 1 2 3 along each row
    torch.testing.assert_close(
        resize(ramp, (2, 8))[0, 0], torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])
    )
    padded = pad(torch.ones(3, 5, 8), 4)  # with zeros, below and right
    assert padded.shape == (3, 8, 8) and padded[:, 5:].sum() == 0 and padded[:, :5].min() == 1


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ({"short_side": 0}, "got 0"),
        ({"crops": (32, -1), "stride": 16}, "got -1"),
        ({"crops": (32,)}, "got None"),
        ({"crops": (64, 32), "stride": 48}, "got 48"),
        ({"crops": (10,), "stride": 4}, rf"10,\).* {PATCH}"),  # no whole number of patches
        ({"crops": (8,), "stride": 6}, f"6 .* {PATCH}"),
    ],
)
def test_bad_windows_are_refused(arguments, value):
    with pytest.raises(ValueError, match=value):
        ContextEncoder().slide(torch.rand(1, 3, 16, 16), Windows(**arguments))
