"""The validation metric on a sample of users: what choices are made by, without RecBole."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.rankers import Ranker, candidates, user_blocks

FALLBACK = "NDCG@10"

logger = logging.getLogger(__name__)


def _ndcg(hits: np.ndarray, counts: np.ndarray) -> np.ndarray:
    gains = 1 / np.log2(np.arange(2, hits.shape[1] + 2))
    return hits @ gains / gains.cumsum()[np.minimum(counts, hits.shape[1]) - 1]


def _mrr(hits: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return hits.any(axis=1) / (hits.argmax(axis=1) + 1)


def _map(hits: np.ndarray, counts: np.ndarray) -> np.ndarray:
    precisions = hits.cumsum(axis=1) / np.arange(1, hits.shape[1] + 1)
    return (precisions * hits).sum(axis=1) / np.minimum(counts, hits.shape[1])


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "ndcg": _ndcg,
    "recall": lambda hits, counts: hits.sum(axis=1) / counts,
    "hit": lambda hits, counts: hits.any(axis=1).astype(float),
    "precision": lambda hits, counts: hits.mean(axis=1),
    "mrr": _mrr,
    "map": _map,
}
"""(b,) values by lower-case name, of hits (b, k) bool, best first, and numbers of items (b,) to be
found; each is what RecBole's metric of the name is at k."""


def top_list_metric(valid_metric: str) -> str:
    """The metric to choose by: ``valid_metric`` if it is one of :data:`METRICS`, else NDCG@10.

    Args:
        valid_metric: RecBole's key, e.g. ``"Recall@20"``.
    """
    name, _, length = str(valid_metric).partition("@")
    if name.lower() in METRICS and length.isdecimal() and int(length) > 0:
        return valid_metric
    logger.warning("%s needs more than top lists: choosing by %s instead.", valid_metric, FALLBACK)
    return FALLBACK


@dataclass(frozen=True)
class ValidationSample:
    """Some validation users, and how well a ranking finds their items.

    As RecBole's full-sort evaluation counts: training items and the padding are not ranked, an item
    of validation is, even where it is a training item too.

    Attributes:
        users: (m,) int64, ascending.
        seen: (n_users, n_items) sparse, the pairs that are not ranked.
        wanted: (n_users, n_items) sparse, the pairs to be found.
        metric: ``name@k``, with a name of :data:`METRICS`.
    """

    users: np.ndarray
    seen: sp.csr_array
    wanted: sp.csr_array
    metric: str

    @classmethod
    def draw(
        cls,
        user_items: sp.csr_array,
        valid_items: sp.csr_array,
        *,
        metric: str,
        most_users: int,
        seed: int,
    ) -> "ValidationSample":
        """Draws users among those that have validation items.

        Args:
            user_items: (n_users, n_items), non-zero for training interactions.
            valid_items: The same for validation; row and column 0 do not count.
            metric: RecBole's ``valid_metric``; see :func:`top_list_metric`.
            most_users: All, where there are no more than that.
            seed: The same users are drawn from the same seed.

        Raises:
            ConfigError: There is no validation pair.
        """
        wanted = _without_padding(valid_items)
        users = np.flatnonzero(np.diff(wanted.indptr))
        if len(users) == 0:
            raise ConfigError("There are no validation pairs to choose by. Check eval_args.split.")
        if len(users) > most_users:
            drawn = np.random.default_rng(seed).choice(users, most_users, replace=False)
            users = np.sort(drawn)
        seen = sp.csr_array(user_items != 0).astype(np.int8)
        seen = sp.csr_array(seen - seen.multiply(wanted))
        seen.eliminate_zeros()
        return cls(users, seen, wanted, top_list_metric(metric))

    def blocks(self) -> Iterator[np.ndarray]:
        """The users in blocks whose scores fit the memory budget."""
        for places in user_blocks(len(self.users), self.wanted.shape[1], "cpu"):
            yield self.users[places.numpy()]

    def value(self, ranker: Ranker) -> float:
        """The mean of the metric over the sample."""
        return float(np.mean(self.values(ranker)))

    def values(self, ranker: Ranker) -> np.ndarray:
        """(m,) the metric of each user."""
        parts = []
        for users in self.blocks():
            ids = torch.from_numpy(users).to(ranker.device)
            parts.append(self.of_scores(users, candidates(ranker, ids, exclude=self.seen)))
        return np.concatenate(parts)

    def of_scores(self, users: np.ndarray, scores: torch.Tensor) -> np.ndarray:
        """(b,) the metric of users (b,) by scores (b, n_items), -inf for what is not ranked."""
        name, _, length = self.metric.partition("@")
        best = scores.topk(min(int(length), scores.shape[1] - 1), dim=1).indices.cpu().numpy()
        wanted = self.wanted[users]
        hits = np.take_along_axis(wanted.toarray() != 0, best, axis=1)
        return METRICS[name.lower()](hits, np.diff(wanted.indptr))


def _without_padding(pairs: sp.csr_array) -> sp.csr_array:
    entries = sp.coo_array(pairs)
    kept = (entries.data != 0) & (entries.row > 0) & (entries.col > 0)
    ones = np.ones(int(kept.sum()), dtype=np.int8)
    made = sp.csr_array((ones, (entries.row[kept], entries.col[kept])), shape=pairs.shape)
    made.sum_duplicates()
    made.data[:] = 1
    return made
