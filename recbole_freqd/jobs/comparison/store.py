"""What is kept of finished runs: a file for each, named by all that its outcome depends on."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any, Callable, Optional

from recbole_freqd.config.identity import differences
from recbole_freqd.core.errors import CheckpointError, ConfigError
from recbole_freqd.core.files import fingerprint, read_json, write_json
from recbole_freqd.core.locks import working_on
from recbole_freqd.jobs.comparison.per_user import load_users, save_users
from recbole_freqd.jobs.comparison.significance import PerUser
from recbole_freqd.jobs.provenance import made_with, note_failure


@dataclass(frozen=True)
class Cell:
    """One run of a comparison.

    Attributes:
        what: ``teacher``, ``alone``, or the names of the losses, joined by ``+``.
        seed: Of the run.
        config: The student's Config; a teacher's cell has that of a student it teaches.
        identity: From :func:`recbole_freqd.config.identity.planned_identity`.
    """

    what: str
    seed: int
    config: Any
    identity: dict[str, Any]

    @property
    def name(self) -> str:
        """``FreqD-2020-<hash>``: the hash is that of the frozen config, its data and versions."""
        return f"{self.what}-{self.seed}-{fingerprint(self.identity)[:12]}"


class CellStore:
    """Cells in a folder: ``<name>.json``, and ``<name>.npz`` with the metric of every user.

    Of one that failed there is ``<name>.failed``, which says why; it counts as not run.

    Args:
        folder: Made when the first one is kept.
        say: Where it is said why a cell is run again.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder, self._say = folder, say

    def find(self, cell: Cell, *, again: bool = False) -> Optional[dict[str, Any]]:
        """What was kept of a cell, or None where it has to be run; then says why, if it ever was.

        Args:
            cell: The cell.
            again: It was said already.

        Raises:
            CheckpointError: It is damaged.
        """
        path = self.folder / f"{cell.name}.json"
        if path.is_file():
            record = read_json(path)
            if not record["has_users"] or path.with_suffix(".npz").is_file():
                return record
            why: Optional[str] = f"{path.stem}.npz is gone"
        else:
            why = self._changed(cell)
        if why and not again:
            self._say(f"{cell.what}, seed {cell.seed}: anew, {why}.")
        return None

    @contextmanager
    def working_on(self, cell: Cell, *, wait: bool) -> Iterator[bool]:
        """Whether this process alone works on a cell while open: look for it once more, then.

        Args:
            cell: The cell. wait: For the process that is at it, which is said.

        Raises:
            CheckpointError: The folder cannot be written to.
        """
        if wait:
            self._say(f"{cell.what}, seed {cell.seed}: another process is at it; waiting for it.")
        with working_on(self.folder / cell.name, "--output_dir", wait=wait) as mine:
            yield mine

    def keep(self, cell: Cell, record: dict[str, Any], users: Optional[PerUser]) -> dict[str, Any]:
        """Writes what a cell came to; the ``.json`` last, since it says that all is there.

        Returns:
            The record as it will be read again.

        Raises:
            CheckpointError: It cannot be written.
        """
        path = self.folder / f"{cell.name}.json"
        whole = {
            "what": cell.what,
            "seed": cell.seed,
            **record,
            "has_users": users is not None,
            "made_with": made_with(cell.config["device"]),
            "identity": cell.identity,
            "config": cell.config.final_config_dict,
        }
        if users is not None:
            save_users(path.with_suffix(".npz"), users)
        write_json(path, whole)
        path.with_suffix(".failed").unlink(missing_ok=True)
        return json.loads(json.dumps(whole, default=str))

    def fail(self, cell: Cell, error: Exception) -> str:
        """Notes why a cell could not be finished, and gives it in a line.

        Raises:
            CheckpointError: It cannot be written.
        """
        return note_failure(self.folder / f"{cell.name}.failed", error)

    def users(self, cell: Cell) -> Optional[PerUser]:
        """The metric of every user, or None where there is none."""
        path = self.folder / f"{cell.name}.npz"
        return load_users(path) if path.is_file() else None

    def _changed(self, cell: Cell) -> Optional[str]:
        """What sets a cell apart from the nearest one kept of its method and seed, if any is."""
        candidates = []
        for file in self.folder.glob(f"{escape(cell.what)}-{cell.seed}-*.json"):
            try:
                changed = differences(read_json(file)["identity"], cell.identity)
            except (CheckpointError, KeyError, TypeError):
                continue
            candidates.append((len(changed), file.stem, changed))
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
        weights = [each.get("teacher_weights") for each in of_seed]
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
