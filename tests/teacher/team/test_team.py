"""teacher.team: blocks, pairs and features of a team are those of a dense standardised sum."""

import itertools

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_freqd.core import rankers as catalogue
from recbole_freqd.core import rows
from recbole_freqd.core.errors import ConfigError, TeacherError
from recbole_freqd.core.lists import ListMaker
from recbole_freqd.core.rankers import FeatureRanker, Ranker, top_items
from recbole_freqd.core.rows import empty_rows, is_mapped
from recbole_freqd.features import products
from recbole_freqd.features.low_rank import low_rank_features
from recbole_freqd.features.products import SummedRanker, SummedScores
from recbole_freqd.teacher.models.shrunk_knn import neighbour_weights
from recbole_freqd.teacher.team.member import StandardisedRanker, TeamMember
from recbole_freqd.teacher.team.rescaling import MaskedRanker, ScaledRanker, rescaled
from recbole_freqd.teacher.team.team import TeamRanker
from recbole_freqd.teacher.team.team_features import team_features
from tests.support.oracles import random_interactions

N_USERS, N_ITEMS = 9, 10
EVERYONE = torch.arange(N_USERS)
EVERYTHING = torch.arange(N_ITEMS).expand(N_USERS, -1)


class DenseRanker(Ranker):
    """Scores that lie there, and how many of each user's rows were asked for."""

    def __init__(self, scores):
        self.scores = scores.float()
        self.shape, self.device = tuple(scores.shape), scores.device
        self.asked = torch.zeros(len(scores), dtype=torch.int64)

    def block(self, user_ids):
        self.asked.index_add_(0, user_ids, torch.ones_like(user_ids))
        return self.scores[user_ids].clone()

    def at(self, user_ids, item_ids):
        return self.scores[user_ids[:, None], item_ids].clone()

    def known_items(self):
        known = ~self.scores.isneginf().all(dim=0)
        known[0] = False
        return known


def tables(seed, width=4, n_users=N_USERS, n_items=N_ITEMS):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, width, generator=generator) + 0.3 for n in (n_users, n_items))


def product(name, seed, *, width=4, known=None, **kind):
    pair = tables(seed, width)
    if known is not None:
        pair = tuple(
            table * torch.as_tensor(mask)[:, None].float() for table, mask in zip(pair, known)
        )
    return TeamMember(name, FeatureRanker(*pair), pair, known, is_product=True, **kind)


def asked(name, seed, *, known=None, unknown_items=(), **kind):
    """A member that can only be asked for its scores."""
    user, item = tables(seed, 6)
    scores = (user @ item.T).exp() * 20 + 100
    scores[:, list(unknown_items)] = -torch.inf
    return TeamMember(name, DenseRanker(scores), None, known, **kind)


def masks(users=(), items=()):
    """What is known if these users and items are not."""
    user, item = np.arange(N_USERS) > 0, np.arange(N_ITEMS) > 0
    user[list(users)], item[list(items)] = False, False
    return user, item


def dense_z(member, exclude):
    """(n_users, n_items) float64, by loops; and the spreads of the users it knows."""
    scores = member.ranker.block(EVERYONE).double().numpy()
    users, items = member.known if member.known is not None else masks()
    trained, z, spreads = exclude.toarray() != 0, np.zeros_like(scores), []
    for u in np.flatnonzero(users):
        valid = items & np.isfinite(scores[u]) & (np.arange(N_ITEMS) > 0)
        counted = scores[u][valid & ~trained[u]]
        spread = counted.std() if len(counted) else 0.0
        spreads.append(spread)
        if spread > 1e-9:
            z[u, valid] = (scores[u, valid] - counted.mean()) / spread
    return z, np.mean(spreads)


