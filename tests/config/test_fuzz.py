"""Configs and command lines that nobody should write: each runs, or ends in an error of ours.

The draws are the same in every run (``derandomize``): 200 configs and 20 runs, ten times as many
with the mark ``slow``.
"""

import copy
import math
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recbole_freqd.config.complete import names_ours
from recbole_freqd.core.errors import FreqDError
from recbole_freqd.core.schema import method_keys, read_keys
from recbole_freqd.losses import LOSSES

TEACHER = {"model": "BPR", "embedding_size": 8, "epochs": 1, "train_batch_size": 512}
OURS = sorted({key for name in LOSSES.names() for key in method_keys(name)} | {"trainer"})
HOSTS = sorted(read_keys("recbole.yaml"))
OF_TEACHERS = [f"teacher.{key}" for key in sorted(read_keys("teacher.yaml"))]
RECIPE = [
    f"teacher.{key}"
    for key in ("model", "embedding_size", "epochs", "learner", "learning_rate", "eval_args")
]
KEYS = st.sampled_from([*OURS, *HOSTS, *OF_TEACHERS, *RECIPE, "teacher", "model", "dataset"])

SURPRISES = [
    None, True, False, 0, 1, -1, 2, 2.5, 1e5, -0.0, math.nan, math.inf, -math.inf, 10**30, 10**400,
    -(2**63), 1e-320, "", " ", "yes", "no", "on", "1e5", "1e-3", "nan", "inf", "None", "null", "~",
    "true", "0x10", "1_000", "007", "5,5", "[", "[1, 2", "{}", "a.b", "../..", "/", "\0", "\n",
    "ünï", "日本", "\ud800", "x" * 5_000, "9" * 5_000, "linear", "adam", "FreqD", "BPR", "step",
    [], [None], [1], [0], [-1], ["a"], [[1]], [math.nan], list(range(200)), (1, 2), {}, {"a": 1},
    {1: 2}, {"a": {"b": []}}, {"RS": [1]}, "NDCG@10", "NDCG@", "@", "uni5", "[5,inf)", "(5",
    b"bytes", {1, 2}, 1j, object(),
]  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(SURPRISES),
    st.integers(-3, 70),
    st.floats(-1, 3),
    st.floats(),
    st.integers(),
    st.text(max_size=12),
    st.lists(st.one_of(st.integers(-2, 20), st.text(max_size=3), st.none()), max_size=3),
    st.dictionaries(st.text(max_size=4), st.integers(-2, 5), max_size=2),
)
# Values with a form of their own, nearly right.
PARTS = {
    "eval_args": st.fixed_dictionaries(
        {},
        optional={
            "split": st.one_of(
                st.dictionaries(
                    st.sampled_from(["RS", "LS", "TS", "XX"]),
                    st.one_of(
                        st.lists(st.floats(-0.5, 1), max_size=4),
                        st.sampled_from(["valid_and_test", "valid_only", "test_only", "", None]),
                    ),
                    max_size=2,
                ),
                VALUES,
            ),
            "order": st.sampled_from(["RO", "TO", "ro", None, 5]),
            "group_by": st.sampled_from(["user", "item", "none", None, 5]),
            "mode": st.one_of(
                st.sampled_from(["full", "uni5", "uni0", "uni", "pop3", "labeled", "x", None, 5]),
                st.dictionaries(
                    st.sampled_from(["valid", "test", "train"]),
                    st.sampled_from(["full", "uni5", 1]),
                ),
            ),
            "splt": st.just(1),
        },
    ),
    "metrics": st.lists(
        st.sampled_from(["NDCG", "ndcg", "Recall", "AUC", "GAUC", "MAE", "ndgc", "GiniIndex", 5]),
        max_size=3,
    ),
    "topk": st.one_of(st.lists(st.integers(-1, 50), max_size=3), st.integers(-1, 10**6)),
    "valid_metric": st.sampled_from(["NDCG@10", "ndcg@5", "NDCG", "AUC", "MRR@10", "", "@10", 5]),
    "train_neg_sample_args": st.fixed_dictionaries(
        {},
        optional={
            "distribution": st.sampled_from(["uniform", "popularity", "none", None, "unif", 5]),
            "sample_num": st.sampled_from([1, 2, 0, -1, 2.5, "1", None]),
            "alpha": st.sampled_from([1.0, 0, -5, math.inf, "1", None]),
            "dynamic": st.sampled_from([True, False, "yes"]),
            "candidate_num": st.sampled_from([0, 2, -1, "2"]),
            "distrbution": st.just("uniform"),
        },
    ),
    "clip_grad_norm": st.dictionaries(
        st.sampled_from(["max_norm", "norm_type", "max_nrm"]), st.sampled_from([5, 0, -1, "a", 2.0])
    ),
    "load_col": st.dictionaries(
        st.sampled_from(["inter", "user", "itner", 5]),
        st.one_of(
            st.lists(st.sampled_from(["user_id", "item_id", "rating", "", 5]), max_size=3),
            st.sampled_from(["*", None, "user_id", 5]),
        ),
    ),
    "user_inter_num_interval": st.sampled_from(
        ["[5,inf)", "[5", "5,inf", "", "[inf,5]", "[a,b]", "[1,2];[3,4)", "[1,2];", 5, [5, 9]]
    ),
    "val_interval": st.dictionaries(
        st.sampled_from(["rating", "user_id", "x"]), st.sampled_from(["[3,inf)", "[3", ["u1"], 5])
    ),
    "threshold": st.dictionaries(st.sampled_from(["rating", "x"]), st.sampled_from([3, "3", None])),
    "gpu_id": st.sampled_from(["0", "0,1", "a", "", "-1", -5, [0, 1], ["a"], "0 1", 99]),
    "freqd_filter": st.one_of(
        st.sampled_from(["linear", "quadratic", "linaer", ""]), st.lists(st.floats(), max_size=3)
    ),
    "trainer": st.sampled_from(["FreqD", "FD", ["FreqD", "FD"], "[FreqD,FD]", "FrqD", ["FD", 5]]),
    "teacher.model": st.sampled_from(
        ["BPR", "LightGCN", "bpr", "EASE", "SASRec", "a.b", "os.path"]
    ),
    "model": st.sampled_from(["BPR", "LightGCN", "NeuMF", "MultiDAE", "bpr", "SASRec", "FM", "."]),
    "dataset": st.sampled_from(["tiny", "nowhere", "", "..", "a/b"]),
}


