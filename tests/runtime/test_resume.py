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

from recbole_freqd.checkpoint.loading import load_checkpoint, load_plain, sidecar_path
from recbole_freqd.config.make import make_config
from recbole_freqd.core import files as writing
from recbole_freqd.core.errors import CheckpointError, ConfigError, FreqDError
from recbole_freqd.core.files import file_hash
from recbole_freqd.core.rng import set_streams, streams
from recbole_freqd.losses import LOSSES
from recbole_freqd.runtime import state_file
from recbole_freqd.runtime.resume import Resume
from recbole_freqd.runtime.seconds import Seconds
from recbole_freqd.runtime.state_file import StateFile
from recbole_freqd.runtime.trainer import PartsTrainer, mix_into
from recbole_freqd.trainer.distillation import DistillationTrainer
from recbole_freqd.trainer.sidecar import Sidecar

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
        mixin = PartsTrainer if trainer is None else DistillationTrainer
        host = get_trainer(config["MODEL_TYPE"], config["model"])
        return mix_into(mixin, host)(config, student), loaders

    return start


def state_of(trainer):
    return trainer.part(Resume).file


def cut(trainer, place):
    """Ends the run at the n-th call of a loss, of a validation, or after one was saved."""
    kind, count = place
    calls = []
    owner, name = {
        "loss": (trainer.model, "calculate_loss"),
        "valid": (trainer, "_valid_epoch"),
        "saved": (trainer, "_save_checkpoint"),
        "checkpoint": (next((p for p in trainer.parts if isinstance(p, Sidecar)), None), "write"),
        "finished": (trainer, "_add_hparam_to_tensorboard"),
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
        "epochs": len(trainer.part(Seconds).of_epochs),
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
    }
    payload = load_checkpoint(trainer.saved_model_file)
    found["checkpoint"] = {name: value for name, value in payload.items() if name != "config"}
    sidecar = Path(sidecar_path(trainer.saved_model_file))
    if sidecar.is_file():
        found["sidecar"] = load_plain(sidecar)
        # Of the checkpoint's bytes, and in those are the folders of the run.
        assert found["sidecar"].pop("checkpoint") == file_hash(Path(trainer.saved_model_file))
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

QUICK = ("SGL", "MultiVAE", "RecVAE", "DiffRec", "NCL", "RaCT")


def some_slow(names, quick):
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in names]


@pytest.mark.parametrize("model", some_slow(STUDENTS, QUICK))
def test_a_student_cut_off_and_resumed_ends_in_the_same_bits(started, tmp_path, model):
    if model == "NCL":
        pytest.importorskip("faiss")
    keys = {"model": model, **STUDENTS[model], **LINEAR}
    kind = "loss" if model == "RaCT" else "valid"  # it validates nothing while it pretrains
    expected = whole(started, **keys)
    places = [(kind, 2), ("loss", 4)]
    assert_same(expected, in_pieces(started, places, tmp_path / "other", **keys))


def sampled(**arguments):
    return {"train_neg_sample_args": {"sample_num": 1, "alpha": 1.0, **arguments}}


