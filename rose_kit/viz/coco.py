"""Masks for other tools, and back: COCO JSON, through pycocotools.

COCO's categories count from 1 (some readers take 0 for the background), so a category's id is the class
id + 1. No pixel of COCO is marked "ignore": what no annotation covers is 255 when it is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from rose_kit.data import DataError, atomic_write
from rose_kit.types import IGNORE
from rose_kit.viz.export import ids_of


def decode_segmentation(segmentation: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    """COCO's `segmentation`, run lengths or polygons, as the mask that pycocotools makes of it.

    pycocotools reads and writes past its buffers where these are malformed, so they are checked before.

    Args:
        segmentation: {"size", "counts"} with a list of counts or a compressed string, or polygons
            [[x, y, x, y, ...], ...].
        size: (H, W) of its image.

    Returns:
        (H, W) bool.

    Raises:
        DataError: the run lengths or the polygons do not fit the image.

    >>> decode_segmentation({"size": [2, 2], "counts": [1, 3]}, (2, 2)).astype(int).tolist()
    [[0, 1], [1, 1]]
    """

    def misfit() -> DataError:
        return DataError(f"a segmentation does not fit an image of {list(size)}: {str(segmentation)[:80]}")

    if isinstance(segmentation, list):
        polygons = [np.reshape(xy, (-1, 2)).astype(float) for xy in segmentation]
        near = [len(xy) >= 3 and (np.abs(xy) <= 2 * max(size)).all() for xy in polygons]
        if not near or not all(near):
            raise misfit()
        return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(segmentation, *size))) > 0
    counts = segmentation["counts"]
    if list(segmentation["size"]) != list(size):
        raise misfit()
    if isinstance(counts, str):
        if not re.fullmatch("[0-o]*[0-O]", counts):  # the last character ends a number
            raise misfit()
        try:
            mask = coco_mask.decode(segmentation)
        except ValueError:  # the counts are of another size
            raise misfit() from None
        if coco_mask.encode(mask)["counts"] != counts.encode():
            raise misfit()
        return mask > 0
    if min(counts) < 0 or sum(map(index, counts)) != size[0] * size[1]:
        raise misfit()
    return coco_mask.decode(coco_mask.frPyObjects(segmentation, *size)) > 0


def write_coco(path: str | Path, masks: Iterable[tuple[str, NDArray]], classes: Mapping[int, str]) -> Path:
    """Write masks as COCO JSON: an annotation for each class in each image, as compressed run lengths.

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
            rle = coco_mask.encode(np.asfortranarray(mask == c, dtype=np.uint8))
            annotations.append({
                "id": len(annotations) + 1, "image_id": images[name]["id"], "category_id": int(c) + 1,
                "segmentation": rle | {"counts": rle["counts"].decode()}, "area": int(coco_mask.area(rle)),
                "bbox": coco_mask.toBbox(rle).astype(int).tolist(), "iscrowd": 0,
            })  # fmt: skip
    categories = [{"id": int(c) + 1, "name": name, "supercategory": ""} for c, name in classes.items()]
    parts = {"images": list(images.values()), "annotations": annotations, "categories": categories}
    path = Path(path)
    with atomic_write(path) as beside:
        beside.write_text(json.dumps({"info": {"description": "rose_kit"}} | parts), encoding="utf-8")
    return path


def read_coco(path: str | Path) -> tuple[dict[str, NDArray[np.integer]], dict[int, str]]:
    """Read COCO JSON, ours or an annotation tool's: file name -> (H, W) class ids, and id -> name.

    Class ids are the categories' less 1 (unless one is 0); where annotations overlap, the smaller is
    on top; pixels of none are 255.

    Raises:
        DataError: no such JSON, parts are missing or point nowhere, or as `decode_segmentation`.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        shift = min([1, *(c["id"] for c in content["categories"])])
        classes = {c["id"] - shift: c["name"] for c in content["categories"]}
        sizes = {i["id"]: (i["height"], i["width"]) for i in content["images"]}
        if IGNORE in classes:
            raise DataError(f"category {IGNORE + shift} would be class {IGNORE}: ignore")
        for height, width in sizes.values():
            if height * width > Image.MAX_IMAGE_PIXELS:
                raise DataError(f"an image of {(height, width)} is too large")
        dtype = np.uint16 if max(classes, default=0) > IGNORE else np.uint8
        masks = {i: np.full(size, IGNORE, dtype) for i, size in sizes.items()}
        for a in sorted(content["annotations"], key=lambda a: -a["area"]):
            c = a["category_id"] - shift
            if c not in classes:
                raise DataError(f"an annotation of category {c + shift}; there are {list(classes.values())}")
            masks[a["image_id"]][decode_segmentation(a["segmentation"], sizes[a["image_id"]])] = c
        return {i["file_name"]: masks[i["id"]] for i in content["images"]}, classes
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is no COCO JSON: {type(error).__name__}: {error}") from error
