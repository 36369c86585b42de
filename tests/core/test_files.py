"""writing: a file is there whole or not at all, and what stood there before outlives a failure."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from recbole_freqd.checkpoint.loading import load_checkpoint, load_plain, sidecar_path
from recbole_freqd.core import files as writing
from recbole_freqd.core.errors import CheckpointError
from recbole_freqd.core.files import (
    new_checkpoint_path,
    read_json,
    replacing,
    write_atomically,
    write_json,
)


def test_a_file_appears_with_its_folder_and_under_its_name_only_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "folder" / "a.json"

    def write(temporary):
        Path(temporary).write_text("half")
        assert Path(temporary).parent == path.parent  # a rename across disks is not atomic
        assert not path.exists()
        Path(temporary).write_text("whole")

    write_atomically(path, write)
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("raised", "reported"),
    [
        (OSError("disk full"), CheckpointError),
        (RuntimeError("disk full"), CheckpointError),  # what torch raises, in whatever words
        (NotImplementedError("disk full"), NotImplementedError),
        (ValueError("disk full"), ValueError),
        (KeyboardInterrupt("disk full"), KeyboardInterrupt),
    ],
)
def test_where_writing_fails_the_old_file_stays_and_no_half_one_is_left(tmp_path, raised, reported):
    path = tmp_path / "a.pth"
    path.write_text("old")

    def write(temporary):
        Path(temporary).write_text("half")
        raise raised

    with pytest.raises(reported, match="disk full"):
        write_atomically(path, write)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"Cannot write .*file.a\.json: "):
        write_json(tmp_path / "file" / "a.json", {})
    with pytest.raises(CheckpointError, match=r"checkpoint_dir .*file cannot be made: .*Change ch"):
        new_checkpoint_path(tmp_path / "file", "BPR")


def test_json_is_written_as_it_is_read_and_legible(tmp_path):
    content = {"metric": {"ndcg@10": 0.25}, "word": "λ", "path": tmp_path}
    write_json(tmp_path / "a.json", content)
    written = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(written) == {**content, "path": str(tmp_path)}
    assert "λ" in written
    assert written.count("\n") == 7


def test_two_runs_that_start_together_do_not_share_a_checkpoint(tmp_path):
    paths = {new_checkpoint_path(tmp_path / "saved", "BPR-FreqD") for _ in range(20)}
    assert len(paths) == 20
    for path in paths:
        assert Path(path).parent.is_dir()
        assert re.fullmatch(rf"BPR-FreqD-.*-{os.getpid()}\.pth", Path(path).name)


def test_what_was_written_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    done = []
    for name in ("fsync", "replace"):
        plain = getattr(os, name)
        monkeypatch.setattr(
            writing.os,
            name,
            lambda *args, plain=plain, name=name: (done.append(name), plain(*args)),
        )
    write_json(tmp_path / "a.json", {})
    assert done == ["fsync", "replace", *(["fsync"] if os.name == "posix" else [])]


def test_a_disk_that_cannot_sync_folders_is_no_error(tmp_path, monkeypatch):
    opened = os.open

    def refuse(path, *arguments):
        if os.path.isdir(path):
            raise OSError(errno.EINVAL, "no")
        return opened(path, *arguments)

    monkeypatch.setattr(writing.os, "open", refuse)
    write_json(tmp_path / "a.json", {})
    assert read_json(tmp_path / "a.json") == {}


# --- disks that are full, folders that are none -------------------------------------------------


def full(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["touch", "fsync", "replace", "write"])
def test_a_full_disk_is_an_error_that_names_file_and_cause_and_the_old_file_stays(
    tmp_path, monkeypatch, where
):
    path = tmp_path / "a.json"
    write_json(path, "old")
    if where == "touch":
        monkeypatch.setattr(Path, "touch", full)
    elif where != "write":
        monkeypatch.setattr(writing.os, where, full)
    message = (
        rf"Cannot write {re.escape(str(path))}: .*No space left.* MiB free\. The file that was"
    )
    with pytest.raises(CheckpointError, match=message):
        write_atomically(
            path, full if where == "write" else lambda name: Path(name).write_text("x")
        )
    monkeypatch.undo()
    assert read_json(path) == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_of_the_disk_inside_a_longer_work_is_ours_and_others_are_not(tmp_path):
    with pytest.raises(CheckpointError, match="No space left"), replacing(tmp_path / "a"):
        full()
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a"):
        (tmp_path / "data that is missing").read_text()
    with pytest.raises(RuntimeError, match="CUDA"), replacing(tmp_path / "a"):
        raise RuntimeError("CUDA error")


def test_nothing_written_is_an_error_and_not_an_empty_file_in_the_place_of_a_good_one(tmp_path):
    write_json(tmp_path / "a", "old")
    with pytest.raises(CheckpointError, match="nothing was written to it"):
        write_atomically(tmp_path / "a", lambda _: None)
    assert read_json(tmp_path / "a") == "old"


def test_a_folder_that_is_a_file_or_that_nobody_may_write_to_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"Cannot write .*change it \(checkpoint_dir"):
        write_atomically(tmp_path / "file" / "a.pth", lambda name: torch.save({}, name))
    if os.name == "posix" and os.geteuid() != 0:  # root may write anywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(CheckpointError, match="Permission denied"):
            write_json(tmp_path / "locked" / "a.json", {})


def test_a_folder_that_is_removed_while_torch_writes_is_an_error(tmp_path):
    def write(name):
        os.unlink(name)
        os.rmdir(tmp_path / "saved")
        torch.save({}, name)

    with pytest.raises(CheckpointError, match=r"Cannot write .*Parent directory"):
        write_atomically(tmp_path / "saved" / "a.pth", write)


def in_a_process(code, *arguments, **more):
    """Starts Python on a piece of code that imports this package."""
    root = str(Path(writing.__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more,
    )  # fmt: skip


LIMITED = """
import resource, signal, sys
import torch
from recbole_freqd.checkpoint import load_plain
from recbole_freqd.core.errors import CheckpointError
from recbole_freqd.core.files import write_atomically, write_json
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
path = sys.argv[1]
write_atomically(path, lambda name: torch.save({"w": torch.ones(10)}, name))
for write in (
    lambda: write_atomically(path, lambda name: torch.save({"w": torch.ones(10**6)}, name)),
    lambda: write_json(path, ["x" * 10**6]),
):
    try:
        write()
    except CheckpointError as error:
        print(error)
    assert load_plain(path)["w"].tolist() == [1] * 10
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the size of files")
def test_a_write_that_the_system_really_cuts_off_is_an_error_and_the_old_file_stays(tmp_path):
    process = in_a_process(LIMITED, tmp_path / "a.pth")
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    first, second = output.splitlines()
    assert re.match(r"Cannot write .*a\.pth: torch could not write all of it", first)
    assert re.match(r"Cannot write .*a\.pth: .*File too large", second)
    assert [file.name for file in tmp_path.iterdir()] == ["a.pth"]


