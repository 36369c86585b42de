"""What is taught: teams, panels and filters from their keys, against the arrays they stand for."""

import json
import logging

import numpy as np
import pytest
import torch

import recbole_freqd.teacher as teacher_room
from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.later import LaterFeatures
from recbole_freqd.features.data import training_matrix
from recbole_freqd.graph.similarity import cosine_graph
from recbole_freqd.teacher import Teacher
from recbole_freqd.teacher.taught import Taught

BPR = {"model": "BPR", "embedding_size": 8, "epochs": 2, "train_batch_size": 64}
KNN = {"model": "ShrunkKNN", "k": 10}
EASE = {"model": "EASE"}
EVERYONE = torch.arange(31)
NO_VALIDATION = {"eval_args": {"split": {"RS": [0.8, 0.0, 0.2]}, "group_by": "user", "order": "RO"}}


@pytest.fixture
def loaders(host):
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import init_seed

    def prepare(config):
        init_seed(config["seed"], True)
        return data_preparation(config, create_dataset(config))

    return prepare


@pytest.fixture
def find(tiny_config, loaders):
    """What a student on the tiny data is taught, and its training data."""

    def find(teacher, trainer="FreqD", **keys):
        config = tiny_config(trainer=trainer, teacher=teacher, **keys)
        train_data, valid_data, _ = loaders(config)
        return teacher_room.find_teacher(config, train_data, valid_data), train_data._dataset

    return find


def scores_of(taught, dataset):
    return taught.ranker(dataset).block(EVERYONE)


def standardised(scores, seen):
    """Per user, mean and spread over the items without the padding and the training items."""
    counts = ~seen
    counts[:, 0] = False
    made = np.zeros_like(scores)
    for user in range(1, len(scores)):
        own = scores[user][counts[user]]
        made[user] = (scores[user] - own.mean()) / own.std()
    return made


# --- one teacher -------------------------------------------------------------------------------


def test_a_list_of_one_is_that_teacher_bit_for_bit(find):
    one, dataset = find(BPR)
    listed, _ = find([BPR])
    assert type(one) is type(listed) is Teacher and listed.origin == "reused"
    assert all(torch.equal(a, b) for a, b in zip(one.features, listed.features))
    assert torch.equal(scores_of(one, dataset), scores_of(listed, dataset))
    assert [(m.name, m.model, m.weight, m.teacher) for m in one.members] == [
        ("BPR", "BPR", 1.0, one)
    ]


@pytest.mark.parametrize("alpha", ["none", 0, None])
def test_without_a_filter_a_teacher_is_taught_as_it_is(find, alpha):
    assert type(find(BPR, teacher_filter=alpha)[0]) is Teacher


@pytest.mark.parametrize("side", ["item", "user"])
@pytest.mark.parametrize("recipe", [BPR, EASE])
def test_a_filter_is_h_on_the_scores_and_on_the_features(find, side, recipe):
    plain, dataset = find(recipe)
    taught, _ = find(recipe, teacher_filter=0.4, teacher_filter_side=side, teacher_filter_k=3)
    graph = cosine_graph(training_matrix(dataset), side=side, k=3, shrinkage=3.0)
    connected = np.diff(graph.indptr) > 0
    h = torch.from_numpy(np.eye(len(connected)) - 0.4 * (np.diag(connected * 1.0) - graph)).float()
    user, item = plain.features
    item = item - item[1:].mean(dim=0)
    wanted = (user, h @ item) if side == "item" else (h @ user, item)
    for got, want in zip(taught.features, wanted):
        torch.testing.assert_close(got[1:], want[1:], atol=1e-5, rtol=1e-4)
    y = scores_of(plain, dataset)
    y = y - y[:, 1:].mean(dim=1, keepdim=True)
    if recipe is EASE and side == "user":
        y = user @ item.T
    wanted = y @ h.T if side == "item" else h @ y
    got = scores_of(taught, dataset)
    torch.testing.assert_close(got[1:, 1:], wanted[1:, 1:], atol=1e-5, rtol=1e-3)
    assert taught.filtered == (side, 0.4) and taught.checkpoint == plain.checkpoint


def test_a_closed_form_teacher_is_given_a_spread_where_freqrank_or_a_warm_start_reads_it(find):
    plain, dataset = find(EASE, trainer="KD")
    assert type(plain) is Teacher
    for keys in (
        {"trainer": "FreqRank", "teacher_filter": "none", "warm_start": "none"},
        {"trainer": "KD", "warm_start": "teacher"},
        {"trainer": "KD", "warm_start": "lists"},
    ):
        taught, _ = find(EASE, teacher_spread=0.7, **keys)
        seen = training_matrix(dataset).toarray() != 0
        seen[:, 0] = True
        scores = np.ma.masked_array(scores_of(taught, dataset).numpy(), seen)
        assert scores[1:].std(axis=1).mean() == pytest.approx(0.7, rel=1e-4)
        ratio = taught.factor
        torch.testing.assert_close(
            scores_of(taught, dataset), scores_of(plain, dataset) * ratio, rtol=1e-5, atol=1e-7
        )
        torch.testing.assert_close(taught.features[0], plain.features[0] * ratio**0.5)
    assert type(find(BPR, trainer="KD", warm_start="teacher")[0]) is Teacher


