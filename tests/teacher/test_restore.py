"""restore: one function for who teaches, exports, analyzes or begins warm; in words of each."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

import recbole_freqd
from recbole_freqd.checkpoint import load_checkpoint
from recbole_freqd.config.identity import planned_identity
from recbole_freqd.config.older import bring_up_to_date
from recbole_freqd.core.errors import CheckpointError, ConfigError, TeacherError
from recbole_freqd.jobs import run as runs
from recbole_freqd.jobs.analysis import analyze
from recbole_freqd.teacher import find_teacher

USERS, ITEMS = 60, 50


def write(folder, name="toy", seed=3):
    """60 users with 12 of 50 items each, as RecBole's atomic file; returns the data_path."""
    rng = np.random.default_rng(seed)
    lines = ["user_id:token\titem_id:token"]
    for user in range(USERS):
        tastes = np.where(np.arange(ITEMS) % 2 == user % 2, 5.0, 1.0)
        liked = rng.choice(ITEMS, size=12, replace=False, p=tastes / tastes.sum())
        lines += [f"u{user}\ti{item}" for item in liked]
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / f"{name}.inter").write_text("\n".join(lines) + "\n")
    return str(folder)


@pytest.fixture
def config_of(host, tmp_path):
    from recbole.config import Config

    def make(model="BPR", dataset="toy", **keys):
        base = {
            "data_path": write(tmp_path / "data", dataset),
            "checkpoint_dir": "saved",
            "load_col": {"inter": ["user_id", "item_id"]},
            "embedding_size": 8,
            "epochs": 20,
            "learning_rate": 0.01,
            "train_batch_size": 256,
            "state": "ERROR",
            "show_progress": False,
        }
        return Config(model, dataset, config_dict={**base, **keys})

    return make


@pytest.fixture
def stock(config_of):
    """The file of a model that RecBole trained; ``changed`` may rewrite what it holds."""

    def train(model="BPR", changed=lambda payload: None, dataset="toy", **keys):
        path = runs.run(config_of(model, dataset, **keys), test=False).trainer.saved_model_file
        payload = torch.load(path, weights_only=False)
        changed(payload)
        torch.save(payload, path, pickle_protocol=4)
        return path

    return train


@pytest.fixture
def find(config_of):
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import init_seed

    def find(path, dataset="toy", **spec):
        teacher = {"checkpoint": path, **spec}
        config = config_of(dataset=dataset, trainer="FreqD", teacher=teacher)
        init_seed(config["seed"], True)
        train_data, valid_data, _ = data_preparation(config, create_dataset(config))
        return find_teacher(config, train_data, valid_data)

    return find


# --- checkpoints of older versions of RecBole --------------------------------------------------


def as_1_1_1(payload):
    """In 1.1.1 ``eval_args.mode`` was one word for both."""
    final = payload["config"].final_config_dict
    final["eval_args"]["mode"] = final["eval_args"]["mode"]["valid"]


def as_1_0_1(payload):
    """What today's data reads was no key then; negatives were said otherwise."""
    as_1_1_1(payload)
    final = payload["config"].final_config_dict
    for key in ("encoding", "numerical_features", "discretization", "transform", "shuffle",
                "enable_amp", "enable_scaler", "alias_of_user_id", "alias_of_item_id",
                "valid_neg_sample_args", "test_neg_sample_args", "single_spec", "local_rank"):  # fmt: skip
        final.pop(key, None)
    final["neg_sampling"] = {"uniform": 1}
    final["training_neg_sample_num"] = 1
    final["train_neg_sample_args"] = {"strategy": "by", "by": 1, "distribution": "uniform"}
    final["eval_neg_sample_args"] = {"strategy": "full", "distribution": "uniform"}


def without_a_mode(payload):
    payload["config"].final_config_dict["eval_args"].pop("mode")


OLDER = {"1.1.1": as_1_1_1, "1.0.1": as_1_0_1, "a split without a mode": without_a_mode}


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("older", OLDER.values(), ids=OLDER)
@pytest.mark.parametrize("model", ["BPR", "LightGCN"])
def test_a_checkpoint_of_an_older_recbole_teaches_with_its_own_score(
    stock, find, caplog, model, older, trust
):
    caplog.set_level("INFO")
    teacher = find(stock(model, older), trust_checkpoint=trust)
    assert teacher.config["model"] == model and teacher.other_data is None
    assert "has its validation MRR@10 again" in caplog.text


@pytest.mark.parametrize("older", OLDER.values(), ids=OLDER)
def test_a_checkpoint_of_an_older_recbole_is_exported_and_analyzed(stock, config_of, older):
    path = stock(changed=older)
    assert recbole_freqd.export(path, "out")["users"]["count"] == USERS
    assert analyze.load_with_data(path, config_of()).metrics["ndcg@10"] > 0


def test_what_is_up_to_date_stays_as_it_is(stock):
    config = load_checkpoint(stock())["config"]
    before = copy.deepcopy(config.final_config_dict)
    bring_up_to_date(config)
    assert config.final_config_dict == before


