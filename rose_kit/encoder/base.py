"""Perception of an image window by window: what every encoder offers, and the part that encoders share."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from rose_kit.data import atomic_write, cache_folder, image_array
from rose_kit.types import FeatureMap, check_positive, to_tensor

Template = str | Callable[[str], str]  # "a photo of a {}.", or a function of the class name


def find_device(name: str | torch.device = "auto") -> torch.device:
    """A device by name; "auto" is the first GPU, of NVIDIA or else of Apple, or else the CPU.

    Raises:
        ValueError: this machine has no such device; lists those it has.
    """
    cards = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    apple = ["mps"] * torch.backends.mps.is_available()
    known = [*(["cuda"] if cards else []), *apple, "cpu", *cards]
    if name != "auto" and str(name) not in known:
        raise ValueError(f"this machine has no device {str(name)!r}; it has: auto, {', '.join(known)}")
    return torch.device(known[0] if name == "auto" else name)


@dataclass(frozen=True)
class Windows:
    """How an image is scaled and cut before it is encoded (RNS, implementation details).

    The released RNS settings for OpenCLIP are `Windows(448, (448, 224), 112)` for support images
    and `Windows(448, (448,), 224)` for the test image.

    Args:
        short_side: the shorter side is scaled to this many pixels; None keeps the image's size.
        crops: sides of the square windows in pixels. Each gives one feature map, and these are averaged;
            () encodes the whole image at once.
        stride: pixels between windows; needed with `crops`, at most the smallest of them.
        max_long_side: the longer side never exceeds this many pixels, whatever `short_side` says.

    Raises:
        ValueError: a size is not positive, or the stride would leave gaps.
    """

    short_side: int | None = None
    crops: tuple[int, ...] = ()
    stride: int | None = None
    max_long_side: int = 2048

    def __post_init__(self) -> None:
        object.__setattr__(self, "crops", tuple(self.crops))  # JSON and YAML give a list
        smallest = min(self.crops, default=None)
        check_positive(**vars(self) | {"crops": smallest})
        if self.crops and (self.stride is None or self.stride > smallest):
            raise ValueError(f"stride must be at most the smallest crop {smallest}, got {self.stride}")

    def scaled_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(H', W') to which an image of (H, W) is scaled, rounded half up.

        >>> Windows(short_side=448).scaled_size((360, 480))
        (448, 597)
        """
        scale = 1.0 if self.short_side is None else self.short_side / min(size)
        scale = min(scale, self.max_long_side / max(size))
        return tuple(max(1, int(side * scale + 0.5)) for side in size)


class NoTextTower(ValueError):
    """The encoder knows images only. Callers that can do without text catch this error."""


class WeightsUnavailable(ValueError):
    """The encoder is known, but its weights are missing, cannot be read, or could not be fetched."""


