"""The start fitted to lists, against dense least squares."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from recbole_freqd.core.lists import ListMaker
from recbole_freqd.core.rankers import FeatureRanker, top_items
from recbole_freqd.features import list_fit
from recbole_freqd.features.approximation import approximate
from recbole_freqd.features.list_fit import fit_lists
from tests.support.oracles import random_interactions


def ranker(seed=1, width=6, n_users=40, n_items=60):
    generator = torch.Generator().manual_seed(seed)
    tables = [torch.randn(n, width, generator=generator) for n in (n_users, n_items)]
    for table in tables:
        table[0] = 0
    return FeatureRanker(*tables)


def nothing(of):
    return sp.csr_array(of.shape, dtype=np.float32)


@pytest.fixture
def short(monkeypatch):
    """Lists so short that a few users and items have some that are not full, and some none."""
    monkeypatch.setattr(list_fit, "LENGTH", 5)
    monkeypatch.setattr(list_fit, "_HARD", 7)


def dense_sweeps(taught, start, exclude, sweeps):
    """The same by whole matrices of targets and weights, a linear system per row in float64."""
    n_users, n_items = taught.shape
    length, fall = list_fit.LENGTH, list_fit._FALL
    users, items = (table.double().numpy().copy() for table in start.features)
    top = top_items(taught, length, exclude=exclude).ids.numpy()
    top[0] = 0  # the padding
    rho = np.log1p(np.arange(length)) / np.log(2 * length)
    hard = np.zeros((n_users, 0), dtype=int)
    taken = exclude.toarray() > 0
    for user, listed in enumerate(top):
        taken[user, listed[listed > 0]] = True
    taken[:, 0] = True
    for sweep in range(sweeps):
        if sweep:
            scores = np.where(taken, -np.inf, (users @ items.T).astype(np.float32))
            hard = np.argsort(-scores, axis=1, kind="stable")[:, : list_fit._HARD]
            hard[0] = 0
        target, weight = (np.zeros((n_users, n_items)) for _ in range(2))
        for user in range(n_users):
            target[user, hard[user]] = 1 - fall
            weight[user, hard[user]] = list_fit._HARD_WEIGHT
            target[user, top[user]] = 1 - fall * rho
            weight[user, top[user]] = (1 - rho) / (1 - rho).mean()
        target[:, 0] = weight[:, 0] = 0
        for one, other, goal, stress in (
            (users, items, target, weight),
            (items, users, target.T, weight.T),
        ):
            for row in range(len(one)):
                if not stress[row].any():
                    one[row] *= one is users
                    continue
                gram = other.T @ np.diag(stress[row] + list_fit._REST_WEIGHT) @ other
                gram += list_fit._RIDGE * np.eye(gram.shape[0])
                one[row] = np.linalg.solve(gram, other.T @ (stress[row] * goal[row]))
    return users @ items.T


@pytest.mark.parametrize("sweeps", [1, 3])
def test_a_sweep_is_weighted_least_squares_on_all_pairs(short, sweeps):
    taught = ranker()
    exclude = sp.csr_array(random_interactions(3, n_users=40, n_items=60))
    start = approximate(taught, 3)
    found = fit_lists(start, taught, ListMaker(), exclude, sweeps=sweeps)
    expected = dense_sweeps(taught, start, exclude, sweeps)
    made = (found.user_emb @ found.item_emb.T).double().numpy()
    factor = (made * expected).sum() / (expected**2).sum()
    assert factor > 0
    assert np.abs(made - factor * expected).max() < 1e-4 * np.abs(made).max()


def test_its_spread_within_the_lists_is_that_of_the_scores():
    taught = ranker()
    found = fit_lists(approximate(taught, 3), taught, ListMaker(), nothing(taught))
    top = top_items(taught, list_fit.LENGTH)
    own = FeatureRanker(*found.features).at(torch.arange(1, 40), top.ids[1:].long())
    assert torch.isclose(own.std(dim=1).mean(), top.scores[1:].std(dim=1).mean(), rtol=1e-3)


def test_so_it_is_where_no_list_is_full():
    taught = ranker(n_items=30)
    found = fit_lists(approximate(taught, 3), taught, ListMaker(), nothing(taught))
    own, wanted = ((u @ v.T)[1:, 1:] for u, v in (found.features, taught.factors()))
    assert torch.isclose(own.std(dim=1).mean(), wanted.std(dim=1).mean(), rtol=1e-3)


def test_lists_have_no_scale_and_no_offset(short):
    taught, exclude = ranker(), nothing(ranker())
    start = approximate(taught, 3)
    bent = FeatureRanker(
        torch.cat([3 * taught.user_emb, torch.ones(40, 1)], dim=1),
        torch.cat([taught.item_emb, torch.full((60, 1), 7.0)], dim=1),
    )
    one, other = (fit_lists(start, each, ListMaker(), exclude) for each in (taught, bent))
    assert torch.allclose(
        3 * one.user_emb @ one.item_emb.T, other.user_emb @ other.item_emb.T, atol=1e-3
    )


def test_the_head_of_lists_is_nearer_than_by_the_best_approximation():
    """Users of twelve tastes: four dimensions of the spectrum hold four of them."""
    generator = torch.Generator().manual_seed(1)
    users, items = (torch.eye(12)[torch.arange(n) % 12] for n in (240, 600))
    items = items * (0.5 + torch.rand(600, 1, generator=generator))
    users[0] = items[0] = 0
    taught = FeatureRanker(users, items)
    exclude, start = nothing(taught), approximate(taught, 4)
    found = fit_lists(start, taught, ListMaker(), exclude)
    wanted = top_items(taught, 10).ids[1:]

    def overlap(features):
        own = top_items(FeatureRanker(*features), 10).ids[1:]
        return float((own[:, :, None] == wanted[:, None, :]).any(dim=2).float().mean())

    assert overlap(found.features) > overlap(start.features) + 0.2


def test_what_the_teacher_does_not_know_stays_out(short):
    taught = ranker()
    users, items = np.ones(40, dtype=bool), np.ones(60, dtype=bool)
    users[[0, 4]] = items[[0, 9]] = False
    start = approximate(taught, 3, (users, items))
    found = fit_lists(start, taught, ListMaker(), nothing(taught))
    assert not found.user_emb[[0, 4]].any() and not found.item_emb[[0, 9]].any()
    assert found.user_emb[1:4].any(dim=1).all() and np.array_equal(found.masks[1], items)


def test_a_student_with_biases_gets_them_as_means(short):
    taught = ranker()
    start = approximate(taught, 3, biases=(True, True))
    plain = fit_lists(start, taught, ListMaker(), nothing(taught))
    biased = fit_lists(start, taught, ListMaker(), nothing(taught), biases=(False, True))
    whole = plain.user_emb @ plain.item_emb.T
    assert torch.allclose(biased.item_bias[1:], whole[1:, 1:].mean(dim=0), atol=1e-4)


def test_constant_scores_change_no_scale_and_break_nothing():
    flat = FeatureRanker(torch.ones(8, 1), torch.ones(9, 1))
    found = fit_lists(approximate(flat, 2), flat, ListMaker(), nothing(flat))
    assert all(table.isfinite().all() for table in found.features)