def dense_team(members, weights, exclude, closed_form_spread=1.0):
    """y, by the text: standardised sum, one constant, -inf for what nobody knows."""
    pairs = [dense_z(member, exclude) for member in members]
    total = sum(weight * z for weight, (z, _) in zip(weights, pairs))
    known_items = np.zeros(N_ITEMS, dtype=bool)
    known_users = np.zeros(N_USERS, dtype=bool)
    for member in members:
        users, items = member.known if member.known is not None else masks()
        finite = np.isfinite(member.ranker.block(EVERYONE).numpy()).any(axis=0)
        known_users |= users
        known_items |= items & finite
    known_items[0] = False
    spreads = []
    for u in np.flatnonzero(known_users):
        counted = total[u][known_items & (exclude.toarray()[u] == 0)]
        spreads.append(counted.std() if len(counted) else 0.0)
    trained = [
        (w, spread)
        for m, w, (_, spread) in zip(members, weights, pairs)
        if m.trained_by_gradient and w > 0
    ]
    wanted = (
        sum(w * s for w, s in trained) / sum(w for w, _ in trained)
        if trained
        else closed_form_spread
    )
    total = total * wanted / np.mean(spreads)
    total[:, ~known_items] = -np.inf
    return total, known_users, known_items


TEAMS = {
    "products": lambda: [product("b", 1), product("a", 2, width=3)],
    "asked": lambda: [asked("a", 1), asked("b", 2)],
    "mixed": lambda: [
        product("embedding", 1),
        asked("knn", 2, trained_by_gradient=False),
        asked("other", 3),
    ],
    "closed forms": lambda: [
        asked("knn", 1, trained_by_gradient=False),
        product("ease", 2, trained_by_gradient=False),
    ],
    "strangers": lambda: [
        product("a", 1, known=masks([3, 4], [5])),
        asked("b", 2, known=masks([4, 6], [1, 5])),
    ],
    "unscored items": lambda: [asked("a", 1, unknown_items=[2, 7]), asked("b", 2, unknown_items=[7])],
    "products that know little": lambda: [
        product("a", 1, known=masks([3, 4], [5])),
        product("b", 2, known=masks([4], [1, 5])),
    ],
}  # fmt: skip
every_team = pytest.mark.parametrize("kind", TEAMS)
WEIGHTS = [0.7, 0.3, 0.2]


@every_team
@pytest.mark.parametrize("most", [1, 4, 1024])
@pytest.mark.parametrize("seed", range(2))
def test_blocks_and_pairs_are_those_of_the_dense_standardised_sum(kind, most, seed, monkeypatch):
    monkeypatch.setattr(catalogue, "_MOST_USERS", most)
    members, exclude = TEAMS[kind](), random_interactions(seed)
    weights = WEIGHTS[: len(members)]
    expected, users, items = dense_team(members, weights, exclude, 1.7)
    for first in ("block", "at"):
        team = TeamRanker(members, weights, exclude=exclude, closed_form_spread=1.7)
        assert team.known_users().tolist() == users.tolist()
        assert team.known_items().tolist() == items.tolist()
        whole = [team.block(EVERYONE), team.at(EVERYONE, EVERYTHING)]
        if first == "at":
            whole = [team.at(EVERYONE, EVERYTHING), team.block(EVERYONE)]
        for scores in whole:
            np.testing.assert_allclose(scores.numpy(), expected, rtol=2e-4, atol=2e-5)
    some = torch.tensor([[3, 3, 0], [9, 1, 2]])
    pairs = TeamRanker(members, weights, exclude=exclude, closed_form_spread=1.7).at(
        torch.tensor([5, 5]), some
    )
    np.testing.assert_allclose(pairs.numpy(), expected[5][some], rtol=2e-4, atol=2e-5)


@every_team
def test_the_order_of_the_members_changes_nothing_to_the_last_bit(kind):
    members, exclude = TEAMS[kind](), random_interactions(0)
    blocks = []
    for order in itertools.permutations(range(len(members))):
        team = TeamRanker(
            [members[place] for place in order], [WEIGHTS[place] for place in order], exclude=exclude
        )  # fmt: skip
        blocks.append((team.block(EVERYONE), team.at(EVERYONE, EVERYTHING)))
    assert all(torch.equal(a, b) for pair in blocks for a, b in zip(pair, blocks[0]))


def test_a_member_without_weight_counts_as_absent():
    members, exclude = [asked("a", 1), asked("b", 2), asked("c", 3, unknown_items=[4])], None
    exclude = random_interactions(0)
    team = TeamRanker(members, [0.5, 0.0, 0.5], exclude=exclude)
    other = TeamRanker([members[0], members[2]], [0.5, 0.5], exclude=exclude)
    assert torch.equal(team.block(EVERYONE), other.block(EVERYONE))
    assert members[1].ranker.asked.sum() == 0
    alone = TeamRanker(members, [0.0, 0.0, 1.0], exclude=exclude)
    assert alone.block(EVERYONE)[:, 4].isneginf().all()


