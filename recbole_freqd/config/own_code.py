"""The code of your own class as text, so that runs of an edited class differ."""

import hashlib
import sys
from collections.abc import Iterator
from contextlib import suppress
from types import CodeType, FunctionType
from typing import Any

import numpy as np

_FOREIGN = ("recbole", "recbole_freqd", "torch", "builtins", "abc")
_PLAIN = (int, float, complex, str, bytes, type(None), np.generic)
_HOLDERS = ("__func__", "__wrapped__", "fget", "fset", "fdel", "func")


def class_fingerprint(model_class: type) -> str:
    """Hashes your own class, what it names and what it inherits from."""
    ancestors = (
        ancestor
        for ancestor in model_class.__mro__
        if ancestor.__module__.partition(".")[0] not in _FOREIGN
    )
    digest = hashlib.blake2b("".join(map(code_of, ancestors)).encode(), digest_size=8).hexdigest()
    return f"{model_class.__module__}.{model_class.__qualname__} {digest}"


def code_of(own: type) -> str:
    """The class, and whatever of its module it names, directly or not, as they are compiled.

    Comments and what its module imports are not in it. It needs no source, so a class that was
    typed in at a prompt has it too; another version of Python compiles to another text.
    """
    module = sys.modules.get(own.__module__)
    return "\n".join(_Compiled(vars(module) if module is not None else {}).parts(own))


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
        elif callable(getattr(value, "tolist", None)):  # an array, a tensor
            yield repr(value.tolist())
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
