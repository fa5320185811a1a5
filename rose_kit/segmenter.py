"""The whole pipeline in one object: image -> features -> retrieval -> classes of patches -> pixels."""

import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import compress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from rose_kit.adapter import RNS
from rose_kit.data import eight_bits, image_array
from rose_kit.encoder import Encoder, NoTextTower, Windows
from rose_kit.fusion import Method
from rose_kit.fusion.method import predict_all
from rose_kit.fusion.zero_shot import softmax
from rose_kit.memory import SupportMemory
from rose_kit.pooling import pool_masks_on_device, unique_inverse
from rose_kit.regions import Regions, make_regions
from rose_kit.types import (
    FeatureMap,
    Query,
    Segmentation,
    Vocabulary,
    class_texts,
    numpy_door,
    to_array,
    to_tensor,
)


@dataclass(frozen=True)
class EncodedImage:
    """An image after the expensive step; `Segmenter.segment` takes it as often as needed."""

    feature_map: FeatureMap
    query: Query
    image: Any = field(default=None, repr=False, compare=False)  # for those who look at the answer


class Segmenter:
    """Segments images with the help of a memory, and lists the evidence for each prediction.

    Args:
        encoder: makes the features; the memory's features must come from the same one.
        memory: the prototypes of the support images.
        method: anything with `predict`, by default `RNS()`; if it has something to fit, fit it first.
        regions: image -> (H, W) integer map of region ids, or a name for `make_regions`; None labels patches.
        windows: how the encoder scales and cuts the image; the support images may have had other windows.
            None: the whole image at its own size. `preferred_windows(encoder)` are those of its makers.

    Raises:
        ValueError: the memory was made with another encoder.
    """

    def __init__(
        self,
        encoder: Encoder,
        memory: SupportMemory,
        method: Method | None = None,
        regions: Regions | str | None = None,
        windows: Windows | None = None,
    ) -> None:
        memory.check_encoder(encoder)
        self.encoder, self.memory, self.windows = encoder, memory, windows
        self.regions = make_regions(regions) if isinstance(regions, str) else regions
        self.method = RNS() if method is None else method

    def encode(self, image: Any) -> EncodedImage:
        """The expensive step: encode once, then segment with many vocabularies or methods.

        Args:
            image: (H, W, 3) uint8, or float in [0, 1]; a tensor of that or of (3, H, W); or what `read_image`
                reads: a file or a PIL image.
        """
        return encode_queries([image], self.encoder, self.windows, self.regions)[0]

    def segment(self, image: Any, vocabulary: Vocabulary | Sequence[str]) -> Segmentation:
        """Label each pixel with a class of the vocabulary.

        Args:
            image: as for `encode`, or what `encode` returned.
            vocabulary: the classes, or their names: "background|wall" is one class with two texts. With
                an encoder without a text tower, a class needs a prototype to be answered at all.

        Returns:
            labels at the image's own size, scores, and the evidence.

        Warns:
            UserWarning: names classes that have neither text nor a prototype.

        Raises:
            ValueError: no class of the vocabulary has text or a prototype in the memory.
        """
        return self._answer([image], vocabulary)[0]

    __call__ = segment

    def segment_batch(
        self, images: Sequence[Any], vocabulary: Vocabulary | Sequence[str]
    ) -> list[Segmentation]:
        """Several images together, many times as fast on a GPU; arguments as for `segment`."""
        return self._answer(images, vocabulary)

    def _answer(self, images: Sequence[Any], vocabulary: Vocabulary | Sequence[str]) -> list[Segmentation]:
        new = [image for image in images if not isinstance(image, EncodedImage)]
        made = iter(encode_queries(new, self.encoder, self.windows, self.regions))
        encoded = [image if isinstance(image, EncodedImage) else next(made) for image in images]
        if not isinstance(vocabulary, Vocabulary):
            vocabulary = name_vocabulary(vocabulary, self.encoder)
        memory = self.memory.copy()  # as it is now: what another thread adds meanwhile is not seen
        known = {*memory.classes, *compress(vocabulary.names, vocabulary.has_text)}
        silent = [name for name in vocabulary.names if name not in known]
        if 0 < len(silent) < len(vocabulary):
            names = ", ".join(silent)
            warnings.warn(f"without text and prototype, so no pixel can get them: {names}", stacklevel=3)
        predictions = predict_all(self.method, [own.query for own in encoded], memory, vocabulary)
        answers = []
        for own, prediction in zip(encoded, predictions, strict=True):
            painted = paint(prediction.tensor, own.query, own.feature_map)
            shown = None if own.image is None else partial(eight_bits, own.image)
            evidence = partial(getattr, prediction, "evidence")
            answers.append(Segmentation(*painted, vocabulary.names, evidence, shown))
        return answers

    def __repr__(self) -> str:
        parts = f"{self.encoder!r}, {self.memory!r}, {self.method!r}"
        return f"Segmenter({parts}, regions={self.regions!r}, windows={self.windows!r})"


