"""Keeps the finished runs of all jobs, a file for each."""

import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

from recbole_freqd.core.errors import CheckpointError
from recbole_freqd.core.files import read_json, write_json, write_text
from recbole_freqd.core.locks import working_on
from recbole_freqd.jobs.provenance import describe_environment, describe_error, note_failure

Record = dict[str, Any]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run.

    Attributes:
        record: What is kept of it; None where it failed.
        error: Why it failed, in a line.
        fresh: Whether it was run now, and not taken from its file.
    """

    record: Optional[Record]
    error: Optional[str] = None
    fresh: bool = True


class RunStore:
    """Runs in a folder: ``<name>.json`` has the outcome, ``<name>.failed`` the reason of a failure.

    One that failed, or whose file is damaged, counts as not run. What cannot be written stays in
    memory, and that is said: what was computed is not lost to a disk that is full, or a folder that
    nobody may write to any more.

    Args:
        folder: Made when the first one is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._unsaved: dict[str, Record] = {}

    def file(self, name: str, kind: str = "json") -> Path:
        """A file of a run."""
        return self.folder / f"{name}.{kind}"

    def find(self, name: str) -> Optional[Record]:
        """What was kept of a run, or None where it has to be run."""
        if name in self._unsaved:
            return self._unsaved[name]
        path = self.file(name)
        if not path.is_file():
            return None
        try:
            record = read_json(path)
            if not isinstance(record, dict):
                raise CheckpointError(f"{path} holds no record.")
        except CheckpointError as error:
            logger.warning("%s It is run again.", error)
            return None
        return record

    def names(self) -> list[str]:
        """Of all that is kept, sorted."""
        files = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted({*self._unsaved, *(path.stem for path in files if path.suffix == ".json")})

    @contextmanager
    def working_on(self, name: str, *, wait: bool) -> Iterator[bool]:
        """Whether this process alone works on a run while open: look for it once more, then.

        Args:
            name: Of the run. wait: For the process that is at it.
        """
        with ExitStack() as stack:
            lock = working_on(self.folder / name, "--output_dir", wait=wait)
            try:
                mine = stack.enter_context(lock)
            except CheckpointError as error:  # then nobody else can keep anything there, either
                logger.warning("%s", error)
                mine = True
            yield mine

    def keep(self, name: str, record: Record, device: Any = None) -> Record:
        """Writes the outcome of a run, and what made it.

        Returns:
            The record as it will be read again.
        """
        if device is not None:
            record = {**record, "made_with": describe_environment(device)}
        record = json.loads(json.dumps(record, default=str))
        try:
            write_json(self.file(name), record)
            self.file(name, "failed").unlink(missing_ok=True)
        except (CheckpointError, OSError) as error:
            self.remember(name, record, error)
        return record

    def remember(self, name: str, record: Record, error: Exception) -> None:
        """Keeps in memory what could not be written."""
        logger.warning(
            "%s cannot be kept on disk, and goes on in memory: %s", name, describe_error(error)
        )
        self._unsaved[name] = record

    def fail(self, name: str, error: Exception) -> str:
        """Notes the traceback of a run that failed, and gives the error in a line."""
        try:
            return note_failure(self.file(name, "failed"), error)
        except CheckpointError as unwritten:
            logger.warning("%s", unwritten)
            return describe_error(error)

    def attempt(
        self, name: str, run: Callable[[], Record], *, wait: bool, device: Any = None
    ) -> Optional[Outcome]:
        """Takes a run from its file, or runs and keeps it; a failure stops no other run.

        Args:
            name: Of the run.
            run: Makes its record.
            wait: For another process that is at it; else the answer is then None.
            device: For ``made_with``.
        """
        with self.working_on(name, wait=wait) as mine:
            if not mine:
                return None
            known = self.find(name)
            if known is not None:
                return Outcome(known, fresh=False)
            try:
                record = run()
            except Exception as error:
                return Outcome(None, self.fail(name, error))
            return Outcome(self.keep(name, record, device))


def write_lines(path: Path, records: Iterable[Record]) -> None:
    """Writes records as lines of JSON, to be read at a glance or by other programs.

    Raises:
        CheckpointError: It cannot be written.
    """
    lines = (json.dumps(record, default=str, ensure_ascii=False) for record in records)
    write_text(path, "".join(f"{line}\n" for line in lines))
