"""Two processes in one folder: one works, the other waits; here they are two threads."""

import threading
from pathlib import Path

import pytest

from recbole_freqd.core import locks
from recbole_freqd.core.errors import CheckpointError
from recbole_freqd.core.locks import each_when_free, working_on

PATH = Path("folder/thing")


def test_only_one_works_on_a_thing_and_nothing_is_left(tmp_path):
    with working_on(PATH, "--output_dir") as first:
        with working_on(PATH, "--output_dir") as second, working_on(Path("folder/b"), "") as other:
            assert (first, second, other) == (True, False, True)
        with working_on(PATH, "--output_dir") as third:
            assert third is False
    with working_on(PATH, "--output_dir") as again:
        assert again and [file.name for file in Path("folder").iterdir()] == ["thing.lock"]
    assert not list(Path("folder").iterdir())


def test_who_waits_goes_on_when_the_other_ends_even_by_an_error(monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(locks, "_POLL", 0.01)
    order = []

    def wait():
        with working_on(PATH, "--output_dir", wait=True) as mine:
            order.append(mine)

    thread = threading.Thread(target=wait)
    with pytest.raises(KeyboardInterrupt), working_on(PATH, "--output_dir"):
        thread.start()
        thread.join(0.1)
        order.append("first")
        raise KeyboardInterrupt
    thread.join(10)
    assert order == ["first", True]
    assert "Waiting for folder/thing: another process works on it" in caplog.text


def test_a_folder_that_cannot_hold_a_lock_is_an_error_and_a_disk_without_locks_a_warning(
    monkeypatch, caplog
):
    def refuse(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(locks.FileLock, "acquire", refuse)
    error = OSError(30, "Read-only file system")
    words = "Cannot lock folder/thing: .*Change --output_dir"
    with pytest.raises(CheckpointError, match=words), working_on(PATH, "--output_dir"):
        pass
    error = OSError(95, "not supported")
    for _ in range(2):
        with working_on(PATH, "--output_dir", wait=True) as mine:
            assert mine and caplog.text.count("has no locks") == 1  # once for a folder


def test_what_is_taken_comes_at_the_end_and_is_waited_for_only_when_nothing_else_is_left():
    taken, seen = {"a": 3, "c": 2}, []  # how often each is found taken

    def attempt(one, wait):
        seen.append((one, wait))
        taken[one] = 0 if wait else taken.get(one, 0) - 1
        return taken[one] < 0 or wait

    each_when_free(["a", "b", "c", "d"], attempt)
    first = [(one, False) for one in "abcd"]
    assert seen == [*first, ("a", False), ("c", False), ("a", True), ("c", False)]
