"""Entity graphs against a dense loop, and the part of them that a batch needs."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.rng import RandomStream
from recbole_freqd.core.rows import csc_matvecs
from recbole_freqd.filters import PolynomialFilter, graph_filter
from recbole_freqd.graph.adjacency import EntityGraph
from recbole_freqd.graph.cooccurrence import cooccurrence_graph
from tests.support.oracles import dense_graph, random_interactions


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
@pytest.mark.parametrize("ids", [[2], [1, 4, 9], [4, 1, 4], list(range(10)), []])
def test_rows_of_the_filter_as_a_matrix_are_those_of_the_polynomial(hops, ids):
    adjacency = cooccurrence_graph(random_interactions(5), side="item", k=3)
    x = torch.randn(10, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    coefficients = [0.5, -1.0, 0.25, 2.0][: hops + 1]
    graph = EntityGraph(adjacency, dtype=torch.float64)
    made, ids = graph_filter(graph.adjacency(), coefficients), torch.tensor(ids, dtype=torch.int64)
    whole = PolynomialFilter(coefficients).apply(x, adjacency)
    torch.testing.assert_close(made.rows(ids).of(x), whole[ids], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(made.apply(x), whole, rtol=1e-12, atol=1e-12)
    ones = torch.ones(10, 1, dtype=torch.float64)
    sums = PolynomialFilter(coefficients).apply(ones, adjacency)[:, 0]
    torch.testing.assert_close(made.totals, sums, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(made.rows(ids).totals(), sums[ids], rtol=1e-12, atol=1e-12)


def test_a_filter_is_applied_to_all_rows_in_blocks_and_into_given_memory(monkeypatch):
    graph = EntityGraph(cooccurrence_graph(random_interactions(5), side="item", k=3))
    made, x = graph_filter(graph.adjacency(), [1.0, -0.5]), torch.randn(10, 4)
    whole, out = made.apply(x), torch.empty(10, 4)
    monkeypatch.setattr("recbole_freqd.filters._BLOCK", 3)
    assert made.apply(x, out) is out and torch.equal(out, whole)
    identity = graph_filter(graph.adjacency(), [1.0])
    assert identity.apply(x) is x and torch.equal(identity.apply(x, out), x)


def test_a_filter_of_one_hop_reads_the_rows_and_their_neighbours_only():
    adjacency = cooccurrence_graph(random_interactions(5), side="item", k=2)
    made = graph_filter(EntityGraph(adjacency).adjacency(), [1.0, -0.5])
    neighbours = adjacency[[1, 2]].nonzero()[1].tolist()
    assert set(made.rows(torch.tensor([1, 2])).columns.tolist()) == {1, 2, *neighbours}


def test_edge_dropout_keeps_each_direction_with_its_probability_and_rescales():
    adjacency = cooccurrence_graph(sp.csr_array(np.ones((1, 60))), side="item", k=10)
    graph = EntityGraph(adjacency, dtype=torch.float64)
    total, kept, one_way = torch.zeros(60, 60, dtype=torch.float64), 0, 0
    for seed in range(200):
        part = graph.dropped(0.3, seed)
        dense = torch.zeros(60, 60, dtype=torch.float64)
        dense[part.row, part.col] = part.weight
        total, kept = total + dense, kept + len(part.weight)
        one_way += int(((dense > 0) & (dense.T == 0)).sum())
    assert kept / (200 * adjacency.nnz) == pytest.approx(0.3, abs=0.01)
    assert total.sum() / 200 == pytest.approx(adjacency.sum(), rel=0.02)
    assert one_way / kept == pytest.approx(0.7, abs=0.02)  # directions fall independently


def one_liked_by_all(n=40, seed=0):
    """n users, n items; item 1 is everybody's, so all others have it as a neighbour."""
    dense = np.maximum(np.eye(n), np.random.default_rng(seed).random((n, n)) < 0.05)
    dense[:, 1], dense[0], dense[:, 0] = 1.0, 0.0, 0.0
    return dense


