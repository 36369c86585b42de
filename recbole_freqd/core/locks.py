"""Locks between processes of one folder; the system frees those of a process that dies."""

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Callable, Optional, TypeVar

from filelock import FileLock, Timeout

from recbole_freqd.core.errors import CheckpointError

_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}
_POLL = 0.5  # seconds between two looks at what is waited for
_warned: set[Path] = set()  # folders without locks
T = TypeVar("T")
R = TypeVar("R")
logger = logging.getLogger(__name__)


def acquired(lock: FileLock, of: Path, change: str, timeout: float) -> bool:
    """Takes a lock; False where another process keeps it. A disk without locks is a warning.

    Args:
        lock: Its lock. of: What it guards.
        change: The key or option that names another folder.
        timeout: Seconds to wait; -1: as long as it takes.

    Raises:
        CheckpointError: The lock cannot be made.
    """
    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=timeout, poll_interval=_POLL if timeout < 0 else 0.05)
    except Timeout:
        return False
    except (OSError, NotImplementedError) as error:
        if getattr(error, "errno", errno.ENOSYS) not in _NO_LOCKS:
            raise CheckpointError(
                f"Cannot lock {of}: {error}. Allowed: a folder that can be written to. Change "
                f"{change}."
            ) from error
        folder = of.parent.resolve()
        if folder not in _warned:
            logger.warning(
                "The disk of %s has no locks (%s): never let two processes work there on one run.",
                folder,
                error,
            )
        _warned.add(folder)
    return True


@contextmanager
def working_on(path: Path, change: str, *, wait: bool = False) -> Iterator[bool]:
    """Whether this process alone works on something while open; False: another one does.

    Who gets the lock looks again for what the one before has finished: its file goes with it.

    Args:
        path: What is to be made; the lock is beside it, ``<path>.lock``.
        change: The key or option that names another folder.
        wait: For the other process, so that it is never False.

    Raises:
        CheckpointError: The lock cannot be made.
    """
    lock = FileLock(f"{path}.lock")
    mine = acquired(lock, path, change, 0)
    if wait and not mine:
        logger.info("Waiting for %s: another process works on it.", path)
        mine = acquired(lock, path, change, -1)
    try:
        yield mine
    finally:
        if lock.is_locked:
            with suppress(OSError):  # Windows removes no file that is open
                Path(lock.lock_file).unlink()
        lock.release()


def each_when_free(todo: list[T], attempt: Callable[[T, bool], bool]) -> None:
    """Does all of ``todo``; leaves what other processes work on for the end, and waits for it.

    Args:
        todo: In the order in which they are attempted.
        attempt: From one of them, and whether to wait for another process, to whether it is done.
    """
    wait = False
    while todo:
        left = []
        for one in todo:
            if attempt(one, wait):
                wait = False  # in the meantime others may have come free
            else:
                left.append(one)
        wait, todo = len(left) == len(todo), left


def outcomes_when_free(todo: list[T], attempt: Callable[[T, bool], Optional[R]]) -> list[R]:
    """Gives the outcome of each, in the order of ``todo``; see :func:`each_when_free`.

    Args:
        todo: In the order in which they are attempted.
        attempt: From one of them, and whether to wait for another process, to its outcome; None:
            another process is at it.
    """
    found: dict[int, R] = {}

    def done(place: int, wait: bool) -> bool:
        outcome = attempt(todo[place], wait)
        if outcome is not None:
            found[place] = outcome
        return outcome is not None

    each_when_free(list(range(len(todo))), done)
    return [found[place] for place in range(len(todo))]
