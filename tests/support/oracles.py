"""Slow, plain, dense versions of what the package does sparsely."""

from functools import partial

import numpy as np
import scipy.sparse as sp
import torch

from recbole_freqd.core.rankers import FeatureRanker


def earlier_teachers(count: int, n_users: int = 9, n_items: int = 10) -> list:
    """What makes rankers that a teacher might have been before."""
    generator = torch.Generator().manual_seed(11)
    pairs = [
        [torch.randn(n, 4, generator=generator) for n in (n_users, n_items)] for _ in range(count)
    ]
    return [partial(FeatureRanker, *pair) for pair in pairs]


# Lists so short that a loss has something to draw on nine users and ten items.
SHORT_LISTS = {
    "RRD": {"k": 2, "uninteresting": 2, "top": 4},
    "DCD": {"k": 2, "top": 6},
    "HetComp": {"k": 4, "positives": 2, "teacher_trajectory": earlier_teachers(2)},
    "RCE-KD": {"k": 2, "sampled": 2, "top": 5},
    "FreqRank": {"k": 2, "sampled": 2, "top": 5},
}
WITHOUT_CHANCE = {"HetComp", "FTD", "KD"}  # losses that draw nothing


def dense_graph(user_items: np.ndarray, side: str, k: int) -> np.ndarray:
    """Â of the co-occurrence graph, by loops."""
    binary = (user_items != 0).astype(int)
    counts = binary @ binary.T if side == "user" else binary.T @ binary
    n = len(counts)
    weights = np.zeros((n, n))
    for i in range(n):
        others = [j for j in range(n) if j != i and counts[i, j] > 0]
        for j in sorted(others, key=lambda j: (-counts[i, j], j))[:k]:
            weights[i, j] = 1.0
    symmetric = (weights + weights.T) / 2
    degree = symmetric.sum(axis=1)
    root = np.where(degree > 0, 1 / np.sqrt(np.where(degree > 0, degree, 1.0)), 0.0)
    return root[:, None] * symmetric * root


def dense_laplacian(adjacency: np.ndarray) -> np.ndarray:
    """L = J - Â."""
    return np.diag((np.abs(adjacency).sum(axis=1) > 0).astype(float)) - adjacency


def dense_filter(adjacency: np.ndarray, response) -> np.ndarray:
    """H = U h(Λ) Uᵀ, by eigendecomposition."""
    values, vectors = np.linalg.eigh(dense_laplacian(adjacency))
    return vectors @ np.diag(response(values)) @ vectors.T


def random_interactions(seed: int, n_users: int = 9, n_items: int = 10) -> sp.csr_array:
    """Sparse interactions with an empty row and column 0, an isolated entity, twins and ties."""
    rng = np.random.default_rng(seed)
    dense = (rng.random((n_users, n_items)) < 0.35).astype(float)
    dense[:, 0] = dense[0] = 0.0  # RecBole's padding
    dense[-1] = 0.0  # a user without training interactions
    dense[:, -1] = 0.0
    dense[3], dense[:, 4] = dense[2], dense[:, 5]  # twins: ties, and degenerate eigenvalues
    return sp.csr_array(dense)
