"""Entity graphs against a dense loop, and the part of them that a batch needs."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_freqd.errors import ConfigError
from recbole_freqd.filters import PolynomialFilter
from recbole_freqd.graph import EntityGraph, cooccurrence_graph
from recbole_freqd.rng import RandomStream
from tests.oracles import dense_graph, random_interactions


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    density=st.floats(0.0, 0.9),
    k=st.integers(1, 15),
    side=st.sampled_from(["user", "item"]),
)
def test_the_sparse_graph_equals_the_dense_one(seed, shape, density, k, side):
    dense = (np.random.default_rng(seed).random(shape) < density).astype(float)
    graph = cooccurrence_graph(sp.csr_array(dense), side=side, k=k)
    np.testing.assert_allclose(graph.toarray(), dense_graph(dense, side, k), atol=1e-12)


def test_equal_counts_go_to_the_smaller_ids():
    one_user_likes_all = sp.csr_array(np.ones((1, 6)))
    graph = cooccurrence_graph(one_user_likes_all, side="item", k=2).toarray()
    # 0 keeps 1 and 2; 1 keeps 0 and 2; everyone else keeps 0 and 1.
    assert set(map(tuple, np.argwhere(np.triu(graph)))) == {
        (0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (0, 4), (1, 4), (0, 5), (1, 5)
    }  # fmt: skip


def test_an_entity_is_never_its_own_neighbour_even_if_others_tie_with_its_own_count():
    twins = sp.csr_array(np.ones((3, 5)))
    assert cooccurrence_graph(twins, side="item", k=1).diagonal().sum() == 0


def test_entities_that_share_nothing_are_not_linked():
    apart = sp.csr_array(np.eye(4))
    assert cooccurrence_graph(apart, side="user", k=3).nnz == 0


def test_repeated_entries_and_their_values_do_not_count():
    once = random_interactions(1)
    twice = sp.csr_array(once * 3.5)
    same = cooccurrence_graph(once, side="item", k=2) - cooccurrence_graph(twice, side="item", k=2)
    assert abs(same).sum() == 0
    rows, columns = once.nonzero()
    repeated = sp.coo_array((np.ones(2 * len(rows)), (np.tile(rows, 2), np.tile(columns, 2))))
    repeated = sp.csr_array((repeated.data, (repeated.row, repeated.col)), shape=once.shape)
    assert (cooccurrence_graph(repeated, side="user", k=2) != cooccurrence_graph(once, side="user", k=2)).nnz == 0  # fmt: skip


def test_padding_row_0_has_no_edge():
    graph = cooccurrence_graph(random_interactions(3), side="user", k=4)
    assert graph[[0]].nnz == 0 and graph[:, [0]].nnz == 0


@pytest.mark.parametrize("k", [0, -1, 1.5])
def test_k_out_of_range_is_refused(k):
    with pytest.raises(ConfigError, match="k: got"):
        cooccurrence_graph(random_interactions(0), side="user", k=k)


def test_an_unknown_side_is_refused():
    with pytest.raises(ConfigError, match="allowed: 'user' or 'item'"):
        cooccurrence_graph(random_interactions(0), side="users", k=2)


@pytest.mark.parametrize("hops", [0, 1, 2, 3])
@pytest.mark.parametrize("ids", [[2], [1, 4, 9], list(range(10))])
def test_a_neighbourhood_gives_the_same_rows_as_the_whole_graph(hops, ids):
    adjacency = cooccurrence_graph(random_interactions(5), side="item", k=3)
    graph = EntityGraph(adjacency, dtype=torch.float64)
    x = torch.randn(10, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    h = PolynomialFilter([0.5, -1.0, 0.25, 2.0][: hops + 1])
    ids = torch.tensor(ids)
    hood = graph.neighbourhood(ids, hops)
    part = h.apply(x[hood.nodes], hood.adjacency)[hood.rows]
    torch.testing.assert_close(part, h.apply(x, adjacency)[ids], rtol=1e-12, atol=1e-12)
    assert len(torch.unique(hood.nodes)) == len(hood.nodes)


def test_a_neighbourhood_of_one_hop_holds_the_rows_and_their_kept_neighbours_only():
    graph = EntityGraph(cooccurrence_graph(random_interactions(5), side="item", k=2))
    ids = torch.tensor([1, 2])
    neighbours = graph.indices[graph.edges_of(ids)[1]]
    hood = graph.neighbourhood(ids, 1)
    assert set(hood.nodes.tolist()) == set(ids.tolist()) | set(neighbours.tolist())


def test_edge_dropout_keeps_each_direction_with_its_probability_and_rescales():
    adjacency = cooccurrence_graph(sp.csr_array(np.ones((1, 60))), side="item", k=10)
    graph = EntityGraph(adjacency, dtype=torch.float64)
    everyone, stream = torch.arange(60), RandomStream(3)
    total, kept, one_way = torch.zeros(60, 60, dtype=torch.float64), 0, 0
    for _ in range(200):
        part = graph.neighbourhood(everyone, 1, 0.3, stream).adjacency
        dense = torch.zeros(60, 60, dtype=torch.float64)
        dense[part.row, part.col] = part.weight
        total, kept = total + dense, kept + len(part.weight)
        one_way += int(((dense > 0) & (dense.T == 0)).sum())
    assert kept / (200 * adjacency.nnz) == pytest.approx(0.3, abs=0.01)
    assert total.sum() / 200 == pytest.approx(adjacency.sum(), rel=0.02)
    assert one_way / kept == pytest.approx(0.7, abs=0.02)  # directions fall independently


def test_a_row_that_loses_all_its_edges_is_not_isolated():
    adjacency = cooccurrence_graph(random_interactions(2), side="user", k=3)
    graph = EntityGraph(adjacency, dtype=torch.float64)
    whole = graph.neighbourhood(torch.arange(9), 1).adjacency
    bare = graph.neighbourhood(torch.arange(9), 1, 1e-9, RandomStream(0)).adjacency
    assert len(bare.row) == 0
    assert torch.equal(bare.connected, whole.connected) and bare.connected.any()
    x = torch.ones(9, 2, dtype=torch.float64)
    filtered = PolynomialFilter.linear(0.5).apply(x, bare)
    expected = torch.where(whole.connected, 0.5, 1.0).to(torch.float64)
    assert torch.equal(filtered[:, 0], expected)


def test_dropout_without_a_stream_is_refused():
    graph = EntityGraph(cooccurrence_graph(random_interactions(2), side="user", k=3))
    with pytest.raises(ConfigError, match="RandomStream"):
        graph.neighbourhood(torch.arange(3), 1, keep_prob=0.5)


def test_the_graph_is_in_no_state_dict():
    graph = EntityGraph(cooccurrence_graph(random_interactions(2), side="user", k=3))
    assert graph.state_dict() == {}