@st.composite
def misspelt(draw):
    """A key that is not quite one."""
    key = draw(KEYS)
    place = draw(st.integers(0, len(key) - 1))
    letter = draw(st.sampled_from(["", "_", "x", key[0].upper(), " ", "-", ".", "é"]))
    return key[:place] + letter + key[place + 1 :]


@st.composite
def some_keys(draw, most=4):
    """Some keys with values that may be right, nearly right, or anything."""
    keys = draw(st.lists(st.one_of(KEYS, KEYS, KEYS, misspelt()), min_size=1, max_size=most))
    return {
        key: draw(st.one_of(PARTS[key], PARTS[key], VALUES) if key in PARTS else VALUES)
        for key in keys
    }


@st.composite
def configs(draw):
    """What a config_dict may hold, around a start that is right."""
    config = {"trainer": "FreqD", "teacher": dict(TEACHER), **draw(some_keys())}
    if draw(st.booleans()) and isinstance(config["teacher"], dict):  # dotted keys put below it
        for key in [key for key in config if key.startswith("teacher.")]:
            config["teacher"][key[len("teacher.") :]] = config.pop(key)
    for key in draw(st.sets(st.sampled_from(sorted(config)), max_size=1)):
        del config[key]
    return config


def fuzzed(examples):
    """Settings of a property test whose draws are the same in every run."""
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )


def check_message(error, *names):
    """An error of ours reads like one: short, of plain text, and it names what is at fault."""
    message = str(error)
    assert 20 < len(message) < 2_500, message
    assert "Traceback" not in message and 'File "' not in message
    message.encode("utf-8")
    assert any(name in message for name in names), (message, names)


def parts_of(key):
    """The names a message may call a key by."""
    from recbole_freqd.core.errors import short_repr

    return [key, key.rpartition(".")[2] or key, short_repr(key)[1:-1], key.partition(".")[0]]


