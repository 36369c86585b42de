"""literals: strings of a config are read, never run."""

import subprocess
import sys
import types
from pathlib import Path

import pytest

from recbole_freqd import compat
from recbole_freqd.compat.literals import literal, strings_as_they_are
from recbole_freqd.config.make import teacher_config
from recbole_freqd.core.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]

# What the user writes, and what the config holds.
READ = {
    "3": 3,
    "-3": -3,
    "1e-3": 0.001,
    "[64, 32]": [64, 32],
    "(1, 2)": (1, 2),
    "{'split': {'RS': [8, 1, 1]}}": {"split": {"RS": [8, 1, 1]}},
    "None": None,
    "True": True,
    "true": True,
    "FALSE": False,
    "'quoted'": "quoted",
    "['[64,32]', '[8]']": ["[64,32]", "[8]"],
}
KEPT = [
    "BPR",
    "10-3",
    "0-8",
    "1/0",
    "2**999999999",
    "key",
    "value",
    "param",
    "config_dict",
    "os.foo",
    "len",
    "{1, 2}",
    "b'x'",
    "1j",
    "[1] * 3",
    "[FreqD,FD]",
    "lambda: 0",
    "f'{1}'",
    "",
    " ",
    "saved/BPR-Jan-01.pth",
    "C:\\new\\x",
]
CODE = "__import__('os').system('echo > made')"


@pytest.mark.parametrize("place", ["config_dict", "command line"])
@pytest.mark.parametrize("text", [*READ, *KEPT, CODE])
def test_a_string_is_read_as_a_literal_or_stays_what_it_is(tiny_config, monkeypatch, text, place):
    if place == "config_dict":
        config = tiny_config(note=text)
    else:
        monkeypatch.setattr(sys, "argv", ["run.py", f"--note={text}"])
        config = tiny_config()
    assert config["note"] == READ.get(text, text)
    assert type(config["note"]) is type(READ.get(text, text))
    assert not Path("made").exists()


@pytest.mark.parametrize("model", ["BPR", "SASRec"])
def test_a_config_without_a_trainer_runs_no_string_either(tiny_config, model):
    tiny_config(model, note=CODE, train_neg_sample_args=None)
    assert not Path("made").exists()


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "-" * 100_000 + "1", "(" * 5_000 + ")" * 5_000, "{1:" * 5_000, "9" * 10_000,
     "1+" * 5_000 + "1j", "a" + ".a" * 5_000, "\0", "\ud800", "not " * 5_000 + "1"],
    ids=lambda text: repr(text[:3]),
)  # fmt: skip
def test_a_string_made_to_break_the_parser_is_no_literal(text):
    with pytest.raises(NameError, match="is no literal"):
        literal(text)


@pytest.mark.parametrize("place", ["nested", "dotted"])
def test_a_string_for_the_teacher_is_not_run(tiny_config, teacher_recipe, place):
    teacher = {"teacher": {**teacher_recipe, "learning_rate": CODE}}
    if place == "dotted":
        teacher = {"teacher": teacher_recipe, "teacher.learning_rate": CODE}
    with pytest.raises(ConfigError, match=r"teacher\.learning_rate: got .__import__.*float"):
        tiny_config(trainer="FreqD", **teacher)
    assert not Path("made").exists()


def test_a_teacher_built_without_register_runs_no_string_either(host, tiny_config, teacher_recipe):
    """RecBole does not run what is nested; the teacher's own Config would."""
    host.unregister()
    compat.install_shims()
    config = tiny_config(teacher={**teacher_recipe, "learning_rate": CODE})
    with pytest.raises(ConfigError, match=r"teacher\.learning_rate: got .__import__"):
        teacher_config(config, config["teacher"])
    assert not Path("made").exists()


def test_unregistering_gives_recbole_its_own_habit_back(host, tiny_config):
    from recbole.config import configurator
    from recbole.trainer import hyper_tuning

    assert tiny_config(note="10-3")["note"] == "10-3"
    host.unregister()
    compat.install_shims()
    assert not {"eval"} & (set(vars(configurator)) | set(vars(hyper_tuning)))
    assert tiny_config(note="10-3")["note"] == 7


def test_strings_that_were_read_once_can_be_left_alone(tiny_config):
    with strings_as_they_are():
        assert tiny_config(note="[1]", other="true")["note"] == "[1]"
    assert tiny_config(note="[1]")["note"] == [1]


def test_the_student_alone_gets_the_strings_as_its_file_has_them(
    host, tiny_keys, teacher_recipe, tmp_path
):
    from recbole.config import Config

    from recbole_freqd.config.make import alone_config

    file = tmp_path / "run.yaml"
    file.write_text("note: '[1]'\nother: 'true'\nnumber: '10'\n")
    keys = {**tiny_keys, "trainer": "FreqD", "teacher": teacher_recipe, "note2": "[2]"}
    config = Config("BPR", "tiny", [str(file)], keys)
    alone = alone_config(config)
    for key in ("note", "other", "number", "note2", "embedding_size", "metrics", "data_path"):
        assert alone[key] == config[key], key
    assert (alone["note"], alone["other"], alone["note2"]) == ("[1]", "true", [2])


@pytest.fixture
def space_from(host, monkeypatch, tmp_path):
    """RecBole's HyperTuning, reading a file: what it finds by name."""
    hyperopt = types.ModuleType("hyperopt")
    hyperopt.hp = types.SimpleNamespace(choice=lambda name, values: values)
    monkeypatch.setitem(sys.modules, "hyperopt", hyperopt)
    from recbole.trainer.hyper_tuning import HyperTuning

    def read(text):
        file = tmp_path / "space.txt"
        file.write_text(text)
        return HyperTuning._build_space_from_file(str(file))

    return read


def test_the_choices_of_hyper_tuning_are_literals(space_from):
    text = "learning_rate choice [0.01, 0.1]\nmlp_hidden_size choice ['[64,32]', '[8]']\n"
    assert space_from(text) == {"learning_rate": [0.01, 0.1], "mlp_hidden_size": ["[64,32]", "[8]"]}


def test_code_among_the_choices_of_hyper_tuning_is_refused_and_not_run(space_from):
    with pytest.raises(ConfigError, match=r"params_file: .*no literal; allowed after `choice`"):
        space_from(f"learning_rate choice [{CODE}]\n")
    assert not Path("made").exists()


def test_the_script_runs_no_string_of_its_command_line():
    code = f"--freqd_alpha={CODE}"
    done = subprocess.run(
        [sys.executable, str(ROOT / "run_recbole_freqd.py"), code],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "freqd_alpha: got \"__import__('os')" in done.stderr
    assert not Path("made").exists()


@pytest.mark.parametrize("tag", ["object/apply:os.system", "object/new:os.system", "module:os"])
def test_a_config_file_cannot_make_yaml_call_anything(host, tmp_path, tag):
    from recbole_freqd.config.reading import asking_recbole, read_given

    file = tmp_path / "evil.yaml"
    file.write_text(f"note: !!python/{tag} ['echo > made']\n")
    with pytest.raises(ConfigError, match="cannot be read: ConstructorError"), asking_recbole():
        read_given([str(file)])
    assert not Path("made").exists()
