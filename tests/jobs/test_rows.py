"""Rows of results: what is evaluated beside the metrics, bytes, and the teacher in int8."""

import numpy as np
import pytest
import torch

from recbole_freqd.features.data import training_matrix
from recbole_freqd.jobs import run as runs
from recbole_freqd.jobs.lineup import asked_for, baselines, offered
from recbole_freqd.jobs.measure import bytes_per_entity
from recbole_freqd.jobs.rows import Row, int8_row, teacher_rows
from recbole_freqd.jobs.tested import evaluate_once
from recbole_freqd.teacher import find_teacher

FULL = {"split": {"RS": [0.6, 0.2, 0.2]}, "group_by": "user", "mode": "full"}


# --- the test split ----------------------------------------------------------------------------


@pytest.mark.parametrize("metrics", [["NDCG"], ["ItemCoverage", "NDCG", "GiniIndex"]])
@pytest.mark.parametrize("topk", [[5], [5, 10], [12]])
def test_coverage_and_gini_are_recboles_and_change_no_metric(tiny_config, metrics, topk):
    valid = f"NDCG@{topk[0]}"
    keys = {"eval_args": FULL, "metrics": metrics, "topk": topk, "valid_metric": valid}
    run = runs.run(tiny_config(**keys))
    names = {f"{name}@{k}".lower() for name in metrics for k in topk}
    assert set(run.test_result) == names == set(run.best_valid_result)
    before = run.trainer.evaluator, run.trainer.eval_collector
    plain = run.trainer.evaluate(run.data[2])
    assert {name: float(value) for name, value in plain.items()} == run.test_result
    again = evaluate_once(run.trainer, run.data[0], run.data[2])
    assert again == run.tested
    assert (run.trainer.evaluator, run.trainer.eval_collector) == before
    with_both = {**keys, "metrics": ["ItemCoverage", "GiniIndex"], "topk": [10]}
    with_both["valid_metric"] = "ItemCoverage@10"
    other = runs.run(tiny_config(**with_both), saved=False)
    other.model.load_state_dict(run.model.state_dict())
    expected = other.trainer.evaluate(other.data[2], load_best_model=False)
    assert again.coverage == pytest.approx(expected["itemcoverage@10"])
    assert again.gini == pytest.approx(expected["giniindex@10"])


def test_where_samples_are_ranked_nothing_is_said_of_the_catalogue(tiny_config):
    run = runs.run(tiny_config(eval_args={**FULL, "mode": "uni10"}))
    assert run.test_result["ndcg@10"] > 0 and run.tested.coverage is run.tested.gini is None


def test_what_tunes_opens_no_test_split(tiny_config):
    run = runs.run(tiny_config(), test=False)
    assert run.tested is run.test_result is None


def test_a_run_says_what_the_choice_of_weights_filter_and_panel_took_of_the_whole(
    tiny_config, teacher_recipe, caplog
):
    keys = {"panel_models": ["ShrunkKNN"], "teacher_filter": "auto"}
    config = tiny_config(trainer="FreqRank", teacher=[teacher_recipe, "panel"], **keys)
    with caplog.at_level("INFO", "recbole_freqd"):
        run = runs.run(config, test=False)
    assert 0 < run.seconds_choosing < run.seconds_all_in
    said = f"The choice of weights, filter and panel took {run.seconds_choosing:.1f} of "
    assert caplog.text.count(said) == 1
    caplog.clear()
    with caplog.at_level("INFO", "recbole_freqd"):
        again = runs.run(config, test=False)
    assert again.seconds_choosing == 0 and "The choice of" not in caplog.text


# --- bytes ---------------------------------------------------------------------------------------


def data_of(tiny_config, **keys):
    return runs.read_data(tiny_config(eval_args=FULL, **keys))


@pytest.mark.parametrize(
    ("name", "keys", "numbers"),
    [
        ("BPR", {"embedding_size": 4}, 4 * 72),
        ("LightGCN", {"embedding_size": 4}, 4 * 72),
        # what is served are all layers side by side
        ("NGCF", {"embedding_size": 4, "hidden_size_list": [3, 2]}, 9 * 72),
        # the last layer's input and its weights, and a bias for each item
        ("MultiDAE", {"mlp_hidden_size": [6], "latent_dimension": 4, "train_neg_sample_args": None},
         6 * 72 + 41),
    ],
)  # fmt: skip
def test_where_scores_are_products_the_bytes_are_those_of_the_vectors(built, name, keys, numbers):
    model, _ = built(name, **keys)
    assert bytes_per_entity(model, 10**6) == pytest.approx(4 * numbers / 72)


def test_item_weights_need_the_histories_too(tiny_config):
    config = tiny_config(trainer="FD", teacher=[{"model": "EASE"}, {"model": "ShrunkKNN"}],
                         teacher_weights=[1, 1], eval_args=FULL)  # fmt: skip
    data = runs.read_data(config)
    team, *members = teacher_rows(data, find_teacher(config, *data[:2]))
    by_name = {row.values["model"]: row for row in members}
    interactions = training_matrix(data[0]._dataset).nnz
    histories = 4 * interactions + 8 * 31
    ease = by_name["EASE"].values
    dense = 1e6 * ease["size_mb"]
    assert dense >= 4 * 41 * 41 and ease["bytes_per_entity"] * 72 == pytest.approx(
        dense + histories
    )
    neighbours = by_name["ShrunkKNN"].model.neighbours
    assert by_name["ShrunkKNN"].values["parameters"] == neighbours.nnz
    sizes = sum(row.values["size_mb"] for row in members)
    assert team.values["size_mb"] == pytest.approx(sizes)
    # of a team the histories are kept once
    assert team.values["bytes_per_entity"] * 72 == pytest.approx(1e6 * sizes + histories)


