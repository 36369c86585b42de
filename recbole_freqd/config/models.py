"""Models by name and by class: RecBole's, which go by name, and your own, which it cannot find."""

import ast
import contextlib
import hashlib
import importlib
import inspect
import itertools
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache
from types import CodeType, FunctionType
from typing import Any, Optional, Union

import numpy as np

from recbole_freqd.core.errors import ConfigError, did_you_mean, short_repr
from recbole_freqd.core.schema import Key, read_keys

OWN_MODELS = {
    "GFCF": "recbole_freqd.teacher.models.gfcf",
    "ShrunkKNN": "recbole_freqd.teacher.models.shrunk_knn",
}
"""The models that this package adds to RecBole's, and the modules of their classes."""

_KEY_READ = re.compile(r"""config\[\s*["']([^"']+)["']\s*\]""")
_own: dict[str, type] = {}
_PLAIN = (int, float, complex, str, bytes, type(None), np.generic)
_HOLDERS = ("__func__", "__wrapped__", "fget", "fset", "fdel", "func")


def general_models() -> list[str]:
    """Names of the general recommenders of the RecBole that is installed."""
    import recbole.model.general_recommender as package

    modules = {name for _, name, _ in pkgutil.iter_modules(package.__path__)}
    return sorted(name for name in vars(package) if name.lower() in modules and name[0].isupper())


def check_model_name(name: Any, key: str, *, only_general: bool = False) -> None:
    """Raises ConfigError, naming the nearest, where RecBole's own error would mislead.

    Args:
        name: What was given; a class (an own model) is left to RecBole, as is a model of another
            kind than the general recommenders.
        key: The config key it came from.
        only_general: Refuse models of another kind too.
    """
    known = [*general_models(), *OWN_MODELS]
    if isinstance(name, type) or (isinstance(name, str) and name in known):
        return
    if not isinstance(name, str):
        raise ConfigError(
            f"{key}: got {short_repr(name)}; allowed: the name of a general recommender of "
            "RecBole, or in Python a class of your own."
        )
    from recbole.utils import get_model

    try:
        if only_general:
            raise ValueError(name)
        get_model(name)
    except Exception:  # for an unknown name, whatever its last sub-package fails to import
        raise ConfigError(
            f"{key}: {short_repr(name)} is no general recommender of RecBole. "
            f"{did_you_mean(name, known)}"
        ) from None


def own_model(name: Any) -> Optional[type]:
    """The class of a model that this package adds, or None."""
    if not isinstance(name, str) or name not in OWN_MODELS:
        return None
    return getattr(importlib.import_module(OWN_MODELS[name]), name)


def find_model(name: str) -> type:
    """The class of a model of RecBole or of this package.

    Raises:
        ValueError: RecBole's; there is none of this name.
    """
    from recbole.utils.utils import get_model

    return own_model(name) or get_model(name)


def own_model_keys(model_class: Any) -> dict[str, Key]:
    """The keys of a class that this package adds, from ``properties/model/``; else none."""
    name = getattr(model_class, "__name__", None)
    ours = name in OWN_MODELS and model_class.__module__ == OWN_MODELS[name]
    return read_keys(f"model/{name}.yaml") if ours else {}


def check_own_model(model_class: Any, given: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Checks what was given of the keys of a class that this package adds, in place.

    Args:
        model_class: Of any model.
        given: What the user set.
        prefix: Of the keys in messages.

    Returns:
        The defaults of all keys of the class; of another class there are none.

    Raises:
        ConfigError: A value that is not allowed.
    """
    keys = own_model_keys(model_class)
    for key in set(keys) & set(given):
        given[key] = replace(keys[key], name=f"{prefix}{key}").check(given[key])
    return {key: spec.default for key, spec in keys.items()}


def own_model_options(name: str, config: Any) -> dict[str, Any]:
    """The checked values of all keys of a model that this package adds.

    Args:
        name: One of :data:`OWN_MODELS`.
        config: A Config; a key that it does not have, has its default.

    Raises:
        ConfigError: A value that is not allowed.
    """
    return {
        key: spec.check(config[key] if key in config else spec.default)  # noqa: SIM401 (no get)
        for key, spec in read_keys(f"model/{name}.yaml").items()
    }


def check_dataset_name(name: Any) -> None:
    """Raises ConfigError unless this can be the name of a dataset."""
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise ConfigError(
            f"dataset: got {short_repr(name)}; allowed: the name of a folder in data_path, e.g. "
            "ml-100k (-d on the command line)."
        )


def name_of_class(model_class: type) -> str:
    """The dotted name under which a class of your own is kept in configs and found again."""
    name = f"{model_class.__module__}.{model_class.__qualname__}"
    _own[name] = model_class
    return name


def class_or_name(name: Union[str, type]) -> Union[str, type]:
    """What RecBole's Config takes for a model: a name of its own, or a class.

    Args:
        name: A model of RecBole, or the dotted name of a class of yours, ``package.module.Class``;
            a class stays what it is.

    Raises:
        ConfigError: No such class.
    """
    if not isinstance(name, str) or "." not in name:
        return own_model(name) or name
    if name not in _own:
        module, _, attribute = name.rpartition(".")
        try:
            _own[name] = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"teacher.model: {name!r} cannot be imported ({error}). Allowed: a model of "
                "RecBole, or a class of your own as package.module.Class, or in Python the class "
                "itself."
            ) from None
    return _own[name]


def class_fingerprint(model_class: type) -> str:
    """What a class of your own is called and does; changes with its module, or its parents'."""
    code = "".join(map(code_of, _own_ancestors(model_class)))
    digest = hashlib.blake2b(code.encode(), digest_size=8).hexdigest()
    return f"{model_class.__module__}.{model_class.__qualname__} {digest}"


@cache
def keys_read_by(model_class: type) -> frozenset[str]:
    """Keys that the code of a model, or of what it inherits from, asks its Config for."""
    found = (_KEY_READ.findall(_source(ancestor)) for ancestor in model_class.__mro__)
    return frozenset(itertools.chain.from_iterable(found))


def _own_ancestors(model_class: type) -> list[type]:
    """A class and what it inherits from, as far as it is not of RecBole, this package or torch."""
    foreign = ("recbole", "recbole_freqd", "torch", "builtins", "abc")
    return [
        ancestor
        for ancestor in model_class.__mro__
        if ancestor.__module__.partition(".")[0] not in foreign
    ]


def _source(model_class: type) -> str:
    """The source of a class, or nothing for one that was typed in at a prompt."""
    with contextlib.suppress(OSError, TypeError):
        return inspect.getsource(model_class)
    return ""


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
