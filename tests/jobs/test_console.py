"""What a console cannot take, or a folder cannot keep, is not lost; the console gets little."""

import io
import json
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from recbole_freqd.core.errors import TrainingError
from recbole_freqd.jobs import run as runs
from recbole_freqd.jobs.progress import print_line
from recbole_freqd.jobs.script import main
from recbole_freqd.jobs.store import RunStore, write_lines

ROOT = Path(__file__).resolve().parents[2]
NAME = "データ"  # no console of code page 1252 can write it


class Full(io.StringIO):
    """A console whose pipe nobody reads any more."""

    def write(self, text):
        raise BrokenPipeError


@pytest.fixture
def keys(tiny_keys, teacher_recipe):
    own = {"model": "BPR", "trainer": "FreqD", "teacher": teacher_recipe, "epochs": 1}
    return {**tiny_keys, "valid_metric": "NDCG@10", "freqd_projector": "linear", **own}


@pytest.fixture
def script(host, keys, tmp_path):
    """``script("sweep", ...)`` on the tiny data: its exit code."""

    def run(*words, **more):
        file = tmp_path / "run.yaml"
        file.write_text(yaml.safe_dump({"dataset": "tiny", **keys, **more}))
        return main([*words, "--config_files", str(file)])

    return run


COMMANDS = pytest.mark.parametrize(
    ("words", "extra"),
    [
        ([], None),
        (["compare", "FD", "--seeds", "1"], None),
        (["sweep", "freqd_alpha=0,1"], "matplotlib"),
        (["tune", "own.hyper"], "hyperopt"),
    ],
    ids=["main", "compare", "sweep", "tune"],
)


# --- consoles --------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1"])
def test_a_line_that_a_console_cannot_write_is_written_as_far_as_it_can(monkeypatch, encoding):
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding=encoding))
    print_line(f"{NAME}: 0.25")
    assert content.getvalue().decode(encoding).strip().endswith("\\u30bf: 0.25")


@pytest.mark.parametrize("kind", ["full", "closed", "none"])
def test_a_console_that_is_gone_stops_nothing(monkeypatch, kind):
    console = {"full": Full(), "closed": io.StringIO(), "none": None}[kind]
    if kind == "closed":
        console.close()
    monkeypatch.setattr(sys, "stdout", console)
    print_line("0.25")


@COMMANDS
def test_a_dataset_whose_name_the_console_cannot_write_is_run_to_its_end(
    script, tiny_data, tmp_path, monkeypatch, words, extra
):
    if extra:
        pytest.importorskip(extra)
    Path("own.hyper").write_text("freqd_alpha choice [0.1]\n")
    shutil.copytree(tiny_data / "tiny", tmp_path / "data" / NAME)
    file = tmp_path / "data" / NAME / "tiny.inter"
    file.rename(file.with_name(f"{NAME}.inter"))
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding="cp1252"))
    assert script(*words, dataset=NAME, data_path=str(tmp_path / "data")) == 0
    assert list(Path("freqd_runs").glob(f"*{NAME}*"))
    assert b"0." in content.getvalue()


# --- folders ---------------------------------------------------------------------------------


@COMMANDS
def test_what_was_computed_is_shown_where_the_folder_of_results_cannot_be_written_any_more(
    script, monkeypatch, capsys, words, extra
):
    """While the first run trains, the folder becomes one that cannot be written to: a file."""
    if extra:
        pytest.importorskip(extra)
    Path("own.hyper").write_text("freqd_alpha choice [0.1]\n")
    train = runs.run

    def run(config, **options):
        if Path("freqd_runs").is_dir():
            shutil.rmtree("freqd_runs")
        Path("freqd_runs").touch()
        return train(config, **options)

    monkeypatch.setattr(runs, "run", run)
    code = script(*words)
    said = capsys.readouterr()
    assert (code == 2 and "Cannot write" in said.err) or "cannot be made" in said.err
    assert re.search(r"0\.\d{4}", said.out), "the table is shown"
    assert "ndcg@10" in said.out and "Traceback" not in said.err


def test_a_store_that_cannot_write_keeps_what_it_has_in_memory(tmp_path, caplog):
    (tmp_path / "runs").touch()
    store = RunStore(tmp_path / "runs")
    outcome = store.attempt("one", lambda: {"score": 0.5}, wait=False)
    assert outcome.fresh and outcome.record == {"score": 0.5} == store.find("one")
    assert not store.attempt("one", lambda: 1 / 0, wait=False).fresh and store.names() == ["one"]
    assert "one cannot be kept on disk, and goes on in memory" in caplog.text
    assert store.attempt("two", lambda: 1 / 0, wait=False).error.startswith("ZeroDivisionError")