def encode_queries(
    images: Sequence[Any], encoder: Encoder, windows: Windows | None = None, regions: Regions | None = None
) -> list[EncodedImage]:
    """Images -> the features and the query of each: its patches, or its regions.

    They are encoded together if the encoder can do that.

    Args:
        images: as for `Segmenter.encode`.
        encoder, windows, regions: as for `Segmenter`.
    """
    images = [image_array(image) for image in images]
    maps = feature_maps(images, encoder, windows)
    if regions is None:
        cut = [Query.of(feature_map) for feature_map in maps]
    else:
        cut = [region_query(own, regions(image)) for own, image in zip(maps, images, strict=True)]
    return list(map(EncodedImage, maps, cut, images))


def feature_maps(images: Sequence[Any], encoder: Encoder, windows: Windows | None = None) -> list[FeatureMap]:
    """The features of several images, encoded together if the encoder can do that."""
    if len(images) > 1 and hasattr(encoder, "encode_images"):
        return encoder.encode_images(images, windows=windows)
    return [encoder.encode_image(image, windows=windows) for image in images]


def name_vocabulary(names: Sequence[str], encoder: Encoder, text: bool = True) -> Vocabulary:
    """Class names -> a vocabulary, with text if it is wanted and the encoder has a text tower.

    Raises:
        ValueError: a single string instead of several, no names, names that repeat, or as `class_texts`.
    """
    if isinstance(names, str) or names is None or not (names := list(names)):
        raise ValueError(f"class names must be a list of at least one name, got {names!r}")
    with suppress(NoTextTower):
        if text:
            return Vocabulary.encode(names, encoder)
    return Vocabulary([class_texts(name)[0] for name in names])


