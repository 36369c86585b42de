"""Starts from an older student: by token, newcomers by the teacher, by neighbours, or not at all."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.rankers import FeatureRanker
from recbole_freqd.features import StudentRanker, adapter_of, extract_features
from recbole_freqd.features.approximation import Approximation, approximate
from recbole_freqd.features.data import tokens, training_matrix
from recbole_freqd.trainer.older_student import (
    OlderStudent,
    map_into,
    mean_of_neighbours,
    older_target,
    warm_start_from,
)

WIDTH = 3


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def all_of(n):
    mask = np.ones(n, dtype=bool)
    mask[0] = False
    return mask


# --- arrays ----------------------------------------------------------------------------------


def older_and_new():
    """Six old users, seven old items; the new data lacks some and has new ones, in other places."""
    older = random(7, WIDTH, seed=1), random(8, WIDTH, seed=2)
    rows = np.array([0, 3, 0, 1, 6, 0]), np.array([0, 7, 2, 0, 4, 1, 5, 0])
    interactions = np.zeros((6, 8))
    interactions[[1, 2, 3, 2, 4], [1, 1, 2, 2, 7]] = 1  # user 5 and item 3 have no interaction
    return OlderStudent(older, (None, None), rows), sp.csr_array(interactions)


def test_rows_are_found_by_token_newcomers_are_beside_their_neighbours_and_strangers_are_left():
    older, user_items = older_and_new()
    target, done = older_target(older, user_items)
    assert (done.matched, done.mapped) == ((3, 5), (0, 0))
    for table, old, rows in zip((target.user_emb, target.item_emb), older.features, older.rows):
        assert torch.equal(table[rows > 0], old[rows[rows > 0]])
    # User 2 has an item in common with users 1 and 3; user 5 has none.
    expected = (older.features[0][3] + older.features[0][1]) / 2
    torch.testing.assert_close(target.user_emb[2], expected)
    assert target.user_mask.tolist() == [False, True, True, True, True, False]
    # Item 7 is user 4's only one, and item 3 nobody's.
    assert target.item_mask.tolist() == [False, True, True, False, True, True, True, False]
    assert (done.beside, done.left) == ((1, 0), (1, 2))


def test_newcomers_score_as_the_teacher_has_them_where_the_older_student_is_the_same_turned():
    older, user_items = older_and_new()
    turn = random(WIDTH, WIDTH, seed=5)
    users, items = random(6, WIDTH, seed=6), random(8, WIDTH, seed=7)
    old = torch.zeros(7, WIDTH), torch.zeros(8, WIDTH)
    old[0][older.rows[0]] = users @ torch.linalg.inv(turn).T
    old[1][older.rows[1]] = items @ turn
    found = Approximation(users, items, 1.0, (all_of(6), all_of(8)))
    target, done = older_target(OlderStudent(old, (None, None), older.rows), user_items, found)
    made, wanted = (target.user_emb @ target.item_emb.T)[1:, 1:], (users @ items.T)[1:, 1:]
    torch.testing.assert_close(made, wanted, atol=1e-4, rtol=1e-4)
    assert (done.mapped, done.left) == ((2, 2), (0, 0))


def test_a_map_that_cannot_be_inverted_is_said_and_its_newcomers_stay_finite(caplog):
    placed = [all_of(6), np.arange(8) == 1]  # one item in common, for three dimensions
    found = Approximation(random(6, WIDTH), random(8, WIDTH), 1.0, (all_of(6), all_of(8)))
    with caplog.at_level("WARNING", "recbole_freqd"):
        moved = map_into(found, [random(6, WIDTH, seed=3), random(8, WIDTH, seed=4)], placed)
    assert "2 of 3 dimensions" in caplog.text
    assert all(table.isfinite().all() and table.abs().max() < 100 for table in moved)
    torch.testing.assert_close(moved[1][1], random(8, WIDTH, seed=4)[1], atol=1e-4, rtol=1e-4)


def test_nothing_in_common_maps_newcomers_to_zero_and_warns(caplog):
    nobody = np.zeros(8, dtype=bool)
    found = Approximation(random(6, WIDTH), random(8, WIDTH), 1.0, (all_of(6), all_of(8)))
    moved = map_into(found, [random(6, WIDTH), random(8, WIDTH)], [np.zeros(6, bool), nobody])
    assert "0 items" in caplog.text and all((table == 0).all() for table in moved)


def test_the_mean_of_neighbours_is_over_those_that_have_a_row():
    graph = sp.csr_array(np.array([[0, 0, 0, 0], [0, 0, 0.5, 0.7], [0, 0.5, 0, 0], [0, 0.7, 0, 0]]))
    made = mean_of_neighbours(graph, np.array([False, False, True, True])).toarray()
    np.testing.assert_array_equal(made[1], [0, 0, 0.5, 0.5])
    assert (made[[0, 2, 3]] == 0).all()
    lone = mean_of_neighbours(graph, np.array([False, False, False, False])).toarray()
    assert (lone == 0).all()


def test_biases_go_with_their_rows():
    older, user_items = older_and_new()
    biases = (None, random(8, seed=8))
    target, _ = older_target(OlderStudent(older.features, biases, older.rows), user_items)
    rows = older.rows[1]
    assert target.user_bias is None
    assert torch.equal(target.item_bias[rows > 0], biases[1][rows[rows > 0]])


# --- checkpoints -----------------------------------------------------------------------------


@pytest.fixture
def grown(tiny_data, tmp_path):
    """The tiny dataset a month later: users and items are gone, others have come."""
    lines = (tiny_data / "tiny" / "tiny.inter").read_text().splitlines()
    kept = [line for line in lines[1:] if line.split("\t")[0] not in ("u0", "u2")]
    kept = [line for line in kept if line.split("\t")[1] not in ("i3",)]
    added = [f"new{user}\ti{item}" for user in range(3) for item in range(4 + user, 24, 2)]
    added += [f"u{user}\tnovel" for user in range(1, 12, 2)]
    folder = tmp_path / "grown" / "grown"
    folder.mkdir(parents=True)
    (folder / "grown.inter").write_text("\n".join([lines[0], *added, *kept]) + "\n")
    return folder.parent


@pytest.fixture
def new_student(grown, tiny_config):
    """Makes a student of the grown data: ``new_student("BPR")``, (model, config, dataset)."""
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import init_seed

    def make(name, **keys):
        given = {
            "data_path": str(grown),
            "load_col": {"inter": ["user_id", "item_id"]},
            "state": "ERROR",
            "embedding_size": 4,
            **keys,
        }
        config = Config(name, "grown", config_dict=given)
        init_seed(2020, True)
        dataset = data_preparation(config, create_dataset(config))[0]._dataset
        return config.model_class(config, dataset), config, dataset

    return make


def tables_by_token(features, dataset):
    return [dict(zip(names[1:], table[1:])) for names, table in zip(tokens(dataset), features)]


@pytest.mark.parametrize("name", ["BPR", "LightGCN"])
def test_a_student_of_grown_data_starts_from_last_months_by_token(name, trained, new_student):
    path, old = trained(name)
    model, config, dataset = new_student(name)
    user_items = training_matrix(dataset)
    first = extract_features(model, with_bias=False)
    done = warm_start_from(str(path), model, adapter_of(model), config, dataset, user_items)
    assert done.matched[0] == 28 and done.matched[1] >= 38
    assert done.beside[0] == 3 and done.left == (0, 0)
    made = tables_by_token(extract_features(model, with_bias=False), dataset)
    kept = 0
    for ours, theirs, own in zip(made, old_by_token(old), tables_by_token(first, dataset)):
        for token in set(ours) & set(theirs):
            torch.testing.assert_close(ours[token], theirs[token], atol=1e-3, rtol=1e-3)
            assert not torch.allclose(ours[token], own[token], atol=1e-3)
            kept += 1
    assert kept == sum(done.matched)


def old_by_token(old):
    return tables_by_token(extract_features(old, with_bias=False), old.dataset)


@pytest.fixture
def trained(tiny_config):
    """Saves a checkpoint of RecBole's own; the model knows its dataset."""
    from pathlib import Path

    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_trainer, init_seed

    def save(name, **keys):
        config = tiny_config(name, **keys)
        init_seed(config["seed"], True)
        dataset = data_preparation(config, create_dataset(config))[0]._dataset
        model = config.model_class(config, dataset)
        trainer = get_trainer(config["MODEL_TYPE"], name)(config, model)
        trainer._save_checkpoint(1, verbose=False)
        model.dataset = dataset
        return Path(trainer.saved_model_file), model

    return save


