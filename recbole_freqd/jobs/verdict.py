"""Says in words what the table of one run shows: chosen on validation, reported on test."""

from typing import Any, Optional

from recbole_freqd.jobs.tables import describe_weights, gap_closed

_STUDENTS = ("cut", "student_alone", "student_warm", "distilled")
_PLAIN = ("cut", "student_alone", "student_warm")
Rows = list[dict[str, Any]]


def best_student(rows: Rows, metric: str, bigger: bool = True) -> dict[str, Any]:
    """The student with the best validation score; the last of the table if none has a score.

    Args:
        rows: See ``results.json`` in ``docs/quick_start.md``.
        metric: As in its rows. bigger: Whether more of it is better.
    """
    students = [row for row in rows if row["role"] in _STUDENTS]
    scored = [row for row in students if metric in row["valid"]]
    sign = 1 if bigger else -1
    return max(scored, key=lambda row: sign * row["valid"][metric], default=students[-1])


def describe_rows(
    rows: Rows, metric: str, bigger: bool = True, left_out: Optional[dict[str, str]] = None
) -> str:
    """Says which student to use, and why: size, quality, and what less effort gives.

    Args:
        rows, metric, bigger: See :func:`best_student`.
        left_out: What has no row, and why.
    """
    best, taught_by = best_student(rows, metric, bigger), _teacher(rows)
    sentences = []
    if metric in best["valid"]:
        sentences.append(
            f"Use {best['label']}: of all students it has the best validation {metric}, "
            f"{best['valid'][metric]:.4f}."
        )
    if taught_by is not None:
        sentences += [_of_size(best, taught_by), _of_quality(best, taught_by, metric)]
        sentences += [_of_gap(rows, best, taught_by, metric)]
    if any(row["role"] == "distilled" for row in rows):
        sentences += [_of_baselines(rows, metric), _of_worth(rows, best, metric, bigger)]
    if taught_by is not None:
        sentences += [_of_int8(rows, taught_by, metric)]
    sentences += [describe_weights(row["weights"]) for row in rows if row.get("weights")]
    sentences += [f"\nLeft out: {what}, since {why}" for what, why in (left_out or {}).items()]
    return " ".join(filter(None, sentences)).replace(" \n", "\n")


def _teacher(rows: Rows) -> Optional[dict[str, Any]]:
    """What students are compared with: the teacher, or else the team."""
    by_role = {row["role"]: row for row in rows}
    return by_role.get("teacher", by_role.get("team"))


def _test(row: dict[str, Any], metric: str) -> Optional[float]:
    return (row["test"] or {}).get(metric)


def _share(row: dict[str, Any], other: dict[str, Any], metric: str) -> Optional[float]:
    """A row's test score as a share of another row's."""
    own, its = _test(row, metric), _test(other, metric)
    return own / its if own is not None and its else None


def _of_size(best: dict[str, Any], teacher: dict[str, Any]) -> str:
    ratio = teacher["bytes_per_entity"] / best["bytes_per_entity"]
    faster = teacher["latency_ms_per_1k_users"] / best["latency_ms_per_1k_users"]
    return (
        f"It needs {best['bytes_per_entity']:.0f} bytes for each user and item, is "
        f"{_times(ratio, 'smaller', 'larger')} than the {teacher['label']} and ranks "
        f"{_times(faster, 'faster', 'slower')}."
    )


def _of_quality(best: dict[str, Any], teacher: dict[str, Any], metric: str) -> str:
    share = _share(best, teacher, metric)
    return "" if share is None else f"It has {share:.1%} of its test {metric}."


def _of_gap(rows: Rows, best: dict[str, Any], teacher: dict[str, Any], metric: str) -> str:
    alone = next((row for row in rows if row["role"] == "student_alone"), None)
    if alone is None or best is alone:
        return ""
    scores = [_test(row, metric) for row in (teacher, alone, best)]
    if None in scores:
        return ""
    gap = gap_closed(*scores)  # type: ignore[arg-type]
    if gap is None:
        return f"There is no gap to close: the {teacher['label']} does not beat the student alone."
    return f"It closes {gap:.0%} of the gap between student alone and {teacher['label']}."


def _of_baselines(rows: Rows, metric: str) -> str:
    """What the students without distillation reach."""
    found = [
        f"{row['label']} {_test(row, metric):.4f}"
        for row in rows
        if row["role"] in _PLAIN and _test(row, metric) is not None
    ]
    return f"Without distillation, test {metric}: {', '.join(found)}." if found else ""


def _of_worth(rows: Rows, best: dict[str, Any], metric: str, bigger: bool) -> str:
    """Whether distillation was worth it, by validation."""
    plain = [row for row in rows if row["role"] in _PLAIN and metric in row["valid"]]
    taught = [row for row in rows if row["role"] == "distilled" and metric in row["valid"]]
    if not plain or not taught:
        return ""
    other = best_student(plain if best in taught else taught, metric, bigger)
    if best not in taught:
        return (
            f"Distillation was not worth it here: the best distilled student, {other['label']}, "
            f"reaches only {other['valid'][metric]:.4f} on validation."
        )
    own, its = _test(best, metric), _test(other, metric)
    gain = "" if own is None or not its else f", and {own / its - 1:+.1%} on test"
    return (
        f"Distillation was worth it: the best without it, {other['label']}, has "
        f"{other['valid'][metric]:.4f} on validation; this one has "
        f"{best['valid'][metric] - other['valid'][metric]:+.4f} there{gain}."
    )


def _of_int8(rows: Rows, teacher: dict[str, Any], metric: str) -> str:
    row = next((row for row in rows if row["role"] == "teacher_int8"), None)
    share = None if row is None else _share(row, teacher, metric)
    if row is None or share is None:
        return ""
    return (
        f"In int8 the {teacher['label']} itself keeps {share:.1%} of its test {metric}, at "
        f"{row['bytes_per_entity']:.0f} bytes."
    )


def _times(ratio: float, more: str, less: str) -> str:
    return f"{ratio:.1f} times {more}" if ratio >= 1 else f"{1 / ratio:.1f} times {less}"
