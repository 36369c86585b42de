"""Tuning: search spaces, equal budgets, validation only, and the frozen configs."""

import json
import math
import random
import re
from collections import Counter
from contextlib import ExitStack

import numpy as np
import pytest
import torch
import yaml

import recbole_freqd
from recbole_freqd.config.teaching import WARM_KEYS
from recbole_freqd.core.errors import ConfigError, TrainingError
from recbole_freqd.core.schema import method_keys
from recbole_freqd.jobs import provenance
from recbole_freqd.jobs import run as runs
from recbole_freqd.jobs.comparison.report import _budget as budget
from recbole_freqd.jobs.store import RunStore
from recbole_freqd.jobs.tuning import budget as tune
from recbole_freqd.jobs.tuning import space as search
from recbole_freqd.jobs.tuning.frozen import read_frozen
from recbole_freqd.jobs.tuning.space import Rule, draw, read_own, space_of, teacher_space
from recbole_freqd.losses import LOSSES

TEACHER = {"model": "BPR", "embedding_size": 8, "epochs": 1, "train_batch_size": 64}


# --- spaces ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", LOSSES.names())
def test_every_method_has_a_space_of_its_own_keys_with_its_weight_in_it(method):
    own, common = space_of([method]), space_of([])
    added = set(own) - set(common)
    assert f"{LOSSES.get(method).prefix}_beta" in added <= set(method_keys(method))
    assert {"learning_rate", "weight_decay"} <= set(common)
    for trial in range(20):
        for key, value in draw(own, trial).items():
            if key in added:
                method_keys(method)[key].check(value)


def test_spaces_of_losses_that_are_added_are_added():
    assert set(space_of(["FreqD", "FD"])) == set(space_of(["FreqD"])) | set(space_of(["FD"]))


def test_a_trial_draws_within_its_limits_and_the_same_for_a_key_that_spaces_share():
    rules = {
        "learning_rate": Rule("loguniform", (1e-4, 1e-2)),
        "a": Rule("uniform", (-1.0, 1.0)),
        "b": Rule("choice", ([200], [600], None)),
    }
    drawn = [draw(rules, trial) for trial in range(400)]
    rates = sorted(one["learning_rate"] for one in drawn)
    assert 1e-4 <= rates[0] < 1.2e-4 and 0.8e-2 < rates[-1] <= 1e-2
    assert 0.6e-3 < rates[200] < 1.6e-3  # the middle of the logarithms
    assert min(one["a"] for one in drawn) < -0.9 and max(one["a"] for one in drawn) > 0.9
    assert {str(one["b"]) for one in drawn} == {"[200]", "[600]", "None"}
    assert drawn == [draw(rules, trial) for trial in range(400)]
    for trial in range(5):
        one, other = draw(space_of(["FD"]), trial), draw(space_of(["FreqD"]), trial)
        assert one["learning_rate"] == other["learning_rate"]
        assert one["weight_decay"] == other["weight_decay"]


def test_every_eight_trials_have_a_value_in_each_eighth_of_every_range():
    rules = {
        "learning_rate": Rule("loguniform", (1.0, 256.0)),
        "a": Rule("uniform", (0.0, 8.0)),
        "b": Rule("choice", tuple(range(8))),
    }
    for first in (0, 8, 16):
        drawn = [draw(rules, first + trial) for trial in range(8)]
        for key, place in (("learning_rate", math.log2), ("a", float), ("b", float)):
            assert sorted(int(place(one[key])) for one in drawn) == list(range(8))
    orders = {tuple(draw(rules, first + t)["b"] for t in range(8)) for first in range(0, 80, 8)}
    assert len(orders) == 10  # blocks and keys are shuffled on their own
    assert [draw(rules, t)["b"] for t in range(8)] != [int(draw(rules, t)["a"]) for t in range(8)]


def eighths_of(names, first=0):
    """(keys, 8): the eighth that each trial of a block has of each key."""
    space = {name: Rule("choice", tuple(range(8))) for name in names}
    drawn = [draw(space, first + trial) for trial in range(8)]
    return np.array([[one[name] for one in drawn] for name in names])


