"""Checks that a model ranks by some features; reads whole tables of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Callable, Optional

import torch

from recbole_freqd.core.rankers import spread_users, user_blocks
from recbole_freqd.core.rows import Features, empty_rows
from recbole_freqd.features.base import FeatureAdapter
from recbole_freqd.features.own import OwnMethod
from recbole_freqd.features.scores import inspecting, score_users

ORDER_TOLERANCE = 1e-3  # of a user's range of scores


def ranks_alike(model: Any, adapter: FeatureAdapter) -> bool:
    """Whether an adapter's features order the items of some users as the model's scores do."""
    users = some_users(model)
    with inspecting(model, adapter.caches):
        scores = score_users(model, users).to(model.device, torch.float32)
        torch.manual_seed(0)  # the draws of the scores, where there are any
        rows, biases = adapter.rows(model), adapter.biases(model)
        user_rows = rows.user(users)
        item_rows = whole_table(rows.item, model.n_items, model)
        if user_rows.shape[1] != item_rows.shape[1]:
            return False
        products = user_rows @ item_rows.T
        if biases[1] is not None:
            products = products + biases[1]  # a user's own bias moves no item
    scores, products = scores[:, 1:], products[:, 1:]
    known = torch.isfinite(scores).all(1)  # what is not finite is reported by who uses it
    ordered = scores.gather(1, products.argsort(dim=1))[known]
    if len(ordered) == 0:
        return True
    fall = (ordered.cummax(1).values - ordered).max(1).values
    span = ordered.max(1).values - ordered.min(1).values
    return bool((fall <= ORDER_TOLERANCE * span).all())


@contextmanager
def as_if_trained(model: Any) -> Iterator[None]:
    """While open, parameters of one value (a bias of zeros, a scale of ones) are higher by chance.

    So that it is seen what they do to the scores, before any training has moved them.
    """
    stirred: list[tuple[torch.Tensor, torch.Tensor]] = []
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        try:
            for values in model.parameters():
                trained = values.requires_grad and values.is_floating_point() and values.numel()
                if trained and bool((values == values.flatten()[0]).all()):
                    stirred.append((values, values.detach().clone()))
                    # Upwards: a temperature or a scale keeps its sign, and so the order.
                    values.add_(torch.rand(values.shape, generator=generator).to(values))
            yield
        finally:
            for values, before in stirred:
                values.copy_(before)


def are_exact(model: Any, adapter: FeatureAdapter) -> bool:
    """Whether features are the model's own: it says so itself, or they rank as it does."""
    return adapter.exact(model) and (isinstance(adapter, OwnMethod) or ranks_alike(model, adapter))


def some_users(model: Any) -> torch.Tensor:
    return spread_users(model.n_users, model.device)


def whole_table(
    of: Callable[[torch.Tensor], torch.Tensor],
    n_rows: int,
    model: Any,
    dtype: torch.dtype = torch.float32,
    mapped: bool = False,
) -> torch.Tensor:
    """All rows of one side, read in blocks that the wider side of the data would fit."""
    table: Optional[torch.Tensor] = None
    for ids in user_blocks(n_rows, max(model.n_users, model.n_items), model.device):
        block = of(ids)
        if table is None:
            table = empty_rows(n_rows, block.shape[1], dtype, block.device, mapped=mapped)
        table[ids[0] : ids[-1] + 1] = block
    assert table is not None  # there is always the padding row
    return table


def whole_features(model: Any, adapter: FeatureAdapter) -> Features:
    """All features that an adapter reads, as the model is now; to be read only, inside no_grad."""
    rows = adapter.rows(model)
    if rows.tables is not None:
        return rows.tables
    return (
        whole_table(rows.user, model.n_users, model),
        whole_table(rows.item, model.n_items, model),
    )
