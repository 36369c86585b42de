"""Vectors of users who came after training."""

import numpy as np
import pytest
import scipy.sparse as sp

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.features import fold_in as module
from recbole_freqd.features.fold_in import fold_in

N, D = 30, 4


@pytest.fixture
def items():
    return np.random.default_rng(0).standard_normal((N, D))


def by_hand(items, history, bias, alpha, reg):
    """The weighted ridge, written out over the whole catalogue."""
    chosen = np.isin(np.arange(len(items)), history)
    weight = 1 + alpha * chosen
    ridge = reg * np.square(items).sum() / items.shape[1] * np.eye(items.shape[1])
    left = items.T @ (weight[:, None] * items) + ridge
    return np.linalg.solve(left, items.T @ (weight * (chosen - bias)))


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 7.0])
def test_a_vector_solves_the_weighted_ridge_over_the_whole_catalogue(items, biased, alpha):
    bias = np.random.default_rng(1).standard_normal(N) if biased else np.zeros(N)
    histories = [[3], [0, 5, 9, 29], list(range(N))]
    found = fold_in(items, histories, item_bias=bias if biased else None, alpha=alpha, reg=0.3)
    expected = [by_hand(items, history, bias, alpha, 0.3) for history in histories]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert found.dtype == np.float32


def test_a_matrix_and_lists_are_the_same_and_repeats_count_once(items):
    matrix = np.zeros((2, N))
    matrix[0, [1, 4]], matrix[1, 7] = 3, 1
    np.testing.assert_array_equal(
        fold_in(items, sp.csr_matrix(matrix)), fold_in(items, [[4, 1, 1], [7]])
    )


def test_an_empty_history_gives_zeros_and_changes_no_other(items):
    bias = np.ones(N)
    found = fold_in(items, [[], [2], []], item_bias=bias)
    assert not found[[0, 2]].any()
    np.testing.assert_array_equal(found[1], fold_in(items, [[2]], item_bias=bias)[0])
    assert fold_in(items, []).shape == (0, D)


def test_blocks_of_users_change_nothing(items, monkeypatch):
    histories = [list(range(n % 7)) for n in range(40)]
    whole = fold_in(items, histories)
    monkeypatch.setattr(module, "_BUDGET_BYTES", 8 * D**2 * 5)
    np.testing.assert_allclose(fold_in(items, histories), whole, rtol=1e-6)


def test_the_scale_of_the_item_vectors_changes_no_ranking(items):
    one = fold_in(items, [[1, 2], [9]]) @ items.T
    other = fold_in(10 * items, [[1, 2], [9]]) @ (10 * items).T
    np.testing.assert_allclose(one, other, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"histories": [[N]]}, f"positions such as {N}; allowed: whole numbers from 0 to {N - 1}"),
        ({"histories": [[-1]]}, "positions such as -1"),
        ({"histories": [[0.5]]}, "positions such as 0.5"),
        ({"histories": sp.csr_array((2, N + 1))}, f"got {N + 1} columns for {N} item vectors"),
        ({"item_bias": np.zeros(3)}, "got 3 numbers for 30 item vectors"),
        ({"item_vectors": np.full((N, D), np.nan)}, "item_vectors: holds NaN"),
        ({"item_vectors": np.zeros(N)}, r"item_vectors: got float64 of shape \(30,\)"),
        ({"alpha": -1.0}, "alpha, reg: got -1.0"),
        ({"reg": 0.0}, "reg > 0"),
    ],
)
def test_what_cannot_be_is_refused_in_words(items, change, message):
    given = {"item_vectors": items, "histories": [[0]], **change}
    vectors, histories = given.pop("item_vectors"), given.pop("histories")
    with pytest.raises(ConfigError, match=message):
        fold_in(vectors, histories, **given)
