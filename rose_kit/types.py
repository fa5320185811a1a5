"""What one stage of the pipeline hands to the next.

Perception makes a `FeatureMap`; a `Vocabulary` lists the classes to choose from; a `Query` holds the patches
or regions of one image; a `Prediction` holds the class probabilities of each of them, with its `Evidence`; a
`Segmentation` holds the class of each pixel. All are read as NumPy arrays. Between the stages they hold
tensors on the device of the encoder, which become arrays when somebody reads them (`OnDemand`); a function of
tensors that users call with arrays has a `numpy_door`.
"""

from __future__ import annotations

import csv
import difflib
import functools
import io
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:  # torch takes seconds to import
    import torch
    from torch import Tensor

IGNORE = 255  # the label of pixels that masks and metrics leave out
LeaveOut = Callable[[NDArray[np.int64]], NDArray[np.float32]]  # see `Evidence`


class TextEncoder(Protocol):
    """Anything that turns class names into unit-norm text features."""

    def encode_text(self, names: Sequence[str]) -> NDArray[np.float32]: ...  # -> (len(names), D)


def unit(x: ArrayLike, axis: int = -1) -> NDArray[np.float32]:
    """Scale vectors to unit Euclidean norm; a zero vector stays zero, a NaN vector stays NaN.

    Args:
        x: any array with vectors along `axis`.
        axis: the axis that holds the vectors' components.

    Returns:
        float32 array of the same shape.

    >>> unit([[3.0, 4.0], [0.0, 0.0]]).round(2).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    x = np.asarray(x, dtype=np.float32)
    norm = np.linalg.norm(x, axis=axis, keepdims=True)
    return x / np.where(norm == 0, np.float32(1), norm)


def unknown_name(what: str, name: object, known: Iterable[str]) -> ValueError:
    """The error for an unknown name: it lists the known ones, and suggests the nearest.

    >>> unknown_name("method", "knnclip", ["knn-clip", "rns"])
    ValueError("unknown method 'knnclip', did you mean 'knn-clip'? Known: knn-clip, rns")
    """
    known = list(known)
    alike = [other for other in known if _folded(other) == _folded(str(name))]
    near = alike or difflib.get_close_matches(str(name), known, n=1)
    hint = f", did you mean {near[0]!r}?" if near else "."
    listed = ", ".join(f'"{other}"' if "," in other else other for other in known[:20])
    listed += f" and {len(known) - 20} more" if len(known) > 20 else ""
    return ValueError(f"unknown {what} {name!r}{hint} Known: {listed or 'none'}")


def _folded(name: str) -> str:
    """A name without regard to case, to how many blanks part its words, and to Unicode form."""
    return " ".join(composed(name).casefold().split())


def composed(text: str) -> str:
    """Text in Unicode's composed form (NFC): "é" is one character, whatever wrote it."""
    return unicodedata.normalize("NFC", text)


def class_name(text: str) -> str:
    """The name of a class as it is stored and compared everywhere: in Unicode's composed form.

    Raises:
        ValueError: no question could ask for this name: it is no text or empty, has blanks around it, or
            holds "|", which separates the texts of one class, a line break or another invisible character.

    >>> class_name("cafe\u0301") == "caf\u00e9"
    True
    """
    name = composed(text) if isinstance(text, str) else ""
    # Joiners are part of the spelling in some scripts.
    hidden = {unicodedata.category(c) for c in name if not c.isprintable() and c not in "\u200c\u200d"}
    if not name or name != name.strip() or "|" in name or hidden & {"Cc", "Cf", "Cs", "Zl", "Zp"}:
        allowed = "text without '|', blanks around it, line breaks and invisible characters"
        raise ValueError(f"{text!r} cannot name a class: expected {allowed}")
    return name


def class_texts(name: str) -> list[str]:
    """The texts of a class, of which the first is its name: "background|wall|sky" has three.

    Raises:
        ValueError: one of them cannot name a class; blanks around each are no matter.
    """
    if not isinstance(name, str):
        return [class_name(name)]  # which refuses it
    return [class_name(text.strip()) for text in name.split("|")]


