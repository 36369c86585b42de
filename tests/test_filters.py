"""Polynomial filters against U h(Λ) Uᵀ."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.filters import PolynomialFilter
from recbole_freqd.graph.adjacency import EntityGraph
from recbole_freqd.graph.cooccurrence import cooccurrence_graph
from tests.support.oracles import dense_filter, random_interactions

COEFFICIENTS = st.lists(st.floats(-3, 3), min_size=1, max_size=5)


@settings(max_examples=40, deadline=None)
@given(coefficients=COEFFICIENTS, seed=st.integers(0, 1000))
def test_applying_a_filter_is_u_h_of_lambda_ut(coefficients, seed):
    adjacency = cooccurrence_graph(random_interactions(seed), side="item", k=3)
    x = np.random.default_rng(seed).normal(size=(10, 3))
    h = PolynomialFilter(coefficients)
    expected = dense_filter(adjacency.toarray(), h.response) @ x
    np.testing.assert_allclose(h.apply(x, adjacency), expected, rtol=1e-9, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(coefficients=COEFFICIENTS, lam=st.floats(0, 2))
def test_the_response_is_the_polynomial(coefficients, lam):
    expected = sum(c * lam**j for j, c in enumerate(coefficients))
    assert PolynomialFilter(coefficients).response(lam) == pytest.approx(expected, abs=1e-9)


def test_linear_is_identity_on_isolated_vertices_and_a_mix_on_connected_ones():
    adjacency = cooccurrence_graph(random_interactions(4), side="user", k=2)
    alone = np.asarray(adjacency.sum(axis=1)).ravel() == 0
    x, alpha = np.random.default_rng(0).normal(size=(9, 2)), 0.4
    y = PolynomialFilter.linear(alpha).apply(x, adjacency)
    assert alone.any() and not alone.all()
    np.testing.assert_array_equal(y[alone], x[alone])
    expected = (1 - alpha) * x + alpha * (adjacency @ x)
    np.testing.assert_allclose(y[~alone], expected[~alone], rtol=1e-12)


def test_alpha_0_is_the_identity_of_degree_0():
    assert PolynomialFilter.linear(0.0).degree == 0
    assert PolynomialFilter.linear(0.0).coefficients == (1.0,)


def test_only_lambda_0_keeps_weight_1_and_beyond_one_half_the_response_turns_negative():
    lam = np.linspace(0, 2, 201)
    for alpha in (0.1, 0.5, 0.7, 1.0):
        h = PolynomialFilter.linear(alpha).response(lam)
        assert h[0] == 1 and (np.abs(h[1:]) < 1 + 1e-12).all()
        assert (h < -1e-12).any() == (alpha > 0.5)


def test_quadratic_is_the_square_of_linear():
    lam = np.linspace(0, 2, 11)
    linear = PolynomialFilter.linear(0.3).response(lam)
    np.testing.assert_allclose(PolynomialFilter.quadratic(0.3).response(lam), linear**2)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("form", ["csr_array", "csr_matrix", "torch_coo", "torch_csr", "graph"])
def test_every_form_of_adjacency_gives_the_same(form):
    adjacency = cooccurrence_graph(random_interactions(6), side="item", k=3)
    dense = torch.from_numpy(adjacency.toarray())
    forms = {
        "csr_array": adjacency,
        "csr_matrix": sp.csr_matrix(adjacency),
        "torch_coo": dense.to_sparse_coo(),
        "torch_csr": dense.to_sparse_csr(),
        "graph": EntityGraph(adjacency, dtype=torch.float64),
    }
    x = torch.randn(10, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    h = PolynomialFilter([1.0, -0.5, 0.1])
    torch.testing.assert_close(h.apply(x, forms[form]), h.apply(x, adjacency))


def test_the_gradient_is_the_filter_itself_since_h_is_symmetric():
    adjacency = cooccurrence_graph(random_interactions(6), side="item", k=3)
    h = PolynomialFilter([0.3, -0.7, 0.2])
    x = torch.randn(10, 2, dtype=torch.float64, requires_grad=True)
    g = torch.randn(10, 2, dtype=torch.float64)
    h.apply(x, adjacency).backward(g)
    torch.testing.assert_close(x.grad, h.apply(g, adjacency))


@pytest.mark.parametrize("bad", [[], [1.0, float("nan")], [float("inf")]])
def test_bad_coefficients_are_refused(bad):
    with pytest.raises(ConfigError, match="filter coefficients: got"):
        PolynomialFilter(bad)


def test_whole_numbers_are_filtered_as_real_ones():
    adjacency = cooccurrence_graph(random_interactions(6), side="item", k=3)
    x, h = np.arange(20).reshape(10, 2), PolynomialFilter.linear(0.5)
    np.testing.assert_allclose(h.apply(x, adjacency), h.apply(x.astype(float), adjacency))


def test_an_unknown_name_is_refused():
    with pytest.raises(ConfigError, match="filter: got 'cubic'"):
        PolynomialFilter.named("cubic", 0.5)


def test_a_graph_of_another_size_is_refused():
    adjacency = cooccurrence_graph(random_interactions(6), side="item", k=3)
    with pytest.raises(ConfigError, match="x has 7 rows, the graph 10 vertices"):
        PolynomialFilter.linear(0.5).apply(np.zeros((7, 2)), adjacency)