def check_one_config(tiny_keys, config):
    """A config is accepted, or refused by an error of ours that names one of its keys."""
    from recbole.config import Config

    from recbole_freqd.config.make import teacher_config

    model, dataset = config.pop("model", "BPR"), config.pop("dataset", "tiny")
    names = ["model", "dataset", "trainer", "teacher", "valid_metric", "metrics", "freqd_filter"]
    names += [name for key in config for name in parts_of(key)]
    try:
        made = Config(model, dataset, config_dict={**tiny_keys, **config})
        if names_ours(made["trainer"]):
            teacher = made["teacher"]
            if teacher.get("checkpoint") is None:
                reserved = read_keys("teacher.yaml")
                teacher_config(made, {k: v for k, v in teacher.items() if k not in reserved})
    except FreqDError as error:
        check_message(error, *names)
        return str(error)
    except Exception:
        if config.get("trainer") is None:  # RecBole's own business, as it is without us
            return "not ours"
        raise
    return None


@pytest.fixture
def wide_open(host, tiny_keys, monkeypatch):
    """``check_one_config`` on the tiny data, as often as wanted."""
    import torch

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    tiny_keys = {**tiny_keys, "epochs": 1}
    return lambda config: check_one_config(copy.copy(tiny_keys), config)


def fuzz_configs(examples, check):
    outcomes = []

    @fuzzed(examples)
    @given(config=configs())
    def every_config_is_accepted_or_refused_in_our_words(config):
        outcomes.append(check(config))

    every_config_is_accepted_or_refused_in_our_words()
    # Else the draws would be too wild, or too tame, to show anything.
    accepted = outcomes.count(None)
    assert 0.02 * len(outcomes) < accepted < 0.9 * len(outcomes), accepted / len(outcomes)


def test_200_configs_are_accepted_or_refused_in_our_words(wide_open):
    fuzz_configs(200, wide_open)


@pytest.mark.slow
def test_2000_configs_are_accepted_or_refused_in_our_words(wide_open):
    fuzz_configs(2_000, wide_open)


# --- whole runs ------------------------------------------------------------------------------

