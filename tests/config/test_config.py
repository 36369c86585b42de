"""config: nested teachers, our defaults, and keys that RecBole would have ignored in silence."""

import copy
import logging
import re
import sys
from functools import cache
from pathlib import Path

import pytest
import recbole
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_freqd import compat
from recbole_freqd.config.complete import complete, complete_in_place, method_options, trainer_names
from recbole_freqd.config.make import teacher_config
from recbole_freqd.config.models import check_model_name, general_models
from recbole_freqd.config.reading import deep_merge, fold_dotted, no_command_line, read_given
from recbole_freqd.config.teacher import inherited_keys
from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.schema import method_keys
from recbole_freqd.losses import LOSSES

random_inputs = settings(deadline=None, database=None)
RECBOLE = Path(recbole.__file__).parent
METHOD_KEYS = [key for name in LOSSES.names() for key in method_keys(name).values()]


def keys_of_method(name):
    return {key: spec.default for key, spec in method_keys(name).items()}


def ours(config):
    """The keys of a Config that are ours."""
    prefixes = tuple(f"{LOSSES.get(name).prefix}_" for name in LOSSES.names())
    return {
        key: value
        for key, value in config.final_config_dict.items()
        if key in ("trainer", "teacher") or key.startswith(("teacher.", *prefixes))
    }


@pytest.fixture
def make_file(tmp_path):
    """Writes a YAML file: ``make_file(epochs=5) -> path``."""
    count = iter(range(100))

    def make(text=None, **keys):
        path = tmp_path / f"{next(count)}.yaml"
        path.write_text(yaml.safe_dump(keys) if text is None else text)
        return str(path)

    return make


@pytest.fixture
def command_line(monkeypatch):
    def give(*arguments):
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments])

    return give


@pytest.fixture
def without_hooks(host, tiny_config):
    """``tiny_config`` on a RecBole that runs, but knows nothing of us."""

    def make(*args, **keys):
        host.unregister()
        compat.install_shims()
        try:
            return tiny_config(*args, **keys)
        finally:
            host.register()

    return make


# --- trainer ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (None, []),
        ("None", []),
        ([], []),
        ("freqd", ["FreqD"]),
        ("FREQD", ["FreqD"]),
        (["fd"], ["FD"]),
        (["freqd", "Fd"], ["FreqD", "FD"]),
        (("fd", "FreqD"), ["FD", "FreqD"]),
    ],
)
def test_trainers_are_named_in_any_case_one_or_several(value, names):
    assert trainer_names(value) == names


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("FreqDD", r"Unknown trainer 'FreqDD'\. Did you mean 'FreqD'\? Allowed: .*FD, .*FreqD"),
        ("xyz", r"Unknown trainer 'xyz'\. Allowed: .*FD, .*FreqD"),
        (["FD", "FrqD"], r"Unknown trainer 'FrqD'\. Did you mean 'FreqD'\?"),
        (["FD", "fd"], r"trainer: \['FD', 'FD'\] names a loss twice"),
        (7, r"Unknown trainer 7\. Allowed"),
        ({"FreqD": 1}, r"Unknown trainer \{'FreqD': 1\}\. Did you mean 'FreqD'"),
    ],
)
def test_an_unknown_or_repeated_trainer_is_an_error(tiny_config, teacher_recipe, value, words):
    with pytest.raises(ConfigError, match=words):
        tiny_config(trainer=value, teacher=teacher_recipe)


def test_a_config_holds_the_registered_spelling_and_the_defaults_of_its_trainers_only(
    tiny_config, teacher_recipe
):
    alone = tiny_config()
    assert ours(alone) == {}
    one = tiny_config(trainer="fReQd", teacher=teacher_recipe)
    assert ours(one) == {
        "trainer": "FreqD",
        "teacher": teacher_recipe,
        **keys_of_method("FreqD"),
    }
    two = tiny_config(trainer=["fd", "freqd"], teacher=teacher_recipe, fd_beta=3)
    assert ours(two) == {
        "trainer": ["FD", "FreqD"],
        "teacher": teacher_recipe,
        **keys_of_method("FreqD"),
        **keys_of_method("FD"),
        "fd_beta": 3.0,
    }