ALONE = {"trainer": None}
VARIANTS = {
    "mlp": {"freqd_projector": "mlp", "freqd_dropout": 0.5},
    "mask of an epoch": {"freqd_mask": "epoch"},
    "mask of a step": {"freqd_mask": "step", "freqd_keep_prob": 0.3},
    "all losses": {
        "trainer": LOSSES.names(),
        "fd_projector": "mlp",
        "hetcomp_k": 5,
        "teacher": {"model": "BPR", "embedding_size": 8, "epochs": 3, "keep_every": 1},
        "epochs": 3,
    },
    "a term for projectors": {
        "trainer": ["FreqD", "DE"],
        "freqd_preference_beta": 0.5,
        "de_preference_beta": 0.5,
    },
    "a team": {
        "trainer": ["FreqRank", "FreqD"],
        "teacher": [{"model": "BPR", "embedding_size": 8, "epochs": 2}, "panel"],
        "panel_models": ["ShrunkKNN", "GFCF"],
    },
    "BPR alone": ALONE,
    "alone, averaged": {**ALONE, "weight_average": 0.3},
    "MultiVAE alone": {**ALONE, "model": "MultiVAE", **STUDENTS["MultiVAE"]},
    "RecVAE alone": {**ALONE, "model": "RecVAE", **STUDENTS["RecVAE"]},
    "validated now and then": {"eval_step": 2, "epochs": 7},
    "not validated": {"eval_step": 0},
    "stopped early": {"stopping_step": 2, "epochs": 30, "learning_rate": 0.3},
    "clipped": {"clip_grad_norm": {"max_norm": 0.05}},
    "sgd": {"learner": "sgd"},
    "adagrad": {"learner": "adagrad"},
    "rmsprop": {"learner": "rmsprop", "weight_decay": 0.01},
    "popular negatives": sampled(distribution="popularity", alpha=0.7, sample_num=2),
    "hard negatives": sampled(distribution="uniform", dynamic=True, candidate_num=3),
    "validated on samples": {
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "RO", "mode": "uni10"}
    },
    "loader with a worker": {"worker": 1, "epochs": 3},
}


VARIED = ("mask of a step", "all losses", "a team", "BPR alone", "validated now and then")
VARIED += (
    "alone, averaged",
    "stopped early",
    "hard negatives",
    "validated on samples",
    "a term for projectors",
)


@pytest.mark.parametrize("variant", some_slow(VARIANTS, VARIED))
def test_whatever_a_run_is_like_it_is_the_same_after_being_cut_off(started, tmp_path, variant):
    keys = {**({} if "alone" in variant else LINEAR), **VARIANTS[variant]}
    places = [("loss" if variant == "not validated" else "valid", 2)]
    places += [] if variant == "loader with a worker" else [("loss", 4)]
    expected = whole(started, **keys)
    if variant == "stopped early":
        assert 3 < expected["epochs"] < 30
    assert_same(expected, in_pieces(started, places, tmp_path / "other", **keys))


@pytest.mark.parametrize(
    "place",
    [
        ("loss", 1),
        ("valid", 1),
        ("checkpoint", 1),
        ("saved", 3),
        ("finished", 1),
        *(
            pytest.param(place, marks=pytest.mark.slow)
            for place in (
                [("loss", 2), ("saved", 1), ("checkpoint", 3), ("checkpoint", 5), ("saved", 5)]
            )
        ),
    ],
    ids=str,
)
def test_it_does_not_matter_where_a_run_is_cut_off(started, tmp_path, monkeypatch, place):
    # Every epoch is better than the last, so that each is saved. "checkpoint": the student's is
    # written, what lies beside it not yet.
    monkeypatch.setattr("recbole.trainer.Trainer._valid_epoch", better_and_better)
    expected = whole(started, **LINEAR)
    assert expected["checkpoint"]["epoch"] == 4
    assert_same(expected, in_pieces(started, [place], tmp_path / "other", **LINEAR))


def better_and_better(trainer, *_args, **_kwargs):
    score = len(trainer.train_loss_dict) / 100
    return score, {"ndcg@10": score}


def test_a_student_alone_is_resumed_by_the_run_function_as_well(tiny_config, tmp_path, monkeypatch):
    from recbole_freqd.jobs import run as runs

    keys = {"epochs": 4, "learning_rate": 0.02}
    expected = runs.run(tiny_config(**keys))
    keys.update(resume=True, checkpoint_dir=str(tmp_path / "other"))
    epoch = PartsTrainer._train_epoch
    with monkeypatch.context() as patch:
        patch.setattr(PartsTrainer, "_train_epoch", lambda trainer, data, number, *a, **k: (
            stop() if number == 2 else epoch(trainer, data, number, *a, **k)))  # fmt: skip
        with pytest.raises(Cut):
            runs.run(tiny_config(**keys))
    got = runs.run(tiny_config(**keys))
    assert got.trainer.start_epoch == 1, "the state of epoch 2 is written by what was cut off"
    assert_same(dict(expected.model.state_dict()), dict(got.model.state_dict()))
    for name in ("best_valid_score", "best_valid_result", "test_result"):
        assert getattr(got, name) == getattr(expected, name)


