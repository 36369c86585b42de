"""Score matrices that are sums of products: their features, rows and chosen pairs."""

import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Optional

import numpy as np
import scipy.sparse as sp
import torch
from torch.nn import functional as F

from recbole_freqd.core.rankers import BUDGET_BYTES, Ranker, spread_over
from recbole_freqd.features.low_rank import FactoredScores, Scores, runs

_SPARSE_ENTRY = 12  # bytes of a stored value with its column
_MANY_ITEMS = 50_000  # more of them are not made as a whole row to look some entries up
_LOOKED_UP = 40  # bytes of a stored value that is looked up: with its place, and both sorted
_GATHERED = 40  # bytes of an entry of a column that is read for a pair
_PROBES = 64  # columns that an energy is estimated by
_ENERGY_USERS = 10_000  # the energy of more is that of so many, times a number


class SummedScores(FactoredScores):
    """Scores S = Σ of products of factors, none of which is multiplied out as a whole.

    Args:
        products: Each a list of sparse or dense matrices; the first of a list has n_users rows, the
            last n_items columns.

    Example:
        >>> R = sp.csr_array(np.eye(2, dtype=np.float32))
        >>> SummedScores([[R, R], [R, np.ones((2, 1)), np.ones((1, 2))]]).rows(np.array([1]))
        array([[1., 2.]])
    """

    def __init__(self, products: Sequence[list[Any]]) -> None:
        self.products = [FactoredScores(list(factors)) for factors in products]
        self.shape = self.products[0].shape
        self.factors = self.products[0].factors if len(self.products) == 1 else []

    def project(self, basis: np.ndarray) -> tuple[np.ndarray, float]:
        return self.times(basis), self._energy()

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """(b, n_items) float, the scores of users (b,) multiplied out."""
        return _sum(product.rows(ids) for product in self.products)

    def at(self, ids: np.ndarray, items: np.ndarray) -> np.ndarray:
        """(b, k) float, the scores of users (b,) for items (b, k) of their own.

        Of a product whose last factor is dense no rows are made. Rows of the others are: ask for no
        more users than :meth:`pair_blocks` says.
        """
        if items.size == 0:
            return np.empty(items.shape)
        if self.has_long_sparse_rows:
            distinct, place = np.unique(ids, return_inverse=True)
            return look_up(self.stored_rows(distinct), place, items)
        return _sum(_pairs(product, ids, items) for product in self.products)

    @property
    def has_long_sparse_rows(self) -> bool:
        """Whether rows are known by the few entries that they store, and are too long otherwise."""
        return (
            len(self.products) == 1 and self.products[0].is_sparse and self.shape[1] > _MANY_ITEMS
        )

    def stored_rows(self, ids: np.ndarray) -> sp.csr_array:
        """(b, n_items), the scores of users (b,) where they are sparse."""
        return self.products[0].product_rows(ids)

    def pair_blocks(self, ids: np.ndarray) -> Iterator[slice]:
        """Places of users (b,) that :meth:`at` may be asked for at once."""
        if self.has_long_sparse_rows:
            return runs(self.products[0].most_entries[ids], BUDGET_BYTES // _LOOKED_UP)
        size = self.users_at_once()
        return (slice(start, start + size) for start in range(0, len(ids), size))

    def users_at_once(self) -> int:
        """Users whose scores, and what they are made of, fit the memory budget."""
        widths = [factor.shape[1] for product in self.products for factor in product.factors]
        return max(1, BUDGET_BYTES // (_SPARSE_ENTRY * sum(widths)))

    def times(self, basis: np.ndarray) -> np.ndarray:
        return _sum(product.times(basis) for product in self.products)

    def back(self, projected: np.ndarray) -> np.ndarray:
        return _sum(product.back(projected) for product in self.products)

    def _energy(self) -> float:
        """‖S‖²_F; of many users an estimate: to multiply out is most of the time of an SVD."""
        users = spread_over(torch.arange(self.shape[0]), _ENERGY_USERS).numpy()
        if len(self.products) == 1:
            energy = sum(self.products[0].squares(users))
        else:
            size = self.users_at_once()
            blocks = np.split(users, range(size, len(users), size))
            energy = sum(
                float(np.square(self.rows(block), dtype=np.float64).sum()) for block in blocks
            )
        return energy * self.shape[0] / len(users)


@dataclass(frozen=True)
class Standardised:
    """A term diag(scale) (S - mean 1ᵀ) diag(known) of a sum of scores.

    Attributes:
        scores: S (n_users, n_items).
        scale, mean: (n_users,) float32.
        known: (n_items,) float32, 1 or 0.
    """

    scores: FactoredScores
    scale: np.ndarray
    mean: np.ndarray
    known: np.ndarray

    def times(self, basis: np.ndarray) -> np.ndarray:
        """(n_users, k) for (n_items, k)."""
        counted = self.known[:, None] * basis
        made = self.scores.times(counted) - self.mean[:, None] * counted.sum(axis=0)
        return self.scale[:, None] * made

    def back(self, projected: np.ndarray) -> np.ndarray:
        """(n_items, k), the transpose times (n_users, k)."""
        scaled = self.scale[:, None] * projected
        return self.known[:, None] * (self.scores.back(scaled) - self.mean @ scaled)


class StandardisedSum(Scores):
    """The sum of :class:`Standardised` terms, of which no row is made.

    The energy of what a basis leaves is estimated by random signs (exactly, of few items): it is
    only told, and rows are most of the time of an SVD.

    Source: of the estimate: Meyer, Musco, Musco & Woodruff, "Hutch++", SOSA 2021.
    """

    def __init__(self, terms: Sequence[Standardised]) -> None:
        self.terms, self.shape = terms, terms[0].scores.shape

    def gram(self, basis: np.ndarray) -> np.ndarray:
        projected = self._times(basis)
        return _sum(term.back(projected) for term in self.terms)

    def project(self, basis: np.ndarray) -> tuple[np.ndarray, float]:
        projected, n_items = self._times(basis), self.shape[1]
        probes = np.eye(n_items, dtype=np.float32)
        if n_items > _PROBES:
            signs = np.random.default_rng(0).integers(0, 2, (n_items, _PROBES)) * 2 - 1
            probes = (signs / _PROBES**0.5).astype(np.float32)
        rest = self._times(probes - basis @ (basis.T @ probes))
        return projected, sum(
            float(np.square(part, dtype=np.float64).sum()) for part in (projected, rest)
        )

    def _times(self, basis: np.ndarray) -> np.ndarray:
        return _sum(term.times(basis) for term in self.terms)


class SummedRanker(Ranker):
    """What ranks by a sum of products, on the CPU; scores arrive on a device.

    Args:
        scores: The sum.
        device: Where the scores are wanted.
    """

    def __init__(self, scores: SummedScores, device: Any = "cpu") -> None:
        self.scores, self.shape, self.device = scores, scores.shape, torch.device(device)

    def products(self) -> Scores:
        return self.scores

    def block(self, user_ids: torch.Tensor) -> torch.Tensor:
        made = torch.empty(len(user_ids), self.shape[1], device=self.device)
        for some in torch.arange(len(user_ids)).split(self.scores.users_at_once()):
            rows = self.scores.rows(_as_array(user_ids[some.to(user_ids.device)]))
            made[some.to(self.device)] = torch.from_numpy(rows).to(made)
        return made

    def at(self, user_ids: torch.Tensor, item_ids: torch.Tensor) -> torch.Tensor:
        made = torch.empty(item_ids.shape, device=self.device)
        users, items = _as_array(user_ids), _as_array(item_ids)
        for some in self.scores.pair_blocks(users):
            made[some] = torch.from_numpy(self.scores.at(users[some], items[some])).to(made)
        return made

    def mean_over(self, user_ids: torch.Tensor, items: torch.Tensor) -> Optional[torch.Tensor]:
        if not self.scores.has_long_sparse_rows:
            return None
        # R (W x) for the indicator x of the items: no row is made.
        counts = _as_array(items).astype(np.float64)[:, None]
        total = self.scores.products[0].total(_as_array(user_ids), counts)[:, 0]
        return torch.from_numpy(total / max(1.0, counts.sum())).to(self.device)

    def stored(self, user_ids: torch.Tensor) -> Optional[sp.csr_array]:
        return (
            self.scores.stored_rows(_as_array(user_ids))
            if self.scores.has_long_sparse_rows
            else None
        )


def _sum(parts: Iterable[np.ndarray]) -> np.ndarray:
    """Of one part at least, which are made one after the other."""
    return reduce(operator.add, parts)


def _as_array(ids: torch.Tensor) -> np.ndarray:
    return ids.cpu().numpy()


def _pairs(product: FactoredScores, ids: np.ndarray, items: np.ndarray) -> np.ndarray:
    """(b, k), the entries of one product."""
    factors, (distinct, place) = product.factors, np.unique(ids, return_inverse=True)
    left: Any = factors[0][distinct]
    last: Any = factors[-1]
    for factor in factors[1:-1]:
        left = left @ factor
    if len(factors) == 1:
        return _dense(left)[place[:, None], items]
    if not sp.issparse(last):
        return _dots(_dense(left), place, last, items)
    # By columns, or as whole rows: looking entries up in sparse rows would mean to sort them.
    read = np.diff(product.last_columns.indptr)[items].sum(axis=1)
    if sp.issparse(left):
        made = int(np.diff(last.indptr)[left.indices].sum()) + left.shape[0] * last.shape[1]
    else:
        made = left.shape[0] * last.nnz
    if read.sum() < made:
        return _by_columns(_dense(left), place, product.last_columns, items, read)
    return _dense(left @ last)[place[:, None], items]


def _by_columns(
    left: np.ndarray, place: np.ndarray, last: sp.csc_array, items: np.ndarray, read: np.ndarray
) -> np.ndarray:
    """(b, k), products of rows of ``left`` with sparse columns, of which each row reads (b,)."""
    made = np.empty(items.shape, dtype=np.result_type(left, last))
    table = torch.from_numpy(np.ascontiguousarray(left).reshape(-1, 1))
    for some in runs(read, BUDGET_BYTES // _GATHERED):
        columns = items[some].reshape(-1)
        counts = np.diff(last.indptr)[columns]
        starts = np.cumsum(counts) - counts
        entries = np.repeat(last.indptr[columns] - starts, counts) + np.arange(counts.sum())
        first = np.repeat(place[some] * left.shape[1], items.shape[1])
        sums = F.embedding_bag(
            torch.from_numpy(np.repeat(first, counts) + last.indices[entries]),
            table,
            torch.from_numpy(starts.astype(np.int64)),
            per_sample_weights=torch.from_numpy(last.data[entries].astype(left.dtype)),
            mode="sum",
        )
        made[some] = sums.numpy().reshape(-1, items.shape[1])
    return made


def look_up(rows: sp.csr_array, place: np.ndarray, items: np.ndarray) -> np.ndarray:
    """(b, k), the entries of rows at place (b,) and items (b, k); their columns are sorted here."""
    rows.sort_indices()
    n_items = rows.shape[1]
    owner = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    codes = owner * n_items + rows.indices  # ascending
    if len(codes) == 0:
        return np.zeros(items.shape, dtype=rows.dtype)
    wanted = place[:, None] * n_items + items
    found = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
    return np.where(codes[found] == wanted, rows.data[found], rows.dtype.type(0))


def _dense(values: Any) -> np.ndarray:
    return values.toarray() if sp.issparse(values) else values


def _dots(left: np.ndarray, place: np.ndarray, last: np.ndarray, items: np.ndarray) -> np.ndarray:
    """(b, k), products of rows of ``left`` with columns of ``last``, within the memory budget."""
    made = np.empty(items.shape, dtype=np.result_type(left, last))
    size = max(1, BUDGET_BYTES // (made.itemsize * max(1, items.shape[1]) * len(last)))
    columns = last.T
    for start in range(0, len(items), size):
        some = slice(start, start + size)
        made[some] = np.matmul(columns[items[some]], left[place[some], :, None])[:, :, 0]
    return made