@pytest.mark.parametrize("first", [0, 8])
def test_the_first_trials_of_an_eight_are_spread_over_every_range(first):
    names = ["learning_rate", "weight_decay", "kd_temperature", *map(str, range(200))]
    orders = eighths_of(names, first)
    for size in (2, 4, 8):  # one of each half in every two, of each quarter in every four
        parts = (orders // (8 // size)).reshape(len(names), 8 // size, size)
        assert (np.sort(parts, axis=-1) == np.arange(size)).all()
    counts = np.stack([np.bincount(column, minlength=8) for column in orders.T])
    assert counts.min() > 8 and counts.max() < 48  # any eighth at any place: 25 of each expected


def test_no_key_is_tied_to_another():
    orders = eighths_of([f"key{number}" for number in range(200)])
    correlations = np.corrcoef(orders)[np.triu_indices(200, 1)]
    assert abs(correlations.mean()) < 0.02
    assert np.abs(correlations).mean() < 0.42  # 0.37 as it is; 0.31 of orders wholly at random


@pytest.mark.parametrize("method", ["KD", "RRD", "DCD"])
def test_six_trials_try_every_temperature(method):
    key = f"{LOSSES.get(method).prefix}_temperature"
    drawn = {draw(space_of([method]), trial)[key] for trial in range(6)}
    assert drawn == set(space_of([method])[key].values)


def test_weights_of_two_methods_fall_on_the_same_place_of_their_ranges():
    rule = Rule("uniform", (0.0, 1.0))
    for trial in range(5):
        one, other = draw({"fd_beta": rule}, trial), draw({"freqd_beta": rule}, trial)
        assert one["fd_beta"] == other["freqd_beta"]


def test_drawing_leaves_the_global_stream_alone():
    random.seed(1)
    before = random.getstate()
    draw(space_of(["FreqD"]), 3)
    assert random.getstate() == before


def test_a_file_of_the_users_adds_replaces_and_takes_out(tmp_path):
    file = tmp_path / "search.yaml"
    file.write_text(
        "student: {weight_decay: null, learning_rate: {loguniform: [1e-5, 1e-4]}}\n"
        "teacher: {embedding_size: {choice: [32, 64]}}\n"
        "FreqD: {freqd_alpha: {uniform: [0, 1]}, freqd_k: null}\n"
    )
    own = read_own(str(file))
    assert space_of([], own) == {"learning_rate": Rule("loguniform", (1e-5, 1e-4))}
    assert set(space_of(["FreqD"], own)) == {
        "learning_rate", "freqd_beta", "freqd_alpha", "freqd_graph", "freqd_keep_prob",
    }  # fmt: skip
    assert set(teacher_space(True, own)) == {"embedding_size"} and teacher_space(True) == {}
    assert set(teacher_space(False, own)) == {"learning_rate", "weight_decay", "embedding_size"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FreqX: {}", "unknown section 'FreqX'. Did you mean 'FreqD'?"),
        ("FreqD: {freqd_alhpa: {uniform: [0, 1]}}", "FreqD has no key 'freqd_alhpa'"),
        ("FreqD: {freqd_alpha: {uniform: [0, 2]}}", "freqd_alpha: got 2; allowed: float in"),
        ("FreqD: {freqd_k: {uniform: [5, 20]}}", "freqd_k: got .* allowed: int >= 1"),
        ("FreqD: {freqd_alpha: 0.5}", "freqd_alpha: got 0.5; allowed: {loguniform"),
        ("FreqD: {freqd_beta: {loguniform: [0, 1]}}", "with 0 < low < high"),
        ("FreqD: {freqd_beta: {uniform: [2, 1]}}", "with 0 < low < high"),
        ("FreqD: {freqd_beta: {uniform: [1]}}", "with 0 < low < high"),
        ("FreqD: {freqd_beta: {normal: [1, 2]}}", "with 0 < low < high"),
        ("FreqD: {freqd_beta: {choice: []}}", "with 0 < low < high"),
        ("FreqD: [1]", r"FreqD holds \[1\]; allowed: keys"),
        ("student: {epochs: {choice: [5, 500]}}", "epochs cannot be searched: it is the same"),
        ("student: {embedding_size: {choice: [5, 500]}}", "embedding_size cannot be searched"),
        ("student: {train_batch_size: {choice: [5, 500]}}", "train_batch_size cannot be searched"),
        ("student: {seed: {choice: [1, 2]}}", "seed cannot be searched"),
        ("[1, 2]", "allowed: sections with keys"),
        ("a: {", "is no YAML"),
    ],
)
def test_a_search_file_with_a_mistake_is_refused(tmp_path, text, message):
    (tmp_path / "search.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_own(str(tmp_path / "search.yaml"))


def test_the_width_of_a_model_is_nobodys_to_choose_whatever_its_key(compare, tmp_path):
    file = tmp_path / "search.yaml"
    file.write_text("student: {mf_embedding_size: {choice: [4, 400]}}")
    keys = {"model": "NeuMF", "mlp_hidden_size": [8], "mf_embedding_size": 4}
    with pytest.raises(ConfigError, match="mf_embedding_size cannot be searched: it is the same"):
        compare(["FD"], tune=1, search=str(file), model="NeuMF", keys=keys)
    file.write_text("alone: {}\nFD: {mf_embedding_size: 400}\n")
    with pytest.raises(ConfigError, match="FD sets mf_embedding_size, which is the same for every"):
        compare(["FD"], frozen=str(file), model="NeuMF", keys=keys)
    assert not compare.folder.exists()


def test_a_model_adds_to_the_spaces_of_student_and_teacher_and_the_user_may_take_it_out():
    assert "reg_weight" in set(space_of(["FD"], None, "LightGCN")) - set(
        space_of(["FD"], None, "BPR")
    )
    assert "reg_weight" in teacher_space(False, None, "LightGCN")
    assert "reg_weight" not in space_of([], {"student": {"reg_weight": None}}, "LightGCN")


def test_a_search_file_that_is_missing_is_refused():
    with pytest.raises(ConfigError, match="--search: nowhere.yaml does not exist"):
        read_own("nowhere.yaml")


def test_a_method_without_a_space_needs_one_of_the_users(monkeypatch):
    monkeypatch.setattr(LOSSES, "_entries", {**LOSSES._entries, "Mine": LOSSES.get("FD")})
    monkeypatch.setattr(search, "method_keys", lambda _: method_keys("FD"))
    with pytest.raises(ConfigError, match="properties/search/Mine.yaml does not exist"):
        space_of(["Mine"])
    own = {"Mine": {"fd_beta": {"choice": [1]}}}
    assert "fd_beta" in space_of(["Mine"], own)


# --- trials ----------------------------------------------------------------------------------


@pytest.fixture
def compare(host, tiny_keys, tmp_path):
    """``compare(tune=2)`` on the tiny data: FreqD and FD; ``compare.folder`` is where it is kept."""

    def run(methods=("FreqD", "FD"), seeds=(1, 2, 3), keys=None, model="BPR", **options):
        defaults = {**tiny_keys, "valid_metric": "NDCG@10", "epochs": 1, "teacher": dict(TEACHER)}
        run.said = []
        return recbole_freqd.compare(
            methods, model, "tiny", config_dict={**defaults, **(keys or {})},
            seeds=seeds, output_dir=str(tmp_path / "out"), say=run.said.append, **options,
        )  # fmt: skip

    run.folder = tmp_path / "out" / "compare-tiny-BPR"
    run.trials = lambda: [
        json.loads(line) for line in (run.folder / "trials.jsonl").read_text().splitlines()
    ]
    return run


@pytest.fixture
def no_test(monkeypatch):
    """Evaluating test data is an error while this is in force; counts the other evaluations."""
    from recbole.trainer import Trainer

    evaluate, phases = Trainer.evaluate, []

    def guarded(self, eval_data, *args, **kwargs):
        phase = eval_data._sampler.phase if eval_data._sampler else "none"
        assert phase == "valid", f"{phase} data was evaluated"
        phases.append(phase)
        return evaluate(self, eval_data, *args, **kwargs)

    monkeypatch.setattr(Trainer, "evaluate", guarded)
    return phases


def test_no_test_metric_is_computed_while_tuning_and_everything_gets_the_same_trials(
    compare, no_test
):
    frozen = compare(tune=2, tune_only=True)
    assert len(no_test) >= 16
    trials = compare.trials()
    assert not any(trial["failed"] for trial in trials)
    budget = Counter(trial["what"] for trial in trials)
    assert budget == {"teacher": 4, "alone": 4, "warm": 4, "FreqD": 4, "FD": 4}
    assert {(trial["trial"], trial["seed"]) for trial in trials} == {(0, 1), (0, 2), (1, 1), (1, 2)}
    assert not list(compare.folder.glob("results-*")) and not (compare.folder / "cells").exists()
    assert "test" not in trials[0] and trials[0]["valid"]["ndcg@10"] == trials[0]["score"]
    for what in ("teacher", "alone", "warm", "FreqD", "FD"):
        means = {}
        for trial in trials:
            if trial["what"] == what:
                means.setdefault(trial["trial"], []).append(trial["score"])
        best = max(means, key=lambda trial: sum(means[trial]))
        chosen = next(t["keys"] for t in trials if (t["what"], t["trial"]) == (what, best))
        assert frozen[what] == pytest.approx(chosen)
    (file,) = compare.folder.glob("frozen-*.yaml")
    assert yaml.safe_load(file.read_text()) == json.loads(json.dumps(frozen))
    assert frozen["tuned"]["trials"] == 2 and frozen["tuned"]["seeds"] == [1, 2]
    made_for = [frozen["tuned"][key] for key in ("dataset", "model", "teacher_model", "epochs")]
    assert made_for == ["tiny", "BPR", "BPR", 1]
    with pytest.raises(TrainingError, match="test data was evaluated"):  # the guard would see it
        compare(["FD"], seeds=[1], frozen=str(file))


def test_trials_are_taken_up_where_the_search_was_cut_off_and_more_may_follow(compare, monkeypatch):
    counted, run = [], runs.run
    monkeypatch.setattr(
        runs, "run", lambda config, **options: (counted.append(1), run(config, **options))[1]
    )
    compare(["FD"], tune=1, tune_seeds=[1], tune_only=True)
    assert len(counted) == 4
    store = RunStore(compare.folder / "trials")
    (last,) = [trial["id"] for trial in compare.trials() if trial["what"] == "FD"]
    store.file(last).write_text(store.file(last).read_text()[:-30])  # cut off
    compare(["FD"], tune=1, tune_seeds=[1], tune_only=True)
    assert len(counted) == 5 and "[4/4] FD, trial 0, seed 1: valid ndcg@10" in compare.said[0]
    compare(["FD"], tune=1, tune_seeds=[1], tune_only=True)
    assert len(counted) == 5
    compare(["FD"], tune=2, tune_seeds=[1], tune_only=True)
    # the first trials of what is taught again, if the second teacher is better
    assert len(counted) in (9, 11)
    assert len(store.names()) == len(counted) - 1


def test_a_trial_that_another_process_is_at_is_left_for_the_end_and_taken_from_it(
    compare, monkeypatch
):
    """The other process is at trial 1 of the student alone, and ends while we run trial 2."""
    ran, other = [], ExitStack()
    options = {"tune": 3, "tune_seeds": [1], "tune_only": True, "keep_teacher": True}
    monkeypatch.setattr(tune, "_validate", lambda config: {"score": config["learning_rate"]})
    whole = compare(["FD"], **options)
    lines = compare.trials()
    (theirs,) = [line for line in lines if (line["what"], line["trial"]) == ("alone", 1)]
    elsewhere = RunStore(compare.folder / "trials")
    for name in elsewhere.names():
        elsewhere.file(name).unlink()

    def run(config):
        ran.append(round(config["learning_rate"], 9))
        if len(ran) == 1:
            assert other.enter_context(elsewhere.working_on(theirs["id"], wait=False))
        if len(ran) == 2:
            elsewhere.keep(theirs["id"], theirs)
            other.close()
        return {"score": config["learning_rate"]}

    monkeypatch.setattr(tune, "_validate", run)
    assert compare(["FD"], **options) == whole
    rates = [round(draw(space_of([]), trial)["learning_rate"], 9) for trial in range(3)]
    assert ran == [rates[0], rates[2], *rates, *rates]
    assert "[9/9] FD, trial 2" in compare.said[-2]
    assert {path.suffix for path in elsewhere.folder.iterdir()} == {".json"}


def test_trials_say_what_they_were_made_with_and_those_of_another_commit_are_mentioned(
    compare, monkeypatch
):
    options = {"tune": 2, "tune_seeds": [1], "tune_only": True, "keep_teacher": True}
    monkeypatch.setattr(tune, "_validate", lambda config: {"score": 0.5})
    monkeypatch.setattr(provenance, "_commit", lambda: "now")  # there may be no checkout
    compare(["FD"], **options)
    assert {"commit", "torch", "command"} <= set(compare.trials()[0]["made_with"])
    compare(["FD"], **options)
    assert not [line for line in compare.said if "other commits" in line]
    store, trials = RunStore(compare.folder / "trials"), compare.trials()
    trials[0]["made_with"]["commit"] = "abc"
    del trials[1]["made_with"]  # of an older version
    for trial in trials:
        store.keep(trial["id"], trial)
    compare(["FD"], **options)
    (line,) = [line for line in compare.said if "other commits" in line]
    assert "2 of the finished runs come from other commits" in line
    assert ": None (1), abc (1); it is now" in line


def test_the_comparison_runs_with_the_configs_that_were_chosen(compare):
    results = compare(["FD"], seeds=[1], tune=1)
    (file,) = compare.folder.glob("frozen-*.yaml")
    frozen = yaml.safe_load(file.read_text())
    assert results["tuning"] == {
        "trials": 1, "seeds": [1], "epochs": 1, "eval_step": 1, "stopping_step": 10,
        "metric": "ndcg@10", "tuned": ["teacher", "alone", "warm", "FD"],
    }  # fmt: skip
    assert results["teacher"] == {**TEACHER, **frozen["teacher"]}
    assert results["common"]["learning_rate"] == frozen["alone"]["learning_rate"]  # trial 0 of both
    assert results["configs"]["FD"]["fd_beta"] == frozen["FD"]["fd_beta"]
    teacher = results["cells"]["teacher"][0]
    (kept,) = (compare.folder / "cells").glob("teacher-*.json")
    config = json.loads(kept.read_text())["config"]
    assert config["teacher"]["learning_rate"] == frozen["teacher"]["learning_rate"]
    assert teacher["test"]["ndcg@10"] > 0
    (text,) = compare.folder.glob("results-*.md")
    assert (
        "1 trials (Latin hypercube sampling) on the validation split of seeds 1" in text.read_text()
    )
    # of trial 0 both have the same keys; the warm start is what sets them apart
    assert results["configs"]["warm"] == frozen["warm"] == frozen["alone"]
    assert "the cut uses the keys of the student alone" in text.read_text()
    # the same by the file, without a search
    again = compare(["FD"], seeds=[1], frozen=str(file))
    assert again["cells"] == results["cells"] and "5 of them finished already" in compare.said[0]


def test_the_student_alone_from_the_warm_start_is_searched_as_the_cold_one_and_keeps_its_keys(
    compare, monkeypatch
):
    seen, run = [], runs.run

    def seeing(config, **options):
        if config["warm_start"] == "teacher":
            seen.append({key: config[key] for key in (*WARM_KEYS, "trainer", "learning_rate")})
        return run(config, **options)

    monkeypatch.setattr(runs, "run", seeing)
    options = {"tune": 2, "tune_seeds": [1], "keep_teacher": True}
    frozen = compare(["FD"], **options, tune_only=True)
    rates = [draw(space_of([]), trial)["learning_rate"] for trial in range(2)]
    assert seen == [{**WARM_KEYS, "trainer": "FreqRank", "learning_rate": rate} for rate in rates]
    assert set(frozen["warm"]) == set(frozen["alone"]) == {"learning_rate", "weight_decay"}
    frozen["warm"]["learning_rate"], frozen["alone"]["learning_rate"] = 0.003, 0.0007
    (compare.folder / "own.yaml").write_text(yaml.safe_dump(frozen))
    del seen[:]
    compare(["FD"], seeds=[1], frozen=str(compare.folder / "own.yaml"))
    cut, warm = (each["learning_rate"] for each in seen)
    assert (cut, warm) == (0.0007, 0.003)


def test_a_student_that_cannot_start_warm_is_searched_cold_only(compare, monkeypatch):
    monkeypatch.setattr(tune, "_validate", lambda config: {"score": 0.5})
    keys = {"train_neg_sample_args": None, "embedding_size": None}
    options = {"tune": 1, "tune_seeds": [1], "tune_only": True, "keep_teacher": True}
    frozen = compare(["FD"], model="MultiVAE", keys=keys, **options)
    assert frozen["tuned"]["tuned"] == ["alone", "FD"]


def test_a_teacher_that_is_kept_is_not_tuned(compare):
    frozen = compare(["FD"], tune=1, tune_seeds=[1], tune_only=True, keep_teacher=True)
    assert "teacher" not in frozen and frozen["tuned"]["tuned"] == ["alone", "warm", "FD"]
    ease = {"model": "EASE", "spectral_rank": 4}
    frozen = compare(["FD"], tune=1, tune_seeds=[1], tune_only=True, keys={"teacher": ease})
    assert "teacher" not in frozen


def test_a_training_that_breaks_down_is_a_trial_that_is_not_chosen(compare, monkeypatch):
    run = runs.run

    def broken(config, **options):
        if config["learning_rate"] > 0.003:
            raise TrainingError("Training loss is nan")
        return run(config, **options)

    monkeypatch.setattr(runs, "run", broken)
    rates = [draw(space_of([]), trial)["learning_rate"] for trial in range(3)]
    assert min(rates) < 0.003 < max(rates)
    options = {"tune": 3, "tune_seeds": [1], "tune_only": True, "keep_teacher": True}
    frozen = compare(["FD"], **options)
    assert frozen["alone"]["learning_rate"] < 0.003
    failed = [trial for trial in compare.trials() if trial["score"] is None]
    assert failed and failed[0]["error"] == "Training loss is nan"
    (compare.folder / "search.yaml").write_text("student: {learning_rate: {choice: [0.5]}}")
    ran = len(compare.trials())
    compare(["FD"], **options)
    assert len(compare.trials()) == ran  # the same numbers would break down again
    with pytest.raises(
        TrainingError, match=r"of anything could be finished.*Training loss is nan Change ranges wi"
    ):
        compare(["FD"], **options, search=str(compare.folder / "search.yaml"))


def test_a_trial_that_fails_stops_no_other_and_is_tried_again(compare, monkeypatch, capsys):
    run, failing = runs.run, ["FD"]

    def broken(config, **options):
        if config["trainer"] in failing:
            raise RuntimeError("out of\nmemory")
        return run(config, **options)

    monkeypatch.setattr(runs, "run", broken)
    options = {"seeds": [1], "tune": 2, "keep_teacher": True}
    results = compare(["FD", "FreqD"], **options)
    assert results["tuning"]["failed"] == {
        "FD": {"runs": 2, "error": "RuntimeError: out of memory"}
    }
    assert "failed: RuntimeError: out of memory with learning_rate" in "".join(compare.said)
    assert [(each["what"], each["seed"]) for each in results["failed"]] == [("FD", 1)]
    assert "No trial of FD finished: RuntimeError" in results["failed"][0]["error"]
    ranks = {row["what"]: row["rank"] for row in results["table"]}
    students = ("alone", "cut", "warm", "FreqD")
    assert ranks["FD"] is None and {ranks[what] for what in students} <= {1, 2, 3, 4}
    text = next(compare.folder.glob("results-*.md")).read_text()
    assert re.search(r"\| FD +\| +\|", text) and "FD, seed 1, failed: No trial of FD" in text
    tracebacks = [path.read_text() for path in (compare.folder / "trials").glob("*.failed")]
    assert len(tracebacks) == 2 and all("in broken" in text for text in tracebacks)
    failed = {trial["id"] for trial in compare.trials() if trial["failed"]}
    assert {path.stem for path in (compare.folder / "trials").glob("*.failed")} == failed

    del failing[:]
    results = compare(["FD", "FreqD"], **options)
    assert results["failed"] == [] and "failed" not in results["tuning"]
    ranks = {row["what"]: row["rank"] for row in results["table"]}
    assert {ranks[what] for what in (*students, "FD")} <= {1, 2, 3, 4, 5}
    assert not list((compare.folder / "trials").glob("*.failed"))


def test_without_a_teacher_that_could_be_tuned_there_is_nothing_to_compare(compare, monkeypatch):
    def broken(config, **options):
        raise ConfigError("a nan in the config")

    monkeypatch.setattr(runs, "run", broken)
    with pytest.raises(
        TrainingError,
        match=r"trials of the teacher .* a nan in the config Tracebacks: .*compare-tiny-BPR/trials/",
    ):
        compare(["FD"], tune=1, tune_only=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tune": -1}, "--tune -1; allowed: either a number of trials from 1"),
        ({"tune_only": True}, "--tune_only needs --tune"),
        ({"tune": 1, "frozen": "a.yaml"}, "trials from 1, or frozen configs"),
        ({"search": "a.yaml"}, "--search: no effect without --tune. Add --tune N"),
        ({"keep_teacher": True, "frozen": "a.yaml"}, "--keep_teacher: no effect without --tune"),
        (
            {"tune_seeds": [1], "search": "a.yaml"},
            "--tune_seeds, --search: no effect without --tune",
        ),
        ({"tune": 1, "tune_seeds": []}, "tune_seeds: got"),
        ({"frozen": "nowhere.yaml"}, "--frozen: nowhere.yaml does not exist"),
    ],
)
def test_options_that_do_not_go_together_are_refused(compare, options, message):
    with pytest.raises(ConfigError, match=message):
        compare(**options)