def stop(*_args, **_kwargs):
    raise Cut


@pytest.mark.parametrize(
    ("where", "model"),
    [
        ("epoch", "MultiVAE"),
        ("copy", "BPR"),
        ("facts", "BPR"),
        ("forget", "BPR"),
        pytest.param("epoch", "BPR", marks=pytest.mark.slow),
        pytest.param("forget", "MultiVAE", marks=pytest.mark.slow),
    ],
)
def test_a_teacher_cut_off_in_its_training_is_the_same_teacher(
    started, tmp_path, monkeypatch, where, model
):
    from recbole_freqd.teacher import recipe

    keys = {"teacher": {"model": model, "epochs": 4, "train_batch_size": 16, **STUDENTS[model]}}
    expected = whole(started, **keys)
    (made,) = (tmp_path / "saved").glob("teacher-*.pth")
    epochs, epoch = [], PartsTrainer._train_epoch
    with monkeypatch.context() as patch:
        if where == "epoch":
            patch.setattr(
                PartsTrainer,
                "_train_epoch",
                lambda trainer, data, number, *a, **k: (
                    stop() if number == 3 else epoch(trainer, data, number, *a, **k)
                ),
            )
        else:
            owner, name = {
                "copy": (recipe.shutil, "copyfile"),
                "facts": (recipe, "write_json"),
                "forget": (recipe._TeacherTrainer, "forget"),
            }[where]
            patch.setattr(owner, name, stop)
        trainer, loaders = started(**keys, checkpoint_dir="other", resume=True)
        with pytest.raises(Cut):
            trainer.fit(*loaders[:2])
    monkeypatch.setattr(PartsTrainer, "_train_epoch", lambda trainer, *args, **more: (
        epochs.append(trainer.run_name), epoch(trainer, *args, **more))[1])  # fmt: skip
    assert_same(expected, in_pieces(started, [], tmp_path / "other", **keys))
    trained_again = epochs.count(f"{model}-as-teacher")
    assert trained_again == (2 if where == "epoch" else 0), "nothing is trained twice"
    (again,) = (tmp_path / "other").glob("teacher-*.pth")
    assert again.name == made.name
    one, other = load_checkpoint(made), load_checkpoint(again)
    for part in ("state_dict", "optimizer", "best_valid_score", "epoch"):
        assert_same(one[part], other[part])
    left = [file for file in (tmp_path / "other").iterdir() if "as-teacher" in file.name]
    assert len(left) == (2 if where == "forget" else 0), left


# --- what is resumed, and what is not -----------------------------------------------------------


def interrupted(started, place=("valid", 3), **keys):
    trainer, loaders = started(**keys)
    cut(trainer, place)
    with pytest.raises(Cut):
        trainer.fit(*loaders[:2])
    return trainer


def first_epoch(started, **keys):
    """The epoch at which a run takes up, and what it trains on."""
    trainer, loaders = started(**{"resume": True, **keys})
    cut(trainer, ("loss", 1))
    with pytest.raises(Cut):
        trainer.fit(*loaders[:2])
    return trainer.start_epoch


