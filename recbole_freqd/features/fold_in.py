"""Vectors of users who came after training, from the vectors of the items that they chose."""

from collections.abc import Iterable, Iterator
from typing import Any, Optional, Union

import numpy as np
import scipy.sparse as sp

from recbole_freqd.core.errors import ConfigError

Histories = Union[sp.sparray, sp.spmatrix, Iterable[Iterable[int]]]
_BUDGET_BYTES = 128 * 2**20


def fold_in(
    item_vectors: np.ndarray,
    histories: Histories,
    *,
    item_bias: Optional[np.ndarray] = None,
    alpha: float = 10.0,
    reg: float = 30.0,
) -> np.ndarray:
    """Computes the vectors of users from their histories alone, in closed form.

    A user's vector x minimises Σ_i w_i (p_i - b_i - x·v_i)² + reg·m·‖x‖², with p_i = 1 and
    w_i = 1 + alpha for the items of the history, p_i = 0 and w_i = 1 for all others, b_i the item's
    bias, and m the mean squared norm of an item vector times the number of items, so that ``reg``
    means the same at every scale of the vectors. The coefficient of a bias is held at 1: the scores
    of the user are x·v_i + b_i.

    The Gram matrix of the items is made once. A user then costs O(|history| d² + d³), whatever the
    size of the catalogue.

    Args:
        item_vectors: (n, d), any floating dtype; computed in float64.
        histories: (b, n) sparse, non-zero where a user chose an item, or a list of positions of
            items for each user. An item that is there twice counts once.
        item_bias: (n,), or None where there is none.
        alpha: ≥ 0, how much more a chosen item weighs than another.
        reg: > 0, strength of the ridge. The defaults of both are chosen on the validation items of
            users that no training has seen (``results/fold_in.md``): a strong ridge, under which
            ``alpha`` matters little.

    Returns:
        (b, d) float32; zeros for an empty history, which says nothing about its user.

    Raises:
        ConfigError: Arrays of the wrong shape, values that are no numbers, positions outside of the
            catalogue, or ``alpha`` or ``reg`` out of range.

    Source: Hu, Koren & Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM
        2008, eq. 4. Deviations: the fixed bias, and the scale of the ridge.

    Example:
        >>> items = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
        >>> (fold_in(items, [[0]]) @ items.T).argsort()[0, ::-1].tolist()
        [0, 1, 2]
    """
    items = _numbers(item_vectors, "item_vectors", 2)
    bias = np.zeros(len(items)) if item_bias is None else _numbers(item_bias, "item_bias", 1)
    if len(bias) != len(items):
        raise ConfigError(
            f"item_bias: got {len(bias)} numbers for {len(items)} item vectors; allowed: one each."
        )
    if not alpha >= 0 or not reg > 0 or not np.isfinite([alpha, reg]).all():
        raise ConfigError(f"alpha, reg: got {alpha}, {reg}; allowed: alpha >= 0 and reg > 0.")
    chosen = _as_matrix(histories, len(items))
    gram = items.T @ items
    ridge = reg * np.trace(gram) / max(1, items.shape[1]) * np.eye(items.shape[1])
    missed = items.T @ bias  # what the biases alone predict of items that were not chosen
    found = np.zeros((chosen.shape[0], items.shape[1]), dtype=np.float32)
    for rows in _blocks(chosen, items.shape[1]):
        found[rows] = _solve(chosen[rows], items, bias, gram + ridge, missed, alpha)
    return found


def _solve(
    chosen: sp.csr_array,
    items: np.ndarray,
    bias: np.ndarray,
    matrix: np.ndarray,
    missed: np.ndarray,
    alpha: float,
) -> np.ndarray:
    """(b, d) float64, the vectors of a block of users."""
    owner = np.repeat(np.arange(chosen.shape[0]), np.diff(chosen.indptr))
    rows = items[chosen.indices]
    weighted = sp.csr_array(
        (np.ones(len(owner)), np.arange(len(owner)), chosen.indptr),
        shape=(chosen.shape[0], len(owner)),
    )
    outer = (rows[:, :, None] * rows[:, None, :]).reshape(len(rows), -1)
    width = items.shape[1]
    left = matrix + alpha * (weighted @ outer).reshape(-1, width, width)
    wanted = 1 + alpha * (1 - bias[chosen.indices])  # (1 + alpha)(1 - b) + b, b being in missed
    right = weighted @ (rows * wanted[:, None]) - missed
    solved = np.linalg.solve(left, right[:, :, None])[:, :, 0]
    solved[np.diff(chosen.indptr) == 0] = 0
    return solved


def _blocks(chosen: sp.csr_array, width: int) -> Iterator[slice]:
    """Slices of users whose outer products fit the memory budget; one user at least."""
    most = max(1, _BUDGET_BYTES // (8 * max(1, width) ** 2))
    start = 0
    while start < chosen.shape[0]:
        fits = int(np.searchsorted(chosen.indptr, chosen.indptr[start] + most, side="right")) - 1
        end = min(max(fits, start + 1), start + most)
        yield slice(start, end)
        start = end


def _as_matrix(histories: Histories, n_items: int) -> sp.csr_array:
    """(b, n_items), 1 where a user chose an item."""
    if sp.issparse(histories):
        matrix = sp.csr_array(histories)
        if matrix.shape[1] != n_items:
            raise ConfigError(
                f"histories: got {matrix.shape[1]} columns for {n_items} item vectors; allowed: a "
                "column for each of them."
            )
    else:
        rows = [np.asarray(list(row)) for row in histories]  # type: ignore[union-attr]
        lengths = [len(row) for row in rows]
        places = np.concatenate([row for row in rows if len(row)]) if any(lengths) else np.empty(0)
        if len(places) and (
            places.dtype.kind not in "iu" or places.min() < 0 or places.max() >= n_items
        ):
            raise ConfigError(
                f"histories: got positions such as {places.max()}; allowed: whole numbers from 0 "
                f"to {n_items - 1}, the rows of item_vectors."
            )
        owner = np.repeat(np.arange(len(rows)), lengths)
        shape = (len(rows), n_items)
        matrix = sp.csr_array((np.ones(len(owner)), (owner, places.astype(np.int64))), shape=shape)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def _numbers(values: Any, name: str, dimensions: int) -> np.ndarray:
    """An array in float64.

    Raises:
        ConfigError: It has other dimensions, or holds what is no number.
    """
    array = np.asarray(values)
    if array.ndim != dimensions or array.dtype.kind not in "fiu":
        raise ConfigError(
            f"{name}: got {array.dtype} of shape {array.shape}; allowed: numbers in {dimensions} "
            f"dimension{'s' if dimensions > 1 else ''}."
        )
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise ConfigError(f"{name}: holds NaN or infinite numbers. Export the model again.")
    return array