def region_query(feature_map: FeatureMap, region_map: NDArray) -> Query:
    """Regions instead of patches: one soft-pooled feature each (RNS, section 3).

    Args:
        feature_map: of the image.
        region_map: (H, W) integers at the image's own size, any values: one region each.

    Raises:
        ValueError: the map's size is not the image's.
    """
    ids, layout = unique_inverse(np.asarray(region_map))
    features, pixels = pool_masks_on_device(feature_map, layout, range(len(ids)))  # (R, D), (R,)
    for r in np.flatnonzero(to_array(pixels) == 0):  # lost in resizing: takes the patch it lies in
        at = np.argwhere(layout == r)[0] / layout.shape * feature_map.encoded_size
        features[r] = feature_map.tensor[tuple((at // feature_map.patch_size).astype(int))]
    return Query(features, layout)


def query_map(encoded: EncodedImage) -> NDArray[np.int64]:
    """(H, W) the patch or region that each pixel lies in, as a row of the query; see `Evidence.query`."""
    if isinstance(encoded.query.layout, np.ndarray):
        return encoded.query.layout
    fm = encoded.feature_map
    sizes = zip(fm.image_size, fm.encoded_size, strict=True)
    rows, columns = (np.arange(side) * inside // side // fm.patch_size for side, inside in sizes)
    return rows[:, None] * fm.grid[1] + columns


@numpy_door
def paint(probabilities: Tensor, query: Query, feature_map: FeatureMap) -> tuple[Tensor, Tensor]:
    """Probabilities per patch or region -> (H, W) int64 labels and their scores.

    The rule for all methods: what is upsampled are the probabilities at one softness, see `soften`. Regions
    are not upsampled; all their pixels have the label of the region.

    Args:
        probabilities: (N, C).
        query: its layout gives the position of the N rows in the image.
        feature_map: gives the grid of patches and the sizes of the image.

    Returns:
        labels at the image's own size; scores (C, h, w) per patch, or (C, H, W) for regions.
    """
    if isinstance(query.layout, np.ndarray):
        layout = to_tensor(query.layout, probabilities.device)
        return probabilities.argmax(1)[layout], probabilities.T[:, layout]
    soft = soften(probabilities).T.reshape(-1, *feature_map.grid)  # (N, C) -> (C, h, w)
    able = torch.nonzero(can_win(soft))[:, 0]  # (K,)
    labels = able[upsample_scores(soft[able], feature_map).argmax(0)]  # (H, W)
    return labels, probabilities.T.reshape(-1, *feature_map.grid)


@numpy_door
def soften(probabilities: Tensor) -> Tensor:
    """The probabilities of an image's patches at one softness, whatever the temperature of their method.

    Where a bilinear border runs between two patches depends on how sure they are: a method at a logit scale
    of 100 is nearly one-hot, and loses a point of mIoU by that alone. So all probabilities of the image
    are raised to one power and normalised again: the power for which the two largest of a patch differ, on
    average, by 1 in their logarithms. No patch changes its class, and softmax(s * scores) gives the same
    labels for every s. The rule is ours; the release of RNS upsamples its probabilities as they are.

    Args:
        probabilities: (N, C).

    Returns:
        (N, C) float32, rows sum to 1.

    >>> sure, unsure = ([[1 - p, p], [p, 1 - p]] for p in (1e-6, 0.4))
    >>> soften(np.array(sure)).round(2).tolist() == soften(np.array(unsure)).round(2).tolist()
    True
    """
    probabilities = probabilities.float()
    if probabilities.shape[1] < 2:
        return probabilities
    logs = probabilities.clamp(min=torch.finfo(torch.float32).tiny).log()  # (N, C)
    first, second = logs.topk(2, dim=1).values.T  # (N,) each
    return softmax(logs / (first - second).mean().clamp(min=1e-6))


def pixel_probability(answer: Segmentation, encoded: EncodedImage) -> NDArray[np.float32]:
    """(H, W) the method's own probability of the class that each pixel shows.

    Labels come from probabilities at one softness (see `paint`), which would say nothing of how sure the
    method is. So these are its probabilities as they are, upsampled in the same way and read at the labels.
    Between patches another class may therefore have a higher one than the class that is shown.

    Args:
        answer: of `Segmenter.segment`.
        encoded: the image that it is of.
    """
    present = np.unique(answer.labels)  # (K,)
    scores = answer.scores[present]  # (K, h, w), or (K, H, W) of regions
    if not isinstance(encoded.query.layout, np.ndarray):
        scores = upsample_scores(scores, encoded.feature_map)
    return np.take_along_axis(scores, np.searchsorted(present, answer.labels)[None], 0)[0]


@numpy_door
def can_win(scores: Tensor, margin: float = 1e-6) -> Tensor:
    """Which classes can win a pixel by bilinear upsampling: the others need no upsampling.

    A pixel mixes the scores of patches that lie within three by three. A class whose best score there is
    below another's worst cannot win there.

    Args:
        scores: (C, h, w).
        margin: covers the rounding of float32.

    Returns:
        (C,) whether the class may win.
    """
    x = scores.float()
    window = tuple(min(3, side) for side in x.shape[1:])
    best = max_pool2d(x, window, stride=1)  # (C, h - 2, w - 2)
    worst = -max_pool2d(-x, window, stride=1)
    return (best >= worst.amax(0) - margin).flatten(1).any(1)


@numpy_door
def upsample_scores(scores: Tensor, feature_map: FeatureMap) -> Tensor:
    """Scores per patch -> scores per pixel of the image as given (RNS, section 3).

    Bilinear to the padded size, crop what was padding, bilinear to the image's own size.

    Args:
        scores: (C, h, w) on the grid of `feature_map`.
        feature_map: gives patch size, encoded size and image size.

    Returns:
        (C, H, W) float32.

    Raises:
        ValueError: the scores are not on that grid.
    """
    if (grid := tuple(scores.shape[1:])) != feature_map.grid:
        raise ValueError(f"scores are a grid of {grid}, the feature map of {feature_map.grid}")
    x = scores.float()[None].contiguous(memory_format=torch.channels_last)  # several times as fast
    padded = tuple(side * feature_map.patch_size for side in feature_map.grid)
    height, width = feature_map.encoded_size
    x = interpolate(x, padded, mode="bilinear", align_corners=False)[..., :height, :width]
    if feature_map.image_size != feature_map.encoded_size:
        x = interpolate(x, tuple(feature_map.image_size), mode="bilinear", align_corners=False)
    return x[0]