# --- int8 ----------------------------------------------------------------------------------------


def int8_of(tiny_config, teacher, **keys):
    config = tiny_config(trainer="FD", teacher=teacher, eval_args=FULL, **keys)
    data = runs.read_data(config)
    found = find_teacher(config, *data[:2])
    return int8_row(data, found), teacher_rows(data, found)[0]


def test_int8_ranks_as_the_teacher_at_a_quarter_of_its_bytes(tiny_config):
    recipe = {"model": "BPR", "embedding_size": 32, "epochs": 5, "train_batch_size": 64}
    row, whole = int8_of(tiny_config, recipe)
    assert isinstance(row, Row) and row.values["role"] == "teacher_int8"
    assert row.values["bytes_per_entity"] == 32 + 4 and whole.values["bytes_per_entity"] == 128
    for split in ("valid", "test"):
        assert row.values[split]["ndcg@10"] == pytest.approx(
            whole.values[split]["ndcg@10"], abs=0.02
        )
    scores, exact = (
        np.asarray(model.full_sort_predict({"user_id": torch.arange(31)}).detach()).reshape(31, 41)
        for model in (row.model, whole.model)
    )
    assert 0 < np.abs(scores - exact).max() < 0.02 * np.abs(exact).max()


def test_biases_stay_exact_and_the_ones_beside_them_cost_nothing(tiny_config):
    recipe = {"model": "MultiDAE", "epochs": 1, "mlp_hidden_size": [6], "latent_dimension": 4}
    recipe["train_neg_sample_args"] = None
    row, whole = int8_of(tiny_config, recipe)
    assert row.values["bytes_per_entity"] * 72 == pytest.approx(72 * (6 + 4) + 4 * 41)
    assert whole.values["bytes_per_entity"] * 72 == pytest.approx(4 * (6 * 72 + 41))


@pytest.mark.parametrize(
    "teacher", [{"model": "EASE"}, {"model": "NeuMF", "epochs": 1, "embedding_size": 4}]
)
def test_there_is_no_int8_of_scores_that_are_no_products_and_it_is_said_why(tiny_config, teacher):
    row, _ = int8_of(tiny_config, teacher)
    assert row == f"the scores of {teacher['model']} are not products of features"


def test_a_team_of_products_in_int8_ranks_as_the_team(tiny_config, teacher_recipe):
    team = [teacher_recipe, {**teacher_recipe, "embedding_size": 6}]
    row, whole = int8_of(tiny_config, team, teacher_weights=[2, 1])
    assert whole.values["role"] == "team" and isinstance(row, Row)
    assert row.values["bytes_per_entity"] == 14 + 4
    assert row.values["test"]["ndcg@10"] == pytest.approx(whole.values["test"]["ndcg@10"], abs=0.05)


# --- the line-up ---------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["BPR", "LightGCN"])
@pytest.mark.parametrize("teacher_filter", ["none", 0.5])
def test_the_cut_is_where_the_warm_student_begins_whatever_is_taught(
    tiny_config, teacher_recipe, model, teacher_filter
):
    config = tiny_config(model, trainer="FD", teacher=teacher_recipe, teacher_filter=teacher_filter,
                         eval_args=FULL, learning_rate=0.05)  # fmt: skip
    by_role = {entry.role: entry for entry in baselines(config)}
    cut, warm = (
        runs.run(by_role[role].config, untrained=by_role[role].untrained)
        for role in ("cut", "student_warm")
    )
    assert cut.trainer.train_loss_dict == {} and len(warm.trainer.train_loss_dict) == 2
    assert cut.best_epoch == 0 and cut.trainer.teacher.members[0].model == "BPR"
    assert warm.best_valid_score >= cut.best_valid_score
    assert cut.config["teacher_filter"] == warm.config["teacher_filter"] == "none"
    assert cut.config["freqrank_beta"] == 0


def test_what_is_offered_is_freqrank_with_its_own_defaults_and_a_team_where_it_can_be_weighed(
    tiny_config, teacher_recipe
):
    config = tiny_config(trainer="FreqD", teacher=teacher_recipe)
    one, by_team = offered(config)
    assert asked_for(config).label == "FreqD" and one.config["teacher_filter"] == "auto"
    assert one.config["warm_start"] == "lists" and config["warm_start"] == "none"
    assert by_team.config["teacher"] == [teacher_recipe, "panel"] and by_team.shows_teacher
    no_validation = {"split": {"LS": "test_only"}, "mode": "full"}
    assert len(offered(tiny_config(trainer="FreqD", teacher=teacher_recipe,
                                   eval_args=no_validation))) == 1  # fmt: skip
    team = tiny_config(trainer="FreqD", teacher=[teacher_recipe, {"model": "EASE"}])
    assert len(offered(team)) == 1
    assert [entry.label for entry in baselines(team)][1] == "team cut to size"