class Encoder:
    """Image -> dense features; class names -> text features of the same width.

    A subclass defines `dense` and, if it has a text tower, `embed_prompts`; resizing, padding, windows and
    prompt templates come from here. Wherever the kit takes an encoder, an object that is no subclass will do
    too, if it has `encode_image`, `encode_text` and the first four attributes.

    Attributes:
        name: the encoder's name in messages; the one under which `load_encoder` knows it, if it does.
        dim: D, the width of a feature.
        patch_size: side of a patch in pixels.
        fingerprint: names encoder, weights and dense variant; features of two encoders may be
            compared only if their fingerprints are equal.
        preferred_windows: what its makers recommend to pass to `encode_image`; None: the whole image.
        device: where `dense` runs and features stay; `to` changes it.
        batch_size: windows that go through `dense` at once.
        pad_mode: "constant", which is zeros, as RNS; or another mode of `torch.nn.functional.pad`.
        templates: prompts for class names, "a photo of a {}." or functions of the name.
    """

    name: str
    dim: int
    patch_size: int
    fingerprint: str
    preferred_windows: Windows | None = None
    device: torch.device = torch.device("cpu")
    batch_size: int = 16
    pad_mode: str = "constant"
    templates: Sequence[Template] = ("{}",)

    def to(self, device: str | torch.device) -> Self:
        """Move the encoder, with the modules and tensors that are its attributes, to a device."""
        self.device = find_device(device)
        for name, value in vars(self).items():
            if isinstance(value, nn.Module | Tensor):
                setattr(self, name, value.to(self.device))
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.dim}-d, patches of {self.patch_size} px)"

    def dense(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1], H and W whole patches -> (B, h, w, D), not yet normalised."""
        raise NotImplementedError

    def embed_prompts(self, prompts: list[str]) -> Tensor:
        """(B,) prompts -> (B, D), not yet normalised.

        Raises:
            NoTextTower: (a ValueError) always, unless a subclass has a text tower.
        """
        raise NoTextTower(f"encoder {self.name!r} has no text tower, so it cannot encode {prompts[0]!r}")

    @torch.inference_mode()
    def encode_text(self, names: Sequence[str]) -> NDArray[np.float32]:
        """One feature per class name, averaged over the prompt templates (CLIP, section 3.1.4).

        Features of encoders that define `text_keys` are computed once and kept on disk, see `cache_folder`.

        Args:
            names: (C,) at least one.

        Returns:
            (C, D) float32, unit norm: each prompt's embedding normalised, averaged, normalised.

        Raises:
            NoTextTower: (a ValueError) the encoder knows images only.
            ValueError: no name or no template, or `names` is one bare string.
        """
        if isinstance(names, str) or not len(names) or not len(self.templates):
            raise ValueError(f"need lists of names and of templates, got {names!r} and {self.templates!r}")
        prompts = [
            [t.format(name) if isinstance(t, str) else t(name) for t in self.templates] for name in names
        ]
        asked = zip(self.text_keys(prompts), prompts, strict=True)
        return np.stack([kept(key, partial(self._embed_name, group)) for key, group in asked])

    def text_keys(self, prompts: list[list[str]]) -> list[str]:
        """For the prompts of each name, all that its feature depends on, hashed; "": not kept on disk."""
        return [""] * len(prompts)

    def _embed_name(self, prompts: list[str]) -> NDArray[np.float32]:
        """(templates,) prompts -> (D,): alone, so that it never depends on what else is asked or kept."""
        each = F.normalize(self.embed_prompts(prompts).float(), dim=-1)  # (templates, D)
        return F.normalize(each.mean(0), dim=-1).cpu().numpy()

    def encode_image(self, image: Any, windows: Windows | None = None) -> FeatureMap:
        """Encode one image.

        Args:
            image: (H, W, 3) uint8, or float in [0, 1] (not quantised), or what `read_image` reads: a file
                or a PIL image.
            windows: how to scale and cut it; None encodes the image whole, at its own size.

        Raises:
            ValueError: not such an image, or the windows do not fit the patch size.
        """
        return self.encode_images([image], windows)[0]

    @torch.no_grad()
    def encode_images(self, images: Sequence[Any], windows: Windows | None = None) -> list[FeatureMap]:
        """Encode several images, those of one size together; see `encode_image`."""
        originals = [image_tensor(image, self.device) for image in images]  # (3, H, W) each
        scaled = [x if windows is None else resize(x, windows.scaled_size(x.shape[1:])) for x in originals]
        padded = [pad(x, self.patch_size, self.pad_mode) for x in scaled]
        maps = {}  # position of an image -> its features
        for shape in {x.shape for x in padded}:
            same_size = [i for i, x in enumerate(padded) if x.shape == shape]
            batch = torch.stack([padded[i] for i in same_size])  # (B, 3, H, W)
            features = self.slide(batch, windows).float().to(self.device)  # (B, h, w, D)
            for i, values in zip(same_size, features, strict=True):
                encoded_size, image_size = tuple(scaled[i].shape[1:]), tuple(originals[i].shape[1:])
                maps[i] = FeatureMap(values, self.patch_size, encoded_size, image_size)
        return [maps[i] for i in range(len(images))]

    def slide(self, images: Tensor, windows: Windows | None) -> Tensor:
        """Encode images of one size window by window.

        Args:
            images: (B, 3, H, W) in [0, 1], H and W whole patches.
            windows: None or without crops: each image is one window.

        Returns:
            (B, h, w, D) unit-norm features: the mean over crops of `window_mean`, normalised.

        Raises:
            ValueError: a crop or the stride is no multiple of the patch size.
        """
        if windows is None or not windows.crops:
            return self._unit_patches(images)
        if any(size % self.patch_size for size in (windows.stride, *windows.crops)):
            sizes = f"crops {windows.crops} and stride {windows.stride}"
            raise ValueError(f"{sizes} must be multiples of the encoder's patch size {self.patch_size}")
        means = [self.window_mean(images, crop, windows.stride) for crop in windows.crops]
        return F.normalize(sum(means), dim=-1)  # the sum has the direction of the mean

    def window_mean(self, images: Tensor, crop: int, stride: int) -> Tensor:
        """Unit-norm patches of every window, averaged where windows overlap; not normalised again.

        As in the RNS release: a patch on which windows disagree is shorter, so it counts less when the
        maps of several crops are averaged.

        Args:
            images: (B, 3, H, W), as for `slide`.
            crop: side of the windows in pixels.
            stride: pixels between windows.

        Returns:
            (B, h, w, D).
        """
        (count, _, height, width), p = images.shape, self.patch_size
        corners = [(y, x) for y in starts(height, crop, stride) for x in starts(width, crop, stride)]
        # A window larger than the image is the image, as slices end with it.
        cuts = torch.cat([images[:, :, y : y + crop, x : x + crop] for y, x in corners])
        features = self._unit_patches(cuts)  # (windows * B, 3, c, c) -> (windows * B, c / p, c / p, D)
        total = features.new_zeros(count, height // p, width // p, features.shape[-1])
        overlap = features.new_zeros(*total.shape[1:3], 1)  # (h, w, 1) windows on each patch
        for (y, x), window in zip(corners, features.split(count), strict=True):
            rows, columns = slice(y // p, (y + crop) // p), slice(x // p, (x + crop) // p)
            total[:, rows, columns] += window
            overlap[rows, columns] += 1
        return total / overlap

    def _unit_patches(self, images: Tensor) -> Tensor:
        return F.normalize(torch.cat([self.dense(chunk) for chunk in images.split(self.batch_size)]), dim=-1)


def kept(key: str, compute: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
    """The text feature that is kept on disk under a key, or what `compute` gives, which is kept from now on.

    A file that is broken is written anew; where nothing can be written, nothing is kept.

    Args:
        key: hash of all that the feature depends on; "": it is not kept.
        compute: gives the (D,) feature of unit norm.
    """
    if not key:
        return compute()
    path = cache_folder() / "text" / key[:2] / f"{key}.npy"
    with suppress(OSError, ValueError, EOFError):
        feature = np.load(path, allow_pickle=False)
        if feature.dtype == np.float32 and feature.ndim == 1 and abs(np.linalg.norm(feature) - 1) < 1e-4:
            return feature
    feature = compute()
    with suppress(OSError), atomic_write(path) as beside:
        np.save(beside, feature)
    return feature


def starts(side: int, crop: int, stride: int) -> list[int]:
    """Where windows start along one side; the last is shifted back to fit.

    >>> starts(side=144, crop=64, stride=48)
    [0, 48, 80]
    """
    return [*range(0, side - crop, stride), max(side - crop, 0)]


def image_tensor(image: Any, device: str | torch.device = "cpu") -> Tensor:
    """An image as users hold it -> (3, H, W) float32 in [0, 1] on a device; floats are not quantised.

    Args:
        image: (H, W, 3) uint8, (H, W, 3) float in [0, 1], or what `read_image` reads: a file, a PIL image.

    Raises:
        ValueError: anything else.
    """
    pixels = np.asarray(image_array(image))
    shape, dtype = pixels.shape, pixels.dtype
    if len(shape) != 3 or shape[2] != 3 or not pixels.size or not (dtype == np.uint8 or dtype.kind == "f"):
        expected = "an (H, W, 3) array, uint8 or float in [0, 1], a file or a PIL image"
        raise ValueError(f"an image must be {expected}, got {type(image).__name__} of {shape} {dtype}")
    if dtype == np.uint8:  # it takes a quarter of the way as bytes
        return (to_tensor(pixels, device).permute(2, 0, 1) / 255).contiguous()
    low, high = pixels.min(), pixels.max()
    if not (low >= 0 and high <= 1):  # also refuses NaN
        raise ValueError(f"a float image must lie in [0, 1], got values from {low:g} to {high:g}")
    return to_tensor(np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32), device)


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(3, H, W) -> (3, H', W'), bilinear without anti-aliasing, as the RNS release (OpenCV) does."""
    if tuple(image.shape[1:]) == tuple(size):
        return image
    return F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0]


def pad(image: Tensor, multiple: int, mode: str = "constant") -> Tensor:
    """Pad the bottom and right of (3, H, W) to whole patches, before any normalisation."""
    return F.pad(image, (0, -image.shape[2] % multiple, 0, -image.shape[1] % multiple), mode=mode)


def preferred_windows(encoder: Encoder) -> Windows | None:
    """The windows that an encoder's makers recommend, to pass on to `encode_image`; None: the whole image."""
    return getattr(encoder, "preferred_windows", None)


def content_hash(state: dict[str, Tensor]) -> str:
    """Twelve hexadecimal digits of the SHA-256 of named tensors: equal weights, equal hash."""
    digest = hashlib.sha256()
    for key in sorted(state):
        value = state[key].detach().cpu().contiguous()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:12]
