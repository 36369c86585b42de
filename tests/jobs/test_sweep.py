"""sweep: which values, what is run once only, and what is plotted."""

import json
from contextlib import ExitStack
from pathlib import Path

import pytest

from recbole_freqd.config import make
from recbole_freqd.core.errors import ConfigError, TrainingError
from recbole_freqd.core.locks import working_on
from recbole_freqd.jobs import run as runs
from recbole_freqd.jobs.analysis import figures as spectrum_plots
from recbole_freqd.jobs.script import main
from recbole_freqd.jobs.sweep import sweep
from tests.jobs.test_quick_start import tiny_file  # noqa: F401


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("freqd_alpha=0,0.1,...,1", ["0", "0.1", *(f"0.{i}" for i in range(2, 10)), "1"]),
        ("freqd_beta=1,0.5,…,-1", ["1", "0.5", "0", "-0.5", "-1"]),
        ("freqd_k=1,2,...,4,10", ["1", "2", "3", "4", "10"]),
        ("freqd_filter=linear", ["linear"]),
    ],
)
def test_values_are_listed_or_go_on_in_equal_steps(text, values):
    assert sweep.read_sweep(text) == (text.partition("=")[0], values)


@pytest.mark.parametrize(
    "text",
    ["freqd_alpha", "=1", "a=", "a=1,,2", "a=1,1", "a=...,1", "a=1,...,2", "a=0,1,...", "a=0,0,...,1",
     "a=0,0.3,...,1", "a=0,1,...,-5", "a=x,y,...,z", "a=0,1e-9,...,1"],
)  # fmt: skip
def test_what_is_no_list_of_values_is_refused(text):
    with pytest.raises(ConfigError, match="sweep: got"):
        sweep.read_sweep(text)