def test_a_key_that_the_student_does_not_have_is_refused_before_the_first_trial(compare, tmp_path):
    file = tmp_path / "search.yaml"
    for section, message in (("student", "BPR has no key 'n_layers'"), ("teacher", "n_layers")):
        file.write_text(f"{section}: {{n_layers: {{choice: [1, 2]}}}}")
        with pytest.raises(ConfigError, match=message):
            compare(tune=1, search=str(file))
    assert not compare.folder.exists()


@pytest.mark.parametrize(
    ("text", "model", "message"),
    [
        ("student: {learner: {choice: [adem]}}", "BPR",
         "Search space of alone, to be corrected in the file that --search .*: learner: got 'adem'"),
        ("student: {learning_rate: {choice: [0.1, -1]}}", "BPR",
         "Search space of alone.* learning_rate: got -1"),
        ("teacher: {learner: {choice: [adem]}}", "BPR", "of teacher.* teacher.learner: got 'adem'"),
        ("teacher: {embedding_size: {uniform: [4, 9]}}", "BPR",
         r"of teacher: embedding_size: got {'uniform': \[4, 9\]}, but it is a whole .*choice: \["),
        ("student: {n_layers: {loguniform: [1, 4]}}", "LightGCN",
         r"of alone: n_layers: got .*, but it is a whole number \(default 2\)"),
        ("student: {reg_weight: {choice: [much]}}", "LightGCN",
         "of alone, .*: reg_weight: got 'much'; allowed: a number"),
    ],
)  # fmt: skip
def test_a_value_that_no_trial_could_run_with_is_refused_before_the_first(
    compare, tmp_path, text, model, message
):
    file = tmp_path / "search.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        compare(["FD"], tune=2, search=str(file), model=model)
    assert not compare.folder.exists()


