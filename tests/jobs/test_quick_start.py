"""The script, the run function, and a student that needs nobody but RecBole."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from recbole_freqd.core.errors import ConfigError
from recbole_freqd.jobs.quick_start import run_recbole_freqd
from recbole_freqd.jobs.script import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tiny_file(tiny_data, tmp_path, host):
    """A config file for the tiny data, as a user would write it."""
    file = tmp_path / "tiny.yaml"
    file.write_text(
        textwrap.dedent(f"""
            data_path: {tiny_data}
            load_col: {{inter: [user_id, item_id]}}
            trainer: FreqD
            embedding_size: 4
            epochs: 2
            train_batch_size: 64
            show_progress: false
            state: ERROR
            teacher:
              model: LightGCN
              embedding_size: 8
              epochs: 2
        """)
    )
    return str(file)


@pytest.fixture
def without_trainer(tiny_file):
    """The same file, where the trainer is said to be None as YAML users write it."""
    Path(tiny_file).write_text(Path(tiny_file).read_text().replace("FreqD", "None"))
    return tiny_file


def script(*arguments):
    return main(["-m", "BPR", "-d", "tiny", *arguments])


def rows_in(folder):
    (saved,) = folder.glob("freqd_runs/*/results.json")
    return json.loads(saved.read_text())["rows"]


BASELINES = ["teacher", "teacher_int8", "cut", "student_alone", "student_warm"]


def test_the_script_shows_every_baseline_in_one_table_and_saves_it(tiny_file, capsys, tmp_path):
    assert script("--config_files", tiny_file, "--topk=[5,10]", "--valid_metric=NDCG@5") == 0
    printed = capsys.readouterr().out
    saved = list(tmp_path.glob("freqd_runs/tiny-BPR-FreqD-*/results.json"))
    assert len(saved) == 1 and str(saved[0].parent.relative_to(tmp_path)) in printed
    results = json.loads(saved[0].read_text())
    assert set(results) == {"dataset", "seed", "version", "config", "rows"}
    assert results["dataset"] == "tiny" and results["seed"] == 2020
    assert results["config"]["freqd_keep_prob"] == 0.5  # the defaults used are in it too
    assert results["config"]["teacher"]["model"] == "LightGCN"
    rows = results["rows"]
    assert [row["role"] for row in rows] == [*BASELINES, "distilled"]
    warm = ["FreqRank", None, "FreqRank"]
    assert [row["trainer"] for row in rows] == [None, None, *warm, "FreqD"]
    assert [row["model"] for row in rows] == ["LightGCN"] * 2 + ["BPR"] * 4
    assert [row["parameters"] for row in rows] == [8 * 72, 9 * 72] + [4 * 72] * 4
    assert [row["bytes_per_entity"] for row in rows] == [32, 12, 16, 16, 16, 16]
    for row in rows:
        assert (
            set(row["test"]) == {"recall@5", "recall@10", "ndcg@5", "ndcg@10"} == set(row["valid"])
        )
        assert row["label"] and 0 < row["coverage"] <= 1 and 0 <= row["gini"] < 1
        assert row["latency_ms_per_1k_users"] > 0 and Path(row["checkpoint"]).is_file()
    for row in rows[2:]:
        assert row["seconds_all_in"] > 0 and row["size_mb"] == pytest.approx(16 * 72 / 1e6)
    by_role = {row["role"]: row for row in rows}
    assert by_role["student_warm"]["valid"]["ndcg@5"] >= by_role["cut"]["valid"]["ndcg@5"]
    assert by_role["cut"]["seconds_per_epoch"] is None
    assert "student alone, warm" in printed and "smaller than the teacher" in printed
    assert "load_data_and_model" in printed and "run_recbole_freqd.py recommend saved/" in printed
    markdown = saved[0].with_name("results.md").read_text()
    assert markdown.count("\n|") == 8 and "test ndcg@5" in markdown


def without_a_trainer(file):
    text = Path(file).read_text()
    Path(file).write_text(text.replace("trainer: FreqD\n", ""))
    return file


def test_who_names_no_trainer_sees_freqrank_too_by_the_teacher_and_by_a_team(
    tiny_file, tmp_path, capsys
):
    file = without_a_trainer(tiny_file)
    assert script("--config_files", file, "--panel_models=['ShrunkKNN','EASE']") == 0
    rows = rows_in(tmp_path)
    roles = ["teacher", "team", "member", "member", *BASELINES[1:], *["distilled"] * 3]
    assert [row["role"] for row in rows] == roles
    assert [row["label"] for row in rows[-3:]] == ["FreqD", "FreqRank", "FreqRank by a team"]
    assert {row["model"] for row in rows[2:4]} == {"EASE", "ShrunkKNN"}
    assert set(rows[1]["weights"]) == {"LightGCN", "EASE", "ShrunkKNN"}
    assert sum(rows[1]["weights"].values()) == pytest.approx(1)
    assert all("weight" in row["label"] for row in rows[2:4])
    ease = next(row for row in rows if row["model"] == "EASE")
    # a dense matrix of items, and the histories: 12 items of each user, and where they begin
    assert ease["bytes_per_entity"] * 72 >= 4 * 41 * 41 + 4 * 30 * 9 + 8 * 31
    assert rows[1]["bytes_per_entity"] >= 32 and rows[1]["test"]["ndcg@10"] > 0
    best = max(rows[6:], key=lambda row: row["valid"]["ndcg@10"])
    assert f"Use {best['label']}: of all students it has the best" in capsys.readouterr().out


def test_what_the_data_or_the_student_does_not_allow_is_left_out_with_the_reason(
    tiny_file, tmp_path, capsys
):
    split = "--eval_args={'split':{'LS':'test_only'},'order':'RO','mode':'full'}"
    file = without_a_trainer(tiny_file)
    assert main(["-m", "MultiVAE", "-d", "tiny", "--config_files", file, split,
                 "--train_neg_sample_args=None", "--teacher.model=EASE"]) == 0  # fmt: skip
    assert [row["role"] for row in rows_in(tmp_path)] == [
        "teacher", "student_alone", "distilled", "distilled",
    ]  # fmt: skip
    printed = capsys.readouterr().out
    assert "Left out: teacher in int8, since the scores of EASE are not products" in printed
    assert "Left out: teacher cut to size, since MultiVAE cannot start warm" in printed


def test_a_list_of_teachers_has_a_row_for_the_team_and_one_for_each(tiny_file, tmp_path):
    teacher = "--teacher=[{'model':'BPR','embedding_size':8,'epochs':2},{'model':'ShrunkKNN'}]"
    weights = "--teacher_weights=[3,1]"
    assert script("--config_files", tiny_file, teacher, weights) == 0
    rows = rows_in(tmp_path)
    roles = ["team", "member", "member", "cut", "student_alone", "student_warm", "distilled"]
    assert [row["role"] for row in rows] == roles
    assert [row["label"] for row in rows[:4]] == [
        "team", "BPR, weight 0.75", "ShrunkKNN, weight 0.25", "team cut to size",
    ]  # fmt: skip


def test_the_same_command_with_resume_takes_all_that_is_finished(tiny_file, tmp_path, capsys):
    assert script("--config_files", tiny_file, "--resume") == 0
    first = rows_in(tmp_path)
    (folder,) = tmp_path.glob("freqd_runs/*")
    folder.rename(tmp_path / "first")
    before = set(tmp_path.glob("saved/*.pth"))
    assert script("--config_files", tiny_file, "--resume") == 0
    assert set(tmp_path.glob("saved/*.pth")) == before
    kept = ("role", "valid", "test", "checkpoint", "coverage", "gini")
    for row, again in zip(first, rows_in(tmp_path)):
        assert {key: row[key] for key in kept} == {key: again[key] for key in kept}


def test_a_dotted_key_changes_the_default_teacher_and_another_model_replaces_it(tiny_file, capsys):
    from recbole_freqd.jobs.defaults import fill_in
    from recbole_freqd.jobs.script import parse

    options, _ = parse([])
    sys.argv = ["x", "--teacher.embedding_size=128"]
    model, dataset, _, low = fill_in(options, [])
    assert (model, dataset, low["trainer"]) == ("BPR", "ml-100k", "FreqD")
    assert low["teacher"]["embedding_size"] == 128 and low["teacher"]["model"] == "BPR"
    sys.argv = ["x", "--teacher.model=LightGCN"]
    assert fill_in(options, [])[3]["teacher"] == {"model": "LightGCN"}
    given = {"model": "LightGCN", "embedding_size": 8, "epochs": 2}
    assert fill_in(options, [tiny_file])[3]["teacher"] == given


@pytest.mark.parametrize(
    ("argument", "gone"),
    [
        ("--trainer=FD", {"freqd_alpha", "freqd_beta", "freqd_k"}),
        ("--trainer=None", {"freqd_alpha", "freqd_beta", "freqd_k"}),
        ("--freqd_filter=[1.0,-0.5]", {"freqd_alpha"}),
        ("--freqd_filter=quadratic", set()),
        ("--freqd_k=7", {"freqd_k"}),
    ],
)
def test_what_the_main_job_sets_for_freqd_never_meets_another_job(host, argument, gone):
    from recbole_freqd.jobs.defaults import fill_in
    from recbole_freqd.jobs.script import parse

    options, _ = parse([])
    sys.argv = ["x"]
    usual = {key for key in fill_in(options, [])[3] if key.startswith("freqd_")}
    sys.argv = ["x", argument]
    filled = fill_in(options, [])[3]
    key, _, value = argument[2:].partition("=")
    assert str(filled[key]).replace(" ", "") == value  # what was given stays above the defaults
    low = {name for name in filled if name.startswith("freqd_")} - {key}
    assert gone <= usual and low == usual - gone


def test_a_comparison_takes_nothing_that_freqd_alone_was_tuned_with(host):
    from recbole_freqd.jobs.defaults import fill_in
    from recbole_freqd.jobs.script import parse

    options, _ = parse(["compare", "FreqD,FD"])
    sys.argv = ["x"]
    low = fill_in(options, [], for_one_method=False)[3]
    tuned = {"learning_rate", "weight_decay"}
    assert not tuned & set(low) and not tuned & set(low["teacher"])
    assert not [key for key in low if key.startswith("freqd_")]


def test_coefficients_on_the_command_line_are_no_contradiction_to_the_scripts_alpha(tiny_file):
    assert script("--config_files", tiny_file, "--freqd_filter=[1.0,-0.5]") == 0


def test_the_trainer_can_be_taken_away_then_the_student_trains_alone(tiny_file, tmp_path):
    assert script("--config_files", tiny_file, "--trainer=None") == 0
    (saved,) = tmp_path.glob("freqd_runs/tiny-BPR-alone-*/results.json")
    assert [row["role"] for row in json.loads(saved.read_text())["rows"]] == ["student_alone"]


def test_none_in_a_yaml_file_is_no_trainer_either(without_trainer, tmp_path):
    assert script("--config_files", without_trainer) == 0
    assert run_recbole_freqd("BPR", "tiny", [without_trainer])["teacher_test_result"] is None


def test_without_a_test_split_the_table_stays_empty_there(tiny_file, tmp_path):
    split = "--eval_args={'split':{'LS':'valid_only'},'order':'RO','mode':'full'}"
    assert script("--config_files", tiny_file, split) == 0
    (saved,) = tmp_path.glob("freqd_runs/*/results.json")
    assert [row["test"] for row in json.loads(saved.read_text())["rows"]] == [{}] * 6


def test_an_own_model_class_goes_through_the_run_function(tiny_file):
    from recbole.model.general_recommender import BPR

    class MyModel(BPR):
        pass

    # Not saved: a class inside a function cannot be pickled.
    for trainer in (None, "FreqD"):
        result = run_recbole_freqd(MyModel, "tiny", [tiny_file], {"trainer": trainer}, saved=False)
        assert "ndcg@10" in result["test_result"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trainer=FreqX"], "Unknown trainer 'FreqX'. Did you mean 'FreqD'?"),
        (["--freq_alpha=0.5"], "Unknown key 'freq_alpha'; did you mean 'freqd_alpha'?"),
        (
            ["--freqd_alhpa=0.5"],
            "Unknown key 'freqd_alhpa' of trainer FreqD. Did you mean 'freqd_alpha'",
        ),
        (["--freqd_alpha=1.5"], "freqd_alpha: got 1.5; allowed: float in [0, 1]"),
        (["--teacher.checkpoint=a.pth"], "teacher has two forms"),
        (["--teacher=None"], "there is no teacher"),
        (["--teacher.seed=1"], "'teacher.seed' is not allowed"),
        (["--nproc", "9999"], "--nproc: got 9999, but this machine has"),
        (["--nproc", "0"], "--nproc: got 0; allowed: 1 or more"),
        (["-m", "BRP"], "model: 'BRP' is no general recommender of RecBole. Did you mean 'BPR'?"),
        (["-m", "EASE"], "EASE cannot be a student"),
        (["--teacher.model=EASE", "--teacher.spectral_rank=0"], "spectral_rank: got 0; allowed"),
        (["--teacher.spectral_rank=8"], "the features of LightGCN are exact"),
        (["-d", "nowhere"], "RecBole does not accept"),
        (["--config_files", "missing.yaml"], "missing.yaml does not exist"),
        (["--topk=[0,10]"], "topk must be a positive integer"),
        (["--topk=5"], "valid_metric: got 'NDCG@10', which metrics and topk do not compute"),
        (["--embedding_size=abc"], "embedding_size: got 'abc'; allowed: int in [1, 1000000]"),
        (["--learning_rate=abc"], "learning_rate: got 'abc'; allowed: float in [0, 1000000]"),
        (["--epochs=0"], "epochs: got 0; allowed: int in [1, 1000000000]"),
        (["--teacher.embedding_size=0"], "teacher.embedding_size: got 0"),
        (["--teacher.epochs=abc"], "teacher.epochs: got 'abc'"),
        (["--freqd={'alpha':0.3}"], "freqd: got nested keys"),
    ],
)
def test_a_mistake_ends_in_one_message_exit_code_2_and_nothing_half_written(
    tiny_file, tmp_path, capsys, arguments, message
):
    assert script("--config_files", tiny_file, *arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err
    assert not list(tmp_path.glob("freqd_runs/*")) and not list(tmp_path.glob("saved/*"))


def test_a_missing_teacher_checkpoint_is_one_message_too(tiny_file, tmp_path, capsys):
    recipe = Path(tiny_file).read_text().split("teacher:")[0]
    Path(tiny_file).write_text(recipe + "teacher: {checkpoint: saved/none.pth}\n")
    assert script("--config_files", tiny_file) == 2
    assert "Checkpoint saved/none.pth does not exist" in capsys.readouterr().err
    assert not list(tmp_path.glob("freqd_runs/*"))


def test_a_key_may_hold_spaces():
    from recbole_freqd.jobs.script import parse

    words = ["--teacher={'model': 'BPR'}", "--topk=[5, 10]", "--embedding_size=3"]
    assert sorted(parse(words)[1]) == sorted(words)
    options, keys = parse(["tune", "FD", "--topk=[5, 10]"])
    assert (options.space, keys) == (["FD"], ["--topk=[5, 10]"])
    assert parse(["analyze", "s.pth", "--teacher=my teacher.pth"])[0].teacher == "my teacher.pth"


def test_debug_shows_the_traceback(tiny_file):
    with pytest.raises(ConfigError, match="Unknown trainer"):
        script("--config_files", tiny_file, "--trainer=FreqX", "--debug")


@pytest.mark.parametrize("argument", ["--flag", "--a=b=c", "word"])
def test_arguments_recbole_would_ignore_are_refused(argument, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([argument])
    assert "is not of the form --key=value" in capsys.readouterr().err


def test_help_and_version_need_neither_torch_nor_recbole():
    code = "import sys; sys.argv = ['x', {!r}]\ntry:\n    import recbole_freqd.jobs.script as q; q.main()\nexcept SystemExit: pass\nprint({{'torch', 'recbole'}} & set(sys.modules))"
    for flag in ("--help", "--version"):
        done = subprocess.run(
            [sys.executable, "-c", code.format(flag)], capture_output=True, text=True, cwd=ROOT
        )
        assert done.stdout.splitlines()[-1] == "set()", done.stderr
        assert "recbole_freqd" in done.stdout


def test_the_run_function_returns_recboles_keys_and_the_teachers_test_result(tiny_file):
    result = run_recbole_freqd("BPR", "tiny", [tiny_file], {"freqd_beta": 0.5})
    assert set(result) == {
        "best_valid_score", "valid_score_bigger", "best_valid_result", "test_result",
        "teacher_test_result", "member_test_results", "seconds_to_best", "seconds_all_in",
        "best_epoch", "seconds_choosing",
    }  # fmt: skip
    assert result["seconds_choosing"] == 0  # nothing was auto
    assert 0 < result["seconds_to_best"] <= result["seconds_all_in"] and result["best_epoch"] >= 1
    assert set(result["teacher_test_result"]) == set(result["test_result"])


def test_the_run_function_trains_alone_where_no_trainer_is_named(tiny_file):
    result = run_recbole_freqd("BPR", "tiny", [tiny_file], {"trainer": None, "teacher": None})
    assert result["teacher_test_result"] is None and result["test_result"]


LOAD_WITH_RECBOLE_ALONE = """
import json, sys, types
sys.modules["recbole_freqd"] = None  # importing it now fails
import numpy as np
for name, kind in (("float_", np.float64), ("complex_", np.complex128), ("unicode_", np.str_)):
    if name not in np.__dict__:
        setattr(np, name, kind)
