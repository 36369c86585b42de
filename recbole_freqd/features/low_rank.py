"""Low-rank features of a score matrix that is never held in memory."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from recbole_freqd.core.rows import single_precision

_OVERSAMPLING = 16
_ITERATIONS = 2
_NEGLIGIBLE = 1e-6  # of the largest singular value: float32 knows no better
_BLOCK_BYTES = 256 * 2**20
_QR_BYTES = 64 * 2**20  # of a table, made float64 at once
_ENTRY = 20  # bytes of a stored value with its column and its square in float64


class Scores:
    """A matrix of scores (n_users, n_items), known by its products only.

    Attributes:
        shape: (n_users, n_items).
    """

    shape: tuple[int, int]

    def gram(self, basis: np.ndarray) -> np.ndarray:
        """SᵀS X (n_items, k) for X (n_items, k), in one pass."""
        raise NotImplementedError

    def project(self, basis: np.ndarray) -> tuple[np.ndarray, float]:
        """S X (n_users, k) for X (n_items, k), and ‖S‖²_F, in one pass."""
        raise NotImplementedError


class BlockScores(Scores):
    """Scores that are made anew, in blocks of users, at each pass.

    Attributes:
        device: Where they are made.
    """

    device: torch.device

    def blocks(self) -> Iterator[torch.Tensor]:
        """(b, n_items) float32 each, the scores of all users in their order."""
        raise NotImplementedError

    def gram(self, basis: np.ndarray) -> np.ndarray:
        columns = torch.from_numpy(basis).to(self.device)
        product = torch.zeros_like(columns)
        for scores in self.blocks():
            with single_precision(self.device):
                product += scores.T @ (scores @ columns)
        return product.cpu().numpy()

    def project(self, basis: np.ndarray) -> tuple[np.ndarray, float]:
        columns, energy, parts = torch.from_numpy(basis).to(self.device), 0.0, []
        for scores in self.blocks():
            energy += float(scores.double().square().sum())
            with single_precision(self.device):
                parts.append((scores @ columns).cpu().numpy())
        return np.concatenate(parts), energy


class FactoredScores(Scores):
    """Scores that are a product of matrices: cheaper than scoring, and exact.

    Args:
        factors: Sparse or dense matrices, the first with n_users rows, the last with n_items
            columns.
    """

    def __init__(self, factors: list[Any]) -> None:
        self.factors = [
            sp.csr_array(factor) if sp.issparse(factor) else np.asarray(factor)
            for factor in factors
        ]
        self.shape = (self.factors[0].shape[0], self.factors[-1].shape[1])

    def gram(self, basis: np.ndarray) -> np.ndarray:
        return self.back(self.times(basis))

    def project(self, basis: np.ndarray) -> tuple[np.ndarray, float]:
        return self.times(basis), sum(self.squares(np.arange(self.shape[0])))

    @property
    def is_sparse(self) -> bool:
        """Whether all factors are, and so the product."""
        return all(sp.issparse(factor) for factor in self.factors)

    @cached_property
    def last_columns(self) -> sp.csc_array:
        """The last factor by its columns, where it is sparse."""
        return sp.csc_array(self.factors[-1])

    @cached_property
    def most_entries(self) -> np.ndarray:
        """(n_users,) int64, how many entries each row of the product stores at most."""
        counts = np.full(self.shape[1], 1)
        for factor in reversed(self.factors if self.is_sparse else []):
            pattern = sp.csr_array(
                (np.ones(factor.nnz, dtype=np.int64), factor.indices, factor.indptr), factor.shape
            )
            counts = np.minimum(pattern @ counts, self.shape[1])
        return counts if self.is_sparse else np.full(self.shape[0], self.shape[1])

    def product_rows(self, ids: Any) -> Any:
        """(b, n_items), the scores of users (b,) multiplied out, sparse where all factors are."""
        product = self.factors[0][ids]
        for factor in self.factors[1:]:
            product = product @ factor
        return product

    def total(self, ids: np.ndarray, basis: np.ndarray) -> np.ndarray:
        """(b, k), the scores of users (b,) times a matrix (n_items, k)."""
        for factor in reversed(self.factors[1:]):
            basis = factor @ basis
        return self.factors[0][ids] @ basis

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """(b, n_items), the scores of users (b,) multiplied out."""
        product = self.product_rows(ids)
        return product.toarray() if sp.issparse(product) else product

    def times(self, basis: np.ndarray) -> np.ndarray:
        """S X (n_users, k) for X (n_items, k)."""
        for factor in reversed(self.factors):
            basis = factor @ basis
        return basis

    def back(self, projected: np.ndarray) -> np.ndarray:
        """Sᵀ Y (n_items, k) for Y (n_users, k)."""
        for factor in self.factors:
            projected = factor.T @ projected
        return projected

    def squares(self, ids: np.ndarray) -> Iterator[float]:
        """Squared norms of blocks of the rows of users (b,); only a block is multiplied out."""
        for rows in runs(self.most_entries[ids], _BLOCK_BYTES // _ENTRY):
            product = self.product_rows(ids[rows])
            values = product.data if sp.issparse(product) else product
            yield float(np.square(values, dtype=np.float64).sum())


def low_rank_features(
    scores: Scores, rank: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, float]:
    """Features whose dot products are the best approximation of scores at a rank.

    With the truncated SVD S ≈ UΣVᵀ these are UΣ^½ and VΣ^½. Directions that carry nothing (singular
    values below 1e-6 of the largest) are left out, so there may be fewer than ``rank``.

    Args:
        scores: The matrix S, n_users × n_items.
        rank: ≥ 1, number of dimensions wanted.
        seed: Of the random start.

    Returns:
        User features (n_users, r) and item features (n_items, r), float32, r ≤ rank, and the share
        of the energy ‖S‖²_F that they keep, in [0, 1].

    Raises:
        ValueError: The scores hold NaN or infinite numbers.

    Source: Halko, Martinsson & Tropp, "Finding structure with randomness", SIAM Review 2011,
        algorithms 4.4 and 5.1. Deviation: S and Sᵀ are applied in one pass over the users, with one
        orthonormalisation for both, so that two power iterations take three passes in all.
    """
    width = min(rank + _OVERSAMPLING, *scores.shape)
    basis = _random_columns(scores.shape[1], width, seed)
    for _ in range(_ITERATIONS):
        orthonormalise(basis)
        basis = scores.gram(basis.astype(np.float32, copy=False))
    orthonormalise(basis)
    projected, energy = scores.project(basis.astype(np.float32, copy=False))
    if not np.isfinite(energy):
        raise ValueError("the scores hold NaN or infinite numbers")
    left, sigma, right = np.linalg.svd(orthonormalise(projected))
    kept = max(1, int((sigma[:rank] > _NEGLIGIBLE * sigma[0]).sum()))
    root = np.sqrt(sigma[:kept])
    user_emb = _times(projected, left[:, :kept] * root)
    del projected  # of a table's size, as is the basis
    item_emb = _times(basis, right[:kept].T * root)
    signs = _signs(item_emb)
    user_emb *= signs
    item_emb *= signs
    share = float(np.square(sigma[:kept]).sum() / energy) if energy else 1.0
    return user_emb, item_emb, min(share, 1.0)


def orthonormalise(columns: np.ndarray) -> np.ndarray:
    """R (k, k) float64 of columns (n, k) = QR, n ≥ k; they become Q in place, in their precision.

    In blocks of rows, of which one at a time is float64: the QR of each, then that of their R on
    top of each other. Not by the Gram matrix, whose root is many times as fast where only R is
    wanted: it squares the condition, and that of scores times their transpose, a square already, is
    often beyond the 1e8 where such a Q is no longer orthonormal.

    Raises:
        ValueError: Columns that are NaN or infinite.

    Source: Demmel et al., "Communication-optimal parallel and sequential QR and LU factorizations",
        SIAM J. Sci. Comput. 2012 (TSQR).

    Example:
        >>> columns = np.array([[3.0], [4.0]])
        >>> abs(float(orthonormalise(columns)[0, 0])), np.abs(columns[:, 0]).round(1).tolist()
        (5.0, [0.6, 0.8])
    """
    blocks, roots = _blocks(columns), []
    for rows in blocks:
        block = columns[rows].astype(np.float64)
        if not np.isfinite(block).all():
            raise ValueError("the scores hold NaN or infinite numbers")
        columns[rows], root = np.linalg.qr(block)
        roots.append(root)
    if len(roots) == 1:
        return roots[0]
    inner, root = np.linalg.qr(np.concatenate(roots))
    for rows, part in zip(blocks, np.split(inner, len(roots))):
        columns[rows] = columns[rows].astype(np.float64) @ part
    return root


def _blocks(table: np.ndarray) -> list[slice]:
    """Rows whose float64 form is small; each block has as many as columns at least."""
    n, width = table.shape
    size = max(2 * width, _QR_BYTES // (8 * width))
    ends = np.linspace(0, n, -(-n // size) + 1).astype(int)
    return [slice(start, end) for start, end in zip(ends[:-1], ends[1:])]


def _random_columns(n: int, width: int, seed: int) -> np.ndarray:
    """(n, width) float32, normally distributed."""
    rng, made = np.random.default_rng(seed), np.empty((n, width), dtype=np.float32)
    for rows in _blocks(made):
        made[rows] = rng.standard_normal(made[rows].shape)
    return made


def _times(table: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(n, c) float32, the product of a table (n, k) with a matrix (k, c), in float64 by blocks."""
    made = np.empty((len(table), matrix.shape[1]), dtype=np.float32)
    for rows in _blocks(table):
        made[rows] = table[rows].astype(np.float64) @ matrix
    return made


def _signs(columns: np.ndarray) -> np.ndarray:
    """(k,), ±1: the sign of a singular vector is free, and the same scores give the same rows."""
    highest, lowest, every = columns.argmax(0), columns.argmin(0), np.arange(columns.shape[1])
    most, least = columns[highest, every], -columns[lowest, every]
    is_negative = (least > most) | ((least == most) & (lowest < highest))
    return np.where(is_negative, -1, 1).astype(columns.dtype)


def runs(sizes: np.ndarray, most: int) -> Iterator[slice]:
    """Rows (n,) in runs whose sizes sum up to at most so much, of one row at least.

    Example:
        >>> [(run.start, run.stop) for run in runs(np.array([1, 2, 9, 1]), 3)]
        [(0, 2), (2, 3), (3, 4)]
    """
    ends, start = np.cumsum(sizes), 0
    while start < len(ends):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield slice(start, stop)
        start = stop
