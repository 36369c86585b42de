"""What is read of results/rows/: for each dataset, its rows over seeds, teachers among them."""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Optional

from results_files import METRIC, ROOT

FOLDER = ROOT / "results" / "rows"
DATASETS = ("ml-100k", "citeulike", "gowalla")
BY_TEAM, ALONE, TEAM = "FreqRank by the team", "alone", "the team"
Run = dict[str, Any]


@dataclass(frozen=True)
class Rows:
    """The finished rows of a dataset.

    Attributes:
        dataset: Its name.
        seeds: Of every row.
        students: Runs of each row that has all seeds, by name, in the order of the experiment.
        teachers: The members of the team and the team, likewise; a member has a ``weight``.
    """

    dataset: str
    seeds: tuple[int, ...]
    students: dict[str, list[Run]]
    teachers: dict[str, list[Run]]

    @property
    def first(self) -> str:
        """The teacher of the rows with one teacher: the first member of the team."""
        return next(iter(self.teachers))

    @property
    def best(self) -> str:
        """The single teacher that is best on validation, by the mean over seeds."""
        members = [name for name in self.teachers if name != TEAM]
        return max(members, key=lambda name: self.mean(name, "valid"))

    def mean(self, name: str, split: str = "test", metric: str = METRIC) -> float:
        """The mean of a metric over seeds."""
        return mean(run[split][metric] for run in self._runs(name))

    def spread(self, name: str) -> str:
        """Mean and standard deviation of the test metric, as text."""
        values = [run["test"][METRIC] for run in self._runs(name)]
        return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")

    def average(self, name: str, key: str) -> Optional[float]:
        """The mean of another figure of the runs; None where they have none."""
        values = [run[key] for run in self._runs(name) if run.get(key) is not None]
        return mean(values) if values else None

    def bytes_per_entity(self, name: str) -> Optional[float]:
        """4 bytes for each number of a student's or the first teacher's vectors, else None."""
        keys = self.students[ALONE][0]["keys"]
        if name in self.students:
            return 4.0 * self.students[name][0]["keys"]["embedding_size"]
        return 4.0 * keys["teacher"]["embedding_size"] if name == self.first else None

    def at_cap(self, name: str) -> int:
        """How many runs were stopped by the cap on epochs."""
        return sum(run["epochs"] == run["keys"]["epochs"] for run in self.students[name])

    def _runs(self, name: str) -> list[Run]:
        return self.students.get(name) or self.teachers[name]


def read_rows() -> list[Rows]:
    """The datasets with the student alone and a teacher, in the order of DATASETS."""
    files = (FOLDER / dataset / "runs.jsonl" for dataset in DATASETS)
    found = [_read(file) for file in files if file.is_file()]
    return [rows for rows in found if ALONE in rows.students and rows.teachers]


def _read(file: Path) -> Rows:
    runs = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    by_row: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run["seed"]):
        by_row.setdefault(run["row"], []).append(run)
    seeds = tuple(run["seed"] for run in max(by_row.values(), key=len))
    students = {name: found for name, found in by_row.items() if len(found) == len(seeds)}
    return Rows(file.parent.name, seeds, students, _teachers(students))


def _teachers(students: dict[str, list[Run]]) -> dict[str, list[Run]]:
    """The members of the team and the team; without a team, the teacher of any other row."""
    taught = [BY_TEAM, *(name for name in students if students[name][0].get("members"))]
    teachers: dict[str, list[Run]] = {}
    for run in next((students[name] for name in taught if name in students), ()):
        for member in run["members"]:
            teachers.setdefault(member["name"], []).append(member)
        if len(run["members"]) > 1:
            whole = {"valid": run["teacher_valid"], "test": run["teacher_test"]}
            teachers.setdefault(TEAM, []).append(whole)
    return teachers
