"""Ranking metrics per user of a block of scores, with RecBole's definitions."""

import logging
from functools import partial
from typing import Callable, Optional

import torch

from recbole_freqd.core.errors import ConfigError, join_names, short_repr
from recbole_freqd.core.top import best_of

FALLBACK = "NDCG@10"

logger = logging.getLogger(__name__)

Metric = Callable[..., torch.Tensor]
"""From masked scores (b, n_items) and positives (b, n_items) bool to values (b,) float64. Pass the
number of each user's positives, (b,), to spare counting them."""

_MANY_ITEMS = 50_000  # beyond, best_of is faster than torch's topk


def top_hits(scores: torch.Tensor, positives: torch.Tensor, k: int) -> torch.Tensor:
    """(b, k) bool, which of the k best items, best first, are positives.

    An item at -inf is not recommended, so it is no hit. (RecBole counts it if a user has fewer than
    ``k`` candidates and the arbitrary order of the rest puts a positive first.)

    Args:
        scores: (b, n_items), -inf for what does not count.
        positives: (b, n_items) bool.
        k: Length of the list, at most the number of items.
    """
    k = min(k, scores.shape[1])
    best, items = best_of(scores, k) if scores.shape[1] > _MANY_ITEMS else scores.topk(k, dim=1)
    return positives.gather(1, items) & ~best.isneginf()


def recall(hits: torch.Tensor, n_positives: torch.Tensor, k: int) -> torch.Tensor:
    """(b,), the share of the positives in the list."""
    return hits.sum(dim=1).double() / n_positives


def precision(hits: torch.Tensor, n_positives: torch.Tensor, k: int) -> torch.Tensor:
    """(b,), the share of the list that is positive."""
    return hits.sum(dim=1).double() / k


def hit(hits: torch.Tensor, n_positives: torch.Tensor, k: int) -> torch.Tensor:
    """(b,), 1 where a positive is in the list."""
    return hits.any(dim=1).double()


def mrr(hits: torch.Tensor, n_positives: torch.Tensor, k: int) -> torch.Tensor:
    """(b,), 1 / rank of the first positive in the list."""
    return (hits / _ranks(hits)).amax(dim=1)


def average_precision(hits: torch.Tensor, n_positives: torch.Tensor, k: int) -> torch.Tensor:
    """(b,), Σ precision at each positive of the list / min(positives, k)."""
    precisions = hits.cumsum(dim=1) / _ranks(hits)
    return (precisions * hits).sum(dim=1) / n_positives.clamp(max=k)


def ndcg(hits: torch.Tensor, n_positives: torch.Tensor, k: int) -> torch.Tensor:
    """(b,), DCG / the DCG of a list with min(positives, k) hits on top."""
    discounts = 1 / torch.log2(_ranks(hits) + 1)
    ideal = discounts.cumsum(dim=0)[n_positives.clamp(max=len(discounts)) - 1]
    return (hits * discounts).sum(dim=1) / ideal


def _ranks(hits: torch.Tensor) -> torch.Tensor:
    return torch.arange(1, hits.shape[1] + 1, device=hits.device, dtype=torch.float64)


METRICS = {
    "ndcg": ndcg,
    "recall": recall,
    "precision": precision,
    "hit": hit,
    "mrr": mrr,
    "map": average_precision,
}


def metric_named(name: str) -> Metric:
    """The metric of a name such as ``NDCG@10``, as RecBole's ``valid_metric`` writes it.

    Raises:
        ConfigError: It is not one of :data:`METRICS`.

    Example:
        >>> scores = torch.tensor([[float("-inf"), 0.3, 0.2, 0.1]])
        >>> positives = torch.tensor([[False, False, True, False]])
        >>> metric_named("MRR@2")(scores, positives)
        tensor([0.5000], dtype=torch.float64)
    """
    kind, _, length = name.partition("@")
    if kind.lower() not in METRICS or not length.isdecimal() or int(length) < 1:
        raise ConfigError(
            f"valid_metric: got {short_repr(name)}; allowed here: {join_names(METRICS)}, each with "
            "a list length, such as NDCG@10."
        )
    return partial(_measure, kind.lower(), int(length))


def list_length(name: str) -> int:
    """The k of a metric's name."""
    return int(name.partition("@")[2])


def top_list_metric(valid_metric: str) -> str:
    """The metric for choices: ``valid_metric`` if it is one of :data:`METRICS`, else NDCG@10."""
    try:
        metric_named(valid_metric)
        return valid_metric
    except ConfigError:
        logger.warning(
            "%s needs more than top lists: choosing by %s instead.", valid_metric, FALLBACK
        )
        return FALLBACK


def _measure(
    kind: str,
    k: int,
    scores: torch.Tensor,
    positives: torch.Tensor,
    n_positives: Optional[torch.Tensor] = None,
) -> torch.Tensor:
    n_positives = positives.sum(dim=1) if n_positives is None else n_positives
    n_positives = n_positives.clamp(min=1)  # a user without positives has no hit either: 0
    return METRICS[kind](top_hits(scores, positives, k), n_positives, k).double()
