"""The panel's candidates against the models themselves, and its metric against RecBole's."""

import logging

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from recbole_freqd.config.models import find_model
from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.rankers import FeatureRanker, user_blocks
from recbole_freqd.features.data import training_matrix
from recbole_freqd.features.scores import ModelRanker
from recbole_freqd.teacher.choice import panel
from recbole_freqd.teacher.choice.panel import choose_panel, distinct_candidates, panel_models
from recbole_freqd.teacher.choice.ranking_metrics import top_list_metric
from recbole_freqd.teacher.choice.sampled import ValidationSample

N_USERS, N_ITEMS = 60, 40


def split(seed=0):
    """Training and validation pairs of two groups of tastes; row and column 0 are padding."""
    rng = np.random.default_rng(seed)
    group = np.arange(N_USERS)[:, None] % 2 == np.arange(N_ITEMS) % 2
    likes = rng.random((N_USERS, N_ITEMS)) < np.where(group, 0.4, 0.05)
    likes[0] = likes[:, 0] = False
    later = rng.random(likes.shape) < 0.2
    return sp.csr_array((likes & ~later).astype(float)), sp.csr_array((likes & later).astype(float))


def a_ranker(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return FeatureRanker(*(torch.randn(n, 5, generator=generator) for n in (N_USERS, N_ITEMS)))


def draw(metric="NDCG@10", most_users=1000, seed=1, data=None):
    return ValidationSample.draw(
        *(data or split()), metric=metric, most_users=most_users, seed=seed
    )


def choices_of(**settings):
    """The panel's choice on :func:`split`."""
    return choose_panel(split()[0], draw(seed=settings.pop("seed", 1)), **settings)


# --- the metric ------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["NDCG@10", "Recall@5", "MRR@10", "hit@3"])
def test_all_users_give_what_recboles_evaluation_gives(metric, built):
    from recbole.utils import get_trainer

    keys = {"metrics": ["NDCG", "Recall", "MRR", "Hit"], "topk": [3, 5, 10]}
    model, (train, valid, _) = built("BPR", metric_decimal_place=10, **keys)
    trainer = get_trainer(model.type, "BPR")(valid.config, model)
    result = trainer.evaluate(valid, load_best_model=False)
    data = training_matrix(train._dataset), training_matrix(valid._dataset)
    sample = draw(metric, data=data)
    assert sample.value(ModelRanker(model)) == pytest.approx(result[metric.lower()], abs=1e-6)


def test_training_items_and_the_padding_are_not_ranked_but_a_repeated_item_is():
    train, valid = np.zeros((3, 5)), np.zeros((3, 5))
    train[1, [1, 2]] = 1
    valid[1, [2, 3]] = valid[0, 1] = valid[2, 0] = 1  # the last two are of the padding
    sample = draw("Recall@2", data=(sp.csr_array(train), sp.csr_array(valid)))
    assert sample.users.tolist() == [1]
    scores = torch.tensor([[0.0] * 5, [9.0, 8.0, 7.0, 6.0, 5.0], [0.0] * 5])
    ranker = FeatureRanker(torch.eye(3), scores.T.contiguous())
    assert sample.value(ranker) == 1.0


def test_the_same_users_are_drawn_from_the_same_seed():
    first, again, other = (draw(most_users=10, seed=seed).users for seed in (1, 1, 2))
    assert len(first) == 10 and (np.diff(first) > 0).all() and first[0] > 0
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert len(draw().users) == np.count_nonzero(split()[1].sum(axis=1))


def test_blocks_of_users_change_nothing(monkeypatch):
    whole = draw().values(a_ranker())
    monkeypatch.setattr("recbole_freqd.core.rankers._MOST_USERS", 7)
    np.testing.assert_array_equal(draw().values(a_ranker()), whole)
    assert len(list(user_blocks(len(draw().users), N_ITEMS, "cpu"))) > 5


def test_a_metric_that_needs_more_than_top_lists_is_replaced_and_the_log_says_so(caplog):
    assert [top_list_metric(name) for name in ("Recall@20", "mrr@1")] == ["Recall@20", "mrr@1"]
    assert not caplog.records
    for name in ("GAUC", "ItemCoverage@10", "NDCG@0", "AUC"):
        assert top_list_metric(name) == "NDCG@10"
    assert "GAUC needs more than top lists: choosing by NDCG@10" in caplog.text


def test_without_validation_pairs_there_is_nothing_to_choose_by():
    with pytest.raises(ConfigError, match="no validation interactions.*Give numbers"):
        draw(data=(split()[0], sp.csr_array((N_USERS, N_ITEMS))))


# --- the choice ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", panel.GRIDS)
def test_a_candidate_scores_as_the_model_with_its_keys_does(name, built):
    _, (train, *_) = built("BPR")
    R = training_matrix(train._dataset).astype(np.float32)
    grid = distinct_candidates(name, R.shape)
    scorer, everyone = panel._SCORERS[name](R, grid), torch.arange(R.shape[0])
    assert len(grid) > 1
    for keys in grid:
        model, _ = built(name, **keys)
        wanted = ModelRanker(model).block(everyone).numpy()
        got = scorer(keys).rows(everyone.numpy())
        np.testing.assert_allclose(got[1:, 1:], wanted[1:, 1:], atol=1e-4)


def test_the_best_candidate_of_each_model_is_chosen_with_the_figures_of_all():
    choices = choices_of(seed=3)
    assert list(choices) == ["ShrunkKNN", "GFCF", "EASE"]
    for name, choice in choices.items():
        assert choice.model == name and choice.seconds > 0
        values = [each.value for each in choice.candidates]
        assert choice.value == max(values) > 0.2  # two tastes are easily told apart
        assert choice.keys == choice.candidates[int(np.argmax(values))].keys
        assert [each.keys for each in choice.candidates] == distinct_candidates(
            name, (N_USERS, N_ITEMS)
        )
    again = choices_of(seed=3)
    assert all(again[name].candidates == choices[name].candidates for name in choices)


def test_without_time_only_the_first_candidate_of_each_model_is_tried_and_the_log_says_so(caplog):
    with caplog.at_level(logging.INFO):
        choices = choices_of(seconds=1e-9)
    for name, choice in choices.items():
        assert [each.value is None for each in choice.candidates][:2] == [False, True]
        assert choice.keys == distinct_candidates(name, (N_USERS, N_ITEMS))[0]
    assert "in 1e-09 seconds" in caplog.text and "reg_weight 1000: no time" in caplog.text


def test_ease_is_tried_below_a_number_of_items_only():
    assert "EASE" in panel_models(9_999) and "EASE" not in panel_models(10_000)
    assert panel_models(50, ease_items=50) == ["ShrunkKNN", "GFCF"]
    with pytest.raises(ConfigError, match="panel_ease_items: got 0"):
        panel_models(50, ease_items=0)


def test_candidates_that_are_the_same_on_small_data_are_tried_once():
    grid = distinct_candidates("GFCF", (N_USERS, N_ITEMS))
    assert [keys["rank"] for keys in grid] == [39, 39, 39]
    assert [keys["ideal_weight"] for keys in grid] == [0.3, 0.1, 1.0]
    assert len(distinct_candidates("GFCF", (10**6, 10**6))) == len(panel.GRIDS["GFCF"])
    assert distinct_candidates("ShrunkKNN", (10**6, 2 * 10**6)) == [panel.GRIDS["ShrunkKNN"][0]]


def test_the_first_candidates_of_our_models_are_their_defaults():
    from recbole_freqd.core.schema import read_keys

    for name in ("ShrunkKNN", "GFCF"):
        defaults = {key: spec.default for key, spec in read_keys(f"model/{name}.yaml").items()}
        assert panel.GRIDS[name][0] == defaults


def test_every_key_of_a_grid_is_one_that_its_model_reads():
    from recbole_freqd.config.models import keys_read_by, own_model_keys

    for name, grid in panel.GRIDS.items():
        known = keys_read_by(find_model(name)) | set(own_model_keys(find_model(name)))
        assert all(set(keys) <= known for keys in grid)


def test_one_product_serves_all_neighbours_one_decomposition_all_ranks(monkeypatch):
    calls = []
    for name in ("shrunk_cosines", "ideal_basis"):
        whole = getattr(panel, name)
        monkeypatch.setattr(
            panel, name, lambda *a, _whole=whole, _n=name, **k: calls.append(_n) or _whole(*a, **k)
        )
    choices_of()
    assert calls == ["shrunk_cosines", "ideal_basis"]


def test_an_unknown_model_is_refused():
    with pytest.raises(ConfigError, match="panel_models: got 'BPR'; allowed: ShrunkKNN"):
        choices_of(models=["BPR"])
