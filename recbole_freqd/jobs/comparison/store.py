"""Keeps a comparison's runs, each named by everything that its outcome depends on."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

from recbole_freqd.config.identity import differences
from recbole_freqd.core.errors import CheckpointError, ConfigError
from recbole_freqd.core.files import fingerprint
from recbole_freqd.jobs.comparison.per_user import load_users, save_users
from recbole_freqd.jobs.comparison.significance import PerUser
from recbole_freqd.jobs.store import Record, RunStore

_NO_NAME = re.compile(r"[^\w.+-]+")  # in the name of a file


@dataclass(frozen=True)
class Cell:
    """One run of a comparison.

    Attributes:
        what: ``teacher``, ``alone``, ``cut``, ``warm``, the names of the losses, joined by ``+``,
            or the name of a row.
        seed: Of the run.
        config: The student's Config; a teacher's cell has the Config of a student it teaches.
        identity: From :func:`recbole_freqd.config.identity.planned_identity`.
        own_teacher: Whether its teacher teaches no other row, and is evaluated with it.
    """

    what: str
    seed: int
    config: Any
    identity: dict[str, Any]
    own_teacher: bool = False

    @property
    def name(self) -> str:
        """``FreqD-2020-<hash>``, with a hash of the frozen config, its data and versions."""
        return f"{self.stem}{fingerprint(self.identity)[:12]}"

    @property
    def stem(self) -> str:
        """The beginning of the names of all runs of this kind and seed."""
        return f"{_NO_NAME.sub('_', self.what)}-{self.seed}-"


class CellStore(RunStore):
    """Stores cells: ``<name>.json`` with the record, ``<name>.npz`` with every user's metric.

    Args:
        folder: Made for the first cell.
        say: Receives the reason why a cell runs again.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        super().__init__(folder)
        self._say, self._users = say, {}  # type: Callable[[str], None], dict[str, PerUser]

    def find(self, name: str) -> Optional[Record]:
        """The record of a cell whose users are kept too; None if the cell has to run."""
        record = super().find(name)
        if record is None or not record["has_users"] or name in self._users:
            return record
        return record if self.file(name, "npz").is_file() else None

    def say_why_anew(self, cell: Cell) -> None:
        """Says why a cell has to run again, if it or one like it ever ran."""
        why = self._changed(cell)
        if self.file(cell.name).is_file():
            why = f"{cell.name}.npz is gone"
        if why:
            self._say(f"{cell.what}, seed {cell.seed}: anew, {why}.")

    def record_of(self, cell: Cell, row: Record, users: Optional[PerUser]) -> Record:
        """Makes the record of a cell; writes its users."""
        if users is not None:
            try:
                save_users(self.file(cell.name, "npz"), users)
            except CheckpointError as error:
                self._users[cell.name] = users
                self._say(str(error))
        return {
            "what": cell.what,
            "seed": cell.seed,
            **row,
            "has_users": users is not None,
            "identity": cell.identity,
            "config": cell.config.final_config_dict,
        }

    def users(self, cell: Cell) -> Optional[PerUser]:
        """The metric of every user, or None if it is missing."""
        path = self.file(cell.name, "npz")
        if cell.name in self._users or not path.is_file():
            return self._users.get(cell.name)
        return load_users(path)

    def _changed(self, cell: Cell) -> Optional[str]:
        """Says how a cell differs from the nearest one kept of its method and seed."""
        candidates = []
        for name in self.names():
            record = super().find(name) if name.startswith(cell.stem) else None
            try:
                changed = differences((record or {})["identity"], cell.identity)
            except (KeyError, TypeError):
                continue
            candidates.append((len(changed), name, changed))
        if not candidates:
            return None
        _, name, changed = min(candidates)
        return f"since of {name} {'; '.join(changed)}"


def check_shared_teacher(records: Iterable[dict[str, Any]]) -> None:
    """Raises ConfigError unless all methods of a seed had the same teacher.

    It compares the teacher's weights, or the name of its file if an older version kept no more.

    Args:
        records: Of the teachers and of their students.
    """
    by_seed: dict[int, list[dict[str, Any]]] = {}
    for record in records:
        by_seed.setdefault(record["seed"], []).append(record)
    for seed, of_seed in sorted(by_seed.items()):
        names = [Path(each["teacher"]).name for each in of_seed]
        weights = [each.get("teacher_hash") for each in of_seed]
        by_name = None in weights and len(set(names)) > 1
        if by_name or len(set(weights) - {None}) > 1:
            told = [
                f"{each['what']}: {name}, weights {str(hashed)[:8]}"
                for each, name, hashed in zip(of_seed, names, weights)
            ]
            raise ConfigError(
                f"The methods of seed {seed} had different teachers: {'; '.join(told)}. In the "
                "folder cells/, delete the files of the methods that are not to count. If the "
                "teacher of most is gone, delete the files of all. Then run the comparison again."
            )