def test_a_finished_run_is_not_trained_again_and_gives_the_same_results(started, caplog):
    first, loaders = started(**LINEAR)
    expected = first.fit(*loaders[:2]), outcome(first, loaders)
    caplog.set_level(logging.INFO)
    trainer, loaders = started(**LINEAR, resume=True)
    trainer.model.calculate_loss = stop
    assert trainer.fit(*loaders[:2]) == expected[0]
    assert trainer.saved_model_file == first.saved_model_file
    best = load_checkpoint(first.saved_model_file)["state_dict"]
    assert_same(dict(best), dict(trainer.model.state_dict()))
    own = load_plain(sidecar_path(first.saved_model_file))["distiller"]
    assert_same(dict(own), dict(trainer.distiller.state_dict()))
    got = outcome(trainer, loaders)
    for name in ("score", "result", "losses", "test", "checkpoint", "sidecar", "epochs"):
        assert_same(expected[1][name], got[name])
    assert f"This run is finished; its best model is used: {first.saved_model_file}" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 0.01},
        {"freqd_beta": 0.5},
        {"epochs": 6},
        {"seed": 5},
        {"trainer": "FD"},
        {"teacher": {"model": "BPR", "embedding_size": 8, "epochs": 3, "train_batch_size": 64}},
        {"eval_args": {"split": {"RS": [0.7, 0.2, 0.1]}}},
        "data",
        "version",
        "recbole",
        "weights",
    ],
    ids=str,
)
def test_a_run_of_anything_else_is_not_resumed(started, caplog, monkeypatch, tiny_data, change):
    interrupted(started, **LINEAR)
    assert first_epoch(started, **LINEAR) == 2
    caplog.set_level(logging.INFO)
    changed = change if isinstance(change, dict) else {}
    if change == "data":
        shutil.copytree(tiny_data / "tiny", "data/tiny")
        lines = Path("data/tiny/tiny.inter").read_text().splitlines()
        Path("data/tiny/tiny.inter").write_text("\n".join(lines[:-1]) + "\n")
        changed = {"data_path": "data"}
    elif change in ("version", "recbole"):
        owner = "recbole_freqd.config.identity" if change == "version" else "recbole"
        monkeypatch.setattr(f"{owner}.__version__", "9.9.9")
    elif change == "weights":
        monkeypatch.setattr("recbole.model.general_recommender.bpr.xavier_normal_initialization",
                            lambda module: None)  # fmt: skip
    assert first_epoch(started, **{**LINEAR, **changed}) == 0
    assert "Nothing to resume in " in caplog.text


def test_data_moved_elsewhere_or_ranked_in_other_blocks_is_no_other_run(started, caplog, tiny_data):
    interrupted(started)
    shutil.copytree(tiny_data / "tiny", "data/tiny")
    assert first_epoch(started, data_path="data", show_progress=False, worker=0) == 2
    assert "to the last bit" not in caplog.text
    assert first_epoch(started, eval_batch_size=99) == 2
    assert "Not resumed to the last bit: eval_batch_size was 4096, is 99" in caplog.text


def test_what_else_is_known_of_the_interactions_belongs_to_the_data(started, tiny_data):
    lines = (tiny_data / "tiny" / "tiny.inter").read_text().splitlines()
    keys = {"trainer": None, "data_path": "data"}
    keys["load_col"] = {"inter": ["user_id", "item_id", "rating"]}
    Path("data/tiny").mkdir(parents=True)

    def rate(rating):
        table = [f"{lines[0]}\trating:float", *(f"{line}\t{rating}" for line in lines[1:])]
        Path("data/tiny/tiny.inter").write_text("\n".join(table) + "\n")

    rate(3)
    interrupted(started, **keys)
    assert first_epoch(started, **keys) == 2
    rate(4)
    assert first_epoch(started, **keys) == 0


def test_another_teacher_under_the_same_path_is_another_run(started, trained):
    path, _ = trained("BPR")
    keys = {"teacher": {"checkpoint": str(path), "allow_leakage": True, "trust_data": True}}
    interrupted(started, **keys)
    assert first_epoch(started, **keys) == 2
    payload = torch.load(path, weights_only=False)
    payload["state_dict"]["item_embedding.weight"][3] += 0.25
    torch.save(payload, path, pickle_protocol=4)
    assert first_epoch(started, **keys) == 0


def test_a_run_that_began_elsewhere_is_another_run(started, tmp_path):
    first, loaders = started(epochs=1, checkpoint_dir=str(tmp_path / "elsewhere"))
    first.fit(*loaders[:2])

    def goes_on(place, **keys):
        trainer, loaders = started(**keys)
        trainer.resume_checkpoint(first.saved_model_file)
        cut(trainer, place)
        with pytest.raises(Cut):
            trainer.fit(*loaders[:2])
        return trainer

    goes_on(("valid", 2))
    assert first_epoch(started) == 0, "the interrupted one did not begin with these weights"
    again = goes_on(("loss", 1), resume=True)
    assert again.start_epoch == 2
    assert Path(again.saved_model_file) == Path(first.saved_model_file)


