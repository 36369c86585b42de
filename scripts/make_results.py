"""Writes what README.md and docs/ say of results/: tables, costs, what the main job prints.

python scripts/make_results.py        # part of: make docs
"""

import re
from pathlib import Path

from make_rows import short
from results_files import FOLDER, METRIC, ROOT, Comparison, put_between, read_comparisons
from rows_files import read_rows
from shares import tables as tables_of_shares

WHO = {"teacher": "teacher", "alone": "student alone", "FreqD": "**FreqD**"}


def table(comparisons: list[Comparison], whats: list[str], page: str) -> str:
    """Means of rows by comparison; the link of a column goes to its section of ``page``."""
    head = [""]
    for one in comparisons:
        words = [one.results["dataset"], one.pair, *([one.note] if one.note else [])]
        head.append(f"[{'<br>'.join(words)}]({page}#{one.section})")
    lines = [head, ["---"] + ["---:"] * len(comparisons)]
    for what in whats:
        lines.append([WHO.get(what, what), *(_cell(one, what) for one in comparisons)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def order(comparisons: list[Comparison]) -> list[str]:
    """Teacher, methods as ranked by the first comparison that has them, student alone."""
    whats: list[str] = []
    for one in comparisons:
        rows = one.rows
        new = [what for what in rows if what not in ("teacher", "alone", *whats)]
        whats += sorted(new, key=lambda what: rows[what]["rank"] or 0)
    return ["teacher", *whats, "alone"]


def _cell(comparison: Comparison, what: str) -> str:
    """The mean over seeds, and how much of the gap it closes; bold: the best student."""
    row = comparison.rows.get(what)
    if row is None:
        return ""
    mean, gap = f"{row['test'][METRIC]['mean']:.4f}", row["gap_closed"]
    if row["rank"] == 1:
        mean = f"**{mean}**"
    return mean if gap is None else f"{mean} ({100 * gap:.0f} %)"


def printed() -> str:
    """What docs/quick_start.md shows of the main job: its first block of text."""
    text = (ROOT / "docs" / "quick_start.md").read_text(encoding="utf-8")
    return re.findall(r"^```text\n.*?^```\n", text, re.M | re.S)[0]


def with_costs(page: str) -> str:
    """The table of docs/methods.md, its last column filled from CiteULike's times of an epoch.

    A cell of a method that has no time there stays as it was written.
    """
    (citeulike,) = (one for one in read_comparisons() if one.section == "citeulike")
    seconds = {what: row["seconds_per_epoch"] for what, row in citeulike.rows.items()}
    lines = []
    table = page.partition("<!-- made: costs")[2].partition("<!-- end of costs -->")[0]
    for line in re.findall(r"^\|.*\|$", table, re.M):
        *cells, cost = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0].strip("`") in seconds:
            cost = f"{seconds[cells[0].strip('`')] / seconds['alone']:.1f} ×"
        lines.append(f"| {' | '.join([*cells, cost])} |\n")
    return put_between(page, "costs", "".join(lines))


def pages() -> dict[Path, str]:
    """The pages with what is in results/ now."""
    comparisons, datasets = read_comparisons(), read_rows()
    rows, shares = short(datasets), tables_of_shares(datasets, comparisons)
    readme, whole, methods = ROOT / "README.md", FOLDER / "README.md", ROOT / "docs" / "methods.md"
    text = {path: path.read_text(encoding="utf-8") for path in (readme, whole, methods)}
    return {
        readme: put_between(put_between(text[readme], "results", rows), "printed", printed()),
        whole: put_between(text[whole], "results", table(comparisons, order(comparisons), "")),
        methods: put_between(with_costs(text[methods]), "shares", shares),
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8", newline="\n")
        print(f"{path}: made from results/")
