"""config: one teacher, a list of them, a panel; and the keys beside them."""

import pytest
import yaml

from recbole_freqd.config.identity import run_identity
from recbole_freqd.config.make import alone_config, config_with, with_keys
from recbole_freqd.config.teaching import is_written
from recbole_freqd.core.errors import ConfigError
from recbole_freqd.core.schema import read_keys

BPR, EASE = {"model": "BPR", "embedding_size": 8}, {"model": "EASE"}


@pytest.fixture
def command_line(monkeypatch):
    return lambda *arguments: monkeypatch.setattr("sys.argv", ["script", *arguments])


@pytest.fixture
def file_of(tmp_path):
    def write(name, **keys):
        (tmp_path / name).write_text(yaml.safe_dump(keys))
        return str(tmp_path / name)

    return write


@pytest.fixture
def made(host, tiny_keys):
    """A Config of files, a dict and the command line."""
    from recbole.config import Config

    def make(*files, **keys):
        keys = {**tiny_keys, "trainer": "FreqD", **keys}
        return Config("BPR", "tiny", config_file_list=list(files), config_dict=keys)

    return make


# --- the list ----------------------------------------------------------------------------------


def test_a_list_of_one_is_its_teacher_and_a_panel_is_always_in_a_list(tiny_config):
    assert tiny_config(trainer="FreqD", teacher=[BPR])["teacher"] == BPR
    assert tiny_config(trainer="FreqD", teacher="Panel")["teacher"] == ["panel"]
    assert tiny_config(trainer="FreqD", teacher=(BPR, "PANEL"))["teacher"] == [BPR, "panel"]


def test_a_key_of_the_command_line_changes_the_teacher_at_its_place(made, file_of, command_line):
    low = file_of("low.yaml", teacher=[BPR, EASE, "panel"])
    command_line("--teacher.0.embedding_size=64", "--teacher.1.reg_weight=10")
    teacher = made(low)["teacher"]
    assert teacher == [{"model": "BPR", "embedding_size": 64}, {**EASE, "reg_weight": 10}, "panel"]
    changed = with_keys(made(low), {"teacher.0.epochs": 5})["teacher"]
    assert changed[0] == {"model": "BPR", "embedding_size": 64, "epochs": 5}


def test_what_is_higher_replaces_a_list_or_is_replaced_by_one(made, file_of):
    one, team = file_of("one.yaml", teacher=BPR), file_of("team.yaml", teacher=[BPR, EASE])
    assert made(one, team)["teacher"] == [BPR, EASE]
    assert made(team, teacher=[EASE, "panel"])["teacher"] == [EASE, "panel"]
    assert made(team, teacher={"checkpoint": "a.pth"})["teacher"] == {"checkpoint": "a.pth"}
    assert made(team, teacher="panel")["teacher"] == ["panel"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--teacher.epochs=5"],
            r"teacher\.epochs: got 5, but teacher is a list.*--teacher\.0\.ep",
        ),
        (["--teacher.model=BPR"], r"teacher\.model: got 'BPR', but teacher is a list"),
        (["--teacher.2.epochs=5"], r"teacher\.2\.epochs: got 5, but .* at place 2"),
        (["--teacher.1.k=5"], r"teacher\.1\.k: got 5, but teacher has no recipe or checkpoint"),
        (["--teacher.0=5"], r"teacher\.0: got 5, but teacher is a list"),
    ],
)
def test_a_dotted_key_beside_a_list_says_which_teacher_it_is_for(
    made, file_of, command_line, arguments, words
):
    low = file_of("low.yaml", teacher=[BPR, "panel"])
    command_line(*arguments)
    with pytest.raises(ConfigError, match=words):
        made(low)


def test_a_dotted_key_with_a_place_needs_a_list(made):
    with pytest.raises(ConfigError, match=r"teacher\.0\.epochs: got 5, but teacher is no list"):
        made(teacher=BPR, **{"teacher.0.epochs": 5})


def test_dotted_keys_alone_leave_a_plain_dict_which_a_checkpoint_can_keep(made):
    config = made(**{"teacher.model": "BPR"})
    assert type(config["teacher"]) is dict and type(config.external_config_dict["teacher"]) is dict
    idle = made(trainer=None, **{"teacher.model": "BPR"})
    assert type(idle.external_config_dict["teacher"]) is dict


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        ([], "there is no teacher"),
        ("pannel", r"teacher: got 'pannel'; allowed: nested keys.*or the word panel"),
        ([BPR, 5], r"teacher\.1: got 5; allowed: nested keys"),
        (["panel", "panel"], "one panel in a list"),
        ([EASE, {"epochs": 5}], r"teacher\.1: got .*names neither teacher\.1\.checkpoint nor"),
        ([EASE, {**BPR, "seed": 1}], r"'teacher\.1\.seed' is not allowed"),
        ([EASE, {**BPR, "precison": "float16"}], r"did you mean 'teacher\.1\.precision'"),
        ([EASE, {**BPR, "epochs": 0}], r"teacher\.1\.epochs: got 0"),
        ([EASE, {**BPR, "checkpoint": "a"}], r"teacher\.1 has two forms"),
    ],
)
def test_what_is_wrong_in_a_list_is_said_with_its_place(tiny_config, teacher, words):
    with pytest.raises(ConfigError, match=words):
        tiny_config(trainer="FreqD", teacher=teacher)


def test_what_the_user_gave_is_not_changed(tiny_config):
    given = [{"model": "BPR", "epochs": 3.0}, "Panel"]
    tiny_config(trainer="FreqD", teacher=given)
    assert given == [{"model": "BPR", "epochs": 3.0}, "Panel"] and type(given[0]["epochs"]) is float


