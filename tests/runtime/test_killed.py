"""Runs that are killed with SIGKILL, at whatever moment, end in the same student when resumed."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import recbole_freqd
from recbole_freqd.checkpoint.loading import load_checkpoint, load_plain, sidecar_path
from tests.support import killed

pytestmark = pytest.mark.skipif(os.name != "posix", reason="forks, and kills with SIGKILL")
TEACHER = {"model": "BPR", "embedding_size": 16, "epochs": 3, "learning_rate": 0.01}
FREQD = {"trainer": "FreqD", "freqd_k": 3, "learning_rate": 0.01, "valid_metric": "NDCG@10"}


@pytest.fixture
def runner(tmp_path):
    """Runs jobs of :mod:`tests.support.killed`, by turns below two processes that hash strings otherwise."""
    root = str(Path(recbole_freqd.__file__).resolve().parents[1])
    errors = (tmp_path / "errors.txt").open("w+")
    processes = [
        subprocess.Popen(
            [sys.executable, killed.__file__], text=True, cwd=tmp_path,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": seed},
        )
        for seed in ("1", "2")
    ]  # fmt: skip

    def run(job, point=None):
        processes.reverse()
        process = processes[0]
        process.stdin.write(json.dumps({**job, "point": point}) + "\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline() or '{"status": "the runner is gone"}')
        errors.seek(0)
        assert answer["status"] in (0, -9), (answer, errors.read()[-5000:])
        return answer

    yield run
    for process in processes:
        process.stdin.close()
        process.wait()
    errors.close()


def drawn(rng, calls, seconds):
    """A point to kill a run at: first of which kind, then at which call and when."""
    name = rng.choice([*(name for name in killed.POINTS if calls.get(name)), "time"])
    if name == "time":
        return [name, rng.uniform(0, seconds), ""]
    whens = ["before", "after", *(["half"] if name == "any file" else [])]
    return [name, rng.randint(1, calls[name]), rng.choice(whens)]


def student(answer):
    """All bits that are kept of a student: its weights, its projectors, how it was validated."""
    payload = load_checkpoint(answer["path"])
    kept = {name: payload[name] for name in ("state_dict", "optimizer", "epoch", "cur_step")}
    kept["sidecar"] = load_plain(sidecar_path(answer["path"]))
    del kept["sidecar"]["checkpoint"]  # of its bytes, and in those are the folders of the run
    return kept


def same(one, other):
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def states(job):
    """Names of the interrupted students that there are."""
    folder = Path(job["keys"]["checkpoint_dir"])
    return [file.name.partition(".")[0] for file in folder.glob("BPR-FreqD*.last.pt")]


def check(runner, job, folder, points, seed):
    """Kills a run at random points, one after the other, and resumes it until it is done."""
    job["keys"]["checkpoint_dir"] = str(folder / "whole")
    whole = runner(job)
    expected = student(whole)
    assert len(expected["sidecar"]["distiller"]) > 0
    rng, killed_at = random.Random(seed), []
    while len(killed_at) < points:
        job["keys"].update(checkpoint_dir=str(folder / f"killed-{len(killed_at)}"), resume=True)
        answer, count = {"status": -9}, 0
        while answer["status"] == -9:
            # A run that goes on from the middle comes to fewer calls than a whole one, so not
            # every point is reached.
            count += 1
            point = drawn(rng, whole["calls"], whole["seconds"]) if count <= 3 else None
            kept = states(job)
            answer = runner(job, point)
            if answer["status"] == -9:
                killed_at.append(point)
        assert same(expected, student(answer)), killed_at[-count:]
        assert not kept or kept == [Path(answer["path"]).stem], "it goes on, and not anew"
        left = {file.suffix for file in Path(job["keys"]["checkpoint_dir"]).glob("teacher-*")}
        assert left == {".pth", ".json"}
    return killed_at


def test_a_run_killed_at_random_ends_in_the_same_student(runner, tiny_keys, tmp_path):
    teacher = {**TEACHER, "train_batch_size": 128}
    keys = {**tiny_keys, **FREQD, "teacher": teacher, "epochs": 4}
    points = check(
        runner, {"model": "BPR", "dataset": "tiny", "keys": keys}, tmp_path, points=4, seed=1
    )
    assert len(points) >= 4


@pytest.mark.slow
def test_twenty_kills_on_ml_100k_in_all_stages_end_in_the_same_student(runner, tmp_path):
    keys = {
        **FREQD, "teacher": {**TEACHER, "train_batch_size": 8192}, "epochs": 4,
        "embedding_size": 8, "train_batch_size": 8192, "show_progress": False, "state": "ERROR",
    }  # fmt: skip
    job = {"model": "BPR", "dataset": "ml-100k", "keys": keys}
    points = check(runner, job, tmp_path, points=20, seed=2026)
    assert len(points) >= 20
    assert len({name for name, _, _ in points}) >= 8, points


@pytest.mark.slow
@pytest.mark.parametrize("name", killed.POINTS)
def test_a_kill_at_the_first_and_at_the_last_call_of_everything(runner, tiny_keys, tmp_path, name):
    teacher = {**TEACHER, "train_batch_size": 128}
    keys = {**tiny_keys, **FREQD, "teacher": teacher, "epochs": 3}
    job = {"model": "BPR", "dataset": "tiny", "keys": {**keys, "checkpoint_dir": "whole"}}
    whole = runner(job)
    os.chdir(tmp_path)
    expected, count = student(whole), whole["calls"][name]
    assert count
    for when in ("before", "after", *(["half"] if name == "any file" else [])):
        for call in sorted({1, count // 2 + 1, count - 1, count} - {0}):
            job["keys"].update(checkpoint_dir=f"{when}-{call}", resume=True)
            assert runner(job, [name, call, when])["status"] == -9
            assert same(expected, student(runner(job))), (name, call, when)