# --- misspelt keys ---------------------------------------------------------------------------


@pytest.mark.parametrize("trainer", [{}, {"trainer": "FreqD"}], ids=["no trainer", "FreqD"])
@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("freq_alpha", "freqd_alpha"),
        ("freqd_alhpa", "freqd_alpha"),
        ("FreqD_alpha", "freqd_alpha"),
        ("freqd_keepprob", "freqd_keep_prob"),
        ("freqd_nothing_like_it", None),
        ("fd_bta", "fd_beta"),
        ("fd_alpha", None),
        ("trainr", "trainer"),
        ("Trainer", "trainer"),
        ("techer", "teacher"),
        ("teachr.embedding_size", "teacher"),
    ],
)
def test_a_misspelt_key_is_an_error_that_names_the_nearest(
    tiny_config, teacher_recipe, trainer, key, nearest
):
    hint = f"[Dd]id you mean '{nearest}'" if nearest else "Allowed: "
    with pytest.raises(ConfigError, match=rf"Unknown key '{re.escape(key)}'.*{hint}.*[Cc]orrect"):
        tiny_config(teacher=teacher_recipe, **trainer, **{key: 1})


def test_a_misspelt_key_is_found_in_a_file_and_on_the_command_line_too(
    host, tiny_config, make_file, command_line
):
    from recbole.config import Config

    teacher = {"model": "BPR"}
    with pytest.raises(ConfigError, match="'freq_alpha'; did you mean 'freqd_alpha'"):
        Config("BPR", "tiny", config_file_list=[make_file(freq_alpha=1, teacher=teacher)])
    command_line("--trainr=FreqD")
    with pytest.raises(ConfigError, match="'trainr'; did you mean 'trainer'"):
        tiny_config()


@cache
def keys_recbole_knows():
    """Every key in RecBole's YAML files, its lists of arguments, and that its source reads."""
    from recbole.config.configurator import Config

    lists = Config.__new__(Config)
    lists._init_parameters_category()
    keys = {key for names in lists.parameters.values() for key in names}
    for file in RECBOLE.glob("properties/**/*.yaml"):
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        keys |= set(content) if isinstance(content, dict) else set()
    for file in RECBOLE.rglob("*.py"):
        keys |= set(re.findall(r"config\[\s*[\"'](\w+)[\"']\s*\]", file.read_text("utf-8")))
    keys |= {"nproc", "world_size", "offset", "ip", "port", "local_rank"}
    return frozenset(keys)


def internal_keys(model):
    """What RecBole's own Config for this model starts from."""
    from recbole.config.configurator import Config

    keys = {}
    loader = Config._build_yaml_loader(None)  # reads 1e-3 as a number
    for file in ("overall", f"model/{model}", "dataset/sample"):
        path = RECBOLE / "properties" / f"{file}.yaml"
        keys.update((path.is_file() and yaml.load(path.read_text("utf-8"), loader)) or {})
    return keys


def test_there_are_keys_of_recbole_to_be_mistaken_about(host):
    assert len(keys_recbole_knows()) > 400
    assert {"ssl_temp", "weight_decay", "benchmark_filename", "norm"} <= keys_recbole_knows()
    assert len(general_models()) >= 30


@pytest.mark.parametrize("trainer", [None, "FreqD"])
def test_no_key_that_recbole_knows_is_taken_for_a_misspelling_whatever_the_model(host, trainer):
    from recbole.utils import (
        dataset_arguments,
        evaluation_arguments,
        general_arguments,
        training_arguments,
    )

    categories = {
        "General": general_arguments,
        "Training": training_arguments,
        "Evaluation": evaluation_arguments,
        "Dataset": dataset_arguments,
    }
    for model in general_models():
        internal = internal_keys(model)
        given_keys = {**dict.fromkeys(keys_recbole_knows()), **internal}
        given_keys.update(trainer=trainer, teacher={"model": "BPR"})
        complete(given_keys, internal, categories)


