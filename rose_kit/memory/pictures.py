"""One annotated picture becomes rows, and a thumbnail to show them by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rose_kit.memory.checks import Scalar, check_metadata, check_name, check_unit
from rose_kit.memory.rows import Rows
from rose_kit.pooling import pool_masks
from rose_kit.types import IGNORE, FeatureMap

THUMBNAIL_SIDE = 96  # px, the longer side at most


def picture_rows(
    first_id: int,
    image_id: str,
    feature_map: FeatureMap,
    mask: NDArray,
    classes: Mapping[int, str],
    source: str | Path | None,
    thumbnail: NDArray[np.uint8] | None,
    metadata: Mapping[str, Scalar] | None,
) -> Rows:
    """One row per class that the picture shows; the arguments are those of `SupportMemory.add`."""
    check_name(image_id)
    mask = np.asarray(mask)
    if mask.dtype.kind not in "iub":
        raise ValueError(f"mask must hold whole numbers, got {mask.dtype}")
    if IGNORE in classes:
        raise ValueError(f"classes calls {IGNORE} {classes[IGNORE]!r}, but {IGNORE} means ignore")
    repeated = [name for name, n in Counter(classes.values()).items() if n > 1]
    if repeated:
        raise ValueError(f"several mask values are called {repeated[0]!r}; merge them in the mask")
    check_unit(feature_map.flat(), "patch")
    vectors, counts = pool_masks(feature_map, mask, list(classes))  # (C, D), (C,)
    present = np.flatnonzero(counts)  # (R,)
    values = [list(classes)[c] for c in present]
    return Rows.make(
        ids=first_id + np.arange(len(present)),
        vectors=vectors[present],
        class_names=[classes[value] for value in values],
        image_ids=[image_id for _ in values],
        sources=[None if source is None else str(source) for _ in values],
        metadata=[check_metadata(metadata)] * len(values),
        thumbnails=pack_thumbnails(thumbnail, mask, values),
    )


def pack_thumbnails(picture: NDArray[np.uint8] | None, mask: NDArray, values: Sequence[int]) -> list:
    """For each value, the small picture (one array for all) and the bits of the value's small mask.

    Args:
        picture: (H, W, 3) uint8, or None: no thumbnails.
        mask: (H, W) integers.
        values: R values of `mask`.

    Returns:
        R pairs (picture, bytes), or R times None.
    """
    if picture is None:
        return [None for _ in values]
    dtype, shape = getattr(picture, "dtype", type(picture).__name__), np.shape(picture)
    if dtype != np.uint8 or shape != (*mask.shape, 3):
        raise ValueError(f"thumbnail must be uint8 {(*mask.shape, 3)}, got {dtype} {shape}")
    image = Image.fromarray(picture)
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)
    small = np.array(image)  # (h, w, 3)
    masks = (shrink_mask(mask == value, image.size) for value in values)
    return [(small, np.packbits(region).tobytes()) for region in masks]


def unpack_thumbnail(pair: tuple | None) -> tuple[NDArray[np.uint8], NDArray[np.bool_]] | None:
    """(h, w, 3) picture and (h, w) mask of one row, as copies."""
    if pair is None:
        return None
    h, w = pair[0].shape[:2]
    bits = np.unpackbits(np.frombuffer(pair[1], dtype=np.uint8), count=h * w)
    return pair[0].copy(), bits.reshape(h, w).astype(bool)


def shrink_mask(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """(H, W) bool -> (h, w), with `size` = (w, h): cells covered by half, or a tiny region's fullest."""
    cover = np.array(Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BOX))
    return cover >= min(0.5, cover.max())
