"""Models by name and by class: RecBole's, which go by name, and your own, which it cannot find."""

import contextlib
import hashlib
import importlib
import inspect
import itertools
import pkgutil
import re
from functools import cache
from typing import Any, Union

from recbole_freqd.core.errors import ConfigError, did_you_mean, shown
from recbole_freqd.own_code import code_of

_KEY_READ = re.compile(r"""config\[\s*["']([^"']+)["']\s*\]""")
_own: dict[str, type] = {}


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
    if isinstance(name, type) or (isinstance(name, str) and name in general_models()):
        return
    if not isinstance(name, str):
        raise ConfigError(
            f"{key}: got {shown(name)}; allowed: the name of a general recommender of RecBole, or "
            "in Python a class of your own."
        )
    from recbole.utils import get_model

    try:
        if only_general:
            raise ValueError(name)
        get_model(name)
    except Exception:  # for an unknown name, whatever its last sub-package fails to import
        raise ConfigError(
            f"{key}: {shown(name)} is no general recommender of RecBole. "
            f"{did_you_mean(name, general_models())}"
        ) from None


def check_dataset_name(name: Any) -> None:
    """Raises ConfigError unless this can be the name of a dataset."""
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise ConfigError(
            f"dataset: got {shown(name)}; allowed: the name of a folder in data_path, e.g. ml-100k "
            "(-d on the command line)."
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
        return name
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