@pytest.mark.parametrize("model", ["BPR", "LightGCN", "NeuMF", "SimpleX", "RecVAE", "DiffRec"])
def test_a_teacher_may_be_given_every_key_of_its_model(tiny_config, model):
    file = RECBOLE / "properties" / "model" / f"{model}.yaml"
    stock = tiny_config(model).internal_config_dict
    own = {key: stock[key] for key in yaml.safe_load(file.read_text(encoding="utf-8"))}
    recipe = {"model": model, "epochs": 3, "learning_rate": 0.1, "weight_decay": 0.5, **own}
    config = tiny_config(trainer="FreqD", teacher=recipe)
    made = teacher_config(config, config["teacher"])
    assert {key: made[key] for key in recipe} == recipe


# --- values ----------------------------------------------------------------------------------

OUT_OF_RANGE = {
    "": [],
    "[0, 1]": [-0.01, 1.01],
    "(0, 1]": [0, 1.01],
    "[0, 1)": [-0.01, 1],
    "[0, 1000000]": [-0.01, 1e300],
    "[0, 100]": [-1, 101],
    ">= 0": [-0.01],
    ">= 1": [0, -3],
    ">= 2": [1, -3],
    "> 0": [0, -0.5],
}


def bad_values(key):
    unfit = [*OUT_OF_RANGE[key.range], "nonsense", float("nan"), float("inf"), {}, []]
    return unfit if "bool" in key.types else [*unfit, True]


@pytest.mark.parametrize("key", METHOD_KEYS, ids=lambda key: key.name)
def test_a_value_that_is_not_allowed_is_an_error_that_says_what_is(
    tiny_config, teacher_recipe, key
):
    trainer = key.file.split("/")[1].split(".")[0]
    for value in bad_values(key):
        with pytest.raises(
            ConfigError,
            match=rf"^{key.name}: got {re.escape(repr(value))}; allowed: {re.escape(key.allowed)}\.",
        ):
            tiny_config(trainer=trainer, teacher=teacher_recipe, **{key.name: value})


def test_values_are_put_in_their_type(tiny_config, teacher_recipe):
    config = tiny_config(
        trainer="FreqD",
        teacher=teacher_recipe,
        freqd_alpha=1,
        freqd_k="3",  # RecBole evaluates strings
        freqd_experts=2.0,  # HyperTuning's quniform draws floats
        freqd_distance="Squared",
        freqd_hidden="None",
    )
    values = [config[f"freqd_{name}"] for name in ("alpha", "k", "experts", "distance", "hidden")]
    assert values == [1.0, 3, 2, "squared", None]
    assert [type(value) for value in values[:3]] == [float, int, int]


def test_a_coefficient_list_stands_alone(tiny_config, teacher_recipe):
    given_keys = {"trainer": "FreqD", "teacher": teacher_recipe, "freqd_filter": [1, -0.5]}
    config = tiny_config(**given_keys)
    assert config["freqd_filter"] == [1.0, -0.5]
    options = method_options(config, "FreqD")
    assert "alpha" not in options
    assert options["filter"] == [1.0, -0.5]
    with pytest.raises(
        ConfigError, match=r"freqd_filter: got coefficients \[1\.0, -0\.5\] .* freqd_alpha=0\.5"
    ):
        tiny_config(**given_keys, freqd_alpha=0.5)


def test_a_named_filter_has_its_alpha_and_options_carry_no_prefix(tiny_config, teacher_recipe):
    config = tiny_config(trainer=["FD", "FreqD"], teacher=teacher_recipe, freqd_alpha=0.25)
    assert method_options(config, "FreqD")["alpha"] == 0.25
    every = {name.removeprefix("fd_") for name in method_keys("FD")}
    of_the_term = {"preference_items", "preference_tau"}  # without effect while it is off
    assert set(method_options(config, "FD")) == every - of_the_term
    config = tiny_config(trainer="FD", teacher=teacher_recipe, fd_preference_beta=0.1)
    assert set(method_options(config, "FD")) == every


def test_keys_of_the_mlp_beside_a_linear_projector_are_warned_of(
    tiny_config, teacher_recipe, caplog
):
    with caplog.at_level(logging.WARNING, logger="recbole_freqd"):
        tiny_config(trainer="FreqD", teacher=teacher_recipe, freqd_projector="linear")
        assert caplog.text == ""
        tiny_config(
            trainer="FreqD", teacher=teacher_recipe, freqd_projector="linear", freqd_experts=2
        )
    assert "freqd_experts: no effect with freqd_projector: linear" in caplog.text