def test_fit_called_twice_trains_twice(started):
    trainer, loaders = started(trainer=None, epochs=2)
    trainer.fit(*loaders[:2])
    before = trainer.model.state_dict()["user_embedding.weight"].clone()
    trainer.fit(*loaders[:2])
    assert len(trainer.part(Seconds).of_epochs) == 4
    assert not torch.equal(before, trainer.model.state_dict()["user_embedding.weight"])


def test_of_several_runs_the_newest_that_is_free_is_taken(started):
    runs = [interrupted(started), interrupted(started, place=("valid", 4))]
    for age, run in enumerate(reversed(runs)):
        os.utime(state_of(run).path, (10**9 - age, 10**9 - age))
    assert first_epoch(started) == 3
    state_of(runs[1]).path.unlink()
    assert first_epoch(started) == 2
    assert {state_of(run).path.exists() for run in runs} == {True, False}


def test_a_run_without_resume_starts_anew_and_says_that_there_is_one(started, caplog):
    first = interrupted(started)
    before = {file: file.read_bytes() for file in Path("saved").iterdir()}
    caplog.set_level(logging.INFO)
    trainer, loaders = started()
    trainer.fit(*loaders[:2])
    assert trainer.start_epoch == 0
    assert f"There is an earlier run of the same config: {state_of(first).path}" in caplog.text
    assert before == {file: file.read_bytes() for file in before}


# --- files --------------------------------------------------------------------------------------


def test_a_state_in_use_is_not_taken_by_a_second_run(started, monkeypatch, caplog):
    monkeypatch.setattr(state_file, "_PATIENCE", 0.05)
    trainer, loaders = started()
    second = []

    def start_a_second(*_args):
        if trainer.start_epoch == 0 and len(trainer.part(Seconds).of_epochs) == 3 and not second:
            caplog.set_level(logging.INFO)
            other, data = started(resume=True)
            second.append(other)
            other.fit(*data[:2])
        return 0.5, {"ndcg@10": 0.5}

    monkeypatch.setattr("recbole.trainer.Trainer._valid_epoch", lambda *_a, **_k: (
        (0.5, {"ndcg@10": 0.5}) if second else start_a_second()))  # fmt: skip
    trainer.fit(*loaders[:2])
    assert (
        f"{state_of(trainer).path} is in use by another process, so it is not resumed"
        in caplog.text
    )
    assert second[0].start_epoch == 0 and len(second[0].part(Seconds).of_epochs) == 5
    assert second[0].saved_model_file != trainer.saved_model_file


def test_the_lock_of_another_process_holds(started, monkeypatch):
    monkeypatch.setattr(state_file, "_PATIENCE", 0.05)
    first = interrupted(started)
    with FileLock(f"{state_of(first).path}.lock"):
        assert first_epoch(started) == 0
    assert first_epoch(started) == 2


def test_two_runs_of_the_same_moment_never_share_a_file(started, monkeypatch):
    class Stopped(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2030, 1, 1)

    monkeypatch.setattr(writing.datetime, "datetime", Stopped)
    one, loaders = started()
    other, data = started()
    assert one.saved_model_file != other.saved_model_file
    one.fit(*loaders[:2])
    files = {file: file.read_bytes() for file in Path("saved").iterdir()}
    other.fit(*data[:2])
    assert files == {file: file.read_bytes() for file in files}


def test_a_finished_run_leaves_no_lock_and_a_small_state_and_an_interrupted_one_says_more(started):
    trainer, loaders = started()
    trainer.fit(*loaders[:2])
    (state,) = Path("saved").glob("*.last.pt*")
    assert state.name == state_of(trainer).path.name and load_plain(state)["finished"]
    assert "model" not in load_plain(state)
    first = interrupted(started, learning_rate=0.5)
    assert load_plain(state_of(first).path)["model"]
    assert first_epoch(started, learning_rate=0.5, resume=False) == 0
    interrupted(started, place=("loss", 1), learning_rate=0.7)
    locks = list(Path("saved").glob("*.lock"))
    assert [lock.name for lock in locks] == [f"{state_of(first).path.name}.lock"], (
        "before the first state there is none"
    )
    in_pieces(started, [], "saved", learning_rate=0.5)
    assert not list(Path("saved").glob("*.lock"))


