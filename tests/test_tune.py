"""Tuning: search spaces, equal budgets, validation only, and the frozen configs."""

import json
import math
import random
from collections import Counter
from contextlib import ExitStack

import pytest
import yaml

import recbole_freqd
from recbole_freqd import runs, search, tune
from recbole_freqd.errors import ConfigError, TrainingError
from recbole_freqd.losses import LOSSES
from recbole_freqd.search import Rule, draw, read_own, space_of, teacher_space
from recbole_freqd.settings import method_keys
from recbole_freqd.trials import TrialLog
from recbole_freqd.tune import read_frozen

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
        "learning_rate", "freqd_beta", "freqd_alpha", "freqd_keep_prob",
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
    assert budget == {"teacher": 4, "alone": 4, "FreqD": 4, "FD": 4}
    assert {(trial["trial"], trial["seed"]) for trial in trials} == {(0, 1), (0, 2), (1, 1), (1, 2)}
    assert not list(compare.folder.glob("results-*")) and not (compare.folder / "cells").exists()
    assert "test" not in trials[0] and trials[0]["valid"]["ndcg@10"] == trials[0]["score"]
    for what in ("teacher", "alone", "FreqD", "FD"):
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
    assert read_frozen(str(file), {"FD": ["FD"], "FreqD": ["FreqD"]})["FD"] == frozen["FD"]
    with pytest.raises(TrainingError, match="test data was evaluated"):  # the guard would see it
        compare(["FD"], seeds=[1], frozen=str(file))


def test_trials_are_taken_up_where_the_search_was_cut_off_and_more_may_follow(compare, monkeypatch):
    counted, run = [], runs.run
    monkeypatch.setattr(
        runs, "run", lambda config, **options: (counted.append(1), run(config, **options))[1]
    )
    compare(["FD"], tune=1, tune_seeds=[1], tune_only=True)
    assert len(counted) == 3
    log = compare.folder / "trials.jsonl"
    log.write_text(log.read_text()[:-30])  # cut off in the last line
    compare(["FD"], tune=1, tune_seeds=[1], tune_only=True)
    assert len(counted) == 4 and "[3/3] FD, trial 0, seed 1: valid ndcg@10" in compare.said[0]
    compare(["FD"], tune=1, tune_seeds=[1], tune_only=True)
    assert len(counted) == 4
    compare(["FD"], tune=2, tune_seeds=[1], tune_only=True)
    assert 6 <= len(counted) <= 8  # FD's first trial again, if the second teacher is better
    assert len(TrialLog(log, "id")._known) == len(counted) - 1


def test_a_trial_that_another_process_is_at_is_left_for_the_end_and_taken_from_it(
    compare, monkeypatch
):
    """The other process is at trial 1 of the student alone, and ends while we run trial 2."""
    ran, other = [], ExitStack()
    options = {"tune": 3, "tune_seeds": [1], "tune_only": True, "keep_teacher": True}
    monkeypatch.setattr(tune, "_run", lambda config: {"score": config["learning_rate"]})
    whole = compare(["FD"], **options)
    lines = compare.trials()
    (theirs,) = [line for line in lines if (line["what"], line["trial"]) == ("alone", 1)]
    log = compare.folder / "trials.jsonl"
    log.unlink()

    def run(config):
        ran.append(round(config["learning_rate"], 9))
        elsewhere = TrialLog(log, "id")
        if len(ran) == 1:
            assert other.enter_context(elsewhere.working_on(theirs["id"], wait=False))
        if len(ran) == 2:
            elsewhere.add(theirs)
            other.close()
        return {"score": config["learning_rate"]}

    monkeypatch.setattr(tune, "_run", run)
    assert compare(["FD"], **options) == whole
    rates = [round(draw(space_of([]), trial)["learning_rate"], 9) for trial in range(3)]
    assert ran == [rates[0], rates[2], *rates] and "[6/6] FD, trial 2" in compare.said[-2]
    assert [path.name for path in compare.folder.glob("trial*")] == ["trials.jsonl"]


