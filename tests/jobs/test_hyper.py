"""Searches by RecBole's HyperTuning: distinct trials, one teacher, validation only, resumable."""

import json
import os
import sys
from pathlib import Path

import pytest

from recbole_freqd.core.errors import ConfigError, TrainingError
from recbole_freqd.core.schema import properties_folder
from recbole_freqd.jobs import run as runs
from recbole_freqd.jobs.script import main
from recbole_freqd.jobs.tuning import hyper, session
from recbole_freqd.jobs.tuning import hyper_space as spaces

GRID = "freqd_alpha choice [0.1,0.3,0.5]\nfreqd_beta choice [0.3,1.0]\n"


@pytest.fixture(autouse=True)
def hyperopt():
    return pytest.importorskip("hyperopt")


@pytest.fixture
def config(tiny_config, teacher_recipe):
    def make(**keys):
        return tiny_config(**{"trainer": "FreqD", "teacher": teacher_recipe, **keys})

    return make


@pytest.fixture
def grid(tmp_path):
    return space(tmp_path, GRID)


def space(folder, text, name="grid.hyper"):
    (folder / name).write_text(text)
    return [str(folder / name)]


def score_of(config):
    """An objective that trains nothing; best at alpha 0.3, beta 1."""
    return {"score": 1 - abs(config["freqd_alpha"] - 0.3) + config["freqd_beta"] / 10}


def records(folder="runs"):
    (home,) = Path(folder).glob("hyper-*/trials")
    return [json.loads(file.read_text()) for file in sorted(home.iterdir(), key=_number)]


def _number(file):
    return int(file.stem)


def stopped_after(n, objective):
    """The same objective, in a process that is killed in the trial after n."""
    done = []

    def killed(config):
        if len(done) == n:
            raise KeyboardInterrupt
        done.append(objective(config))
        return done[-1]

    return killed


def points(found):
    return [tuple(sorted(record["keys"].items())) for record in found]


def test_six_trials_stopped_in_the_fourth_go_on_with_one_teacher_and_leave_no_checkpoints(
    config, grid, monkeypatch
):
    from recbole_freqd.teacher import recipe

    trained, teachers, run, train = [], [], runs.run, recipe._train

    def killed_in_the_fourth(config, **options):
        trained.append(options["test"])
        done = run(config, **options)
        assert done.test_result is None
        if len(trained) == 4:  # its training is through, nothing is recorded
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr(runs, "run", killed_in_the_fourth)
    monkeypatch.setattr(recipe, "_train", lambda *rest: teachers.append(1) or train(*rest))
    with pytest.raises(KeyboardInterrupt):
        hyper.search(config(), grid, Path("runs"))
    assert len(records()) == 3
    best = hyper.search(config(), grid, Path("runs"))
    found = records()
    assert len(set(points(found))) == len(found) == 6 and len(teachers) == 1
    assert len(trained) == 7 and not any(trained)  # the test split was never opened
    assert len({record["teacher"] for record in found}) == 1
    assert best["score"] == max(record["score"] for record in found)
    left = {file.name for file in Path("saved").iterdir()}
    assert {name.partition("-")[0] for name in left} == {"teacher"} and len(left) == 2


@pytest.mark.parametrize("algo", hyper.ALGORITHMS)
def test_a_search_that_was_stopped_ends_with_the_trials_of_one_that_was_not(config, tmp_path, algo):
    text = GRID if algo == "exhaustive" else "freqd_alpha uniform 0,1\n" + GRID.splitlines()[1]
    grid = space(tmp_path, text)
    options = {"algo": algo, "max_evals": 6, "objective": score_of}
    hyper.search(config(), grid, Path("whole"), **options)
    for n in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            options["objective"] = stopped_after(n, score_of)
            hyper.search(config(), grid, Path("runs"), **options)
    options["objective"] = score_of
    hyper.search(config(), grid, Path("runs"), **options)
    assert len(records()) == 6
    assert [(r["keys"], r["score"], r["drawn"]) for r in records()] == [
        (r["keys"], r["score"], r["drawn"]) for r in records("whole")
    ]


