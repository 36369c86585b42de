"""What a search has tried: a line of JSON for each trial, a table of them, the best of them."""

import json
from pathlib import Path
from typing import Any, Optional

from recbole_freqd.errors import CheckpointError
from recbole_freqd.writing import write_atomically

Record = dict[str, Any]


class Trials:
    """The trials of a search, kept in ``trials.jsonl`` of its folder.

    Attributes:
        records: ``trial`` (from 1), ``keys``, ``drawn`` (hyperopt's own form of them), ``score``
            (None where it failed), ``seconds``, and what the objective has told.

    Args:
        home: The folder.
        metric: What the score is.
        bigger: Whether a bigger one is better.

    Raises:
        CheckpointError: What is in the file is not what was written.
    """

    def __init__(self, home: Path, metric: str, bigger: bool) -> None:
        self.home, self.metric, self.bigger = home, metric, bigger
        self.records: list[Record] = _read(home / "trials.jsonl")

    def loss(self, record: Record) -> float:
        """What is minimised; infinite for a trial that failed."""
        if record["score"] is None:
            return float("inf")
        return -record["score"] if self.bigger else record["score"]

    def add(self, record: Record) -> None:
        """Keeps one more; a process that dies leaves all of the file or what was there before."""
        self.records.append(record)
        lines = [json.dumps(known, ensure_ascii=False) + "\n" for known in self.records]
        self.write("trials.jsonl", "".join(lines))

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
        write_atomically(self.home / name, lambda path: Path(path).write_text(text, "utf-8"))


def in_words(record: Record) -> str:
    """The score, or that there is none."""
    return "failed" if record["score"] is None else f"{record['score']:.4f}"


def _read(file: Path) -> list[Record]:
    if not file.is_file():
        return []
    try:
        records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        numbers = [record["trial"] for record in records]
        if numbers != list(range(1, len(records) + 1)):
            raise ValueError(f"trials {numbers}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{file} cannot be read: {error}. Remove its folder, and the search starts anew."
        ) from error
    return records