def test_over_the_masks_a_bounded_graph_is_on_average_the_whole_one():
    dense = dense_graph(one_liked_by_all(12), "item", 2)
    graph, total = EntityGraph(sp.csr_array(dense), dtype=torch.float64), np.zeros((12, 12))
    for seed in range(2000):
        part = graph.dropped(0.8, seed, max_degree=3)
        np.add.at(total, (part.row.numpy(), part.col.numpy()), part.weight.numpy())
    assert (dense > 0).sum(axis=1).max() == 10  # a row that is bounded to a third
    # An entry is there with a chance of 0.3 and then 1 / 0.3 as large: 0.25 are seven deviations.
    np.testing.assert_allclose(total / 2000, dense, rtol=0.25, atol=0)


@pytest.mark.parametrize("keep_prob", [1.0, 0.5])
def test_a_bound_on_the_degree_holds_and_leaves_shorter_rows_to_the_bit(keep_prob):
    graph = EntityGraph(cooccurrence_graph(sp.csr_array(one_liked_by_all()), side="item", k=2))
    before, after = graph.dropped(keep_prob, 7), graph.dropped(keep_prob, 7, max_degree=3)
    counts, left = (torch.bincount(part.row, minlength=40) for part in (before, after))
    assert counts.max() > 12 and torch.equal(left, counts.clamp(max=3))
    assert torch.equal(after.row, after.row.sort().values)
    assert torch.equal(after.connected, before.connected)
    weights = torch.zeros(40, 40).index_put((before.row, before.col), before.weight)
    times = torch.where(counts > 3, counts / 3, 1.0)[after.row]
    assert torch.equal(after.weight, weights[after.row, after.col] * times)
    other = graph.dropped(keep_prob, 8, max_degree=3)
    assert not torch.equal(after.col[after.row == 1], other.col[other.row == 1])


def test_without_a_bound_the_mask_is_what_it_was_before_there_was_one():
    graph = EntityGraph(cooccurrence_graph(sp.csr_array(one_liked_by_all()), side="item", k=2))
    kept = torch.rand(len(graph.weights), generator=torch.Generator().manual_seed(7)) < 0.3
    for bound in (None, 40):
        part = graph.dropped(0.3, 7, bound)
        assert torch.equal(part.weight, graph.weights[kept] / 0.3)
        assert torch.equal(part.col, graph.indices[kept])


def test_edge_dropout_of_a_step_keeps_the_diagonal_and_rescales_the_edges():
    adjacency = cooccurrence_graph(sp.csr_array(np.ones((1, 60))), side="item", k=10)
    made = graph_filter(EntityGraph(adjacency, dtype=torch.float64).adjacency(), [1.0, -0.5])
    ids, stream = torch.arange(60), RandomStream(3)
    whole, kept, total = made.rows(ids), 0, torch.zeros(60, dtype=torch.float64)
    for _ in range(200):
        part = whole.with_dropout(ids, 0.3, stream)
        own = part.columns == ids[part.owner]
        assert own.sum() == 60 and torch.equal(
            part.weights[own], whole.weights[whole.columns == ids[whole.owner]]
        )
        kept, total = kept + int((~own).sum()), total + part.totals()
        assert torch.equal(
            part.offsets,
            torch.bincount(part.owner, minlength=60).cumsum(0)
            - torch.bincount(part.owner, minlength=60),
        )
    assert kept / (200 * adjacency.nnz) == pytest.approx(0.3, abs=0.01)
    torch.testing.assert_close(total / 200, made.totals, rtol=0, atol=0.05)


def test_a_row_that_loses_all_its_edges_is_not_isolated():
    graph = EntityGraph(cooccurrence_graph(random_interactions(2), side="user", k=3))
    bare, whole = graph.dropped(1e-9, 0), graph.dropped(1.0, 0)
    assert len(bare.row) == 0
    assert torch.equal(bare.connected, whole.connected) and bare.connected.any()
    filtered = graph_filter(bare, [1.0, -0.5]).apply(torch.ones(9, 2))
    assert torch.equal(filtered[:, 0], torch.where(whole.connected, 0.5, 1.0))


