"""ShrunkKNN and GFCF against dense formulas; named in configs, saved, restored, taught."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from recbole_freqd.checkpoint.loading import load_checkpoint
from recbole_freqd.config.make import teacher_config
from recbole_freqd.config.models import OWN_MODELS, check_model_name, find_model, own_model
from recbole_freqd.core.errors import ConfigError
from recbole_freqd.features import adapter_of, extract_features, products
from recbole_freqd.features.products import SummedRanker, SummedScores
from recbole_freqd.features.scores import ModelRanker
from recbole_freqd.teacher.models import GFCF, ShrunkKNN
from recbole_freqd.teacher.models.gfcf import ideal_basis, normalise_both_sides, summed_filters
from recbole_freqd.teacher.models.shrunk_knn import neighbour_weights
from recbole_freqd.teacher.restore import load_model
from tests.graph.test_similarity import dense_cosines, dense_neighbours
from tests.support.oracles import random_interactions

KEYS = {"ShrunkKNN": {"k": 3, "shrink": 2.0}, "GFCF": {"rank": 4, "ideal_weight": 0.5}}
both = pytest.mark.parametrize("name", list(OWN_MODELS))


def dense_knn(user_items, k, shrink):
    """Scores by loops over target items."""
    weights = dense_neighbours(dense_cosines(user_items, "item", shrink), k)
    return user_items @ weights.T


def dense_gfcf(user_items, rank, ideal_weight):
    users, items = user_items.sum(1), user_items.sum(0)
    inverse = [np.where(n > 0, np.where(n > 0, n, 1.0) ** -0.5, 0.0) for n in (users, items)]
    normalised = inverse[0][:, None] * user_items * inverse[1]
    vectors = np.linalg.svd(normalised)[2][:rank].T
    ideal = inverse[1][:, None] * vectors @ vectors.T * np.sqrt(items)
    return user_items @ (normalised.T @ normalised + ideal_weight * ideal)


DENSE = {"ShrunkKNN": dense_knn, "GFCF": dense_gfcf}


def all_scores(model):
    from recbole.data.interaction import Interaction

    everyone = Interaction({model.USER_ID: torch.arange(model.n_users)})
    return model.full_sort_predict(everyone).view(model.n_users, -1).numpy()


@pytest.fixture
def made(built):
    def make(name, **keys):
        model, loaders = built(name, **{**KEYS[name], **keys})
        return model, loaders[0]._dataset, loaders

    return make


@pytest.fixture
def fitted(tiny_config):
    """A run of RecBole's own trainer: ``fitted("GFCF") -> (config, trainer, model, loaders)``."""
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    def fit(name, **keys):
        config = tiny_config(name, **{**KEYS[name], **keys})
        init_seed(config["seed"], True)
        loaders = data_preparation(config, create_dataset(config))
        model = get_model(config["model"])(config, loaders[0]._dataset)
        trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
        trainer.fit(loaders[0], loaders[1], saved=True, show_progress=False)
        return config, trainer, model, loaders

    return fit


# --- formulas --------------------------------------------------------------------------------


@both
def test_scores_are_those_of_the_dense_formula(name, made):
    model, dataset, _ = made(name)
    interactions = dataset.inter_matrix(form="csr").toarray()
    scores = all_scores(model)
    np.testing.assert_allclose(scores, DENSE[name](interactions, **KEYS[name]), atol=2e-5)
    assert (scores[0] == 0).all() and (scores[:, 0] == 0).all() and np.ptp(scores) > 0.1


@both
def test_predict_of_pairs_is_full_sort_at_these_pairs(name, made):
    from recbole.data.interaction import Interaction

    model, _, _ = made(name)
    users, items = torch.tensor([3, 1, 3, 0, 29]), torch.tensor([7, 0, 39, 2, 5])
    pairs = model.predict(Interaction({model.USER_ID: users, model.ITEM_ID: items}))
    np.testing.assert_allclose(pairs.numpy(), all_scores(model)[users, items], atol=1e-6)


