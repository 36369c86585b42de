"""Made-up interactions with the heavy tails of real ones, so that anyone can run the benchmarks."""

import numpy as np
import scipy.sparse as sp


def heavy_tailed(
    n_users: int, n_items: int, n_interactions: int, *, exponent: float = 0.9, seed: int = 0
) -> sp.csr_array:
    """(n_users, n_items) binary, row and column 0 empty; repeated draws count once.

    Users have log-normal activity, items Zipf popularity: p_i ∝ i^-exponent, so that with 2 M items
    and 15 M interactions the most popular one has nearly half a million users.
    """
    rng = np.random.default_rng(seed)
    activity = rng.lognormal(0.0, 1.0, n_users - 1).cumsum()
    popularity = (np.arange(1, n_items) ** -exponent).cumsum()
    users, items = (
        np.searchsorted(steps, rng.random(n_interactions) * steps[-1]) + 1
        for steps in (activity, popularity)
    )
    items = np.concatenate([[0], rng.permutation(np.arange(1, n_items))])[items]
    matrix = sp.csr_array((np.ones(len(users), np.int8), (users, items)), (n_users, n_items))
    matrix.data[:] = 1
    return matrix
