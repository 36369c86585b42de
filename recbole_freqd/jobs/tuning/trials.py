"""The trials of a search: their records, their table, the best of them."""

from pathlib import Path
from typing import Optional

from recbole_freqd.jobs.store import Record, RunStore
from recbole_freqd.jobs.tables import as_table


class Trials:
    """The trials of a search by their numbers, in ``trials/`` of its folder.

    A trial has ``trial`` (from 1), ``keys``, ``drawn`` (hyperopt's own form of them), ``score``
    (None where it failed), ``seconds``, and what the objective has told.

    Args:
        home: The folder.
        metric: What the score is.
        bigger: Whether a bigger one is better.
    """

    def __init__(self, home: Path, metric: str, bigger: bool) -> None:
        self.metric, self.bigger = metric, bigger
        self._store = RunStore(home / "trials")
        found = {name: self._store.find(name) for name in self._store.names()}
        self._known = {int(name): each for name, each in found.items() if each is not None}

    def add(self, record: Record) -> None:
        """Keeps a trial."""
        number = record["trial"]
        self._known[number] = self._store.keep(str(number), record)

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
        lines = [["trial", *keys, self.metric, "seconds"]]
        for record in order:
            values = [str(record["keys"].get(key, "")) for key in keys]
            lines.append([str(record["trial"]), *values, format_score(record)])
            lines[-1].append(f"{record['seconds']:.1f}")
        teachers = sorted({record["teacher"] for record in order if record.get("teacher")})
        taught = f"\n\nTeacher: {', '.join(teachers)}" if teachers else ""
        return as_table(lines, left=0) + taught


def format_score(record: Record) -> str:
    """The score, or that there is none."""
    return "failed" if record["score"] is None else f"{record['score']:.4f}"
