"""What README.md and docs/ say of results/: the comparisons, their rows, their widths."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "results" / "comparisons"
METRIC = "ndcg@10"
# A file of results, its section of the page beside it, and what else is to be said of it.
COMPARISONS = (
    ("citeulike/results.json", "citeulike", ""),
    ("gowalla/results.json", "gowalla", "three seeds"),
    ("ml-100k/results.json", "ml-100k-first-round", "linear projectors"),
    ("ml-100k/results-mlp.json", "ml-100k-second-round", "MLPs, after test"),
    ("ml-100k-lightgcn-bpr/results.json", "ml-100k-lightgcn-teaches-bpr", "MLPs"),
    ("ml-100k-lightgcn-lightgcn/results.json", "ml-100k-lightgcn-teaches-lightgcn", "MLPs"),
)


@dataclass(frozen=True)
class Comparison:
    """A file of results: its rows by name, and how it is named in a table."""

    results: dict[str, Any]
    section: str
    note: str

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """The rows by what they are of."""
        return {row["what"]: row for row in self.results["table"]}

    @property
    def pair(self) -> str:
        """Teacher and student, with their dimensions."""
        return f"{self.results['teacher_model']} {self._width('teacher')} → " + (
            f"{self.results['model']} {self._width('common')}"
        )

    def _width(self, role: str) -> int:
        return self.results[role]["embedding_size"]


def read_comparisons() -> list[Comparison]:
    """All comparisons, in the order of COMPARISONS."""
    return [
        Comparison(json.loads((FOLDER / file).read_text(encoding="utf-8")), section, note)
        for file, section, note in COMPARISONS
    ]


def put_between(whole: str, name: str, text: str) -> str:
    """A page with a text between its marks of that name.

    Raises:
        RuntimeError: The page has not exactly one pair of marks.
    """
    begin, end = f"<!-- made: {name}, by `make docs` -->", f"<!-- end of {name} -->"
    if whole.count(begin) != 1 or whole.count(end) != 1:
        raise RuntimeError(f"a page needs one line {begin} and one {end}")
    before, rest = whole.split(begin)
    return f"{before}{begin}\n\n{text}\n{end}{rest.split(end)[1]}"
