"""The file that a run resumes from: found, locked, read and written."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch
from filelock import FileLock

from recbole_freqd.checkpoint.loading import load_plain
from recbole_freqd.core.errors import CheckpointError
from recbole_freqd.core.files import write_atomically
from recbole_freqd.core.locks import acquired

_PATIENCE = 6.0  # seconds; the workers of a loader outlive a killed process by 5, and hold its lock
logger = logging.getLogger(__name__)


class StateFile:
    """The file with the state of one run, locked while a process uses it.

    Its name is that of the checkpoint, then a hash of the run's config, data and versions. There is
    a lock (``….last.pt.lock``) from the first state on, and none any more once the run is finished.

    Args:
        path: ``….last.pt``.

    Attributes:
        is_finished: Whether what it holds is the outcome of a finished run.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.is_finished, self._lockless = path, False, False
        self._lock = FileLock(f"{path}.lock")

    @classmethod
    @contextmanager
    def opened(
        cls, checkpoint: str, identity: str, resume: bool, device: Any
    ) -> Iterator[tuple["StateFile", Optional[dict[str, Any]]]]:
        """Opens the newest run of an identity with its state, to resume it; else a new run.

        Raises:
            CheckpointError: The state is damaged, or the folder cannot be written to.
        """
        own = Path(checkpoint).with_suffix(f".{identity}.last.pt")
        earlier = sorted(own.parent.glob(f"*.{identity}.last.pt"), key=_time, reverse=True)
        if earlier and not resume:
            logger.info(
                "There is an earlier run of the same config: %s. resume: true (--resume) takes it "
                "up instead of starting anew; delete the file if it is not wanted.",
                earlier[0],
            )
        file, state = cls(own), None
        try:
            for path in earlier if resume else ():
                file = cls(path)
                state = file._take(device)
                if state is not None:
                    break
                file.release()
            else:
                file = cls(own)
                if resume:
                    logger.info("Nothing to resume in %s: this run starts anew.", own.parent)
            yield file, state
        finally:
            file.release()

    def _take(self, device: Any) -> Optional[dict[str, Any]]:
        """Locks the file and reads it: None where it cannot be gone on from."""
        if not self._locked():
            logger.info("%s is in use by another process, so it is not resumed.", self.path)
            return None
        if not self.path.is_file():
            return None
        with self.in_use():
            state = load_plain(self.path, map_location=device)
            best = self.path.parent / state["saved_model_file"]
            there = state["finished"] or np.isfinite(state["best_valid_score"])
        if there and not best.is_file():
            logger.warning("%s is gone, the best model of %s: not resumed.", best, self.path)
            return None
        self.is_finished = state["finished"]
        return state

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """While open, whatever cannot be done with what the file holds is an error that names it.

        Raises:
            CheckpointError: The file is damaged.
            torch.cuda.OutOfMemoryError: As it comes: the file is none the worse.
        """
        try:
            yield
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # torch raises a dozen kinds for a damaged file
            raise CheckpointError(
                f"The run cannot be resumed from {self.path}: {error or type(error).__name__}. "
                "Delete that file, or leave out resume: the run then starts anew."
            ) from error

    def write(self, state: dict[str, Any]) -> None:
        """Puts a newer state in the place of the one of before.

        Raises:
            CheckpointError: It cannot be written.
        """
        self._locked()
        write_atomically(self.path, lambda temporary: torch.save(state, temporary))
        self.is_finished = state["finished"]

    def _locked(self) -> bool:
        """Locks the file, if it is not yet; False where another process has it."""
        if self._lock.is_locked or self._lockless:
            return True
        mine = acquired(self._lock, self.path, "checkpoint_dir", _PATIENCE)
        self._lockless = mine and not self._lock.is_locked
        return mine

    def release(self) -> None:
        """Lets other processes use the file; of a finished run no lock is left."""
        if self._lock.is_locked and (self.is_finished or not self.path.exists()):
            with suppress(OSError):  # Windows removes no file that is open
                Path(self._lock.lock_file).unlink()
        self._lock.release()


def _time(file: Path) -> float:
    """When it was written; files may go while one looks."""
    with suppress(OSError):
        return file.stat().st_mtime
    return 0.0