# Near what is right: most of these run.
RUNNING = {
    "epochs": ["1", "2", "1.0", "0", "yes", "", "1e0"],
    "train_batch_size": ["1", "7", "100000", "0", "-1", "a", "64.0"],
    "eval_batch_size": ["1", "100", "0", "a"],
    "embedding_size": ["1", "3", "64", "0", "2.5", "[4]"],
    "learning_rate": ["0", "1e-3", "-1", "fast", "1e30", "nan", "1e5"],
    "learner": ["adam", "SGD", "AdamW", "rmsprop", "adagrad", "sparse_adam", "madgrad", "[]"],
    "weight_decay": ["0.1", "-1", "1e300", "a"],
    "eval_step": ["0", "1", "5", "-1", "a"],
    "stopping_step": ["0", "10", "-1"],
    "loss_decimal_place": ["0", "2", "-1", "1000", "a"],
    "metric_decimal_place": ["0", "2", "a"],
    "worker": ["0", "-1", "a"],
    "gpu_id": ["0", "", "7", "a", "[0,1]"],
    "seed": ["0", "1", "-1", "4294967296", "a"],
    "shuffle": ["True", "False", "no", "0"],
    "metrics": ["NDCG", "['ndcg','Hit']", "['MRR','AUC']", "['AUC']", "[]", "{}", "GAUC", "ndgc"],
    "topk": ["10", "[10]", "[1,10,40]", "[10,41]", "0", "ten", "[]", "10,20", "1000000"],
    "valid_metric": ["MRR@10", "ndcg@10", "NDCG", "NDCG@7", "loss", ""],
    "eval_args": [
        "{'mode':'uni5'}", "{'mode':'uni500'}", "{'mode':'labeled'}", "{'order':'TO'}", "{}",
        "{'split':{'LS':'valid_and_test'}}", "{'split':{'LS':'test_only'}}", "{'split':{}}",
        "{'split':{'RS':[1,0,0]}}", "{'split':{'RS':[0.5,0,0.5]}}", "{'group_by':None}", "[]",
        "{'split':{'RS':[8,1,1]}}", "{'split':{'RS':[1e-9,1,1]}}", "{'split':{'TS':[8,1,1]}}",
        "{'split':{'RS':[0.5,0.5,0]}}",
    ],
    "train_neg_sample_args": [
        "None", "{'distribution':'popularity'}", "{'sample_num':3}", "{'dynamic':True}",
        "{'dynamic':True,'candidate_num':2}", "{'alpha':-1000,'distribution':'popularity'}",
    ],
    "clip_grad_norm": ["{'max_norm':5}", "{'max_norm':1e-9,'norm_type':1}", "{'norm':5}", "5", "{}"],
    "load_col": [
        "{'inter':['user_id','item_id']}", "{'inter':['user_id']}", "{'inter':['a','b']}", "{}",
        "{'user':['user_id']}", "None", "{'inter':'*'}",
    ],
    "unused_col": ["{'inter':['user_id']}", "{'inter':['x']}"],
    "user_inter_num_interval": ["[1,inf)", "[1000,inf)", "(5", "[a,b]", "5"],
    "item_inter_num_interval": ["[9,inf)", "[0,0]", "x"],
    "val_interval": ["{'user_id':['u1','u2']}", "{'rating':'[3,inf)'}", "{'item_id':[]}"],
    "threshold": ["{'rating':3}", "{'item_id':3}"],
    "rm_dup_inter": ["first", "middle"],
    "normalize_all": ["True", "False"],
    "benchmark_filename": ["['train','valid','test']", "[]", "['a']"],
    "additional_feat_suffix": ["x", "['x']"],
    "field_separator": [",", "", "'  '"],
    "USER_ID_FIELD": ["user_id", "item_id", "nobody", ""],
    "ITEM_ID_FIELD": ["sku"],
    "TIME_FIELD": ["user_id"],
    "NEG_PREFIX": ["", "n_"],
    "LABEL_FIELD": ["user_id", ""],
    "data_path": ["nowhere", "", "/dev/null"],
    "checkpoint_dir": ["made", "a b", "", "/dev/null/x"],
    "dataset_save_path": ["nowhere.pth", ""],
    "dataloaders_save_path": ["nowhere.pth"],
    "repeatable": ["True", "False"],
    "state": ["ERROR", "error", "loud"],
    "transform": ["None", "crop_itemseq", "user_defined", "x"],
    "enable_amp": ["False", "True"],
    "reg_weight": ["0.1", "nan", "a"],
    "n_layers": ["1", "0", "a", "2.5"],
    "model": ["BPR", "LightGCN", "DMF", "MultiDAE", "ENMF", "FISM", "Pop", "SASRec", "FM", "", "5"],
    "dataset": ["tiny", "Tiny", "", "../tiny", "5"],
    "trainer": ["FreqD", "FD", "[FreqD,FD]", "None", "FreqX", "5"],
    "resume": ["True", "False", "2"],
    "local_rank": ["0"],
    "device": ["cuda"],
    "MODEL_TYPE": ["5"],
    "freqd_alpha": ["0", "1", "1.5", "a"],
    "freqd_beta": ["0", "1e-30", "1e30", "1e39", "-1"],
    "freqd_k": ["1", "1000", "10" + "0" * 40, "0"],
    "freqd_max_pairs": ["1", "10" + "0" * 40],
    "freqd_keep_prob": ["1", "1e-12", "0"],
    "freqd_mask": ["step", "epoch", "batch"],
    "freqd_filter": ["quadratic", "[1]", "[0]", "[1,-0.5,0.1]", "[]", "[1e300,1]", "cubic"],
    "freqd_distance": ["squared", "cosine", "manhattan"],
    "freqd_projector": ["mlp", "linear", "conv"],
    "freqd_experts": ["1", "10" + "0" * 40, "0"],
    "freqd_hidden": ["1", "null", "1000000000000000"],
    "freqd_dropout": ["0", "0.999999", "1"],
    "freqd_weight_decay": ["0.5", "1e300", "-1"],
    "teacher": ["None", "{}", "BPR", "{'model':'BPR','epochs':1}"],
    "teacher.model": ["BPR", "LightGCN", "EASE", "Pop", "NeuMF", "bpr", "", "os.path", "a.b"],
    "teacher.checkpoint": ["nowhere.pth", "", "/dev/null", ".", "\ud800"],
    "teacher.embedding_size": ["1", "16", "0", "a"],
    "teacher.epochs": ["1", "0"],
    "teacher.learning_rate": ["0", "1e30", "a"],
    "teacher.learner": ["sgd", "adamm"],
    "teacher.eval_step": ["0", "7"],
    "teacher.train_neg_sample_args": ["{'dynamic':True,'candidate_num':2}", "None", "{}"],
    "teacher.spectral_rank": ["4", "1000"],
    "teacher.precision": ["float16", "float8"],
    "teacher.memory_map": ["True", "False", "1"],
    "teacher.min_overlap": ["1", "2"],
    "teacher.n_layers": ["1"],
    "teacher.seed": ["1"],
    "teacher.": ["1"],
    "ünï": ["日本"],
    "a b": ["c d"],
    "": ["3"],
}  # fmt: skip
GARBAGE = [
    "--epochs", "epochs=1", "--epochs=1=2", "--", "-", "---epochs=1", "-e=1", "", " ", "'", '"',
    "--nproc", "--nproc=0", "--nproc=a", "--world_size=3", "--port", "--resume", "--resume=1",
    "--config_files", "--config_files=", "--config_files= ", "--config_files=missing.yaml",
    "--config_files=empty.yaml", "--config_files=list.yaml", "--config_files=broken.yaml",
    "--config_files=binary.yaml", "--config_files=.", "--config_files=" + "x" * 5_000,
    "--config_files=keys.yaml", "--output_dir=", "--output_dir=/dev/null", "-m", "-m=", "-d", "-d ",
    "--model=BPR", "-mBPR", "-dtiny", "--\ud800=1", "--embedding_size='8'", '--embedding_size="8"',
    "--embedding_size= 8", "--embeding_size=8", "--teacher.model.x=1", "--freqd.alpha=1",
]  # fmt: skip
FILES = {
    "empty.yaml": b"# nothing\n",
    "list.yaml": b"- epochs: 1\n- trainer: FreqD\n",
    "broken.yaml": b"epochs: [1\ntrainer: FreqD",
    "binary.yaml": bytes(range(256)),
    "keys.yaml": "1: 2\nyes: no\n2020-01-01: x\nnull: x\n? [a, b]\n: c\n日本: ü\n".encode(),
}


