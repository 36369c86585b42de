"""Low-rank features against the dense SVD: as good, balanced, the same every time."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import recbole_freqd.features.low_rank as svd
from recbole_freqd.features.low_rank import (
    FactoredScores,
    Scores,
    low_rank_features,
    orthonormalise,
)

N_USERS, N_ITEMS = 60, 80
# What float32 can lose of a matrix of norm 1, whatever the algorithm.
ROUNDING = 2e-6


def random_matrix(rows, columns, density=1.0, seed=0):
    rng = np.random.default_rng(seed)
    kept = rng.random((rows, columns)) < density
    return (rng.standard_normal((rows, columns)) * kept).astype(np.float32)


def with_spectrum(values, seed=0):
    """A float32 matrix with these singular values, and random singular vectors."""
    rng = np.random.default_rng(seed)
    left, right = (
        np.linalg.qr(rng.standard_normal((n, len(values))))[0] for n in (N_USERS, N_ITEMS)
    )
    return ((left * values) @ right.T).astype(np.float32)


def best_residual(matrix, rank):
    singular = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    return np.sqrt(np.square(singular[rank:]).sum())


def residual(matrix, user_emb, item_emb):
    return np.linalg.norm(user_emb.astype(np.float64) @ item_emb.T.astype(np.float64) - matrix)


def assert_nearly_best(matrix, rank, features):
    slack = ROUNDING * np.linalg.norm(matrix)
    assert residual(matrix, *features) <= 1.05 * best_residual(matrix, rank) + slack


# --- scores that are a product ---------------------------------------------------------------

LEFT, MIDDLE, RIGHT = (
    random_matrix(7, 5, 0.4, 1),
    random_matrix(5, 6, 0.5, 2),
    random_matrix(6, 9, 1, 3),
)
FACTORS = {
    "one sparse": [sp.csr_matrix(LEFT)],
    "one dense": [LEFT],
    "one lil": [sp.lil_matrix(LEFT)],
    "sparse * sparse": [sp.csr_matrix(LEFT), sp.csc_matrix(MIDDLE)],
    "sparse * dense": [sp.csr_matrix(LEFT), MIDDLE],
    "dense * sparse": [LEFT, sp.coo_matrix(MIDDLE)],
    "sparse * np.matrix": [sp.csr_matrix(LEFT), np.matrix(MIDDLE)],
    "arrays, not matrices": [sp.csr_array(LEFT), sp.csr_array(MIDDLE)],
    "three": [sp.csr_matrix(LEFT), MIDDLE, sp.csr_matrix(RIGHT)],
    "three sparse": [sp.csr_matrix(LEFT), sp.csr_matrix(MIDDLE), sp.csr_matrix(RIGHT)],
}


@pytest.mark.parametrize("block", [2**28, 400], ids=["in-one-block", "in-blocks"])
@pytest.mark.parametrize("factors", FACTORS.values(), ids=FACTORS)
def test_a_product_of_factors_acts_as_the_dense_matrix_does(factors, block, monkeypatch):
    monkeypatch.setattr(svd, "_BLOCK_BYTES", block)
    dense = np.eye(7)
    for factor in factors:
        dense = dense @ np.asarray(factor.todense() if sp.issparse(factor) else factor)
    scores, basis = FactoredScores(factors), random_matrix(dense.shape[1], 2, seed=4)
    assert scores.shape == dense.shape
    projected, energy = scores.project(basis)
    for got, wanted in ((scores.gram(basis), dense.T @ dense @ basis), (projected, dense @ basis)):
        assert type(got) is np.ndarray and got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
    assert energy == pytest.approx(np.square(dense).sum(), rel=1e-5)


# --- features --------------------------------------------------------------------------------

FLAT = np.ones(N_USERS)
SPECTRA = {
    "fast decay": (0.5 ** np.arange(N_USERS), 8),
    "slow decay": (1 / np.sqrt(1 + np.arange(N_USERS)), 8),
    "flat": (FLAT, 8),
    "one step": (np.where(np.arange(N_USERS) < 8, 1.0, 0.3), 8),
    "rank cuts a plateau": (np.where(np.arange(N_USERS) < 12, 1.0, 0.01), 8),
    "low rank": (np.array([3.0, 2.0, 1.0]), 3),
    "lower rank than asked for": (np.array([3.0, 2.0, 1.0]), 10),
    "rank 1": (1 / (1.0 + np.arange(N_USERS)), 1),
    "full rank": (1 / (1.0 + np.arange(N_USERS)), N_USERS),
    "more than the rank there is": (1 / (1.0 + np.arange(N_USERS)), 1000),
    "tiny numbers": (1e-6 * 0.7 ** np.arange(N_USERS), 5),
    "large numbers": (1e6 * 0.7 ** np.arange(N_USERS), 5),
}
every_spectrum = pytest.mark.parametrize(("values", "rank"), SPECTRA.values(), ids=SPECTRA)


@every_spectrum
def test_the_residual_is_within_5_percent_of_the_best_there_is(values, rank):
    matrix = with_spectrum(values)
    user_emb, item_emb, share = low_rank_features(FactoredScores([matrix]), rank)
    width = min(rank, N_USERS, len(values))
    assert user_emb.shape == (N_USERS, width) and item_emb.shape == (N_ITEMS, width)
    assert user_emb.dtype == item_emb.dtype == np.float32
    assert_nearly_best(matrix, rank, (user_emb, item_emb))
    kept = 1 - residual(matrix, user_emb, item_emb) ** 2 / np.square(matrix).sum()
    assert share == pytest.approx(kept, abs=1e-4) and 0 <= share <= 1


@every_spectrum
def test_users_and_items_share_the_singular_values_alike_and_columns_are_orthogonal(values, rank):
    matrix = with_spectrum(values)
    user_emb, item_emb, _ = low_rank_features(FactoredScores([matrix]), rank)
    width = user_emb.shape[1]
    singular = np.linalg.svd(matrix, compute_uv=False)
    for side in (user_emb, item_emb):
        gram = side.T.astype(np.float64) @ side
        np.testing.assert_allclose(
            np.diag(gram), singular[:width], rtol=0.05, atol=1e-5 * singular[0]
        )
        np.testing.assert_allclose(gram - np.diag(np.diag(gram)), 0, atol=2e-6 * singular[0])
    norms = [np.linalg.norm(side, axis=0) for side in (user_emb, item_emb)]
    np.testing.assert_allclose(*norms, rtol=1e-4)


def test_features_are_the_singular_vectors_times_the_root_of_the_singular_values():
    matrix = with_spectrum(0.5 ** np.arange(20))
    left, singular, right = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    user_emb, item_emb, _ = low_rank_features(FactoredScores([matrix]), 5)
    for ours, theirs in ((user_emb, left), (item_emb, right.T)):
        directions = np.abs((ours / np.sqrt(singular[:5])).T @ theirs[:, :5])
        np.testing.assert_allclose(directions, np.eye(5), atol=1e-3)


def test_a_rank_as_high_as_the_data_gives_the_scores_themselves():
    matrix = random_matrix(12, 9)
    user_emb, item_emb, share = low_rank_features(FactoredScores([matrix]), 9)
    np.testing.assert_allclose(user_emb @ item_emb.T, matrix, atol=1e-5)
    assert share == pytest.approx(1.0, abs=1e-6)


def test_negative_scores_are_approximated_as_well_as_positive_ones():
    matrix = -np.abs(random_matrix(N_USERS, N_ITEMS)) - 3
    features = low_rank_features(FactoredScores([matrix]), 4)[:2]
    assert_nearly_best(matrix, 4, features)
    assert (features[0] @ features[1].T).max() < 0


def test_small_differences_between_scores_that_are_large_are_found():
    """A network's last bias, or a sigmoid near one half, lifts all scores far above the rest."""
    matrix = (
        1 + 1e-3 * (with_spectrum(FLAT[:4]) * 40 + random_matrix(N_USERS, N_ITEMS) * 0.3)
    ).astype(np.float32)
    features = low_rank_features(FactoredScores([matrix]), 6)[:2]
    assert residual(matrix, *features) <= 1.05 * best_residual(matrix, 6)