@pytest.mark.parametrize(
    ("argument", "options", "message"),
    [
        ("--learning_rate=0.1", {}, "--learning_rate=... fixes what --tune searches for alone"),
        (
            "--fd_beta=0.7",
            {},
            "--fd_beta=... fixes what --tune searches for FD .`fd_beta: null` in",
        ),
        ("--teacher.weight_decay=0", {}, "--teacher.weight_decay=... fixes what --tune"),
        ("--teacher={'model':'BPR','learning_rate':0.1}", {}, "--teacher.learning_rate=... fixes"),
        ("--teacher.learning_rate=0.1", {"keep_teacher": True}, None),
        ("--learning_rate=0.1", {"search": "student: {learning_rate: null}"}, None),
        ("--freqd_beta=0.7", {}, None),
    ],
)
def test_what_the_command_line_fixes_is_not_searched(
    compare, tmp_path, monkeypatch, argument, options, message
):
    monkeypatch.setattr("sys.argv", ["x", argument])
    if "search" in options:
        (tmp_path / "search.yaml").write_text(options["search"])
        options = {"search": str(tmp_path / "search.yaml")}
    if message:
        with pytest.raises(ConfigError, match=message):
            compare(["FD"], tune=1, **options)
        assert not compare.folder.exists()
        return
    seen = []

    def seeing(config, **options):
        seen.append(config.final_config_dict)
        raise TrainingError("seen")

    monkeypatch.setattr(runs, "run", seeing)
    with pytest.raises(TrainingError, match="of anything could be finished"):
        compare(["FD"], tune=1, tune_only=True, **{"keep_teacher": True, **options})
    taught = seen[-1]
    assert argument.startswith("--freqd") or 0.1 in (
        taught["learning_rate"],
        taught["teacher"].get("learning_rate"),
    )