def test_an_item_is_scored_by_its_own_neighbours_not_by_those_it_is_a_neighbour_of():
    # 0 and 1 are nearest to each other; 2 is nearest to 0, but 0 is not among its only neighbour's.
    users = np.zeros((8, 3))
    users[:4, 0] = users[:5, 1] = users[3:5, 2] = 1
    weights = neighbour_weights(sp.csr_array(users), k=1, shrink=0.0).toarray()
    assert (weights > 0).astype(int).tolist() == [[0, 1, 0], [1, 0, 1], [0, 0, 0]]


def test_gfcf_with_weight_0_is_the_linear_filter_alone_and_needs_no_product_of_low_rank():
    R = random_interactions(2).astype(np.float32)
    scores = summed_filters(R, normalise_both_sides(R), np.zeros((10, 2)), 0.0)
    assert len(scores.products) == 1
    wanted = dense_gfcf(R.toarray(), 0, 0.0)
    np.testing.assert_allclose(scores.rows(np.arange(9)), wanted, atol=1e-6)


def test_a_smaller_rank_is_the_first_columns_of_a_larger_one():
    R = sp.csr_array((np.random.default_rng(3).random((40, 30)) < 0.2).astype(np.float32))
    large, values = ideal_basis(R, normalise_both_sides(R), 12)
    small, fewer = ideal_basis(R, normalise_both_sides(R), 5)
    np.testing.assert_allclose(values[:5], fewer, atol=1e-6)
    np.testing.assert_allclose(large[:, :5] @ large[:, :5].T, small @ small.T, atol=1e-4)


def test_directions_that_carry_nothing_are_left_out():
    R = sp.csr_array(np.kron(np.eye(2), np.ones((4, 5))).astype(np.float32))  # of rank 2
    basis, values = ideal_basis(R, normalise_both_sides(R), 6)
    assert basis.shape == (10, 2)
    np.testing.assert_allclose(values, [1, 1], atol=1e-6)


def test_a_rank_beyond_the_data_is_cut(made):
    model, dataset, _ = made("GFCF", rank=1000)
    assert model.item_basis.shape[1] == min(dataset.user_num, dataset.item_num) - 1
    assert np.isfinite(all_scores(model)).all()


@both
def test_interactions_of_label_0_are_none(name, tiny_data, tmp_path, host, tiny_keys):
    from recbole.config import Config
    from recbole.data import create_dataset

    folder = tmp_path / "data" / "rated"
    folder.mkdir(parents=True)
    lines = (tiny_data / "tiny" / "tiny.inter").read_text().splitlines()
    rated = [f"{line}\t{1 + 4 * (row % 3 > 0)}" for row, line in enumerate(lines[1:])]
    (folder / "rated.inter").write_text("\n".join([f"{lines[0]}\trating:float", *rated]) + "\n")
    keys = {
        **tiny_keys,
        **KEYS[name],
        "data_path": str(folder.parent),
        "load_col": {"inter": ["user_id", "item_id", "rating"]},
        "threshold": {"rating": 3},
    }
    config = Config(name, "rated", config_dict=keys)
    dataset = create_dataset(config)
    dataset._change_feat_format() if hasattr(dataset, "_change_feat_format") else None
    model = find_model(name)(config, dataset)
    liked = sum(line.endswith("5") for line in rated)
    assert model.user_items.nnz == liked < len(rated)


# --- sums of products ------------------------------------------------------------------------


def summed(seed=0):
    rng = np.random.default_rng(seed)
    R = sp.csr_array((rng.random((12, 15)) < 0.3) * rng.random((12, 15)).astype(np.float32))
    W = sp.csr_array((rng.random((15, 15)) < 0.3) * rng.random((15, 15)).astype(np.float32))
    left, right = (rng.standard_normal(shape).astype(np.float32) for shape in ((15, 3), (3, 15)))
    products = [[R, W], [R, left, right], [R.toarray() @ left, sp.csr_array(right)], [R]]
    dense = R @ W + R @ left @ right + R @ left @ right + R.toarray()
    return SummedScores(products), np.asarray(dense)


