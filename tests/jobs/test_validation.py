"""Jobs that choose by validation data refuse at the start where there is none."""

import re
from pathlib import Path

import pytest
import yaml

import recbole_freqd
from recbole_freqd.core.errors import ConfigError, TrainingError
from recbole_freqd.jobs import run as runs
from recbole_freqd.jobs.script import main
from recbole_freqd.jobs.validation import check_validation, missing_parts, validation_score

NONE_LEFT = {
    "leave one out": {"eval_args": {"split": {"LS": "test_only"}}},
    "a ratio of zero": {"eval_args": {"split": {"RS": [0.8, 0, 0.2]}}},
    "over all users": {"eval_args": {"split": {"RS": [9, 0.0, 1]}, "group_by": "none"}},
    "never": {"eval_step": 0},
}


@pytest.fixture(autouse=True)
def nothing_is_trained(monkeypatch):
    """A job that gets as far as a run fails at once."""
    monkeypatch.setattr(runs, "run", None)


@pytest.fixture
def script(tiny_keys, teacher_recipe, tmp_path, capsys):
    """``script("tune", ...)`` on the tiny data: exit code and what it said."""

    def run(*words, **keys):
        file = tmp_path / "run.yaml"
        own = {"model": "BPR", "dataset": "tiny", "trainer": "FreqD", "teacher": teacher_recipe}
        file.write_text(yaml.safe_dump({**tiny_keys, "valid_metric": "NDCG@10", **own, **keys}))
        return main([*words, "--config_files", str(file)]), capsys.readouterr().err

    return run


@pytest.mark.parametrize("split", NONE_LEFT.values(), ids=NONE_LEFT)
@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["compare", "FreqD", "--tune", "2", "--tune_only"], None),
        (["tune", "FreqD"], "hyperopt"),
        (["sweep", "freqd_alpha=0,1"], "matplotlib"),
    ],
)
def test_a_job_that_chooses_by_validation_refuses_a_config_without_any(
    host, script, split, words, extra
):
    if extra:
        pytest.importorskip(extra)
    code, said = script(*words, **split)
    named = "eval_step: 0" if "eval_step" in split else "there is no validation data"
    assert code == 2 and named in said and "Allowed:" in said
    assert not list(Path("freqd_runs").glob("*/*.jsonl"))


@pytest.mark.parametrize(
    "eval_args",
    [
        {"split": {"LS": "valid_only"}},
        {"split": {"RS": [0.8, 0.2, 0]}},
        {"split": {"RS": [0.8, 0.2, 0.0]}, "group_by": "user"},
    ],
)
def test_a_comparison_refuses_a_split_without_a_test_part_before_its_first_run(
    host, tiny_keys, teacher_recipe, eval_args
):
    keys = {**tiny_keys, "valid_metric": "NDCG@10", "teacher": teacher_recipe}
    with pytest.raises(ConfigError, match=r"compare goes by test ndcg@10.*there is no test data"):
        recbole_freqd.compare(
            ["FD"], "BPR", "tiny", config_dict={**keys, "eval_args": eval_args}, seeds=[1]
        )


def test_parts_that_are_there_are_not_missed(tiny_config):
    for split in ({"LS": "valid_and_test"}, {"RS": [0.8, 0.1, 0.1]}, {"RS": [8, 1, 1]}):
        config = tiny_config(eval_args={"split": split})
        assert missing_parts(config) == set()
        check_validation(config, "tune")


def test_a_run_that_was_never_validated_has_no_score():
    def run(score, result):
        return runs.Run(None, None, None, (None,) * 3, score, result, *[None] * 5)

    assert validation_score(run(0.5, {"ndcg@10": 0.5})) == 0.5
    for score in (float("-inf"), float("inf"), float("nan"), -1.0):
        with pytest.raises(TrainingError, match="never validated"):
            validation_score(run(score, {} if score == -1.0 else {"ndcg@10": score}))


# --- keys that a job fixes itself ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep", "model=BPR,LightGCN"], "sweep: model cannot be searched.* -m"),
        (["sweep", "seed=1,2"], "sweep: seed cannot be searched.* --seeds"),
        (["sweep", "dataset=tiny,ml-100k"], "sweep: dataset cannot be searched.* -d"),
        (["sweep", "trainer=FreqD,FD"], "sweep: trainer cannot be searched.* compare FreqD,FD"),
        (["sweep", "valid_metric=NDCG@10,Recall@10"], "sweep: valid_metric cannot be searched"),
        (["sweep", "topk=5,10"], "sweep: topk cannot be searched"),
        (["sweep", "resume=True,False"], "sweep: resume cannot be searched"),
        (["sweep", "gpu_id=0,1"], "sweep: gpu_id cannot be searched"),
        (["sweep", "freqd_k=5,10", "--freqd_k=7"], "--freqd_k=... fixes what sweep runs"),
        (["sweep", "teacher.epochs=1,2", "--teacher={'epochs':3}"], "--teacher=... fixes what"),
        (["sweep", "freqd_alpha=0.5,0.50"], "freqd_alpha=0.5 and freqd_alpha=0.50 are one and the"),
        (["sweep", "on=1,2"], "sweep: nothing in this run reads the key 'on'"),
        (["sweep", "n_layers=1,2"], "sweep: nothing in this run reads the key 'n_layers'"),
        (["compare", "FD", "--trainer=FD"], "--trainer=... does not go with a comparison"),
        (["compare", "FD", "--seed=3"], "comparison: --seeds sets the seeds"),
        (["compare", "FD", "--seeds=1,2", "--seed=3"], "comparison: --seeds sets the seeds"),
    ],
)
def test_a_key_that_a_job_fixes_itself_is_refused_with_where_it_belongs(
    host, script, words, message
):
    pytest.importorskip("matplotlib")
    code, said = script(*words)
    assert code == 2 and re.search(message, said.replace("`", "")), said


@pytest.mark.parametrize("key", ["model", "trainer", "seed", "resume", "gpu_id", "eval_args"])
def test_what_all_trials_share_is_in_no_space(host, script, tmp_path, key):
    pytest.importorskip("hyperopt")
    (tmp_path / "own.hyper").write_text(f"{key} choice [1,2]\n")
    code, said = script("tune", str(tmp_path / "own.hyper"))
    assert code == 2 and f"tune: {key} cannot be searched" in said
    (tmp_path / "own.yaml").write_text(f"student: {{{key}: {{choice: [1, 2]}}}}\n")
    code, said = script("compare", "FD", "--tune", "2", "--search", str(tmp_path / "own.yaml"))
    assert code == 2 and f"{key} cannot be searched" in said
