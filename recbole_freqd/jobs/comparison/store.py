"""What is kept of a comparison's runs, each named by all that its outcome depends on."""

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
        config: The student's Config; a teacher's cell has that of a student it teaches.
        identity: From :func:`recbole_freqd.config.identity.planned_identity`.
        own_teacher: Whether it is taught by what teaches nobody else, and evaluated with it.
    """

    what: str
    seed: int
    config: Any
    identity: dict[str, Any]
    own_teacher: bool = False

    @property
    def name(self) -> str:
        """``FreqD-2020-<hash>``: the hash is that of the frozen config, its data and versions."""
        return f"{self.stem}{fingerprint(self.identity)[:12]}"

    @property
    def stem(self) -> str:
        """What the names of all runs of this kind and seed begin with."""
        return f"{_NO_NAME.sub('_', self.what)}-{self.seed}-"


class CellStore(RunStore):
    """Cells: beside ``<name>.json``, ``<name>.npz`` has the metric of every user.

    Args:
        folder: Made when the first one is kept.
        say: Where it is said why a cell is run again.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        super().__init__(folder)
        self._say, self._users = say, {}  # type: Callable[[str], None], dict[str, PerUser]

    def find(self, name: str) -> Optional[Record]:
        """What was kept of a cell, with its users; None where it has to be run."""
        record = super().find(name)
        if record is None or not record["has_users"] or name in self._users:
            return record
        return record if self.file(name, "npz").is_file() else None

    def say_why_anew(self, cell: Cell) -> None:
        """Says why a cell has to be run again, if it, or one like it, ever was."""
        why = self._changed(cell)
        if self.file(cell.name).is_file():
            why = f"{cell.name}.npz is gone"
        if why:
            self._say(f"{cell.what}, seed {cell.seed}: anew, {why}.")

    def record_of(self, cell: Cell, row: Record, users: Optional[PerUser]) -> Record:
        """What is kept of a cell; its users are written already."""
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
        """The metric of every user, or None where there is none."""
        path = self.file(cell.name, "npz")
        if cell.name in self._users or not path.is_file():
            return self._users.get(cell.name)
        return load_users(path)

    def _changed(self, cell: Cell) -> Optional[str]:
        """What sets a cell apart from the nearest one kept of its method and seed, if any is."""
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
    """Raises ConfigError unless all methods of a seed have had the same teacher.

    By its weights; by the name of its file where that is all that an older version has kept.

    Args:
        records: Of the teachers and of what they have taught.
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
                f"The methods of seed {seed} had different teachers: {'; '.join(told)}. Delete the "
                "files of those that are not to count in the folder cells/ (of all, if the teacher "
                "of most is gone) and run the comparison again."
            )