@pytest.mark.parametrize("form", ["torch", "scipy"])
@pytest.mark.parametrize("in_place", [False, True])
def test_weighted_sums_have_the_gradient_of_the_dense_product(in_place, form, monkeypatch):
    if form == "torch":
        monkeypatch.setattr("recbole_freqd.core.rows.csc_matvecs", None)
    else:
        assert csc_matvecs is not None  # this SciPy has it where we look for it
    made = graph_filter(
        EntityGraph(cooccurrence_graph(random_interactions(5), side="item", k=3)).adjacency(),
        [0.2, 0.7],
    )
    table, ids = torch.randn(10, 4, requires_grad=True), torch.tensor([3, 1, 3])
    weights = torch.randn(3, 4)
    dense = table.detach().clone().requires_grad_()
    rows = made.rows(ids)
    nodes, compacted = rows.compacted()
    again = torch.zeros_like(dense).index_copy(0, nodes, table.detach()[nodes]).requires_grad_()
    (compacted.of(again[nodes]) * weights).sum().backward()
    (rows.of(table, in_place=in_place) * weights).sum().backward()
    everything = made.rows(torch.arange(10))
    H = torch.zeros(10, 10).index_put((everything.owner, everything.columns), everything.weights)
    ((H @ dense)[ids] * weights).sum().backward()
    torch.testing.assert_close(table.grad, dense.grad)
    torch.testing.assert_close(again.grad, dense.grad)


def test_the_graph_is_in_no_state_dict():
    graph = EntityGraph(cooccurrence_graph(random_interactions(2), side="user", k=3))
    assert graph.state_dict() == {}


def hubs_and_all(k=4, max_pairs=None, side="user"):
    """30 users, 12 items; item 1 is everybody's, item 2 that of half of them."""
    dense = (np.random.default_rng(3).random((30, 12)) < 0.2).astype(float)
    dense[:, 1], dense[::2, 2], dense[0], dense[:, 0] = 1.0, 1.0, 0.0, 0.0
    user_items = sp.csr_array(dense)
    graph = cooccurrence_graph(user_items, side=side, k=k, max_pairs=max_pairs)
    return dense, user_items, graph


def test_a_budget_of_pairs_leaves_out_the_busiest_entities_of_the_other_side(caplog):
    dense, _, whole = hubs_and_all()
    degrees = dense.sum(0)
    budget = int((np.sort(degrees)[:-2] ** 2).sum())  # all but the two hubs
    _, _, bounded = hubs_and_all(max_pairs=budget)
    without = dense.copy()
    without[:, [1, 2]] = 0.0
    np.testing.assert_allclose(bounded.toarray(), dense_graph(without, "user", 4), atol=1e-12)
    assert "2 items with more than" in caplog.text and "are left out" in caplog.text
    assert f"{100 * degrees[[1, 2]].sum() / degrees.sum():.1f} % of all interactions" in caplog.text
    assert (bounded != whole).nnz > 0


def test_a_budget_that_suffices_changes_nothing_and_says_nothing(caplog):
    dense, _, whole = hubs_and_all()
    _, _, same = hubs_and_all(max_pairs=int((dense.sum(0) ** 2).sum()))
    assert (same != whole).nnz == 0 and not caplog.text


def test_entities_of_the_same_degree_stay_or_go_together():
    twins = sp.csr_array(np.kron(np.eye(3), np.ones((4, 1))))  # three items of four users each
    assert cooccurrence_graph(twins, side="user", k=2, max_pairs=47).nnz == 0
    assert cooccurrence_graph(twins, side="user", k=2, max_pairs=48).nnz > 0


@pytest.mark.parametrize("pairs_per_block", [1, 7, 50, 10**9])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("side", ["user", "item"])
def test_the_graph_is_the_same_at_any_block_size_and_number_of_threads(
    monkeypatch, pairs_per_block, threads, side
):
    _, user_items, whole = hubs_and_all(side=side)
    monkeypatch.setattr("recbole_freqd.graph.cooccurrence._PAIRS_PER_BLOCK", pairs_per_block)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    blocked = cooccurrence_graph(user_items, side=side, k=4)
    assert (blocked != whole).nnz == 0
