"""Measures mean and spread of each user's scores, where they are needed."""

from dataclasses import dataclass
from typing import Optional, Union

import numpy as np
import scipy.sparse as sp
import torch

from recbole_freqd.core import rankers as catalogue
from recbole_freqd.core.errors import TeacherError
from recbole_freqd.core.rankers import Ranker, stored_pairs, user_blocks
from recbole_freqd.core.rows import Features

# A spread below this share of a user's largest score is rounding: the scores are constant. If a
# user's items have no neighbours, an item-based teacher scores nothing but these items. Rounding
# leaves tiny scores of the others, and their z would be 1e16.
_ROUNDING = 1e-5
_STORED_USERS = 1024  # read at once; each has few scores


class UserMoments:
    """Measures mean and spread of each user's scores over the items that count, and keeps them.

    What counts: ``items``, without the pairs of ``exclude`` and those that score -inf. The first
    block of scores that holds a user measures it, so that no pass scores it twice. It keeps two
    floats and a flag per user.

    Args:
        ranker: Gives the scores.
        items: (n_items,) bool, without item 0.
        exclude: (n_users, n_items) sparse, non-zero for pairs that do not count; None: none.
        features: If the scores are dot products of these, moments have a closed form.
        name: For messages.
    """

    def __init__(
        self,
        ranker: Ranker,
        items: torch.Tensor,
        exclude: Optional[sp.csr_array] = None,
        features: Optional[Features] = None,
        name: str = "the teacher",
    ) -> None:
        self.ranker, self.items, self.exclude, self.name = ranker, items, exclude, name
        n_users, device = ranker.shape[0], ranker.device
        self._mean, self._spread = torch.zeros(2, n_users, device=device)
        self._is_measured = torch.zeros(n_users, dtype=torch.bool, device=device)
        self._features = features

    def of(self, user_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(b,) means and (b,) spreads of users (b,) int64; 0 and 0 where nothing counts."""
        self.measure(user_ids)
        return self._mean[user_ids], self._spread[user_ids]

    def measure(self, user_ids: torch.Tensor, scores: Optional[torch.Tensor] = None) -> None:
        """Measures unmeasured users among users (b,), by their scores (b, n_items) if given."""
        if self._features is not None:
            moments = product_moments(self._features, self.items, self.exclude)
            self._keep(slice(None), moments.mean, moments.spread)
            self._features = None
        is_new = ~self._is_measured[user_ids]
        if not is_new.any():
            return
        if scores is not None:
            return self._measure(user_ids, scores)
        users = user_ids[is_new].unique()
        if self.ranker.stored(users[:1]) is not None:
            for some in users.split(_STORED_USERS):
                self._measure(some)
            return
        for places in user_blocks(len(users), self.ranker.shape[1], users.device):
            self._measure(users[places])

    def _measure(self, user_ids: torch.Tensor, scores: Optional[torch.Tensor] = None) -> None:
        stored = self.ranker.stored(user_ids)
        if stored is not None:  # even with whole rows: the order of calls must not matter
            exclude = None if self.exclude is None else self.exclude[user_ids.cpu().numpy()]
            moments = stored_moments(stored, self.items.cpu().numpy(), exclude)
            self._keep(user_ids, *(part.to(self._mean.device) for part in moments))
            return
        scores = self.ranker.block(user_ids) if scores is None else scores
        counts = self.items & ~scores.isneginf()
        if self.exclude is not None:
            counts[stored_pairs(self.exclude, user_ids)] = False
        self._keep(user_ids, *moments_of(scores, counts))

    def _keep(
        self, user_ids: Union[slice, torch.Tensor], mean: torch.Tensor, spread: torch.Tensor
    ) -> None:
        if not (mean.isfinite().all() and spread.isfinite().all()):
            raise TeacherError(
                f"{self.name} gives scores that are NaN or infinite; allowed: finite numbers, and "
                "-inf for an unknown item. Train it again, or leave it out."
            )
        self._mean[user_ids], self._spread[user_ids] = mean.float(), spread.float()
        self._is_measured[user_ids] = True


def moments_of(scores: torch.Tensor, counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(b,) means and (b,) spreads of scores (b, n_items) over what counts (b, n_items) bool.

    The spread is the root of the mean squared deviation. It is 0 for constant scores and without
    any score. The largest score of all, counted or not, decides what is constant.
    """
    n = counts.sum(dim=1).clamp(min=1)
    mean = torch.where(counts, scores, 0.0).sum(dim=1) / n
    # From the deviations, not from the squares: an offset cancels all digits of the squares.
    deviations = torch.where(counts, scores - mean[:, None], 0.0)
    spread = (deviations.square_().sum(dim=1) / n).sqrt()
    return mean, _without_rounding(spread, _largest(scores))


def _largest(scores: torch.Tensor) -> torch.Tensor:
    """(b,), the largest absolute score (b, n_items) that is not -inf."""
    return scores.masked_fill(scores.isneginf(), 0.0).abs_().amax(dim=1)


def stored_moments(
    stored: sp.csr_array, items: np.ndarray, exclude: Optional[sp.csr_array] = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """:func:`moments_of` scores (b, n_items) that are 0 but for what is stored, without the zeros.

    Args:
        stored: (b, n_items), each pair once.
        items: (n_items,) bool, the items that count.
        exclude: (b, n_items) sparse, non-zero for pairs that do not count.

    Returns:
        (b,) float64 each.
    """
    n_rows, n_items = stored.shape
    row = np.repeat(np.arange(n_rows), np.diff(stored.indptr))
    counts, n = items[stored.indices], np.full(n_rows, items.sum())
    if exclude is not None:
        pairs = sp.csr_array(exclude != 0).tocoo()
        kept = items[pairs.col]
        n = n - np.bincount(pairs.row[kept], minlength=n_rows)
        codes, others = row * n_items + stored.indices, pairs.row * np.int64(n_items) + pairs.col
        counts &= ~np.isin(codes, others)
    largest = np.zeros(n_rows)
    np.maximum.at(largest, row, np.abs(stored.data))
    row, data = row[counts], stored.data[counts].astype(np.float64)
    mean = np.bincount(row, data, minlength=n_rows) / np.maximum(n, 1)
    squares = np.bincount(row, np.square(data - mean[row]), minlength=n_rows)
    squares = squares + (n - np.bincount(row, minlength=n_rows)) * np.square(mean)
    spread = torch.from_numpy(np.sqrt(squares / np.maximum(n, 1)))
    return torch.from_numpy(mean), _without_rounding(spread, torch.from_numpy(largest))


def _without_rounding(spread: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    # NaN stays NaN, to be seen.
    return spread.masked_fill(spread <= _ROUNDING * size, 0.0)


@dataclass(frozen=True)
class ProductMoments:
    """Moments of scores U Vᵀ.

    Attributes:
        mean, spread: (n_users,) float64, of each user's scores over what counts.
        offset: (n_users,) float64, the mean less U_u · v̄: the effect of excluded pairs on it.
        centre: (d,) float64, v̄, the mean of the item features over all known items.
    """

    mean: torch.Tensor
    spread: torch.Tensor
    offset: torch.Tensor
    centre: torch.Tensor


def product_moments(
    features: Features, items: torch.Tensor, exclude: Optional[sp.csr_array] = None
) -> ProductMoments:
    """Each user's mean and spread of the scores U Vᵀ, without making the scores.

    Over all known items the mean is U_u · v̄ and the variance U_uᵀ Cov(V) U_u. Both sums then lose
    the scores of the excluded pairs, in O(nnz d). All in double precision.

    Args:
        features: (n_users, d) and (n_items, d), biases as columns.
        items: (n_items,) bool, the items that count.
        exclude: (n_users, n_items) sparse, non-zero for pairs that do not count.
    """
    users, table = features
    n_known = int(items.sum())
    centre, covariance = _item_moments(table, items)
    first, second, counts = _sums_over_pairs(features, items, centre, exclude)
    mean, quadratic = torch.empty(2, len(users), dtype=torch.float64, device=users.device)
    size = max(1, catalogue.BUDGET_BYTES // (32 * users.shape[1]))
    for ids in torch.arange(len(users), device=users.device).split(size):
        rows = users[ids].double()
        mean[ids] = rows @ centre
        quadratic[ids] = ((rows @ covariance) * rows).sum(dim=1)
    left = (n_known - counts).clamp(min=1)
    offset = -first / left
    # Exactly 0 where nothing is left; never negative by rounding.
    variance = ((n_known * quadratic - second) / left - offset.square()).clamp(min=0)
    variance = variance.masked_fill(counts >= n_known, 0.0)
    mean, offset = (part.masked_fill(counts >= n_known, 0.0) for part in (mean + offset, offset))
    spread = _without_rounding(variance.sqrt(), torch.maximum(mean.abs(), quadratic.abs().sqrt()))
    return ProductMoments(mean, spread, offset, centre)


def _item_moments(table: torch.Tensor, items: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """v̄ (d,) and Cov(V) (d, d) float64 over the known items, in blocks."""
    known = items.nonzero().flatten()
    blocks = known.split(max(1, catalogue.BUDGET_BYTES // (32 * table.shape[1])))
    n = max(1, len(known))
    zero = torch.zeros(table.shape[1], dtype=torch.float64, device=table.device)
    centre = sum((table[ids].double().sum(dim=0) for ids in blocks), zero) / n
    covariance = torch.outer(zero, zero)
    for ids in blocks:
        rows = table[ids].double() - centre
        covariance += rows.T @ rows
    return centre, covariance / n


def _sums_over_pairs(
    features: Features,
    items: torch.Tensor,
    centre: torch.Tensor,
    exclude: Optional[sp.csr_array],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(n_users,) float64 each: Σ s, Σ s² and count of excluded pairs, s = U_u·(V_i - v̄)."""
    users, table = features
    device = users.device
    first, second, counts = torch.zeros(3, len(users), dtype=torch.float64, device=device)
    if exclude is None:
        return first, second, counts
    pairs = sp.csr_array(exclude != 0).tocoo()
    kept = pairs.data & items.cpu().numpy()[pairs.col]
    size = max(1, catalogue.BUDGET_BYTES // (64 * users.shape[1]))
    for some in np.split(np.flatnonzero(kept), range(size, int(kept.sum()), size)):
        row, col = (torch.from_numpy(ids[some]).long().to(device) for ids in (pairs.row, pairs.col))
        scores = (users[row].double() * (table[col].double() - centre)).sum(dim=1)
        first.index_add_(0, row, scores)
        second.index_add_(0, row, scores.square())
        counts.index_add_(0, row, torch.ones_like(scores))
    return first, second, counts
