"""One small registry for everything that has a name: encoders, methods, regions, datasets, providers.

A registry is a dict with three manners: it refuses to overwrite in silence, it lists what it holds
when a name is wrong, and it finds what lives outside the package: in a plugin file, or in an installed
package that announces it under the entry-point group `rose_kit.datasets` (`.encoders`, `.methods` ...).
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
import warnings
from collections import defaultdict
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from rose_kit.types import unknown_name


class Registry(dict[str, Callable[..., Any]]):
    """Names -> factories.

    >>> methods = Registry("method")
    >>> @methods.register("constant")
    ... def constant(value=1): return value
    >>> methods.make("constant", value=3)
    3
    >>> methods.make("constnat")
    Traceback (most recent call last):
    ...
    ValueError: unknown method 'constnat', did you mean 'constant'? Known: constant
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.group = f"rose_kit.{kind.removesuffix('s')}s"

    def register(self, name: str) -> Callable:
        """Decorator: store a class or function under `name`; warns when it replaces another."""
        caller = sys._getframe(1).f_globals.get("__name__")  # the module whose line this is

        def store(factory: Callable) -> Callable:
            if name in self and self[name] is not factory:
                warnings.warn(f"{self.kind} {name!r} is registered again; the new one wins", stacklevel=2)
            self[name] = factory
            _REGISTERED.append((caller, self, name, factory))
            return factory

        return store

    def names(self) -> list[str]:
        """All names, sorted: those registered here, and those that installed packages announce."""
        return sorted({*self, *entry_points(group=self.group).names})

    def find(self, name: str) -> Callable[..., Any]:
        """The factory under `name`; that of another package is imported when it is first asked for.

        Raises:
            ValueError: the name is unknown (the message lists the known ones).
        """
        if name not in self:
            known = self.names()
            if name not in known:
                raise unknown_name(self.kind, name, known)
            [found] = entry_points(group=self.group, name=name)
            self[name] = found.load()
        return self[name]

    def make(self, name: str, /, **options: Any) -> Any:
        """Build what is registered under `name` with `options`.

        Raises:
            ValueError: the name is unknown (the message lists the known ones), or an option is.
        """
        factory = self.find(name)
        try:
            return factory(**options)
        except TypeError as error:  # an option that it lacks, or one of another type
            raise ValueError(f"{self.kind} {name!r} with options {options}: {error}") from error


encoders = Registry("encoder")
methods = Registry("method")
region_makers = Registry("regions")
fusions = Registry("fusion")  # name -> class of (dim: int) -> module of the trainable ROSE
datasets = Registry("dataset")  # name -> options -> (support, query)
providers = Registry("provider")  # name -> where the web framework searches
register_encoder = encoders.register
register_method = methods.register
register_regions = region_makers.register
register_fusion = fusions.register
register_dataset = datasets.register
register_provider = providers.register


# Every registration in their order: the module that made it, where, under which name, and of what.
_REGISTERED: list[tuple[str | None, Registry, str, Callable]] = []
_PLUGINS: dict[Path, list[tuple[Registry, str, Callable]]] = {}  # file -> what it registered


def load_plugin(path: str | Path) -> dict[str, list[str]]:
    """Run a Python file so that its `@register_...` lines take effect.

    What the file registered when it was loaded before is removed first.

    Args:
        path: of the file.

    Returns:
        kind ("method", "encoder" ...) -> the names that it registers; an empty list for other kinds.

    Raises:
        ValueError: the file does not exist or is not a Python file, or its code raises; says where.
    """
    path = Path(path)
    if path.suffix != ".py" or not path.is_file():
        raise ValueError(f"plugin {str(path)!r} is not a Python file")
    for registry, name, factory in _PLUGINS.pop(path.resolve(), []):
        if registry.get(name) is factory:  # another file may have taken the name since
            del registry[name]
    before = len(_REGISTERED)
    module = f"rose_kit_plugin_{path.stem}"
    _run(path, module)
    own = [entry for caller, *entry in _REGISTERED[before:] if caller == module]  # not what it imports
    _PLUGINS[path.resolve()] = own
    names: dict[str, list[str]] = defaultdict(list)
    for registry, name, _ in own:
        names[registry.kind].append(name)
    return names


def _run(path: Path, name: str) -> None:
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's own code raises
        own = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == spec.origin]
        line = error.lineno if isinstance(error, SyntaxError) else [1, *own][-1]  # 1: it is not text
        raise ValueError(f"plugin {str(path)!r}, line {line}: {type(error).__name__}: {error}") from error