# --- models of another kind --------------------------------------------------------------------


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sequential_recommender.SASRec", "sequential"),
        ("sequential_recommender.GRU4Rec", "sequential"),
        ("context_aware_recommender.FM", "context-aware"),
        ("context_aware_recommender.DeepFM", "context-aware"),
    ],
)
def test_a_checkpoint_of_another_kind_of_model_is_named_with_its_kind(
    stock, find, config_of, trust, name, kind
):
    import importlib

    package, model = name.split(".")
    own = getattr(importlib.import_module(f"recbole.model.{package}"), model)

    def as_other(payload):
        payload["config"].model_class, payload["config"].model = own, model
        payload["config"]["model"], payload["config"]["MODEL_TYPE"] = model, own.type

    path = stock(changed=as_other)
    words = f"model of {path}.*{model}.* is no general recommender of RecBole, but a {kind} one"
    with pytest.raises(ConfigError, match=words):
        find(path, trust_checkpoint=trust)
    with pytest.raises(ConfigError, match=words):
        recbole_freqd.export(path, "out", trust=trust)
    with pytest.raises(ConfigError, match=words):
        analyze.load_with_data(path, config_of(), trust=trust)


def test_a_model_that_scores_by_chance_has_no_data_that_changed(stock, find):
    with pytest.raises(TeacherError, match="Random draws its scores anew each time it is asked"):
        find(stock("Random"))


# --- names are names ---------------------------------------------------------------------------

NAMES = ["toy[v2]", "toy[!x]", "to?y", "toy*", "toy{0}", "toy%d", "toy.v2", "toy$x$"]


@pytest.mark.parametrize("name", NAMES)
def test_the_identity_of_a_run_sees_the_files_of_its_dataset_whatever_it_is_called(
    config_of, tmp_path, name
):
    config = config_of(dataset=name)
    write(tmp_path / "data" / name / "..", f"{name}x")  # another, whose name only begins so
    first = planned_identity(config)["data"]
    assert list(first) == [f"{name}.inter"]
    file = tmp_path / "data" / name / f"{name}.inter"
    file.write_text("\n".join(file.read_text().splitlines()[:-50]) + "\n")
    assert planned_identity(config)["data"] != first


@pytest.mark.parametrize("name", NAMES)
def test_a_teacher_of_a_dataset_is_kept_compared_and_exported_whatever_it_is_called(
    config_of, name, caplog
):
    caplog.set_level("INFO")
    recipe = {"model": "BPR", "embedding_size": 8, "epochs": 1}
    keys = {"trainer": "FreqD", "epochs": 1}
    run = runs.run(config_of(dataset=name, teacher=recipe, **keys), test=False)
    runs.run(config_of(dataset=name, teacher={**recipe, "epochs": 2}, **keys), test=False)
    assert "differs (epochs was 1, is 2)" in caplog.text
    for path in (run.trainer.saved_model_file, run.trainer.teacher.checkpoint):
        folder = Path("out", Path(path).stem)
        assert recbole_freqd.export(path, folder)["dataset"] == name


# --- each reader's own words -------------------------------------------------------------------


def test_each_reader_is_told_in_its_own_words_what_it_can_do(stock, find, config_of, tmp_path):
    path = stock(eval_args={"mode": "uni5"})
    ways = {
        "teacher": (TeacherError, lambda: find(path), "set teacher.trust_data: true"),
        "export": (CheckpointError, lambda: recbole_freqd.export(path, "out"), "--trust_data"),
        "analysis": (
            TeacherError,
            lambda: analyze.load_with_data(path, config_of()),
            "--trust_data",
        ),
    }
    for reader, (error, act, way) in ways.items():
        with pytest.raises(error, match=f"cannot be checked.*{way}") as raised:
            act()
        assert ("teacher" in str(raised.value).lower()) is (reader == "teacher")
    assert recbole_freqd.export(path, "out", trust_data=True)["model"] == "BPR"
    assert analyze.load_with_data(path, config_of(), trust_data=True).metrics == {}


def test_a_class_of_ones_own_is_refused_in_the_words_of_the_reader(stock, find, config_of):
    class_of_mine = "tests.teacher.test_restore.write"

    def with_a_function(payload):
        payload["config"]["mine"] = write

    path = stock(changed=with_a_function)
    for act, way in (
        (lambda: find(path), "set teacher.trust_checkpoint: true"),
        (lambda: recbole_freqd.export(path, "out"), "give --trust_checkpoint"),
        (lambda: analyze.load_with_data(path, config_of()), "give --trust_checkpoint"),
    ):
        with pytest.raises(CheckpointError, match=f"{class_of_mine}.*{way}"):
            act()


@pytest.mark.parametrize("trainer", ["ddp", {"max_epochs": 3}, ["mine", "theirs"]])
def test_a_key_called_trainer_that_is_somebody_elses_is_no_hindrance(
    stock, find, config_of, trainer
):
    def with_it(payload):
        payload["config"]["trainer"] = trainer
        payload["config"]["teacher"] = {"checkpoint": "x", "allow_leakage": True}

    path = stock(changed=with_it)
    assert find(path).origin == "checkpoint"
    assert recbole_freqd.export(path, "out")["trainer"] is None
    taught = analyze.load_with_data(path, config_of())
    assert analyze._describe(taught, "it")["trainer"] == []