def class_names(names: Iterable[str]) -> tuple[str, ...]:
    """The names of different classes, each by `class_name`.

    Warns:
        UserWarning: two names differ only in case or in blanks.

    Raises:
        ValueError: a name cannot name a class, or two are the same.
    """
    names = tuple(map(class_name, names))
    if repeated := sorted(name for name, count in Counter(names).items() if count > 1):
        raise ValueError(f"class names repeat: {', '.join(repeated)}")
    first: dict[str, str] = {}
    for name in names:
        if (other := first.setdefault(_folded(name), name)) != name:
            warnings.warn(f"two classes differ only in case or blanks: {other!r}, {name!r}", stacklevel=1)
    return names


def split_names(line: str) -> list[str]:
    """The cells of a line of CSV, without blanks around them.

    Raises:
        ValueError: quotes do not pair, or a line break is outside of them.

    >>> split_names('sky, "red, dark"')
    ['sky', 'red, dark']
    """
    try:
        [cells] = csv.reader([line.strip()], skipinitialspace=True, strict=True)
    except csv.Error as error:
        raise ValueError(f"{line[:80]!r} is not CSV: {error}") from None
    return [cell.strip() for cell in cells]


def join_names(cells: Iterable[str]) -> str:
    """The line of CSV that `split_names` splits into these cells."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()


def check_positive(**values: float | None) -> None:
    """Raise ValueError for the first value that is not above 0; None means "not given" and passes."""
    for name, value in values.items():
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be positive, got {value!r}")


def check_share(**values: float) -> None:
    """Raise ValueError for the first value that is not in [0, 1]."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {value!r}")


def show_html(shown: Any) -> str:
    """What a notebook shows of an object, by `rose_kit.viz.html`, which is loaded then."""
    return import_module("rose_kit.viz.html").to_html(shown)


# --- arrays and tensors -----------------------------------------------------------------------------------


def to_array(x: Any) -> Any:
    """A tensor -> an array, one number -> that number; also within tuples, lists and `Columns`."""
    if hasattr(x, "detach"):
        return x.detach().cpu().numpy() if x.ndim else x.item()
    return _map(to_array, x)


def to_tensor(x: Any, device: Any = "cpu") -> Any:
    """An array or a tensor -> a tensor on a device, without a copy where it is there; else as `to_array`."""
    import torch

    if isinstance(x, np.ndarray) and x.dtype.kind in "fiub":
        x = torch.from_numpy(
            np.require(x, requirements=["C", "W"])
        )  # torch warns of arrays that are read-only
    return x.to(device) if isinstance(x, torch.Tensor) else _map(lambda part: to_tensor(part, device), x)


def tensor_on(device: torch.device, owner: Any, name: str) -> Tensor:
    """A column of an object that never changes, on a device, where it stays as long as the object does."""
    if device.type == "cpu":
        return to_tensor(getattr(owner, name))
    copies = vars(owner).setdefault("copies", {})
    if (name, device) not in copies:
        copies[name, device] = to_tensor(getattr(owner, name), device)
    return copies[name, device]


def _leaves(x: Any) -> Iterator[Any]:
    x = tuple(vars(x).values()) if isinstance(x, Columns) else x
    if not isinstance(x, list | tuple):
        yield x
        return
    for part in x:
        yield from _leaves(part)


def _map(function: Callable[[Any], Any], x: Any) -> Any:
    if isinstance(x, Columns):
        return type(x)(*map(function, vars(x).values()))
    return type(x)(map(function, x)) if isinstance(x, list | tuple) else x


class Columns:
    """Base of dataclasses that hold arrays alone, or tensors of one device alone."""


def numpy_door(function: Callable) -> Callable:
    """Torch inside, NumPy at the door: a function of tensors takes arrays as well, and then returns arrays.

    Where some arguments are tensors, the arrays among the others go to their device, and tensors come back.
    """

    @functools.wraps(function)
    def door(*args: Any, **options: Any) -> Any:
        device = next((x.device for x in _leaves([args, *options.values()]) if hasattr(x, "detach")), None)
        args = [to_tensor(x, device or "cpu") for x in args]
        options = {name: to_tensor(x, device or "cpu") for name, x in options.items()}
        result = function(*args, **options)
        return to_array(result) if device is None else result

    return door


