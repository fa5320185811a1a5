"""One small registry for everything that has a name: encoders, methods, regions, datasets, providers.

A registry is a dict that warns before it overwrites, lists what it holds when a name is wrong, and finds
what lives outside the package: in a plugin file, or in an installed package that announces it under the
entry-point group `rose_kit.datasets` (`.encoders`, `.methods` ...).
"""

import inspect
import platform
import runpy
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

from rose_kit.types import unknown_name


def versions() -> dict[str, str]:
    """Package -> version, of what numbers depend on."""
    packages = ("rose_kit", "torch", "open_clip_torch", "faiss-cpu", "numpy")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


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
        self.files: dict[str, str] = {}  # name -> the file whose line registered it

    def register(self, name: str) -> Callable:
        """Decorator: store a class or function under `name`; warns when it replaces another."""
        file = sys._getframe(1).f_code.co_filename  # a factory may be written elsewhere: a class of the kit

        def store(factory: Callable) -> Callable:
            if name in self and self[name] is not factory:
                warnings.warn(f"{self.kind} {name!r} is registered again; the new one wins", stacklevel=2)
            self[name], self.files[name] = factory, file
            return factory

        return store

    def of_file(self, file: Path) -> list[str]:
        """The names that the lines of one file have registered, not those of modules it imports."""
        return [name for name in self if self.files.get(name) == str(file)]

    def names(self) -> list[str]:
        """All names, sorted: those registered here, and those that installed packages announce."""
        return sorted({*self, *entry_points(group=self.group).names})

    def __missing__(self, name: str) -> Callable[..., Any]:
        """The factory under `registry[name]` if another package announces it, imported now.

        Raises:
            ValueError: the name is unknown (the message lists the known ones).
        """
        for entry in entry_points(group=self.group, name=name):
            return self.setdefault(name, entry.load())
        raise unknown_name(self.kind, name, self.names())

    def make(self, name: str, /, **options: Any) -> Any:
        """Build what is registered under `name` with `options`.

        Raises:
            ValueError: the name is unknown (the message lists the known ones), or an option is.
        """
        return call_with(self[name], options, f"{self.kind} {name!r}")


def call_with(factory: Callable[..., Any], options: Mapping[str, Any], what: str) -> Any:
    """What a factory makes of options; `what` names it in the error.

    Raises:
        ValueError: it lacks an option, or cannot take one of that type.
    """
    known = inspect.signature(factory).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        for name in options.keys() - known.keys():
            raise unknown_name(f"option of {what}:", name, known)
    try:
        return factory(**options)
    except TypeError as error:
        raise ValueError(f"{what} with options {options}: {error}") from error


encoders = Registry("encoder")
methods = Registry("method")
region_makers = Registry("regions")
fusions = Registry("fusion")  # name -> class of (dim: int) -> module of the trainable ROSE
datasets = Registry("dataset")  # name -> options -> (support, query)
providers = Registry("provider")  # name -> where the web framework searches
segmenters = Registry("segmenter")  # name -> what the web framework asks in words
language_models = Registry("language model")  # name -> prompt -> answer
REGISTRIES = (encoders, methods, region_makers, fusions, datasets, providers, segmenters, language_models)
register_encoder = encoders.register
register_method = methods.register
register_regions = region_makers.register
register_fusion = fusions.register
register_dataset = datasets.register
register_provider = providers.register
register_segmenter = segmenters.register
register_language_model = language_models.register


def load_plugin(path: str | Path) -> dict[str, list[str]]:
    """Run a Python file so that its `@register_...` lines take effect.

    What the file registered when it was loaded before is removed first.

    Args:
        path: of the file.

    Returns:
        kind ("method", "encoder" ...) -> the names that the file registers, perhaps none.

    Raises:
        ValueError: the file does not exist or is not a Python file, or its code raises; says where.
    """
    file = Path(path).resolve()
    for registry in REGISTRIES:
        for name in registry.of_file(file):
            del registry[name]
    with errors_as(ValueError, f"plugin {str(path)!r}", file):
        try:
            runpy.run_path(str(file), run_name=f"rose_kit_plugin_{file.stem}")
        except SystemExit as error:
            raise ValueError(f"it ends this program, by sys.exit({error.code!r})") from error
    return {registry.kind: registry.of_file(file) for registry in REGISTRIES}


def describe_error(error: Exception, file: Path | None = None) -> str:
    """The type and message of an error in one line, with the line of a file that it came through.

    Args:
        error: as it was caught.
        file: absolute path of the user's own code.

    >>> describe_error(ValueError("no such\\n class"))
    'ValueError: no such class'
    """
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f"line {frame.lineno}" for frame in frames if frame.filename == str(file)]
    return ", ".join([*lines[-1:], f"{type(error).__name__}: {' '.join(str(error).split())}"])


@contextmanager
def errors_as(kind: type[Exception], what: str, file: Path | None = None) -> Iterator[None]:
    """Turn whatever the block raises into one kind of error, with a message of one line.

    Broken files, hostile pages and other people's code raise all sorts of errors. One that is of the kind
    already passes unchanged.

    Args:
        kind: class of the error to raise.
        what: the beginning of the message: what failed.
        file: absolute path of the user's own code; see `describe_error`.
    """
    try:
        yield
    except Exception as error:
        if type(error) is kind and file is None:
            raise
        raise kind(f"{what}: {describe_error(error, file).removeprefix('ValueError: ')}") from error
