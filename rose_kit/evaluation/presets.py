"""Settings of `rose-kit evaluate` under one name: small YAML files beside the experiments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from rose_kit.encoder import Windows

FOLDER = Path(__file__).parents[2] / "notebooks" / "experiments" / "presets"  # of a clone


@dataclass(frozen=True)
class Preset:
    """What an evaluation does where nobody says otherwise; the defaults are those without a preset.

    Args:
        methods: names, compared side by side; None means all that see no more than their support.
        options: method -> its options, where they differ from its defaults.
        support_windows, query_windows: how images are scaled and cut before they are encoded; None: as the
            encoder prefers, or else whole.
        seeds: one draw of support images each.
        encoder: what `load_encoder` takes.
        size: side in pixels of images that a dataset draws; None: as it likes.
        regions: maker of regions -> its options, for those who ask for regions at all.
    """

    methods: tuple[str, ...] | None = None
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    support_windows: Windows | None = None
    query_windows: Windows | None = None
    seeds: tuple[int, ...] = (1, 2, 3)
    encoder: str = "bundled"
    size: int | None = None
    regions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def known_presets() -> list[str]:
    """Names of the presets that come with a clone."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_preset(name: str | Path) -> Preset:
    """A preset by its name, or from a YAML file whose keys are the fields of `Preset`.

    Raises:
        ValueError: there is no such preset, or the file is not one; lists what there is.
    """
    from papermill.iorw import read_yaml_file

    path = Path(name) if Path(name).suffix == ".yaml" else FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(
            f"unknown preset {str(name)!r}. Known: {', '.join(known_presets())}, or a .yaml file"
        )
    try:
        told = dict(read_yaml_file(str(path)))
        unknown = sorted(set(told) - {f.name for f in fields(Preset)})
        if unknown:
            raise ValueError(f"unknown key {unknown[0]!r}; keys: {', '.join(f.name for f in fields(Preset))}")
        for key in ("support_windows", "query_windows"):
            if key in told:
                told[key] = Windows(**{k: _frozen(v) for k, v in told[key].items()})
        return Preset(**{key: _frozen(value) for key, value in told.items()})
    except Exception as error:  # of YAML, or of the fields
        raise ValueError(f"preset {str(path)!r}: {' '.join(str(error).split())}") from None


def _frozen(value: Any) -> Any:
    """Lists of YAML as the tuples they stand for, at any depth."""
    if isinstance(value, Mapping):
        return {key: _frozen(one) for key, one in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