class OnDemand:
    """A field of a dataclass that is given as a tensor or a function, and read as an array or its result.

    It becomes that when it is first read. An array, and whatever else is given, is read as it is.
    """

    def __init__(self, *default: Any) -> None:
        self.default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self.name, self.given = name, f"_{name}"

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:  # asked by `dataclass`
            if not self.default:
                raise AttributeError(self.name)
            return self.default[0]
        own = vars(instance)
        if self.name not in own:
            given = own[self.given]
            own[self.name] = given() if callable(given) else to_array(given)
        return own[self.name]

    def __set__(self, instance: Any, value: Any) -> None:
        vars(instance)[self.given] = value


class Record:
    """Base of dataclasses that hold arrays: equal if all they hold is, and told in a line."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and all(
            _same(getattr(self, one.name), getattr(other, one.name)) for one in fields(self) if one.compare
        )

    def __repr__(self) -> str:
        own = vars(self)  # where what was not asked for yet is not computed
        values = {one.name: own.get(one.name, own.get(f"_{one.name}")) for one in fields(self) if one.repr}
        return f"{type(self).__name__}({', '.join(f'{name}={_short(x)}' for name, x in values.items())})"


def _same(a: Any, b: Any) -> bool:
    if not (isinstance(a, np.ndarray) and isinstance(b, np.ndarray)):
        return type(a) is type(b) and a == b
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())  # NaN is NaN


def _short(x: Any) -> str:
    if hasattr(x, "dtype"):
        return f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}"
    if isinstance(x, tuple) and len(x) > 6:
        return f"({', '.join(map(repr, x[:5]))}, ... {len(x)} in all)"
    return "..." if callable(x) else repr(x)


class OnDevice(Record):
    """Base of dataclasses whose first field is `OnDemand`."""

    @property
    def tensor(self) -> Tensor:
        """The first field where it was made: on the encoder's device, or the CPU if it came as an array."""
        given = vars(self)[f"_{fields(self)[0].name}"]
        return given if hasattr(given, "detach") else to_tensor(np.asarray(given))


