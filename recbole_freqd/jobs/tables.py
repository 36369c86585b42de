"""Tables of runs. Compute nothing that is not in their results."""

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any, Optional

from tabulate import tabulate


def markdown_table(rows: list[dict[str, Any]], metric: str) -> str:
    """The rows of a ``results.json`` as a Markdown table.

    Args:
        rows: See ``results.json`` in ``docs/quick_start.md``.
        metric: What was validated by, as RecBole prints it (``ndcg@10``). Shown are its validation
            and test values, and recall at the same length.
    """
    return as_table(_lines(rows, metric), left=1)


def _lines(rows: list[dict[str, Any]], metric: str) -> list[list[str]]:
    """The cells of the table, head first."""
    tests = shown_metrics(rows, metric)
    head = ["", "MB", "B/entity", f"valid {metric}", *(f"test {name}" for name in tests)]
    head += ["share", "coverage", "gini", "ms/1k", "s/epoch", "s all in"]
    lines = [head]
    whole = next((row for row in rows if row["role"] in ("teacher", "team")), None)
    for row in rows:
        label = f"teacher ({row['model']})" if row["role"] == "teacher" else row["label"]
        lines.append(
            [label, number(row["size_mb"], 2), number(row["bytes_per_entity"], 0)]
            + [number(row["valid"].get(metric), 4)]
            + [number((row["test"] or {}).get(name), 4) for name in tests]
            + [_share(row, whole, tests[0] if tests else metric)]
            + [number(row["coverage"], 2), number(row["gini"], 2)]
            + [number(row["latency_ms_per_1k_users"], 1), number(row["seconds_per_epoch"], 2)]
            + [number(row["seconds_all_in"], 1)]
        )
    return lines


def shown_metrics(rows: list[dict[str, Any]], metric: str) -> list[str]:
    """The test metrics of a table: the one that was validated by, and recall at its length."""
    there: dict[str, float] = next((row["test"] for row in reversed(rows) if row["test"]), {})
    wanted = dict.fromkeys((metric, f"recall@{metric.partition('@')[2]}"))
    return [name for name in wanted if name in there]


def _share(row: dict[str, Any], whole: Optional[dict[str, Any]], metric: str) -> str:
    """Of the teacher's test metric."""
    own, its = (((each or {}).get("test") or {}).get(metric) for each in (row, whole))
    return "" if own is None or not its else f"{own / its:.0%}"


def as_table(lines: list[list[str]], left: int = 2, form: str = "github") -> str:
    """Cells, head first, as a table of Markdown that is aligned for a terminal, or of ``html``.

    Args:
        lines: Texts, not to be read as numbers again.
        left: Columns of words, at the start.
        form: As tabulate calls it.
    """
    sides = ["left"] * left + ["right"] * (len(lines[0]) - left)
    if form != "github":
        return tabulate(lines[1:], lines[0], form, disable_numparse=True, colalign=sides)
    # Not tabulate's: it makes every column two characters wider than its head.
    widths = [max(map(len, column)) for column in zip(*lines)]
    rows = [
        " | ".join(
            cell.ljust(width) if side == "left" else cell.rjust(width)
            for cell, width, side in zip(line, widths, sides)
        )
        for line in lines
    ]
    rule = "|".join(
        "-" * (width + 1) + ("-" if side == "left" else ":") for width, side in zip(widths, sides)
    )
    return "\n".join([f"| {rows[0]} |", f"|{rule}|", *(f"| {row} |" for row in rows[1:])])


def describe_weights(weights: dict[str, float], whole: str = "team") -> str:
    """A sentence with the weight of every member of a team.

    Example:
        >>> describe_weights({"BPR": 0.25, "EASE": 0.75})
        'Weights in the team: BPR 0.25, EASE 0.75.'
    """
    told = (f"{name} {weight:.2g}" for name, weight in weights.items())
    return f"Weights in the {whole}: {', '.join(told)}."


def format_spread(values: Sequence[float]) -> str:
    """Mean and standard deviation of a sample, as text; of one value only itself.

    Example:
        >>> format_spread([0.25, 0.35]), format_spread([0.25])
        ('0.3000 ± 0.0707', '0.2500')
    """
    return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


def gap_closed(teacher: float, alone: float, distilled: float) -> Optional[float]:
    """(distilled - alone) / (teacher - alone); None where the teacher does not win.

    Example:
        >>> gap_closed(teacher=0.25, alone=0.20, distilled=0.24), gap_closed(0.2, 0.2, 0.3)
        (0.8, None)
    """
    return round((distilled - alone) / (teacher - alone), 6) if teacher > alone else None


def number(value: Optional[float], places: int) -> str:
    """A number with so many places; empty where there is none."""
    return "" if value is None else f"{value:.{places}f}"