def test_nothing_is_kept_of_a_run_that_is_not_to_be_saved(started):
    trainer, loaders = started(trainer=None)
    trainer.fit(*loaders[:2], saved=False)
    assert list(Path("saved").iterdir()) == []


def test_the_state_is_read_without_pickle(started):
    for model in ("MultiVAE", "LINE", "RaCT"):
        place = ("loss", 4 if model == "LINE" else 3)  # in the second, or third, epoch
        trainer = interrupted(started, place, model=model, **STUDENTS[model], trainer=None)
        assert torch.load(state_of(trainer).path, weights_only=True)["attributes"]


def test_a_run_whose_best_model_is_gone_starts_anew_and_says_so(started, caplog):
    first = interrupted(started)
    os.unlink(first.saved_model_file)
    assert first_epoch(started) == 0
    assert (
        f"{first.saved_model_file} is gone, the best model of {state_of(first).path}" in caplog.text
    )
    trainer, loaders = started(trainer=None)
    trainer.fit(*loaders[:2])
    os.unlink(trainer.saved_model_file)
    assert first_epoch(started, trainer=None) == 0


def test_a_state_that_the_gpu_has_no_room_for_is_not_called_damaged(tmp_path, monkeypatch):
    def full(*_):
        raise torch.cuda.OutOfMemoryError

    file = tmp_path / "a.last.pt"
    torch.save({"finished": False}, file)
    monkeypatch.setattr("recbole_freqd.checkpoint.loading._read", full)
    for read in (
        StateFile(file)._take,
        lambda _: load_plain(file),
        lambda _: load_checkpoint(file),
    ):
        with pytest.raises(torch.cuda.OutOfMemoryError):
            read("cpu")


