"""Bands: against eigenvectors, against FD's own loss, and the laws that both forms keep."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.filters import response_curve
from recbole_freqd.graph.adjacency import EntityGraph
from recbole_freqd.graph.bands import Bands
from recbole_freqd.graph.cooccurrence import cooccurrence_graph
from recbole_freqd.graph.spectrum import BandLosses, GraphSpectrum, band_losses, least_squares
from recbole_freqd.losses import FDLoss, FreqDLoss
from tests.support.oracles import dense_laplacian, random_interactions


def items_graph(seed=3, n_users=40, n_items=60, density=0.08, k=4):
    """A graph with isolated items, row 0 among them."""
    rng = np.random.default_rng(seed)
    dense = rng.random((n_users, n_items)) < density
    dense[0] = dense[:, 0] = dense[:, -3:] = False
    return cooccurrence_graph(sp.csr_array(dense.astype(float)), side="item", k=k)


def clustered_graph(n, seed=0, n_groups=12):
    """Items of a few groups of tastes, so that low frequencies are there, too."""
    rng = np.random.default_rng(seed)
    users, per_user = n // 2, 12
    group = rng.integers(0, n_groups, users)
    columns = (rng.zipf(1.3, (users, per_user)) % (n // n_groups)) * n_groups + group[:, None]
    stray = rng.random(columns.shape) < 0.05
    columns = np.where(stray, rng.integers(0, n, columns.shape), columns) % n
    rows = np.repeat(np.arange(users), per_user)
    R = sp.csr_array((np.ones(len(rows)), (rows, columns.ravel())), shape=(users, n))
    R = sp.csr_array(R.multiply(np.arange(n) > 0))
    return cooccurrence_graph(R, side="item", k=5)


def features(n, d=5, seed=0, dtype=torch.float64):
    return torch.randn(n, d, dtype=dtype, generator=torch.Generator().manual_seed(seed))


# --- the bands themselves ---------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(
    inner=st.lists(st.floats(0.01, 1.99), max_size=6, unique=True),
    degree=st.integers(1, 60),
    lam=st.lists(st.floats(0, 2), min_size=1, max_size=20),
)
def test_bands_of_any_edges_and_degree_are_a_partition_of_unity(inner, degree, lam):
    bands = Bands((0.0, *sorted(inner), 2.0))
    for g in (bands.sharp(lam), bands.smooth(lam, degree)):
        np.testing.assert_allclose(g.sum(axis=0), 1.0, atol=1e-12)
        assert g.min() > -1e-12


def test_smooth_bands_come_near_the_sharp_ones_away_from_the_edges():
    bands = Bands.equal(8)
    lam = bands.centres
    np.testing.assert_allclose(bands.smooth(lam, 512), bands.sharp(lam), atol=0.01)


def test_coefficients_are_those_of_numpys_chebyshev_series():
    bands, lam = Bands((0.0, 0.3, 1.1, 2.0)), np.linspace(0, 2, 31)
    expected = [
        np.polynomial.chebyshev.chebval(lam - 1, row) for row in bands.coefficients(17)
    ]  # fmt: skip
    np.testing.assert_allclose(bands.smooth(lam, 17), expected, atol=1e-12)


def test_a_lambda_on_an_edge_is_in_the_band_above_whatever_rounding_did():
    g = Bands.equal(4).sharp([0.5 - 1e-15, 0.5, 0.5 + 1e-15, 2.0])
    np.testing.assert_array_equal(g.argmax(axis=0), [1, 1, 1, 3])


@pytest.mark.parametrize("edges", [(0, 2.5), (0.1, 2), (0, 1, 1, 2), (0, 1.5, 1, 2), (0,)])
def test_edges_that_do_not_ascend_from_0_to_2_are_refused(edges):
    with pytest.raises(ConfigError, match="bands: got"):
        Bands(edges)


@pytest.mark.parametrize("count", [0, -1, 2.5])
def test_a_number_of_bands_that_is_none_is_refused(count):
    with pytest.raises(ConfigError, match="bands: got"):
        Bands.equal(count)


# --- energies ---------------------------------------------------------------------------------


def by_hand(graph, x, g):
    """tr(Xᵀ g_b(L) X) from all eigenvectors of the whole graph, row 0 taken out of X."""
    values, vectors = np.linalg.eigh(dense_laplacian(graph.toarray()))
    x = x.numpy().copy()
    x[0] = 0.0
    weights = g(np.clip(np.round(values, 12), 0, 2))
    return [
        sum(w[i] * np.square(vectors[:, i] @ x).sum() for i in range(len(values))) for w in weights
    ]


def test_exact_energies_are_the_definition():
    graph, bands = items_graph(), Bands.equal(5)
    x = features(60)
    expected = by_hand(graph, x, bands.sharp)
    np.testing.assert_allclose(GraphSpectrum(graph, bands).energies(x), expected, rtol=1e-9)


@pytest.mark.parametrize("degree", [1, 2, 7, 40])
def test_scalable_energies_are_the_definition_with_the_smooth_bands(degree):
    graph, bands = items_graph(), Bands.equal(5)
    x = features(60, d=40)  # more columns than are filtered at once
    expected = by_hand(graph, x, lambda lam: bands.smooth(lam, degree))
    for exact in (False, True):
        spectrum = GraphSpectrum(graph, bands, exact=exact, degree=degree)
        np.testing.assert_allclose(spectrum.energies(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("n", "dtype"),
    [
        (500, torch.float64),
        (1500, torch.float32),
        pytest.param(5000, torch.float32, marks=pytest.mark.slow),
    ],
)
def test_scalable_agrees_with_exact_within_2_percent_of_all_energy(n, dtype):
    graph = clustered_graph(n)
    smooth_signal = torch.from_numpy(graph @ (graph @ features(n).numpy()))
    x = (features(n, seed=1) + 5 * smooth_signal).to(dtype)
    scalable = GraphSpectrum(graph, 8, exact=False)
    exact = GraphSpectrum(graph, 8, exact=True, degree=scalable.degree)
    found, wanted = scalable.energies(x), exact.energies(x)
    total = float(x[1:].double().square().sum())
    assert np.abs(found - wanted).max() < 1e-5 * total  # 2 % is what is asked for
    assert (wanted > 0.001 * total).sum() >= 5  # it is not all in one band
    np.testing.assert_allclose(found.sum(), total, rtol=1e-5)


@pytest.mark.parametrize("exact", [True, False])
def test_bands_sum_to_the_whole_without_the_padding_row(exact):
    x = features(60)
    energies = GraphSpectrum(items_graph(), 7, exact=exact).energies(x)
    np.testing.assert_allclose(energies.sum(), float(x[1:].square().sum()), rtol=1e-12)


@pytest.mark.parametrize("exact", [True, False])
def test_permuting_the_vertices_changes_nothing(exact):
    graph, x = items_graph(), features(60)
    order = np.concatenate([[0], np.random.default_rng(1).permutation(np.arange(1, 60))])
    permuted = sp.csr_array(graph[order][:, order])
    one = GraphSpectrum(graph, 8, exact=exact).energies(x)
    other = GraphSpectrum(permuted, 8, exact=exact).energies(x[order])
    np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


def test_a_signal_made_of_one_eigenvector_lands_in_its_band():
    graph, bands = items_graph(), Bands.equal(8)
    values, vectors = np.linalg.eigh(dense_laplacian(graph.toarray()))
    for i in range(0, 60, 7):
        x = torch.from_numpy(vectors[:, [i]]) * 3
        x[0] = 0  # eigenvectors of λ = 0 may stand on the padding row
        whole = float(x.square().sum())
        found = GraphSpectrum(graph, bands).energies(x)
        own = int(bands.sharp([values[i]]).argmax())
        assert found[own] == pytest.approx(whole)
        # Smoothed, it may share with a neighbour where it lies near an edge, and goes no further.
        smooth = GraphSpectrum(graph, bands, exact=False, degree=256).energies(x)
        assert smooth[max(own - 1, 0) : own + 2].sum() > 0.995 * whole


@pytest.mark.parametrize("exact", [True, False])
def test_vertices_without_neighbours_are_in_the_lowest_band(exact):
    graph = items_graph()
    alone = np.flatnonzero(np.diff(graph.indptr) == 0)
    spectrum = GraphSpectrum(graph, 4, exact=exact, degree=None if exact else 400)
    assert {57, 58, 59} <= set(spectrum.isolated.tolist()) == set(alone.tolist()) - {0}
    x = torch.zeros(60, 2)
    x[0], x[58] = 7.0, 2.0
    np.testing.assert_allclose(spectrum.energies(x), [8, 0, 0, 0], atol=1e-3)
    assert spectrum.isolated_energy(x) == 8.0


@pytest.mark.parametrize("exact", [True, False])
def test_a_graph_without_any_edge_has_one_frequency(exact):
    spectrum = GraphSpectrum(sp.csr_array((5, 5)), 3, exact=exact, degree=None if exact else 300)
    np.testing.assert_allclose(spectrum.energies(torch.ones(5, 2)), [8, 0, 0], atol=1e-3)


@pytest.mark.parametrize("exact", [True, False])
def test_zero_features_have_no_energy_and_no_relative_loss(exact):
    spectrum = GraphSpectrum(items_graph(), 4, exact=exact)
    zero = torch.zeros(60, 3)
    losses = band_losses(spectrum, zero, zero)
    assert not losses.loss.any() and not losses.teacher.any() and np.isnan(losses.relative).all()


@pytest.mark.parametrize("exact", [True, False])
def test_every_precision_gives_the_same_and_the_features_stay_as_they_are(exact):
    spectrum, x = GraphSpectrum(items_graph(), 4, exact=exact), features(60)
    wanted, before = spectrum.energies(x), x.clone()
    np.testing.assert_allclose(spectrum.energies(x.float()), wanted, rtol=1e-5)
    np.testing.assert_allclose(spectrum.energies(x.half()), wanted, rtol=2e-3)
    np.testing.assert_allclose(spectrum.energies(x.numpy()), wanted, rtol=1e-12)
    assert torch.equal(x, before)


def test_an_entity_graph_is_taken_as_well():
    graph, x = items_graph(), features(60)
    one = GraphSpectrum(EntityGraph(graph, torch.float64), 4).energies(x)
    np.testing.assert_allclose(one, GraphSpectrum(graph, 4).energies(x), rtol=1e-9)


def test_eigenvalues_are_counted_and_on_large_graphs_estimated():
    graph = clustered_graph(1500)
    exact = GraphSpectrum(graph, 8, exact=True, degree=128).counts()
    assert exact.sum() == pytest.approx(1499)  # but for the padding
    found = GraphSpectrum(graph, 8, exact=False, degree=128).counts()
    assert found.sum() == pytest.approx(1499, rel=1e-5)
    np.testing.assert_allclose(found, exact, atol=0.02 * 1499)


def test_small_graphs_are_exact_and_large_ones_are_not(monkeypatch):
    monkeypatch.setattr("recbole_freqd.graph.spectrum.EXACT_LIMIT", 20)
    graph = items_graph()
    spectrum = GraphSpectrum(graph, 4)
    assert not spectrum.exact and spectrum.degree == 64
    assert GraphSpectrum(graph, 4, exact=True).degree is None


def test_the_other_form_of_sparse_matrix_gives_the_same(monkeypatch):
    wanted = GraphSpectrum(items_graph(), 4, exact=False).energies(features(60))
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    found = GraphSpectrum(items_graph(), 4, exact=False).energies(features(60))
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_features_of_another_size_and_a_linked_padding_row_are_refused():
    with pytest.raises(ConfigError, match=r"got shape \(7, 2\); allowed: \(60, d\)"):
        GraphSpectrum(items_graph(), 4).energies(torch.ones(7, 2))
    with pytest.raises(ConfigError, match="Row 0 has neighbours"):
        GraphSpectrum(sp.csr_array(np.array([[0.0, 1.0], [1.0, 0.0]])), 4)
    with pytest.raises(ConfigError, match="degree: got 0"):
        GraphSpectrum(items_graph(), 4, degree=0)


# --- losses -----------------------------------------------------------------------------------


def reweighted(graph, error, filter_response):
    """Σ_k h(λ_k)² ‖u_kᵀ E‖², from all eigenvectors."""
    values, vectors = np.linalg.eigh(dense_laplacian(graph.toarray()))
    parts = np.square(vectors.T @ error).sum(axis=1)
    return (filter_response(values) ** 2 * parts).sum()


@pytest.mark.parametrize("exact", [True, False])
def test_the_bands_sum_to_the_loss_of_fd(exact):
    R = random_interactions(5)
    teacher, student = (features(9, 6, 1), features(10, 6, 2)), (features(9, 3), features(10, 3, 4))
    loss = FDLoss(R, (3, 3), teacher, distance="squared", projector="linear").double().eval()
    for place, side in enumerate(("user", "item")):
        n = R.shape[place]
        projected = loss.projectors[side](student[place]).detach()
        spectrum = GraphSpectrum(cooccurrence_graph(R, side=side, k=3), 6, exact=exact)
        found = band_losses(spectrum, student[place], teacher[place], projected)
        ids = torch.arange(1, n)
        fd = loss.distances(side, as_rows(student), ids).sum().detach()
        assert found.loss.sum() == pytest.approx(float(fd), rel=1e-9)


def as_rows(student):
    from recbole_freqd.core.rows import FeatureRows

    return FeatureRows.of_tables(*student)


def test_with_a_band_for_every_frequency_the_weights_give_the_loss_of_freqd():
    R, alpha = random_interactions(5), 0.4
    graph = cooccurrence_graph(R, side="item", k=3)
    teacher, student = (features(9, 6, 1), features(10, 6, 2)), (features(9, 3), features(10, 3, 4))
    loss = FreqDLoss(
        R, (3, 3), teacher, distance="squared", projector="linear", alpha=alpha, k=3, keep_prob=1.0
    ).double().eval()  # fmt: skip
    error = (loss.projectors["item"](student[1]) - teacher[1]).detach()
    error[0] = 0
    bands = Bands.equal(2000)
    parts = GraphSpectrum(graph, bands).energies(error)
    weights = response_curve("linear", alpha, 2001)["weight"]
    freqd = float(loss.distances("item", as_rows(student), torch.arange(1, 10)).sum().detach())
    assert (parts * weights[:-1]).sum() == pytest.approx(freqd, rel=2e-3)
    exactly = reweighted(graph, error.numpy(), lambda lam: 1 - alpha * lam)
    assert exactly == pytest.approx(freqd, rel=1e-9)


def test_the_response_curve_is_h_and_its_square():
    curve = response_curve("quadratic", 0.5, 5)
    np.testing.assert_allclose(curve["h"], (1 - 0.5 * np.linspace(0, 2, 5)) ** 2)
    np.testing.assert_allclose(curve["weight"], curve["h"] ** 2)


def test_least_squares_finds_the_map_and_never_sees_the_padding():
    student = features(50, 4)
    teacher = student @ features(4, 7, 1) + features(1, 7, 2)
    teacher[0], student[0] = 1e6, -1e6
    found = least_squares(student, teacher, ridge=1e-12)(student)
    torch.testing.assert_close(found[1:], teacher[1:], rtol=1e-6, atol=1e-6)


def test_least_squares_is_numpys_on_rows_that_no_map_reaches():
    student, teacher = features(80, 4), features(80, 7, 1)
    ours = np.hstack([student.numpy(), np.ones((80, 1))])
    expected = ours @ np.linalg.lstsq(ours, teacher.numpy(), rcond=None)[0]
    found = least_squares(student, teacher, ridge=1e-12, padding=False)(student)
    np.testing.assert_allclose(found, expected, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_least_squares_bears_equal_columns_and_every_precision(dtype):
    student = torch.ones(30, 3, dtype=dtype)
    teacher = features(30, 2).to(dtype)
    found = least_squares(student, teacher)(student)
    assert torch.isfinite(found).all() and found.dtype in (torch.float32, torch.float64)
    mean = teacher[1:].double().mean(dim=0).expand(30, 2)
    torch.testing.assert_close(found.double(), mean, atol=1e-3, rtol=1e-3)


def test_a_student_that_is_its_teacher_has_no_loss_and_a_silent_one_all_of_it():
    spectrum, teacher = GraphSpectrum(items_graph(), 4), features(60, 6)
    assert band_losses(spectrum, teacher, teacher).relative.max() < 1e-6
    nothing = torch.zeros(60, 6)
    losses = band_losses(spectrum, nothing, teacher, projected=nothing)
    assert isinstance(losses, BandLosses)
    np.testing.assert_allclose(losses.relative, 1.0)
    assert losses.isolated[0] == losses.isolated[1] > 0 == losses.isolated[2]