def test_trials_say_what_they_were_made_with_and_those_of_another_commit_are_mentioned(
    compare, monkeypatch
):
    options = {"tune": 2, "tune_seeds": [1], "tune_only": True, "keep_teacher": True}
    monkeypatch.setattr(tune, "_run", lambda config: {"score": 0.5})
    compare(["FD"], **options)
    assert {"commit", "torch", "command"} <= set(compare.trials()[0]["made_with"])
    compare(["FD"], **options)
    assert not [line for line in compare.said if "other commits" in line]
    log, trials = compare.folder / "trials.jsonl", compare.trials()
    trials[0]["made_with"]["commit"] = "abc"
    del trials[1]["made_with"]  # of an older version
    log.write_text("".join(json.dumps(trial) + "\n" for trial in trials))
    compare(["FD"], **options)
    (line,) = [line for line in compare.said if "other commits" in line]
    assert "2 of what was finished already are of other commits" in line
    assert ": None (1), abc (1); it is " in line


def test_the_comparison_runs_with_the_configs_that_were_chosen(compare):
    results = compare(["FD"], seeds=[1], tune=1)
    (file,) = compare.folder.glob("frozen-*.yaml")
    frozen = yaml.safe_load(file.read_text())
    assert results["tuning"] == {
        "trials": 1, "seeds": [1], "metric": "ndcg@10", "tuned": ["teacher", "alone", "FD"],
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
    # the same by the file, without a search
    again = compare(["FD"], seeds=[1], frozen=str(file))
    assert again["cells"] == results["cells"] and "3 of them finished already" in compare.said[0]


def test_a_teacher_that_is_kept_is_not_tuned(compare):
    frozen = compare(["FD"], tune=1, tune_seeds=[1], tune_only=True, keep_teacher=True)
    assert "teacher" not in frozen and frozen["tuned"]["tuned"] == ["alone", "FD"]
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
    with pytest.raises(TrainingError, match=r"of anything could be finished.*Training loss is nan"):
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
    assert "No trial of FD could be finished: RuntimeError" in results["failed"][0]["error"]
    ranks = {row["what"]: row["rank"] for row in results["table"]}
    assert ranks["FD"] is None and {ranks["alone"], ranks["FreqD"]} <= {1, 2}
    text = next(compare.folder.glob("results-*.md")).read_text()
    assert "| FD |  |" in text and "FD, seed 1, failed: No trial of FD" in text

    del failing[:]
    results = compare(["FD", "FreqD"], **options)
    assert results["failed"] == [] and "failed" not in results["tuning"]
    assert {row["rank"] for row in results["table"][1:]} <= {1, 2, 3}


def test_without_a_teacher_that_could_be_tuned_there_is_nothing_to_compare(compare, monkeypatch):
    def broken(config, **options):
        raise ConfigError("a nan in the config")

    monkeypatch.setattr(runs, "run", broken)
    with pytest.raises(
        TrainingError, match="None of the trials of the teacher .* a nan in the con"
    ):
        compare(["FD"], tune=1, tune_only=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tune": -1}, "--tune -1; allowed: a number of trials from 1"),
        ({"tune_only": True}, "--tune_only with --tune"),
        ({"tune": 1, "frozen": "a.yaml"}, "or frozen configs, not both"),
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
    ("text", "message"),
    [
        ("alone: {}\n", "has no section FD; there: alone"),
        ("alone: {epochs: 500}\nFD: {}\n", "alone sets epochs, which is the same for everything"),
        ("alone: {}\nFD: {embedding_size: 99}\n", "FD sets embedding_size"),
    ],
)
def test_frozen_configs_that_are_not_fair_are_refused(tmp_path, text, message):
    (tmp_path / "frozen.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_frozen(str(tmp_path / "frozen.yaml"), {"FD": ["FD"]})


def test_a_method_whose_trials_have_all_failed_needs_no_frozen_section(tmp_path):
    file = tmp_path / "frozen.yaml"
    file.write_text("tuned: {failed: {FD: {runs: 2, error: none left}}}\nalone: {}\n")
    assert read_frozen(str(file), {"FD": ["FD"]})["alone"] == {}


def test_weights_of_methods_that_are_added_are_drawn_apart():
    drawn = [draw(space_of(["FreqD", "FD"]), trial) for trial in range(8)]
    assert len({one["freqd_beta"] == one["fd_beta"] for one in drawn}) == 1
    ratios = {round(one["freqd_beta"] / one["fd_beta"], 1) for one in drawn}
    assert len(ratios) > 4
    alone = [draw(space_of(["FreqD"]), trial) for trial in range(8)]
    assert [one["freqd_beta"] for one in alone] == [one["freqd_beta"] for one in drawn]
