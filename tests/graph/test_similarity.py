"""Neighbours by shrunk cosine against dense loops."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.graph.cooccurrence import cooccurrence_graph
from recbole_freqd.graph.similarity import cosine_graph, shrunk_cosines
from tests.support.oracles import random_interactions


def dense_cosines(user_items, side, shrinkage):
    """(n, n), the shrunk cosines, zero on the diagonal; ten digits, so that ties are ties."""
    binary = (user_items != 0).astype(float)
    counts = binary @ binary.T if side == "user" else binary.T @ binary
    own = np.sqrt(np.diag(counts))
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = counts / np.outer(own, own) * counts / (counts + shrinkage)
    np.fill_diagonal(cosines, 0)
    return np.round(np.nan_to_num(cosines), 10)


def dense_neighbours(cosines, k):
    """The same with the k largest of each row only, ties to the smaller id, by loops."""
    kept = np.zeros_like(cosines)
    for i, row in enumerate(cosines):
        best = sorted(np.flatnonzero(row), key=lambda j: (-row[j], j))[:k]
        kept[i, best] = row[best]
    return kept


def dense_adjacency(neighbours):
    weights = ((neighbours > 0) + (neighbours > 0).T.astype(float)) / 2
    degree = weights.sum(axis=1)
    root = np.where(degree > 0, np.where(degree > 0, degree, 1.0) ** -0.5, 0.0)
    return root[:, None] * weights * root


def a_matrix(seed, shape=(30, 40), density=0.2):
    return (np.random.default_rng(seed).random(shape) < density).astype(float)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    density=st.floats(0.0, 0.9),
    k=st.integers(1, 15),
    side=st.sampled_from(["user", "item"]),
    shrinkage=st.sampled_from([0, 1, 3.0, 10, 1e6]),
)
def test_graph_and_values_equal_the_dense_ones(seed, shape, density, k, side, shrinkage):
    dense = a_matrix(seed, shape, density)
    wanted = dense_neighbours(dense_cosines(dense, side, shrinkage), k)
    graph = cosine_graph(sp.csr_array(dense), side=side, k=k, shrinkage=shrinkage)
    np.testing.assert_allclose(graph.toarray(), dense_adjacency(wanted), atol=1e-12)
    (near,) = shrunk_cosines(sp.csr_array(dense), side=side, k=k, shrinkages=(shrinkage,))
    np.testing.assert_allclose(near.toarray(), wanted, rtol=1e-6, atol=1e-10)


def test_the_best_come_first_in_a_row_and_ties_go_to_the_smaller_id():
    dense = a_matrix(1)
    (near,) = shrunk_cosines(sp.csr_array(dense), side="item", k=6, shrinkages=(3.0,))
    cosines = dense_cosines(dense, "item", 3.0)
    for i in range(40):
        got = near.indices[near.indptr[i] : near.indptr[i + 1]]
        wanted = sorted(np.flatnonzero(cosines[i]), key=lambda j: (-cosines[i, j], j))[:6]
        assert got.tolist() == wanted


def test_equal_cosines_of_other_counts_are_ties():
    # Item 0 has 4 users. 1 shares two of them and has 4; 2 shares one and has 1: c / √n_j is 1.
    users = np.zeros((6, 3))
    users[:4, 0] = users[[0, 1, 4, 5], 1] = users[3, 2] = 1
    for order in ([0, 1, 2], [0, 2, 1]):
        graph = cosine_graph(sp.csr_array(users[:, order]), side="item", k=1, shrinkage=0)
        (near,) = shrunk_cosines(sp.csr_array(users[:, order]), side="item", k=1, shrinkages=(0.0,))
        assert near[[0]].indices.tolist() == [1] and graph[0, 1] > 0


def test_several_shrinkages_in_one_pass_are_those_one_by_one_and_small_k_the_first_of_large_k():
    R = sp.csr_array(a_matrix(2))
    together = shrunk_cosines(R, side="item", k=9, shrinkages=(0.0, 3.0, 30.0))
    assert (together[0] != together[2]).nnz > 0
    for s, near in zip((0.0, 3.0, 30.0), together):
        (alone,) = shrunk_cosines(R, side="item", k=9, shrinkages=(s,))
        assert (alone != near).nnz == 0
        (fewer,) = shrunk_cosines(R, side="item", k=4, shrinkages=(s,))
        for i in range(40):
            assert (
                near.indices[near.indptr[i] :][: min(4, np.diff(near.indptr)[i])].tolist()
                == fewer.indices[fewer.indptr[i] : fewer.indptr[i + 1]].tolist()
            )


@pytest.mark.parametrize("pairs", [1, 100, 10**9])
@pytest.mark.parametrize("threads", [1, 2])
def test_blocks_and_threads_change_nothing(pairs, threads, monkeypatch):
    R = sp.csr_array(a_matrix(3, (50, 60)))
    wanted = cosine_graph(R, side="user", k=5, shrinkage=3.0)
    monkeypatch.setattr("recbole_freqd.graph.similarity._PAIRS_AT_ONCE", pairs)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    got = cosine_graph(R, side="user", k=5, shrinkage=3.0)
    for part in ("data", "indices", "indptr"):
        assert np.array_equal(getattr(got, part), getattr(wanted, part))


def test_the_padding_and_entities_that_share_nothing_have_no_edge():
    graph = cosine_graph(random_interactions(3), side="user", k=4, shrinkage=3.0)
    assert graph[[0]].nnz == 0 and graph[:, [0]].nnz == 0 and graph.diagonal().sum() == 0
    assert cosine_graph(sp.csr_array(np.eye(4)), side="user", k=3, shrinkage=1.0).nnz == 0
    assert cosine_graph(sp.csr_array((3, 4)), side="item", k=3, shrinkage=1.0).shape == (4, 4)


def test_shrinkage_turns_from_the_rare_pair_to_the_frequent_one():
    # Item 0: users 0 to 9. Item 1: the same and 10 more. Item 2: user 0 alone.
    users = np.zeros((20, 3))
    users[:10, 0] = users[:, 1] = users[0, 2] = 1
    near = shrunk_cosines(sp.csr_array(users), side="item", k=1, shrinkages=(0.0, 10.0))
    assert [each[[2]].indices.tolist() for each in near] == [[0], [0]]
    assert [each[[0]].indices.tolist() for each in near] == [[1], [1]]
    rare = np.zeros((12, 3))
    rare[:2, 0] = rare[0, 1] = 1  # c 1, n 2 and 1: .707
    rare[:2, 2] = rare[2:6, 2] = 1  # c 2, n 2 and 6: .577
    plain, shrunk = shrunk_cosines(sp.csr_array(rare), side="item", k=1, shrinkages=(0.0, 10.0))
    assert plain[[0]].indices.tolist() == [1] and shrunk[[0]].indices.tolist() == [2]


def test_hubs_are_left_out_and_the_rest_is_the_graph_of_the_rest(caplog):
    dense = a_matrix(4)
    dense[:, 0] = 1  # an item that all 30 users have
    budget = int((dense.sum(0) ** 2).sum()) - 1
    with caplog.at_level("WARNING"):
        graph = cosine_graph(sp.csr_array(dense), side="user", k=4, shrinkage=3.0, max_pairs=budget)
    assert "1 items with more than" in caplog.text
    dense[:, 0] = 0
    rest = cosine_graph(sp.csr_array(dense), side="user", k=4, shrinkage=3.0)
    assert (graph != rest).nnz == 0


def test_it_is_not_the_graph_of_counts():
    R = sp.csr_array(a_matrix(5))
    counts = cooccurrence_graph(R, side="item", k=3)
    assert (counts != cosine_graph(R, side="item", k=3, shrinkage=3.0)).nnz > 0


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"side": "users"}, "side: got 'users'"),
        ({"k": 0}, "k: got 0"),
        ({"shrinkage": -1}, "shrinkage: got -1"),
        ({"shrinkage": float("nan")}, "shrinkage: got nan"),
    ],
)
def test_what_is_not_allowed_is_refused(keys, words):
    with pytest.raises(ConfigError, match=words):
        cosine_graph(random_interactions(0), **{"side": "user", "k": 2, "shrinkage": 1.0, **keys})
