"""Neighbours by shrunk cosine: the graph of what is taught, and the weights of the kNN teacher."""

from collections.abc import Iterator
from typing import Optional

import numpy as np
import scipy.sparse as sp
import torch
from sparse_dot_topn import sp_matmul, sp_matmul_topn

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.schema import is_number
from recbole_freqd.graph.cooccurrence import (
    blocks_of_equal_work,
    check_k,
    incidence_of,
    keep_neighbours,
    normalise_edges,
)

_PAIRS_AT_ONCE = 5_000_000  # whole products of rows are held: some 30 bytes each


def cosine_graph(
    user_items: sp.csr_array,
    *,
    side: str,
    k: int,
    shrinkage: float,
    max_pairs: Optional[int] = None,
) -> sp.csr_array:
    """Builds the normalised adjacency of the graph that links entities of high shrunk cosine.

    As :func:`.cooccurrence_graph`, but that the ``k`` neighbours of a row are
    those of the largest c_ij / √(n_i n_j) · c_ij / (c_ij + s), with c the counts and n_i the number
    of interactions of i. Raw counts link everybody to the few busiest; the cosine does not, and the
    shrinkage s keeps pairs of rare entities that met once from being the nearest of all.

    Args:
        user_items: (n_users, n_items), non-zero where a user interacted with an item.
        side: ``"user"`` or ``"item"``.
        k: Neighbours kept per entity, at least 1, before symmetrisation.
        shrinkage: s ≥ 0, in interactions; 0 is the plain cosine.
        max_pairs: See :func:`.cooccurrence_graph`; n_i then counts what is left.

    Returns:
        Â, (n, n) float64, symmetric, sorted indices, empty diagonal.

    Raises:
        ConfigError: Unknown side, ``k`` below 1, or a shrinkage below 0.

    Example:
        >>> R = sp.csr_array(np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]]))
        >>> cosine_graph(R, side="item", k=1, shrinkage=3.0).toarray()
        array([[0., 1., 0.],
               [1., 0., 0.],
               [0., 0., 0.]])
    """
    (near,) = shrunk_cosines(
        user_items, side=side, k=k, shrinkages=(shrinkage,), max_pairs=max_pairs
    )
    edges = sp.csr_array((np.ones(near.nnz), near.indices, near.indptr), shape=near.shape)
    return normalise_edges(edges)


def shrunk_cosines(
    user_items: sp.csr_array,
    *,
    side: str,
    k: int,
    shrinkages: tuple[float, ...],
    max_pairs: Optional[int] = None,
) -> list[sp.csr_array]:
    """The ``k`` largest shrunk cosines of each entity with others, for each of some shrinkages.

    The counts are made once for all shrinkages, in blocks of rows within a memory budget. Cosines
    that agree to some nine digits are ties, which go to the smaller id. The result is the same for
    any number of threads and any size of the blocks.

    Args:
        user_items, side, k, max_pairs: See :func:`cosine_graph`.
        shrinkages: Values of s ≥ 0, one at least.

    Returns:
        For each s an (n, n) float32 array: row i has the k entities most like i, *best first* (so
        the indices are not sorted), with their values in (0, 1]; nothing on the diagonal. What has
        no common interaction with i is not among them.

    Raises:
        ConfigError: See :func:`cosine_graph`.

    Example:
        >>> R = sp.csr_array(np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]]))
        >>> (near,) = shrunk_cosines(R, side="item", k=1, shrinkages=(2.0,))
        >>> near.toarray().tolist()
        [[0.0, 0.5, 0.0], [0.5, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    check_k(k)
    for shrinkage in shrinkages:
        if not is_number(shrinkage) or shrinkage < 0:
            raise ConfigError(f"shrinkage: got {shrinkage!r}; allowed: a number >= 0.")
    incidence = incidence_of(user_items, side, max_pairs)
    n = incidence.shape[0]
    tops: list[list[tuple[slice, sp.csr_matrix]]] = [[] for _ in shrinkages]
    for block, counts, root in _counted(incidence):
        for top, shrinkage in zip(tops, shrinkages):
            top.append((block, _best_first(_keys(counts, root, block, shrinkage), int(k) + 1)))
    return [_as_rows(keep_neighbours(top, n, int(k)), n) for top in tops]


def _counted(incidence: sp.csr_array) -> Iterator[tuple[slice, sp.csr_matrix, np.ndarray]]:
    """Blocks of rows with their counts (rows, n) int32, and √n_i of all entities (n,)."""
    ones = sp.csr_matrix(incidence.astype(np.int32))
    right = sp.csr_matrix(ones.T)
    root = np.sqrt(np.diff(incidence.indptr).astype(np.float64))
    for block in blocks_of_equal_work(incidence, _PAIRS_AT_ONCE):
        yield block, sp_matmul(ones[block], right, n_threads=torch.get_num_threads()), root


def _keys(counts: sp.csr_matrix, root: np.ndarray, block: slice, shrinkage: float) -> sp.csr_matrix:
    """The same entries with integers that are ordered as the shrunk cosines, ties by column.

    The bits of a positive double, read as an integer, are ordered as the doubles are. The lowest
    of them, as many as a column number needs, are rounded away and hold that number instead.
    """
    n, used = counts.shape[1], counts.indptr[-1]
    columns, count = counts.indices[:used], counts.data[:used].astype(np.float64)
    own = np.repeat(root[block], np.diff(counts.indptr))
    cosine = count * count / (own * root[columns] * (count + shrinkage))
    keys = _rounded(cosine.view(np.int64), n) + (n - 1 - columns)
    return sp.csr_matrix((keys, columns, counts.indptr), shape=counts.shape)


def _rounded(bits: np.ndarray, n: int) -> np.ndarray:
    """The bits with the lowest ones zero, so that numbers below ``n`` have room in them."""
    low = max(1, int(n - 1).bit_length())
    return ((bits + (1 << (low - 1))) >> low) << low


def _best_first(keys: sp.csr_matrix, k: int) -> sp.csr_matrix:
    """The k largest of each row, the largest first: a product with the identity cut to its top."""
    n = keys.shape[1]
    identity = sp.csr_matrix(sp.identity(n, dtype=np.int64, format="csr"))
    threads = torch.get_num_threads()
    return sp_matmul_topn(keys, identity, top_n=min(k, n), sort=True, n_threads=threads)


def _as_rows(entries: tuple[np.ndarray, np.ndarray, np.ndarray], n: int) -> sp.csr_array:
    """Rows, columns and keys as an array of the cosines that the keys stand for."""
    rows, columns, keys = entries
    low = max(1, int(n - 1).bit_length())
    values = ((keys >> low) << low).view(np.float64).astype(np.float32)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n))])
    return sp.csr_array((values, columns, indptr), shape=(n, n))
