"""A small YAML grid -> the runs of a sweep: lists are crossed, `include` adds, `exclude` takes away."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from rose_kit.data import open_dataset
from rose_kit.evaluation.records import known_methods
from rose_kit.model import FUSIONS
from rose_kit.registry import datasets, encoders, from_plugin, methods

# key -> what it is where the grid does not say; those that are lists here are crossed
DEFAULTS: dict[str, Any] = {
    "method": ["zero-shot", "knn-clip", "freeda", "rns"],
    "fusion": [],
    "encoder": ["bundled"],
    "dataset": [],
    "shots": [1],
    "seeds": [1, 2, 3],
    "limit": None,
}
KEYS = (*DEFAULTS, "include", "exclude")
Item = tuple[str, dict[str, Any]]  # a name, and the options given with it


@dataclass(frozen=True)
class Cell:
    """One run of a grid; its fields are the parameters of `notebooks/experiments/evaluate.ipynb`.

    Args:
        method, options: as for `rose_kit.evaluation.records.make_method`.
        encoder: what `load_encoder` takes.
        data, data_options: as for `rose_kit.data.open_dataset`.
        shots: support images per class.
        seed: of the draw of support images.
        limit: query images to answer, 0 for all.
        plugin: file that brings the method or the encoder, "" for none.
    """

    method: str
    options: dict[str, Any]
    encoder: str
    data: str
    data_options: dict[str, Any]
    shots: int
    seed: int
    limit: int = 0
    plugin: str = ""

    @property
    def parameters(self) -> dict[str, Any]:
        """Name -> value, as papermill takes them."""
        return asdict(self)

    @property
    def label(self) -> str:
        """What the leaderboard calls the method: its name, and what was set."""
        return named(self.method, self.options)

    def __str__(self) -> str:
        where = f"{named(self.data, self.data_options)}, {self.encoder}"
        return f"{self.label} on {where}, shots {self.shots}, seed {self.seed}"


def named(name: str, options: Mapping[str, Any]) -> str:
    """A name with its options.

    >>> named("rns", {"k": 8}), named("photos", {})
    ('rns k=8', 'photos')
    """
    return " ".join([name, *(f"{key}={value}" for key, value in options.items())])


def read_grid(path: str | Path, extra: Sequence[str] = (), plugin: str | Path | None = None) -> list[Cell]:
    """The runs that a YAML file asks for.

    Args:
        path: the file. Keys are those of `DEFAULTS`, each a value or a list. A method or dataset is a name
            or {name: {option: value}}. `fusion` is crossed with methods that have such an option.
            `include` is a list of further grids, which take what they do not say from this one;
            `exclude` lists which runs to leave out, by any of the crossed keys.
        extra: names of methods that join those of every `method` list: a plugin's own.
        plugin: the file that registered them, as `load_plugin` loaded it; other runs do not depend on it.

    Raises:
        ValueError: not a YAML mapping, an unknown key, method, option or dataset, a value of the wrong
            type; the message repeats it and lists the valid ones.
    """
    from papermill.iorw import read_yaml_file

    path = Path(path)
    if path.is_dir():
        raise ValueError(
            f"grid {str(path)!r} is a folder, not a YAML file; see rose-kit sweep --help for one"
        )
    if not path.is_file():
        raise ValueError(f"grid {str(path)!r} does not exist; see rose-kit sweep --help for one")
    try:
        grid = read_yaml_file(str(path))
    except Exception as error:  # of YAML, of its encoding
        why = re.sub(r'\bin "<\w+ string>", ', "at ", " ".join(str(error).split()))
        raise ValueError(f"grid {str(path)!r} is not YAML: {why}") from None
    try:
        return expand({} if grid is None else grid, extra, plugin)
    except ValueError as error:
        raise ValueError(f"grid {str(path)!r}: {error}") from None


def expand(grid: Any, extra: Sequence[str] = (), plugin: str | Path | None = None) -> list[Cell]:
    """As `read_grid`, from what YAML makes of the file; runs that occur twice are kept once."""
    _check_keys(grid, KEYS)
    base = {key: value for key, value in grid.items() if key not in ("include", "exclude")}
    cells = list(_crossed(base, extra, plugin))
    for part in _mappings(grid, "include"):
        _check_keys(part, DEFAULTS, "include: ")
        cells += _crossed(base | part, () if "method" in part else extra, plugin)
    for rule in _mappings(grid, "exclude"):
        _check_keys(rule, [key for key in DEFAULTS if key != "limit"], "exclude: ")
        left = [cell for cell in cells if not _matches(cell, rule)]
        if len(left) == len(cells):
            raise ValueError(f"exclude: no run matches {rule}")
        cells = left
    unique = list({str(sorted(cell.parameters.items())): cell for cell in cells}.values())
    if not unique:
        raise ValueError("every run is excluded")
    return unique


def _crossed(grid: Mapping[str, Any], extra: Sequence[str], plugin: str | Path | None) -> Iterator[Cell]:
    listed = {key: _listed(key, grid.get(key, default)) for key, default in DEFAULTS.items()}
    chosen = [_item("method", value) for value in [*listed["method"], *extra]]
    data = [_item("dataset", value) for value in listed["dataset"]]
    if not data:
        raise ValueError("dataset: nothing is listed; a folder, or the name of a dataset")
    for name, options in data:
        open_dataset(name, options)
    fusions = [_typed("fusion", value, str) for value in listed["fusion"]]
    names = [_typed("encoder", value, str) for value in listed["encoder"]]
    shots = [_typed("shots", value, int, least=1) for value in listed["shots"]]
    seeds = [_typed("seeds", value, int) for value in listed["seeds"]]
    limits = [_typed("limit", value, int, least=1) for value in listed["limit"]]
    if len(limits) > 1:
        raise ValueError(f"limit: one number, not {limits}")
    if fusions and not any("fusion" in _declared(name) for name, _ in chosen):
        raise ValueError(
            f"fusion: none of the methods has one; rose does, {', '.join(n for n, _ in chosen)} not"
        )
    for (d, d_options), encoder, b, (name, options), seed in product(data, names, shots, chosen, seeds):
        brought = from_plugin(methods, name) or from_plugin(encoders, encoder) or from_plugin(datasets, d)
        file = str(plugin) if plugin is not None and brought else ""
        takes = fusions if "fusion" in _declared(name) and "fusion" not in options else []
        for more in [{"fusion": fusion} for fusion in takes] or [{}]:
            _check_options(name, options | more)
            yield Cell(name, options | more, encoder, d, d_options, b, seed, (limits or [0])[0], file)


def _matches(cell: Cell, rule: Mapping[str, Any]) -> bool:
    """Whether a run has all that a rule of `exclude` names."""
    has = {
        "method": [cell.method, {cell.method: cell.options}],
        "fusion": [cell.options.get("fusion")],
        "encoder": [cell.encoder],
        "dataset": [cell.data, {cell.data: cell.data_options}],
        "shots": [cell.shots],
        "seeds": [cell.seed],
    }
    return all(any(value in has[key] for value in _listed(key, rule[key])) for key in rule)


def _check_keys(grid: Any, known: Collection[str], where: str = "") -> None:
    if not isinstance(grid, Mapping):
        raise ValueError(f"{where}expected keys with values, got {grid!r}; keys: {', '.join(known)}")
    for key in grid:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f", did you mean {near[0]!r}?" if near else "."
            raise ValueError(f"{where}unknown key {key!r}{hint} Keys: {', '.join(known)}")


def _mappings(grid: Mapping[str, Any], key: str) -> list[Any]:
    value = grid.get(key) or []
    if not isinstance(value, list):
        raise ValueError(f"{key}: expected a list, each entry with keys of its own, got {value!r}")
    return value


def _listed(key: str, value: Any) -> list[Any]:
    if value is None and DEFAULTS[key] is None:
        return []
    if value is None or (value == [] and DEFAULTS[key]):
        raise ValueError(f"{key}: nothing is listed")
    return value if isinstance(value, list) else [value]


def _item(key: str, value: Any) -> Item:
    """A name, or {name: {option: value}}."""
    if isinstance(value, str):
        return value, {}
    if isinstance(value, Mapping) and len(value) == 1:
        [(name, options)] = value.items()
        if isinstance(name, str) and isinstance(options, Mapping):
            return name, dict(options)
    raise ValueError(f"{key}: {value!r} is neither a name nor {{name: {{option: value}}}}")


def _typed(key: str, value: Any, kind: type, least: int = 0) -> Any:
    if type(value) is not kind or (kind is int and value < least):
        what = "a name" if kind is str else f"a whole number from {least}"
        raise ValueError(f"{key}: {value!r} is not {what}")
    return value


def _declared(name: str) -> dict[str, Any]:
    """Options of a method with their defaults; None where there is no default."""
    known = known_methods()
    if name not in known:
        known.make(name)  # raises, with the names there are
    parameters = inspect.signature(known[name]).parameters.items()
    return {key: None if p.default is p.empty else p.default for key, p in parameters}


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    declared = _declared(name)
    has = ", ".join(f"{key}={default!r}" for key, default in declared.items()) or "none"
    for key, value in options.items():
        default = declared.get(key)
        if key not in declared:
            raise ValueError(f"method: {name} has no option {key!r}; options: {has}")
        numbers = type(default) is float and type(value) is int
        alike = isinstance(default, list | tuple) and isinstance(value, list)
        if default is not None and not numbers and not alike and type(value) is not type(default):
            raise ValueError(
                f"method: {name} {key}: {value!r} is no {type(default).__name__}; options: {has}"
            )
    if name in methods:
        try:
            methods.make(name, **options)  # its own checks of the values
        except Exception as error:
            raise ValueError(f"method: {name} {dict(options)}: {error}") from None
    elif options.get("fusion", "none") not in FUSIONS:
        raise ValueError(f"fusion: {options['fusion']!r} is unknown. Known: {', '.join(FUSIONS)}")
