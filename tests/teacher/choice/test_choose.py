"""teacher.choose: the best of the grid, and only where it holds; metrics are RecBole's."""

import logging

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from recbole_freqd.core import rankers as catalogue
from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.rankers import FeatureRanker
from recbole_freqd.graph.cooccurrence import cooccurrence_graph
from recbole_freqd.teacher.choice import choose as choose_module
from recbole_freqd.teacher.choice import mixing, ranking_metrics
from recbole_freqd.teacher.choice.choose import (
    choose,
    choose_filter,
    choose_weights,
    weight_grid,
)
from recbole_freqd.teacher.choice.mixing import Candidate
from recbole_freqd.teacher.choice.ranking_metrics import METRICS, metric_named
from recbole_freqd.teacher.choice.sampled import ValidationSample
from recbole_freqd.teacher.filter import filter_mixture, filtered_ranker
from recbole_freqd.teacher.team.member import StandardisedRanker, TeamMember
from recbole_freqd.teacher.team.team import TeamRanker
from tests.teacher.team.test_team import DenseRanker

N_USERS, N_ITEMS = 60, 40
NDCG = metric_named("NDCG@5")


def drawn(train, valid, **settings):
    """The sample of validation users that choices are made by."""
    settings = {"metric": "NDCG@5", "seed": 0, **settings}
    return ValidationSample.draw(train, valid, **settings)


def interactions(seed, density=0.1):
    rng = np.random.default_rng(seed)
    dense = rng.random((N_USERS, N_ITEMS)) < density
    dense[0] = dense[:, 0] = False
    return dense


@pytest.fixture
def data():
    """Training and validation interactions that share nothing; some users have no validation."""
    train, valid = interactions(0, 0.2), interactions(1, 0.1)
    valid[[3, 7, 11]] = False
    return sp.csr_array(train * 1.0), sp.csr_array((valid & ~train) * 1.0)


