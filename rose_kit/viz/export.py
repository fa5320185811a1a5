"""Answers for other tools: label PNGs, evidence as records, the folder format, and COCO JSON, there and back.

COCO's categories count from 1 (some readers take 0 for the background), so the id of a category is the
class id + 1. COCO has no mark for "ignore": pixels without an annotation become 255 when it is read.
"""

import json
import re
import shutil
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from skimage.measure import label

from rose_kit.data import DataError, Sample, atomic_write, class_ids, classes_text, read_image
from rose_kit.fusion import pooled_evidence
from rose_kit.memory import SupportMemory
from rose_kit.registry import errors_as
from rose_kit.types import IGNORE, Evidence, Segmentation, class_names, composed
from rose_kit.viz.overlay import palette


def save_labels(path: str | Path, labels: ArrayLike) -> None:
    """Write class ids as a PNG that shows them in the colours of `overlay`; 255 is black.

    Args:
        path: of the PNG.
        labels: (H, W) integers, 0 to 65535; with an id above 255 the PNG is grey, of 16 bits.
    """
    labels = np.asarray(labels)
    wide = labels.size and labels.max() > IGNORE
    image = Image.fromarray(labels.astype(np.uint16 if wide else np.uint8))
    if not wide:
        image.putpalette([*palette(IGNORE).ravel().tolist(), 0, 0, 0])
    with atomic_write(path) as beside:
        image.save(beside, format="png")


# --- evidence ---------------------------------------------------------------------------------------------


def strongest_prototypes(evidence: Evidence, memory: SupportMemory, count: int = 5) -> dict[str, Any]:
    """The evidence of one query in numbers and names.

    Args:
        evidence: of one query; `pooled_evidence` makes one of many.
        memory: holds the prototypes.
        count: prototypes to list, by absolute weight.

    Returns:
        {"score": the winning score, "prototypes": [{"prototype_id", "class", "image_id", "source",
        "weight", "effect"}, ...] strongest first, "rest": text and all that is not listed}. The weights and
        "rest" add up to "score". An effect that is not a finite number is None.
    """
    table = pd.DataFrame(evidence.columns()).rename(columns={"class_name": "class"})
    table = table.sort_values("weight", key=lambda weight: -weight.abs(), kind="stable")
    listed = table[table["prototype_id"] >= 0].head(count)
    rows = memory.lookup(listed["prototype_id"])
    effect = listed["effect"].astype(object).where(np.isfinite(listed["effect"]), None)
    listed = listed.assign(image_id=rows.image_ids, source=rows.sources, effect=effect).drop(columns="query")
    score = float(evidence.weight.sum())
    rest = score - float(listed["weight"].sum())
    return {"score": score, "prototypes": listed.to_dict("records"), "rest": rest}


def evidence_by_class(
    segmentation: Segmentation, memory: SupportMemory, count: int = 10, effects: bool = False
) -> dict[str, Any]:
    """Pool the evidence of all patches (or regions) that a class won, for each class.

    Args:
        segmentation: with evidence from `memory`.
        memory: holds the prototypes.
        count: prototypes to list per class, by absolute weight.
        effects: whether to compute their effects.

    Returns:
        class name -> {"pixels": share of the image, "patches": how many it won, and "score", "prototypes",
        "rest" as `strongest_prototypes` gives them for the mean over these patches}. The last four are None
        where the method gives no evidence. Classes without a pixel are left out; the largest comes first.
    """
    pixels = np.bincount(segmentation.labels.ravel(), minlength=len(segmentation.names))
    evidence, by_class = segmentation.evidence, {}
    for c in np.argsort(-pixels, kind="stable")[: np.count_nonzero(pixels)]:
        name, parts = segmentation.names[c], dict.fromkeys(("patches", "score", "prototypes", "rest"))
        if evidence is not None:
            # Every query has one row without a prototype, and that row names the class that won.
            won = evidence.query[(evidence.prototype_id < 0) & (evidence.class_name == name)]
            # A class may win pixels between patches without winning a patch: then nothing is listed.
            pooled = pooled_evidence(evidence, won) if len(won) else evidence.top(-1)
            pooled = pooled.with_effects(pooled.strongest(count)) if effects else pooled
            parts = {"patches": len(won)} | strongest_prototypes(pooled, memory, count)
        by_class[name] = {"pixels": float(pixels[c] / segmentation.labels.size)} | parts
    return by_class


# --- the folder format --------------------------------------------------------------------------------------


