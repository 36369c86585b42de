"""Measures the validation metric on a sample of users, without RecBole; choices go by it."""

from dataclasses import dataclass, replace
from typing import Any, Optional

import numpy as np
import scipy.sparse as sp
import torch

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.rankers import Ranker, stored_pairs, user_blocks
from recbole_freqd.core.rng import derived_seed
from recbole_freqd.teacher.choice.ranking_metrics import (
    list_length,
    metric_named,
    top_list_metric,
)

MOST_USERS = 2_000


@dataclass(frozen=True)
class ValidationSample:
    """Some validation users, and how well a ranking finds their items.

    It counts as RecBole's full-sort evaluation does. Training items and the padding are not ranked.
    A validation item is ranked, even if it is a training item too.

    Attributes:
        users: (m,) int64, ascending.
        compared: (n,) int64, ascending. These users compare the best on the sample with the plain
            form. They are all users with validation items, or more of them than the sample has.
        n_users: How many users have validation items.
        seen: (n_users, n_items) sparse, the pairs that are not ranked.
        wanted: (n_users, n_items) sparse, the pairs to find.
        metric: Such as ``NDCG@10``, see :func:`.ranking_metrics.metric_named`.
    """

    users: np.ndarray
    compared: np.ndarray
    n_users: int
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
        most_users: int = MOST_USERS,
        most_compared: Optional[int] = None,
        seed: int,
    ) -> "ValidationSample":
        """Draws users among those that have validation items.

        Args:
            user_items: (n_users, n_items), non-zero for what is not ranked: the training
                interactions.
            valid_items: The same for validation; row and column 0 do not count.
            metric: RecBole's ``valid_metric``; NDCG@10 replaces a metric that needs more than top
                lists.
            most_users: How many users to draw; all if there are not more.
            most_compared: The same for ``compared``, which always holds the sample; None: all.
            seed: The same seed draws the same users.

        Raises:
            ConfigError: There is no validation interaction.
        """
        wanted = _without_padding(valid_items)
        compared = users = np.flatnonzero(np.diff(wanted.indptr))
        n_users = len(users)
        if len(users) == 0:
            raise ConfigError(
                "There are no validation interactions to choose by. Give numbers instead of auto "
                "and recipes instead of panel, or split off validation data (eval_args)."
            )
        if len(users) > most_users:
            drawn = np.random.default_rng(seed).choice(users, most_users, replace=False)
            users = np.sort(drawn)
        if most_compared is not None and len(compared) > most_compared:
            others = np.setdiff1d(compared, users, assume_unique=True)
            count = max(0, most_compared - len(users))
            drawn = np.random.default_rng(derived_seed(seed, 0)).choice(others, count, False)
            compared = np.sort(np.concatenate([users, drawn]))
        seen = sp.csr_array(user_items != 0).astype(np.int8)
        seen = sp.csr_array(seen - seen.multiply(wanted))
        seen.eliminate_zeros()
        return cls(users, compared, n_users, seen, wanted, top_list_metric(metric))

    def value(self, ranker: Ranker) -> float:
        """The mean of the metric over the sample."""
        return float(self.values(ranker).mean())

    def values(self, ranker: Ranker) -> torch.Tensor:
        """(m,) float64, the metric of each user."""
        users = torch.from_numpy(self.users).to(ranker.device)
        blocks = user_blocks(len(users), self.wanted.shape[1], ranker.device)
        return torch.cat([self._measured(ranker, users[some]) for some in blocks]).cpu()

    def _measured(self, ranker: Ranker, user_ids: torch.Tensor) -> torch.Tensor:
        measure = self.measure(user_ids)
        return measure(measure.mask(ranker.block(user_ids)))

    def measure(self, user_ids: torch.Tensor) -> "Measure":
        """What measures scores of these users (b,)."""
        shape: Any = len(user_ids), self.wanted.shape[1]
        positives = torch.zeros(shape, dtype=torch.bool, device=user_ids.device)
        wanted = stored_pairs(self.wanted, user_ids)
        positives[wanted] = True
        counts = torch.bincount(wanted[0], minlength=len(user_ids))
        row, column = stored_pairs(self.seen, user_ids)
        return Measure(self.metric, (row, column), positives, counts)


@dataclass(frozen=True)
class Measure:
    """The metric of some users.

    Attributes:
        metric: Its name.
        seen: Rows and columns of the scores that are not ranked, beside the padding.
        positives: (b, n) bool, what is to be found.
        counts: (b,), how many items each user is to find: n may be some of the items only.
    """

    metric: str
    seen: tuple[torch.Tensor, torch.Tensor]
    positives: torch.Tensor
    counts: torch.Tensor

    def mask(self, scores: torch.Tensor) -> torch.Tensor:
        """Sets the scores (b, n_items) of what is not ranked to -inf, in place."""
        scores[:, 0] = -torch.inf
        scores[self.seen] = -torch.inf
        return scores

    def __call__(self, scores: torch.Tensor) -> torch.Tensor:
        """(b,) float64, the metric of scores (b, n) that are masked already."""
        return metric_named(self.metric)(scores, self.positives, self.counts)

    @property
    def length(self) -> int:
        """Of the lists that count."""
        return list_length(self.metric)

    def of(self, rows: torch.Tensor) -> "Measure":
        """The same for some of the users, whose scores are masked already."""
        return replace(self, positives=self.positives[rows], counts=self.counts[rows])

    def at(self, columns: torch.Tensor) -> "Measure":
        """The same for some items of each user (b, w), whose scores are masked already."""
        return replace(self, positives=self.positives.gather(1, columns))


def _without_padding(pairs: sp.csr_array) -> sp.csr_array:
    entries = sp.coo_array(pairs)
    kept = (entries.data != 0) & (entries.row > 0) & (entries.col > 0)
    ones = np.ones(int(kept.sum()), dtype=np.int8)
    made = sp.csr_array((ones, (entries.row[kept], entries.col[kept])), shape=pairs.shape)
    made.sum_duplicates()
    made.data[:] = 1
    return made