@dataclass(frozen=True, eq=False, repr=False)
class FeatureMap(OnDevice):
    """Dense features of one image: one unit-norm vector per patch.

    Args:
        values: (h, w, D) float32, unit norm along D; an array or a tensor, read as an array.
        patch_size: side of a patch, in pixels of the encoded image.
        encoded_size: (H', W') of the image as encoded, before padding to whole patches;
            hence h = ceil(H' / patch_size) and w = ceil(W' / patch_size).
        image_size: (H, W) of the image as given; masks and labels live at this size.

    Raises:
        ValueError: the shapes do not fit each other.
    """

    values: NDArray[np.float32] = OnDemand()
    patch_size: int
    encoded_size: tuple[int, int]
    image_size: tuple[int, int]

    def __post_init__(self) -> None:
        h, w = (-(-side // self.patch_size) for side in self.encoded_size)
        shape = tuple(self.tensor.shape)
        if len(shape) != 3 or shape[:2] != (h, w):
            size = f"encoded_size {self.encoded_size} and patch_size {self.patch_size}"
            raise ValueError(f"values of {size} must be ({h}, {w}, D), got shape {shape}")

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w): patches down and across."""
        return tuple(self.tensor.shape[:2])

    @property
    def dim(self) -> int:
        """D: the width of a feature."""
        return self.tensor.shape[2]

    def flat(self) -> NDArray[np.float32]:
        """(h * w, D): the patches in row-major order."""
        return self.values.reshape(-1, self.dim)


@dataclass(frozen=True, eq=False, repr=False)
class Vocabulary(Record):
    """The classes to choose from, each with no, one or several texts.

    Args:
        names: (C,) class names, all different; they are kept as `class_name` gives them.
        text: (T, D) float32 unit-norm text features, or None for no text at all. A row of NaN is a
            missing text.
        owner: (T,) class index of each text row; by default row i belongs to class i.

    Raises:
        ValueError: as `class_names`, or the shapes do not fit each other.

    >>> Vocabulary(names=["sky", "bus"], text=np.eye(3), owner=[0, 0, 1]).has_text.tolist()
    [True, True]
    """

    names: Sequence[str]  # read as a tuple
    text: NDArray[np.float32] | None = None
    owner: NDArray[np.int64] = field(default=None)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", class_names(self.names))
        if self.text is not None:
            object.__setattr__(self, "text", np.asarray(self.text, dtype=np.float32))
            if self.text.ndim != 2:
                raise ValueError(f"text must be (T, D), got shape {self.text.shape}")
        rows = 0 if self.text is None else len(self.text)
        owner = np.arange(rows) if self.owner is None else np.asarray(self.owner, dtype=np.int64)
        object.__setattr__(self, "owner", owner)
        if owner.shape != (rows,) or not np.isin(owner, range(len(self.names))).all():
            expected = f"for each of {rows} texts one of {len(self.names)} classes"
            raise ValueError(f"owner must hold {expected}, got {owner.tolist()}")

    @classmethod
    def encode(cls, names: Sequence[str], encoder: TextEncoder) -> Vocabulary:
        """Encode class names; "background|wall|sky" is one class, background, with three texts.

        Args:
            names: (C,) names, each optionally followed by `|`-separated further texts.
            encoder: anything with `encode_text`.

        Raises:
            ValueError: a text is empty or cannot name a class.
        """
        groups = [class_texts(name) for name in names]
        texts = [text for group in groups for text in group]
        owner = [c for c, group in enumerate(groups) for _ in group]
        return cls(tuple(group[0] for group in groups), encoder.encode_text(texts), np.array(owner))

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str) -> int:
        """Position of a class name.

        Raises:
            ValueError: the name is not in the vocabulary; lists those that are.
        """
        if (name := composed(name)) not in self.names:
            raise unknown_name("class", name, self.names)
        return self.names.index(name)

    @cached_property
    def has_text(self) -> NDArray[np.bool_]:
        """(C,) whether a class has at least one text that is not missing."""
        present = [] if self.text is None else self.owner[~np.isnan(self.text).any(1)]
        return np.isin(np.arange(len(self)), present)

    @cached_property
    def completed(self) -> Vocabulary:
        """The same classes, each with a text: where all texts of a class are missing, the mean of the others.

        The convention of RNS for missing text. A class that keeps at least one of its texts just
        loses the missing ones: there is no row of NaN.

        Raises:
            ValueError: no class has text.

        >>> v = Vocabulary(names=["a", "b"], text=[[0, 1], [np.nan, np.nan]]).completed
        >>> v.text.tolist(), v.owner.tolist()
        ([[0.0, 1.0], [0.0, 1.0]], [0, 1])
        """
        if not self.has_text.any():
            raise ValueError(f"no class of the vocabulary has text: {', '.join(self.names)}")
        keep = ~np.isnan(self.text).any(1)
        present, missing = self.text[keep], np.flatnonzero(~self.has_text)
        text = np.concatenate([present, np.tile(unit(present.mean(0)), (len(missing), 1))])
        return Vocabulary(self.names, text, np.concatenate([self.owner[keep], missing]))

    def tensors(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """`text` and `owner` on a device, where they stay as long as the vocabulary does."""
        return tensor_on(device, self, "text"), tensor_on(device, self, "owner")

    def without_text(self, names: Sequence[str]) -> Vocabulary:
        """The same vocabulary with the texts of some classes missing (NaN rows)."""
        missing = np.isin(self.owner, [self.index(name) for name in names])  # (T,)
        text = None if self.text is None else np.where(missing[:, None], np.float32(np.nan), self.text)
        return Vocabulary(self.names, text, self.owner)


@dataclass(frozen=True, eq=False, repr=False)
class Query(OnDevice):
    """The patches or regions of one image, to be labelled.

    Args:
        features: (N, D) float32, unit norm; an array or a tensor, read as an array.
        layout: (h, w) when the N features are a row-major grid of patches, or an (H, W) integer
            map whose value at a pixel is the row of its region in `features`. None: unordered.
        image_feature: (D,) feature of the whole image, of any norm; by default the mean of `features`.

    Raises:
        ValueError: the shapes do not fit each other.
    """

    features: NDArray[np.float32] = OnDemand()
    layout: tuple[int, int] | NDArray[np.int64] | None = None
    image_feature: NDArray[np.float32] = OnDemand(None)

    def __post_init__(self) -> None:
        features = self.tensor.detach().float()
        if features.ndim != 2 or not len(features):
            raise ValueError(f"query features must be (N, D) with N > 0, got shape {tuple(features.shape)}")
        object.__setattr__(self, "features", features)
        if isinstance(self.layout, tuple) and self.layout[0] * self.layout[1] != len(features):
            raise ValueError(f"layout {self.layout} does not hold {len(features)} patches")
        if isinstance(self.layout, np.ndarray) and not (
            self.layout.ndim == 2 and 0 <= self.layout.min() and self.layout.max() < len(features)
        ):
            raise ValueError(f"the region map points outside the {len(features)} regions")
        if vars(self)["_image_feature"] is None:
            object.__setattr__(self, "image_feature", features.mean(0))

    @classmethod
    def of(cls, query: Query | FeatureMap | ArrayLike) -> Query:
        """Accept a Query, a FeatureMap or a bare (N, D) array or tensor."""
        if isinstance(query, FeatureMap):
            return cls(query.tensor.flatten(0, 1), query.grid)
        return query if isinstance(query, Query) else cls(query)

    @property
    def image_tensor(self) -> Tensor:
        """(D,) the feature of the whole image, on the device of `tensor`."""
        return to_tensor(vars(self)["_image_feature"], self.tensor.device)

    def __len__(self) -> int:
        return len(self.tensor)


@dataclass(frozen=True, eq=False, repr=False)
class Evidence(Record):
    """What each prototype did for each prediction, one row per patch or region and prototype.

    The score that is explained is that of the class that won the patch, as the method has it before it makes
    probabilities (`Prediction.scores`): a logit for RNS, a mixed score for late fusion. Between patches, a
    pixel may be labelled with the class of its neighbour.

    A weight is a share of the score as it is. It does not say what would happen without the prototype, since
    the others would then fill its place; the effect does. It is costly, so it is computed when asked for:

        evidence = method.predict(query, memory, vocabulary).evidence.with_effects()

    Args:
        query: (E,) int64, row of the patch or region in `Query.features`; `query_map` of
            `rose_kit.segmenter` has it for each pixel.
        prototype_id: (E,) int64, id of a prototype in the memory; -1: the remainder of the score (text,
            bias, prototypes that are not listed).
        class_name: (E,) the prototype's own class, which need not be the predicted one.
        weight: (E,) float32, the prototype's additive contribution to that score, negative where it lowers
            it. The weights of one query add up to the score.
        effect: (E,) float32, the change of that score, less the mean change over the classes, if this one
            prototype were not in the memory: negative where the prototype helps the class that won. -inf: the
            class could no longer be answered. NaN: not asked for, not known, or a remainder.
        leave_out: (R,) prototype ids -> (R, N) the effect of each of them on all N patches or regions of the
            image; NaN where it is not known. None: the method cannot say.

    Raises:
        ValueError: the columns differ in length.
    """

    query: NDArray[np.int64]
    prototype_id: NDArray[np.int64]
    class_name: NDArray[np.str_]
    weight: NDArray[np.float32]
    effect: NDArray[np.float32] = field(default=None)  # type: ignore[assignment]
    leave_out: LeaveOut | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.effect is None:
            object.__setattr__(self, "effect", np.full(len(self.weight), np.nan, np.float32))
        sizes = {len(column) for column in self.columns().values()}
        if len(sizes) != 1:
            raise ValueError(f"evidence columns differ in length: {sorted(sizes)}")

    def __len__(self) -> int:
        return len(self.query)

    def top(self, query: int, n: int = 5) -> Evidence:
        """The n rows of one query with the largest absolute weight, strongest first."""
        rows = np.flatnonzero(self.query == query)
        rows = rows[np.argsort(-np.abs(self.weight[rows]), kind="stable")[:n]]
        return replace(self, **{name: column[rows] for name, column in self.columns().items()})

    def strongest(self, n: int = 5) -> NDArray[np.int64]:
        """The ids of the n prototypes with the largest absolute weight in any row, strongest first."""
        rows = np.argsort(-np.abs(self.weight), kind="stable")
        ids = self.prototype_id[rows][self.prototype_id[rows] >= 0]
        return ids[np.sort(np.unique(ids, return_index=True)[1])][:n]

    def with_effects(self, prototype_ids: ArrayLike | None = None) -> Evidence:
        """The same evidence with the effects of its prototypes; what was computed once is kept.

        Args:
            prototype_ids: of the prototypes to ask about; None: all that are listed. Each takes as long as
                one or two predictions.

        Returns:
            Evidence whose `effect` is NaN only in remainder rows, in rows of prototypes that were not asked
            about, and where the method cannot say.

        Raises:
            ValueError: the evidence does not list one of the prototypes.
        """
        listed = np.unique(self.prototype_id[self.prototype_id >= 0])
        ids = listed if prototype_ids is None else np.unique(prototype_ids)
        if len(unlisted := np.setdiff1d(ids, listed)):
            raise ValueError(f"the evidence lists no prototype {unlisted[0]}; it lists {listed.tolist()}")
        if self.leave_out is None or not len(ids):
            return self
        rows = np.flatnonzero(np.isin(self.prototype_id, ids))
        effect, changes = self.effect.copy(), self.leave_out(ids)  # (E,), (R, N)
        effect[rows] = changes[np.searchsorted(ids, self.prototype_id[rows]), self.query[rows]]
        return replace(self, effect=effect)

    _repr_html_ = show_html

    def columns(self) -> dict[str, NDArray]:
        """The five columns by name, as `pandas.DataFrame` takes them."""
        return {name: column for name, column in vars(self).items() if name != "leave_out"}


@dataclass(frozen=True, eq=False, repr=False)
class Prediction(OnDevice):
    """The class probabilities of each patch or region.

    Args:
        probabilities: (N, C) float32, rows sum to 1.
        evidence: the prototypes that contributed, or None where a method cannot say; or a function that makes
            it, since it costs more than the prediction, and many never read it.
        scores: (N, C) float32, what the probabilities were made of, and what the evidence explains; -inf
            where a class has none. None where a method has nothing but probabilities.

    `np.asarray(prediction)` is its probabilities.
    """

    probabilities: NDArray[np.float32] = OnDemand()
    evidence: Evidence | None = OnDemand(None)
    scores: NDArray[np.float32] | None = OnDemand(None)

    def __array__(self, dtype=None, copy=None) -> NDArray:
        return np.array(self.probabilities, dtype=dtype, copy=copy)


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation(Record):
    """The class of each pixel.

    Args:
        labels: (H, W) int64 into `names`, at the image's own size.
        scores: (C, h, w) float32, the probabilities before upsampling (patches), or at pixel size
            (regions).
        names: (C,) class names.
        evidence: of the patches or regions, or None; or a function that makes it.
        image: (H, W, 3) uint8, what was segmented, or None; or a function that makes it.

    `np.asarray(segmentation)` is its labels.
    """

    labels: NDArray[np.int64] = OnDemand()
    scores: NDArray[np.float32] = OnDemand()
    names: tuple[str, ...]
    evidence: Evidence | None = OnDemand(None)
    image: NDArray[np.uint8] | None = OnDemand(None)

    def __array__(self, dtype=None, copy=None) -> NDArray:
        return np.array(self.labels, dtype=dtype, copy=copy)

    _repr_html_ = show_html

    def overlay(self, image: Any = None) -> NDArray[np.uint8]:
        """(H, W, 3) uint8: the classes over the image, with their names; see `rose_kit.viz.overlay`.

        Args:
            image: as for `Segmenter`, of the labels' size; None: the one that was segmented.

        Raises:
            ValueError: there is no image, or it has another size.
        """
        if (image := self.image if image is None else image) is None:
            raise ValueError("this segmentation does not hold its image; give it: overlay(image)")
        return import_module("rose_kit.viz.overlay").overlay(image, self.labels, self.names)

    def save(self, path: str | Path) -> None:
        """Write the labels to a PNG, which shows them in the colours of `overlay`; in one step."""
        import_module("rose_kit.viz.export").save_labels(path, self.labels)

    def to_supervision(self) -> Any:
        """The mask of each class as `supervision.Detections`, with its box, class id and name.

        Raises:
            ValueError: the package supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise ValueError(f"this needs another package: pip install supervision ({error})") from None
        present = np.unique(self.labels)  # (K,)
        masks = self.labels == present[:, None, None]  # (K, H, W)
        names, boxes = np.array(self.names)[present], supervision.mask_to_xyxy(masks)
        return supervision.Detections(boxes, masks, class_id=present, data={"class_name": names})