def test_scores_that_are_all_the_same_or_all_trained_on_say_nothing():
    scores = torch.full((N_USERS, N_ITEMS), 3.1)
    scores[5:] = torch.randn(4, N_ITEMS)
    exclude = sp.lil_array((N_USERS, N_ITEMS))
    exclude[6, 1:] = 1
    exclude[7, 2:] = 1  # one item left, so no spread
    member = TeamMember("a", DenseRanker(scores))
    z = StandardisedRanker(member, sp.csr_array(exclude)).block(EVERYONE)
    assert (z[[0, 1, 2, 3, 4, 6, 7]] == 0).all() and (z[5, 1:] != 0).all()
    pair = torch.ones(N_USERS, 2), torch.ones(N_ITEMS, 2)
    flat = TeamMember.of("b", FeatureRanker(*pair))
    team = TeamRanker([flat], [1.0], exclude=sp.csr_array(exclude))
    assert (team.block(EVERYONE)[:, 1:] == 0).all() and team.factor == 1.0


def test_a_pair_at_minus_infinity_counts_as_unknown_and_the_item_stays_known():
    scores = torch.randn(N_USERS, N_ITEMS, generator=torch.Generator().manual_seed(0))
    scores[2, 3] = -torch.inf
    ranker = StandardisedRanker(TeamMember("a", DenseRanker(scores)))
    assert ranker.block(EVERYONE)[2, 3] == 0 and ranker.known_items()[3]
    counted = scores[2, [1, 2, 4, 5, 6, 7, 8, 9]]
    expected = (scores[2, 1] - counted.mean()) / counted.std(correction=0)
    torch.testing.assert_close(ranker.block(EVERYONE)[2, 1], expected)
    team = TeamRanker([ranker.member], [1.0])
    assert team.at(torch.tensor([2]), torch.tensor([[3]])).item() == 0


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_scores_that_are_not_numbers_are_refused_by_name(bad):
    scores = torch.zeros(N_USERS, N_ITEMS)
    scores[4, 4] = bad
    with pytest.raises(TeacherError, match="Teacher knn gives scores that are NaN or infinite"):
        TeamRanker([TeamMember("knn", DenseRanker(scores))], [1.0]).block(EVERYONE)


def test_large_offsets_do_not_blur_the_spread():
    scores = torch.randn(N_USERS, N_ITEMS, generator=torch.Generator().manual_seed(0))
    z = StandardisedRanker(TeamMember("a", DenseRanker(scores))).block(EVERYONE)
    shifted = TeamMember("a", DenseRanker((scores.double() * 2**-4 + 2**10).float()))
    close = StandardisedRanker(shifted).block(EVERYONE)
    torch.testing.assert_close(close, z, rtol=0.02, atol=0.02)


def test_each_user_is_scored_once_for_the_constant_and_once_more_when_ranked():
    members = [asked("a", 1), asked("b", 2, trained_by_gradient=False)]
    team = TeamRanker(members, [0.5, 0.5], exclude=random_interactions(0))
    assert team.factor > 0
    assert all((member.ranker.asked[1:] == 1).all() for member in members)
    team.at(EVERYONE[1:], EVERYTHING[1:])
    assert all((member.ranker.asked[1:] == 1).all() for member in members)
    team.block(EVERYONE)
    assert all((member.ranker.asked[1:] == 2).all() for member in members)


def test_the_constant_is_measured_on_no_more_users_than_allowed():
    def team(most_users, rows=EVERYONE):
        members = [
            TeamMember(
                name, DenseRanker(asked(name, seed).ranker.scores[rows]), None, None, trained
            )
            for name, seed, trained in (("a", 1, True), ("b", 2, False))
        ]
        exclude = random_interactions(0)[rows.numpy()]
        return TeamRanker(members, [0.5, 0.5], exclude=exclude, most_users=most_users)

    few, whole, more = team(3), team(None), team(N_USERS)
    chosen = team(None, torch.tensor([0, 1, 3, 6]))
    assert few.factor == pytest.approx(chosen.factor) and few.factor != whole.factor
    assert more.factor == whole.factor
    for member in few.members:
        assert member.member.ranker.asked.sum() == 3 and member.member.ranker.asked.max() == 1


