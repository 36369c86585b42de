"""Models of your own: by a method that they have, or by RecBole's conventions."""

import logging
from typing import Any, Optional

import torch
from torch import nn

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.rows import FeatureRows
from recbole_freqd.features.base import FeatureAdapter
from recbole_freqd.features.propagated import PropagatedEmbeddings
from recbole_freqd.features.scores import inspecting
from recbole_freqd.features.tables import EmbeddingTables

logger = logging.getLogger(__name__)


class OwnMethod(FeatureAdapter):
    """The model says itself: ``user_item_features()`` returns the features of all users and items.

    They are (n_users, d) and (n_items, d'), row 0 for the padding, differentiable where the model
    is to be a student.
    """

    student = "what its `user_item_features()` returns"
    warm = (
        "user_item_features() does not say which weights they are made of; register an adapter "
        "that does"
    )

    def rows(self, model: Any) -> FeatureRows:
        returned = model.user_item_features()
        if not _is_pair(returned, model) or len(returned) != 2:
            raise ConfigError(
                f"{type(model).__name__}.user_item_features() returned {_shapes(returned)}; "
                f"allowed: two tensors with {model.n_users} and {model.n_items} rows (all users, "
                "all items, padding included)."
            )
        return FeatureRows.of_tables(*returned)


def warn_of_other_order(model: Any) -> None:
    """Warns that ``user_item_features()`` does not give what the model ranks by."""
    logger.warning(
        "user_item_features() of %s returns features that do not rank as the model does. They "
        "are taught all the same: make sure that row i is user (item) i.",
        type(model).__name__,
    )


def by_convention(model: Any) -> Optional[FeatureAdapter]:
    """The adapter that fits a model RecBole does not contain, by how its models are written."""
    with inspecting(model):
        try:
            returned = model.forward()
        except Exception:  # it wants arguments, or is no such model
            returned = None
    if _is_pair(returned, model):
        return PropagatedEmbeddings()
    for name, count in (("user_embedding", "n_users"), ("item_embedding", "n_items")):
        table = getattr(model, name, None)
        if not isinstance(table, nn.Embedding) or table.num_embeddings != getattr(model, count):
            return None
    return EmbeddingTables()


def _is_pair(returned: Any, model: Any) -> bool:
    """Whether something returned begins with the features of all users and of all items."""
    return (
        isinstance(returned, (tuple, list))
        and len(returned) >= 2
        and all(isinstance(part, torch.Tensor) and part.dim() == 2 for part in returned[:2])
        and (len(returned[0]), len(returned[1])) == (model.n_users, model.n_items)
    )


def _shapes(returned: Any) -> str:
    parts = returned if isinstance(returned, (tuple, list)) else [returned]
    return ", ".join(
        str(tuple(part.shape)) if isinstance(part, torch.Tensor) else type(part).__name__
        for part in parts
    )
