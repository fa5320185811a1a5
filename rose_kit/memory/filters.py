"""Which rows a search may return, and which rows a change is about."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rose_kit.memory.checks import Scalar, name_list, near
from rose_kit.memory.rows import Rows

Where = Mapping[str, Scalar | Collection[Scalar]] | Callable[[Mapping[str, Scalar]], bool]


@dataclass(frozen=True)
class Filter:
    """What `SupportMemory.search` was asked to search among.

    Args:
        classes: class names; None: any.
        exclude_images: image ids to pass over. A merged row is passed over if any of its images is named.
        where: metadata that a row must have (a value, or a list, tuple or set of which one must be met),
            or a predicate on its metadata.

    Raises:
        ValueError: a text where a list is meant, or `where` is neither a mapping nor a function.
    """

    classes: tuple[str, ...] | None = None
    exclude_images: tuple[str, ...] = ()
    where: Where | None = None

    @classmethod
    def of(cls, classes: Iterable[str] | None, exclude_images: Iterable[str], where: Where | None) -> Filter:
        """Check the arguments of `SupportMemory.search`."""
        if not (where is None or callable(where) or isinstance(where, Mapping)):
            raise ValueError(f"where must be a mapping or a function, got {where!r}")
        names = None if classes is None else tuple(name_list("classes", classes))
        return cls(names, tuple(name_list("exclude_images", exclude_images)), where)

    def mask(self, rows: Rows) -> NDArray[np.bool_] | None:
        """(P,) the rows that may be returned; None: all."""
        allowed = np.ones(len(rows), dtype=bool)
        if self.exclude_images:
            allowed &= ~of_images(rows, self.exclude_images)
        if self.classes is not None:
            allowed &= among(rows.class_names, self.classes)
        if self.where is not None:
            fits = self.where if callable(self.where) else self._meets
            seen = {id(facts): facts for facts in rows.metadata}  # rows of one picture share their facts
            answers = {key: bool(fits(facts)) for key, facts in seen.items()}
            allowed &= np.fromiter((answers[id(facts)] for facts in rows.metadata), bool, len(rows))
        return None if allowed.all() else allowed

    def _meets(self, facts: Mapping[str, Scalar]) -> bool:
        return all(
            key in facts
            and (
                facts[key] in want if isinstance(want, list | tuple | set | frozenset) else facts[key] == want
            )
            for key, want in self.where.items()
        )


def among(column: NDArray[np.str_], names: Iterable[str]) -> NDArray[np.bool_]:
    """(P,) whether each text is one of a few names."""
    found = np.zeros(len(column), dtype=bool)
    for name in set(names):
        found |= column == name
    return found


def of_images(rows: Rows, image_ids: Collection[str]) -> NDArray[np.bool_]:
    """(P,) the rows that came from these images, alone or merged with others."""
    found = among(rows.image_ids, image_ids)
    for n in rows.merged:
        found[n] |= any(image_id in image_ids for image_id, *_ in rows.origins[n])
    return found


def belonging(rows: Rows, image_id: str | None, class_name: str | None) -> NDArray[np.bool_]:
    """(P,) the rows of an image, of a class, or of both; raises ValueError if there are none."""
    if image_id is None and class_name is None:
        raise ValueError("which rows? Give image_id, class_name or both")
    found = np.ones(len(rows), dtype=bool)
    for what, name, column in (("image", image_id, rows.image_ids), ("class", class_name, rows.class_names)):
        if name is None:
            continue
        match = found & (of_images(rows, [name]) if what == "image" else column == name)
        if not match.any():
            inside = f" in image {image_id!r}" if what == "class" and image_id is not None else ""
            known = list(dict.fromkeys(column[found].tolist()))
            raise ValueError(f"there is no {what} {name!r}{inside}; {near(str(name), known)}")
        found = match
    return found