@pytest.fixture
def frozen_by(tiny_config, tmp_path):
    """``frozen_by("alone: {}")``: what is read of a file for FD; ``frozen_by.said`` are its lines."""

    def read(text, **keys):
        (tmp_path / "frozen.yaml").write_text(text)
        base = tiny_config(**{"trainer": ["FD"], "teacher": dict(TEACHER), "epochs": 9, **keys})
        read.said = []
        return read_frozen(str(tmp_path / "frozen.yaml"), {"FD": ["FD"]}, base, read.said.append)

    return read


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alone: {}\n", "has no section FD; there: alone"),
        ("alone: {epochs: 500}\nFD: {}\n", "alone sets epochs, which is the same for everything"),
        ("alone: {}\nFD: {embedding_size: 99}\n", "FD sets embedding_size"),
        ("alone: {}\nFD: {}\nTeacher: {}\n", "section 'Teacher'. Did you mean 'teacher'?"),
        ("alone: {}\nFD: {}\ntecher: {}\n", "section 'techer'. Did you mean 'teacher'?"),
        ("alone: {}\nFD: {}\nfreqd+FD: {}\n", "unknown section 'freqd.FD'"),
        ("alone: {}\nFD: {}\n7: {}\n", "unknown section 7"),
        ("alone: {}\nFD: 3\n", "FD holds 3; allowed: keys"),
        ("alone: {}\nFD: {fd_betta: 3}\n", "FD sets 'fd_betta', .* Did you mean 'fd_beta'?"),
        ("alone: {}\nFD: {freqd_beta: 3}\n", "FD sets 'freqd_beta', which neither BPR nor the"),
        ("alone: {fd_beta: 3}\nFD: {}\n", "alone sets 'fd_beta', which neither"),
        ("alone: {}\nFD: {}\nwarm: {freqrank_k: 3}\n", "warm sets 'freqrank_k', which neither BPR"),
        ("alone: {n_layers: 3}\nFD: {}\n", "alone sets 'n_layers', which neither BPR nor"),
        ("alone: {}\nFD: {}\nteacher: {n_layers: 3}\n", "section teacher: Unknown key 'teacher.n_"),
        ("alone: {}\nFD: {}\nteacher: {metrics: [MRR]}\n", "teacher sets metrics, which is the s"),
        ("alone: {}\nFD: {}\nteacher: {worker: 3}\n", "section teacher: 'teacher.worker' is not"),
        ("tuned: {dataset: gowalla}\nalone: {}\nFD: {}\n", "for the dataset gowalla; here the dat"),
        ("tuned: {model: NeuMF}\nalone: {}\nFD: {}\n", "for the student NeuMF; here the student"),
        (
            "tuned: {teacher_model: LightGCN}\nalone: {}\nFD: {}\n",
            "the teacher LightGCN; here the teacher is BPR. .* the line teacher_model from the sec",
        ),
    ],
)
def test_frozen_configs_that_are_not_fair_or_not_of_this_are_refused(frozen_by, text, message):
    with pytest.raises(ConfigError, match=message):
        frozen_by(text)


