"""resume: an interrupted run that is taken up again ends in the bits of one that never was."""

import datetime
import json
import logging
import os
import random
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

from recbole_freqd import state_file, writing
from recbole_freqd.checkpoint import load_checkpoint, load_plain, sidecar_path
from recbole_freqd.errors import CheckpointError, ConfigError, FreqDError
from recbole_freqd.resume import ResumableTrainer, over
from recbole_freqd.rng import streams
from recbole_freqd.trainer import DistillationTrainer

LINEAR = {"freqd_projector": "linear", "freqd_k": 3}
# Students with a trainer of their own, or that keep something outside of their state_dict.
STUDENTS = {
    "BPR": {},
    "LightGCN": {},
    "NGCF": {"hidden_size_list": [4, 4]},
    "SGL": {},
    "SimpleX": {},
    "LINE": {},
    "DMF": {"user_hidden_size_list": [8, 4], "item_hidden_size_list": [8, 4]},
    "NeuMF": {"mf_embedding_size": 4, "mlp_embedding_size": 4, "mlp_hidden_size": [8]},
    "ENMF": {},
    "CDAE": {},
    "MultiVAE": {"mlp_hidden_size": [12], "latent_dimension": 8},
    "MacridVAE": {"encoder_hidden_size": [12]},
    "RecVAE": {"hidden_dimension": 12, "latent_dimension": 6, "n_enc_epochs": 2},
    "DiffRec": {"dims_dnn": [6], "steps": 3, "history_num_per_term": 5, "reweight": True},
    "LDiffRec": {"dims_dnn": [6], "in_dims": [6], "steps": 3, "n_cate": 1},
    "NCL": {"num_clusters": 3, "warm_up_step": 1, "m_step": 2},
    "RaCT": {
        "mlp_hidden_size": [12],
        "latent_dimension": 8,
        "pretrain_epochs": 5,
        "save_step": 2,
        "train_stage": "actor_pretrain",
    },
}


class Cut(BaseException):
    """Stands for the end of a process: nothing catches it."""


@pytest.fixture
def started(tiny_config, teacher_recipe):
    """All that a new process builds before ``fit``: a trainer and RecBole's three loaders."""
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_trainer, init_seed

    def start(model="BPR", trainer="FreqD", **keys):
        if trainer is not None:
            keys.update(trainer=trainer, teacher=keys.get("teacher", teacher_recipe))
        keys = {"epochs": 5, "learning_rate": 0.02, "train_batch_size": 128, **keys}
        config = tiny_config(model, **keys)
        init_seed(config["seed"], True)
        loaders = data_preparation(config, create_dataset(config))
        init_seed(config["seed"], True)
        student = config.model_class(config, loaders[0]._dataset)
        mixin = ResumableTrainer if trainer is None else DistillationTrainer
        host = get_trainer(config["MODEL_TYPE"], config["model"])
        return over(mixin, host)(config, student), loaders

    return start


def cut(trainer, place):
    """Ends the run at the n-th call of a loss, of a validation, or after one was saved."""
    kind, count = place
    calls = []
    owner, name = {
        "loss": (trainer.model, "calculate_loss"),
        "valid": (trainer, "_valid_epoch"),
        "saved": (trainer, "_save_checkpoint"),
        "checkpoint": (trainer, "_write_sidecar"),
    }[kind]
    plain = getattr(owner, name)

    def stopping(*args, **kwargs):
        calls.append(1)
        if len(calls) == count and kind != "saved":
            raise Cut
        result = plain(*args, **kwargs)
        if len(calls) == count:
            raise Cut
        return result

    setattr(owner, name, stopping)


def outcome(trainer, loaders):
    """Everything that two runs may differ in, but for the names of their files."""
    train_data, valid_data, test_data = loaders
    found = {
        "streams": streams([train_data.generator, valid_data.generator]),
        "weights": dict(trainer.model.state_dict()),
        "score": trainer.best_valid_score,
        "result": trainer.best_valid_result and dict(trainer.best_valid_result),
        "losses": trainer.train_loss_dict,
        "step": trainer.cur_step,
        "epochs": len(trainer.epoch_seconds),
        "optimizers": [optimizer.state_dict() for optimizer in trainer._optimizers],
    }
    payload = load_checkpoint(trainer.saved_model_file)
    found["checkpoint"] = {name: value for name, value in payload.items() if name != "config"}
    sidecar = Path(sidecar_path(trainer.saved_model_file))
    if sidecar.is_file():
        found["sidecar"] = load_plain(sidecar)
    trainer.eval_collector.data_collect(train_data)
    found["test"] = trainer.evaluate(test_data)
    return found