def test_of_a_teacher_alone_too_and_of_products_all_are_measured():
    scores = torch.randn(N_USERS, N_ITEMS, generator=torch.Generator().manual_seed(0))
    ranker = DenseRanker(scores)
    rescaled(ranker, 2.0, most_users=2)
    assert ranker.asked.sum() == 2
    products = product("a", 1)
    spreads = [StandardisedRanker(products).mean_spread(most) for most in (2, None)]
    assert spreads[0] == spreads[1]


# --- scores that are 0 but for a few ----------------------------------------------------------


class Stored(DenseRanker):
    """Tells its few scores beside making whole rows."""

    def stored(self, user_ids):
        return sp.csr_array(self.scores[user_ids].numpy())


@pytest.mark.parametrize("leaving_out", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_moments_of_the_few_stored_scores_are_those_of_whole_rows(seed, leaving_out):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(N_USERS, N_ITEMS, generator=generator)
    scores[torch.rand(scores.shape, generator=generator) < 0.6] = 0
    scores[2] = 0
    exclude = random_interactions(seed) if leaving_out else None
    known = masks(users=(3,), items=(4, 5))
    whole, few = (
        StandardisedRanker(TeamMember("a", kind(scores), known=known), exclude)
        for kind in (DenseRanker, Stored)
    )
    torch.testing.assert_close(few.at(EVERYONE, EVERYTHING), whole.at(EVERYONE, EVERYTHING))
    assert few.member.ranker.asked.sum() == 0
    first = StandardisedRanker(few.member, exclude)  # whole rows first: the same bits
    assert torch.equal(first.block(EVERYONE), few.block(EVERYONE))


def community_data(n_users=80, n_items=600, seed=0):
    """(n_users, n_items): users of four communities, each of which likes a quarter of the items."""
    rng = np.random.default_rng(seed)
    alike = np.arange(n_users)[:, None] % 4 == np.arange(n_items) % 4
    dense = rng.random((n_users, n_items)) < np.where(alike, 0.3, 0.02)
    dense[0] = dense[:, 0] = False
    return sp.csr_array(dense * np.float32(1))


@pytest.mark.parametrize("many_items", [1, 10**6], ids=["looked up", "whole rows"])
def test_candidates_of_a_team_come_from_features_and_its_own_scores_rank_them(
    many_items, monkeypatch
):
    pytest.importorskip("faiss")
    monkeypatch.setattr(products, "_MANY_ITEMS", many_items)
    train = community_data()
    knn = SummedScores([[train, neighbour_weights(train, k=20, shrink=3.0)]])
    spectral = tuple(map(torch.from_numpy, low_rank_features(knn, 16)[:2]))
    members = [
        TeamMember.of("a", FeatureRanker(*tables(1, 4, 80, 600))),
        TeamMember("knn", SummedRanker(knn), spectral, trained_by_gradient=False),
    ]
    team = TeamRanker(members, [0.3, 0.7], exclude=train)
    stand_ins = team_features(members, [0.3, 0.7], exclude=train)
    maker = ListMaker(1, nprobe=10**6)
    found = maker.top_items(team, 9, exclude=train, stand_ins=stand_ins)
    exact = top_items(team, 9, exclude=train)
    users = torch.arange(1, 80)
    torch.testing.assert_close(
        found.scores[users], team.at(users, found.ids[users].long()), rtol=1e-4, atol=1e-5
    )
    same = (exact.ids[users, :, None] == found.ids[users, None, :]).any(dim=2).double().mean()
    assert same > 0.95 and maker.recalls["Ranking"] == pytest.approx(float(same), abs=1e-3)


# --- tables in files --------------------------------------------------------------------------


@pytest.mark.parametrize("offsets", [False, True])
def test_features_of_a_team_lie_in_a_file_where_those_of_a_member_do(offsets, monkeypatch):
    members = [product("a", 1), product("b", 2, width=3)]
    plain = team_features(members, [0.7, 0.3], offsets=offsets)
    copies = tuple(
        empty_rows(*table.shape, table.dtype, "cpu", mapped=True).copy_(table)
        for table in members[0].features
    )
    members[0] = TeamMember("a", FeatureRanker(*copies), copies, is_product=True)
    monkeypatch.setattr(rows, "_ROWS_AT_ONCE", 4)
    mapped = team_features(members, [0.7, 0.3], offsets=offsets)
    for own, want in zip(mapped, plain):
        assert is_mapped(own) and not is_mapped(want) and torch.equal(own, want)


def test_no_array_of_users_times_items_is_made(monkeypatch):
    n_users, n_items = 300, 400
    sizes = []

    class Watched(FeatureRanker):
        def block(self, user_ids):
            sizes.append(len(user_ids) * n_items)
            return super().block(user_ids)

        def factors(self):
            return None

    monkeypatch.setattr(catalogue, "BUDGET_BYTES", 2**18)
    pairs = [tables(seed, 4, n_users, n_items) for seed in (0, 1)]
    members = [TeamMember.of("a", FeatureRanker(*pairs[0])), TeamMember.of("b", Watched(*pairs[1]))]
    exclude = sp.random_array((n_users, n_items), density=0.1, format="csr", rng=0)
    with torch.profiler.profile(profile_memory=True) as profile:
        team = TeamRanker(members, [0.5, 0.5], exclude=exclude)
        team.at(torch.arange(n_users), torch.ones(n_users, 3, dtype=torch.int64))
    assert 0 < max(sizes) * 4 <= 2**18 / 4
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert 0 < largest < 4 * n_users * n_items


# --- features ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["products", "products that know little"])
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("factor", [1.0, 2.5])
def test_features_of_products_multiply_to_the_standardised_sum(kind, seed, factor):
    members, exclude = TEAMS[kind](), random_interactions(seed)
    weights = WEIGHTS[: len(members)]
    expected = sum(w * dense_z(member, exclude)[0] for w, member in zip(weights, members)) * factor
    user, item = team_features(members, weights, exclude=exclude, factor=factor, offsets=True)
    np.testing.assert_allclose((user @ item.T).numpy(), expected, atol=2e-5)
    plain = team_features(members, weights, exclude=exclude, factor=factor)
    assert plain[0].shape[1] == user.shape[1] - len(members)
    if kind == "products":  # the same, but for one number per user
        difference = ((plain[0] @ plain[1].T).numpy() - expected)[1:, 1:]
        np.testing.assert_allclose(difference - difference[:, :1], 0, atol=3e-5)


@pytest.mark.parametrize("offsets", [True, False])
def test_the_members_features_have_the_same_mean_norms_and_zeros_for_the_unknown(offsets):
    members = TEAMS["products that know little"]()
    user, item = team_features(members, [0.7, 0.3], exclude=random_interactions(0), offsets=offsets)
    width = 4 + offsets
    for place, member in enumerate(members):
        columns = slice(place * width, (place + 1) * width)
        knows_user, knows_item = (torch.from_numpy(mask) for mask in member.known)
        means = user[knows_user, columns].norm(dim=1), item[knows_item, columns].norm(dim=1)
        torch.testing.assert_close(means[0].mean(), means[1].mean())
        assert (user[~knows_user, columns] == 0).all() and (item[~knows_item, columns] == 0).all()


def test_without_training_items_features_are_the_formula_of_the_text():
    member = product("a", 1)
    U, V = (table.double() for table in member.features)
    V = V - V[1:].mean(dim=0)
    covariance = V[1:].T @ V[1:] / (N_ITEMS - 1)
    expected = U @ V.T / torch.einsum("ud,de,ue->u", U, covariance, U).sqrt()[:, None]
    user, item = team_features([member], [1.0])
    np.testing.assert_allclose((user @ item.T)[1:, 1:].numpy(), expected[1:, 1:].numpy(), atol=1e-5)


def test_features_of_a_member_that_is_no_product_stand_for_its_scores():
    pair = tables(3)
    exact, stands = product("a", 3), TeamMember("a", asked("x", 5).ranker, pair)
    exclude = random_interactions(1)
    for own, other in zip(
        team_features([exact], [1.0], exclude=exclude), team_features([stands], [1.0], exclude=exclude)
    ):  # fmt: skip
        assert torch.equal(own, other)


def test_a_member_without_features_is_named():
    with pytest.raises(TeacherError, match="Teacher knn has no features.*spectral_rank"):
        team_features([product("a", 1), asked("knn", 2)], [0.5, 0.5])


def test_the_factors_of_a_team_of_products_give_its_scores_and_those_of_others_are_none():
    members, exclude = TEAMS["products"](), random_interactions(0)
    team = TeamRanker(members, [0.7, 0.3], exclude=exclude)
    user, item = team.factors()
    torch.testing.assert_close(
        (user @ item.T)[1:, 1:], team.block(EVERYONE)[1:, 1:], rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(
        team.exchanged().block(torch.arange(N_ITEMS)), item @ user.T, rtol=1e-4, atol=1e-5
    )
    other = TeamRanker(TEAMS["mixed"](), WEIGHTS)
    assert other.factors() is None and other.exchanged() is None


# --- the constant -----------------------------------------------------------------------------


def test_the_mean_spread_is_that_of_the_members_trained_by_gradient():
    exclude = random_interactions(0)
    for weights, spread in (([1.0, 1.0], None), ([0.0, 1.0], 2.0)):
        trained, closed = asked("a", 1), asked("b", 2, trained_by_gradient=False)
        team = TeamRanker([trained, closed], weights, exclude=exclude, closed_form_spread=2.0)
        own = StandardisedRanker(TeamMember("y", team), exclude).mean_spread()
        assert own == pytest.approx(spread or dense_z(trained, exclude)[1], rel=1e-4)


@pytest.mark.parametrize("make", [product, asked])
def test_a_single_teacher_is_rescaled_to_a_mean_spread_and_ranks_as_before(make):
    member, exclude = make("a", 1), random_interactions(0)
    ranker = rescaled(member, 1.1, exclude=exclude)
    assert dense_z(TeamMember("a", ranker), exclude)[1] == pytest.approx(1.1, rel=1e-4)
    assert torch.equal(ranker.block(EVERYONE).argsort(), member.ranker.block(EVERYONE).argsort())
    torch.testing.assert_close(ranker.at(EVERYONE, EVERYTHING), ranker.block(EVERYONE))
    if make is product:
        user, item = ranker.factors()
        torch.testing.assert_close(user @ item.T, ranker.block(EVERYONE))
        torch.testing.assert_close(ranker.exchanged().block(torch.arange(N_ITEMS)), item @ user.T)


def test_constant_scores_are_not_rescaled_and_minus_infinity_stays():
    flat = DenseRanker(torch.ones(N_USERS, N_ITEMS))
    assert rescaled(flat, 2.0) is flat
    scaled = ScaledRanker(asked("a", 1, unknown_items=[3]).ranker, 0.5)
    assert scaled.block(EVERYONE)[:, 3].isneginf().all() and not scaled.known_items()[3]


def test_a_masked_ranker_gives_minus_infinity_to_what_is_not_known():
    known = torch.from_numpy(masks(items=[4])[1])
    ranker = MaskedRanker(tables(0), known)
    for scores in ranker.block(EVERYONE), ranker.at(EVERYONE, EVERYTHING):
        assert (
            torch.equal(scores.isneginf().all(dim=0), ~known) and scores[:, known].isfinite().all()
        )


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "weights", [[0.5], [0.0, 0.0], [0.5, -0.1], [float("nan"), 1.0], [float("inf"), 1.0]]
)
def test_weights_that_are_not_allowed_are_refused(weights):
    with pytest.raises(ConfigError, match="teacher_weights.*allowed"):
        TeamRanker([asked("a", 1), asked("b", 2)], weights)


def test_a_name_twice_other_shapes_and_spreads_of_nothing_are_refused():
    with pytest.raises(ConfigError, match="each name once"):
        TeamRanker([asked("a", 1), asked("a", 2)], [0.5, 0.5])
    smaller = TeamMember("b", FeatureRanker(*tables(0, n_users=4)))
    with pytest.raises(TeacherError, match="the student.s numbers, for all of them"):
        TeamRanker([asked("a", 1), smaller], [0.5, 0.5])
    for make in (
        lambda: rescaled(asked("a", 1), 0.0),
        lambda: TeamRanker([asked("a", 1)], [1.0], closed_form_spread=-1.0),
    ):
        with pytest.raises(ConfigError, match="above 0"):
            make()


# --- any small data ---------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    density=st.floats(0.0, 1.0),
    unknown=st.lists(st.integers(1, N_ITEMS - 1), max_size=4),
    strangers=st.lists(st.integers(1, N_USERS - 1), max_size=4),
    weight=st.floats(0.05, 0.95),
)
def test_of_any_small_data_block_pairs_features_and_oracle_agree(
    seed, density, unknown, strangers, weight
):
    rng = np.random.default_rng(seed)
    exclude = sp.csr_array((rng.random((N_USERS, N_ITEMS)) < density) & (np.arange(N_ITEMS) > 0))
    members = [product("a", seed, known=masks(strangers, unknown)), product("b", seed + 1, width=2)]
    weights = [weight, 1 - weight]
    expected, *_ = dense_team(members, weights, exclude) if density < 0.9 else (None,)
    team = TeamRanker(members, weights, exclude=exclude)
    block, pairs = team.block(EVERYONE), team.at(EVERYONE, EVERYTHING)
    assert not block.isnan().any() and not pairs.isnan().any()
    torch.testing.assert_close(block, pairs, rtol=1e-3, atol=1e-3)
    if expected is not None and np.isfinite(expected).any():
        np.testing.assert_allclose(block.numpy(), expected, rtol=1e-2, atol=1e-2)