def write_folder(path: str | Path, samples: Iterable[Sample]) -> Path:
    """Write samples in the folder format; `FolderDataset(path)` reads them back.

    The file of an image's `source` is copied if it is a JPEG or a PNG of exactly these pixels; other images
    become PNGs. Everything is written to a temporary folder that is then renamed: the folder appears whole or
    not at all.

    Args:
        path: of the folder, which must not exist yet.
        samples: at least one; an id has the same name in all of them.

    Returns:
        The path.

    Raises:
        DataError: the folder exists, there are no samples, two share an image id or disagree about a class,
            `classes.txt` cannot hold an id, a mask holds an id that its classes lack, or an image is not
            (H, W, 3) uint8 of its mask's size.
    """
    path, classes = Path(path), {}
    if path.exists():
        raise DataError(f"{str(path)!r} is there already; name a new folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as beside:
        for name in ("images", "masks"):
            (beside / name).mkdir(parents=True)
        for sample in samples:
            _write_sample(beside, sample, classes)
        if not classes:
            raise DataError(f"there are no samples with classes to write to {str(path)!r}")
        with errors_as(DataError, str(path)):
            class_names(_check_ids(classes).values())
        (beside / "classes.txt").write_text(classes_text(dict(sorted(classes.items()))), encoding="utf-8")
    return path


def _check_ids(classes: dict[int, str]) -> dict[int, str]:
    """The classes, whose ids a mask can hold; refuses others."""
    if wrong := [c for c in classes if not 0 <= c < 2**16 or c == IGNORE]:
        allowed = f"from 0 to 65535 without {IGNORE}, which means ignore"
        raise DataError(f"class {classes[wrong[0]]!r} has the id {wrong[0]}; expected one {allowed}")
    return classes


def _write_sample(folder: Path, sample: Sample, classes: dict[int, str]) -> None:
    """Write one image and its mask, and add the sample's classes to `classes`."""
    class_ids(sample.image_id, sample.mask, sample.classes)
    for c, name in sample.classes.items():
        if classes.setdefault(int(c), name) != name:
            raise DataError(f"class {c} is {classes[int(c)]!r}, but {name!r} in {sample.image_id!r}")
    image_id = composed(str(sample.image_id))
    image, mask = np.asarray(sample.image), folder / "masks" / f"{image_id}.png"
    if mask.exists() or mask.stem != image_id or mask.name.startswith("."):  # a stem has no folder
        raise DataError(f"image id {sample.image_id!r} occurs twice, or is no name of a visible file")
    if image.dtype != np.uint8 or image.shape != (*sample.mask.shape, 3):
        shape = f"uint8 {(*sample.mask.shape, 3)}"
        raise DataError(f"image {sample.image_id!r} is {image.dtype} {image.shape}; expected {shape}")
    save_labels(mask, sample.mask)
    source = Path(sample.source or "")
    if source.suffix.lower() in (".jpg", ".jpeg", ".png"):
        with suppress(DataError):  # the file may be gone
            if np.array_equal(read_image(source), image):
                shutil.copyfile(source, folder / "images" / f"{image_id}{source.suffix}")
                return
    Image.fromarray(image).save(folder / "images" / mask.name)


# --- COCO JSON ----------------------------------------------------------------------------------------------


def write_coco(
    path: str | Path,
    masks: Mapping[str, NDArray] | Iterable[tuple[str, NDArray] | tuple[str, NDArray, NDArray]],
    classes: Mapping[int, str],
    components: bool = False,
) -> Path:
    """Write masks as COCO JSON: an annotation for each class in each image, as compressed run lengths.

    A class map does not separate the instances of a class, so neither do the annotations.

    Args:
        path: of the JSON; it is replaced in one step, once the new one is complete.
        masks: pairs, or a mapping, of the image's file name and its (H, W) integers, keys of `classes` or
            255 = ignore; in third place may stand (H, W) probabilities: their mean over its pixels is the
            "score" of an annotation.
        classes: id -> name.
        components: an annotation for each connected part of a class, corners included, in place of one.

    Returns:
        The path.

    Raises:
        DataError: a mask holds an id that `classes` lacks, a class has the id 255 or one outside of 0 to
            65535, a file name occurs twice, or probabilities are not finite or of another shape.
        ValueError: as `class_names`.
    """
    classes = _check_ids(dict(zip(map(int, classes), class_names(classes.values()), strict=True)))
    images: dict[str, dict[str, Any]] = {}
    annotations: list[dict[str, Any]] = []
    for name, mask, *probabilities in masks.items() if isinstance(masks, Mapping) else masks:
        name, mask = str(name), np.asarray(mask)
        if name in images:
            raise DataError(f"two masks are of {name!r}")
        if mask.ndim != 2:
            raise DataError(f"the mask of {name!r} must be (H, W), got {mask.shape}")
        if any(np.shape(p) != mask.shape or not np.isfinite(p).all() for p in probabilities):
            raise DataError(f"the probabilities of {name!r} must be finite, and {mask.shape} as its mask is")
        height, width = mask.shape
        images[name] = {"id": len(images) + 1, "file_name": name, "width": width, "height": height}
        for c in class_ids(name, mask, classes):
            parts = label(mask == c) if components else (mask == c).astype(int)  # (H, W), 0 elsewhere
            for part in range(1, parts.max() + 1):
                rle = coco_mask.encode(np.asfortranarray(parts == part, dtype=np.uint8))
                annotations.append({
                    "id": len(annotations) + 1, "image_id": images[name]["id"], "category_id": int(c) + 1,
                    "segmentation": rle | {"counts": rle["counts"].decode()},
                    "area": int(coco_mask.area(rle)),
                    "bbox": coco_mask.toBbox(rle).astype(int).tolist(), "iscrowd": 0,
                })  # fmt: skip
                if probabilities:
                    annotations[-1]["score"] = float(probabilities[0][parts == part].mean())
    categories = [{"id": c + 1, "name": name, "supercategory": ""} for c, name in classes.items()]
    parts = {"images": list(images.values()), "annotations": annotations, "categories": categories}
    path = Path(path)
    with atomic_write(path) as beside:
        beside.write_text(json.dumps({"info": {"description": "rose_kit"}} | parts), encoding="utf-8")
    return path


def read_coco(path: str | Path) -> tuple[dict[str, NDArray[np.integer]], dict[int, str]]:
    """Read COCO JSON, written by `write_coco` or by an annotation tool.

    Class ids are category ids less 1, or equal to them if a category has id 0. Where annotations overlap,
    the one with the fewer pixels is on top, whatever "area" says. Pixels without an annotation are 255. Ids
    may be numbers or texts: 1, 1.0 and "1" are the same.

    Returns:
        file name -> (H, W) class ids (uint8, or uint16 if an id is above 255); and id -> class name.

    Raises:
        DataError: the file is no COCO JSON; an id or a file name is missing, refers to nothing or occurs
            twice; an image is too large for Pillow; a category cannot be a class of a mask; or an annotation
            has no segmentation, or none that fits its image. Of several, it names the first, and counts.

    Warns:
        UserWarning: annotations cover no pixel; or as `class_names`.
    """
    with errors_as(DataError, f"{path} cannot be read as COCO JSON"):
        content = json.loads(Path(path).read_bytes())  # UTF-8, 16 or 32, with or without a byte-order mark
        if lacking := [key for key in ("images", "annotations", "categories") if key not in content]:
            raise ValueError(f"it has no {lacking[0]!r}; results alone are no data set")
        categories = _by_id(content, "categories", "name")
        shift = 0 if "0" in categories else 1
        numbers = {i: int(i) - shift for i in categories if re.fullmatch("[0-9]{1,6}", i)}  # -> class id
        if wrong := [i for i in categories if not 0 <= numbers.get(i, -1) < 2**16 or numbers[i] == IGNORE]:
            allowed = f"whole numbers from 0 to {2**16 - 1 + shift} without {IGNORE + shift} (ignore)"
            raise ValueError(f"category {wrong[0]}, {categories[wrong[0]]['name']!r}: ids must be {allowed}")
        names = class_names(category["name"] for category in categories.values())
        images, masks = _by_id(content, "images", "file_name"), {}
        for i, image in images.items():
            sides = image.get("height"), image.get("width")
            size = tuple(int(s) if re.fullmatch("[0-9]{1,9}", s := str(_id(side))) else 0 for side in sides)
            if not 0 < size[0] * size[1] <= Image.MAX_IMAGE_PIXELS:
                raise ValueError(f"image {image['file_name']!r} is no image of {sides} (rows, columns)")
            masks[i] = np.full(size, IGNORE, np.uint16 if max(numbers.values()) > IGNORE else np.uint8)
        regions = _regions(content["annotations"], {i: mask.shape for i, mask in masks.items()}, numbers)
        for _, i, c, runs in sorted(regions, key=lambda region: -region[0]):
            masks[i][coco_mask.decode(runs) > 0] = c
        classes = dict(zip(numbers.values(), names, strict=True))
        return {image["file_name"]: masks[i] for i, image in images.items()}, classes


def _by_id(content: Mapping[str, Any], what: str, key: str) -> dict[str, Mapping[str, Any]]:
    """Id -> image or category; each must have an id and a value of `key` of its own."""
    found: dict[str, Mapping[str, Any]] = {}
    values = set()
    for item in content[what]:
        i, value = _id(item.get("id")), item.get(key)
        if i is None or i in found or not (value and isinstance(value, str)) or value in values:
            fault = f"id {item.get('id')!r} and {key} {item.get(key)!r}"
            raise ValueError(f"{what}: {fault}; each needs an id and a name of its own")
        values.add(value)
        found[i] = item
    return found


def _id(value: Any) -> str | None:
    """An id as text, so that 1, 1.0, "1" and "01" are the same; None if it is no id."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    return re.sub(r"^(-?)0*(\d+)(\.0*)?$", r"\1\2", str(value).strip()) or None


def _regions(
    annotations: Sequence[Any], sizes: Mapping[str, tuple[int, int]], numbers: Mapping[str, int]
) -> list[tuple[int, str, int, dict[str, Any]]]:
    """(pixels, image id, class id, run lengths) of annotations; refuses all of them if one is wrong.

    Args:
        annotations: of COCO.
        sizes: image id -> (H, W).
        numbers: category id -> class id.
    """
    annotations = [a if isinstance(a, Mapping) else {} for a in annotations]
    ids = [_id(a.get("id")) or f"at position {n}, which has no id" for n, a in enumerate(annotations)]
    times, regions, faults = Counter(ids), [], []
    for i, a in zip(ids, annotations, strict=True):
        image_id, class_id = _id(a.get("image_id")), numbers.get(_id(a.get("category_id")))
        try:
            if times[i] > 1:
                raise DataError(f"{times[i]} annotations have this id")
            if image_id not in sizes or class_id is None:
                pair = f"image_id {a.get('image_id')!r} or category_id {a.get('category_id')!r}"
                raise DataError(f"its {pair} is not in the file")
            runs = run_lengths(a.get("segmentation"), sizes[image_id])
            regions.append((int(coco_mask.area(runs)), image_id, class_id, runs))
        except DataError as error:
            faults.append(f"annotation {i}: {error}")
    if faults:
        raise ValueError(f"{faults[0]} ({len(faults)} of {len(ids)} annotations cannot be read)")
    if empty := [i for i, (pixels, *_) in zip(ids, regions, strict=True) if not pixels]:
        count = f"{len(empty)} of {len(ids)} annotations do not"
        warnings.warn(f"annotation {empty[0]} covers no pixel ({count})", stacklevel=3)
    return regions


def run_lengths(segmentation: Any, size: tuple[int, int]) -> dict[str, Any]:
    """COCO's `segmentation`, run lengths or polygons, as the compressed run lengths that pycocotools takes.

    All is checked first, since pycocotools reads and writes past its buffers if it is malformed.

    Args:
        segmentation: {"size", "counts"} with a list of counts or a compressed string, or polygons
            [[x, y, x, y, ...], ...].
        size: (H, W) of the image.

    Raises:
        DataError: there are none, or the run lengths or the polygons do not fit the image.

    >>> coco_mask.decode(run_lengths({"size": [2, 2], "counts": [1, 3]}, (2, 2))).tolist()
    [[0, 1], [1, 1]]
    """
    if not segmentation or segmentation == [[]]:
        raise DataError("it has no segmentation, and a box is not enough: outline it, or leave it out")
    with suppress(ValueError, LookupError, TypeError, AttributeError, OverflowError):
        if isinstance(segmentation, list):
            polygons = [np.reshape(xy, (-1, 2)).astype(float) for xy in segmentation]
            if all(len(xy) >= 3 and (np.abs(xy) <= 2 * max(size)).all() for xy in polygons):
                return coco_mask.merge(coco_mask.frPyObjects([xy.ravel().tolist() for xy in polygons], *size))
        elif list(segmentation["size"]) == list(size):
            counts = segmentation["counts"]
            if not isinstance(counts, str):
                if sum(counts) == size[0] * size[1] and min(counts) >= 0:
                    return coco_mask.frPyObjects({"size": list(size), "counts": counts}, *size)
            elif re.fullmatch("[0-o]*[0-O]", counts):  # the last character ends a number
                mask = coco_mask.decode(segmentation)  # raises if it has more pixels than the image
                if coco_mask.encode(mask)["counts"] == counts.encode():
                    return segmentation
    raise DataError(f"a segmentation does not fit an image of {list(size)}: {str(segmentation)[:80]}")
