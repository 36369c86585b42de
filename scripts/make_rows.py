"""Writes the tables of results/rows/: what each part of FreqRank is worth, beside its rivals.

python scripts/make_rows.py        # part of: make docs

Computes nothing that is not in the runs.
"""

from pathlib import Path
from statistics import mean

from results_files import put_between
from rows_files import ALONE, BY_TEAM, FOLDER, METRIC, TEAM, Rows, read_rows

# A part of "FreqRank by the team", and the row without it.
LEVERS = {
    "the team (one teacher instead)": "FreqRank",
    "the filter": "team without filter",
    "the fit to lists (start by the SVD instead)": "team from the SVD",
    "the warm start": "team from a cold start",
    "the list loss": "team without the list loss",
    "the average of the weights": "team without the average",
}
HEAD = [
    "", "bytes / entity", "valid", f"test {METRIC}", "x teacher", "x best member", "coverage",
    "Gini", "best epoch", "epochs", "at the cap", "s to best",
]  # fmt: skip


def section(rows: Rows) -> str:
    """Both tables of a dataset."""
    names = [*rows.teachers, *sorted(rows.students, key=lambda name: -rows.mean(name))]
    lines = [_line(rows, name) for name in names]
    words = (
        f"Mean and standard deviation over seeds {', '.join(map(str, rows.seeds))}. The teacher is "
        f"{rows.first}; the best member on validation is {rows.best}."
    )
    picture = f"../../docs/images/quality-size-{rows.dataset}.svg"
    parts = [f"## {rows.dataset}", _table(HEAD, lines), words]
    parts.append(f"![Quality against size on {rows.dataset}]({picture})")
    without = LEVERS.items() if BY_TEAM in rows.students else ()
    levers = [_lever(rows, part, row) for part, row in without if row in rows.students]
    if levers:
        head = [
            f"{BY_TEAM} without",
            f"test {METRIC}",
            "loses",
            "seeds lost",
            "epochs",
            "s to best",
        ]
        parts += [_table(head, levers)]
    return "\n\n".join(parts)


def _line(rows: Rows, name: str) -> list[str]:
    student = name in rows.students
    weight = None if student else rows.average(name, "weight")
    return [
        _bold(name, name == BY_TEAM) if weight is None else f"{name}, weight {weight:.2f}",
        _number(rows.bytes_per_entity(name), 0),
        f"{rows.mean(name, 'valid'):.4f}",
        _bold(rows.spread(name), name == BY_TEAM),
        f"{rows.mean(name) / rows.mean(rows.first):.3f}",
        f"{rows.mean(name) / rows.mean(rows.best):.3f}",
        f"{rows.mean(name, metric='itemcoverage@10'):.2f}",
        f"{rows.mean(name, metric='giniindex@10'):.2f}",
        _number(rows.average(name, "best_epoch"), 0),
        _number(rows.average(name, "epochs"), 0),
        str(rows.at_cap(name)) if student else "",
        _number(rows.average(name, "seconds_to_best"), 0),
    ]


def _lever(rows: Rows, part: str, name: str) -> list[str]:
    """What the whole loses without a part: pairs of one seed."""
    pairs = zip(rows.students[BY_TEAM], rows.students[name])
    lost = [one["test"][METRIC] - other["test"][METRIC] for one, other in pairs]
    return [
        part,
        rows.spread(name),
        f"{mean(lost):+.4f}",
        f"{sum(loss > 0 for loss in lost)} of {len(lost)}",
        _number(rows.average(name, "epochs"), 0),
        _number(rows.average(name, "seconds_to_best"), 0),
    ]


def short(datasets: list[Rows]) -> str:
    """README's table: at most eight rows, the teachers first; none that no dataset has."""
    lines = []
    for label, name in (
        ("teacher (BPR)", "BPR"),
        ("best single teacher", None),
        ("team of teachers", TEAM),
        (f"**{BY_TEAM}**", BY_TEAM),
        ("the same before its first epoch", f"{BY_TEAM} untrained"),
        ("FreqRank by BPR, weights not averaged", "FreqRank without the average"),
        ("student alone", ALONE),
    ):
        cells = [
            _cell(rows, rows.best if name is None else name, name is None) for rows in datasets
        ]
        if any(cells):
            lines.append([label, *cells])
        if name == BY_TEAM and any(others := [_other_width(rows) for rows in datasets]):
            lines.append(["the same with another width", *others])
    head = ["", *(f"[{rows.dataset}](results/rows/README.md#{rows.dataset})" for rows in datasets)]
    return f"{_table(head, lines)}\n"


def _other_width(rows: Rows) -> str:
    """The student of the team with other dimensions, if the dataset has one."""
    name = next((name for name in rows.students if name.startswith(f"{BY_TEAM} ")
                 and name.endswith("d") and name[-2].isdigit()), None)  # fmt: skip
    return f"{_cell(rows, name, False)}, {name.rpartition(' ')[2][:-1]} dimensions" if name else ""


def _cell(rows: Rows, name: str, named: bool) -> str:
    if name not in rows.students and name not in rows.teachers:
        return ""
    share = rows.mean(name) / rows.mean(rows.first)
    text = f"{rows.mean(name):.4f} ({share:.2f})"
    return f"{text}, {name}" if named else _bold(text, name == BY_TEAM)


def _table(head: list[str], lines: list[list[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, rule, *lines])


def _bold(text: str, bold: bool) -> str:
    return f"**{text}**" if bold else text


def _number(value: object, places: int) -> str:
    return "" if value is None else f"{value:.{places}f}"


def pages() -> dict[Path, str]:
    """The page with what is in results/rows/ now."""
    page = FOLDER / "README.md"
    text = "\n\n".join(section(rows) for rows in read_rows())
    return {page: put_between(page.read_text(encoding="utf-8"), "rows", f"{text}\n")}


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8", newline="\n")
        print(f"{path}: made from results/rows/")