# --- as products of matrices -------------------------------------------------------------------


def item_based(name="knn", seed=3, known=None):
    """A member whose scores are a product of sparse matrices, with a row of one item alone."""
    rng = np.random.default_rng(seed)
    seen = (rng.random((N_USERS, N_ITEMS)) < 0.3).astype(np.float32)
    seen[2], seen[2, 4] = 0, 1
    weights = (rng.random((N_ITEMS, N_ITEMS)) * (rng.random((N_ITEMS, N_ITEMS)) < 0.5)).astype("f4")
    weights[4], weights[4, 4] = 0, 1  # item 4 has no neighbour
    scores = SummedScores([[sp.csr_array(seen), sp.csr_array(weights)]])
    return TeamMember(name, SummedRanker(scores), None, known, trained_by_gradient=False)


@pytest.mark.parametrize("known", [None, masks(users=[3], items=[5])])
def test_the_products_of_a_team_are_its_scores(known):
    exclude = sp.csr_array(random_interactions(4))[:N_USERS, :N_ITEMS]
    team = TeamRanker([product("a", 1), item_based(known=known)], [0.7, 0.3], exclude=exclude)
    scores = team.block(EVERYONE).double().numpy()
    scores[0], scores[:, 0] = 0, 0
    form, basis = (
        team.products(),
        np.linalg.qr(np.random.default_rng(0).normal(size=(N_ITEMS, 3)))[0],
    )
    np.testing.assert_allclose(form.gram(basis), scores.T @ scores @ basis, rtol=1e-4, atol=1e-3)
    projected, energy = form.project(basis)
    np.testing.assert_allclose(projected[1:], (scores @ basis)[1:], rtol=1e-4, atol=1e-4)
    assert energy == pytest.approx(np.square(scores).sum(), rel=1e-4)


def test_a_team_with_a_member_that_only_ranks_has_no_products():
    exclude = sp.csr_array((N_USERS, N_ITEMS))
    assert (
        TeamRanker([product("a", 1), asked("b", 2)], [0.5, 0.5], exclude=exclude).products() is None
    )


def test_what_rounding_leaves_of_a_users_scores_is_not_standardised():
    """Its items have no neighbours: of the other scores there is nothing but rounding."""
    scores = torch.rand(N_USERS, N_ITEMS, generator=torch.Generator().manual_seed(0))
    scores[2] = 1e-17 * scores[2]
    scores[2, 4] = 1.3
    exclude = sp.csr_array(([1.0], ([2], [4])), shape=(N_USERS, N_ITEMS))
    z = StandardisedRanker(TeamMember("a", DenseRanker(scores)), exclude).block(EVERYONE)
    assert not z[2].any() and z[1, 1:].any() and z.abs().max() < 1e3