def assert_same(one, other, where="run"):
    assert type(one) is type(other) or {type(one), type(other)} <= {float, np.float64}, where
    if isinstance(one, Mapping):
        assert list(one) == list(other), where
        for name in one:
            assert_same(one[name], other[name], f"{where}.{name}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for place, (left, right) in enumerate(zip(one, other)):
            assert_same(left, right, f"{where}[{place}]")
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other), where
    else:
        assert one == other, where


def whole(started, **keys):
    trainer, loaders = started(**keys)
    trainer.fit(*loaders[:2])
    return outcome(trainer, loaders)


def in_pieces(started, places, folder, **keys):
    """The outcome of a run that is cut at each of the places, in a folder of its own."""
    keys.update(resume=True, checkpoint_dir=str(folder))
    for place in places:
        trainer, loaders = started(**keys)
        cut(trainer, place)
        with pytest.raises(Cut):
            trainer.fit(*loaders[:2])
    trainer, loaders = started(**keys)
    trainer.fit(*loaders[:2])
    return outcome(trainer, loaders)


# --- the same bits ------------------------------------------------------------------------------


@pytest.mark.parametrize("model", STUDENTS)
def test_a_student_cut_off_four_times_ends_in_the_same_bits(started, tmp_path, model):
    if model in ("NCL", "LDiffRec"):
        pytest.importorskip("faiss")
    keys = {"model": model, **STUDENTS[model], **LINEAR}
    kind = "loss" if model == "RaCT" else "valid"  # it validates nothing while it pretrains
    places = [("loss", 1), (kind, 2), (kind, 2), ("loss", 2)]
    expected = whole(started, **keys)
    assert_same(expected, in_pieces(started, places, tmp_path / "other", **keys))


@pytest.mark.parametrize(
    "keys",
    [
        {"freqd_projector": "mlp", "freqd_dropout": 0.5},
        {"freqd_mask": "epoch"},
        {"freqd_mask": "step", "freqd_keep_prob": 0.3},
        {"trainer": ["FreqD", "FD"], "fd_projector": "linear"},
        {"trainer": "FitNet"},
        {"trainer": None},
        {"trainer": None, "model": "MultiVAE", **STUDENTS["MultiVAE"]},
        {"trainer": None, "model": "RecVAE", **STUDENTS["RecVAE"]},
        {"eval_step": 2, "epochs": 7},
        {"eval_step": 0},
        {"valid_metric": "averagepopularity@10", "metrics": ["AveragePopularity"], "epochs": 4},
        {"stopping_step": 1, "epochs": 30, "learning_rate": 0.2},
        {"clip_grad_norm": {"max_norm": 0.05}},
        {"learner": "sgd"},
        {"learner": "adagrad"},
        {"learner": "rmsprop", "weight_decay": 0.01},
        {"train_neg_sample_args": {"distribution": "popularity", "sample_num": 2, "alpha": 0.7}},
        {
            "train_neg_sample_args": {
                "distribution": "uniform",
                "sample_num": 1,
                "alpha": 1.0,
                "dynamic": True,
                "candidate_num": 3,
            }
        },
        {"eval_args": {"split": {"LS": "valid_and_test"}, "order": "RO", "mode": "uni10"}},
        {"shuffle": False},
    ],
    ids=str,
)
def test_whatever_the_run_is_like_it_is_the_same_after_being_cut_off(started, tmp_path, keys):
    from recbole_freqd.losses import LOSSES

    if keys.get("trainer") == "FitNet" and "FitNet" not in LOSSES.names():
        pytest.skip("no FitNet yet")
    keys = {**LINEAR, **keys} if keys.get("trainer", "FreqD") is not None else keys
    kind = "loss" if keys.get("eval_step") == 0 else "valid"
    places = [(kind, 2), ("loss", 5)]
    expected = whole(started, **keys)
    assert_same(expected, in_pieces(started, places, tmp_path / "other", **keys))


@pytest.mark.parametrize("validated", [True, False])
@pytest.mark.parametrize(
    "place",
    [
        ("loss", 1), ("loss", 2), ("loss", 3), ("loss", 6), ("loss", 10), ("valid", 1),
        ("valid", 3), ("valid", 5), ("saved", 1), ("saved", 3), ("saved", 5), ("checkpoint", 1),
        ("checkpoint", 3), ("checkpoint", 5),
    ],
    ids=str,
)  # fmt: skip
def test_it_does_not_matter_where_a_run_is_cut_off(started, tmp_path, monkeypatch, place, validated):
    if not validated and place[0] == "valid":
        pytest.skip("not validated")
    keys = {**LINEAR, "eval_step": int(validated)}
    if validated:  # every epoch is better than the last, so each is saved
        monkeypatch.setattr("recbole.trainer.Trainer._valid_epoch", better_and_better)
    expected = whole(started, **keys)
    assert_same(expected, in_pieces(started, [place], tmp_path / "other", **keys))


def better_and_better(trainer, *_args, **_kwargs):
    score = len(trainer.train_loss_dict) / 100
    return score, {"ndcg@10": score}