for name in ("bool", "int", "float", "complex", "object", "str", "long", "unicode"):
    if name not in np.__dict__:
        setattr(np, name, getattr(np, {"long": "int_", "unicode": "str_", "int": "int_"}.get(name, name + "_")))
import scipy.sparse
if not hasattr(scipy.sparse.dok_matrix, "_update"):
    scipy.sparse.dok_matrix._update = lambda self, data: self._dict.update(data)
ray = types.ModuleType("ray"); ray.tune = types.ModuleType("ray.tune")
sys.modules["ray"], sys.modules["ray.tune"] = ray, ray.tune
from recbole.quick_start import load_data_and_model
from recbole.trainer import Trainer
files, sys.argv = sys.argv[1:], sys.argv[:1]
for file in files:
    config, model, dataset, train, valid, test = load_data_and_model(file)
    trainer = Trainer(config, model)
    trainer.eval_collector.data_collect(train)
    result = trainer.evaluate(test, load_best_model=False)
    result = {k: float(v) for k, v in result.items()}
    print(json.dumps({"result": result, "class": type(model).__module__}))
"""


def test_a_distilled_student_loads_and_evaluates_without_this_package(
    tiny_config, teacher_recipe, tmp_path
):
    """The stubs in the subprocess are what RecBole itself lacks on today's packages."""
    import os

    from recbole_freqd.jobs import run as runs

    done_by = {
        name: runs.run(tiny_config(name, trainer="FreqD", teacher=teacher_recipe))
        for name in ("BPR", "LightGCN")
    }
    files = [run.trainer.saved_model_file for run in done_by.values()]
    environment = {**os.environ, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOAD_WITH_RECBOLE_ALONE, *files],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()[-len(files) :]
    for run, loaded in zip(done_by.values(), map(json.loads, lines)):
        assert loaded["result"] == run.test_result
        assert loaded["class"].startswith("recbole.model.general_recommender")