# --- teacher ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, r"trainer is set but there is no teacher\. Add `teacher: \{checkpoint: "),
        ({"teacher": None}, "there is no teacher"),
        ({"teacher": {}}, r"there is no teacher.*--teacher\.model=BPR"),
        ({"teacher": "BPR"}, r"teacher: got 'BPR'; allowed: nested keys, either"),
        ({"teacher": ["BPR"]}, r"teacher\.0: got 'BPR'; allowed: nested keys"),
        ({"teacher": "BPR", "teacher.epochs": 3}, r"teacher: got 'BPR'; allowed: nested keys"),
        ({"teacher.epochs": 3}, r"\{'epochs': 3\}, which names neither teacher\.checkpoint nor"),
        ({"teacher": {"model": None}}, r"names neither teacher\.checkpoint nor teacher\.model"),
        ({"teacher": {"checkpoint": None}}, r"names neither teacher\.checkpoint nor"),
        (
            {"teacher": {"checkpoint": "a.pth", "model": "BPR", "epochs": 3}},
            r"two forms: teacher\.checkpoint='a\.pth' and .*\(teacher\.model, teacher\.epochs\)",
        ),
        ({"teacher": {"checkpoint": 5}}, r"checkpoint: got 5; allowed: null or str"),
        (
            {"teacher": {"checkpoint": "a.pth", "trust_checkpoint": "yes"}},
            r"trust_checkpoint: got 'yes'; allowed: bool",
        ),
        ({"teacher.chekpoint": "a.pth"}, r"'teacher\.chekpoint'; did you mean 'teacher\.check"),
        (
            {"teacher": {"checkpoint": "a.pth", "allow_leakge": True}},
            r"'teacher\.allow_leakge'; did you mean 'teacher\.allow_leakage'",
        ),
    ],
)
def test_a_teacher_that_is_missing_double_or_misspelt_is_an_error(tiny_config, keys, words):
    with pytest.raises(ConfigError, match=words):
        tiny_config(trainer="FreqD", **keys)


@pytest.mark.parametrize("key", ["dataset", "trainer", "teacher", "seed", "eval_args", "metrics"])
def test_a_teacher_has_no_world_of_its_own(tiny_config, key):
    with pytest.raises(
        ConfigError, match=rf"'teacher\.{key}' is not allowed: .* Set {key} at the top level"
    ):
        tiny_config(trainer="FreqD", teacher={"model": "BPR", key: 1})


def test_every_inherited_key_is_refused_as_the_teachers_own_and_no_training_key_is(tiny_config):
    categories = tiny_config().parameters
    inherited = inherited_keys(categories)
    assert {"gpu_id", "load_col", "eval_args", "worker", "topk", "repeatable"} <= inherited
    for key in sorted(inherited):
        with pytest.raises(ConfigError, match=rf"'teacher\.{key}' is not allowed"):
            tiny_config(trainer="FreqD", teacher={"model": "BPR", key: 1})
    stock = internal_keys("BPR")
    training = {key: stock[key] for key in [*categories["Training"], "embedding_size"]}
    complete({"trainer": "FreqD", "teacher": {"model": "BPR", **training}}, {}, categories)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (
            {"model": "BPR", "embeding_size": 8},
            r"'teacher\.embeding_size' for model BPR; did you mean 'teacher\.embedding_size'",
        ),
        ({"model": "BPR", "n_layers": 2}, r"Unknown key 'teacher\.n_layers' for model BPR"),
        (
            {"model": "LightGNC"},
            r"teacher\.model: 'LightGNC' is no general .*mean 'LightGCN'\? Allowed: ADMMSLIM, ",
        ),
        ({"model": "SASRec"}, r"teacher\.model: 'SASRec' is no general recommender of RecBole"),
        (
            {"model": "LightGCN", "n_layers": "[1]"},
            r"teacher\.n_layers: got \[1\]; allowed: a number, e\.g\. 2",
        ),
    ],
)
def test_a_recipe_that_its_model_cannot_follow_is_an_error(tiny_config, recipe, words):
    config = tiny_config(trainer="FreqD", teacher=recipe)
    with pytest.raises(ConfigError, match=words):
        teacher_config(config, config["teacher"])