@st.composite
def command_lines(draw):
    """Arguments of the script; a few, and most of them nearly right."""
    arguments = []
    for key in draw(st.lists(st.sampled_from(sorted(RUNNING)), min_size=1, max_size=2)):
        arguments.append(f"--{key}={draw(st.sampled_from(RUNNING[key]))}")
    if draw(st.integers(0, 4)) == 0:
        arguments.insert(draw(st.integers(0, len(arguments))), draw(st.sampled_from(GARBAGE)))
    if draw(st.integers(0, 9)) == 0:
        arguments += draw(st.text(max_size=12)).split()
    return arguments


@pytest.fixture
def script(host, tiny_data, monkeypatch, capsys):
    """Runs the script on the tiny data: ``script(arguments) -> (exit code, what it said)``."""
    import torch

    from recbole_freqd.jobs import rows
    from recbole_freqd.jobs.script import main

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    # Nobody fuzzes a stopwatch.
    monkeypatch.setattr(rows, "ranking_latencies", lambda models: [1.0] * len(models))
    for name, content in FILES.items():
        Path(name).write_bytes(content)
    keys = {
        "data_path": str(tiny_data), "load_col": {"inter": ["user_id", "item_id"]},
        "embedding_size": 4, "epochs": 1, "train_batch_size": 512, "show_progress": False,
        "state": "CRITICAL", "trainer": "FreqD", "teacher": TEACHER, "metrics": ["MRR", "NDCG"],
        "valid_metric": "MRR@10", "topk": [10],
    }  # fmt: skip
    Path("right.yaml").write_text(yaml.safe_dump(keys), encoding="utf-8")

    def run(arguments):
        if not any(argument.startswith("--config_f") for argument in arguments):
            arguments = ["--config_files=right.yaml", *arguments]
        for option in ("-m=BPR", "-d=tiny"):
            if not any(argument.startswith(option[:2]) for argument in arguments):
                arguments = [option[:2], option[3:], *arguments]
        capsys.readouterr()
        try:
            code = main(arguments)
        except SystemExit as stop:
            code = stop.code
        return code, capsys.readouterr().err

    return run


def fuzz_runs(examples, script):
    outcomes = []

    @fuzzed(examples)
    @given(arguments=command_lines())
    def every_run_ends_well_or_with_one_message(arguments):
        code, said = script(arguments)
        outcomes.append(code)
        assert code in (0, 2)
        if code == 2:
            ours = said[said.rindex("run_recbole_freqd: ") :]
            assert "Traceback" not in said and 20 < len(ours) < 2_500, said

    every_run_ends_well_or_with_one_message()
    assert 0.1 < outcomes.count(0) / len(outcomes) < 0.9


def test_20_runs_end_well_or_with_one_message_and_exit_code_2(script):
    fuzz_runs(20, script)


@pytest.mark.slow
def test_200_runs_end_well_or_with_one_message_and_exit_code_2(script):
    fuzz_runs(200, script)
