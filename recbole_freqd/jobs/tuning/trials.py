"""What a search has tried: a line of JSON for each trial, a table of them, the best of them."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

from recbole_freqd.core.errors import CheckpointError
from recbole_freqd.core.files import write_text
from recbole_freqd.core.locks import working_on

Record = dict[str, Any]
logger = logging.getLogger(__name__)


class TrialLog:
    """Finished trials, a line of JSON each, by the key that tells them apart.

    A line that was cut off while it was written, is damaged, or says ``failed`` is as if it were
    not there: that trial is run again.

    Args:
        path: Of the file; it is made when the first trial is written.
        key: Which value of a trial tells it apart.

    Raises:
        CheckpointError: There is a file that cannot be read.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        self._known: dict[Any, Record] = {}
        self._damaged: set[str] = set()
        self.read()

    def read(self) -> None:
        """Reads what is in the file now: other processes may have added to it.

        Raises:
            CheckpointError: It cannot be read.
        """
        path = self.path
        try:
            lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(
                f"{path} cannot be read: {error}. Remove it, and its trials are run again."
            ) from error
        for line in filter(None, lines):
            try:
                trial = json.loads(line)
                if not trial.get("failed"):
                    self._known[trial[self.key]] = trial
            except (ValueError, KeyError, TypeError, AttributeError):
                if line not in self._damaged:
                    text = "%s: a trial that cannot be read is run again: %.40s…"
                    logger.warning(text, path, line)
                self._damaged.add(line)

    @contextmanager
    def working_on(self, name: str, *, wait: bool) -> Iterator[bool]:
        """Whether this process alone works on a trial while open; the file is then read again.

        Args:
            name: What tells the trial apart. wait: For the process that is at it.

        Raises:
            CheckpointError: The folder cannot be written to, or the file cannot be read.
        """
        with working_on(self.path.with_name(f"trial-{name}"), "--output_dir", wait=wait) as mine:
            if mine:
                self.read()
            yield mine

    def get(self, name: Any) -> Optional[Record]:
        """The trial of that name, if it is finished."""
        return self._known.get(name)

    def add(self, trial: Record) -> None:
        """Writes a trial at the end of the file: several processes may have it open.

        Raises:
            CheckpointError: It cannot be written.
        """
        self._known[trial[self.key]] = trial
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab+") as file:  # its last line may be cut off
                file.seek(-min(1, file.tell()), os.SEEK_END)
                cut_off = file.read() not in (b"", b"\n")
                line = json.dumps(trial, default=str, ensure_ascii=False)
                file.write(("\n" * cut_off + line + "\n").encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise CheckpointError(
                f"Cannot write {self.path}: {error}. Make room, or change --output_dir."
            ) from error


class Trials(TrialLog):
    """The trials of a search by their numbers, in ``trials.jsonl`` of its folder.

    A trial has ``trial`` (from 1), ``keys``, ``drawn`` (hyperopt's own form of them), ``score``
    (None where it failed), ``seconds``, and what the objective has told.

    Args:
        home: The folder.
        metric: What the score is.
        bigger: Whether a bigger one is better.

    Raises:
        CheckpointError: The file cannot be read.
    """

    def __init__(self, home: Path, metric: str, bigger: bool) -> None:
        super().__init__(home / "trials.jsonl", "trial")
        self.home, self.metric, self.bigger = home, metric, bigger

    @property
    def records(self) -> list[Record]:
        """All of them, in the order in which they were drawn."""
        return [self._known[number] for number in sorted(self._known)]

    def missing(self, total: int) -> list[int]:
        """Numbers up to ``total`` of those that are still to be run."""
        return [number for number in range(1, total + 1) if number not in self._known]

    def loss(self, record: Record) -> float:
        """What is minimised; infinite for a trial that failed."""
        if record["score"] is None:
            return float("inf")
        return -record["score"] if self.bigger else record["score"]

    def best(self) -> Optional[Record]:
        """The best one, the first of equals; None where all have failed."""
        done = [record for record in self.records if record["score"] is not None]
        return min(done, key=self.loss) if done else None

    def table(self) -> str:
        """All of them as Markdown, best first."""
        order = sorted(self.records, key=self.loss)
        keys = list(dict.fromkeys(key for record in order for key in record["keys"]))
        rows = [["trial", *keys, self.metric, "seconds"]]
        rows.append(["---:"] * len(rows[0]))
        for record in order:
            values = [str(record["keys"].get(key, "")) for key in keys]
            rows.append([str(record["trial"]), *values, in_words(record)])
            rows[-1].append(f"{record['seconds']:.1f}")
        teachers = sorted({record["teacher"] for record in order if record.get("teacher")})
        taught = f"\n\nTeacher: {', '.join(teachers)}" if teachers else ""
        return "\n".join(f"| {' | '.join(row)} |" for row in rows) + taught

    def write(self, name: str, text: str) -> None:
        """Writes a text file of the folder, whole or not at all."""
        write_text(self.home / name, text)


def in_words(record: Record) -> str:
    """The score, or that there is none."""
    return "failed" if record["score"] is None else f"{record['score']:.4f}"
