"""Low-rank features of a score matrix that is never held in memory."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from recbole_freqd.core.rows import single_precision

_OVERSAMPLING = 16
_ITERATIONS = 2
_NEGLIGIBLE = 1e-6  # of the largest singular value: float32 knows no better
_BLOCK_BYTES = 256 * 2**20


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
        product = self._times(basis)
        for factor in self.factors:
            product = factor.T @ product
        return product

    def project(self, basis: np.ndarray) -> tuple[np.ndarray, float]:
        return self._times(basis), sum(self._squares())

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """(b, n_items), the scores of users (b,) multiplied out."""
        product = self.factors[0][ids]
        for factor in self.factors[1:]:
            product = product @ factor
        return product.toarray() if sp.issparse(product) else product

    def _times(self, basis: np.ndarray) -> np.ndarray:
        for factor in reversed(self.factors):
            basis = factor @ basis
        return basis

    def _squares(self) -> Iterator[float]:
        """Squared norms of blocks of rows; no more than a block is multiplied out."""
        size = max(1, _BLOCK_BYTES // (12 * self.shape[1]))  # values and their squares in double
        for start in range(0, self.shape[0], size):
            product = self.factors[0][start : start + size]
            for factor in self.factors[1:]:
                product = product @ factor
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
    start = np.random.default_rng(seed).standard_normal((scores.shape[1], width))
    basis = np.linalg.qr(start)[0]
    for _ in range(_ITERATIONS):
        basis = _orthonormal(scores.gram(basis.astype(np.float32)))
    projected, energy = scores.project(basis.astype(np.float32))
    if not np.isfinite(energy):
        raise ValueError("the scores hold NaN or infinite numbers")
    left, sigma, right = np.linalg.svd(projected.astype(np.float64), full_matrices=False)
    kept = max(1, int((sigma[:rank] > _NEGLIGIBLE * sigma[0]).sum()))
    root = np.sqrt(sigma[:kept])
    user_emb, item_emb = left[:, :kept] * root, (basis @ right[:kept].T) * root
    # The sign of a singular vector is free; fixed here so that the same scores give the same rows.
    signs = np.sign(item_emb[np.abs(item_emb).argmax(0), np.arange(kept)])
    signs[signs == 0] = 1
    share = float(np.square(sigma[:kept]).sum() / energy) if energy else 1.0
    return (
        (user_emb * signs).astype(np.float32),
        (item_emb * signs).astype(np.float32),
        min(share, 1.0),
    )


def _orthonormal(columns: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the columns."""
    if not np.isfinite(columns).all():
        raise ValueError("the scores hold NaN or infinite numbers")
    return np.linalg.qr(columns.astype(np.float64))[0]