def test_frozen_configs_may_name_more_methods_and_sums_and_need_not_say_what_they_are_for(
    frozen_by,
):
    text = "alone:\nFD: {fd_beta: 2, learning_rate: 1e-3}\nteacher: {embedding_size: 9}\n"
    text += "FreqD: {freqd_beta: 2}\nFreqD+FD: {freqd_beta: 2, fd_beta: 3}\n"
    found = frozen_by(text)
    assert found["alone"] == {} and found["FD"] == {"fd_beta": 2, "learning_rate": 1e-3}
    assert frozen_by.said == []


def test_a_frozen_key_that_the_command_line_fixes_is_refused(frozen_by, monkeypatch):
    text = "alone: {}\nFD: {fd_beta: 2}\nFreqD: {freqd_beta: 2}\nteacher: {embedding_size: 9}\n"
    for argument, message in (
        ("--fd_beta=2", "--fd_beta=... fixes what .*frozen.yaml sets for FD. Remove one of them"),
        ("--teacher.embedding_size=9", "--teacher.embedding_size=... fixes what .* for teacher"),
        ("--freqd_beta=2", None),
    ):
        monkeypatch.setattr("sys.argv", ["x", argument])
        if message is None:  # FreqD is not compared
            assert frozen_by(text)["FD"] == {"fd_beta": 2}
        else:
            with pytest.raises(ConfigError, match=message):
                frozen_by(text)


