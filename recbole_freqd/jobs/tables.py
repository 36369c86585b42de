"""Tables and sentences about runs. Computes nothing that is not in their results."""

from typing import Any, Optional

from tabulate import tabulate

ROLES = {"teacher": "teacher", "student_alone": "student alone", "distilled": "distilled"}


def markdown_table(rows: list[dict[str, Any]], metrics: list[str]) -> str:
    """The rows of a ``results.json`` as a Markdown table.

    Args:
        rows: See ``results.json`` in ``docs/quick_start.md``.
        metrics: Names of the test metrics to show, as RecBole prints them (``ndcg@10``).
    """
    return as_table(_lines(rows, metrics))


def _lines(rows: list[dict[str, Any]], metrics: list[str]) -> list[list[str]]:
    """The cells of the table, head first."""
    head = ["", "model", "parameters", "MB", *(f"test {name}" for name in metrics)]
    head += ["ms / 1k users", "s / epoch"]
    lines = [head]
    for row in rows:
        name = ROLES[row["role"]] + (f" ({row['trainer']})" if row["trainer"] else "")
        lines.append(
            [name, row["model"], f"{row['parameters']:,}", f"{row['size_mb']:.2f}"]
            + [_number((row["test"] or {}).get(metric), 4) for metric in metrics]
            + [_number(row["latency_ms_per_1k_users"], 1), _number(row["seconds_per_epoch"], 2)]
        )
    return lines


def as_table(lines: list[list[str]], left: int = 2, form: str = "github") -> str:
    """Cells, head first, as a table of Markdown that is aligned for a terminal, or of ``html``.

    Args:
        lines: Texts, not to be read as numbers again.
        left: Columns of words, at the start.
        form: As tabulate calls it.
    """
    sides = ["left"] * left + ["right"] * (len(lines[0]) - left)
    return tabulate(lines[1:], lines[0], form, disable_numparse=True, colalign=sides)


def describe_gains(rows: list[dict[str, Any]], metric: str) -> str:
    """What a distillation brought: size, speed, share of the teacher's quality, gap closed.

    Args:
        rows: With one row of each role; else nothing is said of what is missing.
        metric: The test metric that is talked about.
    """
    by_role = {row["role"]: row for row in rows}
    teacher, alone, student = (by_role.get(role) for role in ROLES)
    if teacher is None or student is None:
        return ""
    if metric not in (teacher["test"] or {}) or metric not in (student["test"] or {}):
        return ""
    smaller = teacher["size_mb"] / student["size_mb"]
    faster = teacher["latency_ms_per_1k_users"] / student["latency_ms_per_1k_users"]
    share = _ratio(student["test"][metric], teacher["test"][metric])
    sentences = [
        f"The student is {_times(smaller, 'smaller', 'larger')} than its teacher and ranks "
        f"{_times(faster, 'faster', 'slower')}.",
        f"It keeps {share:.1%} of the teacher's test {metric}." if share is not None else "",
    ]
    if alone and metric in (alone["test"] or {}):
        gain = _ratio(student["test"][metric], alone["test"][metric])
        if gain is not None:
            sentences.append(f"That is {gain:.3f} times what it reaches alone.")
        gap = gap_closed(teacher["test"][metric], alone["test"][metric], student["test"][metric])
        sentences.append(
            f"It closes {gap:.0%} of the gap between student alone and teacher."
            if gap is not None
            else "There is no gap to close: the teacher does not beat the student alone."
        )
    return " ".join(filter(None, sentences))


def gap_closed(teacher: float, alone: float, distilled: float) -> Optional[float]:
    """(distilled - alone) / (teacher - alone); None where the teacher does not win.

    Example:
        >>> gap_closed(teacher=0.25, alone=0.20, distilled=0.24), gap_closed(0.2, 0.2, 0.3)
        (0.8, None)
    """
    return round((distilled - alone) / (teacher - alone), 6) if teacher > alone else None


def _times(ratio: float, more: str, less: str) -> str:
    return f"{ratio:.1f} times {more}" if ratio >= 1 else f"{1 / ratio:.1f} times {less}"


def _ratio(above: float, below: float) -> Optional[float]:
    return above / below if below > 0 else None


def _number(value: Optional[float], places: int) -> str:
    return "" if value is None else f"{value:.{places}f}"