def test_a_store_takes_what_is_finished_and_runs_again_what_failed_or_is_damaged(tmp_path, caplog):
    store, asked = RunStore(tmp_path), []

    def run(name, error=None):
        def made():
            asked.append(name)
            if error:
                raise error
            return {"score": len(asked)}

        return store.attempt(name, made, wait=False, device="cpu")

    assert run("a", TrainingError("loss is nan")).error == "loss is nan"
    assert "Traceback" in store.file("a", "failed").read_text() and store.names() == []
    first = run("a").record
    assert first["score"] == 2 and first["made_with"]["torch"]
    assert not store.file("a", "failed").exists()
    assert run("a").record == first and asked == ["a", "a"]
    store.file("a").write_text('{"score"')
    assert run("a").record["score"] == 3 and "It is run again" in caplog.text
    write_lines(tmp_path / "all.jsonl", [first, {"score": 1}])
    assert len([json.loads(line) for line in (tmp_path / "all.jsonl").open()]) == 2


# --- keys that are no text -------------------------------------------------------------------


@pytest.mark.parametrize("line", ["on: 5", "5: 5", "~: 5", "2020-01-01: 5", "1.5: [a]"])
def test_a_key_of_yaml_that_is_no_text_is_refused_before_anything_is_trained(
    host, tmp_path, keys, line, monkeypatch, capsys
):
    monkeypatch.setattr(runs, "run", None)
    file = tmp_path / "own.yaml"
    file.write_text(f"{yaml.safe_dump({**keys, 'dataset': 'tiny'})}{line}\n")
    for words in ([], ["compare", "FD"], ["sweep", "freqd_k=5,10"], ["tune", "FreqD"]):
        assert main([*words, "--config_files", str(file)]) == 2
        assert re.search(
            r"The key .* of the config is a .*; allowed: text", capsys.readouterr().err
        )


# --- how much is said ------------------------------------------------------------------------


def said_by_the_script(tmp_path, keys, *words):
    """Lines of stderr, in a process of its own: pytest's own handlers would be in the way."""
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({**keys, "dataset": "tiny", "state": "INFO"}))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(ROOT / "run_recbole_freqd.py"),
         "--config_files", str(file), *words],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stderr.splitlines()


def test_the_main_job_says_a_line_per_epoch_at_most_and_its_log_file_has_all(tmp_path, keys):
    keys = {**keys, "epochs": 6, "eval_step": 2, "teacher": {**keys["teacher"], "epochs": 4}}
    del keys["show_progress"]
    lines = said_by_the_script(tmp_path, keys)
    epochs = [line for line in lines if re.search(r"\bepoch \d+", line)]
    assert len(epochs) == 4 + 3 * 3 and all("valid_score" in line for line in epochs)
    assert len(lines) < len(epochs) + 20
    assert not any("it/s" in line or "embedding_size" in line for line in lines)
    file = max((tmp_path / "log").rglob("*.log"), key=lambda path: path.stat().st_size)
    assert "train loss" in file.read_text() and "embedding_size" in file.read_text()


def test_state_debug_says_all(tmp_path, keys):
    lines = said_by_the_script(tmp_path, {**keys, "epochs": 1}, "--state=DEBUG")
    assert any("train loss" in line for line in lines)
    assert any("embedding_size" in line for line in lines)


def test_a_config_without_validation_still_says_its_epochs():
    from recbole_freqd.compat.logs import _Brief

    def passes(kind, name, message, level=logging.INFO):
        record = logging.LogRecord(name, level, "", 0, message, None, None)
        return _Brief(kind, ("recbole_freqd.jobs.run",)).filter(record)

    training = "\x1b[1;32mepoch 3 training\x1b[0m [time: 1s, train loss: 2]"
    assert passes("training", "root", training) and not passes("evaluating", "root", training)
    assert passes("evaluating", "root", training.replace("training", "evaluating"))
    assert passes("evaluating", "recbole_freqd.teacher.recipe", "Teacher trained: %s")
    assert not passes("evaluating", "recbole_freqd.jobs.run", "a model")
    assert not passes("evaluating", "recbole_freqd.trainer", "epoch %d losses per batch: %s")
    assert passes("evaluating", "root", "careful", logging.WARNING)