def test_a_finished_search_trains_nothing_and_more_trials_go_on_from_it(config, tmp_path):
    ranges = space(tmp_path, "freqd_alpha uniform 0,1\nfreqd_k quniform 1,9,1\n")
    options = {"algo": "random", "objective": lambda config: {"score": config["freqd_alpha"]}}
    hyper.search(config(), ranges, Path("runs"), max_evals=3, **options)
    options["objective"] = stopped_after(2, options["objective"])
    hyper.search(config(), ranges, Path("runs"), max_evals=5, **options)
    assert hyper.search(config(), ranges, Path("runs"), max_evals=5, **options)["score"] > 0
    assert len(set(points(records()))) == 5
    assert all(type(record["keys"]["freqd_k"]) is int for record in records())


def test_what_was_tried_before_is_not_trained_again(config, grid):
    calls = []
    objective = lambda config: calls.append(1) or score_of(config)  # noqa: E731
    hyper.search(config(), grid, Path("runs"), algo="random", max_evals=12, objective=objective)
    assert len(records()) == 12 and len(calls) == len(set(points(records()))) < 12
    assert {record["score"] for record in records() if "same_as" in record}


def test_another_config_space_or_algorithm_is_another_search(config, grid, tmp_path):
    other = space(tmp_path, GRID.replace("0.5", "0.7"), "other.hyper")
    for options in (
        (config(), grid, "exhaustive"),
        (config(embedding_size=6), grid, "exhaustive"),
        (config(), other, "exhaustive"),
        (config(), grid, "random"),
        (config(show_progress=True), grid, "exhaustive"),  # how it is shown is no difference
        (config(gpu_id="1", worker=1, eval_batch_size=99), grid, "exhaustive"),  # nor where it runs
    ):
        hyper.search(*options[:2], Path("runs"), algo=options[2], max_evals=1, objective=score_of)
    assert len(list(Path("runs").iterdir())) == 4


def test_a_teacher_file_or_a_version_that_changed_is_another_search(config, grid, monkeypatch):
    def search():
        Path("a.pth").touch()
        made = config(teacher={"checkpoint": "a.pth"})
        hyper.search(made, grid, Path("runs"), max_evals=1, objective=score_of)
        return len(list(Path("runs").iterdir()))

    assert [search(), search()] == [1, 1]
    Path("a.pth").write_bytes(b"other weights")
    assert [search(), search()] == [2, 2]
    monkeypatch.setattr("recbole.__version__", "9.9.9")
    assert search() == 3


def test_a_best_config_that_is_gone_is_written_again(config, grid):
    found = hyper.search(config(), grid, Path("runs"), objective=score_of)
    file = Path(found["folder"], "best.yaml")
    text = file.read_text()
    file.unlink()
    hyper.search(config(), grid, Path("runs"), objective=stopped_after(0, score_of))
    assert file.read_text() == text


def test_the_best_config_is_written_ready_to_run(config, grid, capsys):
    found = hyper.search(config(), grid, Path("runs"), objective=score_of)
    assert found["keys"] == {"freqd_alpha": 0.3, "freqd_beta": 1.0}
    printed = capsys.readouterr().out
    assert f"--config_files {found['folder']}/best.yaml" in printed
    assert printed.count("Trial ") == 6 and "Trial 6 of 6: " in printed
    table = Path(found["folder"], "trials.md").read_text()
    assert printed.count("\n| ") == table.count("\n| ") == 7
    assert main(["--config_files", f"{found['folder']}/best.yaml", "--output_dir=after"]) == 0
    (results,) = Path("after").glob("tiny-BPR-FreqD-*/results.json")
    saved = json.loads(results.read_text())["config"]
    assert (saved["freqd_alpha"], saved["freqd_beta"], saved["embedding_size"]) == (0.3, 1.0, 4)
    assert saved["teacher"]["model"] == "BPR" and not {"hyper_search"} & set(saved)


def test_a_trial_that_fails_says_no_to_its_own_keys_only(config, grid):
    def objective(config):
        if config["freqd_alpha"] == 0.3:
            raise TrainingError("Training loss is nan")
        return score_of(config)

    best = hyper.search(config(), grid, Path("runs"), objective=objective)
    failed = [record for record in records() if record["score"] is None]
    assert len(records()) == 6 and len(failed) == 2 and best["keys"]["freqd_alpha"] != 0.3
    assert failed[0]["error"] == "Training loss is nan"
    never = stopped_after(0, score_of)
    assert hyper.search(config(), grid, Path("runs"), objective=never)["score"] == best["score"]

    def always(config):
        raise TrainingError("nan")

    with pytest.raises(TrainingError, match="None of 6 trials has come to an end"):
        hyper.search(config(), grid, Path("none"), objective=always)


