"""One small registry for everything that has a name: encoders, regions and methods.

A registry is a dict with three manners: it refuses to overwrite in silence, it lists what it holds
when a name is wrong, and it loads a plugin file so that a variant can live outside the package.
"""

from __future__ import annotations

import difflib
import importlib.util
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any


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

    def register(self, name: str) -> Callable:
        """Decorator: store a class or function under `name`; warns when it replaces another."""

        def keep(factory: Callable) -> Callable:
            if name in self and self[name] is not factory:
                warnings.warn(f"{self.kind} {name!r} is registered again; the new one wins", stacklevel=2)
            self[name] = factory
            return factory

        return keep

    def make(self, name: str, /, **options: Any) -> Any:
        """Build what is registered under `name` with `options`.

        Raises:
            ValueError: the name is unknown (the message lists the known ones).
        """
        if name not in self:
            near = difflib.get_close_matches(name, self, n=1)
            hint = f", did you mean {near[0]!r}?" if near else "."
            raise ValueError(f"unknown {self.kind} {name!r}{hint} Known: {', '.join(sorted(self))}")
        return self[name](**options)


encoders = Registry("encoder")
methods = Registry("method")
region_makers = Registry("regions")
register_encoder = encoders.register
register_method = methods.register
register_regions = region_makers.register


def load_plugin(path: str | Path) -> None:
    """Run a Python file so that its `@register_method` and `@register_encoder` lines take effect.

    Raises:
        ValueError: the file does not exist or is not a Python file, or its code raises; says where.
    """
    path = Path(path)
    if path.suffix != ".py" or not path.is_file():
        raise ValueError(f"plugin {str(path)!r} is not a Python file")
    name = f"rose_kit_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's own code raises
        own = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == spec.origin]
        line = error.lineno if isinstance(error, SyntaxError) else [1, *own][-1]  # 1: it is not text
        raise ValueError(f"plugin {str(path)!r}, line {line}: {type(error).__name__}: {error}") from error