# --- processes that die -------------------------------------------------------------------------

WRITES = """
import sys
import torch
from recbole_freqd.core.files import write_atomically
for count in range(1, 10**6):
    write_atomically(
        sys.argv[1], lambda name: torch.save({"w": torch.full((300_000,), float(count))}, name)
    )
    print(count, flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="kills with SIGKILL")
def test_a_process_that_is_killed_while_it_writes_leaves_a_whole_file(tmp_path):
    path = tmp_path / "saved" / "a.pth"
    for delay in (0.0, 0.001):
        process = in_a_process(WRITES, path)
        for _ in range(3):
            last = int(process.stdout.readline())
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        rest = process.communicate()[0].split()
        last = int(rest[-1]) if rest else last
        weights = load_plain(path)["w"]
        assert weights.unique().tolist() in ([float(last)], [float(last + 1)])
        assert set(path.parent.glob("*.pth")) == {path}, "a half-written file has another name"
    leftovers = list(path.parent.glob(".*"))
    writing._cleaned.clear()
    write_json(path.parent / "next.json", {})
    assert not list(path.parent.glob(".*")), f"of {leftovers}"


@pytest.mark.skipif(os.name != "posix", reason="no look at other processes elsewhere")
def test_only_what_a_dead_process_of_this_machine_left_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_cleaned", set())
    dead = in_a_process("")
    dead.communicate()
    gone = tmp_path / f".a.pth.{writing._HOST}-{dead.pid}.part"
    earlier = tmp_path / f".a.pth.{writing._HOST}-{os.getpid()}.part"
    kept = [
        tmp_path / f".a.pth.{writing._HOST}-{os.getppid()}.part",
        tmp_path / f".a.pth.00000000-{dead.pid}.part",
        tmp_path / "a.part",
        tmp_path / ".a.part",
    ]
    for file in (gone, earlier, *kept):
        file.touch()
    with replacing(tmp_path / "b.json") as temporary:
        Path(temporary).write_text("{}")
        writing._cleaned.clear()
        write_json(tmp_path / "c.json", {})  # what is being written just now is no leftover
        assert Path(temporary).exists()
    assert set(tmp_path.iterdir()) == {*kept, tmp_path / "b.json", tmp_path / "c.json"}


# --- a run whose disk fills up ------------------------------------------------------------------


@pytest.mark.parametrize("error", ["of the system", "of torch"])
@pytest.mark.parametrize("part", ["checkpoint", "sidecar", "state"])
def test_a_run_whose_disk_fills_up_ends_with_our_error_and_keeps_its_last_best(
    built, teacher_recipe, monkeypatch, part, error
):
    from recbole_freqd.trainer.distillation import FreqDTrainer

    model, (train_data, valid_data, _) = built(teacher=teacher_recipe, trainer="FreqD", epochs=3)
    trainer = FreqDTrainer(train_data._dataset.config, model)
    trainer._valid_epoch = _ever_better()
    save, saved = torch.save, []

    def fill_up(content, path, **kwargs):
        kinds = {"methods": "sidecar", "finished": "state", "config": "checkpoint"}
        (kind,) = (kinds[key] for key in kinds if key in content)
        saved.append(kind)
        save(content, path, **kwargs)
        if saved.count(kind) == 2 and kind == part and "teacher" not in str(path):
            os.truncate(path, os.path.getsize(path) // 2)
            if error == "of torch":
                raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64")
            full()

    monkeypatch.setattr(torch, "save", fill_up)
    trainer.prepare(train_data, valid_data)  # the teacher is saved before we count
    saved.clear()
    path = trainer.saved_model_file
    name = {"checkpoint": path, "sidecar": sidecar_path(path), "state": Path(path).stem}[part]
    cause = "No space left" if error == "of the system" else "unexpected pos 64"
    with pytest.raises(CheckpointError, match=rf"Cannot write .*{re.escape(name)}.*{cause}"):
        trainer.fit(train_data, valid_data, show_progress=False)
    assert load_checkpoint(path)["epoch"] == (0 if part == "checkpoint" else 1)
    assert load_plain(sidecar_path(path))["methods"] == ["FreqD"]
    assert not list(Path(path).parent.glob(".*"))


def _ever_better():
    """A validation that finds every epoch better than the last, so that each is saved."""
    scores = iter(range(1, 100))
    return lambda *_args, **_kwargs: ((score := next(scores) / 100), {"ndcg@10": score})


def test_the_student_alone_is_saved_whole_or_not_at_all(tiny_config, monkeypatch):
    from recbole_freqd.jobs import run as runs

    save, saved = torch.save, []

    def fill_up(content, path, **kwargs):
        save(content, path, **kwargs)
        saved.append("config" in content)
        if sum(saved) == 2:
            os.truncate(path, 100)
            full()

    monkeypatch.setattr(torch, "save", fill_up)
    monkeypatch.setattr("recbole.trainer.Trainer._valid_epoch", _ever_better())
    config = tiny_config(epochs=3)
    with pytest.raises(CheckpointError, match=r"Cannot write .*BPR-.*\.pth: .*No space left"):
        runs.run(config)
    (path,) = Path(config["checkpoint_dir"]).glob("*.pth")
    assert load_checkpoint(path)["epoch"] == 0


# --- what is written needs no pickle ------------------------------------------------------------


def test_every_file_a_run_writes_but_the_checkpoints_of_recbole_needs_no_pickle(
    host, tiny_keys, teacher_recipe, monkeypatch, tmp_path
):
    from recbole_freqd.jobs.script import main

    monkeypatch.setattr(sys, "argv", ["run.py"])
    keys = {**tiny_keys, "teacher": teacher_recipe, "epochs": 1}
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps({**keys, "valid_metric": "NDCG@10"}))
    assert main(["-d", "tiny", "--config_files", str(file), "--output_dir", "out"]) == 0
    read = {
        ".json": lambda path: json.loads(path.read_text()),
        ".pt": lambda path: torch.load(path, weights_only=True),
        ".md": lambda path: path.read_text(),
        ".png": lambda path: path.read_bytes().startswith(b"\x89PNG"),  # where matplotlib is
        ".pth": load_checkpoint,  # RecBole's form; it must be one that RecBole alone can load
    }
    folders = (tmp_path / "saved", tmp_path / "out")
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    assert {file.suffix for file in files} | {".png"} == set(read)
    for file in files:
        assert read[file.suffix](file), file