# --- the keys beside it ------------------------------------------------------------------------


def test_every_key_has_its_default_where_a_trainer_is_named_and_freqrank_has_its_own(tiny_config):
    plain = tiny_config(trainer="KD", teacher=BPR)
    for file in ("run.yaml", "panel.yaml"):
        for key, spec in read_keys(file).items():
            if key != "resume":
                assert plain[key] == spec.default
    ours = tiny_config(trainer="FreqRank", teacher=BPR)
    assert (ours["teacher_filter"], ours["warm_start"]) == ("auto", "lists")
    both = tiny_config(trainer=["KD", "FreqRank"], teacher=BPR)
    assert (both["teacher_filter"], both["warm_start"]) == ("auto", "lists")
    said = tiny_config(trainer="FreqRank", teacher=BPR, teacher_filter="none", warm_start="None")
    assert (said["teacher_filter"], said["warm_start"]) == ("none", "none")


def test_it_is_known_what_the_user_has_written(tiny_config):
    config = tiny_config(trainer="FreqRank", teacher=BPR, teacher_weights="auto")
    assert is_written(config, "teacher_weights") and not is_written(config, "teacher_filter")
    config["teacher_filter_k"] = 3
    assert is_written(config, "teacher_filter_k") and not is_written(config, "warm_start")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"teacher_filter": 1.5}, r"teacher_filter: got 1\.5; allowed: none or auto or float in"),
        ({"teacher_filter": "atuo"}, "teacher_filter: got 'atuo'"),
        ({"teacher_filter_side": "both"}, "teacher_filter_side: got 'both'; allowed: auto or item"),
        ({"teacher_filter_k": 0}, "teacher_filter_k: got 0"),
        ({"teacher_filter_shrinkage": -1}, "teacher_filter_shrinkage: got -1"),
        ({"teacher_spread": 0}, "teacher_spread: got 0"),
        ({"teacher_weights": "equal"}, "teacher_weights: got 'equal'; allowed: auto or list of fl"),
        (
            {"teacher_weights": [1, 1]},
            r"teacher_weights: got \[1\.0, 1\.0\] for 3 entries of `teacher`",
        ),
        ({"teacher_weights": [1, -1, 1]}, r"one number of at least 0 for each"),
        ({"teacher_weights": [0, 0, 0]}, r"not all 0"),
        ({"warm_start": 5}, "warm_start: got 5"),
        ({"teacher_fitler": "auto"}, "'teacher_fitler'. Did you mean 'teacher_filter'"),
        ({"teacher_epochs": 5}, r"'teacher_epochs'\. .*stands below it: teacher\.epochs"),
        ({"warmstart": "teacher"}, "'warmstart'; did you mean 'warm_start'"),
        ({"panel_second": 5}, "'panel_second'; did you mean 'panel_seconds'"),
        ({"panel_models": ["BPR"]}, "panel_models: got 'BPR'; allowed: ShrunkKNN, GFCF, EASE"),
        ({"panel_seconds": 0}, "panel_seconds: got 0"),
    ],
)
def test_a_wrong_value_or_name_is_an_error(tiny_config, keys, words):
    with pytest.raises(ConfigError, match=words):
        tiny_config(trainer="FreqD", teacher=[BPR, EASE, "panel"], **keys)


def test_keys_without_effect_are_mentioned(tiny_config, caplog):
    tiny_config(trainer="FreqD", teacher=BPR, panel_seconds=5, teacher_weights=[1])
    assert "panel_seconds: no effect, since there is no panel" in caplog.text
    assert "teacher_weights: no effect, since there is one teacher" in caplog.text
    caplog.clear()
    tiny_config(teacher_filter="auto", teacher=[BPR, EASE])
    assert "teacher, teacher_filter: no effect, since no trainer is named" in caplog.text


@pytest.mark.parametrize("start", ["teacher", "lists"])
def test_a_warm_start_from_a_teacher_needs_a_trainer_and_the_error_names_the_way(
    tiny_config, start
):
    with pytest.raises(ConfigError, match=f"got {start}.*trainer: FreqRank and freqrank_beta: 0"):
        tiny_config(warm_start=start, teacher=BPR)


def test_the_student_alone_has_none_of_these_keys_and_another_trainer_all(tiny_config):
    keys = {"teacher_filter": 0.5, "teacher_weights": [1, 2], "warm_start": "teacher"}
    config = tiny_config(trainer="FreqD", teacher=[BPR, EASE], **keys)
    alone = alone_config(config)
    assert not [key for key in alone.final_config_dict if key.startswith(("teacher", "warm_"))]
    other = config_with(config, ["KD"])
    assert {key: other[key] for key in keys} == keys and other["teacher"] == [BPR, EASE]


def test_the_identity_of_a_run_tells_every_member_and_every_key_apart(tiny_config, built, tmp_path):
    _, (train_data, *_) = built("BPR")
    (tmp_path / "a.pth").write_bytes(b"1")
    path = str(tmp_path / "a.pth")

    def identity(**keys):
        config = tiny_config(trainer="KD", **{"teacher": [BPR, {"checkpoint": path}], **keys})
        return run_identity(config, train_data._dataset, None)["config"]

    first = identity()
    assert identity() == first
    for keys in (
        {"teacher": [{**BPR, "embedding_size": 16}, {"checkpoint": path}]},
        {"teacher_weights": [1, 2]},
        {"teacher_filter": 0.3},
        {"warm_start": path},
    ):
        assert identity(**keys) != first
    warm = identity(warm_start=path)
    (tmp_path / "a.pth").write_bytes(b"2")
    changed = identity(warm_start=path)
    assert changed["teacher"] != first["teacher"] and changed["warm_start"] != warm["warm_start"]
