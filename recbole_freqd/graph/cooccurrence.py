"""Entity graphs: top-K co-occurrence, normalised, and what edge dropout leaves of them."""

import logging
from collections.abc import Iterable, Iterator
from typing import Optional

import numpy as np
import scipy.sparse as sp
import torch
from sparse_dot_topn import sp_matmul_topn
from tqdm import tqdm

from recbole_freqd.core.errors import ConfigError

SIDES = ("user", "item")
_PAIRS_PER_BLOCK = 50_000_000  # counted between two steps of the progress bar
logger = logging.getLogger(__name__)


def cooccurrence_graph(
    user_items: sp.csr_array, *, side: str, k: int, max_pairs: Optional[int] = None
) -> sp.csr_array:
    """Builds the normalised adjacency of the graph that links entities sharing interactions.

    C = R Rᵀ (users) or Rᵀ R (items) with R the binary matrix; its diagonal is left out; a row
    keeps its ``k`` largest non-zero counts, of equal counts the smaller ids; these edges get
    weight 1 (W), A₀ = (W + Wᵀ) / 2, Â = D^(-1/2) A₀ D^(-1/2), with zero rows for degree zero.
    C is never held: each row is reduced to its top while it is made, with as many threads as torch
    uses. The result is the same for any number of threads.

    A *hub*, an item with many users, costs the square of their number and says little about any two
    of them. With ``max_pairs`` the busiest items are left out of the users' graph (and the busiest
    users out of the items'), all from a degree on, so that the rest costs that many pairs at most.
    The log says how many they are and what share of the interactions is theirs.

    Args:
        user_items: (n_users, n_items), non-zero where a user interacted with an item. Repeated
            entries count once.
        side: ``"user"`` or ``"item"``.
        k: Neighbours kept per entity, at least 1, before symmetrisation.
        max_pairs: Σ (degree of the other side)² that may be counted; None: no bound.

    Returns:
        Â, (n, n) float64, symmetric, sorted indices, empty diagonal.

    Raises:
        ConfigError: Unknown side, ``k`` below 1, or counts too large to order exactly.

    Source: Zhu & Zhang, KDD 2025 (arXiv 2411.10676), §4. Deviation from the authors' public code:
        it drops "self" by its position among ties and links entities that share nothing.

    Example:
        >>> R = sp.csr_array(np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]]))
        >>> cooccurrence_graph(R, side="item", k=1).toarray()
        array([[0., 1., 0.],
               [1., 0., 0.],
               [0., 0., 0.]])
    """
    check_k(k)
    incidence = incidence_of(user_items, side, max_pairs)
    return normalise_edges(_top_neighbours(incidence, int(k)))


def check_k(k: int) -> None:
    """Raises ConfigError unless ``k`` is a number of neighbours."""
    if int(k) != k or k < 1:
        raise ConfigError(f"k: got {k!r}; allowed: an integer of at least 1.")


def incidence_of(
    user_items: sp.csr_array, side: str, max_pairs: Optional[int] = None
) -> sp.csr_array:
    """The entities of a side as rows, what they interacted with as columns, ones; without hubs.

    Args:
        user_items, side, max_pairs: See :func:`cooccurrence_graph`.

    Returns:
        (n, n of the other side) int64.

    Raises:
        ConfigError: Unknown side.
    """
    if side not in SIDES:
        raise ConfigError(f"side: got {side!r}; allowed: 'user' or 'item'.")
    incidence = sp.csr_array(user_items != 0).astype(np.int64)
    incidence.sum_duplicates()
    if side == "item":
        incidence = sp.csr_array(incidence.T)
    return incidence if max_pairs is None else _without_hubs(incidence, side, max_pairs)


def normalise_edges(edges: sp.csr_array) -> sp.csr_array:
    """Â of directed edges W: A₀ = (W + Wᵀ) / 2, then D^(-1/2) A₀ D^(-1/2).

    Example:
        >>> edges = sp.csr_array(np.array([[0, 1, 1], [1, 0, 0], [0, 0, 0]]))
        >>> normalise_edges(edges).toarray().round(2)
        array([[0.  , 0.82, 0.58],
               [0.82, 0.  , 0.  ],
               [0.58, 0.  , 0.  ]])
    """
    return _normalise(_symmetrise(edges))