@pytest.mark.parametrize("damage", ["cut", "bit", "other", "values", "weights", "optimizer"])
def test_a_damaged_state_is_an_error_that_says_what_to_do(started, damage):
    first = interrupted(started)
    path = state_of(first).path
    content = bytearray(path.read_bytes())
    state = load_plain(path)
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "bit":
        content[len(content) // 2] ^= 4
    elif damage == "other":
        state = [1, 2]
    elif damage == "values":
        del state["cur_step"]
    elif damage == "weights":
        state["model"].popitem()
    else:
        state["optimizers"][0]["param_groups"].pop()
    if damage in ("cut", "bit"):
        path.write_bytes(content)
    else:
        torch.save(state, path)
    trainer, loaders = started(resume=True)
    message = rf"cannot be resumed from .*{path.name}: (.|\n)*Delete that file, or leave out resume"
    with pytest.raises(CheckpointError, match=message):
        trainer.fit(*loaders[:2])
    path.unlink()
    assert first_epoch(started) == 0


def test_a_best_model_that_is_damaged_is_an_error_when_a_finished_run_is_taken(started):
    trainer, loaders = started(trainer=None)
    trainer.fit(*loaders[:2])
    os.truncate(trainer.saved_model_file, 200)
    again, loaders = started(trainer=None, resume=True)
    with pytest.raises(
        CheckpointError, match=r"no torch checkpoint(.|\n)*Delete that file, or leave out"
    ):
        again.fit(*loaders[:2])


def test_a_folder_that_cannot_hold_a_lock_is_an_error(started, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise OSError(30, "Read-only file system")

    first = interrupted(started)
    monkeypatch.setattr(state_file.FileLock, "acquire", refuse)
    for resume in (True, False):
        trainer, loaders = started(resume=resume)
        with pytest.raises(CheckpointError, match="Cannot lock .*Read-only.*Change checkpoint_dir"):
            trainer.fit(*loaders[:2])
    assert state_of(first).path.is_file()


@pytest.mark.parametrize("error", [OSError(95, "not supported"), NotImplementedError("no flock")])
def test_on_a_disk_without_locks_a_run_goes_on_with_a_warning(
    started, monkeypatch, caplog, tmp_path, error
):
    def refuse(*_args, **_kwargs):
        raise error

    expected = whole(started)
    monkeypatch.setattr(state_file.FileLock, "acquire", refuse)
    assert_same(expected, in_pieces(started, [("valid", 3)], tmp_path / "other"))
    warnings = [record.message for record in caplog.records if "has no locks" in record.message]
    assert len(warnings) == 1, "once for a folder: not again for the student, nor when resumed"


def test_what_was_resumed_from_is_not_kept_in_memory(started):
    interrupted(started)
    trainer, loaders = started(resume=True)
    part = trainer.part(Resume)
    restore, seen = part._restore, []
    part._restore = lambda state: (seen.append(state), restore(state))
    trainer.fit(*loaders[:2])
    assert seen == [{}] and part.to_restore is None


def test_a_folder_moved_elsewhere_is_resumed_there(started, tmp_path):
    expected = whole(started, checkpoint_dir="whole")
    interrupted(started)
    shutil.copytree("saved", "moved")
    shutil.rmtree("saved")
    assert_same(expected, in_pieces(started, [], tmp_path / "moved"))


# --- the ways to ask for it ---------------------------------------------------------------------


def test_resume_is_true_or_false(started, tiny_keys):
    with pytest.raises(ConfigError, match="resume: got 'maybe'; allowed: bool"):
        started(trainer="FreqD", resume="maybe")
    with pytest.raises(ConfigError, match="resume: got 'maybe'; allowed: bool"):
        make_config("BPR", "tiny", None, {**tiny_keys, "resume": "maybe"})


def test_a_teacher_is_not_resumed_by_a_key_of_its_own(started, teacher_recipe):
    with pytest.raises(FreqDError, match="resume"):
        trainer, loaders = started(teacher={**teacher_recipe, "resume": True})
        trainer.fit(*loaders[:2])


def test_the_script_goes_on_where_it_was_cut_off(
    host, tiny_keys, teacher_recipe, monkeypatch, tmp_path, capsys
):
    from recbole_freqd.jobs.script import main

    monkeypatch.setattr(sys, "argv", ["run.py"])
    keys = {**tiny_keys, "teacher": teacher_recipe, "epochs": 3, "valid_metric": "NDCG@10"}
    Path("run.yaml").write_text(json.dumps(keys))

    def script(out, *more):
        done = main(["-d", "tiny", "--config_files", "run.yaml", "--output_dir", out, *more])
        assert done == 0
        (file,) = Path(out).glob("*/results.json")
        rows = json.loads(file.read_text())["rows"]
        return [{key: row[key] for key in ("role", "valid", "test")} for row in rows], rows

    expected, _ = script("whole", "--checkpoint_dir=whole")
    epoch, trained = PartsTrainer._train_epoch, []

    def training(trainer, data, number, *args, **more):
        trained.append((trainer.run_name, number))
        if trained[-1] in ends:
            ends.remove(trained[-1])
            raise Cut
        return epoch(trainer, data, number, *args, **more)

    monkeypatch.setattr(PartsTrainer, "_train_epoch", training)
    ends = [("BPR-as-teacher", 1), ("BPR", 2)]
    for _ in range(2):
        with pytest.raises(Cut):
            script("cut", "--resume")
    distilled = trained.count(("BPR-FreqD", 0))
    got, rows = script("cut", "--resume")
    assert got == expected
    assert trained.count(("BPR-FreqD", 0)) == distilled == 1, "taken as finished"
    assert {Path(row["checkpoint"]).parent.name for row in rows} == {"saved"}
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "--resume" in capsys.readouterr().out


def test_random_streams_are_put_back_as_they_were():
    generators = [torch.Generator().manual_seed(3)]
    np.random.randn()  # leaves a number behind for the next call
    random.gauss(0, 1)
    states = streams(generators)

    def draw():
        return [np.random.randn(), np.random.rand(), random.gauss(0, 1), random.random(),
                torch.rand(1).item(), torch.rand(1, generator=generators[0]).item()]  # fmt: skip

    expected = draw()
    set_streams(states, generators)
    assert draw() == expected
