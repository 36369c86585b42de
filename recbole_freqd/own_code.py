"""The code of a class of your own, as far as it decides on what the class does."""

import ast
import inspect
import itertools
import sys
from collections.abc import Iterator
from contextlib import suppress
from types import CodeType, FunctionType
from typing import Any

_PLAIN = (int, float, complex, str, bytes, bool, type(None))


def code_of(own: type) -> str:
    """The classes, functions and constants of the module that a class is of, without comments.

    What its module imports is not in it, and neither is what a script does outside of them. Of a
    module that has no file (a notebook, a prompt) they are compared as they are compiled.
    """
    module = sys.modules.get(own.__module__)
    with suppress(OSError, TypeError, SyntaxError):
        found = _definitions(inspect.getsource(module))  # type: ignore[arg-type]
        if own.__qualname__.partition(".")[0] in found:  # else it was typed in beside a file
            return "\n".join(found.values())
    return "\n".join([*_compiled_class(own), *_compiled_module(module)])


def _definitions(source: str) -> dict[str, str]:
    """The classes, functions and plain constants of a source, by name, in one form of writing."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            found[node.name] = ast.unparse(node)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.Constant):
            text = ast.unparse(node)
            found[text.partition("=")[0].strip()] = text
    return found


def _compiled_module(module: Any) -> Iterator[str]:
    """The classes, functions and plain values that a module without a file has now."""
    for name, value in sorted(vars(module).items()) if module is not None else ():
        own = getattr(value, "__module__", None) == module.__name__
        if isinstance(value, type) and own:
            yield from _compiled_class(value)
        elif isinstance(value, FunctionType) and own:
            yield f"{name} {_compiled(value.__code__)}"
        elif isinstance(value, _PLAIN) and not name.startswith("_"):
            yield f"{name} {value!r}"


def _compiled_class(own: type) -> Iterator[str]:
    for name, value in sorted(vars(own).items()):
        for part in (value, *(getattr(value, at, None) for at in ("__func__", "fget", "fset"))):
            if isinstance(part, FunctionType):
                yield f"{own.__qualname__}.{name} {_compiled(part.__code__)}"
        if isinstance(value, _PLAIN) and name not in ("__module__", "__doc__", "__firstlineno__"):
            yield f"{own.__qualname__}.{name} {value!r}"


def _compiled(code: CodeType) -> str:
    """Instructions, names and constants, those of inner functions included."""
    constants: list[str] = []
    for value in code.co_consts:
        if isinstance(value, CodeType):
            constants.append(_compiled(value))
        else:
            constants.append(
                repr(sorted(map(repr, value)) if isinstance(value, frozenset) else value)
            )
    return " ".join(itertools.chain([code.co_code.hex()], code.co_names, constants))
