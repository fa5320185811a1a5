"""The whole pipeline in one object: image -> features -> retrieval -> classes of patches -> pixels."""

import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate, max_pool2d

from rose_kit.adapter import RNS
from rose_kit.data import image_array
from rose_kit.encoder import Encoder, NoTextTower, Windows
from rose_kit.fusion import Method
from rose_kit.fusion.zero_shot import softmax
from rose_kit.memory import SupportMemory
from rose_kit.pooling import pool_masks, unique_inverse
from rose_kit.regions import Regions, make_regions
from rose_kit.types import FeatureMap, Query, Segmentation, Vocabulary, class_texts


@dataclass(frozen=True)
class EncodedImage:
    """An image after the expensive step; `Segmenter.segment` takes it as often as needed."""

    feature_map: FeatureMap
    query: Query


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
            image: (H, W, 3) uint8, float in [0, 1], or what `read_image` reads: a file or a PIL image.
        """
        return encode_query(image, self.encoder, self.windows, self.regions)

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
        encoded = image if isinstance(image, EncodedImage) else self.encode(image)
        if not isinstance(vocabulary, Vocabulary):
            vocabulary = name_vocabulary(vocabulary, self.encoder)
        memory = self.memory.copy()  # as it is now: what another thread adds meanwhile is not seen
        known = {*memory.classes, *compress(vocabulary.names, vocabulary.has_text)}
        silent = [name for name in vocabulary.names if name not in known]
        if 0 < len(silent) < len(vocabulary):
            names = ", ".join(silent)
            warnings.warn(f"without text and prototype, so no pixel can get them: {names}", stacklevel=2)
        prediction = self.method.predict(encoded.query, memory, vocabulary)
        labels, scores = paint(prediction.probabilities, encoded.query, encoded.feature_map)
        return Segmentation(labels, scores, vocabulary.names, prediction.evidence)

    __call__ = segment


def encode_query(
    image: Any, encoder: Encoder, windows: Windows | None = None, regions: Regions | None = None
) -> EncodedImage:
    """Image -> its features, and the query: its patches, or its regions.

    Args:
        image: as for `Segmenter.encode`.
        encoder, windows, regions: as for `Segmenter`.
    """
    image = image_array(image)
    feature_map = encoder.encode_image(image, windows=windows)
    query = Query.of(feature_map) if regions is None else region_query(feature_map, regions(image))
    return EncodedImage(feature_map, query)


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
    features, pixels = pool_masks(feature_map, layout, range(len(ids)))  # (R, D), (R,)
    for r in np.flatnonzero(pixels == 0):  # lost in resizing: takes the patch it lies in
        at = np.argwhere(layout == r)[0] / layout.shape * feature_map.encoded_size
        features[r] = feature_map.values[tuple((at // feature_map.patch_size).astype(int))]
    return Query(features, layout)


def query_map(encoded: EncodedImage) -> NDArray[np.int64]:
    """(H, W) the patch or region that each pixel lies in, as a row of the query; see `Evidence.query`."""
    if isinstance(encoded.query.layout, np.ndarray):
        return encoded.query.layout
    fm = encoded.feature_map
    sizes = zip(fm.image_size, fm.encoded_size, strict=True)
    rows, columns = (np.arange(side) * inside // side // fm.patch_size for side, inside in sizes)
    return rows[:, None] * fm.grid[1] + columns


def paint(probabilities: NDArray, query: Query, feature_map: FeatureMap) -> tuple[NDArray, NDArray]:
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
        labels = probabilities.argmax(1)[query.layout]
        return labels, probabilities.T.take(query.layout, axis=1)
    soft = soften(probabilities).T.reshape(-1, *feature_map.grid)  # (N, C) -> (C, h, w)
    able = np.flatnonzero(can_win(soft))  # (K,)
    labels = able[upsample_scores(soft[able], feature_map).argmax(0)]  # (H, W)
    return labels, probabilities.T.reshape(-1, *feature_map.grid)


def soften(probabilities: NDArray) -> NDArray[np.float32]:
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
    if probabilities.shape[1] < 2:
        return np.asarray(probabilities, np.float32)
    logs = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny), dtype=np.float32)  # (N, C)
    second, first = np.partition(logs, -2, axis=1)[:, -2:].T  # (N,) each
    return softmax(logs / max(float((first - second).mean()), 1e-6))


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


def can_win(scores: NDArray, margin: float = 1e-6) -> NDArray[np.bool_]:
    """Which classes can win a pixel by bilinear upsampling: the others need no upsampling.

    A pixel mixes the scores of patches that lie within three by three. A class whose best score there is
    below another's worst cannot win there.

    Args:
        scores: (C, h, w).
        margin: covers the rounding of float32.

    Returns:
        (C,) whether the class may win.
    """
    x = torch.from_numpy(np.asarray(scores, dtype=np.float32))
    window = tuple(min(3, side) for side in x.shape[1:])
    best = max_pool2d(x, window, stride=1)  # (C, h - 2, w - 2)
    worst = -max_pool2d(-x, window, stride=1)
    return (best >= worst.amax(0) - margin).flatten(1).any(1).numpy()


def upsample_scores(scores: NDArray, feature_map: FeatureMap) -> NDArray[np.float32]:
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
    if scores.shape[1:] != feature_map.grid:
        raise ValueError(f"scores are a grid of {scores.shape[1:]}, the feature map of {feature_map.grid}")
    x = torch.from_numpy(np.asarray(scores, dtype=np.float32))[None]
    x = x.contiguous(memory_format=torch.channels_last)  # several times as fast
    padded = tuple(side * feature_map.patch_size for side in feature_map.grid)
    height, width = feature_map.encoded_size
    x = interpolate(x, padded, mode="bilinear", align_corners=False)[..., :height, :width]
    if feature_map.image_size != feature_map.encoded_size:
        x = interpolate(x, tuple(feature_map.image_size), mode="bilinear", align_corners=False)
    return x[0].numpy()
