"""Finds models by name and by class: RecBole's, ours, and your own."""

import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Optional, Union

from recbole_freqd.core.errors import ConfigError, did_you_mean, short_repr
from recbole_freqd.core.schema import Key, read_keys

OWN_MODELS = {
    "GFCF": "recbole_freqd.teacher.models.gfcf",
    "ShrunkKNN": "recbole_freqd.teacher.models.shrunk_knn",
}
"""The models that this package adds to RecBole's, and the modules of their classes."""

_KEY_READ = re.compile(r"""config(?:\[\s*["']([^"']+)["']\s*\]|\.(\w+))""")
# RecBole's kinds of models: the sub-packages they are in, and what ModelType calls them.
_PACKAGES = {
    "general": "general_recommender",
    "context-aware": "context_aware_recommender",
    "sequential": "sequential_recommender",
    "knowledge-aware": "knowledge_aware_recommender",
    "decision-tree": "exlib_recommender",
}
_KINDS = {
    "GENERAL": "general",
    "TRADITIONAL": "general",
    "CONTEXT": "context-aware",
    "SEQUENTIAL": "sequential",
    "KNOWLEDGE": "knowledge-aware",
    "DECISIONTREE": "decision-tree",
}
_ON_RECBOLES_DATA = ("recbole", "recbole_freqd", "torch", "builtins", "abc", "__main__")
_own: dict[str, type] = {}


def general_models() -> list[str]:
    """Names of the general recommenders of the RecBole that is installed."""
    import recbole.model.general_recommender as package

    modules = {name for _, name, _ in pkgutil.iter_modules(package.__path__)}
    return sorted(name for name in vars(package) if name.lower() in modules and name[0].isupper())


def kind_of_model(model: Union[str, type]) -> Optional[str]:
    """Names the kind of recommender that a model is; None if RecBole has no such kind.

    Nothing is imported: whole sub-packages of RecBole fail to be, where one model of them needs a
    package that is missing.

    Example:
        >>> kind_of_model("SASRec"), kind_of_model("KGAT"), kind_of_model("BPR")
        ('sequential', 'knowledge-aware', 'general')
    """
    if isinstance(model, type):
        name = getattr(getattr(model, "type", None), "name", None)
        return _KINDS.get(name) if isinstance(name, str) else None
    import recbole.model

    folder, file = Path(recbole.model.__path__[0]), f"{str(model).lower()}.py"
    for kind, package in _PACKAGES.items():
        if file in {path.name for path in (folder / package).iterdir()}:
            return kind
    return None


def check_model_name(name: Any, key: str, *, only_general: bool = False) -> None:
    """Raises ConfigError, naming the nearest, where RecBole's own error would mislead.

    Args:
        name: What was given: a name, or a class, of which only the kind is looked at.
        key: The config key it came from.
        only_general: Refuse models of another kind than the general recommenders, which is named;
            else those are left to RecBole.
    """
    known = [*general_models(), *OWN_MODELS]
    if isinstance(name, str) and name in known:
        return
    if not isinstance(name, (str, type)):
        raise ConfigError(
            f"{key}: got {short_repr(name)}; allowed: the name of a general recommender of "
            "RecBole, or in Python a class of your own."
        )
    kind, said = kind_of_model(name), name.__name__ if isinstance(name, type) else short_repr(name)
    if kind not in (None, "general"):
        if not only_general and (isinstance(name, type) or _is_spelt(name)):
            return
        article = "an" if kind[0] in "aeiou" else "a"
        raise ConfigError(
            f"{key}: {said} is no general recommender of RecBole, but {article} {kind} one. "
            f"Allowed: {', '.join(sorted(known, key=str.lower))}."
        )
    if isinstance(name, str):
        raise ConfigError(
            f"{key}: {said} is no general recommender of RecBole. {did_you_mean(name, known)}"
        )


def _is_spelt(name: str) -> bool:
    """Whether RecBole finds a model of this name, in this very case."""
    from recbole.utils import get_model

    try:
        get_model(name)
    except AttributeError:
        return False
    except ImportError as error:
        raise ConfigError(
            f"model: {name} needs the package {error.name}, which is not installed."
        ) from None
    return True


def check_dataset_kind(model_class: type, dataset: Any, key: str) -> None:
    """Refuses a model of a package that builds its models on a dataset of its own kind.

    Such is RecBole-GNN: its ``GeneralGraphDataset`` has the graph that its models ask for.

    Args:
        model_class: Of the model.
        dataset: What it would be built on; None: RecBole's own kind.
        key: Where it came from.

    Raises:
        ConfigError: The dataset is not of its package.
    """
    for ancestor in model_class.__mro__:
        package = ancestor.__module__.partition(".")[0]
        if package in _ON_RECBOLES_DATA or not _has_datasets(package):
            continue
        if any(kind.__module__.partition(".")[0] == package for kind in type(dataset).__mro__):
            return
        raise ConfigError(
            f"{key}: {model_class.__name__} is a model of {package}, which builds it on a dataset "
            f"of its own kind ({package}.data.dataset), and here it would get one of RecBole's. "
            "Allowed: a model of RecBole's own, e.g. its LightGCN, or a class that is built on "
            "RecBole's Dataset."
        )


@cache
def _has_datasets(package: str) -> bool:
    with suppress(Exception):  # its parent packages are imported, which may fail in any way
        return importlib.util.find_spec(f"{package}.data.dataset") is not None
    return False


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
        name: A model of RecBole, or the dotted name of your own class, ``package.module.Class``;
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


@cache
def keys_read_by(model_class: type) -> frozenset[str]:
    """Keys that the code of a model, or of what it inherits from, asks its Config for.

    The code is the whole file of each class: its helpers read keys too.
    """
    found = (_KEY_READ.findall(_source(ancestor)) for ancestor in model_class.__mro__)
    return frozenset(key for pairs in found for pair in pairs for key in pair if key)


def _source(model_class: type) -> str:
    """The file of a class, or what else there is of its source; a prompt leaves nothing."""
    module = sys.modules.get(model_class.__module__)
    for part in (module, model_class):
        with suppress(OSError, TypeError):
            return inspect.getsource(part)  # type: ignore[arg-type]
    return ""