def test_the_script_sweeps_on_validation_and_never_runs_a_cell_twice(
    tiny_file,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    pytest.importorskip("matplotlib")
    asked, run = [], runs.run

    def counted(config, **keys):
        asked.append((config["freqd_alpha"], config["seed"], config["trainer"], keys))
        return run(config, **keys)

    monkeypatch.setattr(runs, "run", counted)
    arguments = ["-m", "BPR", "-d", "tiny", "--config_files", tiny_file, "--output_dir", "out"]
    arguments += ["--freqd_projector=linear", "--epochs=1"]
    assert main([*arguments, "sweep", "freqd_alpha=0,1", "--seeds", "1,2"]) == 0
    assert {each[:3] for each in asked} == {
        (0.0, 1, "FreqD"), (0.0, 2, "FreqD"), (1.0, 1, "FreqD"), (1.0, 2, "FreqD"),
        (None, 1, None), (None, 2, None),
    }  # fmt: skip
    assert all(each[3] == {"saved": False, "test": False} for each in asked)
    home = Path(tmp_path, "out", "sweep-tiny-freqd_alpha")
    found = json.loads((home / "sweep.json").read_text())
    assert [point["value"] for point in found["points"]] == [0.0, 1.0]
    for line in (*found["points"], found["teacher"], found["alone"]):
        assert len(line["values"]) == 2 and line["sd"] >= 0
    assert (home / "sweep.png").is_file() and (home / "sweep.svg").is_file()
    assert len((home / "sweep.csv").read_text().splitlines()) == 5
    assert len(list((home / "cells").glob("*.json"))) == 6
    before = len(asked)
    assert main([*arguments, "sweep", "freqd_alpha=0,0.5,1", "--seeds", "1"]) == 0
    assert [each[:2] for each in asked[before:]] == [(0.5, 1)]


def test_a_value_whose_run_fails_stops_no_other_and_is_left_out_and_tried_again(
    tiny_file,  # noqa: F811
    tmp_path,
    monkeypatch,
    capsys,
):
    pytest.importorskip("matplotlib")
    asked, run, drawn, failing = [], runs.run, [], {(10.0, 2), (0.1, 1)}

    def broken(config, **keys):
        asked.append((config["freqd_beta"], config["seed"]))
        if asked[-1] in failing:
            raise TrainingError("Training loss is nan.")
        return run(config, **keys)

    figure = spectrum_plots.sweep_figure
    monkeypatch.setattr(runs, "run", broken)
    monkeypatch.setattr(
        spectrum_plots, "sweep_figure", lambda f: drawn.append(figure(f)) or drawn[0]
    )
    arguments = ["-m", "BPR", "-d", "tiny", "--config_files", tiny_file, "--output_dir", "out"]
    arguments += ["--freqd_projector=linear", "--epochs=1"]
    failed = main([*arguments, "sweep", "freqd_beta=1,10,2", "--seeds", "1,2"])
    said = capsys.readouterr().err
    assert (
        failed == 2
        and "left out of the figure: freqd_beta=10, seed 2: Training loss is nan" in said
    )
    home = Path(tmp_path, "out", "sweep-tiny-freqd_beta")
    found = json.loads((home / "sweep.json").read_text())
    assert [point["mean"] is None for point in found["points"]] == [False, True, False]
    assert found["teacher"] and found["alone"] and len(found["failed"]) == 1
    assert "10.0,2,failed" in (home / "sweep.csv").read_text()
    (axis,) = drawn[0].axes
    assert list(axis.lines[0].get_xdata()) == [1, 2] and "failed: 10.0" in axis.get_title("left")
    (traceback,) = (home / "cells").glob("*.failed")
    assert "in broken" in traceback.read_text()
    assert main([*arguments, "sweep", "freqd_beta=0.1", "--seeds", "1,2"]) == 2
    assert "No value of freqd_beta could be run on all seeds" in capsys.readouterr().err

    failing.clear()
    before = len(asked)
    assert main([*arguments, "sweep", "freqd_beta=1,10,2", "--seeds", "1,2"]) == 0
    assert asked[before:] == [(10.0, 2)] and not traceback.exists()


def test_what_another_process_is_at_is_left_for_the_end_and_taken_from_it(
    tiny_file,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    """The other process is at freqd_beta 10, and ends while we run freqd_beta 2."""
    pytest.importorskip("matplotlib")
    ran, other = [], ExitStack()
    arguments = ["-m", "BPR", "-d", "tiny", "--config_files", tiny_file, "--output_dir", "out"]
    arguments += ["sweep", "freqd_beta=1,10,2", "--seeds", "1"]
    home = Path(tmp_path, "out", "sweep-tiny-freqd_beta")

    def run(config):
        ran.append(config["freqd_beta"])
        if ran[3:] == [1]:
            assert other.enter_context(working_on(theirs.with_suffix(""), "", wait=False))
        if ran[3:] == [1, 2]:
            theirs.write_text(text)
            other.close()
        return {"valid": {"ndcg@10": 0.5}, "teacher": {}, "seconds_per_epoch": 1.0}

    monkeypatch.setattr(sweep, "_run", run)
    monkeypatch.setattr(make, "alone_config", lambda config: config)  # so that there is no line
    assert main(arguments) == 0 and ran == [1, 10, 2]
    whole = (home / "sweep.json").read_text()
    for path in (home / "cells").glob("*.json"):
        if float(json.loads(path.read_text())["config"]["freqd_beta"]) == 10:
            theirs, text = path, path.read_text()
        path.unlink()
    assert main(arguments) == 0 and ran[3:] == [1, 2]
    assert (home / "sweep.json").read_text() == whole
    assert len(list((home / "cells").iterdir())) == 3


def test_lines_of_teacher_and_student_alone_are_drawn_only_where_the_key_leaves_them_alone(
    tiny_file,  # noqa: F811
    tmp_path,
):
    pytest.importorskip("matplotlib")
    arguments = ["-m", "BPR", "-d", "tiny", "--config_files", tiny_file, "--output_dir", "out"]
    arguments += ["--freqd_projector=linear", "--epochs=1", "--freqd_alpha=0"]
    for key, lines in (
        ("embedding_size=3,4", {"teacher"}),
        ("teacher.embedding_size=5,8", {"alone"}),
    ):
        assert main([*arguments, "sweep", key]) == 0
        file = Path(tmp_path, "out", f"sweep-tiny-{key.partition('=')[0]}", "sweep.json")
        found = json.loads(file.read_text())
        assert {name for name in ("teacher", "alone") if found[name]} == lines
        assert all(isinstance(point["value"], (int, float)) for point in found["points"])


def test_a_value_that_is_not_allowed_ends_it_before_the_work(tiny_file, monkeypatch, capsys):  # noqa: F811
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(runs, "run", None)
    arguments = ["-m", "BPR", "-d", "tiny", "--config_files", tiny_file]
    assert main([*arguments, "sweep", "freqd_alpha=0.5,3"]) == 2
    assert "freqd_alpha: got 3" in capsys.readouterr().err