def test_the_results_of_a_run_name_every_member_of_a_team_and_the_team(
    tiny_keys, teacher_recipe, host
):
    from recbole_freqd import run_recbole_freqd

    keys = {**tiny_keys, "trainer": "FreqD", "valid_metric": "NDCG@10"}
    team = [teacher_recipe, {"model": "ShrunkKNN"}]
    result = run_recbole_freqd(
        "BPR", "tiny", config_dict={**keys, "teacher": team, "teacher_weights": [1, 1]}
    )
    named = [(one["name"], one["model"], one["weight"]) for one in result["member_test_results"]]
    assert named == [("BPR", "BPR", 0.5), ("ShrunkKNN", "ShrunkKNN", 0.5)]
    alone = [run_recbole_freqd("BPR", "tiny", config_dict={**keys, "teacher": one}) for one in team]
    for member, single in zip(result["member_test_results"], alone):
        assert member["test"] == single["teacher_test_result"]
        assert member["valid"] == single["member_test_results"][0]["valid"]
    assert set(result["teacher_test_result"]) == set(result["test_result"])
    assert result["teacher_test_result"] not in [one["teacher_test_result"] for one in alone]


def test_a_filtered_teacher_is_evaluated_unfiltered(tiny_keys, teacher_recipe, host):
    from recbole_freqd import run_recbole_freqd

    keys = {**tiny_keys, "trainer": "KD", "valid_metric": "NDCG@10", "teacher": teacher_recipe}
    keys.update(kd_beta=100.0, learning_rate=0.05)  # so that the student is another one
    plain = run_recbole_freqd("BPR", "tiny", config_dict=keys)
    filtered = run_recbole_freqd("BPR", "tiny", config_dict={**keys, "teacher_filter": 0.8})
    assert filtered["teacher_test_result"] == plain["teacher_test_result"]
    assert filtered["test_result"] != plain["test_result"]
