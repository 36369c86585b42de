"""On real sparse data, where RECBOLE_FREQD_DATA points to it: graphs and one epoch end to end."""

import os
from pathlib import Path

import numpy as np
import pytest

DATA = os.environ.get("RECBOLE_FREQD_DATA", "")
pytestmark = pytest.mark.skipif(
    not (Path(DATA) / "citeulike").is_dir() or not DATA,
    reason="RECBOLE_FREQD_DATA names no folder with citeulike",
)


@pytest.fixture
def citeulike(host):
    """A Config for CiteULike with its fixed split."""
    from recbole.config import Config

    def make(**keys):
        base = {
            "data_path": DATA,
            "benchmark_filename": ["train", "valid", "test"],
            "load_col": {"inter": ["user_id", "item_id"]},
            "show_progress": False,
            "state": "ERROR",
            "valid_metric": "NDCG@10",
            "epochs": 1,
        }
        return Config("BPR", "citeulike", config_dict={**base, **keys})

    return make


def test_citeulike_graphs_link_only_items_that_share_a_user(citeulike):
    from recbole.data import create_dataset, data_preparation

    from recbole_freqd.features.data import training_matrix
    from recbole_freqd.graph.cooccurrence import cooccurrence_graph

    config = citeulike()
    train_data, *_ = data_preparation(config, create_dataset(config))
    R = training_matrix(train_data._dataset)
    graph = cooccurrence_graph(R, side="item", k=5)
    cold = np.flatnonzero(R.sum(axis=0) == 0)
    assert len(cold) >= 1238  # items that are never seen in training, and the padding
    assert (np.diff(graph.indptr)[cold] == 0).all()
    shared = (R.T @ R).tocsr()
    rows, columns = graph.nonzero()
    sample = np.random.default_rng(0).choice(len(rows), 2000, replace=False)
    assert all(shared[int(i), int(j)] > 0 for i, j in zip(rows[sample], columns[sample]))
    assert np.diff(graph.indptr).min() == 0 and graph.diagonal().sum() == 0


@pytest.mark.slow
def test_citeulike_distils_end_to_end(citeulike):
    from recbole_freqd.jobs import run as runs

    config = citeulike(
        trainer="FreqD", freqd_projector="linear", embedding_size=20, eval_batch_size=10**6,
        teacher={"model": "BPR", "embedding_size": 64, "epochs": 1},
    )  # fmt: skip
    run = runs.run(config)
    assert run.test_result["ndcg@10"] > 0 and runs.evaluate_teacher(run, 2)[1][0]["ndcg@10"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(("name", "wanted"), [("ShrunkKNN", 0.0864), ("GFCF", 0.0782)])
def test_citeulike_teachers_without_training_reach_their_validation_score(citeulike, name, wanted):
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation

    from recbole_freqd.features.data import training_matrix
    from recbole_freqd.teacher.choice.sampled import ValidationSample

    keys = citeulike().external_config_dict
    config = Config(name, "citeulike", config_dict=keys)
    train_data, valid_data, _ = data_preparation(config, create_dataset(config))
    model = config.model_class(config, train_data._dataset)
    sample = ValidationSample.draw(
        training_matrix(train_data._dataset),
        training_matrix(valid_data._dataset),
        metric="NDCG@10",
        most_users=10**6,
        seed=0,
    )
    assert sample.value(model.ranker()) == pytest.approx(wanted, abs=5e-4)
