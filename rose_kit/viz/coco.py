"""Masks for other tools, and back: COCO JSON.

COCO's categories count from 1 (some readers take 0 for the background), so a category's id is the class
id + 1. No pixel of COCO is marked "ignore": what no annotation covers is 255 when it is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from skimage.draw import polygon2mask

from rose_kit.data import DataError, atomic_write
from rose_kit.types import IGNORE
from rose_kit.viz.export import ids_of


def encode_rle(mask: ArrayLike) -> dict[str, list[int]]:
    """A mask as COCO's run lengths: of 0 and 1 in turn, 0 first, down the columns.

    Args:
        mask: (H, W) bool.

    >>> encode_rle(np.array([[0, 1], [1, 1]]))
    {'size': [2, 2], 'counts': [1, 3]}
    """
    mask = np.asarray(mask, dtype=bool)
    flat = mask.ravel(order="F")
    counts = np.diff([0, *(np.flatnonzero(flat[1:] != flat[:-1]) + 1), flat.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def decode_segmentation(segmentation: Any, size: Sequence[int]) -> NDArray[np.bool_]:
    """COCO's `segmentation`, run lengths or polygons, as an (H, W) mask.

    A polygon takes the pixels whose centres lie in it; a pixel is the square from x to x + 1.

    Args:
        segmentation: {"size", "counts"} with a list of counts, or [[x, y, x, y, ...], ...].
        size: (H, W) of its image.

    Raises:
        DataError: compressed run lengths (decode these with pycocotools), or of another size.

    >>> decode_segmentation({"size": [2, 2], "counts": [1, 3]}, (2, 2)).astype(int).tolist()
    [[0, 1], [1, 1]]
    """
    if isinstance(segmentation, list):
        corners = [np.reshape(xy, (-1, 2))[:, ::-1] - 0.5 for xy in segmentation]
        return np.any([polygon2mask(tuple(size), c) for c in corners], axis=0)
    counts = segmentation["counts"]
    if isinstance(counts, str):
        raise DataError("compressed run lengths cannot be read here; uncompressed ones and polygons can")
    if list(segmentation["size"]) != list(size) or sum(counts) != size[0] * size[1] or min(counts) < 0:
        raise DataError(f"run lengths of {segmentation['size']} do not fit an image of {list(size)}")
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(size, order="F")


def write_coco(path: str | Path, masks: Iterable[tuple[str, NDArray]], classes: Mapping[int, str]) -> Path:
    """Write masks as COCO JSON: an annotation for each class in each image, as run lengths.

    A class map does not tell one thing from the next of its class, so neither do the annotations.

    Args:
        path: of the JSON; renamed into place once it is whole.
        masks: (file name of the image, (H, W) integers: keys of `classes`, or 255 = ignore) each.
        classes: id -> name.

    Raises:
        DataError: a mask with an id that `classes` lacks, or a file name that occurs twice.
    """
    images: dict[str, dict[str, Any]] = {}
    annotations: list[dict[str, Any]] = []
    for name, mask in masks:
        if name in images:
            raise DataError(f"two masks are of {name!r}")
        height, width = mask.shape
        images[name] = {"id": len(images) + 1, "file_name": name, "width": width, "height": height}
        for c in ids_of(name, mask, classes):
            keys = {"id": len(annotations) + 1, "image_id": images[name]["id"], "category_id": int(c) + 1}
            annotations.append(keys | _outline(mask == c))
    categories = [{"id": int(c) + 1, "name": name, "supercategory": ""} for c, name in classes.items()]
    parts = {"images": list(images.values()), "annotations": annotations, "categories": categories}
    path = Path(path)
    with atomic_write(path) as beside:
        beside.write_text(json.dumps({"info": {"description": "rose_kit"}} | parts), encoding="utf-8")
    return path


def _outline(region: NDArray[np.bool_]) -> dict[str, Any]:
    """What COCO says about one region: run lengths, area, bbox (x, y, width, height), no crowd."""
    rows, columns = (np.flatnonzero(region.any(axis)) for axis in (1, 0))
    x, y = int(columns[0]), int(rows[0])
    box = [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1]
    return {"segmentation": encode_rle(region), "area": int(region.sum()), "bbox": box, "iscrowd": 0}


def read_coco(path: str | Path) -> tuple[dict[str, NDArray[np.integer]], dict[int, str]]:
    """Read COCO JSON, ours or an annotation tool's: file name -> (H, W) class ids, and id -> name.

    Class ids are the categories' less 1 (unless one is 0); where annotations overlap, the smaller is
    on top; pixels of none are 255.

    Raises:
        DataError: no such JSON, parts are missing or point nowhere, or as `decode_segmentation`.
    """
    try:
        told = json.loads(Path(path).read_text(encoding="utf-8"))
        shift = min([1, *(c["id"] for c in told["categories"])])
        classes = {c["id"] - shift: c["name"] for c in told["categories"]}
        sizes = {i["id"]: (i["height"], i["width"]) for i in told["images"]}
        large = [size for size in sizes.values() if size[0] * size[1] > Image.MAX_IMAGE_PIXELS]
        if large or IGNORE in classes:
            raise DataError(
                f"image of {large[0]} is too large" if large else "category 256 would be 255: ignore"
            )
        dtype = np.uint16 if max(classes, default=0) > IGNORE else np.uint8
        masks = {i: np.full(size, IGNORE, dtype) for i, size in sizes.items()}
        for a in sorted(told["annotations"], key=lambda a: -a["area"]):
            c, region = a["category_id"] - shift, decode_segmentation(a["segmentation"], sizes[a["image_id"]])
            if c not in classes:
                raise DataError(
                    f"annotation of category {c + shift}; there are {[k + shift for k in classes]}"
                )
            masks[a["image_id"]][region] = c
        return {i["file_name"]: masks[i["id"]] for i in told["images"]}, classes
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is no COCO JSON: {type(error).__name__}: {error}") from error
