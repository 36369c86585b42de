"""Writes the table of results in README.md from results/comparisons.

python scripts/make_results.py        # part of: make docs
"""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE, FOLDER = ROOT / "README.md", ROOT / "results" / "comparisons"
BEGIN = (
    "<!-- Made by scripts/make_results.py from results/comparisons: `make docs` makes it again. -->"
)
END = "<!-- the end of what scripts/make_results.py makes -->"
# The columns: a file of results, its section of the page beside it, and what else is to be said.
COLUMNS = (
    ("citeulike/results.json", "citeulike", ""),
    ("gowalla/results.json", "gowalla", "three seeds"),
    ("ml-100k/results.json", "ml-100k-first-round", "linear projectors"),
    ("ml-100k/results-mlp.json", "ml-100k-second-round", "MLPs, after test"),
    ("ml-100k-lightgcn-bpr/results.json", "ml-100k-lightgcn-teaches-bpr", "MLPs"),
    ("ml-100k-lightgcn-lightgcn/results.json", "ml-100k-lightgcn-teaches-lightgcn", "MLPs"),
)
METRIC = "ndcg@10"
WHO = {"teacher": "teacher", "alone": "student alone", "FreqD": "**FreqD**"}


def table() -> str:
    """Means by method and comparison, in the order of the first comparison that has the method."""
    all_results = [json.loads((FOLDER / file).read_text(encoding="utf-8")) for file, *_ in COLUMNS]
    by_column = [{row["what"]: row for row in results["table"]} for results in all_results]
    order = ["teacher"]
    for rows in by_column:
        methods = [what for what in rows if what not in ("teacher", "alone") and what not in order]
        order += sorted(methods, key=lambda what: rows[what]["rank"])
    head = [""]
    for results, (_, section, note) in zip(all_results, COLUMNS):
        words = [*_names(results), *([note] if note else [])]
        head.append(f"[{'<br>'.join(words)}](results/comparisons/README.md#{section})")
    lines = [head, ["---"] + ["---:"] * len(by_column)]
    for what in [*order, "alone"]:
        cells = (_cell(rows, what) for rows in by_column)
        lines.append([WHO.get(what, what), *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _names(results: dict[str, Any]) -> tuple[str, str]:
    """Dataset and pair of models, with their dimensions."""
    teacher = f"{results['teacher_model']} {results['teacher']['embedding_size']}"
    student = f"{results['model']} {results['common']['embedding_size']}"
    return results["dataset"], f"{teacher} → {student}"


def _cell(rows: dict[str, Any], what: str) -> str:
    """The mean over seeds, and how much of the gap it closes; bold: the best student."""
    if what not in rows:
        return ""
    mean, gap = f"{rows[what]['test'][METRIC]['mean']:.4f}", rows[what]["gap_closed"]
    if rows[what]["rank"] == 1:
        mean = f"**{mean}**"
    return mean if gap is None else f"{mean} ({100 * gap:.0f} %)"


def page() -> str:
    """README.md with the table of now."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    return f"{before}{BEGIN}\n\n{table()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
    print(f"{PAGE}: table of results made from {FOLDER}")