def test_directions_that_carry_nothing_are_left_out():
    matrix = with_spectrum(np.array([1.0, 0.5, 1e-9, 1e-10]))
    user_emb, item_emb, share = low_rank_features(FactoredScores([matrix]), 4)
    assert user_emb.shape[1] == item_emb.shape[1] == 2 and share == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("zeros", [np.zeros((6, 4), np.float32), sp.csr_matrix((6, 4))])
def test_scores_that_are_all_zero_give_zeros_not_nan(zeros):
    user_emb, item_emb, share = low_rank_features(FactoredScores([zeros]), 3)
    assert user_emb.shape == (6, 1) and item_emb.shape == (4, 1)
    assert not user_emb.any() and not item_emb.any() and share == 1.0


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1)])
def test_a_single_user_or_item_is_no_special_case(shape):
    matrix = random_matrix(*shape)
    user_emb, item_emb, _ = low_rank_features(FactoredScores([matrix]), 3)
    np.testing.assert_allclose(user_emb @ item_emb.T, matrix, rtol=1e-5)


@pytest.mark.parametrize("rank", [1, 3, 20])
def test_the_share_of_energy_is_that_of_the_leading_singular_values(rank):
    matrix = with_spectrum(0.8 ** np.arange(40))
    energies = np.square(np.linalg.svd(matrix.astype(np.float64), compute_uv=False))
    share = low_rank_features(FactoredScores([matrix]), rank)[2]
    assert share == pytest.approx(energies[:rank].sum() / energies.sum(), rel=1e-4)