# --- teams -------------------------------------------------------------------------------------


def test_a_team_is_the_standardised_sum_at_the_spread_of_the_trained_member(find):
    bpr, dataset = find(BPR)
    knn, _ = find(KNN)
    team, _ = find([BPR, KNN], teacher_weights=[3, 1])
    seen = training_matrix(dataset).toarray() != 0
    z = [standardised(scores_of(one, dataset).numpy(), seen) for one in (bpr, knn)]
    y = 0.75 * z[0] + 0.25 * z[1]
    hidden = seen.copy()
    hidden[:, 0] = True
    spreads = [
        np.ma.masked_array(s, hidden)[1:].std(axis=1).mean()
        for s in (scores_of(bpr, dataset).numpy(), y)
    ]
    wanted = y * spreads[0] / spreads[1]
    got = scores_of(team, dataset).numpy()
    np.testing.assert_allclose(got[1:, 1:], wanted[1:, 1:], atol=2e-5)
    some = torch.tensor([[3, 5], [9, 1]])
    pairs = team.ranker(dataset).at(torch.tensor([2, 7]), some).numpy()
    np.testing.assert_allclose(pairs, wanted[[[2], [7]], some.numpy()], atol=2e-5)
    assert [(m.name, m.weight) for m in team.members] == [("BPR", 0.75), ("ShrunkKNN", 0.25)]
    assert [table.shape[1] for table in team.features] == [8 + 30] * 2  # the kNN's are spectral


def test_permuted_members_are_the_same_teacher_to_the_last_bit(find):
    one, dataset = find([BPR, KNN, EASE], teacher_weights=[3, 1, 2])
    other, _ = find([EASE, BPR, KNN], teacher_weights=[2, 3, 1])
    assert torch.equal(scores_of(one, dataset), scores_of(other, dataset))
    assert all(torch.equal(a, b) for a, b in zip(one.features, other.features))
    assert one.weights() == other.weights()


def test_weights_are_chosen_once_kept_and_read_again(find, caplog, monkeypatch, tmp_path):
    caplog.set_level(logging.INFO)
    first, _ = find([BPR, KNN])
    assert "teacher_weights: auto: " in caplog.text and "Of 11 candidates" in caplog.text
    assert sum(member.weight for member in first.members) == pytest.approx(1)
    (kept,) = (tmp_path / "saved").glob("taught-tiny-*.json")
    monkeypatch.setattr("recbole_freqd.teacher.teach.choose_weights", None)  # would fail
    again, _ = find([BPR, KNN])
    assert "Choice reused: " in caplog.text
    assert [m.weight for m in again.members] == [m.weight for m in first.members]
    assert all(torch.equal(a, b) for a, b in zip(first.features, again.features))
    content = json.loads(kept.read_text())
    content["chosen"]["weights"] = [0.0, 1.0]
    kept.write_text(json.dumps(content))
    changed, _ = find([BPR, KNN])
    assert [m.weight for m in changed.members] == [0.0, 1.0]


def test_of_a_team_that_is_one_the_others_are_absent(find):
    bpr, dataset = find(BPR)
    team, _ = find([KNN, BPR], teacher_weights=[0, 2])
    assert torch.equal(scores_of(team, dataset), scores_of(bpr, dataset))
    assert all(torch.equal(a, b) for a, b in zip(team.features, bpr.features))
    assert [(m.name, m.weight) for m in team.members] == [("BPR", 1.0), ("ShrunkKNN", 0.0)]
    assert team.checkpoint == bpr.checkpoint


def test_a_teacher_is_not_there_twice_but_two_of_a_model_are(find):
    with pytest.raises(ConfigError, match="BPR .* is there twice.*raise its teacher_weights"):
        find([BPR, dict(BPR)])
    team, _ = find([BPR, {**BPR, "embedding_size": 6}], teacher_weights=[1, 1])
    names = [member.name for member in team.members]
    assert len(set(names)) == 2 and all(name.startswith("BPR ") for name in names)


def test_a_trajectory_is_that_of_the_member_that_kept_one_and_the_log_says_which(find, caplog):
    caplog.set_level(logging.INFO)
    keeping = {**BPR, "epochs": 4, "keep_every": 1, "eval_step": 4}
    team, dataset = find([KNN, keeping], trainer="HetComp", teacher_weights=[1, 1])
    alone, _ = find(keeping, trainer="HetComp")
    ours, theirs = (one.trajectory_rankers(dataset) for one in (team, alone))
    assert len(ours) == len(theirs) > 0
    assert torch.equal(ours[0]().block(EVERYONE), theirs[0]().block(EVERYONE))
    assert "The trajectory of the team is that of BPR." in caplog.text
    with pytest.raises(ConfigError, match="HetComp follows.*recipes without teacher.keep_every"):
        find([KNN, BPR], trainer="HetComp")


