"""teacher.filter: on features, on blocks and on pairs it is the dense H on the scores."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import recbole_freqd.teacher.filter as filter_module
from recbole_freqd.core import rankers as catalogue
from recbole_freqd.core import rows
from recbole_freqd.core.errors import ConfigError, TeacherError
from recbole_freqd.core.rankers import FeatureRanker
from recbole_freqd.core.rows import empty_rows, is_mapped
from recbole_freqd.features import products
from recbole_freqd.features.products import SummedRanker, SummedScores
from recbole_freqd.graph.cooccurrence import cooccurrence_graph
from recbole_freqd.teacher.filter import (
    CentredRanker,
    FilteredRanker,
    filter_features,
    filter_mixture,
    filtered_ranker,
)
from recbole_freqd.teacher.models.shrunk_knn import neighbour_weights
from recbole_freqd.teacher.team.member import TeamMember
from recbole_freqd.teacher.team.rescaling import MaskedRanker, ScaledRanker
from recbole_freqd.teacher.team.team import TeamRanker
from tests.support.oracles import dense_filter, random_interactions
from tests.teacher.team.test_team import DenseRanker, masks, tables

N_USERS, N_ITEMS = 9, 10
EVERYONE = torch.arange(N_USERS)
EVERYTHING = torch.arange(N_ITEMS).expand(N_USERS, -1)
both_sides = pytest.mark.parametrize("side", ["user", "item"])
with_and_without = pytest.mark.parametrize("centre", [False, True])


def graph_of(seed, side, k=2):
    return cooccurrence_graph(random_interactions(seed), side=side, k=k)


def dense(scores, graph, side, alpha, centre=False, known=None):
    """The filtered scores of all pairs, float64: unknown is 0 before, -inf (0 of users) after."""
    users, items = known if known is not None else (np.arange(N_USERS) > 0, np.arange(N_ITEMS) > 0)
    scores, items = scores.double().numpy().copy(), items & ~np.isneginf(scores.numpy()).all(axis=0)
    scores[:, ~items] = 0.0
    if centre:
        scores[:, items] -= scores[:, items].mean(axis=1, keepdims=True)
    if known is not None:
        scores[~users] = 0.0
    H = dense_filter(graph.toarray(), lambda lam: 1 - alpha * lam)
    filtered = scores @ H.T if side == "item" else H @ scores
    if known is not None:
        filtered[~users] = 0.0
    filtered[:, ~items] = -np.inf
    return filtered


def assert_scores(ranker, expected):
    """Blocks and pairs, the padding item (-inf or a number) apart.

    Lists of all items ask for whole rows where neighbours are as many; lists of one never do.
    """
    one_by_one = [ranker.at(EVERYONE, EVERYTHING[:, [item]]) for item in range(N_ITEMS)]
    for scores in (
        ranker.block(EVERYONE),
        ranker.at(EVERYONE, EVERYTHING),
        torch.cat(one_by_one, dim=1),
    ):
        np.testing.assert_allclose(scores[:, 1:].numpy(), expected[:, 1:], rtol=1e-4, atol=2e-5)


@both_sides
@with_and_without
@pytest.mark.parametrize("alpha", [0.3, 0.7, 1.5])
@pytest.mark.parametrize("seed", range(2))
def test_filters_on_features_on_blocks_and_on_pairs_are_the_dense_one(side, centre, alpha, seed):
    pair, graph = tables(seed), graph_of(seed, side)
    expected = dense(pair[0] @ pair[1].T, graph, side, alpha, centre)
    settings = {"side": side, "alpha": alpha, "centre": centre}
    ranker = filtered_ranker(FeatureRanker(*pair), graph, **settings)
    assert isinstance(ranker, FeatureRanker)
    assert_scores(ranker, expected)
    assert_scores(FeatureRanker(*filter_features(pair, graph, **settings)), expected)
    if side == "item":
        ranker = filtered_ranker(DenseRanker(pair[0] @ pair[1].T), graph, **settings)
        assert isinstance(ranker, FilteredRanker) and ranker.factors() is None
        assert_scores(ranker, expected)
    else:
        spectral = filtered_ranker(
            DenseRanker(torch.zeros(N_USERS, N_ITEMS)), graph, features=pair, **settings
        )
        assert_scores(spectral, expected)


@pytest.mark.parametrize("budget", [1, 2**12, 2**28])
@pytest.mark.parametrize("k", [1, 9])
def test_pairs_take_their_neighbours_at_any_budget_repeats_and_padding_included(
    budget, k, monkeypatch
):
    monkeypatch.setattr(catalogue, "BUDGET_BYTES", budget)
    scores, graph = torch.randn(N_USERS, N_ITEMS), graph_of(0, "item", k)
    expected = dense(scores, graph, "item", 0.4)
    ranker = FilteredRanker(DenseRanker(scores), graph, 0.4)
    users, items = torch.tensor([4, 1, 4, 8]), torch.tensor([[2, 2], [9, 5], [1, 7], [4, 3]])
    np.testing.assert_allclose(
        ranker.at(users, items).numpy(), expected[users[:, None], items], rtol=1e-4, atol=1e-5
    )
    assert ranker.at(users[:0], items[:0]).shape == (0, 2)
    assert ranker.at(users, items[:, :0]).shape == (4, 0)
    assert ranker.at(users, torch.zeros(4, 2, dtype=torch.int64)).shape == (4, 2)


def test_pairs_ask_for_no_other_items_than_their_neighbours():
    graph = graph_of(0, "item", 1)
    asked = []

    class Watched(DenseRanker):
        def at(self, user_ids, item_ids):
            asked.append(set(item_ids.flatten().tolist()))
            return super().at(user_ids, item_ids)

    ranker = FilteredRanker(Watched(torch.randn(N_USERS, N_ITEMS)), graph, 0.4)
    ranker.at(torch.tensor([3]), torch.tensor([[2]]))
    assert asked == [{2, *graph[[2]].indices.tolist()}]
    assert ranker.ranker.asked.sum() == 0  # no whole row


@with_and_without
@pytest.mark.parametrize("kind", ["features", "scores"])
def test_unknown_items_stay_unknown_and_count_as_nothing_for_their_neighbours(kind, centre):
    pair, graph, known = tables(3), graph_of(0, "item", 3), masks(items=[4, 7])
    scores = pair[0] @ pair[1].T
    scores[:, [4, 7]] = -torch.inf
    expected = dense(scores, graph, "item", 0.4, centre)
    if kind == "scores":
        ranker = filtered_ranker(
            DenseRanker(scores), graph, side="item", alpha=0.4, centre=centre
        )  # fmt: skip
    else:
        ranker = filtered_ranker(
            FeatureRanker(*pair), graph, side="item", alpha=0.4, centre=centre, known=known
        )
        ranker.known_users = None
        expected[0] = ranker.block(EVERYONE)[0]  # the padding user is no known one
    assert_scores(ranker, expected)
    assert ranker.known_items().tolist() == known[1].tolist()
    assert not ranker.block(EVERYONE).isnan().any()


def test_unknown_users_give_nothing_and_get_nothing():
    pair, graph, known = tables(3), graph_of(0, "user", 3), masks(users=[2, 5])
    expected = dense(pair[0] @ pair[1].T, graph, "user", 0.4, known=known)
    ranker = filtered_ranker(FeatureRanker(*pair), graph, side="user", alpha=0.4, known=known)
    assert_scores(ranker, expected)
    assert (ranker.block(torch.tensor([2, 5]))[:, 1:] == 0).all()


@both_sides
def test_alpha_zero_is_the_object_itself(side):
    pair, graph = tables(0), graph_of(0, side)
    ranker = DenseRanker(torch.zeros(N_USERS, N_ITEMS))
    assert filtered_ranker(ranker, graph, side=side, alpha=0.0, centre=True) is ranker
    assert filter_features(pair, graph, side=side, alpha=0, centre=True) is pair


def test_centring_moves_ranks_on_the_items_side_and_none_on_the_users_side():
    pair = tables(0)
    pair[0][:, 0], pair[1][:, 0] = 5.0, 1.0  # a number that all scores of a user share
    ranks = {
        (side, centre): filtered_ranker(
            FeatureRanker(*pair), graph_of(0, side), side=side, alpha=0.5, centre=centre
        ).block(EVERYONE[1:])[:, 1:].argsort()
        for side in ("user", "item")
        for centre in (False, True)
    }  # fmt: skip
    assert torch.equal(ranks["user", True], ranks["user", False])
    assert not torch.equal(ranks["item", True], ranks["item", False])


def test_centred_scores_are_measured_once_whatever_is_asked_first():
    scores = torch.randn(N_USERS, N_ITEMS) + 7
    scores[:, 5] = -torch.inf
    for first in ("block", "at"):
        ranker = CentredRanker(DenseRanker(scores))
        if first == "at":
            ranker.at(EVERYONE, EVERYTHING)
        block = ranker.block(EVERYONE)
        torch.testing.assert_close(block, ranker.at(EVERYONE, EVERYTHING))
        kept = [1, 2, 3, 4, 6, 7, 8, 9]
        torch.testing.assert_close(
            block[:, kept].mean(dim=1), torch.zeros(N_USERS), atol=1e-5, rtol=0
        )
        assert block[:, 5].isneginf().all() and ranker.ranker.asked.max() <= 2


@pytest.mark.parametrize("make", [lambda team: team, lambda team: ScaledRanker(team, 2.5)])
def test_means_of_a_team_with_sparse_scores_are_known_without_whole_rows(make, monkeypatch):
    train = random_interactions(1)
    knn = SummedRanker(SummedScores([[train * np.float32(1), neighbour_weights(train, 3, 1.0)]]))
    known = masks(users=(3,), items=(4, 5))
    members = [
        TeamMember("a", MaskedRanker(tables(0), torch.from_numpy(known[1])), tables(0), known),
        TeamMember.of("b", FeatureRanker(*tables(2))),
        TeamMember("knn", knn, known=known, trained_by_gradient=False),
    ]

    def centred(some):
        team = TeamRanker(some, [0.2, 0.3, 0.5][-len(some) :], exclude=train, factor=1.5)
        return CentredRanker(make(team))

    whole = centred(members[1:]).block(EVERYONE)
    monkeypatch.setattr(products, "_MANY_ITEMS", 5)
    asked = []
    monkeypatch.setattr(TeamRanker, "block", lambda team, users: asked.append(users))
    few = centred(members[1:]).at(EVERYONE, EVERYTHING)
    torch.testing.assert_close(few[1:, 1:], whole[1:, 1:], rtol=1e-4, atol=1e-5)
    assert asked == []
    monkeypatch.undo()
    means = TeamRanker(members, [1, 1, 1]).mean_over(EVERYONE, torch.arange(N_ITEMS) > 0)
    assert means is None  # a member that gives -inf has no such form


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_features_keep_their_precision_and_the_other_side_is_the_same_tensor(dtype):
    pair = tuple(table.to(dtype) for table in tables(0))
    user, item = filter_features(pair, graph_of(0, "item"), side="item", alpha=0.5)
    assert user is pair[0] and item.dtype == dtype
    exact = filter_features(
        tuple(t.float() for t in pair), graph_of(0, "item"), side="item", alpha=0.5
    )
    torch.testing.assert_close(item.float(), exact[1], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("known", [None, (np.arange(N_USERS) > 2, np.arange(N_ITEMS) > 3)])
def test_features_in_a_file_are_filtered_block_by_block_into_another(known, monkeypatch):
    settings = {"side": "item", "alpha": 0.5, "centre": True, "known": known}
    plain = filter_features(tables(0), graph_of(0, "item"), **settings)
    files = tuple(
        empty_rows(*table.shape, table.dtype, "cpu", mapped=True).copy_(table)
        for table in tables(0)
    )
    monkeypatch.setattr(rows, "_ROWS_AT_ONCE", 4)
    monkeypatch.setattr(filter_module, "_ROWS", 4)
    for own, want in zip(filter_features(files, graph_of(0, "item"), **settings), plain):
        assert is_mapped(own)
        torch.testing.assert_close(own, want)


def test_a_team_of_products_is_filtered_inside_its_features_and_another_by_its_blocks():
    exclude, graph = random_interactions(1), graph_of(1, "item")
    members = [TeamMember.of(name, FeatureRanker(*tables(seed))) for seed, name in enumerate("ab")]
    other = TeamMember("b", DenseRanker(members[1].ranker.block(EVERYONE)))
    teams = [
        TeamRanker(pair, [0.7, 0.3], exclude=exclude) for pair in (members, [members[0], other])
    ]
    ways = [filtered_ranker(team, graph, side="item", alpha=0.5, centre=True) for team in teams]
    assert ways[0].factors() is not None and isinstance(ways[1], FilteredRanker)
    a, b = (ranker.block(EVERYONE)[1:, 1:] for ranker in ways)
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    users = filtered_ranker(teams[0], graph_of(1, "user"), side="user", alpha=0.5)
    expected = dense(teams[0].block(EVERYONE), graph_of(1, "user"), "user", 0.5)
    np.testing.assert_allclose(
        users.block(EVERYONE)[1:, 1:], expected[1:, 1:], rtol=1e-3, atol=1e-4
    )


def test_a_block_scores_a_user_once():
    ranker = DenseRanker(torch.randn(N_USERS, N_ITEMS))
    filtered = filtered_ranker(ranker, graph_of(0, "item"), side="item", alpha=0.5)
    filtered.block(EVERYONE)
    assert (ranker.asked == 1).all()


@both_sides
@with_and_without
@pytest.mark.parametrize("kind", ["features", "scores"])
def test_a_mixture_ranks_as_the_filter_does_with_every_alpha(side, centre, kind):
    pair, graph = tables(5), graph_of(0, side)
    plain = FeatureRanker(*pair) if kind == "features" else DenseRanker(pair[0] @ pair[1].T)
    features = None if kind == "features" else pair
    settings = {"side": side, "centre": centre, "features": features}
    mixture, scores = filter_mixture(plain, graph, **settings), plain.block(EVERYONE)
    before = scores.clone()
    P, Q = mixture(EVERYONE, scores)
    assert torch.equal(scores, before)
    for alpha in (0.2, 0.6):
        mixed = (1 - alpha) * P + alpha * Q
        expected = filtered_ranker(plain, graph, alpha=alpha, **settings).block(EVERYONE)
        difference = (mixed - expected)[:, 1:]
        torch.testing.assert_close(
            difference, difference[:, :1].expand_as(difference), rtol=0, atol=1e-4
        )
        assert centre or difference.abs().max() < 1e-4


def test_the_users_side_without_features_is_refused_by_name():
    ranker = DenseRanker(torch.zeros(N_USERS, N_ITEMS))
    for make in (
        lambda: filtered_ranker(ranker, graph_of(0, "user"), side="user", alpha=0.5, name="EASE"),
        lambda: filter_mixture(ranker, graph_of(0, "user"), side="user", name="EASE"),
    ):
        with pytest.raises(TeacherError, match="EASE cannot be filtered on the users' side"):
            make()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"side": "both", "alpha": 0.5}, "side: got 'both'"),
        ({"side": "item", "alpha": -0.1}, "alpha: got -0.1"),
        ({"side": "item", "alpha": float("nan")}, "alpha: got nan"),
        ({"side": "user", "alpha": 0.5}, "The user graph is"),
    ],
)
def test_what_is_not_allowed_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        filtered_ranker(FeatureRanker(*tables(0)), graph_of(0, "item"), **settings)


def test_no_array_of_users_times_items_is_made(monkeypatch):
    n_users, n_items = 600, 500
    interactions = random_interactions(0, n_users, n_items)
    interactions.data *= np.random.default_rng(0).random(interactions.nnz) < 0.05
    interactions.eliminate_zeros()
    graph = cooccurrence_graph(interactions, side="item", k=3)
    pair = tables(0, 4, n_users, n_items)

    class Asked(FeatureRanker):
        def factors(self):
            return None

    monkeypatch.setattr(catalogue, "BUDGET_BYTES", 2**18)
    with torch.profiler.profile(profile_memory=True) as profile:
        ranker = filtered_ranker(Asked(*pair), graph, side="item", alpha=0.5, centre=True)
        for users in catalogue.user_blocks(n_users, n_items, "cpu"):
            ranker.block(users)
        ranker.at(torch.arange(n_users), torch.ones(n_users, 5, dtype=torch.int64))
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert 0 < largest <= 2**18 < 4 * n_users * n_items


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    k=st.integers(1, 9),
    alpha=st.floats(0.01, 2.0),
    unknown=st.lists(st.integers(1, N_ITEMS - 1), max_size=9),
    centre=st.booleans(),
)
def test_of_any_small_data_features_blocks_and_pairs_agree(seed, k, alpha, unknown, centre):
    pair, graph = tables(seed % 97), graph_of(seed, "item", k)
    scores = pair[0] @ pair[1].T
    scores[:, unknown] = -torch.inf
    scores[:, 0] = -torch.inf
    expected = dense(scores, graph, "item", alpha, centre)
    asked = filtered_ranker(DenseRanker(scores), graph, side="item", alpha=alpha, centre=centre)
    assert_scores(asked, expected)
    known = masks(items=unknown)
    inside = filtered_ranker(
        FeatureRanker(*pair), graph, side="item", alpha=alpha, centre=centre, known=known
    )
    np.testing.assert_allclose(
        inside.block(EVERYONE)[1:, 1:], expected[1:, 1:], rtol=1e-3, atol=1e-4
    )