def test_newcomers_are_placed_by_a_teacher_of_the_new_data(trained, new_student):
    path, _ = trained("BPR")
    model, config, dataset = new_student("BPR")
    adapter = adapter_of(model)
    teacher = random(model.n_users, 8, seed=3), random(model.n_items, 8, seed=4)
    found = approximate(FeatureRanker(*teacher), 4)
    done = warm_start_from(
        str(path), model, adapter, config, dataset, training_matrix(dataset), found
    )
    assert done.mapped[0] == 3 and done.beside == (0, 0) and done.left == (0, 0)
    assert StudentRanker(model, adapter).block(torch.arange(model.n_users)).isfinite().all()


def test_another_model_or_width_is_refused(trained, new_student):
    path, _ = trained("LightGCN")
    model, config, dataset = new_student("BPR")
    arguments = adapter_of(model), config, dataset, training_matrix(dataset)
    with pytest.raises(ConfigError, match="which is of LightGCN; allowed.*BPR"):
        warm_start_from(str(path), model, *arguments)
    path, _ = trained("BPR")
    model, config, dataset = new_student("BPR", embedding_size=6)
    arguments = adapter_of(model), config, dataset, training_matrix(dataset)
    with pytest.raises(ConfigError, match="has 4 dimensions, this one 6.*embedding_size"):
        warm_start_from(str(path), model, *arguments)
