"""The code of a class of your own, as far as it decides on what the class does."""

import ast
import inspect
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from types import CodeType, FunctionType
from typing import Any, Optional

import numpy as np

_PLAIN = (int, float, complex, str, bytes, type(None), np.generic)
_HOLDERS = ("__func__", "__wrapped__", "fget", "fset", "fdel", "func")


def code_of(own: type) -> str:
    """The class, and whatever of its module it names, directly or not; without comments.

    What its module imports is not in it. A class of a module that has no file (a notebook, a
    prompt) goes by what it was compiled to.
    """
    module = sys.modules.get(own.__module__)
    with suppress(OSError, TypeError, SyntaxError):
        source = inspect.getsource(module)  # type: ignore[arg-type]
        written = _written(source, own.__qualname__.partition(".")[0])
        if written is not None:  # else it was typed in beside a file
            return written
    return "\n".join(_Compiled(vars(module) if module is not None else {}).parts(own))


def _written(source: str, name: str) -> Optional[str]:
    """The statements of a module that a class depends on; None: it has no class of that name."""
    statements = [(gives, _names([node]), node) for gives, node in _statements(ast.parse(source))]
    if not any(isinstance(node, ast.ClassDef) and node.name == name for *_, node in statements):
        return None
    wanted, before = {name}, 0
    while len(wanted) > before:
        before = len(wanted)
        wanted.update(*(names for gives, names, _ in statements if gives & wanted))
    return "\n".join(ast.unparse(node) for gives, _, node in statements if gives & wanted)


def _statements(block: Any) -> Iterator[tuple[set[str], ast.AST]]:
    """Definitions and assignments of a module, at whatever depth, with the names they give.

    A decorator's name is one of them: what it registers is reached through it.
    """
    for node in block.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield {node.name} | _names(node.decorator_list), node
        elif isinstance(node, ast.Assign):
            yield _names(node.targets), node
        elif isinstance(node, (ast.AnnAssign, ast.AugAssign)):
            yield _names([node.target]), node
        elif hasattr(node, "body"):
            yield from _statements(node)
    for part in ("orelse", "finalbody"):
        if getattr(block, part, None):
            yield from _statements(ast.Module(getattr(block, part), []))
    for handler in getattr(block, "handlers", ()):
        yield from _statements(handler)


def _names(nodes: Iterable[ast.AST]) -> set[str]:
    found = (each for node in nodes for each in ast.walk(node))
    return {each.id for each in found if isinstance(each, ast.Name)}


class _Compiled:
    """Classes and functions as they are compiled, and the globals they name, each once.

    Args:
        names: The globals.
    """

    def __init__(self, names: dict[str, Any]) -> None:
        self.names = names
        self._seen: set[int] = set()

    def parts(self, value: Any) -> Iterator[str]:
        """What there is to say of a value; nothing of one of another package."""
        if isinstance(value, _PLAIN):
            yield repr(value)
            return
        if id(value) in self._seen:
            return
        self._seen.add(id(value))
        if isinstance(value, (tuple, list)):
            for each in value:
                yield from self.parts(each)
        elif isinstance(value, (set, frozenset)):
            yield from sorted(" ".join(self.parts(each)) for each in value)
        elif isinstance(value, dict):
            for pair in value.items():
                for part in pair:
                    yield from self.parts(part)
        elif isinstance(value, type):
            yield from self._class(value)
        elif isinstance(value, FunctionType):
            yield from self._function(value)
        else:
            for place in _HOLDERS:  # of what a decorator has made of a function
                inner = getattr(value, place, None)
                if isinstance(inner, FunctionType):
                    yield from self.parts(inner)

    def _class(self, own: type) -> Iterator[str]:
        if own.__module__ != self.names.get("__name__"):
            return
        for name, value in sorted(vars(own).items()):
            if not name.startswith("__") or callable(value):
                yield f"{own.__qualname__}.{name}"
                yield from self.parts(value)
        for parent in own.__bases__:
            yield from self.parts(parent)

    def _function(self, function: FunctionType) -> Iterator[str]:
        if function.__module__ == self.names.get("__name__"):
            yield from self._code(function.__code__)
            yield from self.parts(function.__defaults__)
            yield from self.parts(function.__kwdefaults__)
        for cell in function.__closure__ or ():  # a decorator keeps what it has decorated there
            with suppress(ValueError):  # not filled yet
                yield from self.parts(cell.cell_contents)
        yield from self.parts(getattr(function, "__wrapped__", None))

    def _code(self, code: CodeType) -> Iterator[str]:
        yield code.co_code.hex()
        for name in code.co_names:
            yield name
            if name in self.names:
                yield from self.parts(self.names[name])
        for value in code.co_consts:
            yield from self._code(value) if isinstance(value, CodeType) else self.parts(value)