def test_a_sum_of_products_acts_as_the_dense_matrix_does():
    scores, dense = summed()
    basis = np.random.default_rng(1).standard_normal((15, 4)).astype(np.float32)
    projected, energy = scores.project(basis)
    np.testing.assert_allclose(projected, dense @ basis, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(scores.gram(basis), dense.T @ dense @ basis, rtol=1e-4, atol=1e-4)
    assert energy == pytest.approx(np.square(dense).sum(), rel=1e-5)


@pytest.mark.parametrize("budget", [2**28, 1])
def test_blocks_and_pairs_are_entries_of_the_dense_matrix(budget, monkeypatch):
    monkeypatch.setattr("recbole_freqd.features.products.BUDGET_BYTES", budget)
    scores, dense = summed()
    ranker = SummedRanker(scores)
    users, items = torch.tensor([3, 0, 3, 11]), torch.randint(15, (4, 6))
    np.testing.assert_allclose(ranker.block(users), dense[users], atol=1e-5)
    np.testing.assert_allclose(ranker.at(users, items), dense[users[:, None], items], atol=1e-5)
    assert ranker.at(users[:0], items[:0]).shape == (0, 6) and ranker.shape == (12, 15)
    assert ranker.block(users).dtype == ranker.at(users, items).dtype == torch.float32


@pytest.mark.parametrize("budget", [2**28, 1])
def test_of_many_items_pairs_are_looked_up_among_the_few_that_a_row_stores(budget, monkeypatch):
    monkeypatch.setattr(products, "BUDGET_BYTES", budget)
    rng = np.random.default_rng(0)
    R, W = (
        sp.csr_array((rng.random(shape) < 0.2) * rng.random(shape).astype(np.float32))
        for shape in ((12, 15), (15, 15))
    )
    ranker = SummedRanker(SummedScores([[R, W]]))
    users, items = torch.tensor([3, 0, 3, 11]), torch.randint(15, (4, 6))
    whole = ranker.at(users, items)
    assert ranker.stored(users) is None  # a row of so few items is as fast
    monkeypatch.setattr(products, "_MANY_ITEMS", 5)
    torch.testing.assert_close(ranker.at(users, items), whole)
    np.testing.assert_allclose(ranker.stored(users).toarray(), (R @ W)[users.numpy()].toarray())
    assert SummedRanker(summed()[0]).stored(users) is None  # other products are not sparse
    nobody = SummedRanker(SummedScores([[R * 0, W]]))
    assert not nobody.at(users, items).any()


@pytest.mark.parametrize(("n_listed", "ways"), [(1, {"columns"}), (400, {"rows"})])
def test_pairs_of_a_sparse_product_read_columns_where_those_are_shorter(
    n_listed, ways, monkeypatch
):
    rng, taken = np.random.default_rng(0), set()
    R, W = (
        sp.csr_array((rng.random(shape) < 0.2) * rng.random(shape).astype(np.float32))
        for shape in ((12, 15), (15, 15))
    )
    by_columns = products._by_columns
    monkeypatch.setattr(
        products, "_by_columns", lambda *of: taken.add("columns") or by_columns(*of)
    )
    users, items = np.array([3, 0, 3, 11]), rng.integers(15, size=(4, n_listed))
    made = SummedScores([[R, R.T, R, W]]).at(users, items)
    dense = (R @ R.T @ R @ W).toarray()
    np.testing.assert_allclose(made, dense[users[:, None], items], rtol=1e-5)
    assert (taken or {"rows"}) == ways


def test_the_energy_of_many_users_is_that_of_some_of_them(monkeypatch):
    scores, dense = summed()
    monkeypatch.setattr(products, "_ENERGY_USERS", 4)
    energy = scores.project(np.zeros((15, 1), dtype=np.float32))[1]
    assert energy == pytest.approx(3 * np.square(dense[[0, 3, 6, 9]]).sum(), rel=1e-5)
    one = SummedScores([scores.products[0].factors])
    rows = one.rows(np.array([0, 3, 6, 9]))
    energy = one.project(np.zeros((15, 1), dtype=np.float32))[1]
    assert energy == pytest.approx(3 * np.square(rows).sum(), rel=1e-5)


@both
def test_our_ranker_ranks_as_recbole_does(name, made):
    model, _, _ = made(name)
    ranker = adapter_of(model).ranker(model)
    assert isinstance(ranker, SummedRanker)
    by_recbole = ModelRanker(model)
    users, items = torch.arange(1, 20), torch.randint(1, model.n_items, (19, 5))
    torch.testing.assert_close(ranker.block(users), by_recbole.block(users))
    torch.testing.assert_close(ranker.at(users, items), by_recbole.at(users, items))


@both
def test_features_are_the_svd_of_the_scores(name, made):
    model, _, _ = made(name)
    user_emb, item_emb = extract_features(model, rank=6)
    scores = all_scores(model).astype(float)
    residual = np.linalg.norm(user_emb.numpy() @ item_emb.numpy().T - scores)
    best = np.sqrt(np.square(np.linalg.svd(scores, compute_uv=False)[6:]).sum())
    assert residual <= 1.05 * best + 1e-4 * np.linalg.norm(scores)
    assert user_emb[0].abs().max() <= 1e-5 and item_emb[0].abs().max() <= 1e-5


# --- found by name ---------------------------------------------------------------------------


@both
def test_recbole_finds_them_by_name_once_registered_and_forgets_them_afterwards(name, host):
    import recbole.utils

    assert recbole.utils.get_model(name) is own_model(name) is find_model(name)
    assert find_model("BPR").__module__.startswith("recbole.model.")
    check_model_name(name, "teacher.model", only_general=True)
    host.unregister()
    with pytest.raises((ValueError, ModuleNotFoundError)):  # of its last sub-package
        recbole.utils.get_model(name)
    host.register()


def test_a_name_nearly_theirs_is_named():
    with pytest.raises(ConfigError, match="GFCF"):
        check_model_name("GFCFF", "teacher.model")


@both
def test_defaults_come_from_properties_and_given_keys_win(name, tiny_config):
    config = tiny_config(name)
    assert all(config[key] is not None for key in KEYS[name])
    given = tiny_config(name, **KEYS[name])
    assert {key: given[key] for key in KEYS[name]} == KEYS[name]
    assert "ideal_weight" not in tiny_config("BPR").internal_config_dict


@pytest.mark.parametrize(
    ("name", "keys"),
    [("ShrunkKNN", {"k": 0}), ("ShrunkKNN", {"shrink": -1.0}), ("GFCF", {"rank": 1.5})],
)
def test_a_value_out_of_range_is_refused_wherever_it_is_given(name, keys, tiny_config):
    (key,) = keys
    with pytest.raises(ConfigError, match=f"^{key}: got"):
        tiny_config(name, **keys)
    config = tiny_config(trainer="FreqD", teacher={"model": name, **keys})
    with pytest.raises(ConfigError, match=f"^teacher.{key}: got"):
        teacher_config(config, config["teacher"])


def test_an_unknown_key_of_a_teacher_is_refused_and_the_nearest_named(tiny_config):
    config = tiny_config(trainer="FreqD", teacher={"model": "GFCF", "ideal_weigth": 0.1})
    with pytest.raises(ConfigError, match="did you mean 'teacher.ideal_weight'"):
        teacher_config(config, config["teacher"])
    config = tiny_config(trainer="FreqD", teacher={"model": "GFCF", "shrink": 3.0})
    with pytest.raises(ConfigError, match="Unknown key 'teacher.shrink' for model GFCF"):
        teacher_config(config, config["teacher"])


def test_a_class_of_the_same_name_of_your_own_is_not_taken_for_ours():
    class GFCF(torch.nn.Module):
        n_users = n_items = 3

    assert type(adapter_of(GFCF())).__name__ == "OnlyScores"


# --- trained, saved, restored ----------------------------------------------------------------


@both
def test_recboles_trainer_trains_one_epoch_and_a_checkpoint_brings_the_same_scores(name, fitted):
    _, trainer, model, loaders = fitted(name)
    assert type(trainer).__name__ == "TraditionalTrainer" and trainer.epochs == 1
    assert model.dummy_param.item() == 0
    payload = load_checkpoint(trainer.saved_model_file)
    assert not payload["other_parameter"]
    stored = {"GFCF": {"item_basis", "singular_values"}, "ShrunkKNN": {"content"}}[name]
    assert set(payload["state_dict"]) == {"dummy_param", *stored}
    again = load_model(payload["config"], payload, loaders[0]._dataset, "file")
    assert type(again) is type(model)
    np.testing.assert_array_equal(all_scores(again), all_scores(model))
    assert trainer.evaluate(loaders[2], load_best_model=True)["ndcg@10"] > 0


def test_a_restored_gfcf_computes_no_singular_vectors(fitted, monkeypatch):
    _, trainer, model, loaders = fitted("GFCF")
    payload = load_checkpoint(trainer.saved_model_file)
    monkeypatch.setattr("recbole_freqd.teacher.models.gfcf.ideal_basis", None)
    again = load_model(payload["config"], payload, loaders[0]._dataset, "file")
    np.testing.assert_array_equal(all_scores(again), all_scores(model))


def test_weights_that_are_loaded_later_are_those_that_it_scores_with(made):
    model, _, _ = made("GFCF")
    before = all_scores(model)
    state = {name: 2 * value for name, value in model.state_dict().items()}
    model.load_state_dict(state)
    assert np.abs(all_scores(model) - before).max() > 0.1


@pytest.mark.parametrize(("name", "other"), [("ShrunkKNN", {"shrink": 5.0}), ("GFCF", {"rank": 3})])
def test_checkpoints_of_other_keys_have_other_weights(name, other, fitted):
    from recbole_freqd.config.identity import weights_hash

    hashes = [
        weights_hash(load_checkpoint(fitted(name, **keys)[1].saved_model_file))
        for keys in ({}, other, {})
    ]
    assert hashes[0] == hashes[2] != hashes[1]


@both
def test_a_checkpoint_is_restored_in_another_process(name, fitted):
    _, trainer, _, _ = fitted(name)
    script = (
        "import recbole_freqd; recbole_freqd.register()\n"
        "from recbole.quick_start import load_data_and_model\n"
        "from recbole_freqd.teacher.restore import model_class\n"
        "from recbole_freqd.checkpoint.loading import load_checkpoint\n"
        f"path = {str(trainer.saved_model_file)!r}\n"
        "print(model_class(load_checkpoint(path)['config']).__name__)\n"
        "print(type(load_data_and_model(path)[1]).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-2:] == [name, name]


@both
@pytest.mark.parametrize("form", ["recipe", "checkpoint"])
def test_they_teach(name, form, tiny_config, fitted):
    from recbole_freqd.jobs import run as runs

    teacher = {"model": name, **KEYS[name]}
    if form == "checkpoint":
        teacher = {"checkpoint": fitted(name)[1].saved_model_file}
    keys = {"freqd_projector": "linear", "metrics": ["NDCG"], "topk": [10]}
    run = runs.run(tiny_config(trainer="FreqD", teacher=teacher, **keys))
    taught = run.trainer.teacher
    assert taught.config["model"] == name and taught.facts == {}
    ranker = taught.ranker(run.data[0]._dataset)
    assert isinstance(ranker, SummedRanker)
    assert runs.evaluate_teacher(run, 2)[1][0]["ndcg@10"] > 0


def test_they_cannot_be_students(tiny_config, teacher_recipe):
    from recbole_freqd.jobs import run as runs

    with pytest.raises(ConfigError, match="GFCF cannot be a student"):
        runs.run(tiny_config("GFCF", trainer="FreqD", teacher=teacher_recipe))


def test_the_classes_are_where_their_names_say():
    assert {name: own_model(name) for name in OWN_MODELS} == {"GFCF": GFCF, "ShrunkKNN": ShrunkKNN}
    assert all(own_model(name).__module__ == OWN_MODELS[name] for name in OWN_MODELS)
    files = Path(sys.modules[GFCF.__module__].__file__).parent.glob("*.py")
    assert {file.stem for file in files} - {"__init__", "base"} == {
        module.rpartition(".")[2] for module in OWN_MODELS.values()
    }
    assert own_model("BPR") is None and own_model(SimpleNamespace) is None
