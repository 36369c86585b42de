"""What a comparison shows beside its methods: baselines, a team's teachers, rows of a file."""

from collections.abc import Iterable
from typing import Any, Callable

from recbole_freqd.config.complete import trainer_names
from recbole_freqd.core.errors import ConfigError, join_names, short_repr
from recbole_freqd.core.files import read_yaml
from recbole_freqd.jobs.fairness import EQUAL_FOR_ALL
from recbole_freqd.jobs.lineup import why_not_warm
from recbole_freqd.jobs.tuning.space import ALONE, WARM

TEACHER, INT8, MEMBER = "teacher", "teacher_int8", "member "
_OWN = f"{TEACHER} of "
CUT = "cut"
NAMES = {
    INT8: "teacher in int8",
    ALONE: "student alone",
    CUT: "teacher cut to size",
    WARM: "student alone, warm",
}
_ROLES = {TEACHER: "teacher", INT8: INT8, ALONE: "student_alone", CUT: CUT, WARM: "student_warm"}
_SAME_FOR_ALL = (EQUAL_FOR_ALL | {"resume"}) - {"trainer", "teacher"}
Records = dict[str, list[dict[str, Any]]]


def role_of(what: str) -> str:
    """The role of a row, as in the main job's ``results.json``; a team is a ``teacher`` here."""
    if what.startswith((MEMBER, _OWN)):
        return "member" if what.startswith(MEMBER) else "teacher"
    return _ROLES.get(what, "distilled")


def is_student(what: str) -> bool:
    """Whether it is a student; only students are ranked."""
    return role_of(what) not in ("teacher", "member", "teacher_int8")


def baselines(model_class: type, say: Callable[[str], None]) -> list[str]:
    """The students of every comparison; says which baselines are left out, and why."""
    why = why_not_warm(model_class)
    if why is None:
        return [ALONE, CUT, WARM]
    left_out = join_names(NAMES[what] for what in (CUT, WARM))
    say(f"Left out: {left_out}. {model_class.__name__} cannot start warm: {why}.")
    return [ALONE]


def read_rows(file: str) -> tuple[dict[str, list[str]], dict[str, dict[str, Any]]]:
    """Reads rows from a file: each name has a trainer, and keys that override the comparison's.

    Args:
        file: YAML, such as ``RCE-KD by a team: {trainer: RCE-KD, teacher: [...]}``.

    Returns:
        Losses and keys by name.

    Raises:
        ConfigError: The file is missing, a row has no trainer, or a name or key is taken.
    """
    methods: dict[str, list[str]] = {}
    keys: dict[str, dict[str, Any]] = {}
    for name, row in read_yaml(file, "--rows").items():
        losses = trainer_names(row.get("trainer")) if isinstance(row, dict) else []
        if not losses:
            raise ConfigError(
                f"--rows {file}: got {short_repr(row)} for {name}; allowed: keys that include "
                "trainer."
            )
        if role_of(str(name)) != "distilled":
            raise ConfigError(f"--rows {file}: another row has the name {name}. Change it.")
        taken = sorted(_SAME_FOR_ALL & set(row))
        if taken:
            raise ConfigError(
                f"--rows {file}: {name} sets {taken[0]}. That key has to be the same for all "
                "rows. Leave it out."
            )
        methods[str(name)] = losses
        keys[str(name)] = {key: value for key, value in row.items() if key != "trainer"}
    return methods, keys


def with_rows_beside(records: Records, own_teachers: Iterable[str] = ()) -> Records:
    """Adds rows that other runs evaluated: members, int8, teachers of a single row.

    A row appears if every seed has it. It appears once, for all students that it teaches.

    Args:
        records: By the name of their row.
        own_teachers: The names of rows with a teacher that teaches no other row.
    """
    teachers = records.get(TEACHER, [])
    beside = _columns(teachers)
    members = sorted(what for what in beside if what != INT8)
    order = [
        *([TEACHER] if TEACHER in records else []),
        *members,
        *([INT8] if INT8 in beside else []),
    ]
    whole = {TEACHER: teachers, **beside}
    return {
        **{what: whole[what] for what in order},
        **_of_own_teachers(records, own_teachers, [teachers, *beside.values()]),
        **{what: rows for what, rows in records.items() if what != TEACHER},
    }


def _of_own_teachers(
    records: Records, own_teachers: Iterable[str], shown: list[list[dict[str, Any]]]
) -> Records:
    """Rows of teachers that are not shown yet, named after the students that they teach."""
    known = [_told_apart(rows) for rows in shown]
    found: dict[frozenset[Any], tuple[str, list[str], list[dict[str, Any]]]] = {}
    for student in own_teachers:
        for name, rows in _columns(records[student]).items():
            told = _told_apart(rows)
            if not any(told <= other for other in known):
                found.setdefault(told, (name, [], rows))[1].append(student)
    named = {f"{name} of {', '.join(taught)}": rows for name, taught, rows in found.values()}
    return {what: [{**row, "what": what} for row in rows] for what, rows in named.items()}


def _columns(records: list[dict[str, Any]]) -> Records:
    """What some runs evaluated beside themselves: by its name, one row per run."""
    beside: Records = {}
    for record in records:
        rows = record.get("beside", [])
        own: dict[str, Any] = {key: record[key] for key in ("seed", "made_with") if key in record}
        for row, name in zip(rows, numbered([_beside_name(row) for row in rows])):
            beside.setdefault(name, []).append({**row, **own, "what": name})
    return {what: rows for what, rows in beside.items() if len(rows) == len(records)}


def _beside_name(row: dict[str, Any]) -> str:
    if row["role"] in ("teacher", "team"):
        return TEACHER
    return INT8 if row["role"] == INT8 else f"{MEMBER}{row['model']}"


def numbered(names: Iterable[str]) -> list[str]:
    """Numbers the names from their second occurrence on.

    Example:
        >>> numbered(["BPR", "EASE", "BPR"])
        ['BPR', 'EASE', 'BPR 2']
    """
    counts: dict[str, int] = {}
    found = []
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        found.append(f"{name} {counts[name]}" if counts[name] > 1 else name)
    return found


def _told_apart(rows: list[dict[str, Any]]) -> frozenset[Any]:
    """A teacher's weights by seed; its files if an older version kept no hash."""
    return frozenset((row["seed"], row.get("teacher_hash") or row["checkpoint"]) for row in rows)