def noisy(valid, seed, noise):
    """Scores that know the validation interactions, through noise."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.from_numpy(valid.toarray()).float()
    return truth + noise * torch.randn(truth.shape, generator=generator)


def dense_metric(scores, train, valid, metric=NDCG):
    """The mean over users with validation interactions."""
    users = np.flatnonzero(valid.toarray().sum(axis=1))
    scores = scores.clone()
    scores[:, 0] = -torch.inf
    scores[torch.from_numpy(train.toarray() != 0)] = -torch.inf
    positives = torch.from_numpy(valid.toarray() != 0)
    return float(metric(scores[users], positives[users]).mean())


# --- metrics ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("k", [1, 3, 10])
def test_metrics_are_those_of_recboles_evaluator(name, k, host):
    from recbole.evaluator.register import metrics_dict as recboles

    rng = np.random.default_rng(k)
    scores = torch.from_numpy(rng.standard_normal((50, 30))).float()
    positives = torch.from_numpy(rng.random((50, 30)) < rng.random((50, 1)) * 0.7)
    positives[:, 0] |= ~positives.any(dim=1)  # everybody has one
    hits = positives.gather(1, scores.topk(10, dim=1).indices).int()
    table = torch.cat([hits, positives.sum(dim=1, keepdim=True)], dim=1)

    class Collected:
        def get(self, _):
            return table

    settings = {"topk": [k, 10], "metric_decimal_place": 12}
    theirs = recboles[name](settings).calculate_metric(Collected())[f"{name}@{k}"]
    ours = metric_named(f"{name.upper()}@{k}")(scores, positives)
    assert ours.shape == (50,) and float(ours.mean()) == pytest.approx(theirs, abs=1e-9)


def test_metrics_of_a_model_are_those_of_recboles_whole_evaluation(built, tiny_config):
    from recbole.trainer import Trainer

    from recbole_freqd.features.data import training_matrix
    from recbole_freqd.features.scores import ModelRanker

    names = ["NDCG", "Recall", "MRR", "MAP", "Hit", "Precision"]
    keys = {"metrics": names, "topk": [5], "metric_decimal_place": 10}
    model, (train_data, valid_data, _) = built("BPR", **keys)
    theirs = Trainer(tiny_config(**keys), model).evaluate(valid_data, load_best_model=False)
    train = training_matrix(train_data._dataset)
    valid = sp.csr_array(valid_data._dataset.inter_matrix(form="csr"))
    scores = ModelRanker(model).block(torch.arange(model.n_users))
    for name in names:
        ours = dense_metric(scores, train, valid, metric_named(f"{name}@5"))
        assert ours == pytest.approx(theirs[f"{name.lower()}@5"], abs=1e-6)


def test_an_item_at_minus_infinity_is_no_hit_and_a_user_without_positives_scores_nothing():
    scores = torch.tensor([[0.0, -torch.inf, -torch.inf], [1.0, 2.0, 3.0]])
    positives = torch.tensor([[False, True, True], [False, False, False]])
    for name in METRICS:
        assert metric_named(f"{name}@3")(scores, positives).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("name", METRICS)
def test_of_many_items_and_with_positives_counted_before_metrics_are_the_same(name, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(20, 300, generator=generator)
    scores[3, 4:] = -torch.inf
    positives = torch.rand(scores.shape, generator=generator) < 0.05
    metric = metric_named(f"{name}@10")
    wanted = metric(scores, positives)
    monkeypatch.setattr(ranking_metrics, "_MANY_ITEMS", 299)
    assert torch.equal(metric(scores, positives, positives.sum(dim=1)), wanted)


@pytest.mark.parametrize("name", ["AUC", "ndcg", "NDCG@0", "NDCG@x", "GAUC@10", ""])
def test_other_metrics_are_refused(name):
    with pytest.raises(ConfigError, match="valid_metric.*allowed here: ndcg"):
        metric_named(name)


# --- the grid ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(1, 9))
def test_the_grid_has_equal_weights_first_every_single_member_and_sums_to_one(n):
    grid = weight_grid(n)
    assert grid[0] == pytest.approx([1 / n] * n) and len(set(grid)) == len(grid) <= 200
    assert all(tuple(float(i == j) for j in range(n)) in grid for i in range(n))
    assert all(sum(point) == pytest.approx(1) and min(point) >= 0 for point in grid)
    by_order = {tuple(reversed(point)) for point in grid}
    assert by_order == set(grid)  # no member is preferred


# --- the choice -------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [1, 2**20])
def test_weights_are_the_best_of_the_grid_and_every_figure_is_that_of_the_team(
    data, budget, monkeypatch
):
    monkeypatch.setattr(catalogue, "BUDGET_BYTES", budget)
    train, valid = data
    members = [
        TeamMember(name, DenseRanker(noisy(valid, seed, noise)))
        for seed, (name, noise) in enumerate({"good": 0.7, "other": 0.9, "bad": 5.0}.items())
    ]
    choice = choose_weights(members, drawn(train, valid), exclude=train)
    assert choice.n_sampled == choice.n_compared == choice.n_users and len(choice.sampled) == 28
    assert choice.value["good"] >= choice.value["other"] > choice.value["bad"]
    assert max(choice.sampled.values()) >= choice.sampled[choice.chosen]
    assert choice.sampled[choice.chosen] > choice.sampled[choice.plain]
    assert choice.compared == {
        label: choice.sampled[label] for label in (choice.plain, choice.chosen)
    }
    monkeypatch.setattr(catalogue, "BUDGET_BYTES", 2**20)
    weights = [choice.value[member.name] for member in members]
    team = TeamRanker(members, weights, exclude=train).block(torch.arange(N_USERS))
    assert choice.sampled[choice.chosen] == pytest.approx(dense_metric(team, train, valid))
    alone = dense_metric(members[2].ranker.scores, train, valid)
    assert choice.sampled["1 bad"] == pytest.approx(alone)


def test_a_member_is_left_out_only_where_that_is_better_by_more_than_a_standard_error(data):
    train, valid = data

    def weights(noise):
        """Of two members of one truth, and of one whose noise is this."""
        members = [
            TeamMember(name, DenseRanker(noisy(valid, seed, how)))
            for seed, (name, how) in enumerate({"a": 0.7, "b": 0.9, "c": noise}.items())
        ]
        return choose_weights(members, drawn(train, valid), exclude=train)

    helpful, useless = weights(2.0), weights(1e6)
    assert min(helpful.value.values()) > 0
    best = max(useless.sampled, key=useless.sampled.__getitem__)
    assert "c" not in best  # though weight .2 of noise is within a standard error on so few users
    assert useless.value["c"] <= 0.2


def test_near_the_best_is_by_the_error_of_the_difference():
    best = torch.linspace(0.0, 1.0, 400, dtype=torch.float64)
    values = torch.stack([best - 0.001, best, best - 0.001])
    values[2, ::2] += 0.05
    values[2, 1::2] -= 0.05  # as far behind on average, but now ahead, now behind
    assert choose_module._near_the_best(values) == [1, 2]  # the first is always behind


def test_the_order_of_the_members_does_not_change_the_weights(data):
    train, valid = data
    members = [TeamMember(name, DenseRanker(noisy(valid, ord(name), 0.8))) for name in "abc"]
    one, other = (
        choose_weights(order, drawn(train, valid), exclude=train)
        for order in (members, members[::-1])
    )
    assert one == other


def test_each_member_scores_a_user_once_and_what_is_measured_is_kept(data):
    train, valid = data
    rankers = [DenseRanker(noisy(valid, seed, 0.8)) for seed in range(2)]
    members = [
        StandardisedRanker(TeamMember(name, ranker), train) for name, ranker in zip("ab", rankers)
    ]
    choose_weights(members, drawn(train, valid), exclude=train)
    users = np.diff(valid.indptr) > 0
    for ranker, member in zip(rankers, members):
        assert ranker.asked.tolist() == users.astype(int).tolist()
        member.at(torch.from_numpy(np.flatnonzero(users)), torch.ones(users.sum(), 1).long())
        assert ranker.asked.tolist() == users.astype(int).tolist()


def test_a_member_that_knows_nothing_of_a_user_is_no_help_to_him(data):
    train, valid = data
    known = np.arange(N_USERS) > 30, np.arange(N_ITEMS) > 0
    scores = noisy(valid, 0, 0.01)
    members = [TeamMember("half", DenseRanker(scores), known=known)]
    choice = choose_weights(members, drawn(train, valid), exclude=train)
    of_known = scores.clone()
    of_known[:31] = -torch.inf
    assert choice.compared[choice.chosen] == pytest.approx(dense_metric(of_known, train, valid))
    assert choice.value == {"half": 1.0}


@pytest.mark.parametrize("kind", ["apart", "alike", "ties", "unknown"])
def test_on_some_items_of_each_user_the_figures_are_those_on_all_items(kind, data, monkeypatch):
    train, valid = data
    scores = [noisy(valid, seed, 0.8) for seed in range(3)]
    if kind == "alike":
        scores[1] = scores[0] + 0.01 * scores[1]
    if kind == "ties":
        scores = [each.round() for each in scores]
    if kind == "unknown":
        scores[2][:, 25:] = -torch.inf
        scores[1][5:9] = -torch.inf

    def chosen(narrow):
        monkeypatch.setattr(mixing, "_NARROW", narrow)
        members = [TeamMember(name, DenseRanker(each)) for name, each in zip("abc", scores)]
        return choose_weights(members, drawn(train, valid), exclude=train)

    whole = chosen(N_ITEMS)
    asked = []
    full = mixing._rows_of
    monkeypatch.setattr(
        mixing, "_rows_of", lambda block, rows: asked.append(len(rows)) or full(block, rows)
    )
    few = chosen(6)
    if kind != "ties":  # torch's order of equal scores is its own
        assert few == whole
    assert few.sampled == pytest.approx(whole.sampled, abs=0.03)
    assert 0 < sum(asked) < 3 * len(whole.sampled) * len(drawn(train, valid).users)


class Blocks:
    """Two blocks of scores: the plain one, and another."""

    def __init__(self, plain, other):
        self.pair = plain, other

    def __call__(self, user_ids, needed):
        return [
            block[user_ids] if place in needed else None for place, block in enumerate(self.pair)
        ]


CANDIDATES = [Candidate("plain", 0, (1.0, 0.0)), Candidate("other", 1, (0.0, 1.0))]


def test_what_is_better_on_the_sample_alone_is_not_taken_and_the_log_says_so(data, caplog):
    train, valid = data
    users = np.flatnonzero(np.diff(valid.indptr))
    sample = np.sort(np.random.default_rng(5).choice(users, 10, replace=False))
    good, bad = noisy(valid, 0, 0.1), noisy(valid, 1, 3.0)
    other = bad.clone()
    other[sample] = good[sample]
    plain = good.clone()
    plain[sample] = bad[sample]
    with caplog.at_level(logging.INFO):
        choice = choose(
            Blocks(plain, other),
            CANDIDATES,
            drawn(train, valid, seed=5, most_users=10),
            device="cpu",
        )
    assert choice.chosen == "plain" and choice.value == 0 and choice.n_sampled == 10
    assert choice.sampled["other"] > choice.sampled["plain"]
    assert choice.compared["other"] < choice.compared["plain"]
    assert choice.compared["plain"] == pytest.approx(dense_metric(plain, train, valid))
    assert "not better on all 5" in caplog.text
    other[users] = good[users]
    better = choose(
        Blocks(plain, other), CANDIDATES, drawn(train, valid, seed=5, most_users=10), device="cpu"
    )
    assert better.chosen == "other" and better.value == 1
    assert better.sampled["plain"] == choice.sampled["plain"]  # the same sample


def test_no_more_users_than_allowed_are_compared_the_sample_among_them_and_the_log_says_so(
    data, caplog
):
    train, valid = data
    sample = drawn(train, valid, most_users=10, most_compared=25)
    whole = drawn(train, valid, most_users=10)
    assert np.array_equal(sample.users, whole.users)  # the cap changes nothing in the search
    assert len(sample.compared) == len(set(sample.compared)) == 25
    assert set(sample.users) < set(sample.compared) < set(whole.compared)
    assert (np.diff(sample.compared) > 0).all() and sample.n_users == len(whole.compared)
    good, bad = noisy(valid, 0, 0.1), noisy(valid, 1, 3.0)
    other, plain = bad.clone(), good.clone()
    other[sample.users], plain[sample.users] = good[sample.users], bad[sample.users]
    with caplog.at_level(logging.INFO):
        choice = choose(Blocks(plain, other), CANDIDATES, sample, device="cpu")
    assert choice.chosen == "plain" and choice.n_compared == 25
    positives = sp.csr_array(
        valid.toarray() * np.isin(np.arange(N_USERS), sample.compared)[:, None]
    )
    assert choice.compared["other"] == pytest.approx(dense_metric(other, train, positives))
    assert f"not better on 25 of {sample.n_users} users" in caplog.text
    assert f"on 25 of {sample.n_users}: plain" in caplog.text


@pytest.mark.parametrize("most", [57, 1000, None])
def test_with_fewer_users_than_may_be_compared_the_choice_is_the_same_bit_for_bit(data, most):
    train, valid = data
    settings = {"most_users": 10, "seed": 5}
    blocks = Blocks(noisy(valid, 0, 0.5), noisy(valid, 1, 0.4))
    one, other = (
        choose(blocks, CANDIDATES, drawn(train, valid, **settings, **keys), device="cpu")
        for keys in ({"most_compared": most}, {})
    )
    assert one == other and one.n_compared == one.n_users <= 57


def test_of_equal_ones_the_plain_form_is_taken(data):
    train, valid = data
    same = noisy(valid, 0, 0.5)
    choice = choose(Blocks(same, same), CANDIDATES, drawn(train, valid), device="cpu")
    assert choice.chosen == "plain"


# --- the filter -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["features", "scores"])
def test_figures_of_sides_and_alphas_are_those_of_the_filtered_teacher(data, kind):
    train, valid = data
    generator = torch.Generator().manual_seed(0)
    pair = [torch.randn(n, 6, generator=generator) for n in (N_USERS, N_ITEMS)]
    plain = FeatureRanker(*pair) if kind == "features" else DenseRanker(pair[0] @ pair[1].T)
    features = None if kind == "features" else pair
    graphs = {side: cooccurrence_graph(train, side=side, k=3) for side in ("user", "item")}
    options = {
        f"{side}{' centred' if centre else ''}": {"side": side, "centre": centre}
        for side, centre in (("user", False), ("item", False), ("item", True))
    }
    mixtures = {
        key: filter_mixture(plain, graphs[option["side"]], features=features, **option)
        for key, option in options.items()
    }
    choice = choose_filter(plain, mixtures, drawn(train, valid), alphas=(0.3, 0.6))
    assert len(choice.sampled) == 7 and choice.plain == "unfiltered"
    for key, option in options.items():
        for alpha in (0.3, 0.6):
            ranker = filtered_ranker(
                plain, graphs[option["side"]], alpha=alpha, features=features, **option
            )
            expected = dense_metric(ranker.block(torch.arange(N_USERS)), train, valid)
            assert choice.sampled[f"{key} {alpha:g}"] == pytest.approx(expected)
    best = max(choice.sampled.values())
    assert choice.sampled[choice.chosen] == best
    assert (choice.value is None) == (choice.chosen == "unfiltered")


def test_a_filter_that_helps_is_chosen_and_each_user_is_scored_once(data):
    _, valid = data
    truth = torch.zeros(N_USERS, N_ITEMS)
    truth[torch.from_numpy(valid.toarray() != 0)] = 1.0
    mirrored = torch.arange(N_ITEMS) ^ 1  # each item has a twin that holds its scores
    scores = DenseRanker(truth[:, mirrored])
    twins = sp.csr_array((np.ones(N_ITEMS), (np.arange(N_ITEMS), mirrored.numpy())))
    mixture = filter_mixture(scores, twins, side="item")
    choice = choose_filter(scores, {"item": mixture}, drawn(sp.csr_array(valid.shape), valid))
    assert choice.value[0] == "item" and choice.value[1] > 0.5
    assert scores.asked[1:].max() == 1