def test_a_teacher_lives_in_the_students_world_and_trains_by_its_recipe(tiny_config, command_line):
    command_line("--embedding_size=32", "--epochs=7", "--seed=11")
    student = tiny_config(
        trainer="FreqD",
        teacher={"model": "LightGCN", "learning_rate": 0.5},
        learning_rate=0.25,
        train_batch_size=17,
        weight_decay=0.125,
        metrics=["Recall", "NDCG"],
        topk=[5, 10],
        eval_args={"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "uni20"},
        worker=0,
        log_wandb=True,
    )
    teacher = teacher_config(student, student["teacher"])
    for key in sorted(inherited_keys(student.parameters) - {"log_wandb"}):
        assert teacher[key] == student[key], key
    assert teacher["device"] == student["device"]
    assert (teacher["dataset"], teacher["seed"]) == ("tiny", 11)
    assert teacher["eval_args"]["mode"] == {"valid": "uni20", "test": "uni20"}
    assert teacher["log_wandb"] is False

    stock = {**internal_keys("LightGCN"), "learning_rate": 0.5}
    for key in ("embedding_size", "epochs", "train_batch_size", "weight_decay", "learning_rate"):
        assert teacher[key] == stock[key], key
    assert (student["embedding_size"], student["epochs"]) == (32, 7)
    assert teacher["model"] == "LightGCN"
    assert ours(teacher) == {}
    assert sys.argv[1] == "--embedding_size=32"

    teacher["eval_args"]["order"] = "changed"
    assert student["eval_args"]["order"] == "TO"


def test_the_command_line_is_back_after_an_error(monkeypatch):
    arguments = ["run.py", "--epochs=7"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(ZeroDivisionError), no_command_line():
        assert sys.argv == ["run.py"]
        1 / 0  # noqa: B018
    assert sys.argv is arguments


def test_a_model_class_of_ones_own_is_left_to_recbole_and_a_wrong_name_is_not(host):
    class Mine:
        pass

    check_model_name(Mine, "model")
    check_model_name("BPR", "model")
    with pytest.raises(ConfigError, match=r"^model: 'bpr' is no general .*Did you mean 'BPR'"):
        check_model_name("bpr", "model")


# --- merging ---------------------------------------------------------------------------------


def test_a_teacher_given_in_four_places_is_merged_deeply_and_the_later_one_wins(
    tiny_config, make_file, command_line, tiny_data
):
    from recbole.config import Config

    low = make_file(
        data_path=str(tiny_data),
        embedding_size=4,
        trainer="FreqD",
        teacher={"model": "BPR", "embedding_size": 8, "epochs": 1, "learning_rate": 0.1},
    )
    high = make_file(text="teacher.epochs: 2\nteacher:\n  weight_decay: 1e-3\nfreqd_k: 2\n")
    command_line("--teacher.embedding_size=32", "--freqd_k=4")
    config = Config(
        "BPR",
        "tiny",
        config_file_list=[low, high],
        config_dict={"teacher": {"learning_rate": 0.2}, "teacher.train_batch_size": 64},
    )
    assert ours(config) == {
        **keys_of_method("FreqD"),
        "freqd_k": 4,
        "trainer": "FreqD",
        "teacher": {
            "model": "BPR",
            "embedding_size": 32,
            "epochs": 2,
            "learning_rate": 0.2,
            "weight_decay": 0.001,
            "train_batch_size": 64,
        },
    }
    assert config["embedding_size"] == 4
    assert teacher_config(config, config["teacher"])["embedding_size"] == 32


def test_what_the_user_gives_is_read_as_a_config_reads_it(host, make_file, command_line):
    low = make_file(teacher={"model": "BPR", "epochs": 1}, epochs=3)
    high = make_file(teacher={"epochs": 2})
    command_line("--teacher.embedding_size=32", "--seed=5")
    assert read_given([low, high]) == {
        "teacher": {"model": "BPR", "epochs": 2, "embedding_size": 32},
        "epochs": 3,
        "seed": 5,
    }


names = st.sampled_from(["model", "epochs", "embedding_size", "a.b", "teachers"])
values = st.one_of(st.integers(), st.text(max_size=3), st.lists(st.integers(), max_size=2))
configs = st.builds(
    lambda flat, teacher: {**flat, **({"teacher": teacher} if teacher else {})},
    st.dictionaries(names, values),
    st.dictionaries(names, values),
)


@random_inputs
@given(config=configs)
def test_folding_is_the_way_back_from_dots_to_nested_keys(config):
    dotted = {key: value for key, value in config.items() if key != "teacher"}
    dotted.update({f"teacher.{key}": value for key, value in config.get("teacher", {}).items()})
    before = copy.deepcopy(dotted)
    folded = fold_dotted(dotted)
    assert folded == config
    assert fold_dotted(folded) == folded
    assert dotted == before


@random_inputs
@given(low=configs, middle=configs, high=configs)
def test_merging_keeps_all_of_the_teacher_lets_the_higher_win_and_changes_no_input(
    low, middle, high
):
    before = copy.deepcopy((low, middle, high))
    merged = deep_merge(low, high)
    teacher = {**low.get("teacher", {}), **high.get("teacher", {})}
    assert merged == {**low, **high, **({"teacher": teacher} if teacher else {})}
    assert deep_merge(deep_merge(low, middle), high) == deep_merge(low, deep_merge(middle, high))
    assert deep_merge({}, low) == deep_merge(low, {}) == low
    assert (low, middle, high) == before


def test_a_dotted_key_wins_over_the_nested_one_beside_it():
    folded = fold_dotted({"teacher.epochs": 2, "teacher": {"epochs": 1, "model": "BPR"}})
    assert folded == {"teacher": {"epochs": 2, "model": "BPR"}}


# --- configs without a trainer ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "keys"),
    [
        ("BPR", {"epochs": 5, "my_own_key": [1]}),
        ("LightGCN", {"eval_args": {"mode": "uni20"}, "trainer": None}),
        ("SASRec", {"train_neg_sample_args": None}),
        ("KD_DAGFM", {"teacher": "CIN"}),  # a key of RecBole's that is called like ours
    ],
)
def test_a_config_that_names_no_trainer_is_the_same_with_and_without_us(
    tiny_config, without_hooks, make_file, command_line, model, keys
):
    command_line("--learning_rate=0.5", "--topk=[5]")

    def content(make):
        config = make(model, **keys)
        return repr(config.final_config_dict), config.final_config_dict

    assert content(tiny_config) == content(without_hooks)


def test_files_without_a_trainer_are_read_the_same_with_and_without_us(
    host, without_hooks, make_file
):
    files = [make_file(text="epochs: 5\n7: x\nlearning_rate: 1e-3\n"), make_file(epochs=6)]

    def content():
        from recbole.config import Config

        return repr(Config("BPR", "tiny", config_file_list=files).final_config_dict)

    with_us = content()
    host.unregister()
    compat.install_shims()
    assert content() == with_us


# --- configs made without the hooks ----------------------------------------------------------

CHANGES = [
    {"trainer": "freqd"},
    {"trainer": ["fd", "FreqD"], "freqd_alpha": 1, "fd_projector": "Linear"},
    {"trainer": "FreqD", "freqd_filter": (1, -0.5)},
    {"trainer": "FreqD", "teacher.embedding_size": 16, "freqd_hidden": "None"},
]


@pytest.mark.parametrize("changes", CHANGES)
def test_keys_set_on_a_finished_config_give_what_the_hooks_give_and_doing_it_twice_no_more(
    tiny_config, without_hooks, teacher_recipe, changes
):
    changes = {"teacher": teacher_recipe, **changes}
    hooked = tiny_config(**copy.deepcopy(changes))
    config = without_hooks()
    for key, value in changes.items():
        config[key] = value
    for _ in range(3):
        complete_in_place(config)
        assert config.final_config_dict == hooked.final_config_dict
        assert {key: type(value) for key, value in ours(config).items()} == {
            key: type(value) for key, value in ours(hooked).items()
        }


@pytest.mark.parametrize("changes", CHANGES)
def test_a_config_made_with_the_hooks_is_complete_already(tiny_config, teacher_recipe, changes):
    config = tiny_config(**{"teacher": teacher_recipe, **changes})
    before = copy.deepcopy(config.final_config_dict)
    complete_in_place(config, default_trainer="FD")
    assert config.final_config_dict == before


def test_a_key_changed_on_a_finished_config_is_checked(tiny_config, teacher_recipe):
    config = tiny_config(trainer="FreqD", teacher=teacher_recipe)
    config["freqd_alpha"] = 2
    with pytest.raises(ConfigError, match="freqd_alpha: got 2; allowed"):
        complete_in_place(config)
    config["freqd_alpha"] = 1
    config["freqd_alhpa"] = 1
    with pytest.raises(ConfigError, match="Unknown key 'freqd_alhpa'"):
        complete_in_place(config)


def test_the_default_trainer_is_taken_where_none_is_named(without_hooks, teacher_recipe):
    config = without_hooks(teacher=teacher_recipe)
    complete_in_place(config)
    assert ours(config) == {"teacher": teacher_recipe}
    complete_in_place(config, default_trainer="FreqD")
    assert config["trainer"] == "FreqD"
    assert config["freqd_k"] == method_keys("FreqD")["freqd_k"].default
    named = without_hooks(teacher=teacher_recipe, trainer="fd")
    complete_in_place(named, default_trainer="FreqD")
    assert named["trainer"] == "FD"


def test_a_config_without_a_trainer_is_left_as_it_is(without_hooks):
    config = without_hooks()
    before = copy.deepcopy(config.final_config_dict)
    complete_in_place(config)
    assert config.final_config_dict == before


@pytest.mark.parametrize(
    "given", ["[FreqD,FD]", "['freqd', 'FD']", ["FreqD", "fd"], ("FreqD", "FD")]
)
def test_a_list_of_trainers_may_come_as_the_text_of_the_command_line(given):
    assert trainer_names(given) == ["FreqD", "FD"]


@pytest.mark.parametrize("given", [None, "None", "null", "", "[]", []])
def test_no_trainer_may_be_said_in_many_ways(given):
    assert trainer_names(given) == []


def test_keys_of_a_method_that_is_not_named_are_checked_and_said_to_be_idle(
    tiny_config, teacher_recipe, caplog
):
    with pytest.raises(ConfigError, match="fd_beta: got -1"):
        tiny_config(trainer="FreqD", teacher=teacher_recipe, fd_beta=-1)
    tiny_config(trainer="FreqD", teacher=teacher_recipe, fd_beta=0.5)
    assert "fd_beta has no effect: trainer is FreqD." in caplog.text


@pytest.mark.parametrize(
    "key", ["fc_dropout", "ffn_dropout", "d_hidden", "kd_beta", "d_beta", "train"]
)
def test_keys_of_own_models_are_not_taken_for_misspelt_ones(tiny_config, key):
    assert tiny_config(**{key: 0.5})[key] == 0.5


def test_keys_for_a_trainer_that_nobody_named_are_mentioned(tiny_config, teacher_recipe, caplog):
    tiny_config(teacher=teacher_recipe, freqd_alpha=0.5)
    assert "freqd_alpha, teacher: no effect, since no trainer is named" in caplog.text


@pytest.mark.parametrize(
    "key", ["spectral_rank", "trust_checkpoint", "allow_leakage", "min_overlap", "memory_map"]
)
def test_a_reserved_teacher_key_at_the_top_level_is_no_silent_nothing(
    tiny_config, teacher_recipe, key
):
    with pytest.raises(ConfigError, match=f"Unknown key '{key}'; did you mean 'teacher.{key}'"):
        tiny_config(teacher=teacher_recipe, **{key: 2})


def test_a_wrong_reserved_key_is_named_with_its_prefix(tiny_config, teacher_recipe):
    with pytest.raises(
        ConfigError, match=r"teacher.spectral_rank: got 0.*--teacher.spectral_rank="
    ):
        tiny_config(trainer="FreqD", teacher={**teacher_recipe, "spectral_rank": 0})