# --- in blocks -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("block", [2**26, 1], ids=["in-one-block", "in-blocks"])
def test_columns_become_orthonormal_in_place_however_close_to_each_other(block, dtype, monkeypatch):
    monkeypatch.setattr(svd, "_QR_BYTES", block)
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.standard_normal((n, 5)))[0] for n in (90, 5))
    columns = ((left * [1, 1e-3, 1e-6, 1e-9, 1e-12]) @ right.T).astype(dtype)
    before = columns.copy()
    root = orthonormalise(columns)
    assert columns.dtype == dtype and root.shape == (5, 5)
    rounding = 20 * np.finfo(dtype).eps
    np.testing.assert_allclose(columns.T @ columns, np.eye(5), atol=rounding)
    np.testing.assert_allclose(columns @ root, before, atol=rounding)


@every_spectrum
def test_features_are_the_same_in_blocks_of_rows(values, rank, monkeypatch):
    matrix = with_spectrum(values)
    whole = low_rank_features(FactoredScores([matrix]), rank)
    monkeypatch.setattr(svd, "_QR_BYTES", 1)
    blocks = low_rank_features(FactoredScores([matrix]), rank)
    slack = ROUNDING * np.linalg.norm(matrix)
    assert residual(matrix, *blocks[:2]) == pytest.approx(
        residual(matrix, *whole[:2]), rel=1e-4, abs=float(slack)
    )
    assert blocks[2] == pytest.approx(whole[2], abs=1e-6)


def test_a_row_of_a_sparse_product_stores_no_more_than_was_counted():
    factors = [sp.csr_array(matrix) for matrix in (LEFT, MIDDLE, RIGHT)]
    scores = FactoredScores(factors)
    assert scores.is_sparse and (np.diff(scores.product_rows(np.arange(7)).indptr) > 0).any()
    assert (np.diff(scores.product_rows(np.arange(7)).indptr) <= scores.most_entries).all()
    assert (FactoredScores([factors[0], MIDDLE]).most_entries == 6).all()


# --- the same every time ---------------------------------------------------------------------