def test_a_metric_that_is_better_when_smaller_is_minimised(config, grid):
    made = config()
    made["valid_metric_bigger"] = False
    best = hyper.search(made, grid, Path("runs"), objective=score_of)
    assert best["score"] == min(record["score"] for record in records())


def test_trials_of_other_data_are_not_mixed(config, grid):
    def on(data):
        return lambda config: {**score_of(config), "data": data}

    hyper.search(config(), grid, Path("runs"), max_evals=2, objective=on("one"))
    with pytest.raises(ConfigError, match="The data has changed since runs/hyper-tiny-BPR-FreqD-"):
        hyper.search(config(), grid, Path("runs"), objective=on("other"))
    assert len(records()) == 2


def test_two_processes_do_not_share_a_search(config, grid):
    def nested(config_of_trial):
        with pytest.raises(ConfigError, match="is being searched by another process"):
            hyper.search(config(), grid, Path("runs"), objective=score_of)
        return score_of(config_of_trial)

    hyper.search(config(), grid, Path("runs"), max_evals=1, objective=nested)


@pytest.mark.parametrize("algo", ["exhaustive", "random"])
def test_trials_whose_lines_are_damaged_are_run_again_and_are_the_same(config, grid, caplog, algo):
    options = {"algo": algo, "max_evals": 6, "objective": score_of}
    hyper.search(config(), grid, Path("runs"), **options)
    whole = {record["trial"]: record["drawn"] for record in records()}
    (home,) = Path("runs").glob("*/trials")
    for number, text in ((2, '{"trial"'), (4, "[4]"), (6, "")):
        (home / f"{number}.json").write_text(text)
    hyper.search(config(), grid, Path("runs"), **options)
    assert {record["trial"]: record["drawn"] for record in records()} == whole
    assert caplog.text.count("It is run again") == 3
    lines = home.with_name("trials.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == records()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("freqd_alhpa choice [0.1]", r"unknown key 'freqd_alhpa'. Did you mean 'freqd_alpha'"),
        ("freqd_alpha choice [0.1,1.5]", r"freqd_alpha: got 1.5; allowed: float in \[0, 1\]"),
        ("freqd_alpha uniform 0,1", "--algo exhaustive: freqd_alpha cannot be exhausted"),
        ("freqd_alpha select [0.1]", r"grid.hyper: Illegal param type \[select\]"),
        ("freqd_alpha uniform 1", "grid.hyper: not enough values"),
        ("freqd_alpha choice [0.1", "is no literal"),
        ("valid_metric choice ['NDCG@10']", "valid_metric cannot be searched"),
        ("teacher.seed choice [1,2]", "'teacher.seed' is not allowed"),
        ("\n", "names no key to search"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused_before_the_first_trial(
    config, tmp_path, text, message
):
    with pytest.raises(ConfigError, match=message):
        hyper.search(config(), space(tmp_path, text), Path("runs"), objective=score_of)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("model", "text", "message"),
    [
        ("LightGCN", "n_layers uniform 1,3", r"n_layers: its range has fractions, e.g. \d.* whole"),
        ("LightGCN", "n_layers quniform 1,4,0.5", "n_layers: its range has fractions"),
        ("BPR", "teacher.n_layers uniform 1,3", "teacher.n_layers: its range has fractions"),
        ("LightGCN", "n_layers quniform 1,3,1", None),
        ("SimpleX", "negative_weight uniform 1,50", None),  # RecBole's default is 10
    ],
)
def test_fractions_of_a_whole_number_of_recboles_are_refused_before_the_first_trial(
    config, tmp_path, teacher_recipe, model, text, message
):
    searched, options = space(tmp_path, text), {"algo": "random", "max_evals": 1}
    options["objective"] = lambda config: {"score": 1.0}
    teacher = {"teacher": {**teacher_recipe, "model": "LightGCN"}}
    if message is None:
        assert hyper.search(config(model=model, **teacher), searched, Path("runs"), **options)
    else:
        with pytest.raises(ConfigError, match=message):
            hyper.search(config(model=model, **teacher), searched, Path("runs"), **options)


def test_whole_numbers_of_a_teacher_are_drawn_as_such(config, tmp_path, teacher_recipe):
    searched = space(tmp_path, "teacher.n_layers quniform 1,3,1")
    made = config(teacher={**teacher_recipe, "model": "LightGCN"})
    drawn = []

    def objective(config):
        drawn.append(config["teacher"]["n_layers"])
        return {"score": 1.0}

    hyper.search(made, searched, Path("runs"), algo="random", max_evals=2, objective=objective)
    assert {type(layers) for layers in drawn} == {int}


@pytest.mark.parametrize("given", ["--teacher.embedding_size=4", "--teacher={'embedding_size':4}"])
def test_a_key_of_the_teacher_on_the_command_line_is_not_searched(
    config, tmp_path, monkeypatch, given
):
    monkeypatch.setattr(sys, "argv", ["x", given])
    with pytest.raises(ConfigError, match="--teacher.embedding_size=... fixes what tune"):
        wanted = space(tmp_path, "teacher.embedding_size choice [4, 8]")
        hyper.search(config(), wanted, Path("runs"), objective=score_of)


def test_a_key_that_is_fixed_on_the_command_line_is_not_searched(config, grid, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", "--freqd_alpha=0.2"])
    with pytest.raises(ConfigError, match="--freqd_alpha=... fixes what tune searches"):
        hyper.search(config(), grid, Path("runs"), objective=score_of)


def test_a_space_in_yaml_has_natural_limits_and_teachers_keys_can_be_searched(config, tmp_path):
    text = """
        learning_rate: {loguniform: [1e-4, 0.01]}
        teacher.embedding_size: {choice: [8, 16]}
        freqd_filter: {choice: ['linear', '[1.0, -0.5]']}
        embedding_size: {quniform: [2, 6, 2]}
    """
    seen = []

    def objective(config):
        seen.append(config)
        return {"score": 0.5}

    files = space(tmp_path, text, "space.yaml")
    hyper.search(config(), files, Path("runs"), algo="random", max_evals=8, objective=objective)
    assert all(1e-4 <= config["learning_rate"] <= 0.01 for config in seen)
    assert {config["teacher"]["embedding_size"] for config in seen} == {8, 16}
    assert {str(config["freqd_filter"]) for config in seen} == {"linear", "[1.0, -0.5]"}
    assert {type(config["embedding_size"]) for config in seen} == {int}
    with pytest.raises(ConfigError, match="space.yaml: freqd_k: got {'uniform': .1.}"):
        spaces.Space(space(tmp_path, "freqd_k: {uniform: [1]}", "space.yaml"), "random")


def test_every_shipped_grid_and_range_can_be_searched_by_its_name(config):
    grids = sorted(file.stem for file in (properties_folder() / "hyper").glob("*.yaml"))
    ranges = sorted(file.stem for file in (properties_folder() / "search").glob("*.yaml"))
    assert grids == ["FD", "FreqD"] and set(ranges) > {"FD", "FreqD", "student", "teacher"}
    for name in grids:
        grid = spaces.Space([name], "exhaustive")
        grid.check(config(trainer=name))
        assert 2 <= grid.size <= 20
    for name in ("FreqD", "FD"):
        found = spaces.Space(["student", name], "bayes")
        found.check(config(trainer=name))
        assert "learning_rate" in found.nodes and "learning_rate" not in found.choices
    with pytest.raises(ConfigError, match="FreqE is no file .* Did you mean 'FreqD'"):
        spaces.Space(["FreqE"], "bayes")


def test_the_script_searches(config, grid, tiny_keys, capsys):
    arguments = [f"--{key}={value}" for key, value in tiny_keys.items() if key != "checkpoint_dir"]
    common = ["-d", "tiny", *arguments, "--teacher.epochs=1", "tune", *grid]
    assert main([*common, "--max_evals", "2", "--keep_checkpoints"]) == 0
    assert "Trial 2 of 2" in capsys.readouterr().out
    (home,) = Path("freqd_runs").iterdir()
    kept = [
        json.loads(line)["checkpoint"] for line in (home / "trials.jsonl").read_text().splitlines()
    ]
    assert all(Path(file).is_file() for file in kept)
    assert main([*common, "--algo", "grid"]) == 2
    assert "--algo: got 'grid'; allowed: exhaustive, random, bayes" in capsys.readouterr().err


def test_ray_runs_the_trials_of_hyperopt_side_by_side_and_goes_on(config, grid, monkeypatch):
    """One teacher, validation only, nothing left of the trials: as one after the other."""
    pytest.importorskip("ray.tune", exc_type=Exception)
    root = str(Path(hyper.__file__).parents[3])
    monkeypatch.setenv("PYTHONPATH", f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    hyper.search(config(), grid, Path("runs"), objective=score_of)
    expected = points(records())
    for folder in Path("runs").iterdir():
        folder.rename("with_hyperopt")
    hyper.search(config(), grid, Path("runs"), tool="ray", max_evals=3)
    assert sorted(points(records())) == sorted(expected[:3])
    best = hyper.search(config(), grid, Path("runs"), tool="ray")
    found = records()
    assert sorted(points(found)) == sorted(expected)
    assert sorted(record["trial"] for record in found) == [1, 2, 3, 4, 5, 6]
    assert best["score"] == max(record["score"] for record in found)
    assert len({record["teacher"] for record in found}) == 1 and "test" not in found[0]
    left = {file.name for file in Path("saved").iterdir()}
    assert {name.partition("-")[0] for name in left} == {"teacher"} and len(left) == 2
    assert {"best.yaml", "trials.md"} <= {file.name for file in Path(best["folder"]).iterdir()}


@pytest.fixture
def queue_of(config, tmp_path):
    """The queue that Ray is served from; no Ray is needed for it."""
    from recbole_freqd.jobs.tuning.ray_trials import Queue

    def make(algo, text, total, **keys):
        space_of = spaces.Space(space(tmp_path, text), algo)
        search = session.Search(config(**keys), space_of, tmp_path / "queue", algo, score_of)
        search.total = total
        return Queue(search)

    return make


def finish(queue, drawn, score=0.5):
    queue.record(drawn, {"score": score, "seconds": 0.0})


@pytest.mark.parametrize("algo", ["exhaustive", "random"])
def test_what_is_tried_side_by_side_is_what_is_tried_one_by_one(config, grid, queue_of, algo):
    hyper.search(config(), grid, Path("runs"), algo=algo, max_evals=6, objective=score_of)
    queue, running = queue_of(algo, GRID, 6), []
    finish(queue, queue.next())  # its teacher's first
    while True:
        drawn = queue.next()
        if drawn is not None:
            running.append(drawn)
        elif running:
            finish(queue, running.pop())  # the last that began is the first to end
        else:
            break
    found = queue.search.trials.records
    assert [record["drawn"] for record in found] == [record["drawn"] for record in records()]
    assert [record["trial"] for record in found] == [1, 2, 3, 4, 5, 6]


def test_students_of_one_teacher_wait_for_the_first_of_them(queue_of):
    queue = queue_of("exhaustive", "teacher.embedding_size choice [4,8]\nfreqd_k choice [1,2,3]", 6)
    first, running = queue.next(), []
    while (drawn := queue.next()) is not None:
        running.append(drawn)
    assert queue.waits and len(running) <= 1
    assert all(
        first.keys["teacher.embedding_size"] != d.keys["teacher.embedding_size"] for d in running
    )
    for drawn in (first, *running):
        finish(queue, drawn)
    assert queue.next() is not None


def test_keys_that_are_being_tried_are_waited_for_and_not_tried_twice(queue_of):
    queue = queue_of("random", "embedding_size choice [4]", 3, trainer=None, teacher=None)
    drawn = queue.next()
    assert queue.next() is None and queue.waits
    finish(queue, drawn)
    assert queue.next() is None and not queue.waits
    assert [record.get("same_as") for record in queue.search.trials.records] == [None, 1, 1]


def test_an_error_in_a_trial_ends_the_search(queue_of):
    queue = queue_of("exhaustive", GRID, 6)
    queue.record(queue.next(), {"refused": "no such teacher"})
    assert str(queue.problem) == "no such teacher" and queue.next() is None and not queue.waits


def test_without_a_ray_that_works_the_error_gives_the_command(config, grid, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r'--tool ray .*pip install "ray\[tune\]>=2.44"'):
        hyper.search(config(), grid, Path("runs"), tool="ray")
    with pytest.raises(ConfigError, match="--tool: got 'Ray'; allowed: hyperopt, ray"):
        hyper.search(config(), grid, Path("runs"), tool="Ray")


def test_without_hyperopt_the_error_gives_the_command(config, grid, monkeypatch):
    made = config()
    monkeypatch.setitem(sys.modules, "hyperopt", None)
    with pytest.raises(ConfigError, match=r'pip install "recbole_freqd\[tune\]"'):
        hyper.search(made, grid, Path("runs"))
