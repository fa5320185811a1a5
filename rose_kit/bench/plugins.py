"""What a plugin file brings: told by the registries before and after loading it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rose_kit.registry import Registry, encoders, load_plugin, methods

_BROUGHT: dict[Path, list[tuple[Registry, str, Callable]]] = {}  # file -> what it registered, and where


def load_own(path: str | Path) -> list[str]:
    """Load a plugin; what it brought when it was loaded before is forgotten first.

    Args:
        path: of the file.

    Returns:
        The names of the methods that it registers.

    Raises:
        ValueError: as `load_plugin`.
    """
    file = Path(path).resolve()
    for registry, name, made in _BROUGHT.pop(file, []):
        if registry.get(name) is made:
            del registry[name]
    before = [(registry, dict(registry)) for registry in (methods, encoders)]
    load_plugin(path)
    brought = [(r, name, made) for r, old in before for name, made in r.items() if old.get(name) is not made]
    _BROUGHT[file] = brought
    return [name for registry, name, _ in brought if registry is methods]


def from_plugin(registry: Registry, name: str) -> bool:
    """Whether a file that `load_own` loaded registered this name."""
    made = registry.get(name)
    return any(
        r is registry and made is one for each in _BROUGHT.values() for r, key, one in each if key == name
    )