def keep_neighbours(
    blocks: Iterable[tuple[slice, sp.csr_matrix]], n: int, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first ``k`` stored entries of each row but for the one of the row itself.

    Args:
        blocks: Rows in ascending order, with their entries (rows, n), the best of a row first.
        n: Number of rows in all.
        k: Entries kept per row, at least 1.

    Returns:
        Rows, columns and values of the entries kept, each (n_edges,), row by row, best first.
    """
    parts = []
    for block, top in blocks:
        rows = np.repeat(np.arange(n)[block], np.diff(top.indptr))
        other = top.indices != rows
        parts.append((rows[other], top.indices[other], top.data[other]))
    rows, columns, values = (np.concatenate(arrays) for arrays in zip(*parts))
    counts = np.bincount(rows, minlength=n)
    place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rows[place < k], columns[place < k], values[place < k]


def _without_hubs(incidence: sp.csr_array, side: str, max_pairs: int) -> sp.csr_array:
    """The same without the busiest columns, so that Σ degree² is ``max_pairs`` at most."""
    degrees = np.bincount(incidence.indices, minlength=incidence.shape[1])
    levels, counts = np.unique(degrees, return_counts=True)
    # In floats: a square of a degree times its count may pass 2⁶³, and no digit of it matters.
    pairs = np.cumsum(levels.astype(np.float64) ** 2 * counts)
    if pairs[-1] <= max_pairs:
        return incidence
    kept = pairs <= max_pairs
    bound = int(levels[kept][-1]) if kept.any() else 0
    hubs = degrees > bound
    kept_entries = ~hubs[incidence.indices]
    logger.warning(
        "%s graph: %d %ss with more than %d interactions are left out, %.1f %% of all "
        "interactions; with them there would be %.1e pairs to count, max_pairs allows %.1e",
        side,
        hubs.sum(),
        "item" if side == "user" else "user",
        bound,
        100 * (1 - kept_entries.mean()),
        pairs[-1],
        max_pairs,
    )
    rows = np.repeat(np.arange(incidence.shape[0]), np.diff(incidence.indptr))[kept_entries]
    columns = incidence.indices[kept_entries]
    return sp.csr_array((incidence.data[kept_entries], (rows, columns)), shape=incidence.shape)


def _top_neighbours(incidence: sp.csr_array, k: int) -> sp.csr_array:
    """(n, n) with 1 at the k largest off-diagonal counts of each row, ties to the smaller id.

    ``sp_matmul_topn`` promises no order among ties, so the counts are made distinct in integers:
    column j of the right factor holds S - j instead of 1, and a count c becomes c (S - j). With
    S > max(c) n the order of different counts is kept and equal counts fall with j.
    """
    n = incidence.shape[0]
    largest = int(np.diff(incidence.indptr).max(initial=0))
    scale = largest * n + 1
    if largest * scale >= 2**63:
        raise ConfigError(
            f"An entity has {largest} interactions among {n} entities: too many to order exactly. "
            "Filter the busiest entities out (RecBole's user_inter_num_interval, "
            "item_inter_num_interval)."
        )
    weighted = incidence.copy()
    weighted.data = scale - np.repeat(np.arange(n, dtype=np.int64), np.diff(incidence.indptr))
    right = sp.csr_matrix(weighted.T)
    del weighted
    # One more than k, since an entity is among its own top until it is taken out.
    blocks = (
        (
            block,
            sp_matmul_topn(
                sp.csr_matrix(incidence[block]),
                right,
                top_n=min(k + 1, n),
                sort=True,
                n_threads=torch.get_num_threads(),
            ),
        )
        for block in blocks_of_equal_work(incidence)
    )
    rows, columns, _ = keep_neighbours(blocks, n, k)
    return sp.csr_array((np.ones(len(rows)), (rows, columns)), shape=(n, n))


def blocks_of_equal_work(
    incidence: sp.csr_array, most_pairs: Optional[int] = None
) -> Iterator[slice]:
    """Slices of rows, each with about as many pairs to count; with a bar where it takes long.

    Args:
        incidence: From :func:`incidence_of`.
        most_pairs: Of a slice; a single row may have more. None: as many as need no memory.
    """
    degrees = np.bincount(incidence.indices, minlength=incidence.shape[1])
    pairs = np.add.reduceat(
        np.append(degrees[incidence.indices], 0), incidence.indptr[:-1], dtype=np.float64
    )
    pairs[np.diff(incidence.indptr) == 0] = 0
    wanted = np.arange(0, pairs.sum(), most_pairs or _PAIRS_PER_BLOCK)[1:]
    cuts = [0, *np.searchsorted(pairs.cumsum(), wanted).tolist(), incidence.shape[0]]
    with tqdm(total=len(cuts) - 1, desc="Graph", ncols=100, delay=2, disable=None) as bar:
        for start, end in zip(cuts, cuts[1:]):
            if end > start:
                yield slice(start, end)
            bar.update()


def _symmetrise(weights: sp.csr_array) -> sp.csr_array:
    return sp.csr_array((weights + weights.T) / 2)


def _normalise(weights: sp.csr_array) -> sp.csr_array:
    """D^(-1/2) A D^(-1/2), zero rows where the degree is zero."""
    degree = np.asarray(weights.sum(axis=1)).ravel()
    inverse_root = np.zeros_like(degree)
    inverse_root[degree > 0] = degree[degree > 0] ** -0.5
    scaling = sp.diags_array(inverse_root)
    normalised = sp.csr_array(scaling @ weights @ scaling)
    normalised.sort_indices()
    return normalised