# --- auto --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "keys"),
    [
        ("teacher_weights", {"teacher": [BPR, KNN]}),
        ("teacher_filter", {"teacher": BPR, "trainer": "FreqRank"}),
    ],
)
def test_without_validation_data_a_defaulted_auto_is_plain_and_one_that_is_written_an_error(
    find, caplog, key, keys
):
    taught, _ = find(**keys, **NO_VALIDATION)
    assert caplog.text.count(f"{key}: there are no validation interactions") == 1
    assert len({member.weight for member in taught.members}) == 1
    assert getattr(taught, "filtered", None) is None
    with pytest.raises(ConfigError, match=f"{key}: got auto, but there are no validation"):
        find(**keys, **{key: "auto"}, **NO_VALIDATION)


def test_a_filter_that_does_not_help_is_not_taken_and_the_log_says_so(find, caplog, monkeypatch):
    caplog.set_level(logging.INFO)

    def worse(*args, **kwargs):
        return lambda users, scores: (scores, -scores)

    monkeypatch.setattr("recbole_freqd.teacher.teach.filter_mixture", worse)
    taught, _ = find(KNN, teacher_filter="auto")
    assert taught.filtered is None and "teacher_filter: auto: unfiltered." in caplog.text


def test_the_better_side_is_chosen_for_an_alpha_that_is_given(find, caplog):
    caplog.set_level(logging.INFO)
    taught, _ = find(BPR, teacher_filter=0.3)
    assert taught.filtered[1] == 0.3 and "teacher_filter_side: auto: " in caplog.text
    chosen = {side: find(BPR, teacher_filter=0.3, teacher_filter_side=side)[0]
              for side in ("item", "user")}  # fmt: skip
    same = chosen[taught.filtered[0]].features
    assert all(torch.equal(a, b) for a, b in zip(taught.features, same))


@pytest.mark.parametrize("teacher, sides", [(BPR, ["item", "user"]), ([BPR, KNN], ["item"])])
def test_auto_tries_the_users_side_only_of_scores_that_are_products(
    find, teacher, sides, monkeypatch
):
    tried = []

    def mixture(*args, side, **kwargs):
        tried.append(side)
        return lambda users, scores: (scores, scores)

    monkeypatch.setattr("recbole_freqd.teacher.teach.filter_mixture", mixture)
    find(teacher, teacher_filter="auto")
    assert tried == sides


@pytest.mark.parametrize(
    "teacher, trainer", [(KNN, "FreqRank"), ([BPR, KNN], "FreqRank"), (KNN, "KD")]
)
def test_features_that_take_passes_over_all_scores_are_made_when_they_are_read(
    find, teacher, trainer, caplog
):
    caplog.set_level(logging.INFO)
    taught, dataset = find(teacher, trainer)
    assert isinstance(taught.features, LaterFeatures) and len(taught.depends_on()) == 1
    assert "Factoring the scores" not in caplog.text
    before = torch.get_rng_state()
    user, item = taught.features
    assert "Factoring the scores of ShrunkKNN" in caplog.text
    assert torch.equal(torch.get_rng_state(), before)  # the student's training is the same
    assert (len(user), len(item)) == taught.ranker(dataset).shape and taught.features[0] is user


# --- the panel ---------------------------------------------------------------------------------


def test_a_panel_is_the_teachers_without_training_beside_the_others(find, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    team, _ = find([BPR, "panel"], teacher_weights=[1, 3], panel_models=["ShrunkKNN", "GFCF"])
    assert [member.name for member in team.members] == ["BPR", "GFCF", "ShrunkKNN"]
    assert team.members[0].weight == pytest.approx(0.25)
    assert "Panel: ShrunkKNN with k " in caplog.text
    assert len(list((tmp_path / "saved").glob("panel-tiny-*.json"))) == 1
    alone, _ = find("panel")
    assert [member.name for member in alone.members] == ["EASE", "GFCF", "ShrunkKNN"]
    assert isinstance(alone, Taught)


def test_the_panels_singular_vectors_are_those_of_its_teacher(find, caplog):
    caplog.set_level(logging.INFO)
    find("panel", panel_models=["GFCF"])
    assert caplog.text.count("singular vectors") == 1
    find({"model": "GFCF"}, seed=7)
    assert caplog.text.count("singular vectors") == 2  # nothing is kept for longer


def test_a_panel_without_validation_data_is_an_error(find):
    with pytest.raises(ConfigError, match="no validation interactions.*recipes instead of panel"):
        find("panel", **NO_VALIDATION)


def test_ease_is_in_no_panel_of_a_catalogue_that_is_too_large_for_it(find, caplog):
    caplog.set_level(logging.INFO)
    team, _ = find("panel", panel_ease_items=20)
    assert [member.name for member in team.members] == ["GFCF", "ShrunkKNN"]
    assert "Panel without EASE: there are too many items." in caplog.text
    with pytest.raises(ConfigError, match="panel_models: got .*Raise panel_ease_items"):
        find("panel", panel_ease_items=20, panel_models=["EASE"])
