"""Answers for other tools: label PNGs, evidence as records, the folder format, and COCO JSON, there and back.

COCO's categories count from 1 (some readers take 0 for the background), so the id of a category is the
class id + 1. COCO has no mark for "ignore": pixels without an annotation become 255 when it is read.
"""

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from rose_kit.data import DataError, Sample, atomic_write, read_classes
from rose_kit.fusion import pooled_evidence
from rose_kit.memory import SupportMemory
from rose_kit.types import IGNORE, Evidence, Segmentation
from rose_kit.viz.overlay import palette


def class_ids(name: str, mask: NDArray, classes: Mapping[int, str]) -> list[int]:
    """The class ids that a mask holds, ascending, without 255.

    Args:
        name: of the image, for the message.
        mask: (H, W) integers.
        classes: id -> name.

    Raises:
        DataError: the mask holds an id that `classes` lacks.

    >>> class_ids("a", np.array([[3, 255]]), {3: "cat"})
    [3]
    """
    present = [c for c in np.unique(mask).tolist() if c != IGNORE]
    unknown = [c for c in present if c not in classes]
    if unknown:
        raise DataError(f"the mask of {name!r} holds {unknown[0]}; its classes are {dict(classes)}")
    return present


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
    image.save(path, format="png")


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

    The file of an image that has a `source` is copied unchanged; other images become PNGs. Everything is
    written to a temporary folder that is then renamed: the folder appears whole or not at all.

    Args:
        path: of the folder, which must not exist yet.
        samples: at least one; an id has the same name in all of them.

    Returns:
        The path.

    Raises:
        DataError: the folder exists, there are no samples, two share an image id or disagree about a class,
            `classes.txt` cannot hold a name, or a mask holds an id that its classes lack.
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
        lines = "".join(f"{c},{name}\n" for c, name in sorted(classes.items()))
        (beside / "classes.txt").write_text(lines, encoding="utf-8")
        if read_classes(beside / "classes.txt") != classes:
            raise DataError(f"ids and names that classes.txt cannot hold (255 is ignore): {classes}")
    return path


def _write_sample(folder: Path, sample: Sample, classes: dict[int, str]) -> None:
    """Write one image and its mask, and add the sample's classes to `classes`."""
    class_ids(sample.image_id, sample.mask, sample.classes)
    for c, name in sample.classes.items():
        if classes.setdefault(int(c), name) != name:
            raise DataError(f"class {c} is {classes[int(c)]!r}, but {name!r} in {sample.image_id!r}")
    mask = folder / "masks" / f"{sample.image_id}.png"
    if mask.exists() or mask.stem != sample.image_id:  # a stem has no folder
        raise DataError(f"image id {sample.image_id!r} occurs twice, or is no file name")
    save_labels(mask, sample.mask)
    if sample.source:
        shutil.copyfile(sample.source, folder / "images" / f"{sample.image_id}{Path(sample.source).suffix}")
    else:
        Image.fromarray(sample.image).save(folder / "images" / mask.name)


# --- COCO JSON ----------------------------------------------------------------------------------------------


def write_coco(path: str | Path, masks: Iterable[tuple[str, NDArray]], classes: Mapping[int, str]) -> Path:
    """Write masks as COCO JSON: an annotation for each class in each image, as compressed run lengths.

    A class map does not separate the instances of a class, so neither do the annotations.

    Args:
        path: of the JSON; it is replaced in one step, once the new one is complete.
        masks: pairs of the image's file name and its (H, W) integers: keys of `classes`, or 255 = ignore.
        classes: id -> name.

    Returns:
        The path.

    Raises:
        DataError: a mask holds an id that `classes` lacks, or a file name occurs twice.
    """
    images: dict[str, dict[str, Any]] = {}
    annotations: list[dict[str, Any]] = []
    for name, mask in masks:
        if name in images:
            raise DataError(f"two masks are of {name!r}")
        height, width = mask.shape
        images[name] = {"id": len(images) + 1, "file_name": name, "width": width, "height": height}
        for c in class_ids(name, mask, classes):
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
    """Read COCO JSON, written by `write_coco` or by an annotation tool.

    Class ids are category ids less 1, or equal to them if a category has id 0. Where annotations overlap,
    the one with the smaller area is on top. Pixels without an annotation are 255.

    Returns:
        file name -> (H, W) class ids (uint8, or uint16 if an id is above 255); and id -> class name.

    Raises:
        DataError: the file is no COCO JSON; an id is missing or refers to nothing; an image is too large for
            Pillow; a category would become class 255; or as `decode_segmentation`.
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


def decode_segmentation(segmentation: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    """COCO's `segmentation`, run lengths or polygons, as the mask that pycocotools makes of it.

    All is checked first, since pycocotools reads and writes past its buffers if it is malformed.

    Args:
        segmentation: {"size", "counts"} with a list of counts or a compressed string, or polygons
            [[x, y, x, y, ...], ...].
        size: (H, W) of the image.

    Returns:
        (H, W) bool.

    Raises:
        DataError: the run lengths or the polygons do not fit the image.

    >>> decode_segmentation({"size": [2, 2], "counts": [1, 3]}, (2, 2)).astype(int).tolist()
    [[0, 1], [1, 1]]
    """
    if isinstance(segmentation, list):
        polygons = [np.reshape(xy, (-1, 2)).astype(float) for xy in segmentation]
        near = [len(xy) >= 3 and (np.abs(xy) <= 2 * max(size)).all() for xy in polygons]
        if near and all(near):
            return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(segmentation, *size))) > 0
    elif list(segmentation["size"]) == list(size):
        counts = segmentation["counts"]
        if not isinstance(counts, str):
            if sum(counts) == size[0] * size[1] and min(counts) >= 0:
                return np.repeat(np.arange(len(counts)) % 2 > 0, counts).reshape(size, order="F")
        elif re.fullmatch("[0-o]*[0-O]", counts):  # the last character ends a number
            with suppress(ValueError):  # more pixels than the image has
                mask = coco_mask.decode(segmentation)
                if coco_mask.encode(mask)["counts"] == counts.encode():
                    return mask > 0
    raise DataError(f"a segmentation does not fit an image of {list(size)}: {str(segmentation)[:80]}")
