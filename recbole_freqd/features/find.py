"""Which adapter reads a model: its own method, a registered one, or RecBole's conventions."""

import copy
from typing import Any, Optional

from recbole_freqd.checkpoint.unpickler import MODEL_PACKAGES
from recbole_freqd.core.errors import require
from recbole_freqd.features.base import ADAPTERS, FeatureAdapter
from recbole_freqd.features.closed_form import OnlyScores
from recbole_freqd.features.own import OwnMethod, by_convention

_BUILT_IN = frozenset(ADAPTERS.names())


def adapter_of(model: Any) -> FeatureAdapter:
    """Finds the adapter of a model: its own method, a registered one, or RecBole's conventions.

    In this order: the model has ``user_item_features()``; an adapter is registered under the name
    of its class or, nearest first, of a class that it inherits from (ours are for RecBole's classes
    only, not for others of the same name); ``forward()`` without arguments returns the users' and
    the items' embeddings; it has ``user_embedding`` and ``item_embedding`` tables. Where nothing is
    found, only its scores are known.
    """
    if callable(getattr(model, "user_item_features", None)):
        return OwnMethod()
    adapter = registered_adapter(type(model)) or by_convention(model) or OnlyScores()
    if adapter.shared_forward and not is_registered(type(model)):
        # Who knows what else the loss of another class calls: its features are read by themselves.
        adapter = copy.copy(adapter)
        adapter.shared_forward = None
    return adapter


def registered_adapter(model_class: type) -> Optional[FeatureAdapter]:
    """Finds the adapter registered for a class, or for the nearest class it inherits from.

    Raises:
        ConfigError: RecBole needs a package for this model that is not installed.
    """
    for ancestor in model_class.__mro__:
        if is_registered(ancestor):
            adapter = ADAPTERS.get(ancestor.__name__)
            if adapter.extra:
                require(*adapter.extra, model_class.__name__)
            return adapter
    return None


def is_registered(model_class: type) -> bool:
    """Whether a class itself has an adapter; ours are not for namesakes of the classes."""
    name, module = model_class.__name__, model_class.__module__
    return name in ADAPTERS.names() and (module.startswith(MODEL_PACKAGES) or name not in _BUILT_IN)
