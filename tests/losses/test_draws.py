"""sampling: what is drawn has the law that is stated, to the last item, and never the padding."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from recbole_freqd.core.rng import RandomStream
from recbole_freqd.losses import ranks as sampling
from recbole_freqd.losses.draws import FreeItems
from recbole_freqd.losses.ranks import RankDraws
from tests.support.oracles import random_interactions

MANY = 40_000
WEIGHTS = torch.tensor([5.0, 3.0, 1.0, 0.5, 0.5])


def near(drawn, expected):
    """Whether frequencies of ``MANY`` draws are those expected, within five deviations each."""
    found = torch.bincount(drawn.flatten(), minlength=len(expected))[: len(expected)]
    expected = torch.as_tensor(expected, dtype=torch.float64)
    assert drawn.numel() == found.sum()
    spread = (expected * (1 - expected) * drawn.numel()).sqrt()
    assert ((found - expected * drawn.numel()).abs() <= 5 * spread + 1e-9).all()


def free_of(user_items, user):
    listed = set(np.flatnonzero(user_items.toarray()[user]))
    return [item for item in range(1, user_items.shape[1]) if item not in listed]


# --- items outside of lists -------------------------------------------------------------------


@pytest.mark.parametrize("among", [None, [1, 2, 4, 7, 9], []])
@pytest.mark.parametrize("seed", range(4))
def test_free_items_by_rank_are_those_of_no_list_in_ascending_order(seed, among):
    user_items = random_interactions(seed)
    mask = None if among is None else torch.isin(torch.arange(10), torch.tensor(among))
    free, users = FreeItems(user_items, "cpu", mask), torch.arange(9)
    ranks = torch.arange(12).expand(9, -1)
    for user, row in zip(users.tolist(), free.items(users, ranks).tolist()):
        expected = [i for i in free_of(user_items, user) if among is None or i in among]
        assert free.counts[user] == len(expected)
        assert row == expected + [0] * (12 - len(expected))


def test_every_free_item_is_as_likely_as_any_other():
    user_items = random_interactions(1)
    drawn = FreeItems(user_items, "cpu").draw(torch.full((MANY // 4,), 4), 4, RandomStream(0))
    expected = np.zeros(10)
    candidates = free_of(user_items, 4)
    expected[candidates] = 1 / len(candidates)
    near(drawn, expected)


def test_who_has_everything_gets_the_padding_and_who_has_almost_everything_the_rest():
    dense = np.ones((4, 6))
    dense[2, 3] = 0
    free, users = FreeItems(sp.csr_array(dense), "cpu"), torch.tensor([1, 2, 2])
    assert free.draw(users, 4, RandomStream(0)).tolist() == [[0] * 4, [3] * 4, [3] * 4]


def test_no_list_at_all_leaves_all_items_but_the_padding():
    free = FreeItems(sp.csr_array((2, 5)), "cpu")
    items = free.items(torch.arange(2), torch.arange(-1, 5).expand(2, -1))
    assert items.tolist() == [[0, 1, 2, 3, 4, 0]] * 2


def test_stored_zeros_and_repeated_entries_list_nothing_more():
    entries = np.array([0.0, 1.0, 1.0]), (np.array([1, 1, 1]), np.array([1, 2, 2]))
    matrix = sp.csr_array(sp.coo_array(entries, shape=(2, 4)))
    assert FreeItems(matrix, "cpu").counts.tolist() == [3, 2]


def test_draws_without_users_or_of_nothing_are_empty():
    free = FreeItems(random_interactions(0), "cpu")
    none = torch.empty(0, dtype=torch.int64)
    assert free.draw(none, 3, RandomStream(0)).shape == (0, 3)
    assert free.draw(torch.tensor([1]), 0, RandomStream(0)).shape == (1, 0)
    draws = RankDraws(WEIGHTS, "cpu")
    assert draws.tournaments(none, 3, RandomStream(0), distinct=True).shape == (0, 3)
    assert draws.pairs(none, 3, RandomStream(0))[0].shape == (0, 3)


def test_nothing_of_the_size_of_users_times_items_is_made():
    n_users, n_items = 3_000, 50_000
    rng = np.random.default_rng(0)
    pairs = rng.integers(1, n_users, 20_000), rng.integers(1, n_items, 20_000)
    user_items = sp.csr_array((np.ones(20_000), pairs), shape=(n_users, n_items))
    with torch.profiler.profile(profile_memory=True) as profile:
        FreeItems(user_items, "cpu").draw(torch.arange(1, 500), 20, RandomStream(0))
    assert max(event.self_cpu_memory_usage for event in profile.events()) < n_users * n_items / 50


# --- ranks ------------------------------------------------------------------------------------


def chances(limit):
    kept = WEIGHTS[:limit].double()
    return kept / kept.sum()


@pytest.mark.parametrize("limit", [1, 2, 4, 5])
def test_ranks_have_the_chances_of_their_weights_among_those_below_the_limit(limit):
    draws = RankDraws(WEIGHTS, "cpu")
    near(draws.draw(torch.full((MANY // 4,), limit), 4, RandomStream(1)), chances(limit))


@pytest.mark.parametrize("limit", [1, 2, 5])
@pytest.mark.parametrize("distinct", [False, True])
def test_a_tournament_is_won_by_the_better_of_two(limit, distinct):
    p = chances(limit)
    expected = torch.zeros(limit, dtype=torch.float64)
    for one in range(limit):
        for other in range(limit):
            expected[min(one, other)] += p[one] * p[other]
    draws, limits = RankDraws(WEIGHTS, "cpu"), torch.full((MANY,), limit)
    near(draws.tournaments(limits, 1, RandomStream(2), distinct=distinct)[:, :1], expected)


@pytest.mark.parametrize("rounds", [0, 1, 32])
def test_distinct_winners_are_drawn_one_after_the_other_from_those_that_are_left(
    rounds, monkeypatch
):
    monkeypatch.setattr(sampling, "_ROUNDS", rounds)
    p, winner = chances(4), torch.zeros(4, dtype=torch.float64)
    for one in range(4):
        for other in range(4):
            winner[min(one, other)] += p[one] * p[other]
    expected = torch.zeros(4, 4, dtype=torch.float64)
    for one in range(4):
        for other in set(range(4)) - {one}:
            expected[one, other] = winner[one] * winner[other] / (1 - winner[one])
    limits = torch.full((MANY,), 4)
    drawn = RankDraws(WEIGHTS, "cpu").tournaments(limits, 2, RandomStream(3), distinct=True)
    near(drawn[:, 0] * 4 + drawn[:, 1], expected.flatten())


def test_fewer_ranks_than_asked_for_are_all_there_in_order_and_then_none():
    limits = torch.tensor([0, 1, 3, 5])
    drawn = RankDraws(WEIGHTS, "cpu").tournaments(limits, 3, RandomStream(0), distinct=True)
    assert drawn[:3].tolist() == [[-1, -1, -1], [0, -1, -1], [0, 1, 2]]
    assert sorted(set(drawn[3].tolist())) == sorted(drawn[3].tolist())


@pytest.mark.parametrize("limit", [2, 3, 5])
def test_pairs_are_two_independent_ranks_given_that_they_differ(limit):
    p, expected = chances(limit), torch.zeros(limit, limit, dtype=torch.float64)
    for one in range(limit):
        for other in set(range(limit)) - {one}:
            expected[min(one, other), max(one, other)] += p[one] * p[other]
    expected /= expected.sum()
    better, worse = RankDraws(WEIGHTS, "cpu").pairs(
        torch.full((MANY // 2,), limit), 2, RandomStream(4)
    )
    near(better * limit + worse, expected.flatten())


@pytest.mark.parametrize("scale", [1e-2, 0.1, 20.0, 1e6])
def test_pairs_differ_and_stay_below_the_limit_however_steep_the_weights(scale):
    limits = torch.tensor([0, 1, 2, 3, 40, 1000])
    draws = RankDraws.exponential(1000, scale, "cpu")
    better, worse = draws.pairs(limits, 200, RandomStream(0))
    assert (better[:2] == 0).all() and (worse[:2] == 0).all()
    assert (better[2:] >= 0).all() and (better[2:] < worse[2:]).all()
    assert (worse[2:] < limits[2:, None]).all()


@pytest.mark.parametrize("rounds", [0, 32])
def test_winners_are_distinct_even_where_their_chances_underflow(rounds, monkeypatch):
    monkeypatch.setattr(sampling, "_ROUNDS", rounds)
    limits = torch.tensor([40, 6])
    drawn = RankDraws.exponential(40, 1e-3, "cpu").tournaments(
        limits, 5, RandomStream(0), distinct=True
    )
    assert (drawn >= 0).all() and (drawn < limits[:, None]).all()
    assert all(len(set(row)) == 5 for row in drawn.tolist())


def test_weights_fall_with_the_rank_as_the_scale_says():
    draws = RankDraws.exponential(50, 4.0, "cpu")
    ratio = draws.weights[1:] / draws.weights[:-1]
    torch.testing.assert_close(ratio, torch.full_like(ratio, np.exp(-1 / 4.0)))
    assert draws.cdf[-1] == pytest.approx(1.0, abs=1e-12)


# --- distinct draws ---------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [0, 2, 32])
def test_distinct_draws_of_nearly_all_ranks_are_distinct_and_below_the_limit(rounds, monkeypatch):
    monkeypatch.setattr(sampling, "_ROUNDS", rounds)
    limits = torch.tensor([0, 3, 19, 20, 21, 22, 500])
    stream = RandomStream(0)
    drawn = RankDraws(torch.ones(500), "cpu").tournaments(limits, 20, stream, distinct=True)
    for limit, row in zip(limits.tolist(), drawn.tolist()):
        kept = [rank for rank in row if rank >= 0]
        assert len(kept) == len(set(kept)) == min(limit, 20)
        assert all(rank < limit for rank in kept)


def test_the_seed_alone_decides_and_the_global_stream_is_left_alone():
    before = torch.random.get_rng_state()
    free, users = FreeItems(random_interactions(0), "cpu"), torch.arange(1, 8)
    one, again, other = (free.draw(users, 5, RandomStream(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert torch.equal(before, torch.random.get_rng_state())
