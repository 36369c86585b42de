"""The best features of a width, against the dense truncated SVD."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import recbole_freqd.features.approximation as approximation
from recbole_freqd.core.errors import TeacherError
from recbole_freqd.core.rankers import FeatureRanker, Ranker
from recbole_freqd.core.rows import empty_rows
from recbole_freqd.features.approximation import RankerScores, approximate
from recbole_freqd.features.low_rank import FactoredScores

N_USERS, N_ITEMS, RANK = 40, 50, 4
BIASES = [(False, False), (True, False), (False, True), (True, True)]


def tables(width=9, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(n, width, generator=generator) for n in (N_USERS, N_ITEMS)]
    made[0][:, 0] += 2.0  # so that means matter
    made[1][:, 0] += 1.0
    scale = 0.6 ** torch.arange(width)
    return made[0].to(dtype), (made[1] * scale).to(dtype)


def masks(*unknown):
    user, item = np.ones(N_USERS, dtype=bool), np.ones(N_ITEMS, dtype=bool)
    user[[0, *unknown]] = item[[0, *unknown]] = False
    return user, item


def dense(features, counted):
    """Y without what does not count."""
    scores = features[0].double().numpy() @ features[1].double().numpy().T
    return scores[np.ix_(*counted)]


def truncated(scores, rank):
    left, sigma, right = np.linalg.svd(scores, full_matrices=False)
    return (left[:, :rank] * sigma[:rank]) @ right[:rank]


def nearest(scores, rank, biases):
    """Of all sums of rank ``rank`` and the biases that there are."""
    means = np.zeros_like(scores)
    if biases[1]:
        means = means + (scores - means).mean(axis=0, keepdims=True)
    if biases[0]:
        means = means + (scores - means).mean(axis=1, keepdims=True)
    return means + truncated(scores - means, rank)


def product(found, counted):
    scores = (found.user_emb @ found.item_emb.T).double().numpy()
    for bias, axis in ((found.user_bias, 1), (found.item_bias, 0)):
        if bias is not None:
            scores = scores + np.expand_dims(bias.double().numpy(), axis)
    return scores[np.ix_(*counted)]


def share_kept(scores, made):
    return 1 - np.square(scores - made).sum() / np.square(scores).sum()


class OtherScores(Ranker):
    """Known by its scores only."""

    def __init__(self, scores):
        self.scores, self.shape, self.device = scores, tuple(scores.shape), scores.device

    def block(self, user_ids):
        return self.scores[user_ids].clone()


@pytest.mark.parametrize("block", [2**26, 500], ids=["in-one-block", "in-blocks"])
@pytest.mark.parametrize("biases", BIASES)
def test_a_product_is_cut_to_its_truncated_svd_biases_apart(biases, block, monkeypatch):
    monkeypatch.setattr(approximation, "_BLOCK_BYTES", block)
    features, counted = tables(), masks(3, 7)
    found = approximate(FeatureRanker(*features), RANK, counted, biases=biases)
    wanted = nearest(dense(features, counted), RANK, biases)
    np.testing.assert_allclose(product(found, counted), wanted, atol=2e-5)
    assert found.share == pytest.approx(share_kept(dense(features, counted), wanted), abs=1e-6)
    assert (found.user_bias is not None, found.item_bias is not None) == biases


def test_both_sides_carry_the_square_roots_of_the_singular_values():
    features, counted = tables(), masks()
    found = approximate(FeatureRanker(*features), RANK)
    sigma = np.linalg.svd(dense(features, counted), compute_uv=False)[:RANK]
    for side in found.features:
        gram = side.T.double() @ side.double()
        np.testing.assert_allclose(gram, np.diag(sigma), atol=1e-4)


def test_what_is_unknown_has_rows_of_zeros_and_no_say_even_if_it_is_nan():
    features = tables()
    features[0][3], features[1][7] = torch.nan, 1e6
    found = approximate(FeatureRanker(*features), RANK, masks(3, 7))
    for side in found.features:
        assert (side[[0, 3, 7]] == 0).all() and side.isfinite().all()


@pytest.mark.parametrize("biases", BIASES)
def test_any_ranker_is_approximated_with_zeros_for_what_it_cannot_score(biases):
    features = tables(width=6)
    scores = features[0] @ features[1].T
    scores[:, 7] = -torch.inf  # an item that it does not know
    scores[0], scores[:, 0] = 1e5, -1e5  # the padding
    found = approximate(OtherScores(scores), RANK, masks(3), biases=biases)
    assert found.masks[1][7] == False and found.masks[0][7] == True  # noqa: E712
    wanted = nearest(dense(features, found.masks), RANK, biases)
    ours = product(found, found.masks)
    exact = np.linalg.norm(wanted - dense(features, found.masks))
    assert np.linalg.norm(ours - dense(features, found.masks)) <= 1.05 * exact + 1e-3
    assert found.share == pytest.approx(share_kept(dense(features, found.masks), ours), abs=1e-3)


def test_minus_infinity_for_one_user_only_is_a_score_of_zero():
    scores = tables(width=6)[0] @ tables(width=6)[1].T
    scores[5, 9] = -torch.inf
    made = RankerScores(OtherScores(scores), masks()).project(np.eye(N_ITEMS, dtype=np.float32))[0]
    assert made[5, 9] == 0 and made[5, 8] == pytest.approx(float(scores[5, 8]))
    assert (made[0] == 0).all() and (made[:, 0] == 0).all()


def test_factors_are_used_where_they_are_given():
    interactions = sp.random(N_USERS, N_ITEMS, 0.2, "csr", np.float32, random_state=0).tolil()
    interactions[0], interactions[:, 0] = 0, 0
    weights = np.random.default_rng(0).standard_normal((N_ITEMS, N_ITEMS)).astype(np.float32)
    weights[:, 0] = 0
    found = approximate(FactoredScores([interactions.tocsr(), weights]), RANK)
    scores = interactions.toarray() @ weights
    best = np.linalg.norm(scores - truncated(scores, RANK))
    assert np.linalg.norm((found.user_emb @ found.item_emb.T).numpy() - scores) <= 1.05 * best


class Hidden(FeatureRanker):
    """A ranker that would fail if it were asked for whole rows of more than some users."""

    def block(self, user_ids):
        assert len(user_ids) <= 8
        return super().block(user_ids)


class Team(Hidden):
    """No :class:`FeatureRanker` by name, but its scores are products, too."""

    def __init__(self, *features, products=True):
        super().__init__(*features)
        self.products = products

    def factors(self):
        return super().factors() if self.products else None


def test_whatever_has_factors_is_approximated_by_these_without_a_pass_over_scores():
    features = tables()
    wanted = approximate(FeatureRanker(*features), RANK)
    found = approximate(Team(*features), RANK)
    for own, want in zip(found.features, wanted.features):
        assert torch.equal(own, want)


def test_stand_ins_are_approximated_in_place_of_scores_that_are_no_products():
    features = tables()
    wanted = approximate(FeatureRanker(*features), RANK)
    found = approximate(Team(*features, products=False), RANK, stand_ins=features)
    other = approximate(Team(*features), RANK, stand_ins=tables(seed=1))  # not used
    for one in (found, other):
        assert all(map(torch.equal, one.features, wanted.features))


def test_there_are_no_more_columns_than_what_is_taught_has_directions():
    features = tables(width=3)
    found = approximate(FeatureRanker(*features), 8)
    assert found.rank == 3 and found.share == pytest.approx(1.0)
    assert approximate(OtherScores(features[0] @ features[1].T), 8).rank == 3


def test_the_same_scores_give_the_same_rows_in_whatever_basis_they_come():
    features = tables()
    turn = torch.linalg.qr(torch.randn(9, 9, generator=torch.Generator().manual_seed(4)))[0]
    one = approximate(FeatureRanker(*features), RANK)
    other = approximate(FeatureRanker(features[0] @ turn, features[1] @ turn), RANK)
    for ours, theirs in zip(one.features, other.features):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    for ours, theirs in zip(one.features, approximate(FeatureRanker(*features), RANK).features):
        assert torch.equal(ours, theirs)


def test_half_precision_tables_in_files_are_read_as_they_are():
    features = tables(dtype=torch.float16)
    mapped = [empty_rows(*t.shape, t.dtype, "cpu", mapped=True).copy_(t) for t in features]
    found, wanted = (approximate(FeatureRanker(*each), RANK) for each in (mapped, features))
    assert torch.equal(found.user_emb, wanted.user_emb) and found.user_emb.dtype == torch.float32
    scores = dense(features, masks())
    np.testing.assert_allclose(product(found, masks()), truncated(scores, RANK), atol=2e-5)


def test_a_teacher_of_zeros_starts_nothing_and_breaks_nothing():
    found = approximate(FeatureRanker(torch.zeros(N_USERS, 3), torch.zeros(N_ITEMS, 3)), RANK)
    assert found.share == 1.0 and (found.user_emb == 0).all() and (found.item_emb == 0).all()


def test_numbers_that_are_none_are_refused():
    features = tables()
    features[0][5, 1] = torch.nan
    with pytest.raises(TeacherError, match="NaN"):
        approximate(FeatureRanker(*features), RANK)
    with pytest.raises(TeacherError, match="NaN"):
        approximate(OtherScores(features[0] @ features[1].T), RANK)