def test_the_same_scores_give_the_same_bits_and_no_global_stream_is_touched():
    matrix, state = random_matrix(N_USERS, N_ITEMS), np.random.get_state()
    one = low_rank_features(FactoredScores([matrix]), 6)
    assert (np.random.get_state()[1] == state[1]).all() and np.random.get_state()[2] == state[2]
    np.random.seed(99)
    two = low_rank_features(FactoredScores([matrix]), 6)
    np.random.set_state(state)
    assert all(np.array_equal(a, b) for a, b in zip(one, two))


def test_another_random_start_gives_the_same_rows_signs_included():
    matrix = with_spectrum(0.5 ** np.arange(20))
    one, two = (low_rank_features(FactoredScores([matrix]), 5, seed=seed)[:2] for seed in (0, 1))
    for a, b in zip(one, two):
        assert not np.array_equal(a, b)
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_the_largest_entry_of_an_items_column_is_positive_whatever_lapack_chose():
    """The sign of a singular vector is free: fixed, so that a version or a device changes nothing."""
    for seed in range(3):
        _, item_emb, _ = low_rank_features(FactoredScores([random_matrix(20, 30, seed=seed)]), 8)
        assert (item_emb[np.abs(item_emb).argmax(0), np.arange(8)] > 0).all()


def test_sparse_and_dense_factors_of_the_same_scores_give_the_same_rows():
    matrix = with_spectrum(0.5 ** np.arange(20))
    of_dense = low_rank_features(FactoredScores([matrix]), 5)
    of_sparse = low_rank_features(FactoredScores([sp.csr_matrix(matrix)]), 5)
    for a, b in zip(of_dense, of_sparse):
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_the_scores_are_read_in_three_passes():
    class Counted(FactoredScores):
        passes = ()

        def gram(self, basis):
            self.passes += ("gram",)
            return super().gram(basis)

        def project(self, basis):
            self.passes += ("project",)
            return super().project(basis)

    scores = Counted([random_matrix(N_USERS, N_ITEMS)])
    low_rank_features(scores, 6)
    assert scores.passes == ("gram", "gram", "project")


# --- what is no number -----------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:invalid value encountered in matmul:RuntimeWarning")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix])
def test_scores_that_are_no_numbers_are_refused(bad, kind):
    matrix = random_matrix(N_USERS, N_ITEMS, density=0.2)
    matrix[5, 7] = bad
    with pytest.raises(ValueError, match="the scores hold NaN or infinite numbers"):
        low_rank_features(FactoredScores([kind(matrix)]), 4)


def test_what_turns_nan_only_in_the_last_pass_is_refused_too():
    class Late(FactoredScores):
        def project(self, basis):
            projected, energy = super().project(basis)
            projected[0] = np.nan
            return projected, energy * np.nan

    with pytest.raises(ValueError, match="NaN"):
        low_rank_features(Late([random_matrix(6, 5)]), 2)


def test_scores_are_an_interface():
    for call in (Scores().gram, Scores().project):
        with pytest.raises(NotImplementedError):
            call(np.ones((2, 1)))


@settings(max_examples=60, deadline=None, database=None)
@given(
    n_users=st.integers(1, 45),
    n_items=st.integers(1, 45),
    density=st.sampled_from([0.03, 0.2, 1.0]),
    rank=st.integers(1, 12),
    seed=st.integers(0, 2**16),
)
def test_random_sparse_scores_are_approximated_as_well_as_they_can_be(
    n_users, n_items, density, rank, seed
):
    matrix = random_matrix(n_users, n_items, density, seed)
    user_emb, item_emb, share = low_rank_features(FactoredScores([sp.csr_matrix(matrix)]), rank)
    assert 1 <= user_emb.shape[1] == item_emb.shape[1] <= min(rank, n_users, n_items)
    assert np.isfinite(user_emb).all() and np.isfinite(item_emb).all() and 0 <= share <= 1
    assert_nearly_best(matrix, rank, (user_emb, item_emb))
