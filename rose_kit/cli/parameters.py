"""Parameters of a notebook: what its tagged cell declares, and what a user may write for them."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbformat import NotebookNode


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell.

    Args:
        default: its value.
        types: those its annotation names, or else that of its default; none of them: anything goes.
        allowed: the values of a `Literal["a", "b"]` annotation; none: all.
        comment: what the line says about it.
    """

    default: Any = None
    types: tuple[type, ...] = ()
    allowed: tuple = ()
    comment: str = ""

    def __str__(self) -> str:
        """`(int: neighbours per patch)`, or nothing where there is nothing to tell."""
        kind = " or ".join(map(repr, self.allowed) if self.allowed else map(_name, self.types))
        told = ": ".join(part for part in (kind, self.comment) if part)
        return f" ({told})" if told else ""


def declared_parameters(notebook: NotebookNode) -> dict[str, Any]:
    """Names and default values in the cell tagged `parameters`; empty without such a cell.

    Raises:
        ValueError: the cell holds something else than names with literal values.
    """
    return {name: parameter.default for name, parameter in described_parameters(notebook).items()}


def described_parameters(notebook: NotebookNode) -> dict[str, Parameter]:
    """As `declared_parameters`, with the types and comments of the cell."""
    tagged = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    source = tagged[0].source if tagged else ""
    try:
        body = ast.parse(source).body
    except SyntaxError as error:
        raise ValueError(f"the parameters cell is not Python: {error}") from None
    found = {}
    for node in body:
        target = node.target if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [None])[0]
        if not isinstance(target, ast.Name):
            raise ValueError(f"the parameters cell holds more than names and values: {ast.unparse(node)}")
        try:
            default = ast.literal_eval(node.value)
        except ValueError:
            raise ValueError(f"parameter {ast.unparse(node)} is not a literal") from None
        types, allowed = _annotated(getattr(node, "annotation", None))
        types = types or (() if default is None else (type(default),))
        comment = source.encode().splitlines()[node.end_lineno - 1][node.end_col_offset :].decode()
        found[target.id] = Parameter(default, types, allowed, comment.strip().lstrip("# "))
    return found


def _annotated(node: ast.expr | None) -> tuple[tuple[type, ...], tuple]:
    """The types, and the values of a Literal, that an annotation names."""
    known = {kind.__name__: kind for kind in (int, float, str, bool, list, tuple, dict)}
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _annotated(ast.parse(node.value, mode="eval").body)
    if isinstance(node, ast.Constant):
        return (type(node.value),), ()
    if isinstance(node, ast.BinOp):
        sides = _annotated(node.left), _annotated(node.right)
        return tuple(t for types, _ in sides for t in types), tuple(v for _, values in sides for v in values)
    if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("Literal"):
        values = ast.literal_eval(node.slice)
        values = values if isinstance(values, tuple) else (values,)
        return tuple(dict.fromkeys(map(type, values))), values
    name = ast.unparse(node).split("[")[0] if node is not None else ""
    return ((known[name],) if name in known else ()), ()


def _name(kind: type) -> str:
    return "none" if kind is type(None) else kind.__name__


def parse_value(text: str, default: Any, types: Sequence[type] = ()) -> Any:
    """Read `text` as a value of one of `types`, or else of the type of `default`.

    An int is taken where a float is wanted, `1,2,3` or `bus,cat` where a list or tuple is, anything where
    there is neither a type nor a default. What a list holds is of the types that its default holds.

    Raises:
        ValueError: it is not of that type.

    >>> parse_value("5", 4), parse_value("1", 0.5), parse_value("1,2", [7]), parse_value("5", "rns")
    (5, 1.0, [1, 2], '5')
    >>> parse_value("none", None, (int, type(None))), parse_value("0.5", 1, (float,))
    (None, 0.5)
    >>> parse_value("bus,cat", ["sky"]), parse_value("0,1", [0.1, 0.5])
    (['bus', 'cat'], [0.0, 1.0])
    >>> parse_value("five", 4)
    Traceback (most recent call last):
    ...
    ValueError: 'five' is not of type int
    """
    types = tuple(types) or (() if default is None else (type(default),))
    if types == (str,):
        return text
    wrong = ValueError(f"{text!r} is not of type {' or '.join(map(_name, types))}")
    value, lists = _literal(text), [kind for kind in (list, tuple) if kind in types]
    if value is _UNREAD and (not types or str in types):
        return text
    if not types or (type(value) in types and not isinstance(value, list | tuple)):
        return value
    if float in types and type(value) is int:
        return float(value)
    if lists and (items := _items(text, value, default)) is not None:
        return lists[0](items)
    if str in types:
        return text
    raise wrong


_UNREAD = object()


def _literal(text: str) -> Any:
    """The value that a text writes out, or `_UNREAD`."""
    try:
        return ast.literal_eval(text.capitalize() if text.lower() in ("true", "false", "none") else text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # such as {[1]: 2}
        return _UNREAD


def _items(text: str, value: Any, default: Any) -> list | None:
    """What a list holds, as its default's items are; None if that cannot be."""
    wanted = {type(d) for d in default} if isinstance(default, list | tuple) else set()
    items = list(value) if isinstance(value, list | tuple) else [value]
    names = value is _UNREAD or (wanted == {str} and not all(isinstance(v, str) for v in items))
    if names and text.strip()[:1] not in ("[", "(", "{"):
        parts = [part.strip() for part in text.split(",")]
        read = [part if (v := _literal(part)) is _UNREAD else v for part in parts]
        items = parts if wanted == {str} else read  # a 1 is a name then
        if "" in parts:
            return None
    if float in wanted and int not in wanted:
        items = [float(v) if type(v) is int else v for v in items]
    fits = not wanted or {type(v) for v in items} <= wanted
    return items if fits and not any(v is _UNREAD for v in items) else None


def parse_parameters(
    texts: Iterable[str], declared: Mapping[str, Any], described: Mapping[str, Parameter] | None = None
) -> dict[str, Any]:
    """Check `name=value` texts against the declared parameters.

    Args:
        texts: what the user wrote.
        declared: name -> default.
        described: name -> what more is known of it.

    Raises:
        ValueError: a name is unknown or a value has the wrong type; lists the valid ones.

    >>> parse_parameters(["k=8"], {"k": 4, "seed": 0})
    {'k': 8}
    """
    about = {name: (described or {}).get(name, Parameter()) for name in declared}
    valid = ", ".join(f"{name}={default!r}{about[name]}" for name, default in declared.items()) or "none"
    parsed = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in declared:
            near = difflib.get_close_matches(name, declared, n=1) if equals else []
            what = f"unknown parameter {name!r}" if equals else f"{text!r} is not name=value"
            what += f", did you mean {near[0]!r}?" if near else ";"
            raise ValueError(f"{what} parameters and their defaults: {valid}")
        try:
            parsed[name] = parse_value(value, declared[name], about[name].types)
            if about[name].allowed and parsed[name] not in about[name].allowed:
                raise ValueError(f"{value!r} is none of {', '.join(map(repr, about[name].allowed))}")
        except ValueError as error:
            raise ValueError(f"parameter {name}: {error}; parameters and their defaults: {valid}") from None
    return parsed