def test_trials_that_were_trained_otherwise_are_said(frozen_by):
    tuned = "epochs: 6, eval_step: 1, stopping_step: 2, metric: ndcg@10, teacher_model: BPR"
    frozen_by(f"tuned: {{{tuned}}}\nalone: {{}}\nFD: {{}}\n", stopping_step=2)
    (line,) = frozen_by.said
    assert line.endswith("by trials with at most 6 epochs; the runs here: at most 9 epochs.")
    frozen_by(f"tuned: {{{tuned}}}\nalone: {{}}\nFD: {{}}\n", epochs=6, stopping_step=2)
    assert frozen_by.said == []
    tuning = {"trials": 3, "seeds": [1], "tuned": ["FD"], "epochs": 6, "metric": "mrr@5"}
    common = {"epochs": 9, "valid_metric": "NDCG@10"}
    assert budget(tuning, common).startswith(
        "3 trials (Latin hypercube sampling) with at most 6 epochs, a valid_metric of mrr@5 on the"
    )
    assert "epochs" not in budget(tuning, {"epochs": 6, "valid_metric": "MRR@5"})
    assert budget({"dataset": "tiny"}, common).startswith(
        "none; every method is configured as below"
    )


def test_a_teacher_that_is_a_file_is_known_by_its_model(frozen_by, tiny_config, tmp_path):
    torch.save({"config": tiny_config("EASE"), "state_dict": {}}, tmp_path / "t.pth")
    options = {"teacher": {"checkpoint": str(tmp_path / "t.pth")}}
    text = "tuned: {teacher_model: %s}\nalone: {}\nFD: {}\n"
    assert frozen_by(text % "EASE", **options)["FD"] == {}
    with pytest.raises(ConfigError, match="here the teacher is EASE"):
        frozen_by(text % "BPR", **options)
    with pytest.raises(ConfigError, match="section teacher: teacher has two forms"):
        frozen_by("alone: {}\nFD: {}\nteacher: {learning_rate: 0.1}\n", **options)


def test_a_method_whose_trials_have_all_failed_needs_no_frozen_section(frozen_by):
    text = "tuned: {failed: {FD: {runs: 2, error: none left}}}\nalone: {}\n"
    assert frozen_by(text)["alone"] == {}


def test_weights_of_methods_that_are_added_are_drawn_apart():
    drawn = [draw(space_of(["FreqD", "FD"]), trial) for trial in range(8)]
    assert len({one["freqd_beta"] == one["fd_beta"] for one in drawn}) == 1
    ratios = {round(one["freqd_beta"] / one["fd_beta"], 1) for one in drawn}
    assert len(ratios) > 4
    alone = [draw(space_of(["FreqD"]), trial) for trial in range(8)]
    assert [one["freqd_beta"] for one in alone] == [one["freqd_beta"] for one in drawn]
